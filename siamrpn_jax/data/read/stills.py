"""Annotated still images: COCO-like folders.

A folder holds images and ``annotations.json``, an object with

- ``images``: ``id``, ``file_name`` (relative to that folder), ``width``, ``height``
  and, optionally, ``source``, a name that groups images of one origin;
- ``annotations``: ``image_id``, ``bbox`` (``x, y, w, h``, top-left corner and size in
  pixels) and, optionally, ``iscrowd`` and ``segmentation`` (polygons as lists
  ``x0, y0, x1, y1, ...``; other forms are ignored).

Boxes that cannot be used are skipped, counted by reason and reported in one warning.
"""

import logging
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import inside, read_json
from siamrpn_jax.data.read.formats import fit_as_corners_alone
from siamrpn_jax.data.read.images import exif_orientation, natural_sort
from siamrpn_jax.data.read.sequences import walk

ANNOTATIONS_NAME = "annotations.json"

LAYOUT = (
    "a folder with images and annotations.json (COCO: images with id, file_name, "
    "width, height; annotations with image_id, bbox)"
)

_QUARTER_TURNS = (5, 6, 7, 8)
"""Values of EXIF's orientation that exchange width and height."""

log = logging.getLogger(__name__)


class StillsError(InputError):
    """A folder of stills that is missing, empty or malformed."""


class StillObject(NamedTuple):
    """One annotated object of a still."""

    box: np.ndarray
    """``float32 [4]``, ``ltwh``, clipped to the image."""

    polygons: tuple[np.ndarray, ...]
    """Outlines, ``float32 [n, 2]`` each, clipped to the box; may be empty."""


class Still(NamedTuple):
    """One image and its objects."""

    path: Path
    width: int
    height: int
    source: str
    objects: tuple[StillObject, ...]


@dataclass(frozen=True)
class Stills:
    """What a folder of stills holds."""

    images: tuple[Still, ...]
    """In the order of the file; images without a usable box are kept."""

    rejected: dict[str, int]
    """How many boxes were skipped, by reason."""


def find_stills(root: str | os.PathLike[str]) -> list[Path]:
    """Finds folders with ``annotations.json`` at any depth.

    Args:
        root: where to look; symbolic links are followed.

    Returns:
        The folders in the natural order of their paths; at least one.

    Raises:
        StillsError: ``root`` is missing or holds none.
    """
    root = Path(root)
    if not root.is_dir():
        raise StillsError(f"{root}: no such folder; expected {LAYOUT}")
    found = [folder for folder, _, files in walk(root) if ANNOTATIONS_NAME in files]
    if not found:
        raise StillsError(
            f"{root}: holds no stills; expected {LAYOUT}{layout_hint(root)}"
        )
    return natural_sort(found)


def layout_hint(root: Path) -> str:
    """What to do with COCO's own layout, the end of a message; empty for others."""
    for pattern in ("instances_*.json", "annotations/instances_*.json"):
        for path in sorted(root.glob(pattern)):
            return (
                f" ({path} is COCO's own layout, which is not read: put it beside its "
                f"images, as {ANNOTATIONS_NAME})"
            )
    return ""


def read_stills(folder: str | os.PathLike[str]) -> Stills:
    """Reads one folder of stills; nothing is decoded.

    Args:
        folder: see the module's description.

    Returns:
        The images with their usable boxes, and the counts of the boxes skipped.

    Raises:
        StillsError: ``annotations.json`` is missing, no JSON, or lacks a needed field;
            its boxes are corners; there is no image; an image is listed twice, or its
            file is missing.
    """
    path = Path(folder) / ANNOTATIONS_NAME
    content = _read_json(path)
    try:
        entries = {entry["id"]: entry for entry in content["images"]}
        objects: dict[Any, list[StillObject]] = {key: [] for key in entries}
        rejected: Counter[str] = Counter()
        examples: list[str] = []
        _check_corners(path, content["annotations"], entries)
        for annotation in content["annotations"]:
            image_id = annotation["image_id"]
            if image_id not in entries:
                raise StillsError(f"{path}: annotation of unknown image id {image_id}")
            entry = entries[image_id]
            reason = _fault(annotation, entry)
            if reason is None:
                objects[image_id].append(_object(annotation, entry))
                continue
            rejected[reason] += 1
            if len(examples) < 3:
                examples.append(f"{entry['file_name']} {annotation['bbox']} ({reason})")
        images = [
            _still(path.parent, entry, objects[key]) for key, entry in entries.items()
        ]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise StillsError(
            f"{path}: malformed ({error!r}); expected {LAYOUT}"
        ) from error
    _check_images(path, images, listed=len(content["images"]))
    for place, image in enumerate(images):
        size = (image.width, image.height)
        if image.objects and (problem := turn_problem(image.path, size)):
            rejected["on a photo that EXIF turns"] += len(image.objects)
            examples.append(f"{image.path}: {problem}")
            images[place] = image._replace(objects=())
    if rejected:
        counts = ", ".join(f"{n} {reason}" for reason, n in rejected.most_common())
        log.warning(
            "%s: skipped %d boxes (%s), e.g. %s",
            path,
            rejected.total(),
            counts,
            "; ".join(examples[:3]),
        )
    return Stills(tuple(images), dict(rejected))


