import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamrpn_jax.model import fused
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking import crops
from siamrpn_jax.tracking.state import search_patches
from siamrpn_jax.tracking.step import init_track
from tracking_steps import (
    BOX,
    CLIP,
    LOSING,
    MODEL,
    check_close,
    continue_from,
    detection_at,
    follow,
    start,
)


def test_the_first_state(variables):
    box = BOX.astype(np.float64)
    template, state = init_track(variables, CLIP[0], box, model=MODEL)
    assert state.box.dtype == jnp.float32
    np.testing.assert_array_equal(state.box, BOX)
    np.testing.assert_allclose(state.fill, CLIP[0].mean((0, 1)), rtol=1e-5)
    assert jax.tree.leaves(template)[0].shape == (1, 4, 4, 8)


def test_a_lost_target_is_searched_for_in_a_larger_region(detects):
    """Zoomed out, a stride of the patch is more pixels of the frame."""
    config = dataclasses.replace(LOSING, lost_search=1.5, when_lost="hold")
    found = follow(detects, [-6.0, -6.0, 6.0, 6.0], config=config)
    scales = [float(state.search_scale) for state, _ in found]
    assert scales == [1.5, 1.5, 1, 1]
    stride = 8 * 80 / 60
    moves = [float(output.proposals[0, 0]) for _, output in found]
    expected = 200 + stride * np.array([1, 1.5, 1.5, 1.5 + 1])
    np.testing.assert_allclose(moves, expected, rtol=1e-5)
    state = start(BOX, shape=(60, 80)).replace(search_scale=jnp.float32(1.5))
    x = search_patches(state, jnp.asarray(CLIP[1:2]), jnp.int32(0), model=MODEL)[0]
    side = 1.5 * crops.context_side(state.box[2:]) * 124 / 60
    cut = functools.partial(crops.crop_and_resize, size=124)
    expected = cut(jnp.asarray(CLIP[1]), state.box[:2], side, jnp.zeros(3))
    np.testing.assert_allclose(x, expected, atol=1e-3)


def test_the_region_of_a_lost_target_grows_step_by_step(detects):
    config = dataclasses.replace(LOSING, lost_search=1.5, lost_search_step=0.2)
    found = follow(detects, [-6.0] * 4 + [6.0, -6.0], config=config)
    scales = [float(state.search_scale) for state, _ in found]
    np.testing.assert_allclose(scales, [1.2, 1.4, 1.5, 1.5, 1, 1.2], rtol=1e-6)


@pytest.mark.parametrize(
    ("crop", "shift"), [("exact", 0.0), ("dasiamrpn", 0.0), ("pysot", 0.5)]
)
def test_crops_of_other_projects(variables, crop, shift):
    config: Any = dataclasses.replace(MODEL.config, crop=crop)
    model = SiamRPN(config)
    box = np.array([40.3, 30.8, 24, 18], np.float32)
    template, state = init_track(variables, CLIP[0], box, model=model)
    np.testing.assert_allclose(state.box, box - [shift, shift, 0, 0], rtol=1e-6)
    cut = functools.partial(
        crops.crop_and_resize,
        center=state.box[:2],
        fill=state.fill,
        whole_pixels=crop != "exact",
    )
    side = crops.context_side(state.box[2:])
    z = cut(CLIP[0], side=side, size=60)
    check_close(template, fused.embed_template(model, variables, z[None]))
    x = search_patches(state, jnp.asarray(CLIP[1:2]), jnp.int32(0), model=model)[0]
    expected = cut(CLIP[1], side=side * 124 / 60, size=124)
    np.testing.assert_allclose(x, expected, atol=1e-3)


def test_the_search_region_runs_ahead_of_a_moving_target(detects):
    """The target is always seen one stride right of the region's middle."""
    stride, share = 8 * 80 / 60, 0.6  # the context square is 80 wide
    config = dataclasses.replace(LOSING, motion=share)
    found = follow(detects, [6.0] * 4, config=config)
    x, mean, ahead = 200.0, 0.0, 0.0
    for state, output in found:
        last, x = x, x + ahead + stride
        mean += 0.5 * (x - last - mean)
        ahead = share * mean
        np.testing.assert_allclose(output.box[:2], [x, 150], rtol=1e-5)
        np.testing.assert_allclose(state.motion, [mean, 0], atol=1e-3)
        np.testing.assert_allclose(state.search_shift, [ahead, 0], atol=1e-3)


def test_where_the_search_region_lies():
    state = start(BOX, shape=(60, 80)).replace(search_shift=jnp.array([5.0, -3.0]))
    x = search_patches(state, jnp.asarray(CLIP[1:2]), jnp.int32(0), model=MODEL)[0]
    moved = start(BOX + np.array([5, -3, 0, 0], np.float32), shape=(60, 80))
    expected = search_patches(moved, jnp.asarray(CLIP[1:2]), jnp.int32(0), model=MODEL)[
        0
    ]
    np.testing.assert_array_equal(x, expected)


def test_the_search_region_stays_within_the_frame(detects):
    config = dataclasses.replace(LOSING, motion=30.0)
    detects(detection_at(4, 8, 1, logit=6.0))
    state, _ = continue_from(start((600.0, 240.0, 40.0, 40.0)), config=config)
    np.testing.assert_allclose(state.box[0] + state.search_shift[0], 640)
