"""Pairs made by pasting: one cut-out object on two backgrounds.

The object is cut out of an annotated image along its polygon, or along a random shape;
some are small images, some mere windows of texture. Objects and backgrounds come from
the images of folders (``PoolMaterial``) or from the records of a prepared one
(``record_material``). The object is pasted on an exemplar and on
a search background with slightly different perspective, among distractors (half of
them from the picture that the object came from) and, at times, behind an occluder. The
box is the exact bounding box of the pasted outline, covered and clipped parts included.
"""

import math
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from siamrpn_jax.data.crops.windows import (
    AugmentConfig,
    Window,
    context_side,
    crop,
    sample_scale,
)
from siamrpn_jax.data.pairs.photometry import color_table
from siamrpn_jax.data.read.pool import Pool
from siamrpn_jax.data.scenes.cutouts import ObjectCutout, draw_cutout, paste

NEAR = 0.6
"""Share of the exemplars with a background near that of the search patch."""

_DISTRACTORS = np.cumsum([0.3, 0.35, 0.2])  # Chance of 0, 1, 2; the rest is 3.


TargetOrigin = tuple[str, int | str]
"""What the target of a pair belongs to: ``image`` and an origin of the pool, ``scene``
and its seed, or ``video`` and its name in a prepared folder."""


class Backgrounds(NamedTuple):
    """What is pasted on."""

    search: np.ndarray
    """``uint8 [X, X, 3]``, to be changed in place."""

    exemplar: np.ndarray
    """``uint8 [Z, Z, 3]``: a place near the other one, or another image."""

    image: int
    """What the search background is a part of; see ``ObjectCutout.image``."""


class Material(Protocol):
    """Where objects and backgrounds come from."""

    def draw_cutout(
        self, rng: np.random.Generator, *, near: int | None = None
    ) -> ObjectCutout:
        """An object; half of the time one from the same image as ``near``."""
        ...

    def draw_backgrounds(
        self, rng: np.random.Generator, *, exemplar_size: int, instance_size: int
    ) -> Backgrounds:
        """Two backgrounds of these sides."""
        ...

    def origin(self, image: int) -> TargetOrigin:
        """What an image belongs to, see ``ObjectCutout.image``."""
        ...


class Composite(NamedTuple):
    """A pair before photometric changes."""

    z: np.ndarray
    """Exemplar, ``uint8 [Z, Z, 3]``."""

    x: np.ndarray
    """Search patch, ``uint8 [X, X, 3]``."""

    box: np.ndarray
    """The object in the search patch, ``cxcywh float32 [4]``."""

    image: int
    """Where the object comes from, see ``ObjectCutout.image``."""

    shown: frozenset[int]
    """All images of which the search patch shows a part."""


def make_composite(
    material: Material,
    rng: np.random.Generator,
    *,
    exemplar_size: int,
    instance_size: int,
    augment: AugmentConfig,
    context: float = 0.5,
) -> Composite:
    """Makes a pair.

    Args:
        material: where objects and backgrounds come from.
        rng: the source of randomness.
        exemplar_size: Z, pixels.
        instance_size: X, pixels.
        augment: its shifts and scales are used, its photometric part is not.
        context: see ``context_side``.

    Returns:
        The pair, and what it is made of.
    """
    cutout = material.draw_cutout(rng)
    size = _exemplar_extent(cutout, rng, exemplar_size, context)
    search, exemplar, background = material.draw_backgrounds(
        rng, exemplar_size=exemplar_size, instance_size=instance_size
    )
    shown = {cutout.image, background}
    for _ in range(int(np.searchsorted(_DISTRACTORS, rng.random()))):
        scale = math.exp(rng.uniform(-0.4, 0.3))
        stretch = np.array([1.0, math.exp(rng.uniform(-0.3, 0.3))])
        place = rng.uniform(0, instance_size, 2)
        other = material.draw_cutout(rng, near=cutout.image)
        paste(search, other, place, size * scale * stretch, rng)
        shown.add(other.image)
    if rng.random() < 0.4:
        other = material.draw_cutout(rng, near=cutout.image)
        beside = exemplar_size / 2 + 1.1 * size * _direction(rng)
        paste(exemplar, other, beside, size, rng)
    _paste_exemplar(exemplar, cutout, size, rng, augment)
    box = _paste_target(search, cutout, size, rng, augment)
    if rng.random() < 0.18:
        occluder = material.draw_cutout(rng)
        place = box[:2] + 0.45 * box[2:] * _direction(rng)
        paste(search, occluder, place, box[2:] * rng.uniform(0.25, 0.6), rng)
        shown.add(occluder.image)
    return Composite(exemplar, search, box, cutout.image, frozenset(shown))


