"""From units to a prepared folder: plan, shards, rejections, resuming."""

import dataclasses
import functools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep import shards, workers, writer
from data_prep.finish import Summary
from data_prep.shards import Work
from data_prep.tracks import (
    Dataset,
    Options,
    PreparationError,
    Rejection,
    Track,
    Unit,
    VideoFrame,
)
from prepared_folders import DATASET, assert_same_folders, encode
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.crops import format
from siamrpn_jax.data.crops.index import pack_text
from siamrpn_jax.data.crops.reader import is_prepared, open_prepared
from siamrpn_jax.data.read import images
from siamrpn_jax.data.read.array_records import open_array_record


def make_track(name: str = "a", length: int = 6, **changes) -> Track:
    rng = np.random.default_rng(len(name))
    pictures = [rng.integers(0, 256, (60, 80, 3), np.uint8) for _ in range(length)]
    values = {
        "name": name,
        "video": f"{name}.mp4",
        "frames": [encode(p, f"{name}/{i}.jpg") for i, p in enumerate(pictures)],
        "boxes": np.tile([10.0, 20, 30, 16], (length, 1)),
        "numbers": np.arange(length, dtype=np.int64),
        "visibility": np.ones(length, np.float32),
    }
    return Track(**(values | changes))


def dataset(*units: Sequence[Track | Rejection], **changes) -> Dataset:
    """A dataset of these units."""
    keys = [Unit(f"unit {i}", i) for i in range(len(units))]
    values = {
        "name": "made",
        "title": "Made up",
        "layout": "RAW/anything",
        "origin": "nowhere",
        "list_units": lambda options: keys,
        "read_unit": lambda unit: iter(units[unit.content]),
        "units_per_shard": 2,
    }
    return Dataset(**(values | changes))


def prepare(made: Dataset, folder: Path, **options) -> Summary:
    raw = folder / "raw"
    raw.mkdir(exist_ok=True)
    chosen = made.options(raw=raw, out=folder / "out", **options)
    return writer.prepare(made, chosen, run=functools.partial(workers.run, workers=1))


# ------------------------------------------------------------------ what is written


def test_tracks_become_records_in_order(tmp_path):
    first, second = make_track("a", category="cat"), make_track("b", length=3)
    third = make_track("c", length=1, video="a.mp4", category="cat")
    summary = prepare(dataset([first, second], [third]), tmp_path)
    assert (summary.tracks, summary.records, summary.rejected) == (3, 10, 0)
    prepared = open_prepared(tmp_path / "out")
    index = prepared.index
    assert index.names == ("a", "b", "c")
    assert index.starts.tolist() == [0, 6, 9, 10]
    assert index.video_names == ("a.mp4", "b.mp4") and index.videos.tolist() == [
        0,
        1,
        0,
    ]
    assert index.category_names == ("cat",) and index.categories.tolist() == [0, -1, 0]
    assert index.frames.tolist() == [*range(6), *range(3), 0]
    assert [prepared[i].frame for i in range(10)] == index.frames.tolist()
    assert summary.size == sum(
        p.stat().st_size for p in tmp_path.glob("out/made-train*")
    )


def test_neighbours_crops_and_name_reach_the_reader(tmp_path):
    made = dataset([make_track()], neighbours=1)
    prepare(made, tmp_path, quality=50, search_crop=300)
    prepared = open_prepared(tmp_path / "out")
    assert (prepared.name, prepared.neighbours) == ("made", 1)
    assert (prepared.crops.quality, prepared.crops.search_crop) == (50, 300)
    search = images.decode_image(prepared[0].search, name="search")
    assert search.shape == (300, 300, 3)


def test_invisible_targets_are_absent_and_left_out(tmp_path):
    boxes = np.tile([10.0, 20, 30, 16], (6, 1))
    boxes[1] = np.nan  # whatever the box says
    visibility = np.array([1, 0, 0.25, 1, 0, np.nan], np.float32)
    track = make_track(boxes=boxes, visibility=visibility)
    summary = prepare(dataset([track]), tmp_path)
    assert (summary.records, summary.absent, summary.rejected) == (3, 3, 0)
    index = open_prepared(tmp_path / "out").index
    assert index.frames.tolist() == [0, 2, 3]
    assert index.visibility.tolist() == [1, 0.25, 1]


def test_every_k_counts_annotated_frames(tmp_path):
    numbers = np.array([5, 6, 8, 20, 21, 22])
    visibility = np.array([1, 0, 1, 0, 1, 1], np.float32)
    track = make_track(numbers=numbers, visibility=visibility)
    summary = prepare(dataset([track]), tmp_path, every_k=3)
    assert open_prepared(tmp_path / "out").index.frames.tolist() == [5]
    assert summary.absent == 1


