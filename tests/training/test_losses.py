import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from siamrpn_jax.model import boxes
from siamrpn_jax.training import losses
from siamrpn_jax.training.config import LossConfig
from siamrpn_jax.training.targets import Targets

B, N = 4, 30


@pytest.fixture(scope="module")
def batch():
    """Logits, deltas and targets of four pairs; the last one has no positives."""
    rng = np.random.default_rng(0)
    positive = rng.random((B, N)) < 0.2
    positive[-1] = False
    negative = (rng.random((B, N)) < 0.6) & ~positive
    logits = 2 * rng.normal(size=(B, N, 2)).astype(np.float32)
    deltas = rng.normal(size=(2, B, N, 4)).astype(np.float32)
    return (
        logits,
        deltas[0],
        Targets(*map(jnp.asarray, (positive, negative, deltas[1]))),
    )


def cross_entropy(logits, label: int) -> float:
    shifted = np.asarray(logits, np.float64) - np.max(logits)
    return float(np.log(np.exp(shifted).sum()) - shifted[label])


def slow_classification(logits, targets, *, hard: int) -> float:
    positives = [
        cross_entropy(logits[b, n], 1)
        for b, n in zip(*np.nonzero(targets.positive), strict=True)
    ]
    by_pair = [
        sorted((cross_entropy(row[n], 0) for n in np.nonzero(mask)[0]), reverse=True)
        for row, mask in zip(logits, np.asarray(targets.negative), strict=True)
    ]
    negative = np.mean(np.concatenate(by_pair))
    if hard:
        hardest = np.concatenate([pair[:hard] for pair in by_pair])
        negative = (negative + np.mean(hardest)) / 2
    return float(np.mean(positives) + negative) / 2


def slow_box(deltas) -> tuple[float, float, float, float]:
    """Corners of the box that offsets stand for, for an anchor that is not a square."""
    dx, dy, dw, dh = (float(d) for d in deltas)
    cx, cy, w, h = 50 + 30 * dx, 40 + 20 * dy, 30 * np.exp(dw), 20 * np.exp(dh)
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def slow_overlaps(a, b) -> tuple[float, float]:
    """IoU and GIoU of two boxes given by their corners."""
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    shared *= max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    union = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)) - shared
    bounds = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return shared / union, shared / union - (bounds - union) / bounds


def slow_smooth_l1(x: float, sigma: float | None) -> float:
    if sigma is None:
        return abs(x)
    if abs(x) < 1 / sigma**2:
        return 0.5 * sigma**2 * x**2
    return abs(x) - 1 / (2 * sigma**2)


@pytest.mark.parametrize("hard", [0, 3, 25])  # 25: more than there are negatives
def test_classification_loss_against_a_slow_formula(batch, hard):
    logits, deltas, targets = batch
    config = LossConfig(hard_negatives=hard)
    found = losses.classification_loss(
        logits, targets, deltas=deltas, config=config, axis_name=None
    )
    expected = slow_classification(logits, targets, hard=hard)
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_scores_of_overlap_against_a_slow_formula(batch):
    logits, deltas, targets = batch
    positives = []
    for b, n in zip(*np.nonzero(targets.positive), strict=True):
        wanted, _ = slow_overlaps(
            slow_box(deltas[b, n]), slow_box(targets.deltas[b, n])
        )
        loss = wanted * cross_entropy(logits[b, n], 1)
        positives.append(loss + (1 - wanted) * cross_entropy(logits[b, n], 0))
    negatives = [
        cross_entropy(logits[b, n], 0)
        for b, n in zip(*np.nonzero(targets.negative), strict=True)
    ]
    found, gradient = jax.value_and_grad(
        lambda d: losses.classification_loss(
            logits,
            targets,
            deltas=d,
            config=LossConfig(score_target="iou"),
            axis_name=None,
        )
    )(deltas)
    expected = (np.mean(positives) + np.mean(negatives)) / 2
    assert float(found) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(gradient, 0)  # a box learns nothing from its score


