"""A film that is open: what browsers may do with it, and what they are told."""

import collections
import contextlib
import dataclasses
import json
import logging
import shlex
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import filelock

from siamrpn_jax.api import Results, Tracker
from siamrpn_jax.app.fields import Conflict, Fields
from siamrpn_jax.app.films import Film, first_free
from siamrpn_jax.app.pictures import Pictures
from siamrpn_jax.app.saving import Saver
from siamrpn_jax.app.timeline import Change, Timeline
from siamrpn_jax.app.work import Pass, Worker
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.labelling.formats import Format
from siamrpn_jax.labelling.session import Session
from siamrpn_jax.media.frames import Frames

log = logging.getLogger(__name__)

FORMATS: tuple[str, ...] = get_args(Format)
"""Names of the formats of exports."""

_TRAINED = "mot"  # The format that is prepared for training: it holds the frames, too.
_UNDONE = 100  # Steps that can be undone.
_EVERY = 0.15  # Seconds between two messages about progress.
_VIEW_MIB = 128

_Steps = collections.deque[tuple[str, int, int | None, Any]]
"""What was done, the number of the object, the frame if there is one, and what the
object was like before."""

Send = Callable[[str | None], None]
"""Sends a message, JSON, to one browser from any thread; None: the film is closed."""


class OpenFilm:
    """A film with its session, for any number of browsers at the same time.

    All methods may be called from any thread. Those that take ``Fields`` are what a
    browser asks for; they return what it is answered, with the ``revision`` that its
    change has led to.

    Args:
        film: which one.
        tracker: what objects are tracked with.
        fresh: begin a new session if those on the disk are of another film.

    Raises:
        Conflict: the session on the disk is no such file or of another film, or the
            film is open in another process.
        InputError: the film cannot be decoded.
        FileNotFoundError: it is no longer there.
    """

    def __init__(self, film: Film, tracker: Tracker, *, fresh: bool = False):
        self.film = film
        self.session, self._path = _open_session(film, tracker, fresh=fresh)
        self.pictures = Pictures(Frames(film.path, memory_mib=_VIEW_MIB))
        self._lock = threading.RLock()
        self._ready = contextlib.ExitStack()
        self._ready.enter_context(_alone(self._path))
        if self._path.exists():  # another app may have saved until it let go of it
            self.session = Session.load(self._path, film.path, tracker=tracker)
        self._timeline = Timeline(self.session)
        self._timeline.refresh()
        self._browsers: list[Send] = []
        self._revision, self._reported = 0, 0.0
        self._born: dict[int, int] = dict.fromkeys(self.session.object_ids, 0)
        self._removed: set[int] = set()
        self._steps: _Steps = collections.deque(maxlen=_UNDONE)
        self._undone: _Steps = collections.deque(maxlen=_UNDONE)
        self._worker = Worker(self.session, report=self._progress, fail=self._notify)
        self._saver = Saver(lambda: self.session.save(self._path), self._saved)

    # -------------------------------------------------------------------- browsers

    @property
    def in_use(self) -> bool:
        """Whether a browser looks at it, or something is going on or not saved."""
        return bool(self._browsers or self._worker.job or self._saver.pending)

    @property
    def problem(self) -> str:
        """Why what has changed cannot be saved; empty: it can."""
        return self._saver.problem

    def connect(self, send: Send) -> None:
        """Tells a browser all there is, and from now on all that changes."""
        with self._lock:
            frames = self.session.frames
            about = {
                "name": self.film.name,
                "size": frames.size,
                "fps": frames.fps,
                "length": self.session.length,
                "fingerprint": frames.fingerprint,
                "session": self._path.name,
                "formats": FORMATS,
            }
            send(self._message(self._timeline.whole(), film=about))
            self._browsers.append(send)

    def disconnect(self, send: Send) -> None:
        """Forgets a browser."""
        with self._lock, contextlib.suppress(ValueError):
            self._browsers.remove(send)

    def close(self) -> None:
        """Stops what is going on, and saves.

        Where that cannot be, all is saved in a temporary folder, and an error logged.
        """
        self._worker.close()
        self._saver.close()
        if self.problem:
            self._rescue()
        with self._lock:
            for send in self._browsers:
                send(None)
            self._browsers.clear()
        self._ready.close()

    # --------------------------------------------------------------------- objects

    def draw(self, fields: Fields) -> dict[str, Any]:
        """Draws a box, of a new object where none is named.

        Where the object was tracked there, the stretch that hangs on the box is tracked
        again.
        """
        frame = fields.whole("frame", high=self.session.length - 1)
        box = fields.box("box")
        name = fields.word("name") if "name" in fields else None
        with self._lock:
            known = "object" in fields
            number = self._object(fields) if known else self._free_number()
            around = self._timeline.around(number, frame) if known else (frame, frame)
            with self._undoable(f"box of object {number}", number, frame):
                self.session.add_box(frame, number, box, name=name)
            self._track_again(number, frame, around)
            self._changed(drawn=(number, frame))
            return self._answer(object=number)

    def gone(self, fields: Fields) -> dict[str, Any]:
        """Says that an object is not there from a frame on, until its next box."""
        frame = fields.whole("frame", high=self.session.length - 1)
        with self._lock:
            number = self._object(fields)
            with self._undoable(f"end of object {number}", number, frame):
                self.session.mark_gone(frame, number)
            self._changed(anew=number)
            return self._answer()

    def erase(self, fields: Fields) -> dict[str, Any]:
        """Removes a key frame or an end; what was tracked around is tracked again."""
        frame = fields.whole("frame", high=self.session.length - 1)
        with self._lock:
            number = self._object(fields)
            around = self._timeline.around(number, frame)
            with self._undoable(f"mark of object {number}", number, frame):
                self.session.remove_box(frame, number)
            if number in self.session.object_ids:
                self._track_again(number, frame, around)
            self._changed(anew=number)
            return self._answer()

    def rename(self, fields: Fields) -> dict[str, Any]:
        """Changes the class of an object."""
        name = fields.word("name")
        with self._lock:
            number = self._object(fields)
            with self._undoable(f"class of object {number}", number):
                self.session.rename(number, name)
            self._changed()
            return self._answer()

    def remove(self, fields: Fields) -> dict[str, Any]:
        """Removes an object."""
        with self._lock:
            number = self._object(fields)
            with self._undoable(f"removal of object {number}", number):
                self.session.remove(number)
            self._changed()
            return self._answer()

    def undo(self, fields: Fields) -> dict[str, Any]:
        """Takes the last step back, whoever made it."""
        del fields
        return self._go(self._steps, self._undone, "undo")

    def redo(self, fields: Fields) -> dict[str, Any]:
        """Makes the step again that was taken back last, if nothing was done since."""
        del fields
        return self._go(self._undone, self._steps, "redo")

    # ------------------------------------------------------------------------ work

    def track(self, fields: Fields) -> dict[str, Any]:
        """Tracks from a frame on, back from it, or between the key frames around it."""
        way = fields.choice("way", ("forward", "backward", "between"))
        frame = fields.whole("frame", high=self.session.length - 1)
        with self._lock:
            number = self._object(fields) if "object" in fields else None
            if not self.session.object_ids:
                raise InputError("there is no object yet: draw a box around one")
            start, stop = self._range(way, frame, number)
            only = None if number is None else (number,)
            reverse = way == "backward"
            self._worker.begin(Pass(start, stop, reverse=reverse, object_ids=only))
            self._broadcast([])
            return self._answer()

    def stop(self, fields: Fields) -> dict[str, Any]:
        """Stops tracking, what was found stays; or an export, of which nothing does."""
        del fields
        self._worker.stop()
        return self._answer()

    def export(self, fields: Fields) -> dict[str, Any]:
        """Writes all labels for another tool, into a folder that is new.

        The answer has ``commands`` where the format can be trained on.

        Raises:
            Conflict: the folder is there, and the request is not ``fresh``; or it was
                stopped, and nothing is left of it.
            OSError: it cannot be written.
        """
        format = fields.choice("format", FORMATS)
        folder = next(self.film.export_folders(format))
        free = first_free(self.film.export_folders(format))
        if folder != free and not fields.flag("fresh"):
            raise Conflict(
                f"{folder} is there already, and is not written over", offer=free.name
            )
        with self._worker.busy("Exporting") as progress:
            try:
                files = self.session.export(
                    free,
                    format,  # type: ignore[arg-type]
                    progress=progress,
                )
            except BaseException:
                shutil.rmtree(free, ignore_errors=True)
                raise
        more = {"commands": _commands(free)} if format == _TRAINED else {}
        return self._answer(folder=str(free), files=len(files), **more)

    # --------------------------------------------------------------------- helpers

    def _rescue(self) -> None:
        """Saves what cannot be saved at its place, in a temporary folder."""
        try:
            path = Path(tempfile.mkdtemp(prefix="siamrpn-"), self._path.name)
            self.session.save(path)
        except Exception as error:  # whatever it is, the film has to close
            log.error("%s: is not saved (%s; %s)", self._path, self.problem, error)
        else:
            log.error(
                "%s: cannot be saved (%s): it is in %s instead, move it from there",
                *(self._path, self.problem, path),
            )

    def _answer(self, **more: Any) -> dict[str, Any]:
        return {"revision": self._revision, **more}

    def _object(self, fields: Fields) -> int:
        """The object that a request is about, if it is the one that the browser saw."""
        number, seen = fields.whole("object"), fields.whole("revision")
        if number in self.session.object_ids:
            if seen < self._born[number]:
                raise Conflict(
                    f"object {number} was changed into another one meanwhile"
                )
            return number
        if number in self._removed:
            raise Conflict(f"object {number} is no longer there: it was removed")
        known = ", ".join(map(str, self.session.object_ids)) or "none"
        raise InputError(f"object {number}, expected one of {known}")

    def _free_number(self) -> int:
        number = 1
        while number in self.session.object_ids:
            number += 1
        return number

    @contextlib.contextmanager
    def _undoable(
        self, label: str, number: int, frame: int | None = None
    ) -> Iterator[None]:
        """What the body changes of an object can be undone, unless it fails."""
        before = self.session.remember(number)
        yield
        self._steps.append((label, number, frame, before))
        self._undone.clear()

    def _go(self, steps: _Steps, back: _Steps, way: str) -> dict[str, Any]:
        """Puts the last of some steps back, and remembers the way back.

        What was not tracked yet when the step was made is tracked now.
        """
        with self._lock:
            if not steps:
                raise Conflict(f"there is nothing to {way}")
            label, number, frame, remembered = steps.pop()
            back.append((label, number, frame, self.session.remember(number)))
            there = number in self.session.object_ids
            self.session.put_back(number, remembered)
            if there and frame is not None and remembered is not None:
                around = self._timeline.around(number, frame)
                self._track_again(number, frame, around)
            self._changed(anew=number)
            return self._answer(object=number, step=label)

    def _range(self, way: str, frame: int, number: int | None) -> tuple[int, int]:
        if way == "forward":
            return frame, self.session.length
        if way == "backward":
            return 0, frame + 1
        numbers = self.session.object_ids if number is None else (number,)
        keys = [key for one in numbers for key in self.session.keys(one)]
        first = max((key for key in keys if key <= frame), default=None)
        last = min((key for key in keys if key > frame), default=None)
        if first is None or last is None:
            side = "before" if first is None else "after"
            raise InputError(
                f"there is no key frame {side} frame {frame}: draw a box there, or "
                "track in one direction"
            )
        return first, last + 1

    def _track_again(self, number: int, frame: int, around: tuple[int, int]) -> None:
        """Tracks a stretch in which a box has changed."""
        first, last = around
        stretch = Pass(first, last + 1, object_ids=(number,))
        passes = [stretch] if first < last else []
        if passes and min(self.session.keys(number)) >= frame:
            # Nothing comes from before.
            passes.append(dataclasses.replace(stretch, reverse=True))
        self._worker.follow_up(passes, object_id=number)

    def _changed(
        self, *, drawn: tuple[int, int] | None = None, anew: int | None = None
    ) -> None:
        """Saves and tells what a browser has changed."""
        now, before = set(self.session.object_ids), set(self._born)
        for number in now - before:
            self._born[number] = self._revision + 1
        for number in before - now:
            del self._born[number]
        self._removed = (self._removed | (before - now)) - now
        self._saver.touch()
        self._broadcast(self._timeline.refresh(drawn=drawn, anew=anew))

    def _progress(self, result: Results | None) -> None:
        """Tells how far tracking is, some times a second, and that a job has ended."""
        now, job = time.monotonic(), self._worker.job
        if job and 0 < job.done < job.total and now - self._reported < _EVERY:
            return
        self._reported = now
        if result is not None and self._browsers:
            self.pictures.put(result.index, result.frame)
        with self._lock:
            changes = self._timeline.refresh()
            if changes:
                self._saver.touch()
            self._broadcast(changes)

    def _notify(self, text: str) -> None:
        with self._lock:
            self._broadcast(self._timeline.refresh(), notice=text)

    def _saved(self, problem: str) -> None:
        del problem
        with self._lock:
            self._broadcast([])

    def _broadcast(self, changes: Iterable[Change], **more: Any) -> None:
        self._revision += 1
        if self._browsers:
            text = self._message(changes, **more)
            for send in self._browsers:
                send(text)

    def _message(self, changes: Iterable[Change], **more: Any) -> str:
        job = self._worker.job
        content = {
            "revision": self._revision,
            "objects": [
                {"id": number, "name": self.session.name(number)}
                for number in self.session.object_ids
            ],
            "changes": [change.as_json() for change in changes],
            "job": job and vars(job),
            "undo": self._steps[-1][0] if self._steps else None,
            "redo": self._undone[-1][0] if self._undone else None,
            "saved": not self._saver.pending,
            "problem": self._saver.problem,
            **more,
        }
        return json.dumps(content, allow_nan=False)