def test_limit_and_per_shard_count_units(tmp_path):
    made = dataset(*[[make_track(name, 1)] for name in "abcde"])
    prepare(made, tmp_path, limit=4, per_shard=3)
    assert open_prepared(tmp_path / "out").index.names == tuple("abcd")
    files = sorted(path.name for path in tmp_path.glob("out/made-train*"))
    assert files == [
        "made-train.array_record-00000-of-00002",
        "made-train.array_record-00001-of-00002",
    ]


def test_relative_boxes(tmp_path):
    boxes = np.tile([10 / 80, 20 / 60, 30 / 80, 16 / 60], (6, 1))
    tracks = [make_track("a"), make_track("b", boxes=boxes, relative=True)]
    prepare(dataset(tracks), tmp_path)
    prepared = open_prepared(tmp_path / "out")
    np.testing.assert_allclose(prepared.index.sizes[:6], prepared.index.sizes[6:])


def test_outlines_of_some_tracks(tmp_path):
    ring = np.array([[10.0, 20], [40, 20], [40, 36]])
    outlines = [(ring,), (), (ring, ring)]
    fractions = [(ring / [80, 60],), (), ()]
    boxes = np.tile([10 / 80, 20 / 60, 30 / 80, 16 / 60], (3, 1))
    tracks = [
        make_track("a", 3, outlines=outlines),
        make_track("b", 3),
        make_track("c", 3, outlines=fractions, boxes=boxes, relative=True),
    ]
    prepare(dataset(tracks), tmp_path)
    prepared = open_prepared(tmp_path / "out")
    assert [len(prepared[i].outlines) for i in range(9)] == [1, 0, 2, 0, 0, 0, 1, 0, 0]
    assert prepared.index.outlined.tolist() == [
        len(prepared[i].outlines) > 0 for i in range(9)
    ]
    for i in (0, 6):
        points, size = prepared[i].outlines[0], prepared[i].size
        corners = np.array([[-1, -1], [1, -1], [1, 1]]) * size / 2
        np.testing.assert_allclose(points, corners, rtol=1e-5)


def test_as_many_outlines_as_frames(tmp_path):
    tracks = [make_track("a", 3, outlines=[()]), make_track("b", 3)]
    summary = prepare(dataset(tracks), tmp_path, max_bad="60%")
    (rejection,) = summary.rejections
    assert "1 outlines, expected as many of each" in rejection.reason


def test_shards_from_before_there_were_outlines_go_on(tmp_path):
    """Half of the folder was written then; the rest is written now."""
    made = dataset([make_track("a")], [make_track("b")], units_per_shard=1)
    prepare(made, tmp_path)
    whole = Path(shutil.copytree(tmp_path / "out", tmp_path / "whole"))
    sidecar = tmp_path / "out/.shards/00000.npz"
    with np.load(sidecar) as arrays:
        before = {name: arrays[name] for name in arrays if name != "outlined"}
    np.savez(sidecar, **before)
    (tmp_path / "out/index.npz").unlink()
    (tmp_path / "out/.shards/00001.npz").unlink()
    prepare(made, tmp_path)
    with (
        np.load(whole / "index.npz") as old,
        np.load(tmp_path / "out/index.npz") as new,
    ):
        for name in old:
            np.testing.assert_array_equal(old[name], new[name])


@pytest.mark.parametrize(
    "change",
    [
        {"rejections": pack_text(["[[1,"])},
        {"rejections": pack_text(["[[1]]"])},
        {"rejections": pack_text([])},
        {"counts": None},
        {"size": None},
    ],
    ids=["cut", "fields", "empty", "counts", "size"],
)
def test_a_shard_with_a_broken_sidecar_is_written_again(tmp_path, change):
    made = dataset([make_track("a")], [make_track("b")], units_per_shard=1)
    prepare(made, tmp_path)
    sidecar = tmp_path / "out/.shards/00000.npz"
    whole = sidecar.read_bytes()
    with np.load(sidecar) as arrays:
        found = dict(arrays) | change
    np.savez(sidecar, **{k: v for k, v in found.items() if v is not None})
    prepare(made, tmp_path)
    assert sidecar.read_bytes() == whole


