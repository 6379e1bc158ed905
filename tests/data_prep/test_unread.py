import pytest

from data_prep.unread import find_unread

LABELME = '{"shapes": [{"points": [[10, 10.5], [50,50]], "label": "car"}]}'
VOC = "<object><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>5</ymax></object>"


def write(folder, name, text, encoding="utf-8"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding=encoding)
    return folder, [name]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "frame,x,y,w,h\n0,1,2,3,4\n"),
        ("a.TSV", "x\ty\tw\th\n1\t2\t-3.5\t.5\n"),
        ("a.txt", "Car 0.00 0 -1.57 614.24 181.78"),
        ("a.json", LABELME),
        ("a.xml", VOC),
    ],
)
def test_files_that_look_like_labels(tmp_path, name, text):
    found = write(tmp_path, name, text)
    assert find_unread([found], set()) == [tmp_path / name]
    assert not find_unread([found], {tmp_path / name})
    found = write(tmp_path, name, text, encoding="utf-16")
    assert find_unread([found], set()) == [tmp_path / name]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("README.txt", "1 2 3 4"),
        ("licence.txt", "1 2 3 4"),
        ("requirements.txt", "numpy==1.26.4\nscipy>=1.1,<2.0,!=1.5,!=1.6,!=1.7"),
        ("classes.txt", "cat\ndog 2\n"),
        ("train.txt", "images/0001.jpg images/0002.jpg images/0003.jpg ./4/5.jpg"),
        ("notes.txt", "taken 2026-11-30 12:00:05, from 12:01 to 12:07:30, by 2 of us"),
        ("splits.json", '{"train": ["a1", "a2", "a3"], "val": ["b4"]}'),
        ("notes.json", "[1, 2, 3, 4]"),
        ("data.yaml", "names: [1, 2, 3, 4]"),
        ("empty.csv", ""),
        ("a.py", "1, 2, 3, 4"),
    ],
)
def test_files_that_do_not(tmp_path, name, text):
    assert not find_unread([write(tmp_path, name, text)], set())


def test_a_file_that_is_not_there_any_more(tmp_path):
    assert not find_unread([(tmp_path, ["gone.csv"])], set())
