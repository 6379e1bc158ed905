"""Weights that training starts from, and the recipe that follows them."""

import dataclasses
import json
from typing import Any

import jax
import numpy as np
import pytest

from data_folders import write_sequence
from siamrpn_jax import published, weights
from siamrpn_jax.commands import start, train, train_task
from siamrpn_jax.commands.train import RunConfig
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.pairs.pairs import DataConfig
from siamrpn_jax.model.config import BackboneConfig, InputConfig
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.presets import paper, small
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.training import step
from siamrpn_jax.training.checkpoints import write_config
from siamrpn_jax.weights import cards, torch_files, torch_layouts
from small_models import tiny_model, tiny_recipe

MODEL = dataclasses.replace(
    tiny_model(), input=InputConfig("bgr", std=(50.0, 50.0, 50.0))
)
TRACKER = TrackerConfig(penalty_k=0.33)
THIN = (4, 6, 8, 6, 4)


@pytest.fixture(scope="module")
def state():
    model = SiamRPN(MODEL)
    config = tiny_recipe().train
    return step.init_state(jax.random.key(0), model=model, config=config)


@pytest.fixture(scope="module")
def tracker_file(state, tmp_path_factory):
    """Weights of a tracker that is nobody's preset."""
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    weights.save_weights(
        path, variables, model=SiamRPN(MODEL), tracker_config=TRACKER, card={}
    )
    return path


def torch_file(path, layout: str, widths=THIN):
    """A PyTorch file of a backbone with few channels."""
    rng = np.random.default_rng(0)
    tensors = {}
    inputs = (3, *widths)
    sides = (11, 5, 3, 3, 3)
    for i, module in enumerate(torch_layouts.LAYOUTS[layout]):
        shape = (widths[i], inputs[i], sides[i], sides[i])
        tensors[f"{module.conv}.weight"] = rng.normal(size=shape).astype(np.float32)
        tensors[f"{module.conv}.bias"] = rng.normal(size=widths[i]).astype(np.float32)
        for name in ("weight", "bias", "running_mean", "running_var"):
            if module.norm:
                array = rng.uniform(0.5, 1, widths[i]).astype(np.float32)
                tensors[f"{module.norm}.{name}"] = array
    torch_files.write_torch(path, tensors)
    return path


def thin_alexnet() -> SiamRPN:
    config = paper().model
    return SiamRPN(
        dataclasses.replace(
            config,
            backbone=BackboneConfig(widths=THIN),
            head=dataclasses.replace(config.head, kind="depthwise", width=4),
            conv_impl="xla",
        )
    )


# Trackers: --init


def test_network_and_constants_are_those_of_the_weights(tracker_file):
    config = train.parse(["--init", str(tracker_file)])
    assert config.recipe.model == MODEL and config.recipe.tracker == TRACKER
    assert config.recipe.train == small().train and config.preset == "small"


def test_options_change_what_the_weights_say(tracker_file):
    options = ["--init", str(tracker_file), "--tracker.size-lr", "0.5"]
    config = train.parse(
        ["paper", *options, "--model.dtype", "bfloat16", "--batch-size", "2"]
    )
    assert config.recipe.model == dataclasses.replace(MODEL, dtype="bfloat16")
    assert config.recipe.tracker == dataclasses.replace(TRACKER, size_lr=0.5)
    assert config.recipe.train.optimizer == paper().train.optimizer


def test_weights_are_taken_and_differences_are_said(state, tracker_file, capsys):
    other = SiamRPN(dataclasses.replace(MODEL, instance_size=204, input=InputConfig()))
    fresh = jax.tree.map(lambda x: 0 * x, (state.params, state.batch_stats))
    found = start.from_weights(
        state.replace(params=fresh[0], batch_stats=fresh[1]),
        str(tracker_file),
        model=other,
    )
    jax.tree.map(np.testing.assert_array_equal, found.params, state.params)
    jax.tree.map(np.testing.assert_array_equal, found.ema["params"], state.params)
    output = capsys.readouterr().out
    assert "was trained: input.order: 'bgr' -> 'rgb'" in output
    assert "instance_size: 188 -> 204" in output


