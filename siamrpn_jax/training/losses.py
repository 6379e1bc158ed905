"""The loss of a batch of pairs (paper, Eqs 4-6), as sums over a global batch.

Everything is divided by counts taken over all devices, so the loss, its gradient and
the learning rate mean the same on one device and on eight.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from siamrpn_jax.model import boxes
from siamrpn_jax.training.config import LossConfig
from siamrpn_jax.training.targets import Targets


def classification_loss(
    logits: jax.Array,
    targets: Targets,
    *,
    deltas: jax.Array,
    config: LossConfig,
    axis_name: str | None,
) -> jax.Array:
    """Softmax cross-entropy, half over the positive anchors, half over the negative.

    Args:
        logits: ``[B, N, 2]``; index 1 is the target.
        targets: batched, ``[B, N]``.
        deltas: predicted offsets ``[B, N, 4]``, used for the IoU target when
            ``score_target`` is ``iou``; they carry no gradient.
        config: ``score_target`` and ``hard_negatives``.
        axis_name: device axis to take the means over, or None.

    Returns:
        this device's share of the loss; the shares of all devices add up to it.
    """
    loss_positive, loss_negative = cross_entropies(logits)
    if config.score_target == "iou":
        wanted = jax.lax.stop_gradient(boxes.iou(*_unit_boxes(deltas, targets)))
        loss_positive = wanted * loss_positive + (1 - wanted) * loss_negative
    positives = _mean(loss_positive, targets.positive, axis_name)
    negatives = _negatives(loss_negative, targets.negative, config, axis_name)
    return 0.5 * (positives + negatives)


def in_batch_loss(
    logits: jax.Array,
    same_origin: jax.Array,
    *,
    config: LossConfig,
    axis_name: str | None,
) -> jax.Array:
    """Cross-entropy of pairs whose exemplar shows another target: all are negatives.

    Args:
        logits: ``[B, N, 2]`` of search patches against other pairs' exemplars.
        same_origin: bool ``[B]``: the exemplar's target may be in the patch; such
            pairs are left out.
        config: ``hard_negatives``.
        axis_name: device axis to take the mean over, or None.

    Returns:
        this device's share of the loss.
    """
    _, loss_negative = cross_entropies(logits)
    counted = jnp.broadcast_to(~same_origin[:, None], loss_negative.shape)
    return _negatives(loss_negative, counted, config, axis_name)


def teacher_loss(
    logits: jax.Array,
    scores: jax.Array,
    *,
    config: LossConfig,
    axis_name: str | None,
) -> jax.Array:
    """Cross-entropy of each cell's best anchor with what a teacher says of the cell.

    As in ``classification_loss``, half is over the target and half over the rest: each
    cell counts in both, by how sure the teacher is.

    Args:
        logits: ``[B, n, n, K, 2]``.
        scores: the teacher's, in 0..1, ``[B, n, n]``.
        config: ``hard_negatives``.
        axis_name: device axis to take the means over, or None.

    Returns:
        this device's share of the loss, without its weight.
    """
    size, every = len(scores), jnp.ones((len(scores), scores[0].size), bool)
    best = jnp.argmax(logits[..., 1] - logits[..., 0], axis=-1)
    logits = jnp.take_along_axis(logits, best[..., None, None], axis=-2)
    loss_positive, loss_negative = cross_entropies(logits.reshape(size, -1, 2))
    wanted = scores.reshape(size, -1)
    total = _sum(wanted.sum(), axis_name)
    positives = (wanted * loss_positive).sum() / jnp.maximum(total, 1.0)
    negatives = _negatives((1 - wanted) * loss_negative, every, config, axis_name)
    return 0.5 * (positives + negatives)


def regression_loss(
    deltas: jax.Array, targets: Targets, *, config: LossConfig, axis_name: str | None
) -> jax.Array:
    """Smooth L1, summed over the coordinates, mean over positive anchors (Eq. 6).

    Args:
        deltas: ``[B, N, 4]``.
        targets: batched, ``[B, N]`` and ``[B, N, 4]``.
        config: ``sigma``.
        axis_name: device axis to take the mean over, or None.

    Returns:
        this device's share of the loss, without its weight λ.
    """
    errors = smooth_l1(deltas, targets.deltas, sigma=config.sigma).sum(-1)
    return _mean(errors, targets.positive, axis_name)


def overlap_loss(
    deltas: jax.Array, targets: Targets, *, axis_name: str | None
) -> jax.Array:
    """1 - GIoU of predicted and true boxes, mean over positive anchors.

    Args:
        deltas: ``[B, N, 4]``.
        targets: batched, ``[B, N]`` and ``[B, N, 4]``.
        axis_name: device axis to take the mean over, or None.

    Returns:
        this device's share of the loss, without its weight.
    """
    overlap = boxes.generalised_iou(*_unit_boxes(deltas, targets))
    return _mean(1 - overlap, targets.positive, axis_name)


def smooth_l1(
    predictions: jax.Array, targets: jax.Array, *, sigma: float | None
) -> jax.Array:
    """Smooth L1 of Eq. 4, elementwise; plain L1 where ``sigma`` is None."""
    if sigma is None:
        return jnp.abs(predictions - targets)
    return sigma**2 * optax.huber_loss(predictions, targets, delta=1 / sigma**2)


def cross_entropies(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of two-way logits ``[..., 2]`` if positive, and if negative."""
    margin = (logits[..., 1] - logits[..., 0]).astype(jnp.float32)
    return jax.nn.softplus(-margin), jax.nn.softplus(margin)


def _unit_boxes(deltas: jax.Array, targets: Targets) -> tuple[jax.Array, jax.Array]:
    """Predicted and true boxes in units of their anchors, which IoUs do not notice."""
    unit = np.array([0, 0, 1, 1], np.float32)
    predicted = boxes.decode(deltas.astype(jnp.float32), jnp.asarray(unit, jnp.float32))
    return predicted, boxes.decode(targets.deltas, jnp.asarray(unit, jnp.float32))


def _negatives(
    losses: jax.Array, mask: jax.Array, config: LossConfig, axis_name: str | None
) -> jax.Array:
    everything = _mean(losses, mask, axis_name)
    if not config.hard_negatives:
        return everything
    hardest, index = jax.lax.top_k(jnp.where(mask, losses, 0.0), config.hard_negatives)
    chosen = jnp.take_along_axis(mask, index, axis=-1)
    return 0.5 * (everything + _mean(hardest, chosen, axis_name))


def _mean(values: jax.Array, mask: jax.Array, axis_name: str | None) -> jax.Array:
    """Mean over the masked values of all devices, this device's share of it."""
    count = _sum(mask.sum(dtype=jnp.float32), axis_name)
    return jnp.where(mask, values, 0.0).sum() / jnp.maximum(count, 1.0)


def _sum(value: jax.Array, axis_name: str | None) -> jax.Array:
    """Sum of a number over all devices."""
    return value if axis_name is None else jax.lax.psum(value, axis_name)
