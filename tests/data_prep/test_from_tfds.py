import json
import sys

import cv2
import numpy as np
import pytest

from data_prep.command import main
from data_prep.from_tfds import DATASET, FromTfdsOptions, find_version, read_schema
from data_prep.tracks import ImageBytes, PreparationError
from data_prep.vid import OCCLUDED
from paths import SHARED_DATA
from raw_folders import read_all, targets
from siamrpn_jax.common.errors import MissingExtraError
from siamrpn_jax.data.crops.reader import open_prepared
from tfds_folders import picture, write

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record.python.array_record_module")
f = tfds.features


def coco_features():
    """As in TFDS's coco/2017."""
    return f.FeaturesDict(
        {
            "image": f.Image(encoding_format="jpeg"),
            "image/filename": f.Text(),
            "image/id": np.int64,
            "objects": f.Sequence(
                {
                    "id": np.int64,
                    "area": np.int64,
                    "bbox": f.BBoxFeature(),
                    "label": f.ClassLabel(names=["person", "bicycle", "car"]),
                    "is_crowd": np.bool_,
                }
            ),
        }
    )


def voc_features():
    """As in TFDS's voc/2007."""
    label = f.ClassLabel(names=["aeroplane", "bicycle"])
    return f.FeaturesDict(
        {
            "image": f.Image(),
            "image/filename": f.Text(),
            "objects": f.Sequence(
                {
                    "label": label,
                    "bbox": f.BBoxFeature(),
                    "pose": f.ClassLabel(names=["frontal", "rear"]),
                    "is_truncated": np.bool_,
                    "is_difficult": np.bool_,
                }
            ),
            "labels": f.Sequence(label),
            "labels_no_difficult": f.Sequence(label),
        }
    )


def coco_example(data, *objects):
    return {
        "image": data,
        "image/filename": "a.jpg",
        "image/id": 7,
        "objects": [
            {
                "id": i,
                "area": 9,
                "bbox": f.BBox(*map(float, box)),
                "label": label,
                "is_crowd": crowd,
            }
            for i, (box, label, crowd) in enumerate(objects)
        ],
    }


@pytest.mark.parametrize("kind", ["array_record", "tfrecord"])
def test_objects_are_tracks_of_one_frame(tmp_path, kind):
    examples = [
        coco_example(
            picture(10),
            ((0.1, 0.2, 0.5, 0.6), "car", False),
            ((0, 0, 1, 1), "person", True),
            ((0, 0, 0.25, 1), "bicycle", False),
        ),
        coco_example(picture(20)),
        coco_example(picture(30), ((0, 0, 1, 1), "person", False)),
    ]
    folder = tmp_path / "coco/2017/1.1.0"
    write(folder, coco_features(), examples, kind=kind, shards=2)
    tracks, rejections = read_all(DATASET, tmp_path, dataset="coco/2017")
    assert not rejections
    # Shard by shard: the first holds the first and the third example.
    assert {name: track.category for name, track in tracks.items()} == {
        "coco/2017/train/0#0": "car",
        "coco/2017/train/0#2": "bicycle",
        "coco/2017/train/1#0": "person",
    }
    first = tracks["coco/2017/train/0#0"]
    assert first.relative and first.video == "coco/2017/train/0"
    np.testing.assert_allclose(first.boxes, [[0.2, 0.1, 0.4, 0.4]], atol=1e-6)
    np.testing.assert_array_equal(
        tracks["coco/2017/train/0#2"].boxes, [[0, 0, 1, 0.25]]
    )
    assert first.frames == [ImageBytes("coco/2017/train/0", picture(10))]


def test_marks(tmp_path):
    def example(**marks):
        both = {"is_truncated": False, "is_difficult": False} | marks
        box = {"label": "bicycle", "bbox": f.BBox(0.0, 0.0, 1.0, 1.0), "pose": "rear"}
        return {
            "image": picture(1),
            "image/filename": "a.jpg",
            "objects": [box | both],
            "labels": ["bicycle"],
            "labels_no_difficult": [],
        }

    examples = [example(), example(is_truncated=True), example(is_difficult=True)]
    write(tmp_path / "voc/2007/5.0.0", voc_features(), examples)
    tracks, _ = read_all(DATASET, tmp_path, dataset="voc/2007")
    assert {name: track.visibility.tolist() for name, track in tracks.items()} == {
        "voc/2007/train/0#0": [1],
        "voc/2007/train/1#0": [OCCLUDED],
    }


