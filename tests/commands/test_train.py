import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from nano_networks import use_fakes
from paths import ROOT
from prepared_folders import write_prepared
from siamrpn_jax import weights
from siamrpn_jax.commands import train, train_task
from siamrpn_jax.commands.train import Config
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import lock_folder
from siamrpn_jax.training import run
from siamrpn_jax.training.checkpoints import write_config
from small_models import tiny_model, tiny_recipe

TINY = [
    *("--model.backbone.widths", "8", "16", "--model.head.width", "16"),
    *("--model.conv-impl", "xla", "--batch-size", "4", "--evaluate", "0"),
    *("--epochs", "2", "--steps-per-epoch", "12", "--log-every", "3"),
]


def tiny_config(out: Path, **train_fields) -> Config:
    recipe = tiny_recipe(**{"epochs": 2, "steps_per_epoch": 4, **train_fields})
    return Config(recipe=recipe, out=out, evaluate=0, log_every=2)


def start(out: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "experiments" / "train.py")]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        [*command, "--out", str(out), *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen, status: int = 0) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == status, output
    return output


def wait_for_step(out: Path, step: int) -> None:
    path = out / "metrics.jsonl"
    for _ in range(2400):
        if path.is_file() and f'"step": {step},' in path.read_text():
            return
        time.sleep(0.1)
    raise TimeoutError(f"step {step} never came")


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    finish(start(out, *TINY))
    return out


def same_weights(a: Path, b: Path) -> bool:
    one, two = weights.load_weights(a).variables, weights.load_weights(b).variables
    equal = jax.tree.map(lambda x, y: bool((x == y).all()), one, two)
    return all(jax.tree.leaves(equal))


