"""Training targets: which anchors are positive, which negative (paper, section 3.3).

Written for one pair, with fixed shapes: ``vmap`` over the batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from siamrpn_jax.model import boxes
from siamrpn_jax.training.config import TargetConfig


class Targets(NamedTuple):
    """Targets of one pair; N anchors."""

    positive: jax.Array
    """bool [N]: sampled positive anchors."""
    negative: jax.Array
    """bool [N]: sampled negative anchors."""
    deltas: jax.Array
    """float32 [N, 4]: regression targets (Eq. 3), meaningful at positive anchors."""


def make_targets(
    rng: jax.Array,
    box: jax.Array,
    is_positive: jax.Array,
    anchors: jax.Array,
    *,
    config: TargetConfig,
) -> Targets:
    """Labels, samples and encodes the anchors of one pair.

    Args:
        rng: random key for the sampling.
        box: target ``cxcywh [4]`` in search patch pixels.
        is_positive: scalar; 0 where the target is not in the search patch at all: then
            all anchors are negatives.
        anchors: ``cxcywh [N, 4]``.
        config: thresholds and numbers.

    Returns:
        the pair's ``Targets``.
    """
    overlap = boxes.iou(box, anchors) * (is_positive > 0)
    positive, negative = label_anchors(overlap, config=config)
    positive_rng, negative_rng = jax.random.split(rng)
    most = config.max_positives
    if most is not None:
        positive = _sample(positive_rng, positive, most, most=most)
    most = config.max_samples
    if most is not None:
        negative = _sample(negative_rng, negative, most - positive.sum(), most=most)
    return Targets(positive, negative, boxes.encode(box, anchors))


def make_cell_targets(
    box: jax.Array, is_positive: jax.Array, cells: jax.Array, *, config: TargetConfig
) -> Targets:
    """Labels the cells of one pair's score map by their distance from the target.

    For heads with one score a cell (Bertinetto et al., ECCV workshops 2016, Eq. 4);
    the reference puts each target in the middle of its search patch, here it may be
    anywhere.

    Args:
        box: target ``cxcywh [4]`` in search patch pixels.
        is_positive: as for ``make_targets``.
        cells: their anchors, ``cxcywh [N, 4]``.
        config: ``radius`` is used.

    Returns:
        the pair's ``Targets``; heads without boxes learn no offsets.
    """
    distance = jnp.linalg.norm(cells[:, :2] - box[:2], axis=-1)
    positive = (distance <= config.radius) & (is_positive > 0)
    return Targets(positive, ~positive, boxes.encode(box, cells))


def label_anchors(
    overlap: jax.Array, *, config: TargetConfig
) -> tuple[jax.Array, jax.Array]:
    """Positive and negative anchors, bool ``[N]`` each, by their IoU ``[N]``."""
    positive = overlap > config.positive_iou
    if config.force_best:
        best = overlap.max()
        positive |= (overlap >= best - 1e-6) & (best > config.negative_iou)
    return positive, overlap < config.negative_iou


def _sample(
    rng: jax.Array, candidates: jax.Array, count: jax.Array | int, *, most: int
) -> jax.Array:
    """A random subset of ``count`` of the candidates; ``most`` is its static bound."""
    lottery = jnp.where(
        candidates, jax.random.uniform(rng, candidates.shape, jnp.float32), -1.0
    )
    _, winners = jax.lax.top_k(lottery, min(most, candidates.size))
    drawn = jnp.arange(len(winners)) < count
    return jnp.zeros_like(candidates).at[winners].set(drawn) & candidates
