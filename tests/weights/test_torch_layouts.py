"""Layouts by hand-written names; the numbers against PyTorch are in another file."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.numpy
import scipy.io

import torch_bytes
from random_variables import random_variables
from siamrpn_jax import published, weights
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model.anchors import anchor_sizes
from siamrpn_jax.model.config import BackboneConfig, ModelConfig
from siamrpn_jax.model.layers import BatchNorm
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.state import Loaded
from siamrpn_jax.weights import LoadedBackbone
from siamrpn_jax.weights.backbones import load_backbone
from siamrpn_jax.weights.torch_files import read_torch, write_torch
from siamrpn_jax.weights.torch_layouts import LAYOUTS, export_torch, import_torch
from torch_layout_files import (
    BACKBONES,
    FILES,
    TRACKERS,
    WIDTHS,
    tensors,
    write,
)

RPN_TRACKERS = [name for name in TRACKERS if name != "siamfc"]


@pytest.mark.parametrize("name", FILES)
def test_every_layout_is_found_and_has_its_preset(name, tmp_path):
    found, loaded = import_torch(write(tmp_path / "net.pth", name))
    assert found == name
    layout = LAYOUTS[name]
    assert loaded.card["preset"] == name
    assert loaded.card["source"]["file"] == "net.pth"
    assert len(loaded.card["source"]["sha256"]) == 64
    if isinstance(loaded, LoadedBackbone):
        own = layout.model.backbone
        widths = WIDTHS if own.kind == "alexnet" else own.widths
        assert (loaded.config.widths, loaded.input) == (widths, layout.model.input)
        return
    config = loaded.model.config
    assert config.backbone == BackboneConfig(widths=WIDTHS)
    width = 8 if config.head.regresses else layout.model.head.width
    fitted = dataclasses.replace(
        layout.model,
        backbone=config.backbone,
        head=dataclasses.replace(layout.model.head, width=width),
    )
    assert (config, loaded.tracker_config) == (fitted, layout.tracker)


def test_the_presets_are_the_published_ones():
    def numbers(name: str):
        model, tracker = LAYOUTS[name].model, LAYOUTS[name].tracker
        assert tracker is not None
        constants = tracker.penalty_k, tracker.window_influence, tracker.size_lr
        return model.instance_size, model.score_size, model.crop, *constants

    assert numbers("dasiamrpn") == (271, 19, "dasiamrpn", 0.04, 0.44, 0.45)
    assert numbers("dasiamrpn-otb") == (271, 19, "dasiamrpn", 0.22, 0.40, 0.30)
    assert numbers("dasiamrpn-big") == (271, 19, "dasiamrpn", 0.055, 0.42, 0.295)
    assert numbers("siamrpn-pytorch") == (271, 19, "exact", 0.055, 0.42, 0.295)
    for name in FILES:
        if name.startswith("pysot"):
            assert numbers(name) == (287, 21, "pysot", 0.16, 0.40, 0.30)
    for name in RPN_TRACKERS:
        model, tracker = LAYOUTS[name].model, LAYOUTS[name].tracker
        assert tracker is not None and tracker.min_size == 10
        assert (model.exemplar_size, model.context) == (127, 0.5)
        sizes = anchor_sizes(model.anchors, stride=8).tolist()
        assert sizes == [[104, 32], [88, 40], [64, 64], [40, 80], [32, 96]]
        order = "rgb" if name == "siamrpn-pytorch" else "bgr"
        assert (model.input.order, model.input.mean, model.input.std) == (
            order, (0, 0, 0), (1, 1, 1),
        )  # fmt: skip
    scale = {n: LAYOUTS[n].model.backbone.widths[0] // 96 for n in RPN_TRACKERS}
    assert {name for name, n in scale.items() if n == 2} == {"siamrpn-pytorch"}
    assert LAYOUTS["dasiamrpn-big"].model.backbone.widths == (192, 512, 768, 768, 512)


@pytest.mark.parametrize("name", ["dasiamrpn", "dasiamrpn-big"])
def test_widths_tell_dasiamrpns_models_apart(name):
    layout = LAYOUTS[name]
    shapes = weights.model_shapes(SiamRPN(layout.model))
    from siamrpn_jax.weights import torch_layouts

    zeros = {k: np.broadcast_to(np.float32(0), shape) for k, shape in shapes.items()}
    theirs = torch_layouts.to_theirs(zeros, layout)
    assert torch_layouts._detect(theirs) == name


def test_layouts_by_name(tmp_path):
    path = write(tmp_path / "net.pth", "dasiamrpn")
    name, loaded = import_torch(path, layout="dasiamrpn-otb")
    assert name == "dasiamrpn-otb" and isinstance(loaded, Loaded)
    assert loaded.tracker_config.penalty_k == 0.22
    with pytest.raises(InputError, match="no layout 'pysot', expected auto, dasiamrpn"):
        import_torch(path, layout="pysot")
    with pytest.raises(InputError, match="does not fit layout siamfc.*missing: backb"):
        import_torch(path, layout="siamfc")


# --- Numbers ---


def test_channels_of_anchors_go_where_they_belong(tmp_path):
    """Theirs: value, anchor, feature; ours: feature, anchor, value."""
    state = tensors("dasiamrpn")
    for name, values in (("conv_cls1", 2), ("conv_r1", 4)):
        number = np.arange(values * 5 * 8, dtype=np.float32)
        state[f"{name}.bias"] = number
        state[f"{name}.weight"][:] = number[:, None, None, None]
    number = np.arange(20, dtype=np.float32)
    state["regress_adjust.weight"] = (100 * number[:, None] + number)[..., None, None]
    state["regress_adjust.bias"] = number
    write_torch(tmp_path / "net.pth", state)
    head = import_torch(tmp_path / "net.pth")[1].variables["params"]["head"]
    for name, values in (("template_cls", 2), ("template_reg", 4)):
        bias = head[name]["bias"].reshape(8, 5, values)
        kernel = head[name]["kernel"].reshape(3, 3, 8, 8, 5, values)
        for feature, anchor, value in np.ndindex(8, 5, values):
            theirs = (value * 5 + anchor) * 8 + feature
            assert bias[feature, anchor, value] == theirs
            assert (kernel[..., feature, anchor, value] == theirs).all()
    adjust = head["adjust"]["kernel"].reshape(5, 4, 5, 4)
    for a, v, b, w in np.ndindex(5, 4, 5, 4):  # inputs, then outputs
        assert adjust[a, v, b, w] == 100 * (w * 5 + b) + v * 5 + a
    assert head["adjust"]["bias"].reshape(5, 4)[1].tolist() == [1, 6, 11, 16]


def test_depthwise_outputs(tmp_path):
    state = tensors("pysot-alexnet-dwxcorr")
    number = np.arange(10, dtype=np.float32)
    state["rpn_head.cls.head.3.bias"] = number
    state["rpn_head.cls.head.3.weight"][:] = number[:, None, None, None]
    write_torch(tmp_path / "net.pth", state)
    out = import_torch(tmp_path / "net.pth")[1].variables["params"]["head"]["out_cls"]
    assert out["bias"].tolist() == [0, 5, 1, 6, 2, 7, 3, 8, 4, 9]
    assert out["kernel"][0, 0, 3].tolist() == out["bias"].tolist()


def matconvnet(path, *, prefix="br_", norm=False):
    """SiamFC's ``.mat`` of the tensors of a siamfc-pytorch file, which are returned."""
    state, params = tensors("siamfc"), {}
    for i in range(1, 6):
        conv, batch = f"backbone.conv{i}.0", f"backbone.conv{i}.1"
        params[f"{prefix}conv{i}f"] = state[f"{conv}.weight"].transpose(2, 3, 1, 0)
        params[f"{prefix}conv{i}b"] = state[f"{conv}.bias"][:, None]
        if i < 5:
            deviation = np.sqrt(state[f"{batch}.running_var"] + 1e-5)
            moments = np.stack([state[f"{batch}.running_mean"], deviation], 1)
            params[f"{prefix}bn{i}m"] = state[f"{batch}.weight"][:, None]
            params[f"{prefix}bn{i}b"] = state[f"{batch}.bias"][:, None]
            params[f"{prefix}bn{i}x"] = moments
    params |= {"fin_adjust_f": np.full((1, 1), 4e-3), "fin_adjust_b": np.array(-0.5)}
    if norm:
        params = {k: v for k, v in params.items() if "adjust" not in k}
        params |= {"fin_adjust_bnm": np.array(2e-2), "fin_adjust_bnb": np.array(-0.1)}
        params |= {"fin_adjust_bnx": np.array([[100.0, 5.0]])}
    table = np.zeros(len(params), [("name", "O"), ("value", "O"), ("trainMethod", "O")])
    for row, (name, value) in zip(table, params.items(), strict=True):
        row["name"], row["value"] = name, np.asarray(value, np.float32)
    scipy.io.savemat(path, {"net": {"params": table, "layers": np.zeros(3)}})
    return state


