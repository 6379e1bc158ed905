"""Figures of trackers in a one-pass benchmark, under one named convention.

``plain``: neither the first frame, whose box was given, nor frames without the target
count. ``toolkit``: as the toolkits of OTB, UAV123, NfS and LaSOT do, and so published
figures. The first frame counts, with the true box. Frames without the target, and those
whose true box does not begin within the image, count as missed. A predicted box without
area is taken as the one before. (OTB's toolkit itself takes frames without the target
as missed for success but as hit for precision; LaSOT's as missed for both, as here.)
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.images import read_size
from siamrpn_jax.data.read.rows import FROM_ONE
from siamrpn_jax.data.read.sequences import Sequence
from siamrpn_jax.evaluation.ope import metrics as ope
from siamrpn_jax.evaluation.ope.metrics import Got10kMetrics, MetricError, OpeMetrics
from siamrpn_jax.evaluation.runner import Run, total_fps
from siamrpn_jax.evaluation.store import Runs

GOT10K = "got10k-val"
"""The benchmark that has figures of its own."""


@dataclasses.dataclass(frozen=True)
class Convention:
    """Which frames count."""

    include_first: bool = False
    """The first one, with the true box."""
    toolkit: bool = False
    """The others as in the toolkits, see the module's description."""

    def __str__(self) -> str:
        first = "included" if self.include_first else "excluded"
        absent = "missed" if self.toolkit else "excluded"
        return f"first frame {first}, absent frames {absent}"


@dataclasses.dataclass(frozen=True, eq=False)
class Benchmark:
    """What trackers are evaluated on, and how."""

    name: str | None
    """None for sequences that are no benchmark."""
    sequences: tuple[Sequence, ...]
    """None where only the truth is known."""
    truths: Mapping[str, np.ndarray]
    """Name of a sequence -> boxes ``[T, 4]`` ``ltwh``, NaN where the target is absent;
    nothing where only the first box is known."""
    lengths: Mapping[str, int]
    """Name of a sequence -> T."""
    whole: int
    """Sequences of the whole benchmark; 0 where it is not known."""
    convention: Convention
    """Which frames count."""

    @property
    def complete(self) -> bool:
        """Whether all sequences are there."""
        return len(self.lengths) >= self.whole


class NetworkCost(NamedTuple):
    """How large the network of a tracker is."""

    parameters: int
    """Trained numbers."""
    flops: int
    """Operations of a frame's search branch; a multiply-add counts as 2."""


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """A tracker's results and figures."""

    tracker: str
    """Name."""
    runs: Runs
    """By name of sequence."""
    sequences: Mapping[str, OpeMetrics]
    """By name of sequence; mean over its runs. Empty where no truth is known."""
    mean: OpeMetrics | None
    """Mean over sequences."""
    got10k: Got10kMetrics | None
    """GOT-10k's figures over all frames of all runs."""
    repaired: Mapping[str, int]
    """Name of a sequence -> predicted boxes without area, where there are some."""
    network: NetworkCost | None = None
    """None for a tracker without one, and where it is not known."""
    missing: tuple[str, ...] = ()
    """Sequences without results that can be used: figures are those of the others."""

    @classmethod
    def of(
        cls,
        tracker: str,
        runs: Runs,
        benchmark: Benchmark,
        *,
        network: NetworkCost | None = None,
        missing: Collection[str] = (),
    ) -> Self:
        """Computes the figures of a tracker.

        Args:
            tracker: its name.
            runs: its results.
            benchmark: what it is evaluated on.
            network: what it costs, where that is known.
            missing: sequences that are left out.

        Raises:
            InputError: a sequence cannot be evaluated.
            data.read.images.ImageError: a first frame of GOT-10k has no size.
        """
        metrics = {
            name: evaluate_runs(name, runs[name], truth, benchmark.convention)
            for name, truth in benchmark.truths.items()
            if name not in missing
        }
        counts = {n: sum(_empty(r.boxes).sum() for r in runs[n]) for n in metrics}
        return cls(
            tracker,
            runs,
            metrics,
            ope.mean_metrics(metrics.values()) if metrics else None,
            _evaluate_got10k(runs, benchmark) if benchmark.name == GOT10K else None,
            {name: int(count) for name, count in counts.items() if count},
            network,
            tuple(missing),
        )

    @property
    def fps(self) -> float | None:
        """Updates a second over all runs; None where it is not known."""
        return _known(total_fps(run for runs in self.runs.values() for run in runs))

    def fps_of(self, name: str) -> float | None:
        """Updates a second on a sequence; None where it is not known."""
        return _known(total_fps(self.runs[name]))

    @property
    def ms(self) -> float | None:
        """Median milliseconds of an update over all runs; None where not known."""
        runs = [run for runs in self.runs.values() for run in runs]
        return _known(1000 * float(np.median(np.hstack([r.seconds[1:] for r in runs]))))

    def cost(self) -> dict[str, float | None]:
        """What a frame costs, by the names of tables; None where it is not known."""
        size = self.network
        return {
            "ms": self.ms,
            "M param": size and size.parameters / 1e6,
            "GFLOP": size and size.flops / 1e9,
        }

    def extra(self) -> dict[str, float]:
        """GOT-10k's figures by the names of its tables."""
        if self.got10k is None:
            return {}
        found = self.got10k
        return {"AO": found.ao, "SR.50": found.sr50, "SR.75": found.sr75}


