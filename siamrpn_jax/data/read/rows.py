"""Annotations as text files with a row for each frame of a video.

A row that cannot be read loses its frame alone: its number says which one that is.
Preparation counts such rejections and goes on, evaluation refuses the file.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read import formats
from siamrpn_jax.data.read.formats import parse_numbers

FROM_ONE = np.array([1.0, 1.0, 0.0, 0.0])
"""From boxes that count pixels from 0 to those that count from 1."""


class Rejection(NamedTuple):
    """Something that cannot be used; it is written to ``rejected.json``."""

    file: str
    """The file at fault: an image or an annotation."""

    frame: int | None
    """The source frame number, where there is one."""

    reason: str
    """What is wrong, with the value and what was expected."""

    records: int = 1
    """How many records are lost by it."""


class Rows(NamedTuple):
    """What a text file says of the frames of one video, a row for each."""

    path: Path
    """The text file."""

    first: int
    """Number of the frame that the first row belongs to."""

    values: np.ndarray
    """``float64 [T, C]``; NaN in rows that cannot be read."""

    good: np.ndarray
    """``bool [T]``: the row could be read, even if what it says is NaN."""

    rejections: tuple[Rejection, ...]
    """One for each row that is not good."""


def read_rows(path: Path, *, columns: int, expected: str, first: int = 1) -> Rows:
    """Reads a row of numbers for each frame, separated by comma, tab or space.

    Args:
        path: the text file.
        columns: how many numbers are in a row.
        expected: what messages say of a row, for example ``x,y,w,h``.
        first: number of the frame that the first row belongs to.

    Returns:
        One row a line. Of a file that cannot be read or is empty: no rows and one
        rejection.
    """
    lines, problem = read_lines(path)
    if not lines:
        problem = problem or f"is empty, expected {expected} in each line"
        rejection = Rejection(str(path), None, problem)
        return Rows(
            path, first, np.empty((0, columns)), np.empty(0, bool), (rejection,)
        )
    if not parse_numbers(lines[0]) and all(map(parse_numbers, lines[1:])):
        problem = f"line 1 is {lines[0][:80]!r}, expected {expected} as in all others"
        lost = Rejection(str(path), None, problem, len(lines))
        return Rows(path, first, np.empty((0, columns)), np.empty(0, bool), (lost,))
    values = np.full((len(lines), columns), np.nan)
    good = np.zeros(len(lines), bool)
    rejections = []
    for i, line in enumerate(lines):
        row = parse_numbers(line)
        if len(row) == columns:
            values[i], good[i] = row, True
        else:
            reason = f"line {i + 1} is {line[:80]!r}, expected {expected}"
            rejections.append(Rejection(str(path), first + i, reason))
    return Rows(path, first, values, good, tuple(rejections))


def read_labels(path: Path, rows: Rows, *, most: int) -> tuple[np.ndarray, Rows]:
    """Reads a whole number from 0 to ``most`` for each row, in one line or in many.

    Args:
        path: the text file.
        rows: the rows that it belongs to.
        most: the largest label.

    Returns:
        Labels ``int64 [T]``, 0 where there is none, and the rows, of which those
        without a label are good no longer. In a file with another number of labels
        none surely belongs to its row, so all are lost, as if it were not there.
    """
    count = len(rows.good)
    labels = np.zeros(count, np.int64)
    if not rows.good.any():
        return labels, rows
    lines, problem = read_lines(path)
    fields = " ".join(lines).replace(",", " ").split()
    if not problem and len(fields) != count:
        problem = f"{len(fields)} labels for {count} rows of {rows.path.name}"
    if problem:
        lost = Rejection(str(path), None, problem, int(rows.good.sum()))
        good, rejections = np.zeros(count, bool), [lost]
    else:
        good, rejections = rows.good.copy(), []
        for i, field in enumerate(fields):
            if field.isdecimal() and int(field) <= most:
                labels[i] = int(field)
            elif good[i]:
                reason = f"label {field[:80]!r}, expected a whole number, 0 to {most}"
                rejections.append(Rejection(str(path), rows.first + i, reason))
                good[i] = False
    return labels, rows._replace(good=good, rejections=(*rows.rejections, *rejections))


class Annotation(NamedTuple):
    """The target of one video, as its benchmark annotates it."""

    rows: Rows
    """``x,y,w,h`` as the file has them; not good where any of its labels is not."""

    boxes: np.ndarray
    """``float64 [T, 4]``, ``ltwh`` in pixels from 0."""

    visibility: np.ndarray
    """``float32 [T]``, the visible share of the target; 0 where it is absent."""


def read_lasot(folder: Path) -> Annotation:
    """Reads a video of LaSOT (Fan et al., CVPR 2019).

    A box ``x,y,w,h`` a frame in ``groundtruth.txt``, counted from 1, and 0 or 1 for
    each frame in ``full_occlusion.txt`` and ``out_of_view.txt``; with either the target
    is absent.
    """
    rows = read_rows(folder / "groundtruth.txt", columns=4, expected="x,y,w,h")
    occluded, rows = read_labels(folder / "full_occlusion.txt", rows, most=1)
    outside, rows = read_labels(folder / "out_of_view.txt", rows, most=1)
    visibility = np.where(occluded | outside, 0, 1).astype(np.float32)
    return Annotation(rows, rows.values - FROM_ONE, visibility)


def read_got10k(
    folder: Path, *, absence: bool = True, cover: bool = True
) -> Annotation:
    """Reads a video of GOT-10k (Huang et al., TPAMI 2019).

    A box ``x,y,w,h`` a frame in ``groundtruth.txt``, counted from 1, and one label a
    frame in

    - ``absence.label``: 1 where the target is absent.
    - ``cover.label``: 0 to 8, how much is visible: nothing, up to 15 %, 30 %, 45 %,
      60 %, 75 %, 90 %, nearly all, all. An eighth of it is the visibility here, as is
      usual.

    Args:
        folder: of the video.
        absence: whether ``absence.label`` is read.
        cover: whether ``cover.label`` is.
    """
    rows = read_rows(folder / "groundtruth.txt", columns=4, expected="x,y,w,h")
    visibility = np.ones(len(rows.good), np.float32)
    if absence:
        absent, rows = read_labels(folder / "absence.label", rows, most=1)
        visibility[absent == 1] = 0
    if cover:
        visible, rows = read_labels(folder / "cover.label", rows, most=8)
        visibility = np.minimum(visibility, visible.astype(np.float32) / 8)
    return Annotation(rows, rows.values - FROM_ONE, visibility)


def read_lines(path: Path) -> tuple[list[str], str]:
    """The lines of a text file, and what is wrong with it: nothing, as a rule.

    Blank lines at its end are left out.
    """
    try:
        return formats.read_lines(path), ""
    except InputError as error:
        return [], str(error).removeprefix(f"{path}: ")
