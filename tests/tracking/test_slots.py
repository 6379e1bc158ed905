"""Slots against ``tracker.track_step``, one target and one unpadded video at a time."""

import logging

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from random_variables import random_variables
from siamrpn_jax.api import Tracker
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.model.boxes import cxcywh_to_ltwh, ltwh_to_cxcywh
from siamrpn_jax.model.config import (
    AnchorConfig,
    BackboneConfig,
    HeadConfig,
    ModelConfig,
)
from siamrpn_jax.model.fused import fuse
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.slots import add_target, drop_target, empty_slots, track_many
from siamrpn_jax.tracking.step import init_track, track_step
from siamrpn_jax.weights import load_weights

CONFIG = TrackerConfig(min_size=4.0)
DEPTHWISE = SiamRPN(
    ModelConfig(
        backbone=BackboneConfig("compact", widths=(4, 6, 8)),
        head=HeadConfig("depthwise", width=8, kernel_size=1),
        anchors=AnchorConfig(base_size=30.0, ratios=(0.5, 1.0, 2.0)),
        exemplar_size=60,
        instance_size=92,
        conv_impl="xla",  # compiles faster
    )
)
UP_CHANNEL = SiamRPN(
    ModelConfig(
        backbone=DEPTHWISE.config.backbone,
        head=HeadConfig("up_channel", width=8, kernel_size=3, adjust=True),
        anchors=DEPTHWISE.config.anchors,
        exemplar_size=60,
        instance_size=92,
        conv_impl="xla",
    )
)
SIZES = np.array([[80, 60], [100, 52]], np.float32)
"""Widths and heights of two videos."""
TARGETS = {
    0: (0, (40.0, 30.0, 24.0, 18.0)),
    1: (1, (70.0, 40.0, 20.0, 22.0)),  # the padding is near
    3: (1, (25.0, 20.0, 16.0, 30.0)),
    4: (0, (70.0, 50.0, 18.0, 12.0)),
}
"""Slot to video and ``cxcywh``; slot 2 stays empty."""


def make_videos(length: int = 5):
    """Videos of noise ``[T, H, W, 3]``, and ``[T, 2, H, W, 3]`` padded with noise.

    Its grain is 8 pixels wide: in finer noise what differs in the last digits of a box
    grows tenfold from frame to frame.
    """
    rng = np.random.default_rng(0)
    grains = rng.integers(0, 256, (length * 2, 8, 13, 3), np.uint8)
    large = [cv2.resize(grain, (104, 64)) for grain in grains]
    padded = np.stack(large).reshape(length, 2, 64, 104, 3)
    videos = [padded[:, v, : int(h), : int(w)] for v, (w, h) in enumerate(SIZES)]
    return videos, padded


VIDEOS, PADDED = make_videos()


def make_weights(model: SiamRPN):
    """Those of ``UP_CHANNEL`` give offsets of about 1, as those of any network do.

    Its correlation sums 32 products: without that, offsets of 16 and their exponents
    would double from frame to frame whatever differs in the last digits.
    """
    patches = (jnp.zeros((1, size, size, 3)) for size in (60, 92))
    variables = random_variables(model.init, *patches)
    if model is UP_CHANNEL:
        for branch in ("template_cls", "template_reg"):
            variables["params"]["head"][branch]["kernel"] *= 32**-0.5
    return fuse(model, variables)


@pytest.fixture(scope="module")
def weights():
    return make_weights(DEPTHWISE)


def follow(weights, frames, box, *, model=DEPTHWISE):
    """One target through one video: a list of outputs."""
    start = np.array(box, np.float32)
    template, state = init_track(weights, frames[0], start, model=model)
    outputs = []
    for frame in frames[1:]:
        state, output = track_step(
            weights, template, state, frame, model=model, config=CONFIG
        )
        outputs.append(output)
    return outputs


def add(weights, slots, slot: int, video: int, box, *, time=0, model=DEPTHWISE):
    return add_target(
        weights,
        slots,
        slot,
        PADDED[time, video],
        np.array(box, np.float32),
        model=model,
        video=video,
        frame_size=SIZES[video],
    )


def fill(weights, *, model=DEPTHWISE):
    slots = empty_slots(5, model=model)
    for slot, (video, box) in TARGETS.items():
        slots = add(weights, slots, slot, video, box, model=model)
    return slots