def test_weights_of_another_shape_are_refused(state, tracker_file):
    wider = SiamRPN(tiny_model((8, 24, 24)))
    with pytest.raises(InputError, match=r"another model: .*widths: \[8, 16, 16\]"):
        start.from_weights(state, str(tracker_file), model=wider)


def test_a_hybrid_head_takes_features_and_boxes(state, tracker_file):
    head = dataclasses.replace(MODEL.head, kind="hybrid")
    anchors = dataclasses.replace(MODEL.anchors, ratios=(2.0,))
    model = SiamRPN(dataclasses.replace(MODEL, head=head, anchors=anchors))
    config = tiny_recipe().train
    fresh = step.init_state(jax.random.key(5), model=model, config=config)
    found = start.from_weights(fresh, str(tracker_file), model=model)
    z, x = (
        np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
        for side in (MODEL.exemplar_size, MODEL.instance_size)
    )
    pairs: list[Any] = [
        network.apply({"params": one.params, "batch_stats": one.batch_stats}, z, x)
        for network, one in ((model, found), (SiamRPN(MODEL), state))
    ]
    hybrid, whole = (pair.detection.reg_deltas for pair in pairs)
    place = MODEL.anchors.ratios.index(2.0)
    np.testing.assert_allclose(hybrid[..., 0, :], whole[..., place, :], atol=1e-6)
    changed = dataclasses.replace(anchors, ratios=(1.5,))
    other = SiamRPN(dataclasses.replace(MODEL, head=head, anchors=changed))
    with pytest.raises(InputError, match="ratios 1.5: expected .* 0.333333, 0.5, 1"):
        start.from_weights(fresh, str(tracker_file), model=other)
    wider = SiamRPN(
        dataclasses.replace(tiny_model((8, 24, 24)), head=head, anchors=anchors)
    )
    with pytest.raises(InputError, match=r"another model: .*widths: \[8, 16, 16\]"):
        start.from_weights(
            step.init_state(jax.random.key(5), model=wider, config=config),
            str(tracker_file),
            model=wider,
        )


def test_resuming_follows_the_weights_again(tracker_file, tmp_path):
    options = ["small", "--init", str(tracker_file), "--out", str(tmp_path)]
    recipe = train.parse(options).recipe
    run = RunConfig(recipe, str(tracker_file), "train", preset="small")
    write_config(tmp_path / "config.json", run)
    for again in (["--resume"], ["small", "--resume"]):
        config = train.parse([*again, "--out", str(tmp_path)])
        assert config.recipe == recipe
        assert train_task.describe_run(config) == run
    config = train.parse(["--resume", "--out", str(tmp_path), "--init", "small"])
    with pytest.raises(InputError, match="init: .*mine.safetensors' -> 'small'"):
        train_task.describe_run(config)


def test_what_the_constants_were_chosen_on_is_remembered(state, tmp_path):
    path, out = tmp_path / "tuned.safetensors", tmp_path / "run"
    variables = step.eval_variables(state)
    marks = [{"name": "car", "fingerprint": "12ab"}]
    learned = cards.trained_on(cards.pack_names(["a/goat"]))
    card = {"tuned_on": marks, "trained_on": learned}
    weights.save_weights(
        path, variables, model=SiamRPN(MODEL), tracker_config=TRACKER, card=card
    )
    recipe = tiny_recipe(epochs=1, steps_per_epoch=1)
    for name in ("cow", "duck"):
        write_sequence(tmp_path / "data" / name, 0)
    data = DataConfig(folders=(str(tmp_path / "data"),), hold_out=("duck",))
    recipe = dataclasses.replace(recipe, model=MODEL, data=data)
    config = train.Config(recipe=recipe, out=out, evaluate=0, init=str(path), devices=1)
    assert train.run(config)["tuned_on"] == marks
    card = weights.load_weights(out).card
    assert card["tuned_on"] == marks and card["trained_on"]["videos"] == 2
    names = ["goat", "cow", "duck"]
    assert cards.trained_among(card, names) == ["goat", "cow"]


