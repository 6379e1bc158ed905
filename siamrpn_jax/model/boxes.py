"""Box formats, overlap, and the anchor box code; for NumPy and JAX arrays alike.

Coordinates are continuous pixels, x to the right and y down: pixel ``i`` covers
``[i, i + 1)`` and its centre lies at ``i + 0.5``, so an image of width ``W`` spans
``[0, W]``. Three formats, always on the last axis:

- ``cxcywh``: centre and size. The only one used inside the library.
- ``ltwh``: top-left corner and size, as in files (VOT, OTB, COCO) and OpenCV.
- ``corners``: ``x0, y0, x1, y1``.

Every function takes arrays of shape ``[..., 4]`` and computes with the library that
its first argument comes from.
"""

import reprlib
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from siamrpn_jax.common.errors import InputError

if TYPE_CHECKING:  # host code that works on NumPy boxes never loads JAX
    import jax

Array = TypeVar("Array", np.ndarray, "jax.Array")


MIN_SIDE, MAX_SIDE = 1e-3, 1e6
"""What a box to start from may measure, pixels: beyond, float32 loses the target."""

MAX_LOG_SIZE = 4.0
"""How far decoded sizes may be from their anchor's, natural logarithm: e^4 is 55 of
them, beyond every search region, and far from overflow."""


class BoxError(InputError):
    """A box that no tracker can start from."""


def ltwh_to_cxcywh(boxes: Array) -> Array:
    """Converts ``[..., 4]`` boxes from top-left and size to centre and size."""
    xp = _namespace(boxes)
    size = boxes[..., 2:]
    return xp.concatenate([boxes[..., :2] + size / 2, size], axis=-1)


def cxcywh_to_ltwh(boxes: Array) -> Array:
    """Converts ``[..., 4]`` boxes from centre and size to top-left and size."""
    xp = _namespace(boxes)
    size = boxes[..., 2:]
    return xp.concatenate([boxes[..., :2] - size / 2, size], axis=-1)


def cxcywh_to_corners(boxes: Array) -> Array:
    """Converts ``[..., 4]`` boxes from centre and size to two corners."""
    xp = _namespace(boxes)
    half = boxes[..., 2:] / 2
    return xp.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


def corners_to_cxcywh(boxes: Array) -> Array:
    """Converts ``[..., 4]`` boxes from two corners to centre and size."""
    xp = _namespace(boxes)
    low, high = boxes[..., :2], boxes[..., 2:]
    return xp.concatenate([(low + high) / 2, high - low], axis=-1)


def ltwh_to_corners(boxes: Array) -> Array:
    """Converts ``[..., 4]`` boxes from top-left and size to two corners."""
    xp = _namespace(boxes)
    low = boxes[..., :2]
    return xp.concatenate([low, low + boxes[..., 2:]], axis=-1)


def corners_to_ltwh(boxes: Array) -> Array:
    """Converts ``[..., 4]`` boxes from two corners to top-left and size."""
    xp = _namespace(boxes)
    low, high = boxes[..., :2], boxes[..., 2:]
    return xp.concatenate([low, high - low], axis=-1)


def iou(a: Array, b: Array) -> Array:
    """Intersection over union of ``cxcywh`` boxes.

    Args:
        a: ``[..., 4]``.
        b: ``[..., 4]``, broadcast against ``a``.

    Returns:
        ``[...]``, in 0..1; 0 where both boxes are empty.

    Example:
        >>> iou(np.array([2.0, 2, 4, 4]), np.array([4.0, 2, 4, 4])).round(3).item()
        0.333
    """
    xp = _namespace(a)
    ca, cb = cxcywh_to_corners(a), cxcywh_to_corners(b)
    overlap = xp.minimum(ca[..., 2:], cb[..., 2:]) - xp.maximum(
        ca[..., :2], cb[..., :2]
    )
    overlap = xp.maximum(overlap, 0)
    intersection = overlap[..., 0] * overlap[..., 1]
    union = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - intersection
    return intersection / xp.maximum(union, 1e-12)


def generalised_iou(a: Array, b: Array) -> Array:
    """IoU less the share of the common bounds that neither box covers: GIoU.

    Unlike the IoU it measures how far apart two boxes are that do not meet (Rezatofighi
    et al., CVPR 2019). Like the IoU it stays the same where both axes are scaled, each
    by its own factor.

    Args:
        a: ``cxcywh [..., 4]``.
        b: ``cxcywh [..., 4]``, broadcast against ``a``.

    Returns:
        ``[...]``, above -1, at most 1.

    Example:
        >>> a, b = np.array([1.0, 1, 2, 2]), np.array([4.0, 1, 2, 2])
        >>> generalised_iou(a, b).round(3).item()
        -0.2
    """
    xp = _namespace(a)
    ca, cb = cxcywh_to_corners(a), cxcywh_to_corners(b)
    bounds = xp.maximum(ca[..., 2:], cb[..., 2:]) - xp.minimum(ca[..., :2], cb[..., :2])
    area = xp.maximum(bounds[..., 0] * bounds[..., 1], 1e-12)
    both = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3]
    overlap = iou(a, b)
    # Of intersection + union = both and intersection = iou * union.
    return overlap - 1 + both / (1 + overlap) / area


