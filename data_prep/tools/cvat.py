"""CVAT 1.1, an ``.xml``: tracks over a film or a folder ``images/``, or images.

Frames count from 0. Images that CVAT names, ``frame_000007``, go by their number: it
leaves deleted frames out; others go by their order. Where the file tells the ``size``
of its task, there have to be as many: frames of the film, or images by their order.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from data_prep.rows import read_xml
from data_prep.shapes import (
    LabelledObject,
    from_box,
    from_ellipse,
    from_polygons,
    unusable,
)
from data_prep.tools.units import (
    BROKEN,
    LabelledStill,
    beside,
    declared_size,
    frame_at,
    key_of,
    make_track,
)
from data_prep.tracks import PreparationError, Rejection, Track, Unit
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.formats import parse_number, parse_numbers
from siamrpn_jax.data.read.images import is_film, list_images
from siamrpn_jax.media.video import Video


class Cvat(NamedTuple):
    """A unit of CVAT's: one file with tracks."""

    path: Path
    media: Path
    """A film, or a folder of images."""


def list_units(raw: Path, path: Path) -> Iterator[Unit]:
    """A unit for the tracks of a file, and for each image.

    Raises:
        PreparationError: no XML, or not of the media that lie there.
    """
    try:
        root = read_xml(path)
    except PreparationError as error:
        raise PreparationError(f"{path}: {error}") from error
    if root.tag != "annotations":
        return
    tracks = root.findall("track")
    tasks = {track.get("task_id") for track in tracks}
    if len(tasks) > 1:
        raise PreparationError(
            f"{path}: has tracks of {len(tasks)} tasks, expected one: export each task"
        )
    if tracks:
        media = _find_media(path, root)
        if not is_film(media):
            _numbered(media)
        yield Unit(key_of(raw, path), Cvat(path, media))
    for image in root.iterfind("image"):
        name = image.get("name", "")
        if objects := tuple(_read_shape(shape) for shape in _shapes(image)):
            size = declared_size(image.get("width"), image.get("height"))
            still = LabelledStill(path, beside(path, name), objects, False, size)
            yield Unit(f"{key_of(raw, path)}/{name}", still)


def read_unit(key: str, content: Cvat) -> Iterator[Track | Rejection]:
    """The tracks of a file."""
    root = read_xml(content.path)
    images = {} if is_film(content.media) else _numbered(content.media)
    if problem := _count_problem(root, content.media, images):
        lost = sum(len(_shapes(track)) for track in root.iterfind("track"))
        yield Rejection(str(content.path), None, problem, lost)
        return
    size = declared_size(
        root.findtext("meta//original_size/width"),
        root.findtext("meta//original_size/height"),
    )
    for track in root.iterfind("track"):
        name, category = track.get("id", ""), track.get("label", "")
        numbers, boxes, outlines, seen = [], [], [], []
        for shape in _shapes(track):
            frame = shape.get("frame", "")
            target = _read_shape(shape)
            problem = target.problem
            if not frame.isdecimal() or (images and int(frame) not in images):
                problem = "no such frame in the media"
            if problem:
                reason = f"track {name}, frame {frame!r}: {problem}"
                yield Rejection(str(content.path), None, reason)
                continue
            numbers.append(int(frame))
            boxes.append(target.box)
            outlines.append(target.outlines)
            seen.append(0.0 if shape.get("outside") == "1" else 1.0)
        frames = [frame_at(content.media, images, number) for number in numbers]
        yield make_track(
            key,
            name,
            frames,
            numbers,
            boxes,
            seen=seen,
            category=category,
            size=size,
            outlines=outlines,
        )


