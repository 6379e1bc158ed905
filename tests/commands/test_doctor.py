import importlib.metadata
import sys
import tomllib

import jax
import pytest

from paths import ROOT
from siamrpn_jax.commands import doctor, installation


@pytest.fixture
def sound(monkeypatch):
    """An installation without fault, whatever this one's is."""
    monkeypatch.setattr(installation, "CHECKS", ())


def read_report(capsys):
    doctor.main([])
    lines = capsys.readouterr().out.splitlines()
    return {line[:20].strip(): line[20:] for line in lines}


def test_report(capsys, sound):
    report = read_report(capsys)
    assert report["jax"] == jax.__version__
    assert report["devices"].startswith(jax.devices()[0].platform)
    assert "opencv" in report["cv2"]
    assert report["cv2 windows"].split(",")[0]
    assert "compile cache" in report
    assert {f"extra {name}" for name in doctor.EXTRAS} <= set(report)
    assert report["opencv-python"] and report["tensorflow-datasets"]
    assert report["memory"].endswith("GiB available")
    assert list(report)[-1] == "Tracking can work he"


def test_extras_say_what_they_give_and_how_to_get_them(capsys, monkeypatch, sound):
    fake = {"video": ("films", ("json", "no_such_module"))}
    monkeypatch.setattr(doctor, "EXTRAS", fake)
    line = read_report(capsys)["extra video"]
    assert line == "no no_such_module (films): pip install 'siamrpn-jax[video]'"


def test_extras_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    devices_and_developers = {"cuda", "tpu", "docs", "dev"}
    assert (
        set(doctor.EXTRAS)
        == set(project["optional-dependencies"]) - devices_and_developers
    )


def test_missing_package_and_devices_are_told(capsys, monkeypatch, sound):
    def no_devices():
        raise RuntimeError("no backend")

    monkeypatch.setattr(jax, "devices", no_devices)
    monkeypatch.setattr(doctor, "PACKAGES", ("no-such-package",))
    report = read_report(capsys)
    assert report["no-such-package"] == "not installed"
    assert report["devices"] == "NONE (no backend)"


def test_a_warning_comes_with_its_command_and_status_0(capsys, monkeypatch):
    found = installation.Finding("the moon is full", "wait")
    monkeypatch.setattr(installation, "CHECKS", (lambda: iter([found]),))
    report = read_report(capsys)
    assert report["WARNING"] == "the moon is full"
    assert report["to mend it"] == "wait"


def test_what_breaks_tracking_ends_with_status_1(capsys, monkeypatch):
    both = ["opencv-python", "opencv-python-headless", "opencv-python"]
    found = lambda: {"cv2": both}  # noqa: E731
    monkeypatch.setattr(importlib.metadata, "packages_distributions", found)
    monkeypatch.setattr(installation, "CHECKS", (installation.check_opencv,))
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SystemExit) as caught:
        doctor.main([])
    assert caught.value.code == 1
    out = capsys.readouterr().out
    assert "\ncv2                 BROKEN (" in out
    assert "\nBROKEN              2 packages provide cv2: " in out
    assert "Tracking can work" not in out


def test_unknown_options_are_refused():
    with pytest.raises(SystemExit) as caught:
        doctor.main(["--nothing"])
    assert caught.value.code == 2
