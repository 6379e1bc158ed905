"""``siamrpn card``: pictures for a model card, of what weights follow and where not.

All of generated scenes: no data is needed, and the same weights give the same pictures.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from siamrpn_jax.commands.errors import run_or_exit
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import check_place, replacing
from siamrpn_jax.common.released import DEFAULT_WEIGHTS

if TYPE_CHECKING:  # --help must not wait for JAX
    import numpy as np

    from siamrpn_jax.api import Tracker
    from siamrpn_jax.evaluation.failures import SceneFailure

FPS = 25.0
"""Frames a second of the animated picture."""

QUALITY = 75
"""Quality of the strips' WebP file."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Draw a model card's pictures from generated scenes, without any data.

    Writes <weights' name>.webp, an animated picture of a tracked target; search.webp,
    the score map of one of its frames with the centre region; and failures.webp, strips
    of frames in which the weights lose a target that turns upside down, meets a near
    copy, leaves the frame, or moves fast.
    """

    weights: str = DEFAULT_WEIGHTS
    """Name of released weights, a .safetensors file, or a training run's folder."""
    out: Path = Path("docs")
    """Folder for the pictures."""
    seed: int = 15
    """Scene of the animated picture; its mean overlap is printed."""
    length: int = 96
    """Frames of that scene."""
    width: int = 400
    """Width of that scene in pixels; its height is three quarters of it."""
    stride: int = 2
    """Show one of every N frames in the animated picture."""
    center_size: int = 7
    """g, cells a side of the centre region that search.webp shows; 0: no such file."""
    scenes: int = 200
    """Scenes, of seeds 0, 1, …, in which failures are looked for; 0: no strips."""


def run(config: Config) -> "list[SceneFailure]":
    """Tracks through generated scenes and writes the pictures.

    Returns:
        the failures that were found, at most one of a kind.

    Raises:
        InputError: options or weights that cannot be used.
        FileNotFoundError: no such weights.
    """
    _check(config)
    check_place(config.out, "--out")
    # Imported here: ``siamrpn card --help`` must not wait for JAX.
    from siamrpn_jax.api import load
    from siamrpn_jax.commands.tracker_specs import name_of
    from siamrpn_jax.evaluation.failures import TITLES, find_scene_failures

    tracker = load(config.weights)
    _animate(tracker, config.out / f"{name_of(config.weights)}.webp", config)
    if config.center_size:
        _draw_search(config)
    if not config.scenes:
        return []
    found = find_scene_failures(tracker, seeds=range(config.scenes))
    seeds = {failure.how: failure.seed for failure in found}
    for how, title in TITLES.items():
        place = f"scene {seeds[how]:3}: lost" if how in seeds else "never lost"
        print(f"{place}, {title}")
    if found:
        _write_strips(config.out / "failures.webp", found)
    return found


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and runs."""
    run_or_exit(lambda: run(tyro.cli(Config, args=argv, prog="siamrpn card")))


def _check(config: Config) -> None:
    lowest = {"seed": 0, "length": 2, "width": 64, "stride": 1, "scenes": 0}
    for name, low in (lowest | {"center_size": 0}).items():
        value = getattr(config, name)
        if value < low:
            option = name.replace("_", "-")
            raise InputError(f"--{option} is {value}, expected at least {low}")


def _animate(tracker: "Tracker", path: Path, config: Config) -> None:
    import numpy as np

    from siamrpn_jax.api import track
    from siamrpn_jax.evaluation.ope.metrics import overlaps
    from siamrpn_jax.media.animation import AnimationWriter

    frames, truth = _scene(config)
    boxes = []
    with AnimationWriter(
        path, fps=FPS, width=config.width, stride=config.stride
    ) as writer:
        for result in track(frames, truth[0], tracker=tracker):
            writer.write(result.plot())
            boxes.append(result.boxes_ltwh[0])
    overlap = overlaps(np.array(boxes), truth.astype(np.float64))[1:]
    followed = f"overlap {overlap.mean():.2f}, at the end {overlap[-1]:.2f}"
    print(f"scene {config.seed:3}: {followed}")
    _print_size(path)


def _scene(config: Config) -> "tuple[np.ndarray, np.ndarray]":
    """Frames and true boxes ``ltwh`` of the animated picture."""
    from siamrpn_jax.data.scenes.generated import make_sequence

    return make_sequence(
        config.seed,
        length=config.length,
        height=config.width * 3 // 4,
        width=config.width,
    )


def _draw_search(config: Config) -> None:
    from siamrpn_jax.commands.search_picture import draw_search, look
    from siamrpn_jax.model.boxes import ltwh_to_cxcywh
    from siamrpn_jax.weights import load_weights

    loaded = load_weights(config.weights)
    if not loaded.model.config.head.regresses:
        print("no search.webp: the head finds no boxes, and has no centre region")
        return
    frames, truth = _scene(config)
    search = look(
        loaded,
        frames[: config.length // 2 + 1],
        ltwh_to_cxcywh(truth[0]),
        center_size=config.center_size,
    )
    _write_picture(config.out / "search.webp", draw_search(search))


def _write_strips(path: Path, found: "list[SceneFailure]") -> None:
    from siamrpn_jax.evaluation.failures import draw_failures

    _write_picture(path, draw_failures(found))


def _write_picture(path: Path, image: "np.ndarray") -> None:
    """Writes RGB uint8 ``[H, W, 3]`` as WebP."""
    import cv2

    picture = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])[1]
    with replacing(path) as part:
        part.write_bytes(data.tobytes())
    _print_size(path)


def _print_size(path: Path) -> None:
    print(f"{path}  {path.stat().st_size / 1000:.0f} kB")
