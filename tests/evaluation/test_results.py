import json
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paths import SHARED_DATA
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import write_json
from siamrpn_jax.evaluation import annotations, results
from siamrpn_jax.evaluation.annotations import ResultError
from siamrpn_jax.evaluation.ope import metrics
from siamrpn_jax.evaluation.ope.table import make_report
from siamrpn_jax.model.boxes import ltwh_to_cxcywh

BOXES = np.array([[1.0, 2.0, 30.0, 40.0], [0.5, -3.25, 12.125, 7.0625]])


def test_round_trip(tmp_path):
    path = tmp_path / "deep" / "car.txt"
    results.write_otb_results(path, BOXES)
    assert path.read_text().splitlines()[1] == "1.5000,-2.2500,12.1250,7.0625"
    assert results.read_otb_results(path) == pytest.approx(BOXES)


def test_origin_one_moves_corners_not_sizes(tmp_path):
    results.write_otb_results(tmp_path / "a.txt", BOXES)
    assert results.read_otb_results(tmp_path / "a.txt") == pytest.approx(BOXES)
    as_written = results.read_otb_results(tmp_path / "a.txt", origin=0)
    assert as_written == pytest.approx(BOXES + [1, 1, 0, 0])
    results.write_otb_results(tmp_path / "a.txt", BOXES, origin=0)
    assert results.read_otb_results(tmp_path / "a.txt", origin=0) == pytest.approx(
        BOXES
    )
    with pytest.raises(results.ResultError, match="origin 2"):
        results.write_otb_results(tmp_path / "a.txt", BOXES, origin=2)  # type: ignore


def checked(runs, *, origin: Any = 0, truth: Any = BOXES + [50, 50, 0, 0]):
    truths = {name: truth for name in runs}
    results.check_boxes(Path("res"), runs, truths, origin=origin)


def test_first_rows_tell_what_results_are():
    truth = BOXES + [50, 50, 0, 0]
    later = truth + 3.0
    other = np.concatenate([truth[:1], later[1:]])
    checked({"a": [other], "b": [later]})  # most trackers, and one that starts anew
    for origin in (0, 1):
        shifted = other - np.array([1, 1, 0, 0]) * (1 if origin else -1)
        message = f"expected --results-origin {1 - origin}"
        with pytest.raises(ResultError, match=message):
            checked({"a": [shifted], "b": [shifted], "c": [later]}, origin=origin)
        checked({"a": [shifted], "b": [later]}, origin=origin)  # half: no proof
    corners = np.concatenate([other[:, :2], other[:, :2] + other[:, 2:]], axis=1)
    with pytest.raises(ResultError, match="as corners x1,y1,x2,y2, expected x,y,w,h"):
        checked({"a": [corners]})
    checked({"a": [np.concatenate([corners[:1], other[1:]])]})  # as SiamRPN's files
    with pytest.raises(ResultError, match="are fractions of the images"):
        checked({"a": [other / 1000]})
    with pytest.raises(ResultError, match="are fractions of the images"):
        checked({"a": [np.concatenate([truth[:1], other[1:] / 1000])]})
    centres = ltwh_to_cxcywh(truth)
    with pytest.raises(ResultError, match="as centre and size cx,cy,w,h, expected x,y"):
        checked({"a": [centres], "b": [centres + 0.5], "c": [later]})
    checked({"a": [np.concatenate([truth[:1], centres[1:]])]})  # lost, perhaps
    checked({"a": [np.concatenate([truth[:1], 0 * truth[1:]])]})


@pytest.mark.parametrize(
    ("form", "change"),
    [
        ("corners x1,y1,x2,y2", lambda x, y, w, h: (x, y, x + w, y + h)),
        ("corners y1,x1,y2,x2", lambda x, y, w, h: (y, x, y + h, x + w)),
        ("y,x,h,w", lambda x, y, w, h: (y, x, h, w)),
    ],
)
@pytest.mark.parametrize("origin", [0, 1])
def test_rows_in_another_form(form, change, origin):
    truth, boxes = moving_truth()
    rows = np.stack(change(*boxes.T), axis=1)
    with pytest.raises(ResultError, match=f"truth as {form}, expected x,y,w,h"):
        checked({"a": [rows], "b": [boxes], "c": [rows]}, origin=origin, truth=truth)
    checked({"a": [rows], "b": [boxes]}, truth=truth)  # half: no proof


