"""What the user's folders hold, and how often each part of it is drawn.

Large groups of similar images must not drown small ones, so everything is drawn with a
weight that falls with the size of its group: an image of a source with ``n`` images
weighs ``n**-0.4``, a sequence of a group of ``n`` sequences ``n**-0.5`` times the root
of its length. A source then counts with ``n**0.6``, a group with ``n**0.5``.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import read_json
from siamrpn_jax.data.read import sequences, stills
from siamrpn_jax.data.read.images import read_size
from siamrpn_jax.data.read.store import ImageStore
from siamrpn_jax.data.sampling import Item, Weighted, held_out, is_among, share_of

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
    """Everything that pairs can be made of; see ``open_pools``."""

    store: ImageStore
    origins: np.ndarray
    """``int64 [n]`` for each image: images of one origin may show the same targets. The
    frames of a sequence folder are one, a still is one by itself."""

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

    objects_by_image: dict[int, tuple[Target, ...]] = field(default_factory=dict)
    """The objects of an image, by its index."""

    sequences: tuple[str, ...] = ()
    """Names of its sequences: their paths below the folders."""

    weight: float = 1.0
    """How much all of it counts beside prepared folders."""


def open_pools(
    folders: SequenceOf[str],
    *,
    validation_fraction: float,
    bytes_limit: int,
    decoded_limit: int,
    hold_out: Collection[str] = (),
    fractions: SequenceOf[float] = (),
    weights: SequenceOf[float] = (),
) -> tuple[Pool, Pool]:
    """Reads the annotations below some folders; no image is decoded.

    Sequences and stills are held out by rank: sorted by a hash of their path below the
    folder, the first ``ceil(validation_fraction * n)`` of each kind are, but never all.
    The targets of one sequence folder stay together. What cannot be used is left out,
    counted by reason and reported in one warning for each folder.

    Args:
        folders: each holds sequences, stills or both, at any depth.
        validation_fraction: share that is held out.
        bytes_limit: see ``ImageStore``, for each pool.
        decoded_limit: see ``ImageStore``, for each pool.
        hold_out: names of sequences that are held out whatever their hash.
        fractions: share of each folder's sequences and stills that is used for
            training, see ``sampling.share_of``; none: all.
        weights: of each folder: its sequences and stills are drawn more often by this
            factor. Their sum is the weight of the pools; none: 1 each.

    Returns:
        The pool for training and the held-out one; parts of them may be empty.

    Raises:
        InputError: a folder is missing or holds neither sequences nor stills.
        SequenceError: a malformed sequence.
        StillsError: malformed stills.
        ImageError: the first frame of a sequence is no image.
    """
    weights = weights or [1.0] * len(folders)
    contents = _read_folders(folders, weights)
    used, out = _split(
        contents,
        validation_fraction=validation_fraction,
        hold_out=hold_out,
        fractions=fractions or [1.0] * len(folders),
    )
    clips = [clip for one in contents for clip in one.clips]
    images = [image for one in contents for image in one.images]

    def assemble(kept: set[Path]) -> Pool:
        return _assemble(
            [c for c in clips if c.folder in kept and c.weight],
            [i for i in images if i.still.path in kept and i.weight],
            bytes_limit=bytes_limit,
            decoded_limit=decoded_limit,
            weight=sum(weights),
        )

    return assemble(used), assemble(out)


class _Clip(NamedTuple):
    """One target of a sequence folder."""

    folder: Path
    name: str  # Decides whether it is held out.
    frames: tuple[Path, ...]
    boxes: np.ndarray  # Those that can be used.
    numbers: np.ndarray  # Of their frames.
    group: str
    weight: float  # Of its folder.


class _Image(NamedTuple):
    """A still with the objects that can be used."""

    name: str  # Decides whether it is held out.
    kind: str  # "natural", "small", or "bare" where no object is left.
    still: stills.Still
    objects: tuple[stills.StillObject, ...]
    weight: float  # Of its folder.


class _Content(NamedTuple):
    """What a user's folder holds."""

    clips: list[_Clip]
    images: list[_Image]

    def names(self) -> dict[Path, str]:
        """Names that decide what is held out, by the path of a clip or still."""
        named = {clip.folder: clip.name for clip in self.clips}
        return named | {image.still.path: image.name for image in self.images}


_Rejected = dict[str, list[Path]]
"""Where things were left out, by reason."""


