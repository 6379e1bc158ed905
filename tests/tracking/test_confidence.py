import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.model import boxes
from siamrpn_jax.model.network import Detection, model_anchors
from siamrpn_jax.tracking.confidence import auroc, confidence_features, fit_confidence
from siamrpn_jax.tracking.step import make_tracker
from siamrpn_jax.weights import load_weights
from tracking_steps import (
    BOX,
    CLIP,
    CONFIG,
    LOSING,
    MODEL,
    F,
    K,
    follow,
    run,
    stack,
    start,
    step,
)


def draw(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Evidence of about the real spread; a third of the frames are lost."""
    rng = np.random.default_rng(seed)
    followed = rng.random(count) < 2 / 3
    evidence = rng.normal([[3.0, 12.0]], [[0.7, 5.0]], (count, 2))
    evidence[~followed] = rng.normal([-1.0, 1.0], [3.0, 4.0], (count, 2))[~followed]
    return evidence, followed


def slow_loss(bias: float, support: float, margin: float, evidence, followed) -> float:
    """Mean over the classes of the mean negative log likelihood."""
    terms = {True: [], False: []}
    for (a, b), y in zip(evidence, followed, strict=True):
        p = 1 / (1 + np.exp(-(bias + support * a + margin * b)))
        terms[bool(y)].append(-np.log(p if y else 1 - p))
    return float(np.mean(terms[True]) + np.mean(terms[False])) / 2


def test_no_other_numbers_fit_better():
    evidence, followed = draw(300)
    found = fit_confidence(evidence, followed)
    names = ("confidence_bias", "confidence_support", "confidence_margin")
    assert set(found) == set(names)
    best = np.array([found[name] for name in names])

    def loss_at(numbers: np.ndarray) -> float:
        bias, support, margin = numbers.tolist()
        return slow_loss(bias, support, margin, evidence, followed)

    least = loss_at(best)
    for direction in np.vstack([np.eye(3), -np.eye(3)]):
        for length in (0.05, 0.2):
            other = best + length * direction
            assert loss_at(other) > least


def test_known_numbers_are_found_again():
    """Frames drawn by a confidence; balancing the classes moves its bias alone."""
    rng = np.random.default_rng(1)
    evidence = rng.normal([[2.0, 6.0]], [[2.0, 6.0]], (40_000, 2))
    p = 1 / (1 + np.exp(-(-3 + 1.2 * evidence[:, 0] + 0.25 * evidence[:, 1])))
    followed = rng.random(len(p)) < p
    found = fit_confidence(evidence, followed)
    np.testing.assert_allclose(found["confidence_support"], 1.2, rtol=0.05)
    np.testing.assert_allclose(found["confidence_margin"], 0.25, rtol=0.05)
    odds = np.log(followed.mean() / (1 - followed.mean()))
    np.testing.assert_allclose(found["confidence_bias"], -3 - odds, atol=0.15)


def test_classes_apart_give_finite_numbers():
    evidence = np.array([[0.0, 0], [1, 0], [5, 9], [6, 9]])
    found = fit_confidence(evidence, [False, False, True, True])
    assert all(np.isfinite(list(found.values())))
    slopes = [found["confidence_support"], found["confidence_margin"]]
    confidences = found["confidence_bias"] + evidence @ slopes
    assert (confidences[:2] < 0).all() and (confidences[2:] > 0).all()


def test_a_number_that_never_changes_gets_no_weight():
    evidence, followed = draw(100)
    evidence[:, 1] = 7.0
    found = fit_confidence(evidence, followed)
    assert abs(found["confidence_margin"]) < 1e-3
    assert np.isfinite(found["confidence_bias"])


def test_auroc_against_all_comparisons():
    rng = np.random.default_rng(2)
    values, followed = rng.integers(0, 9, 80), rng.random(80) < 0.4
    wins = [
        (a > b) + 0.5 * (a == b) for a in values[followed] for b in values[~followed]
    ]
    np.testing.assert_allclose(auroc(values, followed), np.mean(wins))
    assert auroc([1.0, 2, 3], [False, False, True]) == 1
    assert auroc([1.0, 1, 1], [False, False, True]) == 0.5


@pytest.mark.parametrize("value", [True, False])
def test_one_class_is_refused(value):
    evidence, _ = draw(5)
    counts = "5 frames .* 0 " if value else "0 frames .* 5 "
    with pytest.raises(InputError, match=counts):
        fit_confidence(evidence, np.full(5, value))
    with pytest.raises(InputError, match="some of both"):
        auroc(evidence[:, 0], np.full(5, value))


def test_other_shapes_are_refused():
    evidence, followed = draw(6)
    with pytest.raises(InputError, match=r"followed \(5,\), expected \(6,\)"):
        fit_confidence(evidence, followed[:5])
    for bad in (evidence[:, :1], evidence[0], np.where(evidence > 3, np.nan, evidence)):
        with pytest.raises(InputError, match=r"expected finite numbers \[n, 2\]"):
            fit_confidence(bad, followed)
    with pytest.raises(InputError, match=r"expected numbers \[n\]"):
        auroc(evidence, followed)


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
