"""Choosing the box among the proposals of a search patch (paper, section 4.3)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model import boxes
from siamrpn_jax.model.config import ModelConfig
from siamrpn_jax.model.network import Detection, SiamRPN, model_anchors
from siamrpn_jax.tracking import crops
from siamrpn_jax.tracking.confidence import confidence_features, predict_lost
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.state import (
    Proposals,
    TrackOutput,
    TrackState,
    advance,
    float32_numbers,
    patch_scale,
    to_frame,
)

LEAST_VOTE = 1e-6
"""What the winner's vote counts at least: its box is taken where all scores are 0."""


def select_box(
    state: TrackState,
    detection: Detection,
    *,
    model: SiamRPN,
    config: TrackerConfig,
) -> tuple[TrackState, TrackOutput]:
    """Turns the network's answer for one target into its box (section 4.3).

    Args:
        state: before the step.
        detection: of the search patch, with a batch axis of 1 or none.
        model: the network.
        config: how the box is chosen.

    Returns:
        the next state, and the output for this frame.
    """
    config = float32_numbers(config)
    last_size = state.box[2:] * patch_scale(state, model=model)
    proposals = rank_proposals(detection, last_size, model=model, config=config)
    best = jnp.argmax(proposals.windowed)
    voted = vote(proposals, best, voting_iou=config.voting_iou)
    evidence = confidence_features(
        state, detection, proposals.boxes, best, config=config
    )
    confidence, lost = predict_lost(evidence, state.lost > 0, config=config)
    weight = proposals.penalties[best] * proposals.scores[best]
    weight *= 1 + config.size_confidence * (confidence - 1)
    box = smooth_size(state, to_frame(voted, state, model=model), weight, config)
    if config.when_lost == "hold":
        box = jnp.where(lost, state.box, box)
    top, top_scores = best_proposals(proposals, config)
    output = TrackOutput(
        box=box,
        score=proposals.scores[best],
        windowed_score=proposals.windowed[best],
        proposals=to_frame(top, state, model=model),
        proposal_scores=top_scores,
        evidence=evidence,
        confidence=confidence,
        lost=lost,
    )
    return advance(state, output, config), output


def rank_proposals(
    detection: Detection,
    last_size: jax.Array,
    *,
    model: SiamRPN,
    config: TrackerConfig,
) -> Proposals:
    """Decodes and scores all proposals of one search patch (Eqs 12-14).

    The paper's text applies window, penalty and NMS in this order; as in every
    implementation, the penalty comes first and the window is blended in:
    ``(1 - wi) * score * penalty + wi * window``.

    Args:
        detection: of one patch, with a batch axis of 1 or none.
        last_size: width and height of the last box in patch pixels.
        model: for anchors and sizes.
        config: constants of penalty and window, and the centre region.
    """
    anchors = jnp.asarray(model_anchors(model.config), jnp.float32)
    proposals = boxes.decode(detection.reg_deltas.reshape(-1, 4), anchors)
    scores = jax.nn.softmax(detection.cls_logits.reshape(-1, 2))[:, 1]
    penalties = change_penalty(
        proposals[:, 2:],
        last_size,
        k=config.penalty_k,
        context=model.config.context,
    )
    window, inside = window_and_center(model.config, config)
    windowed = (1 - config.window_influence) * scores * penalties
    windowed += config.window_influence * window
    return Proposals(
        boxes=proposals,
        scores=scores * inside,
        penalties=penalties,
        windowed=jnp.where(inside, windowed, 0.0),
    )


def change_penalty(
    sizes: jax.Array,
    last_size: jax.Array,
    *,
    k: float | jax.Array,
    context: float = 0.5,
) -> jax.Array:
    """Penalty on changes of ratio and scale, 1 for none (Eq. 13).

    The paper prints ``exp(k * …)``, which would reward change; read as
    ``exp(-k * (ratio_change * scale_change - 1))``, as everyone does.

    Args:
        sizes: widths and heights of proposals ``[N, 2]``.
        last_size: those of the last frame's box ``[2]``.
        k: strength.
        context: as in ``crops.context_side``, whose result is the scale s of Eq. 14.

    Returns:
        ``[N]`` in 0..1.
    """
    ratio = (sizes[:, 0] / sizes[:, 1]) / (last_size[0] / last_size[1])
    scale = crops.context_side(sizes, context=context)
    scale = scale / crops.context_side(last_size, context=context)
    change = jnp.maximum(ratio, 1 / ratio) * jnp.maximum(scale, 1 / scale)
    return jnp.exp(-k * (change - 1))


