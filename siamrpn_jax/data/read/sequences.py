"""Annotated sequences on disk: a folder of frames and one box a frame.

A sequence is a folder that holds ``groundtruth.txt`` or ``groundtruth_rect.txt`` and
its frames in ``img/``, in ``color/`` or beside the text file. A line is four numbers
``x, y, w, h`` (top-left corner and size, pixels) or, in ``groundtruth.txt``, the eight
of a VOT polygon; commas, tabs, semicolons or spaces separate them. A first line of
names may say what the columns are, see ``tables``. ``groundtruth_rect.txt`` is OTB's:
it counts pixels from 1, and 1 is subtracted. A row that is ``nan`` or has no area says
that the target is absent, see ``formats.no_target``, and so does a column ``lost`` or
``visible`` beside such a box. Rows that fit as two corners, and
not as a corner and a size, are refused.

Two peculiarities of OTB are known. A folder with ``groundtruth_rect.1.txt``,
``groundtruth_rect.2.txt`` and so on is a sequence for each: Jogging-1, Jogging-2. And
some of its annotations start late or end early, see ``OTB_FRAMES``.
"""

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.benchmark_lists import OTB_FRAMES
from siamrpn_jax.data.read.formats import (
    looks_like_corners,
    no_target,
    parse_numbers,
    read_lines,
    warn_of_percent,
)
from siamrpn_jax.data.read.images import (
    ImageError,
    is_hidden,
    is_image,
    list_images,
    natural_sort,
    read_size,
    refuse_twins,
    unread_hint,
)
from siamrpn_jax.data.read.tables import (
    AS_CORNERS,
    TableError,
    check_film,
    counts,
    have_names,
    read_table,
    split_fields,
)

GROUND_TRUTH_NAMES = ("groundtruth.txt", "groundtruth_rect.txt")
"""Ground truth files, the first one present is read; the second counts from 1."""

log = logging.getLogger(__name__)

_NUMBERED = re.compile(r"groundtruth_rect\.(\d+)\.txt")

FRAME_FOLDERS = ("img", "color", ".")
"""Where frames are looked for, in this order."""

_BENCHMARKS = {
    **dict.fromkeys(
        ("full_occlusion.txt", "out_of_view.txt", "nlp.txt"),
        ("LaSOT", "lasot", "testing_set.txt", "lasot.py"),
    ),
    **dict.fromkeys(
        ("absence.label", "cover.label", "meta_info.ini"),
        ("GOT-10k", "got10k-val", "val/list.txt", "got10k.py"),
    ),
}
"""Files beside the ground truth of benchmarks that count pixels from 1 and say in files
of their own where the target is absent."""

