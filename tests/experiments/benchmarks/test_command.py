"""The command from its arguments to its file, without the other frameworks."""

import importlib
import json
import os
import sys

import pytest

from experiments.benchmarks import command
from siamrpn_jax.common import errors
from siamrpn_jax.common.errors import InputError


def without_extras(module, *, extra):
    raise errors.MissingExtraError(f"{module}: pip install 'siamrpn-jax[{extra}]'")


def test_it_runs_without_the_others_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(errors, "require", without_extras)
    for name in [n for n in sys.modules if n.startswith("experiments.benchmarks")]:
        monkeypatch.delitem(sys.modules, name)
    path = tmp_path / "report.json"
    options = "--presets small --rounds 1 --turn-seconds 0 --no-compiled"
    command.main(["search", *options.split(), "--json", str(path)])
    written = json.loads(path.read_text())
    status = {row["contestant"]: row["status"] for row in written["rows"]}
    assert status["ours"] == status["ours, Flax module"] == "ok"
    assert status["torch eager"] == status["onnxruntime"] == "absent"
    assert written["targets"]["paper_search_vs_torch"] is None
    assert "pip install 'siamrpn-jax[bench]'" in capsys.readouterr().out


def test_a_section_that_breaks_does_not_end_the_run(tmp_path, monkeypatch):
    def broken(session):
        raise RuntimeError("no luck")

    section = importlib.import_module("experiments.benchmarks.conv")
    monkeypatch.setattr(section, "run", broken)
    config = command.Config(section="conv", json=tmp_path / "report.json")
    (row,) = command.run(config)["rows"]
    assert (row["status"], row["note"]) == ("failed", "RuntimeError: no luck")


def test_what_takes_long_comes_last():
    parts = [part[:2] for part in command._parts(command.Config(section="all"))]
    assert parts[0] == ("track", "run")
    assert parts[-2:] == [("track", "compiled"), ("train", "compiled")]
    config = command.Config(section="many")
    parts = [part[:2] for part in command._parts(config)]
    assert parts == [("many", "run"), ("films", "run"), ("many", "larger")]


def test_threads_that_cannot_be_had_are_refused(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)
    assert command.limit_threads(None) == command.limit_threads(2) == 2
    with pytest.raises(InputError, match="--threads 3: expected 1 to 2"):
        command.limit_threads(3)
    with pytest.raises(InputError, match="JAX runs already"):
        command.limit_threads(1)


def test_cores_are_given_up_before_jax_is_imported(monkeypatch):
    chosen = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 5, 7}, raising=False)
    monkeypatch.setattr(
        os, "sched_setaffinity", lambda _, cores: chosen.append(cores), raising=False
    )
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    assert command.limit_threads(2) == 2
    assert chosen == [[2, 5]]
