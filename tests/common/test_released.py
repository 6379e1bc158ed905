"""The names of released weights are those of the files."""

from siamrpn_jax.common.released import DEFAULT_WEIGHTS, WEIGHTS
from siamrpn_jax.weights import bundled


def test_names_are_those_of_the_files():
    assert sorted(WEIGHTS) == sorted(bundled())
    assert DEFAULT_WEIGHTS in WEIGHTS