def check_slot(output, slot: int, expected):
    """Boxes to 4e-5 of their extent, scores to 1e-5: batches round differently.

    Deltas come out of sums of some hundred float32 products, and so differ by some
    1e-5; a box differs by that share of the larger of its sides and the frame's.
    """
    found = jax.tree.map(lambda leaf: leaf[slot], output)
    for name in ("box", "proposals"):
        wanted = np.asarray(getattr(expected, name))
        extent = np.maximum(np.abs(wanted).max(-1, keepdims=True), max(SIZES[0]))
        error = np.abs(np.asarray(getattr(found, name)) - wanted)
        assert (error <= 4e-5 * extent).all(), (name, (error / extent).max())
    np.testing.assert_allclose(found.evidence, expected.evidence, atol=1e-3)
    assert found.lost == expected.lost
    for name in ("score", "windowed_score", "proposal_scores", "confidence"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), atol=1e-5
        )


@pytest.mark.parametrize("model", [DEPTHWISE, UP_CHANNEL], ids=["depthwise", "up"])
def test_targets_in_padded_videos_equal_single_ones(model):
    weights = make_weights(model)
    expected = {
        slot: follow(weights, VIDEOS[video], box, model=model)
        for slot, (video, box) in TARGETS.items()
    }
    slots = fill(weights, model=model)
    for t in range(1, len(PADDED)):
        slots, output = track_many(
            weights, slots, PADDED[t], model=model, config=CONFIG
        )
        np.testing.assert_array_equal(slots.state.box, output.box)
        for slot in TARGETS:
            check_slot(output, slot, expected[slot][t - 1])
    moved = np.abs(output.box[0] - np.array(TARGETS[0][1]))
    assert moved.max() > 1  # else nothing was compared


def test_form_of_the_slots(weights):
    slots = empty_slots(5, model=DEPTHWISE)
    assert not slots.active.any()
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), slots)
    filled = fill(weights)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), filled) == shapes
    assert filled.active.tolist() == [True, True, False, True, True]
    assert filled.video.tolist() == [0, 1, 0, 1, 0]
    np.testing.assert_array_equal(filled.state.frame_size[1], SIZES[1])
    np.testing.assert_allclose(
        filled.state.fill[3], VIDEOS[1][0].mean((0, 1)), atol=1e-3
    )


def test_frames_of_one_video_need_no_sizes(weights):
    frames = VIDEOS[0]
    box = np.array(TARGETS[0][1], np.float32)
    slots = empty_slots(1, model=DEPTHWISE)
    slots = add_target(weights, slots, 0, frames[0], box, model=DEPTHWISE)
    slots, output = track_many(
        weights, slots, frames[1:2], model=DEPTHWISE, config=CONFIG
    )
    check_slot(output, 0, follow(weights, frames[:2], box)[0])


def test_variables_instead_of_prepared_weights():
    patches = (jnp.zeros((1, size, size, 3)) for size in (60, 92))
    variables = random_variables(DEPTHWISE.init, *patches)
    slots = fill(variables)
    _, output = track_many(variables, slots, PADDED[1], model=DEPTHWISE, config=CONFIG)
    for slot, (video, box) in TARGETS.items():
        expected = follow(fuse(DEPTHWISE, variables), VIDEOS[video][:2], box)
        check_slot(output, slot, expected[0])


def test_dropped_and_used_again(weights):
    """Slot 1 is dropped after a frame and gets another target two frames later."""
    expected = {
        slot: follow(weights, VIDEOS[video], box)
        for slot, (video, box) in TARGETS.items()
    }
    new = (0, (30.0, 36.0, 14.0, 20.0))
    expected_new = follow(weights, VIDEOS[0][3:], new[1])

    def step(slots, t):
        return track_many(weights, slots, PADDED[t], model=DEPTHWISE, config=CONFIG)

    slots, output = step(fill(weights), 1)
    last = np.asarray(output.box)[[1, 2]]
    slots = drop_target(drop_target(slots, 1), 2)  # an empty one stays empty
    for t in (2, 3):
        slots, output = step(slots, t)
        assert slots.active.tolist() == [True, False, False, True, True]
        for leaves in (output.box, slots.state.box):
            np.testing.assert_array_equal(np.asarray(leaves)[[1, 2]], last)
        scores = output.score, output.windowed_score, output.proposal_scores
        for nothing in (*scores, output.evidence, output.confidence, output.lost):
            np.testing.assert_array_equal(np.asarray(nothing)[[1, 2]], 0)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(output))
        for slot in (0, 3, 4):
            check_slot(output, slot, expected[slot][t - 1])
    slots = add(weights, slots, 1, *new, time=3)
    assert slots.active.tolist() == [True, True, False, True, True]
    slots, output = step(slots, 4)
    check_slot(output, 1, expected_new[0])
    for slot in (0, 3, 4):
        check_slot(output, slot, expected[slot][3])


