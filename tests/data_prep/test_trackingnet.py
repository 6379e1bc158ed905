import numpy as np
import pytest

from data_prep.trackingnet import DATASET
from data_prep.tracks import PreparationError
from raw_folders import (
    prepare,
    read_all,
    targets,
    touch_frames,
    write_frames,
    write_lines,
)

ROWS = [
    " 1.00,102.00,245.00,174.00",
    " 0.43,102.17,245.73,176.10",
    "-4.07,96.34,236.30,172.80",
]


def write_video(root, chunk, name, rows=ROWS, frames=range(3)):
    folder = root / f"TRAIN_{chunk}"
    touch_frames(folder / "frames" / name, "%d.jpg", frames)
    write_lines(folder / "anno" / f"{name}.txt", *rows)


def write_chunks(root):
    write_video(root, 0, "-3TIfnTSM6c_2")
    write_video(root, 0, "cGJLuwZIG5s_1")
    write_video(root, 2, "cGJLuwZIG5s_0")
    write_video(root, 10, "02bMGGTZE_M_0")
    # The first box only, and archives that were extracted before.
    write_lines(root / "TEST" / "anno" / "0nlxpC_f0wU_0.txt", "71,88,264,253")
    touch_frames(root / "TRAIN_0" / "zips", "%d.zip", [0])
    # What macOS leaves beside copied files.
    write_lines(root / "TRAIN_0" / "anno" / "._cGJLuwZIG5s_1.txt", "Mac OS X")
    touch_frames(root / "TRAIN_0" / "frames" / "cGJLuwZIG5s_1", "._%d.jpg", [0])


def test_layout(tmp_path):
    write_chunks(tmp_path)
    tracks, rejections = read_all(DATASET, tmp_path)
    assert not rejections
    assert list(tracks) == [
        "TRAIN_0/-3TIfnTSM6c_2",
        "TRAIN_0/cGJLuwZIG5s_1",
        "TRAIN_2/cGJLuwZIG5s_0",
        "TRAIN_10/02bMGGTZE_M_0",
    ]
    first, second, third, _ = tracks.values()
    np.testing.assert_array_equal(first.boxes[0], [1, 102, 245, 174])
    np.testing.assert_array_equal(first.boxes[2], [-4.07, 96.34, 236.3, 172.8])
    assert first.numbers.tolist() == [0, 1, 2] and first.visibility.tolist() == [1] * 3
    assert first.frames[1] == tmp_path / "TRAIN_0/frames/-3TIfnTSM6c_2/1.jpg"
    assert (first.video, first.category, first.size) == ("-3TIfnTSM6c", "", None)
    # Two targets of one video, in different chunks.
    assert second.video == third.video == "cGJLuwZIG5s"


def test_chunks(tmp_path):
    write_chunks(tmp_path)
    tracks, _ = read_all(DATASET, tmp_path, chunks=(10, 2))
    assert list(tracks) == ["TRAIN_2/cGJLuwZIG5s_0", "TRAIN_10/02bMGGTZE_M_0"]
    with pytest.raises(PreparationError, match="has no TRAIN_1, TRAIN_3$"):
        read_all(DATASET, tmp_path, chunks=(0, 1, 3))


def test_bad_rows(tmp_path):
    write_video(tmp_path, 0, "a_0", [ROWS[0], "1.00,102.00,-,174.00", ROWS[2]])
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert tracks["TRAIN_0/a_0"].numbers.tolist() == [0, 2]
    assert rejection.file.endswith("TRAIN_0/anno/a_0.txt") and rejection.frame == 1


def test_frames_without_boxes_and_boxes_without_frames(tmp_path):
    write_video(tmp_path, 0, "good_0")
    write_video(tmp_path, 0, "longer_0", frames=range(5))
    write_video(tmp_path, 0, "no-boxes_0", frames=range(4))
    (tmp_path / "TRAIN_0" / "anno" / "no-boxes_0.txt").unlink()
    write_video(tmp_path, 0, "no-frames_0", frames=range(0))
    tracks, rejections = read_all(DATASET, tmp_path)
    assert list(tracks) == ["TRAIN_0/good_0", "TRAIN_0/longer_0"]
    longer, boxes, frames = rejections
    assert longer.reason == "3 rows for 5 frames, expected one for each"
    assert longer.records == 2
    assert boxes.file.endswith("anno/no-boxes_0.txt") and boxes.records == 4
    assert frames.reason == "holds no frames %d.jpg" and frames.records == 3
    assert frames.file.endswith("frames/no-frames_0")


def test_a_folder_without_the_dataset(tmp_path):
    write_lines(tmp_path / "TEST" / "anno" / "0nlxpC_f0wU_0.txt", "71,88,264,253")
    for raw in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(PreparationError, match="has no TRAIN_0 to TRAIN_11"):
            read_all(DATASET, raw)
    (tmp_path / "TRAIN_3").mkdir()
    with pytest.raises(PreparationError, match="chunks hold no anno or frames"):
        read_all(DATASET, tmp_path)


def test_command(tmp_path):
    raw = tmp_path / "raw"
    for chunk, name in [(0, "a_0"), (1, "a_1"), (2, "b_0")]:
        # The second box lies outside of the image, the third is cut by it.
        write_video(raw, chunk, name, [ROWS[0], "900.00,2.00,9.00,9.00", ROWS[2]])
        write_frames(
            raw / f"TRAIN_{chunk}/frames/{name}", "%d.jpg", range(3), size=(320, 300)
        )
    arguments = ["--chunks", "0", "1", "--max-bad", "0.4"]
    for _ in range(2):  # the second run finds all done
        prepared = prepare("trackingnet", raw, *arguments)
        assert targets(prepared) == {"TRAIN_0/a_0": [0, 2], "TRAIN_1/a_1": [0, 2]}
    assert prepared.index.videos.tolist() == [0, 0]
    record = prepared[1]
    np.testing.assert_allclose(record.size / record.scale, [232.23, 172.8], 1e-5)
