"""Figures of an evaluation and of a training run, as matplotlib draws them.

Functions that begin with ``plot_`` return a figure; ``save_png`` and ``to_svg`` write
it. Figures are built without pyplot, so no window system and no global state are
involved. Filled marks were measured by the run; hollow ones are reported by the paper.
Matplotlib comes with the extras ``report`` and ``train``.
"""

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from siamrpn_jax.common.errors import InputError, require
from siamrpn_jax.common.files import replacing
from siamrpn_jax.data.read.formats import read_lines
from siamrpn_jax.evaluation.ope.metrics import (
    PRECISION_THRESHOLDS,
    SUCCESS_THRESHOLDS,
    OpeMetrics,
)
from siamrpn_jax.evaluation.report.data import (
    REPORTED_SEQUENCES,
    Reported,
    Study,
    VotBenchmark,
    VotEntry,
)
from siamrpn_jax.media.drawing import draw_boxes

COLORS = (
    "#0b62a4",
    "#d1495b",
    "#2e8b57",
    "#e08e0b",
    "#7b4fa6",
    "#17808f",
    "#8c564b",
    "#d4609f",
    "#5f6b7a",
    "#8a9a0a",
)
"""One for each tracker, in turn."""

TOP_CURVES, TOP_RANKING = 10, 25
"""Trackers that the paper's Fig. 5 and Fig. 6 name."""

REPORTED_COLOR = "#7a828c"
"""The colour of everything that the paper reports."""

SENSITIVITY = 30
"""Frames of VOT's accuracy-robustness plot: its reliability is the probability that a
tracker survives this many frames."""

REAL_TIME = 25
"""Frames a second that the paper calls real-time (5.4)."""

LOSS_KEYS = ("loss", "cls_loss", "reg_loss")
"""Metrics drawn together, on a logarithmic axis, by ``plot_training``."""

GREEN = (40, 200, 60)
"""RGB of the true boxes in ``plot_strip``."""

ORANGE = (255, 140, 0)
"""RGB of the predicted boxes in ``plot_strip``."""


