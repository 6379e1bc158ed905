"""``siamrpn tune``: the tracker's constants for given weights, found on unseen clips.

Writes the weights with their new constants, and beside them a table of all settings
that were tried. What a figure is quoted on must not be tuned on: the weights remember
which sequences were used, and ``siamrpn eval`` says so when it meets them again.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from siamrpn_jax.commands.errors import run_or_exit
from siamrpn_jax.common.errors import InputError, check_least, check_range
from siamrpn_jax.common.released import DEFAULT_WEIGHTS
from siamrpn_jax.data.pairs.pairs import DataConfig


@dataclasses.dataclass(frozen=True)
class Config:
    """Find a tracker's constants on clips whose scores nobody quotes.

    The constants are chosen on real sequences that training held out, 8 or more, and
    move from the present ones as far as cross-validation confirms; with fewer they
    stay. The confidence is also fitted on pasted clips made of held-out images and on
    generated scenes.
    """

    weights: str = DEFAULT_WEIGHTS
    """Name of released weights, a .safetensors file, or a training run's folder."""
    data: tuple[Path, ...] = ()
    """All folders of the training: its held-out part is used. Without any, generated
    scenes fit the confidence and the constants stay. Sequences that training learned
    from are refused by their names, as far as the weights know them."""
    sequences: tuple[Path, ...] = ()
    """Use all sequences below these folders, too; needs --also-quoted."""
    also_quoted: bool = False
    """Permit --sequences. Constants chosen on sequences flatter the tracker there: do
    not quote figures on them."""
    out: Path | None = None
    """The new weights, .safetensors; by default beside the old ones, or here for
    released ones. The table is written beside it, .json."""
    settings: Annotated[int, tyro.conf.arg(metavar="INT")] = 32
    """Settings tried in each of two rounds: wide, then around the best."""
    clips: int = 24
    """Pasted clips, and as many generated ones, for the confidence."""
    learned: int = 0
    """Also use this many sequences that training learned from, spread over their
    origins: for when little real film was held out. The weights follow them too well.
    """
    frames: int = 60
    """Frames of a clip at most."""
    seed: int = 0
    """Seed of the clips and of the settings."""
    validation_fraction: float = DataConfig.validation_fraction
    """Share that training held out (its --data.validation-fraction)."""
    hold_out: tuple[str, ...] = ()
    """Sequences that training held out by name (its --data.hold-out)."""

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range, and on sequences one may quote."""
        check_least(self, 2, "settings", "clips", "frames")
        check_least(self, 0, "seed", "learned")
        check_range(self, 0, 1, "validation_fraction")
        if not self.validation_fraction and not self.hold_out:
            raise InputError(
                "validation_fraction is 0: expected more, or names in --hold-out"
            )
        if self.sequences and not self.also_quoted:
            raise InputError(
                "--sequences searches on sequences whose scores you may quote, and "
                "constants chosen on them flatter the tracker there: use --data, whose "
                "held-out part serves, or say --also-quoted and never quote figures on "
                "them"
            )


def run(config: Config) -> dict[str, Any]:
    """Makes clips, searches, prints, and writes weights and table.

    Returns:
        what the table's file holds.

    Raises:
        InputError: weights, folders or sequences that cannot be used.
        FileNotFoundError: no such weights.
    """
    from siamrpn_jax.commands.tuning import tune

    return tune(config)


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and runs."""
    args = list(sys.argv[1:] if argv is None else argv)
    run_or_exit(lambda: run(tyro.cli(Config, args=args, prog="siamrpn tune")))
