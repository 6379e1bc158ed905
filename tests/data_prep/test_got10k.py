import json
import shutil

import numpy as np
import pytest

from data_prep.got10k import DATASET, UNUSABLE
from data_prep.tracks import PreparationError
from raw_folders import (
    prepare,
    read_all,
    real_sequence,
    targets,
    touch_frames,
    write_frames,
    write_lines,
)

META = """\
[METAINFO]
url: https://youtu.be/P-fKM-2DHoM
begin: 00:00:01
end: 00:00:10
anno_fps: 10Hz
object_class: ctenophore
motion_class: swimming
major_class: invertebrate
root_class: animal
motion_adverb: slowly
resolution: (1920, 1080)"""


def write_video(split, name, boxes, *, absence, cover, meta: str | None = META):
    folder = split / name
    touch_frames(folder, "%08d.jpg", range(1, len(boxes) + 1))
    write_lines(folder / "groundtruth.txt", *boxes)
    write_lines(folder / "absence.label", *absence)
    write_lines(folder / "cover.label", *cover)
    write_lines(folder / "cut_by_image.label", *"0" * len(boxes))
    if meta:
        write_lines(folder / "meta_info.ini", meta)
    with (split / "list.txt").open("a") as file:
        file.write(f"{name}\n")
    return folder


def write_two(split, kind="Train"):
    boxes = ["347.0000,443.0000,429.0000,272.0000", "-1,-1,-1,-1", "1,1,30,40"]
    write_video(split, f"GOT-10k_{kind}_000001", boxes, absence="010", cover="806")
    boxes = ["11,21,30,40", "11,21,30,40"]
    write_video(
        split, f"GOT-10k_{kind}_000002", boxes, absence="00", cover="80", meta=None
    )


@pytest.mark.parametrize("inner", ["", "train"])
def test_layout(tmp_path, inner):
    write_two(tmp_path / "train")
    tracks, rejections = read_all(DATASET, tmp_path / inner)
    assert not rejections
    assert list(tracks) == ["GOT-10k_Train_000001", "GOT-10k_Train_000002"]
    first, second = tracks.values()
    assert first.boxes[[0, 2]].tolist() == [[346, 442, 429, 272], [0, 0, 30, 40]]
    assert first.visibility.tolist() == [1, 0, 0.75]
    assert first.numbers.tolist() == [1, 2, 3]
    assert first.frames[0] == tmp_path / "train" / first.name / "00000001.jpg"
    assert (first.category, first.size) == ("ctenophore", (1920, 1080))
    assert first.video == "https://youtu.be/P-fKM-2DHoM"
    # Nothing of it is visible, although it is not absent.
    assert second.visibility.tolist() == [1, 0]
    assert (second.category, second.size, second.video) == ("", None, second.name)


def test_validation_videos(tmp_path):
    write_two(tmp_path / "train")
    write_two(tmp_path / "val", "Val")
    tracks, _ = read_all(DATASET, tmp_path, split="val")
    assert list(tracks) == ["GOT-10k_Val_000001", "GOT-10k_Val_000002"]


def test_part_of_the_downloads_without_the_list(tmp_path):
    write_two(tmp_path / "train")
    (tmp_path / "train" / "list.txt").unlink()
    tracks, rejections = read_all(DATASET, tmp_path)
    assert len(tracks) == 2 and not rejections


def test_videos_known_as_unusable_are_left_out(tmp_path):
    assert len(UNUSABLE) == 17
    write_two(tmp_path / "train")
    write_lines(
        tmp_path / "train" / "list.txt", *sorted(UNUSABLE), "GOT-10k_Train_000001"
    )
    tracks, rejections = read_all(DATASET, tmp_path)
    assert list(tracks) == ["GOT-10k_Train_000001"] and not rejections


def test_bad_rows_and_labels(tmp_path):
    folder = write_video(
        tmp_path / "train",
        "GOT-10k_Train_000001",
        ["1,2,3,4", "1/2/3/4", "1,2,3,4", "1,2,3,4", "5,6,7,8"],
        absence=["0", "0", "no", "0", "0"],
        cover=["8", "8", "8", "9", "4"],
    )
    tracks, rejections = read_all(DATASET, tmp_path)
    (track,) = tracks.values()
    assert track.numbers.tolist() == [1, 5]
    assert track.boxes[1].tolist() == [4, 5, 7, 8] and track.visibility[1] == 0.5
    assert [one[:2] for one in rejections] == [
        (str(folder / "groundtruth.txt"), 2),
        (str(folder / "absence.label"), 3),
        (str(folder / "cover.label"), 4),
    ]


