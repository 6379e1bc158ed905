"""Prepared datasets: records of crops in shards that are read at random.

A prepared dataset is one folder. Its shards are ArrayRecord files of ``tf.train``
examples, one for each annotated frame of each track; ``index.npz`` says where each
track begins and holds what sampling needs, and beside it lie the metadata by which
TensorFlow Datasets opens the same folder. ``data_prep`` writes such folders, and its
README.md describes them byte by byte.

Both crops of a record are centred on the target: its centre lies at ``n / 2`` of each,
in continuous pixels. They share one scale, at which the target with its context is
``exemplar_size`` pixels wide; so a search crop of 448 pixels has room to shift and
scale a patch of 255.
"""

import bisect
import itertools
import json
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from siamrpn_jax.common import configs
from siamrpn_jax.common.errors import InputError, check_least, require
from siamrpn_jax.common.files import replacing
from siamrpn_jax.data.crops.windows import Window, context_side, crop
from siamrpn_jax.model.boxes import corners_to_ltwh, ltwh_to_corners

FORMAT_VERSION = 1
"""Of the records and of the index; folders of another version are refused."""

SPLIT = "train"
"""The one split that a prepared dataset has, as TensorFlow Datasets calls it."""

STATE_FOLDER = ".shards"
"""Below a prepared folder: what a preparation needs to go on where it stopped."""

_INDEX_FILE = "index.npz"
_EXTRA = "train"

_MIN_SIDE = 2.0
"""Pixels of the source: smaller targets are no targets."""

_OPEN_SHARDS = 512
"""At a time, each a file handle: many systems allow 1024 to a process."""


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
    """So many crop pixels is the target with its context wide."""
    context: float = 0.5
    """Margin around the target, as a share of its width and height together."""
    quality: int = 90
    """Of the JPEGs, 1 to 100."""

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        check_least(self, 1, "exemplar_size", "quality")
        check_least(self, 0, "context")
        check_least(self, self.exemplar_size, "exemplar_crop", "search_crop")
        if self.quality > 100:
            raise InputError(f"quality is {self.quality}, expected at most 100")


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


def make_record(
    frame: np.ndarray,
    box_ltwh: np.ndarray,
    *,
    crops: CropConfig,
    track: int = 0,
    number: int = 0,
    visibility: float = 1.0,
) -> Record:
    """Crops a target out of a frame.

    Args:
        frame: RGB ``uint8 [H, W, 3]``.
        box_ltwh: ``[4]`` in continuous pixels; clipped to the frame.
        crops: sizes and quality.
        track: stored as it is.
        number: the frame's, in the source; stored as it is.
        visibility: stored as it is.

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
        return _encode_jpeg(crop(frame, window, pixels, fill=fill), crops.quality)

    return Record(
        exemplar=cut(crops.exemplar_crop),
        search=cut(crops.search_crop),
        size=np.array([width * scale, height * scale], np.float32),
        scale=float(np.float32(scale)),
        fill=np.array(fill, np.float32),
        track=track,
        frame=number,
        visibility=float(np.float32(visibility)),
    )


def clip_box(box_ltwh: np.ndarray, shape: tuple[int, ...]) -> tuple[float, ...]:
    """The part of a box ``ltwh [4]`` in a frame of a shape ``[H, W, …]``.

    Raises:
        RecordError: as `make_record` does.
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


def _encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)
    return data.tobytes()


# ---------------------------------------------------------------- stored records


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
        }
    )


def to_bytes(record: Record) -> bytes:
    """A record as a serialised ``tf.train.Example``; equal records, equal bytes."""
    example = _example_type()()
    feature = example.features.feature
    feature["exemplar"].bytes_list.value.append(record.exemplar)
    feature["search"].bytes_list.value.append(record.search)
    feature["size"].float_list.value.extend(record.size.tolist())
    feature["scale"].float_list.value.append(record.scale)
    feature["fill"].float_list.value.extend(record.fill.tolist())
    feature["track"].int64_list.value.append(record.track)
    feature["frame"].int64_list.value.append(record.frame)
    feature["visibility"].float_list.value.append(record.visibility)
    # Maps have no order of their own: without this, two runs would differ.
    return example.SerializeToString(deterministic=True)


