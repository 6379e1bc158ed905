"""One-shot tracking on the device (paper, sections 4.2 and 4.3).

The algorithm in three lines::

    template, state = init_track(variables, frame, box, model=model)
    for frame in frames:
        state, output = track_step(variables, template, state, frame, ...)

``track_step`` is pure and jitted, from a uint8 frame to a box: ``Template`` is fixed
after the first frame, ``TrackState`` moves, ``TrackOutput`` tells. Boxes are ``cxcywh``
in frame pixels. Weights, template and state are data: equal configs share one compiled
function for each frame size, whatever the target. Padded to one size, frames of many
sizes share one, too: see ``init_track``'s ``frame_size``.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from siamrpn_jax.model import boxes, fused
from siamrpn_jax.model.network import Detection, SiamRPN, model_anchors
from siamrpn_jax.model.rpn import Template
from siamrpn_jax.tracking import crops

NEAR_IOU = 0.3
"""Proposals that overlap the winner more than this speak for it, others against it."""

_MOTION_RATE = 0.5
"""Share of the last frame in the mean motion."""

_MAX_ODDS = 20.0
"""Log odds beyond this say no more."""

Weights = Any
"""``inference.prepare``'s, or the variables ``{"params": …, "batch_stats": …}``
themselves: then preparing them is part of each call."""


@dataclasses.dataclass(frozen=True)
class TrackerConfig:
    """How a box is chosen among the proposals; each stage can be switched off."""

    center_size: int | None = None
    """g: only the middle g x g cells of the score map compete; None takes all. On a map
    of odd side, an even g counts as the next lower odd one, and the other way round."""
    penalty_k: float = 0.055
    """k of Eq. 13, strength of the penalty on changes of size and ratio; 0: none."""
    window_influence: float = 0.42
    """Share of the cosine window in the final score; 0: none."""
    size_lr: float = 0.295
    """Share of the new size in the smoothed size, times score and penalty."""
    voting_iou: float = 1.0
    """Proposals that overlap the winner at least this much share in the box, weighted
    by score and penalty; 1: the winner's alone."""
    motion: float = 0.0
    """The search region runs ahead of the target by this share of its mean motion; 0:
    it stays where the target was."""
    top_k: int = 8
    """Proposals reported, best first; the first one is the winner."""
    nms_iou: float | None = None
    """Report no proposal that overlaps a better one more than this; None: no NMS. The
    winner is the same with and without."""
    min_size: float = 10.0
    """The reported box is never narrower or lower than this many frame pixels."""
    confidence_bias: float = -4.0
    """Confidence is ``sigmoid(bias + support weight * support + margin weight *
    margin)``; see `gather_evidence`."""
    confidence_support: float = 1.1
    """Weight of the support."""
    confidence_margin: float = 0.24
    """Weight of the margin."""
    margin_rate: float = 0.3
    """Share of a new frame in the running average of the margin."""
    lost_below: float = 0.1
    """A target becomes lost where its confidence falls below this."""
    found_above: float = 0.5
    """A lost target is found again where its confidence rises above this."""
    when_lost: Literal["follow", "hold"] = "follow"
    """While lost: follow the best proposal, or hold the box where it was last seen."""
    lost_search: float = 1.0
    """While lost, the search patch shows a region so many times as wide and high."""


class Constants(struct.PyTreeNode):
    """The numbers of a ``TrackerConfig`` as data: others compile nothing.

    float32 scalars, or with leading axes for ``vmap``; fields as in ``TrackerConfig``.
    """

    penalty_k: jax.Array
    window_influence: jax.Array
    size_lr: jax.Array
    voting_iou: jax.Array
    motion: jax.Array
    min_size: jax.Array
    confidence_bias: jax.Array
    confidence_support: jax.Array
    confidence_margin: jax.Array
    margin_rate: jax.Array
    lost_below: jax.Array
    found_above: jax.Array
    lost_search: jax.Array

    @classmethod
    def of(cls, config: TrackerConfig) -> "Constants":
        """Those of a config."""
        names = (field.name for field in dataclasses.fields(cls))
        return cls(**{name: jnp.float32(getattr(config, name)) for name in names})


