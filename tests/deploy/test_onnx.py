"""Exported graphs against JAX: boxes, networks, and the tracker that runs them."""

import dataclasses
import json
import logging
import shutil
import subprocess
import sys

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from exports import (
    COMPACT,
    FRAMES,
    MODELS,
    TRACKERS,
    TRUTH,
    follow,
    follow_exported,
    make_loaded,
)
from paths import ROOT
from siamrpn_jax.commands import export
from siamrpn_jax.commands.tracker_specs import (
    TrackerSpec,
    report_training,
    report_tuning,
)
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.deploy import quantize
from siamrpn_jax.evaluation.ope.metrics import overlaps
from siamrpn_jax.media.video import VideoWriter
from siamrpn_jax.model import fused
from siamrpn_jax.model.config import (
    AnchorConfig,
    HeadConfig,
)
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.weights import load_weights

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from siamrpn_jax.deploy import calibration, graph, onnx_tracker, runtime  # noqa: E402


def follow_onnx(loaded, frames, box):
    models = onnx_tracker.make_models(loaded)
    parts = [models[name].SerializeToString() for name in ("init", "step")]
    return follow_exported(parts, frames, box)


@pytest.mark.parametrize(
    ("model", "tracker"),
    [
        ("compact depthwise", "plain"),
        ("compact depthwise", "hold"),
        ("alexnet up_channel bgr", "votes and motion"),
        ("alexnet depthwise relu", "hold"),
        ("compact hybrid", "votes and motion"),
        ("compact hybrid", "learns"),
        ("efficientnet_lite hybrid bgr", "learns"),
    ],
)
def test_boxes_are_those_of_jax(model, tracker):
    config = TRACKERS[tracker]
    loaded = make_loaded(MODELS[model], config)
    found = follow_onnx(loaded, FRAMES, TRUTH[0])
    expected = follow(loaded, FRAMES, TRUTH[0])
    np.testing.assert_allclose(found[:, :4], expected[:, :4], atol=0.05)
    np.testing.assert_allclose(found[:, 4:6], expected[:, 4:6], atol=1e-3)
    assert (found[:, 6] == expected[:, 6]).all()


@pytest.mark.parametrize("model", MODELS)
def test_the_network_alone_runs_in_opencv_and_onnxruntime(model):
    config = MODELS[model]
    loaded = make_loaded(config)
    models = onnx_tracker.make_networks(loaded)
    rng = np.random.default_rng(0)
    z, x = (
        rng.integers(0, 256, (1, side, side, 3)).astype(np.float32)
        for side in (config.exemplar_size, config.instance_size)
    )
    weights = loaded.model, loaded.variables
    template = fused.embed_template(*weights, jnp.asarray(z))
    expected = fused.detect(*weights, template, jnp.asarray(x))
    z, x = (patch.transpose(0, 3, 1, 2).copy() for patch in (z, x))

    def run(name, inputs):
        model = models[name].SerializeToString()
        session = onnxruntime.InferenceSession(
            model, providers=["CPUExecutionProvider"]
        )
        return session.run(None, inputs)

    kernels = run("template", {"z": z})
    names = ("cls_kernel", "reg_kernel")
    inputs = {"x": x, **dict(zip(names, kernels, strict=True))}
    for found, wanted, values in zip(
        run("search", inputs),
        (expected.cls_logits, expected.reg_deltas),
        (2, 4),
        strict=True,
    ):
        rows = found.transpose(0, 2, 3, 1).reshape(*wanted.shape[:3], -1, values)
        scale = np.abs(np.asarray(wanted)).max()
        np.testing.assert_allclose(rows, wanted, atol=1e-5 * scale)
    for name, given, outputs in (
        ("template", {"z": z}, names),
        ("search", inputs, ("logits", "deltas")),
    ):
        data = np.frombuffer(models[name].SerializeToString(), np.uint8)
        network = cv2.dnn.readNetFromONNX(data)
        for input_name, value in given.items():
            network.setInput(value, input_name)
        wanted = run(name, given)
        for a, b in zip(network.forward(list(outputs)), wanted, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())


