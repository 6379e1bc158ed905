"""All that reads files of users: a sound file for each, and what must hold of it."""

import functools
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import scipy.io

import torch_bytes
from data_folders import write_sequence, write_stills
from data_prep import coco, folder, got10k, lasot, trackingnet, vid, voc, youtube_bb
from data_prep.tracks import Rejection, Track
from prepared_folders import write_prepared
from random_variables import random_variables
from siamrpn_jax.api import Tracker
from siamrpn_jax.common import configs
from siamrpn_jax.data.crops.reader import open_prepared
from siamrpn_jax.data.pairs import labelled
from siamrpn_jax.data.read import benchmarks, images, sequences, stills, tables
from siamrpn_jax.evaluation import annotations, results
from siamrpn_jax.evaluation.report import plots
from siamrpn_jax.evaluation.vot import dataset as vot
from siamrpn_jax.labelling.session import Session
from siamrpn_jax.media.video import Video
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.presets import small
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.training import checkpoints
from siamrpn_jax.weights import bundled, find, read_file
from siamrpn_jax.weights.matconvnet import read_matconvnet
from siamrpn_jax.weights.torch_files import read_torch
from siamrpn_jax.weights.torch_layouts import read_state
from small_models import tiny_model


class Reader(NamedTuple):
    """Something that reads a file."""

    make: Callable[[Path], Path]
    """Writes a sound file into a folder, with all beside it; returns the one that will
    be damaged."""

    read: Callable[[Path], Any]
    """Reads it."""

    check: Callable[[Any], bool] = lambda _: True
    """Whether what was read makes sense: if not, it was accepted in silence."""


def finite_or_absent(boxes: np.ndarray) -> bool:
    """Rows are boxes, or not a number at all."""
    boxes = np.asarray(boxes, np.float64)
    missing = np.isnan(boxes).all(axis=-1)
    return bool((np.isfinite(boxes).all(axis=-1) | missing).all())


# ------------------------------------------------------------------- text and tables


