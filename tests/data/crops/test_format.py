"""Records, the index, and prepared folders as they are opened."""

import dataclasses
import json
import pickle
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from prepared_folders import write_prepared, write_prepared_stills
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.crops import format, reader, windows
from siamrpn_jax.data.crops import index as index_module
from siamrpn_jax.data.crops.format import CropConfig, RecordError, make_record
from siamrpn_jax.data.crops.index import Header, Index, Shard, read_index, write_index
from siamrpn_jax.data.crops.reader import is_prepared, open_prepared
from siamrpn_jax.data.read import array_records, images

# TensorFlow Datasets reads its own metadata by a deprecated call of protobuf.
reads_tfds_metadata = pytest.mark.filterwarnings(
    r"ignore:label\(\) is deprecated:DeprecationWarning"
)


def noise(height: int = 240, width: int = 320) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def decode(data: bytes) -> np.ndarray:
    return images.decode_image(data, name="crop")


# ------------------------------------------------------------------------- records


def test_crops_show_the_target_in_their_middle_at_one_scale():
    frame = np.full((300, 400, 3), 40, np.uint8)
    frame[100:140, 201:231] = (250, 200, 10)
    record = make_record(frame, np.array([201.0, 100, 30, 40]), crops=CropConfig())
    # The paper's context: (w + p)(h + p) with p = 35 makes the side of 127 pixels.
    scale = 127 / np.sqrt(65 * 75)
    assert record.scale == pytest.approx(scale)
    np.testing.assert_allclose(record.size, [30 * scale, 40 * scale], rtol=1e-6)
    for data, side in ((record.exemplar, 160), (record.search, 448)):
        crop = decode(data)
        assert crop.shape == (side, side, 3)
        bright = crop[..., 0].astype(float) > 145
        y, x = np.nonzero(bright)
        np.testing.assert_allclose([x.mean() + 0.5, y.mean() + 0.5], side / 2, atol=0.3)
        sides = np.sqrt(bright.sum() * record.size / record.size[::-1])
        np.testing.assert_allclose(sides, record.size, rtol=0.02)


def test_crops_are_those_of_the_tracker():
    frame = cv2.GaussianBlur(noise(), (0, 0), 3)
    frame = cv2.convertScaleAbs(frame, alpha=4, beta=-384)
    box = np.array([50.0, 60, 33, 47])
    record = make_record(frame, box, crops=CropConfig(quality=100))
    side = 160 / record.scale
    window = windows.Window(66.5, 83.5, side, side)
    expected = windows.crop(frame, window, 160).astype(int)
    difference = np.abs(decode(record.exemplar) - expected).mean()
    moved = np.abs(np.roll(expected, 1, axis=1) - expected).mean()
    assert difference < moved / 3


def test_fill_is_the_mean_colour_of_the_frame():
    frame = noise()
    record = make_record(frame, np.array([0.0, 0, 20, 20]), crops=CropConfig())
    np.testing.assert_allclose(record.fill, frame.mean((0, 1)), rtol=1e-5)
    corner = decode(record.search)[:40, :40].mean((0, 1))
    np.testing.assert_allclose(corner, record.fill, atol=2)


def test_boxes_are_clipped_to_the_frame():
    crops = CropConfig()
    beyond = make_record(noise(), np.array([-20.0, 200, 60, 90]), crops=crops)
    within = make_record(noise(), np.array([0.0, 200, 40, 40]), crops=crops)
    assert beyond.search == within.search
    np.testing.assert_array_equal(beyond.size, within.size)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((np.nan, 0, 10, 10), "box nan,0,10,10: expected finite numbers"),
        ((0, 0, np.inf, 10), "expected finite"),
        ((10, 10, 1.9, 10), "at least 2 pixels a side within the frame of 320x240"),
        ((10, 10, 0, 0), "at least 2 pixels"),
        ((10, 10, -5, 10), "at least 2 pixels"),
        ((319, 10, 50, 50), "at least 2 pixels"),
        ((320, 10, 50, 50), "box 320,10,50,50: outside the frame of 320x240"),
        ((10, -50, 50, 50), "outside"),
    ],
)
def test_boxes_that_make_no_record(box, message):
    with pytest.raises(RecordError, match=message):
        make_record(noise(), np.array(box, np.float64), crops=CropConfig())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"quality": 0}, "quality is 0"),
        ({"quality": 101}, "expected 1 to 100"),
        ({"search_crop": 100}, "search_crop is 100, expected at least 127"),
        ({"context": -0.1}, "context"),
    ],
)
def test_crop_configs_out_of_range(values, message):
    with pytest.raises(InputError, match=message):
        CropConfig(**values)


