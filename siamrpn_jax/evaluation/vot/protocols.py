"""VOT's experiments, run in process.

The protocols are ``run_baseline``, ``run_realtime`` and ``run_unsupervised``. Each is
one pass over a sequence whose frames are decoded ahead. What a tracker did becomes a
row for each frame, see ``siamrpn_jax.evaluation.vot.regions``: a code where it was
started, failed or did not run, else its box ``ltwh``. Burn-in is the metrics' business.

Sources: Kristan et al., "The Visual Object Tracking VOT2015 challenge results" (resets)
and "… VOT2017 …" (real time), and the toolkit of these years.
"""

import math
import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from siamrpn_jax.common.errors import InputError, check_least
from siamrpn_jax.data.read.images import read_image
from siamrpn_jax.evaluation import results
from siamrpn_jax.evaluation.runner import OnePassTracker, update_box
from siamrpn_jax.evaluation.vot import regions
from siamrpn_jax.evaluation.vot.dataset import VotSequence, region_to_ltwh
from siamrpn_jax.evaluation.vot.metrics import SKIP, Trajectory
from siamrpn_jax.media.frames import read_ahead
from siamrpn_jax.model.boxes import BoxError, check_boxes

Experiment = Literal["baseline", "realtime", "unsupervised"]

Clock = Callable[[], float]
"""Seconds since some moment; tests put in one that they move by hand."""


@dataclass(frozen=True)
class ProtocolConfig:
    """How a tracker is run."""

    experiment: Experiment = "baseline"
    """baseline: restart after each failure. realtime: the same, and frames do not wait
    for the tracker. unsupervised: no restart."""
    overlap: regions.Overlap = "pysot"
    """How overlap is measured where a failure is looked for."""
    fps: float = 20.0
    """Frames a second of the realtime experiment; 20 in VOT2017 to VOT2019."""
    grace: int = 3
    """Answers after a start whose lateness is forgiven, the start's own included."""

    def __post_init__(self) -> None:
        check_least(self, 0, "grace")
        if not 0 < self.fps < math.inf:
            raise InputError(f"fps is {self.fps}, expected above 0")


@dataclass(frozen=True, eq=False)
class VotRun:
    """What a tracker did on a sequence of T frames."""

    regions: Trajectory
    """T rows."""
    seconds: np.ndarray
    """float64 ``[T]``: time of the start or update; NaN where the tracker did not run,
    or it is not known. Decoding and compilation are excluded."""

    @property
    def updates(self) -> np.ndarray:
        """Seconds of the updates alone: float64, as many as are known."""
        started = [len(row) == 1 and row[0] == regions.STARTED for row in self.regions]
        seconds = self.seconds[~np.array(started)]
        return seconds[~np.isnan(seconds)]


def run_baseline(
    tracker: OnePassTracker,
    sequence: VotSequence,
    *,
    config: ProtocolConfig,
    clock: Clock = time.perf_counter,
) -> VotRun:
    """The experiment with resets.

    A tracker fails where its box and the region, both clipped to the image, do not
    overlap. It is started anew 5 frames later.

    Raises:
        InputError: the tracker returns something that is not a finite box, a frame has
            another size than the sequence, or a region to start from lies outside.
            VOT's toolkits count a box with NaN as a failure; here it stops the run, for
            it is a fault of the tracker, and its figures would be no measure of it.
        siamrpn_jax.data.read.images.ImageError: a frame cannot be decoded.
    """
    log = _Log(tracker, sequence, config.overlap, clock)
    start = 0
    for index, frame in _frames(sequence):
        if index < start:
            continue
        if index == start:
            log.start(index, frame)
            continue
        box = log.update(index, frame)
        if log.misses(box, index):
            log.rows[index] = _code(regions.FAILED)
            start = index + SKIP
        else:
            log.rows[index] = box
    return log.result()


