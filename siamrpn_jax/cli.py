"""The console command ``siamrpn``: one word chooses what to do."""

import importlib
import sys

import siamrpn_jax
from siamrpn_jax.commands.huge_pages import restart_with_huge_pages

COMMANDS = {
    "demo": ("demo", "all at once, in seconds: a generated scene, tracked and drawn"),
    "train": ("train", "train a tracker on generated scenes or your own data"),
    "pretrain": ("pretrain", "train a backbone to classify images, to start from"),
    "inspect": ("inspect_data", "show and count pairs as the network sees them"),
    "tune": ("tune", "find a tracker's constants on clips it did not learn from"),
    "track": ("track", "follow objects through a video or camera stream"),
    "app": ("app", "label films on a page: boxes by hand, tracks between them"),
    "label-studio": ("label_studio", "follow what is drawn in Label Studio's videos"),
    "eval": ("eval_ope", "one-pass evaluation: OTB, LaSOT, GOT-10k, … or folders"),
    "eval-vot": ("eval_vot", "VOT's experiments: EAO, accuracy, robustness, speed"),
    "ablate": ("ablate", "repeat the paper's studies: anchors, data size, centre size"),
    "export": ("export", "write the tracker for ONNX, LiteRT, a web page or JAX alone"),
    "import": ("import_weights", "weights of PyTorch trackers in and out; model cards"),
    "card": ("card", "pictures for a model card: what weights follow, where they fail"),
    "benchmark": (
        "experiments.benchmarks.command",
        "speed beside PyTorch, ONNX Runtime and OpenCV",
    ),
    "doctor": ("doctor", "versions, devices and everything install problems need"),
}


def module_of(name: str) -> str:
    """The module whose ``main`` runs a command; the benchmark is not in the wheel."""
    module = COMMANDS[name][0]
    return module if "." in module else f"siamrpn_jax.commands.{module}"


def main() -> None:
    """Runs ``siamrpn COMMAND [OPTIONS]``."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("usage: siamrpn COMMAND [OPTIONS]\n")
        for command, (_, text) in COMMANDS.items():
            print(f"  {command:12} {text}")
        print("\nsiamrpn COMMAND --help lists the options.")
        return
    if name == "--version":
        print(f"siamrpn_jax {siamrpn_jax.__version__}")
        return
    if name not in COMMANDS:
        print(
            f"error: no command {name!r}; expected one of {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        raise SystemExit(2)
    if name in ("train", "pretrain", "benchmark"):
        restart_with_huge_pages()
    try:
        module = importlib.import_module(module_of(name))
    except ModuleNotFoundError as error:
        if error.name not in ("experiments", "experiments.benchmarks"):
            raise
        print(
            "error: the benchmark and its PyTorch twins are not part of the installed "
            "package: run it from a clone, pip install -e '.[bench]'",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    module.main(sys.argv[2:])
