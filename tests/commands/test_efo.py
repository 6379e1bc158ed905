import numpy as np
import scipy.ndimage

from siamrpn_jax.commands.efo import filter_seconds, maximum_filter


def test_the_filter_is_a_maximum_over_30_by_30_pixels():
    image = np.random.default_rng(0).integers(0, 256, (70, 50), np.uint8)
    expected = scipy.ndimage.maximum_filter(image, 30, mode="constant")
    # Of an even window one side is longer: by one pixel, left and up there.
    found = np.asarray(maximum_filter(image))
    np.testing.assert_array_equal(found[:-1, :-1], expected[1:, 1:])


def test_it_takes_some_time():
    assert 1e-3 < filter_seconds(runs=1) < 10
