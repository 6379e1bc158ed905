"""One shard: what a worker does, wherever it runs.

A shard is a pure function of its job: the units that it holds, in order, and how their
frames are cropped. It appears whole or not at all, and its sidecar after it.
"""

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.frames import FrameReader, frame_file
from data_prep.tracks import PreparationError, Rejection, Track, Unit
from siamrpn_jax.common.errors import InputError, require
from siamrpn_jax.common.files import replacing
from siamrpn_jax.data.crops import format, reader
from siamrpn_jax.data.crops.format import CropConfig, Record
from siamrpn_jax.data.crops.index import pack_text, unpack_text
from siamrpn_jax.data.read.array_records import open_array_record

_PENDING = 4096
"""Number of records that wait in memory while tracks share frames; 60 KiB each."""

_TRACK_BITS = 20
"""A stored track number is its unit's, shifted by these bits, plus its own there."""

_TEXTS = ("names", "videos", "categories")


@dataclass(frozen=True)
class ShardJob:
    """Everything that decides the bytes of a shard, and where they go."""

    raw: Path
    """The raw data; rejections name files below it by their relative paths."""

    out: Path
    """The prepared folder."""

    name: str
    """Name of the dataset."""

    number: int
    """Number of the shard, from 0."""

    count: int
    """Number of all shards."""

    read_unit: Callable[[Unit], Iterable[Track | Rejection]]
    """The dataset's."""

    units: tuple[Unit, ...]
    """The units in this shard."""

    first_unit: int
    """The number of their first in the dataset."""

    crops: CropConfig
    """How frames are cropped."""

    every_k: int
    """Which annotated frames of a track are kept."""

    @property
    def path(self) -> Path:
        """The shard, named as TensorFlow Datasets expects it."""
        place = f"{self.number:05d}-of-{self.count:05d}"
        return self.out / f"{self.name}-{format.SPLIT}.array_record-{place}"

    @property
    def sidecar(self) -> Path:
        """What is known of the shard's content without reading it."""
        return self.out / reader.STATE_FOLDER / f"{self.number:05d}.npz"


class Content(NamedTuple):
    """What is in a shard, and what was left out of it."""

    size: int
    """Bytes of the shard."""

    absent: int
    """Annotated frames without a visible target."""

    names: tuple[str, ...]
    """Names of the tracks; the next three are theirs, too."""

    videos: tuple[str, ...]
    categories: tuple[str, ...]
    counts: np.ndarray
    """Numbers of records."""

    frames: np.ndarray
    """Frame numbers of the records; the next four are theirs, too. See ``Index``."""

    sizes: np.ndarray
    scales: np.ndarray
    visibility: np.ndarray
    outlined: np.ndarray

    rejections: tuple[Rejection, ...]

    @property
    def rejected(self) -> int:
        """Records lost by all rejections."""
        return sum(rejection.records for rejection in self.rejections)


class Progress(NamedTuple):
    """What was done, at all or since the last report."""

    units: int = 0
    records: int = 0
    """Written or rejected."""


class Work(NamedTuple):
    """The shards that are still to be written."""

    jobs: Sequence[ShardJob]
    """One each."""

    units: int
    """Number of units in the whole dataset."""

    done: Progress
    """By earlier runs."""


def write_shard(
    job: ShardJob, report: Callable[[Progress], object] = lambda _: None
) -> None:
    """Writes a shard and its sidecar.

    Args:
        job: the shard.
        report: called after each record, rejection and unit; what it raises ends the
            work.

    Raises:
        OSError: naming the file that cannot be written.
    """
    with replacing(job.path) as temporary:
        with _appending(temporary) as append:
            shard = _Shard(job, append, report)
            for number, unit in enumerate(job.units, job.first_unit):
                shard.add(unit, number << _TRACK_BITS)
                report(Progress(units=1))
        content = shard.content(temporary.stat().st_size)
        _check_whole(temporary, len(content.frames))
    _write_sidecar(job.sidecar, content)


class _Entry(NamedTuple):
    """A track that has records."""

    name: str
    video: str
    category: str
    count: int
    """Number of its records."""


