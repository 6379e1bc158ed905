import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamrpn_jax.common import configs
from siamrpn_jax.model.fused import fuse
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking import step as tracker
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.state import search_patches
from siamrpn_jax.tracking.step import init_track, make_tracker, track_clip, track_step
from tracking_steps import (
    BOX,
    CLIP,
    CONFIG,
    MODEL,
    check_close,
    make_model,
    noise,
    run,
    stack,
)

# --- The tracking loop ---


def test_one_trace_for_all_clips_of_a_size(variables, monkeypatch):
    traces = []

    def counted(state, frames, index, **options):
        traces.append(frames.shape)  # only tracing comes here
        return search_patches(state, frames, index, **options)

    monkeypatch.setattr(tracker, "search_patches", counted)
    for seed in range(3):
        clip, box = noise(3, 61, 80, seed=seed), BOX + seed
        config = TrackerConfig(min_size=4.0)
        other = jax.tree.map(lambda leaf: leaf * 1.01, variables)
        run(other, clip, box, model=make_model(), config=config)
    assert traces == [(1, 61, 80, 3)]


def test_scan_equals_a_loop(variables):
    expected = run(variables, CLIP, BOX)
    template, state = init_track(variables, CLIP[0], BOX, model=MODEL)
    last, outputs = track_clip(
        variables, template, state, CLIP[1:], model=MODEL, config=CONFIG
    )
    check_close(outputs, stack(expected))
    check_close(last.box, expected[-1].box)


def test_many_targets_equal_a_loop(variables):
    targets = np.array([BOX, [60, 20, 12, 30], [15, 45, 20, 20]], np.float32)
    expected = [run(variables, CLIP[:2], box)[0] for box in targets]
    init, step = make_tracker(MODEL, variables, config=CONFIG)
    templates, states = jax.vmap(init, in_axes=(None, 0))(CLIP[0], targets)
    _, outputs = jax.vmap(step, in_axes=(0, 0, None))(templates, states, CLIP[1])
    check_close(outputs, stack(expected))


def test_made_tracker_equals_the_functions(variables):
    init, step = make_tracker(make_model(), variables, config=CONFIG)
    template, state = init(CLIP[0], BOX)
    step = functools.partial(step, template)
    for frame, expected in zip(CLIP[1:], run(variables, CLIP, BOX), strict=True):
        state, output = step(state, frame)
        check_close(output, expected)
        np.testing.assert_array_equal(state.box, output.box)


def test_padding_changes_nothing(variables):
    """The same frames in the upper left of larger ones of noise."""
    padded = noise(4, 75, 101, seed=1)
    padded[:, :60, :80] = CLIP
    size = np.array([80, 60], np.float32)
    # In the middle, and where the search patch reaches into the padding.
    for box in (BOX, np.array([72, 50, 20, 24], np.float32)):
        expected = run(variables, CLIP, box)
        template, state = init_track(
            variables, padded[0], box, model=MODEL, frame_size=size
        )
        np.testing.assert_allclose(state.fill, CLIP[0].mean((0, 1)), rtol=1e-5)
        np.testing.assert_array_equal(state.frame_size, size)
        for frame, wanted in zip(padded[1:], expected, strict=True):
            state, output = track_step(
                variables, template, state, frame, model=MODEL, config=CONFIG
            )
            check_close(output, wanted)
            np.testing.assert_array_equal(state.frame_size, size)


def test_sizes_of_padded_frames_share_one_trace(variables):
    init, step = make_tracker(MODEL, variables, config=CONFIG)
    padded = noise(2, 70, 90, seed=2)

    def track(width, height):
        size = np.array([width, height], np.float32)
        template, state = init(padded[0], BOX, frame_size=size)
        return step(template, state, padded[1])[1].box

    first = track(80, 60)
    jitted: list[Any] = [tracker._init_track, track_step]
    before = [function._cache_size() for function in jitted]
    assert np.abs(track(70, 50) - first).max() > 0
    assert [function._cache_size() for function in jitted] == before


def test_fused_weights_and_variables_agree(variables):
    """A made tracker fuses once, so both share one trace of the step."""
    expected = run(variables, CLIP, BOX)
    jitted: Any = track_step
    sizes = []
    for weights in (fuse(MODEL, variables), variables):
        init, step = make_tracker(MODEL, weights, config=CONFIG)
        template, state = init(CLIP[0], BOX)
        for frame, wanted in zip(CLIP[1:], expected, strict=True):
            state, output = step(template, state, frame)
            check_close(output, wanted)
        sizes.append(jitted._cache_size())
    assert sizes[0] == sizes[1]


def test_fused_weights_under_scan_jit_and_vmap(variables):
    """Several sets of weights at once: they are data like any other."""
    both = [variables, jax.tree.map(lambda leaf: 1.1 * leaf, variables)]
    expected = [stack(run(values, CLIP, BOX)) for values in both]
    fused_weights = stack([fuse(MODEL, values) for values in both])

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def track(weights, clip):
        template, state = init_track(weights, clip[0], BOX, model=MODEL)
        return track_clip(
            weights, template, state, clip[1:], model=MODEL, config=CONFIG
        )

    _, outputs = track(fused_weights, jnp.asarray(CLIP))
    for i, wanted in enumerate(expected):
        check_close(jax.tree.map(lambda leaf, i=i: leaf[i], outputs), wanted)


