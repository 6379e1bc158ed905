import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model import boxes
from siamrpn_jax.model.network import Detection, model_anchors
from siamrpn_jax.tracking import selection
from siamrpn_jax.tracking import state as state_module
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.selection import change_penalty, rank_proposals
from tracking_steps import (
    BOX,
    CLIP,
    CONFIG,
    MODEL,
    F,
    K,
    detection_at,
    run,
    step,
)


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


def test_sizes_follow_less_where_the_confidence_is_low(detects):
    """The share of the way to the new size is the score times the confidence."""
    changes = {}
    for share in (0.0, 0.5, 1.0):
        config = dataclasses.replace(
            CONFIG,
            **{"penalty_k": 0.0, "size_lr": 0.5, "size_confidence": share},
            **{"confidence_bias": -0.5, "confidence_margin": 0.0},
        )
        detects(detection_at(deltas=(0, 0, 0.2, 0.2), logit=1.0))
        output = step((300, 200, 90, 90), config=config)
        changes[share] = np.asarray(output.box[2:]) - 90
    confidence = float(output.confidence)
    assert 0.2 < confidence < 0.8
    rate = 0.5 / (1 + math.exp(-1.0))
    whole = rate * 90 * (math.exp(0.2) - 1)
    for share, change in changes.items():
        expected = whole * (1 - share + share * confidence)
        np.testing.assert_allclose(change, expected, rtol=1e-4)


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
        TrackerConfig(center_size=9, window_influence=1.0),
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
    ("center_size", "side"), [(None, 9), (9, 9), (7, 7), (3, 3), (1, 1)]
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


def test_a_centre_region_that_has_no_middle_cell_is_refused(detects):
    detects(detection_at())
    for side in (4, 11):
        message = f"center_size is {side} on a map of 9x9 cells, expected an odd number"
        with pytest.raises(InputError, match=message):
            step((200, 150, 40, 40), config=TrackerConfig(center_size=side))


def test_more_proposals_than_there_are_cannot_be_kept(detects):
    detects(detection_at())
    message = f"top_k is {F * F * K + 1}, expected at most the {F * F * K} proposals"
    with pytest.raises(InputError, match=message):
        step((200, 150, 40, 40), config=TrackerConfig(top_k=F * F * K + 1))
    step((200, 150, 40, 40), config=TrackerConfig(top_k=F * F * K))


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