def _read_folders(
    folders: SequenceOf[str], weights: SequenceOf[float]
) -> list[_Content]:
    """What each folder holds; what two of them hold belongs to the first."""
    contents = []
    visited: set[Path] = set()
    for root, weight in zip(map(Path, folders), weights, strict=True):
        content = _Content([], [])
        rejected: _Rejected = defaultdict(list)
        sequence_paths, still_folders = _detect(root)
        for path in _unvisited(sequence_paths, visited):
            content.clips.extend(_read_clip(root, path, rejected, weight))
        for folder in _unvisited(still_folders, visited):
            for still in stills.read_stills(folder).images:
                content.images.append(_sort_image(root, still, rejected, weight))
        _report(root, rejected)
        contents.append(content)
    return contents


def _split(
    contents: SequenceOf[_Content],
    *,
    validation_fraction: float,
    hold_out: Collection[str],
    fractions: SequenceOf[float],
) -> tuple[set[Path], set[Path]]:
    """Paths of the clips and stills for training, and of those that are held out."""
    clips = [clip for one in contents for clip in one.clips]
    images = [image for one in contents for image in one.images]
    named = {c.folder for c in clips if is_among(c.name, hold_out)}
    others = {c.folder: c.name for c in clips if c.folder not in named}
    out = named | held_out(others, validation_fraction)
    for kind in ("natural", "small", "bare"):
        names = {i.still.path: i.name for i in images if i.kind == kind}
        out |= held_out(names, validation_fraction)
    used = set()
    for one, fraction in zip(contents, fractions, strict=True):
        rest = {path: name for path, name in one.names().items() if path not in out}
        used |= share_of(rest, fraction)
    return used, out


def _name(root: Path, path: Path) -> str:
    """The path below ``root``, or the name of ``root`` itself."""
    return root.resolve().name if path == root else path.relative_to(root).as_posix()


def _unvisited(paths: Iterable[Path], visited: set[Path]) -> Iterator[Path]:
    """Skips what another folder holds too: it might be on both sides of the split."""
    for path in paths:
        if path.resolve() not in visited:
            visited.add(path.resolve())
            yield path


def _report(root: Path, rejected: _Rejected) -> None:
    if rejected:
        parts = (f"{len(p)} {why}, e.g. in {p[0]}" for why, p in rejected.items())
        log.warning("%s: left out: %s", root, "; ".join(parts))


def _detect(root: Path) -> tuple[list[Path], list[Path]]:
    """Sequence folders and folders of stills below ``root``."""
    expected = f"expected {sequences.LAYOUT}; or {stills.LAYOUT}; at any depth"
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; {expected}")
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
            hint = stills.layout_hint(root) or sequences.packed_hint(root)
            raise InputError(
                f"{root}: holds no training data; {expected}{hint}; of films with "
                "labels, data_prep/folder.py makes a folder that can be trained on"
            ) from None
    return found_sequences, found_stills


def _assemble(
    clips: list[_Clip],
    images: list[_Image],
    *,
    bytes_limit: int,
    decoded_limit: int,
    weight: float,
) -> Pool:
    """Numbers the images, and weights what they show."""
    numbers: dict[Path, int] = {}
    origins: dict[int, int] = {}
    tracks: list[Track] = []
    backgrounds: list[int] = []
    for clip in clips:
        indices = [numbers.setdefault(path, len(numbers)) for path in clip.frames]
        origins |= dict.fromkeys(indices, indices[0])
        backgrounds.extend(indices[::_BACKGROUND_STRIDE])
        tracks.append(
            Track(np.array(indices)[clip.numbers], clip.boxes, clip.numbers, clip.group)
        )
    natural: list[tuple[str, float, tuple[Target, ...]]] = []
    small: list[Target] = []
    sizes: dict[int, tuple[int, int]] = {}
    for image in images:
        index = numbers.setdefault(image.still.path, len(numbers))
        origins.setdefault(index, index)
        sizes[index] = image.still.width, image.still.height
        targets = tuple(Target(index, o.box, o.polygons) for o in image.objects)
        if max(sizes[index]) <= SMALL_IMAGE:
            small.extend(targets)
            continue
        backgrounds.append(index)
        if targets:
            natural.append((image.still.source, image.weight, targets))
    return Pool(
        store=ImageStore(
            tuple(numbers),
            bytes_limit=bytes_limit,
            decoded_limit=decoded_limit,
            sizes=sizes,
        ),
        origins=np.array([origins[i] for i in range(len(numbers))], np.int64),
        stills=_balanced(natural),
        outlined=_balanced(
            [(s, w, t) for s, w, ts in natural for t in ts if t.polygons]
        ),
        tracks=_weighted_tracks(tracks, [clip.weight for clip in clips]),
        small=tuple(small),
        backgrounds=np.array(backgrounds, np.int64),
        sequences=tuple(dict.fromkeys(clip.name for clip in clips)),
        objects_by_image={targets[0].image: targets for _, _, targets in natural},
        weight=weight,
    )


