"""COCO: 118,287 images to train on with 860,001 boxes of 80 classes; and files like it.

Lin et al., ECCV 2014. A JSON file lists ``images``, ``annotations``, ``categories``.
A ``bbox`` is ``x, y, w, h`` in pixels, counted from 0, with fractions. Left out by rule
are crowds (``iscrowd``: one box about many objects) and objects with a side below
``--min-side``; their number is printed. A ``segmentation`` of polygons is kept as the
outline along which an object can be cut out. CVAT writes a rotated box as the ``bbox``
before its rotation, whose degrees stand in ``attributes``: it is turned about its
middle, and the box is what it then covers.

Other files of this form are named by ``--annotations`` and ``--images``. LVIS, whose
images have an address in place of ``file_name``, is one: ``--annotations
lvis_v1_train.json --images .``, with the folder ``train2017`` in ``--raw``.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.shapes import from_box
from data_prep.stills import still_track
from data_prep.tracks import Dataset, Options, PreparationError, Rejection, Track, Unit
from siamrpn_jax.common.files import inside, read_json
from siamrpn_jax.data.read.stills import (
    AS_CORNERS,
    are_corners,
    read_outlines,
    turn_problem,
)

KEPT = frozenset(
    "images annotations categories id image_id category_id name file_name coco_url "
    "width height bbox iscrowd segmentation attributes rotation".split()
)
"""What is read of the JSON file."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CocoOptions(Options):
    """Options of COCO."""

    split: str = "train2017"
    """Which images: ``train2017``, ``val2017``; those of 2014 can be read as well."""
    min_side: float = 10
    """Leave out objects with a side below this number of pixels."""
    annotations: str = ""
    """Another file of this form, below ``--raw``."""
    images: str = ""
    """The folder that file names in it are relative to, below ``--raw``."""


class Object(NamedTuple):
    """An annotation, not yet checked."""

    number: int
    """Among those of its image, with those left out."""

    bbox: Any
    category: str
    outlines: tuple[np.ndarray, ...]
    """``float32 [n, 2]`` each."""

    problem: str = ""
    """What is wrong with its rotation or category: nothing, as a rule."""


class Image(NamedTuple):
    """What a unit holds."""

    annotations: Path
    """The file that it is listed in."""

    path: Path | None
    """None: it is not listed, there are annotations only."""

    size: tuple[int, int] | None
    objects: tuple[Object, ...]


def list_units(options: CocoOptions) -> list[Unit]:
    """A unit for each image with objects."""
    file = options.annotations or f"annotations/instances_{options.split}.json"
    images = options.raw / (options.images or options.split)
    if not images.is_dir():
        raise PreparationError(f"{images}: no such folder, expected images")
    return list_images(options.raw / file, images, min_side=options.min_side)


def list_images(
    annotations: Path, images: Path, *, min_side: float, prefix: str = ""
) -> list[Unit]:
    """A unit for each image with objects, of any file of this form.

    Args:
        annotations: the JSON file.
        images: the folder that its file names are relative to.
        min_side: objects with a smaller side are left out.
        prefix: begins the keys.

    Raises:
        PreparationError: the file is no JSON, lists an image without an id or a name,
            two of the same, or no objects, or its boxes are corners.
    """
    content = _load(annotations)
    found: dict[Any, list[dict]] = {}
    try:
        names = {
            category_key(c["id"]): str(c["name"]) for c in content.get("categories", ())
        }
        listed = {entry["id"]: entry for entry in content["images"]}
        keys = {name: prefix + _file_name(entry) for name, entry in listed.items()}
        for annotation in content["annotations"]:
            found.setdefault(annotation.get("image_id"), []).append(annotation)
    except (KeyError, TypeError, AttributeError) as error:
        raise PreparationError(f"{annotations}: malformed ({error!r})") from error
    if len(set(keys.values())) < len(content["images"]):
        raise PreparationError(f"{annotations}: lists an image twice")
    _check_corners(annotations, listed, found)
    units, left_out = [], Counter()
    for image_id in dict.fromkeys([*listed, *found]):
        objects = []
        for number, annotation in enumerate(found.get(image_id, ())):
            category = names.get(category_key(annotation.get("category_id")), "")
            item = _object(number, annotation, category)
            if problem := category_problem(annotation, names):
                item = item._replace(problem=problem)
            if reason := _rule(annotation, item, min_side):
                left_out[reason] += 1
            else:
                objects.append(item)
        if objects:
            entry = listed.get(image_id)
            path = _path(annotations, images, entry) if entry else None
            image = Image(annotations, path, _size(entry), tuple(objects))
            units.append(Unit(keys.get(image_id, f"{prefix}image {image_id}"), image))
    if left_out:
        counts = ", ".join(f"{n} {reason}" for reason, n in sorted(left_out.items()))
        log.warning("%s: left out by rule: %s", annotations, counts)
    if not units:
        raise PreparationError(f"{annotations}: has no usable annotations")
    return units