@pytest.mark.parametrize("norm", [False, True])
def test_siamfc_of_matconvnet(norm, tmp_path):
    """As siamfc-pytorch's, but for the deviations, and the factor in the last layer."""
    state = matconvnet(tmp_path / "2016-08-17.net.mat", norm=norm)
    name, loaded = import_torch(tmp_path / "2016-08-17.net.mat")
    assert name == "siamfc-matconvnet" and isinstance(loaded, Loaded)
    params = loaded.variables["params"]
    write_torch(tmp_path / "net.pth", state)
    other = import_torch(tmp_path / "net.pth")[1].variables["params"]["backbone"]
    stats = loaded.variables["batch_stats"]["backbone"]
    for i in (1, 2, 3, 4):
        kernel = params["backbone"][f"conv{i}"]["kernel"]
        np.testing.assert_array_equal(kernel, other[f"conv{i}"]["kernel"])
        factor = params["backbone"][f"bn{i}"]["scale"]
        factor = factor / np.sqrt(stats[f"bn{i}"]["var"] + 1e-5)
        norms = f"backbone.conv{i}.1"
        expected = state[f"{norms}.weight"] / np.sqrt(
            state[f"{norms}.running_var"] + 1e-5
        )
        np.testing.assert_allclose(factor, expected, rtol=1e-5)
    np.testing.assert_allclose(
        params["backbone"]["conv5"]["kernel"], 2 * other["conv5"]["kernel"], rtol=1e-6
    )
    assert params["head"]["bias"] == pytest.approx([-0.5])