def run_realtime(
    tracker: OnePassTracker,
    sequence: VotSequence,
    *,
    config: ProtocolConfig,
    clock: Clock = time.perf_counter,
) -> VotRun:
    """VOT2017's experiment in real time.

    Frames come ``config.fps`` times a second. An answer that is not there when the next
    frame comes counts for the frame that is current when it is ready; until then the
    last finished box counts. The tracker then sees the frame after that one. Time is
    rounded to whole frames, lateness of less than half a frame adds up. The first
    ``config.grace`` answers are taken to be in time, and the tracker never gets ahead.

    A failure, of the box that is held or of the answer, is looked for in each frame;
    the tracker learns of it when it answers, and is started anew 5 frames after that.

    Raises:
        InputError, siamrpn_jax.data.read.images.ImageError: as ``run_baseline`` says.
    """
    log = _Log(tracker, sequence, config.overlap, clock)
    shown, restart = 0, True
    start, elapsed, grace, held = 0, 0.0, 0, np.empty(0)
    for index, frame in _frames(sequence):
        if index < shown:
            continue
        if restart:
            start, elapsed, grace = index, 0.0, config.grace
            answer = log.start(index, frame)
        else:
            answer = log.update(index, frame)
        elapsed += 1.0 if grace > 0 else max(1.0, log.seconds[index] * config.fps)
        grace -= 1
        current = start - 1 + math.floor(elapsed + 0.5)
        failed = not restart and log.hold(held, answer, index, current)
        held, restart = answer, failed
        shown = current + (SKIP if failed else 1)
    return log.result()


def run_unsupervised(
    tracker: OnePassTracker,
    sequence: VotSequence,
    *,
    config: ProtocolConfig,
    clock: Clock = time.perf_counter,
) -> VotRun:
    """The experiment without resets.

    Raises:
        InputError, siamrpn_jax.data.read.images.ImageError: as ``run_baseline`` says.
    """
    log = _Log(tracker, sequence, config.overlap, clock)
    for index, frame in _frames(sequence):
        if index == 0:
            log.start(index, frame)
        else:
            log.rows[index] = log.update(index, frame)
    return log.result()


RUN = {
    "baseline": run_baseline,
    "realtime": run_realtime,
    "unsupervised": run_unsupervised,
}
"""Experiment -> its protocol."""


def warm_up(
    tracker: OnePassTracker, sequence: VotSequence, *, clock: Clock = time.perf_counter
) -> float:
    """Starts and updates once, so that compilation is over before anything is timed.

    Returns:
        Seconds that it took; the frames were decoded before.
    """
    log = _Log(tracker, sequence, "pysot", clock)
    first, *second = (read_image(path) for path in sequence.frames[:2])
    begin = clock()
    log.start(0, first)
    for frame in second:
        log.update(1, frame)
    return clock() - begin


def run_to_files(
    tracker: OnePassTracker,
    sequence: VotSequence,
    folder: Path,
    *,
    config: ProtocolConfig,
    repetitions: int = 1,
    clock: Clock = time.perf_counter,
) -> float | None:
    """Runs what is missing of a sequence, and writes each run when it is whole.

    Like VOT's toolkits, stops after three runs if they are equal.

    Args:
        tracker: what is run.
        sequence: what it is run on.
        folder: of the experiment; files go to ``<sequence>/<sequence>_001.txt``.
        config: the protocol.
        repetitions: number of runs.
        clock: what time is measured with.

    Returns:
        Seconds of warming up; None where all runs were there already.

    Raises:
        InputError: as ``run_baseline`` says, or a file that is there cannot be used.
        siamrpn_jax.data.read.images.ImageError: as ``run_baseline`` says.
    """
    warm = None
    runs = read_runs(folder, sequence)
    while len(runs) < repetitions and not _deterministic(runs):
        if warm is None:
            warm = warm_up(tracker, sequence, clock=clock)
        run = RUN[config.experiment](tracker, sequence, config=config, clock=clock)
        runs.append(run)
        path = results.vot_run_path(folder, sequence.name, len(runs))
        results.write_seconds(results.vot_time_path(path), run.seconds)
        results.write_trajectory(path, run.regions)  # last: it says all is there
    return warm


