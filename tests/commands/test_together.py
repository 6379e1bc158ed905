"""Settings that run together against the same settings, each by itself."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from data_folders import write_image, write_sequence
from exports import write_tiny_weights
from siamrpn_jax import api
from siamrpn_jax.commands import eval_ope, together
from siamrpn_jax.commands.together import Together, kind_of
from siamrpn_jax.data.read.images import read_image
from siamrpn_jax.data.read.sequences import read_sequence
from siamrpn_jax.evaluation.runner import run_sequence

SETTINGS: tuple[dict[str, Any], ...] = (
    {"penalty_k": 0.0, "motion": 0.1},
    {"penalty_k": 0.3, "size_lr": 0.6},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights, and a sequence of more frames than go into one call."""
    root = tmp_path_factory.mktemp("together")
    write_tiny_weights(root / "tiny.safetensors")
    write_sequence(root / "sequences" / "walk", 3, length=19)
    return root


def test_each_run_is_that_of_its_setting(folder):
    sequence = read_sequence(folder / "sequences" / "walk")
    weights = folder / "tiny.safetensors"
    trackers = [api.load(weights, **setting) for setting in SETTINGS]
    assert kind_of(trackers[0].config) == kind_of(trackers[1].config)
    members = Together(trackers).members()
    for member, tracker in zip(members, trackers, strict=True):
        found, alone = run_sequence(member, sequence), run_sequence(tracker, sequence)
        np.testing.assert_allclose(found.boxes, alone.boxes, atol=0.01)
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-3)
        assert found.seconds.shape == alone.seconds.shape and 0 < found.fps < np.inf
    first, second = (run_sequence(member, sequence).boxes for member in members)
    assert not np.allclose(first, second)


def test_frames_that_change_their_size(folder, tmp_path):
    source = read_sequence(folder / "sequences" / "walk")
    frames = list(source.frames[:5])
    frames[3] = tmp_path / "4.png"
    write_image(frames[3], read_image(source.frames[3])[:100, :150])
    sequence = dataclasses.replace(source, frames=tuple(frames), boxes=source.boxes[:5])
    weights = folder / "tiny.safetensors"
    trackers = [api.load(weights, **setting) for setting in SETTINGS]
    for member, tracker in zip(Together(trackers).members(), trackers, strict=True):
        found, alone = run_sequence(member, sequence), run_sequence(tracker, sequence)
        np.testing.assert_array_equal(found.boxes, alone.boxes)


def test_the_command_runs_together_what_can(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(together, "pays", lambda: True)
    report = tmp_path / "report.json"
    eval_ope.main(
        [
            *("--sequences", str(folder / "sequences"), "--json", str(report)),
            *("--weights", str(folder / "tiny.safetensors"), "--tracker", "siamrpn"),
            *("static", "--tracker.penalty-k", "0", ".3"),
            *("--tracker.center-size", "None", "5"),
        ]
    )
    printed = capsys.readouterr().out
    assert printed.count("together, each with its share of the time: ") == 2
    assert "center_size=5,penalty_k=0.0], " in printed
    rows = json.loads(report.read_text())["trackers"]
    assert len(rows) == 5 and all(0 <= row["auc"] <= 1 for row in rows.values())
