import dataclasses
import functools
import inspect
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from random_variables import random_variables
from siamrpn_jax.common import configs
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.model import boxes, fused
from siamrpn_jax.model.boxes import non_maximum_suppression
from siamrpn_jax.model.config import (
    AnchorConfig,
    BackboneConfig,
    HeadConfig,
    ModelConfig,
)
from siamrpn_jax.model.fused import fuse
from siamrpn_jax.model.network import Detection, SiamRPN, model_anchors
from siamrpn_jax.tracking import crops, selection
from siamrpn_jax.tracking import state as state_module
from siamrpn_jax.tracking import step as tracker
from siamrpn_jax.tracking.confidence import confidence_features
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.selection import change_penalty, rank_proposals
from siamrpn_jax.tracking.state import first_state, search_patch
from siamrpn_jax.tracking.step import init_track, make_tracker, track_clip, track_step
from siamrpn_jax.weights import load_weights

CONFIG = TrackerConfig(min_size=4.0)
F, K = 9, 3
BOX = np.array([40.0, 30, 24, 18], np.float32)


def make_model() -> SiamRPN:
    """Equal to every other one, and a new object each time."""
    return SiamRPN(
        ModelConfig(
            backbone=BackboneConfig("compact", widths=(4, 6, 8)),
            head=HeadConfig("depthwise", width=8, kernel_size=1),
            anchors=AnchorConfig(base_size=30.0, ratios=(0.5, 1.0, 2.0)),
            exemplar_size=60,
            instance_size=124,
            conv_impl="xla",  # compiles faster
        )
    )


MODEL = make_model()


@pytest.fixture(scope="module")
def variables():
    patches = (jnp.zeros((1, size, size, 3)) for size in (60, 124))
    return random_variables(MODEL.init, *patches)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


CLIP = noise(4, 60, 80)


def run(variables, clip, box, *, model=MODEL, config=CONFIG):
    """Outputs of a clip, frame after frame, as a list."""
    template, state = init_track(variables, clip[0], box, model=model)
    outputs = []
    for frame in clip[1:]:
        state, output = track_step(
            variables, template, state, frame, model=model, config=config
        )
        outputs.append(output)
    return outputs


def check_close(found, expected, *, atol: float = 1e-3):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol)


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


# --- The tracking loop ---


def test_one_trace_for_all_clips_of_a_size(variables, monkeypatch):
    traces = []

    def counted(state, frames, index, *, model):
        traces.append(frames.shape)  # only tracing comes here
        return search_patch(state, frames, index, model=model)

    monkeypatch.setattr(tracker, "search_patch", counted)
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
    jitted: list[Any] = [init_track, track_step]
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


def test_the_first_state(variables):
    box = BOX.astype(np.float64)
    template, state = init_track(variables, CLIP[0], box, model=MODEL)
    assert state.box.dtype == jnp.float32
    np.testing.assert_array_equal(state.box, BOX)
    np.testing.assert_allclose(state.fill, CLIP[0].mean((0, 1)), rtol=1e-5)
    assert jax.tree.leaves(template)[0].shape == (1, 4, 4, 8)


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


# --- One step with a detection made by hand ---


@pytest.fixture
def detects(monkeypatch):
    """Sets what the network says; ``track_step`` then runs without jit."""

    def choose(detection):
        monkeypatch.setattr(tracker.fused, "detect", lambda *_: detection)

    return choose


def detection_at(row=4, column=4, anchor=1, *, deltas=(0, 0, 0, 0), logit=2.0):
    """One anchor says target with the given logit, all others a firm no."""
    logits = np.zeros((1, F, F, K, 2), np.float32)
    logits[..., 1] = -20
    logits[0, row, column, anchor, 1] = logit
    offsets = np.zeros((1, F, F, K, 4), np.float32)
    offsets[0, row, column, anchor] = deltas
    return Detection(jnp.asarray(logits), jnp.asarray(offsets))


def step(box, *, shape=(480, 640), config=CONFIG):
    """One step from a box; ``detect`` is given, so weights and frame do not matter."""
    return continue_from(start(box, shape=shape), shape=shape, config=config)[1]