def test_a_filled_slot_forgets_its_target(weights):
    slots = add(weights, fill(weights), 0, *TARGETS[3])
    _, output = track_many(weights, slots, PADDED[1], model=DEPTHWISE, config=CONFIG)
    for slot in (0, 3):
        check_slot(output, slot, follow(weights, VIDEOS[1][:2], TARGETS[3][1])[0])


def test_adding_and_dropping_compile_nothing(weights, caplog):
    def work(slots, order):
        for slot, (video, box) in order:
            slots = add(weights, slots, slot, video, box)
        slots, _ = track_many(weights, slots, PADDED[1], model=DEPTHWISE, config=CONFIG)
        slots = drop_target(slots, order[-1][0])
        track_many(weights, slots, PADDED[2], model=DEPTHWISE, config=CONFIG)

    slots = empty_slots(5, model=DEPTHWISE)
    work(slots, list(TARGETS.items())[:1])
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        jax.jit(lambda x: x + 1)(np.float32(1))
        assert any("Compiling" in message for message in caplog.messages)
        caplog.clear()
        work(slots, list(TARGETS.items())[1:])
    assert caplog.messages == []


@pytest.mark.parametrize("slot", [5, -1, np.int64(99)])
def test_slots_that_are_not_there(weights, slot):
    with pytest.raises(InputError, match=f"slot {slot}, expected 0 to 4"):
        add(weights, empty_slots(5, model=DEPTHWISE), slot, *TARGETS[0])


# --- Real sizes ---


def test_trained_weights_on_a_generated_scene():
    """Three targets equal ``Tracker`` on each to a hundredth of a pixel.

    Winograd adds up in another order for other batch sizes; what that changes in a
    frame moves the next frame's patch.
    """
    loaded = load_weights("small")
    frames, truth = make_sequence(3, length=5)
    targets = np.array([truth[0], [30, 40, 50, 40], [200, 120, 36, 60]], np.float64)
    tracker = Tracker(loaded.model, loaded.variables, loaded.tracker_config)
    expected = []
    for target in targets:
        tracker.init(frames[0], target)
        expected.append([(tracker.update(f), tracker.score) for f in frames[1:]])

    weights = fuse(loaded.model, loaded.variables)
    slots = empty_slots(3, model=loaded.model)
    for slot, box in enumerate(ltwh_to_cxcywh(targets).astype(np.float32)):
        slots = add_target(
            weights,
            slots,
            slot,
            frames[0],
            box,
            model=loaded.model,
            frame_size=np.array([320, 240], np.float32),  # as Tracker does
        )
    for t, frame in enumerate(frames[1:]):
        slots, output = track_many(
            weights,
            slots,
            frame[None],
            model=loaded.model,
            config=loaded.tracker_config,
        )
        boxes = cxcywh_to_ltwh(np.asarray(output.box, np.float64))
        for slot in range(3):
            box, score = expected[slot][t]
            np.testing.assert_allclose(boxes[slot], box, atol=1e-2)
            np.testing.assert_allclose(output.score[slot], score, atol=1e-3)


@pytest.mark.parametrize("slot", [-1, 3])
def test_dropping_from_slots_that_are_not_there(slot):
    slots = empty_slots(3, model=DEPTHWISE)
    with pytest.raises(InputError, match=f"slot {slot}, expected 0 to 2"):
        drop_target(slots, slot)


def test_a_video_without_a_frame_keeps_its_box(weights):
    _, padded = make_videos(2)
    slots = empty_slots(2, model=DEPTHWISE)
    for slot, video in enumerate((0, 7)):
        slots = add_target(
            weights,
            slots,
            slot,
            padded[0, 0],
            np.array([40, 30, 24, 18], np.float32),
            model=DEPTHWISE,
            video=video,
        )
    after, output = track_many(weights, slots, padded[1], model=DEPTHWISE)
    np.testing.assert_array_equal(after.state.box[1], [40, 30, 24, 18])
    assert after.state.age.tolist() == [1, 0] and after.state.margin[1] == 0
    assert output.score[0] > 0 and output.score[1] == 0
    assert (np.asarray(output.proposal_scores[1]) == 0).all()


def test_numbers_of_the_config_count_for_all_targets(weights):
    """As arrays they are what they are as numbers; and the lost ones are reported."""
    config = TrackerConfig(min_size=20.0, window_influence=0.1, confidence_bias=-60.0)
    slots = fill(weights)
    _, expected = track_many(weights, slots, PADDED[1], model=DEPTHWISE, config=config)
    arrays = jax.tree.map(jnp.float32, config)
    _, found = track_many(weights, slots, PADDED[1], model=DEPTHWISE, config=arrays)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert found.lost.tolist() == [True, True, False, True, True]
