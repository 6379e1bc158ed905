"""Labels as annotation tools export them, found in your own folder.

====================  ==============================================================
MOT 1.1, MOTChallenge ``CLIP/gt/gt.txt`` (or ``CLIP/det/det.txt``) and ``CLIP/img1/``:
                      ``frame, id, x, y, w, h[, considered, class, visibility]``,
                      frames from 1; class names in ``gt/labels.txt``. Boxes are taken
                      as they are written. What is not considered is left out.
CVAT 1.1              ``annotations.xml`` (any ``.xml``): tracks over a film or a folder
                      ``images/`` beside it, frames from 0; or images. Boxes, rotated
                      ones too, polygons, ellipses and masks.
Label Studio          a ``.json`` of tasks: ``videorectangle`` with key frames in
                      percent, frames from 1, linear in between while ``enabled``; or
                      rectangles, polygons and ellipses of images. Files are found by
                      their names.
COCO                  Roboflow's ``_annotations.coco.json`` beside its images. With
                      ``videos`` and ``track_id``, any ``.json``, its images in
                      ``images/``, beside it or its folder, or beside it: tracks; what
                      is ``lost`` is absent.
YOLO                  ``labels/*.txt`` and ``images/``, below a split or the other way
                      round; class names in ``data.yaml``.
VIA                   a ``.csv`` with ``region_shape_attributes``, beside its images:
                      rectangles, polygons, circles and ellipses.
====================  ==============================================================

Polygons are kept as outlines, and the box of a rotated shape is what it covers. A shape
that has no extent (points, lines) or is not known is rejected by its name.
"""

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from data_prep import coco
from data_prep.rows import read_xml
from data_prep.shapes import (
    Box,
    LabelledObject,
    from_box,
    from_ellipse,
    from_polygons,
    unusable,
)
from data_prep.stills import still_track
from data_prep.tracks import (
    Frame,
    PreparationError,
    Rejection,
    Track,
    Unit,
    VideoFrame,
)
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import inside, read_json
from siamrpn_jax.data.read.formats import no_target, parse_number, parse_numbers
from siamrpn_jax.data.read.images import is_image, list_images
from siamrpn_jax.data.read.rows import read_lines
from siamrpn_jax.media.video import FILM_SUFFIXES

_PERCENT = 0.01
_BROKEN = (np.inf, np.inf, np.inf, np.inf)
"""A box that cannot be read: the writer rejects it."""

_TRACK_TYPES = ("videorectangle",)


class Mot(NamedTuple):
    """A unit of MOT's layout."""

    text: Path
    images: Path


class Cvat(NamedTuple):
    """A unit of CVAT's: one file with tracks."""

    path: Path
    media: Path
    """A film, or a folder of images."""


class StudioTask(NamedTuple):
    """A unit of Label Studio's: the tracks of one film."""

    path: Path
    film: Path
    results: tuple[dict[str, Any], ...]


class LabelledStill(NamedTuple):
    """A unit of any tool's: an image and its objects."""

    path: Path
    """Where they are annotated."""

    image: Path
    objects: tuple[LabelledObject, ...]

    relative: bool
    """Whether they are in fractions of the image, not in pixels."""


class CocoVideo(NamedTuple):
    """A unit of COCO's with videos: the tracks of one of them."""

    path: Path
    images: Path
    video: Any
    """The id of the video."""


ToolContent = Mot | Cvat | StudioTask | CocoVideo | LabelledStill
"""What units of this module hold."""


