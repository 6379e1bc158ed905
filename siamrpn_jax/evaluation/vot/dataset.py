"""VOT data sets on disk: frames, a region for each, and attributes of frames.

Two layouts are read:

- as ``vot initialize`` leaves it: ``sequences/list.txt`` names the sequences, and each
  has a folder with ``sequence`` (lines ``key=value``), ``groundtruth.txt``,
  ``color/%08d.jpg`` and ``<attribute>.tag`` (a line 0 or 1 for each frame);
- the old one: folders with ``groundtruth.txt``, frames ``%08d.jpg`` beside it and
  ``<attribute>.tag`` or ``.label``.

Frames are numbered from 1. A line of ``groundtruth.txt`` is a box ``x,y,w,h`` or the
eight numbers of a rotated one.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import check_name, inside
from siamrpn_jax.data.read.formats import read_lines
from siamrpn_jax.data.read.images import IMAGE_SUFFIXES, natural_sort, read_size
from siamrpn_jax.data.read.sequences import SequenceError, polygon_to_ltwh
from siamrpn_jax.evaluation.vot.regions import area, parse_region

LAYOUT = (
    "the folder that ``vot initialize`` made (sequences/list.txt), or folders with "
    "groundtruth.txt and frames 00000001.jpg, 00000002.jpg, … in color/ or beside it"
)

_NAMED = 5
"""Number of problems that an error names."""

_PROPERTY = re.compile(r"([\w.-]+) *= *(.*)")


@dataclass(frozen=True, eq=False)
class VotSequence:
    """A sequence of T frames; frames are paths, nothing is decoded."""

    name: str
    """Name of its folder."""
    frames: tuple[Path, ...]
    """T image files."""
    regions: tuple[np.ndarray, ...]
    """T regions, float64: ``[4]`` is a box ``ltwh``, ``[8]`` corners x0, y0, …."""
    size: tuple[int, int] | None
    """Width and height of the frames; None where no file says it: then regions are not
    clipped to them."""
    attributes: Mapping[str, np.ndarray]
    """Name of an attribute -> bool ``[T]``, the frames that have it."""
    fps: float | None
    """Frames a second of the recording, where they are known."""

    def __len__(self) -> int:
        return len(self.regions)


def read_vot_dataset(root: str | os.PathLike[str]) -> tuple[VotSequence, ...]:
    """Reads all sequences of a data set.

    Args:
        root: see ``LAYOUT``. Where there is a ``list.txt``, it says which sequences
            there are and in which order; else all folders with ``groundtruth.txt`` are.

    Raises:
        SequenceError: ``root`` holds no sequences, or some that are missing or cannot
            be read; the first ones are named.
    """
    sequences: list[VotSequence] = []
    problems: list[str] = []
    for folder in find_vot_sequences(root):
        try:
            sequences.append(read_vot_sequence(folder))
        except (InputError, OSError) as error:
            problems.append(str(error))
    if problems:
        more = len(problems) - _NAMED
        others = f"; and {more} more" if more > 0 else ""
        layout = "" if sequences else f"; expected {LAYOUT}"
        raise SequenceError(f"{'; '.join(problems[:_NAMED])}{others}{layout}")
    return tuple(sequences)


def find_vot_sequences(root: str | os.PathLike[str]) -> list[Path]:
    """Folders of the sequences below ``root``, in the order of its list.

    Raises:
        SequenceError: there are none, or the list names some that are not there.
    """
    root = Path(root)
    if not root.is_dir():
        raise SequenceError(f"{root}: no such folder; expected {LAYOUT}")
    for place in (root / "sequences", root):
        if (place / "list.txt").is_file():
            return _listed(place)
        if place.is_dir():
            found = [p for p in place.iterdir() if (p / "groundtruth.txt").is_file()]
            if found:
                return natural_sort(found)
    raise SequenceError(f"{root}: holds no sequence; expected {LAYOUT}")


def read_vot_sequence(folder: str | os.PathLike[str]) -> VotSequence:
    """Reads one sequence.

    Raises:
        SequenceError: the folder, its ground truth or a frame is missing, lines and
            frames differ in number, or a line cannot be used: named as ``file:line``.
            Every frame needs a region with an area: the protocol may start there.
        InputError: a line is no region.
        siamrpn_jax.data.read.images.ImageError: the first frame is no image.
    """
    folder = Path(folder)
    properties = _read_properties(folder / "sequence")
    regions = read_vot_regions(folder / "groundtruth.txt")
    frames = _find_frames(folder, properties, len(regions))
    return VotSequence(
        name=folder.resolve().name,
        frames=frames,
        regions=regions,
        size=_read_size(folder, properties, frames),
        attributes=_read_attributes(folder, len(regions)),
        fps=_number(folder, properties, "fps"),
    )


def read_vot_regions(path: str | os.PathLike[str]) -> tuple[np.ndarray, ...]:
    """Reads ground truth: a region for each line, as ``VotSequence.regions``.

    Raises:
        SequenceError, InputError: naming ``file:line``,
            for what is no box and no four corners, not finite, or without area.
    """
    path = Path(path)
    lines = _read_lines(path)
    if not lines:
        raise SequenceError(f"{path}: is empty, expected a region a line")
    return tuple(_parse_region(line, f"{path}:{n}") for n, line in enumerate(lines, 1))


def region_to_ltwh(region: np.ndarray) -> np.ndarray:
    """The box to start a tracker from: float64 ``[4]``.

    Args:
        region: ``[4]``, returned as it is, or ``[8]``: the axis-aligned box with the
            area of the rotated one, see ``polygon_to_ltwh``.
    """
    region = np.asarray(region, np.float64)
    return polygon_to_ltwh(region) if region.size == 8 else region


def _listed(place: Path) -> list[Path]:
    listed = place / "list.txt"
    try:
        names = [line.strip() for line in _read_lines(listed)]
        names = [check_name(name, error=SequenceError) for name in names if name]
    except SequenceError as error:
        raise SequenceError(f"{listed}: {error}") from error
    folders = [place / name for name in names]
    missing = [p.name for p in folders if not (p / "groundtruth.txt").is_file()]
    if missing or not folders:
        raise SequenceError(
            f"{listed}: {len(missing)} of {len(folders)} sequences have no "
            f"groundtruth.txt: {', '.join(missing)}"
        )
    return folders


def _read_lines(path: Path) -> list[str]:
    return read_lines(path, error=SequenceError)


def _parse_region(line: str, where: str) -> np.ndarray:
    region = parse_region(line, where=where)
    if region.size not in (4, 8):
        raise SequenceError(
            f"{where}: {line!r}, expected 4 numbers (x,y,w,h) or 8 (four corners)"
        )
    if area(region) == 0 or not (region_to_ltwh(region)[2:] > 0).all():
        raise SequenceError(f"{where}: {line!r}, a region without area")
    return region


def _read_properties(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    lines = (_PROPERTY.fullmatch(line.strip()) for line in _read_lines(path))
    return {line[1]: line[2] for line in lines if line}


def _number(folder: Path, properties: Mapping[str, str], key: str) -> float | None:
    text = properties.get(key, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < np.inf:
        raise SequenceError(f"{folder / 'sequence'}: {key}={text}, expected above 0")
    return value


def _find_frames(
    folder: Path, properties: Mapping[str, str], count: int
) -> tuple[Path, ...]:
    default = "color/%08d.jpg" if (folder / "color").is_dir() else "%08d.jpg"
    pattern = properties.get("channels.color", default).replace("\\", "/")
    if not Path(pattern).suffix:
        pattern = f"{pattern.rstrip('/')}/%08d.jpg"
    try:
        numbered = [pattern % number for number in range(1, count + 2)]
        frames = tuple(inside(folder, name) for name in numbered)
    except (TypeError, ValueError):
        raise SequenceError(
            f"{folder / 'sequence'}: channels.color={pattern}, expected a pattern with "
            "one number, such as color/%08d.jpg"
        ) from None
    place = frames[0].parent
    present = set(os.listdir(place)) if place.is_dir() else set()
    missing = [path for path in frames[:count] if path.name not in present]
    if missing:
        images = sum(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in present)
        raise SequenceError(
            f"{missing[0]}: no such frame; {folder / 'groundtruth.txt'} has {count} "
            f"lines and {place} has {images} images, expected a frame for each line"
        )
    if frames[count].name in present:
        raise SequenceError(
            f"{folder / 'groundtruth.txt'}: {count} lines, but there is a frame "
            f"{frames[count].name}; expected a line for each frame"
        )
    return frames[:count]


def _read_size(
    folder: Path, properties: Mapping[str, str], frames: tuple[Path, ...]
) -> tuple[int, int]:
    width = _number(folder, properties, "width")
    height = _number(folder, properties, "height")
    if width is None or height is None:
        return read_size(frames[0])
    return round(width), round(height)


def _read_attributes(folder: Path, count: int) -> dict[str, np.ndarray]:
    paths = sorted(p for p in folder.iterdir() if p.suffix in (".tag", ".label"))
    return {path.stem: _read_attribute(path, count) for path in paths}


def _read_attribute(path: Path, count: int) -> np.ndarray:
    """Files that end early go on with 0, as the VOT toolkit reads them."""
    flags = np.zeros(count, bool)
    lines = _read_lines(path)
    if len(lines) > count:
        raise SequenceError(
            f"{path}: {len(lines)} lines for {count} frames, expected at most one each"
        )
    for index, line in enumerate(lines):
        if line.strip() not in ("0", "1"):
            raise SequenceError(f"{path}:{index + 1}: {line!r}, expected 0 or 1")
        flags[index] = line.strip() == "1"
    return flags
