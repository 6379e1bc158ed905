"""Every format is read back by ``data_prep``, and by others' readers."""

import json
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from data_prep.folder import DATASET
from data_prep.tracks import Track, VideoFrame
from raw_folders import read_all
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.labelling import Format
from siamrpn_jax.labelling.formats import write_labels
from siamrpn_jax.labelling.labels import LabelledObject, Labels
from siamrpn_jax.media.frames import Frames
from siamrpn_jax.media.video import VideoWriter

COUNT, SIZE = 12, (96, 64)


def make_object(number, name, seed, *, known, lost=()) -> LabelledObject:
    rng = np.random.default_rng(seed)
    corners = rng.uniform((2, 2), (40, 20), (COUNT, 2)).round(3)
    boxes = np.concatenate([corners, rng.uniform(8, 40, (COUNT, 2)).round(3)], axis=1)
    boxes[~np.isin(np.arange(COUNT), known)] = np.nan
    confidence = np.where(np.isnan(boxes[:, 0]), np.nan, rng.uniform(0, 1, COUNT))
    confidence[known[0]] = np.nan
    return LabelledObject(
        number=number,
        name=name,
        boxes=boxes,
        confidence=confidence,
        lost=np.isin(np.arange(COUNT), lost),
        keys=np.arange(COUNT) == known[0],
    )


OBJECTS = (
    make_object(0, "car", 0, known=range(COUNT)),
    make_object(3, "a dog, brown", 1, known=[2, 3, 4, 5, 9, 10], lost=[4, 5]),
    make_object(7, "car", 2, known=range(1, 9), lost=[8]),
)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "street.webm"
    rng = np.random.default_rng(0)
    with VideoWriter(path, fps=12.5, size=SIZE) as writer:
        for _ in range(COUNT):
            writer.write(rng.integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8))
    return path


@pytest.fixture
def labels(film):
    return Labels("street", str(film), SIZE, 12.5, COUNT, OBJECTS)


def write(labels, folder, format: Format, film, **options):
    frames = Frames(film)
    (folder / film.name).write_bytes(film.read_bytes())
    return write_labels(labels, folder, format, frames=frames, **options)


def seen_boxes(track: Track) -> dict[int, np.ndarray]:
    """Boxes in pixels by the number of their frame, where the object is there."""
    scale = (*SIZE, *SIZE) if track.relative else (1, 1, 1, 1)
    seen = track.visibility > 0
    numbers = [
        frame.index if isinstance(frame, VideoFrame) else number
        for frame, number in zip(track.frames, track.numbers, strict=True)
    ]
    return {
        number: box * scale
        for number, box, there in zip(numbers, track.boxes, seen, strict=True)
        if there
    }


def known_boxes(one: LabelledObject) -> dict[int, np.ndarray]:
    return {int(frame): one.boxes[frame] for frame in np.flatnonzero(one.known)}


def check(found: dict[int, np.ndarray], expected: dict[int, np.ndarray]) -> None:
    assert sorted(found) == sorted(expected)
    for frame, box in expected.items():
        np.testing.assert_allclose(found[frame], box, atol=0.01)


@pytest.mark.parametrize(
    ("format", "first", "numbers"),
    [
        ("csv", 0, ["0", "3", "7"]),
        ("mot", 1, ["1", "4", "8"]),
        ("cvat", 0, ["0", "3", "7"]),
        ("coco", 0, ["0", "3", "7"]),
        ("labelstudio", 0, ["object0", "object3", "object7"]),
    ],
)
def test_tracks_come_back(labels, film, tmp_path, format, first, numbers):
    """Numbers, classes, and boxes to a hundredth of a pixel; what is lost is absent."""
    options = {"lost": "absent"} if format == "csv" else {}
    write(labels, tmp_path, format, film)
    tracks, rejections = read_all(DATASET, tmp_path, **options)
    assert not rejections and len(tracks) == len(OBJECTS)
    by_number = {name.rpartition("/")[2]: track for name, track in tracks.items()}
    assert sorted(by_number) == sorted(numbers)
    for number, one in zip(numbers, OBJECTS, strict=True):
        track = by_number[number]
        assert track.category == one.name
        moved = {frame - first: box for frame, box in seen_boxes(track).items()}
        check(moved, known_boxes(one))