def evaluate_runs(
    name: str, runs: tuple[Run, ...], truth: np.ndarray, convention: Convention
) -> OpeMetrics:
    """Figures of a sequence, mean over its runs.

    Raises:
        InputError: naming the sequence, the frame and the box.
    """
    try:
        return ope.mean_metrics(_evaluate(run.boxes, truth, convention) for run in runs)
    except MetricError as error:
        raise InputError(f"{name}: {error}") from error


def as_json(entry: Entry, benchmark: Benchmark) -> dict[str, Any]:
    """The figures of a tracker, JSON-ready."""
    convention = benchmark.convention
    if entry.mean is None:
        frames = {name: len(runs[0].boxes) for name, runs in entry.runs.items()}
        sequences = {n: {"fps": entry.fps_of(n), "frames": frames[n]} for n in frames}
        report = {"tracker": entry.tracker, "fps": entry.fps, "sequences": sequences}
    else:
        sequences = {n: (row, entry.fps_of(n)) for n, row in entry.sequences.items()}
        report = make_report(
            entry.tracker,
            sequences,
            mean=entry.mean,
            fps=entry.fps,
            skip_first=not convention.include_first,
        )
        report["convention"]["normalized_precision_auc"] = (
            "mean over 51 thresholds 0..0.5 of the share within"
        )
        report["convention"]["ms"] = "median of all updates, timed as fps"
        report["convention"]["flops"] = (
            "search branch of a frame; a multiply-add counts as 2"
        )
        if convention.toolkit:
            report["convention"]["absent_frames"] = "included, as missed"
    report |= {
        "ms": entry.ms,
        "parameters": entry.network and entry.network.parameters,
        "flops": entry.network and entry.network.flops,
    }
    if entry.got10k is not None:
        figures = dataclasses.asdict(entry.got10k)
        report |= {key: figures[key] for key in ("ao", "sr50", "sr75")}
        report["convention"]["ao"] = (
            "mean overlap of all frames together but the first ones and absent ones, "
            "boxes clipped to the image"
        )
        report["convention"]["sr50"] = "share of those frames with an overlap > 0.5"
        report["convention"]["sr75"] = "share of those frames with an overlap > 0.75"
    if entry.repaired:
        report["boxes_without_area"] = dict(entry.repaired)
    if benchmark.name:
        complete = benchmark.complete and not entry.missing
        report |= {"benchmark": benchmark.name, "complete": complete}
    if entry.missing:
        report["missing"] = list(entry.missing)
    return report


def _evaluate(
    predicted: np.ndarray, truth: np.ndarray, convention: Convention
) -> OpeMetrics:
    if convention.include_first and len(predicted) == len(truth):
        predicted = np.concatenate([truth[:1], predicted[1:]])
    if convention.toolkit:
        predicted = _repair(predicted)
        # The toolkits count pixels from 1, and ask for numbers above 0.
        within = (truth + FROM_ONE > 0).all(axis=1, keepdims=True)
        truth = np.where(within, truth, np.nan)
    return ope.evaluate(
        predicted,
        truth,
        skip_first=not convention.include_first,
        count_absent=convention.toolkit,
    )


def _repair(boxes: np.ndarray) -> np.ndarray:
    """Boxes without area become the last one that has some."""
    kept = np.where(_empty(boxes), 0, np.arange(len(boxes)))
    return boxes[np.maximum.accumulate(kept)]


def _empty(boxes: np.ndarray) -> np.ndarray:
    return boxes[:, 2:].min(axis=1) <= 0


def _evaluate_got10k(runs: Runs, benchmark: Benchmark) -> Got10kMetrics:
    # Boxes are clipped as its files have them, which count pixels from 1.
    return ope.evaluate_got10k(
        (run.boxes + FROM_ONE, one.boxes + FROM_ONE, read_size(one.frames[0]))
        for one in benchmark.sequences
        for run in runs.get(one.name, ())
    )


def _known(fps: float) -> float | None:
    return fps if np.isfinite(fps) else None


def make_report(
    tracker: str,
    sequences: Mapping[str, tuple[OpeMetrics, float | None]],
    *,
    mean: OpeMetrics,
    fps: float | None,
    skip_first: bool,
) -> dict[str, Any]:
    """Gathers an evaluation in a JSON-ready dictionary.

    Args:
        tracker: name of the tracker.
        sequences: metrics and frames a second of each sequence; None where unknown.
        mean: mean over the sequences.
        fps: frames a second over all frames; None where unknown.
        skip_first: whether the first frame was left out.
    """
    return {
        "tracker": tracker,
        "convention": {
            "first_frame": "excluded" if skip_first else "included",
            "auc": "mean over 21 overlap thresholds 0..1 of the share of frames above",
            "precision": "share of frames with a centre error <= 20 px",
            "normalized_precision": "share with a relative centre error <= 0.2",
            "absent_frames": "excluded",
            "mean": "each sequence weighs the same",
            "fps": "all updates / their time, without compilation and decoding",
        },
        **_figures(mean, fps),
        "sequences": {
            name: _figures(metrics, speed)
            for name, (metrics, speed) in sequences.items()
        },
    }


def _figures(metrics: OpeMetrics, fps: float | None) -> dict[str, float | int | None]:
    return {
        "auc": metrics.auc,
        "precision": metrics.precision,
        "normalized_precision": metrics.normalized_precision,
        "normalized_precision_auc": metrics.normalized_precision_auc,
        "fps": fps,
        "frames": metrics.frames,
    }
