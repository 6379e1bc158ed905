"""What takes time, tracking and exporting, one at a time and in threads of its own."""

import collections
import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator

from siamrpn_jax.api import Results
from siamrpn_jax.app.fields import Conflict
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.labelling import Progress
from siamrpn_jax.labelling.session import Session

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Pass:
    """A stretch that is to be tracked in one direction, see ``Session.propagate``."""

    start: int
    stop: int
    reverse: bool = False
    object_ids: Collection[int] | None = None


@dataclasses.dataclass
class Job:
    """What is going on."""

    label: str
    """Name of the job in a word, as ``Tracking``."""
    done: int = 0
    """Frames that are done."""
    total: int = 0
    """Number of frames in all; 0: not known yet."""
    frame: int | None = None
    """The last frame of which there are results."""


class Worker:
    """Tracks in a thread of its own, and sees to it that one job goes on at a time.

    Args:
        session: what is tracked.
        report: called after each frame, with its results where they are final, and
            whenever a job begins or ends.
        fail: told what went wrong, a sentence.
    """

    def __init__(
        self,
        session: Session,
        *,
        report: Callable[[Results | None], None],
        fail: Callable[[str], None],
    ):
        self._session, self._report, self._fail = session, report, fail
        self._waiting: collections.deque[Pass] = collections.deque()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._now: Pass | None = None
        self.job: Job | None = None
        """What is going on; None: nothing."""

    def begin(self, one: Pass) -> None:
        """Starts to track.

        Raises:
            Conflict: something is going on.
        """
        with self._lock:
            self._check_idle()
            self._waiting.append(one)
            self._start()

    def follow_up(self, passes: Iterable[Pass], *, object_id: int) -> None:
        """Tracks these, too, after what is going on.

        That is gone through once more for an object of which a box has changed: what is
        being tracked knows nothing of new key frames.
        """
        with self._lock:
            self._waiting.extend(passes)
            now = self._now
            if now and (now.object_ids is None or object_id in now.object_ids):
                again = dataclasses.replace(now, object_ids=(object_id,))
                self._waiting.append(again)
            if self._waiting and not self.job:
                self._start()

    @contextlib.contextmanager
    def busy(self, label: str) -> Iterator[Progress]:
        """Keeps tracking from beginning in the body.

        Yields:
            what has to be told how far the body is.

        Raises:
            Conflict: something is going on; or the body was stopped.
        """
        with self._lock:
            self._check_idle()
            self._stopping.clear()
            job = self.job = Job(label)
        self._report(None)
        try:
            yield self._reporter(job)
        except _Stopped:
            raise Conflict(f"{label} was stopped") from None
        finally:
            with self._lock:
                self.job = None
                if self._waiting:
                    self._start()
            self._report(None)

    def stop(self) -> None:
        """Stops what goes on soon; what was found stays."""
        with self._lock:
            self._waiting.clear()
            self._stopping.set()

    def close(self) -> None:
        """Stops, and waits for it."""
        self.stop()
        if self._thread:
            self._thread.join()

    def _check_idle(self) -> None:
        if self.job:
            raise Conflict(f"{self.job.label} is going on: wait for it, or stop it")

    def _start(self) -> None:
        self._stopping.clear()
        self.job = Job("Tracking")
        self._thread = threading.Thread(target=self._work, name="track", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while one := self._next():
            try:
                self._track(one)
            except _Stopped:
                continue
            except (InputError, OSError) as error:
                self.stop()
                self._fail(str(error))
            except Exception as error:  # a fault of the program: the page has to go on
                log.exception("tracking failed")
                self.stop()
                self._fail(f"tracking failed, see the terminal: {error!r}")
        self._report(None)

    def _next(self) -> Pass | None:
        with self._lock:
            if self._waiting:
                self._stopping.clear()
                self.job = Job("Tracking")
                self._now = self._waiting.popleft()
            else:
                self.job = self._now = None
            return self._now

    def _reporter(self, job: Job) -> Progress:
        """What tells how far a job is, and ends it once it is to stop."""

        def progress(done: int, total: int) -> None:
            job.done, job.total = done, total
            if self._stopping.is_set():
                raise _Stopped
            self._report(None)

        return progress

    def _track(self, one: Pass) -> None:
        job = self.job
        assert job
        self._report(None)
        for result in self._session.propagate(
            one.start,
            one.stop,
            reverse=one.reverse,
            object_ids=one.object_ids,
            new_only=True,
            progress=self._reporter(job),
        ):
            job.frame = result.index
            self._report(result)


class _Stopped(Exception):
    """Ends what goes on from within."""
