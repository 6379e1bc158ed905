"""Exports of Label Studio."""

import json

import numpy as np
import pytest

from data_prep.folder import DATASET
from data_prep.tracks import PreparationError, VideoFrame
from raw_folders import read_all, touch_frames, write_film, write_frames


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
    write_film(tmp_path / "film.mp4", count=8)
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
    assert not tracks and "expected upright key frames" in rejection.reason
    studio(tmp_path, [point(1, 0), point(3, 0, rotation=20)])
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert not tracks and "a rotation" in rejection.reason
    for frame in (0, 9, 2.5):
        studio(tmp_path, [point(frame, 0)])
        tracks, (rejection,) = read_all(DATASET, tmp_path)
        assert not tracks
        assert rejection.reason.startswith(f"result 0: frame {frame}, expected ")
    (tmp_path / "film.mp4").unlink()
    with pytest.raises(
        PreparationError, match=r"task 0 is of .*/0a1b2c3d-film.mp4, expected that film"
    ):
        read_all(DATASET, tmp_path)


def write_tasks(folder, *tasks):
    (folder / "export.json").write_text(json.dumps(list(tasks)))


def image_task(image, *annotations):
    box = {"x": 10, "y": 10, "width": 20, "height": 40, "rectanglelabels": ["a"]}
    result = [{"type": "rectanglelabels", "id": "1", "value": box}]
    annotations = annotations or ({"result": result},)
    return {
        "data": {"image": image},
        "annotations": [{"result": result, **one} for one in annotations],
    }


def test_label_studio_counts_frames_by_its_own_rate(tmp_path):
    """The eight frames of the film are four to it."""
    studio(tmp_path, [point(1, 0), point(4, 30, enabled=False)], framesCount=4)
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert track.numbers.tolist() == [0, 2, 4, 6]
    np.testing.assert_allclose(track.boxes[:, 0], [0, 0.1, 0.2, 0.3])


def test_label_studio_film_of_another_duration(tmp_path):
    """The film lasts .8 s, in whatever frames it is counted."""
    studio(tmp_path, [point(1, 0)], framesCount=24, duration=2.4)
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert not tracks and rejection.reason.startswith(
        "result 0 is of a film of 2.4 s, and film.mp4 lasts 0.8 s, expected the film"
    )
    studio(tmp_path, [point(1, 0)], framesCount=24, duration=0.99)
    tracks, rejections = read_all(DATASET, tmp_path)
    assert len(tracks) == 1 and not rejections


def test_label_studio_image_of_another_size(tmp_path):
    write_frames(tmp_path / "raw", "%d.png", [1])
    task = image_task("1.png")
    (result,) = task["annotations"][0]["result"]
    for size in ((64, 48), (128, 96)):
        result |= {"original_width": size[0], "original_height": size[1]}
        write_tasks(tmp_path / "raw", task)
        (track,) = read_all(DATASET, tmp_path / "raw")[0].values()
        assert track.size == size  # for the writer to compare
    task["annotations"][0]["result"] += [{**result, "id": "2", "original_width": 64}]
    write_tasks(tmp_path / "raw", task)
    tracks, (rejection,) = read_all(DATASET, tmp_path / "raw")
    assert not tracks
    assert "task 0 is drawn on an image of 64x96 and 128x96" in rejection.reason


def test_label_studio_tasks_that_cannot_be_read_lose_none_after_them(tmp_path):
    touch_frames(tmp_path, "%d.png", range(1, 5))
    odd = {"data": {"image": "2.png"}, "annotations": None}
    twice = image_task("3.png", {"id": 1}, {"id": 2})
    again = image_task("1.png")
    write_tasks(tmp_path, image_task("1.png"), odd, twice, image_task("4.png"), again)
    tracks, rejections = read_all(DATASET, tmp_path)
    assert [one.frames[0] for one in tracks.values()] == [
        tmp_path / "1.png",
        tmp_path / "4.png",
    ]
    reasons = [one.reason for one in rejections]
    assert "task 1 lacks data, or a list of annotations" in reasons
    assert any("task 2 has 2 annotations, expected one" in text for text in reasons)
    assert "task 4 is of 1.png, as task 0 is" in reasons


def test_label_studio_annotations_that_count(tmp_path):
    touch_frames(tmp_path, "%d.png", range(3))
    skipped = image_task("0.png", {"was_cancelled": True})
    true = image_task("1.png", {"ground_truth": True}, {"id": 2})
    null = image_task("2.png", {"result": None})
    write_tasks(tmp_path, skipped, true, null)
    tracks, rejections = read_all(DATASET, tmp_path)
    assert [one.frames[0] for one in tracks.values()] == [tmp_path / "1.png"]
    assert not rejections


def test_label_studio_images_of_one_name(tmp_path):
    for camera in ("cam1", "cam2"):
        touch_frames(tmp_path / camera, "%d.png", [1])
    write_tasks(tmp_path, image_task("/data/local-files/?d=films/cam1/1.png"))
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert track.frames == [tmp_path / "cam1/1.png"]
    write_tasks(tmp_path, image_task("/data/upload/7/1.png"))
    with pytest.raises(PreparationError, match=r"cam1/1\.png or .*cam2/1\.png\?"):
        read_all(DATASET, tmp_path)


def drawn(**fields):
    value = {"x": 10, "y": 10, "width": 20, "height": 40, "rectanglelabels": ["a"]}
    return {"type": "rectanglelabels", "id": str(fields), "value": value, **fields}


@pytest.mark.parametrize(
    ("data", "results", "reason"),
    [
        (
            {"first": "1.png", "second": "2.png"},
            [drawn(to_name="img1"), drawn(to_name="img2")],
            "task 0 is drawn on img1 and img2, expected one to_name",
        ),
        (
            {"first": "1.png", "second": "2.png"},
            [drawn(to_name="img2")],
            "task 0 is of 1.png and 2.png, expected one film or image a task",
        ),
        (
            {"pages": ["1.png", "2.png"], "first": "1.png"},
            [drawn(item_index=0), drawn(item_index=1)],
            "task 0 is drawn on an image of item_index 1, expected one image a task",
        ),
        (
            {"image": "1.png"},
            [drawn(image_rotation=0), drawn(image_rotation=90)],
            "task 0 has image_rotation 90, expected 0: turn the pixels",
        ),
    ],
)
def test_label_studio_tasks_that_are_not_of_one_image(tmp_path, data, results, reason):
    touch_frames(tmp_path, "%d.png", [1, 2])
    task = {"data": data, "annotations": [{"result": results}]}
    write_tasks(tmp_path, task)
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert not tracks and reason in rejection.reason


def test_label_studio_what_is_said_beside_what_is_drawn(tmp_path):
    """Words about a text of the same task, and the image under two of its fields."""
    touch_frames(tmp_path, "%d.png", [1])
    words = {"type": "labels", "to_name": "text", "value": {"start": 1, "end": 3}}
    results = [drawn(to_name="image", item_index=0, image_rotation=0), words]
    data = {"image": "1.png", "thumbnail": "/data/upload/1/1.png", "text": "hello"}
    write_tasks(tmp_path, {"data": data, "annotations": [{"result": results}]})
    tracks, rejections = read_all(DATASET, tmp_path)
    assert len(tracks) == 1 and not rejections