class TrackState(struct.PyTreeNode):
    """What one frame hands to the next; all of it float32."""

    box: jax.Array
    """float32 ``[4]``: ``cxcywh`` of the target in frame pixels."""
    fill: jax.Array
    """float32 ``[3]``: channel mean of the first frame, the colour outside frames."""
    frame_size: jax.Array
    """float32 ``[2]``: width and height of the frames without their padding."""
    age: jax.Array
    """float32 ``[]``: frames since the first."""
    margin: jax.Array
    """float32 ``[]``: running average, see `gather_evidence`."""
    lost: jax.Array
    """float32 ``[]``: 1 if the target was lost in the last frame, else 0."""
    motion: jax.Array
    """float32 ``[2]``: mean motion of the target's centre, frame pixels a frame."""
    search_shift: jax.Array
    """float32 ``[2]``: from the box's centre to that of the next search region."""
    search_scale: jax.Array
    """float32 ``[]``: how many times as wide and high the next search region is."""


class TrackOutput(struct.PyTreeNode):
    """What one frame shows."""

    box: jax.Array
    """float32 ``[4]``: ``cxcywh`` in frame pixels, smoothed and clipped."""
    score: jax.Array
    """Probability of the winner to be the target, before penalty and window. It may
    stay high when the target is lost: something else then looks like it."""
    windowed_score: jax.Array
    """The winner's score after penalty and window, by which it won."""
    proposals: jax.Array
    """float32 ``[top_k, 4]``: the best proposals, ``cxcywh`` in frame pixels."""
    proposal_scores: jax.Array
    """float32 ``[top_k]``: their final scores, falling; 0 where NMS removed one."""
    evidence: jax.Array
    """float32 ``[2]``: support and averaged margin, see `gather_evidence`."""
    confidence: jax.Array
    """Probability in 0..1 that the target is still followed, of the evidence."""
    lost: jax.Array
    """bool ``[]``: the confidence says that the target is lost."""


class Proposals(struct.PyTreeNode):
    """All N proposals of a frame in search patch pixels."""

    boxes: jax.Array
    """``cxcywh [N, 4]``."""
    scores: jax.Array
    """``[N]``, as the network gives them; 0 outside the centre region."""
    penalties: jax.Array
    """``[N]``, in 0..1."""
    windowed: jax.Array
    """``[N]``, the final scores."""


@functools.partial(jax.jit, static_argnames="model")
def init_track(
    weights: Weights,
    frame: jax.Array,
    box: jax.Array,
    *,
    model: SiamRPN,
    frame_size: ArrayLike | None = None,
) -> tuple[Template, TrackState]:
    """Learns a target from its box in the first frame (section 4.2).

    Args:
        weights: of the model.
        frame: ``[H, W, 3]`` RGB uint8.
        box: ``cxcywh [4]`` in frame pixels, of positive size.
        model: the network (static).
        frame_size: width and height ``[2]`` of the image where the frames are padded at
            their right and lower ends; what they are padded with has no influence.

    Returns:
        the detection kernels, batch axis 1, and the first state.
    """
    box = jnp.asarray(box, jnp.float32)
    if model.config.crop == "pysot":  # x + (w - 1) / 2 comes back as x + w / 2
        box -= jnp.array([0.5, 0.5, 0.0, 0.0])
    whole = frame.shape[1::-1] if frame_size is None else frame_size
    whole = jnp.asarray(whole, jnp.float32)
    fill = crops.channel_mean(frame, frame_size=whole)
    side = crops.context_side(box[2:], context=model.config.context)
    size = model.config.exemplar_size
    z = crops.crop_and_resize(
        frame,
        box[:2],
        side,
        fill,
        size=size,
        frame_size=whole,
        whole_pixels=model.config.crop != "exact",
    )
    template = fused.embed_template(model, weights, z[None])
    return template, first_state(box, fill, whole)


