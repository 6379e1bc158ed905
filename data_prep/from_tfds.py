"""Stills of a dataset that TensorFlow Datasets has prepared, such as ``voc/2007``.

``python data_prep/from_tfds.py voc/2007 --out DIR`` looks below ``--raw``, by default
where TFDS puts its datasets, for ``voc/2007/<version>``, the newest unless the name
ends in ``:<version>``. Both kinds of files that hold stills, array_record and tfrecord,
are read without TensorFlow. To prepare a dataset by TFDS most of them need it:
``pip install 'siamrpn-jax[tf]'``, then ``tfds build voc/2007``.

Wanted are an image and boxes (a ``BBoxFeature``): a sequence of objects with one each,
as in voc, coco, lvis, open_images_v4, wider_face or kitti, or one at the top, as in
cars196. A label beside the box names the category. Objects that are marked as crowds,
groups or difficult are left out by rule; occluded and truncated ones have a visibility
of ``OCCLUDED``. Datasets of videos are not read: their features need TensorFlow.

Boxes are taken as stored. TFDS leaves the 1 in from which VOC counts its pixels, so its
upper left corners are a pixel off those of ``data_prep.voc``.
"""

import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from data_prep.stills import still_track
from data_prep.tracks import (
    Dataset,
    ImageBytes,
    Options,
    PreparationError,
    Rejection,
    Track,
    Unit,
)
from data_prep.vid import OCCLUDED
from siamrpn_jax.common.errors import require
from siamrpn_jax.data.read import tfds as tfds_files
from siamrpn_jax.data.read.tfds import TfdsError

LEFT_OUT = ("is_crowd", "is_group_of", "is_difficult")
"""Flags of objects that are left out."""

HIDDEN = ("is_occluded", "is_truncated")
"""Flags of objects that are partly hidden."""

LABELS = ("label", "type")
"""What labels are called; the first that is there is taken."""


def default_folder() -> Path:
    """Where TFDS puts its datasets."""
    folder = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return Path(folder).expanduser()


@dataclass(frozen=True, kw_only=True)
class FromTfdsOptions(Options):
    """Options of a dataset of TFDS."""

    dataset: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="DATASET")]]
    """Its name, for example ``voc/2007`` or ``coco/2017:1.1.0``."""
    raw: Path = field(default_factory=default_folder)
    """Where TFDS puts its datasets, or the folder of this one's version."""
    split: str = "train"
    """Which images."""


class Example(NamedTuple):
    """What a unit holds."""

    folder: Path
    """Folder of the dataset's version."""

    shard: Path
    place: int
    """Place of the record: its number in array_record files, its byte in tfrecord
    files."""


class Schema(NamedTuple):
    """What a dataset calls the things that are wanted."""

    features: Any
    """The wanted features alone, as TFDS describes them."""

    image: str
    objects: str
    """The sequence with the boxes; empty where there is one box, at the top."""

    bbox: str
    label: str
    """Empty where there is none."""

    categories: tuple[str, ...]
    """By the number of the label."""


def list_units(options: FromTfdsOptions) -> list[Unit]:
    """A unit for each image."""
    folder = find_version(options.raw, options.dataset)
    read_schema(folder)
    name = options.dataset.partition(":")[0]
    units = []
    try:
        for shard, length in tfds_files.split_shards(folder, options.split).items():
            for place in tfds_files.find_places(shard, length):
                key = f"{name}/{options.split}/{len(units)}"
                units.append(Unit(key, Example(folder, shard, place)))
    except TfdsError as error:
        raise PreparationError(str(error)) from error
    return units


def read_unit(unit: Unit) -> Iterator[Track | Rejection]:
    """A track for each object of one image."""
    example: Example = unit.content
    schema = read_schema(example.folder)
    try:
        values = _read(example, schema)
    except Exception as error:  # which ones the parsers raise is not documented
        reason = f"{unit.key} cannot be read ({type(error).__name__}: {error})"
        yield Rejection(str(example.shard), None, reason)
        return
    frame = ImageBytes(unit.key, values[schema.image])
    for number, item in enumerate(_objects(values, schema)):
        if any(item.get(mark) for mark in LEFT_OUT):
            continue
        y0, x0, y1, x1 = map(float, item[schema.bbox])
        label = item.get(schema.label, -1)
        yield still_track(
            unit.key,
            number,
            frame,
            (x0, y0, x1 - x0, y1 - y0),
            category=schema.categories[label] if label >= 0 else "",
            visibility=OCCLUDED if any(item.get(m, 0) > 0 for m in HIDDEN) else 1.0,
            relative=True,
        )