def encode(boxes: Array, anchors: Array) -> Array:
    """Offsets from anchors to boxes: the regression target (paper, Eq. 3).

    The paper prints ``ln(A_w / T_w)`` for the sizes; its own decoding (Eq. 12) and
    every implementation use the inverse, ``ln(T_w / A_w)``, and so does this one.

    Args:
        boxes: ``cxcywh [..., 4]``.
        anchors: ``cxcywh [..., 4]``, broadcast against ``boxes``.

    Returns:
        ``(dx, dy, dw, dh) [..., 4]``; ``decode(encode(b, a), a) == b``.
    """
    xp = _namespace(boxes)
    shift = (boxes[..., :2] - anchors[..., :2]) / anchors[..., 2:]
    return xp.concatenate([shift, xp.log(boxes[..., 2:] / anchors[..., 2:])], axis=-1)


def decode(deltas: Array, anchors: Array) -> Array:
    """Boxes that anchors and their regressed offsets stand for (paper, Eq. 12).

    Args:
        deltas: ``(dx, dy, dw, dh) [..., 4]``.
        anchors: ``cxcywh [..., 4]``, broadcast against ``deltas``.

    Returns:
        ``cxcywh [..., 4]``.
    """
    xp = _namespace(deltas)
    center = anchors[..., :2] + deltas[..., :2] * anchors[..., 2:]
    change = xp.clip(deltas[..., 2:], -MAX_LOG_SIZE, MAX_LOG_SIZE)
    size = anchors[..., 2:] * xp.exp(change)
    return xp.concatenate([center, size], axis=-1)


def non_maximum_suppression(candidates: Array, *, iou_threshold: float) -> Array:
    """Greedy non-maximum suppression of boxes that are sorted best first.

    Args:
        candidates: ``cxcywh [K, 4]``.
        iou_threshold: a box that overlaps a kept better one more than this is dropped.

    Returns:
        bool ``[K]``: whether each box is kept; the first always is.
    """
    xp = _namespace(candidates)
    later = xp.arange(len(candidates)) > xp.arange(len(candidates))[:, None]
    drops = (iou(candidates[:, None], candidates[None]) > iou_threshold) & later
    keep = xp.ones(len(candidates), bool)
    for row in range(len(candidates)):
        keep = keep & ~(drops[row] & keep[row])
    return keep


def check_boxes(boxes: Any, frame: np.ndarray) -> np.ndarray:
    """Checks boxes to start from.

    Args:
        boxes: ``ltwh`` [4] or [N, 4].
        frame: [H, W, 3], the frame they lie in.

    Returns:
        The boxes as float64 of the same shape.

    Raises:
        BoxError: naming the box, the value, and what was expected.
    """
    array = _numbers(boxes)
    if array.ndim not in (1, 2) or array.shape[-1] != 4 or array.size == 0:
        raise BoxError(
            f"boxes of shape {array.shape}: expected [4] or [N, 4] with x,y,w,h"
        )
    height, width = frame.shape[:2]
    for box in np.atleast_2d(array):
        x, y, w, h = box
        _check_sides(box, w, h)
        if (box >= 0).all() and (box <= 1).all():
            raise BoxError(
                f"box {box.tolist()}: looks like fractions of the frame, expected "
                "pixels"
            )
        if x >= width or y >= height or x + w <= 0 or y + h <= 0:
            raise BoxError(
                f"box {box.tolist()}: outside the frame of {width}x{height} pixels, "
                "expected to meet it"
            )
    return array


def check_start(box: Any) -> None:
    """Checks a box ``cxcywh`` [4] to start from.

    Raises:
        BoxError: naming the value and what was expected.
    """
    array = _numbers(box)
    if array.shape != (4,):
        raise BoxError(f"box of shape {array.shape}: expected four numbers cx,cy,w,h")
    _check_sides(array, *array[2:])


def _numbers(boxes: Any) -> np.ndarray:
    """As float64; text and truth values are no numbers."""
    try:
        array = np.asarray(boxes)
        # Among numbers NumPy takes a truth value as 0 or 1.
        values = (
            np.asarray(boxes, object).flat if isinstance(boxes, list | tuple) else ()
        )
        mixed = any(isinstance(value, bool | np.bool_) for value in values)
        if mixed or array.dtype.kind not in "iuf":
            raise TypeError
    except (TypeError, ValueError) as error:
        raise BoxError(
            f"box {reprlib.repr(boxes)}: expected four numbers x,y,w,h"
        ) from error
    return array.astype(np.float64)


def _check_sides(box: np.ndarray, w: float, h: float) -> None:
    if not np.isfinite(box).all() or w <= 0 or h <= 0:
        raise BoxError(
            f"box {box.tolist()}: expected finite x,y,w,h with w and h above 0"
        )
    if min(w, h) < MIN_SIDE or max(w, h) > MAX_SIDE:
        raise BoxError(
            f"box {box.tolist()}: expected sides of {MIN_SIDE:g} to {MAX_SIDE:g} pixels"
        )


def _namespace(array: Any) -> Any:
    return array.__array_namespace__()