def test_what_no_graph_is_made_of():
    for changes, message in (
        (
            {
                "head": HeadConfig("cross_correlation"),
                "anchors": AnchorConfig(ratios=(1,)),
            },
            "finds boxes",
        ),
        ({"crop": "pysot"}, "crop pysot: expected exact"),
    ):
        loaded = make_loaded(dataclasses.replace(COMPACT, **changes))
        with pytest.raises(InputError, match=message):
            onnx_tracker.make_models(loaded)
    with pytest.raises(InputError, match="nms_iou 0.5: expected none"):
        onnx_tracker.check(make_loaded(COMPACT, TrackerConfig(nms_iou=0.5)))
    with pytest.raises(InputError, match="distractors 0.5: expected none, for ONNX"):
        onnx_tracker.check(make_loaded(COMPACT, TrackerConfig(distractors=0.5)))


def test_formulas_are_what_they_look_like():
    made = graph.Graph()
    x = made.input("x", np.float32, ["n", 3])
    y = (2 * x + 1 - x / np.array([1.0, 2, 4])) * (1 - x)[0:1]
    made.output("y", y, np.float32, ["n", 3])
    made.constant(5.0)  # nobody uses it
    model = made.build("formula", {"a": "b"})
    assert len(model.graph.initializer) == len(
        {i.name for i in model.graph.initializer}
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    expected = (2 * x + 1 - x / [1.0, 2, 4]) * (1 - x)[:, 0:1]
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-5)


def test_the_command_writes_checks_and_never_overwrites(tmp_path, weights, capsys):
    out = tmp_path / "deep" / "out"
    options = ["--format", "onnx", "--weights", str(weights), "--out", str(out)]
    export.main([*options, "--check", "generated"])
    names = {"init", "step", "template", "search"}
    files = {*(f"{name}.onnx" for name in names), "tracker.py", "onnx.json"}
    assert {path.name for path in out.iterdir()} == files
    assert len((out / "tracker.py").read_text().splitlines()) < 150
    card = json.loads((out / "onnx.json").read_text())
    assert card["weights"]["name"] == "tiny" and card["opset"] == graph.OPSET
    assert card["files"]["step.onnx"]["inputs"]["frame"] == {
        "shape": ["height", "width", 3], "dtype": "uint8"
    }  # fmt: skip
    assert card["checked_against_jax"]["largest_difference_pixels"] < 0.05
    assert "boxes differ by at most 0.0" in capsys.readouterr().out
    spec = TrackerSpec("out", str(out), is_baseline=False)
    assert report_training(spec, ["a"]) == report_tuning(spec, {}) == []
    with pytest.raises(SystemExit):
        export.main(options)
    assert "onnx.json: is there already" in capsys.readouterr().err
    film = tmp_path / "film.webm"
    with VideoWriter(film, fps=25, size=(96, 72)) as writer:
        writer.write(np.zeros((72, 96, 3), np.uint8))
    for box in ("200,40,64,48", "20,40,64", "20,40,abc,3"):
        command = [sys.executable, out / "tracker.py", film, "--box", box]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode and done.stderr.count("\n") == 1, done.stderr


def test_what_a_program_has_silenced_stays_silent():
    logging.disable(logging.ERROR)
    try:
        with quantize._quiet():
            assert logging.root.manager.disable == logging.ERROR
        assert logging.root.manager.disable == logging.ERROR
    finally:
        logging.disable(logging.NOTSET)


