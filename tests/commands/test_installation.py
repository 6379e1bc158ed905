"""Each check meets the cause that it looks for, faked, and its absence."""

import importlib.metadata
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from siamrpn_jax.commands import installation
from siamrpn_jax.media import window


@pytest.fixture
def versions(monkeypatch):
    """Distributions that seem to be installed, by name."""
    seem: dict[str, str] = {}
    real = installation.version
    monkeypatch.setattr(
        installation, "version", lambda name: seem.get(name) or real(name)
    )
    return seem


@pytest.fixture
def providers(monkeypatch):
    """Distributions that seem to hold ``cv2``."""

    def set_to(*names: str) -> None:
        monkeypatch.setattr(
            importlib.metadata, "packages_distributions", lambda: {"cv2": list(names)}
        )

    set_to("opencv-python")
    return set_to


@pytest.fixture
def screen(monkeypatch):
    """A display, or none."""

    def set_to(there: bool) -> None:
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        monkeypatch.setenv("DISPLAY", ":0" if there else "")

    set_to(False)
    return set_to


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """An empty ``/proc`` and ``/sys``, to be filled with files."""
    monkeypatch.setattr(installation, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(installation, "_SYS", tmp_path / "sys")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)

    def write(path: str, text: str = "") -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return write


def only(check):
    (found,) = check()
    return found


@pytest.mark.parametrize(
    ("python", "what", "breaks"),
    [((3, 10, 1), "too old", True), ((3, 14, 0), "not tried yet", False)],
)
def test_other_pythons(monkeypatch, python, what, breaks):
    monkeypatch.setattr(sys, "version_info", python)
    found = only(installation.check_python)
    assert what in found.what and "3.11 to 3.13" in found.what
    assert found.mend.startswith("python3.13 -m venv") and found.breaks == breaks


def test_this_python_is_fine():
    assert not list(installation.check_python())


def require_only(monkeypatch, *lines: str) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: list(lines))


@pytest.mark.parametrize(
    ("have", "wrong"),
    [
        *(("1.26.4", True), ("3.0.0", True), ("not installed", True)),
        *(("2.0", False), ("2.4.1rc2", False)),
    ],
)
def test_versions_of_what_is_required(monkeypatch, versions, have, wrong):
    require_only(monkeypatch, "numpy<3,>=2.0", "av>=15; extra == 'video'")
    versions["numpy"] = have
    found = list(installation.check_requirements())
    assert [one.mend for one in found] == ["pip install 'numpy<3,>=2.0'"] * wrong
    assert [one.breaks for one in found] == [have == "not installed"] * wrong


def test_opencv_may_come_from_any_of_its_packages(monkeypatch, versions):
    require_only(monkeypatch, "opencv-python<6,>=4.12")
    versions["opencv-python"] = "not installed"
    assert not list(installation.check_requirements())


def test_a_clone_that_is_not_installed_requires_nothing(monkeypatch):
    monkeypatch.setattr(installation, "DISTRIBUTION", "no-such-package")
    assert not list(installation.check_requirements())


@pytest.mark.parametrize("python", [(3, 11, 7), (3, 12, 1)])
def test_wrong_sums_are_a_warning(monkeypatch, versions, python):
    monkeypatch.setattr(sys, "version_info", python)
    versions["jaxlib"] = "0.10.2"
    found = only(installation.check_jaxlib)
    assert "may compute wrong sums on a CPU" in found.what and not found.breaks
    expected = "python3.12 -m venv" if python < (3, 12) else "pip install -U jax jaxlib"
    assert found.mend.startswith(expected)
    versions["jaxlib"] = "0.12.0"
    assert not list(installation.check_jaxlib())


