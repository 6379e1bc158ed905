import configparser

import jax
import pytest

from paths import ROOT
from siamrpn_jax import api
from siamrpn_jax.commands import vot_tracker
from siamrpn_jax.common import errors
from siamrpn_jax.evaluation.vot import trax

EXPERIMENTS = ROOT / "experiments"


@pytest.fixture
def calls(monkeypatch):
    """What the command asks of the parts below it."""
    made = []
    monkeypatch.setattr(errors, "require", lambda name, *, extra: made.append(name))
    monkeypatch.setattr(jax.config, "update", lambda *given: made.append(given))
    monkeypatch.setattr(api, "load", lambda name, *, pad_to: (name, pad_to))
    monkeypatch.setattr(
        trax, "serve", lambda tracker, *, sizes: made.append((tracker, sizes))
    )
    return made


def test_options_reach_the_server(tmp_path, calls):
    vot_tracker.main(
        ["--weights", "w", "--pad-to", "64", "--sizes", "64", "48"]
        + ["--cache", str(tmp_path)]
    )
    assert calls == [
        "trax",
        ("jax_compilation_cache_dir", str(tmp_path)),
        ("jax_persistent_cache_min_compile_time_secs", 0),
        (("w", 64), ((64, 48),)),
    ]


def test_without_a_cache(calls):
    vot_tracker.main(["--cache", "None"])
    assert calls == ["trax", (("base", 256), vot_tracker.SIZES)]


def test_a_missing_extra_is_told_before_compiling(monkeypatch, capsys):
    def missing(name, *, extra):
        raise errors.MissingExtraError(f"{name}: siamrpn-jax[{extra}]")

    monkeypatch.setattr(errors, "require", missing)
    with pytest.raises(SystemExit) as caught:
        vot_tracker.main([])
    assert caught.value.code == 2
    assert "error: trax: siamrpn-jax[vot]" in capsys.readouterr().err


def test_the_toolkits_file_names_the_script():
    parser = configparser.ConfigParser()
    assert parser.read(EXPERIMENTS / "trackers.ini")
    section = parser["SiamRPNJax"]
    assert section["protocol"] == "traxpython"
    folders = [EXPERIMENTS / path for path in section["paths"].split(":")]
    assert (folders[0] / f"{section['command']}.py").is_file()
    assert (folders[1] / "siamrpn_jax").is_dir()
    assert int(section["timeout"]) >= 300