def _text(name: str, *lines: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
        return path

    return make


def _sequence(root: Path) -> Path:
    write_sequence(root / "clip", 0, length=6)
    return root / "clip" / "groundtruth.txt"


def _benchmark(name: str, text: str, *lines: str, beside: dict[str, str] | None = None):
    """Frames with a number each, and the text file of a benchmark's layout."""

    def make(root: Path) -> Path:
        path = _text(text, *lines)(root)
        for other, content in (beside or {}).items():
            _text(other, content)(root)
        return path

    def read(path: Path) -> Any:
        root = path
        for _ in Path(text).parts:
            root = root.parent
        if name == "otb":  # of which one sequence is there
            return [benchmarks._READERS[name].read(root, Path(text).parts[0])]
        return benchmarks.read_benchmark(name, root)  # pyright: ignore

    def check(found: Any) -> bool:
        return all(finite_or_absent(one.boxes) for one in found)

    return Reader(make, read, check)


def _tiny_imagenet(root: Path) -> Path:
    for name in ("cat", "dog"):
        _images(root, f"train/{name}", "%d.jpg", 2)
    _images(root, "val/images", "%d.jpg", 2)
    return _text("val/val_annotations.txt", "1.jpg\tcat\t0\t0", "2.jpg\tdog\t0\t0")(
        root
    )


def _read_labelled(path: Path) -> Any:
    config = labelled.LabelledConfig(folder=str(path.parent.parent))
    _, held_out = labelled.open_labelled(config, image_size=16)
    return held_out._source._labels if held_out else ()  # pyright: ignore


def _images(root: Path, folder: str, pattern: str, count: int) -> None:
    for number in range(1, count + 1):
        path = root / folder / (pattern % number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _with_images(reader: Reader, folder: str, pattern: str, count: int) -> Reader:
    def make(root: Path) -> Path:
        _images(root, folder, pattern, count)
        return reader.make(root)

    return reader._replace(make=make)


BOXES = ("10,20,30,40", "11,20,30,41.5", "nan,nan,nan,nan", "12,21,30,42")


def _parse_all(dataset: Any, **options: Any) -> Callable[[Path], Any]:
    """Everything that a parser of ``data_prep`` yields, of the file's root folder."""

    def read(path: Path) -> Any:
        root = next(p for p in path.parents if (p / "ROOT").exists())
        given = dataset.options(raw=root, out=root / "out", **options)
        units = dataset.list_units(given)
        return [one for unit in units for one in dataset.read_unit(unit)]

    return read


def _tracks_make_sense(found: Any) -> bool:
    """As far as the writer does not look at each box and frame itself."""
    for one in found:
        if isinstance(one, Rejection):
            continue
        assert isinstance(one, Track)
        if len({len(one.frames), len(one.boxes), len(one.numbers)}) > 1:
            return False
        if np.isnan(np.asarray(one.visibility, np.float64)).any():
            return False
    return True


def _parser(make: Callable[[Path], Path], dataset: Any, **options: Any) -> Reader:
    def rooted(root: Path) -> Path:
        (root / "ROOT").touch()
        return make(root)

    return Reader(rooted, _parse_all(dataset, **options), _tracks_make_sense)


def _box_file(root: Path) -> Path:
    _images(root, "clip", "%d.png", 4)
    rows = ["frame,track,x,y,w,h", *(f"{i},a,{row}" for i, row in enumerate(BOXES))]
    return _text("clip.csv", *rows)(root)


def _got10k(root: Path) -> Path:
    _images(root, "train/GOT-10k_Train_000001", "%08d.jpg", 4)
    _text("train/list.txt", "GOT-10k_Train_000001")(root)
    for name, values in (("absence", "0\n0\n1\n0"), ("cover", "8\n8\n0\n4")):
        _text(f"train/GOT-10k_Train_000001/{name}.label", values)(root)
    return _text("train/GOT-10k_Train_000001/groundtruth.txt", *BOXES)(root)


def _lasot(root: Path) -> Path:
    _images(root, "bird/bird-1/img", "%08d.jpg", 4)
    for name in ("full_occlusion", "out_of_view"):
        _text(f"bird/bird-1/{name}.txt", "0,0,1,0")(root)
    return _text("bird/bird-1/groundtruth.txt", *BOXES)(root)


def _trackingnet(root: Path) -> Path:
    _images(root, "TRAIN_0/frames/abc_0", "%d.jpg", 4)
    return _text("TRAIN_0/anno/abc_0.txt", *BOXES)(root)


VOC_XML = """<annotation><size><width>64</width><height>48</height></size>
<object><name>dog</name><difficult>0</difficult><truncated>1</truncated><bndbox>
<xmin>5</xmin><ymin>6</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>
<attributes><attribute><name>rotation</name><value>9.5</value></attribute></attributes></object>
</annotation>"""


def _voc(root: Path) -> Path:
    _text("VOC2007/ImageSets/Main/trainval.txt", "000005")(root)
    _images(root, "VOC2007/JPEGImages", "%06d.jpg", 5)
    return _text("VOC2007/Annotations/000005.xml", VOC_XML)(root)


VID_XML = """<annotation><size><width>64</width><height>48</height></size>
<object><trackid>0</trackid><name>n02084071</name><bndbox><xmax>30</xmax>
<xmin>5</xmin><ymax>40</ymax><ymin>6</ymin></bndbox><occluded>0</occluded>
<generated>0</generated></object></annotation>"""


def _vid(root: Path) -> Path:
    video = "ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000"
    _images(root, f"Data/VID/train/{video}", "%06d.JPEG", 2)
    _text(f"Annotations/VID/train/{video}/000001.xml", VID_XML)(root)
    return _text(f"Annotations/VID/train/{video}/000002.xml", VID_XML)(root)


def _youtube_bb(root: Path) -> Path:
    names = [f"abc_{ms}_1_0.jpg" for ms in (1000, 2000)]
    for name in names:
        (root / name).touch()
    rows = [f"abc,{ms},1,dog,0,present,.1,.5,.2,.6" for ms in (1000, 2000)]
    return _text("yt_bb_detection_train.csv", *rows)(root)


def _stills(root: Path) -> Path:
    write_stills(root, 3)
    return root / "annotations.json"


def _coco(root: Path) -> Path:
    write_stills(root / "train2017", 3)
    content = (root / "train2017" / "annotations.json").read_text()
    return _text("annotations/instances_train2017.json", content)(root)


def _stills_make_sense(found: Any) -> bool:
    return all(
        np.isfinite(item.box).all() and (item.box[2:] > 0).all()
        for image in found.images
        for item in image.objects
    )


# ------------------------------------------------------------------------ evaluation

PYSOT = {
    "ball": {
        "width": 64,
        "height": 48,
        "gt_rect": [[1, 2, 30, 40], [2, 2, 30, 40]],
        "img_names": ["ball/1.jpg", "ball/2.jpg"],
        "camera_motion": [0, 1],
        "attr": ["Fast"],
    }
}


def _coco_video(root: Path) -> Path:
    _images(root, "images", "%02d.jpg", 2)
    content = {
        "videos": [{"id": 1, "name": "v"}],
        "images": [
            {"id": n, "file_name": f"{n:02d}.jpg", "video_id": 1, "frame_index": n}
            for n in (1, 2)
        ],
        "categories": [{"id": 3, "name": "dog"}],
        "annotations": [
            {"id": n, "image_id": n, "track_id": 5, "category_id": 3}
            | {"bbox": [1, 2, 30, 40], "lost": n == 2}
            for n in (1, 2)
        ],
    }
    return _text("labels.json", json.dumps(content))(root)


def _vot_sequence(root: Path) -> Path:
    _images(root, "ball/color", "%08d.jpg", 2)
    _text("list.txt", "ball")(root)
    cv2.imwrite(str(root / "ball/color/00000001.jpg"), np.zeros((48, 64, 3), np.uint8))
    return _text("ball/groundtruth.txt", "1,2,30,40", "1,2,30,2,30,40,1,40")(root)


def _regions_are_finite(found: Any) -> bool:
    return all(np.isfinite(region).all() for one in found for region in one.regions)


# --------------------------------------------------------------------- binary files


def _image(suffix: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        rng = np.random.default_rng(0)
        path = root / f"image{suffix}"
        picture = cv2.resize(rng.integers(0, 255, (8, 9, 3), np.uint8), (90, 60))
        cv2.imwrite(str(path), picture)
        return path

    return make


def _read_image(path: Path) -> Any:
    return images.read_size(path), images.read_image(path)


def _image_is_its_header(found: Any) -> bool:
    size, image = found
    return image.shape[1::-1] == tuple(size) and image.dtype == np.uint8


def _film(root: Path) -> Path:
    path = root / "film.avi"
    fourcc = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), fourcc, 10, (64, 48))
    for level in range(6):
        writer.write(np.full((48, 64, 3), 30 * level, np.uint8))
    writer.release()
    return path


def _released(root: Path) -> Path:
    path = root / "weights.safetensors"
    path.write_bytes(find(bundled()[0]).read_bytes()[:])
    return path


def _torch(root: Path) -> Path:
    saved = {"state_dict": {"w": np.ones((2, 3), np.float32)}, "epoch": 3}
    path = root / "model.pth"
    path.write_bytes(torch_bytes.zip_bytes(saved))
    return path


def _legacy(root: Path) -> Path:
    path = root / "legacy.pth"
    path.write_bytes(torch_bytes.legacy_bytes({"w": np.ones((2, 3), np.float32)}))
    return path


def _matconvnet(root: Path) -> Path:
    path, rng = root / "net.mat", np.random.default_rng(0)
    params = {"adjust_f": np.full((1, 1), 1e-3), "adjust_b": np.zeros((1, 1))}
    for i in range(1, 6):
        params[f"conv{i}f"] = rng.random((1, 1, 3 if i == 1 else 2, 2))
        params |= {f"{name}": np.ones((2, 1)) for name in (f"conv{i}b", f"bn{i}m")}
        params |= {f"bn{i}b": np.zeros((2, 1)), f"bn{i}x": np.ones((2, 2))}
    table = np.zeros(len(params), [("name", "O"), ("value", "O")])
    for row, (name, value) in zip(table, params.items(), strict=True):
        row["name"], row["value"] = name, value.astype(np.float32)
    scipy.io.savemat(path, {"net": {"params": table}})
    return path


def _tensors_are_whole(found: dict[str, np.ndarray]) -> bool:
    return len(found) == 27 and all(a.dtype == np.float32 for a in found.values())


def _index(root: Path) -> Path:
    write_prepared(root / "prepared", tracks=2, length=3)
    return root / "prepared" / "index.npz"


def _shard(root: Path) -> Path:
    write_prepared(root / "prepared", tracks=2, length=3)
    return next((root / "prepared").glob("*.array_record-*"))


def _read_prepared(path: Path) -> Any:
    dataset = open_prepared(path.parent)
    return [dataset[i] for i in range(len(dataset))]


@functools.cache
def _tracker() -> Tracker:
    model = SiamRPN(tiny_model(widths=(4, 6, 8), width=8))
    return Tracker(model, random_variables(model.init_variables), TrackerConfig())


def _session(root: Path) -> Path:
    (root / "film").mkdir(exist_ok=True)
    for number in range(3):
        picture = np.full((48, 64, 3), 60 * number, np.uint8)
        cv2.imwrite(str(root / f"film/{number}.png"), picture)
    session = Session(root / "film", tracker=_tracker())
    session.add_box(0, 1, [1, 2, 30, 20], name="car")
    session.add_box(2, 4, [5, 6, 20, 20])
    path = root / "session.json"
    session.save(path)
    content = json.loads(path.read_text())
    rows = [[2.0, 2.0, 30.0, 20.0, 0.5, 0.5, 0], [3.0, 2.0, 30.0, 20.0, 0.5, 0.5, 1]]
    content["objects"][0]["forward"] = [{"key": 0, "found": rows}]
    path.write_text(json.dumps(content))
    return path


def _read_session(path: Path) -> Any:
    return Session.load(path, path.parent / "film", tracker=_tracker()).labels()


def _labels_are_whole(labels: Any) -> bool:
    return all(finite_or_absent(one.boxes) for one in labels.objects)


def _config(root: Path) -> Path:
    path = root / "config.json"
    checkpoints.write_config(path, small())
    return path


def _read_recipe(path: Path) -> Any:
    return checkpoints.read_config(path, type(small()))


def _recipe_survives(recipe: Any) -> bool:
    return bool(json.dumps(configs.to_json(recipe), allow_nan=False)) and bool(
        pickle.dumps(recipe)
    )


READERS: dict[str, Reader] = {
    "table": Reader(
        _text(
            "t.csv",
            "frame,track,x,y,w,h,lost,visible,angle",
            "0,a,1,2,3,4,0,1,0",
            "1,a,2,2,3,4,1,0.5,0",
        ),
        tables.read_table,
        lambda t: all(row.frame is None or row.frame >= 0 for row in t.rows),
    ),
    "sequence": Reader(
        _sequence,
        lambda path: sequences.read_sequence(path.parent),
        lambda found: finite_or_absent(found.boxes),
    ),
    "otb": _with_images(
        _benchmark("otb", "Basketball/groundtruth_rect.txt", *BOXES),
        *("Basketball/img", "%04d.jpg", 4),
    ),
    "got10k-val": _with_images(
        _benchmark(
            "got10k-val",
            "val/a/groundtruth.txt",
            *BOXES,
            beside={"val/list.txt": "a", "val/a/cover.label": "8\n7\n0\n8"},
        ),
        *("val/a", "%08d.jpg", 4),
    ),
    "got10k list": _with_images(
        _benchmark(
            "got10k-val",
            "val/list.txt",
            "a",
            beside={
                "val/a/groundtruth.txt": "\n".join(BOXES),
                "val/a/cover.label": "8\n7\n0\n8",
            },
        ),
        *("val/a", "%08d.jpg", 4),
    ),
    "lasot": _with_images(
        _benchmark(
            "lasot",
            "bird/bird-1/groundtruth.txt",
            *BOXES,
            beside={
                "testing_set.txt": "bird-1",
                "bird/bird-1/full_occlusion.txt": "0,0,1,0",
                "bird/bird-1/out_of_view.txt": "0,0,0,0",
            },
        ),
        *("bird/bird-1/img", "%08d.jpg", 4),
    ),
    "lasot flags": _with_images(
        _benchmark(
            "lasot",
            "bird/bird-1/out_of_view.txt",
            "0,0,1,0",
            beside={
                "testing_set.txt": "bird-1",
                "bird/bird-1/full_occlusion.txt": "0,0,1,0",
                "bird/bird-1/groundtruth.txt": "\n".join(BOXES),
            },
        ),
        *("bird/bird-1/img", "%08d.jpg", 4),
    ),
    "nfs": _with_images(
        _benchmark("nfs", "a/30/a.txt", *['0 1 2 30 40 0 0 0 0 "x"'] * 17),
        *("a/30/a", "%05d.jpg", 3),
    ),
    "uav123": _with_images(
        _benchmark("uav123", "anno/UAV123/bike1.txt", *BOXES),
        *("data_seq/UAV123/bike1", "%06d.jpg", 4),
    ),
    "tnl2k": _with_images(
        _benchmark("tnl2k", "a/groundtruth.txt", *BOXES), *("a/imgs", "%d.jpg", 4)
    ),
    "tc128 frames": _with_images(
        _benchmark(
            "tc128",
            "a/a_frames.txt",
            "1,4",
            beside={"a/a_gt.txt": "\n".join(BOXES)},
        ),
        *("a/img", "%04d.jpg", 6),
    ),
    "trackingnet-test": _with_images(
        _benchmark("trackingnet-test", "anno/a.txt", BOXES[0]),
        *("frames/a", "%d.jpg", 3),
    ),
    "tiny-imagenet": Reader(
        _tiny_imagenet,
        _read_labelled,
        lambda found: all(0 <= label < 2 for label in found),
    ),
    "folder": _parser(_box_file, folder.DATASET),
    "got10k": _parser(_got10k, got10k.DATASET),
    "lasot raw": _parser(_lasot, lasot.DATASET, split="all"),
    "trackingnet": _parser(_trackingnet, trackingnet.DATASET),
    "voc": _parser(_voc, voc.DATASET),
    "vid": _parser(_vid, vid.DATASET),
    "youtube-bb": _parser(_youtube_bb, youtube_bb.DATASET),
    "coco": _parser(_coco, coco.DATASET),
    "coco video": _parser(_coco_video, folder.DATASET),
    "stills": Reader(
        _stills, lambda path: stills.read_stills(path.parent), _stills_make_sense
    ),
    "vot": Reader(
        _vot_sequence,
        lambda path: vot.read_vot_dataset(path.parent.parent),
        _regions_are_finite,
    ),
    "pysot vot": Reader(
        _text("VOT2018.json", json.dumps(PYSOT)),
        annotations.read_vot_annotations,
        _regions_are_finite,
    ),
    "pysot boxes": Reader(
        _text("OTB100.json", json.dumps(PYSOT)),
        annotations.read_box_annotations,
        lambda found: all(finite_or_absent(one.boxes) for one in found.values()),
    ),
    "otb results": Reader(
        _text("a.txt", "1,2,30,40", "2,2,30,40"),
        results.read_otb_results,
        lambda boxes: bool(np.isfinite(boxes).all()),
    ),
    "vot results": Reader(
        _text("a_001.txt", "1", "2,2,30,40", "2", "0", "1"),
        results.read_trajectory,
        lambda rows: all(np.isfinite(row).all() for row in rows),
    ),
    "seconds": Reader(
        _text("a_time.value", "0.01", "", "0.02"),
        results.read_seconds,
        lambda found: not (found < 0).any(),
    ),
    "metrics": Reader(
        _text("metrics.jsonl", *(f'{{"step": {i}, "loss": 0.5}}' for i in range(4))),
        plots.plot_training,
    ),
    "config": Reader(_config, _read_recipe, _recipe_survives),
    "jpeg": Reader(_image(".jpg"), _read_image, _image_is_its_header),
    "png": Reader(_image(".png"), _read_image, _image_is_its_header),
    "bmp": Reader(_image(".bmp"), _read_image, _image_is_its_header),
    "webp": Reader(_image(".webp"), _read_image, _image_is_its_header),
    "tiff": Reader(_image(".tiff"), _read_image, _image_is_its_header),
    "film": Reader(_film, lambda path: sum(1 for _ in Video(path))),
    "weights": Reader(_released, read_file),
    "torch": Reader(_torch, read_state),
    "legacy torch": Reader(_legacy, read_torch),
    "session": Reader(_session, _read_session, _labels_are_whole),
    "matconvnet": Reader(_matconvnet, read_matconvnet, _tensors_are_whole),
    "index": Reader(_index, _read_prepared),
    "shard": Reader(_shard, _read_prepared),
}
"""By name."""
