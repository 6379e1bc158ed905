"""Shards written by processes of this machine, with a progress bar in records."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from typing import Any, NamedTuple, Self

import cv2
from tqdm.auto import tqdm

from data_prep.shards import Progress, ShardJob, Work, write_shard
from data_prep.tracks import PreparationError


def run(work: Work, *, workers: int = 0) -> None:
    """Writes shards.

    Args:
        work: what to write.
        workers: processes; 0: one for each core that this one may use. A single one
            is this very process.

    Raises:
        PreparationError: a worker died.
        OSError: a file cannot be written.
    """
    workers = min(workers or _cores(), len(work.jobs))
    with _Bar(work) as bar:
        if workers > 1:
            _run_processes(work.jobs, workers, bar)
            return
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            for job in work.jobs:
                write_shard(job, bar.add)
        finally:
            cv2.setNumThreads(threads)


def _run_processes(jobs: Sequence[ShardJob], workers: int, bar: "_Bar") -> None:
    context = multiprocessing.get_context("spawn")
    counts, stop = context.Array("q", 2), context.Event()
    executor = futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start, initargs=(counts, stop)
    )
    try:
        with _interrupts_ignored():  # processes started here inherit it
            pending = {executor.submit(_write, job) for job in jobs}
        while pending:
            done, pending = futures.wait(
                pending, timeout=0.5, return_when=futures.FIRST_COMPLETED
            )
            for future in done:
                future.result()
            bar.show(Progress(*counts))
    except BrokenProcessPool as error:
        raise PreparationError(
            "a worker process died, maybe for want of memory: run the same command "
            "again, with fewer --workers if need be"
        ) from error
    finally:
        stop.set()
        executor.shutdown(cancel_futures=True)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux: those that this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Bar:
    """A progress bar in records; how many there will be is judged by those so far."""

    def __init__(self, work: Work):
        self._work, self._new = work, Progress()
        self._bar = tqdm(
            total=self._expected(work.done),
            initial=work.done.records,
            unit=" records",
            smoothing=0.05,
            disable=None,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def add(self, new: Progress) -> None:
        """Counts what was done since the last call."""
        self.show(Progress(*(sum(pair) for pair in zip(self._new, new, strict=True))))

    def show(self, new: Progress) -> None:
        """Shows what was done by this run so far."""
        done = Progress(*map(sum, zip(self._work.done, new, strict=True)))
        if new.units != self._new.units:
            self._bar.total = self._expected(done)
        self._bar.update(new.records - self._new.records)
        self._new = new

    def _expected(self, done: Progress) -> int | None:
        if not done.units:
            return None
        return round(done.records * self._work.units / done.units)


# -------------------------------------------------------------- in a worker process


class _Stopped(Exception):
    """The parent wants its workers to end."""


class _Worker(NamedTuple):
    counts: Any
    stop: Event


_worker: _Worker | None = None
"""What a worker process keeps; the executor has no other way to hand it to tasks."""


def _start(counts: Any, stop: Event) -> None:
    global _worker
    _worker = _Worker(counts, stop)
    cv2.setNumThreads(1)  # each core has a worker
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)  # what it was writing has a temporary name


def _write(job: ShardJob) -> None:
    write_shard(job, _report)


def _report(new: Progress) -> None:
    assert _worker is not None
    with _worker.counts.get_lock():
        _worker.counts[0] += new.units
        _worker.counts[1] += new.records
    if _worker.stop.is_set():
        raise _Stopped


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
