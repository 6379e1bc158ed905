"""The confidence: whether a target is still followed, and how that is learned.

``confidence_features`` and ``predict_lost`` run on the device in every step;
``fit_confidence`` fits their weights to frames by logistic regression, and ``auroc``
measures how well a number separates followed from lost frames.

Example::

    fields = fit_confidence(outputs.evidence, followed)
    config = dataclasses.replace(config, **fields)
"""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model import boxes
from siamrpn_jax.model.network import Detection
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.state import TrackState

NEAR_IOU = 0.3
"""Proposals that overlap the winner more than this speak for it, others against it."""

MAX_ODDS = 20.0
"""Log odds beyond this say no more."""

_FIELDS = ("confidence_support", "confidence_margin", "confidence_bias")

_DECAY = 1e-4
"""Weight decay of the fit, for evidence with a deviation of 1: keeps the weights finite
where the evidence separates the classes without error."""

_STEPS = 100
"""At most; Newton's method needs about ten."""


def confidence_features(
    state: TrackState,
    detection: Detection,
    proposals: jax.Array,
    best: jax.Array,
    *,
    config: TrackerConfig,
) -> jax.Array:
    """Support and margin: two numbers that separate followed from lost targets.

    The winner's score alone is high wherever something looks like the target. Two
    numbers say more, and need no further pass of the network. Near is what overlaps the
    winner by an IoU above .3, far is all else:

    - support: log of the sum of the near proposals' scores. A target is seen by many
      anchors in many cells, a chance likeness by few.
    - margin: log odds of the best near proposal minus those of the best far one, as a
      running average over frames; at the start the plain mean of the frames so far.

    Args:
        state: before the step, with the average so far.
        detection: of one patch, with a batch axis of 1 or none.
        proposals: all N, decoded, ``cxcywh [N, 4]``.
        best: index of the winner.
        config: ``margin_rate`` is used.

    Returns:
        float32 ``[2]``, both finite.
    """
    logits = detection.cls_logits.reshape(-1, 2)
    odds = jnp.clip(logits[:, 1] - logits[:, 0], -MAX_ODDS, MAX_ODDS)
    near = boxes.iou(proposals, proposals[best]) > NEAR_IOU
    near |= jnp.arange(len(near)) == best  # whatever is the IoU of an endless box
    support = jnp.log(jnp.sum(jnp.where(near, jax.nn.sigmoid(odds), 0.0)))
    highest = jnp.max(jnp.where(near, odds, -MAX_ODDS))
    margin = highest - jnp.max(jnp.where(near, -MAX_ODDS, odds))
    rate = jnp.maximum(config.margin_rate, 1 / (state.age + 1))
    return jnp.stack([support, state.margin + rate * (margin - state.margin)])


def predict_lost(
    evidence: jax.Array, was_lost: jax.Array, *, config: TrackerConfig
) -> tuple[jax.Array, jax.Array]:
    """Confidence in 0..1 (logistic regression), and whether the target is lost.

    Between ``lost_below`` and ``found_above`` the answer stays what it was.

    Args:
        evidence: from ``confidence_features``, float32 ``[2]``.
        was_lost: the answer in the last frame, bool ``[]``.
        config: weights and thresholds.
    """
    weights = jnp.stack([config.confidence_support, config.confidence_margin])
    confidence = jax.nn.sigmoid(config.confidence_bias + weights @ evidence)
    threshold = jnp.where(was_lost, config.found_above, config.lost_below)
    return confidence, confidence < threshold


def fit_confidence(evidence: ArrayLike, followed: ArrayLike) -> dict[str, float]:
    """Fits the confidence to frames of which is known whether the target is followed.

    Both classes weigh the same in total: how often a target gets lost differs from film
    to film, and so a confidence of .5 is where the evidence tips.

    Args:
        evidence: ``[n, 2]``, ``TrackOutput.evidence`` of n frames.
        followed: bool ``[n]``.

    Returns:
        the fields of ``TrackerConfig`` whose names begin with ``confidence_``.

    Raises:
        InputError: other shapes, numbers that are not finite, or frames of one class.
    """
    x, y = np.asarray(evidence, np.float64), np.asarray(followed, bool)
    if x.ndim != 2 or x.shape[1] != len(_FIELDS) - 1 or not np.isfinite(x).all():
        raise InputError(f"evidence {x.shape}, expected finite numbers [n, 2]")
    counts = _count_classes(len(x), y)
    mean, deviation = x.mean(0), np.maximum(x.std(0), 1e-9)
    weights = 0.5 / counts[y.astype(int)]
    *slopes, bias = _newton((x - mean) / deviation, y, weights)
    slopes = slopes / deviation
    values = [*slopes.tolist(), float(bias - slopes @ mean)]
    return dict(zip(_FIELDS, values, strict=True))


def auroc(values: ArrayLike, followed: ArrayLike) -> float:
    """Chance that a number is higher where the target is followed than where it is not.

    The area under the ROC curve: 1 if the number separates the two without error, .5
    if it says nothing. Equal numbers count half.

    Args:
        values: ``[n]``, such as confidences.
        followed: bool ``[n]``.

    Raises:
        InputError: other shapes, numbers that are NaN, or frames of one class.
    """
    values, y = np.asarray(values, np.float64), np.asarray(followed, bool)
    if values.ndim != 1 or np.isnan(values).any():
        raise InputError(f"values {values.shape}, expected numbers [n]")
    lost, kept = _count_classes(len(values), y)
    _, place, times = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(times) - (times - 1) / 2)[place]  # from 1, ties share theirs
    return float((ranks[y].sum() - kept * (kept + 1) / 2) / (kept * lost))


def _count_classes(count: int, followed: np.ndarray) -> np.ndarray:
    """How many frames are lost, and followed."""
    if followed.shape != (count,):
        raise InputError(f"followed {followed.shape}, expected ({count},)")
    counts = np.bincount(followed.astype(int), minlength=2)
    if not counts.all():
        raise InputError(
            f"{counts[1]} frames with the target followed and {counts[0]} with it "
            "lost, expected some of both"
        )
    return counts


def _newton(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Slopes and, last, the bias of the weighted logistic regression."""
    x = np.column_stack([x, np.ones(len(x))])
    decay = np.append(np.full(x.shape[1] - 1, _DECAY), 0.0)

    def loss(t: np.ndarray) -> float:
        margins = np.where(y, 1, -1) * (x @ t)
        return float(weights @ np.logaddexp(0, -margins) + 0.5 * decay @ t**2)

    theta = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        p = 0.5 * (1 + np.tanh(x @ theta / 2))
        gradient = x.T @ (weights * (p - y)) + decay * theta
        curvature = (x * (weights * p * (1 - p))[:, None]).T @ x
        step = np.linalg.solve(curvature + np.diag(decay + 1e-12), gradient)
        share = 1.0
        while share > 1e-6 and loss(theta - share * step) > loss(theta):
            share /= 2
        theta = theta - share * step
        if np.abs(step).max() < 1e-9:
            break
    return theta
