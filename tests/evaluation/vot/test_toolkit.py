import dataclasses
import importlib.util
import json

import cv2
import numpy as np
import pytest

from paths import ROOT, SHARED_DATA
from siamrpn_jax.common.errors import InputError, MissingExtraError
from siamrpn_jax.evaluation.annotations import read_vot_annotations
from siamrpn_jax.evaluation.vot import toolkit
from siamrpn_jax.evaluation.vot.dataset import VotSequence
from siamrpn_jax.evaluation.vot.metrics import evaluate
from siamrpn_jax.evaluation.vot.toolkit import ToolkitFigures

PUBLISHED = SHARED_DATA / "published"
WIDTH, HEIGHT = 160, 120
INTERVAL = (10, 30)

needs_toolkit = pytest.mark.skipif(
    importlib.util.find_spec("vot") is None,
    reason="skipped: no vot-toolkit (pip install 'siamrpn-jax[vot]')",
)


def rotated(box, degrees):
    x, y, w, h = box
    corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2
    angle = np.radians(degrees)
    turn = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    return (corners @ turn + [x + w / 2, y + h / 2]).reshape(-1)


def make_sequences():
    """Boxes, rotated boxes that cross the border, and a jump nobody can follow."""
    steps = np.arange(45)
    boxes = [np.array([20.3 + 2.1 * t, 30 + t * 0.7, 32.5, 24]) for t in steps]
    turned = [rotated([-6 + 3 * t, 50 - 0.5 * t, 30, 22.4], 3 * t) for t in steps[:38]]
    jump = [np.array([15.0, 15, 26, 26]) + (t > 20) * 80 * (t % 3 > 0) for t in steps]
    jump = [box * [1, 0.8, 1, 1] for box in jump]
    return [
        VotSequence(name, (), tuple(regions), (WIDTH, HEIGHT), {}, None)
        for name, regions in (("plain", boxes), ("turned", turned), ("jumps", jump))
    ]


def write_frames(folder, sequence):
    rng = np.random.default_rng(0)
    ground = cv2.resize(rng.integers(60, 140, (15, 20, 3), np.uint8), (WIDTH, HEIGHT))
    folder.mkdir(parents=True)
    for number, region in enumerate(sequence.regions, start=1):
        frame = ground.copy()
        x, y, w, h = region[:4]
        corners = [x, y, x + w, y, x + w, y + h, x, y + h]
        corners = np.array(corners) if len(region) == 4 else region
        points = np.round(corners.reshape(-1, 2)).astype(np.int32)
        cv2.fillPoly(frame, [points], (40, 60, 230))
        cv2.polylines(frame, [points], True, (250, 250, 30), 3)
        assert cv2.imwrite(str(folder / f"{number:08d}.jpg"), frame)


def write_results(folder, sequences):
    """A run that drifts off and is started again."""
    for sequence in sequences:
        rows, start = [], 0
        for index, region in enumerate(sequence.regions):
            corners = np.reshape(region, (-1, 2))
            if index < start:
                rows.append("0")
            elif index == start:
                rows.append("1")
            elif index - start == 26:
                rows.append("2")
                start = index + 5
            else:
                x, y = corners.min(axis=0) if len(region) == 8 else region[:2]
                rows.append(f"{x + 0.6 * (index - start):.4f},{y:.4f},30.0,22.5")
        target = folder / sequence.name
        target.mkdir(parents=True)
        (target / f"{sequence.name}_001.txt").write_text("\n".join(rows) + "\n")


def read_runs(folder, sequences):
    return {
        sequence.name: [
            [np.array(row.split(","), float) for row in path.read_text().split()]
            for path in sorted(
                (folder / sequence.name).glob(f"{sequence.name}_00?.txt")
            )
        ]
        for sequence in sequences
    }


def evaluate_written(folder, *, convention):
    sequences = make_sequences()
    write_results(folder, sequences)
    runs = read_runs(folder, sequences)
    return evaluate(runs, sequences, interval=INTERVAL, convention=convention)


def test_workspace_holds_annotations_as_they_are(tmp_path):
    sequences = make_sequences()
    write_results(tmp_path / "results", sequences)
    workspace = tmp_path / "workspace"
    toolkit.write_workspace(
        workspace, tmp_path / "results", sequences, interval=INTERVAL
    )
    listed = (workspace / "sequences" / "list.txt").read_text().split()
    assert listed == ["plain", "turned", "jumps"]
    for sequence in sequences:
        path = workspace / "sequences" / sequence.name / "groundtruth.txt"
        rows = [[float(v) for v in row.split(",")] for row in path.read_text().split()]
        assert rows == [region.tolist() for region in sequence.regions]
        assert list(workspace.rglob(f"{sequence.name}_001.txt"))
    config = json.loads((workspace / "config.yaml").read_text())
    _, score = config["stack"]["experiments"]["baseline"]["analyses"]
    assert (score["low"], score["high"]) == INTERVAL


