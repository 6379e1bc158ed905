"""A session: boxes on any frames of a film, and everything between them.

Example::

    session = siamrpn_jax.Session("film.mp4")
    session.add_box(0, 1, [20, 40, 64, 48], name="car")
    session.add_box(120, 2, [300, 80, 30, 60], name="person")
    for result in session.propagate():
        print(result.index, result.object_ids, result.boxes_ltwh)
    session.add_box(60, 1, [90, 42, 64, 48])  # corrected: only its stretch is tracked
    for result in session.propagate():
        ...
    session.save("film.json")
    session.export("labels", "cvat")

A box is a key frame of its object. Between two key frames an object is tracked from
both, and the two tracks are joined. What was tracked is kept until a box changes it.
Where an object leaves the film, ``mark_gone`` says so; its next box brings it back.
"""

import dataclasses
import itertools
import json
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from siamrpn_jax.api import Results, Tracker, load
from siamrpn_jax.common.errors import InputError, require
from siamrpn_jax.common.files import read_json, replacing
from siamrpn_jax.common.released import DEFAULT_WEIGHTS
from siamrpn_jax.labelling import Format, Progress, formats
from siamrpn_jax.labelling.labels import LabelledObject, Labels, is_class
from siamrpn_jax.labelling.runner import Job, Runner
from siamrpn_jax.labelling.runs import Found, Run, join
from siamrpn_jax.media.frames import Frames, LiveFrames, open_frames, read_ahead
from siamrpn_jax.model.boxes import check_boxes, ltwh_to_corners

FORMAT = "siamrpn_jax session 1"
"""First entry of a session's file."""

_AHEAD = 6  # Frames decoded ahead.


@dataclasses.dataclass(eq=False)
class _Object:
    name: str
    keys: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    forward: dict[int, Run] = dataclasses.field(default_factory=dict)
    backward: dict[int, Run] = dataclasses.field(default_factory=dict)
    gone: set[int] = dataclasses.field(default_factory=set)
    """Frames from which on it is not there, each until the next key frame."""

    def before(self, frame: int) -> int | None:
        """The key frame at or before a frame; None where the object is gone."""
        if self.is_gone(frame):
            return None
        return max((key for key in self.keys if key <= frame), default=None)

    def after(self, frame: int) -> int | None:
        """The key frame at or after a frame; None where it is gone before that."""
        following = min((key for key in self.keys if key >= frame), default=None)
        if following is None or any(frame <= mark < following for mark in self.gone):
            return None
        return following

    def is_gone(self, frame: int) -> bool:
        """Whether it was said to be gone at or before a frame, without a box since."""
        mark = max((mark for mark in self.gone if mark <= frame), default=None)
        return mark is not None and not any(mark < key <= frame for key in self.keys)

    def end(self, key: int, step: int) -> tuple[int | None, bool]:
        """The frame before which a run ends, and whether it meets a key frame there."""
        if step > 0:
            marks = [mark for mark in (*self.keys, *self.gone) if mark > key]
            end = min(marks, default=None)
        else:
            marks = [mark for mark in (*self.keys, *self.gone) if mark < key]
            end = max(marks, default=None)
            if end in self.gone:  # it is not there until its key frame
                return key, False
        return end, end in self.keys

    def mend(self) -> None:
        """Forgets marks that say it is gone where it is gone already."""
        self.gone = {
            mark
            for mark in self.gone
            if mark not in self.keys and not (mark and self.is_gone(mark - 1))
        }

    def runs(self, step: int) -> dict[int, Run]:
        return self.forward if step > 0 else self.backward

    def cut(self, frame: int) -> None:
        """Forgets what was tracked across a frame."""
        for runs in (self.forward, self.backward):
            for run in runs.values():
                run.cut(frame)

    def copy(self) -> "_Object":
        """As it is now: later changes to one do not reach the other."""
        return _Object(
            self.name,
            dict(self.keys),
            *(
                {key: run.copy() for key, run in runs.items()}
                for runs in (self.forward, self.backward)
            ),
            gone=set(self.gone),
        )


