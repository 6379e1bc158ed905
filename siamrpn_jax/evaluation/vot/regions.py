"""Regions of VOT: their text, and how much two of them overlap.

A region is a float64 row as in VOT's files: ``[4]`` a box ``ltwh``, ``[2n]`` with n of
3 or more the corners ``x0, y0, x1, y1, …`` of a polygon (n = 4: a rotated box), ``[1]``
a code that stands where there is no region: ``UNKNOWN``, ``STARTED`` or ``FAILED``.

VOT draws regions on the pixels and counts these, and how it draws them moves an
accuracy in the third decimal. Two conventions:

- ``pysot``: the legacy toolkit's drawing of polygons as PySOT uses it; behind nearly
  all published figures of Siamese trackers. Both edges of a box are drawn, so that one
  of width w covers w + 1 pixels. Halves are rounded away from zero, and a polygon's
  tip, a row with a single node, is left out.
- ``official``: that of VOT's Python toolkit. A box of width w covers w pixels, halves
  are rounded to even numbers, and a tip is one pixel.

Both compute in single precision, as these programs do.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.formats import parse_numbers

UNKNOWN, STARTED, FAILED = 0, 1, 2
"""Codes of frames without a region: no output, (re)start, failure."""

Overlap = Literal["pysot", "official"]
"""How regions are drawn."""

ROWS_AT_ONCE = 1 << 16
"""Image rows drawn together: bounds the memory, and stays within the cache."""


def parse_region(text: str, *, where: str) -> np.ndarray:
    """Reads a line of a result or ground truth file: float64 ``[1]``, [4] or ``[2n]``.

    Args:
        text: numbers with commas, tabs or spaces between.
        where: file and line, for the error.

    Raises:
        InputError: it is neither a code nor the finite numbers of a box or a polygon.
    """
    row = np.array(parse_numbers(text))
    is_code = row.size == 1 and row[0] in (UNKNOWN, STARTED, FAILED)
    if not (is_code or _is_shape(row)) or not np.isfinite(row).all():
        raise InputError(
            f"{where}: {text.strip()[:80]!r}, expected a code 0, 1 or 2, or the finite "
            "numbers of a box (x,y,w,h) or of a polygon (x,y of 3 or more corners)"
        )
    return row


def format_region(region: np.ndarray) -> str:
    """Text of a region, with 4 decimals; of a code, a whole number."""
    if len(region) == 1:
        return f"{region[0]:.0f}"
    return ",".join(f"{value:.4f}" for value in region)


def area(region: np.ndarray) -> float:
    """Area of a box or of a polygon that does not cross itself, in square pixels."""
    if len(region) == 4:
        return float(max(region[2], 0) * max(region[3], 0))
    x, y = np.reshape(region, (-1, 2)).T
    x, y = x - x.mean(), y - y.mean()
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def overlap(
    a: np.ndarray,
    b: np.ndarray,
    size: tuple[int, int] | None,
    *,
    convention: Overlap = "pysot",
) -> float:
    """Overlap of two regions, see ``overlaps``."""
    return float(overlaps([a], [b], size, convention=convention)[0])


def overlaps(
    predicted: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    size: tuple[int, int] | None,
    *,
    convention: Overlap = "pysot",
) -> np.ndarray:
    """Intersection over union of the pixels of each pair of regions.

    Args:
        predicted: T regions or codes.
        truth: T regions or codes.
        size: width and height of the image, to which regions are clipped; None: they
            are not. ``pysot`` draws one column and one row more than that, unless it is
            given the size less one, as PySOT does for EAO.
        convention: how regions are drawn.

    Returns:
        ``float64 [T]`` in 0..1; NaN where one of the two is a code.

    Raises:
        InputError: the numbers of rows differ, or a row is no region.
    """
    if convention not in ("pysot", "official"):
        raise InputError(f"overlap {convention!r}: expected 'pysot' or 'official'")
    if len(predicted) != len(truth):
        raise InputError(
            f"{len(predicted)} predicted and {len(truth)} true regions: expected as "
            "many of both"
        )
    pairs = zip(predicted, truth, strict=True)
    both = np.array([len(a) > 1 and len(b) > 1 for a, b in pairs], bool)
    result = np.full(len(both), np.nan)
    chosen = np.flatnonzero(both)
    if chosen.size:
        measure = _pysot_overlaps if convention == "pysot" else _official_overlaps
        first, second = (
            [side[i] for i in chosen.tolist()] for side in (predicted, truth)
        )
        result[chosen] = measure(first, second, size)
    return result


def _pysot_overlaps(
    first: list[np.ndarray], second: list[np.ndarray], size: tuple[int, int] | None
) -> np.ndarray:
    """As ``compute_polygon_overlap`` of the legacy toolkit, in single precision."""
    a, b = (_edges(rows, far=0.0).astype(np.float32) for rows in (first, second))
    frames = [
        _clip(np.floor(low), np.ceil(high), size) for low, high in map(_box, (a, b))
    ]
    (low_a, high_a), (low_b, high_b) = frames
    origin = np.minimum(low_a, low_b)
    extent = np.maximum(high_a, high_b) - origin + 1
    with np.errstate(all="ignore"):  # degenerate boxes give 0/0, which compares false
        area_a = (high_a - low_a).prod(axis=1)
        area_b = (high_b - low_b).prod(axis=1)
        apart = (area_a / area_b < 1e-10) | (area_b / area_a < 1e-10)
        shared = (np.minimum(high_a, high_b) - np.maximum(low_a, low_b)).prod(axis=1)
        apart |= shared / (area_a + area_b - shared) <= 0
    apart |= (extent < 1).any(axis=1)
    near = np.flatnonzero(~apart)
    shift = np.tile(origin[near], 2)[:, None].astype(np.float32)
    a, b = (_round_away(edges[near] - shift) for edges in (a, b))
    result = np.zeros(len(apart))
    result[near] = _count_pixels(a, b, extent[near], lone_node=False)
    return result


def _official_overlaps(
    first: list[np.ndarray], second: list[np.ndarray], size: tuple[int, int] | None
) -> np.ndarray:
    """As ``calculate_overlaps`` of the Python toolkit."""
    first, second = _round_even(first), _round_even(second)
    a, b = (_edges(rows, far=1.0) for rows in (first, second))
    (low_a, high_a), (low_b, high_b) = _box(a), _box(b)
    low, high = np.minimum(low_a, low_b), np.maximum(high_a, high_b)
    # The toolkit takes two regions within one pixel row or column to be equal.
    equal = (low >= high).any(axis=1)
    if size is not None:
        low, high = np.maximum(low, 0), np.minimum(high, np.array(size) - 1.0)
    inside = np.flatnonzero(~equal & (low < high).all(axis=1))
    for rows, edges in ((first, a), (second, b)):
        empty = [len(row) == 4 and row[2:].min() < 1 for row in rows]
        edges[np.array(empty)] = np.nan  # crosses no row: nothing is drawn
    origin = np.tile(low[inside], 2)[:, None]
    extent = high[inside] - low[inside] + 1
    result = np.where(equal, 1.0, 0.0)
    result[inside] = _count_pixels(
        a[inside] - origin, b[inside] - origin, extent, lone_node=True
    )
    return result


def _count_pixels(
    a: np.ndarray, b: np.ndarray, extent: np.ndarray, *, lone_node: bool
) -> np.ndarray:
    """Draws pairs of polygons, row by row, and counts.

    Args:
        a: float ``[N, E, 4]``: edges of the first polygons, ends on whole pixels.
        b: the same of the second ones.
        extent: ``[N, 2]``: width and height of the canvas, which begins at 0.
        lone_node: see ``_spans``.

    Returns:
        ``[N]``: intersection over union; 0 where nothing is drawn.
    """
    heights = extent[:, 1].astype(int)
    ends = heights.cumsum()
    shared, total = np.zeros(len(a)), np.zeros(len(a))
    start = 0
    while start < len(a):
        done = ends[start] - heights[start]
        stop = int(np.searchsorted(ends, done + ROWS_AT_ONCE, side="right"))
        stop = max(stop, start + 1)
        pair = np.repeat(np.arange(start, stop), heights[start:stop])
        y = np.arange(len(pair)) - (ends[pair] - heights[pair] - done)
        width = extent[pair, 0]
        of_a = _spans(a[pair], y, width, lone_node=lone_node)
        of_b = _spans(b[pair], y, width, lone_node=lone_node)
        common = sum(_length(s, t) for s in of_a for t in of_b)
        every = sum(_length(s, s) for s in (*of_a, *of_b)) - common
        shared += np.bincount(pair, common, minlength=len(a))
        total += np.bincount(pair, every, minlength=len(a))
        start = stop
    return shared / np.maximum(total, 1)


def _spans(
    edges: np.ndarray, y: np.ndarray, width: np.ndarray, *, lone_node: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pixels of polygons in one row each.

    Nodes, where edges meet the row, are sorted and paired; the first of two equal ones
    (a corner, where two edges meet) is passed over.

    Args:
        edges: ``[R, E, 4]``: x, y of a corner and of the one before it; NaN where a
            polygon has fewer.
        y: ``[R]``: the row.
        width: ``[R]``: width of the canvas.
        lone_node: whether edges within the row have a node, too, and two equal nodes at
            the row's end are a pixel.

    Returns:
        First and last pixel of runs, each ``[R]``; empty where first > last. The runs
        of a row do not overlap.
    """
    y = y[:, None]
    x0, y0, x1, y1 = np.moveaxis(edges, 2, 0)
    rise = y1 - y0
    crosses = (np.minimum(y0, y1) <= y) & (y <= np.maximum(y0, y1))
    with np.errstate(divide="ignore", invalid="ignore"):
        node = np.trunc(x0 + (y - y0) / rise * (x1 - x0))
    if lone_node:
        node = np.where(rise == 0, x0, node)
    else:
        crosses &= rise != 0
    nodes = np.sort(np.where(crosses, node, np.inf), axis=1)
    count = crosses.sum(axis=1)
    runs, free = [], np.full(len(edges), True)
    last = np.full(len(edges), -1.0)
    for k in range(edges.shape[1] - 1):
        passed_over = nodes[:, k] == nodes[:, k + 1]
        if lone_node:
            passed_over &= k < count - 2
        drawn = free & (k < count - 1) & ~passed_over
        first = np.maximum(nodes[:, k], last + 1)
        end = np.minimum(nodes[:, k + 1], width - 1)
        end = np.where(drawn, end, -np.inf)
        runs.append((first, end))
        last = np.maximum(last, end)
        free = ~drawn
    return runs