@pytest.mark.parametrize(
    ("installed", "shown", "kept"),
    [
        (("opencv-python", "opencv-python-headless"), True, "opencv-python"),
        (("opencv-python", "opencv-python-headless"), False, "opencv-python-headless"),
        (("opencv-python", "opencv-contrib-python"), True, "opencv-contrib-python"),
        (
            ("opencv-contrib-python-headless", "opencv-python-headless"),
            True,
            "opencv-contrib-python-headless",
        ),
    ],
)
def test_two_wheels_of_opencv(providers, screen, installed, shown, kept):
    providers(*installed, installed[0])
    screen(shown)
    found = only(installation.check_opencv)
    names = " ".join(sorted(installed))
    listed = names.replace(" ", ", ")
    assert found.what.startswith(f"2 packages provide cv2: {listed};")
    assert found.mend == f"pip uninstall -y {names} && pip install {kept}"
    assert not found.breaks


def test_two_wheels_that_broke_each_other(monkeypatch, providers):
    providers("opencv-python", "opencv-python-headless")
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace())  # no __version__
    found = only(installation.check_opencv)
    assert "it is broken" in found.what and found.breaks


@pytest.mark.parametrize(
    ("installed", "name"),
    [
        ((), "opencv-python"),
        (("opencv-python",), "opencv-python"),
        (("opencv-contrib-python-headless",), "opencv-contrib-python-headless"),
    ],
)
def test_broken_opencv(monkeypatch, providers, installed, name):
    providers(*installed)
    monkeypatch.setitem(sys.modules, "cv2", None)
    found = only(installation.check_opencv)
    assert found.mend == f"pip install --force-reinstall --no-deps {name}"
    assert found.breaks


@pytest.mark.parametrize("library", ["libGL.so.1", "libgthread-2.0.so.0"])
def test_missing_system_library(monkeypatch, providers, library):
    problem = f"{library}: cannot open shared object file: No such file or directory"

    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "cv2":
                raise ImportError(problem)

    monkeypatch.delitem(sys.modules, "cv2")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    found = only(installation.check_opencv)
    assert library in found.what and "apt-get install libgl1" in found.mend
    assert "pip install opencv-python-headless" in found.mend
    assert "reinstall" not in found.mend and found.breaks


@pytest.mark.parametrize("shown", [True, False])
def test_opencv_without_windows(monkeypatch, providers, screen, shown):
    providers("opencv-python-headless")
    monkeypatch.setattr(window, "gui_kind", lambda: "NONE")
    screen(shown)
    found = list(installation.check_opencv())
    assert [one.mend for one in found] == [
        "pip uninstall -y opencv-python-headless && pip install opencv-python; or pass "
        "--box"
    ] * shown
    assert not any(one.breaks for one in found)


def test_opencv_with_windows(monkeypatch, providers, screen):
    monkeypatch.setattr(window, "gui_kind", lambda: "QT5")
    screen(True)
    assert not list(installation.check_opencv())


@pytest.mark.parametrize(
    ("platforms", "mend"),
    [("", "pip install --force-reinstall"), ("cuda", "unset JAX_PLATFORMS")],
)
def test_jax_that_does_not_start(monkeypatch, platforms, mend):
    def fail():
        raise RuntimeError("Unable to initialize backend")

    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(jax, "default_backend", fail)
    found = only(installation.check_devices)
    assert "Unable to initialize" in found.what
    assert found.mend.startswith(mend) and found.breaks


def test_jax_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    assert only(installation.check_devices).breaks


def nvidia_smi(machine):
    machine("bin/nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA H200'\n").chmod(0o755)


def no_driver(machine):
    machine("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n")
    machine("sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n")


def driver(machine):
    machine("proc/driver/nvidia/gpus/0000:01:00.0/information")


@pytest.mark.parametrize("gpu", [nvidia_smi, driver])
def test_a_gpu_that_jax_does_not_use(monkeypatch, machine, versions, gpu):
    gpu(machine)
    versions |= dict.fromkeys(installation.PLUGINS, "not installed")
    found = only(installation.check_devices)
    assert "JAX computes on the CPU" in found.what and not found.breaks
    assert found.mend == "pip install 'siamrpn-jax[cuda]'"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not list(installation.check_devices())