def test_8_bit_models_follow_about_as_well(tmp_path, capsys):
    """With the released weights, on a scene that they follow."""
    out = tmp_path / "out"
    export.main(["--format", "onnx", "--out", str(out), "--int8", "4"])
    card = json.loads((out / "onnx.json").read_text())
    assert card["int8"] == {"calibrated_on_generated_scenes": 4}
    sizes = {name: about["bytes"] for name, about in card["files"].items()}
    assert sizes["int8/step.onnx"] < 0.4 * sizes["step.onnx"]
    frames, truth = make_sequence(15, length=12)
    tracker = runtime.Tracker(out / "int8", threads=1)
    tracker.init(frames[0], truth[0])
    found = np.array([tracker.update(frame) for frame in frames[1:]])
    assert overlaps(found, truth[1:].astype(np.float64)).mean() > 0.7
    with pytest.raises(SystemExit):
        export.main(["--format", "onnx", "--out", str(tmp_path / "x"), "--int8", "2"])
    assert "2 scenes to calibrate on, expected 4" in capsys.readouterr().err


def test_what_the_command_refuses(tmp_path, weights, capsys):
    start = ["--format", "onnx", "--weights", str(weights), "--out", str(tmp_path)]
    for more, message in (
        (["--frame-size", "640x480"], "in onnx frames are of any size"),
        (["--check", "film.mp4"], "expected --box"),
        (["--check", "film.mp4", "--box", "1,2,3,4"], "film.mp4"),
        (["--template-from", "x.png", "--box", "1,2,3,4"], "is for stablehlo"),
        (["--opset", "17"], "opset 17: expected 18 to 20, for whole trackers"),
        (["--opset", "21"], "opset 21: expected 18 to 20, for whole trackers"),
        (
            ["--opset", "10", "--part", "network"],
            "opset 10: expected 11 to 20, for the network alone",
        ),
        (
            ["--opset", "11", "--part", "network", "--int8", "4"],
            "opset 11: expected 13 or more, for 8 bits",
        ),
        (
            ["--part", "network", "--check", "generated"],
            "--check compares whole trackers",
        ),
    ):
        with pytest.raises(SystemExit):
            export.main([*start, *more])
        assert message in capsys.readouterr().err
    for options, message in (
        (["--check", "generated"], "--check is for onnx and tflite"),
        (["--opset", "17"], "--opset 17 is for onnx"),
        (["--format", "web", "--part", "network"], "web is a whole tracker"),
    ):
        with pytest.raises(SystemExit):
            export.main(options)
        assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["whole", "network"])
def test_a_part_in_its_oldest_operators(part, tmp_path, weights):
    least = onnx_tracker.LEAST_OPSET[part]
    options = ["--format", "onnx", "--weights", str(weights), "--part", part]
    export.main([*options, "--out", str(tmp_path), "--opset", str(least)])
    card = json.loads((tmp_path / "onnx.json").read_text())
    names = {"whole": ["init", "step"], "network": ["template", "search"]}[part]
    assert list(card["files"]) == [f"{name}.onnx" for name in names]
    assert (tmp_path / "tracker.py").exists() == (part == "whole")
    assert (card["part"], card["format_version"]) == (part, runtime.FORMAT)
    for name in names:
        model = onnx.load(tmp_path / f"{name}.onnx")
        assert [one.version for one in model.opset_import] == [least]
        about = {one.key: one.value for one in model.metadata_props}
        assert about["format_version"] == str(runtime.FORMAT)
        onnxruntime.InferenceSession(tmp_path / f"{name}.onnx")
        operators = card["files"][f"{name}.onnx"]["operators"]
        assert operators == sorted({node.op_type for node in model.graph.node})


def test_the_docs_name_the_operators_of_the_networks():
    """Of ``small``; a converter must know them all."""
    page = next(
        p for p in ROOT.glob("docs/*.md") if "## Other converters" in p.read_text()
    )
    section = page.read_text().partition("## Other converters")[2]
    models = onnx_tracker.make_networks(load_weights("small"))
    for name, model in models.items():
        operators = sorted({node.op_type for node in model.graph.node})
        assert f"`{name}.onnx`: {', '.join(operators)}" in section


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    """Folders of five sequences of generated scenes."""
    root = tmp_path_factory.mktemp("sequences")
    for number in range(5):
        frames, boxes = make_sequence(40 + number, length=4, height=90, width=120)
        folder = root / f"scene{number}"
        (folder / "img").mkdir(parents=True)
        for index, frame in enumerate(frames):
            path = folder / "img" / f"{index + 1:04d}.png"
            cv2.imwrite(str(path), frame[..., ::-1])
        lines = [",".join(f"{v:.2f}" for v in box + [1, 1, 0, 0]) for box in boxes]
        (folder / "groundtruth_rect.txt").write_text("\n".join(lines))
    return root


