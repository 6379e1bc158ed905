"""Generated sequences: textured shapes that move over textured clutter.

No file and no download: a ``Scene`` is drawn from a seed alone, and each of its frames
can be rendered by itself. A target moves, grows, turns and deforms; distractors (some
of them close copies of it) move too, and pass before and behind it. Its box is the
tight box of its whole silhouette, hidden parts included, exact to rounding.
"""

import copy
import math
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np

from siamrpn_jax.data.scenes.engine import Sprite, Wave, paint, paint_sprites

Difficulty = Literal["turn", "copy", "leave", "fast"]
"""What ``Scene.harder`` makes harder."""

UNSEEN_SEED, TUNING_SEED, CALIBRATION_SEED = 2**32, 2**33, 3 * 2**32
"""First seeds of scenes that training never draws, as its own seeds have 32 bits: of
scenes to try a finished run on, to fit the confidence on (``siamrpn tune``), and to
calibrate 8-bit models on."""

_TEXTURE = 64  # Side of an object's texture, pixels.
_VERTICES = 48  # Points of a silhouette.


def make_sequence(
    seed: int, *, length: int = 60, height: int = 240, width: int = 320
) -> tuple[np.ndarray, np.ndarray]:
    """Renders a whole sequence.

    Args:
        seed: non-negative; equal arguments give equal sequences.
        length: T, number of frames.
        height: H, pixels, at least 32.
        width: W, pixels, at least 32.

    Returns:
        Frames, RGB ``uint8 [T, H, W, 3]``, and boxes of the target, ``ltwh float32
        [T, 4]`` in pixels. The target's centre stays inside the image; its box may
        reach beyond the border.

    Raises:
        ValueError: a negative seed, no frame, or an image that is too small.
    """
    if length < 1:
        raise ValueError(f"length={length}, expected at least 1 frame")
    scene = Scene(seed, height=height, width=width)
    rendered = [scene.render(t) for t in range(length)]
    return np.stack([f for f, _ in rendered]), np.stack([b for _, b in rendered])


class Scene:
    """A scene that can be rendered at any time; the last of its objects lies on top.

    Args:
        seed: non-negative.
        height: H, pixels, at least 32.
        width: W, pixels, at least 32.
    """

    def __init__(self, seed: int, *, height: int = 240, width: int = 320):
        if seed < 0:
            raise ValueError(f"seed={seed}, expected a non-negative integer")
        if min(height, width) < 32:
            raise ValueError(f"image {height}x{width}, expected at least 32x32 pixels")
        rng = np.random.default_rng(seed)
        self.height, self.width = height, width
        self._background = _draw_background(rng, height, width)
        self._camera = Wave.draw(rng, 0.04 * min(height, width))
        target = _Object.draw(rng, height, width)
        others = [
            _Object.draw_like(target, rng, height, width)
            if rng.random() < 0.4
            else _Object.draw(rng, height, width)
            for _ in range(int(rng.integers(2, 6)))
        ]
        # At most one object may hide the target.
        position = len(others) - int(rng.integers(0, 2))
        self._target = target
        self._objects = [*others[:position], target, *others[position:]]
        self._gain = Wave.draw(rng, rng.uniform(0, 0.2))

    def harder(self, how: Difficulty, *, length: int) -> "Scene":
        """The same scene, in which one thing makes the target harder to follow.

        Args:
            how: ``turn``: it turns upside down; ``copy``: a copy, a little brighter,
                comes its way from the other end and passes behind it; ``leave``: it
                goes 3 times as far from where it starts, in most scenes out of the
                image; ``fast``: it moves 6 times as fast.
            length: frames in which that happens. The first one stays as it is, but
                for the copy.
        """
        target, before = self._target, []
        path = target.path
        if how == "turn":
            target = replace(target, spin=target.spin + math.pi / length)
        elif how == "copy":
            texture = cv2.convertScaleAbs(target.texture, beta=20)
            phases = path.phases + path.frequencies * length
            back = replace(path, frequencies=-path.frequencies, phases=phases)
            before = [replace(target, texture=texture, path=back)]
        elif how == "leave":
            wide = replace(path, weights=3 * path.weights)
            center = target.center + path(0) - wide(0)
            target = replace(target, center=center, path=wide)
        else:
            fast = replace(path, frequencies=6 * path.frequencies)
            target = replace(target, path=fast)
        scene = copy.copy(self)
        scene._target, scene._objects = target, []
        for item in self._objects:
            scene._objects += [*before, target] if item is self._target else [item]
        return scene

    def render(self, time: float) -> tuple[np.ndarray, np.ndarray]:
        """One frame.

        Args:
            time: in frames.

        Returns:
            RGB ``uint8 [H, W, 3]`` and the target's box, ``ltwh float32 [4]``.
        """
        shift = np.array([[1, 0, 0], [0, 1, 0]], np.float64)
        shift[:, 2] = self._camera(time)
        frame = cv2.warpAffine(
            self._background,
            shift,
            (self.width, self.height),
            borderMode=cv2.BORDER_REFLECT,
        )
        paint_sprites(frame, self._objects, time)
        gain = math.exp(self._gain(time)[0])
        frame = cv2.convertScaleAbs(frame, alpha=gain)
        return frame, self._target.bounds(time).astype(np.float32)

    def boxes(self, time: float) -> np.ndarray:
        """Boxes of all objects, hidden parts and those beyond the image included.

        Args:
            time: in frames.

        Returns:
            ``ltwh float32 [N, 4]``, the target's first, then from below to the top.
        """
        others = [item for item in self._objects if item is not self._target]
        boxes = [item.bounds(time) for item in (self._target, *others)]
        return np.array(boxes, np.float32)


