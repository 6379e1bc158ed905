"""``siamrpn doctor``: what is installed and what runs here, for reports of problems."""

import dataclasses
import importlib.metadata
import importlib.util
import platform
import sys

import tyro

from siamrpn_jax.commands.errors import run_or_exit

PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy"),
    *("tensorflow-datasets", "opencv-python", "safetensors", "tyro"),
)

WRONG_SUMS = ("0.10.2",)
"""Releases of jaxlib that miscompile some sums for CPUs (jax-ml/jax#39103)."""

EXTRAS = {
    "train": ("matplotlib", "tensorboardX"),
    "report": ("matplotlib",),
    "video": ("av",),
    "app": ("starlette", "uvicorn", "websockets"),
    "vot": ("vot", "trax"),
    "export": ("flatbuffers",),
    "onnx": ("onnx", "onnxruntime"),
    "cvat": ("cvat_sdk",),
    "labelstudio": ("starlette", "uvicorn"),
    "supervision": ("supervision",),
    "bench": ("torch", "onnxruntime", "onnx"),
}
"""Modules that each extra installs."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Print versions, devices, and what may be wrong with the installation."""


def run(config: Config) -> None:
    """Prints the report."""
    del config
    lines = [*_versions(), *_opencv(), *_devices(), *_extras()]
    for name, value in lines:
        print(f"{name:<20}{value}")


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and runs."""
    run_or_exit(lambda: run(tyro.cli(Config, args=argv, prog="siamrpn doctor")))


def opencv_providers() -> list[str]:
    """Names the installed distributions that hold the module ``cv2``.

    More than one is a fault that pip does not see: the last one installed has
    overwritten the files of the others, and uninstalling any of them breaks ``cv2``.
    """
    found = importlib.metadata.packages_distributions().get("cv2", [])
    return sorted(set(found))


def _versions() -> list[tuple[str, str]]:
    from siamrpn_jax import __version__

    rows = [
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("platform", platform.platform()),
        ("siamrpn_jax", __version__),
    ]
    rows += [(name, _version(name)) for name in PACKAGES]
    if _version("jaxlib") in WRONG_SUMS:
        rows.append(
            (
                "WARNING",
                "this jaxlib may compute wrong sums on a CPU (jax-ml/jax#39103), "
                "though the tests of this package pass: pip install -U jax jaxlib, "
                "where Python is 3.12 or newer",
            )
        )
    return rows


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _opencv() -> list[tuple[str, str]]:
    providers = opencv_providers()
    try:
        import cv2

        from siamrpn_jax.media.window import gui_kind, has_display

        rows = [("cv2", f"{cv2.__version__} from {', '.join(providers) or 'unknown'}")]
        rows += [("cv2 windows", f"{gui_kind()}, display: {_yes(has_display())}")]
    except (ImportError, AttributeError) as error:
        rows = [("cv2", f"BROKEN ({error}): {_opencv_advice(str(error))}")]
    if len(providers) > 1:
        rows.append(
            (
                "WARNING",
                f"{len(providers)} packages provide cv2: uninstall all of them, then "
                "install one",
            )
        )
    return rows


def _opencv_advice(problem: str) -> str:
    """Containers mostly lack the system's libraries that the plain wheel links to."""
    if any(library in problem for library in ("libGL", "libgthread", "libglib")):
        return (
            "apt-get install libgl1 libglib2.0-0, or install opencv-python-headless "
            "in place of opencv-python"
        )
    return "reinstall opencv-python"


def _devices() -> list[tuple[str, str]]:
    import jax

    try:
        devices = ", ".join(str(device) for device in jax.devices())
    except RuntimeError as error:
        devices = f"NONE ({error})"
    cache = jax.config.jax_compilation_cache_dir  # pyright: ignore
    return [
        ("devices", devices),
        ("compile cache", cache or "off (set JAX_COMPILATION_CACHE_DIR to a folder)"),
    ]


def _extras() -> list[tuple[str, str]]:
    return [(f"extra {name}", _extra(name, mods)) for name, mods in EXTRAS.items()]


def _extra(name: str, modules: tuple[str, ...]) -> str:
    missing = [module for module in modules if not importlib.util.find_spec(module)]
    if not missing:
        return "installed"
    return f"no {', '.join(missing)}: pip install 'siamrpn-jax[{name}]'"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
