"""What every scene is made of: smooth motions, and sprites painted inside outlines.

Generated scenes and scenes of pasted cut-outs differ in what their sprites show and how
they move. Edges are antialiased, coordinates continuous.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import cv2
import numpy as np

_SUPERSAMPLE = 4  # Sub-pixels along each axis.


@dataclass(frozen=True)
class Wave:
    """A smooth path in two coordinates, two sines each.

    ``amplitude`` bounds both, or each if it has two elements.
    """

    weights: np.ndarray
    frequencies: np.ndarray
    phases: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, amplitude: float | np.ndarray) -> "Wave":
        """Frequencies and phases at random; for ``amplitude`` see the class."""
        share = rng.uniform(0.5, 1.0, 2)
        weights = np.stack([share, 1 - share], axis=1)
        weights *= np.broadcast_to(amplitude, 2)[:, None]
        # Periods of about 25 to 250 frames: a target crosses its range in a clip.
        frequencies = 2 * np.pi / np.exp(rng.uniform(3.2, 5.5, (2, 2)))
        return cls(weights, frequencies, rng.uniform(0, 2 * np.pi, (2, 2)))

    def __call__(self, time: float) -> np.ndarray:
        """Offset at a time in frames: float64 ``[2]``."""
        waves = np.sin(self.frequencies * time + self.phases)
        return (self.weights * waves).sum(axis=1)


class Sprite(ABC):
    """Something that moves through a scene; can be shown at any time."""

    soft = False
    """Whether its edge is blurred by a pixel more."""

    @abstractmethod
    def pixels(self, time: float) -> np.ndarray:
        """What it shows: ``uint8 [h, w, 3]``."""

    @abstractmethod
    def matrix(self, time: float) -> np.ndarray:
        """``[3, 3]`` from its pixels to the image's, both continuous."""

    @abstractmethod
    def outlines(self, time: float) -> list[np.ndarray]:
        """Its polygons ``[n, 2]``, continuous coordinates of the image."""

    def bounds(self, time: float) -> np.ndarray:
        """The box around all of it, parts beyond the image too: ``ltwh [4]``."""
        points = np.concatenate(self.outlines(time))
        return np.concatenate([points.min(axis=0), np.ptp(points, axis=0)])


def paint_sprites(image: np.ndarray, sprites: Iterable[Sprite], time: float) -> None:
    """Paints sprites over an image in place, the last one on top."""
    for one in sprites:
        paint(
            image,
            one.pixels(time),
            one.matrix(time),
            one.outlines(time),
            soft=one.soft,
        )


def paint(
    image: np.ndarray,
    texture: np.ndarray,
    matrix: np.ndarray,
    outlines: SequenceOf[np.ndarray],
    *,
    soft: bool = False,
) -> None:
    """Paints the inside of polygons with a texture, in place.

    Args:
        image: ``uint8 [H, W, 3]``; what lies beyond it is left out.
        texture: ``uint8 [h, w, 3]``, mirrored beyond its borders.
        matrix: ``[3, 3]``, from ``texture`` to ``image``, both continuous.
        outlines: ``[n, 2]`` each, continuous coordinates of ``image``.
        soft: whether the edge is blurred by a pixel more.
    """
    height, width = image.shape[:2]
    points = np.concatenate(outlines)
    x0, y0 = np.maximum(np.floor(points.min(axis=0)).astype(int) - 1, 0)
    x1, y1 = np.ceil(points.max(axis=0)).astype(int) + 1
    x1, y1 = min(x1, width), min(y1, height)
    if x1 <= x0 or y1 <= y0:
        return
    # Continuous coordinates to OpenCV's pixel indices, on both sides.
    to_index = np.array([[1, 0, -0.5 - x0], [0, 1, -0.5 - y0], [0, 0, 1]])
    from_index = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    size = (int(x1 - x0), int(y1 - y0))
    colors = cv2.warpPerspective(
        texture, to_index @ matrix @ from_index, size, borderMode=cv2.BORDER_REFLECT
    )
    mask = np.zeros((size[1], size[0]), np.uint8)
    fill_outlines(mask, [outline - [x0, y0] for outline in outlines])
    blend(image[y0:y1, x0:x1], colors, cv2.blur(mask, (3, 3)) if soft else mask)


def fill_outlines(mask: np.ndarray, outlines: SequenceOf[np.ndarray]) -> None:
    """Sets a mask to 255 inside polygons, with an antialiased edge, in place.

    Args:
        mask: ``uint8 [H, W]``.
        outlines: ``[n, 2]`` each, continuous coordinates of the mask.
    """
    # Not cv2.LINE_AA: it draws a whole line around the polygon, which grows by a pixel.
    height, width = mask.shape
    fine = np.zeros((height * _SUPERSAMPLE, width * _SUPERSAMPLE), np.uint8)
    points = [
        np.round(outline * _SUPERSAMPLE - 0.5).astype(np.int32) for outline in outlines
    ]
    cv2.fillPoly(fine, points, 255)
    cv2.resize(fine, (width, height), dst=mask, interpolation=cv2.INTER_AREA)


def blend(image: np.ndarray, colors: np.ndarray, mask: np.ndarray) -> None:
    """Paints ``colors [H, W, 3]`` over ``image`` in place, where ``mask`` is 255."""
    alpha = cv2.cvtColor(mask, cv2.COLOR_GRAY2RGB)
    over = cv2.multiply(colors, alpha, scale=1 / 255)
    under = cv2.multiply(image, cv2.bitwise_not(alpha), scale=1 / 255)
    image[:] = cv2.add(over, under)