def test_records_as_bytes_and_back():
    box = np.array([50.0, 60, 33, 47])
    record = make_record(
        noise(), box, crops=CropConfig(), track=5 << 20, number=123456, visibility=0.3
    )
    data = format.to_bytes(record)
    again = format.from_bytes(data)
    for ours, theirs in zip(record, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert format.to_bytes(again) == data


def test_outlines_lie_around_the_centre_within_the_box():
    ring = np.array([[50.0, 60], [90, 60], [70, 107]])
    dot = np.array([[60.0, 70], [62, 70], [62, 72], [60, 72]])
    box = np.array([50.0, 60, 33, 47])
    record = make_record(noise(), box, crops=CropConfig(), outlines=[ring, dot])
    clipped = np.minimum(ring, [83, 107]) - [66.5, 83.5]
    np.testing.assert_allclose(record.outlines[0], clipped * record.scale, rtol=1e-5)
    assert [o.shape for o in record.outlines] == [(3, 2), (4, 2)]
    np.testing.assert_allclose(np.ptp(record.outlines[0], axis=0), record.size)
    again = format.from_bytes(format.to_bytes(record))
    for ours, theirs in zip(record.outlines, again.outlines, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_records_without_outlines_are_the_bytes_of_before_there_were_any():
    record = make_record(noise(), np.array([50.0, 60, 33, 47]), crops=CropConfig())
    feature = array_records.example_type().FromString(format.to_bytes(record)).features
    assert set(feature.feature) == set(format.Record._fields) - {"outlines"}
    assert format.from_bytes(format.to_bytes(record)).outlines == ()


def test_an_index_from_before_there_were_outlines(tmp_path):
    header, index = make_index()
    write_index(tmp_path, header, index)
    path = tmp_path / "index.npz"
    with np.load(path) as arrays:
        before = {name: arrays[name] for name in arrays if name != "outlined"}
    np.savez(path, **before)
    assert read_index(tmp_path)[1].outlined.tolist() == [False] * 5


@pytest.mark.parametrize("data", [b"no record at all", b""])
def test_other_bytes_are_no_record(data):
    with pytest.raises(RecordError, match=f"{len(data)} bytes that are no record"):
        format.from_bytes(data)


# ----------------------------------------------------------------------- the index


def make_index() -> tuple[Header, Index]:
    shards = (Shard("a-train.array_record-00000-of-00001", 5, 77),)
    index = Index(
        starts=np.array([0, 2, 5]),
        names=("ägäisch", ""),
        videos=np.array([0, 0], np.int32),
        video_names=("one video",),
        categories=np.array([-1, 0], np.int32),
        category_names=("cat",),
        frames=np.array([3, 7, 1, 2, 4], np.int32),
        sizes=np.arange(10, dtype=np.float32).reshape(5, 2),
        scales=np.arange(5, dtype=np.float32),
        visibility=np.ones(5, np.float32),
        outlined=np.array([False, True, True, False, True]),
    )
    return Header("a", CropConfig(search_crop=300), 3, shards), index


def test_the_index_and_back(tmp_path):
    header, index = make_index()
    write_index(tmp_path, header, index)
    again_header, again = read_index(tmp_path)
    assert again_header == header
    for field in dataclasses.fields(Index):
        ours, theirs = getattr(index, field.name), getattr(again, field.name)
        np.testing.assert_array_equal(ours, theirs)
        assert np.asarray(ours).dtype == np.asarray(theirs).dtype


def test_names_have_no_line_breaks(tmp_path):
    header, index = make_index()
    index = dataclasses.replace(index, names=("a\nb", "c"))
    with pytest.raises(RecordError, match=r"'a\\nb': expected a name without"):
        write_index(tmp_path, header, index)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": np.arange(4)}, r"frames is \(4,\), expected \(5,\)"),
        ({"sizes": np.zeros((5, 4))}, r"sizes is \(5, 4\)"),
        ({"videos": np.zeros(3)}, r"videos is \(3,\), expected \(2,\)"),
        ({"starts": np.array([0, 5, 5])}, "do not divide the 5 records"),
        ({"starts": np.array([1, 2, 5])}, "do not divide the 5 records"),
    ],
)
def test_an_index_that_contradicts_itself(tmp_path, changes, message):
    header, index = make_index()
    write_index(tmp_path, header, dataclasses.replace(index, **changes))
    with pytest.raises(RecordError, match=message):
        open_prepared(tmp_path)