def test_runs_of_before_these_fields_go_on(tmp_path):
    stored = json.loads(json.dumps(dataclasses.asdict(RunConfig(small(), None, "c"))))
    for name in ("backbone", "preset"):
        del stored[name]
    del stored["recipe"]["train"]["optimizer"]["trained"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    config = train.parse(["--resume", "--out", str(tmp_path)])
    assert train_task.describe_run(config).recipe == small()


# Backbones: --backbone


@pytest.mark.parametrize(
    ("layout", "wanted"),
    [
        ("torchvision", published.IMAGENET),
        ("alexnet-bn", published.GREY_LEVELS["bgr"]),
    ],
)
def test_pytorch_backbones_bring_their_input(layout, wanted, tmp_path):
    path = torch_file(tmp_path / "backbone.pth", layout)
    config = train.parse(["paper", "--backbone", str(path)])
    assert config.recipe.model == dataclasses.replace(paper().model, input=wanted)
    started = train_task.describe_run(dataclasses.replace(config, out=tmp_path / "run"))
    assert started.backbone == str(path)
    assert started.recipe.train.optimizer.frozen_layers == 3
    changed = train.parse(
        ["paper", "--backbone", str(path), "--model.input.order", "bgr"]
    )
    assert changed.recipe.model.input == dataclasses.replace(wanted, order="bgr")


def test_kernels_are_taken_and_the_head_stays(tmp_path, capsys):
    path = torch_file(tmp_path / "alexnet.pth", "torchvision")
    model = thin_alexnet()
    config = dataclasses.replace(tiny_recipe().train)
    state = step.init_state(jax.random.key(0), model=model, config=config)
    found = start.from_backbone(state, str(path), model=model)
    wanted = torch_layouts.import_torch(path)[1].variables
    for kind, got in (("params", found.params), ("batch_stats", found.batch_stats)):
        jax.tree.map(
            np.testing.assert_array_equal, got["backbone"], wanted[kind]["backbone"]
        )
    jax.tree.map(
        np.testing.assert_array_equal, found.params["head"], state.params["head"]
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        found.ema,
        {"params": found.params, "batch_stats": found.batch_stats},
    )
    assert "was trained: input.mean: [123.6" in capsys.readouterr().out


def test_torchvisions_own_channels(tmp_path, state):
    path = torch_file(tmp_path / "alexnet.pth", "torchvision", (64, 192, 384, 256, 256))
    option = "--model.backbone.widths 64 192 384 256 256"
    message = (
        "is alexnet 64-192-384-256-256, the recipe's is alexnet 96-256-384-384-256: "
        f"{option} fits it"
    )
    with pytest.raises(InputError, match=message):
        start.from_backbone(state, str(path), model=SiamRPN(paper().model))
    config = train.parse(["paper", "--backbone", str(path), *option.split()])
    assert config.recipe.model.backbone == published.torchvision_alexnet()


def test_backbones_of_another_kind_name_the_preset(tmp_path, state, tracker_file):
    path = str(torch_file(tmp_path / "backbone.pth", "alexnet-bn"))
    message = r"is alexnet 4-6-8-6-4, .* compact 8-16-16: siamrpn train paper --model\."
    with pytest.raises(InputError, match=message):
        start.from_backbone(state, path, model=SiamRPN(MODEL))
    with pytest.raises(InputError, match="is compact .*: siamrpn train small fits"):
        start.from_backbone(state, "small", model=SiamRPN(paper().model))


def test_files_that_are_neither(tmp_path, tracker_file, capsys):
    backbone = torch_file(tmp_path / "backbone.pth", "alexnet-bn")
    for options, message in (
        (["--init", "small", "--backbone", "small"], "brings a backbone of its own"),
        (["--init", str(backbone)], "go through 'siamrpn import'"),
        (["--init", str(tmp_path / "none")], "no weights"),
        (["--backbone", str(tmp_path / "none.pth")], "no weights"),
        (["--init", str(tracker_file), "--optimizer.trained", "tail"], "'tail' is no"),
    ):
        with pytest.raises(SystemExit) as exit_info:
            train.main([*options, "--out", str(tmp_path / "run"), "--evaluate", "0"])
        assert exit_info.value.code == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run/config.json").exists()
