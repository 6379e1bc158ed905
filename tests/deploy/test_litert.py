"""LiteRT's models against JAX: boxes, networks, and the trackers that run them."""

import dataclasses
import json

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
from siamrpn_jax import api
from siamrpn_jax.commands import export
from siamrpn_jax.common.errors import InputError, MissingExtraError
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.deploy import litert, runtime
from siamrpn_jax.model import fused
from siamrpn_jax.model.config import AnchorConfig, HeadConfig
from siamrpn_jax.model.rpn import Template
from siamrpn_jax.weights import load_weights

pytest.importorskip("ai_edge_litert", reason="skipped: needs siamrpn-jax[litert]")
pytest.importorskip("litert_converter", reason=f"skipped: needs {litert.INSTALL}")


def follow_litert(loaded, frames, box):
    models = litert.make_models(loaded, frame_size=frames[0].shape[1::-1])
    return follow_exported([models[n].data for n in ("init", "step")], frames, box)


@pytest.mark.parametrize(
    ("model", "tracker"),
    [
        ("compact depthwise", "hold"),
        ("alexnet up_channel bgr", "votes and motion"),
    ],
)
def test_boxes_are_those_of_jax(model, tracker):
    loaded = make_loaded(MODELS[model], TRACKERS[tracker])
    found = follow_litert(loaded, FRAMES, TRUTH[0])
    expected = follow(loaded, FRAMES, TRUTH[0])
    np.testing.assert_allclose(found[:, :4], expected[:, :4], atol=0.05)
    np.testing.assert_allclose(found[:, 4:6], expected[:, 4:6], atol=1e-3)
    assert (found[:, 6] == expected[:, 6]).all()


def test_what_onnx_does_not_take():
    """A score map without boxes, and pixels as DaSiamRPN cuts them."""
    model = dataclasses.replace(
        COMPACT,
        head=HeadConfig("cross_correlation"),
        anchors=AnchorConfig(ratios=(1,)),
        crop="dasiamrpn",
    )
    loaded = make_loaded(model)
    found = follow_litert(loaded, FRAMES[:6], TRUTH[0])
    expected = follow(loaded, FRAMES[:6], TRUTH[0])
    np.testing.assert_allclose(found[:, :5], expected[:, :5], atol=0.01)


def test_the_network_alone():
    loaded = make_loaded(COMPACT)
    rng = np.random.default_rng(0)
    z, x = (
        rng.integers(0, 256, (1, side, side, 3)).astype(np.float32)
        for side in (COMPACT.exemplar_size, COMPACT.instance_size)
    )
    models = litert.make_networks(loaded)
    expected = fused.embed_template(loaded.model, loaded.variables, jnp.asarray(z))
    kernels = run(models["template"].data, {"z": z})
    scale = np.abs(expected.cls_kernel).max()
    np.testing.assert_allclose(
        kernels["cls_kernel"], expected.cls_kernel, atol=1e-5 * scale
    )
    template = Template(kernels["cls_kernel"], kernels["reg_kernel"])
    wanted = fused.detect(loaded.model, loaded.variables, template, jnp.asarray(x))
    found = run(models["search"].data, kernels | {"x": x})
    assert found.keys() == models["search"].outputs.keys()
    for name in ("cls_logits", "reg_deltas"):
        scale = np.abs(getattr(wanted, name)).max()
        np.testing.assert_allclose(
            found[name], getattr(wanted, name), atol=1e-5 * scale
        )


def test_one_part_alone(tmp_path):
    weights = tmp_path / "tiny.safetensors"
    write_tiny_weights(weights)
    options = ["--format", "tflite", "--weights", str(weights)]
    for part, more, names in (
        ("network", [], {"template", "search"}),
        ("whole", ["--frame-size", "120x90"], {"init", "step"}),
    ):
        out = tmp_path / part
        export.main([*options, "--out", str(out), "--part", part, *more])
        assert {path.stem for path in out.glob("*.tflite")} == names
        card = json.loads((out / "tflite.json").read_text())
        assert (card["part"], card["format_version"]) == (part, runtime.FORMAT)
    tracker = api.load(out, runtime="auto")
    tracker.init(FRAMES[0], TRUTH[0])
    expected = follow(load_weights(weights), FRAMES[:4], TRUTH[0])[:, :4]
    found = np.array([tracker.update(frame) for frame in FRAMES[1:4]])
    np.testing.assert_allclose(found, expected, atol=0.05)
    other, _ = make_sequence(0, length=1, height=64, width=64)
    with pytest.raises(InputError, match="frame of 64x64, expected 120x90, which"):
        tracker.update(other[0])


def run(model, inputs):
    from ai_edge_litert.interpreter import Interpreter  # type: ignore

    return Interpreter(model_content=model).get_signature_runner()(**inputs)


def test_the_command_checks_and_says_what_it_needs(tmp_path, capsys, monkeypatch):
    out, weights = tmp_path / "out", tmp_path / "tiny.safetensors"
    write_tiny_weights(weights)
    options = ["--format", "tflite", "--weights", str(weights), "--out", str(out)]
    export.main([*options, "--frame-size", "320x240", "--check", "generated"])
    card = json.loads((out / "tflite.json").read_text())
    assert card["checked_against_jax"]["largest_difference_pixels"] < 0.05
    assert card["files"]["step.tflite"]["inputs"]["frame"] == {
        "shape": [240, 320, 3], "dtype": "uint8"
    }  # fmt: skip
    tracker = runtime.Tracker(out)
    tracker.init(make_sequence(0, length=1)[0][0], [20, 30, 40, 50])
    with pytest.raises(ValueError, match=r"frame of 120x90, expected 320x240"):
        tracker.update(FRAMES[0])
    capsys.readouterr()
    for more, message in (
        ([], "expected --frame-size"),
        (["--frame-size", "64x64", "--int8", "8"], "--int8 is for onnx"),
        (["--frame-size", "64x64", "--part", "network"], "a network takes patches"),
        (["--frame-size", "320x240"], "is there already"),
    ):
        with pytest.raises(SystemExit):
            export.main([*options, *more])
        assert message in capsys.readouterr().err
    monkeypatch.setattr(litert.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="pip install --no-deps litert-conv"):
        litert.require_converter()


def test_that_kernels_do_not_learn_is_told(caplog):
    tracker = api.load("base", runtime="litert")
    assert tracker.config.online_frames is None
    (told,) = caplog.messages
    assert told.startswith("base: its kernels learn while tracking (online_frames 16)")
    api.load("base", runtime="litert", online_frames=None)
    assert len(caplog.messages) == 1
    with pytest.raises(InputError, match="online_frames 8: expected none, for LiteRT"):
        api.load("base", runtime="litert", online_frames=8)