def list_units(raw: Path, folders: Iterable[tuple[Path, list[str]]]) -> list[Unit]:
    """A unit for each file of tracks, and for each labelled image.

    Args:
        raw: the folder that keys are relative to.
        folders: each folder below it, with the names of its files.

    Raises:
        PreparationError: a file of a tool cannot be read.
    """
    units: list[Unit] = []
    folders = list(folders)
    media = {name: folder / name for folder, names in folders for name in names}
    for folder, names in folders:
        for name in sorted(names):
            path = folder / name
            suffix = path.suffix.lower()
            if name in ("gt.txt", "det.txt") and (folder.parent / "img1").is_dir():
                if name == "gt.txt" or not (folder.parent / "gt/gt.txt").is_file():
                    content = Mot(path, folder.parent / "img1")
                    units.append(Unit(_key(raw, path), content))
            elif name == "_annotations.coco.json":
                prefix = "" if folder == raw else f"{_key(raw, folder)}/"
                units += coco.list_images(path, folder, min_side=0, prefix=prefix)
            elif suffix == ".json" and b'"videos"' in _head(path):
                units += _coco_units(raw, path)
            elif suffix == ".xml" and b"<annotations" in _head(path):
                units += _cvat_units(raw, path)
            elif suffix == ".json" and b'"annotations"' in _head(path):
                units += _studio_units(raw, path, media)
            elif suffix == ".csv" and b"region_shape_attributes" in _head(path):
                units += _via_units(raw, path)
        if folder.name == "labels" or folder.parent.name == "labels":
            units += _yolo_units(raw, folder, names)
    return units


def read_unit(unit: Unit) -> Iterator[Track | Rejection]:
    """The tracks of one unit."""
    content: ToolContent = unit.content
    if isinstance(content, Mot):
        yield from _read_mot(unit.key, content)
    elif isinstance(content, Cvat):
        yield from _read_cvat(unit.key, content)
    elif isinstance(content, StudioTask):
        yield from _read_studio(unit.key, content)
    elif isinstance(content, CocoVideo):
        yield from _read_coco(unit.key, content)
    else:
        for number, one in enumerate(content.objects):
            if one.problem:
                reason = f"{content.image.name}, object {number}: {one.problem}"
                yield Rejection(str(content.path), None, reason)
                continue
            yield still_track(
                unit.key,
                number,
                content.image,
                one.box,
                category=one.category,
                relative=content.relative,
                outlines=one.outlines,
            )


# ------------------------------------------------------------------------------- MOT


def _read_mot(key: str, content: Mot) -> Iterator[Track | Rejection]:
    lines, problem = read_lines(content.text)
    if problem or not lines:
        yield Rejection(str(content.text), None, problem or "is empty")
        return
    names = read_lines(content.text.with_name("labels.txt"))[0]
    images = {_number(path): path for path in list_images(content.images)}
    tracks: dict[str, list[tuple[int, tuple[float, ...], float]]] = {}
    categories: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        row = parse_numbers(line)
        frame = int(row[0]) if len(row) >= 6 and row[0] == row[0] // 1 else -1
        if frame not in images:
            reason = (
                f"line {number} is {line[:80]!r}, expected frame,id,x,y,w,h,… of a "
                f"frame in {content.images.name}"
            )
            yield Rejection(str(content.text), None, reason)
            continue
        considered = content.text.name == "det.txt" or len(row) < 7 or row[6] != 0
        if considered:
            name = f"{row[1]:g}"
            seen = row[8] if len(row) > 8 and row[8] >= 0 else 1.0
            tracks.setdefault(name, []).append((frame, tuple(row[2:6]), seen))
            if len(row) > 7 and 1 <= row[7] <= len(names):
                categories[name] = names[int(row[7]) - 1].strip()
    for name, rows in tracks.items():
        rows.sort(key=lambda row: row[0])
        numbers = [row[0] for row in rows]
        boxes, seen = [row[1] for row in rows], [row[2] for row in rows]
        frames = [images[number] for number in numbers]
        category = categories.get(name, "")
        yield _track(key, name, frames, numbers, boxes, seen=seen, category=category)


def _number(path: Path) -> int:
    """The number that the name of an image ends with."""
    digits = re.search(r"\d+$", path.stem)
    return int(digits[0]) if digits else -1


# ------------------------------------------------------------------------------ CVAT


def _cvat_units(raw: Path, path: Path) -> Iterator[Unit]:
    try:
        root = read_xml(path)
    except PreparationError as error:
        raise PreparationError(f"{path}: {error}") from error
    if root.tag != "annotations":
        return
    if root.find("track") is not None:
        yield Unit(_key(raw, path), Cvat(path, _cvat_media(path)))
    for image in root.iterfind("image"):
        file = _beside(path, image.get("name", ""))
        if objects := tuple(_cvat_object(shape) for shape in _cvat_shapes(image)):
            key = f"{_key(raw, path)}/{image.get('name', '')}"
            yield Unit(key, LabelledStill(path, file, objects, False))


