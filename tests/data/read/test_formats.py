import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.formats import (
    looks_like_corners,
    no_target,
    parse_numbers,
    read_lines,
)

numbers = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9)


@given(
    numbers,
    st.sampled_from([",", " ", "\t", ", ", " \t ", ";", "; ", ",\t"]),
    st.booleans(),
)
def test_numbers_come_back_whatever_separates_them(values, separator, ends):
    line = separator.join(map(repr, values)) + separator * ends
    assert parse_numbers(line) == values


@given(numbers, st.sampled_from([";", "\t"]))
def test_decimal_commas_come_back_where_no_comma_separates(values, separator):
    line = separator.join(repr(value).replace(".", ",") for value in values)
    if "e" not in line and len(values) > 1:
        assert parse_numbers(line) == values


@pytest.mark.parametrize(
    "line",
    [
        "",
        "1,,2",
        "1;2;x",
        "1,2,x",
        "a",
        "1.2.3",
        "10,20 30,40",
        "1,5;2.5",
        "1_0,2",
        "１,２",
    ],
)
def test_lines_of_something_else_hold_no_numbers(line):
    assert parse_numbers(line) == []


def test_missing_numbers_are_numbers():
    assert np.isnan(parse_numbers("nan,NaN")).all()


@pytest.mark.parametrize(
    ("box", "absent"),
    [
        ([1, 2, 3, 4], False),
        ([-5, -5, 0.5, 0.5], False),
        ([0, 0, 0, 0], True),
        ([1, 1, -1, -1], True),
        ([-1, -1, -1, -1], True),
        ([5, 5, 9, 0], True),
        ([5, np.nan, 9, 9], True),
        ([5, 5, np.inf, 9], True),
    ],
)
def test_a_box_without_area_is_no_target(box, absent):
    assert no_target(np.array(box, float)) == absent
    assert no_target(np.array([box] * 3, float)).tolist() == [absent] * 3


def test_lines_are_text(tmp_path):
    path = tmp_path / "a.txt"
    for data in (b"a\r\nb\n\n", b"\xef\xbb\xbfa\nb", "a\nb".encode("utf-16")):
        path.write_bytes(data)
        assert read_lines(path) == ["a", "b"]
    for data in (b"\xff\xff", b"a\0b"):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"a\.txt: cannot be read \(is no text\)"):
            read_lines(path)
    with pytest.raises(InputError, match="none: cannot be read"):
        read_lines(tmp_path / "none")


def test_corners_and_sizes():
    steps = np.arange(8)[:, None]
    moving = np.array([10, 8, 20, 12]) + steps * [3, 2, 0, 0]
    corners = moving + np.pad(moving[:, :2], ((0, 0), (2, 0)))
    assert not looks_like_corners(moving, (320, 240))
    assert looks_like_corners(corners, (320, 240))
    assert looks_like_corners(corners, None)
    # A box that stands still tells by leaving the frame alone.
    still = np.tile([100, 80, 260, 200], (8, 1))
    assert looks_like_corners(still, (320, 240))
    assert not looks_like_corners(still, (640, 480))
    assert not looks_like_corners(still, (250, 480))  # nor do they fit as corners
    assert not looks_like_corners(np.full((3, 4), np.nan), (320, 240))
