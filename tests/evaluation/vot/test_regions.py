import math
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.evaluation.vot import regions

SIZE = (40, 30)


def slow_overlap(a, b, size, convention):
    """Overlap with a set of pixels for each region, one pixel at a time."""
    draw = slow_pysot if convention == "pysot" else slow_official
    return draw(a, b, size)


def slow_pysot(a, b, size):
    a, b = (np.asarray(corners(row, far=0), np.float32) for row in (a, b))
    limits = [-math.inf, -math.inf, *((math.inf, math.inf) if size is None else size)]
    if size is not None:
        limits[:2] = [0, 0]
    frames = []
    for points in (a, b):
        x, y = points.T
        frames.append(
            (
                max(math.floor(x.min()), limits[0]),
                max(math.floor(y.min()), limits[1]),
                min(math.ceil(x.max()), limits[2]),
                min(math.ceil(y.max()), limits[3]),
            )
        )
    (la, ta, ra, ba), (lb, tb, rb, bb) = frames
    area_a, area_b = (ra - la) * (ba - ta), (rb - lb) * (bb - tb)
    shared = (min(ra, rb) - max(la, lb)) * (min(ba, bb) - max(ta, tb))
    if area_a or area_b or shared:  # else it is 0/0 there, and drawn
        with np.errstate(divide="ignore"):  # in C that is infinite, and drawn
            between = np.divide(shared, area_a + area_b - shared)
        if area_a * area_b <= 0 or between <= 0:
            return 0.0
    origin = np.asarray([min(la, lb), min(ta, tb)], np.float32)
    width = int(max(ra, rb) - origin[0]) + 1
    height = int(max(ba, bb) - origin[1]) + 1
    drawn = []
    for points in (a, b):
        rounded = [[c_round(x), c_round(y)] for x, y in points - origin]
        drawn.append(pixels(rounded, width, height, lone=False))
    return ratio(*drawn)


def slow_official(a, b, size):
    a, b = (np.asarray(row, np.float32).round() for row in (a, b))
    points = [corners(row, far=1) for row in (a, b)]
    x, y = np.concatenate(points).T
    left, top, right, bottom = x.min(), y.min(), x.max(), y.max()
    if left >= right or top >= bottom:
        return 1.0
    left, top = max(left, 0), max(top, 0)
    right, bottom = min(right, size[0] - 1), min(bottom, size[1] - 1)
    if left >= right or top >= bottom:
        return 0.0
    width, height = int(right - left) + 1, int(bottom - top) + 1
    drawn = []
    for row, own in zip((a, b), points, strict=True):
        if len(row) == 4:
            drawn.append(
                {
                    (i, j)
                    for i in range(width)
                    for j in range(height)
                    if row[0] <= left + i < row[0] + row[2]
                    and row[1] <= top + j < row[1] + row[3]
                }
            )
        else:
            moved = [[float(px - left), float(py - top)] for px, py in own]
            drawn.append(pixels(moved, width, height, lone=True))
    return ratio(*drawn)


def corners(row, *, far):
    if len(row) != 4:
        return np.reshape(row, (-1, 2))
    x, y, w, h = (float(v) for v in row)
    right, bottom = x + w - far, y + h - far
    return np.array([[x, y], [right, y], [right, bottom], [x, bottom]])


def c_round(value):
    return math.copysign(math.floor(abs(float(value)) + 0.5), value)


def pixels(points, width, height, *, lone):
    """Pixels of a polygon with whole corners, row by row."""
    found = set()
    for y in range(height):
        nodes = []
        for (xa, ya), (xb, yb) in zip(points, points[-1:] + points[:-1], strict=True):
            if ya == yb == y and lone:
                nodes.append(int(xa))
            elif ya != yb and min(ya, yb) <= y <= max(ya, yb):
                nodes.append(int(xa + (y - ya) / (yb - ya) * (xb - xa)))
        nodes.sort()
        k = 0
        while k + 1 < len(nodes):
            if nodes[k] == nodes[k + 1] and not (lone and k + 2 == len(nodes)):
                k += 1
                continue
            found |= {(x, y) for x in range(nodes[k], nodes[k + 1] + 1)}
            k += 2
    return {(x, y) for x, y in found if 0 <= x < width}


