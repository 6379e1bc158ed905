"""Labelling films: boxes drawn on some frames, tracked through all others."""

from collections.abc import Callable
from typing import Literal

Format = Literal["csv", "mot", "cvat", "coco", "yolo", "labelstudio", "vot"]
"""What labels can be written as, see ``formats``."""

Progress = Callable[[int, int], None]
"""Told how many frames are done, of how many."""
