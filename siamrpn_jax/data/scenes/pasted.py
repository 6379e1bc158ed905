"""Scenes of cut-outs that move over an image of the user's own.

The counterpart of ``generated`` in real pixels, for clips to choose constants on.
"""

import math
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import cv2
import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.pool import Pool
from siamrpn_jax.data.scenes.cutouts import ObjectCutout, draw_cutout
from siamrpn_jax.data.scenes.engine import Sprite, Wave, paint_sprites

_DISTRACTORS = np.cumsum([0.2, 0.35, 0.25])  # Chance of 0, 1, 2; the rest is 3.
_STRIDES = np.cumsum([0.35, 0.25, 0.25])  # Chance of 1, 2, 3; the rest is 4.
_TWIN = 0.2  # Share of the distractors that are copies of the target.
_BLUR_STEP, _SUB_FRAMES = 2.0, 13  # Pixels between sub-frames, and most of them.


class PastedScene:
    """A cut-out that moves over an image; can be rendered at any time.

    It grows and shrinks, turns, leans and changes its colours; up to three distractors
    (copies of it, others from the same picture, and any) cross its way; at times
    something passes before it, and what moves is blurred. The camera moves slowly.

    Args:
        pool: where objects and backgrounds come from.
        rng: the source of randomness.
        length: frames within which things meet.
        height: H, pixels.
        width: W, pixels.
    """

    def __init__(
        self,
        pool: Pool,
        rng: np.random.Generator,
        *,
        length: int,
        height: int = 240,
        width: int = 320,
    ):
        self.size = np.array([width, height])
        self.stride = 1 + int(np.searchsorted(_STRIDES, rng.random()))
        self.shutter = rng.uniform(0.3, 0.9) if rng.random() < 0.4 else 0.0
        self.camera = _Camera.draw(pool, rng, self.size)
        original = _large_cutout(pool, rng)
        self.target = _PastedObject.draw(original, rng, self.size)
        self.below: list[_PastedObject] = []
        self.above: list[_PastedObject] = []
        for _ in range(int(np.searchsorted(_DISTRACTORS, rng.random()))):
            twin = rng.random() < _TWIN
            cutout = original if twin else draw_cutout(pool, rng, near=original.image)
            other = self._crossing(cutout, rng, length, reach=1.0, scale=1.0)
            self._add(other, above=rng.random() < 0.3)
        if rng.random() < 0.25:
            cutout = draw_cutout(pool, rng)
            other = self._crossing(cutout, rng, length, reach=0.4, scale=0.7)
            self._add(other, above=True)
        self.light = Wave.draw(rng, rng.uniform(0, 0.25))
        self.tint = Wave.draw(rng, rng.uniform(0, 0.08))
        self.noise = rng.uniform(0, 4)
        self.noise_seed = int(rng.integers(2**32))

    def render(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """One frame.

        Args:
            frame: its number, not negative.

        Returns:
            RGB ``uint8 [H, W, 3]``, and the bounds of the target's outline in the
            middle of the exposure, ``ltwh float64 [4]``: hidden parts and those beyond
            the image included.
        """
        time = float(frame * self.stride)
        image = np.mean([self._paint(t) for t in self._exposure(time)], axis=0)
        rng = np.random.default_rng([self.noise_seed, frame])
        image += self.noise * rng.standard_normal(image.shape[:2])[..., None]
        image = np.clip(np.round(image), 0, 255).astype(np.uint8)
        return image, self.target.bounds(time)

    def _exposure(self, time: float) -> SequenceOf[float] | np.ndarray:
        """Times whose images are averaged; more of them where the target is fast."""
        half = self.shutter * self.stride / 2
        moved = np.linalg.norm(
            self.target.center(time + half) - self.target.center(time - half)
        )
        count = min(int(moved / _BLUR_STEP) + 1, _SUB_FRAMES)
        return np.linspace(time - half, time + half, count) if count > 1 else [time]

    def _paint(self, time: float) -> np.ndarray:
        image = self.camera.view(time)
        paint_sprites(image, (*self.below, self.target, *self.above), time)
        gain, tint = self.light(time)[0], self.tint(time)
        gains = np.exp(gain + np.array([tint[0], 0.0, tint[1]]))
        return np.minimum(image * gains, 255.0)

    def _add(self, other: "_PastedObject", *, above: bool) -> None:
        """Adds a sprite, below the target if it would hide it in the first frame."""
        apart = np.abs(other.center(0.0) - self.target.center(0.0)).max()
        clear = apart > self.target.rest_side + other.rest_side
        (self.above if above and clear else self.below).append(other)

    def _crossing(
        self,
        cutout: ObjectCutout,
        rng: np.random.Generator,
        length: int,
        *,
        reach: float,
        scale: float,
    ) -> "_PastedObject":
        """A sprite that at some time is within ``reach`` sizes of the target."""
        size = self.target.rest_side * scale * math.exp(rng.uniform(-0.4, 0.3))
        sprite = _PastedObject.draw(cutout, rng, self.size, side=size)
        time = rng.uniform(0.2, 0.9) * length * self.stride
        angle = rng.uniform(0, 2 * np.pi)
        beside = rng.uniform(0, reach) * self.target.rest_side
        there = self.target.center(time) + beside * np.array(
            [math.cos(angle), math.sin(angle)]
        )
        sprite.home += there - sprite.center(time)
        return sprite


@dataclass(frozen=True)
class _Camera:
    """A window of an image that pans, zooms and turns slowly."""

    image: np.ndarray
    size: np.ndarray  # Of the view, pixels.
    zoom: float  # Image pixels in one of the view.
    pan: Wave  # Image pixels.
    log_zoom: Wave
    turn: Wave

    @classmethod
    def draw(cls, pool: Pool, rng: np.random.Generator, size: np.ndarray) -> "_Camera":
        image = _large_image(pool, rng, size)
        room = np.array(image.shape[1::-1]) / size
        zoom = float(room.min() * rng.uniform(0.55, 0.85))
        if zoom > 1:  # shrunk once: sampling would skip pixels
            small = np.ceil(np.array(image.shape[1::-1]) / zoom).astype(int)
            image = cv2.resize(image, small.tolist(), interpolation=cv2.INTER_AREA)
            room, zoom = room / zoom, 1.0
        reach = (room - zoom) * size / 2 * rng.uniform(0.3, 1)
        return cls(
            image,
            size,
            zoom,
            pan=Wave.draw(rng, reach),
            log_zoom=Wave.draw(rng, rng.uniform(0, 0.15)),
            turn=Wave.draw(rng, rng.uniform(0, 0.08)),
        )

    def view(self, time: float) -> np.ndarray:
        zoom = self.zoom * math.exp(self.log_zoom(time)[0])
        angle = self.turn(time)[0]
        c, s = zoom * math.cos(angle), zoom * math.sin(angle)
        linear = np.array([[c, -s], [s, c]])
        middle = np.array(self.image.shape[1::-1]) / 2 + self.pan(time)
        # From view to image, continuous; then to OpenCV's pixel indices on both sides.
        offset = middle - linear @ (self.size / 2) + linear @ [0.5, 0.5] - 0.5
        return cv2.warpAffine(
            self.image,
            np.column_stack([linear, offset]),
            self.size.tolist(),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        )


@dataclass
class _PastedObject(Sprite):
    """A cut-out and its motion."""

    soft = True

    cutout: ObjectCutout
    rest_side: float  # Root of the area at rest, pixels.
    home: np.ndarray  # Middle of its path.
    path: Wave
    log_scale: Wave  # Of both axes, and of their ratio.
    turn: Wave  # Radians, and shear.
    light: Wave

    @classmethod
    def draw(
        cls,
        cutout: ObjectCutout,
        rng: np.random.Generator,
        size: np.ndarray,
        *,
        side: float | None = None,
    ) -> "_PastedObject":
        drawn = size.min() * math.exp(rng.uniform(math.log(0.13), math.log(0.36)))
        side = float(drawn) if side is None else side
        reach = rng.uniform(0.15, 0.85)
        half = size / 2
        turn = rng.uniform(0, 1.5 if rng.random() < 0.3 else 0.4)
        return cls(
            cutout=_shrunk(cutout, 1.7 * side),
            rest_side=side,
            home=half * (1 + rng.uniform(-1, 1, 2) * (0.85 - reach)),
            path=Wave.draw(rng, half * reach),
            log_scale=Wave.draw(rng, np.array([rng.uniform(0, 0.55), 0.25])),
            turn=Wave.draw(rng, np.array([turn, 0.15])),
            light=Wave.draw(rng, rng.uniform(0, 0.15)),
        )

    def center(self, time: float) -> np.ndarray:
        return self.home + self.path(time)

    def matrix(self, time: float) -> np.ndarray:
        """``[3, 3]`` from the cut-out's pixels to the image's, both continuous."""
        extent = np.array(self.cutout.pixels.shape[1::-1])
        scale, ratio = self.log_scale(time)
        angle, shear = self.turn(time)
        axes = np.exp([scale + ratio, scale - ratio])
        axes *= self.rest_side / math.sqrt(extent.prod())
        c, s = math.cos(angle), math.sin(angle)
        linear = np.array([[c, -s], [s, c]]) @ [[1, shear], [0, 1]] * axes
        matrix = np.eye(3)
        matrix[:2, :2] = linear
        matrix[:2, 2] = self.center(time) - linear @ (extent / 2)
        return matrix

    def outlines(self, time: float) -> list[np.ndarray]:
        matrix = self.matrix(time)
        return [o @ matrix[:2, :2].T + matrix[:2, 2] for o in self.cutout.outlines]

    def pixels(self, time: float) -> np.ndarray:
        gain = math.exp(self.light(time)[0])
        return cv2.convertScaleAbs(self.cutout.pixels, alpha=gain)


def _large_image(pool: Pool, rng: np.random.Generator, size: np.ndarray) -> np.ndarray:
    """A background, mostly one that shows other objects; the largest of a few."""
    best: np.ndarray | None = None
    for _ in range(8):
        if len(pool.stills) and rng.random() < 0.75:
            index = pool.stills.draw(rng)[0].image
        elif len(pool.backgrounds):
            index = int(rng.choice(pool.backgrounds))
        else:
            raise InputError("no held-out image is large enough for a background")
        image = pool.store[index]
        if best is None or image.size > best.size:
            best = image
        if (np.array(image.shape[1::-1]) >= 0.75 * size).all():
            return image
    assert best is not None
    return best


def _large_cutout(pool: Pool, rng: np.random.Generator) -> ObjectCutout:
    """An object that is no mere smear when it is enlarged."""
    for _ in range(20):
        cutout = draw_cutout(pool, rng)
        height, width = cutout.pixels.shape[:2]
        if min(height, width) >= 16 and max(height, width) <= 4 * min(height, width):
            break
    return cutout


def _shrunk(cutout: ObjectCutout, side: float) -> ObjectCutout:
    """A smaller copy where sampling would skip pixels."""
    height, width = cutout.pixels.shape[:2]
    factor = side / math.sqrt(height * width)
    if factor >= 1:
        return cutout
    small = (max(round(width * factor), 4), max(round(height * factor), 4))
    pixels = cv2.resize(cutout.pixels, small, interpolation=cv2.INTER_AREA)
    scale = np.array(small) / [width, height]
    return ObjectCutout(pixels, tuple(o * scale for o in cutout.outlines), cutout.image)
