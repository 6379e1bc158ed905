"""Your own folder: what is found in it, at any depth, is prepared.

- Sequences: folders with ``groundtruth.txt`` or ``groundtruth_rect.txt`` and frames,
  see ``siamrpn_jax.data.read.sequences``.
- Stills: folders with ``annotations.json`` and images, see ``data.read.stills``.
- Exports of annotation tools: MOT, CVAT, Label Studio, Roboflow, YOLO, VIA, see
  ``data_prep.tools``.
- Box files: ``NAME.txt``, ``NAME.csv`` or ``NAME.tsv`` beside a film ``NAME.mp4`` (or
  ``.mkv``, ``.webm``, ``.avi``, ``.mov``) or a folder ``NAME`` of images, which may be
  in ``img/`` or ``color/`` of it.

What a box file holds is told by its first line of names or, without one, by the number
of its columns, see ``siamrpn_jax.data.read.tables``: what ``siamrpn track`` writes is
one. Frames of images are named by the file (``image``) or numbered in natural order
(2 before 10), those of films numbered or timed (``time``, in seconds). Where images are
missing, their names tell which number is whose, see ``data_prep.numbering``. Four times
``nan`` or 0, and a box without an area, say that the target is absent.

Files that look like labels and belong to nothing of all this are named in a warning.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from data_prep import coco, tools
from data_prep.numbering import find_numbers, first_number
from data_prep.tools.units import key_of
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
from data_prep.unread import find_unread
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.formats import no_target
from siamrpn_jax.data.read.images import (
    FILM_SUFFIXES,
    is_hidden,
    natural_sort,
    read_size,
)
from siamrpn_jax.data.read.rows import read_lines
from siamrpn_jax.data.read.sequences import (
    GROUND_TRUTH_NAMES,
    SequenceError,
    find_frames,
    find_sequences,
    packed_hint,
    read_sequence,
    walk,
)
from siamrpn_jax.data.read.stills import ANNOTATIONS_NAME, StillsError, find_stills
from siamrpn_jax.data.read.tables import (
    LabelRow,
    LabelTable,
    TableError,
    check_film,
    check_sizes,
    read_table,
    same_fault_in_all,
)
from siamrpn_jax.media.video import Video

TABLE_SUFFIXES = (".txt", ".csv", ".tsv")
"""Box files."""

_TIME_TOLERANCE = 0.25
"""How far a time may be from that of its frame, in frames."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderOptions(Options):
    """Options of your own folder."""

    first_frame: int | None = None
    """Number of the first frame in box files that number frames; 0 where nothing
    speaks for 1."""
    fps: float | None = None
    """Frames a second, for box files that have times; default: what the film says."""
    lost: Literal["absent", "keep"] = "absent"
    """What is done with boxes that a box file calls lost."""
    min_confidence: float = 0.0
    """The target is absent where a box file's confidence is below this, 0 to 1."""
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

    options: FolderOptions


class Frames(NamedTuple):
    """What the rows of a box file can be about."""

    path: Path
    """A film, or a folder of images."""

    images: tuple[Path, ...]
    """None of a film."""

    by_name: dict[str, int]
    """The places of the images, by their names with and without suffix."""

    by_number: dict[int, int]
    """The places of the images by their numbers, rising; none where places tell."""

    fps: float | None

    def at(self, index: int) -> Frame:
        """A frame by its place."""
        return self.images[index] if self.images else VideoFrame(self.path, index)


Placed = tuple[int, LabelRow]
"""The place of a frame, from 0, and what is said of it."""


def list_units(options: FolderOptions) -> list[Unit]:
    """A unit for each sequence, each box file and each image of stills."""
    raw = options.raw
    if not raw.is_dir():
        raise PreparationError(f"{raw}: no such folder")
    sequences = [_sequence_unit(raw, path) for path in _or_none(find_sequences, raw)]
    box_files = [
        Unit(key_of(raw, box_file.text), box_file)
        for box_file in _find_box_files(raw, options)
    ]
    _check_numbering([unit.content for unit in box_files], options.first_frame)
    folders = _or_none(find_stills, raw)
    stills = [
        unit
        for folder in folders
        for unit in coco.list_images(
            folder / ANNOTATIONS_NAME,
            folder,
            min_side=options.min_side,
            prefix="" if folder == raw else f"{key_of(raw, folder)}/",
        )
    ]
    found = [(folder, files) for folder, _, files in walk(raw)]
    exports = tools.list_units(raw, found)
    if not (sequences or box_files or stills or exports):
        hint = tools.describe_unknown(found) or packed_hint(raw)
        raise PreparationError(f"{raw}: holds nothing of the kind{hint}")
    log.warning(
        "%s: found %d sequences, %d box files, %d stills in %d folders, %d units of "
        "annotation tools",
        *(raw, len(sequences), len(box_files), len(stills), len(folders)),
        len(exports),
    )
    units = sequences + box_files + stills + exports
    _warn_of_unread(options, found, units)
    return units


