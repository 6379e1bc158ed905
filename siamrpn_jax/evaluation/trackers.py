"""Trackers to compare with: the first box repeated, and OpenCV's KCF, CSRT and Nano.

All speak the protocol of ``siamrpn_jax.evaluation.runner.OnePassTracker``.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from siamrpn_jax.common.errors import InputError

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
) -> StaticTracker | OpenCvTracker:
    """Builds a baseline by its name.

    Args:
        name: which.
        files: NanoTrack's backbone and head, for ``nano``.

    Raises:
        InputError: OpenCV's build lacks it, or it cannot read its files.
    """
    if name == "static":
        return StaticTracker()
    create = _nano_factory(files) if name == "nano" else _factory(name)
    return OpenCvTracker(name, create)


def _nano_factory(files: Sequence[Path]) -> Callable[[], Any]:
    if not hasattr(cv2, "TrackerNano_create"):
        raise InputError(
            f"OpenCV {cv2.__version__} has no TrackerNano: expected a wheel such as "
            "opencv-python 4.11 or newer, built with its modules dnn and video"
        )
    if len(files) != 2:
        raise InputError(
            f"nano has {len(files)} files, expected NanoTrack's two ONNX files: "
            "--nano-files BACKBONE HEAD"
        )
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        raise InputError(f"no such ONNX file of NanoTrack: {', '.join(missing)}")
    opencv: Any = cv2  # its type stubs do not know this tracker
    settings = opencv.TrackerNano_Params()
    settings.backbone, settings.neckhead = map(str, files)
    try:
        opencv.TrackerNano_create(settings)
    except cv2.error as error:
        raise InputError(
            f"{files[0]}, {files[1]}: expected ONNX files of NanoTrack's backbone and "
            f"head; OpenCV: {' '.join(error.err.split())}"
        ) from error
    return lambda: opencv.TrackerNano_create(settings)


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
