"""Networks that answer as NanoTrack's would."""

import cv2
import numpy as np


class FakeNetwork:
    """A backbone, or a head of ``side`` cells that finds the target in one of them.

    That is the cell below the middle one and two to its left. All cells see a box of 56
    x 64 pixels, whose centre lies 8 pixels to the right of theirs and 8 below.
    """

    def __init__(self, side: int):
        self.side, self.inputs = side, {}

    def setInput(self, blob, name=""):
        self.inputs[name] = blob

    def forward(self, names=None):
        if names is None:
            return np.zeros((1, {16: 48, 15: 96}[self.side], 8, 8), np.float32)
        scores = np.zeros((1, 2, self.side, self.side), np.float32)
        scores[0, 0] = 9.0
        scores[0, :, self.side // 2 + 1, self.side // 2 - 2] = [-20.0, 20.0]
        distances = np.empty((1, 4, self.side, self.side), np.float32)
        distances[0] = np.array([20, 24, 36, 40])[:, None, None]
        return scores, distances


def use_fakes(monkeypatch, folder, *, side: int) -> list:
    """Two files that OpenCV reads as fakes from now on."""
    monkeypatch.setattr(cv2.dnn, "readNetFromONNX", lambda path: FakeNetwork(side))
    files = [folder / "backbone.onnx", folder / "head.onnx"]
    for path in files:
        path.touch()
    return files