def read_runs(folder: Path, sequence: VotSequence) -> list[VotRun]:
    """Reads the runs on a sequence that are there, possibly none.

    Args:
        folder: of the experiment.
        sequence: what they are about.

    Raises:
        siamrpn_jax.evaluation.results.ResultError: a file has more or fewer rows than
            the sequence has frames, or is broken.
        InputError: a row is no region.
    """
    runs = []
    for path in results.find_vot_runs(folder, sequence.name):
        count, times = len(sequence), results.vot_time_path(path)
        rows = results.read_trajectory(path, frames=count, name=sequence.name)
        seconds = np.full(count, np.nan)
        if times.is_file():
            seconds = results.read_seconds(times, frames=count)
        runs.append(VotRun(rows, seconds))
    return runs


class _Log:
    """Runs a tracker frame by frame, times it and keeps what it said."""

    def __init__(
        self,
        tracker: OnePassTracker,
        sequence: VotSequence,
        overlap: regions.Overlap,
        clock: Clock,
    ):
        self.rows = [_code(regions.UNKNOWN)] * len(sequence)
        self.seconds = np.full(len(sequence), np.nan)
        self._tracker, self._sequence = tracker, sequence
        self._overlap: regions.Overlap = overlap
        self._clock = clock
        self._last = np.empty(0)

    def start(self, index: int, frame: np.ndarray) -> np.ndarray:
        """Starts the tracker on a frame; returns the box that it was given."""
        try:
            box = check_boxes(region_to_ltwh(self._sequence.regions[index]), frame)
        except BoxError as error:
            raise InputError(f"{self._where(index)}: cannot start, {error}") from error
        begin = self._clock()
        self._tracker.init(frame, box)
        self.seconds[index] = self._clock() - begin
        self.rows[index], self._last = _code(regions.STARTED), box
        return box

    def update(self, index: int, frame: np.ndarray) -> np.ndarray:
        """Returns the tracker's box in the next frame."""
        begin = self._clock()
        box = update_box(self._tracker, frame, self._last, where=self._where(index))
        self.seconds[index] = self._clock() - begin
        self._last = box
        return box

    def misses(self, box: np.ndarray, index: int) -> bool:
        """Whether box and region do not overlap within the image."""
        truth = self._sequence.regions[index]
        size = self._sequence.size
        return regions.overlap(box, truth, size, convention=self._overlap) <= 0

    def hold(
        self, held: np.ndarray, answer: np.ndarray, asked: int, current: int
    ) -> bool:
        """Writes ``held`` until an answer is there, then the answer; looks for failure.

        Rows as in the toolkit of 2017: a failure of the held box does not keep an
        answer that meets the target from being written; where both fail, the failure
        is the answer's.
        """
        failed = None
        for index in range(asked, min(current, len(self.rows))):
            if self.misses(held, index):
                failed = index
                break
            self.rows[index] = held
        if current < len(self.rows):
            if self.misses(answer, current):
                failed = current
            else:
                self.rows[current] = answer
        if failed is not None:
            self.rows[failed] = _code(regions.FAILED)
        return failed is not None

    def result(self) -> VotRun:
        return VotRun(tuple(self.rows), self.seconds)

    def _where(self, index: int) -> str:
        return f"{self._sequence.name}, frame {index}"


def _frames(sequence: VotSequence) -> Iterator[tuple[int, np.ndarray]]:
    for index, frame in enumerate(read_ahead(read_image, sequence.frames)):
        if sequence.size and frame.shape[1::-1] != sequence.size:
            width, height = sequence.size
            raise InputError(
                f"{sequence.frames[index]}: {frame.shape[1]}x{frame.shape[0]} pixels, "
                f"expected {width}x{height} as the sequence"
            )
        yield index, frame


def _code(code: int) -> np.ndarray:
    return np.array([float(code)])


def _deterministic(runs: Items[VotRun]) -> bool:
    """Whether there are three runs or more, and all are equal."""
    return len(runs) >= 3 and all(_equal(runs[0], run) for run in runs[1:])


def _equal(a: VotRun, b: VotRun) -> bool:
    """Whether two runs are equal, up to the rounding of files: one may be read."""
    rows = list(zip(a.regions, b.regions, strict=True))
    return all(x.shape == y.shape and np.abs(x - y).max() < 1e-3 for x, y in rows)
