"""Prepared folders as a source of pairs: which records are drawn, and their crops.

A pair is two records of one track: a track is drawn first, then one of its records,
then a partner near it. A track of one record is a still, and its pair shows it twice.
"""

import logging
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from siamrpn_jax.data.crops.format import RecordError
from siamrpn_jax.data.crops.reader import CropDataset, open_prepared
from siamrpn_jax.data.crops.windows import AugmentConfig
from siamrpn_jax.data.pairs.requests import Picture
from siamrpn_jax.data.read.images import ImageError, decode_image
from siamrpn_jax.data.sampling import (
    Weighted,
    held_out,
    is_among,
    name_hash,
    share_of,
)

log = logging.getLogger(__name__)

Balance = Literal["tracks", "categories", "records"]
"""What is drawn equally often: every track, every category, or every record."""


class RecordPair(NamedTuple):
    """Two records of one track."""

    track: int
    """Number of the track in the folder's index."""

    exemplar: int
    """Number of the record that shows the exemplar."""

    search: int
    """Number of the record that shows the search image."""


class CropTracks:
    """Some tracks of a prepared folder; thread safe and picklable.

    Args:
        records: the folder.
        tracks: numbers of its tracks, ``int [n]``.
        weight: how much they count beside other folders.
        balance: see ``Balance``.
    """

    def __init__(
        self,
        records: CropDataset,
        tracks: np.ndarray,
        *,
        weight: float = 1.0,
        balance: Balance = "tracks",
    ):
        self.records, self.weight = records, weight
        # Sorted by category and video, each is one stretch of them.
        keys = self._keys(tracks)
        order = np.argsort(keys, kind="stable")
        self.tracks, self._sorted_keys = tracks[order], keys[order]
        self._tracks = Weighted(range(len(tracks)), self._weights(balance))

    def __len__(self) -> int:
        """How many tracks."""
        return len(self.tracks)

    def __str__(self) -> str:
        return self.records.folder.resolve().name

    def describe(self) -> str:
        """A few words about what can be drawn."""
        lengths = np.diff(self.records.index.starts)[self.tracks]
        return (
            f"{self}: {lengths.sum():,} records of {len(self):,} tracks, "
            f"weight {self.weight:g}"
        )

    def video(self, track: int) -> tuple[str, str]:
        """What a track is part of; videos of one name are one, in all folders."""
        index = self.records.index
        return "video", index.video_names[index.videos[track]]

    def video_names(self) -> frozenset[str]:
        """Names of the videos of tracks that are no stills."""
        index = self.records.index
        moving = self.tracks[np.diff(index.starts)[self.tracks] > 1]
        videos = np.unique(index.videos[moving])
        return frozenset(index.video_names[video] for video in videos)

    def category(self, track: int) -> str:
        """The name of a track's category, empty where it is unknown."""
        index = self.records.index
        number = index.categories[track]
        return index.category_names[number] if number >= 0 else ""

    def is_still(self, track: int) -> bool:
        """Whether a track is a single record."""
        start, stop = self.records.index.starts[track : track + 2]
        return bool(stop - start == 1)

    def draw_record(self, rng: np.random.Generator) -> tuple[int, int]:
        """Draws a track, and one of its records."""
        track = int(self.tracks[self._tracks.draw(rng)])
        start, stop = (int(i) for i in self.records.index.starts[track : track + 2])
        return track, int(rng.integers(start, stop))

    def draw(self, rng: np.random.Generator, *, max_interval: int) -> RecordPair:
        """Draws a track, a record, and a partner in any order of time.

        Args:
            rng: the source of randomness.
            max_interval: largest distance of the two in source frames. Where the
                folder asks for neighbours, they are at most that many annotated frames
                apart as well, and two records wherever there are two.
        """
        index, neighbours = self.records.index, self.records.neighbours
        track, first = self.draw_record(rng)
        start, stop = (int(i) for i in index.starts[track : track + 2])
        frames = index.frames[start:stop]
        number = int(index.frames[first])
        low = start + int(np.searchsorted(frames, number - max_interval, "left"))
        high = start + int(np.searchsorted(frames, number + max_interval, "right"))
        if neighbours is None:
            return RecordPair(track, first, int(rng.integers(low, high)))
        low, high = max(low, first - neighbours), min(high, first + neighbours + 1)
        if high - low == 1:
            return RecordPair(track, first, first)
        # With so few of them, the record itself would too often be its own partner.
        second = int(rng.integers(low, high - 1))
        return RecordPair(track, first, second + (second >= first))

    def draw_same_category(
        self, rng: np.random.Generator, track: int
    ) -> RecordPair | None:
        """Draws a record of another video that shows the category of ``track``.

        Returns:
            A pair that shows it twice; None if there is none, or no category.
        """
        index = self.records.index
        category = int(index.categories[track])
        if category < 0:
            return None
        keys, key = self._sorted_keys, self._keys(np.array([track]))[0]
        own = np.searchsorted(keys, [key, key + 1])
        videos = len(index.video_names)
        every = np.searchsorted(keys, [category * videos, (category + 1) * videos])
        others = int(np.diff(every)[0] - np.diff(own)[0])
        if not others:
            return None
        place = int(every[0] + rng.integers(others))
        if place >= own[0]:
            place += int(np.diff(own)[0])
        other = int(self.tracks[place])
        record = int(rng.integers(index.starts[other], index.starts[other + 1]))
        return RecordPair(other, record, record)

    def exemplar(self, record: int) -> Picture:
        """The exemplar crop of a record; the target's centre is its middle.

        Raises:
            RecordError: naming the shard and the record, if it cannot be used.
        """
        return self.outlined_exemplar(record)[0]

    def outlined_exemplar(self, record: int) -> tuple[Picture, tuple[np.ndarray, ...]]:
        """As ``exemplar``, and the target's polygons ``[n, 2]`` in it, if it has any.

        Raises:
            RecordError: as ``exemplar``.
        """
        read = self.records[record]
        side = self.records.crops.exemplar_crop
        picture = Picture(self._decode(read.exemplar, record, side), read.fill)
        return picture, tuple(points + side / 2 for points in read.outlines)

    def search(self, record: int) -> Picture:
        """The search crop of a record; as ``exemplar``."""
        read = self.records[record]
        side = self.records.crops.search_crop
        return Picture(self._decode(read.search, record, side), read.fill)

    def box(self, record: int, side: int) -> np.ndarray:
        """The target in a crop of a side: ``ltwh float32 [4]``, crop pixels."""
        size = self.records.index.sizes[record]
        return np.concatenate([(side - size) / 2, size])

    def outlines(self, record: int, side: int) -> tuple[np.ndarray, ...]:
        """The target's polygons ``[n, 2]`` in a crop of a side, if it has any.

        Raises:
            RecordError: the record cannot be read.
        """
        if not self.records.index.outlined[record]:
            return ()
        return tuple(points + side / 2 for points in self.records[record].outlines)

    def _decode(self, data: bytes, record: int, side: int) -> np.ndarray:
        try:
            image = decode_image(data, name="JPEG")
        except ImageError as error:
            raise RecordError(f"{self.records.where(record)}: {error}") from error
        if image.shape[:2] != (side, side):
            height, width = image.shape[:2]
            raise RecordError(
                f"{self.records.where(record)}: a crop of {width}x{height} pixels, "
                f"expected {side}x{side}"
            )
        return image

    def _keys(self, tracks: np.ndarray) -> np.ndarray:
        """``int64 [n]``: category and video of tracks as one number."""
        index = self.records.index
        categories = index.categories[tracks].astype(np.int64)
        return categories * len(index.video_names) + index.videos[tracks]

    def _weights(self, balance: Balance) -> np.ndarray:
        index = self.records.index
        if balance == "records":
            return np.diff(index.starts)[self.tracks]
        if balance == "tracks":
            return np.ones(len(self.tracks))
        _, group, counts = np.unique(
            index.categories[self.tracks], return_inverse=True, return_counts=True
        )
        return 1 / counts[group]


