import dataclasses
import json
import shutil
import sys
import zipfile

import cv2
import numpy as np
import pytest

from paths import SHARED_DATA
from random_variables import random_variables
from siamrpn_jax.commands import eval_ope
from siamrpn_jax.common.errors import InputError, MissingExtraError
from siamrpn_jax.evaluation import trackers
from siamrpn_jax.evaluation.ope import metrics
from siamrpn_jax.evaluation.results import read_otb_results, write_otb_results
from siamrpn_jax.model.config import count_flops
from siamrpn_jax.model.network import SiamRPN, count_parameters
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.weights import save_weights
from small_models import tiny_model

PUBLISHED = SHARED_DATA / "published"

TRUTH = {
    "car": np.array([[10.0 + 2 * i, 8, 20, 12] for i in range(5)]),
    "dog": np.array([[20.0, 8 + i, 16, 18] for i in range(4)]),
}


@pytest.fixture
def sequences(tmp_path):
    root = tmp_path / "sequences"
    for name, boxes in TRUTH.items():
        images = root / name / "img"
        images.mkdir(parents=True)
        for index in range(len(boxes)):
            image = np.full((48, 64, 3), 40 * index, np.uint8)
            cv2.imwrite(str(images / f"{index + 1:08d}.png"), image)
        np.savetxt(root / name / "groundtruth.txt", boxes, "%.2f", ",")
    return root


def evaluate_static(*, skip_first=True):
    return {
        name: metrics.evaluate(
            np.repeat(boxes[:1], len(boxes), axis=0), boxes, skip_first=skip_first
        )
        for name, boxes in TRUTH.items()
    }


def test_table_and_files(tmp_path, sequences, capsys):
    pytest.importorskip("matplotlib")
    eval_ope.main(
        ["--sequences", str(sequences), "--tracker", "static"]
        + ["--json", str(tmp_path / "out.json"), "--results", str(tmp_path / "res")]
        + ["--plots", str(tmp_path / "plots")]
    )
    rows = evaluate_static()
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["tracker"] == "static"
    assert {"command", "date"} < set(report) and report["machine"]["cpu"]
    assert report["convention"]["first_frame"] == "excluded"
    assert report["auc"] == pytest.approx(np.mean([row.auc for row in rows.values()]))
    for name, row in rows.items():
        figures = report["sequences"][name]
        assert figures["auc"] == pytest.approx(row.auc)
        assert figures["precision"] == pytest.approx(row.precision)
        assert figures["normalized_precision"] == pytest.approx(
            row.normalized_precision
        )
        assert figures["frames"] == len(TRUTH[name]) - 1
        assert figures["fps"] > 0
        boxes = read_otb_results(tmp_path / "res" / f"{name}.txt")
        assert boxes.tolist() == [TRUTH[name][0].tolist()] * len(TRUTH[name])
    plots = {path.name for path in (tmp_path / "plots").iterdir()}
    assert plots == {"success.png", "precision.png", "car.png", "dog.png"}
    printed = capsys.readouterr().out
    assert "first frame excluded" in printed
    lines = {line.split()[0]: line.split()[1:] for line in printed.splitlines()}
    assert lines["car"][0] == f"{rows['car'].auc:.3f}"
    assert lines["mean"][0] == f"{report['auc']:.3f}"


@pytest.mark.parametrize(
    ("options", "first", "told"),
    [
        ([], "11.0000,9.0000,20.0000,12.0000", "count from 1"),
        (["--results-origin", "0"], "10.0000,8.0000,20.0000,12.0000", "count from 0"),
    ],
)
def test_results_count_as_otb_or_from_zero(
    tmp_path, sequences, capsys, options, first, told
):
    folder = tmp_path / "res"
    eval_ope.main(
        ["--sequences", str(sequences), "--tracker", "static"]
        + ["--results", str(folder), *options]
    )
    assert (folder / "car.txt").read_text().splitlines()[0] == first
    assert f"boxes  {folder} (x and y {told})" in capsys.readouterr().out


