import functools
import json
import shutil
import sys

import numpy as np
import pytest

from paths import SHARED_DATA
from siamrpn_jax.commands import efo, eval_vot
from siamrpn_jax.evaluation import trackers
from siamrpn_jax.evaluation.vot import generated, metrics, toolkit
from siamrpn_jax.evaluation.vot.dataset import read_vot_dataset
from siamrpn_jax.evaluation.vot.generated import write_synthetic

PUBLISHED = SHARED_DATA / "published"
LENGTHS = (60, 50)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vot")
    write_synthetic(folder, lengths=LENGTHS)
    return folder


@pytest.fixture
def dataset(source, monkeypatch):
    """Two short sequences in place of VOT2018, with an interval that fits them."""
    monkeypatch.setattr(metrics, "INTERVALS", {2018: (10, 40)})
    return ["--dataset", "vot2018", "--root", str(source)]


def evaluate(*options):
    eval_vot.main([str(option) for option in options])


def fail(capsys, *options):
    with pytest.raises(SystemExit) as caught:
        evaluate(*options)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_generated_sequences_with_released_weights(monkeypatch, tmp_path, capsys):
    """What a fresh machine can run; shorter here."""
    monkeypatch.chdir(tmp_path)
    shorter = functools.partial(write_synthetic, lengths=(40, 35), seed=9)
    monkeypatch.setattr(generated, "write_synthetic", shorter)
    evaluate("--json", tmp_path / "out.json")
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["tracker"], report["dataset"]) == ("base", "synthetic")
    assert (report["convention"], report["overlap"]) == ("legacy", "pysot")
    assert report["interval"] == [30, 60] and report["frames"] == 75
    assert 0.3 < report["accuracy"] < 1 and 0 < report["eao"] < 1
    assert report["robustness"] == pytest.approx(100 * report["failures"] / 75)
    assert report["fps"] > 1 and report["warm_up_seconds"] > 0
    assert set(report["sequences"]) == {"scene9", "scene10"}
    assert report["sequences"]["scene9"]["fps"] > 1
    assert {"motion_change", "size_change", "empty"} == set(report["attributes"])
    printed = capsys.readouterr().out
    assert "synthetic, 2 sequences, 75 frames: generated" in printed
    assert "convention legacy, overlap pysot, EAO over lengths 30 to 60" in printed
    assert "compilation" in printed
    lines = {line.split()[0]: line.split()[1:] for line in printed.splitlines()}
    assert lines["tracker"] == "EAO Accuracy Failure lost per 100 frames/s".split()
    assert lines["base"][:2] != [] and f"{report['eao']:.3f}" in printed


def test_figures_are_those_of_the_files(dataset, source, tmp_path, capsys):
    results, out = tmp_path / "results", tmp_path / "out.json"
    options = [*dataset, "--results", results, "--json", out]
    evaluate(*options, "--tracker", "static")
    report = json.loads(out.read_text())
    assert report["complete"] is False
    assert "2 sequences, 110 frames: not the 60 of the whole" in capsys.readouterr().out
    folder = results / "static" / "baseline"
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    files = [
        f"scene{i}_001{end}" for i in (104, 105) for end in (".txt", "_time.value")
    ]
    assert names == {"settings.json", *files}
    sequences = read_vot_dataset(source)
    runs = {
        s.name: [
            [
                np.array([float(v) for v in line.split(",")])
                for line in (folder / s.name / f"{s.name}_001.txt")
                .read_text()
                .splitlines()
            ]
        ]
        for s in sequences
    }
    figures = metrics.evaluate(runs, sequences, interval=(10, 40))
    assert report["eao"] == pytest.approx(figures.eao)
    assert report["accuracy"] == pytest.approx(figures.accuracy)
    assert report["failures"] == figures.failures
    # Scored again, by the other convention, without running anything.
    evaluate(
        *dataset,
        *("--results-only", results / "static", "--json", out),
        *("--convention", "toolkit"),
    )
    again = json.loads(out.read_text())
    assert (again["convention"], again["overlap"]) == ("toolkit", "official")
    figures = metrics.evaluate(
        runs, sequences, interval=(10, 40), convention="toolkit", overlap="official"
    )
    assert again["eao"] == pytest.approx(figures.eao)
    assert again["fps"] == pytest.approx(report["fps"])
    assert again["warm_up_seconds"] is None and again["device"] is None


class Counting(trackers.StaticTracker):
    starts = 0

    def init(self, image, box):
        Counting.starts += 1
        super().init(image, box)


def test_resume_and_force(dataset, source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trackers, "StaticTracker", Counting)
    Counting.starts = 0
    options = [*dataset, "--results", tmp_path, "--tracker", "static"]
    evaluate(*options)
    first = Counting.starts
    assert first >= 4  # warm-up and start, twice
    shutil.rmtree(tmp_path / "static" / "baseline" / "scene105")
    evaluate(*options)
    second = Counting.starts - first
    assert 2 <= second < first
    assert "scene104  60 frames  was there" in capsys.readouterr().out
    evaluate(*options)
    assert Counting.starts == first + second
    evaluate(*options, "--force")
    assert Counting.starts == 2 * first + second
    assert "other settings" in fail(capsys, *options, "--overlap", "official")


