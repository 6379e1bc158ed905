"""Ground truth as text: rows of numbers, and the rule for frames without a target."""

import logging
import os
import re
from pathlib import Path

import numpy as np

from siamrpn_jax.common.errors import InputError, reason_of

log = logging.getLogger(__name__)

_NUMBER = re.compile(
    r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|nan|inf|infinity)",
    re.ASCII | re.IGNORECASE,
)
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+", re.ASCII)


def read_lines(
    path: str | os.PathLike[str], *, error: type[InputError] = InputError
) -> list[str]:
    """The lines of a text file, without blank ones at its end.

    The text is UTF-8, or UTF-16 where the file begins with its mark, as spreadsheets
    write it. Lines end as on any system.

    Args:
        path: the file.
        error: what is raised.

    Raises:
        InputError: as ``error``, naming the file that cannot be read or is no text.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as problem:  # ValueError: a NUL in the name
        raise error(f"{path}: cannot be read ({reason_of(problem)})") from problem
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as problem:
        raise error(f"{path}: cannot be read (is no text)") from problem
    if "\0" in text:
        raise error(f"{path}: cannot be read (is no text)")
    return re.split(r"\r\n|\n|\r", text.rstrip()) if text.strip() else []


def separator_of(line: str) -> str | None:
    """What separates the fields of a line: ``;``, tab or ``,``; None: white space.

    The first of them that the line holds: with a semicolon or a tab between the fields,
    commas within them are decimal ones. Where each tab follows a comma, it is padding.
    """
    if ";" in line:
        return ";"
    tabs = re.findall(r".?\t", line.strip())
    if tabs and not all(tab.startswith(",") for tab in tabs):
        numbers = all(map(_NUMBER.fullmatch, line.split()))
        return None if numbers else "\t"  # between numbers any white space will do
    return "," if "," in line else None


def plain_name(name: str) -> str:
    """A sequence's name without what files differ in: case, and ``-`` for ``_``."""
    return name.lower().replace("-", "_")


def parse_number(field: str) -> float:
    """A number as files have it: with a decimal point or, by itself, a decimal comma.

    Raises:
        ValueError: anything else, ``1_000`` and ``１２`` included, which Python takes.
    """
    if _DECIMAL_COMMA.fullmatch(field):
        field = field.replace(",", ".")
    if not _NUMBER.fullmatch(field):
        raise ValueError(f"{field[:80]!r} is no number")
    return float(field)


def parse_numbers(line: str) -> list[float]:
    """The numbers of a row, separated by semicolons, tabs, commas or white space.

    Returns:
        None at all where anything in the row is not a number (``nan`` is one), where
        separators are mixed (``10,20 30,40``) or decimal commas with decimal points.
    """
    line = line.strip()
    separator = separator_of(line)
    if separator is not None:
        line = line.rstrip(separator)  # some files end their lines with one
    fields = [field.strip() for field in line.split(separator)]
    if any("," in field for field in fields) and any("." in field for field in fields):
        return []
    try:
        return [parse_number(field) for field in fields]
    except ValueError:
        return []


def no_target(boxes: np.ndarray) -> np.ndarray:
    """Where boxes say that there is no target in the frame.

    The one rule for evaluation, training and preparation: a box that is not finite, or
    whose width or height is not above 0, as data sets write it (``nan,nan,nan,nan``,
    ``0,0,0,0``, LaSOT's ``1,1,0,0``, ``-1,-1,-1,-1``).

    Args:
        boxes: ``ltwh [..., 4]``.

    Returns:
        bool ``[...]``.
    """
    has_area = (boxes[..., 2:] > 0).all(axis=-1)
    return np.asarray(~(np.isfinite(boxes).all(axis=-1) & has_area))


def fit_as_corners_alone(boxes: np.ndarray, sizes: np.ndarray) -> bool:
    """Whether boxes stay in their frames as ``x1, y1, x2, y2`` alone.

    All of them do, and as ``x, y, w, h`` some leave them by more than rounding.

    Args:
        boxes: ``[N, 4]``, none of them absent.
        sizes: width and height of the frames, ``[N, 2]``, or ``[2]`` of all.
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    limit = sizes * 1.01 + 1
    fit = ((high > low) & (high <= limit)).all()
    return bool(fit and (low + high > limit + 1).any())


def looks_like_corners(boxes: np.ndarray, size: tuple[int, int] | None) -> bool:
    """Whether rows taken as ``x, y, w, h`` are rather ``x1, y1, x2, y2``.

    They are where all of them fit into the frame as corners and one of two things
    speaks against sizes: some box would leave the frame by more than rounding; or, from
    row to row, what would be the sizes change just as the positions do, while the
    differences of the two stay.

    Args:
        boxes: ``[T, 4]`` in the order of time; absent ones are left out.
        size: width and height of the frames, or None where they are not known.
    """
    boxes = boxes[~no_target(boxes)]
    low, high = boxes[:, :2], boxes[:, 2:]
    if not len(boxes) or not (high > low).all():
        return False
    if size is not None:
        if not (high <= np.array(size) * 1.01 + 1).all():
            return False
        if fit_as_corners_alone(boxes, np.array(size)):
            return True
    moved = np.abs(np.diff(high, axis=0)).sum()
    stayed = np.abs(np.diff(high - low, axis=0)).sum()
    return len(boxes) >= 5 and bool(moved > len(boxes) and stayed < 0.5 * moved)


def warn_of_percent(path: Path, boxes: np.ndarray, size: tuple[int, int]) -> None:
    """Warns where boxes may be percent of their frames: nothing proves it.

    Args:
        path: where they are from.
        boxes: ``ltwh [N, 4]``; absent ones are left out.
        size: width and height of the frames.
    """
    boxes = boxes[~no_target(boxes)]
    inside = len(boxes) and (boxes[:, :2] + boxes[:, 2:] <= 100.5).all()
    if inside and min(size) >= 200 and (boxes % 1 != 0).any():
        log.warning(
            "%s: all its boxes lie in the first 100 of %dx%d pixels: if they are "
            "percent of the frames, turn them into pixels",
            *(path, *size),
        )