def test_vot_sequences_come_back(labels, film, tmp_path):
    """They begin with their object; frames that are read are those that were meant."""
    files = write(labels, tmp_path, "vot", film)
    assert [path.parent.name for path in files] == ["street-0", "street-3", "street-7"]
    (tmp_path / film.name).unlink()
    tracks, rejections = read_all(DATASET, tmp_path)
    assert not rejections
    for track, one in zip(tracks.values(), OBJECTS, strict=True):
        start = int(np.flatnonzero(one.known)[0])
        assert len(list((tmp_path / track.name / "color").iterdir())) == COUNT - start
        moved = {frame + start: box for frame, box in seen_boxes(track).items()}
        check(moved, known_boxes(one))


@pytest.mark.parametrize("every", [1, 3])
def test_yolo_comes_back(labels, film, tmp_path, every):
    write(labels, tmp_path, "yolo", film, every=every)
    (tmp_path / film.name).unlink()
    tracks, rejections = read_all(DATASET, tmp_path)
    assert not rejections
    frames = range(0, COUNT, every)
    expected = sorted(
        (frame, one.name, *box.tolist())
        for one in OBJECTS
        for frame, box in known_boxes(one).items()
        if frame in frames
    )
    found = []
    for track in tracks.values():
        (box,) = seen_boxes(track).values()
        (path,) = track.frames
        assert not isinstance(path, VideoFrame | tuple)
        found.append((int(path.stem[-6:]), track.category, *box.tolist()))
    for a, b in zip(sorted(found), expected, strict=True):
        assert a[:2] == b[:2]
        np.testing.assert_allclose(a[2:], b[2:], atol=0.01)
    assert len(list((tmp_path / "images/train").iterdir())) == len(frames)


def test_yolo_boxes_end_at_the_edges(film, tmp_path):
    """Ultralytics leaves out an image with a centre outside, and all its boxes."""
    boxes = np.full((1, 4), (-30.0, 40, 40, 200))
    one = LabelledObject(1, "car", boxes, np.ones(1), ~np.ones(1, bool), np.ones(1))
    labels = Labels("a", str(film), SIZE, None, 1, (one,))
    write_labels(labels, tmp_path, "yolo")
    row = (tmp_path / "labels/train/a_000000.txt").read_text().split()
    expected = [0, 5 / 96, 52 / 64, 10 / 96, 24 / 64]
    np.testing.assert_allclose(np.array(row, float), expected, atol=1e-6)


def test_images_of_several_sizes(tmp_path):
    """Fractions are of each image; formats of one size refuse them."""
    sizes = [(40, 30), (80, 60)]
    (tmp_path / "a").mkdir()
    for number, (width, height) in enumerate(sizes):
        image = np.zeros((height, width, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "a" / f"{number}.png"), image)
    boxes = np.array([(4.0, 3, 8, 6), (60, 45, 8, 6)])
    one = LabelledObject(1, "car", boxes, np.ones(2), np.zeros(2, bool), np.ones(2))
    labels = Labels("a", str(tmp_path / "a"), sizes[0], None, 2, (one,))
    frames = Frames(tmp_path / "a")
    write_labels(labels, tmp_path / "yolo", "yolo", frames=frames)
    row = (tmp_path / "yolo/labels/train/a_000001.txt").read_text()
    assert row == "0 0.8 0.8 0.1 0.1\n"
    (path,) = write_labels(labels, tmp_path / "coco", "coco", frames=frames)
    images = json.loads(path.read_text())["images"]
    assert [(image["width"], image["height"]) for image in images] == sizes
    for format in ("mot", "cvat", "labelstudio"):
        with pytest.raises(InputError, match="0.png has 40x30 pixels and 1.png 80x60"):
            write_labels(labels, tmp_path / format, format, frames=frames)
        assert not (tmp_path / format).exists()


def test_what_the_formats_say_of_themselves(labels, tmp_path):
    write_labels(labels, tmp_path / "c", "cvat")
    root = ElementTree.parse(tmp_path / "c" / "street.xml").getroot()
    assert root.findtext("version") == "1.1"
    assert root.findtext("meta/task/size") == str(COUNT)
    boxes = root.findall("track[@id='3']/box")
    # Where it was last seen before a gap, it is said to be outside after it.
    assert [(b.get("frame"), b.get("outside")) for b in boxes] == [
        ("2", "0"), ("3", "0"), ("4", "1"), ("5", "1"), ("6", "1"),
        ("9", "0"), ("10", "0"), ("11", "1"),
    ]  # fmt: skip
    write_labels(labels, tmp_path / "m", "mot")
    info = (tmp_path / "m/street/seqinfo.ini").read_text()
    assert "seqLength=12\n" in info and "frameRate=13\n" in info
    (task,) = json.loads(
        write_labels(labels, tmp_path / "l", "labelstudio")[0].read_text()
    )
    assert task["data"] == {"video": "street.webm"}
    value = task["annotations"][0]["result"][1]["value"]
    assert value["framesCount"] == COUNT and value["labels"] == ["a dog, brown"]
    shown = [(p["frame"], p["enabled"]) for p in value["sequence"]]
    assert shown == [(3, True), (4, False), (10, True), (11, False)]