def start(box, *, shape=(480, 640)):
    size = jnp.array(shape[::-1], jnp.float32)
    return first_state(jnp.asarray(box, jnp.float32), jnp.zeros(3), size)


def continue_from(state, *, shape=(480, 640), config=CONFIG):
    frame = jnp.zeros((*shape, 3), jnp.uint8)
    state, output = inspect.unwrap(track_step)(
        None, None, state, frame, model=MODEL, config=config
    )
    np.testing.assert_array_equal(state.box, output.box)
    return state, output


def test_a_step_by_hand(detects):
    """Everything from the winning anchor to the smoothed box, in plain numbers."""
    box = (200.0, 150.0, 40.0, 40.0)
    zoom = 60 / 80  # patch pixels per frame pixel: the context square is 80 wide
    config = TrackerConfig(penalty_k=0.1, window_influence=0.4, size_lr=0.3)
    detects(detection_at(4, 6, 1, deltas=(0.2, -0.1, 0, math.log(2))))
    output = step(box, config=config)

    score = 1 / (1 + math.exp(-2))
    # The anchor is 30 x 30 and lies two strides right of the middle.
    dx, dy, w, h = 2 * 8 + 0.2 * 30, -0.1 * 30, 30, 60
    scale_change = math.sqrt((w + 45) * (h + 45)) / 60  # 30 x 30 has a side of 60
    penalty = math.exp(-0.1 * (2 * scale_change - 1))
    hann = [0.5 - 0.5 * math.cos(2 * math.pi * i / 8) for i in range(9)]
    final = 0.6 * score * penalty + 0.4 * hann[4] * hann[6]
    rate = 0.3 * penalty * score
    expected = (
        200 + dx / zoom,
        150 + dy / zoom,
        40 + rate * (w / zoom - 40),
        40 + rate * (h / zoom - 40),
    )
    np.testing.assert_allclose(output.box, expected, rtol=1e-5)
    np.testing.assert_allclose(output.score, score, rtol=1e-5)
    np.testing.assert_allclose(output.windowed_score, final, rtol=1e-5)
    proposal = (*expected[:2], w / zoom, h / zoom)
    np.testing.assert_allclose(output.proposals[0], proposal, rtol=1e-5)


def test_boxes_are_clipped_to_the_frame(detects):
    far = math.log(50)
    cases = [
        # Far out at the top left: the centre stays in the frame.
        ((10, 10, 60, 60), (-3, -3, 0, 0), (0, 0)),
        ((630, 470, 60, 60), (3, 3, 0, 0), (640, 480)),
    ]
    for box, deltas, center in cases:
        detects(detection_at(deltas=deltas))
        np.testing.assert_allclose(step(box).box[:2], center)
    config = dataclasses.replace(CONFIG, penalty_k=0.0, size_lr=1.0, min_size=10.0)
    detects(detection_at(deltas=(0, 0, far, far), logit=50.0))
    np.testing.assert_allclose(
        step((320, 240, 90, 90), config=config).box[2:], (640, 480)
    )
    detects(detection_at(deltas=(0, 0, -far, -far), logit=50.0))
    np.testing.assert_allclose(step((320, 240, 90, 90), config=config).box[2:], 10)
    # A frame lower than min_size limits more.
    small = step((20, 2, 9, 9), shape=(5, 40), config=config)
    np.testing.assert_allclose(small.box[2:], (10, 5))


def test_nothing_changes_where_the_target_is_where_it_was(detects):
    """The middle anchor of the box's own shape: same box, whatever its size."""
    detects(detection_at())
    for size in (12, 90, 400):
        # A square target of 30 patch pixels is the middle anchor.
        found = step((300, 200, size, size), config=CONFIG).box
        np.testing.assert_allclose(found, (300, 200, size, size), rtol=1e-5)


