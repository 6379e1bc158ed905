"""Objects cut out of images, and pasting them elsewhere.

An object is cut out of an annotated image along its polygon, or along a random shape;
some are small images, some mere windows of texture.
"""

import math
from collections.abc import Sequence as SequenceOf
from typing import NamedTuple

import cv2
import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.pool import Pool, Target
from siamrpn_jax.data.scenes.engine import paint

MIN_SIDE = 6
"""Pixels of the smallest cut-out."""

TEXTURES = 0.2
"""Share of the cut-outs that are windows of an image, whatever it shows there."""


class ObjectCutout(NamedTuple):
    """An object to paste."""

    pixels: np.ndarray
    """``uint8 [h, w, 3]``, a view of its image."""

    outlines: tuple[np.ndarray, ...]
    """``float64 [n, 2]`` each, continuous coordinates of ``pixels``."""

    image: int
    """Where it comes from: index into the store, or the track of a prepared folder."""


def draw_cutout(
    pool: Pool, rng: np.random.Generator, *, near: int | None = None
) -> ObjectCutout:
    """Draws an object to paste.

    Args:
        pool: where from.
        rng: the source of randomness.
        near: half of the time, another object of this image is taken if it has one.

    Returns:
        A cut-out of at least 6 x 6 pixels.

    Raises:
        InputError: the pool seems to have no object of that size.
    """
    for _ in range(100):
        target = _draw_target(pool, rng, near)
        image = pool.store[target.image]
        texture = rng.random() < TEXTURES
        box = texture_window(image, rng) if texture else target.box
        polygons = () if texture else target.polygons
        cutout = cut_out(image, box, rng, polygons=polygons, source=target.image)
        if cutout is not None:
            return cutout
        near = None
    raise InputError(
        f"100 objects drawn were all smaller than {MIN_SIDE}x{MIN_SIDE} pixels: "
        "composites need larger ones (or give them the weight 0)"
    )


def cut_out(
    image: np.ndarray,
    box_ltwh: np.ndarray,
    rng: np.random.Generator,
    *,
    polygons: SequenceOf[np.ndarray] = (),
    source: int,
) -> ObjectCutout | None:
    """Cuts a box out of an image, along the polygons or a random outline.

    Args:
        image: ``uint8 [H, W, 3]``.
        box_ltwh: ``[4]``, pixels; the part within the image is taken.
        rng: the source of randomness.
        polygons: ``[n, 2]`` each, pixels of the image; mostly taken where there are any
            and they are not too thin.
        source: see ``ObjectCutout.image``.

    Returns:
        The cut-out, a view of the image; None below 6 x 6 pixels.
    """
    height, width = image.shape[:2]
    x, y, w, h = box_ltwh
    x0, y0 = max(int(x), 0), max(int(y), 0)
    x1, y1 = min(math.ceil(x + w), width), min(math.ceil(y + h), height)
    if min(x1 - x0, y1 - y0) < MIN_SIDE:
        return None
    pixels = image[y0:y1, x0:x1]
    outlines: tuple[np.ndarray, ...] = ()
    if polygons and rng.random() < 0.9:
        outlines = tuple(polygon - [x0, y0] for polygon in polygons)
        # Thin outlines (poles, outstretched arms) leave too little to recognise.
        area = sum(abs(cv2.contourArea(o.astype(np.float32))) for o in outlines)
        if area < 0.16 * pixels.shape[0] * pixels.shape[1]:
            outlines = ()
    return ObjectCutout(pixels, outlines or (_random_outline(pixels, rng),), source)


