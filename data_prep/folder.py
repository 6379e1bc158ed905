"""Your own folder: what is found in it, at any depth, is prepared.

- Sequences: folders with ``groundtruth.txt`` or ``groundtruth_rect.txt`` and frames,
  see ``siamrpn_jax.data.read.sequences``.
- Stills: folders with ``annotations.json`` and images, see ``data.read.stills``.
- Box files: ``NAME.txt`` or ``NAME.csv`` beside a film ``NAME.mp4`` (or ``.mkv``,
  ``.webm``, ``.avi``, ``.mov``) or a folder ``NAME`` of images, which may be in
  ``img/`` or ``color/`` of it.

A line of a box file is, separated by commas, or without any comma by tabs or spaces,

- ``x, y, w, h``: the frames in turn, or
- ``frame, x, y, w, h``, or
- ``frame, track, x, y, w, h``: any number of targets; ``track`` is any text, or
- what a first line of names says, of which ``x, y, w, h`` must be there, ``frame``,
  ``track`` and ``category`` may be, in any order; columns of other names are not read.

Boxes are top-left corner and size in pixels, counted from 0; four times ``nan`` or 0
says that the target is absent. Frames are counted from ``--first-frame``, and for
images are the files in natural order (2 before 10).
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep import coco
from data_prep.rows import read_lines
from data_prep.tracks import (
    Dataset,
    Frame,
    Options,
    PreparationError,
    Rejection,
    Track,
    Unit,
    VideoFrame,
)
from data_prep.youtube_bb import FILM_SUFFIXES
from siamrpn_jax.data.read.formats import no_target
from siamrpn_jax.data.read.images import natural_sort
from siamrpn_jax.data.read.sequences import (
    GROUND_TRUTH_NAMES,
    SequenceError,
    find_frames,
    find_sequences,
    read_sequence,
    walk,
)
from siamrpn_jax.data.read.stills import ANNOTATIONS_NAME, StillsError, find_stills

BOX_COLUMNS = ("x", "y", "w", "h")

COLUMNS = {
    4: BOX_COLUMNS,
    5: ("frame", *BOX_COLUMNS),
    6: ("frame", "track", *BOX_COLUMNS),
}
"""Columns of box files without a line of names."""

EXPECTED = "x,y,w,h or frame,x,y,w,h or frame,track,x,y,w,h or a line of such names"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderOptions(Options):
    """Options of your own folder."""

    first_frame: int = 0
    """Number of the first frame in box files that number frames."""
    min_side: float = 10
    """In stills, leave out objects with a side below this number of pixels."""


class SequenceFolder(NamedTuple):
    """What the unit of a sequence holds."""

    path: Path
    """What ``read_sequence`` takes."""

    video: str


class BoxFile(NamedTuple):
    """What the unit of a box file holds."""

    text: Path
    frames: Path
    """A film, or a folder of images."""

    first_frame: int


class Row(NamedTuple):
    """A line of a box file."""

    index: int
    """Number of the frame, from 0."""

    frame: Frame
    track: str
    category: str
    ltwh: tuple[float, ...]
    """NaN where the target is absent."""


def list_units(options: FolderOptions) -> list[Unit]:
    """A unit for each sequence, each box file and each image of stills."""
    raw = options.raw
    if not raw.is_dir():
        raise PreparationError(f"{raw}: no such folder")
    sequences = [_sequence_unit(raw, path) for path in _or_none(find_sequences, raw)]
    box_files = [
        Unit(_below(raw, box_file.text), box_file)
        for box_file in _find_box_files(raw, options.first_frame)
    ]
    folders = _or_none(find_stills, raw)
    stills = [
        unit
        for folder in folders
        for unit in coco.list_images(
            folder / ANNOTATIONS_NAME,
            folder,
            min_side=options.min_side,
            prefix="" if folder == raw else f"{_below(raw, folder)}/",
        )
    ]
    if not (sequences or box_files or stills):
        raise PreparationError(f"{raw}: holds nothing of the kind")
    log.warning(
        "%s: found %d sequences, %d box files, %d stills in %d folders",
        *(raw, len(sequences), len(box_files), len(stills), len(folders)),
    )
    return sequences + box_files + stills


def read_unit(unit: Unit) -> Iterator[Track | Rejection]:
    """The tracks of a sequence, a box file or an image."""
    if isinstance(unit.content, SequenceFolder):
        yield from _read_sequence(unit)
    elif isinstance(unit.content, BoxFile):
        yield from _read_box_file(unit)
    else:
        yield from coco.read_unit(unit)


def _read_sequence(unit: Unit) -> Iterator[Track | Rejection]:
    content: SequenceFolder = unit.content
    path, faults = content.path, {}
    try:
        sequence = read_sequence(path, faults=faults)
    except SequenceError as error:
        folder = path if path.is_dir() else path.parent
        reason = str(error).removeprefix(f"{folder}: ").replace(f"{folder}/", "")
        yield Rejection(str(path), None, reason, _count_lines(path))
        return
    for row, reason in faults.items():
        yield Rejection(str(_ground_truth(path)), row, reason)
    good = np.array([i for i in range(len(sequence.frames)) if i not in faults], int)
    yield Track(
        name=unit.key,
        video=content.video,
        frames=[sequence.frames[i] for i in good],
        boxes=sequence.boxes[good],
        numbers=good,
        visibility=_visibility(sequence.boxes[good]),
    )


def _read_box_file(unit: Unit) -> Iterator[Track | Rejection]:
    content: BoxFile = unit.content
    lines, problem = read_lines(content.text)
    columns, lines, first = _read_columns(lines)
    images = _images(content.frames)
    if not columns:
        problem = (
            problem or f"line 1 is {''.join(lines[:1])[:80]!r}, expected {EXPECTED}"
        )
    elif images and "frame" not in columns and len(lines) != len(images):
        problem = f"{len(lines)} boxes for {len(images)} images, expected one for each"
    if problem:
        yield Rejection(str(content.text), None, problem, max(len(lines), 1))
        return
    tracks: dict[str, list[Row]] = {}
    for number, line in enumerate(lines):
        try:
            values = dict(zip(columns, _fields(line), strict=True))
            row = _row(values, number, content, images)
        except (ValueError, IndexError):
            many = f" of one of {len(images)} images" if images else ""
            reason = f"line {first + number} is {line[:80]!r}, expected "
            reason += ",".join(columns) + many
            yield Rejection(str(content.text), None, reason)
            continue
        tracks.setdefault(row.track, []).append(row)
    for name, rows in tracks.items():
        yield _track(unit.key, name, sorted(rows, key=lambda row: row.index))


def _track(video: str, name: str, rows: list[Row]) -> Track:
    boxes = np.array([row.ltwh for row in rows])
    return Track(
        name=f"{video}/{name}" if name else video,
        video=video,
        frames=[row.frame for row in rows],
        boxes=boxes,
        numbers=np.array([row.index for row in rows]),
        visibility=_visibility(boxes),
        category=rows[0].category,
    )


def _visibility(boxes: np.ndarray) -> np.ndarray:
    """0 where a box says that there is no target, else 1."""
    return np.where(no_target(boxes), 0, 1).astype(np.float32)


def _read_columns(lines: list[str]) -> tuple[tuple[str, ...], list[str], int]:
    """Columns of a box file, its other lines, and the number of the first of them.

    No columns: it is no box file.
    """
    fields = _fields(lines[0]) if lines else []
    names = tuple(field.lower() for field in fields)
    if set(BOX_COLUMNS) <= set(names):
        return names, lines[1:], 2
    return COLUMNS.get(len(fields), ()), lines, 1


def _row(
    values: dict[str, str],
    number: int,
    content: BoxFile,
    images: tuple[Path, ...],
) -> Row:
    """A line by its columns.

    Raises:
        ValueError, IndexError: it holds no numbers, or no frame has this number.
    """
    index = int(values["frame"]) - content.first_frame if "frame" in values else number
    if index < 0:
        raise IndexError
    box = tuple(float(values[name]) for name in BOX_COLUMNS)
    return Row(
        index=index,
        frame=images[index] if images else VideoFrame(content.frames, index),
        track=values.get("track", ""),
        category=values.get("category", ""),
        ltwh=box,
    )


def _fields(line: str) -> list[str]:
    parts = line.split(",") if "," in line else line.split()
    return [part.strip() for part in parts]


def _find_box_files(raw: Path, first_frame: int) -> list[BoxFile]:
    """Text files beside a film, or a folder of images, of the same name."""
    found: dict[Path, BoxFile] = {}
    for folder, _, files in walk(raw):
        films = {Path(f).stem: f for f in files if _suffix(f) in FILM_SUFFIXES}
        for file in files:
            if _suffix(file) in (".txt", ".csv"):
                stem = Path(file).stem
                frames = folder / films.get(stem, stem)
                if stem in films or _is_frames(frames):
                    found[folder / file] = BoxFile(folder / file, frames, first_frame)
    return [found[path] for path in natural_sort(found)]


def _is_frames(folder: Path) -> bool:
    """Whether it holds images, and no annotations of its own."""
    own = (*GROUND_TRUTH_NAMES, ANNOTATIONS_NAME)
    return not any((folder / name).exists() for name in own) and bool(_images(folder))


def _suffix(file: str) -> str:
    return Path(file).suffix.lower()


def _sequence_unit(raw: Path, path: Path) -> Unit:
    folder = path if path.is_dir() else path.parent
    return Unit(_below(raw, path), SequenceFolder(path, _below(raw, folder)))


def _images(folder: Path) -> tuple[Path, ...]:
    """The images of a folder; none of a film."""
    try:
        return find_frames(folder)
    except SequenceError:
        return ()


def _count_lines(path: Path) -> int:
    """Lines of the ground truth of a sequence, at least 1."""
    return max(1, len(read_lines(_ground_truth(path))[0]))


def _ground_truth(path: Path) -> Path:
    """The text file of what ``read_sequence`` takes."""
    if not path.is_dir():
        return path
    texts = (path / name for name in GROUND_TRUTH_NAMES)
    return next((text for text in texts if text.exists()), path)


def _below(raw: Path, path: Path) -> str:
    return path.relative_to(raw).as_posix()


def _or_none(find: Callable[[Path], list[Path]], raw: Path) -> list[Path]:
    """What is found, if anything."""
    try:
        return find(raw)
    except (SequenceError, StillsError):
        return []


DATASET = Dataset(
    name="folder",
    title="your own folder",
    layout="""\
any of these, at any depth below RAW
  CLIP/groundtruth.txt and CLIP/img/*.jpg (a sequence)
  annotations.json and the images that it names (stills, as COCO has them)
  NAME.mp4 and NAME.csv or NAME.txt (a film and its boxes: x,y,w,h or frame,x,y,w,h or
    frame,track,x,y,w,h in each line, or a first line that names columns)
  NAME/*.jpg and NAME.csv or NAME.txt (images and their boxes)""",
    origin="your own frames and annotations",
    list_units=list_units,
    read_unit=read_unit,
    units_per_shard=24,
    options=FolderOptions,
)

if __name__ == "__main__":
    from data_prep.command import main

    main("folder")
