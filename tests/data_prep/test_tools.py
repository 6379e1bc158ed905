"""Exports of annotation tools, in the form that each tool documents."""

import csv
import json
import shutil

import numpy as np
import pytest

from data_prep.folder import DATASET
from data_prep.tracks import PreparationError, VideoFrame
from raw_folders import (
    prepare,
    read_all,
    targets,
    touch_frames,
    write_frames,
    write_lines,
)


def test_mot(tmp_path):
    clip = tmp_path / "MOT17-02"
    touch_frames(clip / "img1", "%06d.jpg", range(1, 6))
    write_lines(
        clip / "gt/gt.txt",
        "1,1,10,20,30,40,1,2,0.5",
        "2,1,11,20,30,40,1,2,1",
        "3,1,12,20,30,40,1,2,0",
        "1,7,5,5,9,9,1,1,1",
        "2,8,5,5,9,9,0,1,1",
    )
    write_lines(clip / "gt/labels.txt", "dog", "cat")
    tracks, rejections = read_all(DATASET, tmp_path)
    assert not rejections and list(tracks) == [
        "MOT17-02/gt/gt.txt/1",
        "MOT17-02/gt/gt.txt/7",
    ]
    first, second = tracks.values()
    assert (first.category, second.category) == ("cat", "dog")
    assert first.frames[0] == clip / "img1/000001.jpg"
    assert first.visibility.tolist() == [0.5, 1, 0]
    np.testing.assert_array_equal(first.boxes[1], [11, 20, 30, 40])
    write_lines(clip / "gt/gt.txt", "9,1,1,1,5,5", "one,1,1,1,5,5", "1,1,1,1,5,5")
    tracks, rejections = read_all(DATASET, tmp_path)
    assert len(tracks) == 1 and len(rejections) == 2
    assert "expected frame,id,x,y,w,h,… of a frame in img1" in rejections[0].reason


def test_mot_detections_where_there_is_no_truth(tmp_path):
    touch_frames(tmp_path / "a/img1", "%06d.jpg", [1, 2])
    write_lines(tmp_path / "a/det/det.txt", "1,-1,1,2,30,40,0.0", "2,-1,1,2,30,40,.9")
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert len(track.frames) == 2


CVAT = """<?xml version="1.0"?><annotations><version>1.1</version>
<track id="0" label="car"><box frame="0" outside="0" occluded="0" keyframe="1"
 xtl="1.5" ytl="2" xbr="11.5" ybr="22"/><box frame="2" outside="1" keyframe="1"
 xtl="1" ytl="2" xbr="11" ybr="22"/></track>
<track id="1" label="dog"><box frame="1" outside="0" xtl="x" ytl="2" xbr="3" ybr="4"/>
</track></annotations>"""


@pytest.mark.parametrize("media", ["film.mp4", "images", "."])
def test_cvat_tracks(tmp_path, media):
    (tmp_path / "annotations.xml").write_text(CVAT)
    if media == "film.mp4":
        (tmp_path / media).touch()
    else:
        touch_frames(tmp_path / media, "%d.png", range(3))
    car, dog = read_all(DATASET, tmp_path)[0].values()
    assert (car.name, car.category) == ("annotations.xml/0", "car")
    assert car.numbers.tolist() == [0, 2] and car.visibility.tolist() == [1, 0]
    np.testing.assert_array_equal(car.boxes[0], [1.5, 2, 10, 20])
    if media == "film.mp4":
        assert car.frames[1] == VideoFrame(tmp_path / media, 2)
    else:
        assert car.frames[1] == tmp_path / media / "2.png"
    assert not np.isfinite(dog.boxes).any()  # for the writer to reject


def test_cvat_without_its_film(tmp_path):
    (tmp_path / "annotations.xml").write_text(CVAT)
    with pytest.raises(PreparationError, match="expected one film or a folder images/"):
        read_all(DATASET, tmp_path)


