import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siamrpn_jax.data.read.formats import no_target, parse_numbers

numbers = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9)


@given(
    numbers, st.sampled_from([",", " ", "\t", ", ", " \t "]), st.sampled_from(["", ","])
)
def test_numbers_come_back_whatever_separates_them(values, separator, end):
    line = separator.join(map(repr, values)) + end
    assert parse_numbers(line) == values


@pytest.mark.parametrize("line", ["", "1,,2", "1;2", "1,2,x", "a", "1.2.3"])
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