@pytest.mark.parametrize("factors", [(4.0, 2.25), (0.4, 0.2), (0.5, 0.5)])
@pytest.mark.parametrize("origin", [0, 1])
def test_rows_in_percent_or_of_another_size(factors, origin):
    truth, boxes = moving_truth()
    rows = boxes / np.tile(factors, 2)
    moved = rows - np.array([origin, origin, 0, 0])
    with pytest.raises(ResultError, match="not percent or pixels of another") as caught:
        checked({"a": [moved], "b": [boxes], "c": [moved]}, origin=origin, truth=truth)
    found = re.findall(r"times ([\d.]+)", str(caught.value))
    assert [float(text) for text in found] == pytest.approx(factors, rel=0.02)
    first = np.concatenate([truth[:1], rows[1:]])
    with pytest.raises(ResultError, match="not percent or pixels of another size"):
        checked({"a": [first]}, truth=truth)
    checked({"a": [rows], "b": [boxes]}, truth=truth)  # half: no proof


def test_what_was_lost_is_no_scale():
    truth, boxes = moving_truth()
    checked({"a": [np.tile(boxes[:1], (len(boxes), 1))]}, truth=truth)
    still = np.tile([30.0, 20.0, 40.0, 20.0], (20, 1))
    checked({"a": [np.tile([0.0, 0.0, 2.0, 1.0], (20, 1))]}, truth=still)
    checked(
        {"a": [boxes * [0.5, 0.5, 1, 1]]}, truth=truth
    )  # something else, of its size
    checked({"a": [boxes[::-1]]}, truth=truth)
    checked({"a": [np.zeros_like(boxes)]}, truth=truth)


def moving_truth():
    """Truth ``[20, 4]``, and what a good tracker makes of it."""
    step = np.arange(20)[:, None]
    truth = np.array([[180.0, 60, 60, 35]]) + step * [4, 1.5, 0.5, 0.2]
    noise = np.random.default_rng(0).normal(0, 1.5, truth.shape)
    return truth, np.concatenate([truth[:1], (truth + noise)[1:]])


def test_boxes_in_the_corner_of_the_frame_are_no_corners():
    truth = np.array([[0.0, 0, 20, 30], [1, 0, 20, 30]])
    checked({"a": [truth]}, truth=truth)
    absent = np.full((2, 4), np.nan)
    checked({"a": [truth]}, truth=absent)


