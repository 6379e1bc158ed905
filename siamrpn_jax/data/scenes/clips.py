"""Clips to choose a tracker's constants on.

``real`` sequences that training holds out; ``composite`` clips, in which a cut-out of a
held-out image moves over another one; ``generated`` scenes of seeds that training does
not draw; and, where asked for, ``learned`` sequences, those of training itself.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from siamrpn_jax.data.read.images import read_image
from siamrpn_jax.data.read.pool import Pool
from siamrpn_jax.data.read.sequences import (
    Sequence,
    SequenceError,
    find_sequences,
    fingerprint,
    read_sequence,
)
from siamrpn_jax.data.scenes.generated import TUNING_SEED, make_sequence
from siamrpn_jax.data.scenes.pasted import PastedScene

Source = Literal["real", "learned", "composite", "generated"]
"""Where a clip comes from."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A target through a few dozen frames, from the first one on."""

    name: str
    """Name of the sequence, or the kind and its number."""

    source: Source
    """Where it comes from."""

    frames: np.ndarray
    """RGB ``uint8 [T, H, W, 3]``."""

    boxes: np.ndarray
    """``ltwh float64 [T, 4]``, NaN where the target is absent; never at first."""

    fingerprint: str | None = None
    """Fingerprint of the whole sequence where it is a real one, see
    ``sequences.fingerprint``."""


def read_sequences(folders: Iterable[str | Path]) -> list[Sequence]:
    """All sequences at any depth of some folders; folders of stills have none."""
    found = []
    for folder in folders:
        try:
            paths = find_sequences(folder)
        except SequenceError:
            continue  # stills alone, or nothing: ``open_pools`` reports it
        found += [read_sequence(path) for path in paths]
    return found


def pooled_sequences(folders: Iterable[str | Path], pool: Pool) -> list[Sequence]:
    """The sequences in a pool, whole: one of each origin, then a second of each, ….

    However many come from one origin, the first of them are spread over all.

    Args:
        folders: those that ``pool.open_pools`` got.
        pool: one of what it returned.
    """
    groups = {pool.store.paths[t.images[0]].parent: t.group for t in pool.tracks}
    seen: Counter[str] = Counter()
    ranked = []
    for one in read_sequences(folders):
        group = groups.get(one.frames[0].parent)
        if group is not None:
            ranked.append((seen[group], one))
            seen[group] += 1
    return [one for _, one in sorted(ranked, key=lambda pair: pair[0])]


def real_clips(
    sequences: Iterable[Sequence], *, length: int, source: Source = "real"
) -> Iterator[Clip]:
    """The first frames of each sequence, from the first one with a target on.

    Sequences whose target is in only one of them are left out.

    Raises:
        SequenceError: frames of a sequence differ in size.
        ImageError: a frame cannot be decoded.
    """
    for one in sequences:
        present = np.flatnonzero(~np.isnan(one.boxes[:, 0]))
        if len(present) < 2 or present[1] >= present[0] + length:
            continue
        kept = slice(present[0], present[0] + length)
        frames = [read_image(path) for path in one.frames[kept]]
        sizes = {frame.shape for frame in frames}
        if len(sizes) > 1:
            raise SequenceError(f"{one.name}: frames of sizes {sorted(sizes)}")
        mark = fingerprint(one.boxes)
        yield Clip(one.name, source, np.stack(frames), one.boxes[kept], mark)


def composite_clips(
    pool: Pool,
    count: int,
    *,
    length: int,
    seed: int,
) -> Iterator[Clip]:
    """Clips of pasted objects; each depends on pool, seed and its number alone.

    Args:
        pool: needs stills, for objects and backgrounds.
        count: how many.
        length: T, frames.
        seed: non-negative.
    """
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        scene = PastedScene(pool, rng, length=length)
        rendered = [scene.render(t) for t in range(length)]
        frames, boxes = (np.stack(part) for part in zip(*rendered, strict=True))
        yield Clip(f"composite-{number}", "composite", frames, boxes)


def generated_clips(count: int, *, length: int, seed: int) -> Iterator[Clip]:
    """Generated scenes, see ``scenes.generated``; arguments as ``composite_clips``."""
    for number in range(count):
        frames, boxes = make_sequence(
            TUNING_SEED + 2**20 * seed + number, length=length
        )
        boxes = boxes.astype(np.float64)
        yield Clip(f"generated-{number}", "generated", frames, boxes)


def with_loss(clip: Clip, other: Clip, *, length: int) -> Clip:
    """The clip, cut to another one's frames at its end: there the target is absent.

    Args:
        clip: comes first.
        other: its first frames follow, resized to the clip's.
        length: how many of them at most.
    """
    height, width = clip.frames.shape[1:3]
    after = np.stack([cv2.resize(f, (width, height)) for f in other.frames[:length]])
    return replace(
        clip,
        frames=np.concatenate([clip.frames, after]),
        boxes=np.concatenate([clip.boxes, np.full((len(after), 4), np.nan)]),
    )
