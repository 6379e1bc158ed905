"""Painting inside outlines, with antialiased edges; coordinates are continuous."""

from collections.abc import Sequence as SequenceOf

import cv2
import numpy as np

_SUPERSAMPLE = 4  # Sub-pixels along each axis.


def paint(
    image: np.ndarray,
    texture: np.ndarray,
    matrix: np.ndarray,
    outlines: SequenceOf[np.ndarray],
    *,
    soft: bool = False,
) -> None:
    """Paints the inside of polygons with a texture, in place.

    Args:
        image: ``uint8 [H, W, 3]``; what lies beyond it is left out.
        texture: ``uint8 [h, w, 3]``, mirrored beyond its borders.
        matrix: ``[3, 3]``, from ``texture`` to ``image``, both continuous.
        outlines: ``[n, 2]`` each, continuous coordinates of ``image``.
        soft: whether the edge is blurred by a pixel more.
    """
    height, width = image.shape[:2]
    points = np.concatenate(outlines)
    x0, y0 = np.maximum(np.floor(points.min(axis=0)).astype(int) - 1, 0)
    x1, y1 = np.ceil(points.max(axis=0)).astype(int) + 1
    x1, y1 = min(x1, width), min(y1, height)
    if x1 <= x0 or y1 <= y0:
        return
    # Continuous coordinates to OpenCV's pixel indices, on both sides.
    to_index = np.array([[1, 0, -0.5 - x0], [0, 1, -0.5 - y0], [0, 0, 1]])
    from_index = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    size = (int(x1 - x0), int(y1 - y0))
    colors = cv2.warpPerspective(
        texture, to_index @ matrix @ from_index, size, borderMode=cv2.BORDER_REFLECT
    )
    mask = np.zeros((size[1], size[0]), np.uint8)
    fill_outlines(mask, [outline - [x0, y0] for outline in outlines])
    blend(image[y0:y1, x0:x1], colors, cv2.blur(mask, (3, 3)) if soft else mask)


def fill_outlines(mask: np.ndarray, outlines: SequenceOf[np.ndarray]) -> None:
    """Sets a mask to 255 inside polygons, with an antialiased edge, in place.

    Args:
        mask: ``uint8 [H, W]``.
        outlines: ``[n, 2]`` each, continuous coordinates of the mask.
    """
    # Not cv2.LINE_AA: it draws a whole line around the polygon, which grows by a pixel.
    height, width = mask.shape
    fine = np.zeros((height * _SUPERSAMPLE, width * _SUPERSAMPLE), np.uint8)
    points = [
        np.round(outline * _SUPERSAMPLE - 0.5).astype(np.int32) for outline in outlines
    ]
    cv2.fillPoly(fine, points, 255)
    cv2.resize(fine, (width, height), dst=mask, interpolation=cv2.INTER_AREA)


def blend(image: np.ndarray, colors: np.ndarray, mask: np.ndarray) -> None:
    """Paints ``colors [H, W, 3]`` over ``image`` in place, where ``mask`` is 255."""
    alpha = cv2.cvtColor(mask, cv2.COLOR_GRAY2RGB)
    over = cv2.multiply(colors, alpha, scale=1 / 255)
    under = cv2.multiply(image, cv2.bitwise_not(alpha), scale=1 / 255)
    image[:] = cv2.add(over, under)
