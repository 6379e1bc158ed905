"""Files of datasets that TensorFlow Datasets has prepared, read without TensorFlow.

Both kinds that TFDS writes can be read at random: array_record, and tfrecord, which is
gone through once to find where its records begin.
"""

import functools
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from siamrpn_jax.common.errors import InputError, require
from siamrpn_jax.common.files import read_json
from siamrpn_jax.data.read.array_records import open_array_record

HEADER, FOOTER = 12, 4
"""Bytes around the data of a record in tfrecord files."""

_OPEN_FILES = 256
"""At a time, each a file handle: many systems allow 1024 to a process."""


class TfdsError(InputError):
    """A folder without the files that TFDS says it has, or broken ones."""


def split_shards(folder: Path, split: str) -> dict[Path, int | None]:
    """Files of a split, and how many records each should hold, if that is known.

    Args:
        folder: of a version, with ``dataset_info.json``.
        split: ``train``, say.

    Raises:
        TfdsError: there is no such split, or not all of its files.
    """
    splits = split_infos(folder)
    if split not in splits:
        names = ", ".join(splits)
        raise TfdsError(f"{folder}: has no split {split!r}, only {names}")
    for kind in ("array_record", "tfrecord"):
        paths = sorted(folder.glob(f"*-{split}.{kind}-[0-9]*-of-[0-9]*"))
        if paths:
            lengths = [int(n) for n in splits[split].get("shardLengths", ())]
            expected = len(lengths) or int(paths[0].name.rpartition("-")[2])
            if len(paths) != expected:
                raise TfdsError(
                    f"{folder}: holds {len(paths)} {kind} files of {split}, expected "
                    f"{expected}"
                )
            return dict(zip(paths, lengths or [None] * len(paths), strict=True))
    kind = _read_info(folder).get("fileFormat", "unknown")
    raise TfdsError(
        f"{folder}: holds no array_record or tfrecord files of {split} (its format is "
        f"{kind})"
    )


def split_infos(folder: Path) -> dict[str, dict[str, Any]]:
    """What ``dataset_info.json`` says of each split, by its name; raises TfdsError."""
    try:
        return {entry["name"]: entry for entry in _read_info(folder)["splits"]}
    except (KeyError, TypeError) as error:
        path = folder / "dataset_info.json"
        raise TfdsError(f"{path}: cannot be read ({error!r})") from error


def read_features(folder: Path) -> dict[str, Any]:
    """TFDS's features of a dataset's records, by their names.

    Args:
        folder: of a version, with ``features.json``.

    Raises:
        MissingExtraError: TFDS is not installed, or needs TensorFlow for this dataset.
    """
    features = require("tensorflow_datasets", extra="train").features
    try:
        return dict(features.FeatureConnector.from_config(str(folder)).items())
    except ImportError:
        require("tensorflow", extra="tf")
        raise


def find_places(shard: Path, length: int | None) -> Sequence[int]:
    """Where the records of a file are, for ``read_record``.

    Args:
        shard: the file.
        length: how many records it should hold, if that is known.

    Raises:
        TfdsError: it is cut short, or holds another number of records.
    """
    if _is_tfrecord(shard):
        places = list(_tfrecords(shard))
    else:
        places = range(_array_record(shard).num_records())
    if length not in (None, len(places)):
        raise TfdsError(f"{shard}: holds {len(places)} records, expected {length}")
    return places


def read_record(shard: Path, place: int) -> bytes:
    """The bytes of one record; any number of threads may read.

    Damaged files raise what their readers raise, which is not documented.
    """
    if not _is_tfrecord(shard):
        return _array_record(shard).read([place])[0]
    with shard.open("rb") as file:
        file.seek(place)
        return file.read(_length(file.read(HEADER)))


def _read_info(folder: Path) -> dict[str, Any]:
    path = folder / "dataset_info.json"
    info = read_json(path, error=TfdsError)
    if not isinstance(info, dict):
        raise TfdsError(f"{path}: expected a JSON object")
    return info


@functools.lru_cache(maxsize=_OPEN_FILES)
def _array_record(shard: Path) -> Any:
    return open_array_record(shard)


def _is_tfrecord(shard: Path) -> bool:
    return ".tfrecord-" in shard.name


def _tfrecords(shard: Path) -> Iterator[int]:
    """Where the records of a tfrecord file begin.

    A record is a header (its length, and the checksum of that), the data, and a
    checksum of the data.
    """
    place, size = 0, shard.stat().st_size
    with shard.open("rb") as file:
        while place < size:
            file.seek(place)
            header = file.read(HEADER)
            end = place + HEADER + (_length(header) if len(header) == HEADER else size)
            if end + FOOTER > size:
                raise TfdsError(f"{shard}: is cut short at byte {size}")
            yield place
            place = end + FOOTER


def _length(header: bytes) -> int:
    return struct.unpack_from("<Q", header)[0]