def test_cvat_images(tmp_path):
    touch_frames(tmp_path / "images", "%d.png", [1])
    image = '<image name="{}" width="9" height="9"><box label="a" {}/></image>'
    sides = 'xtl="1" ytl="2" xbr="4" ybr="6"'
    for name in ("1.png", "../1.png"):
        text = f"<annotations>{image.format(name, sides)}</annotations>"
        (tmp_path / "annotations.xml").write_text(text)
        if name == "1.png":
            (track,) = read_all(DATASET, tmp_path)[0].values()
            assert track.frames == [tmp_path / "images/1.png"]
            np.testing.assert_array_equal(track.boxes, [[1, 2, 3, 4]])
        else:
            with pytest.raises(PreparationError, match="expected the name of a file"):
                read_all(DATASET, tmp_path)


SHAPES = """<annotations><image name="1.png" width="90" height="90">
<tag label="sunny"/>
<box label="a" xtl="10" ytl="20" xbr="50" ybr="30" rotation="90"/>
<polygon label="b" points="1,2;7,2;7.5,9"/>
<ellipse label="c" cx="40" cy="50" rx="10" ry="5"/>
<mask label="d" rle="0, 6" left="3" top="4" width="2" height="3"/>
<polyline label="e" points="1,2;7,2;7.5,9"/>
<polygon label="f" points="1,2;7,x;7.5,9"/>
</image></annotations>"""


def test_cvat_shapes(tmp_path):
    """What is drawn in other ways is understood, or rejected by its name."""
    touch_frames(tmp_path / "images", "%d.png", [1])
    (tmp_path / "annotations.xml").write_text(SHAPES)
    tracks, (line,) = read_all(DATASET, tmp_path)
    boxes = {one.category: one.boxes[0] for one in tracks.values()}
    assert not np.isfinite(boxes.pop("f")).any()  # for the writer to reject
    expected = {
        "a": [25, 5, 10, 40],
        "b": [1, 2, 6.5, 7],
        "c": [30, 45, 20, 10],
        "d": [3, 4, 2, 3],
    }
    assert boxes.keys() == expected.keys()
    for name, box in expected.items():
        np.testing.assert_allclose(boxes[name], box)
    outlined = [bool(one.outlines) for one in tracks.values()]
    assert outlined == [True, True, True, False, False]
    assert line.file.endswith("annotations.xml")
    assert "1.png, object 4: a polyline, expected a rectangle" in line.reason


def test_cvat_tracks_of_polygons(tmp_path):
    touch_frames(tmp_path / "images", "%d.png", range(3))
    corners = ['points="1,2;7,2;7,9"', 'points="2,2;8,2;8,9"', 'points="3,2"']
    shapes = [
        f'<polygon frame="{i}" outside="0" {points}/>'
        for i, points in enumerate(corners)
    ]
    (tmp_path / "annotations.xml").write_text(
        f'<annotations><track id="0">{"".join(shapes)}</track></annotations>'
    )
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    (track,) = tracks.values()
    np.testing.assert_allclose(track.boxes, [[1, 2, 6, 7], [2, 2, 6, 7]])
    assert track.numbers.tolist() == [0, 1] and len(track.outlines) == 2
    assert "track 0, frame 2: a polygon of fewer than 3 corners" in rejection.reason


