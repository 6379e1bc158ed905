"""``experiments/vot_tracker.py``: what the VOT toolkit starts as a tracker."""

import dataclasses
from pathlib import Path

import tyro

from siamrpn_jax.commands.errors import run_or_exit
from siamrpn_jax.common.released import DEFAULT_WEIGHTS

SIZES = ((320, 240), (480, 360), (640, 480), (1280, 720))
"""Frame sizes of most VOT sequences, up to padding."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Answer the VOT toolkit's client over TraX, on the standard streams."""

    weights: str = DEFAULT_WEIGHTS
    """Name of released weights, a .safetensors file, or a training run's folder."""
    pad_to: int = 256
    """Pad frames to multiples of this number of pixels: sizes share a compilation."""
    sizes: tuple[tuple[int, int], ...] = SIZES
    """Width and height of frames to compile for before the client is answered."""
    cache: Path | None = Path("~/.cache/siamrpn-jax")
    """Keep compiled code in this folder: the toolkit starts a process a sequence."""


def run(config: Config) -> None:
    """Loads the tracker, compiles, and answers until the client quits."""
    # Imported here: --help must not wait for JAX.
    import jax

    from siamrpn_jax.api import load
    from siamrpn_jax.common.errors import require
    from siamrpn_jax.evaluation.vot.trax import serve

    require("trax", extra="vot")  # before anything is compiled
    if config.cache is not None:
        jax.config.update("jax_compilation_cache_dir", str(config.cache.expanduser()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    serve(load(config.weights, pad_to=config.pad_to), sizes=config.sizes)


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and runs."""
    run_or_exit(lambda: run(tyro.cli(Config, args=argv, prog="vot_tracker")))
