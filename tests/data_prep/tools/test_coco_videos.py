"""COCO with videos."""

import json

import numpy as np

from data_prep.folder import DATASET
from raw_folders import read_all, touch_frames, write_frames


def write_coco(folder, annotations, **images):
    """Three images of a video, the key of which comes after them, as ByteTrack's."""
    touch_frames(folder / "images", "%d.png", range(3))
    content = {
        "info": {"description": "x" * 5000},
        "images": [
            {
                "id": i,
                "file_name": f"{i}.png",
                "video_id": 7,
                "frame_index": i,
                **images,
            }
            for i in range(3)
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "car"}],
        "videos": [{"id": 7, "name": "clip"}],
    }
    (folder / "instances_default.json").write_text(json.dumps(content))


def annotation(image, x, **more):
    box = [x, 2, 10, 20]
    return {"image_id": image, "category_id": 1, "bbox": box, "track_id": 3, **more}


def test_tracks(tmp_path):
    crowd = annotation(1, 50, iscrowd=1, track_id=4)
    rows = [annotation(1, 5), annotation(0, 4), annotation(2, 6, lost=True), crowd]
    write_coco(tmp_path, rows, width=64, height=48)
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert (track.name, track.category) == ("instances_default.json/clip/3", "car")
    assert track.visibility.tolist() == [1, 1, 0] and track.size == (64, 48)
    np.testing.assert_array_equal(track.boxes[:, 0], [4, 5, 6])


def test_what_belongs_to_no_track_is_rejected(tmp_path):
    nameless = annotation(1, 5)
    del nameless["track_id"]
    write_coco(tmp_path, [annotation(0, 4), nameless, annotation(9, 5)])
    tracks, (track, image) = read_all(DATASET, tmp_path)
    assert len(tracks) == 1
    assert "1 annotations whose image is in no video" in image.reason
    assert "annotations without a track_id" in track.reason


def test_sizes_that_differ_are_those_of_their_images(tmp_path):
    write_coco(tmp_path, [annotation(i, 5) for i in range(3)], width=64, height=48)
    path = tmp_path / "instances_default.json"
    content = json.loads(path.read_text())
    content["images"][1]["width"] = 640
    path.write_text(json.dumps(content))
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert track.sizes == [(64, 48), (640, 48), (64, 48)] and track.size is None


def test_boxes_that_are_corners_are_rejected(tmp_path):
    """Targets of 20 x 20 pixels would leave the images of 64 x 48."""
    boxes = [[30, 20, 50, 40], [31, 20, 51, 40], [10, 5, 30, 25]]
    write_coco(tmp_path, [annotation(i, 0, bbox=box) for i, box in enumerate(boxes)])
    write_frames(tmp_path / "images", "%d.png", range(3))
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert not tracks and rejection.records == 3
    assert "clip: its boxes fit as corners x1,y1,x2,y2" in rejection.reason


def test_categories_as_pandas_writes_them(tmp_path):
    write_coco(tmp_path, [annotation(0, 5, category_id=1.0)])
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert track.category == "car"


def test_categories_that_are_not_listed_are_rejected(tmp_path):
    other = [annotation(i, 5, category_id=2, track_id=4) for i in range(2)]
    write_coco(tmp_path, [annotation(0, 5), *other])
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert len(tracks) == 1 and rejection.records == 2
    assert "clip: track 4: category_id '2', expected one that" in rejection.reason
