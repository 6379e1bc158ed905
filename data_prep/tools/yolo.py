"""YOLO: ``labels/*.txt`` and ``images/``, below a split or the other way round.

A row is ``class cx cy w h``, with a confidence after it or not; where ``data.yaml`` has
a ``kpt_shape``, key points follow, which are left out. Or it is a polygon, ``class x y
x y …``, an oriented box among them. All is in fractions of the image. The ``names`` of
``data.yaml`` are a list, or a table by number; classes that they lack are rejected. A
folder whose boxes all fit as corners ``x0 y0 x1 y1``, and not as these, is refused.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.shapes import LabelledObject, from_polygons, unusable
from data_prep.tools.units import BROKEN, LabelledStill, Unreadable, key_of
from data_prep.tracks import PreparationError, Unit
from siamrpn_jax.data.read.formats import parse_numbers
from siamrpn_jax.data.read.images import list_images
from siamrpn_jax.data.read.rows import read_lines

_ROW = "class cx cy w h, or class x y x y … of a polygon, in fractions of the image"

_MARGIN = 0.01
"""How far corners may lie outside the image: rounding, and objects that are cut off."""

_QUOTED = r"""'(?:[^']|'')*'|"(?:[^"\\]|\\.)*\""""
_START = r"""(?![-?:](?:\s|$))[^\s,\[\]{}&*!|>'"%@`#]"""
"""What a word of YAML may begin with."""

_KEY = r"(?:(\d+)[ \t]*:\s+)"
_FLOW_ENTRY = re.compile(
    rf"\s*{_KEY}?({_QUOTED}|{_START}(?:(?!:\s|:$)[^,\[\]{{}}\n])*)\s*(?:,|(?=[\]}}]))"
)
_LINE_ENTRY = re.compile(
    rf"([ \t]*)(?:-[ \t]+|{_KEY})({_QUOTED}|{_START}(?:(?!:\s|:$).)*)"
)
_BARE = re.compile(rf"(?:(?<![^\s\[{{,:])(?:{_QUOTED})|(?<=\S)#|[^#])*")


class _About(NamedTuple):
    """What ``data.yaml`` says."""

    classes: dict[int, str]
    keypoints: int
    """How many numbers of a row are key points."""


def list_units(raw: Path, folder: Path, names: Sequence[str]) -> Iterator[Unit]:
    """A unit for each text of labels in a folder below ``labels/``.

    Raises:
        PreparationError: ``data.yaml`` is not understood, or the boxes are corners.
    """
    parts = list(folder.parts)
    at = len(parts) - 1 - parts[::-1].index("labels")
    place = Path(*parts[:at], "images", *parts[at + 1 :])
    images: dict[str, list[Path]] = {}
    for image in list_images(place):
        images.setdefault(image.stem, []).append(image)
    about = _read_about(Path(*parts[:at]), raw)
    boxes: list[list[float]] = []
    for name in sorted(names):
        path = folder / name
        if path.suffix != ".txt":
            continue
        lines, problem = read_lines(path)
        rows = [parse_numbers(line) for line in lines]
        found = images.get(path.stem, [])
        if not found and not problem and not any(len(row) >= 5 for row in rows):
            continue  # empty, or names of classes or files
        if not found:
            problem = problem or f"has no image {path.stem} in {place}"
        elif len(found) > 1:
            problem = problem or f"is of {found[0]} or {found[1].name}?"
        if problem:
            yield Unit(key_of(raw, path), Unreadable(path, problem))
        elif rows:
            boxes += [row[1:5] for row in rows if _is_box(row, about)]
            objects = tuple(_read_row(row, about) for row in rows)
            still = LabelledStill(path, found[0], objects, True)
            yield Unit(key_of(raw, found[0]), still)
    if corners := _find_corners(boxes):
        raise PreparationError(
            f"{folder}: its boxes fit as corners x0 y0 x1 y1 and not as cx cy w h, "
            f"such as {' '.join(f'{value:g}' for value in corners)}, expected {_ROW}"
        )


def _find_corners(boxes: Sequence[Sequence[float]]) -> list[float]:
    """A box that shows that all are corners; empty where they need not be.

    As corners all of them stay in their images; as centre and size this one leaves its
    image by more than rounding.
    """
    values = np.array(boxes).reshape(-1, 4)
    values = values[np.isfinite(values).all(axis=1)]
    low, high = values[:, :2], values[:, 2:]
    fit = (low >= -_MARGIN) & (high > low) & (high <= 1 + _MARGIN)
    leave = (low - high / 2 < -_MARGIN) | (low + high / 2 > 1 + _MARGIN)
    outside = values[leave.any(axis=1)]
    return outside[0].tolist() if fit.all() and len(outside) else []