@pytest.mark.parametrize("hard", [0, 3])
def test_teacher_loss_against_a_slow_formula(hard):
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(2, 3, 3, 5, 2)).astype(np.float32)
    scores = rng.random((2, 3, 3)).astype(np.float32)
    positives, negatives = 0.0, []
    for pair, said in zip(logits, scores, strict=True):
        rest = []
        for cell, wanted in zip(pair.reshape(9, 5, 2), said.ravel(), strict=True):
            best = max(cell, key=lambda anchor: anchor[1] - anchor[0])
            positives += wanted * cross_entropy(best, 1) / scores.sum()
            rest.append((1 - wanted) * cross_entropy(best, 0))
        negatives.append(sorted(rest, reverse=True))
    expected = np.mean(negatives)
    if hard:
        expected = (expected + np.mean([rest[:hard] for rest in negatives])) / 2
    found = losses.teacher_loss(
        jnp.asarray(logits),
        jnp.asarray(scores),
        config=LossConfig(hard_negatives=hard),
        axis_name=None,
    )
    assert float(found) == pytest.approx((positives + expected) / 2, rel=1e-5)


def test_overlap_loss_against_a_slow_formula(batch):
    _, deltas, targets = batch
    errors = [
        1 - slow_overlaps(slow_box(deltas[b, n]), slow_box(targets.deltas[b, n]))[1]
        for b, n in zip(*np.nonzero(targets.positive), strict=True)
    ]
    found = losses.overlap_loss(deltas, targets, axis_name=None)
    assert float(found) == pytest.approx(np.mean(errors), rel=1e-5)


def test_overlap_loss_draws_boxes_together_that_do_not_meet():
    truth, far = jnp.zeros((1, 1, 4)), jnp.array([[[3.0, 0, 0, 0]]])
    targets = Targets(jnp.ones((1, 1), bool), jnp.zeros((1, 1), bool), truth)
    loss = functools.partial(losses.overlap_loss, targets=targets, axis_name=None)
    gradient = jax.grad(loss)(far)
    assert boxes.iou(far[0, 0] + jnp.array([0.0, 0, 1, 1]), jnp.ones(4)) == 0
    assert gradient[0, 0, 0] > 0.01


@pytest.mark.parametrize("sigma", [1.0, 3.0, None])
def test_regression_loss_against_a_slow_formula(batch, sigma):
    _, deltas, targets = batch
    errors = (deltas - np.asarray(targets.deltas)).astype(np.float64)
    sums = [
        sum(slow_smooth_l1(x, sigma) for x in errors[b, n])
        for b, n in zip(*np.nonzero(targets.positive), strict=True)
    ]
    found = losses.regression_loss(
        deltas, targets, config=LossConfig(sigma=sigma), axis_name=None
    )
    assert float(found) == pytest.approx(np.mean(sums), rel=1e-6)


