"""MOT's layout."""

import json

import numpy as np
import pytest

from data_prep.folder import DATASET
from raw_folders import (
    prepare,
    read_all,
    targets,
    touch_frames,
    write_frames,
    write_lines,
)


def test_mot(tmp_path):
    clip = tmp_path / "MOT17-02"
    touch_frames(clip / "img1", "%06d.jpg", range(1, 6))
    write_lines(
        clip / "gt/gt.txt",
        "1,1,10,20,30,40,1,2,0.5",
        "2,1,11,20,30,40,1,2,1",
        "3,1,12,20,30,40,1,2,0",
        "1,7,5,5,9,9,1,1,1",
        "2,8,5,5,9,9,0,1,1",
    )
    write_lines(clip / "gt/labels.txt", "dog", "cat")
    tracks, rejections = read_all(DATASET, tmp_path)
    assert not rejections and list(tracks) == [
        "MOT17-02/gt/gt.txt/1",
        "MOT17-02/gt/gt.txt/7",
    ]
    first, second = tracks.values()
    assert (first.category, second.category) == ("cat", "dog")
    assert first.frames[0] == clip / "img1/000001.jpg"
    assert first.visibility.tolist() == [0.5, 1, 0]
    np.testing.assert_array_equal(first.boxes[1], [11, 20, 30, 40])
    write_lines(clip / "gt/gt.txt", "9,1,1,1,5,5", "one,1,1,1,5,5", "1,1,1,1,5,5")
    tracks, rejections = read_all(DATASET, tmp_path)
    assert len(tracks) == 1 and len(rejections) == 2
    assert "expected frame,id,x,y,w,h,… of a frame in img1" in rejections[0].reason


def test_mot_detections_where_there_is_no_truth(tmp_path):
    touch_frames(tmp_path / "a/img1", "%06d.jpg", [1, 2])
    write_lines(tmp_path / "a/det/det.txt", "1,-1,1,2,30,40,0.0", "2,-1,1,2,30,40,.9")
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert len(track.frames) == 2


@pytest.mark.parametrize("first", [0, 1])
def test_mot_frames_from_0(tmp_path, first):
    """They are read where the images are numbered so, and never one frame off."""
    touch_frames(tmp_path / "a/img1", "%06d.jpg", range(first, first + 4))
    rows = [f"{i},1,{i},40,30,24,1,1,1" for i in range(4)]
    write_lines(tmp_path / "a/gt/gt.txt", *rows)
    tracks, rejections = read_all(DATASET, tmp_path)
    if first:
        (rejection,) = rejections
        assert not tracks and rejection.records == 4
        assert "line 1 is of frame 0, and no image has" in rejection.reason
    else:
        assert not rejections and len(tracks["a/gt/gt.txt/1"].frames) == 4


@pytest.mark.parametrize(
    ("images", "frames", "wrong"),
    [
        (range(5), range(1, 6), "frames 1 to 5 may count the images from 1,"),
        (range(5), range(1, 4), "mean the numbers of their names, 0 to 4: expected"),
        (range(5), range(3), ""),
        (range(4, 10), range(1, 7), "frames 1 to 6 may count the images from 1,"),
        (range(4, 10), range(4, 7), "frames 4 to 6 may count the images from 1,"),
        (range(4, 10), range(4, 10), ""),
        (range(10, 15), range(10, 12), ""),
    ],
)
def test_mot_images_that_are_not_numbered_from_1(tmp_path, images, frames, wrong):
    """The first image is frame 1 of MOT, and its name may say another number."""
    touch_frames(tmp_path / "a/img1", "%06d.jpg", images)
    rows = [f"{i},1,{i},40,30,24,1,1,1" for i in frames]
    write_lines(tmp_path / "a/gt/gt.txt", *rows)
    tracks, rejections = read_all(DATASET, tmp_path)
    if wrong:
        (rejection,) = rejections
        assert not tracks and wrong in rejection.reason
        assert rejection.records == len(frames)
    else:
        assert not rejections
        (track,) = tracks.values()
        assert track.numbers.tolist() == list(frames)


def test_mot_seqinfo(tmp_path):
    write_frames(tmp_path / "raw/a/img1", "%06d.jpg", [1, 2])
    write_lines(tmp_path / "raw/a/gt/gt.txt", "1,1,1,2,30,40,1", "2,1,1,2,30,40,1")
    info = tmp_path / "raw/a/seqinfo.ini"
    write_lines(info, "[Sequence]", "seqLength=40", "imWidth=64", "imHeight=48")
    tracks, (rejection,) = read_all(DATASET, tmp_path / "raw")
    assert not tracks and rejection.records == 2
    assert "seqLength 40, and there are 2 numbered images" in rejection.reason
    write_lines(info, "[Sequence]", "seqLength = 2", "imWidth = 64", "imHeight = 48")
    assert targets(prepare("folder", tmp_path / "raw")) == {"a/gt/gt.txt/1": [1, 2]}
    write_lines(info, "[Sequence]", "seqLength=2", "imWidth=128", "imHeight=96")
    (track,) = read_all(DATASET, tmp_path / "raw")[0].values()
    assert track.size == (128, 96)  # for the writer to reject


CORNERS = [(40, 10, 57, 34), (42, 11, 59, 35), (44, 12, 61, 36)]


def test_mot_boxes_that_are_corners(tmp_path):
    """A target of 17 x 24 pixels would leave the frame of 64 x 48."""
    write_frames(tmp_path / "a/img1", "%06d.jpg", range(1, 4))
    rows = [f"{i},1,{x},{y},{r},{b},1" for i, (x, y, r, b) in enumerate(CORNERS, 1)]
    write_lines(tmp_path / "a/gt/gt.txt", *rows, "1,2,3,4,30,40,1")
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert not tracks and rejection.records == 4
    assert rejection.reason.startswith("its boxes fit as corners x1,y1,x2,y2 and not")
    # A box that leaves the frame is none, where another one speaks for sizes.
    write_lines(tmp_path / "a/gt/gt.txt", *rows[:1], "1,2,30,40,9,7,1")
    tracks, rejections = read_all(DATASET, tmp_path)
    assert len(tracks) == 2 and not rejections


def test_mot_negative_sides_are_no_absence(tmp_path):
    raw = tmp_path / "raw"
    write_frames(raw / "a/img1", "%06d.jpg", range(1, 6))
    boxes = ["5,5,20,30", "25,35,-20,-30", "-1,-1,-1,-1", "5,35,20,-30", "0,0,0,0"]
    rows = [f"{i},1,{box},1,1,1" for i, box in enumerate(boxes, 1)]
    write_lines(raw / "a/gt/gt.txt", *rows)
    prepared = prepare("folder", raw, "--max-bad", "90%")
    assert targets(prepared) == {"a/gt/gt.txt/1": [1]}
    rejected = json.loads((tmp_path / "prepared/rejected.json").read_text())
    assert [one["frame"] for one in rejected] == [2, 4]


def test_mot_images_of_one_number(tmp_path):
    touch_frames(tmp_path / "a/img1", "%06d.jpg", [1, 2])
    touch_frames(tmp_path / "a/img1", "mask_%06d.png", [1, 2])
    write_lines(tmp_path / "a/gt/gt.txt", "1,1,1,2,30,40,1", "2,1,1,2,30,40,1")
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert not tracks and rejection.records == 2
    assert "holds 000001.jpg and mask_000001.png" in rejection.reason
