import json

import cv2
import numpy as np
import pytest

from siamrpn_jax.commands import eval_otb
from siamrpn_jax.evaluation import ope
from siamrpn_jax.evaluation.results import read_otb_results

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
        name: ope.evaluate(
            np.repeat(boxes[:1], len(boxes), axis=0), boxes, skip_first=skip_first
        )
        for name, boxes in TRUTH.items()
    }


def test_table_and_files(tmp_path, sequences, capsys):
    pytest.importorskip("matplotlib")
    eval_otb.main(
        ["--sequences", str(sequences), "--tracker", "static"]
        + ["--json", str(tmp_path / "out.json"), "--results", str(tmp_path / "res")]
        + ["--plots", str(tmp_path / "plots")]
    )
    rows = evaluate_static()
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["tracker"] == "static"
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


def test_include_first(sequences, capsys):
    report = eval_otb.run(
        eval_otb.Config(sequences, tracker="static", include_first=True)
    )
    rows = evaluate_static(skip_first=False)
    assert report["auc"] == pytest.approx(np.mean([row.auc for row in rows.values()]))
    assert report["convention"]["first_frame"] == "included"
    assert "first frame included" in capsys.readouterr().out


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
    eval_otb.main(
        ["--sequences", str(sequences), "--tracker", "static"]
        + ["--results", str(folder), *options]
    )
    assert (folder / "car.txt").read_text().splitlines()[0] == first
    assert f"boxes  {folder} (x and y {told})" in capsys.readouterr().out


def test_one_sequence_by_its_own_folder(sequences):
    config = eval_otb.Config(sequences / "car", tracker="static")
    assert list(eval_otb.run(config)["sequences"]) == ["car"]


def fail(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        eval_otb.main([*arguments, "--tracker", "static"])
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
    error = fail(capsys, "--sequences", str(sequences))
    assert "00000003.png" in error


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
    monkeypatch.setattr(eval_otb, "open_tracker", lambda config: NeverStarted())
    assert message in fail(capsys, "--sequences", str(sequences))


def test_sequences_of_one_frame_are_all_named(sequences, capsys, monkeypatch):
    for name in TRUTH:
        for path in sorted((sequences / name / "img").iterdir())[1:]:
            path.unlink()
        np.savetxt(sequences / name / "groundtruth.txt", TRUTH[name][:1], "%.2f", ",")
    monkeypatch.setattr(eval_otb, "open_tracker", lambda config: NeverStarted())
    error = fail(capsys, "--sequences", str(sequences))
    assert "car: 1 frame, expected" in error and "dog: 1 frame, expected" in error


def test_every_ground_truth_file_of_a_folder_is_a_sequence(sequences):
    (sequences / "dog" / "groundtruth.txt").unlink()
    for number in (1, 2):
        path = sequences / "dog" / f"groundtruth_rect.{number}.txt"
        np.savetxt(path, TRUTH["dog"] + [number, 1, 0, 0], "%.2f", ",")
    report = eval_otb.run(eval_otb.Config(sequences, tracker="static"))
    assert len(report["sequences"]) == 3


def test_two_sequences_of_one_name(tmp_path, sequences, capsys):
    (sequences / "more").mkdir()
    (sequences / "dog").rename(sequences / "more" / "car")
    assert "second sequence named car" in fail(capsys, "--sequences", str(sequences))