def test_track_numbers_are_unique_to_other_readers(tmp_path):
    made = dataset([make_track("a", 1), make_track("b", 1)], [make_track("c", 2)])
    prepare(made, tmp_path)
    (path,) = tmp_path.glob("out/made-train*")
    stored = [format.from_bytes(data) for data in open_array_record(path).read_all()]
    assert [record.track for record in stored] == [0, 1, 1 << 20, 1 << 20]


def test_tracks_share_the_decoding_of_their_frames(tmp_path, monkeypatch):
    """Each frame of a video is decoded once, unless memory is short."""
    a = make_track("a")
    b = make_track(name="b", frames=a.frames[2:5], length=3, numbers=np.arange(2, 5))
    c = make_track(name="c", frames=a.frames)
    decoded = []
    real = shards.FrameReader._decode
    monkeypatch.setattr(
        shards.FrameReader,
        "_decode",
        lambda self, frame: decoded.append(frame.name) or real(self, frame),
    )
    prepare(dataset([a, b, c]), tmp_path)
    assert decoded == [f"a/{i}.jpg" for i in range(6)]
    prepared = open_prepared(tmp_path / "out")
    assert prepared.index.frames.tolist() == [*range(6), 2, 3, 4, *range(6)]
    assert [prepared[i].search for i in range(6)] == [
        prepared[i].search for i in range(9, 15)
    ]
    assert prepared[6].search == prepared[2].search

    monkeypatch.setattr(shards, "_PENDING", 3)
    again = tmp_path / "again"
    again.mkdir()
    prepare(dataset([a, b, c]), again)
    assert len(decoded) == 18  # a and b, then c
    assert_same_folders(tmp_path / "out", again / "out")


def test_films_of_their_own_are_read_one_after_the_other(tmp_path, monkeypatch):
    """A film for each target of a video: in turn, each would be decoded many times."""
    paths = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    tracks = [
        make_track(path.name, 3, frames=[VideoFrame(path, i) for i in range(3)])
        for path in paths
    ]
    decoded = []
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    monkeypatch.setattr(
        shards.FrameReader,
        "_decode",
        lambda self, frame: decoded.append(frame) or picture,
    )
    prepare(dataset(tracks), tmp_path)
    assert decoded == [VideoFrame(path, i) for path in paths for i in range(3)]


def test_records_of_a_single_track_are_not_held_in_memory(tmp_path, monkeypatch):
    appended = []
    real = shards._Shard._store
    monkeypatch.setattr(
        shards._Shard, "_store", lambda self, r: appended.append(r) or real(self, r)
    )
    seen = []
    track = make_track()

    class Frames(list):
        def __getitem__(self, i):
            seen.append(len(appended))
            return list.__getitem__(self, i)

    prepare(
        dataset([dataclasses.replace(track, frames=Frames(track.frames))]), tmp_path
    )
    assert seen == list(range(6))


# ------------------------------------------------------------------------ rejections


def test_everything_wrong_is_rejected_with_file_frame_and_reason(tmp_path):
    good = make_track()
    frames: Any = list(good.frames)
    boxes = good.boxes.copy()
    frames[0] = tmp_path / "raw" / "missing.jpg"
    frames[1] = frames[1]._replace(data=frames[1].data[:-50])
    boxes[2] = [100, 10, 5, 5]
    boxes[3] = [0, 0, 1, 1]
    boxes[4] = [0, 0, np.nan, 1]
    bad = make_track("bad", frames=frames, boxes=boxes, size=(80, 60))
    twice = make_track("twice", length=3, numbers=np.array([4, 4, 3]))
    sized = make_track("sized", length=1, size=(60, 80))
    uneven = make_track("uneven", length=4, boxes=np.ones((3, 4)))
    parsed = Rejection(str(tmp_path / "raw/x.xml"), None, "no xml", 7)
    summary = prepare(
        dataset([bad, twice, sized, uneven, parsed], [good]), tmp_path, max_bad="90%"
    )
    assert (summary.records, summary.rejected, summary.tracks) == (8, 19, 3)
    found = json.loads((tmp_path / "out/rejected.json").read_text())
    assert [(r["file"], r["frame"], r["records"]) for r in found] == [
        ("uneven", None, 4),
        ("x.xml", None, 7),
        ("missing.jpg", 0, 1),
        ("a/1.jpg", 1, 1),
        ("a/2.jpg", 2, 1),
        ("a/3.jpg", 3, 1),
        ("a/4.jpg", 4, 1),
        ("twice/1.jpg", 4, 1),
        ("twice/2.jpg", 3, 1),
        ("sized/0.jpg", 0, 1),
    ]
    reasons = [r["reason"] for r in found]
    for reason, expected in zip(
        reasons,
        [
            "4 frames, 3 boxes, 4 numbers, 4 visibilities, expected as many of each",
            "no xml",
            "cannot be read (No such file or directory)",
            "cannot be decoded; expected a complete image file, found ",
            "box 100,10,5,5: outside the frame of 80x60",
            "box 0,0,1,1: expected at least 2 pixels a side within the frame of 80x60",
            "box 0,0,nan,1: expected finite numbers",
            "frame number 4 after 4, expected rising numbers",
            "frame number 3 after 4, expected rising numbers",
            "is 80x60 pixels, annotated are 60x80",
        ],
        strict=True,
    ):
        assert reason.startswith(expected)
    assert open_prepared(tmp_path / "out").index.names == ("bad", "twice", "a")