def _cvat_media(path: Path) -> Path:
    """The film of a task, or its folder of images."""
    films = [p for p in sorted(path.parent.iterdir()) if _is_film(p)]
    named = [film for film in films if film.stem == path.stem]
    if len(named or films) == 1:
        return (named or films)[0]
    for folder in (path.parent / "images", path.parent):
        if list_images(folder):
            return folder
    raise PreparationError(
        f"{path}: has tracks, expected one film or a folder images/ beside it"
    )


def _cvat_shapes(parent: ElementTree.Element) -> list[ElementTree.Element]:
    """What is drawn on an image, or what a track is in its frames."""
    return [one for one in parent if one.tag not in ("attribute", "tag")]


def _cvat_object(shape: ElementTree.Element) -> LabelledObject:
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
        return LabelledObject(category, _BROKEN)
    return unusable(category, f"a {shape.tag}")


def _read_cvat(key: str, content: Cvat) -> Iterator[Track | Rejection]:
    images = [] if _is_film(content.media) else list_images(content.media)
    for track in read_xml(content.path).iterfind("track"):
        numbers, boxes, outlines, seen = [], [], [], []
        for shape in _cvat_shapes(track):
            frame = shape.get("frame", "")
            if not frame.isdecimal() or (images and int(frame) >= len(images)):
                reason = f"track {track.get('id')}: frame {frame!r}, expected one"
                yield Rejection(str(content.path), None, reason)
                continue
            target = _cvat_object(shape)
            if target.problem:
                reason = f"track {track.get('id')}, frame {frame}: {target.problem}"
                yield Rejection(str(content.path), None, reason)
                continue
            numbers.append(int(frame))
            boxes.append(target.box)
            outlines.append(target.outlines)
            seen.append(0.0 if shape.get("outside") == "1" else 1.0)
        frames = [_frame(content.media, images, number) for number in numbers]
        name, category = track.get("id", ""), track.get("label", "")
        whole = _track(key, name, frames, numbers, boxes, seen=seen, category=category)
        yield replace(whole, outlines=outlines) if any(outlines) else whole


# ----------------------------------------------------------------- COCO with videos


def _coco_units(raw: Path, path: Path) -> Iterator[Unit]:
    content = read_json(path, error=PreparationError)
    places = (path.parent / "images", path.parent.parent / "images")
    images = next((place for place in places if place.is_dir()), path.parent)
    try:
        for video in content["videos"]:
            key = f"{_key(raw, path)}/{video.get('name') or video['id']}"
            yield Unit(key, CocoVideo(path, images, video["id"]))
    except (AttributeError, KeyError, TypeError) as error:
        raise PreparationError(f"{path}: malformed videos ({error!r})") from error


def _read_coco(key: str, content: CocoVideo) -> Iterator[Track | Rejection]:
    whole = read_json(content.path, error=PreparationError)
    try:
        names = {one["id"]: str(one["name"]) for one in whole.get("categories", ())}
        images = {
            one["id"]: (_frame_index(one), inside(content.images, one["file_name"]))
            for one in whole["images"]
            if one.get("video_id") == content.video
        }
        tracks: dict[Any, list[dict[str, Any]]] = {}
        for one in whole["annotations"]:
            if one["image_id"] in images:
                track = one.get("track_id", one.get("instance_id"))
                tracks.setdefault(track, []).append(one)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        yield Rejection(str(content.path), None, f"malformed ({error!r})")
        return
    for name, rows in tracks.items():
        rows.sort(key=lambda row: images[row["image_id"]][0])
        numbers, frames, boxes, seen = [], [], [], []
        for row in rows:
            number, image = images[row["image_id"]]
            numbers.append(number)
            frames.append(image)
            boxes.append(_ltwh(row.get("bbox")))
            seen.append(0.0 if row.get("lost") else 1.0)
        category = names.get(rows[0].get("category_id"), "")
        yield _track(
            key, str(name), frames, numbers, boxes, seen=seen, category=category
        )


