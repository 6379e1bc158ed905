import pytest

from data_prep.lasot import CLASSES, DATASET
from data_prep.tracks import PreparationError
from raw_folders import (
    prepare,
    read_all,
    targets,
    touch_frames,
    write_frames,
    write_lines,
)

BOX = "11,21,30,40"


def write_video(root, name, *, rows, occluded, outside, flat=False):
    folder = root / name if flat else root / name.rpartition("-")[0] / name
    touch_frames(folder / "img", "%08d.jpg", range(1, len(rows) + 1))
    write_lines(folder / "groundtruth.txt", *rows)
    write_lines(folder / "full_occlusion.txt", occluded)
    write_lines(folder / "out_of_view.txt", outside)
    write_lines(folder / "nlp.txt", "white cat walking on the grass")
    return folder


def write_plain(root, *names, **options):
    for name in names:
        write_video(root, name, rows=[BOX], occluded="0", outside="0", **options)


def test_layout(tmp_path):
    folder = write_video(
        tmp_path,
        "cat-2",
        rows=[BOX, "1,1,5,6", BOX, "0,0,0,0"],
        occluded="0,1,0,0",
        outside="0,0,0,1",
    )
    tracks, rejections = read_all(DATASET, tmp_path)
    (track,) = tracks.values()
    assert not rejections
    assert (track.name, track.video, track.category) == ("cat-2", "cat-2", "cat")
    assert track.boxes[:2].tolist() == [[10, 20, 30, 40], [0, 0, 5, 6]]
    assert track.visibility.tolist() == [1, 0, 1, 0]
    assert track.numbers.tolist() == [1, 2, 3, 4] and track.size is None
    assert track.frames[3] == folder / "img" / "00000004.jpg"


@pytest.mark.parametrize("flat", [False, True])
def test_splits(tmp_path, flat):
    # cat-1 is in the test set; atv is a class that was added for evaluation.
    names = ["cat-1", "cat-2", "cat-10", "airplane-2", "atv-1"]
    write_plain(tmp_path, *names, flat=flat)
    assert list(read_all(DATASET, tmp_path)[0]) == ["airplane-2", "cat-2", "cat-10"]
    assert list(read_all(DATASET, tmp_path, split="test")[0]) == ["cat-1"]
    assert set(read_all(DATASET, tmp_path, split="all")[0]) == set(names)
    write_lines(tmp_path / "testing_set.txt", "cat-10", "airplane-2")
    assert list(read_all(DATASET, tmp_path)[0]) == ["cat-1", "cat-2"]


def test_there_are_70_classes():
    assert len(CLASSES) == 70 and "electricfan" in CLASSES


def test_bad_rows_and_flags(tmp_path):
    folder = write_video(
        tmp_path,
        "cat-2",
        rows=[BOX, "11,21,30", BOX, BOX],
        occluded="0,0,2,0",
        outside="0,0,0,0",
    )
    tracks, rejections = read_all(DATASET, tmp_path)
    assert tracks["cat-2"].numbers.tolist() == [1, 4]
    assert [one[:2] for one in rejections] == [
        (str(folder / "groundtruth.txt"), 2),
        (str(folder / "full_occlusion.txt"), 3),
    ]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("0,0", "2 labels for 3 rows of groundtruth.txt"),
        ("0,0,0,0", "4 labels for 3 rows of groundtruth.txt"),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_flags_of_another_length_or_none(tmp_path, flags, reason):
    write_plain(tmp_path, "cat-3")
    folder = write_video(
        tmp_path, "cat-2", rows=[BOX] * 3, occluded="0,0,0", outside="0,0,0"
    )
    text = folder / "out_of_view.txt"
    text.unlink() if flags is None else write_lines(text, flags)
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert "cat-2" not in tracks
    assert rejection[:3] == (str(text), None, reason) and rejection.records == 3


def test_one_frame_too_many(tmp_path):
    write_plain(tmp_path, "airplane-14")
    touch_frames(tmp_path / "airplane" / "airplane-14" / "img", "%08d.jpg", [2])
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert rejection.reason == "1 rows for 2 frames, expected one for each"
    assert rejection.records == 1 and len(tracks["airplane-14"].frames) == 1


def test_frames_that_are_not_extracted(tmp_path):
    folder = write_video(
        tmp_path, "cat-2", rows=[BOX] * 2, occluded="0,0", outside="0,0"
    )
    for frame in (folder / "img").iterdir():
        frame.unlink()
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert not tracks and rejection.file == str(folder / "img")
    assert rejection.records == 2


def test_a_folder_without_the_dataset(tmp_path):
    for raw in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(PreparationError, match="expected LaSOT videos, found none"):
            read_all(DATASET, raw)
    write_plain(tmp_path, "cat-1")
    with pytest.raises(PreparationError, match="found 1 videos, none to train"):
        read_all(DATASET, tmp_path)


def test_command(tmp_path):
    raw = tmp_path / "raw"
    for name in ("cat-1", "cat-2", "dog-2"):
        folder = write_video(
            raw,
            name,
            rows=[BOX, BOX, "0,0,0,0", "nan,nan,nan,nan", BOX],
            occluded="0,1,0,0,0",
            outside="0,0,1,1,0",
        )
        write_frames(folder / "img", "%08d.jpg", range(1, 6), size=(80, 80))
    prepared = prepare("lasot", raw, "--split", "train")
    assert targets(prepared) == {"cat-2": [1, 5], "dog-2": [1, 5]}
    assert prepared.index.category_names == ("cat", "dog")
