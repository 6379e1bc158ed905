"""Runs of several objects through a film, all in one call on the device for a frame."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from siamrpn_jax.api import Tracker, pad_frame
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.deploy.exported import NO_ANSWER
from siamrpn_jax.labelling.runs import Found, Run
from siamrpn_jax.model.boxes import cxcywh_to_ltwh, ltwh_to_cxcywh
from siamrpn_jax.tracking.slots import (
    add_target,
    drop_target,
    empty_slots,
    fill_slot,
    read_slot,
    track_many,
)
from siamrpn_jax.tracking.state import with_frame_size


@dataclasses.dataclass(eq=False)
class Job:
    """A run that has to reach a frame."""

    object_id: int
    run: Run
    last: int
    ends: bool = False
    """Nothing comes after the last frame: what a tracker goes on with, some MiB where
    kernels learn, is not kept. A key frame that is removed has it tracked anew."""

    def __post_init__(self) -> None:
        """Remembers where it begins: others may change the run meanwhile."""
        run, step = self.run, self.run.step
        self.fresh = run.resume is None
        """It starts from the key frame."""
        self.frames = range(
            run.key if self.fresh else run.last + step, self.last + step, step
        )
        """The frames that it needs, the key frame among them if it starts there."""


class Runner:
    """Works on jobs frame by frame.

    Args:
        tracker: gives network, weights and constants.
        jobs: all in one direction.
    """

    def __init__(self, tracker: Tracker, jobs: list[Job]):
        self._tracker = tracker
        self._begin: dict[int, list[Job]] = {}
        for job in jobs:
            self._begin.setdefault(job.frames[0], []).append(job)
        numbers = dict.fromkeys(job.object_id for job in jobs)
        self._place = {number: place for place, number in enumerate(numbers)}
        # Powers of two: each number of slots is compiled for.
        count = 1 << (len(numbers) - 1).bit_length() if numbers else 1
        self._slots = empty_slots(count, model=tracker.model, config=tracker.config)
        self._active: dict[int, Job] = {}
        self._size: tuple[int, ...] = ()
        self._index = -1
        """The frame that was tracked last."""

    def step(self, index: int, frame: np.ndarray, *, lock: Any) -> None:
        """Goes on to a frame: tracks what is active, and starts what begins there.

        Args:
            index: number of the frame.
            frame: RGB uint8 ``[H, W, 3]``.
            lock: held while runs are changed.

        Raises:
            InputError: the network's answer is not finite.
        """
        self._index = index
        padded = pad_frame(frame, self._tracker.pad_to)
        begin = self._begin.get(index, [])
        for job in begin:
            if not job.fresh:
                place = self._place[job.object_id]
                self._slots = fill_slot(self._slots, place, *job.run.resume, 0)
                self._active[job.object_id] = job
        if self._active:
            self._track(index, frame, padded, lock)
        for job in begin:
            if job.fresh:
                self._start(job, frame, padded)

    def keep(self) -> None:
        """Keeps what active runs need to be gone on with later."""
        for number, job in self._active.items():
            self._keep(self._place[number], job)

    def _start(self, job: Job, frame: np.ndarray, padded: np.ndarray) -> None:
        tracker = self._tracker
        self._slots = add_target(
            tracker.weights,
            self._slots,
            self._place[job.object_id],
            jnp.asarray(padded),
            ltwh_to_cxcywh(job.run.box).astype(np.float32),
            model=tracker.model,
            config=tracker.config,
            frame_size=np.array(frame.shape[1::-1], np.float32),
        )
        self._active[job.object_id] = job

    def _track(
        self, index: int, frame: np.ndarray, padded: np.ndarray, lock: Any
    ) -> None:
        size = frame.shape[1::-1]
        if self._size not in ((), size):  # some films change their size on the way
            state = with_frame_size(self._slots.state, size)
            self._slots = self._slots.replace(state=state)
        self._size = size
        tracker = self._tracker
        self._slots, output = track_many(
            tracker.weights,
            self._slots,
            jnp.asarray(padded)[None],
            model=tracker.model,
            config=tracker.config,
        )
        wanted = output.box, output.score, output.confidence, output.lost
        boxes, scores, confidence, lost = jax.device_get(wanted)
        boxes = cxcywh_to_ltwh(boxes.astype(np.float64))
        with lock:
            for number, job in list(self._active.items()):
                place = self._place[number]
                if not np.isfinite([*boxes[place], scores[place]]).all():
                    raise InputError(f"frame {index}, object {number}: {NO_ANSWER}")
                found = Found(
                    boxes[place],
                    float(scores[place]),
                    float(confidence[place]),
                    bool(lost[place]),
                )
                self._add(job, index, found, place)

    def _add(self, job: Job, index: int, found: Found, place: int) -> None:
        """Adds what was found to a run, unless a new key frame has cut it short.

        What a run holds already, of a session's file, stays: the tracker goes through
        it once more to be able to go on.
        """
        run = job.run
        ahead = (index - run.last) * run.step
        if ahead <= 0:
            return
        current = ahead == 1
        if current:
            run.append(found)
        if not current or index == job.last:
            if current:
                run.resume = None if job.ends else read_slot(self._slots, place)
            self._slots = drop_target(self._slots, place)
            del self._active[job.object_id]

    def _keep(self, place: int, job: Job) -> None:
        if job.run.found and job.run.last == self._index:
            job.run.resume = read_slot(self._slots, place)
