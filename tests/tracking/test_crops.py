import functools
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamrpn_jax.tracking import crops

FILL = np.array([90.0, 120.0, 30.0], np.float32)
crop = jax.jit(crops.crop_and_resize, static_argnames="size")


def smooth_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise with details of several pixels; cv2 rounds positions to 1/32 pixel."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random((height, width, 3)), (0, 0), 3.0)
    return np.round(255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)


def slow_crop(frame, center, side, fill, *, size) -> np.ndarray:
    """The module's definition, one output pixel at a time, float64."""
    out = np.zeros((size, size, 3))
    height, width = frame.shape[:2]

    def pixel(row, column):
        inside = 0 <= row < height and 0 <= column < width
        return frame[row, column].astype(np.float64) if inside else fill

    for i in range(size):
        for j in range(size):
            y = center[1] + (i + 0.5 - size / 2) * side / size - 0.5
            x = center[0] + (j + 0.5 - size / 2) * side / size - 0.5
            r, c = int(np.floor(y)), int(np.floor(x))
            for row, wy in ((r, 1 - (y - r)), (r + 1, y - r)):
                for column, wx in ((c, 1 - (x - c)), (c + 1, x - c)):
                    out[i, j] += wy * wx * pixel(row, column)
    return out


POSITIONS = [
    pytest.param((61.3, 40.8), 33.7, id="inside, upscaled"),
    pytest.param((55.0, 42.4), 75.1, id="inside, downscaled"),
    pytest.param((3.2, 70.9), 61.8, id="over the border"),
    pytest.param((50.0, 40.0), 300.0, id="around the whole frame"),
    pytest.param((119.0, -2.5), 20.0, id="at a corner"),
]


@pytest.mark.parametrize(("center", "side"), POSITIONS)
def test_against_the_definition(center, side):
    frame = np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)
    found = crop(frame, jnp.array(center), side, FILL, size=24)
    expected = slow_crop(frame, center, side, FILL, size=24)
    # Coordinates are float32: their rounding times the steepest step, 255 levels.
    np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.parametrize(("center", "side"), POSITIONS)
def test_against_opencv_warp_affine(center, side):
    frame, size = smooth_image(80, 120), 63
    step = side / size
    offset = np.array(center) + (0.5 - size / 2) * step - 0.5
    matrix = np.array([[step, 0, offset[0]], [0, step, offset[1]]])
    expected = cv2.warpAffine(
        frame,
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=FILL.tolist(),
    )
    found = crop(frame, jnp.array(center), side, FILL, size=size)
    assert np.abs(found - expected).max() < 3


@pytest.mark.parametrize(
    ("left", "top", "side"),
    [(20, 10, 40), (30, 5, 70), (-15, 30, 50), (90, 60, 64)],
)
def test_against_opencv_pad_cut_and_resize(left, top, side):
    frame, size, pad = smooth_image(80, 120), 56, 100
    padded = cv2.copyMakeBorder(
        frame, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=FILL.tolist()
    )
    cut = padded[top + pad :, left + pad :][:side, :side]
    expected = cv2.resize(cut, (size, size), interpolation=cv2.INTER_LINEAR)
    center = jnp.array([left + side / 2, top + side / 2])
    found = crop(frame, center, side, FILL, size=size)
    # cv2.resize sees nothing beyond the cut: its outermost pixel differs.
    difference = np.abs(found - expected.astype(np.float32))[1:-1, 1:-1]
    assert difference.max() < 3


def test_whole_pixels_are_copied():
    frame = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
    found = crop(frame, jnp.array([21.0, 18.0]), 16.0, FILL, size=16)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, frame[10:26, 13:29])


@pytest.mark.parametrize("side", [50.0, 120.0], ids=["upscaled", "downscaled"])
def test_a_warped_blob_lands_where_its_centre_goes(side):
    target, center, size = np.array([83.37, 61.81]), np.array([78.6, 66.2]), 80
    y, x = np.mgrid[:140, :160] + 0.5
    blob = np.exp(-((x - target[0]) ** 2 + (y - target[1]) ** 2) / (2 * 5.0**2))
    frame = np.repeat(np.round(255 * blob)[..., None], 3, 2).astype(np.uint8)
    patch = crop(frame, jnp.array(center), side, jnp.zeros(3), size=size)
    weight = np.asarray(patch)[..., 0]
    v, u = np.mgrid[:size, :size] + 0.5
    centroid = np.array([(u * weight).sum(), (v * weight).sum()]) / weight.sum()
    expected = (target - center) * size / side + size / 2
    np.testing.assert_allclose(centroid, expected, atol=0.05)


