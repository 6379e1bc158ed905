import numpy as np
import pytest

from raw_folders import write_lines
from siamrpn_jax.data.read.rows import Rejection, read_labels, read_rows


def read(path, **options):
    return read_rows(path, columns=4, expected="x,y,w,h", **options)


@pytest.mark.parametrize("line", ["1,2,3,4.5", " 1.00, 2.00,3,4.5", "1\t2\t3\t4.5"])
def test_rows_of_any_separator(tmp_path, line):
    write_lines(tmp_path / "a.txt", line, "nan,nan,nan,nan", "", "")
    rows = read(tmp_path / "a.txt")
    assert rows.values[0].tolist() == [1, 2, 3, 4.5]
    assert np.isnan(rows.values[1]).all()
    assert rows.good.tolist() == [True, True] and not rows.rejections


def test_a_bad_row_loses_its_frame_alone(tmp_path):
    text = tmp_path / "a.txt"
    write_lines(text, "1,2,3,4", "1,2,x,4", "", "1,2,3", "5,6,7,8")
    rows = read(text, first=0)
    assert rows.good.tolist() == [True, False, False, False, True]
    assert np.isnan(rows.values[1:4]).all()
    assert [one[:2] for one in rows.rejections] == [(str(text), n) for n in (1, 2, 3)]
    assert rows.rejections[0].reason == "line 2 is '1,2,x,4', expected x,y,w,h"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"\xff\xfe\x00", "cannot be read (is no text)"),
        (b"\n\n", "is empty, expected x,y,w,h in each line"),
    ],
)
def test_a_file_without_rows(tmp_path, content, reason):
    text = tmp_path / "a.txt"
    if content is not None:
        text.write_bytes(content)
    rows = read(text)
    assert rows.values.shape == (0, 4)
    assert rows.rejections == (Rejection(str(text), None, reason),)


@pytest.mark.parametrize("content", ["0\n1\n8\n", "0,1,8", "0, 1, 8\n"])
def test_labels_in_one_line_or_many(tmp_path, content):
    write_lines(tmp_path / "a.txt", *["1,2,3,4"] * 3)
    (tmp_path / "a.label").write_text(content)
    rows = read(tmp_path / "a.txt")
    labels, same = read_labels(tmp_path / "a.label", rows, most=8)
    assert labels.tolist() == [0, 1, 8]
    assert same.good.all() and not same.rejections


def test_bad_labels_are_counted_once(tmp_path):
    write_lines(tmp_path / "a.txt", "1,2,3,4", "x", *["1,2,3,4"] * 3)
    write_lines(tmp_path / "a.label", "0", "y", "2", "-1", "1")
    rows = read(tmp_path / "a.txt")
    _, rows = read_labels(tmp_path / "a.label", rows, most=1)
    assert rows.good.tolist() == [True, False, False, False, True]
    # The second row was lost before.
    assert [one.frame for one in rows.rejections] == [2, 3, 4]
    assert rows.rejections[1].reason == "label '2', expected a whole number, 0 to 1"
    _, rows = read_labels(tmp_path / "missing.label", rows, most=1)
    assert not rows.good.any()
    assert rows.rejections[-1].records == 2
    again, same = read_labels(tmp_path / "also-missing.label", rows, most=1)
    assert same is rows and not again.any()


def test_labels_of_another_length_belong_to_no_row(tmp_path):
    write_lines(tmp_path / "a.txt", *["1,2,3,4"] * 3)
    write_lines(tmp_path / "a.label", "0,0")
    _, rows = read_labels(tmp_path / "a.label", read(tmp_path / "a.txt"), most=1)
    (rejection,) = rows.rejections
    assert rejection.reason == "2 labels for 3 rows of a.txt"
    assert rejection.records == 3 and not rows.good.any()
