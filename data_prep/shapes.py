"""Shapes of annotation tools: what is drawn round an object, as a box and outlines.

Coordinates are pixels of the image, or fractions of it, as the caller has them; y
points down, and angles go clockwise.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

Box = tuple[float, float, float, float]
"""``ltwh``."""

SHAPES = "a rectangle, polygon, ellipse or mask"
"""What is expected where a tool has many kinds."""

_ELLIPSE_CORNERS = 48
"""Corners of the polygon that stands for an ellipse: within .2 % of its radius."""


class LabelledObject(NamedTuple):
    """One object of an image."""

    category: str
    box: Box
    outlines: tuple[np.ndarray, ...] = ()
    """Its polygons ``[n, 2]``; none where it was drawn as a box."""
    problem: str = ""
    """Why it cannot be used; empty if it can."""


def from_box(
    category: str,
    box_ltwh: Sequence[float],
    *,
    angle: float = 0.0,
    about: Literal["middle", "corner"] = "middle",
) -> LabelledObject:
    """A rectangle.

    Args:
        category: of the object.
        box_ltwh: before the rotation.
        angle: degrees; at 0 there is no outline.
        about: what it is rotated about: its middle, or its upper left corner.
    """
    x, y, w, h = map(float, box_ltwh)
    if angle == 0 or not all(map(math.isfinite, (x, y, w, h, angle))):
        return LabelledObject(category, (x, y, w, h))
    corners = np.array([[0, 0], [w, 0], [w, h], [0, h]])
    pivot = np.array([w, h]) / 2 if about == "middle" else np.zeros(2)
    polygon = (corners - pivot) @ _rotation(angle).T + pivot + [x, y]
    return from_polygons(category, [polygon])


def from_polygons(category: str, polygons: Sequence[np.ndarray]) -> LabelledObject:
    """An object of polygons; unusable where one has less than three finite corners."""
    for polygon in polygons:
        right = polygon.ndim == 2 and polygon.shape[0] >= 3 and polygon.shape[1] == 2
        if not right or not np.isfinite(polygon).all():
            return unusable(
                category, "a polygon of fewer than 3 corners, or broken ones"
            )
    low = np.min([polygon.min(axis=0) for polygon in polygons], axis=0)
    high = np.max([polygon.max(axis=0) for polygon in polygons], axis=0)
    (x, y), (w, h) = low.tolist(), (high - low).tolist()
    return LabelledObject(category, (x, y, w, h), tuple(polygons))


def from_ellipse(
    category: str,
    middle: Sequence[float],
    radii: Sequence[float],
    *,
    angle: float = 0.0,
) -> LabelledObject:
    """An ellipse: its exact bounds, and a polygon for its outline.

    Args:
        category: of the object.
        middle: x and y, pixels.
        radii: before the rotation, pixels.
        angle: degrees.
    """
    if not all(map(math.isfinite, (*middle, *radii, angle))):
        return unusable(category, "an ellipse with broken numbers")
    matrix = _rotation(angle) * radii
    turns = np.linspace(0, 2 * math.pi, _ELLIPSE_CORNERS, endpoint=False)
    polygon = np.stack([np.cos(turns), np.sin(turns)], axis=1) @ matrix.T + middle
    half = np.hypot(matrix[:, 0], matrix[:, 1])
    (x, y), (w, h) = (np.asarray(middle) - half).tolist(), (2 * half).tolist()
    return LabelledObject(category, (x, y, w, h), (polygon,))


def unusable(category: str, what: str, *, expected: str = SHAPES) -> LabelledObject:
    """An object that cannot be used; what it is, and what was expected."""
    return LabelledObject(
        category,
        (math.nan, math.nan, math.nan, math.nan),
        problem=f"{what}, expected {expected}",
    )


def _rotation(degrees: float) -> np.ndarray:
    """The matrix that rotates clockwise, where y points down."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])