def _length(
    a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Number of pixels that two runs share."""
    first, last = np.maximum(a[0], b[0]), np.minimum(a[1], b[1])
    return np.where(first <= last, last - first + 1, 0)


def _edges(rows: Sequence[np.ndarray], *, far: float) -> np.ndarray:
    """Corners, each beside the one before it.

    Args:
        rows: N boxes and polygons.
        far: what the far edges of a box are drawn short of x + w and y + h.

    Returns:
        float64 ``[N, E, 4]``: x, y, and x, y of the corner before; NaN where a region
        has fewer than E corners.
    """
    sizes = np.array([len(row) for row in rows])
    corners = np.where(sizes == 4, 4, sizes // 2)
    edges = np.full((len(rows), corners.max(), 4), np.nan)
    for size in np.unique(sizes):
        chosen = np.flatnonzero(sizes == size)
        values = np.array([rows[i] for i in chosen.tolist()], np.float64)
        bad = ~np.isfinite(values).all(axis=1)
        if not _is_shape(values[0]) or bad.any():
            row = values[np.argmax(bad)].tolist()
            raise InputError(f"{row} is no region: expected a finite box or polygon")
        if size == 4:
            x, y, w, h = values.T
            right, bottom = x + w - far, y + h - far
            values = np.stack([x, y, right, y, right, bottom, x, bottom], axis=1)
        points = values.reshape(len(chosen), -1, 2)
        pairs = np.concatenate([points, np.roll(points, 1, axis=1)], axis=2)
        edges[chosen, : points.shape[1]] = pairs
    return edges


def _box(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest x, y of polygons: float64 ``[N, 2]`` each."""
    points = edges[..., :2].astype(np.float64)
    return np.nanmin(points, axis=1), np.nanmax(points, axis=1)


def _clip(
    low: np.ndarray, high: np.ndarray, size: tuple[int, int] | None
) -> tuple[np.ndarray, np.ndarray]:
    if size is None:
        return low, high
    return np.maximum(low, 0), np.minimum(high, np.array(size, np.float64))


def _round_away(values: np.ndarray) -> np.ndarray:
    """Rounds as C does, halves away from zero: float64."""
    values = values.astype(np.float64)
    return np.copysign(np.floor(np.abs(values) + 0.5), values)


def _round_even(rows: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Rounds single-precision numbers, halves to even."""
    return [np.asarray(row, np.float32).round() for row in rows]


def _is_shape(row: np.ndarray) -> bool:
    return row.size == 4 or (row.size >= 6 and row.size % 2 == 0)