def read_unit(unit: Unit) -> Iterator[Track | Rejection]:
    """A track for each object of one image."""
    image: Image = unit.content
    problem = turn_problem(image.path, image.size) if image.path else ""
    if image.path and problem:
        yield Rejection(str(image.path), None, problem, len(image.objects))
        return
    for item in image.objects:
        box = _box(item.bbox)
        if image.path is None:
            reason = f"an annotation of {unit.key}, which is not listed"
            yield Rejection(str(image.annotations), None, reason)
        elif box is None or item.problem:
            wrong = item.problem or f"bbox {str(item.bbox)[:80]}, expected x,y,w,h"
            reason = f"{unit.key}: {wrong}"
            yield Rejection(str(image.annotations), None, reason)
        else:
            yield still_track(
                unit.key,
                item.number,
                image.path,
                box,
                category=item.category,
                size=image.size,
                outlines=item.outlines,
            )


def _load(path: Path) -> dict[str, Any]:
    def slim(entry: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in entry.items() if key in KEPT}
        if entry.get("segmentation") or isinstance(entry.get("segmentation"), dict):
            kept.pop("attributes", None)  # what is drawn is rotated already
        if "segmentation" in kept:  # most of the file: as lists it would fill gigabytes
            outlines = read_outlines(kept["segmentation"])
            kept["segmentation"] = tuple(o.astype(np.float32) for o in outlines)
        return kept

    content = read_json(path, error=PreparationError, object_hook=slim)
    if not isinstance(content, dict):
        raise PreparationError(f"{path}: is a list, expected images and annotations")
    return content


def category_key(value: Any) -> str:
    """The id of a category: a number, or text; pandas writes ``1.0`` for 1."""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if whole else value)


def category_problem(annotation: dict[str, Any], names: Mapping[str, str]) -> str:
    """What is wrong with the category of an annotation; nothing, as a rule.

    Args:
        annotation: one without a ``category_id`` has no category, which is right.
        names: of the categories, by their keys; where there are none, all are right.
    """
    given = annotation.get("category_id")
    if not names or given is None or category_key(given) in names:
        return ""
    return f"category_id {str(given)[:80]!r}, expected one that categories lists"


def _check_corners(
    annotations: Path, listed: dict[Any, dict], found: dict[Any, list[dict]]
) -> None:
    """Raises PreparationError where the boxes of all images fit as corners alone."""
    boxes = (
        (annotation.get("bbox"), entry.get("width"), entry.get("height"))
        for image_id, entry in listed.items()
        for annotation in found.get(image_id, ())
        if not _is_rotated(annotation)
    )
    if are_corners(boxes):
        raise PreparationError(f"{annotations}: {AS_CORNERS}")


def _is_rotated(annotation: dict[str, Any]) -> bool:
    attributes = annotation.get("attributes")
    return isinstance(attributes, dict) and bool(attributes.get("rotation"))


def _object(number: int, annotation: dict[str, Any], category: str) -> Object:
    bbox, attributes = annotation.get("bbox"), annotation.get("attributes")
    item = Object(number, bbox, category, annotation.get("segmentation", ()))
    angle = attributes.get("rotation") if isinstance(attributes, dict) else None
    box = _box(bbox)
    if not angle or box is None or not min(box[2:]) > 0:
        return item
    if not math.isfinite(degrees := _number(angle)):
        return item._replace(problem=f"rotation {str(angle)[:80]!r}, expected degrees")
    turned = from_box(category, box, angle=degrees)
    return item._replace(
        bbox=turned.box, outlines=turned.outlines, problem=turned.problem
    )


def _number(value: Any) -> float:
    try:
        return float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        return math.inf


def _path(annotations: Path, images: Path, entry: dict[str, Any]) -> Path:
    try:
        return inside(images, _file_name(entry), error=PreparationError)
    except PreparationError as error:
        raise PreparationError(f"{annotations}: file_name {error}") from error


def _file_name(entry: dict[str, Any]) -> str:
    """In LVIS, the folder and the file at the end of the image's address."""
    if name := entry.get("file_name"):
        return name
    return "/".join(entry["coco_url"].split("/")[-2:])


def _size(entry: dict[str, Any] | None) -> tuple[int, int] | None:
    try:
        return (int(entry["width"]), int(entry["height"])) if entry else None
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _rule(annotation: dict[str, Any], item: Object, min_side: float) -> str:
    """Why an annotation is left out, though nothing is wrong with it."""
    if annotation.get("iscrowd"):
        return "crowds"
    box = _box(item.bbox)
    if box and 0 < min(box[2:]) < min_side:
        return f"objects below {min_side:g} pixels"
    return ""


def _box(bbox: Any) -> tuple[float, float, float, float] | None:
    try:
        x, y, w, h = map(float, bbox)
    except (TypeError, ValueError, OverflowError):
        return None
    return x, y, w, h


DATASET = Dataset(
    name="coco",
    title="COCO",
    layout="""\
RAW/annotations/instances_train2017.json
RAW/train2017/000000000009.jpg
(for --split val2017, with that name; for other files of this form see --help)""",
    origin="https://cocodataset.org/#download (train2017.zip, 18 GB, and "
    "annotations_trainval2017.zip)",
    list_units=list_units,
    read_unit=read_unit,
    units_per_shard=600,
    options=CocoOptions,
)

if __name__ == "__main__":
    from data_prep.command import main

    main("coco")
