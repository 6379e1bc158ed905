import gzip
import json

import numpy as np
import pytest

from data_prep.frames import FrameReader
from data_prep.tracks import PreparationError, VideoFrame
from data_prep.youtube_bb import DATASET
from raw_folders import prepare, read_all, targets, write_film, write_frames

FIRST, SECOND = "AAB6lO-XiKE", "_-a_1_2_3+4"  # ids may hold what separates names


def row(
    ms, box="0.25,0.75,0.1,0.6", *, video=FIRST, target="0,person,0", is_="present"
):
    class_id, name, number = target.split(",")
    box = box if is_ == "present" else "-1.0,-1.0,-1.0,-1.0"
    return f"{video},{ms},{class_id},{name},{number},{is_},{box}"


def write_csv(raw, *rows, split="train"):
    raw.mkdir(parents=True, exist_ok=True)
    path = raw / f"yt_bb_detection_{split}.csv"
    path.write_text("".join(f"{text}\n" for text in rows))
    return path


def touch(raw, *names):
    for name in names:
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).touch()


def test_rows_of_a_target_are_a_track_in_the_order_of_time(tmp_path):
    write_csv(
        tmp_path,
        row(2000, "0.25,0.75,0.1,0.6"),
        row(1000, "0,1,0.0,1.0"),
        row(12000, target="13,potted plant,1"),
        row(10000, is_="absent"),
        row(11000, is_="uncertain"),
        row(1033, target="0,person,1"),
    )
    touch(tmp_path, *(f"{FIRST}_{ms}_0_0.jpg" for ms in (2000, 1000)))
    touch(tmp_path, f"{FIRST}_12000_13_1.jpg", f"{FIRST}_1033_0_1.jpg")
    tracks, rejections = read_all(DATASET, tmp_path)
    assert not rejections
    names = [f"{FIRST}+0+0", f"{FIRST}+13+1", f"{FIRST}+0+1"]
    assert list(tracks) == names
    first, second, third = tracks.values()
    assert first.numbers.tolist() == [30, 60, 300, 330]
    assert first.visibility.tolist() == [1, 1, 0, 0] and first.relative
    np.testing.assert_allclose(first.boxes[:2], [[0, 0, 1, 1], [0.25, 0.1, 0.5, 0.5]])
    assert first.frames[0] == tmp_path / f"{FIRST}_1000_0_0.jpg"
    assert [track.video for track in tracks.values()] == [FIRST] * 3
    assert (first.category, second.category) == ("person", "potted plant")
    assert third.numbers.tolist() == [31]  # 30.99


def test_frames_before_clips_before_whole_videos(tmp_path):
    write_csv(tmp_path, *(row(1000, video=v) for v in (FIRST, SECOND)))
    whole = tmp_path / "films" / f"{FIRST}.webm"
    write_film(whole, count=12)
    write_film(tmp_path / "films" / f"{SECOND}.webm", count=12)

    def frames():
        return [track.frames[0] for track in read_all(DATASET, tmp_path)[0].values()]

    assert frames() == [
        VideoFrame(whole, 10),
        VideoFrame(tmp_path / "films" / f"{SECOND}.webm", 10),
    ]
    clip = tmp_path / f"videos/yt_bb_detection_train/0/{SECOND}+0+0.webm"
    write_film(clip, count=2)
    assert frames()[1] == VideoFrame(clip, 0)
    name = f"train/0/{FIRST}_1000_0_0.jpg"
    other = f"youtubebb2017/JPEGImages/{SECOND}+0+0+1000.jpg"
    touch(tmp_path, name, other)
    assert frames() == [tmp_path / name, tmp_path / other]


def test_the_nearest_frame_of_a_film_by_its_rate(tmp_path):
    times = [0, 549, 551, 1000]
    write_csv(tmp_path, *map(row, times))
    film = tmp_path / f"{FIRST}.webm"
    write_film(film, count=30, fps=20)
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert track.frames == [VideoFrame(film, i) for i in (0, 11, 11, 20)]
    assert track.numbers.tolist() == [0, 16, 17, 30]
    levels = [FrameReader().read(frame).mean() for frame in track.frames]
    np.testing.assert_allclose(levels, [0, 88, 88, 160], atol=4)


def test_a_clip_begins_at_the_first_time_and_ends_before_the_last(tmp_path):
    write_csv(tmp_path, row(7000), row(5000, is_="absent"), row(6000), row(9000))
    clip = tmp_path / f"{FIRST}+0+0.webm"
    write_film(clip, count=30)  # 5 s to 8 s
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert track.frames == [VideoFrame(clip, i) for i in (0, 10, 20, 40)]
    write_csv(tmp_path, row(7000), row(5000, is_="absent"), row(8000))
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert track.frames == [VideoFrame(clip, i) for i in (0, 20, 29)]