def first_state(box: jax.Array, fill: jax.Array, frame_size: jax.Array) -> TrackState:
    """The state before the first step; fields as in ``TrackState``."""
    return TrackState(
        box=box,
        fill=fill,
        frame_size=frame_size,
        age=jnp.float32(0),
        margin=jnp.float32(0),
        lost=jnp.float32(0),
        motion=jnp.zeros(2, jnp.float32),
        search_shift=jnp.zeros(2, jnp.float32),
        search_scale=jnp.float32(1),
    )


@functools.partial(jax.jit, static_argnames=("model", "config"))
def track_step(
    weights: Weights,
    template: Template,
    state: TrackState,
    frame: jax.Array,
    *,
    model: SiamRPN,
    config: TrackerConfig = TrackerConfig(),
    constants: Constants | None = None,
) -> tuple[TrackState, TrackOutput]:
    """Finds the target in the next frame: crop, detect, select, smooth.

    Args:
        weights: of the model.
        template: from ``init_track``.
        state: from ``init_track`` or the last step.
        frame: ``[H, W, 3]`` RGB uint8.
        model: the network (static).
        config: how the box is chosen (static).
        constants: numbers to take in place of the config's.

    Returns:
        the next state, and the output for this frame.
    """
    first = jnp.zeros((), jnp.int32)
    x = search_patch(state, frame[None], first, model=model)
    detection = fused.detect(model, weights, template, x[None])
    return select_box(state, detection, model=model, config=config, constants=constants)


def select_box(
    state: TrackState,
    detection: Detection,
    *,
    model: SiamRPN,
    config: TrackerConfig,
    constants: Constants | None = None,
) -> tuple[TrackState, TrackOutput]:
    """What ``track_step`` makes of the network's answer for one target."""
    constants = constants or Constants.of(config)
    scale = _patch_scale(state, model)
    last_size = state.box[2:] * scale
    proposals = rank_proposals(
        detection, last_size, model=model, config=config, constants=constants
    )
    best = jnp.argmax(proposals.windowed)
    box = vote(proposals, best, voting_iou=constants.voting_iou)
    box = _to_frame(box, state, scale, model=model)
    step = constants.size_lr * proposals.penalties[best] * proposals.scores[best]
    size = state.box[2:] + step * (box[2:] - state.box[2:])
    box = jnp.concatenate([box[:2], size])
    box = _clip(box, state.frame_size, constants.min_size)
    evidence = gather_evidence(state, detection, proposals.boxes, best, constants)
    confidence, lost = judge(evidence, state.lost > 0, constants)
    if config.when_lost == "hold":
        box = jnp.where(lost, state.box, box)
    top, top_scores = _best_proposals(proposals, config)
    output = TrackOutput(
        box=box,
        score=proposals.scores[best],
        windowed_score=proposals.windowed[best],
        proposals=_to_frame(top, state, scale, model=model),
        proposal_scores=top_scores,
        evidence=evidence,
        confidence=confidence,
        lost=lost,
    )
    motion = state.motion + _MOTION_RATE * (box[:2] - state.box[:2] - state.motion)
    ahead = box[:2] + constants.motion * motion
    state = state.replace(
        box=box,
        motion=motion,
        search_shift=jnp.clip(ahead, 0.0, state.frame_size) - box[:2],
        age=state.age + 1,
        margin=evidence[1],
        lost=lost.astype(jnp.float32),
        search_scale=jnp.where(lost, constants.lost_search, 1.0),
    )
    return state, output


def make_tracker(
    model: SiamRPN, weights: Weights, *, config: TrackerConfig = TrackerConfig()
) -> tuple[
    Callable[..., tuple[Template, TrackState]],
    Callable[[Template, TrackState, ArrayLike], tuple[TrackState, TrackOutput]],
]:
    """Closes over network, prepared weights and constants.

    Returns:
        ``init(frame, box) -> (template, state)``, which takes ``frame_size`` too, and
        ``step(template, state, frame) -> (state, output)``. A new target compiles
        nothing. To close over its kernels too: ``functools.partial(step, template)``.
    """
    weights = fused.as_prepared(model, weights)
    init = functools.partial(init_track, weights, model=model)
    step = functools.partial(track_step, weights, model=model, config=config)
    return init, step


