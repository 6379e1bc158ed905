"""``siamrpn doctor``: what is installed and what runs here, for reports of problems."""

import dataclasses
import importlib.util
import platform
import sys

import tyro

from siamrpn_jax.commands import installation
from siamrpn_jax.commands.errors import run_or_exit
from siamrpn_jax.common.provenance import version

PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy"),
    *("tensorflow-datasets", "opencv-python", "safetensors", "tyro"),
)

_TRAIN = ("matplotlib", "tensorboardX", "tensorflow_datasets", "array_record")

EXTRAS = {
    "train": ("training: logs, curves, prepared folders", _TRAIN),
    "report": ("evaluation's page and plots", ("jinja2", "matplotlib")),
    "video": ("films as H.264, and AV1 decoded", ("av",)),
    "app": ("the labelling page", ("av", "starlette", "uvicorn", "websockets")),
    "export": ("StableHLO", ("flatbuffers",)),
    "onnx": ("ONNX Runtime: starts at once on a CPU", ("onnx", "onnxruntime")),
    "litert": ("LiteRT", ("ai_edge_litert",)),
    "vot": ("VOT's own toolkit", ("vot", "trax")),
    "cvat": ("CVAT's AI tracker", ("cvat_sdk",)),
    "labelstudio": ("Label Studio's backend", ("av", "starlette", "uvicorn")),
    "supervision": ("boxes for supervision", ("supervision",)),
    "beam": ("data preparation under Apache Beam", ("apache_beam",)),
    "tf": ("TFDS's sets that need TensorFlow", ("tensorflow",)),
    "bench": ("the benchmark's peers", ("onnx", "onnxruntime", "openvino", "torch")),
}
"""What each extra gives, and the modules that it installs."""

Row = tuple[str, str]
"""A name, and what is to be said of it."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Print versions, devices and extras, and what is wrong with the installation.

    Each problem comes with the command that mends it. The status is 1 where tracking
    cannot work, else 0.
    """


def run(config: Config) -> None:
    """Prints the report.

    Raises:
        SystemExit: with status 1, where something breaks tracking.
    """
    del config
    for row in (*_versions(), *_opencv(), *_devices(), *_machine(), *_extras()):
        _print_row(row)
    problems = list(installation.find_problems())
    for one in problems:
        print()
        _print_row(("BROKEN" if one.breaks else "WARNING", one.what))
        _print_row(("  to mend it", one.mend))
    if any(one.breaks for one in problems):
        raise SystemExit(1)
    print("\nTracking can work here: siamrpn demo shows it.")


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and runs."""
    run_or_exit(lambda: run(tyro.cli(Config, args=argv, prog="siamrpn doctor")))


def _print_row(row: Row) -> None:
    print(f"{row[0]:<20}{row[1]}")


def _versions() -> list[Row]:
    from siamrpn_jax import __version__

    return [
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("platform", platform.platform()),
        ("siamrpn_jax", __version__),
        *((name, version(name)) for name in PACKAGES),
    ]


def _opencv() -> list[Row]:
    if problem := installation.opencv_problem():
        return [("cv2", f"BROKEN ({problem})")]
    import cv2

    from siamrpn_jax.media.window import gui_kind, has_display

    providers = ", ".join(installation.opencv_providers()) or "unknown"
    return [
        ("cv2", f"{cv2.__version__} from {providers}"),
        ("cv2 windows", f"{gui_kind()}, display: {'yes' if has_display() else 'no'}"),
    ]


def _devices() -> list[Row]:
    try:
        import jax

        devices = ", ".join(str(device) for device in jax.devices())
        cache = jax.config.jax_compilation_cache_dir  # pyright: ignore
    except (ImportError, RuntimeError, AttributeError) as error:
        return [("devices", f"NONE ({error})")]
    return [
        ("devices", devices),
        ("compile cache", cache or "off (set JAX_COMPILATION_CACHE_DIR to a folder)"),
    ]


def _machine() -> list[Row]:
    memory = installation.available_memory()
    known = "unknown" if memory is None else f"{memory:.1f} GiB available"
    return [("memory", known)]


def _extras() -> list[Row]:
    return [(f"extra {name}", _extra(name, *extra)) for name, extra in EXTRAS.items()]


def _extra(name: str, gives: str, modules: tuple[str, ...]) -> str:
    missing = [module for module in modules if not importlib.util.find_spec(module)]
    if not missing:
        return "installed"
    installs = f"pip install 'siamrpn-jax[{name}]'"
    return f"no {', '.join(missing)} ({gives}): {installs}"
