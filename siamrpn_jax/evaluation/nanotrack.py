"""NanoTrack by its ONNX files, version 2 or 3, run by OpenCV: a peer to compare with.

OpenCV's own TrackerNano takes version 2 alone, as the map of version 3 has 15 cells a
side, not 16; and it rounds each box to whole pixels. Method and constants:
SiamTrackers, github.com/HonglinChu/SiamTrackers.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from siamrpn_jax.data.crops.windows import Window, context_side, crop
from siamrpn_jax.data.pairs.teacher import EXEMPLAR, INSTANCE, NanoNetworks
from siamrpn_jax.model.boxes import corners_to_cxcywh, cxcywh_to_ltwh, ltwh_to_cxcywh

PENALTY_K, WINDOW_INFLUENCE, SIZE_LR = 0.138, 0.455, 0.348
MIN_SIZE = 10.0  # Pixels, of a side.


class NanoTracker:
    """Speaks the protocol of ``evaluation.runner.OnePassTracker``.

    Args:
        files: the backbone and the head.

    Raises:
        InputError: they are missing, or no networks of NanoTrack.
    """

    name = "nano"

    def __init__(self, files: Sequence[Path]):
        self._networks = NanoNetworks(files)
        side = len(self._networks.places)
        self._window = np.outer(np.hanning(side), np.hanning(side))

    def init(self, image: np.ndarray, box: np.ndarray) -> None:
        """Learns the target in ``box``, ``ltwh``, of an RGB frame."""
        self._box = ltwh_to_cxcywh(np.asarray(box, np.float64))
        patch = self._patch(image, EXEMPLAR)
        self._template = self._networks.features(patch)

    def update(self, image: np.ndarray) -> np.ndarray:
        """Returns the target's box in the next frame, ``ltwh``."""
        scale = EXEMPLAR / context_side(*self._box[2:])  # Patch pixels a frame pixel.
        patch = self._patch(image, INSTANCE)
        (_, score), distances = self._networks.detect(self._template, patch)
        left, top, right, bottom = distances
        x, y = np.meshgrid(self._networks.places, self._networks.places)
        corners = np.stack([x - left, y - top, x + right, y + bottom], axis=-1)
        found = corners_to_cxcywh(corners.astype(np.float64))
        penalty = _penalty(found[..., 2:], self._box[2:] * scale)
        shares = 1 - WINDOW_INFLUENCE, WINDOW_INFLUENCE
        ranked = shares[0] * penalty * score + shares[1] * self._window
        best = np.unravel_index(np.argmax(ranked), ranked.shape)
        rate = penalty[best] * score[best] * SIZE_LR
        center = self._box[:2] + found[best][:2] / scale
        size = (1 - rate) * self._box[2:] + rate * found[best][2:] / scale
        limits = np.array(image.shape[1::-1], np.float64)
        self._box = np.concatenate(
            [
                np.clip(center, 0, limits),
                np.clip(size, np.minimum(MIN_SIZE, limits), limits),
            ]
        )
        return cxcywh_to_ltwh(self._box)

    def _patch(self, image: np.ndarray, size: int) -> np.ndarray:
        side = context_side(*self._box[2:]) * size / EXEMPLAR
        cx, cy = self._box[:2]
        return crop(image, Window(cx, cy, side, side), size)


def _penalty(sizes: np.ndarray, size: np.ndarray) -> np.ndarray:
    """``tracking.selection.change_penalty`` in NumPy: baselines do not wait for JAX."""
    width, height = np.moveaxis(np.maximum(sizes, 1e-6), -1, 0)
    before = context_side(*size)
    margin = (width + height) / 2
    scale = np.sqrt((width + margin) * (height + margin)) / before
    ratio = width / height * (size[1] / size[0])
    change = np.maximum(scale, 1 / scale) * np.maximum(ratio, 1 / ratio)
    return np.exp(-(change - 1) * PENALTY_K)
