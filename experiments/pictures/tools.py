"""What the makers of pictures share: commands, films, files of WebP."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import replacing
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.media.video import VideoWriter

MAX_BYTES = 150_000
"""What a picture of the documentation may measure."""

QUALITIES = (90, 80, 70, 60, 50, 40)
"""Qualities of WebP, tried until a picture is small enough."""

FILM = {"seed": 7, "length": 73, "height": 360, "width": 480}
"""The generated scene that is tracked and labelled."""

SECOND_BOX = "79,39,128,113"
"""A second object of its first frame."""

DPI = 110
"""Dots an inch of figures by matplotlib."""

Image = np.ndarray | Path
"""RGB uint8 ``[H, W, 3]``, or a file that is WebP already."""


class Group(NamedTuple):
    """Pictures that are made together."""

    names: tuple[str, ...]
    """Their files in ``docs``."""
    make: Callable[[Path], Mapping[str, Image]]
    """Makes them in an empty folder, by name."""


def siamrpn(*words: str | Path) -> None:
    """Runs a command of the package as a user does.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    subprocess.run([program(), *map(str, words)], check=True)


def program() -> Path:
    """The command line's script beside this interpreter."""
    return Path(sys.executable).with_name("siamrpn")


def write_film(path: Path) -> tuple[str, np.ndarray]:
    """Writes the film; returns its first box for ``--box``, and its frames."""
    frames, boxes = make_sequence(**FILM)
    size = FILM["width"], FILM["height"]
    with VideoWriter(path, fps=25, size=size) as film:
        for frame in frames:
            film.write(frame)
    return ",".join(str(round(x)) for x in boxes[0].tolist()), frames


def read_png(path: Path) -> np.ndarray:
    """A picture that a command has written: RGB uint8 ``[H, W, 3]``."""
    picture = cv2.imread(str(path))
    if picture is None:
        raise InputError(f"{path}: no picture, expected one of the command")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def figure_pixels(figure: Any) -> np.ndarray:
    """A figure of matplotlib as RGB uint8 ``[H, W, 3]``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def beside(*pictures: np.ndarray, gap: int = 8) -> np.ndarray:
    """Pictures side by side on white, their upper ends in a line."""
    height = max(len(picture) for picture in pictures)
    columns = []
    for picture in pictures:
        rows = (0, height - len(picture))
        columns += [
            np.pad(picture, (rows, (0, 0), (0, 0)), constant_values=255),
            np.full((height, gap, 3), 255, np.uint8),
        ]
    return np.concatenate(columns[:-1], axis=1)


def shrink(picture: np.ndarray, width: int) -> np.ndarray:
    """The picture with this width, if it is wider."""
    rows, columns = picture.shape[:2]
    if columns <= width:
        return picture
    size = width, round(rows * width / columns)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def save(path: Path, image: Image) -> None:
    """Writes a picture as WebP, in the best quality that is small enough.

    Raises:
        InputError: it is too large in any.
    """
    data = image.read_bytes() if isinstance(image, Path) else encode(image)
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: {len(data):,} bytes, expected at most {MAX_BYTES:,}")
    with replacing(path) as part:
        part.write_bytes(data)
    print(f"{path}  {len(data) / 1000:.0f} kB", flush=True)


def encode(picture: np.ndarray) -> bytes:
    """RGB uint8 ``[H, W, 3]`` as WebP; without loss where that is small enough."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    data = b""
    for quality in (101, *QUALITIES):  # above 100: without loss
        options = [cv2.IMWRITE_WEBP_QUALITY, quality]
        data = cv2.imencode(".webp", bgr, options)[1].tobytes()
        if len(data) <= MAX_BYTES // 2:
            break
    return data
