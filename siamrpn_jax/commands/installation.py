"""What may be wrong with an installation, and the command that mends it.

Each check looks at one thing, and yields what it finds; ``siamrpn doctor`` prints it.
"""

import contextlib
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from siamrpn_jax.common.provenance import version
from siamrpn_jax.common.released import WEIGHTS

DISTRIBUTION = "siamrpn-jax"

PYTHONS = ((3, 11), (3, 13))
"""The oldest and the newest Python that this package is tested with."""

WRONG_SUMS = ("0.10.2",)
"""Releases of jaxlib that miscompile some sums for CPUs (jax-ml/jax#39103)."""

LEAST_MEMORY = 1.0
"""GiB of memory: tracking takes about half of it, training more."""

LEAST_SHARED = 0.5
"""GiB of shared memory: worker processes hand over their batches in it, and containers
often have 64 MiB."""

LEAST_DISK = 0.5
"""GiB on the disk: a film, or a few checkpoints."""

PLUGINS = ("jax-cuda13-plugin", "jax-cuda12-plugin")
"""What brings NVIDIA's GPUs to JAX."""

_PROC = Path("/proc")
_SYS = Path("/sys")
_SHARED = Path("/dev/shm")
_NVIDIA = 0x10DE
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that is wrong, or may become so."""

    what: str
    """In one sentence."""
    mend: str
    """The command that mends it, or what to do where no command can."""
    breaks: bool = False
    """Whether tracking cannot work before it is mended."""


def find_problems() -> Iterator[Finding]:
    """All that the checks find, in their order."""
    for check in CHECKS:
        yield from check()


def opencv_providers() -> list[str]:
    """Names the installed distributions that hold the module ``cv2``.

    More than one is a fault that pip does not see: the last one installed has
    overwritten the files of the others, and uninstalling any of them breaks ``cv2``.
    """
    found = importlib.metadata.packages_distributions().get("cv2", [])
    return sorted(set(found))


def opencv_problem() -> str:
    """Why ``cv2`` cannot be used; empty if it can."""
    try:
        importlib.import_module("cv2").__version__  # noqa: B018
    except (ImportError, AttributeError) as error:
        return str(error)
    return ""


def available_memory() -> float | None:
    """GiB of memory that this process may still take; None where that is unknown."""
    found = []
    with contextlib.suppress(OSError, ValueError, AttributeError):
        text = (_PROC / "meminfo").read_text()
        kib = re.search(r"MemAvailable:\s+(\d+) kB", text)
        found.append(int(kib.group(1)) * 1024)  # pyright: ignore
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        found.append(int((_SYS / "fs/cgroup/memory.max").read_text()))
    return min(found) / _GIB if found else None


def check_python() -> Iterator[Finding]:
    """A Python that is too old, or newer than what was tried."""
    oldest, newest = PYTHONS
    if oldest <= sys.version_info[:2] <= newest:
        return
    here, first, last = (
        ".".join(map(str, v)) for v in (sys.version_info[:2], oldest, newest)
    )
    old = sys.version_info[:2] < oldest
    yield Finding(
        f"Python {here} is {'too old' if old else 'not tried yet'}: this package is "
        f"tested with {first} to {last}",
        f"python{last} -m venv .venv, and install there",
        breaks=old,
    )


def check_requirements() -> Iterator[Finding]:
    """Packages that are missing, or of a version that this package does not take."""
    try:
        required = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return  # run from a clone
    for line in required:
        found = re.match(r"([\w.-]+)\s*([^;]*)$", line)
        if not found or found[1] == "opencv-python":  # checked by itself
            continue
        have = version(found[1])
        if have == "not installed" or not _fits(have, found[2]):
            what = have if have == "not installed" else f"of version {have}"
            yield Finding(
                f"{found[1]} is {what}, expected {found[2]}",
                f"pip install '{found[1]}{found[2]}'",
                breaks=have == "not installed",
            )


def check_jaxlib() -> Iterator[Finding]:
    """A jaxlib that computes wrong sums."""
    if version("jaxlib") in WRONG_SUMS:
        new = sys.version_info >= (3, 12)
        yield Finding(
            "this jaxlib may compute wrong sums on a CPU (jax-ml/jax#39103), though "
            "the tests of this package pass; newer ones need Python 3.12",
            "pip install -U jax jaxlib"
            if new
            else "python3.12 -m venv .venv, and install there",
        )


def check_opencv() -> Iterator[Finding]:
    """An OpenCV that is missing or broken, two at once, or one without windows."""
    providers = opencv_providers()
    problem = opencv_problem()
    if len(providers) > 1:
        yield Finding(
            f"{len(providers)} packages provide cv2: {', '.join(providers)}; the files "
            "of one overwrote those of the others"
            + (f", and it is broken ({problem})" if problem else ""),
            f"pip uninstall -y {' '.join(providers)} && pip install "
            f"{_preferred(providers)}",
            breaks=bool(problem),
        )
    elif problem:
        yield Finding(
            f"cv2 cannot be used: {problem}",
            _mend_opencv(problem, providers),
            breaks=True,
        )
    else:
        yield from _check_windows(providers)


def check_devices() -> Iterator[Finding]:
    """A JAX that does not start, or one on the CPU beside a GPU."""
    try:
        import jax

        backend = jax.default_backend()
    except (ImportError, RuntimeError, AttributeError) as error:
        if not _forced_platform():
            mend = "pip install --force-reinstall --no-deps jax jaxlib"
        else:
            mend = "unset JAX_PLATFORMS"
        yield Finding(f"JAX does not start: {error}", mend, breaks=True)
        return
    if backend == "cpu" and (found := _nvidia_gpu()):
        yield Finding(
            f"there is an NVIDIA GPU ({found}), and JAX computes on the CPU",
            _mend_gpu(found),
        )


def check_memory() -> Iterator[Finding]:
    """Too little memory, or too little of it to share between processes."""
    memory = available_memory()
    if memory is not None and memory < LEAST_MEMORY:
        yield Finding(
            f"{memory:.1f} GiB of memory are available, expected {LEAST_MEMORY:g}",
            "end other programs; in a container: docker run --memory=4g …",
        )
    with contextlib.suppress(OSError):
        shared = shutil.disk_usage(_SHARED).total / _GIB
        if shared < LEAST_SHARED:
            yield Finding(
                f"{_SHARED} has {shared:.2f} GiB, expected {LEAST_SHARED:g}: training "
                "with --workers may end with a bus error",
                "docker run --shm-size=2g …; or train with --workers 0",
            )


def check_folders() -> Iterator[Finding]:
    """Folders that cannot be written to, and disks that are full."""
    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        yield Finding(str(error), "export TMPDIR=FOLDER, one that you may write to")
        temporary = None
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    folders = {
        "this folder, where tracks, runs and results go": (Path.cwd(), "cd ~"),
        "the compilation cache": (
            Path(cache) if cache else None,
            "export JAX_COMPILATION_CACHE_DIR=~/.cache/siamrpn_jax",
        ),
        "the folder for temporary files": (temporary, "export TMPDIR=~/tmp"),
    }
    for name, (folder, mend) in folders.items():
        if folder and (problem := _write_problem(folder)):
            yield Finding(f"{name}: {folder} {problem}", mend)


def check_weights() -> Iterator[Finding]:
    """Weights of the package that are missing or damaged."""
    try:
        from safetensors.numpy import load_file
    except ImportError:
        return  # found among the requirements
    for name in WEIGHTS:
        file = Path(__file__).parents[1] / f"weights/{name}.safetensors"
        try:
            load_file(file)
        except Exception as error:  # safetensors has its own kind, for cut files
            yield Finding(
                f"{file}: the weights {name} cannot be read ({error})",
                f"pip install --force-reinstall --no-deps {DISTRIBUTION}, or that of a "
                "fresh clone",
                breaks=True,
            )


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_python,
    check_requirements,
    check_jaxlib,
    check_opencv,
    check_devices,
    check_memory,
    check_folders,
    check_weights,
)


def _fits(have: str, wanted: str) -> bool:
    """Whether a version is within ``>=1.0,<2``."""
    compare: Mapping[str, Callable[[Any, Any], bool]] = {
        ">=": lambda a, b: a >= b,
        "<": lambda a, b: a < b,
    }
    for bound in wanted.split(","):
        found = re.match(r"\s*(>=|<)\s*([\d.]+)", bound)
        if found and not compare[found[1]](_numbers(have), _numbers(found[2])):
            return False
    return True


def _numbers(text: str) -> tuple[int, ...]:
    leading = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, leading[0].split("."))) if leading else ()


def _preferred(providers: list[str]) -> str:
    """The one OpenCV to keep: with the trackers of contrib, and windows, if it had."""
    contrib = any("contrib" in name for name in providers)
    headless = all("headless" in name for name in providers) or not _has_screen()
    return f"opencv{'-contrib' * contrib}-python{'-headless' * headless}"


def _mend_opencv(problem: str, providers: list[str]) -> str:
    """The command that mends OpenCV: in containers mostly the headless wheel."""
    name = providers[0] if providers else "opencv-python"
    if any(library in problem for library in ("libGL", "libgthread", "libglib")):
        return (
            f"pip uninstall -y {name} && pip install {name}-headless; or, for windows: "
            "apt-get install libgl1 libglib2.0-0"
        )
    return f"pip install --force-reinstall --no-deps {name}"


def _check_windows(providers: list[str]) -> Iterator[Finding]:
    from siamrpn_jax.media.window import gui_kind

    if gui_kind() == "NONE" and _has_screen():
        yield Finding(
            "this OpenCV opens no windows, so that no box can be drawn by mouse",
            f"pip uninstall -y {' '.join(providers)} && pip install "
            f"{_preferred(['opencv-python', *providers])}; or pass --box",
        )


def _has_screen() -> bool:
    """Whether there is a screen that windows could be shown on."""
    if not sys.platform.startswith("linux"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _forced_platform() -> str:
    return os.environ.get("JAX_PLATFORMS", "")


def _nvidia_gpu() -> str:
    """What says that there is an NVIDIA GPU; empty if nothing does."""
    if any((_PROC / "driver/nvidia/gpus").glob("*")):
        return "the driver runs"
    program = shutil.which("nvidia-smi")
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        listed = program and subprocess.run(
            [program, "-L"], capture_output=True, text=True, timeout=20, check=True
        ).stdout.startswith("GPU")
        if listed:
            return "nvidia-smi lists it"
    for card in sorted((_SYS / "bus/pci/devices").glob("*")):
        with contextlib.suppress(OSError, ValueError):
            vendor, kind = (
                int((card / name).read_text(), 16) for name in ("vendor", "class")
            )
            if vendor == _NVIDIA and kind >> 16 == 3:  # a display controller
                return f"no driver, PCI device {card.name}"
    return ""


def _mend_gpu(found: str) -> str:
    if found.startswith("no driver"):
        return "install NVIDIA's driver; in a container: docker run --gpus all …"
    if _forced_platform():
        return "unset JAX_PLATFORMS"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "unset CUDA_VISIBLE_DEVICES"
    if all(version(name) == "not installed" for name in PLUGINS):
        return f"pip install '{DISTRIBUTION}[cuda]'"
    return (
        "JAX_PLATFORMS=cuda python -c 'import jax; jax.devices()' says why; mostly "
        f"versions differ: pip install -U '{DISTRIBUTION}[cuda]', or the driver is "
        "older than 580, which CUDA 13 needs"
    )


def _write_problem(folder: Path) -> str:
    """Why nothing can be written to a folder that may be yet to be made; or empty."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return f"cannot be made: {folder} is a file"
    if not os.access(folder, os.W_OK | os.X_OK):
        return "may not be written to"
    free = shutil.disk_usage(folder).free / _GIB
    if free < LEAST_DISK:
        return f"has {free:.2f} GiB free, expected {LEAST_DISK:g}"
    return ""