def _warn_of_unread(
    options: FolderOptions,
    found: Sequence[tuple[Path, list[str]]],
    units: Sequence[Unit],
) -> None:
    """Warns of files that look like labels, and that no unit reads."""
    taken = {_label_file(unit) for unit in units}
    sequences = {
        _label_file(unit).parent
        for unit in units
        if isinstance(unit.content, SequenceFolder)
    }
    for folder, names in found:
        if folder in sequences:  # benchmarks have more of each frame, in texts
            taken |= {folder / name for name in names if _suffix(name) == ".txt"}
    own = [(folder, names) for folder, names in found if _is_raw(folder, options)]
    if unread := find_unread(own, taken):
        first = ", ".join(key_of(options.raw, path) for path in unread[:5])
        log.warning(
            "%s: %d files look like labels, and nothing reads them: %s%s; expected "
            "tables NAME.csv, .tsv or .txt beside a film NAME (%s) or a folder NAME of "
            "images, or what data_prep/README.md lists. COCO and VOC have commands of "
            "their own",
            *(options.raw, len(unread), first, ", …" if len(unread) > 5 else ""),
            " ".join(sorted(FILM_SUFFIXES)),
        )


def _label_file(unit: Unit) -> Path:
    """The file that a unit is read from."""
    content = unit.content
    if isinstance(content, SequenceFolder):
        return _ground_truth(content.path)
    names = ("annotations", "text", "path")  # the path of a still is its image
    return next(getattr(content, name) for name in names if hasattr(content, name))


def _is_raw(folder: Path, options: FolderOptions) -> bool:
    """Whether a folder holds raw data: it is not hidden, nor the prepared one."""
    inner = folder.relative_to(options.raw).parts
    own = folder.absolute().is_relative_to(options.out.absolute())
    return not own and not any(map(is_hidden, inner))


def read_unit(unit: Unit) -> Iterator[Track | Rejection]:
    """The tracks of a sequence, a box file or an image."""
    if isinstance(unit.content, SequenceFolder):
        yield from _read_sequence(unit)
    elif isinstance(unit.content, BoxFile):
        yield from _read_box_file(unit)
    elif isinstance(unit.content, tools.ToolContent):
        yield from tools.read_unit(unit)
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
    try:
        table = read_table(content.text)
        check_film(table, content.text.stem, called="table")
        frames = _frames(content, table)
        if size := _frame_size(frames):
            check_sizes(table, size)
        _check_keys(table, frames)
        first = _first_frame(table, frames, content.options.first_frame)
        _check_places(table, frames, first)
    except InputError as error:
        reason = str(error).removeprefix(f"{content.text}:").lstrip()
        lines = len(read_lines(content.text)[0])
        yield Rejection(str(content.text), None, reason, max(lines, 1))
        return
    placed, faults = _place(table, frames, first)
    tracks: dict[str, list[Placed]] = {}
    for index, row in placed:
        tracks.setdefault(row.track, []).append((index, row))
    lines = [[row.line for _, row in track] for track in tracks.values()]
    if faults and same_fault_in_all(lines, list(faults)):
        example = next(iter(faults.values()))
        reason = f"the same in the first or last row of every target: {example}"
        lost = len(placed) + len(faults)
        yield Rejection(str(content.text), None, reason, lost)
        return
    for reason in faults.values():
        yield Rejection(str(content.text), None, reason)
    for name, rows in tracks.items():
        rows.sort(key=lambda row: row[0])
        yield _track(unit.key, name, rows, frames, content.options)


def _frames(content: BoxFile, table: LabelTable) -> Frames:
    path, fps = content.frames, content.options.fps
    images = _images(path)
    stems = Counter(image.stem for image in images)
    places = {image.stem: i for i, image in enumerate(images) if stems[image.stem] == 1}
    places |= {image.name: i for i, image in enumerate(images)}
    if not images and fps is None and (film := _open(path)):
        fps = film.fps
    return Frames(path, images, places, _by_number(table, images), fps)


def _by_number(table: LabelTable, images: tuple[Path, ...]) -> dict[int, int]:
    """``Frames.by_number``; raises PreparationError, see ``find_numbers``.

    A table that has each number from 0 or 1 to that of the images, as trackers write
    it, counts the images that are there.
    """
    keys = table.columns.keys.keys()
    if "image" in keys or keys.isdisjoint(("frame", "time", "time_ms")):
        return {}
    places = find_numbers(images)
    numbers = set(table.numbers)
    counts = any(numbers == set(range(i, i + len(images))) for i in (0, 1))
    return {} if counts else places