class Session:
    """Objects in a film, by boxes on some frames and tracks through all others.

    Methods may be called from several threads, also while ``propagate`` goes on.

    Args:
        source: a film, a folder or pattern of images; or, forwards only, a camera or an
            address such as ``rtsp://…``.
        tracker: what to track with, or what ``load`` takes.
        memory_mib: decoded frames are kept up to this many MiB.

    Raises:
        FileNotFoundError: there is no such film.
        InputError: it cannot be decoded; or unusable weights.
    """

    def __init__(
        self,
        source: str | Path | int,
        *,
        tracker: Tracker | str | Path = DEFAULT_WEIGHTS,
        memory_mib: float = 256,
    ):
        self.frames: Frames | LiveFrames = open_frames(source, memory_mib=memory_mib)
        """The frames by their numbers."""
        self.tracker = tracker if isinstance(tracker, Tracker) else load(tracker)
        """What objects are tracked with."""
        self._objects: dict[int, _Object] = {}
        self._lock = threading.RLock()

    # ---------------------------------------------------------------- what is drawn

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The numbers of all objects, rising."""
        return tuple(sorted(self._objects))

    @property
    def length(self) -> int:
        """Number of frames; of a live source: of those that there were."""
        if isinstance(self.frames, LiveFrames):
            return self.frames.position + 1
        return len(self.frames)

    def keys(self, object_id: int) -> dict[int, np.ndarray]:
        """The boxes that were drawn of an object, ``ltwh [4]`` by frame."""
        with self._lock:
            return dict(sorted(self._get(object_id).keys.items()))

    def gone(self, object_id: int) -> tuple[range, ...]:
        """The frames in which an object is said to be gone, in stretches."""
        with self._lock:
            target = self._get(object_id)
            return tuple(
                range(mark, min((k for k in target.keys if k > mark), default=end))
                for end in (self.length,)
                for mark in sorted(target.gone)
            )

    def name(self, object_id: int) -> str:
        """The class of an object."""
        return self._get(object_id).name

    def add_box(
        self, frame_index: int, object_id: int, box: Any, *, name: str | None = None
    ) -> None:
        """Draws an object's box on a frame, or draws it anew.

        Args:
            frame_index: number of the frame, from 0.
            object_id: number of the object, at least 0; a new one is a new object.
            box: ``ltwh [4]``, pixels.
            name: its class; a new object without one is called ``object``.

        Raises:
            InputError: no such frame or number.
            siamrpn_jax.model.boxes.BoxError: no box, or none in the frame.
        """
        self._check_frame(frame_index)
        if not isinstance(object_id, int) or not 0 <= object_id < 2**31:
            raise InputError(f"object {object_id!r}, expected a number from 0 on")
        if name is not None:
            _check_name(object_id, name)
        drawn = check_boxes(box, self.frames[frame_index])
        if drawn.shape != (4,):
            raise InputError(f"box of shape {drawn.shape}, expected one: x,y,w,h")
        with self._lock:
            target = self._objects.setdefault(object_id, _Object(name or "object"))
            target.name = name or target.name
            target.cut(frame_index)
            target.keys[frame_index] = drawn
            target.mend()
            for step in (1, -1):
                target.runs(step)[frame_index] = Run(frame_index, step, drawn)

    def mark_gone(self, frame_index: int, object_id: int) -> None:
        """Says that an object is not in the film from a frame on, until its next box.

        No track goes there, and exports say that it is not there. A box that was drawn
        on the frame is taken back.

        Raises:
            InputError: no such frame or object; it is gone there already; or its only
                box is on the frame.
        """
        with self._lock:
            target = self._get(object_id)
            self._check_frame(frame_index)
            if target.is_gone(frame_index):
                raise InputError(
                    f"object {object_id} is gone on frame {frame_index} already"
                )
            if set(target.keys) == {frame_index}:
                raise InputError(
                    f"object {object_id} has its only box on frame {frame_index}: draw "
                    "another one before it is gone, or remove the object"
                )
            if frame_index in target.keys:
                self._forget_key(target, frame_index)
            target.gone.add(frame_index)
            target.mend()

    def remove_box(self, frame_index: int, object_id: int) -> None:
        """Takes a key frame, or a mark that it is gone, of an object back.

        An object without any key frame is no longer there.

        Raises:
            InputError: there is neither.
        """
        with self._lock:
            target = self._get(object_id)
            if frame_index in target.gone:
                target.gone.remove(frame_index)
                return
            if frame_index not in target.keys:
                raise InputError(
                    f"object {object_id} has no box on frame {frame_index}"
                )
            self._forget_key(target, frame_index)
            target.mend()
            if not target.keys:
                del self._objects[object_id]

    def rename(self, object_id: int, name: str) -> None:
        """Changes an object's class."""
        _check_name(object_id, name)
        self._get(object_id).name = name

    def remove(self, object_id: int) -> None:
        """Removes an object and all that is known of it."""
        with self._lock:
            self._get(object_id)
            del self._objects[object_id]

    def remember(self, object_id: int) -> Any:
        """All that is known of an object now, for ``put_back``; None: it is not there.

        What is returned does not change with the session.
        """
        with self._lock:
            target = self._objects.get(object_id)
            return target.copy() if target else None

    def put_back(self, object_id: int, remembered: Any) -> None:
        """Makes an object again what it was: its boxes, its class and its tracks.

        What was tracked since then from a box that is the same again stays.

        Args:
            object_id: number of the object.
            remembered: what ``remember`` returned of it.
        """
        with self._lock:
            now = self._objects.pop(object_id, None)
            if remembered is None:
                return
            target = remembered.copy()
            for step in (1, -1):
                since = now.runs(step) if now else {}
                for key, run in target.runs(step).items():
                    if key in since and since[key].continues(run):
                        target.runs(step)[key] = since[key]
            for key in target.keys:
                target.cut(key)
            self._objects[object_id] = target

    # -------------------------------------------------------------- what is tracked

    def propagate(
        self,
        start: int = 0,
        stop: int | None = None,
        *,
        reverse: bool = False,
        object_ids: Collection[int] | None = None,
        new_only: bool = False,
        progress: Progress | None = None,
    ) -> Iterator[Results]:
        """Tracks objects through frames, and yields what is known of each frame.

        Forwards, each object is followed from its first key frame on, backwards from
        its last one back; between two key frames from both. What was tracked before is
        not tracked again. It may be left at any frame: what was tracked stays.

        Args:
            start: first of the frames.
            stop: the one after the last; by default all.
            reverse: backwards, from ``stop - 1`` to ``start``.
            object_ids: the objects; by default all.
            new_only: frames of which all is known already are neither read nor yielded.
            progress: told after each frame that is tracked.

        Yields:
            The results of each frame in which an object is known.

        Raises:
            InputError: no such frames; the film has changed; or the network's answer is
                not finite.
        """
        live = isinstance(self.frames, LiveFrames)
        if live and reverse:
            raise InputError(f"{self.frames.source}: is live, and goes forwards only")
        end = self.length if stop is None else stop
        if not 0 <= start < end <= self.length:
            raise InputError(
                f"frames {start} to {end - 1}, expected some of the {self.length} of "
                f"{self.frames.source}"
            )
        self.frames.check_unchanged()
        if live:
            yield from self._follow_live()
            return
        step = -1 if reverse else 1
        with self._lock:
            toward = self._jobs(start, end, -step, bounded=True)
            jobs = self._jobs(start, end, step, bounded=False)
        if object_ids is not None:
            toward = [job for job in toward if job.object_id in object_ids]
            jobs = [job for job in jobs if job.object_id in object_ids]
        done, total = 0, _count([*toward, *jobs])

        def tick() -> None:
            nonlocal done
            done += 1
            if progress:
                progress(min(done, total), total)

        for _ in self._track(toward, _frames_of(toward, -step)):
            tick()
        wanted = set(_frames_of(jobs, step))
        shown = () if new_only else range(start, end)[::step]
        order = sorted(wanted.union(shown), reverse=reverse)
        for index, frame, seconds in self._track(jobs, order):
            if index in wanted:
                tick()
            if start <= index < end and (result := self._result(index, frame, seconds)):
                yield result

    def result(self, frame_index: int) -> Results | None:
        """What is known of a frame; None: nothing."""
        self._check_frame(frame_index)
        return self._result(frame_index, self.frames[frame_index], 0.0)

    def reach(self, object_id: int) -> dict[tuple[int, int], int]:
        """How far an object was tracked: the last frame by key frame and direction.

        The direction is 1 forwards and -1 backwards; where nothing was tracked the last
        frame is the key frame itself.
        """
        with self._lock:
            target = self._get(object_id)
            return {
                (key, step): run.last
                for step in (1, -1)
                for key, run in target.runs(step).items()
            }

    def stretch(self, object_id: int, start: int, stop: int) -> LabelledObject:
        """What is known of an object in frames ``start`` to ``stop - 1``.

        The arrays have a row for each of these frames; no frame is read.
        """
        with self._lock:
            return self._labelled(object_id, range(start, stop))

    def labels(self) -> Labels:
        """All that is known, as a table."""
        return self._labels(range(self.length))

    def to_supervision(self, frame_index: int) -> Any:
        """What is known of a frame, as ``supervision.Detections``.

        Lost objects are left out; ``class_name`` and the numbers are in it.

        Raises:
            InputError: no such frame.
            MissingExtraError: supervision is not installed.
        """
        supervision = require("supervision", extra="supervision")
        if not 0 <= frame_index < self.length:
            raise InputError(
                f"frame {frame_index} of {self.frames.source}, expected 0 to "
                f"{self.length - 1}"
            )
        labels = self._labels(range(frame_index, frame_index + 1))
        shown = [one for one in labels.objects if one.known[0]]
        boxes = np.array([one.boxes[0] for one in shown]).reshape(-1, 4)
        confidence = [one.confidence[0] for one in shown]
        return supervision.Detections(
            xyxy=ltwh_to_corners(boxes).astype(np.float32),
            confidence=np.nan_to_num(np.array(confidence, np.float32), nan=1.0),
            class_id=np.array([labels.classes.index(o.name) for o in shown], int),
            tracker_id=np.array([one.number for one in shown], int),
            data={"class_name": np.array([one.name for one in shown], str)},
        )

    def export(self, folder: str | Path, format: Format, **options: Any) -> list[Path]:
        """Writes what is known for another tool; see ``formats.write_labels``.

        Raises:
            InputError: the film has changed since it was opened.
        """
        self.frames.check_unchanged()
        return formats.write_labels(
            self.labels(), Path(folder), format, frames=self.frames, **options
        )

    # ------------------------------------------------------------------- on the disk

    def save(self, path: str | Path) -> None:
        """Writes the session to a JSON file, whole or not at all.

        Raises:
            OSError: naming the file that cannot be written.
        """
        with self._lock:
            objects = {number: self._objects[number].copy() for number in self._objects}
        content = {
            "format": FORMAT,
            "film": {
                "source": self.frames.source,
                "fingerprint": self.frames.fingerprint,
                "length": self.length,
            },
            "objects": [_as_json(*entry) for entry in sorted(objects.items())],
        }
        text = json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n"
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    @classmethod
    def load(
        cls, path: str | Path, source: str | Path | None = None, **options: Any
    ) -> "Session":
        """Opens a session that was saved.

        Args:
            path: the JSON file.
            source: the film, where it is no longer at its place.
            **options: of ``Session``.

        Raises:
            InputError: not such a file; or the film is another one.
            FileNotFoundError: the film is not there.
        """
        content = read_json(path)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise InputError(f"{path}: is no session, expected format {FORMAT!r}")
        try:
            film = content["film"]
            where, mark = str(source or film["source"]), str(film["fingerprint"])
            objects = list(content["objects"])
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}: malformed session ({error!r})") from error
        session = cls(where, **options)
        if session.frames.fingerprint != mark or not mark:
            raise InputError(
                f"{path}: is a session of another film than {where}: expected one of "
                f"{film.get('length')} frames and fingerprint {mark!r}, found "
                f"{session.length} and {session.frames.fingerprint!r}"
            )
        for entry in objects:
            session._restore(path, entry)
        return session

    # ---------------------------------------------------------------------- helpers

    def _get(self, object_id: int) -> _Object:
        if object_id not in self._objects:
            known = ", ".join(map(str, self.object_ids)) or "none"
            raise InputError(f"object {object_id!r}, expected one of {known}")
        return self._objects[object_id]

    @staticmethod
    def _forget_key(target: _Object, frame: int) -> None:
        del target.keys[frame], target.forward[frame], target.backward[frame]

    def _check_frame(self, index: int) -> None:
        if isinstance(self.frames, LiveFrames):
            if index != self.frames.position:
                raise InputError(
                    f"frame {index} of {self.frames.source}, expected the present one, "
                    f"{self.frames.position}"
                )
        elif not isinstance(index, int) or not 0 <= index < len(self.frames):
            raise InputError(
                f"frame {index} of {self.frames.source}, expected 0 to "
                f"{len(self.frames) - 1}"
            )

    def _jobs(self, start: int, stop: int, step: int, *, bounded: bool) -> list[Job]:
        """The runs in one direction that frames need, and do not have yet.

        Args:
            start: first of the frames.
            stop: the one after the last.
            step: the direction.
            bounded: only runs that end at another key frame.
        """
        jobs = []
        edge = stop if step > 0 else start - 1
        for number, target in self._objects.items():
            for key, run in target.runs(step).items():
                end, meets = target.end(key, step)
                if bounded and not meets:
                    continue
                limit = edge if end is None else end
                last = (min(limit, edge) if step > 0 else max(limit, edge)) - step
                reaches = last >= start if step > 0 else last < stop
                if reaches and (last - run.last) * step > 0:
                    ends = last + step in (end, -1, self.length)
                    jobs.append(Job(number, run, last, ends=ends))
        return jobs

    def _track(
        self, jobs: list[Job], order: Iterable[int]
    ) -> Iterator[tuple[int, np.ndarray, float]]:
        """Works on jobs, frame by frame: number, frame and seconds of each."""
        runner = Runner(self.tracker, jobs)
        numbers, read = itertools.tee(order)
        frames = read_ahead(self.frames.__getitem__, read, depth=_AHEAD)
        try:
            for index, frame in zip(numbers, frames, strict=False):
                begun = time.perf_counter()
                runner.step(index, frame, lock=self._lock)
                yield index, frame, time.perf_counter() - begun
        finally:
            frames.close()  # type: ignore[attr-defined]
            runner.keep()

    def _follow_live(self) -> Iterator[Results]:
        """Follows all objects through the frames of a live source, as they come."""
        frames = self.frames
        assert isinstance(frames, LiveFrames)
        with self._lock:
            jobs = [
                Job(number, target.forward[max(target.keys)], 2**31)
                for number, target in self._objects.items()
                if not target.is_gone(frames.position)
            ]
        runner = Runner(self.tracker, jobs)
        try:
            for index in itertools.count(frames.position):
                try:
                    frame = frames[index]
                except IndexError:
                    return
                begun = time.perf_counter()
                runner.step(index, frame, lock=self._lock)
                seconds = time.perf_counter() - begun
                if result := self._result(index, frame, seconds):
                    yield result
        finally:
            runner.keep()

    def _found(self, target: _Object, frame: int) -> Found | None:
        if frame in target.keys:
            return Found(target.keys[frame], np.nan, np.nan, False)
        if target.is_gone(frame):
            return None
        first, second = target.before(frame), target.after(frame)
        forward = None if first is None else target.forward[first].at(frame)
        backward = None if second is None else target.backward[second].at(frame)
        if forward and backward and first is not None and second is not None:
            share = (frame - first) / (second - first)
            return join(forward, backward, share=share)
        known = forward or backward
        return known[0] if known else None

    def _result(self, index: int, frame: np.ndarray, seconds: float) -> Results | None:
        with self._lock:
            found = {
                number: one
                for number in self.object_ids
                if (one := self._found(self._objects[number], index))
            }
        if not found:
            return None
        return Results(
            index=index,
            frame=frame,
            boxes_ltwh=np.stack([one.box for one in found.values()]),
            scores=np.array([one.score for one in found.values()]),
            confidence=np.array([one.confidence for one in found.values()]),
            lost=np.array([one.lost for one in found.values()]),
            object_ids=tuple(found),
            speed_ms=1000 * seconds,
        )

    def _labels(self, frames: range) -> Labels:
        with self._lock:
            return Labels(
                name=self.frames.name,
                source=self.frames.source,
                size=self.frames.size,
                fps=self.frames.fps,
                length=len(frames),
                objects=tuple(
                    self._labelled(number, frames) for number in self.object_ids
                ),
            )

    def _labelled(self, number: int, frames: range) -> LabelledObject:
        target, count = self._get(number), len(frames)
        boxes = np.full((count, 4), np.nan)
        confidence, lost = np.full(count, np.nan), np.zeros(count, bool)
        for row, frame in enumerate(frames):
            if found := self._found(target, frame):
                boxes[row], confidence[row] = found.box, found.confidence
                lost[row] = found.lost
        keys = np.isin(np.array(frames), list(target.keys))
        return LabelledObject(number, target.name, boxes, confidence, lost, keys)

    def _restore(self, path: str | Path, entry: Any) -> None:
        """Adds an object of a session's file."""
        try:
            number, name = entry["id"], str(entry["name"])
            boxes = {int(row[0]): row[1:] for row in entry["boxes"]}
            if number in self._objects:
                raise InputError(f"two objects have the number {number}")
            if not boxes:
                raise InputError(f"object {number} has no box")
            for key, box in boxes.items():
                self.add_box(key, number, box, name=name)
            for mark in entry.get("gone", ()):
                self.mark_gone(mark, number)
            target = self._objects[number]
            for step, runs in ((1, entry["forward"]), (-1, entry["backward"])):
                for stored in runs:
                    run = target.runs(step)[stored["key"]]
                    for row in stored["found"]:
                        run.append(_found_of(row))
                    if not 0 <= run.last < self.length:
                        raise InputError(f"object {number}: tracked to {run.last}")
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: malformed object ({error!r})") from error


