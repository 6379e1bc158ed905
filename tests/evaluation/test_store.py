import json
from pathlib import Path

import numpy as np
import pytest

from siamrpn_jax.data.read.sequences import Sequence
from siamrpn_jax.evaluation import results
from siamrpn_jax.evaluation import store as ope_store
from siamrpn_jax.evaluation.annotations import ResultError
from siamrpn_jax.evaluation.runner import Run
from siamrpn_jax.evaluation.trackers import StaticTracker

BOXES = np.array([[10.5, 20.25, 30, 40], [11, 21, 30, 40], [12, 22, 30, 40]])


@pytest.fixture
def runs(monkeypatch):
    """Counts what is run; a run returns BOXES, half a second each."""
    names = []

    def run_sequence(tracker, sequence):
        names.append(sequence.name)
        return Run(BOXES, np.full(3, np.nan), np.full(3, 0.5))

    monkeypatch.setattr(ope_store, "run_sequence", run_sequence)
    return names


def sequence(name="car"):
    return Sequence(name, tuple(Path(f) for f in "abc"), BOXES)


@pytest.mark.parametrize("layout", ["otb", "got10k"])
@pytest.mark.parametrize("origin", [0, 1])
def test_written_read_and_resumed(tmp_path, runs, layout, origin):
    store = ope_store.ResultStore(tmp_path / "res", layout, origin)
    first = store.run(StaticTracker(), sequence())
    assert runs == ["car"]
    again = store.run(StaticTracker(), sequence())
    (read,) = store.read({"car": BOXES})["car"]
    assert runs == ["car"]
    for run in (first, again, read):
        assert run.boxes.tolist() == BOXES.tolist()
        assert run.fps == 2
    inner = "car/car_001.txt" if layout == "got10k" else "car.txt"
    rows = (tmp_path / "res" / inner).read_text().splitlines()
    assert rows[0].startswith(f"{10.5 + origin:.4f},")


@pytest.mark.parametrize("layout", ["otb", "got10k"])
def test_a_run_that_is_killed_while_it_is_written_is_not_taken_for_done(
    tmp_path, runs, monkeypatch, layout
):
    store, write = ope_store.ResultStore(tmp_path / "res", layout), results._write
    written = []

    def write_one(path, lines):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, lines)

    with monkeypatch.context() as killed:
        killed.setattr(results, "_write", write_one)
        with pytest.raises(KeyboardInterrupt):
            store.run(StaticTracker(), sequence())
    assert store.run(StaticTracker(), sequence()).fps == 2
    assert runs == ["car", "car"]


def test_times_of_other_tools_are_left_alone(tmp_path, runs):
    store = ope_store.ResultStore(tmp_path)
    store.run(StaticTracker(), sequence())
    (tmp_path / "car_time.txt").write_text("0.1,0.2\n")
    (read,) = store.read({"car": BOXES})["car"]
    assert np.isnan(read.fps)


def test_settings_decide_what_may_be_resumed(tmp_path, runs):
    store = ope_store.ResultStore(tmp_path)
    store.open({"weights": "a"}, force=False, names=["car"])
    store.open({"weights": "b"}, force=False, names=["car"])  # nothing there yet
    store.run(StaticTracker(), sequence())
    store.open({"weights": "b"}, force=False, names=["car"])
    with pytest.raises(ResultError, match="other settings .*weights"):
        store.open({"weights": "c"}, force=False, names=["car"])
    other = ope_store.ResultStore(tmp_path, origin=0)
    with pytest.raises(ResultError, match="other settings .*origin"):
        other.open({"weights": "b"}, force=False, names=["car"])
    store.open({"weights": "c"}, force=True, names=["car"])
    assert json.loads((tmp_path / "settings.json").read_text())["weights"] == "c"
    assert not (tmp_path / "car.txt").exists()


def test_resumed_file_of_another_length(tmp_path, runs):
    results.write_otb_results(tmp_path / "car.txt", BOXES[:2])
    with pytest.raises(ResultError, match="2 rows for 3 frames of car"):
        ope_store.ResultStore(tmp_path).run(StaticTracker(), sequence())


def test_no_folder(tmp_path):
    with pytest.raises(ResultError, match="nowhere: no such folder"):
        ope_store.ResultStore(tmp_path / "nowhere").read({"car": BOXES})
