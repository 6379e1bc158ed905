"""Whether computed values are near enough to expected ones."""

import jax
import numpy as np


def check_close(found, expected, *, rtol: float = 1e-4, atol: float = 1e-4):
    """Each value of two equal trees of arrays, as ``assert_allclose`` compares them."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def check_relative(found, expected, tolerance: float):
    """The largest error of each array, as a share of its largest expected value."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max()