def test_images_are_copied_where_frames_are_files(labels, tmp_path):
    source = tmp_path / "street"
    source.mkdir()
    for number in range(COUNT):
        cv2.imwrite(str(source / f"{number}.png"), np.full((64, 96, 3), number))
    frames = Frames(source)
    write_labels(labels, tmp_path / "out", "mot", frames=frames)
    images = sorted((tmp_path / "out/street/img1").iterdir())
    assert [path.name for path in images] == [
        f"{n:06d}.png" for n in range(1, COUNT + 1)
    ]
    assert images[3].read_bytes() == (source / "3.png").read_bytes()
    assert "imExt=.png" in (tmp_path / "out/street/seqinfo.ini").read_text()


def test_a_table_of_images_with_gaps_comes_back(labels, tmp_path):
    """Their names tell which are meant, whether an object is there from the first."""
    folder = tmp_path / "street"
    folder.mkdir()
    names = [f"{number:04d}" for number in range(3, 3 + 2 * COUNT, 2)]
    for name in names:
        cv2.imwrite(str(folder / f"{name}.png"), np.zeros((64, 96, 3), np.uint8))
    late = Labels("street", str(folder), SIZE, None, COUNT, OBJECTS[1:])
    write_labels(late, tmp_path, "csv", frames=Frames(folder))
    tracks, rejections = read_all(DATASET, tmp_path, lost="absent")
    assert not rejections and len(tracks) == 2
    by_number = {name.rpartition("/")[2]: track for name, track in tracks.items()}
    for number, one in (("3", OBJECTS[1]), ("7", OBJECTS[2])):
        track = by_number[number]
        there = np.flatnonzero(track.visibility > 0).tolist()
        stems = [path.stem for path in track.frames if isinstance(path, Path)]
        found = {stems[i]: track.boxes[i] for i in there}
        boxes = known_boxes(one)
        assert list(found) == [names[frame] for frame in boxes]
        np.testing.assert_allclose([*found.values()], [*boxes.values()], atol=0.01)


@pytest.mark.parametrize("format", ["csv", "mot", "cvat", "coco", "yolo", "vot"])
def test_nothing_is_overwritten(labels, tmp_path, format):
    first = write_labels(labels, tmp_path, format)
    before = {path: path.read_bytes() for path in first}
    with pytest.raises(InputError, match="is there already, expected another folder"):
        write_labels(labels, tmp_path, format)
    assert before == {path: path.read_bytes() for path in first}


def test_what_cannot_be_written_is_refused(labels, tmp_path):
    with pytest.raises(InputError, match="format 'xml', expected one of csv, mot"):
        write_labels(labels, tmp_path, "xml")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="every is 2, expected 1"):
        write_labels(labels, tmp_path, "mot", every=2)
    empty = Labels("street", "x", SIZE, None, COUNT, ())
    with pytest.raises(InputError, match="street: no object is known"):
        write_labels(empty, tmp_path, "csv")
    assert not list(tmp_path.iterdir())


def test_pycocotools_reads_coco(labels, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    (path,) = write_labels(labels, tmp_path, "coco")
    read = coco.COCO(str(path))
    assert len(read.getImgIds()) == COUNT
    for one in OBJECTS:
        rows = [
            a for a in read.loadAnns(read.getAnnIds()) if a["track_id"] == one.number
        ]
        assert len(rows) == one.known.sum()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:Operation with tuple")
def test_motmetrics_reads_mot(labels, tmp_path):
    motmetrics = pytest.importorskip("motmetrics")
    path = write_labels(labels, tmp_path, "mot")[0]
    table = motmetrics.io.loadtxt(str(path), fmt="mot16", min_confidence=0.5)
    for one in OBJECTS:
        rows = table.xs(one.number + 1, level="Id")
        boxes = rows[["X", "Y", "Width", "Height"]].to_numpy()
        # It takes MATLAB's pixels, from 1.
        boxes[:, :2] += 1
        found = dict(zip((rows.index - 1).tolist(), boxes, strict=True))
        check(found, known_boxes(one))