def test_results_that_are_missing_are_named(tmp_path):
    with pytest.raises(InputError, match="results/plain: no such folder"):
        toolkit.write_workspace(
            tmp_path / "w", tmp_path / "results", make_sequences(), interval=INTERVAL
        )


@pytest.mark.parametrize("text", ["", "{}", '{"results": {"a": {"results": [1]}}}'])
def test_what_is_no_analysis_is_named(tmp_path, text):
    path = tmp_path / "check.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"check\.json: not an analysis"):
        toolkit.read_analysis(path)


def test_differences_are_told(tmp_path, monkeypatch):
    figures = evaluate_written(tmp_path, convention="toolkit")
    theirs = ToolkitFigures(
        figures.accuracy, figures.weighted_failures + 5e-7, figures.eao
    )
    monkeypatch.setattr(toolkit, "run_toolkit", lambda *_, **__: theirs)
    assert toolkit.check_with_toolkit(figures, "r", ()) == theirs
    for wrong in (figures.eao + 1e-5, float("nan")):
        ours = dataclasses.replace(figures, eao=wrong)
        with pytest.raises(InputError, match=r"r: eao is .*, the toolkit's 0\."):
            toolkit.check_with_toolkit(ours, "r", ())


def test_figures_of_another_convention_are_not_compared(tmp_path):
    figures = evaluate_written(tmp_path, convention="legacy")
    with pytest.raises(InputError, match="'legacy', overlap 'pysot': expected 'too"):
        toolkit.check_with_toolkit(figures, "r", ())


def test_a_missing_toolkit_is_named(monkeypatch):
    monkeypatch.setattr(toolkit.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"'siamrpn-jax\[vot\]'"):
        toolkit.run_toolkit("r", (), interval=INTERVAL)


@needs_toolkit
def test_a_command_that_fails_tells_why(tmp_path):
    with pytest.raises(InputError, match="vot analysis failed.*not initialized"):
        toolkit.run_vot("analysis", workspace=tmp_path)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A workspace in which the toolkit's client has driven our tracker by TraX."""
    workspace = tmp_path_factory.mktemp("vot") / "workspace"
    sequences = make_sequences()
    (workspace / "results").mkdir(parents=True)
    for sequence in sequences:
        (workspace / "results" / sequence.name).mkdir()  # nothing was run yet
    toolkit.write_workspace(
        workspace, workspace / "results", sequences, interval=INTERVAL
    )
    for sequence in sequences:
        color = workspace / "sequences" / sequence.name / "color"
        write_frames(color, sequence)
    options = ["--weights", "small", "--sizes", str(WIDTH), str(HEIGHT)]
    options += ["--cache", str(workspace / "cache")]
    command = f"import vot_tracker; vot_tracker.main({options})"
    (workspace / "trackers.ini").write_text(
        f"[{toolkit.TRACKER}]\nlabel = ours\nprotocol = traxpython\n"
        f"command = {command}\npaths = {ROOT / 'experiments'}:{ROOT}\ntimeout = 300\n"
    )
    toolkit.run_vot("evaluate", toolkit.TRACKER, workspace=workspace)
    return workspace, sequences


@needs_toolkit
def test_the_toolkits_client_drives_our_tracker(evaluated):
    workspace, sequences = evaluated
    results = workspace / "results" / toolkit.TRACKER / "baseline"
    runs = read_runs(results, sequences)
    assert [len(run[0]) for run in runs.values()] == [45, 38, 45]
    figures = evaluate(runs, sequences, interval=INTERVAL, convention="toolkit")
    assert figures.sequences["plain"].failures == 0
    assert figures.sequences["plain"].accuracy > 0.7
    assert figures.sequences["jumps"].failures > 1
    toolkit.run_vot("analysis", "--name", "mine", toolkit.TRACKER, workspace=workspace)
    theirs = toolkit.read_analysis(workspace / "analysis" / "mine.json")
    ours = [figures.accuracy, figures.weighted_failures, figures.eao]
    np.testing.assert_allclose(dataclasses.astuple(theirs), ours, rtol=0, atol=1e-6)
    assert toolkit.check_with_toolkit(figures, results, sequences) == theirs


@needs_toolkit
def test_the_toolkits_figures_of_given_results_are_ours(tmp_path):
    figures = evaluate_written(tmp_path, convention="toolkit")
    assert figures.failures == 3
    toolkit.check_with_toolkit(figures, tmp_path, make_sequences())


@needs_toolkit
@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="skipped: no ../shared")
def test_the_toolkits_figures_of_published_results_are_ours():
    sequences = read_vot_annotations(PUBLISHED / "groundtruth" / "VOT2018.json")
    folder = PUBLISHED / "vot2018" / "NanoTrack" / "baseline"
    runs = read_runs(folder, sequences)
    figures = evaluate(runs, sequences, interval=(100, 356), convention="toolkit")
    toolkit.check_with_toolkit(figures, folder, sequences)
