"""YOLO's labels."""

import numpy as np
import pytest

from data_prep.folder import DATASET
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