def test_all_trackers_are_opened_before_one_runs(dataset, tmp_path, capsys):
    options = [*dataset, "--results", tmp_path, "--tracker", "static"]
    assert "no weights 'none'" in fail(capsys, *options, "--weights", "small", "none")
    assert list(tmp_path.rglob("*.txt")) == []


def test_nothing_is_removed_where_a_tracker_cannot_be_opened(dataset, tmp_path, capsys):
    options = [*dataset, "--results", tmp_path, "--tracker", "static"]
    evaluate(*options)
    before = sorted(tmp_path.rglob("*.txt"))
    options += ["--weights", "base", "small", "--tracker.distractors", ".2", "--force"]
    message = "error: small: distractors 0.2: expected none with a depthwise head"
    assert fail(capsys, *options).startswith(message)
    assert sorted(tmp_path.rglob("*.txt")) == before != []


def test_places_are_checked_before_anything_runs(dataset, tmp_path, capsys):
    options = [*dataset, "--tracker", "static", "--json", tmp_path]
    assert "is a folder, expected the name of a file --json" in fail(capsys, *options)


def test_real_time_and_repetitions(dataset, tmp_path, capsys):
    options = [*dataset, "--results", tmp_path, "--tracker", "static"]
    options += ["--experiment", "realtime", "--fps", "25", "--grace", "2"]
    evaluate(*options, "--repetitions", "2", "--json", tmp_path / "out.json")
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["experiment"] == "realtime"
    assert report["realtime"] == {"fps": 25, "grace": 2}
    assert "experiment realtime at 25 frames/s, grace 2" in capsys.readouterr().out
    files = (tmp_path / "static" / "realtime").rglob("scene10?_00?.txt")
    assert len(list(files)) == 4
    assert "fps: 25.0 -> 20.0" in fail(capsys, *options[:-4])


def test_efo_is_frames_a_second_times_the_filter(
    dataset, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(efo, "filter_seconds", lambda: 0.125)
    options = [*dataset, "--results", tmp_path, "--tracker", "static"]
    evaluate(*options, "--json", tmp_path / "out.json", "--efo")
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["efo_filter_seconds"] == 0.125
    assert report["efo_estimate"] == pytest.approx(0.125 * report["fps"])
    printed = capsys.readouterr().out
    assert "filter takes 0.125 s" in printed and "EFO ≈" in printed


def test_without_resets(dataset, tmp_path, capsys):
    out = tmp_path / "out.json"
    evaluate(
        *dataset,
        *("--results", tmp_path, "--tracker", "static", "--json", out),
        *("--experiment", "unsupervised"),
    )
    report = json.loads(out.read_text())
    for key in ("eao", "robustness", "failures", "interval"):
        assert report[key] is None
    rows = report["sequences"].values()
    assert report["accuracy"] == pytest.approx(np.mean([r["accuracy"] for r in rows]))
    assert [row["frames"] for row in rows] == list(LENGTHS)
    assert f"{report['accuracy']:.3f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "module", "extra"),
    [
        ("--report PAGE", "jinja2", "report"),
        ("--check-with-toolkit", "vot", "vot"),
    ],
)
def test_what_is_not_installed_is_missed_before_anything_runs(
    dataset, tmp_path, monkeypatch, capsys, option, module, extra
):
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(sys.modules, module, None)
    options = option.replace("PAGE", str(tmp_path / "page")).split()
    ran = []
    monkeypatch.setattr(eval_vot, "_run_and_score", lambda *_: ran.append(1))
    assert f"[{extra}]" in fail(capsys, *dataset, "--tracker", "static", *options)
    assert not ran


