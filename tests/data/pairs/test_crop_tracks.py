import logging
import pickle
import types
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data_folders import write_sequence, write_stills
from prepared_folders import write_prepared
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.crops import format, reader
from siamrpn_jax.data.crops.format import CropConfig, RecordError
from siamrpn_jax.data.crops.index import Index
from siamrpn_jax.data.crops.windows import AugmentConfig, paper_augment, small_augment
from siamrpn_jax.data.pairs import crop_tracks
from siamrpn_jax.data.pairs.crop_tracks import CropTracks, open_tracks
from siamrpn_jax.data.pairs.loader import open_datasets
from siamrpn_jax.data.pairs.pairs import DataConfig, PairDataset
from siamrpn_jax.data.pairs.requests import Picture, render
from siamrpn_jax.data.read.images import decode_image
from siamrpn_jax.data.read.pool import open_pools

STILL = AugmentConfig()
"""Neither moved nor coloured."""


def sampled(
    lengths, *, videos=None, categories=None, numbers=None, neighbours=None, **options
) -> CropTracks:
    """Tracks of an index alone, without records."""
    count, starts = len(lengths), np.cumsum([0, *lengths])
    videos = np.arange(count) if videos is None else np.array(videos)
    categories = np.array([-1] * count if categories is None else categories)
    frames = np.concatenate([np.arange(n) for n in lengths])
    index = Index(
        starts=starts,
        names=tuple(f"track {i}" for i in range(count)),
        videos=videos,
        video_names=tuple(f"video {i}" for i in range(videos.max() + 1)),
        categories=categories,
        category_names=tuple(f"category {i}" for i in range(categories.max() + 1)),
        frames=frames if numbers is None else np.array(numbers),
        sizes=np.full((starts[-1], 2), 60, np.float32),
        scales=np.ones(starts[-1], np.float32),
        visibility=np.ones(starts[-1], np.float32),
        outlined=np.zeros(starts[-1], bool),
    )
    source: Any = types.SimpleNamespace(
        folder=Path("x"),
        name="x",
        index=index,
        neighbours=neighbours,
        crops=CropConfig(),
    )
    return CropTracks(source, np.arange(count), **options)


