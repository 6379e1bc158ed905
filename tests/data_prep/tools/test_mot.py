"""MOT's layout."""

import numpy as np

from data_prep.folder import DATASET
from raw_folders import read_all, touch_frames, write_lines


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


def test_mot_images_of_one_number(tmp_path):
    touch_frames(tmp_path / "a/img1", "%06d.jpg", [1, 2])
    touch_frames(tmp_path / "a/img1", "mask_%06d.png", [1, 2])
    write_lines(tmp_path / "a/gt/gt.txt", "1,1,1,2,30,40,1", "2,1,1,2,30,40,1")
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert not tracks and rejection.records == 2
    assert "holds 000001.jpg and mask_000001.png" in rejection.reason
