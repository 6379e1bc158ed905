import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_folders import write_sequence, write_stills
from data_prep.folder import DATASET
from data_prep.frames import frame_file
from data_prep.tracks import PreparationError, VideoFrame
from paths import SHARED_DATA
from raw_folders import (
    prepare,
    read_all,
    targets,
    touch_frames,
    write_film,
    write_frames,
    write_lines,
)


def touch_film(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_sequences(tmp_path):
    for name in ("a", "deep/er/b"):
        touch_frames(tmp_path / name / "img", "%d.jpg", range(1, 12))
    rows = ["1,2,30,40"] * 8
    write_lines(
        tmp_path / "a/groundtruth.txt", *rows, "nan,nan,nan,nan", "0,0,0,0", "5,5,9,9"
    )
    write_lines(tmp_path / "deep/er/b/groundtruth_rect.txt", *["11\t21\t5\t6"] * 11)
    tracks, rejections = read_all(DATASET, tmp_path)
    assert not rejections and list(tracks) == ["a", "deep/er/b"]
    first, second = tracks.values()
    assert first.visibility.tolist() == [1] * 8 + [0, 0, 1]
    assert first.frames[9] == tmp_path / "a/img/10.jpg"
    np.testing.assert_array_equal(first.numbers, np.arange(11))
    np.testing.assert_array_equal(first.boxes[[0, 10]], [[1, 2, 30, 40], [5, 5, 9, 9]])
    np.testing.assert_array_equal(second.boxes[0], [10, 20, 5, 6])  # OTB counts from 1
    assert (first.video, first.category, first.size) == ("a", "", None)


def test_targets_of_one_sequence_folder_share_its_video(tmp_path):
    touch_frames(tmp_path / "Jogging/img", "%04d.jpg", [1, 2])
    for number in (1, 2):
        path = tmp_path / f"Jogging/groundtruth_rect.{number}.txt"
        write_lines(path, "1,1,5,5", "2,2,5,5")
    tracks, _ = read_all(DATASET, tmp_path)
    assert len(tracks) == 2
    assert {track.video for track in tracks.values()} == {"Jogging"}


def test_a_bad_line_of_a_sequence_loses_its_frame_alone(tmp_path):
    touch_frames(tmp_path / "a", "%d.jpg", range(5))
    rows = ["1,2,30,40", "1,2,3", "one,2,3,4", "nan,nan,nan,nan", "1,2,-3,40"]
    write_lines(tmp_path / "a/groundtruth.txt", *rows)
    tracks, rejections = read_all(DATASET, tmp_path)
    assert tracks["a"].numbers.tolist() == [0, 3, 4]
    assert tracks["a"].visibility.tolist() == [1, 0, 0]
    assert [(one.frame, one.records) for one in rejections] == [(1, 1), (2, 1)]
    assert "'1,2,3'" in rejections[0].reason
    assert rejections[0].file == str(tmp_path / "a/groundtruth.txt")


def test_a_sequence_of_unequal_lengths_is_one_rejection(tmp_path):
    touch_frames(tmp_path / "a", "%d.jpg", range(4))
    write_lines(tmp_path / "a/groundtruth.txt", *["1,2,30,40"] * 3)
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert not tracks and rejection.records == 3
    assert rejection.file == str(tmp_path / "a")
    assert rejection.reason.startswith("4 frames but 3 lines in groundtruth.txt")
    shutil.rmtree(tmp_path / "a")
    write_lines(tmp_path / "a/groundtruth.txt", "1,2,30,40")
    _, (rejection,) = read_all(DATASET, tmp_path)
    assert rejection.reason.startswith("has no frames")


def test_stills(tmp_path):
    write_stills(tmp_path / "some/stills", 3)
    write_stills(tmp_path, 2)
    tracks, rejections = read_all(DATASET, tmp_path)
    assert not rejections
    assert list(tracks) == [
        "000.png#0",
        "001.png#0",
        "001.png#1",
        "some/stills/000.png#0",
        "some/stills/001.png#0",
        "some/stills/001.png#1",
        "some/stills/002.png#0",
    ]
    assert tracks["000.png#0"].size == (200, 200)


@pytest.mark.parametrize("suffix", [".mp4", ".MOV", ".webm", ".avi", ".mkv"])
def test_a_film_and_a_box_for_each_frame(tmp_path, suffix):
    film = tmp_path / f"deep/clip.1{suffix}"
    touch_film(film)
    write_lines(tmp_path / "deep/clip.1.txt", "1 2\t30 40", "0 0 0 0", "1.5 2 3 4")
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert track.name == track.video == "deep/clip.1.txt"
    assert track.frames == [VideoFrame(film, i) for i in range(3)]
    assert track.visibility.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(track.boxes[[0, 2]], [[1, 2, 30, 40], [1.5, 2, 3, 4]])


def test_boxes_of_some_frames(tmp_path):
    touch_film(tmp_path / "a.mp4")
    write_lines(tmp_path / "a.csv", "30, 1,2,3,4", "5,5,6,7,8", "10,nan,nan,nan,nan")
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert track.numbers.tolist() == [5, 10, 30]
    assert track.visibility.tolist() == [1, 0, 1]
    (track,) = read_all(DATASET, tmp_path, first_frame=1)[0].values()
    assert track.frames == [VideoFrame(tmp_path / "a.mp4", i) for i in (4, 9, 29)]


def test_several_targets(tmp_path):
    touch_film(tmp_path / "a.mp4")
    rows = ["0,7,1,2,3,4", "0,the cat,5,6,7,8", "2,7,1,2,3,4"]
    write_lines(tmp_path / "a.csv", *rows)
    tracks, _ = read_all(DATASET, tmp_path)
    assert {name: t.numbers.tolist() for name, t in tracks.items()} == {
        "a.csv/7": [0, 2],
        "a.csv/the cat": [0],
    }
    assert {track.video for track in tracks.values()} == {"a.csv"}


def test_named_columns(tmp_path):
    touch_film(tmp_path / "a.mp4")
    write_lines(
        tmp_path / "a.csv",
        "Category,conf,X,Y,W,H,Frame",
        "potted plant,.5,1,2,3,4,8",
        "potted plant,,5,6,7,8,6",
    )
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert track.name == "a.csv" and track.category == "potted plant"
    assert track.numbers.tolist() == [6, 8]
    np.testing.assert_array_equal(track.boxes, [[5, 6, 7, 8], [1, 2, 3, 4]])


@pytest.mark.parametrize("inner", [".", "img"])
def test_images_and_a_box_file(tmp_path, inner):
    folder = tmp_path / "clip" / inner
    touch_frames(folder, "f%d.png", [10, 11, 9])
    write_lines(tmp_path / "clip.csv", "frame,x,y,w,h", "2,1,2,3,4", "1,1,2,3,4")
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert track.frames == [folder / "f10.png", folder / "f11.png"]
    write_lines(tmp_path / "clip.csv", "3,1,2,3,4", "0,1,2,3,4", "-1,1,2,3,4")
    tracks, rejections = read_all(DATASET, tmp_path)
    assert tracks["clip.csv"].numbers.tolist() == [0]
    assert [one.reason for one in rejections] == [
        "line 3 is '-1,1,2,3,4', expected frame,x,y,w,h",
        "line 1: frame 3, expected 0 to 2",
    ]


def test_as_many_boxes_as_images(tmp_path):
    touch_frames(tmp_path / "clip", "%d.jpg", range(3))
    write_lines(tmp_path / "clip.txt", *["1,2,3,4"] * 2)
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert not tracks and rejection.records == 2
    assert rejection.reason == "2 boxes for 3 images, expected one for each"


@pytest.mark.parametrize(
    ("lines", "reason", "records"),
    [
        ([], "is empty, expected", 1),
        (["1,2,3", "1,2,3"], "line 1 is '1,2,3': 3 columns without names, expected", 2),
        (["name,x,y", "1,2,3,4,5"], "line 1 is 'name,x,y': no box, expected x,y", 2),
        (["1,2,3,4", "1,2,3"], "line 2 is '1,2,3', expected x,y,w,h", 1),
        (["1,2,3,4", "", "1,2,3,4"], "line 2 is '', expected x,y,w,h", 1),
        (["x,y,w,h,frame", "1,2,3,4,0.5"], "line 2 is '1,2,3,4,0.5', expected x", 1),
    ],
)
def test_lines_that_are_no_boxes(tmp_path, lines, reason, records):
    touch_film(tmp_path / "a.mp4")
    write_lines(tmp_path / "a.txt", *lines)
    _, (rejection,) = read_all(DATASET, tmp_path)
    assert rejection.reason.startswith(reason) and rejection.records == records
    assert rejection.file == str(tmp_path / "a.txt")


def test_a_box_file_that_is_no_text(tmp_path):
    touch_film(tmp_path / "a.mp4")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    _, (rejection,) = read_all(DATASET, tmp_path)
    assert rejection.reason == "cannot be read (is no text)"


def test_what_is_found_is_told(tmp_path, caplog):
    write_sequence(tmp_path / "seq", 0, length=2)
    write_lines(tmp_path / "seq.txt", "notes")  # the folder has its own annotations
    write_stills(tmp_path / "stills", 3)
    write_lines(tmp_path / "stills.csv", "notes")
    touch_film(tmp_path / "a.mp4")
    write_lines(tmp_path / "a.txt", "1,2,3,4")
    write_lines(tmp_path / "readme.txt", "notes")
    read_all(DATASET, tmp_path)
    told = "found 1 sequences, 1 box files, 3 stills in 1 folders"
    assert told in caplog.text


BOX = "0,10,10,30,30"


def test_labels_that_nothing_reads_are_told(tmp_path, caplog):
    for name in ("a.mp4", "b1.mp4", "c.MTS", "p.jpg"):
        touch_film(tmp_path / name)
    write_lines(tmp_path / "a.csv", BOX)
    for name in ("b2.csv", "c.csv", "deep/er/d.txt"):
        write_lines(tmp_path / name, BOX)
    shapes = [{"points": [[10, 10], [50, 50]]}]
    (tmp_path / "p.json").write_text(json.dumps({"shapes": shapes}))
    (tmp_path / "q.xml").write_text("<a><b>1</b><b>2</b><b>3</b><b>4</b></a>")
    coco = {"images": [], "annotations": [{"bbox": [1, 1, 40, 40]}]}
    (tmp_path / "instances_default.json").write_text(json.dumps(coco))
    for name in ("README.txt", ".hidden/e.csv", "out/rejected.json"):
        write_lines(tmp_path / name, BOX)
    tracks, _ = read_all(DATASET, tmp_path)
    assert list(tracks) == ["a.csv"]
    told = "6 files look like labels, and nothing reads them: b2.csv, c.csv, "
    assert f"{told}instances_default.json, p.json, q.xml, …; expected" in caplog.text


def test_nothing_is_told_of_labels_that_are_read(tmp_path, caplog):
    write_sequence(tmp_path / "seq", 0, length=3)
    write_lines(tmp_path / "seq/full_occlusion.txt", "0,0,0,1")
    for number in (1, 2):
        touch_frames(tmp_path / "otb/img", "%d.jpg", [1])
        write_lines(tmp_path / f"otb/groundtruth_rect.{number}.txt", "1,1,5,5")
    write_stills(tmp_path / "stills", 3)
    touch_film(tmp_path / "a.mp4")
    write_lines(tmp_path / "a.csv", BOX)
    write_lines(tmp_path / "yolo/labels/1.txt", "0 .5 .5 .1 .1")
    touch_frames(tmp_path / "yolo/images", "%d.jpg", [1])
    touch_frames(tmp_path / "mot/img1", "%d.jpg", [1])
    for name in ("gt/gt.txt", "det/det.txt"):
        write_lines(tmp_path / "mot" / name, "1,1,10,20,30,40,1")
    assert read_all(DATASET, tmp_path)[0]
    assert "found 3 sequences" in caplog.text and "look like" not in caplog.text


def test_nothing_of_the_kind(tmp_path):
    touch_film(tmp_path / "a.mp4")
    with pytest.raises(PreparationError, match="holds nothing of the kind"):
        read_all(DATASET, tmp_path)
    with pytest.raises(PreparationError, match="nowhere: no such folder"):
        read_all(DATASET, tmp_path / "nowhere")
    (tmp_path / "annotations.json").write_text("{")
    with pytest.raises(PreparationError, match="annotations.json: is not JSON"):
        read_all(DATASET, tmp_path)


def test_command(tmp_path):
    raw = tmp_path / "raw"
    write_sequence(raw / "seq", 0, length=4)
    write_stills(raw / "stills", 2)
    write_film(raw / "film.webm", count=5)
    write_lines(raw / "film.csv", "1,a,1,1,20,20", "3,a,2,2,20,20", "9,a,2,2,20,20")
    write_frames(raw / "frames", "%d.jpg", range(3))
    write_lines(raw / "frames.txt", "0,0,64,48", "0,0,0,0", "60,40,20,20")
    prepared = prepare("folder", raw, "--max-bad", "10%")
    assert targets(prepared) == {
        "seq": [0, 1, 2, 3],
        "film.csv/a": [1, 3],
        "frames.txt": [0, 2],
        "stills/000.png#0": [0],
        "stills/001.png#0": [0],
        "stills/001.png#1": [0],
    }
    (rejected,) = json.loads((prepared.folder / "rejected.json").read_text())
    assert (rejected["file"], rejected["frame"]) == ("film.webm", 9)


def test_command_on_a_real_sequence(tmp_path):
    folder = SHARED_DATA / "dev_sequences" / "vot_ball1"
    if not folder.is_dir():
        pytest.skip("skipped: no ../shared")
    raw = tmp_path / "raw"
    (raw / "ball").mkdir(parents=True)
    boxes = np.loadtxt(folder / "groundtruth.txt", delimiter=",")[:5]
    np.savetxt(raw / "ball/groundtruth.txt", boxes, delimiter=",")
    for frame in sorted((folder / "img").iterdir())[:5]:
        shutil.copy(frame, raw / "ball")
    prepared = prepare("folder", raw)
    sizes = prepared.index.sizes / prepared.index.scales[:, None]
    np.testing.assert_allclose(sizes, boxes[:, 2:], rtol=1e-4)


def test_frames_counted_from_1_need_an_option(tmp_path):
    touch_frames(tmp_path / "clip", "%d.jpg", range(1, 9))
    write_lines(tmp_path / "clip.txt", *(f"{t},1,5,5,9,9" for t in range(1, 9)))
    with pytest.raises(
        PreparationError, match=r"clip\.txt: .*expected --first-frame 1"
    ):
        read_all(DATASET, tmp_path)
    (track,) = read_all(DATASET, tmp_path, first_frame=1)[0].values()
    assert track.numbers.tolist() == list(range(8))
    assert track.frames[0] == tmp_path / "clip" / "1.jpg"
    # A file that has a frame 0 tells how all of a folder count.
    touch_frames(tmp_path / "other", "%d.jpg", range(3))
    write_lines(tmp_path / "other.txt", "0,1,5,5,9,9")
    _, rejections = read_all(DATASET, tmp_path)
    assert [one.reason for one in rejections] == ["line 8: frame 8, expected 0 to 7"]


def test_images_by_their_names_and_times_by_the_speed(tmp_path):
    touch_frames(tmp_path / "clip", "%d.jpg", range(10, 13))
    write_lines(
        tmp_path / "clip.csv", "image,x,y,w,h", "a/12.jpg,1,2,3,4", "10,5,6,7,8"
    )
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert track.numbers.tolist() == [0, 2]
    write_lines(tmp_path / "clip.csv", "time,x,y,w,h", "0,1,2,3,4", ".08,1,2,3,4")
    _, (rejection,) = read_all(DATASET, tmp_path)
    assert "expected --fps for clip" in rejection.reason
    (track,) = read_all(DATASET, tmp_path, fps=25.0)[0].values()
    assert track.numbers.tolist() == [0, 2]
    _, (rejection,) = read_all(DATASET, tmp_path, fps=20.0)
    assert rejection.reason == "line 3: 0.08 s lie between two frames"
    write_lines(tmp_path / "clip.csv", "time,x,y,w,h", "0,1,2,3,4", ".12,1,2,3,4")
    _, (rejection,) = read_all(DATASET, tmp_path, fps=25.0)
    assert rejection.reason == "line 3: 0.12 s lie after the last frame"


def write_numbered(tmp_path, images, frames, *, key="frame"):
    """A folder of these images, and a table of these frames."""
    shutil.rmtree(tmp_path / "clip", ignore_errors=True)
    touch_frames(tmp_path / "clip", "frame_%04d.jpg", images)
    rows = [f"{frame},1,2,30,40" for frame in frames]
    write_lines(tmp_path / "clip.csv", f"{key},x,y,w,h", *rows)


def frames_of(tmp_path, **options):
    """The numbers of the images that are read, and what is wrong."""
    tracks, rejections = read_all(DATASET, tmp_path, **options)
    names = [frame_file(frame) for one in tracks.values() for frame in one.frames]
    return [int(Path(name).stem[-4:]) for name in names], [
        one.reason for one in rejections
    ]


@pytest.mark.parametrize(
    ("images", "frames", "first_frame", "expected"),
    [
        ((0, 1, 3, 4), (0, 1, 3, 4), None, (0, 1, 3, 4)),
        ((0, 1, 3, 4), (1, 3, 4), None, (1, 3, 4)),
        ((1, 2, 4, 5), (1, 2, 4, 5), None, (1, 2, 4, 5)),
        ((1, 2, 4, 5), (0, 1, 3, 4), None, (1, 2, 4, 5)),
        ((1, 2, 4, 5, 6), (1, 2), 1, (1, 2)),
        ((1, 2, 4, 5, 6), (0, 1), 0, (1, 2)),
        ((17, 18, 20), (17, 20), None, (17, 20)),
        ((0, 5, 10, 15), (0, 10), None, (0, 10)),
        # As many as there are images, each once: places, as trackers write them.
        ((0, 5, 10, 15), (0, 1, 2, 3), None, (0, 5, 10, 15)),
        ((0, 5, 10, 15), (1, 2, 3, 4), 1, (0, 5, 10, 15)),
        # Without a gap the first image is the first frame, whatever its name.
        ((7, 8, 9), (0, 2), None, (7, 9)),
    ],
)
def test_frames_go_by_the_names_of_images(
    tmp_path, images, frames, first_frame, expected
):
    write_numbered(tmp_path, images, frames)
    found, faults = frames_of(tmp_path, first_frame=first_frame)
    assert found == list(expected) and not faults


def test_frames_whose_image_is_missing_are_rejected(tmp_path):
    write_numbered(tmp_path, (0, 1, 3, 4), range(5))
    found, (fault,) = frames_of(tmp_path)
    assert found == [0, 1, 3, 4]
    assert fault == "line 4: frame 2: there is no image 2 in clip"
    write_numbered(tmp_path, (0, 1, 3, 4), (0, 1, 2))
    found, (fault,) = frames_of(tmp_path)
    assert not found and "might be the places of the images, or their numbers" in fault
    assert "of which clip has no 2" in fault


def test_a_first_frame_that_is_not_clear_where_images_are_missing(tmp_path):
    write_numbered(tmp_path, (1, 2, 3, 5, 6), (2, 3, 5))
    reason = (
        r"clip\.csv: has frames 2 to 5, and images frame_0001\.jpg to "
        r"frame_0006\.jpg, some missing, .*expected --first-frame, the number of "
    )
    with pytest.raises(PreparationError, match=reason):
        read_all(DATASET, tmp_path)
    assert frames_of(tmp_path, first_frame=1)[0] == [2, 3, 5]
    # Another table that begins with 0 says nothing of this one.
    touch_frames(tmp_path / "other", "%d.jpg", range(3))
    write_lines(tmp_path / "other.txt", "0,1,5,5,9,9")
    shutil.move(tmp_path / "clip", tmp_path / "z")
    shutil.move(tmp_path / "clip.csv", tmp_path / "z.csv")
    found, (fault,) = frames_of(tmp_path)
    assert len(found) == 1 and "expected --first-frame, the number of" in fault


def test_times_and_rows_in_turn_where_images_are_missing(tmp_path):
    write_numbered(tmp_path, (1, 2, 4, 5), (0, 0.4, 0.6), key="time")
    found, (fault,) = frames_of(tmp_path, fps=10.0)
    assert found == [1, 5]
    assert fault == "line 4: 0.6 s: there is no image 7 in clip"
    write_lines(tmp_path / "clip.csv", *["1,2,30,40"] * 4)
    assert frames_of(tmp_path) == ([1, 2, 4, 5], [])


def test_images_beside_their_masks(tmp_path):
    write_numbered(tmp_path, range(4), range(4))
    touch_frames(tmp_path / "clip", "frame_%04d_mask.png", range(4))
    found, (fault,) = frames_of(tmp_path)
    assert not found
    names = "frame_0000.jpg and frame_0000_mask.png have one number"
    assert fault.startswith(f"{names}, expected images that are numbered, one for")
    write_lines(tmp_path / "clip.csv", "image,x,y,w,h", "frame_0003.jpg,1,2,3,4")
    assert frames_of(tmp_path) == ([3], [])
    touch_frames(tmp_path / "clip", "frame_%04d.png", [3])
    write_lines(tmp_path / "clip.csv", "image,x,y,w,h", "frame_0003,1,2,3,4")
    _, (fault,) = frames_of(tmp_path)
    assert "'frame_0003', expected the name of one image in clip" in fault


def test_what_the_tracker_writes_is_read(tmp_path):
    touch_film(tmp_path / "film.avi")
    rows = ["frame,object,x,y,w,h,score,confidence,lost"]
    for t in range(4):
        rows += [f"{t},0,1,2,30,40,.9,{0.9 - t / 5},0", f"{t},1,5,6,7,8,.9,.9,{t // 2}"]
    write_lines(tmp_path / "film.csv", *rows)
    first, second = read_all(DATASET, tmp_path)[0].values()
    assert first.visibility.tolist() == [1, 1, 1, 1]
    assert second.visibility.tolist() == [1, 1, 0, 0]
    options = {"lost": "keep", "min_confidence": 0.4}
    first, second = read_all(DATASET, tmp_path, **options)[0].values()
    assert first.visibility.tolist() == [1, 1, 1, 0]
    assert second.visibility.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("names", [["a.mp4", "a.webm"], ["a.mkv", "a/0.jpg"]])
def test_two_that_a_table_may_be_of(tmp_path, names):
    write_lines(tmp_path / "a.csv", "frame,x,y,w,h", "0,1,2,3,4")
    for name in names:
        touch_film(tmp_path / name)
    second = names[1].split("/")[0]
    with pytest.raises(PreparationError, match=rf"a\.csv: .*{names[0]} or of {second}"):
        read_all(DATASET, tmp_path)
    (tmp_path / names[1]).unlink()
    assert len(read_all(DATASET, tmp_path)[0]) == 1


def test_boxes_of_pictures_of_another_size_are_rejected(tmp_path):
    """Image 1 alone is of the size that was labelled."""
    raw = tmp_path / "raw"
    write_frames(raw / "clip", "%d.png", [0, 2, 3])
    write_frames(raw / "clip", "%d.png", [1], size=(32, 24))
    rows = [f"{i}.png,32,24,man,5,5,25,20" for i in range(3)]
    write_lines(
        raw / "clip.csv",
        "filename,width,height,class,xmin,ymin,xmax,ymax",
        *[*rows, "3.png,64,48,man,5,5,25,20"],
    )
    prepared = prepare("folder", raw, "--max-bad", "60%")
    assert targets(prepared) == {"clip.csv": [1, 3]}
    rejected = json.loads((tmp_path / "prepared/rejected.json").read_text())
    assert [one["file"] for one in rejected] == ["clip/0.png", "clip/2.png"]
    assert rejected[0]["reason"] == "is 64x48 pixels, annotated are 32x24"


@pytest.mark.parametrize("name", ["a.mp4", "D:\\a.avi", "a", "s7", "v1.2"])
def test_names_of_videos_that_speak_against_no_film(tmp_path, name):
    touch_film(tmp_path / "a.mp4")
    write_lines(tmp_path / "a.csv", "video,frame,x,y,w,h", f"{name},0,1,2,3,4")
    tracks, rejections = read_all(DATASET, tmp_path)
    assert len(tracks) == 1 and not rejections


@pytest.mark.parametrize("name", ["other.mp4", "films/b.MOV"])
def test_a_table_of_another_film_is_rejected(tmp_path, name):
    touch_film(tmp_path / "a.mp4")
    write_lines(tmp_path / "a.csv", "video,frame,x,y,w,h", f"{name},0,1,2,3,4")
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert not tracks and f"line 2 is of {name!r}, expected a " in rejection.reason


@pytest.mark.parametrize("name", ["resolution", "Image Size", "frameSize"])
def test_sizes_of_pictures_in_one_column_are_refused(tmp_path, name):
    touch_film(tmp_path / "a.mp4")
    write_lines(tmp_path / "a.csv", f"frame,x,y,w,h,{name}", "0,1,2,3,4,320x240")
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert not tracks and "expected the size of the frames as" in rejection.reason


def test_what_is_not_visible_is_absent(tmp_path):
    touch_film(tmp_path / "film.avi")
    write_lines(
        tmp_path / "film.csv",
        "frame,x,y,w,h,visible,score",
        *("0,1,2,30,40,1,.9", "1,1,2,30,40,0,.9", "2,1,2,30,40,.5,.9"),
        "3,1,2,30,40,1,.3",
    )
    options = {"lost": "keep", "min_confidence": 0.5}
    (track,) = read_all(DATASET, tmp_path, **options)[0].values()
    assert track.visibility.tolist() == [1, 0, 0.5, 0]


def test_the_same_fault_of_all_targets_loses_the_file(tmp_path):
    touch_frames(tmp_path / "clip", "%d.jpg", range(200))
    rows = [f"{t},{k},5,5,9,9" for k in range(2) for t in range(200)]
    rows[199], rows[399] = "200,0,5,5,9,9", "200,1,5,5,9,9"
    write_lines(tmp_path / "clip.txt", *rows)
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert not tracks and rejection.records == 400
    assert "the same in the first or last row of every target" in rejection.reason