def test_sequences_played_there_and_back(sequences):
    config = eval_ope.Config(sequences, there_and_back=3, tracker=("static",))
    report = eval_ope.run(config)
    assert list(report["sequences"]) == [f"{name}_x3" for name in TRUTH]
    moved = TRUTH["dog"][[0, *[1, 2, 3, 2, 1, 0] * 3]]
    expected = metrics.evaluate(np.repeat(moved[:1], len(moved), axis=0), moved)
    assert report["sequences"]["dog_x3"]["auc"] == pytest.approx(expected.auc)


def test_one_sequence_by_its_own_folder(sequences):
    config = eval_ope.Config(sequences / "car", tracker=("static",))
    assert list(eval_ope.run(config)["sequences"]) == ["car"]


def fail(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        eval_ope.main([*arguments, "--tracker", "static"])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_every_unreadable_sequence_is_named(sequences, capsys):
    (sequences / "car" / "img" / "00000005.png").unlink()
    (sequences / "dog" / "groundtruth.txt").write_text("1,2,3\n" * 4)
    error = fail(capsys, "--sequences", str(sequences))
    assert "car" in error and "dog" in error


def test_a_broken_frame_is_named(sequences, capsys):
    (sequences / "dog" / "img" / "00000003.png").write_bytes(b"no image")
    results = sequences.parent / "results"
    error = fail(capsys, "--sequences", str(sequences), "--results", str(results))
    assert "00000003.png" in error
    assert (results / "car.txt").is_file() and not (results / "dog.txt").exists()


def test_missing_folder_is_named(tmp_path, capsys):
    assert "nowhere" in fail(capsys, "--sequences", str(tmp_path / "nowhere"))
    assert str(tmp_path) in fail(capsys, "--sequences", str(tmp_path))


def test_sequence_without_a_frame_to_count(sequences, capsys):
    boxes = TRUTH["dog"].copy()
    boxes[1:] = np.nan
    np.savetxt(sequences / "dog" / "groundtruth.txt", boxes, "%.2f", ",")
    error = fail(capsys, "--sequences", str(sequences))
    assert "dog: none of the 4 frames" in error


class NeverStarted:
    def init(self, image, box):
        raise AssertionError

    update = init


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ([np.nan] * 4, "dog: no ground truth in the first frame"),
        ([64, 8, 16, 18], "dog: first box [64.0, 8.0, 16.0, 18.0]: outside the frame"),
    ],
)
def test_first_boxes_are_checked_before_anything_runs(
    sequences, capsys, monkeypatch, first, message
):
    boxes = TRUTH["dog"].copy()
    boxes[0] = first
    np.savetxt(sequences / "dog" / "groundtruth.txt", boxes, "%.2f", ",")
    monkeypatch.setattr(eval_ope, "open_tracker", lambda _: (NeverStarted(), {}))
    assert message in fail(capsys, "--sequences", str(sequences))


def test_sequences_of_one_frame_are_all_named(sequences, capsys, monkeypatch):
    for name in TRUTH:
        for path in sorted((sequences / name / "img").iterdir())[1:]:
            path.unlink()
        np.savetxt(sequences / name / "groundtruth.txt", TRUTH[name][:1], "%.2f", ",")
    monkeypatch.setattr(eval_ope, "open_tracker", lambda _: (NeverStarted(), {}))
    error = fail(capsys, "--sequences", str(sequences))
    assert "car: 1 frame, expected" in error and "dog: 1 frame, expected" in error


def test_every_ground_truth_file_of_a_folder_is_a_sequence(sequences):
    (sequences / "dog" / "groundtruth.txt").unlink()
    for number in (1, 2):
        path = sequences / "dog" / f"groundtruth_rect.{number}.txt"
        np.savetxt(path, TRUTH["dog"] + [number, 1, 0, 0], "%.2f", ",")
    report = eval_ope.run(eval_ope.Config(sequences, tracker=("static",)))
    assert len(report["sequences"]) == 3


