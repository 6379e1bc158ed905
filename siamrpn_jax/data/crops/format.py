"""The prepared format: what a record holds, and how it is stored.

A prepared folder is a dataset of crops. Its shards are ArrayRecord files of
``tf.train`` examples, one for each annotated frame of each track; ``index.npz`` says
where each track begins and holds what sampling needs, and beside it lie the metadata by
which TensorFlow Datasets opens the same folder. ``data_prep`` writes such folders, and
its README.md describes them byte by byte.

Both crops of a record are centred on the target: its centre lies at ``n / 2`` of each,
in continuous pixels. They share one scale, at which the target with its context is
``exemplar_size`` pixels wide; so a search crop of 448 pixels has room to shift and
scale a patch of 255.

Where the dataset has outlines, a record holds that of its target, too, for pasting it
elsewhere. Records without one, and folders from before there were any, are as good.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from siamrpn_jax.common.errors import InputError, check_least, check_range, require
from siamrpn_jax.data.crops.windows import Window, context_side, crop
from siamrpn_jax.data.read import array_records
from siamrpn_jax.data.read.images import encode_jpeg
from siamrpn_jax.model.boxes import corners_to_ltwh, ltwh_to_corners

FORMAT_VERSION = 1
"""Version of the records and of the index; folders of another version are refused."""

SPLIT = "train"
"""The one split that a prepared dataset has, as TensorFlow Datasets calls it."""


_EXTRA = "train"

_MIN_SIDE = 2.0
"""Pixels of the source: smaller targets are no targets."""


class RecordError(InputError):
    """A box that makes no record, or a prepared folder that cannot be used."""


@dataclass(frozen=True)
class CropConfig:
    """What is stored of a frame and a box."""

    exemplar_crop: int = 160
    """Side of the exemplar crops, pixels."""
    search_crop: int = 448
    """Side of the search crops, pixels."""
    exemplar_size: int = 127
    """Width of the target with its context, crop pixels."""
    context: float = 0.5
    """Margin around the target, as a share of its width and height together."""
    quality: int = 90
    """Quality of the JPEGs, 1 to 100."""

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        check_least(self, 1, "exemplar_size")
        check_least(self, 0, "context")
        check_least(self, self.exemplar_size, "exemplar_crop", "search_crop")
        check_range(self, 1, 100, "quality")


class Record(NamedTuple):
    """One annotated frame of one track."""

    exemplar: bytes
    """JPEG of ``exemplar_crop`` pixels a side; the target's centre is its middle."""

    search: bytes
    """JPEG of ``search_crop`` pixels a side, at the same scale."""

    size: np.ndarray
    """``float32 [2]``: the target's width and height in crop pixels."""

    scale: float
    """Crop pixels per pixel of the source."""

    fill: np.ndarray
    """``float32 [3]``, RGB: the frame's mean colour, which surrounds it in crops."""

    track: int
    """Its number in the index."""

    frame: int
    """Frame number in the source."""

    visibility: float
    """The visible share of the target, above 0 and at most 1."""

    outlines: tuple[np.ndarray, ...] = ()
    """The target's polygons, ``float32 [n, 2]`` each, crop pixels from its centre; none
    where the dataset has none."""


def make_record(
    frame: np.ndarray,
    box_ltwh: np.ndarray,
    *,
    crops: CropConfig,
    track: int = 0,
    number: int = 0,
    visibility: float = 1.0,
    outlines: Sequence[np.ndarray] = (),
) -> Record:
    """Crops a target out of a frame.

    Args:
        frame: RGB ``uint8 [H, W, 3]``.
        box_ltwh: ``[4]`` in continuous pixels; clipped to the frame.
        crops: sizes and quality.
        track: stored as it is.
        number: the frame's, in the source; stored as it is.
        visibility: stored as it is.
        outlines: polygons ``[n, 2]`` in pixels as the box; clipped to it.

    Raises:
        RecordError: the box is not finite, outside the frame, or below 2 pixels wide or
            high in it.
    """
    x, y, width, height = clip_box(box_ltwh, frame.shape)
    scale = crops.exemplar_size / context_side(width, height, context=crops.context)
    fill = cv2.mean(frame)[:3]

    def cut(pixels: int) -> bytes:
        side = pixels / scale
        window = Window(x + width / 2, y + height / 2, side, side)
        patch = crop(frame, window, pixels, fill=fill)
        return encode_jpeg(patch, quality=crops.quality)

    return Record(
        exemplar=cut(crops.exemplar_crop),
        search=cut(crops.search_crop),
        size=np.array([width * scale, height * scale], np.float32),
        scale=float(np.float32(scale)),
        fill=np.array(fill, np.float32),
        track=track,
        frame=number,
        visibility=float(np.float32(visibility)),
        outlines=tuple(
            _centred(outline, (x, y, width, height), scale) for outline in outlines
        ),
    )


