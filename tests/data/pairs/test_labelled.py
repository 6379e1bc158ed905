import dataclasses
import json
import pickle
import shutil

import numpy as np
import pytest

from data_folders import write_classes, write_image
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.pairs import labelled, loader
from siamrpn_jax.data.pairs.labelled import LabelledConfig, open_labelled
from siamrpn_jax.data.read.images import ImageError, read_image
from siamrpn_jax.data.read.tfds import TfdsError
from tfds_folders import picture, write

tfds = pytest.importorskip("tensorflow_datasets")
CLASSES = ("bars", "disc", "square")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    write_classes(root / "train", 5)
    write_classes(root / "val", 2, seed=1)
    return root


def config(folder, **fields) -> LabelledConfig:
    return LabelledConfig(folder=str(folder), **fields)


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_layout_of_imagenet(root):
    training, held_out = open_labelled(config(root), image_size=40)
    assert training.classes == CLASSES
    assert training.describe() == "15 images of 3 classes"
    assert held_out is not None and len(held_out) == 6
    assert [int(held_out[i].label) for i in range(6)] == [0, 0, 1, 1, 2, 2]
    image = training[7].image
    assert (image.shape, image.dtype) == ((40, 40, 3), np.uint8)


def test_one_folder_of_classes_holds_a_share_out(root):
    training, held_out = open_labelled(
        config(root / "train", validation_fraction=0.2), image_size=16
    )
    assert held_out is not None and (len(training), len(held_out)) == (12, 3)
    none = open_labelled(config(root / "train", validation_fraction=0), image_size=16)
    assert (len(none[0]), none[1]) == (15, None)


def test_images_may_lie_deeper(root, tmp_path):
    """As in Tiny ImageNet: ``train/<class>/images/*``."""
    for name in CLASSES:
        shutil.copytree(root / "train" / name, tmp_path / "train" / name / "images")
    training, held_out = open_labelled(config(tmp_path), image_size=16)
    assert held_out is not None and len(training) + len(held_out) == 15


def test_held_out_images_of_tiny_imagenet(root, tmp_path):
    shutil.copytree(root / "train", tmp_path / "train")
    (tmp_path / "val/images").mkdir(parents=True)
    rows = []
    for i, name in enumerate(("square", "bars")):
        shutil.copy(root / "val" / name / "000.png", tmp_path / f"val/images/{i}.png")
        rows.append(f"{i}.png\t{name}\t0\t0\t9\t9\n")
    table = tmp_path / "val/val_annotations.txt"
    table.write_text("".join(rows))
    _, held_out = open_labelled(config(tmp_path), image_size=16)
    assert held_out is not None
    assert [int(held_out[i].label) for i in range(2)] == [2, 0]
    table.write_text("0.png\tcat\n")
    with pytest.raises(InputError, match="line 1: expected .* found .*cat"):
        open_labelled(config(tmp_path), image_size=16)
    table.write_text("../../evil.png\tbars\n")
    with pytest.raises(InputError, match=r"\.\./\.\./evil\.png"):
        open_labelled(config(tmp_path), image_size=16)


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own(root):
    training, _ = open_labelled(config(root), image_size=16)
    orders = [[training._number(epoch, i) for i in range(15)] for epoch in range(3)]
    assert all(sorted(order) == list(range(15)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert not same(training[0], training[15])


def test_an_image_depends_on_seed_and_index_alone(root):
    training, _ = open_labelled(config(root), image_size=16)
    again = pickle.loads(pickle.dumps(training))
    assert all(same(training[i], again[i]) for i in (20, 3, 14))
    other, _ = open_labelled(config(root, seed=1), image_size=16)
    assert not same(training[3], other[3])


def test_any_split_over_hosts_gives_the_same_batches(root):
    training, _ = open_labelled(config(root), image_size=16)
    shares = []
    for index, count in ((0, 1), (0, 2), (1, 2)):
        with loader.batches(
            training, batch_size=4, start_step=3, host_index=index, host_count=count
        ) as stream:
            next(stream)
            shares.append(next(stream))
    whole, first, second = shares
    assert whole.image.shape == (4, 16, 16, 3) and whole.label.dtype == np.int32
    both = (np.concatenate(pair) for pair in zip(first, second, strict=True))
    assert same(whole, both)


def test_held_out_images_are_their_middles(tmp_path):
    image = np.zeros((80, 200, 3), np.uint8)
    image[5:75, 65:135] = 200  # 7/8 of the shorter side
    for name in ("a", "b"):
        write_image(tmp_path / "val" / name / "0.png", image)
        write_image(tmp_path / "train" / name / "0.png", image)
    _, held_out = open_labelled(config(tmp_path), image_size=35)
    assert held_out is not None
    assert (held_out[0].image == 200).all()


def test_parts_are_within_the_image_and_of_the_area_asked_for():
    rng = np.random.default_rng(0)
    parts = [labelled.draw_part(rng, (60, 90, 3), min_area=0.3) for _ in range(300)]
    x, y, w, h = np.array(parts).T
    assert (x >= 0).all() and (y >= 0).all() and (w > 0).all() and (h > 0).all()
    assert (x + w <= 90).all() and (y + h <= 60).all()
    share = w * h / 5400
    assert 0.28 < share.min() < 0.4 and share.max() > 0.7
    assert (w / h > 0.7).all() and (w / h < 1.5).all()
    # A strip has no such part but its middle.
    assert labelled.draw_part(rng, (5, 900, 3), min_area=0.9) == (447, 0, 5, 5)


def test_nothing_is_varied_if_told_so():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (24, 24, 3), np.uint8)
    still = LabelledConfig(min_area=1.0, flip_probability=0, color_probability=0)
    mirror = dataclasses.replace(still, flip_probability=1)
    np.testing.assert_array_equal(
        labelled.vary(image, rng, config=still, size=24),
        labelled.vary(image, rng, config=mirror, size=24)[:, ::-1],
    )


def test_unreadable_images_are_named_or_left_out(root, tmp_path):
    shutil.copytree(root / "train", tmp_path / "all")
    broken = tmp_path / "all/disc/002.png"
    broken.write_bytes(broken.read_bytes()[:200])
    training, _ = open_labelled(
        config(tmp_path / "all", validation_fraction=0), image_size=16
    )
    with pytest.raises(ImageError, match=r"disc/002.png: .*--data.skip-unreadable"):
        [training[i] for i in range(15)]
    patient, _ = open_labelled(
        config(tmp_path / "all", validation_fraction=0, skip_unreadable=True),
        image_size=16,
    )
    with pytest.warns(UserWarning, match=r"left out: .*disc/002.png") as caught:
        labels = [int(patient[i].label) for i in range(15)]
    assert len(caught) == 1 and len(labels) == 15
    for path in (tmp_path / "all").rglob("*.png"):
        path.write_bytes(b"none")
    with pytest.warns(UserWarning), pytest.raises(ImageError, match="none of 15 imag"):
        patient[0]


def test_folders_that_cannot_be_used(root, tmp_path, caplog):
    def refused(folder, match):
        with pytest.raises(InputError, match=match):
            open_labelled(config(folder), image_size=16)

    refused("", "no data; expected train/<class>")
    refused(tmp_path / "nowhere", "nowhere: no such folder; expected train/<class>")
    write_image(tmp_path / "one/train/cat/0.png", read_image(root / "val/disc/000.png"))
    refused(tmp_path / "one", "at least two classes, found cat")
    (tmp_path / "one/train/dog").mkdir()
    (tmp_path / "one/train/dog/notes.txt").touch()
    refused(tmp_path / "one", "train/dog: holds no images of this class")
    shutil.copytree(root, tmp_path / "two")
    (tmp_path / "two/val/disc").rename(tmp_path / "two/val/disk")
    refused(tmp_path / "two", "val: class disk is not in .*two/train")
    shutil.rmtree(tmp_path / "two/val")
    (tmp_path / "two/val").mkdir()  # ILSVRC2012_val_00000001.JPEG, …
    refused(tmp_path / "two", "val: holds no folders of classes")
    (tmp_path / "two/val").rmdir()
    (tmp_path / "two/train/disc/notes.txt").touch()
    open_labelled(config(tmp_path / "two"), image_size=16)
    assert "left out: 1 files that are no images" in caplog.text


@pytest.mark.parametrize("field", ["min_area", "flip_probability", "color_strength"])
def test_values_out_of_range(field):
    with pytest.raises(InputError, match=f"{field} is -1"):
        config("", **{field: -1})


FEATURES = tfds.features.FeaturesDict(
    {
        "file_name": tfds.features.Text(),
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names=["tench", "hen"]),
    }
)


