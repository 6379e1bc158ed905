"""From the rows of an annotation to a track, and other small helpers of the parsers."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from data_prep.tracks import PreparationError, Rejection, Track
from siamrpn_jax.data.read.formats import no_target
from siamrpn_jax.data.read.images import is_hidden
from siamrpn_jax.data.read.rows import Rows


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
