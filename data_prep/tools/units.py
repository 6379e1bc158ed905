"""What the readers of annotation tools share: units, tracks, and places of files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.shapes import LabelledObject
from data_prep.tracks import Frame, PreparationError, Track, VideoFrame
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import inside
from siamrpn_jax.data.read.formats import looks_like_corners, no_target
from siamrpn_jax.data.read.images import read_size

BROKEN = (np.inf, np.inf, np.inf, np.inf)
"""A box that cannot be read: the writer rejects it."""


class LabelledStill(NamedTuple):
    """A unit of any tool's: an image and its objects."""

    path: Path
    """Where they are annotated."""

    image: Path

    objects: tuple[LabelledObject, ...]

    relative: bool
    """Whether they are in fractions of the image, not in pixels."""

    size: tuple[int, int] | None = None
    """Annotated width and height of the image, where the tool says them."""


class Unreadable(NamedTuple):
    """A unit that is a rejection: labels that belong to nothing, or cannot be read."""

    path: Path
    reason: str
    records: int = 1
    """How many records are lost by it."""


def key_of(raw: Path, path: Path) -> str:
    """The key of a file's unit: its place below the raw data."""
    return path.relative_to(raw).as_posix()


def make_track(
    key: str,
    name: str,
    frames: Sequence[Frame],
    numbers: Sequence[int],
    boxes: Sequence[Sequence[float]],
    *,
    seen: Sequence[float] | None = None,
    category: str = "",
    relative: bool = False,
    size: tuple[int, int] | None = None,
    sizes: Sequence[tuple[int, int] | None] = (),
    outlines: Sequence[tuple[np.ndarray, ...]] = (),
) -> Track:
    """A track of a unit; arguments as the fields of ``Track``.

    Args:
        key: of the unit.
        name: of the target in it.
        frames: where their pixels are.
        numbers: of the frames.
        boxes: ``ltwh``; those of no target are absent, but for negative sides.
        seen: visible shares, 1 by default.
        category: of the target.
        relative: whether boxes and outlines are fractions.
        size: annotated width and height of the frames.
        sizes: the same of each frame, where they are annotated one by one.
        outlines: polygons in each frame; without any polygon there are none at all.
    """
    values = np.array(boxes, np.float64).reshape(-1, 4)
    shares = np.ones(len(values)) if seen is None else np.array(seen)
    # What is not finite or has a negative side is damage, and for the writer to reject;
    # two sides of -1 are how tools say that there is no target.
    sides = values[:, 2:]
    damaged = (sides < 0).any(axis=1) & ~(sides == -1).all(axis=1)
    absent = no_target(values) & np.isfinite(values).all(axis=1) & ~damaged
    return Track(
        name=f"{key}/{name}",
        video=key,
        frames=frames,
        boxes=values,
        numbers=np.array(numbers, np.int64),
        visibility=np.where(absent, 0, shares).astype(np.float32),
        category=category,
        size=size,
        sizes=sizes,
        relative=relative,
        outlines=outlines if any(outlines) else (),
    )


def corners_problem(boxes: Sequence[Sequence[float]], image: Path) -> str:
    """What is wrong with ``ltwh`` that fit as corners alone; nothing, as a rule.

    Args:
        boxes: of a whole file, track by track.
        image: one of the frames.
    """
    try:
        size = read_size(image)
    except InputError:
        size = None  # for the writer to reject
    if not looks_like_corners(np.array(boxes, np.float64).reshape(-1, 4), size):
        return ""
    return "its boxes fit as corners x1,y1,x2,y2 and not as x,y,w,h, expected x,y,w,h"


def frame_at(media: Path, images: Mapping[int, Path], number: int) -> Frame:
    """A frame of a film, or the image of its number where there are images."""
    return images[number] if images else VideoFrame(media, number)


def beside(path: Path, name: str) -> Path:
    """A file that an annotation names, beside it or in ``images/``; never elsewhere.

    Raises:
        PreparationError: the name leads out of the folder.
    """
    try:
        plain = inside(path.parent, name, error=PreparationError)
    except PreparationError as error:
        raise PreparationError(f"{path}: image {error}") from error
    found = inside(path.parent / "images", name)
    return found if found.exists() else plain


def declared_size(width: object, height: object) -> tuple[int, int] | None:
    """Width and height as an annotation has them, numbers or text; None without both.

    What is there and is no size is taken for none: it says nothing about the boxes.
    """
    try:
        sides = int(float(str(width))), int(float(str(height)))
    except (ValueError, OverflowError):
        return None
    return sides if min(sides) > 0 else None
