"""``siamrpn demo``: objects of a generated scene, followed, drawn and scored."""

import dataclasses
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from siamrpn_jax.commands.errors import ending_cleanly, run_or_exit
from siamrpn_jax.common.errors import check_least
from siamrpn_jax.common.files import check_place
from siamrpn_jax.common.released import DEFAULT_WEIGHTS
from siamrpn_jax.deploy import Runtime

if TYPE_CHECKING:  # --help must not wait for JAX
    import numpy as np

    from siamrpn_jax.api import Results

LENGTH = 75
"""Frames of the scene."""

SIZE = 480, 360
"""Its width and height in pixels."""

FPS = 25
"""Its frames a second."""

MOST_OBJECTS = 4
"""Objects that are followed, the first of which leaves the picture."""

WHOLE = 0.99
"""Share of a box within the picture that is all of it, but for rounding."""

PRESENT = 0.1
"""Share of its box within the picture from which on an object is in it."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Follow objects of a generated scene, one of which leaves it, and show everything.

    In seconds, without any file: a scene is made, its objects are followed and drawn,
    and their boxes are compared with the true ones.
    """

    out: Path = Path("demo")
    """Folder for the films and the animated picture."""
    weights: str = DEFAULT_WEIGHTS
    """Name of released weights, a .safetensors file, or a training run's folder."""
    seed: int = 89
    """Number of the scene: others look otherwise, and some are harder."""
    runtime: Runtime = "auto"
    """What computes: see siamrpn track."""

    def __post_init__(self) -> None:
        """Checks the seed."""
        check_least(self, 0, "seed")


def run(config: Config) -> None:
    """Tracks, writes the films, and prints figures and what to try next.

    Raises:
        InputError: unusable weights, or a film that cannot be written.
        OSError: the folder cannot be written to.
    """
    check_place(config.out, "--out")
    # Imported here: ``siamrpn demo --help`` must not wait for JAX.
    from siamrpn_jax.api import load, track

    frames, truth = make_scene(config.seed)
    print(
        f"scene   {len(frames)} frames of {SIZE[0]}x{SIZE[1]} pixels, objects: "
        f"{truth.shape[1]}; object 0 leaves the picture",
        flush=True,
    )
    tracker = load(config.weights, runtime=config.runtime)
    with ending_cleanly():
        results = list(track(frames, truth[0], tracker=tracker))
        paths = _write(config.out, results)
    print(_figures(results, truth))
    print(f"speed   {_speed(results)}")
    for name, path in paths.items():
        print(f"{name:<8}{path}")
    print(_next_steps(paths["scene"], truth[0, 0]))


def make_scene(seed: int) -> tuple["np.ndarray", "np.ndarray"]:
    """Renders the scene of a seed.

    Returns:
        Frames, RGB uint8 [T, H, W, 3], and boxes, ``ltwh`` float32 [T, N, 4]: NaN where
        an object is out of the picture. All are wholly in it in the first frame, but
        maybe the target, which is the first of them.
    """
    import numpy as np

    from siamrpn_jax.data.scenes.generated import Scene

    width, height = SIZE
    scene = Scene(seed, height=height, width=width).harder("leave", length=LENGTH)
    frames = np.stack([scene.render(time)[0] for time in range(LENGTH)])
    boxes = np.stack([scene.boxes(time) for time in range(LENGTH)])
    inside = share_inside(boxes, SIZE)
    whole = np.flatnonzero(inside[0, 1:] > WHOLE) + 1
    followed = [0, *whole[: MOST_OBJECTS - 1]]
    boxes[inside < PRESENT] = np.nan
    return frames, boxes[:, followed]


def share_inside(boxes: "np.ndarray", size: tuple[int, int]) -> "np.ndarray":
    """The share of each box that lies within the picture.

    Args:
        boxes: ``ltwh`` [..., 4].
        size: width and height of the picture.

    Returns:
        [...] in 0..1.
    """
    import numpy as np

    start, extent = boxes[..., :2], boxes[..., 2:]
    end = np.minimum(start + extent, size)
    sides = np.maximum(end - np.maximum(start, 0), 0)
    return sides.prod(axis=-1) / extent.prod(axis=-1)


def score(results: list["Results"], truth: "np.ndarray", index: int) -> float:
    """The success AUC of an object's boxes; the first frame does not count."""
    import numpy as np

    from siamrpn_jax.evaluation.ope.metrics import evaluate

    found = np.stack([result.boxes_ltwh[index] for result in results])
    return evaluate(found, truth[:, index]).auc


def spans(numbers: list[int]) -> str:
    """Writes ascending numbers down as ranges.

    Example:
        >>> spans([3, 4, 5, 9])
        '3-5, 9'
    """
    if not numbers:
        return "never"
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    pairs = zip(starts, ends, strict=True)
    return ", ".join(f"{a}-{b}" if a < b else f"{a}" for a, b in pairs)


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and runs."""
    run_or_exit(lambda: run(tyro.cli(Config, args=argv, prog="siamrpn demo")))


def _write(out: Path, results: list["Results"]) -> dict[str, Path]:
    """Writes the scene as a film, and with boxes as a film and an animated picture."""
    from siamrpn_jax.media.animation import AnimationWriter
    from siamrpn_jax.media.video import VideoWriter

    paths = {
        "scene": out / "scene.webm",
        "film": out / "tracked.webm",
        "picture": out / "tracked.webp",
    }
    drawn = [result.plot() for result in results]
    with VideoWriter(paths["scene"], fps=FPS, size=SIZE) as film:
        for result in results:
            film.write(result.frame)
    with VideoWriter(paths["film"], fps=FPS, size=SIZE) as film:
        for frame in drawn:
            film.write(frame)
    with AnimationWriter(paths["picture"], fps=FPS, width=SIZE[0], stride=2) as picture:
        for frame in drawn:
            picture.write(frame)
    return paths


def _figures(results: list["Results"], truth: "np.ndarray") -> str:
    """A row for each object, and what the columns are."""
    import numpy as np

    rows = ["", f"{'object':<8}{'AUC':<6}{'out of the picture':<20}lost"]
    for index in range(truth.shape[1]):
        out = np.flatnonzero(np.isnan(truth[:, index, 0])).tolist()
        lost = [result.index for result in results if result.lost[index]]
        auc = score(results, truth, index)
        rows.append(f"{index:<8}{auc:<6.2f}{spans(out):<20}{spans(lost)}")
    rows += [
        "AUC: success against the true boxes, 0 to 1, where the object is in the",
        "picture; then: frames in which it is out of it, or is said to be lost.",
        "",
    ]
    return "\n".join(rows)


def _speed(results: list["Results"]) -> str:
    """The speed in a line, without the first two frames, which compile."""
    steady = statistics.median(result.speed_ms for result in results[2:])
    started = sum(result.speed_ms for result in results[:2]) / 1000
    count = len(results[0].lost)
    return (
        f"{steady:.1f} ms a frame for all {count} objects, after {started:.1f} s for "
        "the first two frames"
    )


def _next_steps(scene: Path, box: "np.ndarray") -> str:
    numbers = ",".join(f"{value:.0f}" for value in box)
    return f"""
next
  siamrpn track --video {scene} --box {numbers}   # or a film of yours
  siamrpn app {scene}   # label by mouse: pip install 'siamrpn-jax[app]'
  siamrpn train   # generated scenes: pip install 'siamrpn-jax[train]'
  siamrpn --help   # all commands"""
