"""Pictures that explain how trackers are evaluated, drawn from real runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.pictures.tools import Group, Image, figure_pixels
from siamrpn_jax.api import load
from siamrpn_jax.data.scenes.generated import Scene
from siamrpn_jax.evaluation.ope import metrics as ope
from siamrpn_jax.evaluation.report.plots import COLORS, GREEN
from siamrpn_jax.evaluation.runner import OnePassTracker
from siamrpn_jax.evaluation.trackers import StaticTracker
from siamrpn_jax.evaluation.vot import metrics, regions
from siamrpn_jax.evaluation.vot.dataset import (
    VotSequence,
    read_vot_dataset,
    region_to_ltwh,
)
from siamrpn_jax.evaluation.vot.generated import INTERVAL, write_synthetic
from siamrpn_jax.evaluation.vot.protocols import (
    ProtocolConfig,
    run_baseline,
    run_realtime,
)
from siamrpn_jax.media.drawing import draw_boxes

BLUE, RED, TEAL, AMBER = COLORS[:4]
GREY = "#9aa1a9"

SLOW = 0.13
"""Seconds a frame of the tracker whose lateness is drawn."""

SHOWN = 14
"""Frames of the picture of the realtime experiment."""


def make_resets(work: Path) -> Mapping[str, Image]:
    """The experiment ``baseline``: overlap by frame, failures, restarts, burn-in."""
    sequence = _sequences(work)[3]
    config = ProtocolConfig()
    run = run_baseline(StaticTracker(), sequence, config=config)
    codes = [int(row[0]) if len(row) == 1 else -1 for row in run.regions]
    overlap = regions.overlaps(run.regions, sequence.regions, sequence.size)
    starts = np.flatnonzero(np.equal(codes, regions.STARTED))
    failures = np.flatnonzero(np.equal(codes, regions.FAILED))
    figure, axes = _figure(9.0, 3.3)
    for number, start in enumerate(starts):
        label = f"burn-in, {metrics.BURN_IN} frames" if not number else None
        end = min(start + metrics.BURN_IN, *failures[failures > start], len(codes))
        axes.axvspan(start, end, color=AMBER, alpha=0.22, lw=0, label=label)
    for number, failure in enumerate(failures):
        label = "not run" if not number else None
        axes.axvspan(
            *(failure, failure + metrics.SKIP),
            color=GREY,
            alpha=0.45,
            lw=0,
            label=label,
        )
    axes.plot(overlap, color=BLUE, label="overlap")
    zeros = np.zeros(len(failures))
    axes.plot(failures, zeros, "X", color=RED, ms=9, label="failure", clip_on=False)
    ones = np.ones(len(starts))
    axes.plot(starts, ones, "v", color=TEAL, ms=8, label="start", clip_on=False)
    axes.set(xlabel="frame", ylabel="overlap", xlim=(0, len(overlap)), ylim=(0, 1))
    axes.legend(fontsize="small", ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1))
    return {"pictures/vot_resets.webp": figure_pixels(figure)}


def make_realtime(work: Path) -> Mapping[str, Image]:
    """The experiment ``realtime``: which box counts while a tracker is late."""
    sequence = _sequences(work)[3]  # its first box meets the target for 14 frames
    first, late = region_to_ltwh(sequence.regions[0]), _Late()
    config = ProtocolConfig(experiment="realtime")
    run = run_realtime(late, sequence, config=config, clock=late.clock)
    worked, width = np.flatnonzero(~np.isnan(run.seconds)), first[2]
    figure, axes = _figure(9.0, 2.3)
    for index in range(SHOWN):
        axes.add_patch(_cell(index, 1.15, color=GREY, alpha=0.25))
        axes.text(index + 0.5, 1.45, str(index), ha="center", va="center")
        given, text = _what_counts(run.regions[index], worked, width)
        axes.add_patch(_cell(index, 0.15, color=TEAL if given == index else AMBER))
        axes.text(index + 0.5, 0.45, text, ha="center", va="center", fontsize="small")
    lengths = np.where(worked < config.grace, 1.0, SLOW * config.fps)
    ends = np.cumsum(lengths)
    for number, index in enumerate(worked[ends - lengths < SHOWN]):
        begin, color = ends[number] - lengths[number], (BLUE, "#6fa8d6")[number % 2]
        axes.plot(
            [begin, ends[number]], [2.2] * 2, color=color, lw=12, solid_capstyle="butt"
        )
        axes.text(
            begin + 0.1, 2.2, str(index), color="white", va="center", fontsize="small"
        )
    axes.set(xlim=(-0.1, SHOWN + 0.1), ylim=(0, 2.6), xticks=[])
    axes.set_yticks([0.45, 1.45, 2.2], ["box that counts", "frame", "busy with"])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return {"pictures/vot_realtime.webp": figure_pixels(figure)}


def make_eao(work: Path) -> Mapping[str, Image]:
    """Expected average overlap: the curve, the interval, and its mean."""
    sequences = _sequences(work)
    figure, axes = _figure(6.6, 3.6)
    low, high = INTERVAL
    label = f"interval, {low} to {high} frames"
    axes.axvspan(low, high, color="#000000", alpha=0.08, lw=0, label=label)
    trackers: dict[str, OnePassTracker] = {"small": load("small")}
    trackers["first box repeated"] = StaticTracker()
    for color, (name, tracker) in zip((BLUE, RED), trackers.items(), strict=True):
        found = _evaluate(tracker, sequences)
        lengths = np.arange(1, len(found.curve) + 1)
        axes.plot(lengths, found.curve, color=color, label=name)
        mean = [found.eao, found.eao]
        label = f"its mean there: EAO {found.eao:.3f}"
        axes.plot([low, high], mean, "--", color=color, lw=1.5, label=label)
    axes.set(xlabel="length of a sequence (frames)", ylabel="expected average overlap")
    axes.set(xlim=(1, 80), ylim=(0, 1))
    axes.legend(fontsize="small")
    return {"pictures/vot_eao.webp": figure_pixels(figure)}


def make_curves(work: Path) -> Mapping[str, Image]:
    """Success and precision of one sequence, from its overlaps and centre errors."""
    del work
    truth, found = _track(Scene(7), length=60)
    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    overlap = ope.overlaps(found, truth)[1:]
    first.plot(np.arange(1, len(truth)), overlap, color=BLUE)
    first.set(xlabel="frame", ylabel="overlap", ylim=(0, 1), title="overlap by frame")
    curve = ope.success_curve(overlap)
    second.fill_between(ope.SUCCESS_THRESHOLDS, curve, color=BLUE, alpha=0.15, lw=0)
    second.plot(ope.SUCCESS_THRESHOLDS, curve, ".-", color=BLUE)
    second.set(xlabel="overlap above", ylabel="share of frames", ylim=(0, 1.02))
    second.set(title=f"success: the mean, AUC {curve.mean():.3f}")
    curve = ope.precision_curve(ope.center_errors(found, truth)[1:])
    third.plot(ope.PRECISION_THRESHOLDS, curve, color=TEAL)
    third.plot([20, 20, 0], [0, curve[20], curve[20]], ":", color=RED)
    third.plot(20, curve[20], "o", color=RED)
    third.set(xlabel="centre error at most (pixels)", ylim=(0, 1.02), xlim=(0, 50))
    third.set(title=f"precision at 20 pixels {curve[20]:.3f}")
    for axes in (first, second, third):
        _tidy(axes)
    return {"pictures/ope_curves.webp": figure_pixels(figure)}


def make_frames(work: Path) -> Mapping[str, Image]:
    """Which frames count in a one-pass evaluation, by convention."""
    del work
    scene = Scene(15).harder("leave", length=48)
    rendered = [scene.render(time) for time in range(48)]
    boxes = np.stack([box for _, box in rendered]).astype(float)
    middle, size = boxes[:, :2] + boxes[:, 2:] / 2, (scene.width, scene.height)
    absent = np.asarray(((middle < 0) | (middle > size)).any(axis=1))
    gone = np.flatnonzero(absent)
    back = np.flatnonzero(~absent & (np.arange(48) > gone[0]))
    chosen = [0, int(gone[0]) // 2, int(gone[len(gone) // 2])]
    chosen += [int(back[-1])] if len(back) else []
    figure = Figure(figsize=(9.6, 3.3), layout="constrained")
    for axes, index in zip(figure.subplots(1, len(chosen)), chosen, strict=True):
        box = np.where(absent[index], np.nan, boxes[index])
        axes.imshow(draw_boxes(rendered[index][0], box, colors=[GREEN]))
        plain = "no" if index == 0 or absent[index] else "yes"
        toolkit = "yes, as missed" if absent[index] else "yes"
        toolkit += ", with the true box" * (index == 0)
        axes.set_title(f"frame {index}" + ", target absent" * bool(absent[index]))
        axes.set_xlabel(f"plain: {plain}\ntoolkit: {toolkit}")
        axes.set(xticks=[], yticks=[])
    return {"pictures/ope_frames.webp": figure_pixels(figure)}


GROUPS = (
    Group(("pictures/vot_resets.webp",), make_resets),
    Group(("pictures/vot_realtime.webp",), make_realtime),
    Group(("pictures/vot_eao.webp",), make_eao),
    Group(("pictures/ope_curves.webp",), make_curves),
    Group(("pictures/ope_frames.webp",), make_frames),
)
"""What these functions make."""


class _Late:
    """Repeats the first box, each time ``SLOW`` seconds after it was asked."""

    def __init__(self) -> None:
        self._box = np.zeros(4)
        self._seconds, self._calls = 0.0, 0

    def clock(self) -> float:
        """Seconds that it has worked."""
        return self._seconds

    def init(self, image: np.ndarray, box: np.ndarray) -> None:
        """Keeps the box."""
        del image
        self._box, self._seconds = box, self._seconds + SLOW

    def update(self, image: np.ndarray) -> np.ndarray:
        """The first box, wider by a thousandth of a pixel for each call so far."""
        del image
        self._calls, self._seconds = self._calls + 1, self._seconds + SLOW
        return self._box + [0, 0, self._calls / 1000, 0]


def _what_counts(row: np.ndarray, worked: np.ndarray, width: float) -> tuple[int, str]:
    """The frame in which the box of a row was found, and what to call it."""
    if len(row) == 1:
        return 0, "given"
    seen = int(worked[round(1000 * (row[2] - width))])
    return seen, f"of {seen}"


def _cell(index: int, bottom: float, **style: Any) -> Any:
    from matplotlib.patches import Rectangle

    style = {"alpha": 0.35} | style
    return Rectangle((index + 0.04, bottom), 0.92, 0.6, lw=0, **style)


def _sequences(work: Path) -> tuple[VotSequence, ...]:
    write_synthetic(work)
    return read_vot_dataset(work)


def _evaluate(
    tracker: OnePassTracker, sequences: Sequence[VotSequence]
) -> metrics.VotFigures:
    config = ProtocolConfig()
    runs = {
        one.name: [run_baseline(tracker, one, config=config).regions]
        for one in sequences
    }
    return metrics.evaluate(runs, sequences, interval=INTERVAL)


def _track(scene: Scene, *, length: int) -> tuple[np.ndarray, np.ndarray]:
    """True boxes and those of ``small``, ``ltwh [T, 4]``."""
    rendered = [scene.render(time) for time in range(length)]
    truth = np.stack([box for _, box in rendered]).astype(float)
    tracker = load("small")
    tracker.init(rendered[0][0], truth[0])
    found = [truth[0], *(tracker.update(frame) for frame, _ in rendered[1:])]
    return truth, np.array(found)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    _tidy(axes)
    return figure, axes


def _tidy(axes: Any) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
