import subprocess
import sys

import jax
import numpy as np
import pytest

from paths import ROOT
from siamrpn_jax import weights
from siamrpn_jax.commands import import_weights as command
from siamrpn_jax.tracking.state import Loaded
from siamrpn_jax.weights import LoadedBackbone
from siamrpn_jax.weights.torch_files import read_torch, write_torch
from torch_layout_files import tensors


@pytest.fixture
def pysot(tmp_path):
    path = tmp_path / "model.pth"
    write_torch(path, tensors("pysot-alexnetlegacy-dwxcorr"))
    return path


def run(*arguments: object):
    command.main([str(argument) for argument in arguments])


def test_a_file_alone_is_described(pysot, capsys):
    run(pysot)
    output = " ".join(capsys.readouterr().out.split())
    assert f"{pysot}: layout pysot-alexnetlegacy-dwxcorr, PySOT" in output
    assert "licence not stated" in output
    assert sorted(path.name for path in pysot.parent.iterdir()) == ["model.pth"]


def test_ours_are_described(capsys):
    run("small")
    output = " ".join(capsys.readouterr().out.split())
    assert "parameters 593,214" in output and "layout" not in output


@pytest.mark.parametrize("out", ["folder", "some/net.safetensors"])
def test_in(pysot, out, capsys):
    target = pysot.parent / out
    run(pysot, "--out", target)
    path = target if target.suffix else target / weights.FILE_NAME
    assert f"{path}: siamrpn eval --weights {path}" in capsys.readouterr().out
    loaded = weights.load_weights(target)
    assert loaded.model.config.crop == "pysot"
    kernel = tensors("pysot-alexnetlegacy-dwxcorr")["backbone.features.8.weight"]
    found = loaded.variables["params"]["backbone"]["conv3"]["kernel"]
    np.testing.assert_array_equal(found, kernel.transpose(2, 3, 1, 0))


def test_in_and_back(pysot, tmp_path):
    run(pysot, "--out", tmp_path / "net")
    back = tmp_path / "back.pth"
    layout = "pysot-alexnet-dwxcorr"  # the other name of the same network
    run(tmp_path / "net", "--to-torch", back, "--layout", layout)
    names = set(read_torch(back))
    wanted = {n for n in tensors(layout) if not n.endswith("num_batches_tracked")}
    assert names == wanted
    again = command.run(command.Config(str(back)))
    first = command.run(command.Config(str(pysot)))
    jax.tree.map(np.testing.assert_array_equal, again.variables, first.variables)
    assert isinstance(again, Loaded) and isinstance(first, Loaded)
    assert again.model == first.model


def test_a_backbone(tmp_path, capsys):
    path = tmp_path / "alexnet.pth"
    write_torch(path, tensors("torchvision"))
    loaded = command.run(command.Config(str(path), out=tmp_path / "net"))
    assert isinstance(loaded, LoadedBackbone)
    assert "siamrpn train --backbone" in capsys.readouterr().out
    found = command.run(command.Config(str(tmp_path / "net/weights.safetensors")))
    assert isinstance(found, LoadedBackbone)
    assert (found.config, found.input) == (loaded.config, loaded.input)


def test_a_preset_that_trains_the_network():
    from siamrpn_jax import presets
    from siamrpn_jax.weights import torch_layouts

    assert command._recipes(
        Loaded(
            weights.SiamRPN(torch_layouts.LAYOUTS["pysot-alexnet-dwxcorr"].model),
            {},
            presets.pysot().tracker,
            {},
        )
    ) == ["pysot"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["none.pth"], "no weights 'none.pth': there is no such file"),
        (["small", "--to-torch", "a.pth"], "--to-torch needs --layout, one of dasiam"),
        (["small", "--to-torch", "a.pth", "--layout", "vgg"], "no layout 'vgg'"),
        (
            ["small", "--to-torch", "a.pth", "--layout", "dasiamrpn"],
            "the weights are not a network of layout dasiamrpn",
        ),
    ],
)
def test_errors_are_one_line(arguments, error, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and error in message
    assert message.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_broken_file(tmp_path, capsys):
    path = tmp_path / "net.pth"
    path.write_bytes(b"<html>quota</html>")
    with pytest.raises(SystemExit):
        run(path)
    assert "net.pth is a web page: the download went wrong" in capsys.readouterr().err


def test_the_script_does_the_same():
    script = ROOT / "experiments/import_weights.py"
    done = subprocess.run(
        [sys.executable, script, "--help"],
        capture_output=True,
        text=True,
        cwd=script.parents[1],
        env={"PYTHONPATH": str(script.parents[1]), "PATH": ""},
    )
    assert done.returncode == 0 and "--to-torch" in done.stdout
