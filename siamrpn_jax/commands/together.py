"""Settings of one tracker, run over a sequence together: a run for each.

For accelerators, which take many patches in the time of one. A CPU does not (8 settings
on the development sequences: 39 s together, 44 s one after the other), and there
figures stay, to the last digit, those of each setting by itself.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from siamrpn_jax.data.read.images import read_image
from siamrpn_jax.data.read.sequences import Sequence as AnnotatedSequence
from siamrpn_jax.evaluation.runner import (
    OnePassTracker,
    Run,
    check_sequence,
    run_sequence,
)
from siamrpn_jax.media.frames import read_ahead
from siamrpn_jax.model.boxes import cxcywh_to_ltwh, ltwh_to_cxcywh
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.search import FrameSizeError, stack_settings, track_frames
from siamrpn_jax.tracking.state import STATIC_FIELDS


class SettingTracker(OnePassTracker, Protocol):
    """A tracker of this package: network, weights, and how a box is chosen."""

    model: SiamRPN
    weights: Any
    config: TrackerConfig


class Together:
    """Trackers that differ in the numbers of their configs alone.

    Args:
        trackers: with equal networks, weights and ``STATIC_FIELDS``.
    """

    def __init__(self, trackers: Sequence[SettingTracker]):
        self._trackers = trackers
        self._settings = stack_settings([one.config for one in trackers])
        self._runs: dict[str, list[Run]] = {}

    def members(self) -> "list[Member]":
        """A tracker for each setting, in their order."""
        return [Member(self, place) for place in range(len(self._trackers))]

    def run(self, sequence: AnnotatedSequence) -> list[Run]:
        """The runs of all settings on a sequence; kept for when they are asked again.

        Each has its share of the time. Where frames change their size, the settings run
        one after the other.

        Raises:
            InputError, siamrpn_jax.data.read.images.ImageError: as ``run_sequence``.
        """
        if sequence.name not in self._runs:
            try:
                self._runs[sequence.name] = self._track(sequence)
            except FrameSizeError:
                found = [run_sequence(one, sequence) for one in self._trackers]
                self._runs[sequence.name] = found
        return self._runs[sequence.name]

    def _track(self, sequence: AnnotatedSequence) -> list[Run]:
        box = check_sequence(sequence)
        start = ltwh_to_cxcywh(box).astype(np.float32)

        def track(frames: Iterable[np.ndarray]) -> Any:
            one = self._trackers[0]
            settings, model = self._settings, one.model
            return track_frames(one.weights, frames, start, settings, model=model)

        track(map(read_image, sequence.frames[:2]))  # compiles
        frames = _Timed(read_ahead(read_image, sequence.frames))
        begun = time.perf_counter()
        output = track(frames)
        busy = time.perf_counter() - begun - frames.seconds
        count, length = len(self._trackers), len(sequence.frames)
        seconds = np.full(length, busy / (length - 1) / count)
        found = cxcywh_to_ltwh(np.asarray(output.box, np.float64))
        scores = np.asarray(output.score, np.float64)
        return [
            Run(
                np.concatenate([box[None], found[:, place]]),
                np.concatenate([[np.nan], scores[:, place]]),
                seconds,
            )
            for place in range(count)
        ]


class Member:
    """One setting of several that run together."""

    def __init__(self, together: Together, place: int):
        self._together, self._place = together, place

    def run(self, sequence: AnnotatedSequence) -> Run:
        """Its run on a sequence."""
        return self._together.run(sequence)[self._place]


def pays() -> bool:
    """Whether settings run faster together here."""
    return jax.default_backend() != "cpu"


def kind_of(config: TrackerConfig) -> tuple[Any, ...]:
    """What configs must have in common to run together."""
    return tuple(getattr(config, name) for name in STATIC_FIELDS)


class _Timed:
    """Frames, and the seconds that were spent waiting for them."""

    def __init__(self, frames: Iterable[np.ndarray]):
        self._frames = frames
        self.seconds = 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        frames = iter(self._frames)
        while True:
            begun = time.perf_counter()
            frame = next(frames, None)
            self.seconds += time.perf_counter() - begun
            if frame is None:
                return
            yield frame