def ratio(a, b):
    return len(a & b) / max(len(a | b), 1)


half = st.integers(-20, 90).map(lambda value: value / 2)
place = st.one_of(half, st.floats(-10, 45, width=32))
extent = st.one_of(st.integers(0, 50).map(lambda value: value / 2), st.floats(0, 25))
boxes = st.tuples(place, place, extent, extent).map(np.array)
polygons = st.integers(3, 7).flatmap(
    lambda n: st.lists(place, min_size=2 * n, max_size=2 * n).map(np.array)
)


@st.composite
def rotated(draw):
    """Corners of a box with sides of 1 to 25 pixels at any angle."""
    w, h, angle = draw(st.floats(1, 25)), draw(st.floats(1, 25)), draw(st.floats(0, 7))
    turn = np.array(
        [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    )
    middle = np.array([draw(place), draw(place)])
    offsets = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2
    return (offsets @ turn + middle).ravel()


shapes = st.one_of(boxes, rotated(), polygons)
conventions = st.sampled_from(["pysot", "official"])


@settings(max_examples=300)
@given(shapes, shapes, conventions)
def test_against_single_pixels(a, b, convention):
    found = regions.overlap(a, b, SIZE, convention=convention)
    assert found == pytest.approx(slow_overlap(a, b, SIZE, convention), abs=1e-6)


@given(shapes, shapes)
@example((-3.5, -3.5, 19.0, 2.0), (41.0, 11.0, 19.5, 12.0))  # union of the frames is 0
def test_without_bounds(a, b):
    found = regions.overlap(a, b, None, convention="pysot")
    assert found == pytest.approx(slow_pysot(a, b, None), abs=1e-6)


@pytest.mark.parametrize(("convention", "expected"), [("pysot", 66), ("official", 50)])
def test_boxes_by_hand(convention, expected):
    """Ten pixels wide, the second five to the right: 11 or 10 columns are drawn."""
    a, b = np.array([3.0, 3, 10, 10]), np.array([8.0, 3, 10, 10])
    side = 11 if convention == "pysot" else 10
    found = regions.overlap(a, b, SIZE, convention=convention)
    assert found == pytest.approx(expected / (2 * side**2 - expected))


@pytest.mark.parametrize(("convention", "row"), [("pysot", 11), ("official", 10)])
def test_image_edge_by_hand(convention, row):
    """Columns 35 to 40 or to 39 remain of the first, of the second 30 to 35 or 34."""
    a, b = np.array([35.0, 3, 10, 10]), np.array([30.0, 3, 10, 10])
    shared, every = (6, 11) if convention == "pysot" else (5, 10)
    found = regions.overlap(a, b, SIZE, convention=convention)
    assert found == pytest.approx(row * shared / (row * every))
    outside = np.array([41.0, 3, 10, 10])
    assert regions.overlap(outside, b, SIZE, convention=convention) == 0


def test_tip_of_a_triangle_by_hand():
    """Rows of 1, 3, 5 pixels below (5, 2): the tip is left out, or one pixel."""
    triangle = np.array([5.0, 2, 7, 4, 3, 4])
    whole = np.array([0.0, 0, 20, 20])
    pysot = regions.overlap(triangle, whole, SIZE)
    assert pysot == pytest.approx((3 + 5) / 21**2)
    official = regions.overlap(triangle, whole, SIZE, convention="official")
    assert official == pytest.approx((1 + 3 + 5) / 20**2)


def test_halves_are_rounded_away_or_to_even():
    """The box from 2.5 begins at pixel 3 or at 2; the origin there is 2."""
    a, b = np.array([2.5, 2, 4, 4]), np.array([2.0, 2, 4, 4])
    assert regions.overlap(a, b, SIZE) == pytest.approx(20 / 30)
    assert regions.overlap(a, b, SIZE, convention="official") == 1


@given(shapes, shapes, conventions)
def test_symmetric_and_between_0_and_1(a, b, convention):
    found = regions.overlap(a, b, SIZE, convention=convention)
    assert 0 <= found <= 1
    assert regions.overlap(b, a, SIZE, convention=convention) == found


@given(st.one_of(boxes, rotated()), conventions)
def test_equal_regions(a, convention):
    found = regions.overlap(a, a, SIZE, convention=convention)
    x, y = corners(a, far=1).T
    inside = min(x.min(), y.min()) > 1 and x.max() < 38 and y.max() < 28
    big = np.ptp(x) > 2 and np.ptp(y) > 2
    assert found == 1 if inside and big else found in (0, 1)


@given(shapes, shapes, st.tuples(st.integers(0, 200), st.integers(0, 200)), conventions)
def test_moved_by_whole_pixels(a, b, move, convention):
    """By even ones, as halves are rounded to even ones; nothing is clipped."""

    def moved(row, by):
        by = 2.0 * np.array(by) + 100
        row = np.round(row, 2)  # what single precision keeps after the move
        if len(row) == 4:
            return np.concatenate([row[:2] + by, row[2:]])
        return (row.reshape(-1, 2) + by).ravel()

    def measure(by):
        return regions.overlap(
            moved(a, by), moved(b, by), (1000, 1000), convention=convention
        )

    assert measure(move) == pytest.approx(measure((0, 0)))


def area_of_clipped(polygon: np.ndarray, window: np.ndarray) -> float:
    """Area of what two convex polygons share (Sutherland and Hodgman, 1974)."""
    middle = window.mean(0)
    points = list(polygon)
    for start, end in zip(window, np.roll(window, -1, axis=0), strict=True):
        normal = np.array([start[1] - end[1], end[0] - start[0]])
        normal = normal * np.sign(normal @ (middle - start))
        kept, heights = [], [normal @ (point - start) for point in points]
        for i, (point, height) in enumerate(zip(points, heights, strict=True)):
            before, lower = points[i - 1], heights[i - 1]
            if (height < 0) != (lower < 0):
                kept.append(before + (point - before) * lower / (lower - height))
            if height >= 0:
                kept.append(point)
        points = kept
    return regions.area(np.ravel(points)) if len(points) > 2 else 0.0


@given(rotated(), rotated(), conventions)
def test_large_regions_come_near_their_exact_area(a, b, convention):
    """Against clipping one convex polygon by the other, at 20 times the size."""
    a, b = a * 20 + 400, b * 20 + 400
    shared = area_of_clipped(a.reshape(-1, 2), b.reshape(-1, 2))
    exact = shared / (regions.area(a) + regions.area(b) - shared)
    found = regions.overlap(a, b, (4000, 4000), convention=convention)
    assert found == pytest.approx(exact, abs=0.15)


@pytest.mark.parametrize("convention", ["pysot", "official"])
def test_many_at_once_are_one_after_the_other(convention, monkeypatch):
    rng = np.random.default_rng(1)
    rows = [rng.uniform(0, 40, n) for n in (4, 8, 4, 12, 6, 8) * 5]
    truth = rows[::-1]
    rows[3], truth[7] = np.array([1.0]), np.array([0.0])
    monkeypatch.setattr(regions, "ROWS_AT_ONCE", 40)
    found = regions.overlaps(rows, truth, SIZE, convention=convention)
    assert np.isnan(found[[3, 7]]).all()
    pairs = zip(rows, truth, strict=True)
    single = [regions.overlap(a, b, SIZE, convention=convention) for a, b in pairs]
    assert found == pytest.approx(single, nan_ok=True)
    assert np.isnan(found).sum() == 2


def test_no_regions():
    assert regions.overlaps([], [], SIZE).shape == (0,)


def test_bad_rows_are_named():
    good = np.array([1.0, 2, 3, 4])
    with pytest.raises(InputError, match="2 predicted and 1 true"):
        regions.overlaps([good, good], [good], SIZE)
    with pytest.raises(InputError, match=r"\[1.0, nan, 3.0, 4.0\] is no region"):
        regions.overlap(good, np.array([1, np.nan, 3, 4]), SIZE)
    with pytest.raises(InputError, match="is no region"):
        regions.overlap(good, np.ones(5), SIZE)
    with pytest.raises(InputError, match="'exact': expected 'pysot'"):
        regions.overlap(good, good, SIZE, convention="exact")  # type: ignore


numbers = st.floats(-1e4, 1e4)


@given(
    st.one_of(
        st.sampled_from([0.0, 1, 2]).map(lambda code: [code]),
        st.lists(numbers, min_size=4, max_size=4),
        st.integers(3, 9).flatmap(
            lambda n: st.lists(numbers, min_size=2 * n, max_size=2 * n)
        ),
    )
)
def test_text_round_trip_to_a_ten_thousandth(row):
    text = regions.format_region(np.array(row))
    assert regions.parse_region(text, where="") == pytest.approx(row, abs=6e-5)


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("1", [1]),
        ("0\n", [0]),
        ("2.0", [2]),
        ("1,2,3,4", [1, 2, 3, 4]),
        ("1.5\t2 3 \t4 \n", [1.5, 2, 3, 4]),
        ("1,2,3,4,5,6e0", [1, 2, 3, 4, 5, 6]),
    ],
)
def test_text(text, row):
    assert regions.parse_region(text, where="").tolist() == row


