"""MOT 1.1 and MOTChallenge: ``gt/gt.txt`` or ``det/det.txt`` beside ``img1/``.

Boxes are ``x, y, w, h``: a file whose numbers fit as corners is rejected. Frames count
from 1: a file that counts from 0 is rejected, unless an image has that number, and so
is one whose ``seqinfo.ini`` tells other images. Where images are numbered from another
number than 1, a file that may count them from 1 is rejected, too.
"""

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import NamedTuple

from data_prep.tools.units import corners_problem, declared_size, key_of, make_track
from data_prep.tracks import PreparationError, Rejection, Track, Unit
from siamrpn_jax.data.read.formats import parse_numbers
from siamrpn_jax.data.read.images import list_images
from siamrpn_jax.data.read.rows import read_lines


class Mot(NamedTuple):
    """A unit of MOT's layout."""

    text: Path
    images: Path


def list_units(raw: Path, path: Path) -> Iterator[Unit]:
    """The unit of a text; detections count where there is no truth."""
    folder = path.parent
    if path.name == "gt.txt" or not (folder.parent / "gt/gt.txt").is_file():
        yield Unit(key_of(raw, path), Mot(path, folder.parent / "img1"))


def read_unit(key: str, content: Mot) -> Iterator[Track | Rejection]:
    """A track for each target that is considered."""
    lines, problem = read_lines(content.text)
    if problem or not lines:
        yield Rejection(str(content.text), None, problem or "is empty")
        return
    names = read_lines(content.text.with_name("labels.txt"))[0]
    try:
        images = _numbered(content.images)
    except PreparationError as error:
        yield Rejection(str(content.text), None, str(error), len(lines))
        return
    parsed = [parse_numbers(line) for line in lines]
    info = _read_info(content.images.with_name("seqinfo.ini"))
    if problem := _start_problem(parsed, images) or _length_problem(info, images):
        yield Rejection(str(content.text), None, problem, len(lines))
        return
    size = declared_size(info.get("imwidth"), info.get("imheight"))
    tracks: dict[str, list[tuple[int, tuple[float, ...], float]]] = {}
    categories: dict[str, str] = {}
    for number, row in enumerate(parsed, start=1):
        frame = _frame_of(row)
        if frame is None or frame not in images:
            reason = (
                f"line {number} is {lines[number - 1][:80]!r}, expected "
                f"frame,id,x,y,w,h,… of a frame in {content.images.name}, with a whole "
                "id"
            )
            yield Rejection(str(content.text), None, reason)
            continue
        considered = content.text.name == "det.txt" or len(row) < 7 or row[6] != 0
        if considered:
            name = str(int(row[1]))
            seen = row[8] if len(row) > 8 and row[8] >= 0 else 1.0
            tracks.setdefault(name, []).append((frame, tuple(row[2:6]), seen))
            if len(row) > 7 and 1 <= row[7] <= len(names):
                categories[name] = names[int(row[7]) - 1].strip()
    for rows in tracks.values():
        rows.sort(key=lambda row: row[0])
    boxes = [row[1] for rows in tracks.values() for row in rows]
    if boxes and (problem := corners_problem(boxes, next(iter(images.values())))):
        yield Rejection(str(content.text), None, problem, len(boxes))
        return
    for name, rows in tracks.items():
        numbers = [row[0] for row in rows]
        boxes, seen = [row[1] for row in rows], [row[2] for row in rows]
        frames = [images[number] for number in numbers]
        category = categories.get(name, "")
        yield make_track(
            key, name, frames, numbers, boxes, seen=seen, category=category, size=size
        )


def _frame_of(row: Sequence[float]) -> int | None:
    """The frame of a row; None where it has no whole frame and id."""
    whole = len(row) >= 6 and all(value == value // 1 for value in row[:2])
    return int(row[0]) if whole else None


def _start_problem(rows: Sequence[Sequence[float]], images: Mapping[int, Path]) -> str:
    """What is wrong with the first frame of a file; nothing, as a rule."""
    for line, row in enumerate(rows, start=1):
        frame = _frame_of(row)
        if frame is not None and frame < 1 and frame not in images:
            return (
                f"line {line} is of frame {frame}, and no image has that number: "
                "expected frames from 1, as MOT counts them; add what is missing to "
                "the frame of each line"
            )
    frames = {frame for row in rows if (frame := _frame_of(row)) is not None}
    return _place_problem(frames, images)


def _place_problem(frames: Set[int], images: Mapping[int, Path]) -> str:
    """What tells that frames may be places of images, not their numbers.

    Frames that are numbers, and no places, speak against it.
    """
    places = range(1, len(images) + 1)
    numbers = images.keys() - set(places)
    if not images or min(images) == 1 or frames & numbers or not frames & {*places}:
        return ""
    return (
        f"frames {min(frames)} to {max(frames)} may count the images from 1, as MOT "
        f"does, or mean the numbers of their names, {min(images)} to {max(images)}: "
        "expected images that are numbered from 1"
    )


def _length_problem(info: Mapping[str, str], images: Mapping[int, Path]) -> str:
    """What is wrong with the declared number of images; nothing, as a rule."""
    length = info.get("seqlength", "")
    if not length.isdecimal() or int(length) == len(images):
        return ""
    return (
        f"seqinfo.ini has seqLength {length}, and there are {len(images)} numbered "
        "images, expected the images that were labelled"
    )


def _read_info(path: Path) -> dict[str, str]:
    """Lines ``key=value`` by their keys in lower case; none where there is no file."""
    pairs = [line.partition("=") for line in read_lines(path)[0]]
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _numbered(folder: Path) -> dict[int, Path]:
    """The images by the number that each name ends with; those without are left out.

    Raises:
        PreparationError: two have the same one.
    """
    images: dict[int, Path] = {}
    for path in list_images(folder):
        digits = re.search(r"\d+$", path.stem)
        first = images.setdefault(int(digits[0]), path) if digits else path
        if first != path:
            raise PreparationError(
                f"{folder} holds {first.name} and {path.name}, expected one image of a "
                "number"
            )
    return images
