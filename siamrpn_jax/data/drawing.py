"""Painting inside outlines, with antialiased edges; coordinates are continuous."""

from collections.abc import Sequence as SequenceOf

import cv2
import numpy as np

_SUPERSAMPLE = 4  # Sub-pixels along each axis.


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
