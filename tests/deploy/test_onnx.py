"""Exported graphs against JAX: boxes, networks, and the tracker that runs them."""

import dataclasses
import json
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
    write_tiny_weights,
)
from siamrpn_jax.commands import export
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.evaluation.ope.metrics import overlaps
from siamrpn_jax.media.video import VideoWriter
from siamrpn_jax.model import fused
from siamrpn_jax.model.config import (
    AnchorConfig,
    HeadConfig,
)
from siamrpn_jax.tracking.config import TrackerConfig

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from siamrpn_jax.deploy import graph, onnx_tracker, runtime  # noqa: E402


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
    data = np.frombuffer(models["template"].SerializeToString(), np.uint8)
    network = cv2.dnn.readNetFromONNX(data)
    network.setInput(z, "z")
    for found, wanted in zip(network.forward(list(names)), kernels, strict=True):
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(found, wanted, atol=1e-4 * scale)


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


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    write_tiny_weights(path)
    return path


def test_the_command_writes_checks_and_never_overwrites(tmp_path, weights, capsys):
    out = tmp_path / "deep" / "out"
    options = ["--format", "onnx", "--weights", str(weights), "--out", str(out)]
    export.main([*options, "--check", "generated"])
    names = {"init", "step", "template", "search"}
    files = {*(f"{name}.onnx" for name in names), "tracker.py", "onnx.json"}
    assert {path.name for path in out.iterdir()} == files
    card = json.loads((out / "onnx.json").read_text())
    assert card["weights"]["name"] == "tiny" and card["opset"] == graph.OPSET
    assert card["files"]["step.onnx"]["inputs"]["frame"] == {
        "shape": ["height", "width", 3], "dtype": "uint8"
    }  # fmt: skip
    assert card["checked_against_jax"]["largest_difference_pixels"] < 0.05
    assert "boxes differ by at most 0.0" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        export.main(options)
    assert "onnx.json: is there already" in capsys.readouterr().err


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
    ):
        with pytest.raises(SystemExit):
            export.main([*start, *more])
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        export.main(["--check", "generated"])
    assert "--check is for onnx and tflite" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


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
