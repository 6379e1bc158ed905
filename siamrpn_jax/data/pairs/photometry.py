"""Colours and sharpness of a pair: what is drawn, and applying it to an image.

A ``Photometry`` holds all that is drawn for one image.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

from siamrpn_jax.data.crops.windows import AugmentConfig

_LIGHTING_RGB = np.array(
    [
        [-0.55919361, 0.98062831, -0.41940627],
        [1.72091413, 0.19879334, -1.82968581],
        [4.64467907, 4.73710203, 4.88324118],
    ]
)
"""Colour offset of three unit normals, grey levels: the "lighting" of PySOT."""


class Photometry(NamedTuple):
    """What is changed in one image; applied in the order of the fields."""

    table: np.ndarray | None = None
    """Look-up table of the levels, ``uint8 [1, 256, 3]``."""

    grey: bool = False
    """Whether the colour is lost."""

    order: np.ndarray | None = None
    """Permutation of the channels, ``[3]``."""

    fraction: float | None = None
    """Share of its size that the image is shrunk to and enlarged from."""

    blur: float | np.ndarray | None = None
    """Standard deviation of a Gaussian in pixels, or a kernel ``float32 [k, k]``."""

    noise: float = 0.0
    """Standard deviation of Gaussian noise, grey levels, equal in all channels."""


def draw_photometry(
    rng: np.random.Generator, config: AugmentConfig, shift: np.ndarray | None = None
) -> tuple[Photometry, Photometry]:
    """Draws what is changed in an exemplar and in its search image.

    Args:
        rng: the source of randomness.
        config: how far, and how often.
        shift: of the target from the middle of the search patch, ``[2]``; with
            ``blur_along_motion`` what is blurred by motion there moved along it.
    """
    z_table = x_table = order = z_fraction = x_fraction = None
    if rng.random() < config.color_probability:
        z_table = x_table = color_table(rng, config.color_strength)
    if rng.random() < config.search_color_probability:
        x_table = _compose(x_table, color_table(rng, 0.5 * config.color_strength))
    if config.lighting:
        z_table = _compose(z_table, _lighting_table(rng, config.lighting))
        x_table = _compose(x_table, _lighting_table(rng, config.lighting))
    grey = rng.random() < config.grey_probability
    if not grey and rng.random() < config.channel_swap_probability:
        order = rng.permutation(3)
    if rng.random() < config.low_resolution_probability:
        z_fraction = rng.uniform(0.2, 0.9)
        x_fraction = z_fraction * math.exp(rng.uniform(-0.2, 0.2))
    along = shift if config.blur_along_motion else None
    x_blur = (
        _draw_blur(rng, along)
        if rng.random() < config.search_blur_probability
        else None
    )
    z_blur = (
        _draw_blur(rng) if rng.random() < config.template_blur_probability else None
    )
    z_noise = x_noise = 0.0
    if rng.random() < config.noise_probability:
        x_noise = rng.uniform(2, 10)
        z_noise = x_noise * rng.random()
    return (
        Photometry(z_table, grey, order, z_fraction, z_blur, z_noise),
        Photometry(x_table, grey, order, x_fraction, x_blur, x_noise),
    )


def apply_photometry(
    image: np.ndarray, change: Photometry, rng: np.random.Generator
) -> np.ndarray:
    """Changes an image.

    Args:
        image: ``uint8 [n, n, 3]``.
        change: what to change.
        rng: where noise comes from.

    Returns:
        A new image of the same shape (or the same one, if nothing is to be changed).
    """
    if change.table is not None:
        image = cv2.LUT(image, change.table)
    if change.grey:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        image = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    if change.order is not None:
        image = np.ascontiguousarray(image[..., change.order])
    if change.fraction is not None:
        size = image.shape[0]
        small = max(12, int(size * min(max(change.fraction, 0.15), 1.0)))
        image = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    if isinstance(change.blur, np.ndarray):
        image = cv2.filter2D(image, -1, change.blur)
    elif change.blur is not None:
        image = cv2.GaussianBlur(image, (0, 0), change.blur)
    if change.noise:
        noise = rng.standard_normal(image.shape[:2], np.float32)
        noise *= np.float32(change.noise)
        # OpenCV rounds and saturates in one pass.
        image = cv2.add(image, cv2.merge([noise, noise, noise]), dtype=cv2.CV_8U)
    return image


def color_table(rng: np.random.Generator, strength: float) -> np.ndarray:
    """Draws a look-up table of gamma, gain and bias.

    Args:
        rng: the source of randomness.
        strength: 1 is gamma e^±.4, gain e^±.25, channel gain e^±.12, bias ±.12.

    Returns:
        ``uint8 [1, 256, 3]`` for ``cv2.LUT``.
    """
    level = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    gamma = math.exp(rng.uniform(-0.4, 0.4) * strength)
    gain = rng.uniform(-0.25, 0.25) + rng.uniform(-0.12, 0.12, 3)
    bias = rng.uniform(-0.12, 0.12) * strength
    table = level**gamma * np.exp(gain * strength).astype(np.float32) + bias
    return (np.clip(table, 0, 1) * 255).astype(np.uint8)[None]


# --------------------------------------------------------------------------- draws


def _compose(first: np.ndarray | None, second: np.ndarray) -> np.ndarray:
    """One look-up table for two, exactly."""
    return second if first is None else cv2.LUT(first, second)


def _lighting_table(rng: np.random.Generator, strength: float) -> np.ndarray:
    offset = _LIGHTING_RGB @ rng.standard_normal(3) * strength
    levels = np.arange(256)[:, None] - offset
    return np.clip(levels, 0, 255).astype(np.uint8)[None]


def _draw_blur(
    rng: np.random.Generator, along: np.ndarray | None = None
) -> float | np.ndarray:
    """Out of focus, or moved along a line: ``along [2]`` if given and not 0, or any."""
    if rng.random() < 0.5:
        return rng.uniform(0.5, 2)
    # Odd lengths only: an even kernel has no middle and would move the image.
    length = 2 * int(rng.integers(1, 7)) + 1
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1
    middle = (length - 1) / 2
    degrees = rng.uniform(0, 180)
    if along is not None and along.any():
        degrees = math.degrees(math.atan2(-along[1], along[0]))  # y points down
    turn = cv2.getRotationMatrix2D((middle, middle), degrees, 1)
    kernel = cv2.warpAffine(kernel, turn, (length, length))
    return kernel / kernel.sum()