def pairs_of(tracks: CropTracks, *, augment=STILL, **fields) -> PairDataset:
    empty, _ = open_pools((), validation_fraction=0.0, bytes_limit=0, decoded_limit=0)
    return PairDataset(
        DataConfig(folders=("x",), **fields),
        empty,
        crop_tracks=[tracks],
        exemplar_size=127,
        instance_size=255,
        augment=augment,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Eight tracks of six frames, three frames apart, in four shards."""
    path = tmp_path_factory.mktemp("prepared") / "scenes"
    write_prepared(path, tracks=8, length=6, step=3)
    return path


def datasets(*folders, augment=STILL, **fields) -> tuple[PairDataset, Any]:
    return open_datasets(
        DataConfig(folders=tuple(map(str, folders)), **fields),
        exemplar_size=127,
        instance_size=255,
        augment=augment,
    )


def dataset(*folders, **options) -> PairDataset:
    return datasets(*folders, **{"validation_fraction": 0.0, **options})[0]


# ------------------------------------------------------------------------ sampling


def test_partners_are_close_in_source_frames():
    """Two tracks with gaps: 40 is alone, and 0 of the second track is no neighbour."""
    tracks = sampled([5, 3], numbers=[0, 3, 10, 13, 40, 0, 1, 50])
    frames, rng = tracks.records.index.frames, np.random.default_rng(0)
    seen = Counter()
    for _ in range(600):
        pair = tracks.draw(rng, max_interval=10)
        assert (pair.exemplar < 5) == (pair.search < 5) == (pair.track == 0)
        seen[int(frames[pair.search] - frames[pair.exemplar])] += 1
    assert set(seen) == {0, 1, -1, 3, -3, 7, -7, 10, -10}


def test_neighbours_bound_the_annotated_frames_as_well():
    tracks = sampled([6], numbers=[0, 30, 60, 90, 300, 330], neighbours=1)
    rng = np.random.default_rng(0)
    found = {tuple(tracks.draw(rng, max_interval=99)[1:]) for _ in range(300)}
    # Never a record with itself, as long as there is another.
    assert found == {(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2), (4, 5), (5, 4)}
    alone = sampled([2], numbers=[0, 500], neighbours=1)
    found = {tuple(alone.draw(rng, max_interval=99)[1:]) for _ in range(30)}
    assert found == {(0, 0), (1, 1)}


def test_a_track_of_one_record_is_a_still():
    tracks = sampled([1, 2])
    rng = np.random.default_rng(0)
    assert [tracks.is_still(t) for t in (0, 1)] == [True, False]
    pairs = [tracks.draw(rng, max_interval=5) for _ in range(20)]
    assert {p[1:] for p in pairs if p.track == 0} == {(0, 0)}


@pytest.mark.parametrize(
    ("balance", "shares"),
    [
        ("tracks", [1 / 4, 1 / 4, 1 / 4, 1 / 4]),
        ("records", [0.1, 0.2, 0.3, 0.4]),
        ("categories", [1 / 6, 1 / 3, 1 / 6, 1 / 3]),  # 0 twice, 1, and unknown
    ],
)
def test_balance(balance, shares):
    tracks = sampled([1, 2, 3, 4], categories=[0, 1, 0, -1], balance=balance)
    rng = np.random.default_rng(0)
    drawn = Counter(tracks.draw(rng, max_interval=5).track for _ in range(2000))
    np.testing.assert_allclose([drawn[t] / 2000 for t in range(4)], shares, atol=0.04)


def test_distractors_of_the_same_category_are_of_other_videos():
    tracks = sampled(
        [2] * 7,
        videos=[0, 0, 1, 1, 2, 3, 3],
        categories=[0, 0, 0, 1, 0, -1, 2],
    )
    rng = np.random.default_rng(0)

    def others(track: int) -> set[int] | None:
        pairs = [tracks.draw_same_category(rng, track) for _ in range(60)]
        return {pair.track for pair in pairs if pair is not None}

    assert others(0) == others(1) == {2, 4}
    assert others(2) == {0, 1, 4} and others(4) == {0, 1, 2}
    assert others(3) == others(5) == others(6) == set()
    assert [tracks.category(t) for t in (3, 5)] == ["category 1", ""]


# --------------------------------------------------------------------------- split


def test_the_split_is_by_video(tmp_path):
    write_prepared(tmp_path / "a", tracks=10, length=2)
    parts = open_tracks(
        tmp_path / "a", validation_fraction=0.25, weight=1.0, balance="tracks"
    )
    assert [len(part) for part in parts] == [7, 3]
    assert sorted([*parts[0].tracks, *parts[1].tracks]) == list(range(10))


@pytest.mark.parametrize(("fraction", "held"), [(0.01, 3), (0.5, 3), (1.0, 6), (0, 0)])
def test_tracks_of_one_video_stay_together(monkeypatch, fraction, held):
    """Of three videos; the fourth has no tracks."""
    whole = sampled([1] * 9, videos=[0, 0, 0, 1, 1, 1, 3, 3, 3])
    monkeypatch.setattr(crop_tracks, "open_prepared", lambda _: whole.records)
    parts = open_tracks("x", validation_fraction=fraction, weight=1.0, balance="tracks")
    assert [len(part) for part in parts] == [9 - held, held]
    videos = [set(whole.records.index.videos[part.tracks]) for part in parts]
    assert not videos[0] & videos[1]


def test_a_share_of_the_videos(tmp_path):
    write_prepared(tmp_path / "a", tracks=10, length=2)
    used: list[set[int]] = []
    for fraction in (0.1, 0.5, 1.0):
        training, held = open_tracks(
            tmp_path / "a",
            validation_fraction=0.2,
            fraction=fraction,
            weight=1.0,
            balance="tracks",
        )
        used.append(set(training.tracks.tolist()))
        assert not used[-1] & set(held.tracks.tolist())
    assert [len(tracks) for tracks in used] == [1, 4, 7]  # of those not held out
    assert used[0] < used[1] < used[2]


def test_folders_that_share_videos_hold_out_the_same(tmp_path):
    held = {}
    for name, seed in (("a", 0), ("b", 6)):
        write_prepared(tmp_path / name, tracks=14, length=1, first_seed=seed)
        parts = open_tracks(
            tmp_path / name, validation_fraction=0.3, weight=1.0, balance="tracks"
        )
        held[name] = {parts[1].video(track) for track in parts[1].tracks}
    both = {("video", f"video_{seed}") for seed in range(6, 14)}
    assert held["a"] & both == held["b"] & both != set()


def test_videos_are_held_out_by_name(tmp_path):
    write_prepared(tmp_path / "a", tracks=10, length=2)
    training, held = open_tracks(
        tmp_path / "a",
        validation_fraction=0.0,
        hold_out=("video_3", "video_7"),
        weight=1.0,
        balance="tracks",
    )
    names = {held.video(track)[1] for track in held.tracks}
    assert names == {"video_3", "video_7"} and len(training) == 8


def test_names_to_hold_out_are_there(tmp_path):
    write_prepared(tmp_path / "a", tracks=3, length=2)
    write_sequence(tmp_path / "b" / "clip", 0, length=3)
    write_sequence(tmp_path / "b" / "other", 1, length=3)
    folders = (str(tmp_path / "a"), str(tmp_path / "b"))
    _, validation = datasets(
        *folders, hold_out=("video_1", "clip"), validation_fraction=0.0
    )
    assert validation is not None
    assert "2 records of 1 tracks" in validation.describe()
    with pytest.raises(InputError, match="hold_out: clap, video_9: no such sequence"):
        datasets(*folders, hold_out=("video_9", "clip", "clap"))


def test_negatives_are_of_other_videos_in_other_folders_too(tmp_path):
    """Both folders show the same two videos, so only the other one is a negative."""
    for name in ("a", "b"):
        write_prepared(tmp_path / name, tracks=2, length=3)
    folders = (str(tmp_path / "a"), str(tmp_path / "b"))
    pairs, _ = datasets(*folders, validation_fraction=0.0)
    for i in range(30):
        rng = np.random.default_rng(i)
        target = pairs._draw(rng, i)
        other = pairs._draw_other(rng, i, target)
        assert target.origin[0] == other.origin[0] == "video"
        assert target.origin != other.origin


def test_validation_pairs_are_of_held_out_videos(folder):
    training, validation = datasets(folder, validation_fraction=0.5)
    origins = [
        {part._draw_pair(i)[1].origin for i in range(60)}
        for part in (training, validation)
    ]
    assert [len(o) for o in origins] == [4, 4] and not origins[0] & origins[1]
    assert "24 records of 4 tracks" in training.describe()
    assert "24 records of 4 tracks" in validation.describe()
    assert datasets(folder, validation_fraction=0.0)[1] is None


# --------------------------------------------------------------------------- pairs


def test_a_pair_depends_on_seed_and_index_alone(folder):
    first, second = dataset(folder), pickle.loads(pickle.dumps(dataset(folder)))
    expected = [first[i] for i in range(8)]
    for i in reversed(range(8)):
        for a, b in zip(second[i], expected[i], strict=True):
            np.testing.assert_array_equal(a, b)
    assert (dataset(folder, seed=1)[0].x != expected[0].x).any()


def test_pairs_show_the_stored_crops(folder):
    """Without augmentation the patches are the middles of the crops."""
    pairs = dataset(folder)
    rng, drawn, _, _ = pairs._draw_pair(3)
    del rng
    pair, crops = pairs[3], CropConfig()
    z, x = drawn.z.read().pixels, drawn.x.read().pixels
    assert z.shape == (crops.exemplar_crop,) * 2 + (3,)
    assert x.shape == (crops.search_crop,) * 2 + (3,)
    # 160 and 448 are even, 127 and 255 odd: a patch pixel lies between four of a crop.
    middles = [(im[16:-16, 16:-16], 127) for im in (z,)] + [(x[96:-96, 96:-96], 255)]
    for (middle, size), found in zip(middles, (pair.z, pair.x), strict=True):
        expected = cv2.blur(middle, (2, 2), anchor=(0, 0))[:size, :size]
        assert np.abs(found.astype(int) - expected).mean() < 0.6
    np.testing.assert_allclose(pair.box[:2], 127.5, atol=0.01)


@pytest.mark.parametrize("augment", [paper_augment(), small_augment()])
def test_boxes_are_where_the_target_is(augment):
    """A bright rectangle on black, stored as a record and found by its levels."""
    frame = np.zeros((400, 500, 3), np.uint8)
    frame[150:210, 200:290] = 255
    box = np.array([200.0, 150, 90, 60])
    record = format.make_record(frame, box, crops=CropConfig())
    tracks = sampled([2])
    tracks.records.index.sizes[:] = record.size
    picture = Picture(decode_image(record.search, name="crop"), record.fill)
    tracks.search = lambda record: picture
    pairs = pairs_of(tracks, augment=augment)
    for i in range(30):
        _, drawn, _, _ = pairs._draw_pair(i)
        seen = render(drawn.x, 255)[..., 0] > 127
        columns, rows = np.flatnonzero(seen.any(0)), np.flatnonzero(seen.any(1))
        bounds = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        low, high = drawn.box[:2] - drawn.box[2:] / 2, drawn.box[:2] + drawn.box[2:] / 2
        np.testing.assert_allclose(bounds, np.clip([*low, *high], 0, 255), atol=1.2)


def test_stills_are_turned(tmp_path):
    write_prepared(tmp_path / "stills", tracks=3, length=1)
    turned = AugmentConfig(rotation=0.3, rotation_probability=1.0)
    pairs = dataset(tmp_path / "stills", augment=turned)
    angles = [pairs._draw_pair(i)[1].x.window for i in range(8)]
    assert all(window is not None and window.angle for window in angles)
    write_prepared(tmp_path / "videos", tracks=2, length=3)
    pairs = dataset(tmp_path / "videos", augment=turned)
    windows = [pairs._draw_pair(i)[1].x.window for i in range(8)]
    assert all(window is not None and not window.angle for window in windows)


def test_what_lies_beyond_the_crop_is_filled(folder):
    pairs = dataset(folder, augment=AugmentConfig(search_shift=2.0))
    for i in range(40):
        _, drawn, _, _ = pairs._draw_pair(i)
        window, fill = drawn.x.window, drawn.x.read().fill
        assert window is not None and fill is not None
        if window.cx - window.width / 2 > 450:
            assert np.abs(pairs[i].x - fill).max() < 0.51
            return
    raise AssertionError("no window lay outside")


def test_a_warning_where_the_crops_are_too_small(folder, caplog):
    with caplog.at_level(logging.WARNING):
        dataset(folder, augment=paper_augment())
        assert not caplog.records
        dataset(folder, augment=small_augment())
    assert "up to 643 pixels" in caplog.text and "which have 448" in caplog.text


# ------------------------------------------------------------------------- mixture


def write_plain(root: Path) -> Path:
    for i in range(2):
        write_sequence(root / "videos" / f"clip_{i}", i, length=3)
    write_stills(root / "stills", 3)
    return root


def shares(pairs: PairDataset) -> dict[str, float]:
    sources = zip(pairs._sources, pairs._sources.probabilities(), strict=True)
    return {str(source): float(share) for source, share in sources}


def test_folders_count_by_their_weights(folder, tmp_path):
    one, two = write_plain(tmp_path / "one"), write_plain(tmp_path / "two")
    fields: dict[str, Any] = {"video": 0.3, "stills": 0.1, "composites": 0.0}
    mixed = dataset(one, folder, two, weights=(1.0, 3.0, 4.0), synthetic=2.0, **fields)
    expected = {"video": 0.375, "stills": 0.125, "scenes": 0.3, "synthetic": 0.2}
    assert shares(mixed) == pytest.approx(expected)
    assert "weight 3" in mixed.describe() and "30% scenes" in mixed.describe()
    origins = [mixed._draw_pair(i)[1].origin[0] for i in range(400)]
    assert origins.count("video") == pytest.approx(120, abs=30)
    equal = dataset(one, folder, two, **fields)
    assert shares(equal)["scenes"] == pytest.approx(1 / 3)
    assert set(shares(dataset(one, folder, weights=(1.0, 0.0), **fields))) == {
        "video",
        "stills",
    }


def test_one_plain_folder_is_mixed_as_its_kinds_are(tmp_path):
    pairs = dataset(write_plain(tmp_path))
    expected = {"video": 0.2, "stills": 0.4, "composites": 0.4}
    assert shares(pairs) == pytest.approx(expected)


def test_weights_that_do_not_fit(folder):
    with pytest.raises(InputError, match="weights: 1 numbers for 2 folders"):
        DataConfig(folders=("a", "b"), weights=(1.0,))
    with pytest.raises(InputError, match="no usable pair"):
        dataset(folder, weights=(0.0,))


# ----------------------------------------------------------------------- negatives


def test_negatives_are_of_the_same_category_or_of_another(folder):
    for share, expected in ((1.0, 1.0), (0.0, 0.0), (0.5, 0.5)):
        pairs = dataset(folder, negative_same_category=share)
        rng, same = np.random.default_rng(0), []
        for i in range(100):
            drawn = pairs._draw(rng, i)
            other = pairs._draw_other(rng, i, drawn)
            assert drawn.origin not in other.shown
            same.append(other.category == drawn.category)
        assert np.mean(same) == pytest.approx(expected, abs=0.15)


def test_negatives_fall_back_to_what_there_is(tmp_path):
    write_prepared(tmp_path / "one", tracks=1, length=3)
    pairs = dataset(tmp_path / "one", negative_probability=1.0)
    assert pairs._draw_pair(0)[1].origin == ("video", "video_0")
    rng = np.random.default_rng(0)
    assert pairs._draw_other(rng, 0, pairs._draw(rng, 0)).origin[0] == "scene"
    assert pairs[0].positive == 0


def test_without_other_categories_negatives_are_of_the_same():
    tracks = sampled([2, 2, 2], videos=[0, 0, 1], categories=[0, 0, 0])
    pairs, rng = pairs_of(tracks, negative_same_category=0.0), np.random.default_rng(0)
    for i in range(20):
        drawn = pairs._draw(rng, i)
        other = pairs._draw_other(rng, i, drawn)
        assert other.origin != drawn.origin and other.origin[0] == "video"


# ---------------------------------------------------------------------- bad folders


def test_a_broken_crop_is_named(tmp_path, monkeypatch):
    write_prepared(tmp_path / "a", tracks=1, length=2)
    pairs = dataset(tmp_path / "a")
    read = reader.CropDataset.__getitem__

    def cut_short(self, i):
        record = read(self, i)
        return record._replace(search=record.search[:100])

    monkeypatch.setattr(reader.CropDataset, "__getitem__", cut_short)
    name = r"scenes-train\.array_record-00000-of-00001: record [01]: .*decoded"
    with pytest.raises(RecordError, match=name):
        pairs[0]
    other = pairs.crop_tracks[0]
    monkeypatch.setattr(
        reader.CropDataset,
        "__getitem__",
        lambda self, i: read(self, i)._replace(exemplar=read(self, i).search),
    )
    with pytest.raises(RecordError, match="record 1: .*448x448 .*expected 160x160"):
        other.exemplar(1)


def test_an_unfinished_folder_is_no_plain_one(tmp_path):
    (tmp_path / ".shards").mkdir()
    with pytest.raises(RecordError, match="not finished"):
        dataset(tmp_path)
