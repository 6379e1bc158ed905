import dataclasses
from typing import Any

import cv2
import numpy as np
import pytest

from siamrpn_jax.data.crops.windows import AugmentConfig, paper_augment, small_augment
from siamrpn_jax.data.pairs.photometry import (
    Photometry,
    apply_photometry,
    color_table,
    draw_photometry,
)

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (60, 60, 3), np.uint8)


def change(z, x, rng, config) -> tuple[np.ndarray, np.ndarray]:
    z_change, x_change = draw_photometry(rng, config)
    return apply_photometry(z, z_change, rng), apply_photometry(x, x_change, rng)


@pytest.mark.parametrize("config", [AugmentConfig(), paper_augment(), small_augment()])
def test_photometry_keeps_form_and_inputs(config):
    rng = np.random.default_rng(0)
    z, x = NOISE[:24, :24].copy(), NOISE[:40, :40].copy()
    before = z.copy(), x.copy()
    changed = 0
    for _ in range(60):
        new_z, new_x = change(z, x, rng, config)
        assert new_z.shape == z.shape and new_x.shape == x.shape
        assert new_z.dtype == new_x.dtype == np.uint8
        changed += not np.array_equal(new_x, x)
    np.testing.assert_array_equal(z, before[0])
    np.testing.assert_array_equal(x, before[1])
    assert changed == 0 if config == AugmentConfig() else changed > 50


@pytest.mark.parametrize(
    "field",
    ["search_blur_probability", "low_resolution_probability", "noise_probability"],
)
def test_sharpness_changes_do_not_move_the_image(field):
    chosen: dict[str, Any] = {field: 1.0}
    config = AugmentConfig(**chosen)
    at = np.arange(120) + 0.5
    blob = 255 * np.exp(-((at - 60) ** 2 + (at[:, None] - 60) ** 2) / 72)
    image = np.repeat(blob.round().astype(np.uint8)[..., None], 3, axis=2)
    moved = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        _, x = change(image[:64, :64], image, rng, config)
        weights = np.clip(x[..., 0].astype(float) - 40, 0, None)
        moved.append([weights.sum(0) @ at, weights.sum(1) @ at] / weights.sum() - 60)
    assert np.abs(np.mean(moved, axis=0)).max() < 0.1
    assert np.abs(moved).max() < 0.5


@pytest.mark.parametrize("shift", [(30, 0), (0, -30), (20, 20), (-25, 10), (25, 10)])
def test_blur_runs_along_the_motion(shift):
    config = AugmentConfig(search_blur_probability=1.0, blur_along_motion=True)
    along = np.array(shift) / np.linalg.norm(shift)
    found = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        _, change = draw_photometry(rng, config, np.array(shift, float))
        if not isinstance(change.blur, np.ndarray) or len(change.blur) < 7:
            continue
        found += 1
        y, x = np.mgrid[: len(change.blur), : len(change.blur)] - len(change.blur) // 2
        weights = change.blur.ravel()
        across = x.ravel() * along[1] - y.ravel() * along[0]
        forth = x.ravel() * along[0] + y.ravel() * along[1]
        assert weights @ across**2 < 0.1 * (weights @ forth**2)
    assert found > 8


def test_blur_along_motion_draws_what_any_blur_draws():
    shift, blurred = np.array([5.0, 3.0]), AugmentConfig(search_blur_probability=1.0)
    for config in (small_augment(), paper_augment(), blurred):
        for seed in range(30):
            rng, other = (np.random.default_rng(seed) for _ in range(2))
            plain = draw_photometry(rng, config, shift)
            along = draw_photometry(
                other, dataclasses.replace(config, blur_along_motion=True), shift
            )
            assert rng.random() == other.random()
            np.testing.assert_equal(plain[0], along[0])
            np.testing.assert_equal(
                plain[1]._replace(blur=None), along[1]._replace(blur=None)
            )


def test_grey_and_lighting():
    rng = np.random.default_rng(0)
    image = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    z, x = change(image, image, rng, AugmentConfig(grey_probability=1.0))
    assert (np.ptp(z, axis=2) == 0).all() and (np.ptp(x, axis=2) == 0).all()
    lit = [change(image, image, rng, AugmentConfig(lighting=1.0)) for _ in "x" * 99]
    spread = np.std([x[0, 0] for _, x in lit], axis=0)
    np.testing.assert_allclose(spread, [1.2, 2.5, 8.2], rtol=0.3)
    assert any((z[0, 0] != x[0, 0]).any() for z, x in lit)


def test_color_table_of_strength_zero_changes_nothing():
    table = color_table(np.random.default_rng(0), 0.0)
    levels = np.repeat(np.arange(256)[None, :, None], 3, axis=2)
    assert np.abs(table.astype(int) - levels).max() <= 1


def test_tables_are_joined_exactly():
    """One table does what the pair's, the search image's and the lighting's would."""
    config = AugmentConfig(
        color_probability=1.0, search_color_probability=1.0, lighting=1.0
    )
    rng = np.random.default_rng(5)
    z_change, x_change = draw_photometry(np.random.default_rng(5), config)
    rng.random()
    first = color_table(rng, 1.0)
    rng.random()
    second = color_table(rng, 0.5)
    for photometry, tables in ((z_change, [first]), (x_change, [first, second])):
        expected = NOISE
        for table in tables:
            expected = cv2.LUT(expected, table)
        # The lighting moves whole levels, cut off at the ends.
        found = apply_photometry(NOISE, photometry, rng).astype(int)
        inside = (found > 0) & (found < 255)
        for channel in range(3):
            moved = (found - expected)[..., channel][inside[..., channel]]
            assert np.ptp(moved) <= 1


def test_no_change_is_the_identity():
    assert apply_photometry(NOISE, Photometry(), RNG) is NOISE


def test_grey_and_order_mix_the_channels():
    order = np.array([2, 0, 1])
    grey = np.tile([0.299, 0.587, 0.114], (3, 1))
    for photometry, matrix in (
        (Photometry(grey=True), grey),
        (Photometry(order=order), np.eye(3)[order]),
    ):
        found = apply_photometry(NOISE, photometry, RNG)
        np.testing.assert_allclose(found, NOISE @ matrix.T, atol=0.52)
