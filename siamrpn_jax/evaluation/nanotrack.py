"""NanoTrack by its ONNX files, version 2 or 3, run by OpenCV: a peer to compare with.

OpenCV's own TrackerNano takes version 2 alone, as the map of version 3 has 15 cells a
side, not 16; and it rounds each box to whole pixels. Method and constants:
SiamTrackers, github.com/HonglinChu/SiamTrackers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.crops.windows import Window, context_side, crop
from siamrpn_jax.model.boxes import corners_to_cxcywh, cxcywh_to_ltwh, ltwh_to_cxcywh

EXEMPLAR, INSTANCE, STRIDE = 127, 255, 16  # Pixels.
PENALTY_K, WINDOW_INFLUENCE, SIZE_LR = 0.138, 0.455, 0.348
MIN_SIZE = 10.0  # Pixels, of a side.

VERSIONS = ((48, 16), (96, 15))
"""Channels of features and cells a side of versions 2 and 3."""


class NanoTracker:
    """Speaks the protocol of ``evaluation.runner.OnePassTracker``.

    Args:
        files: the backbone and the head.

    Raises:
        InputError: they are missing, or no networks of NanoTrack.
    """

    name = "nano"

    def __init__(self, files: Sequence[Path]):
        if len(files) != 2:
            raise InputError(
                f"nano has {len(files)} files, expected NanoTrack's two ONNX files: "
                "--nano-files BACKBONE HEAD"
            )
        missing = [str(path) for path in files if not path.is_file()]
        if missing:
            raise InputError(f"no such ONNX file of NanoTrack: {', '.join(missing)}")
        try:
            # Its type stubs say that networks have no methods.
            networks: list[Any] = [cv2.dnn.readNetFromONNX(str(path)) for path in files]
            self._backbone, self._head = networks
            blank = np.zeros((INSTANCE, INSTANCE, 3), np.uint8)
            self._template = self._features(blank[:EXEMPLAR, :EXEMPLAR])
            scores, distances = self._detect(blank)
        except cv2.error as error:
            raise InputError(
                f"{files[0]}, {files[1]}: expected ONNX files of NanoTrack's backbone "
                f"and head; OpenCV: {' '.join(error.err.split())}"
            ) from error
        side = scores.shape[-1]
        # OpenCV computes something where the two files are of different versions.
        channels = self._template.shape[1]
        maps = scores.shape, distances.shape
        expected = (2, side, side), (4, side, side)
        if (channels, side) not in VERSIONS or maps != expected:
            raise InputError(
                f"{files[0]}, {files[1]}: {channels} channels and maps {maps[0]} and "
                f"{maps[1]}, expected the two files of one version of NanoTrack: "
                "48 channels and 16 cells a side, or 96 and 15"
            )
        self._window = np.outer(np.hanning(side), np.hanning(side))
        # Of the cells' centres from the middle of the search patch.
        self._places = (np.arange(side) - side // 2) * float(STRIDE)

    def init(self, image: np.ndarray, box: np.ndarray) -> None:
        """Learns the target in ``box``, ``ltwh``, of an RGB frame."""
        self._box = ltwh_to_cxcywh(np.asarray(box, np.float64))
        patch = self._patch(image, EXEMPLAR)
        self._template = self._features(patch)

    def update(self, image: np.ndarray) -> np.ndarray:
        """Returns the target's box in the next frame, ``ltwh``."""
        scale = EXEMPLAR / context_side(*self._box[2:])  # Patch pixels a frame pixel.
        scores, distances = self._detect(self._patch(image, INSTANCE))
        score = 1 / (1 + np.exp(scores[0] - scores[1]))
        left, top, right, bottom = distances
        x, y = np.meshgrid(self._places, self._places)
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

    def _features(self, patch: np.ndarray) -> np.ndarray:
        self._backbone.setInput(cv2.dnn.blobFromImage(patch, swapRB=True))
        return self._backbone.forward().copy()

    def _detect(self, patch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits ``[2, n, n]``, and distances to the box's four sides ``[4, n, n]``."""
        self._head.setInput(self._template, "input1")
        self._head.setInput(self._features(patch), "input2")
        scores, distances = self._head.forward(["output1", "output2"])
        return scores[0], distances[0]


def _penalty(sizes: np.ndarray, size: np.ndarray) -> np.ndarray:
    """``tracking.selection.change_penalty`` in NumPy: baselines do not wait for JAX."""
    width, height = np.moveaxis(np.maximum(sizes, 1e-6), -1, 0)
    before = context_side(*size)
    margin = (width + height) / 2
    scale = np.sqrt((width + margin) * (height + margin)) / before
    ratio = width / height * (size[1] / size[0])
    change = np.maximum(scale, 1 / scale) * np.maximum(ratio, 1 / ratio)
    return np.exp(-(change - 1) * PENALTY_K)