def test_too_many_rejections_finish_nothing(tmp_path):
    boxes = make_track().boxes.copy()
    boxes[:2] = -9
    made = dataset([make_track(boxes=boxes)], [make_track("b")])
    summary = prepare(made, tmp_path)
    assert not summary.accepted and summary.bad == pytest.approx(2 / 12)
    out = tmp_path / "out"
    assert not (out / "index.npz").exists()
    assert not (out / "dataset_info.json").exists()
    assert len(json.loads((out / "rejected.json").read_text())) == 2
    with pytest.raises(InputError, match="not finished"):
        open_prepared(out)
    assert "again with --max-bad 17%" in summary.refusal()
    # With a higher limit nothing is made anew.
    again = prepare(dataclasses.replace(made, read_unit=None), tmp_path, max_bad="17%")
    assert again.accepted and again.written == 0
    assert len(open_prepared(out)) == 10
    # And a lower one takes the index back.
    assert not prepare(made, tmp_path).accepted
    assert is_prepared(out) and not (out / "index.npz").exists()


def test_what_is_rejected_in_every_video_is_no_accident(tmp_path):
    def videos(count):
        return [
            [
                make_track(name),
                Rejection(f"{name}.txt", 6, f"line {n} has no frame {n}"),
            ]
            for n, name in enumerate("abcd"[:count])
        ]

    summary = prepare(dataset(*videos(4)), tmp_path, max_bad="50%")
    assert summary.bad < 0.2 and not summary.accepted
    assert "the same was rejected in every video" in summary.refusal()
    assert not (tmp_path / "out" / "index.npz").exists()
    for made in (dataset(*videos(2)), dataset(*videos(3), [make_track("d")])):
        shutil.rmtree(tmp_path / "out")
        assert prepare(made, tmp_path, max_bad="50%").accepted


def test_what_is_missing_of_half_a_download_is_no_misreading(tmp_path):
    there = [[make_track(name)] for name in "abc"]
    missing = [[Rejection(f"{name}.txt", None, "is missing", 1)] for name in "defg"]
    assert prepare(dataset(*there, *missing), tmp_path, max_bad="50%").accepted


def test_lost_things_that_are_no_records_do_not_count(tmp_path):
    made = dataset([make_track(), Rejection("gone.mp4", None, "not available", 0)])
    summary = prepare(made, tmp_path, max_bad="0")
    assert summary.accepted and len(summary.rejections) == 1


def test_a_dataset_without_any_record_is_not_finished(tmp_path):
    made = dataset([make_track(visibility=np.zeros(6, np.float32))])
    summary = prepare(made, tmp_path, max_bad="100%")
    assert not summary.accepted and summary.absent == 6
    assert "no record could be written" in summary.refusal()


def test_an_empty_shard_among_others(tmp_path):
    empty = make_track("a", visibility=np.zeros(6, np.float32))
    made = dataset([empty], [make_track("b")], [empty], units_per_shard=1)
    prepare(made, tmp_path)
    prepared = open_prepared(tmp_path / "out")
    assert len(prepared) == 6 and prepared[5].frame == 5


def test_the_summary_in_words(tmp_path):
    boxes = make_track().boxes.copy()
    boxes[0], boxes[1], boxes[2] = -9, -8, np.nan
    visibility = np.array([1, 1, 1, 0, 1, 1], np.float32)
    made = dataset([make_track(boxes=boxes, visibility=visibility)])
    summary = prepare(made, tmp_path, max_bad="0.6")
    text = "\n".join(summary.lines())
    assert text.startswith("1 tracks, 2 records, 0.000197 GB in ")
    assert "absent: 1 annotated" in text
    assert "rejected: 3 records (60.00%)" in text
    outside = text.index("  2 records, 2 times: such as: a/0.jpg: box -9,-9,-9,-9: ")
    assert outside < text.index("  1 records, 1 times: a/2.jpg: box nan")
    assert "records/s" in text and "rejected.json" in text


