"""``siamrpn train``: from pairs to released weights.

A run is a folder, see ``training.run``; at the end there are also::

    weights.safetensors    the result, with its model card
    losses.png, strip.png  curves, and unseen scenes being tracked
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from siamrpn_jax.commands.errors import train_or_exit
from siamrpn_jax.common.errors import InputError, check_least
from siamrpn_jax.presets import PRESETS, Recipe
from siamrpn_jax.training.config import RunOptions

if TYPE_CHECKING:
    from siamrpn_jax.training.logs import MetricWriter

DESCRIPTION = """\
Train a tracker. The word before the options chooses a preset, whose values are the
defaults shown. The options that matter first:

run: --out FOLDER, --resume;

data: --data FOLDER [FOLDER ...], --weights NUMBER [NUMBER ...];

length: --epochs, --steps-per-epoch, --batch-size;

start: --init WEIGHTS (train on from them) or --backbone WEIGHTS;

machine: --workers (processes that feed an accelerator), --devices."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunOptions):
    """Train a tracker."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    preset: tyro.conf.Suppress[str | None] = None
    """What the recipe was called, for the model card."""
    init: str | None = None
    """Continue from these weights (name, file or run). Network and tracking constants
    come from them, unless other options change them. --model.head.kind hybrid, with
    --model.anchors.ratios 1, takes features and boxes of a depthwise head."""
    backbone: str | None = None
    """Start from this backbone: a file or run of ``siamrpn pretrain``, a tracker's
    weights, or a PyTorch file (alexnet-bn.pth, torchvision's AlexNet, SiamFC, …). The
    normalisation of the input comes with it, unless options change it."""
    evaluate: int = 8
    """Unseen generated scenes to track at the end; 0: none."""

    def __post_init__(self) -> None:
        """Raises InputError on values that are out of range or exclude each other."""
        super().__post_init__()
        check_least(self, 0, "evaluate")
        if self.init and self.backbone:
            raise InputError(
                f"init {self.init} brings a backbone of its own: drop it, or backbone "
                f"{self.backbone}"
            )


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What a run's folder remembers of how it was started."""

    recipe: Recipe
    """Everything that decides what weights come out."""
    init: str | None
    """The weights it started from, or None for random ones."""
    command: str
    """The command line, for the model card."""
    backbone: str | None = None
    """The backbone it started from, or None."""
    preset: str | None = None
    """What the recipe was called before options changed it."""
    prepared: dict[str, str] = dataclasses.field(default_factory=dict)
    """Fingerprints of the prepared folders and of the teacher's files."""
    tuned_on: dict[str, str] = dataclasses.field(default_factory=dict)
    """Fingerprints and names of the sequences on which the tracking constants of the
    first weights were chosen."""
    trained_on: str = ""
    """The videos that the first weights learned from, see ``cards.pack_names``."""


def run(config: Config, *, writers: "Sequence[MetricWriter]" = ()) -> dict[str, Any]:
    """Trains, evaluates on unseen scenes, and writes the run's folder.

    Args:
        config: what to train, and where.
        writers: where metrics go beside ``metrics.jsonl`` and TensorBoard files; used
            by the first process only.

    Returns:
        the model card of the weights; empty in all processes but the first.

    Raises:
        training.run.Stopped: a signal stopped the run, after its checkpoint.
        InputError: the run exists already, the batch does not fit the devices, the loss
            is not finite, or processes do not fit together; nothing to resume, or a run
            of another config; unusable data; the other processes cannot be joined.
    """
    from siamrpn_jax.commands.train_task import train

    return train(config, writers)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: ``train [PRESET] [OPTIONS]``; the default preset is ``small``."""
    args = list(sys.argv[1:] if argv is None else argv)
    train_or_exit(lambda: parse(args), run)


def parse(args: list[str]) -> Config:
    """The command line as a config, completed by the run or weights it starts from."""
    preset = args[0] if args and args[0] in PRESETS else None
    options = args[1:] if preset else args
    if "--preset" in options:
        raise InputError(
            f"the preset is the first word: siamrpn train {'|'.join(PRESETS)} [OPTIONS]"
        )
    name = preset or "small"
    default = Config(recipe=PRESETS[name](), preset=name)
    config = parse_options(options, default)  # --help ends here, without JAX
    from siamrpn_jax.commands.train_task import complete

    return complete(config, options, default, named=bool(preset))


def parse_options(options: list[str], default: Config) -> Config:
    """The command line as a config; what it leaves open is as in ``default``."""
    return tyro.cli(
        Config,
        prog=f"siamrpn train [{'|'.join(PRESETS)}]",
        description=DESCRIPTION,
        args=options,
        default=default,
    )
