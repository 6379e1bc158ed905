"""Trackers to compare with: the first box repeated, OpenCV's KCF and CSRT, NanoTrack.

All speak the protocol of ``siamrpn_jax.evaluation.runner.OnePassTracker``.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.evaluation.nanotrack import NanoTracker

BaselineName = Literal["static", "kcf", "csrt", "nano"]


class StaticTracker:
    """Repeats the first box: what any tracker must beat."""

    name = "static"

    def init(self, image: np.ndarray, box: np.ndarray) -> None:
        """Keeps the box, ``ltwh``."""
        del image
        self._box = np.array(box, np.float64)

    def update(self, image: np.ndarray) -> np.ndarray:
        """Returns the first box."""
        del image
        return self._box


class OpenCvTracker:
    """A tracker of OpenCV; takes RGB frames and ``ltwh`` boxes like the others.

    OpenCV's boxes are whole pixels: the given box is rounded.

    Args:
        name: what it is called.
        create: makes a fresh tracker of OpenCV.
    """

    def __init__(self, name: str, create: Callable[[], Any]):
        self.name = name
        self._create = create

    def init(self, image: np.ndarray, box: np.ndarray) -> None:
        """Starts a fresh OpenCV tracker on an RGB frame."""
        x, y, w, h = (round(float(value)) for value in box)
        self._tracker = self._create()
        self._tracker.init(_bgr(image), (x, y, max(w, 1), max(h, 1)))

    def update(self, image: np.ndarray) -> tuple[bool, np.ndarray]:
        """Returns whether the target was found, and its box."""
        found, box = self._tracker.update(_bgr(image))
        return bool(found), np.array(box, np.float64)


def make_baseline(
    name: BaselineName, *, files: Sequence[Path] = ()
) -> StaticTracker | OpenCvTracker | NanoTracker:
    """Builds a baseline by its name.

    Args:
        name: which.
        files: NanoTrack's backbone and head, for ``nano``.

    Raises:
        InputError: OpenCV's build lacks it, or its files cannot be read.
    """
    if name == "static":
        return StaticTracker()
    if name == "nano":
        return NanoTracker(files)
    return OpenCvTracker(name, _factory(name))


def _factory(name: Literal["kcf", "csrt"]) -> Callable[[], Any]:
    attribute = f"Tracker{name.upper()}_create"
    for module in (cv2, getattr(cv2, "legacy", None)):
        if hasattr(module, attribute):
            return getattr(module, attribute)
    raise InputError(
        f"OpenCV {cv2.__version__} has no {name.upper()} tracker: it comes with the "
        "wheel opencv-contrib-python, which replaces opencv-python (pip uninstall "
        "opencv-python; pip install opencv-contrib-python)"
    )


def _bgr(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
