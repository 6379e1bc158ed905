"""What is remembered of a target after its first frame, if the config says so.

``TrackerConfig.online_frames`` keeps a kernel that learns, see ``tracking.online``;
``second_template`` the mean look of the target, and ``distractors`` that of the best
proposals far from it, both in frames that were sure. Correlation is linear in its
kernel: what they say is blended into the kernels, so that the network searches once, as
ever (DaSiamRPN, Zhu et al., ECCV 2018, section 3.3).
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model import boxes, fused
from siamrpn_jax.model.network import Detection, SiamRPN, model_anchors
from siamrpn_jax.model.promotion import standard_promotion
from siamrpn_jax.model.rpn import Template
from siamrpn_jax.tracking.confidence import NEAR_IOU
from siamrpn_jax.tracking.config import HEADS, TrackerConfig, check_memory
from siamrpn_jax.tracking.online import (
    Learned,
    empty_learned,
    learn_first,
    learn_next,
)
from siamrpn_jax.tracking.state import (
    Loaded,
    TrackOutput,
    TrackState,
    exemplar_patch,
    to_frame,
)

DISTRACTOR_SCORE = 0.5
"""What scores less does not look like the target."""


class Memory(struct.PyTreeNode):
    """Kernels like those of a ``Template``; None is not remembered."""

    learned: Learned | None
    """The kernel that keeps learning, in the place of the first frame's."""
    target: Template | None
    """Of the target; at first its look in the first frame."""
    distractors: jax.Array | None
    """Of what looks like it, kernels of the scores; 0 until there was one."""


def first_memory(
    template: Template, *, model: SiamRPN, config: TrackerConfig
) -> Memory | None:
    """The memory of N targets before ``study``, or None if the config asks for none.

    Raises:
        InputError: the head cannot.
    """
    check_memory(model.config.head, config)
    if all(getattr(config, name) is None for name in HEADS):
        return None
    learned = target = distractors = None
    if config.online_frames is not None:
        learned = empty_learned(template, model=model, frames=config.online_frames)
    if config.second_template is not None:
        target = template
    if config.distractors is not None:
        distractors = jnp.zeros_like(template.cls_kernel)
    return Memory(learned, target, distractors)


@functools.partial(jax.jit, static_argnames="model")
@standard_promotion
def study(
    weights: Any, state: TrackState, frame: jax.Array, *, model: SiamRPN
) -> TrackState:
    """Lets the kernel of one target learn from the first frame, if it is to learn.

    Args:
        weights: of the model.
        state: before the first step, with a memory or None.
        frame: ``[H, W, 3]`` RGB uint8.
        model: the network.
    """
    if state.memory is None or state.memory.learned is None:
        return state
    weights, start = fused.as_fused(model, weights), state.memory.learned
    learned = learn_first(weights, start, state, frame, model=model)
    return state.replace(memory=state.memory.replace(learned=learned))


def recall(template: Template, memory: Any, *, config: TrackerConfig) -> Template:
    """The kernels to search with: those of the first frame, and what is remembered.

    A target that was begun without a config has a kernel that does not learn.

    Args:
        template: of the first frame.
        memory: a ``Memory`` of the same target or targets, or None.
        config: weights of the second template and of the distractors.

    Raises:
        InputError: the memory was begun with another config.
    """
    memory = memory or Memory(None, None, None)
    learned, target, distractors = memory.learned, memory.target, memory.distractors
    for name, kept in zip(HEADS, (learned, target, distractors), strict=True):
        value = getattr(config, name)
        if name == "online_frames" and kept is None:
            continue  # Begun without the config that weights come with: none learns.
        if (value is None) != (kept is None):
            held = "no" if kept is None else "a"
            raise InputError(
                f"{name} {value}, but the state holds {held} memory of it: expected "
                "the same config in init_track (or empty_slots and add_target) and in "
                "the steps"
            )
    if learned is not None:
        kernel = learned.kernel.astype(template.cls_kernel.dtype)
        shape = template.cls_kernel.shape  # of one target's, with a batch axis of 1
        template = template.replace(cls_kernel=kernel.reshape(shape))
    if config.second_template is not None:
        template = _mix(template, target, config.second_template)
    if config.distractors is not None:
        taken = config.distractors * distractors
        template = template.replace(cls_kernel=template.cls_kernel - taken)
    return template


def remember(
    weights: Any,
    before: TrackState,
    after: TrackState,
    detection: Detection,
    output: TrackOutput,
    frames: jax.Array,
    index: jax.Array,
    *,
    model: SiamRPN,
    config: TrackerConfig,
) -> TrackState:
    """Adds what a frame shows to the memory of one target.

    Args:
        weights: of the model.
        before: the state before the step.
        after: the state after it.
        detection: of the search patch, with a batch axis of 1.
        output: of the step.
        frames: ``[V, H, W, 3]`` RGB uint8.
        index: the one that was searched, 0 to V - 1.
        model: the network.
        config: when to remember, and how much.

    Returns:
        the state after the step, with its memory.
    """
    memory = before.memory
    if memory is None:
        return after

    def look(box: jax.Array) -> Template:
        z = exemplar_patch(before, box, frames, index, model=model)
        template = fused.embed_template(model, weights, z[None])
        return jax.tree.map(lambda a: a[0], template)

    sure = output.confidence > config.memory_above
    learned, target, distractors = memory.learned, memory.target, memory.distractors
    if learned is not None:
        weights = fused.as_fused(model, weights)
        seen = before, detection, output
        learned = learn_next(weights, learned, *seen, model=model, config=config)
    if target is not None:
        rate = jnp.where(sure, config.memory_rate, 0.0)
        target = _mix(target, look(output.box), rate)
    if distractors is not None:
        box, score = find_distractor(before, detection, output, model=model)
        sure &= score > DISTRACTOR_SCORE
        rate = jnp.where(sure, config.memory_rate, 0.0)
        distractors = _mix(distractors, look(box).cls_kernel, rate)
    return after.replace(memory=Memory(learned, target, distractors))


def find_distractor(
    state: TrackState, detection: Detection, output: TrackOutput, *, model: SiamRPN
) -> tuple[jax.Array, jax.Array]:
    """The best proposal that does not overlap the box, and its score.

    Args:
        state: before the step.
        detection: of the search patch, with a batch axis of 1.
        output: of the step.
        model: the network.

    Returns:
        ``cxcywh [4]`` in frame pixels; the probability to be the target, 0 where all
        proposals overlap the box.
    """
    anchors = jnp.asarray(model_anchors(model.config), jnp.float32)
    proposals = boxes.decode(detection.reg_deltas.reshape(-1, 4), anchors)
    proposals = to_frame(proposals, state, model=model)
    scores = jax.nn.softmax(detection.cls_logits.reshape(-1, 2))[:, 1]
    far = boxes.iou(proposals, output.box) <= NEAR_IOU
    scores = jnp.where(far, scores, 0.0)
    best = jnp.argmax(scores)
    return proposals[best], scores[best]


def without_learning(loaded: Loaded) -> Loaded:
    """The tracker for LiteRT, and with a template that is part of the step.

    There kernels stay as the first frame made them.
    """
    config = dataclasses.replace(loaded.tracker_config, online_frames=None)
    return loaded._replace(tracker_config=config)


def _mix(old: Any, new: Any, share: Any) -> Any:
    return jax.tree.map(lambda a, b: a + share * (b - a), old, new)
