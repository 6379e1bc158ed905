"""Annotations as text files with a row for each numbered frame of a video.

A row that cannot be read loses its frame alone: the number says which one that is.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from data_prep.tracks import PreparationError, Rejection, Track
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read import formats
from siamrpn_jax.data.read.formats import no_target, parse_numbers
from siamrpn_jax.data.read.images import is_hidden


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


def numbered_track(
    rows: Rows,
    folder: Path,
    pattern: str,
    *,
    boxes: np.ndarray,
    visibility: np.ndarray,
    **fields: Any,
) -> Iterator[Track | Rejection]:
    """A track of the good rows, after all that is wrong with it.

    Args:
        rows: a row for each frame.
        folder: of the frames.
        pattern: their names, for example ``%08d.jpg``.
        boxes: ``float64 [T, 4]``, of all rows, as in ``Track``.
        visibility: ``float32 [T]``, of all rows; 0 is taken where a box says that there
            is no target.
        **fields: the other fields of ``Track``.

    Yields:
        The rejections of the rows; one if the folder has no frames or frames without a
        row. Frames that a row has but the folder has not are for the writer to find.
    """
    count, found = len(rows.good), len(list_names(folder, Path(pattern).suffix))
    if not count:
        yield from (one._replace(records=max(found, 1)) for one in rows.rejections)
        return
    yield from rows.rejections
    if not rows.good.any():
        return
    if not found:
        lost = int(rows.good.sum())
        yield Rejection(str(folder), None, f"holds no frames {pattern}", lost)
        return
    if found > count:
        reason = f"{count} rows for {found} frames, expected one for each"
        yield Rejection(str(rows.path), None, reason, found - count)
    numbers = rows.first + np.flatnonzero(rows.good)
    yield Track(
        frames=[folder / (pattern % number) for number in numbers],
        boxes=boxes[rows.good],
        numbers=numbers,
        visibility=np.where(no_target(boxes), np.float32(0), visibility)[rows.good],
        **fields,
    )


def read_lines(path: Path) -> tuple[list[str], str]:
    """Lines of a text file, and what is wrong with it: nothing, as a rule.

    Blank lines at its end are left out.
    """
    try:
        return formats.read_lines(path), ""
    except InputError as error:
        return [], str(error).removeprefix(f"{path}: ")


def read_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file.

    Raises:
        PreparationError: what is wrong with it, without its name.
    """
    try:
        return ElementTree.fromstring(path.read_bytes())
    except OSError as error:
        raise PreparationError(f"cannot be read ({error.strerror})") from error
    except (ElementTree.ParseError, LookupError, ValueError, RecursionError) as error:
        raise PreparationError(f"is no XML ({error})") from error


def list_names(folder: Path, suffix: str) -> list[str]:
    """Names of the files of a kind in a folder; none where there is no folder.

    Hidden ones are left out: what some systems add to each file they copy.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [name for name in names if name.endswith(suffix) and not is_hidden(name)]