def test_proposals_without_overlap(detects):
    """NMS drops repetitions of better proposals and never changes the winner."""
    rng = np.random.default_rng(0)
    detection = Detection(
        jnp.asarray(rng.normal(size=(1, F, F, K, 2)), jnp.float32),
        jnp.asarray(0.2 * rng.normal(size=(1, F, F, K, 4)), jnp.float32),
    )
    detects(detection)
    config = dataclasses.replace(CONFIG, top_k=40)
    plain = step((300, 200, 60, 60), config=config)
    config = dataclasses.replace(config, nms_iou=0.3)
    thinned = step((300, 200, 60, 60), config=config)
    np.testing.assert_array_equal(thinned.box, plain.box)
    np.testing.assert_array_equal(thinned.proposals[0], plain.proposals[0])
    kept = np.asarray(thinned.proposals)[np.asarray(thinned.proposal_scores) > 0]
    assert 1 < len(kept) < 40
    overlaps = boxes.iou(kept[:, None], kept[None])
    assert (overlaps[~np.eye(len(kept), dtype=bool)] <= 0.3).all()
    assert (np.diff(thinned.proposal_scores) <= 0).all()


# --- Ranking ---


def slow_ranking(detection, last, config: TrackerConfig):
    """Scores of all proposals, one after the other, float64."""
    anchors = model_anchors(MODEL.config).astype(np.float64)
    logits = np.asarray(detection.cls_logits, np.float64).reshape(-1, 2)
    deltas = np.asarray(detection.reg_deltas, np.float64).reshape(-1, 4)

    def side(w, h):
        return math.sqrt((w + (w + h) / 2) * (h + (w + h) / 2))

    scores, finals = [], []
    for n, (anchor, logit, delta) in enumerate(
        zip(anchors, logits, deltas, strict=True)
    ):
        row, column = divmod(n // K, F)
        w, h = anchor[2:] * np.exp(delta[2:])
        ratio, old_ratio = w / h, last[0] / last[1]
        change = max(ratio / old_ratio, old_ratio / ratio)
        change *= max(side(w, h) / side(*last), side(*last) / side(w, h))
        penalty = math.exp(-config.penalty_k * (change - 1))
        score = math.exp(logit[1]) / (math.exp(logit[0]) + math.exp(logit[1]))
        window = np.hanning(F)[row] * np.hanning(F)[column]
        share = config.window_influence
        final = (1 - share) * score * penalty + share * window
        reach = ((config.center_size or F) - 1) / 2
        inside = max(abs(row - (F - 1) / 2), abs(column - (F - 1) / 2)) <= reach
        scores.append(score * inside)
        finals.append(final * inside)
    return scores, finals


@pytest.mark.parametrize(
    "config",
    [
        TrackerConfig(),
        TrackerConfig(penalty_k=0.0, window_influence=0.0),
        TrackerConfig(center_size=7, penalty_k=0.3),
        TrackerConfig(center_size=1),
        TrackerConfig(center_size=99, window_influence=1.0),
    ],
)
def test_ranking_against_a_slow_formula(config):
    rng = np.random.default_rng(3)
    detection = Detection(
        jnp.asarray(2 * rng.normal(size=(1, F, F, K, 2)), jnp.float32),
        jnp.asarray(0.5 * rng.normal(size=(1, F, F, K, 4)), jnp.float32),
    )
    last = (35.0, 20.0)
    found = rank_proposals(detection, jnp.array(last), model=MODEL, config=config)
    scores, finals = slow_ranking(detection, last, config)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.windowed, finals, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("center_size", "side"), [(None, 9), (9, 9), (7, 7), (4, 3), (1, 1), (20, 9)]
)
def test_the_centre_region_has_so_many_cells(center_size, side):
    config = TrackerConfig(center_size=center_size, window_influence=0.0)
    flat = Detection(jnp.zeros((1, F, F, K, 2)), jnp.zeros((1, F, F, K, 4)))
    found = rank_proposals(flat, jnp.array([30.0, 30.0]), model=MODEL, config=config)
    competing = np.asarray(found.windowed).reshape(F, F, K) > 0
    margin = (F - side) // 2
    expected = np.zeros((F, F, K), bool)
    expected[margin : F - margin, margin : F - margin] = True
    np.testing.assert_array_equal(competing, expected)