@functools.partial(jax.jit, static_argnames=("model", "config"))
def track_clip(
    weights: Weights,
    template: Template,
    state: TrackState,
    frames: jax.Array,
    *,
    model: SiamRPN,
    config: TrackerConfig = TrackerConfig(),
    constants: Constants | None = None,
) -> tuple[TrackState, TrackOutput]:
    """Tracks through a clip ``[T, H, W, 3]`` in one device call, by ``lax.scan``.

    Returns:
        the last state, and the outputs stacked along a first axis of length T.
    """
    prepared = fused.as_prepared(model, weights)  # once, not in every step

    def step(state: TrackState, frame: jax.Array) -> tuple[TrackState, TrackOutput]:
        return track_step(
            prepared,
            template,
            state,
            frame,
            model=model,
            config=config,
            constants=constants,
        )

    return jax.lax.scan(step, state, frames)


def search_patch(
    state: TrackState, frames: jax.Array, index: jax.Array, *, model: SiamRPN
) -> jax.Array:
    """The search patch ``[X, X, 3]`` around the last box, of frame ``index``."""
    size = model.config.instance_size
    return crops.crop_from(
        frames,
        index,
        state.box[:2] + state.search_shift,
        size / _patch_scale(state, model),
        state.fill,
        size=size,
        frame_size=state.frame_size,
        whole_pixels=model.config.crop != "exact",
    )


def rank_proposals(
    detection: Detection,
    last_size: jax.Array,
    *,
    model: SiamRPN,
    config: TrackerConfig,
    constants: Constants | None = None,
) -> Proposals:
    """Decodes and scores all proposals of one search patch (Eqs 12-14).

    The paper's text applies window, penalty and NMS in this order; as in every
    implementation, the penalty comes first and the window is blended in:
    ``(1 - wi) * score * penalty + wi * window``.

    Args:
        detection: of one patch, with a batch axis of 1 or none.
        last_size: width and height of the last box in patch pixels.
        model: for anchors and sizes.
        config: how they are scored.
        constants: numbers to take in place of the config's.
    """
    constants = constants or Constants.of(config)
    anchors = jnp.asarray(model_anchors(model.config))
    proposals = boxes.decode(detection.reg_deltas.reshape(-1, 4), anchors)
    scores = jax.nn.softmax(detection.cls_logits.reshape(-1, 2))[:, 1]
    penalties = change_penalty(
        proposals[:, 2:],
        last_size,
        k=constants.penalty_k,
        context=model.config.context,
    )
    window, inside = _window_and_center(model, config)
    windowed = (1 - constants.window_influence) * scores * penalties
    windowed += constants.window_influence * window
    return Proposals(
        boxes=proposals,
        scores=scores * inside,
        penalties=penalties,
        windowed=jnp.where(inside, windowed, 0.0),
    )


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
    weights = weights.at[best].set(jnp.maximum(weights[best], 1e-6))
    return winner + weights @ (proposals.boxes - winner) / weights.sum()


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


def gather_evidence(
    state: TrackState,
    detection: Detection,
    proposals: jax.Array,
    best: jax.Array,
    constants: Constants,
) -> jax.Array:
    """What tells a target that is followed from one that is lost.

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
        constants: ``margin_rate`` is used.

    Returns:
        float32 ``[2]``, both finite.
    """
    logits = detection.cls_logits.reshape(-1, 2)
    odds = jnp.clip(logits[:, 1] - logits[:, 0], -_MAX_ODDS, _MAX_ODDS)
    near = boxes.iou(proposals, proposals[best]) > NEAR_IOU
    near |= jnp.arange(len(near)) == best  # whatever is the IoU of an endless box
    support = jnp.log(jnp.sum(jnp.where(near, jax.nn.sigmoid(odds), 0.0)))
    highest = jnp.max(jnp.where(near, odds, -_MAX_ODDS))
    margin = highest - jnp.max(jnp.where(near, -_MAX_ODDS, odds))
    rate = jnp.maximum(constants.margin_rate, 1 / (state.age + 1))
    return jnp.stack([support, state.margin + rate * (margin - state.margin)])


