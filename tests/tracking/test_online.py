"""Kernels that keep learning, against convolutions and Newton's method in NumPy."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from closeness import check_close
from random_variables import random_variables
from siamrpn_jax.model import fused, rpn
from siamrpn_jax.tracking import online
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.state import patch_scale, search_patches
from siamrpn_jax.tracking.step import init_track, track_step
from tracking_steps import BOX, CLIP, HYBRID, start

CONFIG = TrackerConfig(min_size=4.0, online_frames=2, online_above=0.0)
VIEWS, CELLS = len(online.FIRST_VIEWS), HYBRID.config.score_size


@pytest.fixture(scope="module")
def weights() -> Any:
    return fused.fuse(HYBRID, random_variables(HYBRID.init_variables))


def numbers(*shape: int, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def make_learned(channels: int, side: int, patches: int) -> online.Learned:
    size = CELLS + side - 1
    return online.Learned(
        first=jnp.zeros((side, side, channels)),
        margin=jnp.zeros(()),
        kernel=jnp.zeros((side, side, channels)),
        features=numbers(patches, size, size, channels),
        places=8 * numbers(patches, 2, seed=1),
        logits=jnp.zeros((patches, CELLS, CELLS)),
        shares=jnp.zeros(patches).at[VIEWS:].set(0.3),
    )


def test_products_are_a_convolution_and_its_transpose():
    features, kernel = numbers(3, 8, 9, 5), numbers(3, 4, 5)
    kernels = jnp.broadcast_to(kernel[None, ..., None], (3, 3, 4, 5, 1))
    expected = rpn.correlate(features, kernels, impl="group")
    found = online.correlate(features, kernel)
    check_close(found, rpn.SCORE_GAIN * expected[..., 0], atol=1e-6)
    features, slopes = numbers(3, 8, 8, 5), numbers(3, 6, 6)
    run = jax.linear_transpose(lambda k: online.correlate(features, k), kernel[:, :3])
    check_close(online.gather(features, slopes), run(slopes)[0], atol=1e-6)


def test_descent_ends_where_newtons_method_does():
    learned = make_learned(channels=2, side=2, patches=VIEWS + 2)
    labels, weights = map(np.asarray, online.label_cells(learned.places, model=HYBRID))
    weights = weights * np.asarray(online.weigh_examples(learned.shares))[:, None, None]
    windows = sliding_window_view(np.asarray(learned.features), (2, 2), axis=(1, 2))
    x = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 8) * rpn.SCORE_GAIN
    x, y, w = x.astype(np.float64), labels.ravel(), weights.ravel()
    theta = np.zeros(8)
    for _ in range(20):
        p = 1 / (1 + np.exp(-x @ theta))
        gradient = x.T @ (w * (p - y))
        theta -= np.linalg.solve((x.T * (w * p * (1 - p))) @ x, gradient)
    kernel, logits = online.descend(learned, steps=1000, model=HYBRID)
    check_close(logits.ravel(), x @ np.asarray(kernel).ravel(), atol=1e-3)

    def loss(theta: np.ndarray) -> float:
        return float(w @ (np.logaddexp(0, x @ theta) - y * (x @ theta)))

    left = loss(np.asarray(kernel, np.float64).ravel()) - loss(theta)
    assert 0 <= left < 0.05 * (loss(np.zeros(8)) - loss(theta))


def test_cells_are_labelled_by_their_distance():
    places = jnp.array([[0.0, 0], [16, -8], [500, 0]])
    labels, weights = online.label_cells(places, model=HYBRID)
    stride, size = 8, HYBRID.config.exemplar_size
    middle = CELLS // 2
    for (x, y), label, weight in zip(
        np.asarray(places), np.asarray(labels), np.asarray(weights), strict=True
    ):
        at = stride * (np.arange(CELLS) - middle)
        distance = np.sqrt((at[None] - x) ** 2 + (at[:, None] - y) ** 2)
        near = distance <= max(0.12 * size, distance.min())
        far = distance > 0.25 * size
        np.testing.assert_array_equal(label, near)
        np.testing.assert_allclose(weight, (near / near.sum() + far / far.sum()) / 2)


@pytest.mark.parametrize(
    ("later", "expected"), [((0.0, 0.0), 1.0), ((0.1, 0.2), 0.7), ((0.6, 0.9), 0.4)]
)
def test_the_first_frame_keeps_its_share(later, expected):
    shares = jnp.concatenate([jnp.zeros(VIEWS), jnp.array(later)])
    found = np.asarray(online.weigh_examples(shares))
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(found[:VIEWS], expected / VIEWS, rtol=1e-6)
    np.testing.assert_allclose(found[VIEWS] * later[1], found[-1] * later[0], atol=1e-7)


def test_the_target_lies_where_the_first_views_say():
    frame = np.zeros((200, 240, 3), np.uint8)
    frame[100:104, 120:124] = 255
    state = start((122.0, 102.0, 30.0, 30.0), shape=(200, 240))
    patches, places = online.first_views(state, jnp.asarray(frame), model=HYBRID)
    for patch, place in zip(
        np.asarray(patches)[..., 0], np.asarray(places), strict=True
    ):
        rows, columns = np.mgrid[: len(patch), : len(patch)] + 0.5
        seen = np.array([(patch * columns).sum(), (patch * rows).sum()]) / patch.sum()
        np.testing.assert_allclose(seen - len(patch) / 2, place, atol=0.1)


def test_a_kernel_learns_from_the_first_frame_and_from_later_ones(weights):
    track: dict[str, Any] = {"model": HYBRID, "config": CONFIG}
    template, state = init_track(weights, CLIP[0], BOX, **track)
    learned = state.memory.learned
    assert loss(weights, learned.kernel, learned) < 0.9 * loss(
        weights, template.cls_kernel[0], learned
    )
    for number, frame in enumerate(CLIP[1:]):
        before = state
        state, output = track_step(weights, template, state, frame, **track)
        learned, slot = state.memory.learned, VIEWS + number % 2
        x = search_patches(before, jnp.asarray(frame)[None], jnp.int32(0), model=HYBRID)
        features = fused.embed_search(HYBRID, weights, x)[0]
        check_close(learned.features[slot], features)
        offset = output.box[:2] - before.box[:2] - before.search_shift
        place = offset * patch_scale(before, model=HYBRID)
        check_close(learned.places[slot], place)
        scores = online.correlate(learned.features, learned.kernel)
        bias = fused.score_bias(weights)
        check_close(learned.logits[:VIEWS], scores[:VIEWS] + bias)
        check_close(learned.logits[slot], scores[slot] + bias)
        unlearned = loss(weights, before.memory.learned.kernel, learned)
        assert loss(weights, learned.kernel, learned) < unlearned
    np.testing.assert_allclose(learned.shares[VIEWS:], [0.1, 0.09], rtol=1e-5)


def loss(weights, kernel, learned):
    """The logistic loss that kernels learn by."""
    labels, shares = online.label_cells(learned.places, model=HYBRID)
    shares *= online.weigh_examples(learned.shares)[:, None, None]
    logits = online.score_patches(weights, learned.features, kernel)
    return jnp.sum(shares * (jnp.logaddexp(0, logits) - labels * logits))


def test_doubtful_frames_teach_nothing(weights):
    track: dict[str, Any] = {"model": HYBRID}
    track["config"] = dataclasses.replace(CONFIG, online_above=1.0)
    template, state = init_track(weights, CLIP[0], BOX, **track)
    after = track_step(weights, template, state, CLIP[1], **track)[0]
    learned = state.memory.learned.replace(margin=after.memory.learned.margin)
    check_close(after.memory.learned, learned, atol=0)
