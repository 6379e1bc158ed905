"""Exports of annotation tools: finding them, and the whole command."""

import json
import shutil

import pytest

from data_prep.folder import DATASET
from data_prep.tracks import PreparationError
from raw_folders import prepare, read_all, targets, write_frames, write_lines


def test_roboflow(tmp_path):
    write_frames(tmp_path / "train", "%d.png", [0])
    content = {
        "images": [{"id": 0, "file_name": "0.png", "width": 64, "height": 48}],
        "categories": [{"id": 0, "name": "thing"}],
        "annotations": [{"image_id": 0, "category_id": 0, "bbox": [4, 6, 20, 24]}],
    }
    (tmp_path / "train/_annotations.coco.json").write_text(json.dumps(content))
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert track.category == "thing" and track.frames == [tmp_path / "train/0.png"]


def test_other_labels_are_named(tmp_path):
    write_lines(tmp_path / "labels.json", '{"images": [], "annotations": []}')
    with pytest.raises(
        PreparationError, match=r"labels\.json is of COCO's form: python"
    ):
        read_all(DATASET, tmp_path)
    (tmp_path / "labels.json").unlink()
    write_lines(tmp_path / "notes.txt", "1 2 3")
    with pytest.raises(
        PreparationError, match=r"notes\.txt is there, and of no layout.*film\.csv"
    ):
        read_all(DATASET, tmp_path)


def test_command(tmp_path):
    raw = tmp_path / "raw"
    write_frames(raw / "clip/img1", "%06d.jpg", range(1, 4))
    write_lines(raw / "clip/gt/gt.txt", *(f"{t},1,5,5,30,30,1,1,1" for t in (1, 2, 3)))
    assert targets(prepare("folder", raw)) == {"clip/gt/gt.txt/1": [1, 2, 3]}
    shutil.rmtree(tmp_path / "prepared")