@pytest.mark.parametrize("name", ["absence.label", "cover.label"])
def test_without_labels_no_frame_is_known_to_show_the_target(tmp_path, name):
    write_two(tmp_path / "train")
    missing = tmp_path / "train" / "GOT-10k_Train_000001" / name
    missing.unlink()
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert list(tracks) == ["GOT-10k_Train_000002"]
    assert rejection.file == str(missing) and rejection.records == 3
    assert rejection.reason == "cannot be read (No such file or directory)"


def test_a_listed_video_that_is_not_there(tmp_path):
    write_two(tmp_path / "train")
    with (tmp_path / "train" / "list.txt").open("a") as file:
        file.write("GOT-10k_Train_000003\n")
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert len(tracks) == 2
    assert rejection.file.endswith("GOT-10k_Train_000003/groundtruth.txt")


def test_fewer_boxes_than_frames(tmp_path):
    write_two(tmp_path / "train")
    folder = tmp_path / "train" / "GOT-10k_Train_000002"
    touch_frames(folder, "%08d.jpg", [3])
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert rejection.reason == "2 rows for 3 frames, expected one for each"
    assert len(tracks["GOT-10k_Train_000002"].frames) == 2


@pytest.mark.parametrize("resolution", ["", "(1920)", "1920x1080", "(a, b)"])
def test_a_resolution_of_another_form_is_unknown(tmp_path, resolution):
    meta = META.replace("(1920, 1080)", resolution)
    folder = tmp_path / "train"
    write_video(
        folder, "GOT-10k_Train_000001", ["1,2,3,4"], absence="0", cover="8", meta=meta
    )
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert track.size is None and track.category == "ctenophore"


def test_a_folder_without_the_dataset(tmp_path):
    for raw in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(PreparationError, match="has no list.txt"):
            read_all(DATASET, raw)
    write_two(tmp_path / "val", "Val")
    with pytest.raises(PreparationError, match="folders with GOT-10k_Train_"):
        read_all(DATASET, tmp_path / "val")


def test_boxes_keep_the_fractions(tmp_path):
    write_video(
        tmp_path / "train",
        "GOT-10k_Train_000001",
        ["1.5,2.25,3.5,4.75"],
        absence="0",
        cover="8",
    )
    (track,) = read_all(DATASET, tmp_path)[0].values()
    np.testing.assert_array_equal(track.boxes, [[0.5, 1.25, 3.5, 4.75]])


def test_command_on_real_frames(tmp_path):
    frames, boxes = real_sequence("otb_Crossing")
    rows = [f"{x + 1},{y + 1},{w},{h}" for x, y, w, h in boxes[:4]]
    train = tmp_path / "raw" / "train"
    folder = write_video(
        train, "GOT-10k_Train_000001", rows, absence="0100", cover="8084", meta=None
    )
    for number, frame in enumerate(frames[:4], start=1):
        shutil.copy(frame, folder / f"{number:08d}.jpg")
    prepared = prepare("got10k", tmp_path / "raw")
    assert targets(prepared) == {"GOT-10k_Train_000001": [1, 3, 4]}
    assert prepared.index.visibility.tolist() == [1, 1, 0.5]
    for i, row in enumerate([0, 2, 3]):
        record = prepared[i]
        np.testing.assert_allclose(record.size / record.scale, boxes[row, 2:], 1e-5)


def test_command_on_frames_that_change_their_size(tmp_path):
    train = tmp_path / "raw" / "train"
    meta = META.replace("(1920, 1080)", "(64, 48)")
    folder = write_video(
        train,
        "GOT-10k_Train_000001",
        ["11,11,20,20"] * 4,
        absence="0000",
        cover="8888",
        meta=meta,
    )
    write_frames(folder, "%08d.jpg", [1, 2])
    write_frames(folder, "%08d.jpg", [3], size=(32, 24))
    (folder / "00000004.jpg").unlink()
    prepared = prepare("got10k", tmp_path / "raw", "--max-bad", "50%")
    assert targets(prepared) == {"GOT-10k_Train_000001": [1, 2]}
    assert prepared.index.category_names == ("ctenophore",)
    assert prepared.index.video_names == ("https://youtu.be/P-fKM-2DHoM",)
    rejected = json.loads((prepared.folder / "rejected.json").read_text())
    assert [(one["file"], one["frame"]) for one in rejected] == [
        (f"train/{folder.name}/00000003.jpg", 3),
        (f"train/{folder.name}/00000004.jpg", 4),
    ]
    assert "32x24" in rejected[0]["reason"] and "64x48" in rejected[0]["reason"]
