"""Pascal VOC 2007 and 2012: 5,011 and 11,540 images to train on, 20 classes.

Everingham et al., IJCV 2010 and 2015. A list in ``ImageSets/Main`` names the images of
a split; each has a file in ``Annotations`` with any number of objects:

- ``bndbox``: first and last pixel that are inside, counted from 1 (a box of 1 to the
  image's width is as wide as the image), in 2012 with fractions here and there. Boxes
  of parts (``part``: head, hands, feet) are not read.
- ``difficult``: hard to recognise; left out unless ``--difficult`` is given.
- ``truncated``: the object goes on beyond the box; ``occluded``: a good part in the box
  is hidden. Either way the visibility is ``OCCLUDED``.
- ``attributes``, which CVAT writes, not VOC: with a ``rotation`` in degrees the box is
  turned about its middle, and what it then covers is the box.

The lists of 2007 and 2012 have no image in common.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple
from xml.etree import ElementTree

import numpy as np

from data_prep.rows import read_xml
from data_prep.shapes import LabelledObject, from_box
from data_prep.stills import still_track
from data_prep.tracks import Dataset, Options, PreparationError, Rejection, Track, Unit
from data_prep.vid import OCCLUDED
from siamrpn_jax.common.files import check_name
from siamrpn_jax.data.read.formats import parse_number
from siamrpn_jax.data.read.rows import read_lines


@dataclass(frozen=True)
class VocOptions(Options):
    """Options of Pascal VOC."""

    year: Literal["2007", "2012", "all"] = "all"
    """Which images; ``all``: of the years that are there."""
    split: Literal["train", "val", "trainval", "test"] = "trainval"
    """Which of them. The objects of the test of 2012 were never published."""
    difficult: bool = False
    """Keep objects that are marked as difficult."""


class Image(NamedTuple):
    """What a unit holds."""

    path: Path
    annotations: Path
    difficult: bool


def list_units(options: VocOptions) -> list[Unit]:
    """A unit for each image of the lists."""
    years = ("2007", "2012") if options.year == "all" else (options.year,)
    devkits = (options.raw, options.raw / "VOCdevkit")
    roots = [devkit / f"VOC{year}" for year in years for devkit in devkits]
    if options.year == "all":
        roots.append(options.raw)
    file = f"ImageSets/Main/{options.split}.txt"
    found = [root for root in roots if (root / file).is_file()]
    if not found:
        wanted = " or ".join(f"VOC{year}/{file}" for year in years)
        raise PreparationError(f"{options.raw}: has no {wanted}")
    units = {}
    for root in found:
        for line in read_lines(root / file)[0]:
            if fields := line.split():
                check_name(fields[0], error=PreparationError)
                image = root / "JPEGImages" / f"{fields[0]}.jpg"
                annotations = root / "Annotations" / f"{fields[0]}.xml"
                content = Image(image, annotations, options.difficult)
                units.setdefault(fields[0], Unit(fields[0], content))
    if not units:
        raise PreparationError(f"{found[0] / file}: names no images")
    return list(units.values())


def read_unit(unit: Unit) -> Iterator[Track | Rejection]:
    """A track for each object of one image."""
    image: Image = unit.content
    try:
        root = read_xml(image.annotations)
    except PreparationError as error:
        yield Rejection(str(image.annotations), None, str(error))
        return
    size = _numbers(root.find("size"), "width", "height")
    size = size if np.isfinite(size).all() else []
    for number, item in enumerate(root.findall("object")):
        if _flag(item, "difficult") and not image.difficult:
            continue
        corners = _numbers(item.find("bndbox"), "xmin", "ymin", "xmax", "ymax")
        if not corners:
            reason = f"object {number} has no bndbox with xmin, ymin, xmax, ymax"
            yield Rejection(str(image.annotations), None, reason)
            continue
        target = _target(item, corners)
        if target.problem:
            reason = f"object {number}: {target.problem}"
            yield Rejection(str(image.annotations), None, reason)
            continue
        hidden = _flag(item, "truncated") or _flag(item, "occluded")
        yield still_track(
            unit.key,
            number,
            image.path,
            target.box,
            category=target.category,
            visibility=OCCLUDED if hidden else 1.0,
            size=(int(size[0]), int(size[1])) if size else None,
            outlines=target.outlines,
        )


def _numbers(parent: ElementTree.Element | None, *names: str) -> list[float]:
    """Numbers in the named elements; none where one is missing or no number."""
    if parent is None:
        return []
    try:
        return [parse_number((parent.findtext(name) or "").strip()) for name in names]
    except ValueError:
        return []


def _target(item: ElementTree.Element, corners: list[float]) -> LabelledObject:
    x0, y0, x1, y1 = corners
    box = (x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1)
    category = (item.findtext("name") or "").strip()
    rotation = _rotation(item)
    try:
        angle = parse_number(rotation)
    except ValueError:
        angle = math.nan
    if not math.isfinite(angle):
        problem = f"rotation {rotation[:80]!r}, expected degrees"
        return LabelledObject(category, box, problem=problem)
    return from_box(category, box, angle=angle if min(box[2:]) > 0 else 0.0)


def _rotation(item: ElementTree.Element) -> str:
    """Degrees, as CVAT writes them."""
    for attribute in item.iterfind("attributes/attribute"):
        if (attribute.findtext("name") or "").strip() == "rotation":
            return (attribute.findtext("value") or "").strip()
    return "0"


def _flag(item: ElementTree.Element, name: str) -> bool:
    return (item.findtext(name) or "").strip() == "1"


DATASET = Dataset(
    name="voc",
    title="Pascal VOC",
    layout="""\
RAW/VOCdevkit/VOC2007/ImageSets/Main/trainval.txt
RAW/VOCdevkit/VOC2007/Annotations/000005.xml
RAW/VOCdevkit/VOC2007/JPEGImages/000005.jpg
RAW/VOCdevkit/VOC2012/…                     (or RAW is VOCdevkit, or VOC2007 itself)""",
    origin="http://host.robots.ox.ac.uk/pascal/VOC/ (VOCtrainval_06-Nov-2007.tar, "
    "VOCtrainval_11-May-2012.tar)",
    list_units=list_units,
    read_unit=read_unit,
    units_per_shard=1500,
    options=VocOptions,
)

if __name__ == "__main__":
    from data_prep.command import main

    main("voc")