def test_broken_files_of_matconvnet(tmp_path):
    path = tmp_path / "net.mat"
    with pytest.raises(InputError, match="net.mat: cannot be read .No such file"):
        import_torch(path)
    path.write_bytes(b"no matlab at all")
    with pytest.raises(InputError, match="net.mat: cannot be read .*conv1f to adjust"):
        import_torch(path)
    scipy.io.savemat(path, {"net": {"params": np.zeros(3)}})
    with pytest.raises(InputError, match="net.mat: .*expected SiamFC's network"):
        import_torch(path)
    table = np.zeros(1, [("name", "O"), ("value", "O")])
    table[0] = ("conv1f", np.zeros((3, 3, 1, 2)))
    scipy.io.savemat(path, {"net": {"params": table}})
    with pytest.raises(InputError, match="has no conv1b among 1 parameters .conv1f"):
        import_torch(path)


def test_siamfc_becomes_dense_and_keeps_its_epsilon(tmp_path):
    state = tensors("siamfc")
    state["backbone.conv2.1.running_var"][:] = 1e-5
    write_torch(tmp_path / "net.pth", state)
    loaded = load_backbone(tmp_path / "net.pth")
    params = loaded.variables["params"]["backbone"]
    stats = loaded.variables["batch_stats"]["backbone"]
    kernel = params["conv2"]["kernel"]  # [5, 5, 4, 6], groups of 2 and 3
    grouped = state["backbone.conv2.0.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(kernel[:, :, :2, :3], grouped[..., :3])
    np.testing.assert_array_equal(kernel[:, :, 2:, 3:], grouped[..., 3:])
    assert not kernel[:, :, :2, 3:].any() and not kernel[:, :, 2:, :3].any()
    for i in (1, 2):
        factor = params[f"bn{i}"]["scale"] / np.sqrt(stats[f"bn{i}"]["var"] + 1e-5)
        name = f"backbone.conv{i}.1"
        expected = state[f"{name}.weight"] / np.sqrt(
            state[f"{name}.running_var"].astype(np.float64) + 1e-6
        )
        np.testing.assert_allclose(factor, expected, rtol=1e-6)
    last = params["bn5"]["scale"] / np.sqrt(stats["bn5"]["var"] + 1e-5)
    np.testing.assert_allclose(last, 1, rtol=1e-7)
    assert not params["bn5"]["bias"].any() and not stats["bn5"]["mean"].any()


# --- Errors ---


def test_efficientnet_goes_by_blocks_and_keeps_its_epsilon(tmp_path):
    name = "efficientnet-lite0"
    _, loaded = import_torch(write(tmp_path / "lite0.pth", name))
    state = tensors(name)
    params = loaded.variables["params"]["backbone"]
    places = {
        "conv1": ("_conv_stem", "_bn0"),
        "conv2": ("_blocks.0._depthwise_conv", "_blocks.0._bn1"),
        "conv4": ("_blocks.1._expand_conv", "_blocks.1._bn0"),
        "conv15": ("_blocks.4._project_conv", "_blocks.4._bn2"),
        "conv33": ("_blocks.10._project_conv", "_blocks.10._bn2"),
    }
    for ours, (conv, norm) in places.items():
        kernel = state[f"{conv}.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(params[ours]["kernel"], kernel)
        scale = params[ours.replace("conv", "bn")]["scale"]
        stats = loaded.variables["batch_stats"]["backbone"][ours.replace("conv", "bn")]
        ours_factor = scale / np.sqrt(stats["var"] + BatchNorm.epsilon)
        theirs = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + 1e-3)
        np.testing.assert_allclose(ours_factor, theirs, rtol=1e-5)
    assert params["conv2"]["kernel"].shape == (3, 3, 1, 32)
    assert "conv34" not in params


def test_all_names_that_are_wrong_are_listed(tmp_path):
    state = tensors("pysot-alexnet-dwxcorr")
    del state["rpn_head.cls.head.3.bias"], state["backbone.layer3.1.running_var"]
    state |= {"neck.0.weight": np.ones(3, np.float32), "mask.bias": np.ones(1)}
    write_torch(tmp_path / "net.pth", state)
    with pytest.raises(InputError) as caught:
        import_torch(tmp_path / "net.pth")
    message = str(caught.value)
    assert "net.pth: does not fit layout pysot-alexnet-dwxcorr" in message
    assert (
        "missing: backbone.layer3.1.running_var, rpn_head.cls.head.3.bias; "
        "not used: mask.bias, neck.0.weight"
    ) in message


def test_another_network(tmp_path):
    write_torch(tmp_path / "net.pth", {"encoder.0.weight": np.ones(3, np.float32)})
    with pytest.raises(InputError, match="encoder.0.weight, … are of no layout known"):
        import_torch(tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("name", "shape", "error"),
    [
        ("featureExtract.4.weight", (6,), "featureExtract.4.weight is (6,), expected"),
        ("featureExtract.4.weight", (6, 5, 5, 5), "backbone/conv2/kernel: (5, 5, 5, 6"),
        ("featureExtract.5.bias", (3,), "backbone/bn2/bias: (3,), expected (6,)"),
        ("conv_cls1.weight", (81, 8, 3, 3), "net.pth: "),
        ("conv_cls1.bias", (3,), "net.pth: "),
        ("conv_cls1.weight", (), "net.pth: "),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit(name, shape, error, tmp_path):
    state = tensors("dasiamrpn") | {name: np.ones(shape, np.float32)}
    write_torch(tmp_path / "net.pth", state)
    with pytest.raises(InputError) as caught:
        import_torch(tmp_path / "net.pth")
    assert error in str(caught.value) and "net.pth" in str(caught.value)


def test_values_that_are_not_finite(tmp_path):
    state = tensors("dasiamrpn")
    state["conv_r2.bias"][3] = np.nan
    write_torch(tmp_path / "net.pth", state)
    with pytest.raises(InputError, match="conv_r2.bias has values that are not finite"):
        import_torch(tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("saved", "text"),
    [
        ({"epoch": 3, "optimizer": {}}, "holds a dict of epoch, optimizer: expected"),
        ({}, "holds a dict of nothing"),
        ([1, 2], "holds a list: expected"),
        (np.ones((2, 3), np.float32), r"holds a single tensor of shape \[2, 3\]"),
        ({"state_dict": {"a": 1}}, "holds a dict of state_dict"),
    ],
)
def test_files_without_a_state_dict(saved, text, tmp_path):
    (tmp_path / "net.pth").write_bytes(torch_bytes.zip_bytes(saved))
    with pytest.raises(InputError, match=text):
        import_torch(tmp_path / "net.pth")


@pytest.mark.parametrize("make", torch_bytes.FORMATS.values(), ids=torch_bytes.FORMATS)
@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net"])
def test_training_checkpoints(make, key, tmp_path):
    state = tensors("alexnet-bn")
    saved = {
        "epoch": 3,
        key: {f"module.{name}": array for name, array in state.items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
    }
    (tmp_path / "net.pth").write_bytes(make(saved))
    found = load_backbone(tmp_path / "net.pth").variables["params"]["backbone"]
    expected = state["layer3.0.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(found["conv3"]["kernel"], expected)


# --- Back ---


@pytest.mark.parametrize("name", RPN_TRACKERS)
def test_there_and_back(name, tmp_path):
    state = tensors(name)
    write_torch(tmp_path / "net.pth", state)
    variables = import_torch(tmp_path / "net.pth")[1].variables
    export_torch(tmp_path / "back.pth", variables, layout=name)
    found = read_torch(tmp_path / "back.pth")
    kept = {k: v for k, v in state.items() if "num_batches_tracked" not in k}
    assert set(found) == set(kept)
    for key, array in kept.items():
        np.testing.assert_array_equal(found[key], array)


def test_layouts_that_are_only_read(tmp_path):
    _, loaded = import_torch(write(tmp_path / "net.pth", "dasiamrpn"))
    for name in BACKBONES:
        with pytest.raises(InputError, match=f"{name} is only read; expected one of"):
            export_torch(tmp_path / "b.pth", loaded.variables, layout=name)
    with pytest.raises(InputError, match="not a network of layout pysot-alexnet-dwx"):
        export_torch(
            tmp_path / "b.pth", loaded.variables, layout="pysot-alexnet-dwxcorr"
        )
    assert not (tmp_path / "b.pth").exists()


# --- Backbones, and files of ours ---


def test_backbones_of_all_files(tmp_path):
    path = write(tmp_path / "net.pth", "pysot-alexnet")
    _, loaded = import_torch(path)
    assert isinstance(loaded, Loaded)
    run = tmp_path / "run"
    weights.save_weights(
        run / weights.FILE_NAME,
        loaded.variables,
        model=loaded.model,
        tracker_config=loaded.tracker_config,
        card=loaded.card,
    )
    alone = tmp_path / "alone.safetensors"
    config = loaded.model.config
    weights.save_backbone(
        alone,
        loaded.variables,
        config=config.backbone,
        input_config=config.input,
        card={"name": "alone"},
    )
    expected = {k: {"backbone": v["backbone"]} for k, v in loaded.variables.items()}
    for source in (path, run, run / weights.FILE_NAME, alone, str(alone)):
        found = load_backbone(source)
        assert (found.config, found.input) == (config.backbone, config.input)
        jax.tree.map(np.testing.assert_array_equal, found.variables, expected)
    assert load_backbone("small").config.kind == "compact"
    assert load_backbone(alone).card["architecture"] == (
        "alexnet 4-6-8-6-8, backbone alone"
    )
    with pytest.raises(InputError, match="alone.safetensors holds a backbone alone"):
        weights.load_weights(alone)
    with pytest.raises(InputError, match="PyTorch's files go through 'siamrpn import'"):
        weights.load_weights(path)
    with pytest.raises(FileNotFoundError, match="no weights 'no.pth'"):
        load_backbone("no.pth")
    (tmp_path / "bad.pth").write_bytes(path.read_bytes()[:999])
    with pytest.raises(InputError, match="bad.pth is a broken zip archive"):
        load_backbone(tmp_path / "bad.pth")


def test_a_backbone_that_does_not_fit_its_config(tmp_path):
    model = SiamRPN(published.pysot_model(head="depthwise"))
    small = dataclasses.replace(
        model.config, backbone=BackboneConfig(widths=WIDTHS), conv_impl="xla"
    )
    variables = {
        kind: {"backbone": part["backbone"]}
        for kind, part in random_variables(
            SiamRPN(small).init, *(np.zeros((1, n, n, 3)) for n in (127, 287))
        ).items()
    }
    path = tmp_path / "alone.safetensors"
    weights.save_backbone(
        path,
        variables,
        config=BackboneConfig(),
        input_config=small.input,
        card={},
    )
    with pytest.raises(InputError, match="bn1/mean: .4,., expected .96,."):
        load_backbone(path)


def test_imported_weights_are_a_weights_file(tmp_path):
    """With all that a file of our own has."""
    _, loaded = import_torch(write(tmp_path / "net.pth", "pysot-alexnet-dwxcorr"))
    assert isinstance(loaded, Loaded)
    path = tmp_path / "net.safetensors"
    weights.save_weights(
        path,
        loaded.variables,
        model=loaded.model,
        tracker_config=loaded.tracker_config,
        card=loaded.card,
    )
    found = weights.load_weights(path)
    assert found.model == loaded.model
    assert found.tracker_config == TrackerConfig(
        penalty_k=0.16, window_influence=0.40, size_lr=0.30
    )
    jax.tree.map(np.testing.assert_array_equal, found.variables, loaded.variables)
    assert found.card["name"] == "net" and found.card["licence"] is None
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
    assert metadata["kind"] == "tracker"
    assert json.loads(metadata["model"])["head"]["template_relu"] is True
    assert ModelConfig().head.template_relu is False