def test_two_sequences_of_one_name(sequences, capsys):
    (sequences / "more").mkdir()
    (sequences / "dog").rename(sequences / "more" / "car")
    assert "second sequence named car" in fail(capsys, "--sequences", str(sequences))


def test_what_a_report_needs_is_missed_before_anything_runs(
    tmp_path, sequences, capsys, monkeypatch
):
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    config = eval_ope.Config(sequences, tracker=("static",), report=tmp_path / "page")
    with pytest.raises(MissingExtraError, match=r"jinja2 is not .*\[report\]"):
        eval_ope.run(config)
    assert not capsys.readouterr().out


def score(folder, **options):
    return eval_ope.run(eval_ope.Config(results_only=(folder,), **options))


def test_several_trackers_are_compared(tmp_path, sequences, capsys, monkeypatch):
    class Lost:
        def init(self, image, box):
            pass

        def update(self, image):
            return np.array([0.0, 0.0, 1.0, 1.0])

    def open_tracker(contestant):
        return {"a": Lost(), "b": trackers.StaticTracker()}[contestant.name], {}

    monkeypatch.setattr(eval_ope, "open_tracker", open_tracker)
    for name in ("add_sources", "check_tracker_specs"):
        monkeypatch.setattr(eval_ope, name, lambda *_: None)
    page = tmp_path / "page"
    pytest.importorskip("matplotlib")
    report = eval_ope.run(
        eval_ope.Config(
            sequences,
            weights=("a", "b"),
            results=tmp_path / "res",
            plots=tmp_path / "plots",
            report=page,
        )
    )
    assert list(report["trackers"]) == ["a", "b"]
    assert report["trackers"]["a"]["auc"] == 0 < report["trackers"]["b"]["auc"]
    assert (tmp_path / "res" / "b" / "car.txt").is_file()
    assert (tmp_path / "plots" / "car.png").is_file()
    assert "One-pass evaluation" in (page / "index.html").read_text()
    lines = capsys.readouterr().out.splitlines()
    table = lines[
        lines.index(
            "tracker".ljust(24)
            + "".join(
                cell.rjust(9)
                for cell in ("AUC", "P@20", "norm P", "fps", "ms", "M param", "GFLOP")
            )
        ) :
    ]
    assert [row.split()[0] for row in table[1:3]] == ["a", "b"]
    assert all(row.split()[-2:] == ["-", "-"] for row in table[1:3])
    # The raw results give the same figures, speed included.
    again = eval_ope.run(
        eval_ope.Config(
            sequences, results_only=(tmp_path / "res" / "a", tmp_path / "res" / "b")
        )
    )
    assert again == report


def test_the_difference_of_two_trackers(tmp_path, sequences, capsys):
    for name, shift in (("near", 1), ("far", 6)):
        for key, boxes in TRUTH.items():
            path = tmp_path / name / f"{key}.txt"
            write_otb_results(path, boxes + [shift, 0, 0, 0])
    trackers = score_several(tmp_path, sequences, compare="far")["trackers"]
    near, far = trackers["near"], trackers["far"]
    assert "compared" not in far
    found = near["compared"]
    assert found["other"] == "far"
    assert found["auc_difference"] == pytest.approx(near["auc"] - far["auc"])
    # On both sequences the gain is the same.
    assert found["interval"] == pytest.approx((found["auc_difference"],) * 2)
    assert (found["better"], found["worse"], found["sequences"]) == (2, 0, 2)
    assert "near less far: AUC +0." in capsys.readouterr().out
    with pytest.raises(InputError, match="those here are near, far"):
        score_several(tmp_path, sequences, compare="nearest")


def score_several(folder, sequences, **options):
    results = (folder / "near", folder / "far")
    config = eval_ope.Config(sequences, results_only=results, **options)
    return eval_ope.run(config)