def from_bytes(data: bytes) -> Record:
    """The record of `to_bytes`.

    Raises:
        RecordError: the bytes are no such record.
    """
    try:
        feature = _example_type().FromString(data).features.feature
        return Record(
            exemplar=feature["exemplar"].bytes_list.value[0],
            search=feature["search"].bytes_list.value[0],
            size=np.array(feature["size"].float_list.value, np.float32),
            scale=feature["scale"].float_list.value[0],
            fill=np.array(feature["fill"].float_list.value, np.float32),
            track=feature["track"].int64_list.value[0],
            frame=feature["frame"].int64_list.value[0],
            visibility=feature["visibility"].float_list.value[0],
        )
    except (_decode_error(), IndexError) as error:
        raise RecordError(f"{len(data)} bytes that are no record") from error


def _example_type() -> Any:
    return require("tensorflow_datasets.proto", extra=_EXTRA).tf_example_pb2.Example


def _decode_error() -> type[Exception]:
    return require("google.protobuf.message", extra=_EXTRA).DecodeError


# ---------------------------------------------------------------------- the index


@dataclass(frozen=True)
class Index:
    """What is known of all ``T`` tracks and ``N`` records without reading one."""

    starts: np.ndarray
    """``int64 [T + 1]``: track ``t`` has the records ``starts[t]`` to ``starts[t+1]``,
    the last one excluded; none is empty."""

    names: tuple[str, ...]
    """``T`` of them."""

    videos: np.ndarray
    """``int32 [T]`` into `video_names`; tracks of one video may show each other's
    targets."""

    video_names: tuple[str, ...]

    categories: np.ndarray
    """``int32 [T]`` into `category_names`, -1 where unknown."""

    category_names: tuple[str, ...]

    frames: np.ndarray
    """``int32 [N]``: frame numbers in the source, increasing within a track."""

    sizes: np.ndarray
    """``float32 [N, 2]``: width and height of the targets in crop pixels."""

    scales: np.ndarray
    """``float32 [N]``: crop pixels per pixel of the source."""

    visibility: np.ndarray
    """``float32 [N]``: above 0 and at most 1."""


class Shard(NamedTuple):
    """One of the files that hold the records, in order."""

    file: str
    """Its name in the folder."""

    records: int
    """How many it holds."""

    size: int
    """Bytes."""


class Header(NamedTuple):
    """What an index says of the dataset as a whole."""

    name: str
    crops: CropConfig
    neighbours: int | None
    shards: tuple[Shard, ...]


def write_index(folder: Path, header: Header, index: Index) -> None:
    """Writes ``index.npz``, with which a prepared folder is complete."""
    about = {
        "format_version": FORMAT_VERSION,
        "name": header.name,
        "neighbours": header.neighbours,
        "crops": configs.to_json(header.crops),
        "shards": [shard._asdict() for shard in header.shards],
    }
    arrays = {
        "about": pack_text([json.dumps(about)]),
        "starts": index.starts.astype(np.int64),
        "names": pack_text(index.names),
        "videos": index.videos.astype(np.int32),
        "video_names": pack_text(index.video_names),
        "categories": index.categories.astype(np.int32),
        "category_names": pack_text(index.category_names),
        "frames": index.frames.astype(np.int32),
        "sizes": index.sizes.astype(np.float32),
        "scales": index.scales.astype(np.float32),
        "visibility": index.visibility.astype(np.float32),
    }
    with replacing(folder / _INDEX_FILE) as temporary:
        np.savez(temporary, **arrays)


def remove_index(folder: Path) -> None:
    """Removes ``index.npz`` if it is there: the folder counts as unfinished."""
    (folder / _INDEX_FILE).unlink(missing_ok=True)


