"""Pretraining on a miniature image folder, and trackers that start from it."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from data_folders import write_classes
from siamrpn_jax import weights
from siamrpn_jax.commands import pretrain, train
from siamrpn_jax.commands.pretrain import Config
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.pairs.labelled import LabelledConfig, open_labelled
from siamrpn_jax.presets import PRESETS
from siamrpn_jax.training import run
from siamrpn_jax.training.config import ClassifierConfig
from siamrpn_jax.weights.backbones import load_backbone
from small_models import tiny_recipe

BACKBONE = tiny_recipe().model.backbone


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_classes(folder / "train", 24)
    write_classes(folder / "val", 24, seed=1)
    return folder


def tiny_config(images: Path, out: Path, **fields) -> Config:
    recipe = pretrain.make_recipe("small")
    optimizer = dataclasses.replace(recipe.train.optimizer, warmup_steps=5)
    recipe = dataclasses.replace(
        recipe,
        train=dataclasses.replace(recipe.train, optimizer=optimizer, epochs=5),
        data=LabelledConfig(folder=str(images), min_area=0.5),
        model=ClassifierConfig(
            BACKBONE, recipe.model.input, image_size=44, conv_impl="xla"
        ),
        batch_size=6,
    )
    return Config(recipe=recipe, preset="small", out=out, log_every=4, **fields)


def without_speed(out: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in x.items() if k != "images_per_second"} for x in lines]


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory) -> Path:
    """An uninterrupted run on two devices."""
    out = tmp_path_factory.mktemp("whole") / "run"
    pretrain.run(tiny_config(images, out))
    return out


def test_miniature_images_are_learned(whole, images):
    loaded = load_backbone(whole)
    figures = loaded.card["figures"]
    assert figures["top1"] > 0.6 > 1 / 3  # chance
    assert figures["top5"] == 1.0
    assert (loaded.config, loaded.input) == (BACKBONE, PRESETS["small"]().model.input)
    assert set(loaded.variables["params"]) == {"backbone"}
    card = loaded.card
    assert (card["preset"], card["steps"], card["images"]) == ("small", 60, 360)
    assert (card["classes"], card["data"]) == (3, [str(images)])
    stored = json.loads((whole / "config.json").read_text())
    assert stored["classes"] == ["bars", "disc", "square"]
    assert stored["recipe"]["train"]["steps_per_epoch"] == 12
    names = {path.name for path in whole.iterdir()}
    assert {"checkpoints", "metrics.jsonl", "losses.png"} <= names
    records = without_speed(whole)
    assert [r["step"] for r in records if "top1" in r] == [12, 24, 36, 48, 60]
    assert {"loss", "accuracy", "learning_rate"} <= records[0].keys()


def test_stopped_and_resumed_equals_whole(whole, images, tmp_path, capsys):
    class Stopper:
        def write(self, step, metrics):
            if step == 16:
                os.kill(os.getpid(), signal.SIGTERM)

        def close(self):
            raise AssertionError("the caller's writers are the caller's to close")

    config = tiny_config(images, tmp_path / "run")
    with pytest.raises(run.Stopped, match="130|143"):
        pretrain.run(config, writers=[Stopper()])
    assert "stopped at step 16; go on with --resume" in capsys.readouterr().out
    assert not (config.out / "weights.safetensors").exists()
    resumed = pretrain.parse(["--resume", "--out", str(config.out)])
    assert resumed.recipe.train.steps_per_epoch == 12
    card = pretrain.run(dataclasses.replace(resumed, log_every=4))
    assert card["steps"] == 60
    one, two = (load_backbone(out).variables for out in (whole, config.out))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert without_speed(whole) == without_speed(config.out)


def test_a_tracker_starts_from_it(whole, tmp_path, capsys):
    optimizer = dataclasses.replace(tiny_recipe().train.optimizer, frozen_layers=1)
    recipe = tiny_recipe(epochs=1, steps_per_epoch=2, optimizer=optimizer)
    config = train.Config(
        recipe=recipe, out=tmp_path / "run", backbone=str(whole), evaluate=0, devices=1
    )
    card = train.run(config)
    assert "training all layers" not in capsys.readouterr().out
    assert (card["backbone"], card["frozen_layers"]) == (str(whole), 1)
    start = load_backbone(whole).variables
    end = weights.load_weights(config.out).variables
    for kind in ("params", "batch_stats"):
        for layer, values in start[kind]["backbone"].items():
            same = jax.tree.map(np.array_equal, values, end[kind]["backbone"][layer])
            assert all(jax.tree.leaves(same)) == (layer[-1] == "1"), layer
    resumed = dataclasses.replace(config, resume=True, backbone="other")
    with pytest.raises(InputError, match="backbone: .* -> 'other'"):
        train.run(resumed)


def test_other_data_or_recipe_is_not_resumed(whole, images, tmp_path):
    config = dataclasses.replace(tiny_config(images, whole), resume=True)
    recipe = dataclasses.replace(config.recipe, seed=3)
    with pytest.raises(InputError, match="recipe.seed: 0 -> 3"):
        pretrain.run(dataclasses.replace(config, recipe=recipe))
    (images / "train/ring").mkdir()
    (images / "train/ring/0.png").write_bytes(b"")
    try:
        with pytest.raises(InputError, match="classes: .*'ring'"):
            pretrain.run(config)
    finally:
        (images / "train/ring/0.png").unlink()
        (images / "train/ring").rmdir()
    with pytest.raises(InputError, match="holds a run already"):
        pretrain.run(dataclasses.replace(config, resume=False))
    lost = dataclasses.replace(config, out=tmp_path / "none")
    with pytest.raises(InputError, match="nothing to resume"):
        pretrain.run(lost)


def test_missing_images_are_named_before_a_run_is_made(tmp_path, capsys):
    out = tmp_path / "run"
    with pytest.raises(InputError, match="no data; expected train/<class>"):
        pretrain.run(Config(recipe=pretrain.make_recipe(), out=out))
    for options, message in (
        (["--data", str(tmp_path / "nowhere")], "nowhere: no such folder"),
        (["small", "--model.image-size", "224"], "patch size 224 does not fit"),
        (["--epochs", "0"], "epochs is 0"),
        (["--batch-size", "7"], "batch_size=7 does not divide by 2 devices"),
    ):
        with pytest.raises(SystemExit) as exit_info:
            pretrain.main([*options, "--out", str(out)])
        assert exit_info.value.code == 2
        assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_a_size_that_fits_and_its_input(preset):
    recipe, model = pretrain.make_recipe(preset), PRESETS[preset]().model
    sizes = {"small": 220, "base": 209}
    assert recipe.model.image_size == sizes.get(preset, 223)
    assert (recipe.model.backbone, recipe.model.input) == (model.backbone, model.input)


def test_some_held_out_images_are_evenly_spread(whole, images):
    _, held_out = open_labelled(LabelledConfig(folder=str(images)), image_size=44)
    assert held_out is not None
    some = held_out.spread(5)
    assert [int(some[i].label) for i in range(5)] == [0, 0, 1, 2, 2]
    assert len(some) == 5
