import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paths import SHARED_DATA
from siamrpn_jax.evaluation import vot_results as files
from siamrpn_jax.evaluation.ope import metrics
from siamrpn_jax.evaluation.results import ResultError
from siamrpn_jax.evaluation.vot import regions
from siamrpn_jax.evaluation.vot.dataset import VotSequence

PUBLISHED = SHARED_DATA / "published"

BOX = np.array([1.5, 2, 3, 4])
RUN = (np.array([1.0]), BOX, np.array([2.0]), np.arange(8.0), np.array([0.0]))


def make_sequence(name, length):
    return VotSequence(name, (), (BOX,) * length, (100, 80), {}, None)


number = st.floats(-1e4, 1e4)
row = st.one_of(
    st.sampled_from([[0.0], [1.0], [2.0]]),
    st.lists(number, min_size=4, max_size=4),
    st.lists(number, min_size=8, max_size=8),
)


@given(st.lists(row, min_size=1, max_size=8))
def test_round_trip_of_a_run(tmp_path_factory, run):
    path = tmp_path_factory.mktemp("results") / "new" / "a_001.txt"
    files.write_trajectory(path, [np.array(values) for values in run])
    read = files.read_trajectory(path, frames=len(run))
    assert [len(values) for values in read] == [len(values) for values in run]
    for one, other in zip(read, run, strict=True):
        assert one == pytest.approx(other, abs=6e-5)


def test_text_of_a_run(tmp_path):
    path = tmp_path / "a_001.txt"
    files.write_trajectory(path, RUN[:3])
    assert path.read_text() == "1\n1.5000,2.0000,3.0000,4.0000\n2\n"


def binary(rows):
    """The toolkit's format, packed by hand."""
    content = struct.pack("<hI", 1, len(rows))
    for values in rows:
        if len(values) == 1:
            content += struct.pack("<BI", 0, int(values[0]))
        elif len(values) == 4:
            content += struct.pack("<Bffff", 1, *values)
        else:
            content += struct.pack(f"<BH{len(values)}f", 2, len(values) // 2, *values)
    return content


def test_binary_run(tmp_path):
    path = tmp_path / "a_001.bin"
    path.write_bytes(binary(RUN))
    read = files.read_trajectory(path)
    assert [values.tolist() for values in read] == [values.tolist() for values in RUN]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (binary(RUN)[:-2], "broken, ends within a row"),
        (binary(RUN) + b"0", "goes on after its 5 rows"),
        (struct.pack("<hIB", 1, 1, 3), "row 1 has type 3"),
        (struct.pack("<hIBI", 1, 1, 0, 9), r"row 1: '9', expected a code 0, 1 or 2"),
        (b"\xff\xfe1", "is no text"),
    ],
)
def test_broken_binary_runs(tmp_path, content, message):
    path = tmp_path / "a_001.bin"
    path.write_bytes(content)
    with pytest.raises((ResultError, regions.RegionError), match=message):
        files.read_trajectory(path)


@pytest.mark.parametrize("line", ["1,2,3", "x", "", "1,2,3,nan"])
def test_bad_rows_are_named(tmp_path, line):
    path = tmp_path / "a_001.txt"
    path.write_text(f"1\n{line}\n1,2,3,4\n")
    with pytest.raises(regions.RegionError, match=r"a_001\.txt:2: .*, expected a code"):
        files.read_trajectory(path)


@pytest.mark.parametrize("frames", [4, 6])
def test_counts_of_rows(tmp_path, frames):
    path = tmp_path / "a_001.txt"
    files.write_trajectory(path, RUN)
    with pytest.raises(ResultError, match=f"5 rows for {frames} frames of car"):
        files.read_trajectory(path, frames=frames, name="car")


def test_seconds(tmp_path):
    path = files.vot_time_path(files.vot_run_path(tmp_path, "car", 12))
    assert path == tmp_path / "car" / "car_012_time.value"
    seconds = np.array([0.25, np.nan, 0.125, np.nan])
    files.write_seconds(path, seconds)
    assert path.read_text() == "0.250000\n\n0.125000\n\n"
    assert files.read_seconds(path, frames=4) == pytest.approx(seconds, nan_ok=True)
    with pytest.raises(ResultError, match="4 rows for 5 frames"):
        files.read_seconds(path, frames=5)
    for bad in ("x", "-1", "inf"):
        path.write_text(f"0.1\n{bad}\n")
        with pytest.raises(ResultError, match=r"_time\.value:2: .* expected seconds"):
            files.read_seconds(path)


