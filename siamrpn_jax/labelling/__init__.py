"""Labelling films: boxes drawn on some frames, tracked through all others."""

from typing import Literal

Format = Literal["csv", "mot", "cvat", "coco", "yolo", "labelstudio", "vot"]
"""What labels can be written as, see ``formats``."""
