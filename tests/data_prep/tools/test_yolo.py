"""YOLO's labels."""

import numpy as np
import pytest

from data_prep.folder import DATASET
from data_prep.tracks import PreparationError
from raw_folders import read_all, touch_frames, write_lines


@pytest.mark.parametrize("order", ["labels/train", "train/labels"])
def test_yolo(tmp_path, order):
    folder = tmp_path / order
    touch_frames(tmp_path / order.replace("labels", "images"), "%d.jpg", [1, 2])
    write_lines(folder / "1.txt", "1 0.5 0.5 0.2 0.4", "0 0.1 0.1 0.3 0.1 0.3 0.5")
    write_lines(folder / "2.txt", "0 nonsense")
    write_lines(tmp_path / "data.yaml", "train: x", "names: [cat, 'dog']")
    first, second, broken = read_all(DATASET, tmp_path)[0].values()
    assert (first.category, second.category, first.relative) == ("dog", "cat", True)
    np.testing.assert_allclose(first.boxes, [[0.4, 0.3, 0.2, 0.4]])
    np.testing.assert_allclose(second.boxes, [[0.1, 0.1, 0.2, 0.4]])
    assert not np.isfinite(broken.boxes).any()
    ((outline,),) = second.outlines
    np.testing.assert_allclose(outline, [[0.1, 0.1], [0.3, 0.1], [0.3, 0.5]])
    assert not first.outlines and not broken.outlines
    write_lines(tmp_path / "data.yaml", "names:", "  0: bird", "  1: fish")
    assert next(iter(read_all(DATASET, tmp_path)[0].values())).category == "fish"


def read_rows(tmp_path, *rows, about="names: [cat]"):
    touch_frames(tmp_path / "images", "%d.jpg", [1])
    write_lines(tmp_path / "labels/1.txt", *rows)
    write_lines(tmp_path / "data.yaml", *about.splitlines())
    tracks, rejections = read_all(DATASET, tmp_path)
    return [one.boxes[0] for one in tracks.values()], rejections


@pytest.mark.parametrize(("shape", "points"), [("[2, 3]", 6), ("[4,2]", 8)])
def test_yolo_key_points(tmp_path, shape, points):
    """The box counts, not the bounds of what follows it."""
    row = "0 .5 .5 .2 .2 " + ".1 " * points
    about = f"kpt_shape: {shape}\nnames: [cat]"
    (box,), rejections = read_rows(tmp_path, row, about=about)
    np.testing.assert_allclose(box, [0.4, 0.4, 0.2, 0.2])
    assert not rejections


def test_yolo_rows_that_are_no_polygons(tmp_path):
    track, pose = "0 .5 .5 .2 .2 .91 7", "0 .5 .5 .2 .2 .1 .1 2 .2 .2 2"
    boxes, (first, second) = read_rows(tmp_path, track, pose, "0 .1 .1 .3 .1 .3 1.004")
    assert "number of its track, expected class cx cy w h" in first.reason
    assert "key points without their kpt_shape" in second.reason
    np.testing.assert_allclose(boxes, [[0.1, 0.1, 0.2, 0.9]])  # cut at the border


def test_yolo_boxes_that_are_corners(tmp_path):
    """As centre and size, the first one would leave its image on the left by .03."""
    corners = ["0 .125 .333 .3125 .533", "0 .5 .5 .7 .7"]
    message = r"labels: its boxes fit as corners .* such as 0.125 0.333 0.3125 0.533, "
    with pytest.raises(PreparationError, match=message):
        read_rows(tmp_path, *corners)
    # Another box speaks for sizes; or what leaves the image does so by rounding.
    assert len(read_rows(tmp_path, *corners, "0 .5 .5 .2 .2")[0]) == 3
    assert len(read_rows(tmp_path, "0 .098 .3 .2 .602", "0 .5 .5 1 1")[0]) == 2


def test_yolo_labels_of_no_image(tmp_path):
    touch_frames(tmp_path / "images/train/cam", "%d.jpg", [1])
    for name in ("train/cam/1", "train/cam/2"):
        write_lines(tmp_path / f"labels/{name}.txt", "0 .5 .5 .2 .2")
    write_lines(tmp_path / "labels/classes.txt", "cat", "dog")
    (tmp_path / "labels/train/cam/3.txt").write_bytes(b"\xff\xfe\xfa")
    tracks, (second, third) = read_all(DATASET, tmp_path)
    assert len(tracks) == 1
    assert "has no image 2 in" in second.reason and "2.txt" in second.file
    assert "is no text" in third.reason


def test_yolo_labels_of_two_images(tmp_path):
    touch_frames(tmp_path / "images", "%d.jpg", [1, 2])
    touch_frames(tmp_path / "images", "%d.png", [2])
    for name in "12":
        write_lines(tmp_path / f"labels/{name}.txt", "0 .5 .5 .2 .2")
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert len(tracks) == 1
    assert "2.txt" in rejection.file and "2.jpg or 2.png?" in rejection.reason


def category_of(tmp_path, number, about):
    touch_frames(tmp_path / "images", "%d.jpg", [1])
    write_lines(tmp_path / "labels/1.txt", f"{number} .5 .5 .2 .2")
    write_lines(tmp_path / "data.yaml", *about.splitlines())
    tracks, rejections = read_all(DATASET, tmp_path)
    return [one.category for one in tracks.values()], [r.reason for r in rejections]


@pytest.mark.parametrize(
    ("about", "number", "name"),
    [
        ("names: {0: car, 1: dog}\nnc: 2", 1, "dog"),
        ("names: {3: car, 17: 'a horse'}", 17, "a horse"),
        ("names:\n  1: car\n  2: horse\nnc: 2", 1, "car"),
        ("names:\n  # vehicles\n\n  0: car # fast\n  1: dog  # hot", 1, "dog"),
        ("names: ['car, big', 'dog']", 0, "car, big"),
        ('names: [ # of two\n  car, # fast\n  "dog # 1",\n]', 1, "dog # 1"),
        ("names:\n- car\n- 'it''s'\nval: x", 1, "it's"),
        ("names:\n- car\n- tv, big\nval: x", 1, "tv, big"),
        ("nc: 7", 5, "5"),
    ],
)
def test_yolo_names_of_classes(tmp_path, about, number, name):
    assert category_of(tmp_path, number, about) == ([name], [])


@pytest.mark.parametrize(
    ("about", "number", "reason"),
    [
        ("names:\n  1: car\n  2: horse", 0, "class 0, expected one that data.yaml nam"),
        ("names: [car, dog]", 2, "class 2, expected one that data.yaml names"),
        ("nc: 1", 0.5, "class 0.5, expected a whole number"),
    ],
)
def test_yolo_classes_without_a_name(tmp_path, about, number, reason):
    names, (found,) = category_of(tmp_path, number, about)
    assert not names and reason in found


@pytest.mark.parametrize(
    "names",
    [
        "names: classes.txt",
        "names: {0: car, 0: dog}",
        "names: {0:car}",
        "names: [car, [dog]]",
        "names: [car dog\n  cat]",
        "names: [car",
        "names:\n  0: car\n  - dog",
        "names:\n  0: car\n    1: dog",
        "names:\n  0: &x car",
        "names:\n  car: 0",
    ],
)
def test_yolo_names_that_are_refused(tmp_path, names):
    with pytest.raises(PreparationError, match=r"data\.yaml: names has .*, expected"):
        category_of(tmp_path, 0, names)
