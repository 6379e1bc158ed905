"""What the user's folders hold, and how often each part of it is drawn.

Large groups of similar images must not drown small ones, so everything is drawn with a
weight that falls with the size of its group: an image of a source with ``n`` images
weighs ``n**-0.4``, a sequence of a group of ``n`` sequences ``n**-0.5`` times the root
of its length. A source then counts with ``n**0.6``, a group with ``n**0.5``.
"""

import json
import logging
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from siamrpn_jax.data import sequences, stills
from siamrpn_jax.data.store import ImageStore
from siamrpn_jax.errors import InputError

SMALL_IMAGE = 64
"""Images of at most this side are cut out and pasted elsewhere, never cropped."""

_STILL_EXPONENT = -0.4
_GROUP_EXPONENT = -0.5
_LONG_SEQUENCE = 60  # Frames beyond these add no weight.
_BACKGROUND_STRIDE = 5  # Every fifth frame of a sequence serves as a background.
_MIN_TRACK_SIDE = 4.0  # Pixels.
_MIN_STILL_SIDE, _MIN_STILL_AREA = 10.0, 220.0  # Pixels, square pixels.
_MAX_STILL_SHARE = 0.8  # Of the image's area.
_ASPECT_RANGE = (0.15, 6.5)  # Width over height.

log = logging.getLogger(__name__)

Item = TypeVar("Item")


class DataError(InputError):
    """Folders without usable data, or settings that leave nothing to draw."""


class Target(NamedTuple):
    """One object of one image."""

    image: int
    """Index into the store."""

    box: np.ndarray
    """``ltwh float32 [4]``, pixels."""

    polygons: tuple[np.ndarray, ...] = ()
    """Outlines ``[n, 2]``, if annotated."""


class Track(NamedTuple):
    """One target through a sequence, absent frames left out."""

    images: np.ndarray
    """``[n]`` indices into the store."""

    boxes: np.ndarray
    """``ltwh float32 [n, 4]``, pixels."""

    numbers: np.ndarray
    """``[n]`` increasing frame numbers in the sequence."""

    group: str
    """Sequences of one origin share a group."""


@dataclass
class Pool:
    """Everything that pairs can be made of; see `open_pool`."""

    store: ImageStore
    stills: "Weighted[tuple[Target, ...]]"
    """Natural images: the usable objects of each."""

    outlined: "Weighted[Target]"
    """The objects of those that have polygons."""

    tracks: "Weighted[Track]"
    """Sequences."""

    small: tuple[Target, ...]
    """Objects of small images."""

    backgrounds: np.ndarray
    """Indices of images large enough to paste on."""

    neighbours: dict[int, tuple[Target, ...]] = field(default_factory=dict)
    """The objects of an image, by its index."""


class Weighted(Generic[Item]):
    """Items that are drawn with unequal probabilities."""

    def __init__(self, items: Iterable[Item], weights: Iterable[float]):
        self._items = tuple(items)
        self._cumulative = np.cumsum(np.fromiter(weights, np.float64))

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __getitem__(self, index: int) -> Item:
        return self._items[index]

    def draw(self, rng: np.random.Generator) -> Item:
        """Draws one item."""
        return self._items[self.draw_index(rng)]

    def draw_index(self, rng: np.random.Generator) -> int:
        """Draws the index of one item."""
        value = rng.random() * self._cumulative[-1]
        return min(
            int(np.searchsorted(self._cumulative, value, "right")), len(self) - 1
        )

    def probabilities(self) -> np.ndarray:
        """``float64 [n]``, summing to 1."""
        return np.diff(self._cumulative, prepend=0) / self._cumulative[-1]


def open_pool(
    folders: SequenceOf[str],
    *,
    validation: bool,
    validation_fraction: float,
    bytes_limit: int,
    decoded_limit: int,
) -> Pool:
    """Reads the annotations below some folders; no image is decoded.

    Args:
        folders: each holds sequences, stills or both, at any depth.
        validation: whether to keep the held-out part instead of the rest. Sequences and
            images are held out by a hash of their path below the folder.
        validation_fraction: share that is held out.
        bytes_limit: see `ImageStore`.
        decoded_limit: see `ImageStore`.

    Returns:
        The pool; parts of it may be empty.

    Raises:
        DataError: a folder is missing or holds neither sequences nor stills.
        SequenceError: a malformed sequence.
        StillsError: malformed stills.
    """

    def wanted(root: Path, path: Path) -> bool:
        share = zlib.crc32(path.relative_to(root).as_posix().encode()) / 2**32
        return (share < validation_fraction) == validation

    paths: list[Path] = []
    images: list[tuple[stills.Still, int]] = []
    tracks: list[Track] = []
    backgrounds: list[int] = []
    for root in map(Path, folders):
        sequence_folders, still_folders = _detect(root)
        for folder in sequence_folders:
            if wanted(root, folder):
                sequence = sequences.read_sequence(folder)
                first = len(paths)
                paths.extend(sequence.frames)
                backgrounds.extend(range(first, len(paths), _BACKGROUND_STRIDE))
                tracks.extend(_track(sequence, folder, first))
        for folder in still_folders:
            for image in stills.read_stills(folder).images:
                if wanted(root, image.path):
                    images.append((image, len(paths)))
                    paths.append(image.path)
    store = ImageStore(
        paths,
        bytes_limit=bytes_limit,
        decoded_limit=decoded_limit,
        sizes={index: (image.width, image.height) for image, index in images},
    )
    return _assemble(store, images, tracks, backgrounds)


