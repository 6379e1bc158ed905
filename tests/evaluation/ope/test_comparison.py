import numpy as np
import pytest
from scipy import stats

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.evaluation.ope.comparison import compare


def table(values):
    return {f"s{index}": float(value) for index, value in enumerate(values)}


def test_against_scipy():
    rng = np.random.default_rng(5)
    others = rng.uniform(0.2, 0.9, 30)
    aucs = others + rng.normal(0.02, 0.1, 30)
    found = compare(table(aucs), table(others), other="b")
    expected = stats.bootstrap(
        (aucs, others),
        lambda a, b, axis: (a - b).mean(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=50_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found.auc_difference == pytest.approx((aucs - others).mean())
    assert found.interval == pytest.approx((expected.low, expected.high), abs=0.002)
    assert found.better == (aucs > others).sum()
    assert found.worse == 30 - found.better
    assert found.sequences == 30


def test_two_that_are_equal():
    found = compare(table([0.5, 0.7, 0.1]), table([0.5, 0.7, 0.1]), other="b")
    assert (found.auc_difference, found.interval) == (0, (0, 0))
    assert (found.better, found.worse) == (0, 0)


def test_the_sign_and_the_other_way_round():
    a, b = table([0.9, 0.6, 0.4, 0.8]), table([0.5, 0.5, 0.5, 0.5])
    one, two = compare(a, b, other="b"), compare(b, a, other="a")
    assert one.auc_difference == pytest.approx(0.175)
    assert two.auc_difference == pytest.approx(-0.175)
    assert one.interval == pytest.approx(tuple(-x for x in reversed(two.interval)))
    assert (one.better, one.worse) == (two.worse, two.better) == (3, 1)


def test_only_common_sequences_count():
    found = compare({"a": 0.5, "b": 0.7, "c": 0}, {"a": 0.4, "b": 0.6}, other="x")
    assert found.sequences == 2
    assert found.interval == pytest.approx((0.1, 0.1))


def test_an_interval_needs_several():
    with pytest.raises(InputError, match="1 sequences .* expected 2 or more"):
        compare({"a": 0.5, "b": 0.7}, {"a": 0.5, "c": 0.7}, other="x")
