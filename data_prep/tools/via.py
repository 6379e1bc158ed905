"""VIA: a ``.csv`` with ``region_shape_attributes``, beside its images."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.shapes import (
    LabelledObject,
    from_ellipse,
    from_polygons,
    unusable,
)
from data_prep.tools.units import LabelledStill, beside, key_of
from data_prep.tracks import PreparationError, Unit
from siamrpn_jax.data.read.rows import read_lines


def list_units(raw: Path, path: Path) -> Iterator[Unit]:
    """A unit for each image with regions.

    Raises:
        PreparationError: a row is not VIA's.
    """
    lines, problem = read_lines(path)
    if problem:
        raise PreparationError(f"{path}: {problem}")
    objects: dict[str, list[LabelledObject]] = {}
    lines[0] = lines[0].lstrip("#")
    for row in csv.DictReader(lines):
        try:
            shape = json.loads(row["region_shape_attributes"])
            about = json.loads(row["region_attributes"] or "{}")
            if shape:  # An image without regions has a row, too.
                label = str(next(iter(about.values()), ""))
                one = _read_region(label, shape)
                objects.setdefault(row["filename"], []).append(one)
        except (
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            OverflowError,
        ) as error:
            raise PreparationError(
                f"{path}: {str(row)[:80]}, expected VIA's columns ({error!r})"
            ) from error
    for name, found in objects.items():
        still = LabelledStill(path, beside(path, name), tuple(found), False)
        yield Unit(f"{key_of(raw, path)}/{name}", still)


def _read_region(category: str, shape: dict[str, Any]) -> LabelledObject:
    """Pixels; the angle of an ellipse is in radians."""

    def numbers(*names: str) -> list[float]:
        return [float(shape[name]) for name in names]

    kind = shape["name"]
    if kind == "rect":
        x, y, w, h = numbers("x", "y", "width", "height")
        return LabelledObject(category, (x, y, w, h))
    if kind == "polygon":
        corners = zip(shape["all_points_x"], shape["all_points_y"], strict=True)
        return from_polygons(category, [np.array(list(corners), float)])
    if kind == "circle":
        return from_ellipse(category, numbers("cx", "cy"), numbers("r", "r"))
    if kind == "ellipse":
        angle = math.degrees(shape.get("theta", 0))
        middle, radii = numbers("cx", "cy"), numbers("rx", "ry")
        return from_ellipse(category, middle, radii, angle=angle)
    return unusable(category, f"a {kind}")
