"""SiamFC's tracker against a plain NumPy loop over frames and scales."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from random_variables import random_variables
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.model.boxes import ltwh_to_cxcywh
from siamrpn_jax.model.config import (
    AnchorConfig,
    BackboneConfig,
    HeadConfig,
    ModelConfig,
)
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.published import siamfc_tracker
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.scales import best_place, best_scale, enlarge
from siamrpn_jax.tracking.search import make_settings, start_settings, track_settings
from siamrpn_jax.tracking.slots import add_target, empty_slots, track_many
from siamrpn_jax.tracking.state import scale_factors
from siamrpn_jax.tracking.step import init_track, track_clip, track_step

MODEL = SiamRPN(
    ModelConfig(
        backbone=BackboneConfig("compact", widths=(8, 16, 16)),
        head=HeadConfig("cross_correlation"),
        anchors=AnchorConfig(ratios=(1.0,)),
        exemplar_size=60,
        instance_size=124,
        conv_impl="xla",  # compiles faster
    )
)
CONFIGS = {
    3: dataclasses.replace(siamfc_tracker(3), min_size=4.0),
    5: dataclasses.replace(siamfc_tracker(5), min_size=4.0),
}
STRIDE, SIDE = 8, 9
FRAMES, TRUTH = make_sequence(3, length=8, height=90, width=120)
START = ltwh_to_cxcywh(TRUTH[0]).astype(np.float32)


@pytest.fixture(scope="module")
def variables():
    patches = (jnp.zeros((1, size, size, 3)) for size in (60, 124))
    return random_variables(MODEL.init, *patches)


def keys_kernel(x):
    """Keys' cubic with a = -1/2, as MATLAB's imresize takes it."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def slow_enlarge(response, factor=16):
    n = len(response)
    at = (np.arange(factor * n) + 0.5) / factor - 0.5
    weights = keys_kernel(at[:, None] - np.arange(n))
    weights /= weights.sum(1, keepdims=True)
    return weights @ response @ weights.T


def slow_crop(frame, center, side, fill, size):
    out = np.empty((size, size, 3))
    rows, columns = frame.shape[:2]

    def pixel(y, x):
        inside = 0 <= y < rows and 0 <= x < columns
        return frame[y, x].astype(np.float64) if inside else fill

    for i, j in np.ndindex(size, size):
        y = center[1] + (i + 0.5 - size / 2) * side / size - 0.5
        x = center[0] + (j + 0.5 - size / 2) * side / size - 0.5
        y0, x0 = int(np.floor(y)), int(np.floor(x))
        v, u = y - y0, x - x0
        top = (1 - u) * pixel(y0, x0) + u * pixel(y0, x0 + 1)
        low = (1 - u) * pixel(y0 + 1, x0) + u * pixel(y0 + 1, x0 + 1)
        out[i, j] = (1 - v) * top + v * low
    return out.astype(np.float32)


def slow_track(variables, frames, box, config: TrackerConfig):
    """SiamFC's loop: boxes ``cxcywh [T - 1, 4]``, and the scales it chose."""
    logits_of = jax.jit(
        lambda z, x: MODEL.apply(variables, z, x).detection.cls_logits  # type: ignore
    )
    fill = frames[0].reshape(-1, 3).mean(0)
    center, size = np.array(box[:2], np.float64), np.array(box[2:], np.float64)

    def context(size):
        return np.sqrt(np.prod(size + size.sum() / 2))

    z = slow_crop(frames[0], center, context(size), fill, 60)[None]
    steps = np.arange(config.scales) - config.scales // 2
    window = np.outer(np.hanning(16 * SIDE), np.hanning(16 * SIDE))
    window /= window.sum()
    found, chosen = [], []
    for frame in frames[1:]:
        sides = context(size) * 124 / 60 * config.scale_step**steps
        responses = []
        for side in sides:
            x = slow_crop(frame, center, side, fill, 124)[None]
            logits = np.asarray(logits_of(z, x), np.float64)[0, :, :, 0]
            responses.append(slow_enlarge(logits[..., 1] - logits[..., 0]))
        peaks = [
            r.max() * (1 if s == 0 else config.scale_penalty)
            for r, s in zip(responses, steps, strict=True)
        ]
        best = int(np.argmax(peaks))
        response = responses[best] - responses[best].min()
        response /= response.sum() + 1e-16
        influence = config.window_influence
        response = (1 - influence) * response + influence * window
        row, column = np.unravel_index(np.argmax(response), response.shape)
        shift = (np.array([column, row]) - (16 * SIDE - 1) / 2) * STRIDE / 16
        center = center + shift * sides[best] / 124
        rate, factor = config.size_lr, config.scale_step ** float(steps[best])
        size = size * (1 - rate + rate * factor)
        size = np.clip(size, config.min_size, frame.shape[1::-1])
        center = np.clip(center, 0, frame.shape[1::-1])
        found.append(np.concatenate([center, size]))
        chosen.append(best)
    return np.array(found), chosen