def test_folder_of_runs(tmp_path):
    folder = tmp_path / "tracker" / "baseline"
    sequences = [make_sequence("a", 5), make_sequence("b", 2)]
    for number in (1, 2):
        files.write_trajectory(files.vot_run_path(folder, "a", number), RUN)
    (folder / "b").mkdir()
    (folder / "b" / "b_001.bin").write_bytes(binary(RUN[:2]))
    (folder / "b" / "b_001.txt").write_text("older\n")
    (folder / "b" / "b_001_time.value").write_text("0.1\n0.1\n")
    for place in (folder, folder.parent):
        read = files.read_vot_results(place, sequences)
        assert [len(read[name]) for name in ("a", "b")] == [2, 1]
        assert read["b"][0][1].tolist() == BOX.tolist()
    with pytest.raises(ResultError, match=r"_001\.txt for 2 of 3 sequences: x, y"):
        more = [sequences[0], make_sequence("x", 3), make_sequence("y", 3)]
        files.read_vot_results(folder, more)
    with pytest.raises(ResultError, match="5 rows for 6 frames of a"):
        files.read_vot_results(folder, [make_sequence("a", 6)])
    (folder / "a" / "a_001.txt").unlink()
    with pytest.raises(ResultError, match="has runs 002, expected 001, 002"):
        files.read_vot_results(folder, sequences)


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
    (car,) = files.read_vot_annotations(path)
    assert (car.name, car.size, len(car)) == ("car", (100, 80), 2)
    assert [len(region) for region in car.regions] == [8, 4]
    assert car.frames[1] == Path("car/color/00000002.jpg")
    assert set(car.attributes) == set(files.PYSOT_ATTRIBUTES)
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
        (
            {"occlusion": [1]},
            "car: occlusion has 1 values, expected 0 or 1 for each of 2",
        ),
        ({"occlusion": [1, 7]}, "car: occlusion has 2 values"),
    ],
)
def test_bad_annotations_are_named(tmp_path, change, message):
    path = write_json(tmp_path / "VOT.json", {"car": ENTRY | change})
    with pytest.raises(ResultError, match=message) as caught:
        files.read_vot_annotations(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"car": 3}', '{"car": {}}'])
def test_other_json_is_named(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ResultError, match=r"a\.json"):
        files.read_vot_annotations(tmp_path / "a.json")


def test_missing_files_are_named(tmp_path):
    for read in (files.read_vot_annotations, files.read_trajectory, files.read_seconds):
        with pytest.raises(ResultError, match=r"none\.txt: cannot be read"):
            read(tmp_path / "none.txt")


def test_box_annotations_and_results(tmp_path):
    boxes = [[11, 21, 3, 4], [12, 22, 3, 4], [0, 0, 0, 0]]
    content = {"Human4-2": {"gt_rect": boxes, "attr": ["OCC"]}}
    truth = files.read_box_annotations(write_json(tmp_path / "OTB.json", content))
    row = truth["Human4-2"]
    assert row.attributes == ("OCC",)
    assert row.boxes[:2].tolist() == [[10, 20, 3, 4], [11, 21, 3, 4]]
    assert np.isnan(row.boxes[2]).all()
    results = tmp_path / "tracker"
    results.mkdir()
    (results / "human4_2.txt").write_text("11,21,3,4\n12,22,3,4\n")
    (results / "other.txt").write_text("nothing\n")
    # The last frame is absent, so that nothing is missing.
    found = files.read_box_results(results, truth)["Human4-2"]
    assert metrics.evaluate(found, row.boxes, skip_first=False).auc == pytest.approx(
        20 / 21
    )
    (results / "human4_2.txt").write_text("11,21,3,4\n")
    with pytest.raises(ResultError, match="1 rows for 3 frames of Human4-2"):
        files.read_box_results(results, truth)
    (results / "human4_2.txt").write_text("1,2,3,4\n" * 4)
    with pytest.raises(ResultError, match="4 rows for 3 frames of Human4-2"):
        files.read_box_results(results, truth)
    (results / "Human4-2.txt").write_text("1,2,3,4\n" * 3)
    with pytest.raises(ResultError, match="are for Human4-2, expected one file"):
        files.read_box_results(results, truth)
    with pytest.raises(
        ResultError, match=r"<sequence>\.txt for 1 of 1 sequences: Human"
    ):
        files.read_box_results(tmp_path / "none", truth)


