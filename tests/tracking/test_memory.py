"""The memory against templates mixed by hand."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from closeness import check_close
from random_variables import random_variables
from siamrpn_jax.api import Tracker, load
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model import fused
from siamrpn_jax.model.boxes import cxcywh_to_ltwh, decode, iou
from siamrpn_jax.model.network import model_anchors
from siamrpn_jax.tracking import crops, search
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.memory import DISTRACTOR_SCORE
from siamrpn_jax.tracking.slots import add_target, empty_slots, track_many
from siamrpn_jax.tracking.state import search_patches, to_frame
from siamrpn_jax.tracking.step import detect, init_track, track_clip, track_step
from tracking_steps import BOX, CLIP, HYBRID, MODEL

PLAIN = TrackerConfig(min_size=4.0)
TARGET = dataclasses.replace(
    PLAIN, second_template=0.4, memory_rate=0.3, memory_above=0.0
)
BOTH = dataclasses.replace(TARGET, distractors=0.2)
ALL = dataclasses.replace(BOTH, online_frames=2, online_above=0.0)


VARIABLES = random_variables(HYBRID.init_variables)
VARIABLES["params"]["head"]["bias"] += 1.0  # all proposals look like the target


@pytest.fixture(scope="module")
def weights() -> Any:
    return fused.fuse(HYBRID, VARIABLES)


def look(weights, state, frame, box):
    side = crops.context_side(box[2:])
    z = crops.crop_and_resize(frame, box[:2], side, state.fill, size=60)
    return fused.embed_template(HYBRID, weights, z[None])


def mix(old, new, share):
    return jax.tree.map(lambda a, b: (1 - share) * a + share * b, old, new)


def far_proposal(weights, template, state, frame, box):
    """The best proposal that overlaps the box little, and its score."""
    x = search_patches(state, jnp.asarray(frame)[None], jnp.int32(0), model=HYBRID)
    found = detect(weights, template, x[None], model=HYBRID)
    anchors = jnp.asarray(model_anchors(HYBRID.config), jnp.float32)
    every = to_frame(
        decode(found.reg_deltas.reshape(-1, 4), anchors), state, model=HYBRID
    )
    logits = found.cls_logits.reshape(-1, 2)
    scores = np.array(jax.nn.sigmoid(logits[:, 1] - logits[:, 0]))
    scores[np.asarray(iou(every, box)) > 0.3] = 0
    return every[scores.argmax()], scores.max()


def test_kernels_are_blended_as_by_hand(weights):
    template, state = init_track(weights, CLIP[0], BOX, model=HYBRID, config=BOTH)
    _, plain = init_track(weights, CLIP[0], BOX, model=HYBRID)
    target, distractors, taken = template, jnp.zeros_like(template.cls_kernel), 0
    for frame in CLIP[1:]:
        kernels = mix(template, target, 0.4)
        kernels = kernels.replace(cls_kernel=kernels.cls_kernel - 0.2 * distractors)
        before = plain
        plain, expected = track_step(
            weights, kernels, plain, frame, model=HYBRID, config=PLAIN
        )
        state, output = track_step(
            weights, template, state, frame, model=HYBRID, config=BOTH
        )
        check_close(output, expected, atol=1e-3)
        target = mix(target, look(weights, before, frame, expected.box), 0.3)
        box, score = far_proposal(weights, kernels, before, frame, expected.box)
        if score > DISTRACTOR_SCORE:
            taken += 1
            kernel = look(weights, before, frame, box).cls_kernel
            distractors = mix(distractors, kernel, 0.3)
        check_close(state.memory.target, jax.tree.map(lambda a: a[0], target))
        check_close(state.memory.distractors, distractors[0])
    assert taken


def test_unsure_frames_are_not_remembered(weights):
    config = dataclasses.replace(BOTH, memory_above=1.0)
    template, state = init_track(weights, CLIP[0], BOX, model=HYBRID, config=config)
    first = state.memory
    state, output = track_step(
        weights, template, state, CLIP[1], model=HYBRID, config=config
    )
    check_close(state.memory, first)
    _, plain = init_track(weights, CLIP[0], BOX, model=HYBRID)
    expected = track_step(
        weights, template, plain, CLIP[1], model=HYBRID, config=PLAIN
    )[1]
    check_close(output, expected, atol=1e-3)


def test_every_way_of_tracking_remembers_alike(weights):
    template, state = init_track(weights, CLIP[0], BOX, model=HYBRID, config=ALL)
    _, expected = track_clip(
        weights, template, state, CLIP[1:], model=HYBRID, config=ALL
    )
    slots = empty_slots(3, model=HYBRID, config=ALL)
    slots = add_target(weights, slots, 1, CLIP[0], BOX, model=HYBRID, config=ALL)
    settings = search.stack_settings([ALL, dataclasses.replace(ALL, memory_rate=0.0)])
    found = search.track_frames(weights, CLIP, BOX, settings, model=HYBRID)
    tracker = Tracker(HYBRID, VARIABLES, ALL)
    tracker.init(CLIP[0], cxcywh_to_ltwh(np.stack([BOX, BOX + 1, BOX + 2])))
    for t, frame in enumerate(CLIP[1:]):
        slots, output = track_many(
            weights, slots, frame[None], model=HYBRID, config=ALL
        )
        box = expected.box[t]
        np.testing.assert_allclose(output.box[1], box, atol=1e-3)
        np.testing.assert_allclose(found.box[t, 0], box, atol=1e-3)
        for scores in (output.score[1], found.score[t, 0]):
            np.testing.assert_allclose(scores, expected.score[t], atol=1e-4)
        boxes = tracker.update(frame)
        np.testing.assert_allclose(boxes[0], cxcywh_to_ltwh(box), atol=1e-3)
    assert abs(found.score[-1, 1] - found.score[-1, 0]) > 1e-4


def test_a_target_begun_without_a_config_does_not_learn(weights):
    template, state = init_track(weights, CLIP[0], BOX, model=HYBRID)
    config = dataclasses.replace(PLAIN, online_frames=2)
    seen = weights, template, state, CLIP[1]
    state, output = track_step(*seen, model=HYBRID, config=config)
    assert state.memory is None
    check_close(output, track_step(*seen, model=HYBRID, config=PLAIN)[1])
    with_memory = init_track(weights, CLIP[0], BOX, model=HYBRID, config=config)
    with pytest.raises(InputError, match=r"online_frames None, .* holds a memory"):
        track_step(weights, *with_memory, CLIP[1], model=HYBRID, config=PLAIN)


def test_wrong_use_is_refused(weights):
    template, state = init_track(weights, CLIP[0], BOX, model=HYBRID)
    step: dict[str, Any] = {"model": HYBRID, "config": TARGET}
    with pytest.raises(InputError, match=r"second_template 0.4, .* holds no memory"):
        track_step(weights, template, state, CLIP[1], **step)
    template, state = init_track(weights, CLIP[0], BOX, **step)
    with pytest.raises(InputError, match=r"second_template None, .* holds a memory"):
        track_step(weights, template, state, CLIP[1], model=HYBRID)
    with pytest.raises(InputError, match=r"distractors 0.2, .* holds no memory"):
        track_step(weights, template, state, CLIP[1], model=HYBRID, config=BOTH)
    depthwise = random_variables(MODEL.init_variables)
    for start in (
        lambda: init_track(depthwise, CLIP[0], BOX, model=MODEL, config=BOTH),
        lambda: empty_slots(2, model=MODEL, config=BOTH),
        lambda: load("small", distractors=0.2),
    ):
        with pytest.raises(InputError, match=r"distractors 0.2: .* depthwise head"):
            start()
    with pytest.raises(InputError, match=r"online_frames 8: .* can: hybrid"):
        load("small", online_frames=8)
