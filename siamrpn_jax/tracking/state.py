"""What tracking remembers and reports, as pytrees, and where the search patch lies.

``TrackState`` moves from frame to frame, ``TrackOutput`` is the report of one frame.
Boxes are ``cxcywh``, in continuous pixels of the frame or of the search patch, as said.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking import crops
from siamrpn_jax.tracking.config import TrackerConfig

STATIC_FIELDS = (
    *("center_size", "top_k", "nms_iou", "when_lost", "scales"),
    *("online_frames", "second_template", "distractors"),
)
"""Fields of ``TrackerConfig`` that decide shapes and branches. All others are numbers,
and data: changing one compiles nothing, and ``vmap`` goes over them."""

MOTION_RATE = 0.5
"""Share of the last frame in the mean motion."""

jax.tree_util.register_dataclass(
    TrackerConfig,
    data_fields=[
        field.name
        for field in dataclasses.fields(TrackerConfig)
        if field.name not in STATIC_FIELDS
    ],
    meta_fields=list(STATIC_FIELDS),
)


class Loaded(NamedTuple):
    """A tracker as a weights file holds it: network, weights, config and model card."""

    model: SiamRPN
    variables: dict[str, Any]
    """``{"params": …, "batch_stats": …}``, float32 NumPy arrays."""
    tracker_config: TrackerConfig
    card: dict[str, Any]
    """Where the weights come from, see ``cards.FIELDS``."""


class TrackState(struct.PyTreeNode):
    """What one frame hands to the next."""

    box: jax.Array
    """float32 ``[4]``: ``cxcywh`` of the target in frame pixels."""
    fill: jax.Array
    """float32 ``[3]``: channel mean of the first frame, the colour outside frames."""
    frame_size: jax.Array
    """float32 ``[2]``: width and height of the frames without their padding."""
    age: jax.Array
    """float32 ``[]``: number of frames since the first."""
    margin: jax.Array
    """float32 ``[]``: running average of the margin, see ``confidence_features``."""
    lost: jax.Array
    """float32 ``[]``: 1 if the target was lost in the last frame, else 0."""
    motion: jax.Array
    """float32 ``[2]``: mean motion of the target's centre, frame pixels a frame."""
    search_shift: jax.Array
    """float32 ``[2]``: from the box's centre to that of the next search region."""
    search_scale: jax.Array
    """float32 ``[]``: width and height of the next search region, relative to usual."""
    memory: Any = None
    """A ``tracking.memory.Memory``, or None where the config keeps none."""


class TrackOutput(struct.PyTreeNode):
    """What one frame shows."""

    box: jax.Array
    """float32 ``[4]``: ``cxcywh`` in frame pixels, smoothed and clipped."""
    score: jax.Array
    """float32 ``[]``: probability of the winner to be the target, before penalty and
    window. It may stay high when the target is lost: something else looks like it."""
    windowed_score: jax.Array
    """float32 ``[]``: the winner's score after penalty and window, by which it won."""
    proposals: jax.Array
    """float32 ``[top_k, 4]``: the best proposals, ``cxcywh`` in frame pixels."""
    proposal_scores: jax.Array
    """float32 ``[top_k]``: their final scores, falling; 0 where NMS removed one."""
    evidence: jax.Array
    """float32 ``[2]``: support and averaged margin, see ``confidence_features``."""
    confidence: jax.Array
    """float32 ``[]``: probability in 0..1 that the target is still followed."""
    lost: jax.Array
    """bool ``[]``: the confidence says that the target is lost."""


class Proposals(struct.PyTreeNode):
    """All N = F·F·K proposals of a frame, in search patch pixels."""

    boxes: jax.Array
    """float32 ``[N, 4]``: ``cxcywh``."""
    scores: jax.Array
    """float32 ``[N]``: as the network gives them; 0 outside the centre region."""
    penalties: jax.Array
    """float32 ``[N]``: in 0..1, 1 for no change of size and ratio (Eq. 13)."""
    windowed: jax.Array
    """float32 ``[N]``: the final scores."""


def first_state(box: jax.Array, fill: jax.Array, frame_size: jax.Array) -> TrackState:
    """The state before the first step; arguments as the fields of ``TrackState``."""
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


def with_frame_size(state: TrackState, size: tuple[int, ...]) -> TrackState:
    """A state of one target or many that goes on in frames of this width and height."""
    like = state.frame_size
    return state.replace(frame_size=jnp.broadcast_to(jnp.float32(size), like.shape))