def vote(proposals: Proposals, best: jax.Array, *, voting_iou: ArrayLike) -> jax.Array:
    """The mean of the winner and of what agrees with it, a steadier box than its own.

    As in the box voting of detectors (Gidaris and Komodakis, ICCV 2015, section 5.2).

    Args:
        proposals: all N.
        best: index of the winner.
        voting_iou: what overlaps the winner at least this much has a vote.

    Returns:
        ``cxcywh [4]`` in search patch pixels.
    """
    winner = proposals.boxes[best]
    has_vote = boxes.iou(proposals.boxes, winner) >= voting_iou
    weights = jnp.where(has_vote, proposals.scores * proposals.penalties, 0.0)
    # Relative to the winner: nothing is lost where it stands alone.
    weights = weights.at[best].set(jnp.maximum(weights[best], LEAST_VOTE))
    return winner + weights @ (proposals.boxes - winner) / weights.sum()


def smooth_size(
    state: TrackState,
    box: jax.Array,
    weight: jax.Array,
    config: TrackerConfig,
) -> jax.Array:
    """Lets the size follow slowly, the faster the higher the winner's score is.

    Args:
        state: with the last size.
        box: the new box, ``cxcywh [4]`` in frame pixels.
        weight: of the new size, in 0..1: the winner's score times its penalty.
        config: ``size_lr`` and ``min_size`` are used.

    Returns:
        ``cxcywh [4]`` in frame pixels: the centre within the frame, the size between
        ``min_size`` and the frame's.
    """
    rate = config.size_lr * weight
    size = state.box[2:] + rate * (box[2:] - state.box[2:])
    center = jnp.clip(box[:2], 0.0, state.frame_size)
    return jnp.concatenate([center, jnp.clip(size, config.min_size, state.frame_size)])


def window_and_center(
    model: ModelConfig, config: TrackerConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine window and centre region by anchor, ``[N]``; constants of the trace.

    Raises:
        InputError: the centre region does not fit the score map, or there are fewer
            proposals than are to be kept.
    """
    cells, per_cell = model.score_size, len(model.anchors.ratios)
    if config.top_k > cells * cells * per_cell:
        raise InputError(
            f"top_k is {config.top_k}, expected at most the {cells * cells * per_cell} "
            "proposals that this network makes"
        )
    hann = np.hanning(cells).astype(np.float32)
    window = np.outer(hann, hann)
    side = config.center_size or cells
    if side > cells or (cells - side) % 2:
        parity = "odd" if cells % 2 else "even"
        raise InputError(
            f"center_size is {side} on a map of {cells}x{cells} cells, expected an "
            f"{parity} number of at most {cells}"
        )
    radius = (side - 1) / 2
    near = np.abs(np.arange(cells) - (cells - 1) / 2) <= radius
    inside = np.outer(near, near)
    return np.repeat(window, per_cell), np.repeat(inside, per_cell)


def best_proposals(
    proposals: Proposals, config: TrackerConfig
) -> tuple[jax.Array, jax.Array]:
    """The ``top_k`` best, ``cxcywh [k, 4]``, and their final scores, after NMS."""
    scores, index = jax.lax.top_k(proposals.windowed, config.top_k)
    best = proposals.boxes[index]
    if config.nms_iou is not None:
        keep = boxes.non_maximum_suppression(best, iou_threshold=config.nms_iou)
        scores = jnp.where(keep, scores, 0.0)
        order = jnp.argsort(-scores, stable=True)
        best, scores = best[order], scores[order]
    return best, scores
