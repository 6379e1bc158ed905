"""The box of a score map without boxes: the best place in the best of some scales.

SiamFC's tracker (Bertinetto et al., ECCV workshops 2016, section 4.1), with the
constants and in the order of its published code.
"""

import jax
import jax.numpy as jnp
import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model.config import total_stride
from siamrpn_jax.model.network import Detection, SiamRPN, model_anchors
from siamrpn_jax.tracking.confidence import confidence_features, predict_lost
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.selection import best_proposals
from siamrpn_jax.tracking.state import (
    Proposals,
    TrackOutput,
    TrackState,
    advance,
    float32_numbers,
    patch_scale,
    scale_factors,
)

UPSAMPLING = 16
"""The response is enlarged this many times before its highest place is looked for."""


def select_scale(
    state: TrackState,
    detection: Detection,
    *,
    model: SiamRPN,
    config: TrackerConfig,
) -> tuple[TrackState, TrackOutput]:
    """Turns the score maps of one target's S search patches into its box.

    Args:
        state: before the step.
        detection: of the search patches, with a first axis of S.
        model: the network.
        config: how the box is chosen.

    Returns:
        the next state, and the output for this frame.

    Raises:
        InputError: the config has a centre region.
    """
    if config.center_size is not None:
        raise InputError(
            f"center_size is {config.center_size}, expected none: it is for heads that "
            "find boxes"
        )
    config = float32_numbers(config)
    logits = (detection.cls_logits[..., 1] - detection.cls_logits[..., 0])[..., 0]
    responses = enlarge(logits)
    scale = best_scale(responses, config)
    place, score, windowed = best_place(responses[scale], config)
    factor = scale_factors(config)[scale]
    pixel = factor / patch_scale(state, model=model)  # frame pixels of a patch pixel
    center = state.box[:2] + state.search_shift
    center += place * total_stride(model.config.backbone) * pixel
    size = state.box[2:] * (1 + config.size_lr * (factor - 1))
    size = jnp.clip(size, config.min_size, state.frame_size)
    box = jnp.concatenate([jnp.clip(center, 0.0, state.frame_size), size])

    chosen = jax.tree.map(lambda maps: maps[scale], detection)
    cells = _cells(state, logits[scale], pixel, model=model, config=config)
    best = jnp.argmax(cells.windowed)
    evidence = confidence_features(state, chosen, cells.boxes, best, config=config)
    confidence, lost = predict_lost(evidence, state.lost > 0, config=config)
    if config.when_lost == "hold":
        box = jnp.where(lost, state.box, box)
    top, top_scores = best_proposals(cells, config)
    output = TrackOutput(
        box=box,
        score=score,
        windowed_score=windowed,
        proposals=top,
        proposal_scores=top_scores,
        evidence=evidence,
        confidence=confidence,
        lost=lost,
    )
    return advance(state, output, config), output


def enlarge(responses: jax.Array) -> jax.Array:
    """Score maps ``[S, F, F]`` enlarged by bicubic interpolation."""
    count, rows, columns = responses.shape
    shape = (count, UPSAMPLING * rows, UPSAMPLING * columns)
    return jax.image.resize(responses, shape, "cubic", antialias=False)


def best_scale(responses: jax.Array, config: TrackerConfig) -> jax.Array:
    """Number of the scale with the highest response, changes of scale penalised.

    Args:
        responses: enlarged, ``[S, n, n]``.
        config: ``scale_penalty`` is used.
    """
    peaks = responses.max((1, 2))
    middle = np.arange(len(responses)) == len(responses) // 2
    return jnp.argmax(jnp.where(middle, 1.0, config.scale_penalty) * peaks)


def best_place(
    response: jax.Array, config: TrackerConfig
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The highest place of a response, blended with the cosine window.

    Args:
        response: enlarged, ``[n, n]``.
        config: ``window_influence`` is used.

    Returns:
        x and y from the middle in cells of the score map ``[2]``; the probability
        there; and the blended response there, relative to the highest that a window
        alone would have.
    """
    side = len(response)
    hann = np.hanning(side)
    window = np.outer(hann, hann)
    highest = np.float32(1 / window.sum())
    window = (window / window.sum()).astype(np.float32)
    share = response - response.min()
    share /= share.sum() + 1e-16
    blended = (1 - config.window_influence) * share + config.window_influence * window
    best = jnp.argmax(blended)
    at = jnp.stack([best % side, best // side]).astype(jnp.float32)
    place = (at - (side - 1) / 2) / UPSAMPLING
    score = jax.nn.sigmoid(response.ravel()[best])
    return place, score, blended.ravel()[best] / highest


def _cells(
    state: TrackState,
    logits: jax.Array,
    pixel: jax.Array,
    *,
    model: SiamRPN,
    config: TrackerConfig,
) -> Proposals:
    """The cells of a score map ``[F, F]`` as proposals, in frame pixels."""
    middle = model.config.instance_size / 2
    places = jnp.asarray(model_anchors(model.config)[:, :2] - middle)
    centers = state.box[:2] + state.search_shift + places * pixel
    sizes = jnp.broadcast_to(state.box[2:], centers.shape)
    scores = jax.nn.sigmoid(logits.ravel())
    hann = np.hanning(len(logits)).astype(np.float32)
    windowed = (1 - config.window_influence) * scores
    windowed += config.window_influence * np.outer(hann, hann).ravel()
    return Proposals(
        boxes=jnp.concatenate([centers, sizes], -1),
        scores=scores,
        penalties=jnp.ones_like(scores),
        windowed=windowed,
    )
