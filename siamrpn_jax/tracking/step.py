"""One-shot tracking on the device (paper, sections 4.2 and 4.3).

The algorithm in three lines::

    template, state = init_track(weights, frame, box, model=model)
    for frame in frames:
        state, output = track_step(weights, template, state, frame, ...)

``track_step`` is pure and jitted, from a uint8 frame to a box: ``Template`` is fixed
after the first frame, ``TrackState`` moves, ``TrackOutput`` is the report. Boxes are
``cxcywh`` in frame pixels. Weights, template, state and the config's numbers are data:
equal models share one compiled function for each frame size, whatever the target.
Padded to one size, frames of many sizes share one, too: see ``frame_size``.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike

from siamrpn_jax.model import fused
from siamrpn_jax.model.boxes import BoxError, check_start
from siamrpn_jax.model.network import Detection, SiamRPN
from siamrpn_jax.model.promotion import standard_promotion
from siamrpn_jax.model.rpn import Template
from siamrpn_jax.tracking import crops
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.memory import first_memory, recall, remember, study
from siamrpn_jax.tracking.scales import select_scale
from siamrpn_jax.tracking.selection import select_box
from siamrpn_jax.tracking.state import (
    TrackOutput,
    TrackState,
    check_frames,
    exemplar_patch,
    first_state,
    float32_numbers,
    search_patches,
)

Weights = Any
"""What ``fused.fuse`` returns, or the variables ``{"params": …, "batch_stats": …}``
themselves: then each call fuses them."""


@functools.partial(jax.jit, static_argnames="model")
@standard_promotion
def track_step(
    weights: Weights,
    template: Template,
    state: TrackState,
    frame: jax.Array,
    *,
    model: SiamRPN,
    config: TrackerConfig = TrackerConfig(),
) -> tuple[TrackState, TrackOutput]:
    """Finds the target in the next frame: crop, detect, select.

    Args:
        weights: of the model.
        template: from ``init_track``.
        state: from ``init_track`` or the last step.
        frame: ``[H, W, 3]`` RGB uint8.
        model: the network (static).
        config: how the box is chosen; its numbers are data, and may be arrays.

    Returns:
        the next state, and the output for this frame.

    Raises:
        InputError: the frame has another type or shape.
    """
    check_frames(frame, axes="H, W, 3")
    frames, first = frame[None], jnp.zeros((), jnp.int32)
    x = search_patches(state, frames, first, model=model, config=config)
    template = recall(template, state.memory, config=config)
    detection = detect(weights, template, x[None], model=model, config=config)
    detection = jax.tree.map(lambda maps: maps[0], detection)
    after, output = select(state, detection, model=model, config=config)
    keep = functools.partial(remember, weights, model=model, config=config)
    return keep(state, after, detection, output, frames, first), output


def init_track(
    weights: Weights,
    frame: ArrayLike,
    box: ArrayLike,
    *,
    model: SiamRPN,
    config: TrackerConfig = TrackerConfig(),
    frame_size: ArrayLike | None = None,
) -> tuple[Template, TrackState]:
    """Learns a target from its box in the first frame (section 4.2).

    Args:
        weights: of the model.
        frame: ``[H, W, 3]`` RGB uint8.
        box: ``cxcywh [4]`` in frame pixels, of positive size.
        model: the network (static).
        config: as for the steps; what it says of a memory is looked at. Without it
            there is none, and the kernel does not learn whatever the steps are told.
        frame_size: width and height ``[2]`` of the image where the frames are padded at
            their right and lower ends; what they are padded with has no influence.

    Returns:
        the detection kernels, batch axis 1, and the first state.

    Raises:
        InputError: the frame has another type or shape, or the head no distractors.
        BoxError: so has the box; or, where its values are known, they make none.
    """
    check_frames(frame, axes="H, W, 3")
    if not isinstance(box, Tracer):
        check_start(box)
    elif jnp.shape(box) != (4,) or jnp.result_type(box).kind not in "iuf":
        raise BoxError(f"box of {jax.typeof(box)}: expected four numbers cx,cy,w,h")
    template, state = _init_track(
        weights, frame, box, model=model, frame_size=frame_size
    )
    memory = first_memory(template, model=model, config=config)
    state = state.replace(memory=jax.tree.map(lambda a: a[0], memory))
    return template, study(weights, state, frame, model=model)


@functools.partial(jax.jit, static_argnames="model")
@standard_promotion
def _init_track(
    weights: Weights,
    frame: ArrayLike,
    box: ArrayLike,
    *,
    model: SiamRPN,
    frame_size: ArrayLike | None,
) -> tuple[Template, TrackState]:
    frame, box = jnp.asarray(frame), jnp.asarray(box, jnp.float32)
    if model.config.crop == "pysot":  # x + (w - 1) / 2 comes back as x + w / 2
        box -= jnp.array([0.5, 0.5, 0.0, 0.0], jnp.float32)
    whole = frame.shape[1::-1] if frame_size is None else frame_size
    whole = jnp.asarray(whole, jnp.float32)
    state = first_state(box, crops.channel_mean(frame, frame_size=whole), whole)
    first = jnp.zeros((), jnp.int32)
    z = exemplar_patch(state, box, frame[None], first, model=model)
    return fused.embed_template(model, weights, z[None]), state


def make_tracker(
    model: SiamRPN, weights: Weights, *, config: TrackerConfig = TrackerConfig()
) -> tuple[
    Callable[..., tuple[Template, TrackState]],
    Callable[[Template, TrackState, ArrayLike], tuple[TrackState, TrackOutput]],
]:
    """Closes over network, fused weights and config.

    Returns:
        ``init(frame, box) -> (template, state)``, which takes ``frame_size`` too, and
        ``step(template, state, frame) -> (state, output)``. A new target compiles
        nothing. To close over its kernels too: ``functools.partial(step, template)``.
    """
    weights = fused.as_fused(model, weights)
    config = float32_numbers(config)  # to the device once, not in every step
    init = functools.partial(init_track, weights, model=model, config=config)
    step = functools.partial(track_step, weights, model=model, config=config)
    return init, step


def detect(
    weights: Weights,
    template: Template,
    x: jax.Array,
    *,
    model: SiamRPN,
    config: TrackerConfig = TrackerConfig(),
) -> Detection:
    """What the network says of the search patches of N targets.

    Args:
        weights: of the model.
        template: of each target, ``[N, …]``.
        x: ``[N, S, X, X, 3]``, S patches a target.
        model: the network.
        config: whether kernels learn from the features, which are returned then.

    Returns:
        logits and offsets, ``[N, S, …]``.
    """
    targets, patches = x.shape[:2]
    template = jax.tree.map(lambda a: jnp.repeat(a, patches, axis=0), template)
    x = x.reshape(-1, *x.shape[2:])
    keep = config.online_frames is not None
    detection = fused.detect(model, weights, template, x, keep_features=keep)
    return jax.tree.map(lambda a: a.reshape(targets, patches, *a.shape[1:]), detection)


def select(
    state: TrackState, detection: Detection, *, model: SiamRPN, config: TrackerConfig
) -> tuple[TrackState, TrackOutput]:
    """The box of one target, by what its network says of its S search patches."""
    choose = select_box if model.config.head.regresses else select_scale
    return choose(state, detection, model=model, config=config)


@functools.partial(jax.jit, static_argnames="model")
@standard_promotion
def track_clip(
    weights: Weights,
    template: Template,
    state: TrackState,
    frames: jax.Array,
    *,
    model: SiamRPN,
    config: TrackerConfig = TrackerConfig(),
) -> tuple[TrackState, TrackOutput]:
    """Tracks through a clip ``[T, H, W, 3]`` in one device call, by ``lax.scan``.

    Returns:
        the last state, and the outputs stacked along a first axis of length T.

    Raises:
        InputError: the frames have another type or shape.
    """
    check_frames(frames, axes="T, H, W, 3")
    weights = fused.as_fused(model, weights)  # once, not in every step

    def step(state: TrackState, frame: jax.Array) -> tuple[TrackState, TrackOutput]:
        return track_step(weights, template, state, frame, model=model, config=config)

    return jax.lax.scan(step, state, frames)