def test_networks_are_shown_with_what_they_cost(tmp_path, sequences, capsys):
    model = SiamRPN(tiny_model())
    variables = random_variables(model.init_variables)
    for name in ("a", "b"):
        path = tmp_path / f"{name}.safetensors"
        config = TrackerConfig()
        save_weights(path, variables, model=model, tracker_config=config, card={})
    weights = [str(tmp_path / f"{name}.safetensors") for name in ("a", "b")]
    eval_ope.main(
        ["--sequences", str(sequences), "--weights", *weights, "--tracker", "static"]
        + ["--json", str(tmp_path / "out.json"), "--results", str(tmp_path / "res")]
    )
    parameters, flops = count_parameters(model.config), count_flops(model.config)
    report = json.loads((tmp_path / "out.json").read_text())["trackers"]
    assert list(report) == ["a", "b", "static"]
    for row in report.values():
        assert 0 < row["ms"] < 1e4
    for name in ("a", "b"):
        assert report[name]["parameters"] == parameters
        assert report[name]["flops"] == flops
    assert report["static"]["parameters"] is report["static"]["flops"] is None
    assert "a multiply-add counts as 2" in report["a"]["convention"]["flops"]
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines[-4:]]
    shown = [f"{parameters / 1e6:.2f}", f"{flops / 1e9:.2f}"]
    assert [row[-2:] for row in rows[:3]] == [shown, shown, ["-", "-"]]
    assert rows[1][-3] == f"{report['b']['ms']:.2f}"
    assert "GFLOP: search branch" in lines[-1]
    # Its settings tell what network results came from.
    again = score(tmp_path / "res" / "a", sequences=sequences)
    assert again == report["a"]
    shown_again = capsys.readouterr().out.splitlines()[-2].split()
    assert shown_again[-2:] == shown


@pytest.mark.parametrize(
    "settings", ['{"model": {"future": 1}}', '{"model": 3}', "[]", "no json"]
)
def test_settings_of_others_tell_no_network(tmp_path, settings):
    truth = write_truth(tmp_path / "truth.json", {"car": TRUTH["car"]})
    write_otb_results(tmp_path / "mine" / "car.txt", TRUTH["car"])
    (tmp_path / "mine" / "settings.json").write_text(settings)
    report = score(tmp_path / "mine", groundtruth=truth)
    assert report["parameters"] is report["ms"] is None


class Counting(trackers.StaticTracker):
    def __init__(self):
        self.started = 0

    def init(self, image, box):
        self.started += 1
        super().init(image, box)


def test_what_is_there_is_not_run_again(tmp_path, sequences, monkeypatch, capsys):
    tracker = Counting()
    settings = {"weights": "one"}
    monkeypatch.setattr(eval_ope, "open_tracker", lambda _: (tracker, settings))
    config = eval_ope.Config(sequences, results=tmp_path / "res")
    report = eval_ope.run(config)
    assert tracker.started == 4  # a warm-up each
    assert eval_ope.run(config) == report
    assert tracker.started == 4
    (tmp_path / "res" / "dog.txt").unlink()
    eval_ope.run(config)
    assert tracker.started == 6
    settings["weights"] = "another"
    arguments = ["--sequences", str(sequences), "--results", str(tmp_path / "res")]
    error = fail(capsys, *arguments)
    assert "other settings (weights" in error and "--force" in error
    eval_ope.main([*arguments, "--force"])
    assert tracker.started == 10


def test_results_of_unknown_origin_are_kept(tmp_path, sequences, capsys):
    write_otb_results(tmp_path / "car.txt", TRUTH["car"])
    error = fail(capsys, "--sequences", str(sequences), "--results", str(tmp_path))
    assert "car.txt but no settings.json" in error
    assert read_otb_results(tmp_path / "car.txt").tolist() == TRUTH["car"].tolist()


