"""How far training pairs are varied, and the geometry: which window is cropped.

A ``Window`` is a rectangle of an image, possibly rotated and mirrored, that ``crop``
resizes to a square patch; ``map_box`` says where a box lands in it. Both use continuous
pixel coordinates (pixel ``i`` covers ``[i, i + 1)``). For an upright square window of
side ``s`` and a patch of ``n`` pixels, patch pixel ``i`` looks at image coordinate
``cx + (i + 0.5 - n / 2) * s / n``, exactly as the crops of the tracker do.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from siamrpn_jax.common.errors import check_range


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """How far pairs are varied. Probabilities are a pair's or an image's, as said.

    A shift is a fraction of the side of the patch, so it holds for any patch size:
    ``search_shift=0.25`` moves the target's centre by up to a quarter of the search
    patch, half way to its border. Scales are natural logarithms of the window's side.
    """

    template_shift: float = 0.0
    """Largest shift of the target in the exemplar, fraction of the patch, uniform."""

    template_scale: float = 0.0
    """Largest log scale of the exemplar window, both axes together, uniform."""

    template_aspect: float = 0.0
    """Largest further log scale of the exemplar window, each axis alone, uniform."""

    search_shift: float = 0.0
    """Largest shift of the target in the search patch, fraction of it, uniform."""

    search_scale: float = 0.0
    """Largest log scale of the search window, both axes together, uniform."""

    search_aspect: float = 0.0
    """Largest further log scale of the search window, each axis alone, uniform."""

    rotation: float = 0.0
    """Largest rotation of the search window, radians; pairs made of one still only."""

    rotation_probability: float = 0.0
    """Share of those pairs whose search window is rotated."""

    paste_rotation: float = 0.2
    """Largest rotation of a pasted target in the search patch, radians."""

    paste_perspective: float = 0.07
    """Largest shift of its corners there, fraction of its size."""

    flip_probability: float = 0.0
    """Share of the pairs that are mirrored, exemplar and search patch alike."""

    color_probability: float = 0.0
    """Share of the pairs whose images both get one random gamma, gain and bias."""

    search_color_probability: float = 0.0
    """Share of the search images that get a second such change, half as strong."""

    color_strength: float = 1.0
    """Scale of those: 1 is gamma e^±.4, gain e^±.25, channel gain e^±.12, bias ±.12."""

    lighting: float = 0.0
    """Strength of the colour offset of PySOT, drawn for each image; 1 is PySOT's."""

    grey_probability: float = 0.0
    """Share of the pairs that lose their colour."""

    channel_swap_probability: float = 0.0
    """Share of the pairs in colour whose channels are permuted."""

    low_resolution_probability: float = 0.0
    """Share of the pairs shrunk to .2 to .9 of their size and enlarged again."""

    search_blur_probability: float = 0.0
    """Share of the search images that are blurred, by motion or out of focus."""

    blur_along_motion: bool = False
    """Whether the blur of motion in a search image runs the way that its target was
    shifted, as if it had moved there, rather than any way."""

    template_blur_probability: float = 0.0
    """Share of the exemplars that are blurred."""

    noise_probability: float = 0.0
    """Share of the pairs with Gaussian noise of 2 to 10 grey levels."""

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        for field in dataclasses.fields(self):
            high = math.inf
            if field.name.endswith("probability"):
                high = 1.0
            elif field.name.endswith("rotation"):
                high = math.pi
            check_range(self, 0, high, field.name)


def paper_augment() -> AugmentConfig:
    """PySOT's augmentation for the paper's model; the paper has affine changes only.

    Shift 4 px of 127 and 64 px of 255, scale .05 and .18 drawn for each axis (PySOT: a
    factor 1 ± .18, here e^±.18), blur .2 on the search image, lighting, no mirroring.
    """
    return AugmentConfig(
        template_shift=4 / 127,
        template_aspect=0.05,
        search_shift=64 / 255,
        search_aspect=0.18,
        lighting=1.0,
        search_blur_probability=0.2,
    )


def small_augment() -> AugmentConfig:
    """Wide augmentation, for a small network trained from nothing on few images.

    The wide range of search scales matters most: with ±.18 the boxes lag behind a
    target that grows, and no constant of the tracker repairs that.
    """
    return AugmentConfig(
        template_shift=0.04,
        template_aspect=0.05,
        search_shift=0.25,
        search_scale=0.38,
        search_aspect=0.14,
        rotation=0.2,
        rotation_probability=0.5,
        flip_probability=0.5,
        color_probability=0.9,
        search_color_probability=0.6,
        grey_probability=0.2,
        channel_swap_probability=0.15,
        low_resolution_probability=0.35,
        search_blur_probability=0.2,
        template_blur_probability=0.05,
        noise_probability=0.15,
    )


class Window(NamedTuple):
    """A rectangle of an image that becomes a square patch."""

    cx: float
    """Centre, image pixels."""

    cy: float
    """Centre, image pixels."""

    width: float
    """Extent along the patch's x axis, image pixels."""

    height: float
    """Extent along the patch's y axis, image pixels."""

    angle: float = 0.0
    """Radians; the patch shows the image turned by ``-angle`` (y points down)."""

    flip: bool = False
    """Whether the patch is mirrored left to right."""