def _weighted_tracks(tracks: list[Track], factors: list[float]) -> Weighted[Track]:
    """Weights tracks by their length, the size of their group and their folder's."""
    groups = Counter(track.group for track in tracks)
    weights = (
        factor
        * min(len(track.images), _LONG_SEQUENCE) ** 0.5
        * groups[track.group] ** _GROUP_EXPONENT
        for track, factor in zip(tracks, factors, strict=True)
    )
    return Weighted(tracks, weights)


def _balanced(items: list[tuple[str, float, Item]]) -> Weighted[Item]:
    """Weights items by the size of their source and the weight of their folder."""
    counts = Counter(source for source, _, _ in items)
    weights = (
        weight * counts[source] ** _STILL_EXPONENT for source, weight, _ in items
    )
    return Weighted([item for _, _, item in items], weights)


def _sort_image(
    root: Path, still: stills.Still, rejected: _Rejected, weight: float
) -> _Image:
    """Sorts out the objects of a still that cannot be used."""
    objects = []
    for item in still.objects:
        if reason := _still_fault(item.box, still):
            rejected[reason].append(still.path)
        else:
            objects.append(item)
    kind = "small" if max(still.width, still.height) <= SMALL_IMAGE else "natural"
    name = _name(root, still.path)
    return _Image(name, kind if objects else "bare", still, tuple(objects), weight)


def _still_fault(box: np.ndarray, image: stills.Still) -> str | None:
    """Why an object cannot be used, or None."""
    w, h = float(box[2]), float(box[3])
    low, high = _ASPECT_RANGE
    if min(w, h) < _MIN_STILL_SIDE or w * h < _MIN_STILL_AREA:
        return f"objects below {_MIN_STILL_SIDE:g} pixels or {_MIN_STILL_AREA:g} square"
    if not low < w / h < high:
        return f"objects of an aspect ratio beyond {low:g} to {high:g}"
    small = max(image.width, image.height) <= SMALL_IMAGE
    if not small and w * h > _MAX_STILL_SHARE * image.width * image.height:
        return f"objects on more than {_MAX_STILL_SHARE:.0%} of their image"
    return None


def _read_clip(
    root: Path, path: Path, rejected: _Rejected, weight: float
) -> list[_Clip]:
    """A sequence with its usable boxes; none where they are fewer than two."""
    sequence = sequences.read_sequence(path)
    folder = path if path.is_dir() else path.parent
    # A sequence has one frame size, and reading every header would take long.
    size = read_size(sequence.frames[0])
    numbers = []
    for number, (x, y, w, h) in enumerate(sequence.boxes):
        if np.isnan(x):
            continue  # absent
        if min(w, h) < _MIN_TRACK_SIDE:
            reason = f"boxes of sequences below {_MIN_TRACK_SIDE:g} pixels"
            rejected[reason].append(path)
        elif not (0 <= x + w / 2 <= size[0] and 0 <= y + h / 2 <= size[1]):
            rejected["boxes of sequences outside the image"].append(path)
        else:
            numbers.append(number)
    if len(numbers) < 2:
        rejected["sequences with fewer than 2 usable boxes"].append(path)
        return []
    name, group = _name(root, folder), _group(sequence, folder)
    boxes = sequence.boxes[numbers].astype(np.float32)
    frames = sequence.frames
    return [_Clip(folder, name, frames, boxes, np.array(numbers), group, weight)]


def _group(sequence: sequences.Sequence, folder: Path) -> str:
    """Origin: meta.json says it, else the name up to ``_``, else the parent folder."""
    meta = folder / "meta.json"
    if meta.is_file():
        content = read_json(meta)
        if not isinstance(content, dict):
            raise InputError(f"{meta}: expected a JSON object")
        if origin := content.get("benchmark") or content.get("dataset"):
            return str(origin)
    prefix, separator, _ = sequence.name.partition("_")
    return prefix if separator else folder.resolve().parent.name
