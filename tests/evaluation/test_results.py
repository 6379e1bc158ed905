import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siamrpn_jax.evaluation import results
from siamrpn_jax.evaluation.ope import metrics

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


def test_empty_file_and_bad_boxes(tmp_path):
    (tmp_path / "a.txt").write_text("\n")
    with pytest.raises(results.ResultError, match=r"a\.txt: empty"):
        results.read_otb_results(tmp_path / "a.txt")
    with pytest.raises(results.ResultError, match=r"b\.txt: boxes of shape \(4,\)"):
        results.write_otb_results(tmp_path / "b.txt", np.ones(4))
    assert not (tmp_path / "b.txt").exists()


def test_report(tmp_path):
    row = metrics.evaluate(BOXES, BOXES)
    report = results.make_report(
        "siamrpn", {"car": (row, 30.0)}, mean=row, fps=30.0, skip_first=True
    )
    results.write_json(tmp_path / "out.json", report)
    read = json.loads((tmp_path / "out.json").read_text())
    assert read == report
    assert read["tracker"] == "siamrpn"
    assert read["convention"]["first_frame"] == "excluded"
    figures = {"auc", "precision", "normalized_precision", "fps", "frames"}
    assert figures <= set(read["sequences"]["car"])
    assert figures <= set(read)


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "out.json"
    results.write_json(path, {"auc": 0.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        results.write_json(path, {"auc": float("nan")})
    assert json.loads(path.read_text()) == {"auc": 0.5}
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