def test_origin(tmp_path):
    path = write_json(tmp_path / "a.json", {"a": {"gt_rect": [[5, 6, 3, 4]]}})
    assert files.read_box_annotations(path, origin=0)["a"].boxes.tolist() == [
        [5, 6, 3, 4]
    ]
    with pytest.raises(ResultError, match="origin 2: expected 0 or 1"):
        files.read_box_annotations(path, origin=2)  # type: ignore


def test_got10k(tmp_path):
    boxes = np.array([[10.0, 20, 3, 4], [11.0, 21, 3, 4]])
    folder, frames = tmp_path / "tracker", {"GOT_1": 2, "GOT_2": 2}
    files.write_got10k_run(folder, "GOT_1", boxes, np.array([0.5, 0.25]))
    text = (folder / "GOT_1" / "GOT_1_001.txt").read_text()
    assert text.splitlines()[0] == "11.0000,21.0000,3.0000,4.0000"
    times = folder / "GOT_1" / "GOT_1_time.txt"
    assert times.read_text() == "0.50000000\n0.25000000\n"
    with pytest.raises(ResultError, match=r"_001\.txt for 1 of 2 sequences: GOT_2"):
        files.read_got10k_results(folder, frames)
    files.write_got10k_run(folder, "GOT_2", boxes, np.array([0.5, 0.25]))
    read = files.read_got10k_results(folder, frames)
    assert read["GOT_2"][0] == pytest.approx(boxes)
    path = tmp_path / "tracker.zip"
    files.zip_got10k(path, folder, frames)
    with zipfile.ZipFile(path) as archive:
        names = [f"{n}/{n}_{kind}.txt" for n in frames for kind in ("001", "time")]
        assert archive.namelist() == names
        assert archive.read("GOT_1/GOT_1_001.txt").decode() == text
    with pytest.raises(ResultError, match="2 rows for 3 frames of GOT_1"):
        files.read_got10k_results(folder, {"GOT_1": 3})
    times.unlink()
    with pytest.raises(ResultError, match=r"_time\.txt for 1 of 2 sequences: GOT_1"):
        files.zip_got10k(path, folder, frames)
    with pytest.raises(ResultError, match="2 boxes and 1 times"):
        files.write_got10k_run(folder, "GOT_3", boxes, np.array([0.5]))


def otb(tracker, *, origin):
    if not PUBLISHED.is_dir():
        pytest.skip("skipped: no ../shared")
    truth = files.read_box_annotations(PUBLISHED / "groundtruth" / "OTB2015.json")
    folder = PUBLISHED / "otb100" / tracker
    return truth, files.read_box_results(folder, truth, origin=origin)


def test_published_results_of_mdnet():
    """Published: AUC .678, precision .909; the first frame counts there."""
    truth, boxes = otb("MDNet", origin=1)
    mean = metrics.mean_metrics(
        metrics.evaluate(boxes[name], row.boxes, skip_first=False)
        for name, row in truth.items()
    )
    assert mean.auc == pytest.approx(0.678, abs=5e-4)
    assert mean.precision == pytest.approx(0.909, abs=5e-4)


def test_published_results_of_siamrpn():
    """Published: AUC .637, precision .851.

    These files count from 0, and their first row holds two corners instead of a size:
    it is left out (AUC), or replaced by the box that was given (precision).
    """
    truth, boxes = otb("SiamRPN", origin=0)
    mean = metrics.mean_metrics(
        metrics.evaluate(boxes[name], row.boxes) for name, row in truth.items()
    )
    assert mean.auc == pytest.approx(0.637, abs=5e-4)
    assert mean.precision == pytest.approx(0.850, abs=5e-4)
    for name, row in truth.items():
        boxes[name][0] = row.boxes[0]
    mean = metrics.mean_metrics(
        metrics.evaluate(boxes[name], row.boxes, skip_first=False)
        for name, row in truth.items()
    )
    assert mean.auc == pytest.approx(0.6383, abs=5e-5)
    assert mean.precision == pytest.approx(0.851, abs=6e-4)