def test_all_trackers_are_checked_before_one_is_opened(sequences, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(eval_ope, "open_tracker", opened.append)
    words = ["--weights", "base", "small", "--tracker.online-frames", "None", "16"]
    error = fail(capsys, "--sequences", str(sequences), *words)
    assert error.startswith("error: small: online_frames 16: ") and not opened


def test_results_of_all_trackers_are_checked_before_one_runs(
    tmp_path, sequences, monkeypatch, capsys
):
    counting = Counting()
    made = {"base": (counting, {}), "static": (Counting(), {"opencv": "5"})}
    monkeypatch.setattr(eval_ope, "open_tracker", lambda spec: made[spec.name])
    results = tmp_path / "res"
    arguments = ["--sequences", str(sequences), "--results", str(results)]
    arguments += ["--weights", "base"]
    eval_ope.main([*arguments, "--tracker", "static"])
    made["static"][1]["opencv"] = "6"
    (results / "base/car.txt").unlink()
    before = counting.started
    assert f"{results}/static: its results were made" in fail(capsys, *arguments)
    assert counting.started == before and not (results / "base/car.txt").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--json", "FOLDER"], "is a folder, expected the name of a file --json"),
        (["--json", "FILE/a"], "is no folder, choose another --json"),
        (["--report", "FILE"], "is no folder, choose another --report"),
        (["--plots", "FILE/a"], "is no folder, choose another --plots"),
        (["--results", "FILE"], "is no folder, choose another --results"),
    ],
)
def test_places_are_checked_before_anything_runs(
    tmp_path, sequences, capsys, words, message
):
    file = tmp_path / "file"
    file.write_text("kept")
    words = [
        w.replace("FILE", str(file)).replace("FOLDER", str(tmp_path)) for w in words
    ]
    with pytest.raises(SystemExit):
        eval_ope.main(["--sequences", str(sequences), "--tracker", "static", *words])
    printed = capsys.readouterr()
    assert printed.out == "" and message in printed.err
    assert file.read_text() == "kept"


def write_truth(path, truth):
    content = {
        name: {"gt_rect": (boxes + [1, 1, 0, 0]).tolist()}
        for name, boxes in truth.items()
    }
    path.write_text(json.dumps(content))
    return path


def test_raw_results_need_no_images(tmp_path):
    truth = write_truth(tmp_path / "truth.json", TRUTH)
    for name, boxes in TRUTH.items():
        write_otb_results(tmp_path / "mine" / f"{name}.txt", boxes + [5, 0, 0, 0])
    report = score(tmp_path / "mine", groundtruth=truth)
    assert report["tracker"] == "mine" and report["fps"] is None
    assert report["convention"]["first_frame"] == "included"
    expected = [  # the first frame counts with its true box
        metrics.evaluate(
            np.concatenate([boxes[:1], boxes[1:] + [5, 0, 0, 0]]),
            boxes,
            skip_first=False,
        ).auc
        for boxes in TRUTH.values()
    ]
    assert report["auc"] == pytest.approx(np.mean(expected))
    plain = score(tmp_path / "mine", groundtruth=truth, convention="plain")
    assert plain["convention"]["first_frame"] == "excluded"
    assert plain["auc"] < report["auc"]


def test_absent_frames_by_both_conventions(tmp_path):
    boxes = TRUTH["car"].copy()
    boxes[2:4] = np.nan
    truth = write_truth(tmp_path / "truth.json", {"car": boxes})
    write_otb_results(tmp_path / "mine" / "car.txt", TRUTH["car"])
    toolkit = score(tmp_path / "mine", groundtruth=truth)
    plain = score(tmp_path / "mine", groundtruth=truth, convention="plain")
    assert (toolkit["precision"], plain["precision"]) == (3 / 5, 1)
    assert toolkit["convention"]["absent_frames"] == "included, as missed"


@pytest.mark.parametrize(("rows", "told"), [(3, "3 rows"), (6, "6 rows")])
def test_rows_and_frames_differ(tmp_path, capsys, rows, told):
    truth = write_truth(tmp_path / "truth.json", {"car": TRUTH["car"]})
    boxes = np.resize(TRUTH["car"], (rows, 4))
    write_otb_results(tmp_path / "mine" / "car.txt", boxes)
    error = fail_scoring(capsys, tmp_path / "mine", truth)
    assert f"{told} for 5 frames of car" in error


