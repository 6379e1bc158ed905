"""Photos that EXIF turns: boxes on them are understood, or refused."""

import json

import numpy as np
import pytest

from data_prep.folder import DATASET
from photos import turned_photo
from raw_folders import read_all, write_lines
from siamrpn_jax.data.read.stills import turn_problem

PHOTO = np.zeros((48, 64, 3), np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_annotated_size_decides_where_it_can(tmp_path, orientation):
    path = tmp_path / "a.jpg"
    path.write_bytes(turned_photo(PHOTO, orientation))
    known = {
        size: turn_problem(path, size) == "" for size in (None, (64, 48), (48, 48))
    }
    upright, quarter = orientation == 1, orientation >= 5
    assert known == {None: upright, (64, 48): upright or quarter, (48, 48): upright}
    assert upright or f"(orientation {orientation})" in turn_problem(path, None)


def test_what_is_no_photo_is_left_to_the_writer(tmp_path):
    assert turn_problem(tmp_path / "missing.jpg", None) == ""


def test_yolo_and_coco_on_turned_photos(tmp_path):
    for name, orientation in (("1", 1), ("2", 6)):
        (tmp_path / "images").mkdir(exist_ok=True)
        photo = turned_photo(PHOTO, orientation)
        (tmp_path / f"images/{name}.jpg").write_bytes(photo)
        write_lines(tmp_path / f"labels/{name}.txt", "0 .5 .5 .2 .2", "0 .5 .5 .4 .4")
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert len(tracks) == 2 and rejection.records == 2
    assert rejection.file.endswith("2.jpg") and "orientation 6" in rejection.reason
    coco = tmp_path / "roboflow"
    coco.mkdir()
    (coco / "3.jpg").write_bytes(turned_photo(PHOTO, 3))
    content = {
        "images": [{"id": 0, "file_name": "3.jpg", "width": 64, "height": 48}],
        "categories": [{"id": 0, "name": "thing"}],
        "annotations": [{"image_id": 0, "category_id": 0, "bbox": [4, 6, 20, 24]}],
    }
    (coco / "_annotations.coco.json").write_text(json.dumps(content))
    tracks, rejections = read_all(DATASET, tmp_path)
    assert len(tracks) == 2
    assert any("orientation 3" in one.reason for one in rejections)
