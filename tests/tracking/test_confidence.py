import numpy as np
import pytest

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.tracking.confidence import auroc, fit_confidence


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
        for step in (0.05, 0.2):
            other = best + step * direction
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