def check_frames(frames: ArrayLike, *, axes: str) -> None:
    """Checks the form of frames; their values are not looked at.

    Args:
        frames: RGB uint8.
        axes: what to call their axes, for example ``H, W, 3``.

    Raises:
        InputError: another type or shape.
    """
    shape, dtype = jnp.shape(frames), jnp.result_type(frames)
    right = len(shape) == axes.count(",") + 1 and shape[-1] == 3 and 0 not in shape
    if not right or dtype != jnp.uint8:
        raise InputError(f"frame of {dtype} {list(shape)}, expected RGB uint8 [{axes}]")


def float32_numbers(config: TrackerConfig) -> TrackerConfig:
    """The config with all its numbers as float32 arrays."""
    return jax.tree.map(jnp.float32, config)


def patch_scale(state: TrackState, *, model: SiamRPN) -> jax.Array:
    """Zoom of the search patch: patch pixels per frame pixel."""
    side = crops.context_side(state.box[2:], context=model.config.context)
    return model.config.exemplar_size / side / state.search_scale


def exemplar_patch(
    state: TrackState,
    box: jax.Array,
    frames: jax.Array,
    index: jax.Array,
    *,
    model: SiamRPN,
) -> jax.Array:
    """The exemplar patch ``[Z, Z, 3]`` of a box ``cxcywh [4]`` in one frame.

    Args:
        state: for size and fill of the frames.
        box: in frame pixels.
        frames: ``[V, H, W, 3]`` RGB uint8.
        index: which of them, 0 to V - 1.
        model: for size, context and the way of cutting.
    """
    return crops.crop_from(
        frames,
        index,
        box[:2],
        crops.context_side(box[2:], context=model.config.context),
        state.fill,
        size=model.config.exemplar_size,
        frame_size=state.frame_size,
        whole_pixels=model.config.crop != "exact",
    )


def search_patches(
    state: TrackState,
    frames: jax.Array,
    index: jax.Array,
    *,
    model: SiamRPN,
    config: TrackerConfig = TrackerConfig(),
) -> jax.Array:
    """The search patches ``[S, X, X, 3]`` around the last box, cut from one frame.

    One where the head finds boxes, ``config.scales`` of them where it does not.

    Args:
        state: with the last box ``[4]``.
        frames: ``[V, H, W, 3]`` RGB uint8.
        index: which of them, 0 to V - 1.
        model: for sizes and the way of cutting.
        config: for the scales.
    """
    size = model.config.instance_size

    def cut(side: jax.Array) -> jax.Array:
        return crops.crop_from(
            frames,
            index,
            state.box[:2] + state.search_shift,
            side,
            state.fill,
            size=size,
            frame_size=state.frame_size,
            whole_pixels=model.config.crop != "exact",
        )

    side = size / patch_scale(state, model=model)
    if model.config.head.regresses:
        return cut(side)[None]
    return jax.vmap(cut)(side * scale_factors(config))


def scale_factors(config: TrackerConfig) -> jax.Array:
    """Sides of the search regions relative to the usual one, ``[S]``."""
    steps = np.arange(config.scales, dtype=np.float32) - config.scales // 2
    return jnp.asarray(config.scale_step, jnp.float32) ** steps


def advance(
    state: TrackState, output: TrackOutput, config: TrackerConfig
) -> TrackState:
    """The state after a frame: where the next search region lies, and its size."""
    box = output.box
    motion = state.motion + MOTION_RATE * (box[:2] - state.box[:2] - state.motion)
    ahead = box[:2] + config.motion * motion
    wider = jnp.minimum(
        state.search_scale + config.lost_search_step, config.lost_search
    )
    return state.replace(
        box=box,
        motion=motion,
        search_shift=jnp.clip(ahead, 0.0, state.frame_size) - box[:2],
        age=state.age + 1,
        margin=output.evidence[1],
        lost=output.lost.astype(jnp.float32),
        search_scale=jnp.where(output.lost, wider, 1.0),
    )


def to_frame(patch_boxes: jax.Array, state: TrackState, *, model: SiamRPN) -> jax.Array:
    """Boxes ``cxcywh [..., 4]`` from search patch to frame pixels."""
    scale = patch_scale(state, model=model)
    middle = model.config.instance_size / 2
    center = state.box[:2] + state.search_shift
    center += (patch_boxes[..., :2] - middle) / scale
    return jnp.concatenate([center, patch_boxes[..., 2:] / scale], -1)