def paste(
    canvas: np.ndarray,
    cutout: ObjectCutout,
    center: np.ndarray,
    size: np.ndarray,
    rng: np.random.Generator,
    *,
    rotation: float = 0.15,
    jitter: float = 0.06,
) -> np.ndarray:
    """Pastes an object with a random rotation and perspective.

    Args:
        canvas: ``uint8 [n, n, 3]``, changed in place.
        cutout: the object.
        center: where its middle goes, ``[2]``, continuous pixels of ``canvas``.
        size: width and height of the whole cut-out there, ``[2]``.
        rng: the source of randomness.
        rotation: largest angle, radians.
        jitter: largest shift of a corner, fraction of ``size``.

    Returns:
        The bounds of the pasted outline, ``cxcywh float32 [4]``; they may reach beyond
        the canvas.
    """
    height, width = cutout.pixels.shape[:2]
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    corners = (corners + rng.uniform(-jitter, jitter, (4, 2))) * size
    angle = rng.uniform(-rotation, rotation)
    c, s = math.cos(angle), math.sin(angle)
    corners = corners @ [[c, s], [-s, c]] + center
    source = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(source, corners.astype(np.float32))
    outlines = [_project(matrix, outline) for outline in cutout.outlines]
    low = np.min([outline.min(axis=0) for outline in outlines], axis=0)
    high = np.max([outline.max(axis=0) for outline in outlines], axis=0)
    soft = rng.random() < 0.7
    pixels, matrix = _shrink(cutout.pixels, matrix, high - low)
    paint(canvas, pixels, matrix, outlines, soft=soft)
    return np.concatenate([(low + high) / 2, high - low]).astype(np.float32)


def _shrink(
    pixels: np.ndarray, matrix: np.ndarray, extent: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shrinks what is pasted at less than half its size: sampling would skip pixels."""
    height, width = pixels.shape[:2]
    shrink = float(min(width / extent[0], height / extent[1]))
    if shrink <= 2:
        return pixels, matrix
    small = (max(int(1.5 * width / shrink), 4), max(int(1.5 * height / shrink), 4))
    pixels = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA)
    return pixels, matrix @ np.diag([width / small[0], height / small[1], 1])


def _project(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    return mapped[:, :2] / mapped[:, 2:]


def _draw_target(pool: Pool, rng: np.random.Generator, near: int | None) -> Target:
    if near is not None and rng.random() < 0.5:
        neighbours = pool.objects_by_image.get(near, ())
        if len(neighbours) > 1:
            return neighbours[rng.integers(len(neighbours))]
    choice = rng.random()
    if choice < 0.4 and len(pool.outlined):
        return pool.outlined.draw(rng)
    if pool.small and (choice < 0.55 or not (len(pool.stills) or len(pool.tracks))):
        return pool.small[rng.integers(len(pool.small))]
    if len(pool.tracks) and (choice < 0.65 or not len(pool.stills)):
        track = pool.tracks.draw(rng)
        frame = rng.integers(len(track.images))
        return Target(int(track.images[frame]), track.boxes[frame])
    targets = pool.stills.draw(rng)
    return targets[rng.integers(len(targets))]


def texture_window(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Any window of an image, ``ltwh``, whatever it shows."""
    height, width = image.shape[:2]
    largest = 0.5 * min(height, width)
    side = rng.uniform(min(24, largest), largest)
    stretch = math.exp(rng.uniform(-0.7, 0.7))
    w, h = min(side * stretch, width - 2), min(side / stretch, height - 2)
    return np.array([rng.uniform(0, width - w), rng.uniform(0, height - h), w, h])


def _random_outline(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An ellipse, the whole rectangle or a random polygon, ``[n, 2]``."""
    height, width = pixels.shape[:2]
    kind = rng.random()
    if kind < 0.45:
        angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        unit = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    elif kind < 0.7:
        unit = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    else:
        count = int(rng.integers(5, 10))
        # Spread over the circle: an outline always surrounds the middle.
        angle = (np.arange(count) + rng.uniform(0, 0.8, count)) * (2 * np.pi / count)
        unit = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        unit = np.clip(1.2 * unit, -1, 1) * rng.uniform(0.7, 1, (count, 1))
    return (unit + 1) / 2 * [width, height]