def test_missing_sequences_are_all_listed(tmp_path, capsys):
    truth = write_truth(tmp_path / "truth.json", TRUTH | {"cat": TRUTH["dog"]})
    write_otb_results(tmp_path / "mine" / "car.txt", TRUTH["car"])
    error = fail_scoring(capsys, tmp_path / "mine", truth)
    assert "2 of 3 sequences: dog, cat" in error


def test_unreadable_row(tmp_path, capsys):
    truth = write_truth(tmp_path / "truth.json", {"car": TRUTH["car"]})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "car.txt").write_text("1,2,3,4\n" * 4 + "1,2,nan,4\n")
    error = fail_scoring(capsys, tmp_path / "mine", truth)
    assert "car.txt:5: '1,2,nan,4'" in error


def fail_scoring(capsys, folder, truth):
    with pytest.raises(SystemExit) as caught:
        eval_ope.main(["--results-only", str(folder), "--groundtruth", str(truth)])
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "expected --sequences"),
        (["--groundtruth", "a.json"], "expected --results-only"),
        (["--sequences", "a", "--groundtruth", "b"], "expected --sequences"),
        (["--sequences", "a", "--benchmark", "got10k-test"], "expected --results"),
        (["--sequences", "a", "--results-only", "b", "--weights", "c"], "no --weights"),
        (
            ["--groundtruth", "a", "--results-only", "b", "--benchmark", "got10k-val"],
            "got10k-val: expected --sequences",
        ),
        (["--sequences", "a", "--results-origin", "1", "0"], "has 2 values"),
        (["--sequences", "a", "--nano-files", "b", "c"], "expected --tracker nano"),
        (["--sequences", "a", "--tracker", "nano"], "--nano-files BACKBONE HEAD"),
        (["--sequences", "a", "--results-only", "a/x", "b/x"], "named x"),
        (["--sequences", "a", "--compare", "siamrpn"], "one of several trackers"),
        (
            ["--sequences", "a", "--benchmark", "otb", "--there-and-back", "2"],
            "--there-and-back is for folders of sequences that are run",
        ),
        (["--sequences", "a", "--there-and-back", "-1"], "there_and_back is -1"),
        (
            ["--sequences", "a", "--benchmark", "got10k-test", "--compare", "siamrpn"],
            "no truth to compare by",
        ),
    ],
)
def test_options_that_do_not_go_together(
    tmp_path, capsys, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    write_otb_results(tmp_path / "a" / "one" / "groundtruth.txt", TRUTH["car"])
    (tmp_path / "a" / "one" / "img").mkdir()
    for index in range(5):
        (tmp_path / "a" / "one" / "img" / f"{index}.jpg").touch()
    with pytest.raises(SystemExit) as caught:
        eval_ope.main(options)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def got10k(tmp_path):
    root = tmp_path / "got10k"
    for subset in ("val", "test"):
        for name, boxes in TRUTH.items():
            folder = root / subset / name
            folder.mkdir(parents=True)
            for index in range(len(boxes)):
                image = np.zeros((48, 64, 3), np.uint8)
                cv2.imwrite(str(folder / f"{index + 1:08d}.jpg"), image)
            known = boxes if subset == "val" else boxes[:1]
            np.savetxt(folder / "groundtruth.txt", known + [1, 1, 0, 0], "%.4f", ",")
            np.savetxt(folder / "absence.label", [0] * len(boxes), "%d")
        (root / subset / "list.txt").write_text("car\ndog\n")
    return root


def test_got10k_validation(tmp_path, got10k, capsys):
    config = eval_ope.Config(
        got10k,
        benchmark="got10k-val",
        tracker=("static",),
        results=tmp_path / "static",
    )
    report = eval_ope.run(config)
    still = [
        metrics.overlaps(np.repeat(boxes[:1], len(boxes) - 1, axis=0), boxes[1:])
        for boxes in TRUTH.values()
    ]
    assert report["ao"] == pytest.approx(np.concatenate(still).mean())
    assert report["sr50"] == pytest.approx((np.concatenate(still) > 0.5).mean())
    assert report["sr75"] == pytest.approx((np.concatenate(still) > 0.75).mean())
    assert report["complete"] is False
    printed = capsys.readouterr().out
    assert "2 sequences of the 180 of got10k-val" in printed and "SR.50" in printed
    again = score(tmp_path / "static", sequences=got10k, benchmark="got10k-val")
    assert again == report


def test_got10k_validation_without_some_results(tmp_path, got10k, capsys):
    results = tmp_path / "static"
    config = eval_ope.Config(
        got10k, benchmark="got10k-val", tracker=("static",), results=results
    )
    eval_ope.run(config)
    shutil.rmtree(results / "dog")
    report = score(results, sequences=got10k, benchmark="got10k-val", skip_broken=True)
    boxes = TRUTH["car"]
    still = metrics.overlaps(np.repeat(boxes[:1], len(boxes) - 1, axis=0), boxes[1:])
    assert report["ao"] == pytest.approx(still.mean())
    assert "left out: " in capsys.readouterr().out


def test_got10k_test_is_packed_for_the_server(tmp_path, got10k):
    config = eval_ope.Config(
        got10k, benchmark="got10k-test", tracker=("static",), results=tmp_path / "res"
    )
    report = eval_ope.run(config)
    assert report["sequences"]["car"]["frames"] == 5 and "auc" not in report
    with zipfile.ZipFile(tmp_path / "res" / "static.zip") as archive:
        names = sorted(archive.namelist())
        rows = archive.read("car/car_001.txt").decode().splitlines()
    assert names == [
        "car/car_001.txt",
        "car/car_time.txt",
        "dog/dog_001.txt",
        "dog/dog_time.txt",
    ]
    assert rows == ["11.0000,9.0000,20.0000,12.0000"] * 5


def test_trackingnets_test_set_is_packed_for_the_server(tmp_path, sequences):
    """Its boxes count from 0, in a file for each sequence."""
    root = tmp_path / "TEST"
    (root / "anno").mkdir(parents=True)
    for name, boxes in TRUTH.items():
        shutil.copytree(sequences / name / "img", root / "frames" / name)
        np.savetxt(root / "anno" / f"{name}.txt", boxes[:1], "%.2f", ",")
    config = eval_ope.Config(
        root, benchmark="trackingnet-test", tracker=("static",), results=tmp_path / "r"
    )
    assert "auc" not in eval_ope.run(config)
    with zipfile.ZipFile(tmp_path / "r" / "static.zip") as archive:
        assert sorted(archive.namelist()) == ["car.txt", "dog.txt"]
        rows = archive.read("car.txt").decode().splitlines()
    assert rows == ["10.0000,8.0000,20.0000,12.0000"] * 5
    with pytest.raises(InputError, match="trackingnet-test has no truth to score"):
        eval_ope.run(dataclasses.replace(config, results=None))


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="skipped: no ../shared")
def test_published_results_on_otb100(capsys):
    """MDNet's figures are the published .678 and .909.

    SiamRPN's published ones are .637 and .851; these files, which count from 0 and
    whose first row is no box, give .001 more and less by every implementation.
    """
    report = eval_ope.run(
        eval_ope.Config(
            groundtruth=PUBLISHED / "groundtruth" / "OTB2015.json",
            results_only=tuple(
                PUBLISHED / "otb100" / name for name in ("MDNet", "SiamRPN")
            ),
            results_origin=(1, 0),
        )
    )["trackers"]
    mdnet, siamrpn = report["MDNet"], report["SiamRPN"]
    assert (round(mdnet["auc"], 3), round(mdnet["precision"], 3)) == (0.678, 0.909)
    assert mdnet["auc"] == pytest.approx(0.6776, abs=1e-4)
    assert siamrpn["auc"] == pytest.approx(0.6380, abs=5e-5)
    assert siamrpn["precision"] == pytest.approx(0.8499, abs=5e-5)
    assert siamrpn["auc"] == pytest.approx(0.637, abs=0.0015)
    assert siamrpn["precision"] == pytest.approx(0.851, abs=0.0015)
    assert "MDNet" in capsys.readouterr().out
