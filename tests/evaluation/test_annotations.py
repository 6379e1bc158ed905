import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from data_folders import write_image
from siamrpn_jax.evaluation import annotations, results
from siamrpn_jax.evaluation.annotations import ResultError
from siamrpn_jax.evaluation.ope import metrics

number = st.floats(-1e4, 1e4)


row = st.one_of(
    st.sampled_from([[0.0], [1.0], [2.0]]),
    st.lists(number, min_size=4, max_size=4),
    st.lists(number, min_size=8, max_size=8),
)


def write_json(path, content):
    path.write_text(json.dumps(content))
    return path


ENTRY = {
    "gt_rect": [[1, 1, 5, 1, 5, 4, 1, 4], [1.5, 2, 3, 4]],
    "img_names": ["car/color/00000001.jpg", "car/color/00000002.jpg"],
    "width": 100,
    "height": 80,
    "occlusion": [0, 1],
    "camera_motion": [],
}


def test_vot_annotations(tmp_path):
    path = write_json(tmp_path / "VOT.json", {"car": ENTRY})
    (car,) = annotations.read_vot_annotations(path)
    assert (car.name, car.size, len(car)) == ("car", (100, 80), 2)
    assert [len(region) for region in car.regions] == [8, 4]
    assert car.frames[1] == Path("car/color/00000002.jpg")
    assert set(car.attributes) == set(annotations.PYSOT_ATTRIBUTES)
    assert car.attributes["occlusion"].tolist() == [False, True]
    assert not car.attributes["camera_motion"].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gt_rect": [[1, 2, 0, 4]]}, "car, frame 0: .* with an area"),
        ({"gt_rect": [[1, 2, 3, float("nan")]]}, "car, frame 0: .* with an area"),
        ({"gt_rect": [[1, 2, 3]]}, r"car, frame 0: \[1, 2, 3\], expected 4 or 8"),
        ({"gt_rect": [["a", 2, 3, 4]]}, "expected 4 or 8 numbers"),
        ({"gt_rect": []}, "car: gt_rect is empty"),
        ({"gt_rect": None}, "car: expected an object with a list gt_rect"),
        ({"width": None}, "car: width is None, height 80, expected whole numbers"),
        ({"occlusion": [1, 0, 1]}, "car: occlusion has 3 values, expected at most one"),
        ({"occlusion": [1, 7]}, "car: occlusion is no list of 0 and 1"),
        ({"occlusion": [[], {}]}, "car: occlusion is no list of 0 and 1"),
    ],
)
def test_bad_annotations_are_named(tmp_path, change, message):
    path = write_json(tmp_path / "VOT.json", {"car": ENTRY | change})
    with pytest.raises(ResultError, match=message) as caught:
        annotations.read_vot_annotations(path)
    assert str(path) in str(caught.value)


def test_lists_that_end_early_go_on_with_0(tmp_path):
    path = write_json(tmp_path / "VOT.json", {"car": ENTRY | {"occlusion": [1]}})
    (car,) = annotations.read_vot_annotations(path)
    assert car.attributes["occlusion"].tolist() == [True, False]


def test_sizes_that_the_file_lacks(tmp_path, caplog):
    entry = {
        key: value for key, value in ENTRY.items() if key not in ("width", "height")
    }
    path = write_json(tmp_path / "VOT.json", {"car": entry})
    (car,) = annotations.read_vot_annotations(path)
    assert car.size is None
    assert "car has no width and height: its regions are not clipped" in caplog.text
    write_image(tmp_path / entry["img_names"][0], np.zeros((80, 100, 3), np.uint8))
    (car,) = annotations.read_vot_annotations(path, frames=tmp_path)
    assert car.size == (100, 80)


def test_frames_that_lasot_calls_absent(tmp_path):
    """As in LaSOT.json: 1 where the target is there."""
    content = {"bird-1": {"gt_rect": [[1, 1, 5, 5]] * 3, "absent": [1, 0, 1]}}
    path = write_json(tmp_path / "LaSOT.json", content)
    boxes = annotations.read_box_annotations(path)["bird-1"].boxes
    assert np.isnan(boxes).any(axis=1).tolist() == [False, True, False]
    content["bird-1"]["absent"] = [1, 0]
    with pytest.raises(ResultError, match="absent has 2 values for 3 frames"):
        annotations.read_box_annotations(write_json(path, content))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"car": 3}', '{"car": {}}'])
def test_other_json_is_named(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ResultError, match=r"a\.json"):
        annotations.read_vot_annotations(tmp_path / "a.json")


def test_box_annotations_and_results(tmp_path):
    boxes = [[11, 21, 3, 4], [12, 22, 3, 4], [0, 0, 0, 0]]
    content = {"Human4-2": {"gt_rect": boxes, "attr": ["OCC"]}}
    truth = annotations.read_box_annotations(write_json(tmp_path / "OTB.json", content))
    row = truth["Human4-2"]
    assert row.attributes == ("OCC",)
    assert row.boxes[:2].tolist() == [[10, 20, 3, 4], [11, 21, 3, 4]]
    assert np.isnan(row.boxes[2]).all()
    folder = tmp_path / "tracker"
    folder.mkdir()
    (folder / "human4_2.txt").write_text("11,21,3,4\n12,22,3,4\n")
    (folder / "other.txt").write_text("nothing\n")
    # The last frame is absent, so that nothing is missing.
    found = results.read_box_results(folder, truth)["Human4-2"]
    assert metrics.evaluate(found, row.boxes, skip_first=False).auc == pytest.approx(
        20 / 21
    )
    (folder / "human4_2.txt").write_text("11,21,3,4\n")
    with pytest.raises(ResultError, match="1 rows for 3 frames of Human4-2"):
        results.read_box_results(folder, truth)
    (folder / "human4_2.txt").write_text("1,2,3,4\n" * 4)
    with pytest.raises(ResultError, match="4 rows for 3 frames of Human4-2"):
        results.read_box_results(folder, truth)
    (folder / "Human4-2.txt").write_text("1,2,3,4\n" * 3)
    with pytest.raises(ResultError, match="are for Human4-2, expected one file"):
        results.read_box_results(folder, truth)
    with pytest.raises(
        ResultError, match=r"<sequence>\.txt for 1 of 1 sequences: Human"
    ):
        results.read_box_results(tmp_path / "none", truth)


def test_origin(tmp_path):
    path = write_json(tmp_path / "a.json", {"a": {"gt_rect": [[5, 6, 3, 4]]}})
    assert annotations.read_box_annotations(path, origin=0)["a"].boxes.tolist() == [
        [5, 6, 3, 4]
    ]
    with pytest.raises(ResultError, match="origin 2: expected 0 or 1"):
        annotations.read_box_annotations(path, origin=2)  # type: ignore
