"""``siamrpn inspect``: what the network is going to see, looked at before it trains.

Writes ``pairs.png``, a sheet of pairs with target, anchors and labels, and
``counts.json``; prints the counts: pairs that no anchor fits, sizes and motion.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from siamrpn_jax.commands.errors import run_or_exit
from siamrpn_jax.common.errors import check_least
from siamrpn_jax.data.crops.windows import AugmentConfig
from siamrpn_jax.data.pairs.pairs import DataConfig
from siamrpn_jax.model.config import ModelConfig
from siamrpn_jax.presets import PRESETS
from siamrpn_jax.training.config import TargetConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Show pairs as the network sees them, and count what matters."""

    folders: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders as for training, prepared or plain; none: generated scenes."""
    preset: Literal["small", "base", "paper"] = "small"
    """The preset whose sizes, augmentation, anchors and labels are the defaults of the
    options below."""
    out: Path = Path("inspection")
    """Folder for the sheet and the counts."""
    pairs: int = 1000
    """Number of pairs to count."""
    show: int = 24
    """Number of pairs on the sheet."""
    data: DataConfig
    augment: AugmentConfig
    targets: TargetConfig
    model: ModelConfig

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        check_least(self, 1, "pairs", "show")


def run(config: Config) -> dict[str, Any]:
    """Draws pairs, counts, prints and writes.

    Returns:
        what ``counts.json`` holds.

    Raises:
        InputError: unusable data; and all that opening it raises.
    """
    from siamrpn_jax.commands.inspection import inspect

    return inspect(config)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: ``inspect [FOLDER …] [OPTIONS]``."""
    args = list(sys.argv[1:] if argv is None else argv)

    def parse(preset: str) -> Config:
        default = make_config(preset)
        return tyro.cli(Config, prog="siamrpn inspect", args=args, default=default)

    run_or_exit(lambda: run(parse(parse("small").preset)))


def make_config(preset: str) -> Config:
    """The config with the values of a preset."""
    recipe = PRESETS[preset]()
    return Config(
        data=recipe.data,
        augment=recipe.augment,
        targets=recipe.train.targets,
        model=recipe.model,
    )