class _Shard:
    """A shard in the making."""

    def __init__(
        self,
        job: ShardJob,
        append: Callable[[bytes], None],
        report: Callable[[Progress], object],
    ):
        self._job, self._append, self._report = job, append, report
        self._reader = FrameReader()
        self._entries: list[_Entry] = []
        self._stored: list[Record] = []  # without their crops
        self._absent = 0
        self._rejections: list[Rejection] = []

    def content(self, size: int) -> Content:
        """What was written."""
        return Content(
            size=size,
            absent=self._absent,
            names=tuple(entry.name for entry in self._entries),
            videos=tuple(entry.video for entry in self._entries),
            categories=tuple(entry.category for entry in self._entries),
            counts=np.array([entry.count for entry in self._entries], np.int64),
            frames=np.array([r.frame for r in self._stored], np.int32),
            sizes=np.array([r.size for r in self._stored], np.float32).reshape(-1, 2),
            scales=np.array([r.scale for r in self._stored], np.float32),
            visibility=np.array([r.visibility for r in self._stored], np.float32),
            outlined=np.array([len(r.outlines) > 0 for r in self._stored], bool),
            rejections=tuple(self._rejections),
        )

    def add(self, unit: Unit, key: int) -> None:
        """Writes the records of a unit, track by track; ``key`` numbers its first."""
        tracks = []
        for item in self._job.read_unit(unit):
            problem = item if isinstance(item, Rejection) else _inconsistent(item)
            if problem is None:
                tracks.append(item)
            else:
                self._reject(*problem)
        for group in _groups(tracks):
            self._add_tracks(group, key)
            key += len(group)

    def _add_tracks(self, tracks: Sequence[Track], key: int) -> None:
        """Reads each frame once for all tracks; the first one's records do not wait."""
        wanted = [(t, row) for t in range(len(tracks)) for row in self._rows(tracks[t])]
        wanted.sort(key=lambda place: tracks[place[0]].numbers[place[1]])
        start = len(self._stored)
        waiting: list[list[Record]] = [[] for _ in tracks]
        for t, row in wanted:
            record = self._make(tracks[t], row, key + t)
            if record is None:
                continue
            self._report(Progress(records=1))
            if t == 0:
                self._store(record)
            else:
                waiting[t].append(record)
        for track, rest in zip(tracks, waiting, strict=True):
            for record in rest:
                self._store(record)
            if count := len(self._stored) - start:
                entry = _Entry(track.name, track.video, track.category, count)
                self._entries.append(entry)
            start = len(self._stored)

    def _rows(self, track: Track) -> Iterator[int]:
        """Which frames of a track become records, as far as annotations say."""
        last = None
        for row in range(0, len(track.frames), self._job.every_k):
            number = int(track.numbers[row])
            if not track.visibility[row] > 0:
                self._absent += 1
            elif last is not None and number <= last:
                reason = f"frame number {number} after {last}, expected rising numbers"
                self._reject(frame_file(track.frames[row]), number, reason)
            else:
                last = number
                yield row

    def _make(self, track: Track, row: int, key: int) -> Record | None:
        """The record of a frame; None if it has to be rejected."""
        frame, number = track.frames[row], int(track.numbers[row])
        try:
            image = self._reader.read(frame)
            box = _pixel_box(track, row, image.shape)
            return format.make_record(
                image,
                box,
                crops=self._job.crops,
                track=key,
                number=number,
                visibility=float(track.visibility[row]),
                outlines=_pixel_outlines(track, row, image.shape),
            )
        except InputError as error:
            file = frame_file(frame)
            self._reject(file, number, str(error).removeprefix(f"{file}: "))
            return None

    def _store(self, record: Record) -> None:
        self._append(format.to_bytes(record))
        self._stored.append(record._replace(exemplar=b"", search=b""))

    def _reject(
        self, file: str, frame: int | None, reason: str, records: int = 1
    ) -> None:
        # Relative, so that the result does not depend on where the raw data lies.
        file = file.removeprefix(f"{self._job.raw}/")
        self._rejections.append(Rejection(file, frame, reason, records))
        self._report(Progress(records=records))


