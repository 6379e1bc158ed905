"""Shapes of annotation tools as boxes and outlines."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.shapes import from_box, from_ellipse, from_polygons

side = st.floats(1, 300)
place = st.floats(-200, 900)
angles = st.floats(-360, 360)


@given(x=place, y=place, w=side, h=side, angle=angles)
def test_a_box_is_rotated_as_opencv_does(x, y, w, h, angle):
    one = from_box("a", (x, y, w, h), angle=angle)
    expected = cv2.boxPoints(((x + w / 2, y + h / 2), (w, h), angle))
    low, high = expected.min(axis=0), expected.max(axis=0)
    np.testing.assert_allclose(one.box, [*low, *(high - low)], rtol=1e-5, atol=1e-2)
    if angle:
        (outline,) = one.outlines
        gaps = np.linalg.norm(outline[:, None] - expected, axis=2)
        assert gaps.min(axis=0).max() < 1e-2
        assert abs(cv2.contourArea(outline.astype(np.float32)) - w * h) < 1e-3 * w * h
    else:
        assert one.outlines == ()


def test_a_box_rotated_about_its_corner():
    """A quarter turn clockwise: to the right becomes down, down becomes left."""
    one = from_box("a", (10, 20, 30, 5), angle=90, about="corner")
    np.testing.assert_allclose(one.box, [5, 20, 5, 30])


@given(x=place, y=place, rx=side, ry=side, angle=angles)
def test_bounds_of_an_ellipse(x, y, rx, ry, angle):
    one = from_ellipse("a", (x, y), (rx, ry), angle=angle)
    turns = np.linspace(0, 2 * math.pi, 100_000)
    u, v = rx * np.cos(turns), ry * np.sin(turns)
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    xs, ys = x + c * u - s * v, y + s * u + c * v
    expected = [xs.min(), ys.min(), np.ptp(xs), np.ptp(ys)]
    np.testing.assert_allclose(one.box, expected, atol=1e-4)
    (outline,) = one.outlines
    assert len(outline) >= 24 and outline.min(axis=0)[0] >= one.box[0] - 1e-9


@pytest.mark.parametrize(
    "corners",
    [[], [1, 2, 3], [[1, 2], [3, 4]], [[1, 2], [3, 4], [5, math.nan]], [[1, 2, 3]] * 4],
)
def test_polygons_that_are_none(corners):
    problem = from_polygons("a", [np.array(corners, float)]).problem
    assert "fewer than 3 corners" in problem


def test_broken_numbers_are_no_shape():
    assert not np.isfinite(from_box("a", (0, 0, math.inf, 2), angle=3).box).all()
    assert "broken" in from_ellipse("a", (0, 0), (math.nan, 2)).problem