@pytest.mark.parametrize(
    ("name", "value", "mend"),
    [
        ("JAX_PLATFORMS", "cpu", "unset JAX_PLATFORMS"),
        ("CUDA_VISIBLE_DEVICES", "", "unset CUDA_VISIBLE_DEVICES"),
    ],
)
def test_a_gpu_that_is_switched_off(monkeypatch, machine, name, value, mend):
    driver(machine)
    monkeypatch.setenv(name, value)
    assert only(installation.check_devices).mend == mend


def test_a_plugin_that_does_not_start(machine, versions):
    driver(machine)
    versions["jax-cuda13-plugin"] = "0.10.0"
    assert "jax.devices()' says why" in only(installation.check_devices).mend


def test_a_gpu_without_driver(machine):
    no_driver(machine)
    found = only(installation.check_devices)
    assert "PCI device 0000:01:00.0" in found.what and "--gpus all" in found.mend


@pytest.mark.parametrize("kind", ["0x020000", "0x040300"])
def test_other_cards_of_nvidia_are_no_gpus(machine, kind):
    no_driver(machine)
    machine("sys/bus/pci/devices/0000:01:00.0/class", f"{kind}\n")
    machine("bin/nvidia-smi", "#!/bin/sh\nexit 9\n").chmod(0o755)
    assert not list(installation.check_devices())


@pytest.fixture
def shared(monkeypatch):
    """Bytes of shared memory."""

    def set_to(total: int) -> None:
        usage = SimpleNamespace(total=total, free=total)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    set_to(2**33)
    return set_to


def test_memory(machine, shared):
    machine("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:   8388608 kB\n")
    machine("sys/fs/cgroup/memory.max", "max\n")
    assert installation.available_memory() == 8
    assert not list(installation.check_memory())
    machine("sys/fs/cgroup/memory.max", f"{2**29}\n")
    found = only(installation.check_memory)
    assert found.what.startswith("0.5 GiB") and "--memory" in found.mend


def test_memory_that_nothing_tells_of(machine, shared):
    assert installation.available_memory() is None
    assert not list(installation.check_memory())


def test_little_shared_memory(machine, shared):
    shared(64 * 2**20)
    found = only(installation.check_memory)
    assert "0.06 GiB" in found.what and "--shm-size" in found.mend
    assert "--workers 0" in found.mend and not found.breaks


def test_folders_that_can_be_written_to(monkeypatch, tmp_path, shared):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "not/yet/made"))
    assert not list(installation.check_folders())


def test_a_cache_that_cannot_be_made(monkeypatch, tmp_path, shared):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "file/cache"))
    found = only(installation.check_folders)
    assert found.what.startswith("the compilation cache") and "is a file" in found.what
    assert found.mend.startswith("export JAX_COMPILATION_CACHE_DIR=")


def test_folders_of_others(monkeypatch, tmp_path, shared):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    found = only(installation.check_folders)
    assert "tracks, runs and results" in found.what and not found.breaks


def test_a_full_disk(monkeypatch, shared):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    shared(2**20)
    assert all("GiB free" in one.what for one in installation.check_folders())


def test_no_folder_for_temporary_files(monkeypatch, shared):
    def fail():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", fail)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    assert "TMPDIR" in only(installation.check_folders).mend


def test_weights_that_are_damaged(monkeypatch, tmp_path):
    assert not list(installation.check_weights())
    module = tmp_path / "commands/installation.py"
    monkeypatch.setattr(installation, "__file__", str(module))
    (tmp_path / "weights").mkdir()
    for damaged in (None, b"half a fi"):
        if damaged:
            (tmp_path / "weights/small.safetensors").write_bytes(damaged)
        base, small = installation.check_weights()
        assert "small cannot be read" in small.what and small.breaks
        assert "base cannot be read" in base.what and base.breaks


def test_all_checks_run_here():
    assert not any(one.breaks for one in installation.find_problems())