def _frame_index(image: dict[str, Any]) -> int:
    number = image.get("frame_index", image.get("frame_id", 0))
    if type(number) is not int or not 0 <= number < 2**31:
        raise ValueError(f"frame_index {number!r:.80}, expected a whole number")
    return number


def _ltwh(bbox: Any) -> tuple[float, float, float, float]:
    try:
        x, y, w, h = map(float, bbox)
    except (TypeError, ValueError, OverflowError):
        return _BROKEN
    return x, y, w, h


# ---------------------------------------------------------------------- Label Studio


def _studio_units(raw: Path, path: Path, media: dict[str, Path]) -> Iterator[Unit]:
    content = read_json(path, error=PreparationError)
    tasks = content if isinstance(content, list) else [content]
    for number, task in enumerate(tasks):
        try:
            results = [
                result
                for annotation in task["annotations"]
                for result in annotation.get("result", ())
                if isinstance(result.get("value"), dict)
            ]
            source = str(next(v for v in task["data"].values() if isinstance(v, str)))
        except (KeyError, TypeError, AttributeError, StopIteration):
            return  # some other tool's
        name = _file_of(source)
        file = media.get(name) or media.get(re.sub(r"^[0-9a-f]{8}-", "", name))
        if file is None:
            raise PreparationError(f"{path}: task {number} is of {name}, expected it")
        key = f"{_key(raw, path)}/{name}"
        tracks = tuple(r for r in results if r.get("type") in _TRACK_TYPES)
        if tracks:
            yield Unit(key, StudioTask(path, file, tracks))
        elif objects := _studio_objects(results):
            yield Unit(key, LabelledStill(path, file, objects, True))


def _file_of(source: str) -> str:
    """The name of a file in an address or in ``?d=folder/name``."""
    return re.split(r"[/\\=]", source.partition("&")[0])[-1]


def _studio_objects(results: Sequence[dict[str, Any]]) -> tuple[LabelledObject, ...]:
    """What is drawn on an image, in fractions of it.

    A shape may stand there twice, without and with its label: the last one counts.
    """
    shapes = [result for result in results if _SHAPES & result["value"].keys()]
    named = {str(r.get("id", number)): r for number, r in enumerate(shapes)}
    return tuple(_studio_object(result) for result in named.values())


_SHAPES = {"x", "points", "rle", "vertices"}
"""Of these a result that is drawn has one."""


def _studio_object(result: dict[str, Any]) -> LabelledObject:
    value = result["value"]
    category, angle = _label(value), value.get("rotation", 0)
    # Fractions of the two sides are of different length: shapes are rotated in pixels.
    sides = result.get("original_width"), result.get("original_height")
    if not _are_numbers(angle) or (angle and not _are_numbers(*sides)):
        return unusable(category, "a rotation without original_width, original_height")
    size = np.array(sides, float) if angle else np.ones(2)
    if "points" in value:
        try:
            polygon = _PERCENT * np.array(value["points"], float)
        except (TypeError, ValueError):
            return LabelledObject(category, _BROKEN)
        return from_polygons(category, [polygon])
    if "radiusX" in value:
        numbers = [value.get(key) for key in ("x", "y", "radiusX", "radiusY")]
        if not _are_numbers(*numbers):
            return LabelledObject(category, _BROKEN)
        middle, radii = _PERCENT * np.array(numbers, float).reshape(2, 2) * size
        return _divided(from_ellipse(category, middle, radii, angle=angle), size)
    if "height" in value:
        box = (np.array(_percent(value)) * np.tile(size, 2)).tolist()
        return _divided(from_box(category, box, angle=angle, about="corner"), size)
    return unusable(category, f"a {result.get('type')}")


def _divided(one: LabelledObject, size: np.ndarray) -> LabelledObject:
    """Its pixels as fractions of a width and height."""
    x, y, w, h = (np.array(one.box) / np.tile(size, 2)).tolist()
    outlines = tuple(outline / size for outline in one.outlines)
    return one._replace(box=(x, y, w, h), outlines=outlines)


def _label(value: dict[str, Any]) -> str:
    """The first label of a shape: under ``labels``, ``rectanglelabels`` or the like."""
    lists = [v for key, v in value.items() if key.endswith("labels") and v]
    return str(lists[0][0]) if lists else ""


