"""``siamrpn ablate``: the studies of section 5.6, as the paper prints them.

A study is a folder::

    plan.json            its options and its jobs
    jobs/<job>/          a training run; beside its files <data set>.json, the figures
                         of ``siamrpn eval-vot``, and problem.txt, why it failed
    table.json           all figures
    index.html           the table and the figure (siamrpn-jax[report])
"""

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from siamrpn_jax.commands.errors import run_or_exit
from siamrpn_jax.commands.studies import Source
from siamrpn_jax.common.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Repeat a study of section 5.6: train what it takes, evaluate, draw its table.

    Without --data a reduced study of at most ten minutes on two cores: small networks,
    generated scenes. Its figures show that everything works, and compare with none.
    """

    study: Annotated[
        Literal["anchors", "data-size", "center-size", "frozen", "backbone"],
        tyro.conf.Positional,
    ]
    """anchors: ratios, Table 3. data-size: more and more videos, Fig. 10. center-size:
    g of section 4.3, Fig. 11. frozen or backbone: conv1-3 fixed or trained, pretrained
    or not."""
    out: Path | None = None
    """Folder of the study; default runs/ablate/<study>. What is there is not run
    again, and what was stopped goes on."""
    data: tuple[str, ...] = ()
    """Folders of the first training set, ILSVRC-VID in the paper."""
    second: tuple[str, ...] = ()
    """Folders of the second one, YouTube-BB in the paper."""
    dataset: tuple[
        Literal["vot2015", "vot2016", "vot2017", "vot2018", "vot2019"], ...
    ] = ()
    """VOT data sets to evaluate on, one or several years."""
    root: tuple[Path, ...] = ()
    """Folder of each data set, in the same order; see ``siamrpn eval-vot``."""
    preset: Literal["small", "paper", "pysot", "dasiamrpn"] = "paper"
    """Preset to train."""
    train: str = ""
    """Further options of ``siamrpn train`` for every job, in one string:
    --train='--epochs 20 --workers 16'."""
    shares: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Shares of the videos, for data-size."""
    center_sizes: tuple[int, ...] = ()
    """Values of g, for center-size; default: all that the score map has."""
    backbone: str | None = None
    """The pretrained backbone, for frozen: see ``siamrpn train --backbone``."""
    list: bool = False
    """Run nothing; print a command for each job, which any machine can run that sees
    the folder. Afterwards --gather."""
    job: str | None = None
    """Run this job alone, as --list prints it."""
    gather: bool = False
    """Run nothing; make table and page of what is there."""


def run(config: Config) -> dict[str, Any]:
    """Runs the jobs that are left, and makes the table.

    Returns:
        What ``table.json`` holds; nothing with ``list`` or ``job``.

    Raises:
        training.run.Stopped: a signal stopped a training, after its checkpoint.
        InputError: options that do not go together or are not those that the study was
            started with; with ``job``, whatever stopped it.
    """
    check_options(config)
    from siamrpn_jax.commands.ablation import ablate  # --help must not wait for JAX

    return ablate(config)


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and runs."""
    run_or_exit(lambda: run(tyro.cli(Config, args=argv, prog="siamrpn ablate")))


def check_options(config: Config) -> None:
    """Raises InputError on options that do not go together."""
    if len(config.dataset) != len(config.root):
        raise InputError(
            f"{len(config.dataset)} --dataset and {len(config.root)} --root, expected "
            "a folder for each data set"
        )
    if bool(config.data) != bool(config.dataset):
        raise InputError("expected --data and --dataset together, or neither of them")
    if config.second and not config.data:
        raise InputError("--second: expected --data, the first training set, too")
    if (config.list, bool(config.job), config.gather).count(True) > 1:
        raise InputError("--list, --job and --gather exclude each other")
    if not all(0 < share <= 1 for share in config.shares) or not config.shares:
        raise InputError(
            f"shares are {config.shares}, expected some above 0 and at most 1"
        )


def source_of(config: Config, *, cells: int) -> Source:
    """What the study trains on and is judged by.

    Args:
        config: of the command.
        cells: along one side of the score map.

    Raises:
        InputError: a centre size that the score map does not have.
    """
    known = tuple(range(2 - cells % 2, cells + 1, 2))
    if unknown := set(config.center_sizes) - set(known):
        raise InputError(
            f"--center-sizes {min(unknown)} on a map of {cells}x{cells} cells: "
            f"expected some of {', '.join(map(str, known))}"
        )
    return Source(
        config.data,
        config.second,
        config.dataset,
        config.shares,
        config.center_sizes or known,
        config.backbone,
    )


def job_command(config: Config, name: str) -> str:
    """The command line that runs one job of a study."""
    words = ["siamrpn", "ablate", config.study]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in ("study", "list", "job", "gather") or value == field.default:
            continue
        option = f"--{field.name.replace('_', '-')}"
        if isinstance(value, tuple):
            words += [option, *map(str, value)]
        else:
            words.append(f"{option}={value}")  # it may begin with dashes itself
    return shlex.join([*words, "--job", name])