# ------------------------------------------------------------------ prepared folders


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("records") / "prepared"
    write_prepared(folder, tracks=3, length=4, step=5)
    return folder


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def shard_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("scenes-train.array_record-*-of-00002"))


def test_reading_a_prepared_folder(folder):
    assert is_prepared(folder)
    prepared = open_prepared(str(folder))
    assert prepared.name == "scenes" and prepared.neighbours is None
    assert prepared.crops == CropConfig()
    index = prepared.index
    assert len(prepared) == 12
    assert index.starts.tolist() == [0, 4, 8, 12]
    assert index.names == ("scene_0", "scene_1", "scene_2")
    videos = [index.video_names[v] for v in index.videos]
    assert videos == ["video_0", "video_1", "video_2"]
    categories = [index.category_names[c] for c in index.categories]
    assert categories == ["even", "odd", "even"]
    for i in range(12):
        record = prepared[i]
        assert (record.track, record.frame) == (i // 4, i % 4 * 5)
        assert record.frame == index.frames[i] and record.visibility == 1
        np.testing.assert_array_equal(record.size, index.sizes[i])
        assert record.scale == index.scales[i]
        assert decode(record.exemplar).shape == (160, 160, 3)
        assert decode(record.search).shape == (448, 448, 3)


@pytest.mark.parametrize("i", [-1, 12])
def test_records_out_of_range(folder, i):
    with pytest.raises(IndexError, match=f"record {i}, expected 0 to 11"):
        open_prepared(folder)[i]


@reads_tfds_metadata
def test_tensorflow_datasets_opens_the_folder(folder):
    tfds: Any = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder_from_directory(folder)
    assert builder.info.splits["train"].num_examples == 12
    skip = tfds.decode.SkipDecoding()
    decoders = {"exemplar": skip, "search": skip}
    source = builder.as_data_source(split="train", decoders=decoders)
    prepared = open_prepared(folder)
    assert [source[i]["track"] >> 20 for i in range(12)] == [0] * 4 + [1] * 4 + [2] * 4
    for i in (0, 7, 11):
        found, expected = source[i], prepared[i]._asdict()
        for key in expected.keys() - {"track", "outlines"}:
            np.testing.assert_array_equal(found[key], expected[key], err_msg=key)
        assert found["outline"] is None and found["rings"] is None
    decoded = builder.as_data_source(split="train[5:6]")[0]
    np.testing.assert_array_equal(decoded["search"], decode(prepared[5].search))
    assert "tensorflow" not in sys.modules


@reads_tfds_metadata
def test_outlines_are_the_same_to_tensorflow_datasets(tmp_path):
    tfds: Any = pytest.importorskip("tensorflow_datasets")
    write_prepared_stills(tmp_path / "stills", count=4)
    prepared = open_prepared(tmp_path / "stills")
    assert prepared.index.outlined.tolist() == [False, False, True, False, False, True]
    source = tfds.builder_from_directory(tmp_path / "stills").as_data_source("train")
    for i, outlined in enumerate(prepared.index.outlined):
        found, record = source[i], prepared[i]
        assert len(record.outlines) == outlined
        assert outlined or found["outline"] is None
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * record.size / 2
        for points in record.outlines:
            np.testing.assert_array_equal(found["outline"], points)
            np.testing.assert_allclose(points, corners, rtol=1e-5)


def test_a_pickled_folder_opens_again(folder):
    prepared = open_prepared(folder)
    assert prepared[3] is not None  # its reader is open
    again = pickle.loads(pickle.dumps(prepared))
    assert again[7].search == prepared[7].search


def test_threads_share_a_folder_and_few_shards_are_open(folder, monkeypatch):
    monkeypatch.setattr(reader, "_OPEN_SHARDS", 1)
    prepared = open_prepared(folder)
    expected = [prepared[i].search for i in range(12)]
    wrong = []

    def read(seed: int) -> None:
        for i in np.random.default_rng(seed).integers(0, 12, 300):
            if prepared[int(i)].search != expected[i]:
                wrong.append(i)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(prepared._readers) == 1


def test_other_folders_are_not_prepared(tmp_path):
    assert not is_prepared(tmp_path)
    assert not is_prepared(tmp_path / "nowhere")
    with pytest.raises(RecordError, match=f"{tmp_path}: no prepared dataset"):
        open_prepared(tmp_path)


def test_an_unfinished_preparation(copy):
    (copy / "index.npz").unlink()
    assert is_prepared(copy)
    with pytest.raises(RecordError, match="not finished: run the same command again"):
        open_prepared(copy)


def test_a_copy_of_the_shards_alone(copy):
    (copy / "index.npz").unlink()
    shutil.rmtree(copy / ".shards")
    assert is_prepared(copy)
    with pytest.raises(RecordError, match=r"not finished.* index\.npz was not copied"):
        open_prepared(copy)


def test_a_folder_without_the_state_of_its_preparation(copy):
    shutil.rmtree(copy / ".shards")
    assert is_prepared(copy)
    assert open_prepared(copy)[11].frame == 15


def test_a_folder_of_another_format_version(copy, monkeypatch):
    header, index = read_index(copy)
    monkeypatch.setattr(index_module, "FORMAT_VERSION", 2)
    write_index(copy, header, index)
    monkeypatch.undo()
    assert is_prepared(copy)
    with pytest.raises(RecordError, match=r"index\.npz: is of format version 2, .* 1"):
        open_prepared(copy)


@pytest.mark.parametrize("keep", [0, 100, -100])
def test_a_broken_index(copy, keep):
    path = copy / "index.npz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RecordError, match=r"index\.npz: is no whole index"):
        open_prepared(copy)


def test_a_missing_shard_is_named(copy):
    path = shard_files(copy)[1]
    path.unlink()
    with pytest.raises(RecordError, match=f"{path}: cannot be read"):
        open_prepared(copy)


@pytest.mark.parametrize("change", [-1, 1, -70000])
def test_a_shard_of_another_length_is_named(copy, change):
    path = shard_files(copy)[1]
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size + change)
    with pytest.raises(
        RecordError, match=f"{path}: is {size + change} bytes, .*{size}"
    ):
        open_prepared(copy)


