"""Annotated sequences on disk: a folder of frames and one box a frame.

A sequence is a folder that holds ``groundtruth.txt`` or ``groundtruth_rect.txt`` and
its frames in ``img/``, in ``color/`` or beside the text file. A line is four numbers
``x, y, w, h`` (top-left corner and size, pixels) or, in ``groundtruth.txt``, the eight
of a VOT polygon; commas, tabs or spaces separate them. ``groundtruth_rect.txt`` is
OTB's: it counts pixels from 1, and 1 is subtracted. A row of ``nan`` or of zeros says
that the target is absent.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from siamrpn_jax.data.images import IMAGE_SUFFIXES
from siamrpn_jax.errors import InputError

GROUND_TRUTH_NAMES = ("groundtruth.txt", "groundtruth_rect.txt")
"""Ground truth files, the first one present is read; the second counts from 1."""

FRAME_FOLDERS = ("img", "color", ".")
"""Where frames are looked for, in this order."""

LAYOUT = (
    "a folder with groundtruth.txt (x,y,w,h a line) or groundtruth_rect.txt (OTB) and "
    "frames in img/, in color/ or beside it"
)


class SequenceError(InputError):
    """A sequence that is missing, malformed or inconsistent."""


@dataclass(frozen=True)
class Sequence:
    """An annotated sequence; frames are paths, nothing is decoded."""

    name: str
    """Name of the folder."""

    frames: tuple[Path, ...]
    """``T`` image files, in order."""

    boxes: np.ndarray
    """``float64 [T, 4]``, ``ltwh`` in pixels (0-based); ``nan`` where absent."""


def find_sequences(root: str | os.PathLike[str]) -> list[Path]:
    """Finds sequence folders.

    Args:
        root: a sequence folder, or a folder with sequences at any depth.

    Returns:
        The sequence folders, in the natural order of their paths; at least one.

    Raises:
        SequenceError: ``root`` is missing or holds no sequence.
    """
    root = Path(root)
    if not root.is_dir():
        raise SequenceError(f"{root}: no such folder; expected {LAYOUT}")
    found = []
    for folder, subfolders, files in os.walk(root):
        if not set(GROUND_TRUTH_NAMES).isdisjoint(files):
            found.append(Path(folder))
            subfolders.clear()  # frames lie below; walking them would only cost time
    if not found:
        raise SequenceError(f"{root}: holds no sequence; expected {LAYOUT}, or several")
    return natural_sort(found)


def read_sequence(folder: str | os.PathLike[str]) -> Sequence:
    """Reads one sequence folder.

    Args:
        folder: see the module's description.

    Returns:
        The sequence.

    Raises:
        SequenceError: the folder, its ground truth or its frames are missing, a line is
            malformed, a box is not positive and finite, or there are more frames than
            lines or fewer.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SequenceError(f"{folder}: no such folder; expected {LAYOUT}")
    texts = [folder / name for name in GROUND_TRUTH_NAMES if (folder / name).is_file()]
    if not texts:
        raise SequenceError(f"{folder}: has no ground truth; expected {LAYOUT}")
    boxes = read_ground_truth(texts[0])
    frames = _find_frames(folder)
    if len(frames) != len(boxes):
        raise SequenceError(
            f"{folder}: {len(frames)} frames but {len(boxes)} lines in "
            f"{texts[0].name}; expected one line a frame"
        )
    return Sequence(folder.resolve().name, frames, boxes)


def read_ground_truth(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a ground truth file; the name ``groundtruth_rect.txt`` means 1-based.

    Args:
        path: a text file, one box a line; empty lines at its end are ignored.

    Returns:
        ``float64 [T, 4]``, ``ltwh`` 0-based; ``nan`` rows where the target is absent.

    Raises:
        SequenceError: no line, or a malformed one, named as ``file:line``.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SequenceError(f"{path}: cannot be read as text ({error})") from error
    if not lines:
        raise SequenceError(f"{path}: is empty, expected one box x,y,w,h a line")
    boxes = np.stack(
        [_parse_line(line, f"{path}:{n}") for n, line in enumerate(lines, 1)]
    )
    if path.name == "groundtruth_rect.txt":
        boxes[:, :2] -= 1
    return boxes


def polygon_to_ltwh(polygon: np.ndarray) -> np.ndarray:
    """Axis-aligned box with the area and the centre of a rotated rectangle.

    The rule of the Siamese trackers for VOT's polygons, without the extra pixel that
    their inclusive coordinates add: the bounding box is shrunk about the mean of the
    corners until its area is that of the rectangle.

    Args:
        polygon: ``[8]``, four corners ``x, y`` in order around the rectangle.

    Returns:
        ``ltwh float64 [4]``.
    """
    corners = np.asarray(polygon, np.float64).reshape(4, 2)
    extent = np.ptp(corners, axis=0)
    sides = np.linalg.norm(corners[:2] - corners[1:3], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = extent * np.sqrt(np.prod(sides) / np.prod(extent))
    return np.concatenate([corners.mean(axis=0) - size / 2, size])


def natural_sort(paths: Iterable[Path]) -> list[Path]:
    """Sorts paths so that ``2.jpg`` comes before ``10.jpg``."""

    def key(path: Path) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", str(path))
        return [(int(p), p) if p.isdecimal() else (0, p) for p in parts]

    return sorted(paths, key=key)


def _parse_line(line: str, where: str) -> np.ndarray:
    try:
        values = np.array([float(v) for v in re.split(r"[,\s]+", line.strip(" \t,"))])
    except ValueError:
        raise SequenceError(
            f"{where}: cannot parse {line!r}, expected numbers x,y,w,h"
        ) from None
    if len(values) not in (4, 8):
        raise SequenceError(
            f"{where}: {len(values)} values in {line!r}, expected 4 (x,y,w,h) or 8 "
            "(a polygon)"
        )
    if np.isnan(values).all() or not values.any():
        return np.full(4, np.nan)
    box = polygon_to_ltwh(values) if len(values) == 8 else values
    if not np.isfinite(box).all() or (box[2:] <= 0).any():
        raise SequenceError(
            f"{where}: box {line!r}, expected finite numbers with positive width and "
            "height (all nan or all 0: absent)"
        )
    return box


def _find_frames(folder: Path) -> tuple[Path, ...]:
    for name in FRAME_FOLDERS:
        place = folder / name
        if place.is_dir():
            frames = [p for p in place.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
            if frames:
                return tuple(natural_sort(frames))
    raise SequenceError(f"{folder}: has no frames; expected {LAYOUT}")