@pytest.mark.parametrize("scales", [3, 5])
def test_boxes_are_those_of_a_plain_loop(variables, scales):
    config = CONFIGS[scales]
    expected, chosen = slow_track(variables, FRAMES, START, config)
    assert len(set(chosen)) > 1
    template, state = init_track(variables, FRAMES[0], START, model=MODEL)
    _, output = track_clip(
        variables, template, state, FRAMES[1:], model=MODEL, config=config
    )
    np.testing.assert_allclose(output.box, expected, atol=2e-3)
    assert ((0 < output.score) & (output.score < 1)).all()
    assert ((0 < output.windowed_score) & (output.windowed_score < 1e3)).all()
    assert output.proposals.shape == (len(FRAMES) - 1, config.top_k, 4)


def test_slots_and_settings_follow_as_single_targets_do(variables):
    config = CONFIGS[3]
    starts = START, START + np.array([3, -2, 4, 0], np.float32)
    slots = empty_slots(3, model=MODEL)
    singles = []
    for slot, box in zip((0, 2), starts, strict=True):
        slots = add_target(variables, slots, slot, FRAMES[0], box, model=MODEL)
        singles.append(init_track(variables, FRAMES[0], box, model=MODEL))
    template, state = singles[0]
    settings = make_settings(config, np.array([[0.1, 0.1, 0.3, 1.0, 0.0]] * 2))
    settings = dataclasses.replace(settings, scale_step=jnp.float32([1.0375, 1.1]))
    for frame in FRAMES[1:4]:
        slots, output = track_many(
            variables, slots, frame[None], model=MODEL, config=config
        )
        for n, slot in enumerate((0, 2)):
            moved, single = track_step(
                variables, *singles[n], frame, model=MODEL, config=config
            )
            singles[n] = singles[n][0], moved
            np.testing.assert_allclose(output.box[slot], single.box, atol=1e-3)
    _, several = track_settings(
        variables,
        template,
        start_settings(state, 2),
        FRAMES[1:4],
        settings,
        model=MODEL,
    )
    for n, scale_step in enumerate((1.0375, 1.1)):
        own = dataclasses.replace(
            config, window_influence=0.1, size_lr=0.3, scale_step=scale_step
        )
        _, expected = track_clip(
            variables, template, state, FRAMES[1:4], model=MODEL, config=own
        )
        np.testing.assert_allclose(several.box[:, n], expected.box, atol=1e-3)


def test_another_scale_wins_only_by_more_than_its_penalty():
    config = TrackerConfig(scales=3, scale_penalty=0.9)
    np.testing.assert_allclose(
        scale_factors(TrackerConfig(scales=5, scale_step=1.1)),
        [1.1**-2, 1.1**-1, 1, 1.1, 1.21],
        rtol=1e-6,
    )
    for other, best in ((1.05, 1), (1.2, 0)):
        responses = np.zeros((3, 4, 4), np.float32)
        responses[:, 2, 1] = other, 1.0, 0.5
        assert int(best_scale(jnp.asarray(responses), config)) == best


def test_the_place_is_that_of_the_peak_and_the_window_holds_it_back():
    cells = np.full((1, SIDE, SIDE), -3, np.float32)
    cells[0, 6, 3] = 4.0
    (response,) = enlarge(jnp.asarray(cells))
    np.testing.assert_allclose(response, slow_enlarge(cells[0]), atol=1e-4)
    free = TrackerConfig(window_influence=0.0)
    place, score, _ = best_place(response, free)
    np.testing.assert_allclose(place, [-1, 2], atol=1 / 16)
    assert score > 0.97
    held, _, _ = best_place(response, TrackerConfig(window_influence=0.9))
    assert np.abs(np.asarray(held)).max() < 1


def test_a_centre_region_and_even_scales_are_refused(variables):
    template, state = init_track(variables, FRAMES[0], START, model=MODEL)
    config = TrackerConfig(center_size=7)
    with pytest.raises(InputError, match="center_size is 7, expected none"):
        track_step(variables, template, state, FRAMES[1], model=MODEL, config=config)
    with pytest.raises(InputError, match="scales is 4, expected an odd number"):
        TrackerConfig(scales=4)
    with pytest.raises(InputError, match="5 numbers, expected one"):
        ModelConfig(head=HeadConfig("cross_correlation"))