@given(st.lists(st.lists(st.floats(-1e4, 1e4), min_size=4, max_size=4), min_size=1))
def test_round_trip_to_a_ten_thousandth(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("results") / "a.txt"
    results.write_otb_results(path, np.array(rows))
    assert results.read_otb_results(path) == pytest.approx(np.array(rows), abs=6e-5)


@pytest.mark.parametrize(
    "text", ["1,2,3,4\n", "1\t2\t3\t4", "1 2  3 4\n\n", "1, 2, 3, 4"]
)
def test_separators(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    assert results.read_otb_results(tmp_path / "a.txt").tolist() == [[0, 1, 3, 4]]


@pytest.mark.parametrize("line", ["1,2,3", "1,2,3,x", "1,2,3,nan", "1,2,3,4,5"])
def test_bad_lines_are_named(tmp_path, line):
    path = tmp_path / "a.txt"
    path.write_text(f"1,2,3,4\n{line}\n")
    with pytest.raises(results.ResultError, match=r"a\.txt:2: .*four finite numbers"):
        results.read_otb_results(path)


@pytest.mark.parametrize("text", ["1,2,3,4\n{}\n1,2,3,4\n", "1,2,3,4\n{}\n\n1,2,3,4"])
@pytest.mark.parametrize("line", ["", "  "])
def test_empty_lines_but_at_the_end_are_named(tmp_path, text, line):
    """The boxes after one would be scored a frame early."""
    path = tmp_path / "a.txt"
    path.write_text(text.format(line))
    with pytest.raises(
        results.ResultError, match=r"a\.txt:2: is empty, expected a box"
    ):
        results.read_otb_results(path)
    path.write_text(f"1,2,3,4\n{line}\n\n")
    assert len(results.read_otb_results(path)) == 1


def test_empty_file_and_bad_boxes(tmp_path):
    (tmp_path / "a.txt").write_text("\n")
    with pytest.raises(results.ResultError, match=r"a\.txt: empty"):
        results.read_otb_results(tmp_path / "a.txt")
    with pytest.raises(results.ResultError, match=r"b\.txt: boxes of shape \(4,\)"):
        results.write_otb_results(tmp_path / "b.txt", np.ones(4))
    assert not (tmp_path / "b.txt").exists()


def test_report(tmp_path):
    row = metrics.evaluate(BOXES, BOXES)
    report = make_report(
        "siamrpn", {"car": (row, 30.0)}, mean=row, fps=30.0, skip_first=True
    )
    write_json(tmp_path / "out.json", report)
    read = json.loads((tmp_path / "out.json").read_text())
    assert read == report
    assert read["tracker"] == "siamrpn"
    assert read["convention"]["first_frame"] == "excluded"
    figures = {"auc", "precision", "normalized_precision", "fps", "frames"}
    assert figures <= set(read["sequences"]["car"])
    assert figures <= set(read)


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "out.json"
    write_json(path, {"auc": 0.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"auc": float("nan")})
    assert json.loads(path.read_text()) == {"auc": 0.5}
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]


PUBLISHED = SHARED_DATA / "published"


BOX = np.array([1.5, 2, 3, 4])


RUN = (np.array([1.0]), BOX, np.array([2.0]), np.arange(8.0), np.array([0.0]))


number = st.floats(-1e4, 1e4)


row = st.one_of(
    st.sampled_from([[0.0], [1.0], [2.0]]),
    st.lists(number, min_size=4, max_size=4),
    st.lists(number, min_size=8, max_size=8),
)


@given(st.lists(row, min_size=1, max_size=8))
def test_round_trip_of_a_run(tmp_path_factory, run):
    path = tmp_path_factory.mktemp("results") / "new" / "a_001.txt"
    results.write_trajectory(path, [np.array(values) for values in run])
    read = results.read_trajectory(path, frames=len(run))
    assert [len(values) for values in read] == [len(values) for values in run]
    for one, other in zip(read, run, strict=True):
        assert one == pytest.approx(other, abs=6e-5)


def test_text_of_a_run(tmp_path):
    path = tmp_path / "a_001.txt"
    results.write_trajectory(path, RUN[:3])
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
    read = results.read_trajectory(path)
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
    with pytest.raises((ResultError, InputError), match=message):
        results.read_trajectory(path)


@pytest.mark.parametrize("line", ["1,2,3", "x", "", "1,2,3,nan"])
def test_bad_rows_are_named(tmp_path, line):
    path = tmp_path / "a_001.txt"
    path.write_text(f"1\n{line}\n1,2,3,4\n")
    with pytest.raises(InputError, match=r"a_001\.txt:2: .*, expected a code"):
        results.read_trajectory(path)


@pytest.mark.parametrize("frames", [4, 6])
def test_counts_of_rows(tmp_path, frames):
    path = tmp_path / "a_001.txt"
    results.write_trajectory(path, RUN)
    with pytest.raises(ResultError, match=f"5 rows for {frames} frames of car"):
        results.read_trajectory(path, frames=frames, name="car")


def test_seconds(tmp_path):
    path = results.vot_time_path(results.vot_run_path(tmp_path, "car", 12))
    assert path == tmp_path / "car" / "car_012_time.value"
    seconds = np.array([0.25, np.nan, 0.125, np.nan])
    results.write_seconds(path, seconds)
    assert path.read_text() == "0.250000\n\n0.125000\n\n"
    assert results.read_seconds(path, frames=4) == pytest.approx(seconds, nan_ok=True)
    with pytest.raises(ResultError, match="4 rows for 5 frames"):
        results.read_seconds(path, frames=5)
    for bad in ("x", "-1", "inf"):
        path.write_text(f"0.1\n{bad}\n")
        with pytest.raises(ResultError, match=r"_time\.value:2: .* expected seconds"):
            results.read_seconds(path)


def test_folder_of_runs(tmp_path):
    folder = tmp_path / "baseline"

    def read(name, frames):
        paths = results.find_vot_runs(folder, name)
        return [results.read_trajectory(p, frames=frames, name=name) for p in paths]

    for number in (1, 2):
        results.write_trajectory(results.vot_run_path(folder, "a", number), RUN)
    (folder / "b").mkdir()
    (folder / "b" / "b_001.bin").write_bytes(binary(RUN[:2]))
    (folder / "b" / "b_001.txt").write_text("older\n")
    (folder / "b" / "b_001_time.value").write_text("0.1\n0.1\n")
    assert len(read("a", 5)) == 2
    (run,) = read("b", 2)
    assert run[1].tolist() == BOX.tolist()
    assert not read("x", 3)
    with pytest.raises(ResultError, match="5 rows for 6 frames of a"):
        read("a", 6)
    (folder / "a" / "a_001.txt").unlink()
    with pytest.raises(ResultError, match="has runs 002, expected 001, 002"):
        read("a", 5)


def test_missing_files_are_named(tmp_path):
    readers = annotations.read_vot_annotations, results.read_trajectory
    for read in (*readers, results.read_seconds):
        with pytest.raises(ResultError, match=r"none\.txt: cannot be read"):
            read(tmp_path / "none.txt")


def test_got10k(tmp_path):
    boxes = np.array([[10.0, 20, 3, 4], [11.0, 21, 3, 4]])
    folder, frames = tmp_path / "tracker", {"GOT_1": 2, "GOT_2": 2}
    results.write_got10k_run(folder, "GOT_1", boxes, np.array([0.5, 0.25]))
    text = (folder / "GOT_1" / "GOT_1_001.txt").read_text()
    assert text.splitlines()[0] == "11.0000,21.0000,3.0000,4.0000"
    times = folder / "GOT_1" / "GOT_1_time.txt"
    assert times.read_text() == "0.50000000\n0.25000000\n"
    with pytest.raises(ResultError, match=r"_001\.txt for 1 of 2 sequences: GOT_2"):
        results.read_got10k_results(folder, frames)
    results.write_got10k_run(folder, "GOT_2", boxes, np.array([0.5, 0.25]))
    read = results.read_got10k_results(folder, frames)
    assert read["GOT_2"][0] == pytest.approx(boxes)
    path = tmp_path / "tracker.zip"
    results.zip_got10k(path, folder, frames)
    with zipfile.ZipFile(path) as archive:
        names = [f"{n}/{n}_{kind}.txt" for n in frames for kind in ("001", "time")]
        assert archive.namelist() == names
        assert archive.read("GOT_1/GOT_1_001.txt").decode() == text
    with pytest.raises(ResultError, match="2 rows for 3 frames of GOT_1"):
        results.read_got10k_results(folder, {"GOT_1": 3})
    times.unlink()
    with pytest.raises(ResultError, match=r"_time\.txt for 1 of 2 sequences: GOT_1"):
        results.zip_got10k(path, folder, frames)
    with pytest.raises(ResultError, match="2 boxes and 1 times"):
        results.write_got10k_run(folder, "GOT_3", boxes, np.array([0.5]))


def otb(tracker, *, origin):
    if not PUBLISHED.is_dir():
        pytest.skip("skipped: no ../shared")
    truth = annotations.read_box_annotations(PUBLISHED / "groundtruth" / "OTB2015.json")
    folder = PUBLISHED / "otb100" / tracker
    return truth, results.read_box_results(folder, truth, origin=origin)


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