_PACKED = {
    **dict.fromkeys(
        (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"),
        "is an archive: extract it",
    ),
    **dict.fromkeys(
        (".part", ".partial", ".crdownload", ".download", ".aria2"),
        "is no finished download: fetch it again",
    ),
}
"""What is to be done with files that are not read, by their suffixes."""

_LABELS = frozenset((".txt", ".csv", ".tsv", ".json", ".xml"))
"""Suffixes of files that may say where targets are."""

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
    """Name of the folder, with ``-n`` where its ground truth is numbered."""

    frames: tuple[Path, ...]
    """``T`` image files, in order."""

    boxes: np.ndarray
    """``float64 [T, 4]``, ``ltwh`` in pixels (0-based); ``nan`` where absent."""


def play_there_and_back(sequence: Sequence, times: int) -> Sequence:
    """A long sequence of a short one: frames 0 to T - 1, back to 0, and so on.

    Args:
        sequence: of T frames.
        times: how often it goes there and back.

    Returns:
        ``NAME_xTIMES`` with ``2 * times * (T - 1) + 1`` frames.
    """
    count = len(sequence.frames)
    once = [*range(1, count), *range(count - 2, -1, -1)]
    order = [0, *once * times]
    return Sequence(
        f"{sequence.name}_x{times}",
        tuple(sequence.frames[i] for i in order),
        sequence.boxes[order],
    )


def find_sequences(root: str | os.PathLike[str]) -> list[Path]:
    """Finds sequence folders.

    Args:
        root: a sequence folder, or a folder with sequences at any depth; symbolic
            links are followed.

    Returns:
        What ``read_sequence`` takes, in the natural order of the paths; at least one:
        the sequence folders or, where ground truth is numbered, each of its files.

    Raises:
        SequenceError: ``root`` is missing or holds no sequence.
    """
    root = Path(root)
    if not root.is_dir():
        raise SequenceError(f"{root}: no such folder; expected {LAYOUT}")
    found, packed, bare = [], [], []
    for folder, subfolders, files in walk(root):
        packed += [folder / file for file in files if _is_packed(folder / file)]
        if _is_without_labels(folder, subfolders, files):
            bare.append(folder)
        if not set(GROUND_TRUTH_NAMES).isdisjoint(files):
            found.append(folder)
        elif numbered := [folder / f for f in files if _NUMBERED.fullmatch(f)]:
            # OTB's Human4 has an empty one: its first target was never annotated.
            filled = [path for path in numbered if path.stat().st_size]
            found.extend(filled or numbered)
        else:
            continue
        subfolders.clear()  # frames lie below; walking them would only cost time
    if not found:
        raise SequenceError(
            f"{root}: holds no sequence; expected {LAYOUT}, or several"
            f"{packed_hint(root)}"
        )
    _warn_of(root, packed, "files are archives or unfinished downloads, left out")
    _warn_of(root, bare, "folders have frames and no groundtruth.txt: no sequences")
    return natural_sort(found)


def read_sequence(
    path: str | os.PathLike[str], *, faults: dict[int, str] | None = None
) -> Sequence:
    """Reads one sequence.

    Args:
        path: a sequence folder, see the module's description, or a ground truth file
            in it.
        faults: as for ``read_ground_truth``.

    Returns:
        The sequence.

    Raises:
        SequenceError: the folder is missing, has no ground truth, several or a
            malformed one, has no frames, is of LaSOT or GOT-10k, which are read in
            other ways, or frames and lines differ in number.
        ImageError: two images are of one frame.
    """
    path = Path(path)
    text = path if path.is_file() else _find_ground_truth(path)
    folder = text.parent
    _refuse_benchmarks(folder)
    boxes = read_ground_truth(text, faults=faults)
    frames = find_frames(folder)
    refuse_twins(frames)
    name = folder.resolve().name
    first, last = OTB_FRAMES.get(name, (1, 0))
    if text.name == "groundtruth_rect.txt" and last and last <= len(frames):
        if len(boxes) == last:  # some copies annotate what comes before, too
            boxes = boxes[first - 1 :]
        if len(boxes) == last - first + 1:
            frames = frames[first - 1 : last]
    if len(frames) != len(boxes):
        raise SequenceError(
            f"{folder}: {len(frames)} frames but {len(boxes)} lines in "
            f"{text.name}; expected one line a frame{packed_hint(folder)}"
        )
    _check_units(text, boxes, frames[0])
    _refuse_fractions(text, boxes)
    _refuse_other_size(text, frames[0])
    numbered = _NUMBERED.fullmatch(text.name)
    return Sequence(f"{name}-{numbered[1]}" if numbered else name, frames, boxes)


def read_ground_truth(
    path: str | os.PathLike[str], *, faults: dict[int, str] | None = None
) -> np.ndarray:
    """Reads a ground truth file; a name with ``groundtruth_rect`` means 1-based.

    Args:
        path: a text file, one box a line; empty lines at its end are ignored.
        faults: where given, malformed lines do not raise: their rows are ``nan``, and
            what is wrong with them is put here, by the row from 0.

    Returns:
        ``float64 [T, 4]``, ``ltwh`` 0-based; ``nan`` rows where the target is absent.

    Raises:
        SequenceError: no line, or a malformed one, named as ``file:line``.
    """
    path = Path(path)
    lines = read_lines(path, error=SequenceError)
    if not lines:
        raise SequenceError(f"{path}: is empty, expected one box x,y,w,h a line")
    if _is_named(lines[0]):
        return _read_named(path, faults)
    is_rect = path.name.startswith("groundtruth_rect.")
    boxes = np.full((len(lines), 4), np.nan)
    for row, line in enumerate(lines):
        try:
            boxes[row] = _parse_line(line, polygons=not is_rect)
        except SequenceError as error:
            if faults is None:
                raise SequenceError(f"{path}:{row + 1}: {error}") from None
            faults[row] = str(error)
    if is_rect:
        boxes[:, :2] -= 1
    return boxes


def fingerprint(boxes: np.ndarray) -> str:
    """Fingerprint of a sequence by its boxes, whatever its folder is called.

    Args:
        boxes: ``ltwh [T, 4]``, all of the sequence; NaN where the target is absent.

    Returns:
        16 hexadecimal digits; hundredths of a pixel count.
    """
    hundredths = np.round(np.asarray(boxes, np.float64) * 100)
    absent = np.iinfo(np.int64).min
    whole = np.where(np.isnan(hundredths), 0, hundredths).astype("<i8")
    whole[np.isnan(hundredths)] = absent
    return hashlib.sha256(whole.tobytes()).hexdigest()[:16]


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


def find_frames(folder: Path) -> tuple[Path, ...]:
    """The images in ``img/``, in ``color/`` or in the folder itself, in natural order.

    Raises:
        SequenceError: there are none.
    """
    places = [folder / name for name in FRAME_FOLDERS]
    for place in places:
        if frames := list_images(place):
            return tuple(frames)
    hint = unread_hint(places) or deeper_hint(folder) or packed_hint(folder)
    raise SequenceError(f"{folder}: has no frames; expected {LAYOUT}{hint}")


def deeper_hint(root: Path) -> str:
    """The end of a message, where a folder holds images deeper than was looked."""
    for folder, _, files in walk(root) if root.is_dir() else ():
        if count := sum(is_image(folder / file) for file in files):
            return f"; {folder} holds images: {count}"
    return ""


def packed_hint(root: Path) -> str:
    """The end of a message, where a folder holds archives or unfinished downloads."""
    for folder, _, files in walk(root) if root.is_dir() else ():
        for file in sorted(files):
            if _is_packed(folder / file):
                return f"; {folder / file} {_PACKED[Path(file).suffix.lower()]}"
    return ""


def _is_packed(path: Path) -> bool:
    """Whether a file is an archive, not extracted beside it, or half a download."""
    return path.suffix.lower() in _PACKED and not path.with_suffix("").is_dir()


def _is_without_labels(folder: Path, subfolders: list[str], files: list[str]) -> bool:
    """Whether it looks like a sequence, and nothing there says where the target is."""
    if not subfolders or not set(subfolders) <= set(FRAME_FOLDERS):
        return False
    beside = (folder.parent / f"{folder.name}{suffix}" for suffix in _LABELS)
    suffixes = {Path(file).suffix.lower() for file in files}
    return suffixes.isdisjoint(_LABELS) and not any(path.exists() for path in beside)


def _warn_of(root: Path, paths: list[Path], what: str) -> None:
    if paths:
        names = ", ".join(path.relative_to(root).as_posix() for path in paths[:5])
        more = ", …" if len(paths) > 5 else ""
        log.warning("%s: %d %s: %s%s", root, len(paths), what, names, more)


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Like ``os.walk``, through symbolic links too, but into each folder only once.

    Folders that cannot be read are left out with a warning, hidden files without one.

    Args:
        root: where to start.

    Yields:
        A folder, the names of its subfolders (to be changed in place) and of its files.
    """
    visited: set[str] = set()
    for folder, subfolders, files in os.walk(root, onerror=_warn, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders.sort()  # which of two links is met first must not vary
        yield Path(folder), subfolders, [f for f in files if not is_hidden(f)]


def _warn(error: OSError) -> None:
    log.warning("%s: left out: cannot be read (%s)", error.filename, error.strerror)


def _is_named(line: str) -> bool:
    try:
        return have_names(split_fields(line))
    except TableError:
        return False


def _read_named(path: Path, faults: dict[int, str] | None) -> np.ndarray:
    """The boxes of a ground truth file with a first line of names."""
    try:
        table = read_table(path)
        check_film(table, path.parent.resolve().name, called="folder")
    except TableError as error:
        raise SequenceError(str(error)) from error
    keys = table.columns.keys
    if "image" in keys or "time" in keys or "time_ms" in keys or "track" in keys:
        raise SequenceError(
            f"{path}: names columns beside x,y,w,h; expected a box a line, the frames "
            "in turn"
        )
    if "frame" in keys and not (len(table.rows) < 5 or counts(np.array(table.numbers))):
        raise SequenceError(f"{path}: expected frames numbered in turn, from 0 or 1")
    lines = read_lines(path, error=SequenceError)
    blank = [line for line, text in enumerate(lines, start=1) if not text.strip()]
    wrong = dict.fromkeys(blank, "is empty, expected a box") | table.faults
    for line, reason in sorted(wrong.items()):
        if faults is None:
            raise SequenceError(f"{path}:{line}: {reason}")
        faults[line - 2] = reason
    boxes = np.full((len(lines) - 1, 4), np.nan)
    for row in table.rows:
        if not row.lost:
            boxes[row.line - 2] = row.ltwh
    boxes[no_target(boxes)] = np.nan
    return boxes


def _check_units(text: Path, boxes: np.ndarray, frame: Path) -> None:
    """Raises SequenceError for unnamed rows that fit as corners alone; may warn."""
    try:
        size = read_size(frame)
    except ImageError:
        size = None  # whoever reads it will say so
    named = _is_named(read_lines(text, error=SequenceError)[0])
    if not named and looks_like_corners(boxes, size):
        raise SequenceError(f"{text}: {AS_CORNERS}")
    if size is not None:
        warn_of_percent(text, boxes, size)


def _refuse_fractions(text: Path, boxes: np.ndarray) -> None:
    """Raises SequenceError where no box is beyond the first pixel."""
    known = boxes[~np.isnan(boxes).any(axis=1)]
    if len(known) and np.abs(known).max() <= 1:
        raise SequenceError(
            f"{text}: its boxes look like fractions of the frames, expected pixels"
        )


def _refuse_benchmarks(folder: Path) -> None:
    """Raises SequenceError for a sequence of LaSOT or GOT-10k as it is distributed."""
    for file, (name, benchmark, listed, script) in _BENCHMARKS.items():
        if (folder / file).is_file():
            raise SequenceError(
                f"{folder}: has {file}, so it is of {name}, whose boxes count pixels "
                "from 1 and whose absent targets are in files of their own; expected "
                f"siamrpn eval --benchmark {benchmark} ({listed} names the sequences), "
                f"or data_prep/{script} for training"
            )


def _refuse_other_size(text: Path, frame: Path) -> None:
    """Raises SequenceError for boxes that were drawn on frames of another size."""
    if not _is_named(read_lines(text, error=SequenceError)[0]):
        return
    given = {row.size: row.line for row in reversed(read_table(text).rows) if row.size}
    if not given:
        return
    try:
        size = read_size(frame)
    except ImageError:
        return  # whoever reads it will say so
    for (width, height), line in given.items():
        if (width, height) != size:
            raise SequenceError(
                f"{text}:{line}: {frame.name} is {size[0]}x{size[1]} pixels, annotated "
                f"are {width}x{height}"
            )


def _parse_line(line: str, *, polygons: bool) -> np.ndarray:
    values = np.array(parse_numbers(line))
    if not len(values):
        raise SequenceError(f"cannot parse {line!r}, expected numbers x,y,w,h")
    if len(values) not in ((4, 8) if polygons else (4,)):
        polygon = " or 8 (a polygon)" if polygons else ""
        raise SequenceError(
            f"{len(values)} values in {line!r}, expected 4 (x,y,w,h){polygon}"
        )
    if np.isinf(values).any():
        raise SequenceError(f"box {line!r}, expected finite numbers (nan: absent)")
    if len(values) == 8 and _crosses_itself(values):
        raise SequenceError(
            f"the sides of polygon {line!r} cross, expected corners in order around "
            "the target (or, with decimal commas, semicolons between four numbers)"
        )
    box = polygon_to_ltwh(values) if len(values) == 8 else values
    return np.full(4, np.nan) if no_target(box) else box


def _crosses_itself(polygon: np.ndarray) -> bool:
    """Whether opposite sides of a quadrilateral cross."""
    a, b, c, d = polygon.reshape(4, 2)

    def turn(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> float:
        (px, py), (qx, qy) = q - p, r - p
        return px * qy - py * qx

    def crossing(p: np.ndarray, q: np.ndarray, r: np.ndarray, s: np.ndarray) -> bool:
        apart = turn(p, q, r) * turn(p, q, s) < 0
        return apart and turn(r, s, p) * turn(r, s, q) < 0

    return crossing(a, b, c, d) or crossing(b, c, d, a)


def _find_ground_truth(folder: Path) -> Path:
    if not folder.is_dir():
        raise SequenceError(f"{folder}: no such folder; expected {LAYOUT}")
    for name in GROUND_TRUTH_NAMES:
        if (folder / name).is_file():
            return folder / name
    numbered = [p for p in folder.iterdir() if _NUMBERED.fullmatch(p.name)]
    if numbered:
        names = ", ".join(p.name for p in natural_sort(numbered))
        raise SequenceError(f"{folder}: has {names}; expected one of them to be named")
    raise SequenceError(f"{folder}: has no ground truth; expected {LAYOUT}")