def context_side(width: float, height: float, *, context: float = 0.5) -> float:
    """Side of the square around a box with its context (Eq. 15).

    Args:
        width: of the box.
        height: of the box.
        context: margin added to both, as a fraction of their sum.

    Returns:
        The side, in the unit of the box.
    """
    margin = context * (width + height)
    return math.sqrt((width + margin) * (height + margin))


def sample_window(
    box_cxcywh: np.ndarray,
    rng: np.random.Generator,
    *,
    side: float,
    shift: float,
    scale: float,
    aspect: float,
    angle: float = 0.0,
    flip: bool = False,
) -> Window:
    """Draws the window around a box.

    Args:
        box_cxcywh: ``[4]``, image pixels.
        rng: the source of randomness.
        side: side of the window before it is varied, image pixels.
        shift: see ``AugmentConfig``, fraction of the window.
        scale: log scale of both axes together.
        aspect: log scale of each axis.
        angle: rotation in radians.
        flip: whether to mirror.

    Returns:
        The window; the box's centre lies within it, ``shift`` from its centre at most.
    """
    kx, ky = sample_scale(rng, scale=scale, aspect=aspect)
    width, height = side * kx, side * ky
    # The shift is drawn along the patch's axes, which are turned against the image's.
    dx, dy = rng.uniform(-shift, shift) * width, rng.uniform(-shift, shift) * height
    c, s = math.cos(angle), math.sin(angle)
    cx, cy = float(box_cxcywh[0]), float(box_cxcywh[1])
    return Window(
        cx + c * dx - s * dy, cy + s * dx + c * dy, width, height, angle, flip
    )


def sample_scale(
    rng: np.random.Generator, *, scale: float, aspect: float
) -> tuple[float, float]:
    """Draws factors for x and y: ``exp(U(±scale) + U(±aspect))``."""
    common = rng.uniform(-scale, scale)
    return (
        math.exp(common + rng.uniform(-aspect, aspect)),
        math.exp(common + rng.uniform(-aspect, aspect)),
    )


def window_matrix(window: Window, size: int) -> np.ndarray:
    """The map from image to patch coordinates, both continuous.

    Args:
        window: what is cropped.
        size: n, side of the patch in pixels.

    Returns:
        ``float64 [2, 3]``: ``patch = M[:, :2] @ image + M[:, 2]``.
    """
    c, s = math.cos(window.angle), math.sin(window.angle)
    kx, ky = size / window.width, size / window.height
    if window.flip:
        kx = -kx
    linear = np.array([[kx * c, kx * s], [-ky * s, ky * c]])
    offset = size / 2 - linear @ np.array([window.cx, window.cy])
    return np.column_stack([linear, offset])


def crop(
    image: np.ndarray,
    window: Window,
    size: int,
    *,
    fill: Sequence[float] | np.ndarray | None = None,
) -> np.ndarray:
    """Cuts a window out of an image and resizes it.

    Args:
        image: ``uint8 [H, W, 3]``.
        window: in continuous pixel coordinates of ``image``.
        size: n, side of the patch in pixels.
        fill: colour outside the image, ``[3]``; its channel mean by default.

    Returns:
        ``uint8 [n, n, 3]``: bilinear between pixel centres, no antialiasing.
    """
    matrix = window_matrix(window, size)
    # OpenCV's coordinates are pixel indices: 0 is a pixel's centre, not its border.
    matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    if fill is None:  # the mean takes longer than the warp: only where it is seen
        fill = (0.0,) * 3 if _within(window, image.shape) else cv2.mean(image)[:3]
    return cv2.warpAffine(
        image,
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=[float(v) for v in fill],
    )


def _within(window: Window, shape: tuple[int, ...]) -> bool:
    """Whether a window lies in an image ``[H, W, …]``, a pixel from its border."""
    c, s = abs(math.cos(window.angle)), abs(math.sin(window.angle))
    x = (c * window.width + s * window.height) / 2 + 1
    y = (s * window.width + c * window.height) / 2 + 1
    return x <= window.cx <= shape[1] - x and y <= window.cy <= shape[0] - y


def map_box(
    box_cxcywh: np.ndarray,
    window: Window,
    size: int,
    *,
    outline: np.ndarray | None = None,
) -> np.ndarray:
    """Where a box lies in the patch of a window.

    The box of a turned object cannot be known from its upright box: the bounds of the
    turned box are too wide for anything but a full rectangle, its own sides too narrow.
    Half way between them is taken, unless the outline is known.

    Args:
        box_cxcywh: ``[4]``, image pixels.
        window: in the same coordinates.
        size: n, side of the patch in pixels.
        outline: points ``[n, 2]`` whose bounds are ``box_cxcywh``, if known.

    Returns:
        ``cxcywh float32 [4]`` in patch coordinates; it may reach beyond the patch.
    """
    matrix = window_matrix(window, size)
    linear = np.abs(matrix[:, :2])
    if outline is not None and window.angle:
        points = outline @ matrix[:, :2].T + matrix[:, 2]
        low, high = points.min(axis=0), points.max(axis=0)
        return np.concatenate([(low + high) / 2, high - low]).astype(np.float32)
    w, h = float(box_cxcywh[2]), float(box_cxcywh[3])
    center = matrix[:, :2] @ box_cxcywh[:2] + matrix[:, 2]
    width = linear[0, 0] * w + 0.5 * linear[0, 1] * h
    height = linear[1, 1] * h + 0.5 * linear[1, 0] * w
    return np.array([*center, width, height], np.float32)
