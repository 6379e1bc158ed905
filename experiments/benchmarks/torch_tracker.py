"""The tracking step as PySOT and DaSiamRPN write it: OpenCV crop, NumPy around a net.

Any engine can be the net. The crop is theirs: whole pixels cut out, a border of the
mean colour, ``cv2.resize``; so its patch is up to half a pixel off ours, and the
equality of the rest is checked on one patch for all.
"""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from siamrpn_jax.model.config import ModelConfig
from siamrpn_jax.model.network import model_anchors
from siamrpn_jax.tracking.config import TrackerConfig

Net = Callable[[np.ndarray], Sequence[np.ndarray]]
"""Patches ``[1, X, X, 3]`` to logits ``[1, F, F, K, 2]`` and offsets ``[…, 4]``."""


class HostTracker:
    """Follows one target; boxes are ``cxcywh`` in frame pixels.

    Args:
        config: of the network.
        tracker: its selection constants; no centre region, no NMS.
        net: the search branch, for this target.
        frame: the first one, RGB uint8.
        box: the target in it.
    """

    def __init__(
        self,
        config: ModelConfig,
        tracker: TrackerConfig,
        net: Net,
        frame: np.ndarray,
        box: np.ndarray,
    ):
        self.config, self.tracker, self.net = config, tracker, net
        self.anchors = model_anchors(config)
        hann = np.hanning(config.score_size).astype(np.float32)
        self.window = np.repeat(np.outer(hann, hann), len(config.anchors.ratios))
        self.box = np.asarray(box, np.float32)
        self.fill = frame.mean((0, 1))

    def step(self, frame: np.ndarray, patch: np.ndarray | None = None) -> np.ndarray:
        """The box in the next frame; ``self.box`` stays, for it to be taken again.

        Args:
            frame: RGB uint8.
            patch: taken in place of the crop, ``[X, X, 3]``.
        """
        size = self.box[2:]
        scale = self.config.exemplar_size / _context_side(size, self.config.context)
        instance = self.config.instance_size
        if patch is None:
            patch = subwindow(frame, self.box, instance / scale, self.fill, instance)
        logits, deltas = self.net(patch[None])
        proposals, score, penalty = self._score(logits, deltas, size * scale)
        influence = self.tracker.window_influence
        final = (1 - influence) * score * penalty + influence * self.window
        best = int(final.argmax())
        center = self.box[:2] + (proposals[best, :2] - instance / 2) / scale
        step = self.tracker.size_lr * penalty[best] * score[best]
        new = size + step * (proposals[best, 2:] / scale - size)
        limit = np.array(frame.shape[1::-1], np.float32)
        center = np.clip(center, 0, limit)
        return np.concatenate([center, np.clip(new, self.tracker.min_size, limit)])

    def _score(
        self, logits: np.ndarray, deltas: np.ndarray, last: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Proposals ``cxcywh [N, 4]`` in patch pixels, scores and penalties."""
        logits, deltas = logits.reshape(-1, 2), deltas.reshape(-1, 4)
        score = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
        center = self.anchors[:, :2] + deltas[:, :2] * self.anchors[:, 2:]
        size = self.anchors[:, 2:] * np.exp(deltas[:, 2:])
        ratio = (size[:, 0] / size[:, 1]) / (last[0] / last[1])
        context = self.config.context
        scale = _context_side(size, context) / _context_side(last, context)
        change = np.maximum(ratio, 1 / ratio) * np.maximum(scale, 1 / scale)
        penalty = np.exp(-self.tracker.penalty_k * (change - 1))
        return np.concatenate([center, size], 1), score, penalty


def subwindow(
    frame: np.ndarray, box: np.ndarray, side: float, fill: np.ndarray, size: int
) -> np.ndarray:
    """Cuts whole pixels around the box's centre and resizes: uint8 ``[n, n, 3]``."""
    height, width = frame.shape[:2]
    side = max(round(float(side)), 1)
    x, y = (round(float(c) - side / 2) for c in box[:2])
    left, top = max(-x, 0), max(-y, 0)
    right, bottom = max(x + side - width, 0), max(y + side - height, 0)
    cut = frame[y + top : y + side - bottom, x + left : x + side - right]
    if left or top or right or bottom:
        cut = cv2.copyMakeBorder(
            cut, top, bottom, left, right, cv2.BORDER_CONSTANT, value=fill.tolist()
        )
    return cv2.resize(cut, (size, size))


def _context_side(size: np.ndarray, context: float) -> Any:
    padded = size + context * size.sum(-1, keepdims=True)
    return np.sqrt(padded[..., 0] * padded[..., 1])