def test_a_shard_emptied_while_it_is_used(copy):
    prepared = open_prepared(copy)
    path = shard_files(copy)[1]
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(RecordError, match=f"{path}: record 2 cannot be read"):
        prepared[10]
    assert prepared[0].frame == 0


def test_changed_bytes_are_found_by_their_checksum(copy):
    prepared = open_prepared(copy)
    path = shard_files(copy)[0]
    data = bytearray(path.read_bytes())
    data[data.index(prepared[5].search[5000:5040])] ^= 1
    path.write_bytes(data)
    with pytest.raises(RecordError, match=f"{path}: record 5 cannot be read .*hash"):
        open_prepared(copy)[5]
    assert open_prepared(copy)[3].frame == 15


def test_an_index_of_other_shards(copy):
    header, index = read_index(copy)
    frames = index.frames.copy()
    frames[9] += 1
    write_index(copy, header, dataclasses.replace(index, frames=frames))
    path = shard_files(copy)[1]
    with pytest.raises(RecordError, match=f"{path}: record 1 is not the one"):
        open_prepared(copy)[9]


def test_what_the_metadata_say(folder):
    about = json.loads((folder / "dataset_info.json").read_text())
    assert about["name"] == "scenes" and about["fileFormat"] == "array_record"
    assert about["splits"][0]["shardLengths"] == ["8", "4"]
    assert str(folder) not in (folder / "dataset_info.json").read_text()