def test_8_bit_models_of_a_users_data(tmp_path, weights, sequences, capsys):
    out = tmp_path / "out"
    options = ["--format", "onnx", "--weights", str(weights), "--out", str(out)]
    start = [*options, "--data", str(sequences), "--int8"]
    export.main([*start, "32"])
    for folder, prefix in ((out, "int8/"), (out / "int8", "")):
        card = json.loads((folder / "onnx.json").read_text())
        assert card["int8"] == {"calibrated_on_pairs": 32, "of": [str(sequences)]}
        assert "QuantizeLinear" in card["files"][f"{prefix}search.onnx"]["operators"]
    plain, small = (
        runtime.Tracker(folder, threads=1) for folder in (out, out / "int8")
    )
    for tracker in (plain, small):
        tracker.init(FRAMES[0], TRUTH[0])
    a, b = (tracker.update(FRAMES[1]) for tracker in (plain, small))
    assert np.isfinite(b).all() and np.abs(a - b).max() < 40
    capsys.readouterr()
    few = tmp_path / "few"
    shutil.copytree(sequences / "scene0", few / "scene0")
    other = ["--out", str(tmp_path / "other")]
    for more, message in (
        ([*start, "8"], "8 pairs to calibrate on, expected 32 or more"),
        (
            [*options, "--int8", "32", "--data", str(few)],
            "1 sequences, stills and tracks to calibrate on, expected 4 or more",
        ),
        ([*options, "--int8", "32", "--data", str(tmp_path / "no")], "no such folder"),
        ([*options, "--data", str(sequences)], "expected --int8, such as 64"),
    ):
        with pytest.raises(SystemExit):
            export.main([*more, *other])
        assert message in capsys.readouterr().err
    assert not list((tmp_path / "other").glob("*.onnx"))


def test_pairs_are_cropped_as_they_are(weights):
    """Calibration hands patches over as frames whose crops are the patches."""
    loaded = load_weights(weights)
    graphs = onnx_tracker.make_models(loaded) | onnx_tracker.make_networks(loaded)
    rng = np.random.default_rng(0)
    sides = loaded.model.config.exemplar_size, loaded.model.config.instance_size
    z, x = (rng.integers(0, 256, (side, side, 3), np.uint8) for side in sides)
    opened = {name: calibration._Recorder(model) for name, model in graphs.items()}
    calibration._search_pair(opened, loaded.model.config, z, x)
    patch = z.transpose(2, 0, 1)[None].astype(np.float32)
    kernels = opened["template"].run({"z": patch})
    found = opened["step"].calls[0]
    for name, kernel in kernels.items():
        scale = np.abs(kernel).max()
        np.testing.assert_allclose(found[f"template.{name}"], kernel, atol=1e-3 * scale)


def test_the_script_follows_a_film_without_this_package(tmp_path, weights):
    out, film = tmp_path / "out", tmp_path / "film.webm"
    export.main(["--format", "onnx", "--weights", str(weights), "--out", str(out)])
    with VideoWriter(film, fps=10, size=(120, 90)) as writer:
        for frame in FRAMES:
            writer.write(frame)
    box = ",".join(f"{side:.2f}" for side in TRUTH[0])
    done = subprocess.run(
        [sys.executable, str(out / "tracker.py"), str(film), "--box", box],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PATH": ""},
    )
    rows = [line.split(",") for line in done.stdout.split()]
    assert rows[0] == ["frame", "x", "y", "w", "h", "confidence", "lost"]
    assert [row[0] for row in rows[1:]] == [str(n) for n in range(len(FRAMES))]