def test_run_leaves_everything(whole_run):
    names = {path.name for path in whole_run.iterdir()}
    wanted = {"config.json", "checkpoints", "metrics.jsonl", "weights.safetensors"}
    assert wanted | {"losses.png"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    lines = (whole_run / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [r["step"] for r in records if "loss" in r] == list(range(3, 25, 3))
    assert [r["step"] for r in records if "val_iou" in r] == [12, 24]
    assert {"learning_rate", "pairs_per_second", "gradient_norm"} <= records[0].keys()
    card = weights.load_weights(whole_run).card
    assert (card["steps"], card["pairs"], card["data"]) == (
        24,
        96,
        ["generated scenes"],
    )


def test_terminated_killed_while_saving_and_resumed_equals_whole(whole_run, tmp_path):
    out = tmp_path / "run"
    process = start(out, *TINY)
    wait_for_step(out, 3)
    process.send_signal(signal.SIGTERM)
    assert "go on with --resume" in finish(process, 128 + signal.SIGTERM)
    assert not (out / "weights.safetensors").exists()
    # A checkpoint after each step: the signal meets one being written.
    resume = ("--resume", "--evaluate", "0", "--log-every", "3")
    process = start(out, *resume, "--checkpoint-minutes", "0")
    wait_for_step(out, 12)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    finish(start(out, *resume))
    assert same_weights(out, whole_run)
    lines = (out / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted(steps)


def test_resume_with_another_config_names_the_fields(whole_run):
    config = tiny_config(whole_run)
    recipe = dataclasses.replace(config.recipe, seed=9)
    config = dataclasses.replace(config, recipe=recipe, resume=True)
    with pytest.raises(InputError, match="recipe.seed: 0 -> 9"):
        train.run(config)


def test_existing_run_is_not_overwritten(whole_run):
    with pytest.raises(InputError, match="holds a run already"):
        train.run(tiny_config(whole_run))


def test_two_runs_in_one_folder(tmp_path):
    config = tiny_config(tmp_path / "run")
    with lock_folder(config.out):
        with pytest.raises(InputError, match="another process writes to this folder"):
            train.run(config)
    assert not config.out.exists()


def test_resume_without_a_run(tmp_path):
    config = dataclasses.replace(tiny_config(tmp_path / "none"), resume=True)
    with pytest.raises(InputError, match="nothing to resume"):
        train.run(config)


def test_non_finite_loss_stops_with_the_step_and_keeps_the_checkpoint(tmp_path):
    optimizer = dataclasses.replace(
        tiny_recipe().train.optimizer,
        kind="sgd",
        learning_rate=1e30,
        clip_norm=None,
        warmup_steps=0,
    )
    config = tiny_config(tmp_path / "run", optimizer=optimizer)
    with pytest.raises(InputError, match=r"step \d: .*loss.* not finite"):
        train.run(dataclasses.replace(config, devices=1))
    assert not (config.out / "weights.safetensors").exists()


def test_batch_must_divide_by_the_devices(tmp_path):
    config = tiny_config(tmp_path / "run")
    recipe = dataclasses.replace(config.recipe, batch_size=5)
    with pytest.raises(InputError, match="batch_size=5 does not divide by 2"):
        train.run(dataclasses.replace(config, recipe=recipe))
    with pytest.raises(InputError, match="devices=3, but there are 2"):
        train.run(dataclasses.replace(config, devices=3))


def test_missing_data_is_named_before_a_run_is_made(tmp_path, capsys):
    out = tmp_path / "run"
    with pytest.raises(SystemExit) as exit_info:
        train.main(["--data", str(tmp_path / "nowhere"), "--out", str(out)])
    assert exit_info.value.code == 2
    assert "nowhere" in capsys.readouterr().err
    assert not out.exists()


def test_weights_of_another_model_are_refused(whole_run, tmp_path):
    config = tiny_config(tmp_path / "run")
    recipe = dataclasses.replace(config.recipe, model=tiny_model((8, 24, 24)))
    config = dataclasses.replace(config, recipe=recipe, init=str(whole_run))
    with pytest.raises(InputError, match=r"another model: .*backbone.widths: \[8"):
        train.run(config)


def test_layers_thaw_without_trained_weights(tmp_path, monkeypatch, capsys):
    optimizer = dataclasses.replace(tiny_recipe().train.optimizer, frozen_layers=1)
    config = tiny_config(tmp_path / "run", optimizer=optimizer)
    monkeypatch.setattr(run.Loop, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train.run(config)
    assert "training all layers" in capsys.readouterr().out
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["recipe"]["train"]["optimizer"]["frozen_layers"] == 0


def test_run_killed_before_its_first_checkpoint_starts_from_the_same_weights(
    whole_run, tmp_path, monkeypatch, capsys
):
    config = tiny_config(tmp_path / "run", epochs=1, steps_per_epoch=1)
    recipe = dataclasses.replace(
        config.recipe, model=weights.load_weights(whole_run).model.config
    )
    config = dataclasses.replace(
        config, recipe=recipe, init=str(whole_run), devices=1, threads=1
    )
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run.Loop, "run", interrupt)
        train.run(config)
    start = []

    def keep_first_state(self, state, *args):
        start.append(jax.device_get(state.params))
        interrupt()

    monkeypatch.setattr(run.Loop, "run", keep_first_state)
    with pytest.raises(KeyboardInterrupt):
        train.run(dataclasses.replace(config, resume=True, init=None))
    assert (
        "no checkpoint to resume from: the run starts anew" in capsys.readouterr().out
    )
    loaded = weights.load_weights(whole_run).variables["params"]
    assert all(
        jax.tree.leaves(jax.tree.map(lambda a, b: (a == b).all(), start[0], loaded))
    )


def test_own_writers_get_the_metrics_of_a_taught_run(tmp_path, monkeypatch):
    class Recorder:
        def __init__(self):
            self.steps = []

        def write(self, step, metrics):
            self.steps.append((step, metrics))

        def close(self):
            raise AssertionError("the caller's writers are the caller's to close")

    recorder = Recorder()
    files = tuple(map(str, use_fakes(monkeypatch, tmp_path, side=15)))
    config = tiny_config(tmp_path / "run", epochs=1, steps_per_epoch=2)
    data = dataclasses.replace(config.recipe.data, teacher=files)
    recipe = dataclasses.replace(config.recipe, data=data)
    config = dataclasses.replace(config, recipe=recipe, devices=1, threads=1)
    card = train.run(config, writers=[recorder])
    assert [step for step, _ in recorder.steps] == [2, 2]
    assert recorder.steps[0][1]["teacher_loss"] > 0
    assert card["steps"] == 2 and card["teacher"] == ["backbone.onnx", "head.onnx"]
    Path(files[1]).write_bytes(b"another teacher")
    with pytest.raises(InputError, match=r"another config.*head\.onnx"):
        train.run(dataclasses.replace(config, resume=True))


def test_prepared_again_in_the_meantime(tmp_path):
    folder, out = tmp_path / "data", tmp_path / "run"
    write_prepared(folder, tracks=2, length=4)
    config = tiny_config(out)
    data = dataclasses.replace(config.recipe.data, folders=(str(folder),))
    recipe = dataclasses.replace(config.recipe, data=data)
    started = train_task.describe_run(dataclasses.replace(config, recipe=recipe))
    write_config(out / "config.json", started)
    again = dataclasses.replace(config, recipe=started.recipe, resume=True)
    assert train_task.describe_run(again) == started
    write_prepared(tmp_path / "other", tracks=2, length=5)
    shutil.rmtree(folder)
    (tmp_path / "other").rename(folder)
    with pytest.raises(InputError, match=r"prepared\..*data: '\w{8}' -> '\w{8}'"):
        train_task.describe_run(again)


def test_options_of_several_values():
    config = train.parse(
        ["--augment.search-shift", ".1", "--data", "a", "b", "--weights", "1", "2"]
    )
    assert config.recipe.augment.search_shift == 0.1
    assert config.recipe.data.folders == ("a", "b")
    assert config.recipe.data.weights == (1.0, 2.0)


def test_devices_of_several_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(run.distributed, "several", lambda: True)
    config = dataclasses.replace(tiny_config(tmp_path / "run"), devices=1)
    with pytest.raises(InputError, match="devices=1 is for a single process"):
        run.choose_devices(config, batch_size=4)
    devices = [SimpleNamespace(process_index=i) for i in (1, 0, 1)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    config = dataclasses.replace(config, devices=None)
    with pytest.raises(InputError, match="processes have 1, 2 devices, expected the"):
        run.choose_devices(config, batch_size=4)


def test_folder_that_processes_do_not_share_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(run.distributed, "is_first", lambda: False)
    monkeypatch.setattr(run, "_FOLDER_SECONDS", 0.0)
    config = tiny_config(tmp_path / "run")
    started = train.RunConfig(config.recipe, None, "")
    with pytest.raises(InputError, match="run/config.json of the first process is"):
        run.write_config(config, started)


def test_damaged_config_is_one_line(tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.json").write_text('{"recipe": ')
    with pytest.raises(SystemExit) as exit_info:
        train.main(["--resume", "--out", str(out)])
    assert exit_info.value.code == 2
    assert "not a run's config" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [("--log-every", "log_every is 0"), ("--epochs", "epochs is 0")],
)
def test_numbers_out_of_range(option, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_info:
        train.main([option, "0", "--out", str(tmp_path / "run")])
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


def test_a_head_whose_kernels_cannot_learn_names_the_option():
    words = ["base", "--model.head.kind", "depthwise"]
    option = "--tracker.online-frames None"
    with pytest.raises(InputError, match=rf"with a depthwise head \({option}\)"):
        train.parse(words)
    config = train.parse([*words, *option.split()])
    assert config.recipe.tracker.online_frames is None