def test_what_is_not_there_is_listed_and_costs_nothing(tmp_path, caplog):
    gone = [f"gone{i}" for i in range(3)]
    write_csv(
        tmp_path,
        *(row(1000, video=video) for video in (gone[0], FIRST, *gone)),
        row(1000, target="5,bear,2"),
    )
    touch(tmp_path, f"{FIRST}_1000_0_0.jpg")
    tracks, rejections = read_all(DATASET, tmp_path)
    assert list(tracks) == [f"{FIRST}+0+0"]
    assert [one.file for one in rejections] == [f"{FIRST}+5+2", *gone]
    assert {one.records for one in rejections} == {0}
    assert "holds 1 of the 4 videos" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        row("soon"),
        row(3000, "a,b,c,d"),
        row(3000, is_="perhaps"),
        row(3000) + ",0",
        FIRST,
        "",
    ],
)
def test_a_row_that_cannot_be_read_is_one_rejection(tmp_path, text):
    write_csv(tmp_path, row(1000), text, row(2000))
    touch(tmp_path, f"{FIRST}_1000_0_0.jpg")
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert tracks[f"{FIRST}+0+0"].numbers.tolist() == [30, 60]
    assert rejection.file.endswith("yt_bb_detection_train.csv")
    assert repr(text) in rejection.reason and rejection.records == 1


def test_a_film_that_cannot_be_read_is_one_rejection(tmp_path):
    write_csv(tmp_path, row(1000), row(2000), row(3000, is_="absent"))
    (tmp_path / f"{FIRST}.mp4").write_bytes(b"no film")
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert not tracks
    assert rejection.file == str(tmp_path / f"{FIRST}.mp4")
    assert rejection.records == 2 and "video" in rejection.reason


def test_compressed_annotations_and_the_other_split(tmp_path):
    path = write_csv(tmp_path, row(1000), split="validation")
    touch(tmp_path, f"{FIRST}_1000_0_0.jpg")
    expected = read_all(DATASET, tmp_path, split="validation")
    with gzip.open(f"{path}.gz", "wt") as file:
        file.write(path.read_text())
    path.unlink()
    found = read_all(DATASET, tmp_path, split="validation")
    assert list(found[0]) == list(expected[0]) == [f"{FIRST}+0+0"]
    packed = (tmp_path / f"{path.name}.gz").read_bytes()
    (tmp_path / f"{path.name}.gz").write_bytes(packed[:-9])
    with pytest.raises(PreparationError, match="validation.csv: cannot be read"):
        read_all(DATASET, tmp_path, split="validation")


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(PreparationError, match="train.csv: cannot be read"):
        read_all(DATASET, tmp_path)
    write_csv(tmp_path, row(1000), row(1000, video=SECOND))
    touch(tmp_path, "0/other_1000_0_0.jpg", f"{FIRST}.txt", f"{FIRST}.jpg")
    with pytest.raises(PreparationError, match="none of the 2 videos of yt_bb_"):
        read_all(DATASET, tmp_path)


def test_command(tmp_path):
    raw = tmp_path / "raw"
    write_csv(
        raw,
        row(1000, video="gone"),
        row(1000),
        row(3000, is_="absent"),
        row(2000),
        row(1000, target="1,bird,0"),
        row(2000, target="1,bird,0"),
        row(400, video=SECOND),
        row(9000, video=SECOND),
        row(1400, video=SECOND),
    )
    write_frames(raw / "0", f"{FIRST}_%d_0_0.jpg", [1000, 2000])
    write_film(raw / f"{SECOND}.webm", count=20)
    (raw / "1").mkdir()
    (raw / f"1/{FIRST}_1000_1_0.jpg").write_bytes(
        (raw / f"0/{FIRST}_1000_0_0.jpg").read_bytes()
    )
    prepared = prepare("youtube_bb", raw, "--max-bad", "30%", "--per-shard", "1")
    assert targets(prepared) == {
        f"{FIRST}+0+0": [30, 60],
        f"{FIRST}+1+0": [30],
        f"{SECOND}+0+0": [12, 42],
    }
    assert prepared.neighbours == 1
    assert prepared.index.category_names == ("person", "bird")
    assert prepared.index.videos.tolist() == [0, 0, 1]
    sizes = prepared.index.sizes / prepared.index.scales[:, None]
    np.testing.assert_allclose(sizes, [[32, 24]] * 5, rtol=1e-5)
    rejected = json.loads((prepared.folder / "rejected.json").read_text())
    assert [(one["file"], one["records"]) for one in rejected] == [
        (f"1/{FIRST}_2000_1_0.jpg", 1),
        (f"{SECOND}.webm", 1),
        ("gone", 0),
    ]