def test_outside_the_frame_is_fill():
    frame = np.full((30, 40, 3), 200, np.uint8)
    for center in [(-1e6, 10), (10, 1e6), (300, 10), (20, -80)]:
        patch = crop(frame, jnp.array(center, jnp.float32), 40.0, FILL, size=8)
        np.testing.assert_array_equal(patch, np.broadcast_to(FILL, (8, 8, 3)))
    patch = np.asarray(crop(frame, jnp.array([0.0, 15.0]), 16.0, FILL, size=16))
    np.testing.assert_array_equal(patch[:, :8], np.broadcast_to(FILL, (16, 8, 3)))
    np.testing.assert_array_equal(patch[:, 8:], 200)


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (1, 1), (2, 3)])
@pytest.mark.parametrize("side", [3.3, 25.0])
def test_tiny_frames(shape, side):
    frame = np.random.default_rng(2).integers(0, 256, (*shape, 3), np.uint8)
    center = (shape[1] * 0.6, shape[0] * 0.4)
    found = crop(frame, jnp.array(center), side, FILL, size=8)
    expected = slow_crop(frame, center, side, FILL, size=8)
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_large_frame_is_addressed_exactly():
    frame = np.zeros((3000, 5000, 3), np.uint8)
    frame[2900:, 4900:] = np.random.default_rng(3).integers(0, 256, (100, 100, 3))
    found = crop(frame, jnp.array([4950.0, 2950.0]), 64.0, FILL, size=64)
    np.testing.assert_array_equal(found, frame[2918:2982, 4918:4982])


def test_vmap_over_squares_equals_a_loop():
    frame: Any = smooth_image(60, 70)  # NumPy here, traced below
    centers = jnp.array([[20.0, 30.0], [66.0, -3.0], [35.5, 58.25]])
    sides = jnp.array([20.0, 50.0, 111.0])
    fill = jnp.asarray(FILL)

    def one(center, side):
        return crops.crop_and_resize(frame, center, side, fill, size=16)

    many = jax.jit(jax.vmap(one))(centers, sides)
    for i in range(3):
        single = crop(frame, centers[i], sides[i], FILL, size=16)
        np.testing.assert_allclose(many[i], single, atol=1e-3)


# --- Padded frames, and several of them ---


def padded(frame: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """A frame in the upper left of noise."""
    rng = np.random.default_rng(9)
    out = rng.integers(0, 256, (rows, columns, 3)).astype(frame.dtype)
    out[: frame.shape[0], : frame.shape[1]] = frame
    return out


@pytest.mark.parametrize(("center", "side"), POSITIONS)
def test_padding_has_no_influence(center, side):
    frame = np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)
    whole = jnp.array([120.0, 80.0])
    for x, y in (center, (120 - center[0], 80 - center[1]), (130.0, 85.0)):
        at = jnp.array([x, y])
        expected = crop(frame, at, side, FILL, size=24)
        np.testing.assert_array_equal(
            crop(frame, at, side, FILL, size=24, frame_size=whole), expected
        )
        found = crop(padded(frame, 96, 160), at, side, FILL, size=24, frame_size=whole)
        np.testing.assert_array_equal(found, expected)


def test_what_lies_beyond_the_frame_size_is_fill():
    frame = np.full((30, 50, 3), 200, np.uint8)
    found = crop(
        frame,
        jnp.array([40.0, 20.0]),
        16.0,
        FILL,
        size=16,
        frame_size=jnp.array([41.0, 18.0]),
    )
    expected = np.broadcast_to(FILL, (16, 16, 3)).copy()
    expected[:6, :9] = 200  # rows 12 to 17 and columns 32 to 40
    np.testing.assert_array_equal(found, expected)


def test_frames_in_a_stack_equal_a_loop():
    """Each square looks at its own frame, of its own size."""
    rng = np.random.default_rng(5)
    sizes = [(50, 70), (64, 40), (33, 80)]
    frames = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    stacked = jnp.stack([padded(frame, 64, 80) for frame in frames])
    index = np.array([2, 0, 1, 0, 2])
    centers = np.array([[70, 30], [35, 25], [38, 60], [-4, 52], [20, 5]], np.float32)
    sides = np.array([30, 45, 22, 64, 110], np.float32)
    fills = rng.uniform(0, 255, (5, 3)).astype(np.float32)
    whole = np.array([sizes[i][::-1] for i in index], np.float32)

    def one(index, center, side, fill, whole):
        return crops.crop_from(
            stacked, index, center, side, fill, size=16, frame_size=whole
        )

    many = jax.jit(jax.vmap(one))(index, centers, sides, fills, whole)
    for n, i in enumerate(index):
        single = crop(frames[i], centers[n], sides[n], fills[n], size=16)
        np.testing.assert_allclose(many[n], single, atol=1e-3)
        expected = slow_crop(frames[i], centers[n], sides[n], fills[n], size=16)
        np.testing.assert_allclose(many[n], expected, atol=0.02)


