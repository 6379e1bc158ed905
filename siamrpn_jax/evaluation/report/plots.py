"""Figures of an evaluation and of a training run, written as PNG files.

Needs matplotlib (``pip install 'siamrpn-jax[train]'``). Figures are built without
pyplot, so no window system and no global state are involved.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from siamrpn_jax.common.errors import InputError, require
from siamrpn_jax.common.files import replacing
from siamrpn_jax.evaluation.ope.metrics import (
    PRECISION_THRESHOLDS,
    SUCCESS_THRESHOLDS,
    OpeMetrics,
)
from siamrpn_jax.media.video import draw_boxes

LOSS_KEYS = ("loss", "cls_loss", "reg_loss")
"""Metrics drawn together, on a logarithmic axis, by `plot_training`."""

GREEN = (40, 200, 60)
"""RGB of the true boxes in `plot_strip`."""

ORANGE = (255, 140, 0)
"""RGB of the predicted boxes in `plot_strip`."""


class PlotError(InputError):
    """Nothing to draw, or a file of metrics that cannot be read."""


def plot_success(path: str | Path, metrics: Mapping[str, OpeMetrics]) -> None:
    """Draws success curves, one for each name, with their AUC in the legend."""
    curves = {
        f"{name} [{row.auc:.3f}]": row.success_curve for name, row in metrics.items()
    }
    _plot_curves(path, SUCCESS_THRESHOLDS, curves, "Success", "overlap above")


def plot_precision(path: str | Path, metrics: Mapping[str, OpeMetrics]) -> None:
    """Draws precision curves, one for each name, with the value at 20 pixels."""
    curves = {
        f"{name} [{row.precision:.3f}]": row.precision_curve
        for name, row in metrics.items()
    }
    _plot_curves(
        path, PRECISION_THRESHOLDS, curves, "Precision", "centre error at most (pixels)"
    )


def plot_training(path: str | Path, metrics_file: str | Path) -> None:
    """Draws the curves of a training run.

    Args:
        path: PNG file to write.
        metrics_file: a JSON object a line, with ``step`` and any numbers. The losses
            share one panel; every other number gets its own.

    Raises:
        PlotError: a line is not such an object, or none holds a number.
    """
    curves = _read_metrics(metrics_file)
    losses = [key for key in LOSS_KEYS if key in curves]
    panels = ([losses] if losses else []) + [[k] for k in curves if k not in losses]
    if not panels:
        raise PlotError(f"{metrics_file}: no numbers to draw beside 'step'")
    figure = _figure(7.0, 2.4 * len(panels))
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
    _save(figure, path)


def plot_strip(
    path: str | Path,
    frames: Sequence[np.ndarray],
    *,
    predicted: np.ndarray,
    truth: np.ndarray | None = None,
    titles: Sequence[str] = (),
) -> None:
    """Draws frames side by side with their boxes.

    Args:
        path: PNG file to write.
        frames: T images, RGB uint8 [H, W, 3].
        predicted: [T, 4] ``ltwh``, drawn orange.
        truth: [T, 4] ``ltwh``, drawn green; rows with NaN are left out.
        titles: text above each frame, if any.
    """
    if not len(frames) or len(frames) != len(predicted):
        raise PlotError(
            f"{len(frames)} frames and {len(predicted)} boxes: expected as many of "
            "both, at least one"
        )
    height, width, _ = frames[0].shape
    figure = _figure(2.6 * len(frames), 2.6 * height / width + 0.4)
    for index, frame in enumerate(frames):
        axes = figure.add_subplot(1, len(frames), index + 1)
        boxes = [] if truth is None else [truth[index]]
        boxes, colors = boxes + [predicted[index]], [GREEN] * len(boxes) + [ORANGE]
        axes.imshow(draw_boxes(frame, np.array(boxes), colors=colors))
        axes.set_axis_off()
        if index < len(titles):
            axes.set_title(titles[index], fontsize="small")
    _save(figure, path)


def _plot_curves(
    path: str | Path,
    thresholds: np.ndarray,
    curves: Mapping[str, np.ndarray],
    title: str,
    x_label: str,
) -> None:
    if not curves:
        raise PlotError(f"{path}: no curves to draw")
    figure = _figure(5.5, 4.0)
    axes = figure.add_subplot()
    for label, curve in curves.items():
        axes.plot(thresholds, curve, label=label)
    axes.set(title=title, xlabel=x_label, ylabel="share of frames", ylim=(0, 1))
    axes.set_xlim(thresholds[0], thresholds[-1])
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    _save(figure, path)


def _read_metrics(path: str | Path) -> dict[str, tuple[list[float], list[float]]]:
    """Collects ``key -> (steps, values)`` from the lines that hold a finite number."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for number, line in enumerate(Path(path).read_text().splitlines(), start=1):
        try:
            record = json.loads(line)
            step = float(record["step"])
        except (ValueError, KeyError, TypeError) as error:
            raise PlotError(
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


def _figure(width: float, height: float) -> Any:
    figure = require("matplotlib.figure", extra="train")
    return figure.Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: str | Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