def test_stages_change_the_winner(detects):
    """A better proposal at the edge loses to the window and to the centre region."""
    logits = np.full((1, F, F, K, 2), (0.0, -20.0), np.float32)
    logits[0, 4, 5, 1, 1], logits[0, 0, 0, 1, 1] = 1.0, 3.0
    detects(Detection(jnp.asarray(logits), jnp.zeros((1, F, F, K, 4))))
    free = TrackerConfig(window_influence=0.0)
    step_right, corner = 8 * 80 / 60, -32 * 80 / 60  # the context square is 80 wide
    for config, shift in (
        (free, (corner, corner)),
        (dataclasses.replace(free, center_size=3), (step_right, 0)),
        (TrackerConfig(window_influence=0.42), (step_right, 0)),
    ):
        found = step((320, 240, 40, 40), config=config)
        np.testing.assert_allclose(
            found.box[:2] - np.array([320, 240]), shift, atol=1e-3
        )


def test_penalty_by_hand():
    last = jnp.array([30.0, 60.0])
    sizes = jnp.array(
        [
            [30, 60],  # no change
            [60, 30],  # ratio changed by 4, scale not
            [60, 120],  # scale doubled
            [15, 30],  # and halved
            [120, 60],  # both
        ],
        jnp.float32,
    )
    changes = np.array([1, 4, 2, 2, 8])
    found = change_penalty(sizes, last, k=0.2)
    np.testing.assert_allclose(found, np.exp(-0.2 * (changes - 1)), rtol=1e-5)
    np.testing.assert_allclose(change_penalty(sizes, last, k=0.0), 1.0)