def _is_box(row: Sequence[float], about: _About) -> bool:
    """Whether a row is a box, with a confidence or key points after it or without."""
    with_points = about.keypoints and len(row) == 5 + about.keypoints
    return len(row) in (5, 6) or bool(with_points)


def _read_row(row: list[float], about: _About) -> LabelledObject:
    if len(row) < 5:
        return LabelledObject("", BROKEN)
    whole = 0 <= row[0] < 2**31 and row[0] % 1 == 0
    index = int(row[0]) if whole else -1
    if not whole or (about.classes and index not in about.classes):
        known = "one that data.yaml names" if about.classes else "a whole number"
        return unusable("", f"class {row[0]:g}", expected=known)
    category = about.classes.get(index, f"{index}")
    if _is_box(row, about):
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
    """From the nearest ``data.yaml``.

    Raises:
        PreparationError: its ``names`` are not understood.
    """
    for place in (folder, *folder.parents):
        text = "\n".join(read_lines(place / "data.yaml")[0])
        if text:
            shape = re.search(r"^kpt_shape:\s*\[\s*(\d+)\s*,\s*(\d+)\s*\]", text, re.M)
            keypoints = int(shape[1]) * int(shape[2]) if shape else 0
            try:
                return _About(_class_names(text), keypoints)
            except ValueError as error:
                raise PreparationError(
                    f"{place / 'data.yaml'}: names has {error}, expected [a, b], "
                    "{0: a, 1: b}, or lines of - a or 0: a"
                ) from error
        if place == raw:
            break
    return _About({}, 0)


def _class_names(text: str) -> dict[int, str]:
    """``names`` of a ``data.yaml``, by their numbers; none where it has none.

    Of YAML only what such files hold is read: a list or a table, in brackets or a line
    each, of words with or without quotes.

    Raises:
        ValueError: anything else.
    """
    text = "\n".join(_bare(line) for line in text.split("\n"))
    found = re.search(r"""^(["']?)names\1[ \t]*:(?=\s|$)[ \t]*""", text, re.M)
    if not found:
        return {}
    rest = text[found.end() :]
    entries = _in_brackets(rest) if rest[:1] in ("[", "{") else _line_by_line(rest)
    numbers = [number for number, _ in entries]
    if all(number is None for number in numbers):
        return dict(enumerate(name for _, name in entries))
    names = {number: name for number, name in entries if number is not None}
    if len(names) != len(entries):
        raise ValueError("numbers that occur twice, or are missing")
    return names


def _bare(line: str) -> str:
    """A line of YAML without its comment."""
    found = _BARE.match(line)
    return found[0].rstrip() if found else ""


_Entries = list[tuple[int | None, str]]
"""Numbers, where they are given, and names."""


def _in_brackets(text: str) -> _Entries:
    """The entries of ``[a, b]`` or ``{0: a, 1: b}`` at the start of a text."""
    entries: _Entries = []
    table, at = text[0] == "{", 1
    closed = re.compile(rf"\s*{'[}]' if table else ']'}[ \t]*(?:\n|$)")
    while not closed.match(text, at):
        entry = _FLOW_ENTRY.match(text, at)
        if entry is None or (entry[1] is not None) != table:
            raise ValueError(repr(text[at : at + 80].strip()))
        entries.append((int(entry[1]) if table else None, _unquoted(entry[2])))
        at = entry.end()
    return entries


def _line_by_line(text: str) -> _Entries:
    """The entries of lines ``- a`` or ``0: a`` at the start of a text."""
    first, *lines = text.split("\n")
    if first:
        raise ValueError(repr(first[:80]))
    entries: _Entries = []
    kinds = set()
    for line in filter(None, lines):
        if not re.match(r"[ \t]|-", line):
            break
        entry = _LINE_ENTRY.fullmatch(line)
        if not entry:
            raise ValueError(repr(line[:80]))
        kinds.add((entry[1], entry[2] is None))
        entries.append((int(entry[2]) if entry[2] else None, _unquoted(entry[3])))
    if len(kinds) > 1:
        raise ValueError("lines of different kinds, or indented differently")
    return entries


def _unquoted(word: str) -> str:
    if word[0] == "'":
        return word[1:-1].replace("''", "'")
    return str(json.loads(word)) if word[0] == '"' else word.strip()
