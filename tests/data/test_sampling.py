import numpy as np
import pytest

from siamrpn_jax.data.sampling import Weighted, held_out


def test_items_are_drawn_as_often_as_they_weigh():
    weighted = Weighted("abc", [1, 0, 3])
    rng = np.random.default_rng(0)
    drawn = [weighted.draw(rng) for _ in range(4000)]
    assert drawn.count("b") == 0
    # 3,000 expected; four standard deviations are 110.
    assert abs(drawn.count("c") - 3000) < 110
    np.testing.assert_allclose(weighted.probabilities(), [0.25, 0, 0.75])


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 1.0])
def test_a_share_is_held_out_and_never_all(fraction):
    names = {key: f"video {key}" for key in range(20)}
    out = held_out(names, fraction)
    assert len(out) == min(20 * fraction, 19)
    # It follows from the names: order and keys do not matter.
    backwards = {-key: names[key] for key in reversed(names)}
    assert {-key for key in held_out(backwards, fraction)} == out
    # What a smaller share holds out, a larger one does too.
    assert held_out(names, fraction / 2) <= out


def test_a_single_item_is_kept_for_training():
    assert held_out({"a": "a"}, 0.5) == set()