def _find_media(path: Path, root: ElementTree.Element) -> Path:
    """The film of a task, or its folder of images.

    Raises:
        PreparationError: there is none, another one, or two that it may be.
    """
    source = Path((root.findtext("meta//source") or "").strip())
    films = [film for film in sorted(path.parent.iterdir()) if is_film(film)]
    wanted = source.stem if is_film(source) else ""
    of_source = [film for film in films if film.stem == wanted]
    named = of_source or [film for film in films if film.stem == path.stem]
    images = path.parent / "images"
    several = named if named else films + [images] * bool(list_images(images))
    if len(several) > 1 and (named or len(films) == 1):
        raise PreparationError(
            f"{path}: is it of {several[0].name} or of {several[1].name}? Expected one"
        )
    if len(named or films) == 1:
        film = (named or films)[0]
        if wanted and not of_source:
            raise PreparationError(
                f"{path}: labels {source.name}, found {film.name}: expected the film "
                "under its name"
            )
        return film
    for folder in (images, path.parent):
        if list_images(folder):
            return folder
    raise PreparationError(
        f"{path}: has tracks, expected one film or a folder images/ beside it"
    )


def _count_problem(
    root: ElementTree.Element, media: Path, images: dict[int, Path]
) -> str:
    """What is wrong with how many frames there are; nothing, as a rule.

    Images that carry the numbers of their frames may be fewer: the labelled ones.
    """
    tasks = root.findall("meta//task")
    size = (tasks[0].findtext("size") or "").strip() if len(tasks) == 1 else ""
    if not size.isdecimal() or (images and all(map(_own_name, images.values()))):
        return ""
    if images:
        if len(images) == int(size):
            return ""
        return (
            f"has a task of {size} images, and {media.name} holds {len(images)}, "
            "expected the same images: their order tells which frame each is"
        )
    part = tasks[0].findtext("frame_filter") or tasks[0].findtext("start_frame", "0")
    if part.strip() != "0":
        return ""  # frames of a part keep their numbers in the film
    count = _count_frames(media, int(size))
    if count == int(size):
        return ""
    return (
        f"has a task of {size} frames, and {media.name} has {count}, expected the film "
        "that was labelled, from its start to the end of the task"
    )


def _count_frames(film: Path, expected: int) -> int:
    """Frames of a film; as expected where it cannot be read, as the writer will say."""
    try:
        video = Video(film)
        if video.length == expected:
            return expected
        return sum(1 for _ in video)  # what a film declares may be rough
    except InputError:
        return expected


def _own_name(image: Path) -> re.Match[str] | None:
    """The number in a name that CVAT gave; None in any other."""
    return re.fullmatch(r"frame_(\d+)", image.stem)


def _numbered(folder: Path) -> dict[int, Path]:
    """The images of a task by their frames.

    Raises:
        PreparationError: CVAT's order of the names cannot be known.
    """
    images = list_images(folder)
    own = [_own_name(path) for path in images]
    if all(own):
        return {int(one[1]): path for one, path in zip(own, images, strict=True) if one}
    by_letter = sorted(images, key=lambda path: path.name)
    if images != by_letter:
        at = next(i for i, path in enumerate(images) if path != by_letter[i])
        raise PreparationError(
            f"{folder}: is {images[at].name} or {by_letter[at].name} frame {at}? CVAT "
            "sorts names letter by letter; expected numbers of equal length"
        )
    return dict(enumerate(images))


def _shapes(parent: ElementTree.Element) -> list[ElementTree.Element]:
    """What is drawn on an image, or what a track is in its frames."""
    return [one for one in parent if one.tag not in ("attribute", "tag")]


def _read_shape(shape: ElementTree.Element) -> LabelledObject:
    category = shape.get("label", "")

    def numbers(*names: str) -> list[float]:
        return [parse_number(shape.get(name, "")) for name in names]

    try:
        angle = parse_number(shape.get("rotation", "0"))
        if shape.tag == "box":
            x0, y0, x1, y1 = numbers("xtl", "ytl", "xbr", "ybr")
            return from_box(category, (x0, y0, x1 - x0, y1 - y0), angle=angle)
        if shape.tag == "polygon":
            corners = [parse_numbers(c) for c in shape.get("points", "").split(";")]
            return from_polygons(category, [np.array(corners, float)])
        if shape.tag == "ellipse":
            middle, radii = numbers("cx", "cy"), numbers("rx", "ry")
            return from_ellipse(category, middle, radii, angle=angle)
        if shape.tag == "mask":
            x, y, w, h = numbers("left", "top", "width", "height")
            return LabelledObject(category, (x, y, w, h))
    except ValueError:
        return LabelledObject(category, BROKEN)
    return unusable(category, f"a {shape.tag}")
