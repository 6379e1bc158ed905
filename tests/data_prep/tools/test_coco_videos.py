"""COCO with videos."""

import json

import numpy as np

from data_prep.folder import DATASET
from raw_folders import read_all, touch_frames


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
