import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_folders import write_everything
from siamrpn_jax.data.crops.windows import AugmentConfig, small_augment
from siamrpn_jax.data.pairs.loader import open_datasets, stack
from siamrpn_jax.data.pairs.pairs import DataConfig, PairDataset
from siamrpn_jax.training import augmentation
from siamrpn_jax.training.batch import Batch, RawPatches

SIZES: dict[str, Any] = {"exemplar_size": 44, "instance_size": 92}
NO_NOISE = dataclasses.replace(
    small_augment(),
    lighting=1.0,
    low_resolution_probability=0.5,
    search_blur_probability=0.5,
    template_blur_probability=0.5,
    noise_probability=0.0,
)
NOISE = np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)
render = jax.jit(
    augmentation.render, static_argnames=("exemplar_size", "instance_size")
)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    return write_everything(tmp_path_factory.mktemp("data"))


def open_pairs(root: str, augment: AugmentConfig) -> PairDataset:
    config = DataConfig(folders=(root,), synthetic=0.3, negative_probability=0.2)
    return open_datasets(config, augment=augment, **SIZES)[0]


def patch(image: np.ndarray, matrix, **changes) -> RawPatches:
    fields: dict[str, Any] = dict.fromkeys(RawPatches._fields)
    fill, seed = np.array([9, 99, 199], np.uint8), np.uint32(7)
    fields |= {"image": image, "fill": fill, "noise_seed": seed}
    fields["matrix"] = np.array(matrix, np.float32)
    return RawPatches(**fields | changes)


def repeated(image: np.ndarray, matrices: jax.Array) -> RawPatches:
    count = len(matrices)
    single = patch(image, np.eye(2, 3))
    return single._replace(
        image=jnp.broadcast_to(single.image, (count, *image.shape)),
        matrix=matrices,
        fill=jnp.broadcast_to(single.fill, (count, 3)),
        noise_seed=jnp.zeros(count, jnp.uint32),
        blur=jnp.broadcast_to(np.pad(np.ones((1, 1), np.float32), 6), (count, 13, 13)),
    )


def differences(found: Batch, pairs: list) -> np.ndarray:
    """Of all grey levels of all patches, a row for each pair."""
    rows = []
    for i, pair in enumerate(pairs):
        np.testing.assert_array_equal(found.box[i], pair.box)
        assert found.positive[i] == pair.positive
        z = np.asarray(found.z[i], int) - pair.z
        x = np.asarray(found.x[i], int) - pair.x
        rows.append(np.abs(np.concatenate([z.ravel(), x.ravel()])))
    return np.array(rows)


@pytest.mark.parametrize("augment", [NO_NOISE, AugmentConfig(search_shift=0.25)])
def test_patches_are_those_of_the_host(root, augment):
    pairs = open_pairs(root, augment)
    found = render(stack([pairs.raw(i) for i in range(48)]), **SIZES)
    assert found.z.dtype == found.x.dtype == np.uint8
    difference = differences(found, [pairs[i] for i in range(48)])
    assert difference.mean() < 0.2 and difference.mean(axis=1).max() < 0.5
    assert np.quantile(difference, 0.999) <= 2 and difference.max() <= 12


def test_noise_is_of_the_drawn_strength(root):
    pairs = open_pairs(root, AugmentConfig(noise_probability=1.0))
    raw = stack([pairs.raw(i) for i in range(16)])
    assert raw.x.noise is not None and raw.z.noise is not None
    quiet = raw.x._replace(noise=np.zeros_like(raw.x.noise))
    one, other = render(raw, **SIZES), render(raw._replace(x=quiet), **SIZES)
    level = np.asarray(other.x, int)
    added = np.asarray(one.x, int) - level
    for i in range(16):
        inside = ((level[i] > 40) & (level[i] < 215)).all(-1)
        if inside.sum() > 1000:
            assert added[i][inside].std() == pytest.approx(raw.x.noise[i], rel=0.1)
            assert np.ptp(added[i][inside], axis=-1).max() == 0  # no colour in it
    assert len(set(raw.x.noise_seed.tolist()) | set(raw.z.noise_seed.tolist())) == 32