def _frame_size(frames: Frames) -> tuple[int, int] | None:
    """Width and height; None where no frame can be read, as the writer will say."""
    try:
        if frames.images:
            return read_size(frames.images[0])
        height, width = next(iter(Video(frames.path))).shape[:2]
    except (InputError, OSError, StopIteration):
        return None
    return width, height


def _open(film: Path) -> Video | None:
    try:
        return Video(film)
    except (InputError, OSError):
        return None


def _check_keys(table: LabelTable, frames: Frames) -> None:
    """Raises TableError where rows cannot be brought to frames."""
    keys, path = table.columns.keys, table.path
    if "image" in keys and not frames.images:
        raise TableError(f"{path}: names images of a film, expected frame or time")
    if keys.keys().isdisjoint(("frame", "image", "time", "time_ms")):
        lines = len(table.rows) + len(table.faults)
        if "track" in keys:
            raise TableError(f"{path}: names tracks and no frames, expected frame, too")
        if frames.images and lines != len(frames.images):
            raise TableError(
                f"{path}: {lines} boxes for {len(frames.images)} images, expected one "
                "for each"
            )
    elif keys.keys().isdisjoint(("frame", "image")) and frames.fps is None:
        raise TableError(f"{path}: names times, expected --fps for {frames.path.name}")


def _first_frame(table: LabelTable, frames: Frames, given: int | None) -> int:
    """The number of the first frame; raises TableError where that is not clear."""
    if given is not None or not frames.by_number:
        return given or 0
    first = first_number(table.numbers, frames.by_number)
    if first is None:
        raise TableError(_unclear(table, frames.images))
    return first


def _unclear(table: LabelTable, images: tuple[Path, ...]) -> str:
    low, high = min(table.numbers), max(table.numbers)
    return (
        f"{table.path}: has frames {low} to {high}, and images {images[0].name} to "
        f"{images[-1].name}, some missing, are there: expected --first-frame, the "
        f"number of {images[0].name} in it"
    )


def _check_places(table: LabelTable, frames: Frames, first: int) -> None:
    """Raises TableError where numbers fit as places of images alone."""
    if not frames.by_number:
        return
    steps = [_exact_step(row, frames, first) for row in table.rows]
    lowest = min(frames.by_number)
    numbers = [lowest + round(step) for step in steps]
    missing = [number for number in numbers if number not in frames.by_number]
    if missing and all(0 <= round(step) < len(frames.images) for step in steps):
        raise TableError(
            f"{table.path}: its frames might be the places of the images, or their "
            f"numbers, of which {frames.path.name} has no {missing[0]}: expected rows "
            "of images that are there, rows of all, or a column image with their names"
        )


def _exact_step(row: LabelRow, frames: Frames, first: int) -> float:
    """How many frames after the first a row is that has a number or a time."""
    if row.frame is not None:
        return row.frame - first
    return (row.seconds or 0) * (frames.fps or 0)


def _place(
    table: LabelTable, frames: Frames, first: int
) -> tuple[list[Placed], dict[int, str]]:
    """The rows with the places of their frames, and what is wrong with others."""
    placed, faults = [], dict(table.faults)
    for row in table.rows:
        index, problem = _frame_of(row, table, frames, first)
        if problem:
            faults[row.line] = f"line {row.line}: {problem}"
        else:
            placed.append((index, row))
    return placed, faults


def _frame_of(
    row: LabelRow, table: LabelTable, frames: Frames, first: int
) -> tuple[int, str]:
    """Place of a row's frame, and what is wrong with it: nothing, as a rule.

    Where a table has several keys, the image's name decides before the frame's number,
    and that before the time.
    """
    if "image" in table.columns.keys:
        name = row.image.replace("\\", "/").rpartition("/")[2]
        if name not in frames.by_name:
            expected = f"expected the name of one image in {frames.path.name}"
            return 0, f"image {row.image[:80]!r}, {expected}"
        return frames.by_name[name], ""
    if row.frame is None and row.seconds is None:
        return row.line - 1 - table.columns.named, ""
    exact, count = _exact_step(row, frames, first), len(frames.images)
    step = round(exact)
    if abs(exact - step) > _TIME_TOLERANCE:
        return 0, f"{row.seconds} s lie between two frames"
    if frames.by_number:
        number = next(iter(frames.by_number)) + step
        if number not in frames.by_number:
            told = f"{row.seconds} s" if row.frame is None else f"frame {row.frame}"
            return 0, f"{told}: there is no image {number} in {frames.path.name}"
        return frames.by_number[number], ""
    if row.frame is None and count and step >= count:
        return 0, f"{row.seconds} s lie after the last frame"
    if step < 0 or (count and step >= count):
        which = f"{first} to {first + count - 1}" if count else f"from {first} on"
        return 0, f"frame {row.frame}, expected {which}"
    return step, ""