@pytest.mark.parametrize("hard", [0, 3])
def test_in_batch_loss_takes_everything_as_negative(batch, hard):
    logits, _, _ = batch
    everything = [
        sorted((cross_entropy(pair, 0) for pair in row), reverse=True) for row in logits
    ]
    same = np.arange(len(logits)) == 1  # its neighbour shows the same target
    counted = [row for row, out in zip(everything, same, strict=True) if not out]
    expected = np.mean(counted)
    if hard:
        expected = (expected + np.mean([row[:hard] for row in counted])) / 2
    found = losses.in_batch_loss(
        logits,
        jnp.asarray(same),
        config=LossConfig(hard_negatives=hard),
        axis_name=None,
    )
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_two_way_cross_entropies_against_softmax():
    logits = np.random.default_rng(1).normal(size=(50, 2)).astype(np.float32) * 5
    positive, negative = losses.cross_entropies(jnp.asarray(logits))
    for label, found in enumerate((negative, positive)):
        labels = jnp.full(50, label)
        expected = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_extreme_logits_have_a_finite_loss_and_gradient(dtype):
    logits = jnp.array([[1e4, -1e4], [-1e4, 1e4]], dtype)

    def total(logits):
        return sum(x.sum() for x in losses.cross_entropies(logits))

    value, gradient = jax.jit(jax.value_and_grad(total))(logits)
    assert value.dtype == jnp.float32
    assert float(value) == pytest.approx(4e4, rel=1e-2)
    assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_smooth_l1_is_smooth_at_its_knee(sigma):
    """Eq. 4: both branches meet in value and slope at 1 / sigma²."""
    knee = 1 / sigma**2
    zero = jnp.zeros(())
    loss = functools.partial(losses.smooth_l1, targets=zero, sigma=sigma)
    near = np.array([1 - 1e-4, 1 + 1e-4]) * knee
    x = np.concatenate([near, -near, np.linspace(-5 * knee, 5 * knee, 41)])
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(loss)))(x.astype(np.float32))
    np.testing.assert_allclose(values[:4], knee / 2, rtol=1e-3)
    np.testing.assert_allclose(slopes[:4], [1, 1, -1, -1], rtol=1e-3)
    expected = [slow_smooth_l1(float(e), sigma) for e in x]
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def test_shares_of_two_devices_add_up(batch):
    """Value and gradient, with unequal numbers of positives on the devices."""
    logits, deltas, targets = batch
    config = LossConfig(hard_negatives=3, score_target="iou")

    def share(logits, deltas, targets, axis_name):
        kwargs: dict[str, Any] = dict(config=config, axis_name=axis_name)
        return (
            losses.classification_loss(logits, targets, deltas=deltas, **kwargs)
            + losses.regression_loss(deltas, targets, **kwargs)
            + losses.overlap_loss(deltas, targets, axis_name=axis_name)
            + losses.in_batch_loss(logits, targets.positive[:, 0], **kwargs)
        )

    def total(logits, deltas, devices):
        if devices == 1:
            return share(logits, deltas, targets, None)
        split = jax.tree.map(
            lambda x: x.reshape(devices, -1, *x.shape[1:]), (logits, deltas, targets)
        )
        mapped = functools.partial(share, axis_name="batch")
        return jax.vmap(mapped, axis_name="batch")(*split).sum()

    function = jax.jit(jax.value_and_grad(total, (0, 1)), static_argnums=2)
    one, two = function(logits, deltas, 1), function(logits, deltas, 2)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_a_batch_without_positives(batch):
    logits, deltas, targets = batch
    nothing = targets._replace(positive=jnp.zeros((B, N), bool))
    config = LossConfig(score_target="iou")

    def total(logits, deltas):
        kwargs: dict[str, Any] = dict(config=config, axis_name=None)
        regression = losses.regression_loss(deltas, nothing, **kwargs)
        regression += losses.overlap_loss(deltas, nothing, axis_name=None)
        return regression + losses.classification_loss(
            logits, nothing, deltas=deltas, **kwargs
        )

    gradient = jax.jit(jax.value_and_grad(total, (0, 1)))
    value, gradients = gradient(logits, deltas)
    assert jnp.isfinite(value) and jnp.isfinite(gradients[0]).all()
    np.testing.assert_array_equal(gradients[1], 0)


@pytest.mark.parametrize("sigma", [1.0, None])
def test_targets_of_unused_anchors_never_matter(batch, sigma):
    """Those of a pair without a target may well be infinite: the log of size 0."""
    _, deltas, targets = batch
    wild = jnp.where(targets.positive[..., None], targets.deltas, -jnp.inf)

    def loss(deltas, wanted):
        targets_ = targets._replace(deltas=wanted)
        config = LossConfig(sigma=sigma)
        return losses.regression_loss(deltas, targets_, config=config, axis_name=None)

    value_and_grad = jax.jit(jax.value_and_grad(loss))
    expected, expected_gradient = value_and_grad(deltas, targets.deltas)
    value, gradient = value_and_grad(deltas, wild)
    assert value == expected
    np.testing.assert_array_equal(gradient, expected_gradient)