def read_index(folder: Path) -> tuple[Header, Index]:
    """Reads what `write_index` wrote.

    Raises:
        RecordError: the file is broken, or of another format version.
    """
    path = folder / _INDEX_FILE
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            about = json.loads(unpack_text(arrays["about"])[0])
            version = about["format_version"]
            if version != FORMAT_VERSION:
                raise RecordError(
                    f"{path}: is of format version {version}, expected "
                    f"{FORMAT_VERSION}: prepare the dataset again in a new folder"
                )
            return _read_header(about), _read_arrays(arrays)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(
            f"{path}: is no whole index ({error}): run the preparation again, which "
            "makes it anew"
        ) from error


def _read_header(about: dict[str, Any]) -> Header:
    return Header(
        name=about["name"],
        crops=configs.from_json(CropConfig, about["crops"]),
        neighbours=about["neighbours"],
        shards=tuple(Shard(**shard) for shard in about["shards"]),
    )


def _read_arrays(arrays: Any) -> Index:
    return Index(
        starts=arrays["starts"],
        names=unpack_text(arrays["names"]),
        videos=arrays["videos"],
        video_names=unpack_text(arrays["video_names"]),
        categories=arrays["categories"],
        category_names=unpack_text(arrays["category_names"]),
        frames=arrays["frames"],
        sizes=arrays["sizes"],
        scales=arrays["scales"],
        visibility=arrays["visibility"],
    )


def pack_text(lines: Sequence[str]) -> np.ndarray:
    """Lines of text as ``uint8``: far smaller than an array of strings.

    Raises:
        RecordError: a line has a line break within.
    """
    broken = [line for line in lines if "\n" in line]
    if broken:
        raise RecordError(f"{broken[0]!r}: expected a name without line breaks")
    text = "".join(f"{line}\n" for line in lines)
    return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)


def unpack_text(array: np.ndarray) -> tuple[str, ...]:
    """The lines of `pack_text`."""
    text = array.tobytes().decode("utf-8", "surrogateescape")
    return tuple(text.split("\n")[:-1])


# ------------------------------------------------------------------ reading a folder


