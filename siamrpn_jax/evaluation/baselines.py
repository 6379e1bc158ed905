"""Trackers to compare with: the first box repeated, and OpenCV's KCF and CSRT.

All speak the protocol of `siamrpn_jax.evaluation.runner.OnePassTracker`.
"""

from typing import Any, Literal

import cv2
import numpy as np

from siamrpn_jax.errors import InputError

BaselineName = Literal["static", "kcf", "csrt"]


class BaselineError(InputError):
    """A baseline that the installed OpenCV does not have."""


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

    Raises:
        BaselineError: this build of OpenCV lacks the tracker.
    """

    def __init__(self, name: Literal["kcf", "csrt"]):
        self.name = name
        self._create = _factory(name)

    def init(self, image: np.ndarray, box: np.ndarray) -> None:
        """Starts a fresh OpenCV tracker on an RGB frame."""
        x, y, w, h = (round(float(value)) for value in box)
        self._tracker = self._create()
        self._tracker.init(_bgr(image), (x, y, max(w, 1), max(h, 1)))

    def update(self, image: np.ndarray) -> tuple[bool, np.ndarray]:
        """Returns whether the target was found, and its box."""
        found, box = self._tracker.update(_bgr(image))
        return bool(found), np.array(box, np.float64)


def make_baseline(name: BaselineName) -> StaticTracker | OpenCvTracker:
    """Builds a baseline by its name.

    Raises:
        BaselineError: OpenCV's build lacks it.
    """
    return StaticTracker() if name == "static" else OpenCvTracker(name)


def _factory(name: Literal["kcf", "csrt"]) -> Any:
    attribute = f"Tracker{name.upper()}_create"
    for module in (cv2, getattr(cv2, "legacy", None)):
        if hasattr(module, attribute):
            return getattr(module, attribute)
    raise BaselineError(
        f"OpenCV {cv2.__version__} has no {name.upper()} tracker: it comes with the "
        "wheel opencv-contrib-python, which replaces opencv-python (pip uninstall "
        "opencv-python; pip install opencv-contrib-python)"
    )


def _bgr(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