def test_label_studio_shapes(tmp_path):
    """Percent of an image twice as wide as it is high, rotated in pixels."""
    size = {"original_width": 200, "original_height": 100}

    def shape(kind, **value):
        return {"type": kind, "id": f"{kind}{len(value)}", "value": value, **size}

    box = {"x": 50, "y": 10, "width": 20, "height": 10}
    results = [
        shape("rectanglelabels", **box, rotation=90, rectanglelabels=["a"]),
        shape("polygonlabels", points=[[0, 0], [10, 0], [10, 50]], polygonlabels=["b"]),
        shape("ellipselabels", x=50, y=50, radiusX=10, radiusY=20, ellipselabels=["c"]),
        {"type": "rectangle", "id": "one", "value": box, **size},
        {"type": "labels", "id": "one", "value": {**box, "labels": ["d"]}, **size},
        {"type": "choices", "id": "two", "value": {"choices": ["sunny"]}},
        shape("brushlabels", rle=[1, 2], brushlabels=["e"]),
        {"type": "rectanglelabels", "id": "three", "value": {**box, "rotation": 1}},
        shape("keypointlabels", x=1, y=2, width=1, keypointlabels=["f"]),
        shape("polygonlabels", points=[[0, 0], 3], polygonlabels=["g"], closed=True),
        {"type": "textarea", "value": None},
    ]
    task = {"data": {"image": "a.png"}, "annotations": [{"result": results}]}
    (tmp_path / "export.json").write_text(json.dumps([task]))
    touch_frames(tmp_path, "a%s.png", [""])
    tracks, rejections = read_all(DATASET, tmp_path)
    boxes = {one.category: one.boxes[0] for one in tracks.values()}
    expected = {  # a, pixels: 100, 10, 40 x 10, about its corner: 90, 10, 10 x 40
        "a": [0.45, 0.1, 0.05, 0.4],
        "b": [0, 0, 0.1, 0.5],
        "c": [0.4, 0.3, 0.2, 0.4],
        "d": [0.5, 0.1, 0.2, 0.1],
    }
    assert not np.isfinite(boxes.pop("g")).any()  # for the writer to reject
    assert boxes.keys() == expected.keys()
    for name, box in expected.items():
        np.testing.assert_allclose(boxes[name], box)
    reasons = [one.reason for one in rejections]
    assert "a brushlabels" in reasons[0] and "a keypointlabels" in reasons[2]
    assert "a rotation without original_width" in reasons[1]


def studio(tmp_path, sequence, **value):
    result = {
        "type": "videorectangle",
        "id": "abc",
        "value": {"sequence": sequence, "framesCount": 8, "labels": ["man"], **value},
    }
    task = {
        "data": {"video": "/data/upload/1/0a1b2c3d-film.mp4"},
        "annotations": [{"result": [result]}],
    }
    (tmp_path / "film.mp4").touch()
    (tmp_path / "export.json").write_text(json.dumps([task]))


def point(frame, x, **more):
    return {"frame": frame, "x": x, "y": 10, "width": 20, "height": 40, **more}


def test_label_studio_key_frames(tmp_path):
    """Frames from 1, percent, linear in between; absent after one not enabled."""
    points = [point(1, 0), point(5, 40, enabled=False), point(7, 50, enabled=True)]
    studio(tmp_path, points)
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert track.numbers.tolist() == [0, 1, 2, 3, 4, 6, 7]
    np.testing.assert_allclose(track.boxes[:, 0], [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5])
    np.testing.assert_allclose(track.boxes[0, 1:], [0.1, 0.2, 0.4])
    assert track.relative and track.category == "man"
    assert track.frames[2] == VideoFrame(tmp_path / "film.mp4", 2)


def test_label_studio_that_cannot_be_read(tmp_path):
    studio(tmp_path, [{"x": 3}])
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert not tracks and "expected key frames with numbers" in rejection.reason
    studio(tmp_path, [point(1, 0), point(3, 0, rotation=20)])
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert not tracks and "a rotation" in rejection.reason
    (tmp_path / "film.mp4").unlink()
    with pytest.raises(PreparationError, match="task 0 is of 0a1b2c3d-film.mp4"):
        read_all(DATASET, tmp_path)


def test_roboflow(tmp_path):
    write_frames(tmp_path / "train", "%d.png", [0])
    content = {
        "images": [{"id": 0, "file_name": "0.png", "width": 64, "height": 48}],
        "categories": [{"id": 0, "name": "thing"}],
        "annotations": [{"image_id": 0, "category_id": 0, "bbox": [4, 6, 20, 24]}],
    }
    (tmp_path / "train/_annotations.coco.json").write_text(json.dumps(content))
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert track.category == "thing" and track.frames == [tmp_path / "train/0.png"]


