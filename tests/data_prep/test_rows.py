from typing import Any

import numpy as np

from data_prep.rows import numbered_track
from data_prep.tracks import Track
from raw_folders import touch_frames, write_lines
from siamrpn_jax.data.read.rows import read_rows


def read(path, **options):
    return read_rows(path, columns=4, expected="x,y,w,h", **options)


def track_of(rows, folder) -> list[Any]:
    visibility = np.ones(len(rows.good), np.float32)
    fields = {"boxes": rows.values, "visibility": visibility, "name": "a", "video": "a"}
    return list(numbered_track(rows, folder, "%04d.jpg", **fields))


def test_a_track_of_the_good_rows(tmp_path):
    write_lines(tmp_path / "a.txt", "1,2,3,4", "x", "5,6,7,8")
    touch_frames(tmp_path, "%04d.jpg", [1, 2, 3])
    rejection, track = track_of(read(tmp_path / "a.txt"), tmp_path)
    assert rejection.frame == 2
    assert isinstance(track, Track) and track.numbers.tolist() == [1, 3]
    assert track.boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert [str(path)[-8:] for path in track.frames] == ["0001.jpg", "0003.jpg"]


def test_frames_beyond_the_rows(tmp_path):
    write_lines(tmp_path / "a.txt", "1,2,3,4")
    touch_frames(tmp_path, "%04d.jpg", [1, 2, 3])
    rejection, track = track_of(read(tmp_path / "a.txt"), tmp_path)
    assert rejection.reason == "1 rows for 3 frames, expected one for each"
    assert rejection.records == 2 and len(track.frames) == 1


def test_without_frames_or_rows_all_is_lost(tmp_path):
    write_lines(tmp_path / "a.txt", "1,2,3,4", "1,2,3,4")
    (rejection,) = track_of(read(tmp_path / "a.txt"), tmp_path / "nowhere")
    assert rejection.reason == "holds no frames %04d.jpg" and rejection.records == 2
    touch_frames(tmp_path, "%04d.jpg", [1, 2, 3])
    (rejection,) = track_of(read(tmp_path / "missing.txt"), tmp_path)
    assert rejection.records == 3