@dataclass(frozen=True)
class _Object(Sprite):
    """A textured silhouette and its motion."""

    texture: np.ndarray
    """``uint8 [64, 64, 3]``."""

    silhouette: np.ndarray
    """``float64 [48, 2]`` within the unit disc."""

    size: np.ndarray
    """Half width and half height at rest, pixels."""

    center: np.ndarray
    """Middle of its path, pixels."""

    path: Wave
    """Offset of the centre, pixels."""

    log_scale: Wave
    """Log scale of both axes (first) and of their ratio (second)."""

    turn: Wave
    """Angle in radians (first coordinate)."""

    spin: float
    """Radians a frame, added to the angle."""

    wobble: Wave
    """Deformation: relative amplitude (first) and phase (second) of a bulge."""

    @classmethod
    def draw(cls, rng: np.random.Generator, height: int, width: int) -> "_Object":
        side = min(height, width) * math.exp(rng.uniform(math.log(0.05), math.log(0.2)))
        stretch = math.exp(rng.uniform(-0.5, 0.5))
        extent = np.array([width, height]) / 2
        # Center and path together stay within the image, a twentieth from its border.
        reach = rng.uniform(0.15, 0.9)
        return cls(
            texture=draw_texture(rng, _TEXTURE, _TEXTURE),
            silhouette=_draw_silhouette(rng),
            size=np.array([side * stretch, side / stretch]),
            center=extent * (1 + rng.uniform(-1, 1, 2) * (0.9 - reach)),
            path=Wave.draw(rng, extent * reach),
            log_scale=Wave.draw(rng, rng.uniform(0, 0.6)),
            turn=Wave.draw(rng, rng.uniform(0, 0.8)),
            spin=rng.uniform(-0.04, 0.04) if rng.random() < 0.25 else 0.0,
            wobble=Wave.draw(rng, rng.uniform(0, 0.25)),
        )

    @classmethod
    def draw_like(
        cls, other: "_Object", rng: np.random.Generator, height: int, width: int
    ) -> "_Object":
        """A distractor with the texture or the shape of another object, or both."""
        new = cls.draw(rng, height, width)
        same_texture = rng.random() < 0.7
        if not same_texture or rng.random() < 0.5:
            new = replace(new, silhouette=other.silhouette, size=other.size)
        if same_texture:
            alpha, beta = rng.uniform(0.8, 1.2), rng.uniform(0, 12)
            texture = cv2.convertScaleAbs(other.texture, alpha=alpha, beta=beta)
            new = replace(new, texture=texture)
        return new

    def pixels(self, time: float) -> np.ndarray:
        """The texture."""
        return self.texture

    def matrix(self, time: float) -> np.ndarray:
        """The texture reaches 1.3 times as far as the disc: beyond every bulge."""
        matrix = self._transform(time)
        matrix[:, :2] /= _TEXTURE / 2 / 1.3
        return _from_middle(matrix)

    def outlines(self, time: float) -> list[np.ndarray]:
        """The silhouette, ``[48, 2]``."""
        bulge, phase = self.wobble(time)
        angle = np.arctan2(self.silhouette[:, 1], self.silhouette[:, 0])
        radius = 1 + bulge * np.sin(2 * angle + 8 * phase)
        matrix = self._transform(time)
        return [(self.silhouette * radius[:, None]) @ matrix[:, :2].T + matrix[:, 2]]

    def _transform(self, time: float) -> np.ndarray:
        """``[2, 3]`` from the unit disc to continuous image coordinates."""
        scale, ratio = self.log_scale(time)
        angle = self.turn(time)[0] + self.spin * time
        width, height = self.size * np.exp([scale + ratio / 3, scale - ratio / 3])
        c, s = math.cos(angle), math.sin(angle)
        center = self.center + self.path(time)
        return np.array(
            [[c * width, -s * height, center[0]], [s * width, c * height, center[1]]]
        )


def _from_middle(matrix: np.ndarray) -> np.ndarray:
    """The matrix for ``paint``, of one that counts from the texture's middle."""
    offset = matrix[:, 2] - matrix[:, :2] @ np.full(2, _TEXTURE / 2)
    return np.vstack([np.column_stack([matrix[:, :2], offset]), [0, 0, 1]])


# ----------------------------------------------------------- textures and shapes


