"""Many targets in many videos, all in one call on the device.

Targets live in a fixed number of slots, so that adding and dropping them compiles
nothing::

    slots = empty_slots(8, model=model)
    slots = add_target(weights, slots, 0, frame, box, model=model)
    slots, output = track_many(weights, slots, frames, model=model)

Each slot follows one target through one of the videos exactly as
``tracking.step.track_step`` would, but the network runs on all of them at once.
"""

import functools
import operator
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model import fused
from siamrpn_jax.model.config import ModelConfig
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.model.promotion import standard_promotion
from siamrpn_jax.model.rpn import Template
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.memory import first_memory, recall, remember
from siamrpn_jax.tracking.state import (
    TrackOutput,
    TrackState,
    check_frames,
    first_state,
    search_patches,
)
from siamrpn_jax.tracking.step import Weights, detect, init_track, select

Tree = TypeVar("Tree", TrackState, TrackOutput)


class Slots(struct.PyTreeNode):
    """Room for N targets."""

    template: Template
    """Detection kernels, ``[N, …]``."""
    state: TrackState
    """What moves, ``[N, …]``."""
    video: jax.Array
    """int32 ``[N]``: which of the frames each target is looked for in."""
    active: jax.Array
    """bool ``[N]``: holds a target."""


@standard_promotion
def empty_slots(
    count: int, *, model: SiamRPN, config: TrackerConfig = TrackerConfig()
) -> Slots:
    """``count`` slots without a target; model and config as for ``track_many``."""
    zeros = functools.partial(jnp.zeros, dtype=jnp.float32)
    template = jax.tree.map(
        lambda kernel: zeros((count, *kernel.shape[1:])), _template_shapes(model.config)
    )
    # Any box of positive size: what is computed for it is thrown away.
    state = jax.vmap(first_state)(
        1 + zeros((count, 4)), zeros((count, 3)), 1 + zeros((count, 2))
    )
    return Slots(
        template=template,
        state=state.replace(memory=first_memory(template, model=model, config=config)),
        video=jnp.zeros(count, jnp.int32),
        active=jnp.zeros(count, bool),
    )


@functools.lru_cache(maxsize=32)  # tracing the network takes half a second
def _template_shapes(config: ModelConfig) -> Template:
    """The shapes of one target's template."""
    model, size = SiamRPN(config), config.exemplar_size
    patch = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    weights = jax.eval_shape(model.init_variables, jax.random.key(0))
    return jax.eval_shape(
        functools.partial(fused.embed_template, model), weights, patch
    )


def add_target(
    weights: Weights,
    slots: Slots,
    slot: int,
    frame: jax.Array,
    box: ArrayLike,
    *,
    model: SiamRPN,
    config: TrackerConfig = TrackerConfig(),
    video: int = 0,
    frame_size: ArrayLike | None = None,
) -> Slots:
    """Starts to follow a target; whatever the slot held before is forgotten.

    Args:
        weights: of the model.
        slots: as they are.
        slot: where to put it, 0 to N - 1.
        frame: ``[H, W, 3]`` RGB uint8, with the target in it.
        box: ``cxcywh [4]`` in frame pixels, of positive size.
        model: the network.
        config: as for ``empty_slots``.
        video: which of ``track_many``'s frames it will be looked for in.
        frame_size: as for ``tracking.step.init_track``.

    Raises:
        InputError: there is no such slot; frame or box as for ``init_track``.
    """
    _check_slot(slots, slot)
    started = init_track(
        weights, frame, box, model=model, config=config, frame_size=frame_size
    )
    return fill_slot(slots, slot, *started, video)


def drop_target(slots: Slots, slot: int) -> Slots:
    """Empties a slot; an empty one stays empty.

    Raises:
        InputError: there is no such slot.
    """
    _check_slot(slots, slot)
    return slots.replace(active=slots.active.at[slot].set(False))


@functools.partial(jax.jit, static_argnames="model")
@standard_promotion
def track_many(
    weights: Weights,
    slots: Slots,
    frames: jax.Array,
    *,
    model: SiamRPN,
    config: TrackerConfig = TrackerConfig(),
) -> tuple[Slots, TrackOutput]:
    """Finds all targets in the next frame of each video.

    Args:
        weights: of the model.
        slots: from ``add_target`` or the last call.
        frames: ``[V, H, W, 3]`` RGB uint8, one a video. Videos of several sizes are
            padded at their right and lower ends, see ``add_target``'s ``frame_size``.
        model: the network (static).
        config: how boxes are chosen, the same for all targets; its numbers are data.

    Returns:
        the slots with their new states, and the outputs, ``[N, …]``. In empty slots,
        and in those whose video has no frame here, the state stays as it is; scores,
        evidence and confidence are 0, and none is lost.

    Raises:
        InputError: the frames have another type or shape.
    """
    check_frames(frames, axes="V, H, W, 3")
    frames = jnp.asarray(frames)
    seen = slots.active & (slots.video >= 0) & (slots.video < len(frames))
    crop = functools.partial(search_patches, model=model, config=config)
    x = jax.vmap(crop, in_axes=(0, None, 0))(slots.state, frames, slots.video)
    template = recall(slots.template, slots.state.memory, config=config)
    detection = detect(weights, template, x, model=model, config=config)
    choose = functools.partial(select, model=model, config=config)
    state, output = jax.vmap(choose)(slots.state, detection)
    keep = functools.partial(remember, weights, model=model, config=config)
    state = jax.vmap(keep, in_axes=(0, 0, 0, 0, None, 0))(
        slots.state, state, detection, output, frames, slots.video
    )
    state = _where(seen, state, slots.state)
    nothing = jax.tree.map(jnp.zeros_like, output)
    nothing = nothing.replace(box=state.box, proposals=output.proposals)
    return slots.replace(state=state), _where(seen, output, nothing)


def _where(seen: jax.Array, new: Tree, old: Tree) -> Tree:
    """By slot, the first axis of all leaves."""

    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(seen.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)


def _check_slot(slots: Slots, slot: int) -> None:
    count = len(slots.active)
    if not 0 <= operator.index(slot) < count:
        raise InputError(f"slot {slot}, expected 0 to {count - 1}")


def read_slot(slots: Slots, slot: int) -> tuple[Template, TrackState]:
    """What a slot holds, as ``fill_slot`` takes it.

    Raises:
        InputError: there is no such slot.
    """
    _check_slot(slots, slot)
    template = jax.tree.map(lambda a: a[slot : slot + 1], slots.template)
    return template, jax.tree.map(lambda a: a[slot], slots.state)


@jax.jit
@standard_promotion
def fill_slot(
    slots: Slots, slot: ArrayLike, template: Template, state: TrackState, video: int
) -> Slots:
    """Goes on with a target from a template and a state, as ``init_track`` makes them.

    Args:
        slots: as they are.
        slot: where to put it.
        template: with a batch axis of 1.
        state: without.
        video: which of ``track_many``'s frames it will be looked for in.
    """

    def put(all_slots: jax.Array, value: jax.Array) -> jax.Array:
        return all_slots.at[slot].set(value)

    return Slots(
        template=jax.tree.map(lambda a, b: put(a, b[0]), slots.template, template),
        state=jax.tree.map(put, slots.state, state),
        video=put(slots.video, jnp.asarray(video)),
        active=put(slots.active, jnp.asarray(True)),
    )
