"""``siamrpn pretrain``: a backbone learns to classify images (ImageNet), to start from.

A run is a folder, see ``training.run``; at the end there are also
``weights.safetensors``, the backbone alone with its model card, for ``siamrpn train
--backbone``, and the curves ``losses.png``.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from siamrpn_jax.commands.errors import train_or_exit
from siamrpn_jax.common.configs import check_finite
from siamrpn_jax.common.errors import InputError, check_least
from siamrpn_jax.data.pairs.labelled import LabelledConfig
from siamrpn_jax.model.config import BackboneConfig, feature_size
from siamrpn_jax.presets import PRESETS
from siamrpn_jax.training.config import (
    ClassifierConfig,
    ClassifierTrainConfig,
    RunOptions,
)

if TYPE_CHECKING:
    from siamrpn_jax.training.logs import MetricWriter

_USUAL_SIZE = 224


@dataclasses.dataclass(frozen=True)
class PretrainRecipe:
    """Everything that decides what weights come out of a pretraining run."""

    train: Annotated[ClassifierTrainConfig, tyro.conf.arg(name="")]
    data: LabelledConfig
    model: ClassifierConfig
    batch_size: int = 256
    """Images in an optimizer step, over all devices."""
    seed: int = 0
    """Seed of the first weights; the images have a seed of their own."""

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        check_finite(self)
        check_least(self, 1, "batch_size")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunOptions):
    """Train a backbone to classify images; trackers start from it by --backbone."""

    recipe: Annotated[PretrainRecipe, tyro.conf.arg(name="")]
    preset: tyro.conf.Suppress[str | None] = None
    """Whose backbone it is, for the model card."""
    out: Path = Path("runs/pretrain")
    """Folder of the run."""
    validate: int = 0
    """How many held-out images are classified after each epoch; 0: all. At the end it
    is all of them."""

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        super().__post_init__()
        check_least(self, 0, "validate")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What a run's folder remembers of how it was started."""

    recipe: PretrainRecipe
    """With the number of steps as it follows from the images."""
    classes: tuple[str, ...]
    """Names of the classes, by their numbers."""
    command: str
    """The command line, for the model card."""
    preset: str | None = None
    """Whose backbone it is."""


def make_recipe(preset: str = "paper") -> PretrainRecipe:
    """The recipe for the backbone of a tracker's preset, with the input it wants."""
    model = PRESETS[preset]().model
    size = _image_size(model.backbone)
    network = ClassifierConfig(model.backbone, model.input, image_size=size)
    return PretrainRecipe(ClassifierTrainConfig(), LabelledConfig(), network)


def run(config: Config, *, writers: "Sequence[MetricWriter]" = ()) -> dict[str, Any]:
    """Trains, classifies held-out images, and writes the run's folder.

    Args:
        config: what to train, and where.
        writers: where metrics go beside ``metrics.jsonl`` and TensorBoard files; used
            by the first process only.

    Returns:
        the model card of the backbone; empty in all processes but the first.

    Raises:
        training.run.Stopped: a signal stopped the run, after its checkpoint.
        InputError: the run exists already, the batch does not fit the devices, the loss
            is not finite, or processes do not fit together; nothing to resume, or a run
            of another config; unusable data; the other processes cannot be joined.
        ImageError: an image that cannot be decoded.
    """
    from siamrpn_jax.commands.pretrain_task import pretrain

    return pretrain(config, writers)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: ``pretrain [PRESET] --data DIR``; the default is ``paper``."""
    args = list(sys.argv[1:] if argv is None else argv)
    train_or_exit(lambda: parse(args), run)


def parse(args: list[str]) -> Config:
    """The command line as a config, completed by the run that it resumes."""
    preset = args[0] if args and args[0] in PRESETS else None
    options = args[1:] if preset else args
    name = preset or "paper"
    default = Config(recipe=make_recipe(name), preset=name)
    config = parse_options(options, default)  # --help ends here, without JAX
    if not config.resume or preset:
        return config
    from siamrpn_jax.commands.pretrain_task import complete

    return complete(config, options, default)


def parse_options(options: list[str], default: Config) -> Config:
    """The command line as a config; what it leaves open is as in ``default``."""
    return tyro.cli(
        Config,
        prog=f"siamrpn pretrain [{'|'.join(PRESETS)}]",
        description="Train a backbone to classify images, from which trackers start by "
        "--backbone; the word before the options says whose backbone.",
        args=options,
        default=default,
    )


def _image_size(config: BackboneConfig) -> int:
    """The largest up to the usual size that all strides divide exactly."""
    for size in range(_USUAL_SIZE, 0, -1):
        with contextlib.suppress(InputError):
            feature_size(config, size)
            return size
    raise InputError(f"no image of up to {_USUAL_SIZE} pixels fits {config}")