def test_an_identity_changes_nothing():
    found = jax.jit(functools.partial(augmentation.render_patch, size=40))(
        patch(
            NOISE,
            [[1, 0, 20], [0, 1, 20]],
            table=np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1),
            mixing=np.eye(3, dtype=np.float32),
            shrunk=np.int32(40),
            blur=np.pad(np.ones((1, 1), np.float32), 6),
            noise=np.float32(0),
        )
    )
    np.testing.assert_array_equal(found, NOISE[:40])


def test_points_outside_have_the_fill():
    """Half a pixel beyond the border is half of each colour."""
    image = np.full((20, 20, 3), 100, np.uint8)
    shifted = patch(image, [[1, 0, 15], [0, 1, 15.5]])
    found = np.asarray(augmentation.render_patch(shifted, size=40))
    np.testing.assert_array_equal(found[4, 6], [55, 100, 150])
    np.testing.assert_array_equal(found[5, 5], [100] * 3)
    for row, column in ((3, 10), (30, 10), (10, 4), (10, 25)):
        np.testing.assert_array_equal(found[row, column], [9, 99, 199])


@pytest.mark.parametrize("angle", [0.0, 0.4])
def test_sampling_is_bilinear(angle):
    c, s = 0.8 * np.cos(angle), 0.8 * np.sin(angle)
    matrix = np.array([[c, s, 20.3], [-s, c, 24.7]])
    found = augmentation.sample(
        jnp.asarray(NOISE), jnp.asarray(matrix), jnp.zeros(3), size=24
    )
    for i, j in ((0, 0), (3, 20), (23, 7)):
        x, y = matrix[:, :2] @ [j - 11.5, i - 11.5] + matrix[:, 2] - 0.5
        x0, y0 = int(x), int(y)
        fx, fy = x - x0, y - y0
        cell = NOISE[y0 : y0 + 2, x0 : x0 + 2].astype(float)
        top, bottom = cell[:, 0] * (1 - fx) + cell[:, 1] * fx
        expected = top * (1 - fy) + bottom * fy
        np.testing.assert_allclose(found[i, j], expected, atol=0.05)


def test_points_on_pixels_are_never_a_pixel_off():
    """Floats of two roundings would have a floor and a fraction apart there."""
    image = np.random.default_rng(1).integers(0, 256, (200, 200, 3), np.uint8)
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    linear = np.array([q / p * turn for p in (3, 5, 7, 9) for q in range(1, p)])
    # Patch pixel (30, 30) lies on a pixel, and so do many around it.
    offset = 100.5 - linear @ [0.5, 0.5]
    matrices = np.concatenate([linear, offset[..., None]], axis=2)
    draw = jax.vmap(functools.partial(augmentation.render_patch, size=60))
    found = jax.jit(lambda m: draw(repeated(image, m)))(matrices.astype(np.float32))
    at = np.stack(np.meshgrid(np.arange(60), np.arange(60)), axis=-1) - 30
    for patch, k in zip(np.asarray(found, float), linear, strict=True):
        place = 100 + at @ k.T
        x, y = np.moveaxis(np.floor(place + 1e-9).astype(int), -1, 0)
        fx, fy = np.moveaxis(place - np.floor(place + 1e-9), -1, 0)[..., None]
        expected = (image[y, x] * (1 - fx) + image[y, x + 1] * fx) * (1 - fy) + (
            image[y + 1, x] * (1 - fx) + image[y + 1, x + 1] * fx
        ) * fy
        np.testing.assert_allclose(patch, expected, atol=0.7)


def test_resolution_falls_with_the_side():
    image = jnp.asarray(NOISE[:40], jnp.float32)
    spread = [
        float(augmentation.lower_resolution(image, jnp.int32(side)).std())
        for side in (40, 30, 20, 12)
    ]
    assert spread[0] == pytest.approx(float(image.std()))
    assert spread == sorted(spread, reverse=True) and spread[-1] < 0.4 * spread[0]
    flat = augmentation.lower_resolution(jnp.full((40, 40, 3), 77.0), jnp.int32(13))
    np.testing.assert_allclose(flat, 77, atol=1e-3)