def _detect(root: Path) -> tuple[list[Path], list[Path]]:
    """Sequence folders and folders of stills below ``root``."""
    expected = f"expected {sequences.LAYOUT}; or {stills.LAYOUT}; at any depth"
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; {expected}")
    found_sequences: list[Path] = []
    found_stills: list[Path] = []
    try:
        found_sequences = sequences.find_sequences(root)
    except sequences.SequenceError:
        pass  # There may be stills.
    try:
        found_stills = stills.find_stills(root)
    except stills.StillsError:
        if not found_sequences:
            raise DataError(f"{root}: holds no training data; {expected}") from None
    return found_sequences, found_stills


def _assemble(
    store: ImageStore,
    images: list[tuple[stills.Still, int]],
    tracks: list[Track],
    backgrounds: list[int],
) -> Pool:
    natural: list[tuple[str, tuple[Target, ...]]] = []
    small: list[Target] = []
    for image, index in images:
        targets = tuple(
            Target(index, item.box, item.polygons)
            for item in image.objects
            if _usable(item.box, image)
        )
        if max(image.width, image.height) <= SMALL_IMAGE:
            small.extend(targets)
            continue
        backgrounds.append(index)
        if targets:
            natural.append((image.source, targets))
    outlined = [(s, t) for s, targets in natural for t in targets if t.polygons]
    groups = Counter(track.group for track in tracks)
    lengths = [min(len(track.images), _LONG_SEQUENCE) ** 0.5 for track in tracks]
    return Pool(
        store=store,
        stills=_balanced(natural),
        outlined=_balanced(outlined),
        tracks=Weighted(
            tracks,
            (
                length * groups[track.group] ** _GROUP_EXPONENT
                for track, length in zip(tracks, lengths, strict=True)
            ),
        ),
        small=tuple(small),
        backgrounds=np.array(backgrounds, np.int64),
        neighbours={targets[0].image: targets for _, targets in natural},
    )


def _balanced(items: list[tuple[str, Item]]) -> Weighted[Item]:
    """Weights items by the size of their source."""
    counts = Counter(source for source, _ in items)
    weights = (counts[source] ** _STILL_EXPONENT for source, _ in items)
    return Weighted((item for _, item in items), weights)


def _usable(box: np.ndarray, image: stills.Still) -> bool:
    w, h = float(box[2]), float(box[3])
    low, high = _ASPECT_RANGE
    limit = _MAX_STILL_SHARE * image.width * image.height
    if max(image.width, image.height) <= SMALL_IMAGE:
        limit = np.inf
    fits = _MIN_STILL_AREA <= w * h <= limit
    return fits and min(w, h) >= _MIN_STILL_SIDE and low < w / h < high


def _track(sequence: sequences.Sequence, folder: Path, first: int) -> list[Track]:
    """The track of a sequence; none where it has fewer than two usable frames."""
    side = sequence.boxes[:, 2:].min(axis=1)
    numbers = np.flatnonzero(side >= _MIN_TRACK_SIDE)  # nan is not
    if len(numbers) < 2:
        log.warning("%s: skipped, %d usable boxes (need 2)", folder, len(numbers))
        return []
    boxes = sequence.boxes[numbers].astype(np.float32)
    return [Track(first + numbers, boxes, numbers, _group(sequence, folder))]


def _group(sequence: sequences.Sequence, folder: Path) -> str:
    """Origin: meta.json says it, else the name up to ``_``, else the parent folder."""
    meta = folder / "meta.json"
    if meta.is_file():
        try:
            content = json.loads(meta.read_bytes())
            origin = content.get("benchmark") or content.get("dataset")
        except (ValueError, AttributeError) as error:
            raise DataError(f"{meta}: expected a JSON object ({error})") from error
        if origin:
            return str(origin)
    prefix, separator, _ = sequence.name.partition("_")
    return prefix if separator else folder.resolve().parent.name
