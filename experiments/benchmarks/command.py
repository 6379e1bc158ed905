"""``siamrpn benchmark``: how fast it is here, beside others on the same weights."""

import dataclasses
import importlib
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import tyro

from siamrpn_jax.commands.errors import run_or_exit
from siamrpn_jax.common.errors import InputError, check_least

SECTIONS = ("track", "many", "train", "conv", "data")
"""In the order of ``all``, the most important first."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Measure speed beside PyTorch, ONNX Runtime and OpenCV on the same weights."""

    section: tyro.conf.Positional[
        Literal["track", "search", "many", "train", "conv", "data", "all"]
    ]
    """track: one target; many: several; train: optimizer steps; conv: layers by
    themselves; data: the loader. search is the part of track without the tracker."""
    json: Path | None = None
    """Write all figures to this file."""
    threads: int | None = None
    """Cores that every contestant may use; by default all of them."""
    rounds: int = 7
    """Rounds in which the contestants take turns."""
    turn_seconds: float = 0.3
    """How long a contestant runs in its turn, at least."""
    seconds: float = 330.0
    """After these nobody more takes part; rows that do not fit say so."""
    presets: tuple[Literal["paper", "small", "base"], ...] = ("paper", "small", "base")
    """Networks to measure; conv and train leave base out."""
    compiled: bool = True
    """Let torch.compile take part; it needs a C++ compiler and half a minute."""
    data: tuple[Path, ...] = ()
    """Folders for the section data; without any, scenes are generated."""
    nano: tuple[Path, ...] = ()
    """NanoTrack's two ONNX files, BACKBONE and HEAD, to take part in the films of the
    section many."""

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        check_least(self, 1, "rounds")
        check_least(self, 0, "turn_seconds", "seconds")


def run(config: Config) -> dict[str, Any]:
    """Measures, prints the table, and writes the figures.

    Returns:
        The report, as it is written to ``json``.

    Raises:
        InputError: a number of threads that cannot be had.
    """
    threads = limit_threads(config.threads)
    # Imported here: XLA makes its thread pool by the affinity set before.
    from experiments.benchmarks import report
    from experiments.benchmarks.session import Row, Session
    from experiments.benchmarks.timing import Plan
    from siamrpn_jax.common.files import write_json

    _limit_libraries(threads)
    about = report.machine(threads)
    print(report.describe(about))
    session = Session(
        plan=Plan(rounds=config.rounds, turn_seconds=config.turn_seconds),
        seconds=config.seconds,
        threads=threads,
        presets=config.presets,
        show=report.Printer(),
    )
    command = shlex.join(["python", "experiments/benchmark.py", *sys.argv[1:]])
    result: dict[str, Any] = {}
    for name, function, options in _parts(config):
        try:
            section = importlib.import_module(f"experiments.benchmarks.{name}")
            getattr(section, function)(session, **options)
        except Exception as error:  # the other sections are still worth their time
            note = f"{type(error).__name__}: {error}"
            session.add(Row(name, function, "all", "failed", note, threads=threads))
        result = report.make_report(session, about, command)
        if config.json:
            write_json(config.json, result)
    print(report.format_targets(session))
    return result


def limit_threads(threads: int | None) -> int:
    """Keeps the process on a number of cores; to be called before JAX is imported.

    Returns:
        the number of cores it may use.

    Raises:
        InputError: fewer cores, a system without affinity, or JAX runs already.
    """
    if not hasattr(os, "sched_setaffinity"):
        if threads not in (None, os.cpu_count()):
            raise InputError(f"--threads {threads}: this system has no CPU affinity")
        return os.cpu_count() or 1
    cores = sorted(os.sched_getaffinity(0))
    if threads is None or threads == len(cores):
        return len(cores)
    if not 1 <= threads <= len(cores):
        raise InputError(f"--threads {threads}: expected 1 to {len(cores)}")
    if "jax" in sys.modules:
        raise InputError(f"--threads {threads}: JAX runs already, on {len(cores)}")
    os.sched_setaffinity(0, cores[:threads])
    return threads


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and runs."""
    # PyTorch wants memory on the same GPU.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    run_or_exit(lambda: run(tyro.cli(Config, args=argv, prog="siamrpn benchmark")))


def _parts(config: Config) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Module, function and options of what is to be run, in this order.

    What takes long comes last: many targets on a CPU, and torch.compile.
    """
    if config.section == "search":
        yield "track", "search", {}
        return
    names = SECTIONS if config.section == "all" else (config.section,)
    for name in names:
        yield name, "run", {"folders": config.data} if name == "data" else {}
    if "many" in names:
        yield "films", "run", {"nano": config.nano}
        yield "many", "larger", {}
    for name in ("track", "train") if config.compiled else ():
        if name in names:
            yield name, "compiled", {}


def _limit_libraries(threads: int) -> None:
    import cv2

    from siamrpn_jax.common.errors import MissingExtraError, require

    cv2.setNumThreads(threads)
    try:
        require("torch", extra="bench").set_num_threads(threads)
    except MissingExtraError:
        pass  # the rows say so