class Prepared:
    """The records of a prepared folder by number; any number of threads may share one.

    Pickled, it is its folder: another process opens it again.

    Args:
        folder: a prepared one.
        header: of its index.
        index: of its records.
    """

    def __init__(self, folder: Path, header: Header, index: Index):
        self.folder, self.index = folder, index
        self.name, self.crops, self.neighbours, self._shards = header
        counts = (shard.records for shard in self._shards)
        self._ends = list(itertools.accumulate(counts))
        self._readers: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.index.frames)

    def __getitem__(self, i: int) -> Record:
        """Record ``i``, its crops undecoded.

        Raises:
            RecordError: naming the shard and the record, if it cannot be read, or is
                not what the index says.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"record {i}, expected 0 to {len(self) - 1}")
        shard, place = self._locate(i)
        try:
            # The reader checks the bytes by their checksum.
            record = from_bytes(self._reader(shard).read([place])[0])
        except (RecordError, OSError, RuntimeError, ValueError, IndexError) as error:
            raise RecordError(
                f"{self.where(i)} cannot be read ({error}): copy the file again, or "
                "remove it and run the preparation again, which makes it anew"
            ) from error
        index = self.index
        if record.frame != index.frames[i] or (record.size != index.sizes[i]).any():
            raise RecordError(f"{self.where(i)} is not the one that the index names")
        track = int(index.starts.searchsorted(i, "right")) - 1
        return record._replace(track=track)

    def where(self, i: int) -> str:
        """The shard of record ``i`` and its place in it, for messages."""
        shard, place = self._locate(i)
        return f"{self.folder / self._shards[shard].file}: record {place}"

    def __reduce__(self) -> tuple[Any, ...]:
        return open_prepared, (self.folder,)

    def _reader(self, shard: int) -> Any:
        with self._lock:
            reader = self._readers.pop(shard, None)
            if reader is None:
                reader = self._open(shard)
            self._readers[shard] = reader
            if len(self._readers) > _OPEN_SHARDS:
                self._readers.popitem(last=False)  # closed when nobody reads from it
        return reader

    def _open(self, shard: int) -> Any:
        file, records, _ = self._shards[shard]
        reader = open_shard(self.folder / file)
        found = reader.num_records()
        if found != records:
            raise RecordError(f"the file holds {found} records, expected {records}")
        return reader

    def _locate(self, i: int) -> tuple[int, int]:
        """Number of the shard that holds record ``i``, and its place there."""
        shard = bisect.bisect_right(self._ends, i)
        return shard, int(i) - self._ends[shard] + self._shards[shard].records


def open_shard(path: Path) -> Any:
    """A reader of one shard: ``num_records()``, and ``read([i])`` gives a list."""
    module = require("array_record.python.array_record_module", extra=_EXTRA)
    # Without reading ahead: records are read at random.
    return module.ArrayRecordReader(
        str(path), options="readahead_buffer_size:0", file_reader_buffer_size=32768
    )


def fingerprint(folder: Path | str) -> str:
    """Of what a prepared folder holds: another preparation has another one.

    Empty where there is no index; `open_prepared` says why.
    """
    path = Path(folder) / _INDEX_FILE
    return f"{zlib.crc32(path.read_bytes()):08x}" if path.is_file() else ""


def is_prepared(folder: Path | str) -> bool:
    """Whether a folder is a prepared dataset, be it unfinished or of another version.

    `open_prepared` says what is wrong with those.
    """
    folder = Path(folder)
    return (
        (folder / _INDEX_FILE).is_file()
        or (folder / STATE_FOLDER).is_dir()
        or any(folder.glob(f"*-{SPLIT}.array_record-*"))
    )


def open_prepared(folder: Path | str) -> Prepared:
    """Opens a prepared dataset; its shards are opened when they are first read.

    Raises:
        RecordError: the preparation was not finished, the format is of another version,
            a shard is missing or of another length than it was written with, or the
            index contradicts itself.
        MissingExtraError: array_record or tensorflow_datasets is not installed.
    """
    folder = Path(folder)
    if not (folder / _INDEX_FILE).is_file():
        if is_prepared(folder):
            raise RecordError(
                f"{folder}: the preparation is not finished: run the same command "
                f"again (or {_INDEX_FILE} was not copied)"
            )
        raise RecordError(f"{folder}: no prepared dataset, it has no {_INDEX_FILE}")
    header, index = read_index(folder)
    _check_index(folder / _INDEX_FILE, header, index)
    for shard in header.shards:
        _check_shard(folder / shard.file, shard.size)
    _example_type()
    require("array_record.python.array_record_module", extra=_EXTRA)
    return Prepared(folder, header, index)


def _check_index(path: Path, header: Header, index: Index) -> None:
    tracks, records = len(index.names), len(index.frames)
    stored = sum(shard.records for shard in header.shards)
    expected = {
        "starts": (tracks + 1,),
        "videos": (tracks,),
        "categories": (tracks,),
        "frames": (stored,),
        "sizes": (records, 2),
        "scales": (records,),
        "visibility": (records,),
    }
    for name, shape in expected.items():
        found = getattr(index, name).shape
        if found != shape:
            raise RecordError(f"{path}: {name} is {found}, expected {shape}")
    starts = index.starts
    if starts[0] != 0 or starts[-1] != records or (np.diff(starts) < 1).any():
        raise RecordError(f"{path}: the tracks do not divide the {records} records")


def _check_shard(path: Path, expected: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})") from error
    if found != expected:
        raise RecordError(
            f"{path}: is {found} bytes, expected the {expected} that were written: "
            "copy it again, or run the preparation again, which makes such shards anew"
        )
