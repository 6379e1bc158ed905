"""Crop requests: what a patch will show, before anything is read or cropped."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from siamrpn_jax.data.crops.windows import Window, crop


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
