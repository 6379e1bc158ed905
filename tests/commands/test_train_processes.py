"""Training in two processes, through the command as a user starts it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from paths import ROOT
from siamrpn_jax import weights

TINY = [
    *("--model.backbone.widths", "8", "16", "--model.head.width", "16"),
    *("--model.conv-impl", "xla", "--batch-size", "4", "--evaluate", "0"),
    *("--epochs", "2", "--steps-per-epoch", "9", "--log-every", "3"),
]


class Runs:
    """Starts training; what one run compiles the next ones find."""

    def __init__(self, cache: Path):
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }

    def start(self, out: Path, *options: str, devices: int = 1) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "experiments/train.py"), "--out", str(out)]
            + list(options),
            env={**self._environment, "JAX_NUM_CPU_DEVICES": str(devices)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def start_two(self, out: Path, *options: str, second: tuple[str, ...] = ()):
        where = ("--coordinator", f"localhost:{free_port()}", "--processes", "2")
        return [
            self.start(out, *options, *where, "--process-index", str(i), *own)
            for i, own in enumerate(((), second))
        ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def finish(processes: list[subprocess.Popen]) -> list[str]:
    """Waits for their ends; returns what they printed."""
    return [process.communicate(timeout=240)[0] for process in processes]


def wait_for_step(out: Path, step: int) -> None:
    path = out / "metrics.jsonl"
    end = time.monotonic() + 240
    while time.monotonic() < end:
        if path.is_file() and f'"step": {step},' in path.read_text():
            return
        time.sleep(0.02)
    raise TimeoutError(f"step {step} never came")


def assert_same_weights(a: Path, b: Path) -> None:
    one, two = (weights.load_weights(path).variables for path in (a, b))
    jax.tree.map(np.testing.assert_array_equal, one, two)


def metrics(out: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in x.items() if k != "pairs_per_second"} for x in lines]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    return Runs(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def whole(runs, tmp_path_factory) -> tuple[Path, str, str]:
    """An uninterrupted run of two processes, and what they printed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    processes = runs.start_two(out, *TINY)
    first, second = finish(processes)
    assert [p.returncode for p in processes] == [0, 0], first + second
    return out, first, second


def test_one_process_speaks_for_two(whole):
    out, first, second = whole
    assert "on 2 cpu device(s) of 2 processes" in first and "epoch 2/2" in first
    assert "parameters" not in second and "epoch" not in second
    assert len(list(out.glob("events.out.tfevents*"))) == 1


def test_signalled_killed_and_resumed_by_one_equals_whole(whole, runs, tmp_path):
    """One process with two devices does, to the last bit, what two processes do."""
    out = tmp_path / "run"
    processes = runs.start_two(out, *TINY)
    wait_for_step(out, 3)
    processes[1].send_signal(signal.SIGTERM)
    first, second = finish(processes)
    assert [p.returncode for p in processes] == [143, 143], first + second
    assert "go on with --resume" in first
    assert not (out / "weights.safetensors").exists()
    stopped = metrics(out)[-1]["step"]
    assert (out / "checkpoints" / f"{stopped:.0f}").is_dir()

    often = ("--checkpoint-minutes", "0", "--heartbeat-timeout", "5")
    processes = runs.start_two(out, "--resume", *TINY, *often)
    wait_for_step(out, 12)
    processes[1].kill()
    first, _ = finish(processes)
    assert processes[0].returncode not in (0, None), first

    process = runs.start(out, "--resume", *TINY, devices=2)
    (output,) = finish([process])
    assert process.returncode == 0, output
    assert_same_weights(out, whole[0])
    assert metrics(out) == metrics(whole[0])


def test_other_options_are_named(runs, tmp_path):
    processes = runs.start_two(tmp_path / "run", *TINY, second=("--seed", "9"))
    first, second = finish(processes)
    assert processes[1].returncode == 2 and processes[0].returncode not in (0, None)
    assert "process 1 was started with other options" in second, first + second
    assert "recipe.seed: 0 -> 9" in second
