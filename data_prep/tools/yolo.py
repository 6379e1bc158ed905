"""YOLO: ``labels/*.txt`` and ``images/``, below a split or the other way round.

A row is ``class cx cy w h``, with a confidence after it or not; where ``data.yaml`` has
a ``kpt_shape``, key points follow, which are left out. Or it is a polygon, ``class x y
x y …``, an oriented box among them. All is in fractions of the image.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.shapes import LabelledObject, from_polygons, unusable
from data_prep.tools.units import BROKEN, LabelledStill, Unreadable, key_of
from data_prep.tracks import Unit
from siamrpn_jax.data.read.formats import parse_numbers
from siamrpn_jax.data.read.images import list_images
from siamrpn_jax.data.read.rows import read_lines

_ROW = "class cx cy w h, or class x y x y … of a polygon, in fractions of the image"

_MARGIN = 0.01
"""How far corners may lie outside the image: rounding, and objects that are cut off."""


class _About(NamedTuple):
    """What ``data.yaml`` says."""

    classes: list[str]
    keypoints: int
    """How many numbers of a row are key points."""


def list_units(raw: Path, folder: Path, names: Sequence[str]) -> Iterator[Unit]:
    """A unit for each text of labels in a folder below ``labels/``."""
    parts = list(folder.parts)
    at = len(parts) - 1 - parts[::-1].index("labels")
    place = Path(*parts[:at], "images", *parts[at + 1 :])
    images = {path.stem: path for path in list_images(place)}
    about = _read_about(Path(*parts[:at]), raw)
    for name in sorted(names):
        path = folder / name
        if path.suffix != ".txt":
            continue
        lines, problem = read_lines(path)
        rows = [parse_numbers(line) for line in lines]
        image = images.get(path.stem)
        if image is None and not problem and not any(len(row) >= 5 for row in rows):
            continue  # empty, or names of classes or files
        if problem or image is None:
            reason = problem or f"has no image {path.stem} in {place}"
            yield Unit(key_of(raw, path), Unreadable(path, reason))
        elif rows:
            objects = tuple(_read_row(row, about) for row in rows)
            yield Unit(key_of(raw, image), LabelledStill(path, image, objects, True))


def _read_row(row: list[float], about: _About) -> LabelledObject:
    index = int(row[0]) if row and row[0] == row[0] // 1 else -1
    known = 0 <= index < len(about.classes)
    category = about.classes[index] if known else f"{index}"
    if len(row) in (5, 6) or (about.keypoints and len(row) == 5 + about.keypoints):
        _, cx, cy, w, h = row[:5]
        return LabelledObject(category, (cx - w / 2, cy - h / 2, w, h))
    if len(row) < 7 or not len(row) % 2:
        return LabelledObject(category, BROKEN)
    if len(row) == 7 and row[6] % 1 == 0:
        what = "a triangle, or a box with its score and the number of its track"
        return unusable(category, what, expected=_ROW)
    corners = np.array(row[1:]).reshape(-1, 2)
    if np.any((corners < -_MARGIN) | (corners > 1 + _MARGIN)):
        what = "a polygon that leaves the image, or key points without their kpt_shape"
        return unusable(category, what, expected=_ROW)
    return from_polygons(category, [np.clip(corners, 0, 1)])


def _read_about(folder: Path, raw: Path) -> _About:
    """From the nearest ``data.yaml``: ``names: [a, b]`` or a list or table below it."""
    for place in (folder, *folder.parents):
        text = "\n".join(read_lines(place / "data.yaml")[0])
        if text:
            shape = re.search(r"^kpt_shape:\s*\[\s*(\d+)\s*,\s*(\d+)\s*\]", text, re.M)
            keypoints = int(shape[1]) * int(shape[2]) if shape else 0
            return _About(_class_names(text), keypoints)
        if place == raw:
            break
    return _About([], 0)


def _class_names(text: str) -> list[str]:
    if found := re.search(r"^names:\s*\[(.*?)\]", text, re.M | re.S):
        return [name.strip(" '\"\n") for name in found[1].split(",")]
    if found := re.search(r"^names:\s*\n((?:[ \t-]+.*\n?)+)", text, re.M):
        entries = re.findall(r"^[ \t]*(?:-|\d+:)\s*(.+?)\s*$", found[1], re.M)
        return [entry.strip("'\"") for entry in entries]
    return []
