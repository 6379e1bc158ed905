"""``siamrpn track``: follow targets through a film, write it annotated and as CSV."""

import contextlib
import csv
import dataclasses
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from siamrpn_jax.commands.errors import run_or_exit
from siamrpn_jax.common.errors import InputError

if TYPE_CHECKING:  # --help must not wait for JAX
    import numpy as np

    from siamrpn_jax.api import Results
    from siamrpn_jax.media.animation import AnimationWriter
    from siamrpn_jax.media.video import Video

DEFAULT_FPS = 25.0
"""Speed of a film whose source declares none."""

_COLUMNS = ("frame", "object", "x", "y", "w", "h", "score", "confidence", "lost")
"""Columns of boxes.csv; ``lost`` is 0 or 1."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Track one or several targets through a film."""

    video: str
    """Film, folder of images or of a sequence (img/), pattern such as 'frames/*.png',
    or 'camera', which Ctrl-C ends."""
    box: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Target in the first frame as x,y,w,h: top-left corner and size in pixels.
    Once for each target. Without it, the mouse draws one."""
    weights: str = "small"
    """Name of released weights, a .safetensors file, or a training run's folder."""
    out: Path | None = None
    """Folder for boxes.csv and the annotated film; default tracks/<video's name>."""
    format: Literal["webm", "mp4"] = "webm"
    """Annotated film: webm (VP8), or mp4 (H.264; needs siamrpn-jax[video])."""
    animation: Path | None = None
    """Also write a small animated picture for a page, of a short film: its frames are
    held in memory. FILE.webp is smallest; .gif, .png, .avif where OpenCV has them."""
    animation_width: int = 480
    """Width of the animated picture in pixels, or the film's if that is less."""
    animation_stride: int = 2
    """Show one of every N frames in the animated picture."""


def run(config: Config) -> None:
    """Tracks, and writes ``boxes.csv`` and the annotated film.

    Raises:
        InputError: a bad box, video, or weights file.
        FileNotFoundError: no such video.
    """
    boxes = [parse_box(text) for text in config.box]

    # Imported here: ``siamrpn track --help`` must not wait for JAX.
    from siamrpn_jax.api import load, track
    from siamrpn_jax.media.video import Video

    video = Video(config.video)
    frames = iter(video)
    first = next(frames, None)
    if first is None:
        raise InputError(f"{config.video}: no frames")
    animation = _open_animation(config, fps=video.fps or DEFAULT_FPS)
    targets = boxes or _ask_for_box(first)
    tracker = load(config.weights)
    out = config.out or Path("tracks") / video.name
    results = track(itertools.chain([first], frames), targets, tracker=tracker)
    film, table = out / f"{video.name}.{config.format}", out / "boxes.csv"
    if film.exists() and film.resolve() == Path(config.video).resolve():
        raise InputError(f"{film}: is the video itself, choose another --out")
    speeds = _write(results, video, first, film=film, table=table, animation=animation)
    print(f"boxes  {table}\nfilm   {film}")
    if animation:
        print(f"anim   {animation.path}")
    print(_speed_line(speeds))


def parse_box(text: str) -> tuple[float, ...]:
    """Reads ``x,y,w,h``.

    Raises:
        InputError: naming the text and what was expected.
    """
    try:
        box = tuple(float(field) for field in re.split(r"[,\s]+", text.strip()))
    except ValueError:
        box = ()
    if len(box) != 4:
        raise InputError(f"--box {text!r}: expected four numbers x,y,w,h")
    return box


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and runs."""
    config = tyro.cli(Config, args=argv, prog="siamrpn track")
    run_or_exit(lambda: run(config))


def _ask_for_box(frame: "np.ndarray") -> "np.ndarray":
    from siamrpn_jax.media.window import ask_for_box

    return ask_for_box(frame)


def _open_animation(config: Config, *, fps: float) -> "AnimationWriter | None":
    from siamrpn_jax.media.animation import AnimationWriter

    if config.animation is None:
        return None
    width, stride = config.animation_width, config.animation_stride
    return AnimationWriter(config.animation, fps=fps, width=width, stride=stride)


def _write(
    results: Iterator["Results"],
    video: "Video",
    first: "np.ndarray",
    *,
    film: Path,
    table: Path,
    animation: "AnimationWriter | None",
) -> list[float]:
    """Writes all files, and returns the milliseconds of each frame.

    Ctrl-C ends what has no end of its own, a camera, and its files are kept.
    """
    from tqdm import tqdm

    from siamrpn_jax.common.files import replacing
    from siamrpn_jax.media.video import VideoWriter

    size = (first.shape[1], first.shape[0])
    fps = video.fps or DEFAULT_FPS
    speeds: list[float] = []
    with (
        VideoWriter(film, fps=fps, size=size) as writer,
        replacing(table) as part,
        open(part, "w", newline="", encoding="utf-8") as file,
        animation or contextlib.nullcontext(),
        tqdm(results, total=video.length, disable=None) as shown,
    ):
        rows = csv.writer(file)
        rows.writerow(_COLUMNS)
        try:
            for result in shown:
                drawn = result.plot()
                writer.write(drawn)
                if animation:
                    animation.write(drawn)
                rows.writerows(_rows(result))
                speeds.append(result.speed_ms)
        except KeyboardInterrupt:
            if video.length is not None or not speeds:
                raise
    return speeds


def _rows(result: "Results") -> list[list[object]]:
    targets = zip(
        result.object_ids,
        result.boxes_ltwh,
        result.scores,
        result.confidence,
        result.lost,
        strict=True,
    )
    return [
        [
            result.index,
            number,
            *(f"{v:.3f}" for v in box),
            f"{score:.4f}",
            f"{confidence:.4f}",
            int(lost),
        ]
        for number, box, score, confidence, lost in targets
    ]


def _speed_line(speeds: list[float]) -> str:
    """Leaves out the first two frames, which compile ``init`` and ``update``."""
    steady = speeds[2:]
    if not steady:
        return f"frames {len(speeds)}"
    return f"frames {len(speeds)}, {1000 * len(steady) / sum(steady):.1f} frames/s"
