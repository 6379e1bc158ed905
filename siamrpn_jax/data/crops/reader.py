"""Prepared folders as datasets of crops: records by number, read at random."""

import bisect
import itertools
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from siamrpn_jax.common.errors import require
from siamrpn_jax.data.crops.format import SPLIT, Record, RecordError, from_bytes
from siamrpn_jax.data.crops.index import (
    INDEX_FILE,
    Header,
    Index,
    check_index,
    read_index,
)
from siamrpn_jax.data.read.array_records import example_type, open_array_record

STATE_FOLDER = ".shards"
"""Below a prepared folder: what a preparation needs to go on where it stopped."""

_OPEN_SHARDS = 512
"""At a time, each a file handle: many systems allow 1024 to a process."""


def open_prepared(folder: Path | str) -> "CropDataset":
    """Opens a prepared dataset; its shards are opened when they are first read.

    Raises:
        RecordError: the preparation was not finished, the format is of another version,
            a shard is missing or of another length than it was written with, or the
            index contradicts itself.
        MissingExtraError: array_record or tensorflow_datasets is not installed.
    """
    folder = Path(folder)
    if not (folder / INDEX_FILE).is_file():
        if is_prepared(folder):
            raise RecordError(
                f"{folder}: the preparation is not finished: run the same command "
                f"again (or {INDEX_FILE} was not copied)"
            )
        raise RecordError(f"{folder}: no prepared dataset, it has no {INDEX_FILE}")
    header, index = read_index(folder)
    check_index(folder / INDEX_FILE, header, index)
    for shard in header.shards:
        _check_shard(folder / shard.file, shard.size)
    example_type()
    require("array_record.python.array_record_module", extra="train")
    return CropDataset(folder, header, index)


def is_prepared(folder: Path | str) -> bool:
    """Whether a folder is a prepared dataset, be it unfinished or of another version.

    ``open_prepared`` says what is wrong with those.
    """
    folder = Path(folder)
    return (
        (folder / INDEX_FILE).is_file()
        or (folder / STATE_FOLDER).is_dir()
        or any(folder.glob(f"*-{SPLIT}.array_record-*"))
    )


class CropDataset:
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
        reader = open_array_record(self.folder / file)
        found = reader.num_records()
        if found != records:
            raise RecordError(f"the file holds {found} records, expected {records}")
        return reader

    def _locate(self, i: int) -> tuple[int, int]:
        """Number of the shard that holds record ``i``, and its place there."""
        shard = bisect.bisect_right(self._ends, i)
        return shard, int(i) - self._ends[shard] + self._shards[shard].records


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