def open_tracks(
    folder: Path | str,
    *,
    validation_fraction: float,
    hold_out: Collection[str] = (),
    fraction: float = 1.0,
    weight: float,
    balance: Balance,
) -> tuple[CropTracks, CropTracks]:
    """Opens a prepared folder and splits it by video.

    Args:
        folder: a prepared one.
        validation_fraction: share of the videos that is held out: by their names
            alone, so that folders which share videos hold out the same.
        hold_out: names of videos that are held out whatever their hash.
        fraction: share of the other videos that is used, see ``sampling.share_of``.
        weight: of each part.
        balance: see ``Balance``.

    Returns:
        The tracks for training and the held-out ones; the second may be empty.

    Raises:
        RecordError: the folder cannot be used; see ``reader.open_prepared``.
    """
    records = open_prepared(folder)
    index = records.index
    names = {int(video): index.video_names[video] for video in np.unique(index.videos)}
    out = np.zeros(len(index.video_names), bool)
    named = {key for key, name in names.items() if is_among(name, hold_out)}
    others = {key: name for key, name in names.items() if key not in named}
    out[list(named | _held_out(others, validation_fraction))] = True
    used = np.zeros_like(out)
    rest = {key: name for key, name in others.items() if not out[key]}
    used[list(share_of(rest, fraction))] = True
    parts = (np.flatnonzero(kept[index.videos]) for kept in (used, out))
    training, validation = (
        CropTracks(records, tracks, weight=weight, balance=balance) for tracks in parts
    )
    return training, validation


def _held_out(names: Mapping[int, str], fraction: float) -> set[int]:
    """Keys whose hash is below a bound; if those are none or all, ``held_out``."""
    out = {key for key, name in names.items() if name_hash(name) < fraction * 2**32}
    return out if 0 < len(out) < len(names) else held_out(names, fraction)


def warn_of_small_crops(
    records: CropDataset, augment: AugmentConfig, *, patches: float
) -> None:
    """Warns if search patches reach far beyond the stored crops, into the fill.

    Args:
        records: the folder.
        augment: how search patches are moved and scaled.
        patches: side of search patches over that of exemplars.
    """
    crops = records.crops
    scale = math.exp(augment.search_scale + augment.search_aspect)
    reach = crops.exemplar_size * patches * scale * (1 + 2 * augment.search_shift)
    if reach > 1.1 * crops.search_crop:  # the last tenth is seldom drawn
        log.warning(
            "%s: search patches reach over up to %d pixels of its search crops, which "
            "have %d; the rest is filled with the mean colour, unless it is prepared "
            "with a larger --search-crop",
            records.folder,
            reach,
            crops.search_crop,
        )