def _pixel_box(track: Track, row: int, shape: tuple[int, ...]) -> np.ndarray:
    """The box of a frame of a shape ``[H, W, 3]``, which has to be as annotated."""
    height, width = shape[:2]
    size = track.sizes[row] if track.sizes else track.size
    if size is not None and tuple(size) != (width, height):
        expected = "{}x{}".format(*size)
        raise PreparationError(f"is {width}x{height} pixels, annotated are {expected}")
    box = np.asarray(track.boxes[row], np.float64)
    return box * [width, height, width, height] if track.relative else box


def _pixel_outlines(
    track: Track, row: int, shape: tuple[int, ...]
) -> tuple[np.ndarray, ...]:
    """The outlines of a target in a frame of a shape ``[H, W, 3]``, if it has any."""
    outlines = track.outlines[row] if track.outlines else ()
    unit = shape[1::-1] if track.relative else (1, 1)
    return tuple(np.asarray(outline, np.float64) * unit for outline in outlines)


def _inconsistent(track: Track) -> Rejection | None:
    lengths = {
        "frames": len(track.frames),
        "boxes": len(track.boxes),
        "numbers": len(track.numbers),
        "visibilities": len(track.visibility),
    }
    if track.outlines:
        lengths["outlines"] = len(track.outlines)
    if track.sizes:
        lengths["sizes"] = len(track.sizes)
    if len(set(lengths.values())) == 1:
        return None
    found = ", ".join(f"{count} {name}" for name, count in lengths.items())
    reason = f"{found}, expected as many of each"
    return Rejection(track.name, None, reason, max(lengths.values()))


def _groups(tracks: Iterable[Track]) -> Iterator[list[Track]]:
    """Runs of tracks that share files, and fit in memory but for their first."""
    group: list[Track] = []
    files: set[str] = set()
    waiting = 0
    for track in tracks:
        own = {frame_file(frame) for frame in track.frames}
        if group and (files.isdisjoint(own) or waiting + len(track.frames) > _PENDING):
            yield group
            group, files, waiting = [], set(), 0
        waiting += len(track.frames) if group else 0
        group.append(track)
        files |= own
    if group:
        yield group


# -------------------------------------------------------------------------- files


@contextlib.contextmanager
def _appending(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Opens a new shard; yields what appends a record to it, or raises OSError."""
    module = require("array_record.python.array_record_module", extra="train")
    # One record a group and no compression: JPEGs, read at random.
    writer = module.ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    yield functools.partial(_raised_as_os_error, writer.write)
    _raised_as_os_error(writer.close)


def _raised_as_os_error(call: Callable[..., object], *arguments: bytes) -> None:
    try:
        call(*arguments)
    except RuntimeError as error:  # ArrayRecord's for all that can go wrong
        raise OSError(error) from error


def _check_whole(path: Path, expected: int) -> None:
    """Raises OSError unless the records are on the disk, whatever happens next."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    found = open_array_record(path).num_records()
    if found != expected:
        raise OSError(f"it holds {found} records, expected {expected}")


def _write_sidecar(path: Path, content: Content) -> None:
    arrays = content._asdict()
    for key in _TEXTS:
        arrays[key] = pack_text(arrays[key])
    arrays["rejections"] = pack_text([json.dumps(content.rejections)])
    with replacing(path) as temporary:
        np.savez(temporary, **arrays)


def read_finished(job: ShardJob) -> Content | None:
    """What is in a shard; None while it is not finished.

    Nor is a shard finished that is missing, or not as long as when it was written.
    """
    try:
        with job.sidecar.open("rb") as file, np.load(file) as arrays:
            content = _parse_sidecar(dict(arrays))
        size = job.path.stat().st_size
    except Exception:  # NumPy, zlib and zipfile promise no particular ones
        return None
    return content if size == content.size else None


def _parse_sidecar(found: dict[str, Any]) -> Content:
    for key in _TEXTS:
        found[key] = unpack_text(found[key])
    rejections = json.loads(unpack_text(found["rejections"])[0])
    found["rejections"] = tuple(Rejection(*values) for values in rejections)
    found |= {key: int(found[key]) for key in ("size", "absent")}
    # Shards that were written before there were outlines are as good.
    found.setdefault("outlined", np.zeros(len(found["frames"]), bool))
    return Content(**found)
