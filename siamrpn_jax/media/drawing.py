"""Boxes drawn on frames, and frames made smaller for pages."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from siamrpn_jax.model.boxes import ltwh_to_corners

COLORS = (
    (255, 140, 0),
    (0, 170, 255),
    (60, 200, 60),
    (240, 60, 120),
    (170, 90, 255),
    (250, 220, 40),
)
"""RGB of the boxes that ``draw_boxes`` draws, in turn."""


def draw_boxes(
    frame: np.ndarray,
    boxes_ltwh: np.ndarray,
    labels: Sequence[str] = (),
    *,
    colors: Sequence[tuple[int, int, int]] = COLORS,
    dashed: Sequence[bool] | np.ndarray = (),
) -> np.ndarray:
    """Draws boxes on a copy of a frame.

    Args:
        frame: RGB uint8 [H, W, 3].
        boxes_ltwh: [N, 4] or [4]; boxes with NaN are left out.
        labels: text at the top of each box, if any.
        colors: RGB of the boxes, in turn.
        dashed: which boxes get broken lines, if any.

    Returns:
        RGB uint8 [H, W, 3].
    """
    canvas = frame.copy()
    thickness = max(1, round(min(frame.shape[:2]) / 200))
    boxes = np.asarray(boxes_ltwh, np.float64).reshape(-1, 4)
    for index, corners in enumerate(ltwh_to_corners(boxes)):
        if not np.isfinite(corners).all():
            continue
        # Far outside every frame, and inside OpenCV's integers.
        whole = np.clip(np.floor(corners), -30_000, 30_000).astype(int)
        x0, y0, x1, y1 = whole.tolist()
        color = colors[index % len(colors)]
        # A box covers [x0, x1): its last column is x1 - 1.
        broken = index < len(dashed) and dashed[index]
        rectangle: Any = _dashed_rectangle if broken else cv2.rectangle
        rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), color, thickness)
        if index < len(labels):
            _draw_label(canvas, labels[index], (x0, y0), color)
    return canvas


def shrink(frame: np.ndarray, width: int) -> np.ndarray:
    """A frame ``[H, W, 3]`` that is at most ``width`` wide, in its proportions."""
    rows, columns = frame.shape[:2]
    if columns <= width:
        return frame
    size = (width, max(1, round(rows * width / columns)))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def _dashed_rectangle(
    canvas: np.ndarray,
    start: tuple[int, int],
    end: tuple[int, int],
    color: tuple[int, int, int],
    thickness: int,
) -> None:
    """Dashes as long as the gaps; where they fall does not depend on the frame."""
    whole = canvas.copy()
    cv2.rectangle(whole, start, end, color, thickness)
    rows, columns = np.ogrid[: canvas.shape[0], : canvas.shape[1]]
    dash = 4 * thickness + 2
    shown = (rows - start[1] + columns - start[0]) // dash % 2 == 0
    canvas[shown] = whole[shown]


def _draw_label(
    canvas: np.ndarray, text: str, corner: tuple[int, int], color: tuple[int, int, int]
) -> None:
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, max(0.35, min(canvas.shape[:2]) / 900)
    (width, height), base = cv2.getTextSize(text, font, scale, 1)
    x = min(max(corner[0], 0), max(canvas.shape[1] - width, 0))
    y = max(corner[1], height + base)
    cv2.rectangle(canvas, (x, y - height - base), (x + width, y), color, cv2.FILLED)
    baseline = (x, y - base // 2)
    cv2.putText(canvas, text, baseline, font, scale, (0, 0, 0), 1, cv2.LINE_AA)