@pytest.mark.parametrize("order", ["labels/train", "train/labels"])
def test_yolo(tmp_path, order):
    folder = tmp_path / order
    touch_frames(tmp_path / order.replace("labels", "images"), "%d.jpg", [1, 2])
    write_lines(folder / "1.txt", "1 0.5 0.5 0.2 0.4", "0 0.1 0.1 0.3 0.1 0.3 0.5")
    write_lines(folder / "2.txt", "0 nonsense")
    write_lines(tmp_path / "data.yaml", "train: x", "names: [cat, 'dog']")
    first, second, broken = read_all(DATASET, tmp_path)[0].values()
    assert (first.category, second.category, first.relative) == ("dog", "cat", True)
    np.testing.assert_allclose(first.boxes, [[0.4, 0.3, 0.2, 0.4]])
    np.testing.assert_allclose(second.boxes, [[0.1, 0.1, 0.2, 0.4]])
    assert not np.isfinite(broken.boxes).any()
    ((outline,),) = second.outlines
    np.testing.assert_allclose(outline, [[0.1, 0.1], [0.3, 0.1], [0.3, 0.5]])
    assert not first.outlines and not broken.outlines
    write_lines(tmp_path / "data.yaml", "names:", "  0: bird", "  1: fish")
    assert next(iter(read_all(DATASET, tmp_path)[0].values())).category == "fish"


def test_via(tmp_path):
    touch_frames(tmp_path, "%d.jpg", [1, 2])
    with (tmp_path / "via.csv").open("w", newline="") as file:
        file.write("#")
        write = csv.writer(file).writerow
        write(
            "filename file_size file_attributes region_count region_id "
            "region_shape_attributes region_attributes".split()
        )
        for number, shape in enumerate(
            (
                {"name": "rect", "x": 1, "y": 2, "width": 30, "height": 40},
                {
                    "name": "polygon",
                    "all_points_x": [1, 5, 5],
                    "all_points_y": [2, 2, 9],
                },
                {"name": "circle", "cx": 20, "cy": 30, "r": 5},
                {"name": "ellipse", "cx": 20, "cy": 30, "rx": 5, "ry": 9, "theta": 0},
                {"name": "point", "cx": 20, "cy": 30},
            )
        ):
            kind = json.dumps({"kind": f"{number}"})
            write(["1.jpg", 99, "{}", 5, number, json.dumps(shape), kind])
        write(["2.jpg", 99, "{}", 0, 0, "{}", "{}"])
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    boxes = [one.boxes[0] for one in tracks.values()]
    expected = [[1, 2, 30, 40], [1, 2, 4, 7], [15, 25, 10, 10], [15, 21, 10, 18]]
    np.testing.assert_allclose(boxes, expected)
    assert [one.category for one in tracks.values()] == ["0", "1", "2", "3"]
    assert [len(one.outlines) for one in tracks.values()] == [0, 1, 1, 1]
    assert "1.jpg, object 4: a point" in rejection.reason
    line = (tmp_path / "via.csv").read_text().splitlines()[2]
    write_lines(tmp_path / "via.csv", "#filename,region_shape_attributes,a", line)
    with pytest.raises(PreparationError, match="expected VIA's columns"):
        read_all(DATASET, tmp_path)


def test_other_labels_are_named(tmp_path):
    write_lines(tmp_path / "labels.json", '{"images": [], "annotations": []}')
    with pytest.raises(
        PreparationError, match=r"labels\.json is of COCO's form: python"
    ):
        read_all(DATASET, tmp_path)
    (tmp_path / "labels.json").unlink()
    write_lines(tmp_path / "notes.txt", "1 2 3")
    with pytest.raises(
        PreparationError, match=r"notes\.txt is there, and of no layout"
    ):
        read_all(DATASET, tmp_path)


def test_command(tmp_path):
    raw = tmp_path / "raw"
    write_frames(raw / "clip/img1", "%06d.jpg", range(1, 4))
    write_lines(raw / "clip/gt/gt.txt", *(f"{t},1,5,5,30,30,1,1,1" for t in (1, 2, 3)))
    assert targets(prepare("folder", raw)) == {"clip/gt/gt.txt/1": [1, 2, 3]}
    shutil.rmtree(tmp_path / "prepared")
