"""Crop requests: what a patch will show, before anything is read or cropped.

A request is rendered here, or packed with the photometry that was drawn for it, for the
device to render (``training.augmentation``).
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from siamrpn_jax.data.crops.windows import Window, crop, window_matrix
from siamrpn_jax.data.pairs import photometry
from siamrpn_jax.data.pairs.photometry import Changes, Photometry
from siamrpn_jax.training.batch import RawPatches


class Picture(NamedTuple):
    """An image, and what surrounds it."""

    pixels: np.ndarray
    """RGB ``uint8 [H, W, 3]``."""

    fill: np.ndarray | None = None
    """Colour outside, ``[3]``; None: the mean of the pixels."""


class CropRequest(NamedTuple):
    """A patch that is still to be cut."""

    read: Callable[[], Picture]
    """Reads the image."""

    window: Window | None = None
    """The part of it that the patch shows; None: the image is the patch."""


def render(request: CropRequest, size: int) -> np.ndarray:
    """The patch that is requested: RGB ``uint8 [n, n, 3]`` with ``n = size``."""
    pixels, fill = request.read()
    return (
        pixels
        if request.window is None
        else crop(pixels, request.window, size, fill=fill)
    )


def pack(
    request: CropRequest,
    change: Photometry,
    rng: np.random.Generator,
    *,
    size: int,
    canvas: int,
    changes: Changes,
) -> RawPatches:
    """What the device needs to render what is requested.

    An image that fits the canvas is sent as it is, in its upper left corner; of others
    the patch is cropped here.

    Args:
        request: what to show.
        change: how to change it.
        rng: where the seed of the noise comes from.
        size: n, side of the patch.
        canvas: C, side of the images that are sent, at least ``size``.
        changes: which changes are sent.
    """
    pixels, fill = request.read()
    window = request.window
    if window is not None and max(pixels.shape[:2]) > canvas:
        pixels, window = crop(pixels, window, size, fill=fill), None
    if window is None:
        window = Window(size / 2, size / 2, size, size)
    if fill is None:
        fill = np.array(cv2.mean(pixels)[:3])
    fill = np.rint(fill).astype(np.uint8)
    return RawPatches(
        image=_place(pixels, canvas, fill),
        matrix=_matrix(window, size),
        fill=fill,
        table=photometry.level_table(change) if changes.table else None,
        mixing=photometry.mixing_matrix(change) if changes.mixing else None,
        shrunk=photometry.shrunk_side(change, size) if changes.shrunk else None,
        blur=photometry.blur_kernel(change) if changes.blur else None,
        noise=np.float32(change.noise) if changes.noise else None,
        noise_seed=rng.integers(2**32, dtype=np.uint32),
    )


def _place(pixels: np.ndarray, canvas: int, fill: np.ndarray) -> np.ndarray:
    """An image in the corner of a canvas of its surrounding colour."""
    bottom, right = canvas - pixels.shape[0], canvas - pixels.shape[1]
    if not bottom and not right:
        return pixels
    border = cv2.BORDER_CONSTANT
    return cv2.copyMakeBorder(pixels, 0, bottom, 0, right, border, value=fill.tolist())


def _matrix(window: Window, size: int) -> np.ndarray:
    """From the patch to the image, see ``RawPatches``; the middle shows the centre."""
    linear = np.linalg.inv(window_matrix(window, size)[:, :2])
    return np.column_stack([linear, [window.cx, window.cy]]).astype(np.float32)