def test_one_box_at_the_top(tmp_path):
    features = f.FeaturesDict(
        {
            "a_mask": f.Image(shape=(None, None, 1)),
            "image": f.Image(),
            "label": f.ClassLabel(num_classes=200),
            "bbox": f.BBoxFeature(),
        }
    )
    example = {
        "a_mask": cv2.imencode(".png", np.zeros((4, 4, 1), np.uint8))[1].tobytes(),
        "image": picture(5),
        "label": 17,
        "bbox": f.BBox(0.5, 0.25, 1.0, 1.0),
    }
    write(tmp_path / "birds/all/1.0.0", features, [example])
    (track,) = read_all(DATASET, tmp_path, dataset="birds/all")[0].values()
    np.testing.assert_array_equal(track.boxes, [[0.25, 0.5, 0.75, 0.5]])
    assert track.category == "17"
    assert track.frames == [ImageBytes("birds/all/train/0", picture(5))]


def test_versions(tmp_path):
    for version in ("1.9.0", "1.10.0", "1.2.0"):
        write(tmp_path / f"coco/2017/{version}", coco_features(), [])
    newest = tmp_path / "coco/2017/1.10.0"
    assert find_version(tmp_path, "coco/2017") == newest
    assert find_version(tmp_path, "coco/2017:1.2.0") == tmp_path / "coco/2017/1.2.0"
    assert find_version(newest, "coco/2017") == newest
    with pytest.raises(PreparationError, match="holds no 3.0.0, only 1.10.0, 1.2.0"):
        find_version(tmp_path, "coco/2017:3.0.0")
    with pytest.raises(PreparationError, match="coco: holds no version .*, only 2017"):
        find_version(tmp_path, "coco")
    with pytest.raises(PreparationError, match="voc/2007: holds no version that TFDS"):
        find_version(tmp_path, "voc/2007")


def test_what_cannot_be_used_is_named(tmp_path):
    plain = f.FeaturesDict({"image": f.Image(), "label": f.ClassLabel(num_classes=2)})
    write(tmp_path / "plain/x/1.0.0", plain, [])
    with pytest.raises(PreparationError, match="has image, label, expected an image"):
        read_all(DATASET, tmp_path, dataset="plain/x")
    other = f.FeaturesDict({"image": f.Image(), "b": f.BBoxFeature(bbox_format="XYWH")})
    write(tmp_path / "other/x/1.0.0", other, [])
    with pytest.raises(PreparationError, match="boxes are XYWH, expected REL_YXYX"):
        read_all(DATASET, tmp_path, dataset="other/x")
    folder = tmp_path / "coco/2017/1.0.0"
    write(folder, coco_features(), [])
    with pytest.raises(PreparationError, match="has no split 'test', only train"):
        read_all(DATASET, tmp_path, dataset="coco/2017", split="test")
    (folder / "coco-train.array_record-00000-of-00001").unlink()
    with pytest.raises(PreparationError, match="holds no array_record or tfrecord"):
        read_all(DATASET, tmp_path, dataset="coco/2017")
    (folder / "dataset_info.json").write_text("{}")
    with pytest.raises(PreparationError, match="dataset_info.json: cannot be read"):
        read_all(DATASET, tmp_path, dataset="coco/2017")


def test_videos_need_tensorflow(tmp_path, monkeypatch):
    folder = tmp_path / "davis/480p/1.0.0"
    write(folder, coco_features(), [])
    text = (folder / "features.json").read_text()
    assert '"objects"' in text

    def needs_tensorflow(folder):
        raise ModuleNotFoundError("No module named 'tensorflow'")

    monkeypatch.setattr(f.FeatureConnector, "from_config", needs_tensorflow)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingExtraError, match=r"siamrpn-jax\[tf\]"):
        read_schema(folder)