def _percent(value: dict[str, Any]) -> Box:
    """A box in fractions; not finite where a number is missing."""
    sides = [value.get(key) for key in ("x", "y", "width", "height")]
    if not _are_numbers(*sides):
        return _BROKEN
    x, y, w, h = (_PERCENT * np.array(sides, float)).tolist()
    return x, y, w, h


def _are_numbers(*values: Any) -> bool:
    return all(type(value) in (int, float) for value in values)


def _read_studio(key: str, content: StudioTask) -> Iterator[Track | Rejection]:
    for number, result in enumerate(content.results):
        value = result["value"]
        try:
            points = sorted(value["sequence"], key=lambda point: point["frame"])
            if any(point.get("rotation") for point in points):
                raise ValueError("a rotation")
            rows = list(_between(points, int(value.get("framesCount", 0))))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = (
                f"result {number}: {error!r}, expected key frames with numbers, upright"
            )
            yield Rejection(str(content.path), None, reason)
            continue
        numbers = [frame for frame, _ in rows]
        boxes = [box for _, box in rows]
        frames: list[Frame] = [VideoFrame(content.film, frame) for frame in numbers]
        name, label = str(result.get("id", number)), _label(value)
        yield _track(key, name, frames, numbers, boxes, category=label, relative=True)


def _between(
    points: list[dict[str, Any]], count: int
) -> Iterator[tuple[int, tuple[float, ...]]]:
    """Frames from 0 and boxes in fractions: key frames, and what lies between them.

    A key frame that is not ``enabled`` ends what it begins; the last one, if it is,
    holds to the end of the film.
    """
    for point, after in zip(points, [*points[1:], None], strict=True):
        first, box = int(point["frame"]) - 1, np.array(_percent(point))
        yield first, tuple(box)
        if not point.get("enabled", True):
            continue
        last = int(after["frame"]) - 1 if after else max(count, first + 1)
        end = np.array(_percent(after)) if after else box
        for frame in range(first + 1, min(last, first + 10**6)):
            share = (frame - first) / (last - first)
            yield frame, tuple(box + share * (end - box))


# ------------------------------------------------------------------------ YOLO and VIA


def _yolo_units(raw: Path, folder: Path, names: list[str]) -> Iterator[Unit]:
    parts = list(folder.parts)
    at = len(parts) - 1 - parts[::-1].index("labels")
    images = Path(*parts[:at], "images", *parts[at + 1 :])
    by_stem = {path.stem: path for path in list_images(images)}
    classes = _yolo_classes(Path(*parts[:at]), raw)
    for name in sorted(names):
        path = folder / name
        if path.suffix != ".txt" or path.stem not in by_stem:
            continue
        rows = [parse_numbers(line) for line in read_lines(path)[0]]
        if objects := tuple(_yolo_object(row, classes) for row in rows):
            image = by_stem[path.stem]
            yield Unit(_key(raw, image), LabelledStill(path, image, objects, True))


def _yolo_object(row: list[float], classes: list[str]) -> LabelledObject:
    """``class cx cy w h[ confidence]``, or a polygon ``class x y x y …``."""
    index = int(row[0]) if row and row[0] == row[0] // 1 else -1
    category = classes[index] if 0 <= index < len(classes) else f"{index}"
    if len(row) in (5, 6):
        _, cx, cy, w, h = row[:5]
        return LabelledObject(category, (cx - w / 2, cy - h / 2, w, h))
    if len(row) >= 7 and len(row) % 2:
        return from_polygons(category, [np.array(row[1:]).reshape(-1, 2)])
    return LabelledObject(category, _BROKEN)


def _yolo_classes(folder: Path, raw: Path) -> list[str]:
    """From the nearest ``data.yaml``: ``names: [a, b]`` or a list or table below it."""
    for place in (folder, *folder.parents):
        text = "\n".join(read_lines(place / "data.yaml")[0])
        if found := re.search(r"^names:\s*\[(.*?)\]", text, re.M | re.S):
            return [name.strip(" '\"\n") for name in found[1].split(",")]
        if found := re.search(r"^names:\s*\n((?:[ \t-]+.*\n?)+)", text, re.M):
            entries = re.findall(r"^[ \t]*(?:-|\d+:)\s*(.+?)\s*$", found[1], re.M)
            return [entry.strip("'\"") for entry in entries]
        if place == raw:
            break
    return []