def test_several_trackers_and_a_report(dataset, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")

    class Shifted(trackers.StaticTracker):
        def init(self, image, box):
            super().init(image, box + 2)

    results = tmp_path / "results"
    evaluate(*dataset, "--results", results, "--tracker", "static")
    monkeypatch.setattr(trackers, "StaticTracker", Shifted)
    evaluate(*dataset, "--results", tmp_path / "more", "--tracker", "static")
    (tmp_path / "more" / "static").rename(results / "shifted")
    capsys.readouterr()
    evaluate(
        *dataset,
        *("--results-only", results / "static", results / "shifted"),
        *("--json", tmp_path / "out.json", "--report", tmp_path / "page"),
    )
    report = json.loads((tmp_path / "out.json").read_text())
    assert set(report["trackers"]) == {"static", "shifted"}
    accuracy = {k: v["accuracy"] for k, v in report["trackers"].items()}
    assert accuracy["shifted"] != accuracy["static"]
    page = (tmp_path / "page" / "index.html").read_text()
    assert "shifted" in page and "vot2018" in page
    assert f"report  {tmp_path / 'page' / 'index.html'}" in capsys.readouterr().out


def test_check_with_toolkit(dataset, tmp_path, monkeypatch, capsys):
    asked = []

    def check(figures, folder, sequences):
        asked.append((figures.convention, figures.overlap, folder, len(sequences)))
        return toolkit.ToolkitFigures(accuracy=0.5, failures=2.0, eao=0.25)

    monkeypatch.setattr(toolkit, "check_installed", lambda: None)
    monkeypatch.setattr(toolkit, "check_with_toolkit", check)
    evaluate(
        *dataset,
        *("--results", tmp_path, "--tracker", "static", "--check-with-toolkit"),
    )
    assert asked == [("toolkit", "official", tmp_path / "static" / "baseline", 2)]
    assert "the toolkit has the same figures, EAO 0.250000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--root", "x"], "x: expected --dataset"),
        (["--dataset", "vot2018"], "--dataset vot2018: expected --root"),
        (["--skip-broken"], "--skip-broken is for --results-only"),
        (["--dataset", "vot2018", "--groundtruth", "y"], "expected --results-only"),
        (["--results-only", "x", "--tracker", "static"], "expected no tracker"),
        (["--repetitions", "0"], "--repetitions 0"),
        (["--results-only", "x", "--efo"], "--efo: expected trackers that run"),
        (
            ["--check-with-toolkit", "--experiment", "unsupervised"],
            "expected an experiment with resets",
        ),
        (["--experiment", "realtime", "--fps", "0"], "fps is 0"),
        (["--weights", "small", "small"], "several trackers are named small"),
        (["--weights", "nothing"], "no weights 'nothing'"),
        (["--dataset", "vot2018", "--root", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_options_that_cannot_be_used(capsys, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    assert message in fail(capsys, *options)


def test_a_year_without_an_experiment(capsys):
    with pytest.raises(SystemExit):
        evaluate("--dataset", "vot2099", "--root", ".")
    assert "vot2099" in capsys.readouterr().err


def test_results_that_are_missing(dataset, tmp_path, capsys):
    evaluate(*dataset, "--results", tmp_path, "--tracker", "static")
    folder = tmp_path / "static"
    shutil.rmtree(folder / "baseline" / "scene105")
    error = fail(capsys, *dataset, "--results-only", folder)
    assert "1 of 2 sequences" in error and "scene105" in error
    shutil.rmtree(folder / "baseline" / "scene104")
    error = fail(capsys, *dataset, "--results-only", folder)
    assert "2 of 2 sequences" in error and "<sequence>/<sequence>_001.txt" in error


def test_rows_that_are_missing(dataset, tmp_path, capsys):
    evaluate(*dataset, "--results", tmp_path, "--tracker", "static")
    path = tmp_path / "static" / "baseline" / "scene105" / "scene105_001.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    error = fail(capsys, *dataset, "--results-only", tmp_path / "static")
    assert "static" in error and "scene105" in error and "48" in error and "50" in error


def test_a_frame_that_cannot_be_decoded(source, dataset, tmp_path, capsys):
    root = tmp_path / "broken"
    shutil.copytree(source, root)
    (root / "sequences" / "scene105" / "color" / "00000030.jpg").write_bytes(
        b"no image"
    )
    dataset[-1] = str(root)
    results = tmp_path / "results"
    error = fail(capsys, *dataset, "--results", results, "--tracker", "static")
    assert "scene105/color/00000030.jpg" in error
    assert {path.name for path in results.rglob("*.txt")} == {"scene104_001.txt"}


@pytest.mark.parametrize(
    ("tracker", "eao", "accuracy", "lost"),
    [("LightTrack", 0.418, 0.529, 38), ("NanoTrack", 0.311, 0.542, 70)],
)
def test_published_results(tmp_path, tracker, eao, accuracy, lost):
    if not PUBLISHED.is_dir():
        pytest.skip("skipped: no ../shared")
    out = tmp_path / "out.json"
    evaluate(
        *("--dataset", "vot2018", "--json", out),
        *("--groundtruth", PUBLISHED / "groundtruth" / "VOT2018.json"),
        *("--results-only", PUBLISHED / "vot2018" / tracker),
    )
    report = json.loads(out.read_text())
    assert report["complete"] and report["frames"] == 21356
    assert report["eao"] == pytest.approx(eao, abs=5e-4)
    assert report["accuracy"] == pytest.approx(accuracy, abs=5e-4)
    assert report["failures"] == lost


def test_results_with_a_broken_file_are_scored_without_it(dataset, tmp_path, capsys):
    results, out = tmp_path / "results", tmp_path / "figures.json"
    evaluate(*dataset, "--results", results, "--tracker", "static")
    folder = results / "static" / "baseline"
    broken = sorted(path.name for path in folder.iterdir() if path.is_dir())[0]
    (folder / broken / f"{broken}_001.txt").write_text("no region\n")
    message = fail(capsys, *dataset, "--results-only", results / "static")
    assert f"{broken}_001.txt" in message
    report = tmp_path / "report"
    evaluate(
        *dataset,
        *("--results-only", results / "static", "--skip-broken", "--json", out),
        *("--report", report),
    )
    printed = capsys.readouterr().out
    assert f"static: INCOMPLETE, without {broken}" in printed
    figures = json.loads(out.read_text())
    assert figures["complete"] is False and figures["broken"] == [broken]
    assert broken not in figures["sequences"]
    assert "incomplete" in (report / "index.html").read_text()
