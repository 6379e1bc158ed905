"""What is remembered of a target after its first frame, if the config says so.

``TrackerConfig.second_template`` keeps the mean look of the target, and ``distractors``
that of the best proposals far from it, both in frames that were sure. Correlation is
linear in its kernel: what they say is blended into the kernels of the first frame, so
that the network searches once, as ever (DaSiamRPN, Zhu et al., ECCV 2018, section 3.3).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model import boxes, fused
from siamrpn_jax.model.config import HeadConfig
from siamrpn_jax.model.network import Detection, SiamRPN, model_anchors
from siamrpn_jax.model.rpn import Template
from siamrpn_jax.tracking.confidence import NEAR_IOU
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.state import (
    TrackOutput,
    TrackState,
    exemplar_patch,
    to_frame,
)

DISTRACTOR_SCORE = 0.5
"""What scores less does not look like the target."""

LINEAR_HEADS = ("up_channel", "hybrid")
"""Heads that find boxes, and whose scores are linear in their kernel."""


class Memory(struct.PyTreeNode):
    """Mean looks, as kernels like those of a ``Template``; None is not remembered."""

    target: Template | None
    """Of the target; at first its look in the first frame."""
    distractors: jax.Array | None
    """Of what looks like it, kernels of the scores; 0 until there was one."""


def first_memory(
    template: Template, *, model: SiamRPN, config: TrackerConfig
) -> Memory | None:
    """The memory before the first step, or None if the config asks for none.

    Raises:
        InputError: the head's scores are not linear in its kernels.
    """
    if config.second_template is None and config.distractors is None:
        return None
    target = distractors = None
    if config.second_template is not None:
        target = template
    if config.distractors is not None:
        check_distractors(model.config.head, config)
        distractors = jnp.zeros_like(template.cls_kernel)
    return Memory(target, distractors)


def recall(template: Template, memory: Any, *, config: TrackerConfig) -> Template:
    """The kernels to search with: those of the first frame, and what is remembered.

    Args:
        template: of the first frame.
        memory: a ``Memory`` of the same target or targets, or None.
        config: weights of the second template and of the distractors.

    Raises:
        InputError: the memory was begun with another config.
    """
    target, distractors = memory and memory.target, memory and memory.distractors
    for name, kept in (("second_template", target), ("distractors", distractors)):
        value = getattr(config, name)
        if (value is None) != (kept is None):
            held = "no" if kept is None else "a"
            raise InputError(
                f"{name} {value}, but the state holds {held} memory of it: expected "
                "the same config in init_track (or empty_slots and add_target) and in "
                "the steps"
            )
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
    target, distractors = memory.target, memory.distractors
    if target is not None:
        rate = jnp.where(sure, config.memory_rate, 0.0)
        target = _mix(target, look(output.box), rate)
    if distractors is not None:
        box, score = find_distractor(before, detection, output, model=model)
        sure &= score > DISTRACTOR_SCORE
        rate = jnp.where(sure, config.memory_rate, 0.0)
        distractors = _mix(distractors, look(box).cls_kernel, rate)
    return after.replace(memory=Memory(target, distractors))


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


def check_distractors(head: HeadConfig, config: TrackerConfig) -> None:
    """Raises InputError for distractors where the scores are not linear in a kernel."""
    if config.distractors is not None and head.kind not in LINEAR_HEADS:
        raise InputError(
            f"distractors {config.distractors}: expected none with a {head.kind} head; "
            f"heads that can: {', '.join(LINEAR_HEADS)}"
        )


def check_no_memory(config: TrackerConfig) -> None:
    """Raises InputError for a config with a memory, which exports do not have."""
    for name in ("second_template", "distractors"):
        if (value := getattr(config, name)) is not None:
            raise InputError(
                f"{name} {value}: expected none in exports and runtimes other than jax"
            )


def _mix(old: Any, new: Any, share: Any) -> Any:
    return jax.tree.map(lambda a, b: a + share * (b - a), old, new)