class Desk:
    """The films that are offered, and those of them that are open.

    Args:
        films: all that browsers may open, by their place.
        tracker: what objects are tracked with.
    """

    def __init__(self, films: tuple[Film, ...], tracker: Tracker):
        self.films = films
        """All that may be opened."""
        self._tracker = tracker
        self._open: dict[int, OpenFilm] = {}
        self._lock = threading.Lock()

    def open(self, index: int, *, fresh: bool = False) -> None:
        """Opens a film, and closes those that nobody looks at.

        A film that has changed on the disk is opened anew, and none is closed whose
        changes cannot be saved.

        Raises:
            Conflict: see ``OpenFilm``.
            InputError: the film cannot be decoded.
            FileNotFoundError: it is no longer there.
        """
        with self._lock:
            for other, opened in list(self._open.items()):
                if opened.problem:
                    continue
                if (other != index and not opened.in_use) or _is_stale(opened):
                    self._open.pop(other).close()
            if index not in self._open:
                film = self.films[index]
                self._open[index] = OpenFilm(film, self._tracker, fresh=fresh)

    def get(self, index: int) -> OpenFilm | None:
        """A film that is open."""
        return self._open.get(index)

    def close(self) -> None:
        """Closes all films; everything is saved."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()


def _is_stale(opened: OpenFilm) -> bool:
    try:
        opened.session.frames.check_unchanged()
    except InputError:
        return True
    return False


def _open_session(film: Film, tracker: Tracker, *, fresh: bool) -> tuple[Session, Path]:
    """The film's session from the disk, or a new one, and the file that it has."""
    problem = None
    for path in film.session_files():
        if not path.exists():
            if problem and not fresh:
                raise Conflict(f"{problem}", offer=path.name)
            return Session(film.path, tracker=tracker), path
        try:
            return Session.load(path, film.path, tracker=tracker), path
        except FileNotFoundError:
            raise
        except InputError as error:
            problem = problem or error
    raise InputError(f"{film.path}: has no session, and all names of one are taken")


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keeps other processes from a session, where its folder can be written to.

    Raises:
        Conflict: another process has it open.
    """
    name = path.with_name(f".{path.name}.lock")
    # Films are opened and closed by whichever thread answers a browser.
    lock = filelock.FileLock(name, timeout=0, thread_local=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise Conflict(
            f"{path}: is open in another siamrpn app: close that one first"
        ) from None
    except OSError:  # nothing can be saved there, which the page says
        yield
        return
    try:
        yield
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            name.unlink()


def _commands(folder: Path) -> list[str]:
    """What prepares an export for training, and what trains on it."""
    prepared = folder.with_name(f"{folder.name}-prepared")
    raw, out = shlex.quote(str(folder)), shlex.quote(str(prepared))
    return [
        f"python -m data_prep.folder --raw {raw} --out {out} --search-crop 672",
        f"siamrpn train small --init small --data {out} "
        "--optimizer.learning-rate 1e-4 --out runs/mine",
    ]
