"""One-pass evaluation (OPE): overlap, success, precision, normalised precision.

A tracker is started on the first frame and runs once to the end. Boxes are ``ltwh``
rows in continuous pixel coordinates; a ground-truth row holding NaN is a frame without
the target and counts for nothing. Sources: Wu et al., "Online Object Tracking: A
Benchmark" (CVPR 2013) for success and precision; Müller et al., "TrackingNet" (ECCV
2018) and Fan et al., "LaSOT" (CVPR 2019) for the normalised precision; Huang et al.,
"GOT-10k" (TPAMI 2019) for average overlap and success rates.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model.boxes import iou, ltwh_to_cxcywh

SUCCESS_THRESHOLDS = np.linspace(0.0, 1.0, 21)
"""Overlaps of the success curve: 0, 0.05, …, 1."""

PRECISION_THRESHOLDS = np.arange(51.0)
"""Centre errors of the precision curve in pixels: 0, 1, …, 50."""

NORMALIZED_THRESHOLDS = np.arange(51) / 100
"""Relative centre errors of the normalised precision curve: 0, 0.01, …, 0.5."""


class MetricError(InputError):
    """Boxes that cannot be evaluated."""


@dataclasses.dataclass(frozen=True, eq=False)
class OpeMetrics:
    """Figures of one sequence; all in 0..1 but the number of frames."""

    auc: float
    """Mean of the success curve: the success AUC."""
    precision: float
    """Share of frames whose centre error is at most 20 pixels."""
    normalized_precision: float
    """Share of frames whose relative centre error is at most 0.2 (LaSOT)."""
    normalized_precision_auc: float
    """Mean of the normalised precision curve over 0..0.5 (TrackingNet)."""
    frames: int
    """Number of frames counted."""
    success_curve: np.ndarray
    """[21]: share of frames with an overlap above each of SUCCESS_THRESHOLDS."""
    precision_curve: np.ndarray
    """[51]: share of frames within each of PRECISION_THRESHOLDS."""
    normalized_precision_curve: np.ndarray
    """[51]: share of frames within each of NORMALIZED_THRESHOLDS."""


@dataclasses.dataclass(frozen=True, eq=False)
class Got10kMetrics:
    """GOT-10k's figures, of one sequence or of many; all in 0..1 but the frames."""

    ao: float
    """Average overlap."""
    sr50: float
    """Share of frames with an overlap above 0.5."""
    sr75: float
    """Share of frames with an overlap above 0.75."""
    frames: int
    """Number of frames counted."""


def evaluate(
    predicted: np.ndarray,
    truth: np.ndarray,
    *,
    skip_first: bool = True,
    count_absent: bool = False,
) -> OpeMetrics:
    """Evaluates the boxes of one sequence.

    Args:
        predicted: [T, 4] ``ltwh``, one row a frame, the first being the given box.
        truth: [T, 4] ``ltwh``; rows with NaN are frames without the target.
        skip_first: leave out the first frame, where the tracker was given its box and
            so did not earn it. The OTB toolkit counts it: pass False for its figures.
        count_absent: whether frames without the target count, as missed, which is what
            the toolkits of OTB, UAV123, NfS and LaSOT do.

    Raises:
        MetricError: shapes differ, a prediction is not finite, or no frame remains.
    """
    predicted = np.asarray(predicted, np.float64)
    truth = np.asarray(truth, np.float64)
    counted = _counted_frames(predicted, truth, skip_first=skip_first)
    frames = len(truth) - skip_first if count_absent else len(counted)
    present = len(counted) / frames
    predicted, truth = predicted[counted], truth[counted]
    success = present * success_curve(overlaps(predicted, truth))
    precision = present * precision_curve(center_errors(predicted, truth))
    normalized = present * normalized_precision_curve(
        normalized_center_errors(predicted, truth)
    )
    return OpeMetrics(
        auc=float(success.mean()),
        precision=float(precision[20]),
        normalized_precision=float(normalized[20]),
        normalized_precision_auc=float(normalized.mean()),
        frames=frames,
        success_curve=success,
        precision_curve=precision,
        normalized_precision_curve=normalized,
    )


def evaluate_got10k(
    sequences: Iterable[tuple[np.ndarray, np.ndarray, tuple[int, int]]],
) -> Got10kMetrics:
    """GOT-10k's figures over all frames of all sequences together, as its toolkit.

    The first frame of a sequence never counts, nor do frames without the target. The
    paper's mAO is another figure: a mean over classes of objects.

    Args:
        sequences: for each, predicted boxes and truth as for ``evaluate``, and width
            and height of the image, to which boxes are clipped as ``clip_got10k`` does.

    Raises:
        MetricError: as ``evaluate`` says, or there is no sequence.
    """
    overlap = []
    for predicted, truth, size in sequences:
        predicted = np.asarray(predicted, np.float64)
        truth = np.asarray(truth, np.float64)
        counted = _counted_frames(predicted, truth, skip_first=True)
        pair = [clip_got10k(boxes[counted], size) for boxes in (predicted, truth)]
        overlap.append(overlaps(pair[0], pair[1]))
    if not overlap:
        raise MetricError("the figures of no sequence: expected at least one")
    every = np.concatenate(overlap)
    return Got10kMetrics(
        ao=float(every.mean()),
        sr50=float((every > 0.5).mean()),
        sr75=float((every > 0.75).mean()),
        frames=len(every),
    )


