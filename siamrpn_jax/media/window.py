"""A window in which a person draws a box."""

import os
import re
import sys

import cv2
import numpy as np

from siamrpn_jax.common.errors import InputError


def ask_for_box(frame: np.ndarray) -> np.ndarray:
    """Asks for a box with the mouse in a window.

    Args:
        frame: RGB uint8 [H, W, 3].

    Returns:
        float64 [4], ``ltwh``.

    Raises:
        InputError: there is no display, or no box was drawn.
    """
    # Without a display OpenCV's Qt ends the whole process, which nothing can catch.
    if not has_display():
        raise InputError("no display to select a box on: pass --box x,y,w,h")
    title = "Draw the target's box, then press ENTER"
    box = cv2.selectROI(title, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    cv2.destroyWindow(title)
    if box[2] <= 0 or box[3] <= 0:
        raise InputError("no box was selected: draw one, or pass --box x,y,w,h")
    return np.array(box, np.float64)


def has_display() -> bool:
    """Whether OpenCV can open a window here."""
    if gui_kind() == "NONE":
        return False
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True


def gui_kind() -> str:
    """The window system OpenCV was built for: ``QT5``, …, or ``NONE``."""
    found = re.search(r"GUI:\s+(\S+)", cv2.getBuildInformation())
    return found.group(1) if found else "NONE"