def judge(
    evidence: jax.Array, was_lost: jax.Array, constants: Constants
) -> tuple[jax.Array, jax.Array]:
    """Confidence in 0..1, and whether the target is lost.

    Between ``lost_below`` and ``found_above`` it stays what it was.
    """
    weights = jnp.stack([constants.confidence_support, constants.confidence_margin])
    confidence = jax.nn.sigmoid(constants.confidence_bias + weights @ evidence)
    threshold = jnp.where(was_lost, constants.found_above, constants.lost_below)
    return confidence, confidence < threshold


def non_maximum_suppression(
    candidates: jax.Array, *, iou_threshold: float
) -> jax.Array:
    """Greedy NMS of boxes sorted best first.

    Args:
        candidates: ``cxcywh [K, 4]``.
        iou_threshold: a box that overlaps a kept better one more than this is dropped.

    Returns:
        bool ``[K]``: kept. The first always is.
    """
    count = len(candidates)
    overlaps = boxes.iou(candidates[:, None], candidates[None]) > iou_threshold

    def visit(i: jax.Array, keep: jax.Array) -> jax.Array:
        later = jnp.arange(count) > i
        return jnp.where(keep[i], keep & ~(overlaps[i] & later), keep)

    return jax.lax.fori_loop(0, count, visit, jnp.ones(count, bool))


def _patch_scale(state: TrackState, model: SiamRPN) -> jax.Array:
    """Zoom of the search patch, patch pixels a frame pixel."""
    side = crops.context_side(state.box[2:], context=model.config.context)
    return model.config.exemplar_size / side / state.search_scale


def _window_and_center(
    model: SiamRPN, config: TrackerConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine window and centre region by anchor, ``[N]``; constants of the trace."""
    cells, per_cell = model.config.score_size, len(model.config.anchors.ratios)
    hann = np.hanning(cells).astype(np.float32)
    window = np.outer(hann, hann)
    radius = ((config.center_size or cells) - 1) / 2
    near = np.abs(np.arange(cells) - (cells - 1) / 2) <= radius
    inside = np.outer(near, near)
    return np.repeat(window, per_cell), np.repeat(inside, per_cell)


def _best_proposals(
    proposals: Proposals, config: TrackerConfig
) -> tuple[jax.Array, jax.Array]:
    scores, index = jax.lax.top_k(proposals.windowed, config.top_k)
    best = proposals.boxes[index]
    if config.nms_iou is not None:
        keep = non_maximum_suppression(best, iou_threshold=config.nms_iou)
        scores = jnp.where(keep, scores, 0.0)
        order = jnp.argsort(-scores, stable=True)
        best, scores = best[order], scores[order]
    return best, scores


def _to_frame(
    patch_boxes: jax.Array, state: TrackState, scale: jax.Array, *, model: SiamRPN
) -> jax.Array:
    """Boxes ``cxcywh [..., 4]`` from search patch to frame pixels."""
    middle = model.config.instance_size / 2
    center = state.box[:2] + state.search_shift
    center += (patch_boxes[..., :2] - middle) / scale
    return jnp.concatenate([center, patch_boxes[..., 2:] / scale], -1)


def _clip(box: jax.Array, frame_size: jax.Array, min_size: jax.Array) -> jax.Array:
    """Centre into the frame, size between ``min_size`` and the frame's."""
    center = jnp.clip(box[:2], 0.0, frame_size)
    size = jnp.clip(box[2:], min_size, frame_size)
    return jnp.concatenate([center, size])