def test_form_of_the_output(variables):
    for output in run(variables, CLIP, BOX):
        kinds = {name: leaf.dtype for name, leaf in vars(output).items()}
        assert kinds.pop("lost") == jnp.dtype(bool) and output.lost.shape == ()
        assert set(kinds.values()) == {jnp.dtype("f4")}
        assert output.evidence.shape == (2,) and output.confidence.shape == ()
        assert 0 <= output.confidence <= 1
        assert output.box.shape == (4,) and output.score.shape == ()
        assert output.proposals.shape == (8, 4) and output.proposal_scores.shape == (8,)
        assert 0 <= output.score <= 1 and 0 <= output.windowed_score <= 1
        scores = np.asarray(output.proposal_scores)
        assert (np.diff(scores) <= 0).all()
        assert scores[0] == output.windowed_score


def test_gradients_through_a_step_are_finite(variables):
    def score(params):
        values = {**variables, "params": params}
        template, state = init_track(values, CLIP[0], BOX, model=MODEL)
        _, output = track_step(
            values, template, state, CLIP[1], model=MODEL, config=CONFIG
        )
        return output.score + output.box.sum()

    gradients = jax.jit(jax.grad(score))(variables["params"])
    leaves = jax.tree.leaves(gradients)
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(gradients["backbone"]))


# --- The config's numbers as data ---


SETTINGS = [
    CONFIG,
    dataclasses.replace(CONFIG, penalty_k=0.0, window_influence=0.0),
    dataclasses.replace(CONFIG, penalty_k=0.4, size_lr=0.9, min_size=22.0),
    dataclasses.replace(CONFIG, margin_rate=1.0, confidence_bias=2.0, lost_below=0.9),
]


def test_configs_under_vmap_equal_single_ones(variables):
    template, state = init_track(variables, CLIP[0], BOX, model=MODEL)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=0)
    def track(config):
        clip = jnp.asarray(CLIP[1:])
        return track_clip(variables, template, state, clip, model=MODEL, config=config)

    _, outputs = track(stack(SETTINGS))
    for i, config in enumerate(SETTINGS):
        expected = stack(run(variables, CLIP, BOX, config=config))
        check_close(jax.tree.map(lambda leaf, i=i: leaf[i], outputs), expected)


def test_other_numbers_compile_nothing(variables):
    template, state = init_track(variables, CLIP[0], BOX, model=MODEL)

    def step(config):
        return track_step(
            variables,
            template,
            state,
            CLIP[1],
            model=MODEL,
            config=config,
        )[1]

    first = step(SETTINGS[0])
    jitted: Any = track_step
    before = jitted._cache_size()
    others = [step(config) for config in SETTINGS[1:]]
    assert jitted._cache_size() == before
    assert all(np.abs(other.box - first.box).max() > 0 for other in others[:2])


def test_configs_without_the_newer_fields_load():
    """As in weights files that were written before there was a confidence."""
    old = {
        "center_size": None,
        "penalty_k": 0.1,
        "window_influence": 0.4,
        "size_lr": 0.3,
        "top_k": 8,
        "nms_iou": None,
        "min_size": 4.0,
    }
    config = configs.from_json(TrackerConfig, old)
    expected = TrackerConfig(
        penalty_k=0.1, window_influence=0.4, size_lr=0.3, min_size=4.0
    )
    assert config == expected
    assert configs.from_json(TrackerConfig, configs.to_json(config)) == config


# --- Unusual frames and boxes ---


@pytest.mark.parametrize("shape", [(1, 40), (3, 2), (60, 80)])
def test_boxes_stay_finite_and_inside(variables, shape):
    height, width = shape
    starts = {
        "middle": (width / 2, height / 2, 2, 2),
        "border": (width, height, 10, 10),
        "outside": (5 * width, -3 * height, 20, 8),
        "huge": (width / 2, height / 2, 1e4, 1e4),
        "tiny": (width / 2, height / 2, 1e-2, 1e-2),
        "thin": (width / 2, height / 2, 300, 0.1),
    }
    clip = noise(3, *shape)
    for name, box in starts.items():
        for output in run(variables, clip, np.array(box, np.float32)):
            leaves = jax.tree.leaves(output)
            assert all(np.isfinite(leaf).all() for leaf in leaves), name
            x, y, w, h = output.box
            assert 0 <= x <= width and 0 <= y <= height, name
            assert min(4, width) <= w <= width and min(4, height) <= h <= height, name


def test_a_plain_frame_is_no_problem(variables):
    clip = np.full((3, 60, 80, 3), 127, np.uint8)
    for output in run(variables, clip, BOX):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(output))


def test_pysots_crop_keeps_padding_and_batches(variables):
    model = SiamRPN(dataclasses.replace(MODEL.config, crop="pysot"))
    expected = run(variables, CLIP, BOX, model=model)
    padded = noise(4, 75, 101, seed=1)
    padded[:, :60, :80] = CLIP
    size = np.array([80, 60], np.float32)
    template, state = init_track(
        variables, padded[0], BOX, model=model, frame_size=size
    )
    _, outputs = track_clip(
        variables, template, state, padded[1:], model=model, config=CONFIG
    )
    check_close(outputs, stack(expected))