# ------------------------------------------------------------------ options and plans


@pytest.mark.parametrize(
    ("text", "share"),
    [("1%", 0.01), ("0.01", 0.01), ("0", 0), ("100%", 1), (" 2 % ", 0.02)],
)
def test_shares(text, share):
    assert writer.parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "%", "one", "-1%", "101%", "1", "1.5", "nan"])
def test_other_texts_are_no_shares(text):
    with pytest.raises(PreparationError, match="max_bad is .*expected a share"):
        writer.parse_share(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_k": 0}, "every_k is 0"),
        ({"workers": -1}, "workers is -1"),
        ({"limit": 0}, "limit is 0"),
        ({"per_shard": 0}, "per_shard is 0"),
        ({"quality": 101}, "quality is 101"),
        ({"search_crop": 99}, "search_crop is 99"),
    ],
)
def test_options_out_of_range(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        prepare(dataset([make_track()]), tmp_path, **options)


def test_a_missing_raw_folder_is_told_with_layout_and_origin(tmp_path):
    options = Options(raw=tmp_path / "nowhere", out=tmp_path / "out")
    with pytest.raises(PreparationError, match=r"(?s)nowhere: no such.*units\.txt.*te"):
        writer.prepare(DATASET, options, run=workers.run)
    assert not (tmp_path / "out").exists()


def test_a_raw_folder_without_units(tmp_path):
    with pytest.raises(PreparationError, match="nothing of Made up in it"):
        prepare(dataset(), tmp_path)


def test_units_that_are_listed_twice(tmp_path):
    made = dataset(list_units=lambda options: [Unit("a", 0), Unit("a", 1)])
    with pytest.raises(PreparationError, match="a: listed twice"):
        prepare(made, tmp_path)


@dataclasses.dataclass(frozen=True)
class OwnOptions(Options):
    split: str = "train"
    """Of the dataset."""
    where: Path = Path("here")
    """Some path."""


def test_other_options_for_a_begun_folder_are_named(tmp_path):
    made = dataset([make_track()], [make_track("b")], options=OwnOptions)
    prepare(made, tmp_path)
    with pytest.raises(PreparationError) as caught:
        prepare(made, tmp_path, quality=80, every_k=2, split="val", per_shard=1)
    lines = str(caught.value).splitlines()
    assert "begun with other options" in lines[0]
    assert lines[1:5] == [
        "  every_k: 1 -> 2",
        "  per_shard: 2 -> 1",
        "  quality: 90 -> 80",
        "  split: 'train' -> 'val'",
    ]
    # What does not change the shards may change.
    prepare(made, tmp_path, workers=3, max_bad="7%", where=Path("there"))


def test_other_data_for_a_begun_folder(tmp_path):
    prepare(dataset([make_track()], [make_track("b")]), tmp_path)
    units = [Unit("unit 0", 0), Unit("unit 7", 1)]
    with pytest.raises(PreparationError, match=r"units\[1\]: 'unit 1' -> 'unit 7'"):
        prepare(dataset(list_units=lambda options: units), tmp_path)
    with pytest.raises(PreparationError, match=r"units\[1\]: 'unit 1' -> None"):
        prepare(dataset([make_track()]), tmp_path)
    with pytest.raises(PreparationError, match="dataset: 'made' -> 'other'"):
        prepare(dataset([make_track()], name="other"), tmp_path)


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").touch()
    with pytest.raises(PreparationError, match=r"holds thesis\.tex and no preparation"):
        prepare(dataset([make_track()]), tmp_path)
    assert not is_prepared(tmp_path / "out")


def test_a_second_preparation_at_the_same_time_is_refused(tmp_path):
    made = dataset([make_track()])

    def run(work: Work) -> None:
        with pytest.raises(
            PreparationError, match="out: another preparation is at work"
        ):
            prepare(made, tmp_path)
        workers.run(work, workers=1)

    (tmp_path / "raw").mkdir()
    options = Options(raw=tmp_path / "raw", out=tmp_path / "out")
    assert writer.prepare(made, options, run=run).accepted


def test_a_runner_that_writes_elsewhere(tmp_path):
    (tmp_path / "raw").mkdir()
    options = Options(raw=tmp_path / "raw", out=tmp_path / "out")
    with pytest.raises(PreparationError, match="do all workers share this folder"):
        writer.prepare(dataset([make_track()]), options, run=lambda work: None)
