import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.crops.windows import (
    AugmentConfig,
    Window,
    context_side,
    crop,
    map_box,
    sample_window,
    window_matrix,
)

windows = st.builds(
    Window,
    cx=st.floats(60, 100),
    cy=st.floats(50, 70),
    width=st.floats(60, 150),
    height=st.floats(60, 150),
    angle=st.floats(-0.6, 0.6),
    flip=st.booleans(),
)


def gaussian(cx: float, cy: float, *, sigma: float = 6.0) -> np.ndarray:
    """A blob on black, in continuous coordinates, ``uint8 [120, 160, 3]``."""
    x, y = np.arange(160) + 0.5 - cx, np.arange(120)[:, None] + 0.5 - cy
    blob = 255 * np.exp(-(x**2 + y**2) / (2 * sigma**2))
    return np.repeat(blob.round().astype(np.uint8)[..., None], 3, axis=2)


def centroid(patch: np.ndarray) -> np.ndarray:
    weights = patch[..., 0].astype(float)
    weights[weights < 8] = 0  # rounding, and the fill colour
    columns, rows = weights.sum(0), weights.sum(1)
    at = np.arange(len(patch)) + 0.5
    return np.array([columns @ at, rows @ at]) / weights.sum()


@settings(max_examples=60)
@given(windows, st.floats(-8, 8), st.floats(-8, 8))
def test_blob_lands_at_the_centre_of_its_mapped_box(window, dx, dy):
    cx, cy = window.cx + dx, window.cy + dy
    patch = crop(gaussian(cx, cy), window, 128)
    box = map_box(np.array([cx, cy, 36, 36]), window, 128)
    np.testing.assert_allclose(centroid(patch), box[:2], atol=0.05)


@settings(max_examples=30)
@given(windows, st.floats(10, 40), st.floats(10, 40))
def test_outline_of_a_rectangle_gives_its_bounds(window, w, h):
    low = np.array([window.cx - w / 2, window.cy - h / 2])
    image = np.zeros((120, 160, 3), np.uint8)
    outline = low + np.array([[0, 0], [w, 0], [w, h], [0, h]])
    points = np.round((outline - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(image, [points], (255, 255, 255), cv2.LINE_AA, 4)
    box_in = np.array([window.cx, window.cy, w, h])
    cx, cy, bw, bh = map_box(box_in, window, 150, outline=outline)
    seen = crop(image, window, 150)[..., 0] > 110
    columns, rows = np.flatnonzero(seen.any(0)), np.flatnonzero(seen.any(1))
    bounds = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    expected = [cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2]
    np.testing.assert_allclose(bounds, np.clip(expected, 0, 150), atol=4.5)


def test_turned_box_lies_between_its_sides_and_its_bounds():
    window = Window(50, 50, 100, 100, angle=0.3)
    box = np.array([50.0, 50, 40, 10])
    _, _, w, h = map_box(box, window, 100)
    c, s = np.cos(0.3), np.sin(0.3)
    assert 40 * c < w < 40 * c + 10 * s
    assert 10 * c < h < 10 * c + 40 * s


def test_upright_crop_follows_the_formula():
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 255, (50, 70, 3), np.uint8), (0, 0), 2)
    cx, cy, side, n = 34.3, 27.8, 30.0, 40
    patch = crop(image, Window(cx, cy, side, side), n)
    index = (np.arange(n) + 0.5 - n / 2) * side / n - 0.5
    x, y = (cx + index).astype(np.float32), (cy + index).astype(np.float32)
    grid = np.broadcast_to(x, (n, n)), np.broadcast_to(y[:, None], (n, n))
    x0, y0 = np.floor(grid[0]).astype(int), np.floor(grid[1]).astype(int)
    fx, fy = (grid[0] - x0)[..., None], (grid[1] - y0)[..., None]
    expected = (
        image[y0, x0] * (1 - fx) * (1 - fy)
        + image[y0, x0 + 1] * fx * (1 - fy)
        + image[y0 + 1, x0] * (1 - fx) * fy
        + image[y0 + 1, x0 + 1] * fx * fy
    )
    assert np.abs(patch - expected).max() <= 3  # OpenCV 4 rounds coordinates to 1/32


def test_identity_and_flip_are_exact():
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    window = Window(16, 16, 32, 32)
    np.testing.assert_array_equal(crop(image, window, 32), image)
    flipped = crop(image, window._replace(flip=True), 32)
    np.testing.assert_array_equal(flipped, image[:, ::-1])


def test_outside_is_the_channel_mean():
    image = np.random.default_rng(1).integers(0, 255, (20, 30, 3), np.uint8)
    patch = crop(image, Window(500, 500, 20, 20), 8)
    np.testing.assert_allclose(patch[4, 4], image.mean((0, 1)), atol=1)


def test_outside_can_have_any_colour():
    image = np.zeros((20, 30, 3), np.uint8)
    patch = crop(image, Window(500, 500, 20, 20), 8, fill=[10, 20.6, 30])
    np.testing.assert_array_equal(patch[4, 4], [10, 21, 30])


def test_crop_of_a_frame_one_pixel_high():
    image = np.full((1, 40, 3), 70, np.uint8)
    assert (crop(image, Window(20, 0.5, 60, 60), 16) == 70).all()


@given(windows)
def test_matrix_maps_the_window_onto_the_patch(window):
    matrix = window_matrix(window, 64)
    c, s = np.cos(window.angle), np.sin(window.angle)
    right = np.array([c, s]) * window.width / 2
    center = np.array([window.cx, window.cy])
    edge = matrix[:, :2] @ (center + right) + matrix[:, 2]
    np.testing.assert_allclose(edge, [0 if window.flip else 64, 32], atol=1e-9)


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.floats(-0.3, 0.3), st.booleans())
def test_shift_is_a_fraction_of_the_patch(seed, angle, flip):
    box = np.array([40.0, 30, 10, 20])
    window = sample_window(
        box,
        np.random.default_rng(seed),
        side=50,
        shift=0.25,
        scale=0.38,
        aspect=0.14,
        angle=angle,
        flip=flip,
    )
    x, y = map_box(box, window, 200)[:2]
    assert 50 - 1e-3 <= min(x, y) and max(x, y) <= 150 + 1e-3
    assert abs(np.log(window.width / 50)) <= 0.52 + 1e-9
    assert abs(np.log(window.width / window.height)) <= 0.28 + 1e-9


def test_context_side_is_equation_15():
    assert context_side(10, 10) == 20
    assert context_side(30, 10) == pytest.approx(np.sqrt(50 * 30))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("template_shift", -3.0),
        ("search_aspect", float("nan")),
        ("rotation", 400.0),
        ("color_strength", -1.0),
        ("flip_probability", 1.5),
    ],
)
def test_variations_out_of_range(field, value):
    with pytest.raises(InputError, match=f"{field} is {value}, expected 0 to "):
        AugmentConfig(**{field: value})