def _exemplar_extent(
    cutout: ObjectCutout, rng: np.random.Generator, exemplar_size: int, context: float
) -> np.ndarray:
    """Width and height whose context square is the whole exemplar patch."""
    height, width = cutout.pixels.shape[:2]
    aspect = min(max(width / height * math.exp(rng.uniform(-0.3, 0.3)), 0.25), 4.0)
    shape = np.array([math.sqrt(aspect), 1 / math.sqrt(aspect)])
    return shape * exemplar_size / context_side(*shape, context=context)


def _paste_exemplar(
    exemplar: np.ndarray,
    cutout: ObjectCutout,
    size: np.ndarray,
    rng: np.random.Generator,
    augment: AugmentConfig,
) -> None:
    side = exemplar.shape[0]
    shift = rng.uniform(-augment.template_shift, augment.template_shift, 2)
    scale = sample_scale(
        rng, scale=augment.template_scale, aspect=augment.template_aspect
    )
    paste(
        exemplar,
        cutout,
        (0.5 + shift) * side,
        size * scale,
        rng,
        rotation=0.05,
        jitter=0.03,
    )


def _paste_target(
    search: np.ndarray,
    cutout: ObjectCutout,
    size: np.ndarray,
    rng: np.random.Generator,
    augment: AugmentConfig,
) -> np.ndarray:
    side = search.shape[0]
    shift = rng.uniform(-augment.search_shift, augment.search_shift, 2)
    scale = sample_scale(rng, scale=augment.search_scale, aspect=augment.search_aspect)
    if rng.random() < 0.6:
        pixels = cv2.LUT(np.ascontiguousarray(cutout.pixels), color_table(rng, 0.6))
        cutout = cutout._replace(pixels=pixels)
    center = (0.5 + shift) * side
    return paste(
        search,
        cutout,
        center,
        size * scale,
        rng,
        rotation=augment.paste_rotation,
        jitter=augment.paste_perspective,
    )


class PoolMaterial:
    """The images of folders that are not prepared.

    Args:
        pool: with backgrounds, and objects of any kind.
    """

    def __init__(self, pool: Pool):
        self._pool = pool

    def draw_cutout(
        self, rng: np.random.Generator, *, near: int | None = None
    ) -> ObjectCutout:
        """See ``Material``."""
        return draw_cutout(self._pool, rng, near=near)

    def draw_backgrounds(
        self, rng: np.random.Generator, *, exemplar_size: int, instance_size: int
    ) -> Backgrounds:
        """See ``Material``."""
        pool = self._pool
        index = int(rng.choice(pool.backgrounds))
        image = pool.store[index]
        window = _background_window(image, rng)
        search = crop(image, window, instance_size)
        if rng.random() < NEAR:
            window = beside(window, rng)
        else:
            image = pool.store[rng.choice(pool.backgrounds)]
            window = _background_window(image, rng)
        return Backgrounds(search, crop(image, window, exemplar_size), index)

    def origin(self, image: int) -> TargetOrigin:
        """See ``Material``."""
        return "image", int(self._pool.origins[image])


def beside(window: Window, rng: np.random.Generator) -> Window:
    """An upright window near another one, about as large."""
    dx, dy = rng.uniform(-0.25, 0.25, 2) * window.width
    side = window.width / 2 * math.exp(rng.uniform(-0.2, 0.2))
    return Window(window.cx + dx, window.cy + dy, side, side)


def _background_window(image: np.ndarray, rng: np.random.Generator) -> Window:
    height, width = image.shape[:2]
    side = rng.uniform(0.35, 1.0) * min(height, width)
    cx = rng.uniform(side / 2, width - side / 2)
    cy = rng.uniform(side / 2, height - side / 2)
    return Window(cx, cy, side, side, flip=rng.random() < 0.5)


def _direction(rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([math.cos(angle), math.sin(angle)])