def write_imagenet(folder, levels, **kwargs):
    examples = [
        {"file_name": "a", "image": picture(level), "label": int(level > 100)}
        for level in levels
    ]
    write(folder, FEATURES, examples, **kwargs)


@pytest.mark.parametrize("kind", ["array_record", "tfrecord"])
def test_dataset_of_tfds(tmp_path, kind):
    levels = [50, 150, 60, 160, 70]
    folder = tmp_path / "imagenet2012/5.1.0"
    write_imagenet(tmp_path / "imagenet2012/5.0.0", levels[:1])
    write_imagenet(folder, levels, kind=kind, shards=2)
    for root in (folder, folder.parent):  # of two versions the newest
        training, held_out = open_labelled(
            config(root, validation_fraction=0.4, color_probability=0), image_size=8
        )
        assert training.classes == ("tench", "hen") and len(training) == 3
        assert held_out is not None and len(held_out) == 2
        seen = [d[i] for d in (training, held_out) for i in range(len(d))]
        assert sorted(round(s.image.mean()) for s in seen) == sorted(levels)
        assert all((s.image.mean() > 100) == s.label for s in seen)
        assert same(pickle.loads(pickle.dumps(training))[1], training[1])


def test_held_out_split_of_tfds(tmp_path):
    folder = tmp_path / "imagenet2012/5.1.0"
    infos = []
    for split, levels in (("train", [50, 150, 60]), ("validation", [70, 170])):
        write_imagenet(folder, levels, split=split)
        infos.append(json.loads((folder / "dataset_info.json").read_text()))
    splits = [entry for info in infos for entry in info["splits"]]
    info = json.dumps({**infos[0], "splits": splits})
    (folder / "dataset_info.json").write_text(info)
    training, held_out = open_labelled(config(folder), image_size=8)
    assert held_out is not None and (len(training), len(held_out)) == (3, 2)


def test_records_that_cannot_be_used(tmp_path):
    folder = tmp_path / "birds/1.0.0"
    write_imagenet(folder, [50, 150], kind="tfrecord")
    (path,) = folder.glob("*.tfrecord*")
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(TfdsError, match="is cut short at byte"):
        open_labelled(config(folder), image_size=8)
    path.write_bytes(whole[:12] + b"\xff" * 20 + whole[32:])
    training, _ = open_labelled(config(folder, validation_fraction=0), image_size=8)
    with pytest.raises(ImageError, match="00000-of-00001: record at 0: cannot be read"):
        [training[i] for i in range(2)]
    other = tfds.features.FeaturesDict({"image": tfds.features.Image()})
    write(tmp_path / "bare/1.0.0", other, [])
    with pytest.raises(InputError, match="has image, expected an image and a class"):
        open_labelled(config(tmp_path / "bare/1.0.0"), image_size=8)
