"""Tables of VIA."""

import csv
import json

import numpy as np
import pytest

from data_prep.folder import DATASET
from data_prep.tracks import PreparationError
from raw_folders import read_all, touch_frames, write_lines


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