def _via_units(raw: Path, path: Path) -> Iterator[Unit]:
    lines, problem = read_lines(path)
    if problem:
        raise PreparationError(f"{path}: {problem}")
    objects: dict[str, list[LabelledObject]] = {}
    lines[0] = lines[0].lstrip("#")
    for row in csv.DictReader(lines):
        try:
            shape = json.loads(row["region_shape_attributes"])
            about = json.loads(row["region_attributes"] or "{}")
            if shape:  # An image without regions has a row, too.
                label = str(next(iter(about.values()), ""))
                one = _via_object(label, shape)
                objects.setdefault(row["filename"], []).append(one)
        except (
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            OverflowError,
        ) as error:
            raise PreparationError(
                f"{path}: {str(row)[:80]}, expected VIA's columns ({error!r})"
            ) from error
    for name, found in objects.items():
        key = f"{_key(raw, path)}/{name}"
        yield Unit(key, LabelledStill(path, _beside(path, name), tuple(found), False))


def _via_object(category: str, shape: dict[str, Any]) -> LabelledObject:
    """Pixels; the angle of an ellipse is in radians."""

    def numbers(*names: str) -> list[float]:
        return [float(shape[name]) for name in names]

    kind = shape["name"]
    if kind == "rect":
        x, y, w, h = numbers("x", "y", "width", "height")
        return LabelledObject(category, (x, y, w, h))
    if kind == "polygon":
        corners = zip(shape["all_points_x"], shape["all_points_y"], strict=True)
        return from_polygons(category, [np.array(list(corners), float)])
    if kind == "circle":
        return from_ellipse(category, numbers("cx", "cy"), numbers("r", "r"))
    if kind == "ellipse":
        angle = math.degrees(shape.get("theta", 0))
        middle, radii = numbers("cx", "cy"), numbers("rx", "ry")
        return from_ellipse(category, middle, radii, angle=angle)
    return unusable(category, f"a {kind}")


# ---------------------------------------------------------------------------- shared


def _track(
    key: str,
    name: str,
    frames: Sequence[Frame],
    numbers: Sequence[int],
    boxes: Sequence[Sequence[float]],
    *,
    seen: Sequence[float] | None = None,
    category: str = "",
    relative: bool = False,
) -> Track:
    values = np.array(boxes, np.float64).reshape(-1, 4)
    shares = np.ones(len(values)) if seen is None else np.array(seen)
    # What is not finite is damage, and for the writer to reject.
    absent = no_target(values) & np.isfinite(values).all(axis=1)
    return Track(
        name=f"{key}/{name}",
        video=key,
        frames=frames,
        boxes=values,
        numbers=np.array(numbers, np.int64),
        visibility=np.where(absent, 0, shares).astype(np.float32),
        category=category,
        relative=relative,
    )


def _frame(media: Path, images: list[Path], number: int) -> Frame:
    return images[number] if images else VideoFrame(media, number)


def _beside(path: Path, name: str) -> Path:
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


def _is_film(path: Path) -> bool:
    return path.suffix.lower() in FILM_SUFFIXES


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError:
        return b""


def _key(raw: Path, path: Path) -> str:
    return path.relative_to(raw).as_posix()


def describe_unknown(folders: Iterable[tuple[Path, list[str]]]) -> str:
    """What lies there that looks like labels, for the message that nothing is known."""
    for folder, names in folders:
        for name in sorted(names):
            path = folder / name
            if path.suffix.lower() == ".json":
                try:
                    content = read_json(path)
                except InputError:
                    continue
                if isinstance(content, dict) and {"images", "annotations"} <= set(
                    content
                ):
                    return (
                        f"; {path} is of COCO's form: python data_prep/coco.py "
                        "--annotations FILE --images FOLDER reads it"
                    )
            if path.suffix.lower() in (
                ".json",
                ".xml",
                ".csv",
                ".txt",
                ".tsv",
                ".yaml",
            ):
                if not is_image(path):
                    return f"; {path} is there, and of no layout known"
    return ""
