"""Runs a tracker over a sequence: frames decoded ahead, the speed measured fairly."""

import dataclasses
import time
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.images import read_image
from siamrpn_jax.data.read.sequences import Sequence
from siamrpn_jax.media.frames import read_ahead
from siamrpn_jax.model.boxes import BoxError, check_boxes


class OnePassTracker(Protocol):
    """What a tracker must offer, as in the got10k toolkit and in OpenCV.

    ``update`` returns the box, or OpenCV's pair ``(found, box)``; where ``found`` is
    false the last box is kept. A ``score`` attribute, where present, is read after
    each update. Boxes are ``ltwh``, frames RGB uint8 [H, W, 3].
    """

    def init(self, image: np.ndarray, box: np.ndarray, /) -> Any:
        """Starts on a frame with the target's box."""
        ...

    def update(self, image: np.ndarray, /) -> Any:
        """Finds the target in the next frame."""
        ...


@runtime_checkable
class SequenceTracker(Protocol):
    """What runs whole sequences by itself, several trackers at once, say."""

    def run(self, sequence: Sequence, /) -> "Run":
        """Its run on a sequence."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What a tracker did on one sequence of T frames."""

    boxes: np.ndarray
    """float64 [T, 4] ``ltwh``; the first row is the given box."""
    scores: np.ndarray
    """float64 [T]; NaN in the first frame and where the tracker gives no score."""
    seconds: np.ndarray
    """float64 [T]: time in ``init`` (first) and in each ``update``, compilation,
    decoding and drawing excluded."""

    @property
    def fps(self) -> float:
        """Updates a second."""
        return (len(self.seconds) - 1) / max(float(self.seconds[1:].sum()), 1e-9)


def run_sequence(tracker: OnePassTracker | SequenceTracker, sequence: Sequence) -> Run:
    """Tracks a sequence from its first frame to its last.

    A first ``init`` and ``update`` on the sequence's own frames are not timed: they
    hold what happens once per frame size, such as compilation. Then the tracker starts
    anew. Results are taken to the host inside the timed part, so an accelerator's
    pending work is counted.

    Raises:
        InputError: the tracker returns something that is not a box.
        siamrpn_jax.data.read.images.ImageError: a frame cannot be read.
        InputError, siamrpn_jax.model.boxes.BoxError: as ``check_sequence`` says.
    """
    if isinstance(tracker, SequenceTracker):
        return tracker.run(sequence)
    box = check_sequence(sequence)
    boxes, seconds = [box], []
    scores = np.full(len(sequence.frames), np.nan)
    _warm_up(tracker, sequence, box)
    for index, frame in enumerate(read_ahead(read_image, sequence.frames)):
        start = time.perf_counter()
        if index == 0:
            tracker.init(frame, box)
        else:
            where = f"{sequence.name}, frame {index}"
            boxes.append(update_box(tracker, frame, boxes[-1], where=where))
            scores[index] = getattr(tracker, "score", np.nan)
        seconds.append(time.perf_counter() - start)
    return Run(np.stack(boxes), scores, np.array(seconds))


def check_sequence(sequence: Sequence) -> np.ndarray:
    """Checks that a tracker can start on a sequence; decodes its first frame.

    Returns:
        float64 [4] ``ltwh``, the box to start from.

    Raises:
        InputError: there is a single frame, or no ground truth in the first one.
        model.boxes.BoxError: the first box has no area or lies outside the frame.
        siamrpn_jax.data.read.images.ImageError: the first frame cannot be read.
    """
    if len(sequence.frames) < 2:
        raise InputError(
            f"{sequence.name}: {len(sequence.frames)} frame, expected at least 2"
        )
    box = np.asarray(sequence.boxes[0], np.float64)
    if np.isnan(box).any():
        raise InputError(
            f"{sequence.name}: no ground truth in the first frame ({box.tolist()}): "
            "expected the box to start from"
        )
    try:
        return check_boxes(box, read_image(sequence.frames[0]))
    except BoxError as error:
        path = sequence.frames[0]
        raise BoxError(f"{sequence.name}: first {error} ({path})") from error


def total_fps(runs: Iterable[Run]) -> float:
    """Updates a second over all runs together: all their updates by all their time."""
    seconds = np.concatenate([run.seconds[1:] for run in runs])
    return len(seconds) / max(float(seconds.sum()), 1e-9)


def _warm_up(tracker: OnePassTracker, sequence: Sequence, box: np.ndarray) -> None:
    tracker.init(read_image(sequence.frames[0]), box)
    frame = read_image(sequence.frames[1])
    update_box(tracker, frame, box, where=f"{sequence.name}, frame 1")


def update_box(
    tracker: OnePassTracker, frame: np.ndarray, last: np.ndarray, *, where: str
) -> np.ndarray:
    """A tracker's next box, ``ltwh`` float64 ``[4]``.

    Args:
        tracker: returns a box, as got10k's do, or found and box, as OpenCV's do.
        frame: RGB uint8 ``[H, W, 3]``.
        last: the box that stays where a tracker found none.
        where: sequence and frame, for the error.

    Raises:
        InputError: it returned something that is not a finite box.
    """
    answer = tracker.update(frame)
    if isinstance(answer, tuple) and len(answer) == 2:
        found, answer = answer
        if not found:
            return last
    box = np.asarray(answer, np.float64)
    if box.shape != (4,) or not np.isfinite(box).all():
        raise InputError(
            f"{where}: the tracker returned {answer!r}, expected a finite box x,y,w,h"
        )
    return box