def draw_texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draws a texture between two or three random colours.

    Args:
        rng: the source of randomness.
        height: H.
        width: W.

    Returns:
        ``uint8 [H, W, 3]``: value noise, stripes, a checker board or a mixture.
    """
    pattern = _value_noise(rng, height, width)
    kind = rng.random()
    if kind < 0.55:
        waves = _stripes(rng, height, width)
        if kind < 0.25:  # a checker board, wavy where noise is added to its phase
            waves = waves * _stripes(rng, height, width)
        pattern = cv2.addWeighted(pattern, rng.uniform(0.1, 0.7), waves, 0.8, 0)
    low, high = rng.uniform(0, 255, (2, 3))
    level = np.clip((pattern + 1) / 2, 0, 1) * 255
    table = np.linspace(low, high, 256)
    if rng.random() < 0.4:  # a third colour on a band of levels
        start, stop = np.sort(rng.integers(0, 256, 2))
        table[start:stop] = rng.uniform(0, 255, 3)
    indices = cv2.cvtColor(level.astype(np.uint8), cv2.COLOR_GRAY2RGB)
    return cv2.LUT(indices, table.astype(np.uint8)[None])


def _value_noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """``float32 [H, W]`` in -1..1: random grids of growing fineness, interpolated."""
    noise = np.zeros((height, width), np.float32)
    roughness = rng.uniform(0.35, 0.9)
    cells, weight = int(rng.integers(2, 5)), 1.0
    for _ in range(4):
        grid = rng.random((cells, cells * width // height + 1), np.float32)
        smooth = cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
        cv2.accumulateWeighted(smooth * 2 - 1, noise, weight / (1 + weight))
        cells, weight = cells * 2, weight * roughness
    return noise * 1.5


def _stripes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    angle, waves = rng.uniform(0, np.pi), rng.uniform(1.5, 7)
    step = 2 * np.pi * waves / min(height, width)
    phase = rng.uniform(0, 2 * np.pi)
    x = np.arange(width, dtype=np.float32) * (step * math.cos(angle))
    y = np.arange(height, dtype=np.float32)[:, None] * (step * math.sin(angle)) + phase
    # sin(x + y) from four vectors is far cheaper than a sine of each pixel.
    wave = np.sin(y).astype(np.float32) * np.cos(x) + np.cos(y) * np.sin(x)
    return np.clip(wave.astype(np.float32) * np.float32(rng.uniform(1, 5)), -1, 1)


def _draw_silhouette(rng: np.random.Generator) -> np.ndarray:
    """An ellipse, a polygon or a blob, ``[48, 2]`` within the unit disc."""
    angle = np.linspace(0, 2 * np.pi, _VERTICES, endpoint=False)
    kind = rng.random()
    if kind < 0.25:
        radius = np.ones(_VERTICES)
    elif kind < 0.6:
        corners = int(rng.integers(3, 8))
        turns = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) / corners
        lengths = rng.uniform(0.65, 1, corners)
        points = np.stack([np.cos(turns * 2 * np.pi), np.sin(turns * 2 * np.pi)], 1)
        points *= lengths[:, None]
        at = np.arange(_VERTICES) * corners / _VERTICES
        index, part = at.astype(int), (at % 1)[:, None]
        following = points[(index + 1) % corners]
        return points[index] * (1 - part) + following * part
    else:
        orders = np.arange(2, 6)[:, None]
        waves = np.sin(orders * angle + rng.uniform(0, 2 * np.pi, (4, 1)))
        bumps = (waves * (rng.uniform(0, 0.3, (4, 1)) / np.sqrt(orders - 1))).sum(0)
        radius = (1 + bumps) / (1 + np.abs(bumps).max())
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None]


def _draw_background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A texture with a few dozen smaller textured shapes on it."""
    image = draw_texture(rng, height, width)
    if rng.random() < 0.5:  # calmer: half way to its mean colour
        mean = np.array(cv2.mean(image)[:3], np.float32)
        image = cv2.LUT(image, _towards(mean, rng.uniform(0.2, 0.8)))
    textures = [draw_texture(rng, _TEXTURE, _TEXTURE) for _ in range(4)]
    side = min(height, width)
    for _ in range(int(rng.integers(4, 22))):
        half = side * math.exp(rng.uniform(math.log(0.02), math.log(0.15)))
        center = rng.uniform(0, 1, 2) * [width, height]
        matrix = np.array([[half, 0, center[0]], [0, half, center[1]]])
        turn = rng.uniform(0, 2 * np.pi)
        c, s = math.cos(turn), math.sin(turn)
        matrix[:, :2] = matrix[:, :2] @ [[c, -s], [s, c]]
        outline = _draw_silhouette(rng) @ matrix[:, :2].T + matrix[:, 2]
        matrix[:, :2] *= 2 / _TEXTURE * rng.uniform(0.8, 2)
        texture = textures[rng.integers(4)]
        paint(image, texture, _from_middle(matrix), [outline])
    return image


def _towards(mean: np.ndarray, share: float) -> np.ndarray:
    levels = np.arange(256, dtype=np.float32)[:, None]
    return (levels + (mean - levels) * share).astype(np.uint8)[None]
