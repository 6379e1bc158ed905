"""Tables on the terminal, plots and the page of a one-pass evaluation."""

import functools
from collections.abc import Sequence as Items
from pathlib import Path

import numpy as np

from siamrpn_jax.data.read.images import read_image
from siamrpn_jax.evaluation.ope.comparison import Comparison
from siamrpn_jax.evaluation.ope.metrics import OpeMetrics
from siamrpn_jax.evaluation.ope.table import Benchmark, Entry
from siamrpn_jax.evaluation.report import data, plots
from siamrpn_jax.evaluation.report.page import write_report

STRIP_FRAMES = 6
"""Frames of a sequence in its strip."""


def print_head(benchmark: Benchmark, tracker: str) -> None:
    """Prints what is evaluated and how, and the head of a table of sequences."""
    print(f"tracker {tracker}, {_describe(benchmark)}")
    print(_row("sequence", "AUC", "P@20", "norm P", "fps", "frames"))


def print_sequence(
    name: str, metrics: OpeMetrics | None, fps: float | None, frames: int
) -> None:
    """Prints a row; ``frames`` where there are no metrics that count them."""
    frames = metrics.frames if metrics else frames
    print(_row(name, *_shares(metrics), _speed(fps), f"{frames}"), flush=True)


def print_mean(entry: Entry) -> None:
    """Prints the last row of a table, and what belongs to all sequences."""
    frames = sum(len(run.boxes) for runs in entry.runs.values() for run in runs)
    print_sequence("mean", entry.mean, entry.fps, frames)
    for name, figure in entry.extra().items():
        print(_row(name, f"{figure:.3f}"))
    if entry.missing:
        print(
            f"INCOMPLETE, without {', '.join(entry.missing)}: these figures do not "
            "compare"
        )
    if entry.repaired:
        listed = ", ".join(f"{name} {count}" for name, count in entry.repaired.items())
        print(f"boxes without area: {listed}")


def print_comparison(benchmark: Benchmark, entries: Items[Entry]) -> None:
    """Prints a row for each tracker."""
    print(_describe(benchmark))
    names = (*entries[0].extra(), "fps", *entries[0].cost())
    row = functools.partial(_row, width=max(24, *(len(e.tracker) for e in entries)))
    print(row("tracker", "AUC", "P@20", "norm P", *names))
    for entry in entries:
        extra = [f"{figure:.3f}" for figure in entry.extra().values()]
        cost = ["-" if x is None else f"{x:.2f}" for x in entry.cost().values()]
        speed = _speed(entry.fps)
        print(row(entry.tracker, *_shares(entry.mean), *extra, speed, *cost))
    print(data.COST)


def print_difference(tracker: str, found: Comparison) -> None:
    """Prints how a tracker's AUC stands to another's, in a line."""
    low, high = found.interval
    print(
        f"{tracker} less {found.other}: AUC {found.auc_difference:+.3f}, 95 % interval "
        f"{low:+.3f} to {high:+.3f}; better on {found.better}, worse on {found.worse} "
        f"of {found.sequences} sequences"
    )


def draw_plots(folder: Path, benchmark: Benchmark, entries: Items[Entry]) -> None:
    """Draws curves of all trackers, and a strip of each sequence with all their boxes.

    Raises:
        siamrpn_jax.data.read.images.ImageError: a frame cannot be decoded.
    """
    means = {entry.tracker: entry.mean for entry in entries if entry.mean}
    if means:
        plots.save_png(plots.plot_success(means), folder / "success.png")
        plots.save_png(plots.plot_precision(means), folder / "precision.png")
    for one in benchmark.sequences:
        ran = [entry for entry in entries if one.name in entry.runs]
        if not ran:
            continue  # its results could be used of none
        last = len(one.frames) - 1
        shown = np.unique(np.linspace(0, last, STRIP_FRAMES).astype(int))
        strip = plots.plot_strip(
            [read_image(one.frames[index]) for index in shown],
            predicted={e.tracker: e.runs[one.name][0].boxes[shown] for e in ran},
            truth=one.boxes[shown],
            titles=[f"{one.name} {index}" for index in shown],
        )
        plots.save_png(strip, folder / f"{one.name}.png")


def write_page(folder: Path, benchmark: Benchmark, entries: Items[Entry]) -> Path:
    """Writes the self-contained page ``index.html``; returns its path."""
    rows = tuple(
        data.OpeEntry(
            entry.tracker,
            entry.mean,
            entry.sequences,
            entry.extra(),
            entry.fps,
            missing=entry.missing,
            cost=entry.cost(),
        )
        for entry in entries
        if entry.mean
    )
    name = benchmark.name or "sequences"
    section = data.OpeBenchmark(name, str(benchmark.convention), rows)
    page = data.Report(f"One-pass evaluation, {name}", ope=(section,))
    return write_report(folder, page)


def _describe(benchmark: Benchmark) -> str:
    parts = f"{len(benchmark.lengths)} sequences"
    if not benchmark.complete:
        parts += f" of the {benchmark.whole} of {benchmark.name}"
    return f"{parts}, {benchmark.convention}"


def _shares(metrics: OpeMetrics | None) -> list[str]:
    if metrics is None:
        return ["-"] * 3
    shares = (metrics.auc, metrics.precision, metrics.normalized_precision)
    return [f"{share:.3f}" for share in shares]


def _speed(fps: float | None) -> str:
    return f"{fps:.1f}" if fps is not None and np.isfinite(fps) else "-"


def _row(name: str, *cells: str, width: int = 24) -> str:
    return f"{name:<{width}}" + "".join(f"{cell:>9}" for cell in cells)