def slow_nms(candidates, threshold):
    kept = []
    for i, box in enumerate(candidates):
        if all(boxes.iou(box, candidates[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


suppress = jax.jit(non_maximum_suppression)


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_nms_against_a_slow_one(threshold):
    rng = np.random.default_rng(0)
    for _ in range(20):
        centers, sizes = rng.uniform(0, 60, (25, 2)), rng.uniform(15, 40, (25, 2))
        candidates = np.concatenate([centers, sizes], 1).astype(np.float32)
        found = np.nonzero(suppress(candidates, iou_threshold=threshold))[0]
        assert found.tolist() == slow_nms(candidates, threshold)


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


# --- Confidence and loss ---


def slow_evidence(detection, proposals, best, *, margins, rate):
    """Support and averaged margin in plain float64; ``margins`` of earlier frames."""
    logits = np.asarray(detection.cls_logits, np.float64).reshape(-1, 2)
    odds = [float(no_yes[1] - no_yes[0]) for no_yes in logits]
    near = [boxes.iou(proposals[n], proposals[best]) > 0.3 for n in range(len(odds))]
    scores = [1 / (1 + math.exp(-value)) for value in odds]
    support = math.log(sum(s for s, one in zip(scores, near, strict=True) if one))
    inside = max(o for o, one in zip(odds, near, strict=True) if one)
    outside = max(o for o, one in zip(odds, near, strict=True) if not one)
    average = 0.0
    for count, margin in enumerate([*margins, inside - outside], start=1):
        average += max(rate, 1 / count) * (margin - average)
    return support, average


@pytest.mark.parametrize("rate", [0.1, 0.3, 1.0])
def test_evidence_against_a_slow_formula(rate):
    rng = np.random.default_rng(4)
    config = dataclasses.replace(CONFIG, margin_rate=rate)
    state, margins = start((200, 150, 40, 40)), []
    for _ in range(5):
        detection = Detection(
            jnp.asarray(3 * rng.normal(size=(1, F, F, K, 2)), jnp.float32),
            jnp.asarray(0.2 * rng.normal(size=(1, F, F, K, 4)), jnp.float32),
        )
        deltas = np.asarray(detection.reg_deltas, np.float64).reshape(-1, 4)
        anchors = model_anchors(MODEL.config).astype(np.float64)
        proposals = np.concatenate(
            [
                anchors[:, :2] + deltas[:, :2] * anchors[:, 2:],
                anchors[:, 2:] * np.exp(deltas[:, 2:]),
            ],
            axis=1,
        )
        best = int(rng.integers(len(proposals)))
        found = confidence_features(
            state,
            detection,
            jnp.asarray(proposals, jnp.float32),
            jnp.int32(best),
            config=config,
        )
        expected = slow_evidence(detection, proposals, best, margins=margins, rate=rate)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        _, now = slow_evidence(detection, proposals, best, margins=[], rate=rate)
        margins.append(now)
        state = state.replace(age=state.age + 1, margin=found[1])


def test_evidence_is_finite_whatever_the_network_says(detects):
    """All the same, all near, endless boxes, and logits beyond all bounds."""
    shape = (1, F, F, K)
    for logit, delta in ((0.0, 0.0), (0.0, 9.0), (1e30, 60.0), (-1e30, -200.0)):
        logits = np.zeros((*shape, 2), np.float32)
        logits[..., 1] = logit
        deltas = np.full((*shape, 4), (0, 0, delta, delta), np.float32)
        detects(Detection(jnp.asarray(logits), jnp.asarray(deltas)))
        output = step((320, 240, 40, 40))
        assert np.isfinite(output.evidence).all() and 0 <= output.confidence <= 1


LOSING = TrackerConfig(
    confidence_bias=0.5,
    confidence_support=1.0,
    confidence_margin=0.0,
    lost_below=0.2,
    found_above=0.6,
    window_influence=0.0,
    size_lr=0.0,
    min_size=4.0,
)
"""One proposal with logit l: its odds are about ``exp(0.5) * sigmoid(l)``."""


def follow(detects, logits, *, config):
    """Steps with one proposal a stride to the right; all others are far below."""
    state, found = start((200.0, 150.0, 40.0, 40.0)), []
    for logit in logits:
        detects(detection_at(4, 5, 1, logit=logit))
        state, output = continue_from(state, config=config)
        found.append((state, output))
    return found


def test_confidence_and_hysteresis(detects):
    logits = [6.0, -1, -3, -1, -0.3, 3, -1]
    #         high, between, low, between, between, high, between
    expected = [False, False, True, True, True, False, False]
    found = follow(detects, logits, config=LOSING)
    assert [bool(output.lost) for _, output in found] == expected
    assert [bool(state.lost) for state, _ in found] == expected
    for logit, (_, output) in zip(logits, found, strict=True):
        wanted = 1 / (1 + math.exp(-0.5 + math.log(1 + math.exp(-logit))))
        np.testing.assert_allclose(output.confidence, wanted, rtol=1e-3)


def test_a_lost_target_is_followed_or_held(detects):
    logits = [-6.0, -6.0, 6.0]
    stride = 8 * 80 / 60  # the context square is 80 wide
    followed = follow(detects, logits, config=LOSING)
    assert [bool(output.lost) for _, output in followed] == [True, True, False]
    xs = [float(output.box[0]) for _, output in followed]
    np.testing.assert_allclose(xs, 200 + stride * np.array([1, 2, 3]), rtol=1e-5)
    held = follow(detects, logits, config=dataclasses.replace(LOSING, when_lost="hold"))
    assert [bool(output.lost) for _, output in held] == [True, True, False]
    for _, output in held[:2]:
        np.testing.assert_array_equal(output.box, [200, 150, 40, 40])
        # What it would have been is still reported.
        np.testing.assert_allclose(output.proposals[0, 0], 200 + stride, rtol=1e-5)
    np.testing.assert_allclose(held[2][1].box[0], 200 + stride, rtol=1e-5)


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
    x = search_patch(state, jnp.asarray(CLIP[1:2]), jnp.int32(0), model=MODEL)
    side = 1.5 * crops.context_side(state.box[2:]) * 124 / 60
    cut = functools.partial(crops.crop_and_resize, size=124)
    expected = cut(jnp.asarray(CLIP[1]), state.box[:2], side, jnp.zeros(3))
    np.testing.assert_allclose(x, expected, atol=1e-3)


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


def test_loss_does_not_move_boxes_by_default(variables):
    """Whatever the confidence says, boxes are those without it."""
    expected = stack(run(variables, CLIP, BOX)).box
    for bias in (-50.0, 50.0):
        config = dataclasses.replace(CONFIG, confidence_bias=bias)
        outputs = stack(run(variables, CLIP, BOX, config=config))
        assert (outputs.lost == (bias < 0)).all()
        np.testing.assert_array_equal(outputs.box, expected)


def test_shipped_weights_tell_when_the_target_vanishes():
    """Films that cut to another scene; before that, the target is easily followed."""
    loaded = load_weights("small")
    init, step = make_tracker(
        loaded.model, loaded.variables, config=loaded.tracker_config
    )
    followed, vanished = [], []
    for seed in range(1, 7):
        frames, truth = make_sequence(seed, length=16)
        others, _ = make_sequence(seed + 100, length=8)
        template, state = init(frames[0], boxes.ltwh_to_cxcywh(truth[0]))
        for t, frame in enumerate((*frames[1:], *others), start=1):
            state, output = step(template, state, frame)
            (followed if t < 16 else vanished).append(jax.device_get(output))
    assert np.mean([output.lost for output in followed]) < 0.05
    assert np.mean([output.confidence for output in followed]) > 0.7
    assert np.mean([output.lost for output in vanished]) > 0.8
    assert np.mean([output.confidence for output in vanished]) < 0.3


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


# --- Crops of other projects ---


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
    x = search_patch(state, jnp.asarray(CLIP[1:2]), jnp.int32(0), model=model)
    expected = cut(CLIP[1], side=side * 124 / 60, size=124)
    np.testing.assert_allclose(x, expected, atol=1e-3)


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


# --- Votes and motion ---


def random_proposals(seed: int) -> state_module.Proposals:
    rng = np.random.default_rng(seed)
    found = rng.uniform((40, 40, 20, 20), (70, 70, 50, 50), (60, 4))
    scores, penalties = rng.uniform(0, 1, (2, 60))
    arrays = (found, scores, penalties, scores * penalties)
    return state_module.Proposals(*(jnp.asarray(a, jnp.float32) for a in arrays))


@pytest.mark.parametrize("voting_iou", [0.0, 0.4, 0.8])
def test_votes_against_a_slow_formula(voting_iou):
    for seed in range(5):
        proposals = random_proposals(seed)
        best = int(np.argmax(proposals.windowed))
        winner, total, sums = np.asarray(proposals.boxes[best], float), 0.0, np.zeros(4)
        for box, weight in zip(proposals.boxes, proposals.windowed, strict=True):
            if boxes.iou(np.asarray(box, float), winner) >= voting_iou:
                total += float(weight)
                sums += float(weight) * np.asarray(box, float)
        found = selection.vote(proposals, jnp.asarray(best), voting_iou=voting_iou)
        np.testing.assert_allclose(found, sums / total, rtol=1e-5)


def test_a_winner_without_agreement_is_taken_as_it_is():
    proposals = random_proposals(0)
    worthless = proposals.replace(scores=jnp.zeros(60))
    for one, voting_iou in ((proposals, 1.0), (worthless, 0.3)):
        found = selection.vote(one, jnp.asarray(3), voting_iou=voting_iou)
        np.testing.assert_array_equal(found, proposals.boxes[3])


def test_votes_move_the_box_not_the_winner(variables):
    config = dataclasses.replace(CONFIG, voting_iou=0.3)
    alone, voted = (run(variables, CLIP, BOX, config=c)[0] for c in (CONFIG, config))
    np.testing.assert_array_equal(alone.proposals, voted.proposals)
    assert alone.score == voted.score
    assert np.abs(alone.box - voted.box).max() > 0.01


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
    x = search_patch(state, jnp.asarray(CLIP[1:2]), jnp.int32(0), model=MODEL)
    moved = start(BOX + np.array([5, -3, 0, 0], np.float32), shape=(60, 80))
    expected = search_patch(moved, jnp.asarray(CLIP[1:2]), jnp.int32(0), model=MODEL)
    np.testing.assert_array_equal(x, expected)


def test_the_search_region_stays_within_the_frame(detects):
    config = dataclasses.replace(LOSING, motion=30.0)
    detects(detection_at(4, 8, 1, logit=6.0))
    state, _ = continue_from(start((600.0, 240.0, 40.0, 40.0)), config=config)
    np.testing.assert_allclose(state.box[0] + state.search_shift[0], 640)
