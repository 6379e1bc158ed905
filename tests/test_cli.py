import importlib
import sys

import pytest

import siamrpn_jax
from siamrpn_jax import cli


@pytest.fixture
def siamrpn(monkeypatch):
    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["siamrpn", *arguments])
        cli.main()

    return run


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_usage_names_every_command(siamrpn, capsys, arguments):
    siamrpn(*arguments)
    output = capsys.readouterr()
    assert output.out.startswith("usage: siamrpn COMMAND") and not output.err
    listed = [line.split()[0] for line in output.out.splitlines() if line[:2] == "  "]
    assert listed == list(cli.COMMANDS)


def test_version(siamrpn, capsys):
    siamrpn("--version")
    assert capsys.readouterr().out == f"siamrpn_jax {siamrpn_jax.__version__}\n"


@pytest.mark.parametrize("name", ["fly", "Train", "--train"])
def test_unknown_command(siamrpn, capsys, name):
    with pytest.raises(SystemExit) as caught:
        siamrpn(name)
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert not output.out
    assert output.err == (
        f"error: no command {name!r}; expected one of demo, train, pretrain, "
        "inspect, tune, track, app, label-studio, eval, eval-vot, ablate, export, "
        "import, card, benchmark, doctor\n"
    )


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_commands_get_the_rest_of_the_line(siamrpn, monkeypatch, name):
    module = importlib.import_module(cli.module_of(name))
    received = []
    monkeypatch.setattr(module, "main", received.append)
    siamrpn(name, "--flag", "value")
    assert received == [["--flag", "value"]]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(siamrpn, capsys, name):
    with pytest.raises(SystemExit) as caught:
        siamrpn(name, "--help")
    assert caught.value.code == 0
    assert f"siamrpn {name}" in capsys.readouterr().out