def save_png(figure: Any, path: str | Path) -> None:
    """Writes a figure as a PNG file; its folder is made where it is missing."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def to_svg(figure: Any) -> str:
    """A figure as SVG text; equal figures are equal texts."""
    matplotlib = require("matplotlib", extra="report")
    buffer = io.StringIO()
    # The salt and the missing date make equal figures equal files.
    with matplotlib.rc_context({"svg.hashsalt": "siamrpn-jax"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def plot_success(metrics: Mapping[str, OpeMetrics]) -> Any:
    """Success plot (the paper's Fig. 9), a curve for each name, AUC in the legend."""
    curves = {
        f"{_text(name)} [{row.auc:.3f}]": row.success_curve
        for name, row in metrics.items()
    }
    return _plot_curves(SUCCESS_THRESHOLDS, curves, "Success", "overlap above")


def plot_precision(metrics: Mapping[str, OpeMetrics]) -> Any:
    """Precision plot (the paper's Fig. 9), the value at 20 pixels in the legend."""
    curves = {
        f"{_text(name)} [{row.precision:.3f}]": row.precision_curve
        for name, row in metrics.items()
    }
    label = "centre error at most (pixels)"
    return _plot_curves(PRECISION_THRESHOLDS, curves, "Precision", label)


def plot_eao_curves(benchmark: VotBenchmark) -> Any:
    """Expected average overlap over the length of sequences (the paper's Fig. 5).

    The best ``TOP_CURVES`` trackers are named, all others are thin and grey.
    """
    figure, axes = _new_figure()
    longest = 2
    known = [
        (entry.eao, index, entry, entry.curve)
        for index, entry in enumerate(benchmark.entries)
        if entry.curve is not None and entry.eao is not None
    ]
    known.sort(key=lambda one: -one[0])
    for rank, (eao, index, entry, curve) in enumerate(known):
        lengths = np.arange(1, len(curve) + 1)
        longest = max(longest, len(lengths))
        if rank >= TOP_CURVES:
            axes.plot(lengths, curve, color="0.8", lw=0.8, zorder=0)
            continue
        label = f"{_text(entry.tracker)}{_flag(entry)} [{eao:.3f}]"
        style = "-" if index < len(COLORS) else "--"
        axes.plot(lengths, curve, style, color=_color(index), label=label)
    if benchmark.interval:
        low, high = benchmark.interval
        axes.axvspan(low, high, color="#000000", alpha=0.06, lw=0)
        longest = min(longest, round(high * 1.6))
    axes.set(xlabel="sequence length (frames)", ylabel="expected average overlap")
    axes.set(xlim=(1, longest), ylim=(0, 1), title="Expected average overlap")
    return _with_legend(figure)


def plot_ranking(benchmark: VotBenchmark, reported: Sequence[Reported]) -> Any:
    """EAO in order, best on top (the paper's Figs 6 and 8).

    Of more than ``TOP_RANKING`` measured trackers, the best.
    """
    rows = [
        (entry.eao, _text(entry.tracker) + _flag(entry), _color(index), True)
        for index, entry in enumerate(benchmark.entries)
        if entry.eao is not None
    ]
    rows.sort(key=lambda row: -row[0])
    left_out = len(rows) - TOP_RANKING
    rows = rows[:TOP_RANKING]
    rows += [
        (row.eao, f"{_text(row.tracker)} (reported)", REPORTED_COLOR, False)
        for row in reported
    ]
    rows.sort(key=lambda row: row[0])
    figure, axes = _new_figure(height=max(2.2, 0.9 + 0.22 * len(rows)))
    for place, (eao, _, color, measured) in enumerate(rows):
        axes.plot([0, eao], [place, place], color=color, lw=1, alpha=0.35)
        axes.plot(eao, place, "o", color=color, mfc=color if measured else "white")
        axes.annotate(
            f"{eao:.3f}", (eao, place), (7, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(rows)), [name for _, name, _, _ in rows])
    title = "EAO ranking" + (f", {left_out} more below" if left_out > 0 else "")
    axes.set(title=title, xlabel="EAO", ylim=(-0.6, len(rows) - 0.4))
    axes.set_xlim(0, 1.18 * max([row[0] for row in rows], default=1) or 1)
    axes.grid(axis="y", visible=False)
    return figure


def plot_accuracy_robustness(
    benchmark: VotBenchmark, reported: Sequence[Reported]
) -> Any:
    """Accuracy over reliability, exp(-30 failures / frames): better is up and right.

    Reported rows hold failures per sequence; they are drawn where the run covered the
    same number of sequences, and so knows the frames.
    """
    figure, axes = _new_figure()
    points: list[tuple[float, float]] = []
    for index, entry in enumerate(benchmark.entries):
        if entry.accuracy is not None and entry.robustness is not None:
            x = math.exp(-SENSITIVITY * entry.robustness / 100)
            points.append((x, entry.accuracy))
            axes.plot(x, entry.accuracy, **_mark(index, entry.tracker))
    frames = _frames_of_whole(benchmark.entries)
    for row in reported if frames else ():
        failures = row.failures_per_sequence * REPORTED_SEQUENCES
        x = math.exp(-SENSITIVITY * failures / frames)
        points.append((x, row.accuracy))
        _reported_point(axes, x, row.accuracy, row.tracker)
    axes.set(title="Accuracy and robustness", ylabel="accuracy")
    axes.set_xlabel(f"reliability: survives {SENSITIVITY} frames")
    if points:
        low = np.maximum(np.min(points, axis=0) - 0.1, 0)
        high = np.minimum(np.max(points, axis=0) + 0.1, 1)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    return _with_legend(figure)


def plot_speed(benchmark: VotBenchmark, reported: Sequence[Reported]) -> Any:
    """EAO over speed (the paper's Fig. 7); None where no speed is known.

    Over EFO, as there, where it was estimated for all trackers; else over frames a
    second, which the axis says.
    """
    known = [
        (index, entry)
        for index, entry in enumerate(benchmark.entries)
        if entry.fps and entry.eao is not None
    ]
    if not known:
        return None
    figure, axes = _new_figure()
    in_efo = all(entry.efo_estimate for _, entry in known)
    speeds = [] if in_efo else [float(REAL_TIME)]
    overlaps = [0.01]
    for index, entry in known:
        assert entry.fps is not None and entry.eao is not None
        speed, label = entry.fps, f"{entry.tracker} [{entry.fps:.0f}/s]"
        if in_efo and entry.efo_estimate:
            speed = entry.efo_estimate
            label = f"{entry.tracker} [≈ {speed:.1f}]"
        axes.plot(speed, entry.eao, **_mark(index, label))
        speeds.append(speed)
        overlaps.append(entry.eao)
    for row in reported:
        speed = row.efo if in_efo else row.fps
        if speed is not None:
            _reported_point(axes, speed, row.eao, row.tracker)
            speeds.append(speed)
            overlaps.append(row.eao)
    axes.set_xscale("log")
    axes.set_xlim(min(speeds) / 2, max(speeds) * 3)
    axes.set_ylim(0, 1.2 * max(overlaps))
    axes.set(title="Speed and EAO", ylabel="EAO")
    if in_efo:
        axes.set_xlabel("EFO: reported, and estimated (≈) for this machine")
    else:
        axes.axvline(REAL_TIME, color=REPORTED_COLOR, lw=1, ls=":")
        axes.set_xlabel(f"frames a second (dotted: {REAL_TIME}), not EFO")
    axes.xaxis.set_major_formatter("{x:g}")
    return _with_legend(figure)


def plot_study(study: Study) -> Any:
    """A line for each column of a study (as the paper's Figs 10 and 11)."""
    figure, axes = _new_figure()
    try:
        places = [float(row) for row in study.rows]
    except ValueError:
        places = [float(number) for number in range(len(study.rows))]
        axes.set_xticks(places, study.rows, rotation=20 * (len(study.rows) > 3))
    for number, column in enumerate(study.columns):
        known = [value is not None for value in column.values]
        axes.plot(
            [x for x, there in zip(places, known, strict=True) if there],
            [value for value in column.values if value is not None],
            color="0.55" if column.reported else _color(number),
            linestyle="--" if column.dashed else "-",
            marker="o",
            markerfacecolor="none" if column.reported else None,
            label=_text(column.name),
        )
    axes.set_xlabel(_text(study.over))
    axes.set_ylabel("EAO")
    return _with_legend(figure)


def plot_training(metrics_file: str | Path) -> Any:
    """Draws the curves of a training run.

    Args:
        metrics_file: a JSON object a line, with ``step`` and any numbers. The losses
            share one panel; every other number gets its own.

    Raises:
        InputError: a line is not such an object, or none holds a number.
    """
    curves = _read_metrics(metrics_file)
    losses = [key for key in LOSS_KEYS if key in curves]
    panels = ([losses] if losses else []) + [[k] for k in curves if k not in losses]
    if not panels:
        raise InputError(f"{metrics_file}: no numbers to draw beside 'step'")
    figure = _empty_figure(7.0, 2.4 * len(panels))
    for row, keys in enumerate(panels, start=1):
        axes = figure.add_subplot(len(panels), 1, row)
        for key in keys:
            steps, values = curves[key]
            axes.plot(steps, values, label=key, marker="." if len(steps) == 1 else "")
        if keys is losses and all(min(curves[key][1]) > 0 for key in keys):
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.axes[-1].set_xlabel("step")
    return figure


def plot_strip(
    frames: Sequence[np.ndarray],
    *,
    predicted: Mapping[str, np.ndarray],
    truth: np.ndarray | None = None,
    titles: Sequence[str] = (),
) -> Any:
    """Draws frames side by side with the boxes of trackers (the paper's Fig. 1).

    Args:
        frames: T images, RGB uint8 [H, W, 3].
        predicted: by tracker, [T, 4] ``ltwh``; orange where there is a single one, else
            in colours that the legend names.
        truth: [T, 4] ``ltwh``, drawn green; rows with NaN are left out.
        titles: text above each frame, if any.

    Raises:
        InputError: a tracker has more or fewer boxes than there are frames, or there is
            no frame or tracker.
    """
    for name, boxes in predicted.items():
        if len(boxes) != len(frames):
            raise InputError(
                f"{len(frames)} frames and {len(boxes)} boxes of {name}: expected as "
                "many of both"
            )
    if not frames or not predicted:
        raise InputError(f"a strip of {len(frames)} frames, {len(predicted)} trackers")
    shown: list[tuple[str, np.ndarray, tuple[int, int, int]]] = []
    if truth is not None:
        shown.append(("truth", truth, GREEN))
    for number, (name, boxes) in enumerate(predicted.items()):
        # The third colour is green as well.
        color = _rgb(number + (number > 1)) if len(predicted) > 1 else ORANGE
        shown.append((name, boxes, color))
    height, width, _ = frames[0].shape
    figure = _empty_figure(2.6 * len(frames), 2.6 * height / width + 0.4)
    for index, frame in enumerate(frames):
        axes = figure.add_subplot(1, len(frames), index + 1)
        boxes = np.array([boxes[index] for _, boxes, _ in shown])
        axes.imshow(draw_boxes(frame, boxes, colors=[color for *_, color in shown]))
        axes.set_axis_off()
        if index < len(titles):
            axes.set_title(titles[index], fontsize="small")
    if len(predicted) > 1:
        lines = require("matplotlib.lines", extra="report")
        named = [
            lines.Line2D([], [], color=np.array(color) / 255, label=_text(name))
            for name, _, color in shown
        ]
        figure.legend(
            handles=named, loc="outside lower center", ncols=6, fontsize="small"
        )
    return figure


def _plot_curves(
    thresholds: np.ndarray, curves: Mapping[str, np.ndarray], title: str, x_label: str
) -> Any:
    if not curves:
        raise InputError(f"{title} plot: no curves to draw")
    figure, axes = _new_figure()
    for index, (label, curve) in enumerate(curves.items()):
        axes.plot(thresholds, curve, color=_color(index), label=label)
    axes.set(title=title, xlabel=x_label, ylabel="share of frames", ylim=(0, 1.02))
    axes.set_xlim(thresholds[0], thresholds[-1])
    return _with_legend(figure)


def _frames_of_whole(entries: Sequence[VotEntry]) -> int:
    """Frames of the data set, if a tracker ran on as many sequences as the paper."""
    for entry in entries:
        if len(entry.sequences) == REPORTED_SEQUENCES:
            return sum(part.frames for part in entry.sequences.values())
    return 0


def _flag(entry: VotEntry) -> str:
    return " (incomplete)" if entry.missing else ""


def _mark(index: int, label: str) -> dict[str, Any]:
    marker = "osD^v<>"[index // len(COLORS) % 7]
    return {"marker": marker, "ls": "", "color": _color(index), "label": _text(label)}


def _reported_point(axes: Any, x: float, y: float, name: str) -> None:
    """A hollow mark; only the paper's own tracker is named, others would overlap."""
    named = "reported" in axes.get_legend_handles_labels()[1]
    label = None if named else "reported"
    axes.plot(x, y, "o", color=REPORTED_COLOR, mfc="white", ms=5, label=label)
    if name == "SiamRPN":
        axes.annotate(
            name,
            (x, y),
            (4, 4),
            textcoords="offset points",
            fontsize="small",
            color=REPORTED_COLOR,
        )


def _color(index: int) -> str:
    return COLORS[index % len(COLORS)]


def _rgb(index: int) -> tuple[int, int, int]:
    """``_color`` as red, green and blue, 0 to 255."""
    red, green, blue = bytes.fromhex(_color(index).removeprefix("#"))
    return red, green, blue


def _text(name: str) -> str:
    """A name as matplotlib prints it: no mathematics, and never hidden by ``_``."""
    name = name.replace("\\", "/").replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


def _read_metrics(path: str | Path) -> dict[str, tuple[list[float], list[float]]]:
    """Collects ``key -> (steps, values)`` from the lines that hold a finite number."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for number, line in enumerate(read_lines(path), start=1):
        try:
            record = json.loads(line)
            step = float(record["step"])
        except (
            ValueError,
            KeyError,
            TypeError,
            RecursionError,
            OverflowError,
        ) as error:
            raise InputError(
                f"{path}:{number}: {line[:80]!r}, expected a JSON object with 'step'"
            ) from error
        for key, value in record.items():
            if key != "step" and _is_number(value):
                steps, values = curves.setdefault(key, ([], []))
                steps.append(step)
                values.append(float(value))
    return curves


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and bool(np.isfinite(value))


def _new_figure(height: float = 4.1) -> tuple[Any, Any]:
    """A figure with one pair of axes."""
    figure = _empty_figure(6.1, height)
    axes = figure.add_subplot()
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _empty_figure(width: float, height: float) -> Any:
    figure = require("matplotlib.figure", extra="report")
    return figure.Figure(figsize=(width, height), layout="constrained")


def _with_legend(figure: Any) -> Any:
    (axes,) = figure.axes
    if 0 < len(axes.get_legend_handles_labels()[1]) <= 20:
        axes.legend(fontsize="small", framealpha=0.85)
    return figure