def find_version(raw: Path, dataset: str) -> Path:
    """The folder of a version of a dataset.

    Args:
        raw: where TFDS puts its datasets, or that folder itself.
        dataset: a name, perhaps with a version at its end.

    Raises:
        PreparationError: it is not there.
    """
    if (raw / "features.json").is_file():
        return raw
    name, _, version = dataset.partition(":")
    found = {
        path.parent.name: path.parent for path in (raw / name).glob("*/features.json")
    }
    if version in found:
        return found[version]
    if version or not found:
        others = sorted(found) or [
            path.parent.parent.name for path in (raw / name).glob("*/*/features.json")
        ]
        hint = f", only {', '.join(sorted(set(others)))}" if others else ""
        raise PreparationError(
            f"{raw / name}: holds no {version or 'version that TFDS prepared'}{hint}"
        )
    return found[
        max(found, key=lambda text: [int(n) for n in re.findall(r"\d+", text)])
    ]


@functools.lru_cache
def read_schema(folder: Path) -> Schema:
    """What the dataset in a folder has of what is wanted.

    Raises:
        PreparationError: it has no images or boxes, or boxes of another form.
        MissingExtraError: TFDS is not installed, or needs TensorFlow for this dataset.
    """
    every = tfds_files.read_features(folder)
    features = require("tensorflow_datasets", extra="train").features
    images = [name for name, f in every.items() if type(f) is features.Image]
    boxes = [
        (objects, name, group)
        for objects, group in _groups(every, features)
        for name, f in sorted(group.items())
        if isinstance(f, features.BBoxFeature)
    ]
    if not images or not boxes:
        found = ", ".join(sorted(every))
        raise PreparationError(f"{folder}: has {found}, expected an image and boxes")
    objects, bbox, group = boxes[0]
    if (form := group[bbox].bbox_format) and form.value != "REL_YXYX":
        raise PreparationError(f"{folder}: boxes are {form.value}, expected REL_YXYX")
    labels = [n for n in LABELS if isinstance(group.get(n), features.ClassLabel)]
    label = next(iter(labels), "")
    wanted = {n: group[n] for n in (bbox, label, *LEFT_OUT, *HIDDEN) if n in group}
    image = min(images, key=lambda name: (name != "image", name))
    inner = {objects: features.Sequence(wanted)} if objects else wanted
    return Schema(
        features=features.FeaturesDict({image: every[image], **inner}),
        image=image,
        objects=objects,
        bbox=bbox,
        label=label,
        categories=tuple(group[label].names) if label else (),
    )


def _groups(every: dict[str, Any], features: Any) -> list[tuple[str, dict[str, Any]]]:
    """Where boxes may be: in sequences of several features, by name, or at the top."""
    return [
        (name, dict(f.feature.items()))
        for name, f in sorted(every.items())
        if isinstance(f, features.Sequence)
        and isinstance(f.feature, features.FeaturesDict)
    ] + [("", every)]


def _read(example: Example, schema: Schema) -> dict[str, Any]:
    """The wanted features of a record; the image as it is stored."""
    tfds = require("tensorflow_datasets", extra="train")
    data = tfds_files.read_record(example.shard, example.place)
    decoders = {schema.image: tfds.decode.SkipDecoding()}
    return schema.features.deserialize_example_np(data, decoders=decoders)


def _objects(values: dict[str, Any], schema: Schema) -> list[dict[str, Any]]:
    if not schema.objects:
        return [values]
    columns = values[schema.objects]
    return [
        dict(zip(columns, row, strict=True))
        for row in zip(*columns.values(), strict=True)
    ]


DATASET = Dataset(
    name="from_tfds",
    title="a dataset of TFDS",
    layout="""\
RAW/voc/2007/5.0.0/features.json, dataset_info.json
RAW/voc/2007/5.0.0/voc-train.tfrecord-00000-of-00001  (or array_record in its place)
(as TFDS prepares it: pip install 'siamrpn-jax[tf]', then: tfds build voc/2007)""",
    origin="https://www.tensorflow.org/datasets/catalog/overview",
    list_units=list_units,
    read_unit=read_unit,
    units_per_shard=800,
    options=FromTfdsOptions,
)

if __name__ == "__main__":
    from data_prep.command import main

    main("from_tfds")
