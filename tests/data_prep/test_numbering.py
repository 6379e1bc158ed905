from pathlib import Path

import pytest

from data_prep.numbering import find_numbers, first_number
from data_prep.tracks import PreparationError


def numbers(*names):
    return find_numbers([Path("clip") / name for name in names])


@pytest.mark.parametrize(
    "names",
    [
        ["1.jpg", "2.jpg", "10.jpg", "30.jpg"],
        ["cam2_1.jpg", "cam2_2.jpg", "cam2_10.jpg", "cam2_30.jpg"],
        ["1.png", "2.jpg", "10_old.jpg", "30_old.jpg"],
        ["f01 5x.jpg", "f02 5x.jpg", "f10 5x.jpg", "f30 5x.jpg"],
    ],
)
def test_names_that_leave_numbers_out(names):
    assert numbers(*names) == {1: 0, 2: 1, 10: 2, 30: 3}


@pytest.mark.parametrize(
    "names",
    [
        ["f_007.jpg", "f_008.jpg", "f_009.jpg"],
        ["left.jpg", "middle.jpg", "right.jpg"],
        ["2026-01-31_12-00-59.jpg", "2026-01-31_12-01-03.jpg", "2026-02-01_0-0-3.jpg"],
        ["1.25.jpg", "1.5.jpg", "2.0.jpg", "2.25.jpg"],
        ["1403636579763555584.png", "1403636579813555456.png"],
        ["a1_jpg.rf.0fe3.jpg", "a2_jpg.rf.b7c1.jpg", "a3_jpg.rf.77.jpg", "a4_x9y7.jpg"],
        ["cam1_1.jpg", "cam1_2.jpg", "cam2_1.jpg", "cam2_2.jpg"],
        ["1.jpg"],
        [],
    ],
)
def test_names_that_say_no_more_than_their_places(names):
    assert numbers(*names) == {}


def test_numbers_in_another_order_than_the_names():
    assert numbers("a_2.jpg", "a_3.jpg", "b_1.jpg", "b_4.jpg") == {
        1: 2,
        2: 0,
        3: 1,
        4: 3,
    }


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["0.jpg", "0_mask.png", "1.jpg"], "0.jpg and 0_mask.png have one number"),
        (["01.jpg", "1.jpg"], "01.jpg and 1.jpg have one number"),
        (["depth_3.png", "rgb_3.png"], "depth_3.png and rgb_3.png have one number"),
        (["1-2 5.jpg", "1-2 5_m.png", "2-3 4.jpg", "2-3 4_m.png"], "1-2 5_m.png have"),
        (["cover.jpg", "f_1.jpg", "f_2.jpg"], "cover.jpg has no number, expected"),
    ],
)
def test_names_that_are_refused(names, reason):
    with pytest.raises(PreparationError, match=reason):
        numbers(*names)


@pytest.mark.parametrize(
    ("frames", "first"),
    [([], 0), ([3, 8], 3), ([0, 2], 0), ([3, 4], None), ([0, 8], None)],
)
def test_the_number_of_the_first_image(frames, first):
    assert first_number(frames, {3: 0, 4: 1, 8: 2}) == first
    assert first_number(frames, {0: 0, 1: 1, 8: 2}) == 0
