"""Saving a session soon after each change, in a thread of its own."""

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

_PAUSE = 0.4  # Seconds between a change and saving it: several are saved at once.
_RETRY = 3.0  # Seconds after which what failed is tried again.


class Saver:
    """Saves what has changed, and goes on trying where that fails.

    Args:
        save: writes all; raises OSError where it cannot. Any other exception is a fault
            of the program, and is logged, too.
        report: told of the problem after each failure, and ``""`` once all is saved.
    """

    def __init__(self, save: Callable[[], None], report: Callable[[str], None]):
        self._save, self._report = save, report
        self._changed, self._closing = threading.Event(), threading.Event()
        self._saving = False
        self.problem = ""
        """Why the last attempt failed; empty: it did not."""
        self._thread = threading.Thread(target=self._work, name="saver", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> bool:
        """Whether there are changes that are not saved."""
        return self._saving or self._changed.is_set()

    def touch(self) -> None:
        """Says that something has changed."""
        self._changed.set()

    def close(self) -> None:
        """Saves what is not saved yet, and ends."""
        self._closing.set()
        waiting = self._changed.is_set()
        self._changed.set()  # wakes the thread
        self._thread.join()
        if waiting or self.problem:
            self._try()

    def _work(self) -> None:
        pause = _PAUSE
        while True:
            self._changed.wait()
            if self._closing.wait(pause):
                return
            begun = time.monotonic()
            saved = self._try()
            # A long film takes a while to write: not more than a third of the time.
            pause = max(_PAUSE, 2 * (time.monotonic() - begun)) if saved else _RETRY

    def _try(self) -> bool:
        self._saving = True
        self._changed.clear()
        try:
            self._save()
        except OSError as error:
            problem = str(error)
        except Exception as error:  # a fault of the program: the next save may succeed
            problem = f"saving failed, see the terminal: {error!r}"
            if problem != self.problem:  # it is tried again and again: told once
                log.exception("saving failed")
        else:
            problem = ""
        if problem:
            self._changed.set()
        self.problem = problem
        self._saving = False
        self._report(self.problem)
        return not self.problem
