import importlib.metadata
import sys

import jax
import pytest

from siamrpn_jax.commands import doctor


def read_report(capsys):
    doctor.main([])
    lines = capsys.readouterr().out.splitlines()
    return {line[:20].strip(): line[20:] for line in lines}


def test_report(capsys):
    report = read_report(capsys)
    assert report["jax"] == jax.__version__
    assert report["devices"].startswith(jax.devices()[0].platform)
    assert "opencv" in report["cv2"]
    assert report["cv2 windows"].split(",")[0]
    assert "compile cache" in report
    assert {f"extra {name}" for name in doctor.EXTRAS} <= set(report)
    assert report["opencv-python"] and report["tensorflow-datasets"]
    expected = len(doctor.opencv_providers()) > 1 or report["jaxlib"] == "0.10.2"
    assert ("WARNING" in report) == expected


@pytest.mark.parametrize(("jaxlib", "warned"), [("0.10.2", True), ("0.12.0", False)])
def test_wrong_sums_are_a_warning(capsys, monkeypatch, jaxlib, warned):
    monkeypatch.setattr(doctor, "_version", lambda name: jaxlib)
    doctor.main([])
    assert ("may compute wrong sums on a CPU" in capsys.readouterr().out) == warned


def test_extras_say_how_to_get_them(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "EXTRAS", {"video": ("json", "no_such_module")})
    line = read_report(capsys)["extra video"]
    assert line == "no no_such_module: pip install 'siamrpn-jax[video]'"


def test_two_wheels_of_opencv_are_a_warning(capsys, monkeypatch):
    both = ["opencv-python", "opencv-python-headless", "opencv-python"]
    monkeypatch.setattr(
        importlib.metadata, "packages_distributions", lambda: {"cv2": both}
    )
    report = read_report(capsys)
    assert report["WARNING"].startswith("2 packages provide cv2")
    assert "opencv-python, opencv-python-headless" in report["cv2"]


def test_broken_opencv_is_told(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert "reinstall opencv-python" in read_report(capsys)["cv2"]


@pytest.mark.parametrize("library", ["libGL.so.1", "libgthread-2.0.so.0"])
def test_missing_system_library_is_told(capsys, monkeypatch, library):
    problem = f"{library}: cannot open shared object file: No such file or directory"

    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "cv2":
                raise ImportError(problem)

    monkeypatch.delitem(sys.modules, "cv2")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    line = read_report(capsys)["cv2"]
    assert library in line and "apt-get install libgl1" in line
    assert "opencv-python-headless" in line and "reinstall" not in line


def test_missing_package_and_devices_are_told(capsys, monkeypatch):
    def no_devices():
        raise RuntimeError("no backend")

    monkeypatch.setattr(jax, "devices", no_devices)
    monkeypatch.setattr(doctor, "PACKAGES", ("no-such-package",))
    report = read_report(capsys)
    assert report["no-such-package"] == "not installed"
    assert report["devices"] == "NONE (no backend)"


def test_unknown_options_are_refused():
    with pytest.raises(SystemExit) as caught:
        doctor.main(["--nothing"])
    assert caught.value.code == 2
