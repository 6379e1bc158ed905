import json

import numpy as np
import pytest

from siamrpn_jax.common import errors
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.images import read_image
from siamrpn_jax.evaluation.ope import metrics as ope
from siamrpn_jax.evaluation.report import plots


@pytest.fixture
def metrics():
    truth = np.array([[10.0 * i, 0, 20, 20] for i in range(6)])
    return ope.evaluate(truth + [3, 2, 1, -4], truth)


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG") and read_image(path).std() > 1


def test_curves(tmp_path, metrics):
    plots.save_png(
        plots.plot_success({"a": metrics, "b": metrics}), tmp_path / "deep" / "s.png"
    )
    plots.save_png(plots.plot_precision({"a": metrics}), tmp_path / "p.png")
    assert is_png(tmp_path / "deep" / "s.png")
    assert is_png(tmp_path / "p.png")
    with pytest.raises(InputError, match="no curves"):
        plots.save_png(plots.plot_success({}), tmp_path / "none.png")


def test_training_plot_draws_what_is_there(tmp_path):
    rows = [
        {"step": 0, "loss": 1.0, "cls_loss": 0.7, "learning_rate": 0.01, "note": "x"},
        {"step": 10, "loss": 0.5, "val_auc": 0.4, "bad": None, "flag": True},
        {"step": 20, "loss": float("nan")},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    plots.save_png(plots.plot_training(path), tmp_path / "t.png")
    assert is_png(tmp_path / "t.png")
    assert plots._read_metrics(path) == {
        "loss": ([0, 10], [1.0, 0.5]),
        "cls_loss": ([0], [0.7]),
        "learning_rate": ([0], [0.01]),
        "val_auc": ([10], [0.4]),
    }


@pytest.mark.parametrize("line", ["{", "[1]", '{"loss": 1}', '{"step": "x"}'])
def test_bad_metrics_are_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2}\n' + line)
    with pytest.raises(InputError, match=r"metrics\.jsonl:2: .*'step'"):
        plots.save_png(plots.plot_training(path), tmp_path / "t.png")


def test_metrics_without_numbers(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    with pytest.raises(InputError, match="no numbers"):
        plots.save_png(plots.plot_training(path), tmp_path / "t.png")


def test_strip(tmp_path):
    frames = [np.full((40, 60, 3), 128, np.uint8)] * 3
    boxes = np.array([[5.0, 5, 20, 20]] * 3)
    truth = np.array([[8.0, 5, 20, 20], [np.nan] * 4, [8, 5, 20, 20]])
    path = tmp_path / "strip.png"
    figure = plots.plot_strip(
        frames, predicted={"x": boxes}, truth=truth, titles=["a", "b", "c"]
    )
    plots.save_png(figure, path)
    image = read_image(path)
    thirds = np.array_split(image, 3, axis=1)
    near = lambda part, color: (np.abs(part - np.array(color)).sum(-1) < 60).sum()  # noqa: E731
    assert [near(part, plots.ORANGE) > 20 for part in thirds] == [True] * 3
    assert [near(part, plots.GREEN) > 20 for part in thirds] == [True, False, True]
    with pytest.raises(InputError, match="3 frames and 2 boxes of x"):
        plots.plot_strip(frames, predicted={"x": boxes[:2]})
    with pytest.raises(InputError, match="a strip of 3 frames, 0 trackers"):
        plots.plot_strip(frames, predicted={})


def test_a_strip_of_several_trackers_names_them():
    """Whatever their names are."""
    frames = [np.full((60, 80, 3), 128, np.uint8)] * 2
    boxes = {"truth": np.full((2, 4), 20.0), "csrt": np.full((2, 4), 30.0)}
    figure = plots.plot_strip(frames, predicted=boxes, truth=boxes["truth"] - 9)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "truth",
        "truth",
        "csrt",
    ]
    colors = {tuple(line.get_color()) for line in legend.get_lines()}
    image = figure.axes[0].images[0].get_array()
    found = {tuple(pixel / 255) for pixel in image.reshape(-1, 3)}
    assert len(colors) == 3 and colors <= found


def test_missing_extra_is_named():
    with pytest.raises(errors.MissingExtraError, match=r"'siamrpn-jax\[train\]'"):
        errors.require("no_such_module.part", extra="train")
    assert errors.require("json.decoder", extra="train").JSONDecoder


def test_an_error_inside_a_module_is_not_a_missing_extra(tmp_path, monkeypatch):
    (tmp_path / "breaks_inside.py").write_text("import not_there_either\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_there_either") as caught:
        errors.require("breaks_inside", extra="train")
    assert not isinstance(caught.value, errors.MissingExtraError)