def _centred(
    outline: np.ndarray, box_ltwh: tuple[float, ...], scale: float
) -> np.ndarray:
    """A polygon within its box, from pixels of the source to ``Record.outlines``."""
    low, extent = np.array(box_ltwh[:2]), np.array(box_ltwh[2:])
    points = np.clip(outline, low, low + extent) - (low + extent / 2)
    return (points * scale).astype(np.float32)


def clip_box(box_ltwh: np.ndarray, shape: tuple[int, ...]) -> tuple[float, ...]:
    """The part of a box ``ltwh [4]`` in a frame of a shape ``[H, W, …]``.

    Raises:
        RecordError: as ``make_record`` does.
    """
    height, width = shape[:2]
    box = np.asarray(box_ltwh, np.float64)
    if not np.isfinite(box).all():
        raise RecordError(f"box {_text(box)}: expected finite numbers")
    corners = np.clip(ltwh_to_corners(box), 0, [width, height, width, height])
    clipped = corners_to_ltwh(corners)
    if (box[2:] > 0).all() and not (clipped[2:] > 0).all():
        raise RecordError(f"box {_text(box)}: outside the frame of {width}x{height}")
    if not (clipped[2:] >= _MIN_SIDE).all():
        raise RecordError(
            f"box {_text(box)}: expected at least {_MIN_SIDE:g} pixels a side within "
            f"the frame of {width}x{height}"
        )
    return tuple(clipped.tolist())


def _text(box: np.ndarray) -> str:
    return ",".join(f"{value:g}" for value in box)


def features(crops: CropConfig) -> Any:
    """The records' features to TensorFlow Datasets."""
    tfds = require("tensorflow_datasets", extra=_EXTRA)

    def image(side: int) -> Any:
        return tfds.features.Image(shape=(side, side, 3), encoding_format="jpeg")

    return tfds.features.FeaturesDict(
        {
            "exemplar": image(crops.exemplar_crop),
            "search": image(crops.search_crop),
            "size": tfds.features.Tensor(shape=(2,), dtype=np.float32),
            "scale": np.float32,
            "fill": tfds.features.Tensor(shape=(3,), dtype=np.float32),
            "track": np.int64,
            "frame": np.int64,
            "visibility": np.float32,
            "outline": tfds.features.Tensor(shape=(None, 2), dtype=np.float32),
            "rings": tfds.features.Tensor(shape=(None,), dtype=np.int64),
        }
    )


def to_bytes(record: Record) -> bytes:
    """A record as a serialised ``tf.train.Example``; equal records, equal bytes."""
    example = array_records.example_type()()
    feature = example.features.feature
    feature["exemplar"].bytes_list.value.append(record.exemplar)
    feature["search"].bytes_list.value.append(record.search)
    feature["size"].float_list.value.extend(record.size.tolist())
    feature["scale"].float_list.value.append(record.scale)
    feature["fill"].float_list.value.extend(record.fill.tolist())
    feature["track"].int64_list.value.append(record.track)
    feature["frame"].int64_list.value.append(record.frame)
    feature["visibility"].float_list.value.append(record.visibility)
    for points in record.outlines:
        feature["outline"].float_list.value.extend(points.ravel().tolist())
        feature["rings"].int64_list.value.append(len(points))
    # Maps have no order of their own: without this, two runs would differ.
    return example.SerializeToString(deterministic=True)


def from_bytes(data: bytes) -> Record:
    """The record of ``to_bytes``.

    Raises:
        RecordError: the bytes are no such record.
    """
    try:
        feature = array_records.example_type().FromString(data).features.feature
        return Record(
            exemplar=feature["exemplar"].bytes_list.value[0],
            search=feature["search"].bytes_list.value[0],
            size=np.array(feature["size"].float_list.value, np.float32),
            scale=feature["scale"].float_list.value[0],
            fill=np.array(feature["fill"].float_list.value, np.float32),
            track=feature["track"].int64_list.value[0],
            frame=feature["frame"].int64_list.value[0],
            visibility=feature["visibility"].float_list.value[0],
            outlines=_divide(
                np.array(feature["outline"].float_list.value, np.float32),
                feature["rings"].int64_list.value,
            ),
        )
    except (array_records.decode_error(), IndexError) as error:
        raise RecordError(f"{len(data)} bytes that are no record") from error


def _divide(points: np.ndarray, rings: Sequence[int]) -> tuple[np.ndarray, ...]:
    """The polygons whose coordinates stand one after the other."""
    if not len(rings):
        return ()
    return tuple(np.split(points.reshape(-1, 2), np.cumsum(rings)[:-1]))
