"""Frames of one colour."""

import numpy as np


def solid(color, *, width=64, height=48):
    """RGB uint8 ``[height, width, 3]``."""
    return np.full((height, width, 3), color, np.uint8)