def _track(
    video: str,
    name: str,
    rows: list[Placed],
    frames: Frames,
    options: FolderOptions,
) -> Track:
    boxes = np.array([row.ltwh for _, row in rows])
    given_up = [
        (row.lost and options.lost == "absent")
        or (row.confidence is not None and row.confidence < options.min_confidence)
        for _, row in rows
    ]
    shares = np.array([row.visibility for _, row in rows], np.float32)
    sizes = [row.size for _, row in rows]
    return Track(
        name=f"{video}/{name}" if name else video,
        video=video,
        frames=[frames.at(index) for index, _ in rows],
        boxes=boxes,
        numbers=np.array([index for index, _ in rows]),
        visibility=np.where(given_up, np.float32(0), shares * _visibility(boxes)),
        category=rows[0][1].category,
        sizes=sizes if any(sizes) else (),
    )


def _visibility(boxes: np.ndarray) -> np.ndarray:
    """0 where a box says that there is no target, else 1."""
    return np.where(no_target(boxes), 0, 1).astype(np.float32)


def _check_numbering(box_files: list[BoxFile], first_frame: int | None) -> None:
    """Raises PreparationError where frames seem to be counted from 1, and none says so.

    All box files of a folder count alike: where any of them has a frame 0, all do.
    """
    if first_frame is not None:
        return
    suspect = ""
    for content in box_files:
        images = _images(content.frames)
        try:
            table = read_table(content.text)
            by_number = _by_number(table, images)
        except InputError:
            continue  # its worker says so
        numbers = table.numbers
        if not numbers or "image" in table.columns.keys:  # whose names tell
            continue
        low, high = min(numbers), max(numbers)
        if low == 0:
            return
        if by_number:
            if first_number(numbers, by_number) is None:
                suspect = suspect or _unclear(table, images)
            continue
        steps = np.diff(sorted(set(numbers)))
        from_one = low == 1 and len(steps) > 1 and len(set(steps)) == 1
        film = _open(content.frames)
        count = len(images) or (film and film.length) or "some"
        if from_one or high == count:
            suspect = suspect or (
                f"{content.text}: has frames {low} to {high}, and {count} are there: "
                "expected --first-frame 1 (or 0, if frame 1 has one before it)"
            )
    if suspect:
        raise PreparationError(suspect)


def _find_box_files(raw: Path, options: FolderOptions) -> list[BoxFile]:
    """Text files beside a film, or a folder of images, of the same name.

    Raises:
        PreparationError: there are two of the name.
    """
    found: dict[Path, BoxFile] = {}
    for folder, _, files in walk(raw):
        media: dict[str, list[Path]] = {}
        for film in sorted(f for f in files if _suffix(f) in FILM_SUFFIXES):
            media.setdefault(Path(film).stem, []).append(folder / film)
        for text in [folder / f for f in files if _suffix(f) in TABLE_SUFFIXES]:
            images = text.with_suffix("")
            frames = [*media.get(text.stem, ()), *([images] * _is_frames(images))]
            if len(frames) > 1:
                raise PreparationError(
                    f"{text}: is it of {frames[0].name} or of {frames[1].name}? "
                    "Expected one film or folder of its name"
                )
            if frames:
                found[text] = BoxFile(text, frames[0], options)
    return [found[path] for path in natural_sort(found)]


def _is_frames(folder: Path) -> bool:
    """Whether it holds images, and no annotations of its own."""
    own = (*GROUND_TRUTH_NAMES, ANNOTATIONS_NAME)
    return not any((folder / name).exists() for name in own) and bool(_images(folder))


def _suffix(file: str) -> str:
    return Path(file).suffix.lower()


def _sequence_unit(raw: Path, path: Path) -> Unit:
    folder = path if path.is_dir() else path.parent
    return Unit(key_of(raw, path), SequenceFolder(path, key_of(raw, folder)))


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
  NAME/*.jpg and NAME.csv or NAME.txt (images and their boxes)
  what MOT, CVAT, Label Studio, Roboflow, YOLO and VIA export""",
    origin="your own frames and annotations",
    list_units=list_units,
    read_unit=read_unit,
    units_per_shard=24,
    options=FolderOptions,
)

if __name__ == "__main__":
    from data_prep.command import main

    main("folder")