@pytest.mark.parametrize(
    "text",
    ["", "3", "-1", "nan", "1,2", "1,2,3", "1,2,3,nan", "1,2,3,inf", "a", "m1,2,3,4"]
    + ["1,2,3,4,5", "1,2,3,4,5,6,7", "1,2 3,4", "1_0,2,3,4"],
)
def test_bad_text_is_named(text):
    with pytest.raises(InputError, match=r"^a\.txt:7: .*expected a code 0, 1"):
        regions.parse_region(text, where="a.txt:7")


@given(st.text(max_size=30))
def test_any_text_is_a_row_or_an_error(text):
    try:
        row = regions.parse_region(text, where="x")
    except InputError:
        return
    assert np.isfinite(row).all()


@given(rotated(), st.floats(-50, 50))
def test_area(corner, move):
    points = corner.reshape(-1, 2)
    sides = np.linalg.norm(points[:2] - points[1:3], axis=1)
    assert regions.area(corner) == pytest.approx(sides.prod())
    assert regions.area(corner + move) == pytest.approx(sides.prod())


def test_area_of_boxes():
    assert regions.area(np.array([1.0, 2, 3, 4])) == 12
    assert regions.area(np.array([1.0, 2, -3, -4])) == 0
    assert regions.area(np.array([1.0, 1, 2, 2, 3, 3])) == pytest.approx(0)


def test_against_the_python_toolkit():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shape = pytest.importorskip("vot.region.shapes", reason="extra vot is missing")
        raster = pytest.importorskip("vot.region.raster")
    rng = np.random.default_rng(2)
    rows = [rng.uniform(-10, 45, rng.choice([4, 6, 8, 10])) for _ in range(4000)]
    for row in rows:
        if len(row) == 4:
            row[2:] = np.abs(row[2:]) + 0.1

    def convert(row):
        if len(row) == 4:
            return shape.Rectangle(*row)
        return shape.Polygon(row.reshape(-1, 2).tolist())

    converted = [convert(row) for row in rows]
    expected = raster.calculate_overlaps(converted[::2], converted[1::2], SIZE)
    found = regions.overlaps(rows[::2], rows[1::2], SIZE, convention="official")
    assert found == pytest.approx(np.array(expected), abs=1e-12)