@pytest.mark.parametrize("kind", ["array_record", "tfrecord"])
def test_files_that_are_not_whole(tmp_path, kind):
    folder = tmp_path / "coco/2017/1.0.0"
    examples = [coco_example(picture(9), ((0, 0, 1, 1), "car", False))] * 4
    write(folder, coco_features(), examples, kind=kind, shards=2)
    first, second = sorted(folder.glob("coco-train*"))
    data = second.read_bytes()
    for broken in (data[:-10], data[:5], b"", bytes(100), b"x" * 100_000):
        second.write_bytes(broken)
        with pytest.raises(PreparationError, match="00001-of-00002: "):
            read_all(DATASET, tmp_path, dataset="coco/2017")
    second.unlink()
    with pytest.raises(PreparationError, match="holds 1 .* files of train, expected 2"):
        read_all(DATASET, tmp_path, dataset="coco/2017")


def test_a_record_that_cannot_be_read_is_one_rejection(tmp_path):
    folder = tmp_path / "coco/2017/1.0.0"
    examples = [coco_example(picture(n), ((0, 0, 1, 1), "car", False)) for n in (1, 2)]
    write(folder, coco_features(), examples, kind="tfrecord")
    (path,) = folder.glob("coco-train*")
    data = bytearray(path.read_bytes())
    data[12:40] = bytes([255]) * 28
    path.write_bytes(data)
    tracks, (rejection,) = read_all(DATASET, tmp_path, dataset="coco/2017")
    assert list(tracks) == ["coco/2017/train/1#0"]
    assert rejection.file == str(path) and rejection.records == 1
    assert rejection.reason.startswith("coco/2017/train/0 cannot be read (")


def test_command_without_tensorflow(tmp_path):
    data = picture(80)
    if (SHARED_DATA / "dev_sequences").is_dir():
        data = (SHARED_DATA / "dev_sequences/vot_car/img/00000001.jpg").read_bytes()
    examples = [
        coco_example(data, ((0.25, 0.25, 0.5, 0.75), "car", False)),
        coco_example(data[:-100], ((0.25, 0.25, 0.5, 0.75), "car", False)),
        coco_example(data, ((0.25, 0.25, 0.5, 0.75), "person", False)),
    ]
    raw = tmp_path / "raw"
    write(raw / "coco/2017/1.1.0", coco_features(), examples)
    out = ["--out", str(tmp_path / "out"), "--workers", "1", "--max-bad", "50%"]
    before = "tensorflow" in sys.modules
    main("from_tfds", ["coco/2017", "--raw", str(raw), *out])
    assert ("tensorflow" in sys.modules) == before
    prepared = open_prepared(tmp_path / "out")
    names = ["coco/2017/train/0#0", "coco/2017/train/2#0"]
    assert targets(prepared) == {name: [0] for name in names}
    assert prepared.index.category_names == ("car", "person")
    (rejected,) = json.loads((tmp_path / "out/rejected.json").read_text())
    assert rejected["file"] == "coco/2017/train/1"


class TinyBoxes(tfds.core.GeneratorBasedBuilder):
    """A dataset that TFDS itself can prepare."""

    __module__ = "tiny_boxes"  # TFDS looks for files beside a module in a package

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=coco_features())

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(5):
            boxes = [((0, 0, 1, 0.5), "car", False)] * i
            yield i, coco_example(picture(9 * i), *boxes)


@pytest.mark.filterwarnings(r"ignore:label\(\) is deprecated:DeprecationWarning")
def test_what_tfds_itself_prepares(tmp_path):
    TinyBoxes(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    tracks, rejections = read_all(DATASET, tmp_path, dataset="tiny_boxes")
    assert not rejections and len(tracks) == 0 + 1 + 2 + 3 + 4
    assert len({track.video for track in tracks.values()}) == 4
    for track in tracks.values():
        np.testing.assert_array_equal(track.boxes, [[0, 0, 0.5, 1]])


def test_the_default_folder_is_that_of_tfds(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    options = FromTfdsOptions(dataset="voc/2007", out=tmp_path / "out")
    assert options.raw == tmp_path and options.split == "train"