AS_CORNERS = (
    "the bbox of its annotations fit as corners x1,y1,x2,y2 and not as x,y,w,h: "
    "expected x,y,w,h"
)


def are_corners(annotated: Iterable[tuple[Any, Any, Any]]) -> bool:
    """Whether the boxes of a file taken as ``x, y, w, h`` are rather corners.

    Args:
        annotated: each ``bbox`` with the width and height of its image; what is no box
            is left out.
    """
    rows = []
    for bbox, width, height in annotated:
        try:
            x, y, w, h, *size = map(float, (*bbox, width, height))
        except (TypeError, ValueError, OverflowError):
            continue
        if len(size) == 2 and w > 0 and h > 0 and math.isfinite(x + y + w + h):
            rows.append((x, y, w, h, *size))
    values = np.array(rows).reshape(-1, 6)
    return fit_as_corners_alone(values[:, :4], values[:, 4:])


def _check_corners(path: Path, annotations: Any, entries: dict[Any, Any]) -> None:
    """Raises StillsError where the boxes of all images fit as corners alone."""
    boxes = (
        (one.get("bbox"), entry.get("width"), entry.get("height"))
        for one in annotations
        if (entry := entries.get(one["image_id"]))
    )
    if are_corners(boxes):
        raise StillsError(f"{path}: {AS_CORNERS}")


def _read_json(path: Path) -> Any:
    try:
        return read_json(path, error=StillsError)
    except StillsError as error:
        raise StillsError(f"{error}; expected {LAYOUT}") from error


def _fault(annotation: dict[str, Any], image: dict[str, Any]) -> str | None:
    """Why an annotation cannot be used, or None."""
    if annotation.get("iscrowd"):
        return "crowd"
    try:
        x, y, w, h = (float(v) for v in annotation["bbox"])
    except (TypeError, ValueError, OverflowError):
        return "not four numbers"
    if not np.isfinite([x, y, w, h]).all():
        return "not finite"
    if not all(_is_side(image[key]) for key in ("width", "height")):
        return "of an image without a size"
    if w <= 0 or h <= 0:
        return "not positive"
    if not (0 <= x + w / 2 <= image["width"] and 0 <= y + h / 2 <= image["height"]):
        return "outside the image"
    return None


def _object(annotation: dict[str, Any], image: dict[str, Any]) -> StillObject:
    x, y, w, h = (float(v) for v in annotation["bbox"])
    low = np.array([max(x, 0), max(y, 0)])
    high = np.array([min(x + w, image["width"]), min(y + h, image["height"])])
    polygons = [
        np.clip(points, low, high).astype(np.float32)
        for points in read_outlines(annotation.get("segmentation"))
    ]
    box = np.concatenate([low, high - low]).astype(np.float32)
    return StillObject(box, tuple(polygons))


def read_outlines(segmentation: Any) -> list[np.ndarray]:
    """The polygons of COCO's ``segmentation``, ``float64 [n, 2]`` each.

    Other forms, and what is no polygon, are left out.
    """
    rings = segmentation if isinstance(segmentation, list) else ()
    return [np.array(points, float) for ring in rings if (points := _points(ring))]


def turn_problem(image: Path, size: tuple[int, int] | None) -> str:
    """Why boxes on a photo cannot be placed; nothing, as a rule.

    Pixels are read as they are stored, and tools show photos as EXIF turns them. Where
    the annotated size tells which was meant, it decides.

    Args:
        image: the file.
        size: annotated width and height, if there are any.
    """
    try:
        orientation = exif_orientation(image)
    except InputError:
        return ""  # for those who read it to say
    decided = size is not None and size[0] != size[1] and orientation in _QUARTER_TURNS
    if orientation == 1 or decided:
        return ""
    return (
        f"EXIF turns it (orientation {orientation}), and whether boxes are of the "
        "picture as it is stored or as it is shown is not known: expected pixels that "
        "are upright (magick mogrify -auto-orient), or no such mark"
    )


def _is_side(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < 2**31


def _points(ring: Any) -> list[tuple[float, float]]:
    """The corners of a polygon ``x, y, x, y, …``; none of anything else."""
    if not isinstance(ring, list) or len(ring) < 6 or len(ring) % 2:
        return []
    if not all(type(v) in (int, float) and abs(v) < 2**31 for v in ring):
        return []
    return list(zip(ring[::2], ring[1::2], strict=True))


def _still(folder: Path, entry: dict[str, Any], objects: list[StillObject]) -> Still:
    if not all(_is_side(entry[key]) for key in ("width", "height")):
        raise TypeError(f"an image of {entry['width']} x {entry['height']} pixels")
    return Still(
        path=inside(folder, entry["file_name"], error=StillsError),
        width=int(entry["width"]),
        height=int(entry["height"]),
        source=str(entry.get("source", folder.resolve().name)),
        objects=tuple(objects),
    )


def _check_images(path: Path, images: Sequence[Still], *, listed: int) -> None:
    if not images:
        raise StillsError(f"{path}: lists no image")
    if len(images) != listed:
        raise StillsError(f"{path}: {listed - len(images)} image ids are listed twice")
    missing = [image.path for image in images if not image.path.is_file()]
    if missing:
        raise StillsError(
            f"{path}: {len(missing)} of {listed} image files are missing, the first is "
            f"{missing[0]}"
        )