# --- Sizes and colours ---


def test_context_side_is_equation_15():
    w, h = 40.0, 90.0
    p = (w + h) / 2
    side = crops.context_side(jnp.array([w, h]))
    assert side == pytest.approx(((w + p) * (h + p)) ** 0.5)
    assert crops.context_side(jnp.array([w, h]), context=0.0) == pytest.approx(60.0)
    many = crops.context_side(jnp.array([[w, h], [2 * h, 2 * w]]))
    np.testing.assert_allclose(many, [side, 2 * side], rtol=1e-6)


def test_channel_mean_of_a_large_frame():
    # 2 M values a channel: a running float32 sum would lose the last digits.
    frame = np.random.default_rng(4).integers(100, 180, (1080, 1920, 3), np.uint8)
    mean = jax.jit(crops.channel_mean)(frame)
    assert mean.dtype == jnp.float32
    np.testing.assert_allclose(mean, frame.mean((0, 1)), atol=1e-3)


@pytest.mark.parametrize(("rows", "columns"), [(480, 640), (3, 5), (1088, 1984)])
def test_channel_mean_leaves_padding_out(rows, columns):
    rng = np.random.default_rng(6)
    height, width = rows - 2, columns - 3
    frame = rng.integers(100, 180, (height, width, 3), np.uint8)
    whole = jnp.array([width, height], jnp.float32)
    mean = jax.jit(crops.channel_mean)(padded(frame, rows, columns), frame_size=whole)
    assert mean.dtype == jnp.float32
    np.testing.assert_allclose(mean, frame.mean((0, 1)), atol=1e-3)


# --- Crops of whole pixels ---


def cut_and_resize(frame, center, side, fill, *, size) -> np.ndarray:
    """As DaSiamRPN and PySOT: pad, cut whole pixels, ``cv2.resize``."""
    side = round(side)
    height, width = frame.shape[:2]
    left, top = (int(np.floor(c - (side + 1) / 2 + 0.5)) for c in center)
    edge = side + 10
    fill = np.array(fill).astype(np.uint8).tolist()
    padded = cv2.copyMakeBorder(
        frame, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=fill
    )
    assert -edge <= left <= width + 10 and -edge <= top <= height + 10
    rows = slice(top + edge, top + edge + side)
    columns = slice(left + edge, left + edge + side)
    return cv2.resize(np.ascontiguousarray(padded[rows, columns]), (size, size))


whole_crop = jax.jit(
    functools.partial(crops.crop_and_resize, whole_pixels=True), static_argnames="size"
)


@pytest.mark.parametrize(("center", "side"), POSITIONS)
@pytest.mark.parametrize("size", [24, 127])
def test_whole_pixels_are_those_of_opencv(center, side, size):
    """Bit for bit: bilinear in its fixed-point arithmetic."""
    frame = np.random.default_rng(1).integers(0, 256, (80, 120, 3), np.uint8)
    fill = FILL + 0.7
    found = whole_crop(frame, jnp.array(center), side, fill, size=size)
    expected = cut_and_resize(frame, center, side, fill, size=size)
    np.testing.assert_array_equal(found, expected)


def test_whole_pixels_lie_up_to_a_pixel_up_and_left():
    frame = np.zeros((60, 60, 3), np.uint8)
    frame[30, 30] = 255
    for center, seen in ((30.5, 4), (31.0, 4), (31.4, 4), (31.5, 3)):
        patch = whole_crop(frame, jnp.array([center] * 2), 9.0, FILL, size=9)
        assert np.argwhere(np.asarray(patch)[..., 0]).tolist() == [[seen, seen]]


def test_a_side_of_less_than_a_pixel_is_one():
    frame = np.full((20, 20, 3), 7, np.uint8)
    patch = whole_crop(frame, jnp.array([9.0, 9.0]), 0.2, FILL, size=5)
    np.testing.assert_array_equal(patch, np.full((5, 5, 3), 7))