def clip_got10k(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Clips ``ltwh`` boxes ``[T, 4]`` to an image of width and height ``size``.

    As GOT-10k's toolkit: a corner left of or above the image moves to its edge with the
    whole box, which keeps its size.
    """
    corner = np.clip(boxes[:, :2], 0, size)
    return np.concatenate([corner, np.clip(boxes[:, 2:], 0, size - corner)], axis=1)


def mean_metrics(metrics: Iterable[OpeMetrics]) -> OpeMetrics:
    """Mean over sequences, each weighing the same (frames are summed).

    Raises:
        MetricError: there is nothing to average.
    """
    rows = list(metrics)
    if not rows:
        raise MetricError("the mean of no sequence: expected at least one")

    def mean(name: str) -> np.ndarray:
        return np.mean([getattr(row, name) for row in rows], axis=0)

    return OpeMetrics(
        auc=float(mean("auc")),
        precision=float(mean("precision")),
        normalized_precision=float(mean("normalized_precision")),
        normalized_precision_auc=float(mean("normalized_precision_auc")),
        frames=sum(row.frames for row in rows),
        success_curve=mean("success_curve"),
        precision_curve=mean("precision_curve"),
        normalized_precision_curve=mean("normalized_precision_curve"),
    )


def overlaps(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """IoU of each pair of boxes.

    Args:
        predicted: [T, 4] ``ltwh``.
        truth: [T, 4] ``ltwh``.

    Returns:
        [T] in 0..1.
    """
    overlap = iou(ltwh_to_cxcywh(predicted), ltwh_to_cxcywh(truth))
    # Rounding may lift the overlap of equal boxes over 1, the strict last threshold.
    return np.minimum(overlap, 1.0)


def center_errors(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Distance between the centres of each pair of ``ltwh`` boxes: [T] pixels."""
    return np.linalg.norm(_center_offsets(predicted, truth), axis=-1)


def normalized_center_errors(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Distance between centres, x in widths and y in heights of the truth: [T]."""
    return np.linalg.norm(_center_offsets(predicted, truth) / truth[:, 2:], axis=-1)


def success_curve(overlap: np.ndarray) -> np.ndarray:
    """Share of frames whose overlap is strictly above each threshold: [T] -> [21]."""
    return (overlap[:, None] > SUCCESS_THRESHOLDS).mean(axis=0)


def precision_curve(error: np.ndarray) -> np.ndarray:
    """Share of frames whose centre error is at most each threshold: [T] -> [51]."""
    return (error[:, None] <= PRECISION_THRESHOLDS).mean(axis=0)


def normalized_precision_curve(error: np.ndarray) -> np.ndarray:
    """Share of frames whose relative error is at most each threshold: [T] -> [51]."""
    return (error[:, None] <= NORMALIZED_THRESHOLDS).mean(axis=0)


def _center_offsets(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return ltwh_to_cxcywh(predicted)[:, :2] - ltwh_to_cxcywh(truth)[:, :2]


def _counted_frames(
    predicted: np.ndarray, truth: np.ndarray, *, skip_first: bool
) -> np.ndarray:
    if predicted.shape != truth.shape or truth.ndim != 2 or truth.shape[1] != 4:
        raise MetricError(
            f"predicted boxes have shape {predicted.shape}, ground truth "
            f"{truth.shape}: expected the same [frames, 4]"
        )
    counted = np.asarray(~np.isnan(truth).any(axis=1))
    _check_boxes("predicted", predicted, counted)
    _check_boxes("ground-truth", truth, counted)
    counted[:1] &= not skip_first
    if not counted.any():
        raise MetricError(
            f"none of the {len(truth)} frames can be counted: expected a ground-truth "
            f"box in at least one frame{' after the first' if skip_first else ''}"
        )
    return np.flatnonzero(counted)


def _check_boxes(kind: str, boxes: np.ndarray, counted: np.ndarray) -> None:
    good = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    for index in np.flatnonzero(counted & ~good)[:1]:
        raise MetricError(
            f"{kind} box of frame {index} is {boxes[index].tolist()}: expected finite "
            "x,y,w,h with w and h above 0"
        )