def _check_name(object_id: int, name: str) -> None:
    if not is_class(name):
        raise InputError(
            f"object {object_id}: name {name!r}, expected a word that can be printed"
        )


def _as_json(number: int, target: _Object) -> dict[str, Any]:
    """As a session's file has it."""

    def runs(step: int) -> list[dict[str, Any]]:
        return [
            {"key": run.key, "found": [_row(one) for one in run.found]}
            for run in target.runs(step).values()
            if run.found
        ]

    return {
        "id": number,
        "name": target.name,
        "boxes": [[key, *map(float, box)] for key, box in target.keys.items()],
        "gone": sorted(target.gone),
        "forward": runs(1),
        "backward": runs(-1),
    }


def _row(found: Found) -> list[float]:
    """As a session's file has it; thousandths of a pixel."""
    box = [round(float(side), 3) for side in found.box]
    return [*box, round(found.score, 4), round(found.confidence, 4), int(found.lost)]


def _found_of(row: Any) -> Found:
    x, y, w, h, score, confidence, lost = map(float, row)
    if not np.isfinite([x, y, w, h, score, confidence]).all() or min(w, h) <= 0:
        raise InputError(f"{row} is no box with score and confidence")
    return Found(np.array([x, y, w, h]), score, confidence, bool(lost))


def _frames_of(jobs: list[Job], step: int) -> list[int]:
    """The frames that jobs need, each once, in the order of a direction."""
    return sorted({frame for job in jobs for frame in job.frames}, reverse=step < 0)


def _count(jobs: list[Job]) -> int:
    """Frames that are read for jobs, direction by direction."""
    return sum(
        len({frame for job in jobs if job.run.step == step for frame in job.frames})
        for step in (1, -1)
    )
