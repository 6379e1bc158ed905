"""Damages files and reads them: what comes back must make sense, or be refused."""

import collections
import contextlib
import io
import logging
import os
import random
import signal
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

from fuzz.mutations import mutate
from fuzz.readers import Reader
from siamrpn_jax.common.errors import InputError

SECONDS = 10
"""What takes longer counts as hanging."""

REFUSALS = (InputError, OSError)
"""How files are refused: the commands print these in one line."""


class Hanging(BaseException):
    """A reader took too long."""


class Findings:
    """What came of a reader's tries."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        """How many were ``read``, ``refused``, ``crash``, ``silent`` or ``hang``."""
        self.examples: dict[str, tuple[int, str]] = {}
        """Of each kind of fault: the first seed, and what happened."""

    def add(self, outcome: str, seed: int, what: str = "") -> None:
        """Counts a try."""
        self.counts[outcome] += 1
        if what:
            self.examples.setdefault(f"{outcome}: {what}", (seed, what))

    @property
    def faults(self) -> int:
        """Tries that were neither read nor refused."""
        return sum(self.counts[kind] for kind in ("crash", "silent", "hang"))


def run(reader: Reader, *, tries: int, first: int = 0) -> Findings:
    """Tries a reader on damaged copies of its file.

    Args:
        reader: what to try.
        tries: how often.
        first: seed of the first try; a seed makes the same damage again.
    """
    findings = Findings()
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = reader.make(Path(folder).resolve())
        sound = path.read_bytes()
        reader.read(path)
        for seed in range(first, first + tries):
            path.write_bytes(mutate(sound, random.Random(seed)))
            findings.add(*_try(reader, path, seed))
    return findings


def _try(reader: Reader, path: Path, seed: int) -> tuple[str, int, str]:
    try:
        with _limited():
            found = reader.read(path)
            sensible = reader.check(found)
    except REFUSALS:
        return "refused", seed, ""
    except Hanging:
        return "hang", seed, f"over {SECONDS} s"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        return "crash", seed, f"{type(error).__name__} at {place}: {str(error)[:90]}"
    return ("read", seed, "") if sensible else ("silent", seed, "makes no sense")


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise Hanging

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What decoders and readers print about damage is expected."""
    logging.disable(logging.CRITICAL)
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        logging.disable(logging.NOTSET)
