"""``siamrpn export``: the tracker as files that run without this package."""

import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import tyro

from siamrpn_jax.commands.errors import run_or_exit
from siamrpn_jax.commands.track import parse_box
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import check_place, lock_folder, write_json
from siamrpn_jax.common.released import DEFAULT_WEIGHTS
from siamrpn_jax.deploy import Part

if TYPE_CHECKING:  # --help must not wait for JAX
    import numpy as np

    from siamrpn_jax.tracking.state import Loaded

CHECKED_FRAMES = 100
"""Frames of a clip on which files are compared with JAX."""

LEAST_SIDE = 32
"""Smallest width and height of frames, in pixels."""

GENERATED_SIZE = (320, 240)
"""Width and height of the generated scene, unless frames have another size."""

EXAMPLE_SIZE = (640, 480)
"""Width and height of the printed example's frames where any size will do."""


Format = Literal["stablehlo", "onnx", "tflite", "web"]

_RUNS = {
    "onnx": ("tracker.py", "runs them: NumPy and onnxruntime alone"),
    "tflite": ("tracker.py", "runs them: NumPy and ai-edge-litert alone"),
    "web": ("index.html", "the page: python -m http.server -d {folder}"),
}
"""What runs an export, by format, and what is said of it."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Write the tracker, weights included, as files that run without this package.

    The whole tracker is two functions: init (frame and box to template and state) and
    step (template, state and frame to state and output); the network alone is template
    (patch to kernels) and search (kernels and patch to score maps). stablehlo runs with
    JAX alone; with a target given, it is step alone. onnx and tflite run in ONNX
    Runtime and in LiteRT, whole trackers by the tracker.py beside them. web is a page
    that follows objects in the visitor's browser: python -m http.server -d FOLDER.
    """

    format: tuple[Format, ...] = ("stablehlo",)
    """Formats to write; with several, each goes into a folder of its name."""
    part: Part | None = None
    """What to write: the whole tracker, the network alone, or both. Default: both; for
    stablehlo and web: whole."""
    opset: int = 18
    """With onnx: version of its operators, 18 to 20; for --part network 11 to 20."""
    int8: int = 0
    """With onnx: also write models with 8-bit convolutions into int8/, calibrated on
    this number of generated scenes, or of pairs of --data; 8 scenes or 64 pairs will
    do."""
    data: tuple[str, ...] = ()
    """With --int8: prepared folders, or folders with sequences or stills at any depth,
    to calibrate on in place of generated scenes."""
    check: str | None = None
    """With onnx and tflite: track 100 frames of this film, or of a 'generated' scene,
    by the files in a process of their own and by JAX, and print the largest difference.
    A film needs --box; with tflite its frames must have the size exported for."""
    out: Path = Path("export")
    """Folder for the files and the card that describes them: export.json, onnx.json,
    tflite.json or web.json."""
    weights: str = DEFAULT_WEIGHTS
    """Name of released weights, a .safetensors file, or a training run's folder."""
    frame_size: str | None = None
    """Width and height of the frames, such as 640x480, or 'any'. Default: any; with
    --template-from the image's size. onnx and web take any, tflite needs one."""
    platforms: tuple[str, ...] = ("cpu", "cuda", "tpu")
    """Platforms to export for; this machine need not have them."""
    template_from: Path | None = None
    """Image that shows the one target to follow; needs --box."""
    node_modules: Path | None = None
    """With web: the folder where npm has installed onnxruntime-web and mediabunny.
    Without it npm fetches them."""
    box: str | None = None
    """The target in that image as x,y,w,h: top-left corner and size in pixels."""


def run(config: Config) -> dict[str, Any]:
    """Exports, and prints what was written and how it is used.

    Returns:
        what is in ``export.json``, ``onnx.json``, ``tflite.json`` or ``web.json``; of
        several formats, by format.

    Raises:
        InputError: a bad frame size, platform, opset, image, box, or weights file; too
            little data to calibrate on; a folder that holds an export.
        MissingExtraError: what a format needs is not installed.
    """
    _check_formats(config)
    _check_part(config)
    _check_int8(config)
    several, reports = len(config.format) > 1, {}
    folders = {
        name: config.out / name if several else config.out for name in config.format
    }
    for name, out in folders.items():  # before minutes of work
        check_place(out, "--out")
        card = out / f"{'export' if name == 'stablehlo' else name}.json"
        if card.exists():
            raise InputError(f"{card}: is there already, choose another --out")
    for name in config.format:
        part = dataclasses.replace(config, out=folders[name])
        if name in ("onnx", "web"):
            part = dataclasses.replace(part, frame_size=None)
        if name == "stablehlo":
            reports[name] = _write_stablehlo(part)
        else:
            reports[name] = _write(part, name)
    return reports if several else next(iter(reports.values()))


def _check_formats(config: Config) -> None:
    baked = config.template_from is not None
    if not config.format or len(set(config.format)) < len(config.format):
        raise InputError(
            f"--format {' '.join(config.format)}: expected some of "
            f"{', '.join(get_args(Format))}, each once"
        )
    others = [name for name in config.format if name != "stablehlo"]
    if others and baked:
        raise InputError(
            f"--template-from is for stablehlo: in {others[0]} a template is data"
        )
    size = parse_frame_size(config.frame_size)
    if size and not {"stablehlo", "tflite"} & set(config.format):
        raise InputError(
            f"--frame-size {config.frame_size}: in {others[0]} frames are of any size"
        )
    if "tflite" in config.format and not size and config.part != "network":
        raise InputError(
            "--format tflite: expected --frame-size, such as 640x480; its models are "
            "made for frames of one size"
        )
    if config.check and not {"onnx", "tflite"} & set(config.format):
        raise InputError("--check is for onnx and tflite")
    if config.node_modules and "web" not in config.format:
        raise InputError("--node-modules is for web")
    if config.opset != Config.opset and "onnx" not in config.format:
        raise InputError(f"--opset {config.opset} is for onnx")


def _check_part(config: Config) -> None:
    """Raises InputError on options that the network alone has no use for."""
    if config.part == "network":
        wrong = {
            "--check": (config.check, "compares whole trackers"),
            "--frame-size": (
                config.frame_size,
                "is of frames, a network takes patches",
            ),
            "--format web": ("web" in config.format, "is a whole tracker"),
        }
        for option, (given, why) in wrong.items():
            if given:
                raise InputError(f"--part network: {option} {why}; drop one of them")
    if config.part not in (None, "whole") and config.template_from is not None:
        raise InputError(
            f"--part {config.part}: expected whole with --template-from, which makes "
            "the step of one target"
        )


def _check_int8(config: Config) -> None:
    if config.int8 and "onnx" not in config.format:
        raise InputError("--int8 is for onnx")
    if config.data and not config.int8:
        raise InputError("--data is to calibrate on: expected --int8, such as 64")


def _load(weights: str, *, learns_not: str | None) -> "Loaded":
    """The tracker to export.

    Args:
        weights: its name or path.
        learns_not: where its kernels do not learn, which is printed if they would.
    """
    from siamrpn_jax.tracking.memory import without_learning
    from siamrpn_jax.weights import load_weights

    loaded = load_weights(weights)
    frames = loaded.tracker_config.online_frames
    if frames is None or learns_not is None:
        return loaded
    print(
        f"NOTE   {weights}: its kernels learn while tracking (online_frames {frames}); "
        f"{learns_not} they do not"
    )
    return without_learning(loaded)


def _write(config: Config, kind: Literal["onnx", "tflite", "web"]) -> dict[str, Any]:
    """Writes models, and compares them with JAX if that is asked for."""
    from siamrpn_jax.deploy import files
    from siamrpn_jax.deploy.calibration import Calibration

    part = config.part or "both"
    litert = kind == "tflite" and part != "network"
    loaded = _load(config.weights, learns_not="in LiteRT" if litert else None)
    # Read first: it may not be there.
    clip = _read_clip(config) if config.check and kind != "web" else None
    writers = {
        "onnx": functools.partial(
            files.write_onnx,
            part=part,
            opset=config.opset,
            int8=Calibration(config.int8, config.data) if config.int8 else None,
        ),
        "tflite": functools.partial(
            files.write_tflite,
            part=part,
            frame_size=parse_frame_size(config.frame_size),
        ),
        "web": functools.partial(files.write_web, node_modules=config.node_modules),
    }
    with lock_folder(config.out):
        card = writers[kind](config.out, loaded, weights=config.weights)
    for name, about in card["files"].items():
        print(f"{config.out / name}  {about['bytes'] / 1e6:.2f} MB")
    if kind == "web" or part != "network":
        name, about = _RUNS[kind]
        print(f"{config.out / name}  {about.format(folder=config.out)}")
    print(config.out / f"{kind}.json")
    if clip is not None and kind != "web":
        found = files.check_export(config.out, kind, loaded, *clip)
        print(
            f"beside JAX, {found['frames']} frames: boxes differ by at most "
            f"{found['largest_difference_pixels']:.5f} pixels, confidence by "
            f"{found['largest_difference_confidence']:.6f}"
        )
        card["checked_against_jax"] = found
    return card


def _read_clip(config: Config) -> "tuple[np.ndarray, np.ndarray]":
    """Frames, and the first box ``ltwh``, to compare on."""
    import itertools

    import numpy as np

    from siamrpn_jax.data.scenes.generated import make_sequence
    from siamrpn_jax.media.video import Video
    from siamrpn_jax.model.boxes import check_boxes

    size = parse_frame_size(config.frame_size)
    if config.check == "generated":
        width, height = size or GENERATED_SIZE
        frames, truth = make_sequence(
            0, length=CHECKED_FRAMES, height=height, width=width
        )
        return frames, np.asarray(truth[0], np.float64)
    if config.box is None:
        raise InputError(f"--check {config.check}: expected --box, the target in it")
    frames = list(itertools.islice(Video(str(config.check)), CHECKED_FRAMES))
    if len(frames) < 2 or len({frame.shape for frame in frames}) > 1:
        raise InputError(f"{config.check}: expected 2 frames or more, of one size")
    height, width = frames[0].shape[:2]
    if size not in (None, (width, height)):
        raise InputError(
            f"{config.check}: frames of {width}x{height}, not of --frame-size "
            f"{config.frame_size}"
        )
    return np.stack(frames), check_boxes(parse_box(config.box), frames[0])


def _write_stablehlo(config: Config) -> dict[str, Any]:
    frame_size = parse_frame_size(config.frame_size)
    image, box = _read_target(config)
    if image is not None:
        frame_size = _check_size(config, image, frame_size)

    # Imported here: ``siamrpn export --help`` must not wait for JAX.
    from siamrpn_jax.common.errors import require
    from siamrpn_jax.deploy.runtime import FORMAT
    from siamrpn_jax.tracking import export

    require("flatbuffers", extra="export")
    platforms = _check_platforms(config.platforms, known=list(export.CONV_IMPL))
    baked = "in the step of one target" if image is not None else None
    loaded = _load(config.weights, learns_not=baked)
    template = state = None
    if image is not None:
        template, state = export.make_functions(loaded)[0](image, box)
    part = config.part or "whole"
    exported: dict[str, dict[export.Name, Any]] = {name: {} for name in platforms}
    for platform, functions in exported.items():
        if part != "network":
            functions |= export.export_tracker(
                loaded, platform=platform, frame_size=frame_size, template=template
            )
        if part != "whole":
            functions |= export.export_network(loaded, platform=platform)
    report = export.describe(
        loaded, exported[platforms[0]], weights=config.weights, state=state
    )
    report["format_version"], report["part"] = FORMAT, part
    report["frame_size"] = frame_size or "any"
    with lock_folder(config.out):
        report["platforms"] = export.write_functions(config.out, exported)
        write_json(config.out / "export.json", report)
    _print_files(config.out, report["platforms"])
    print(f"\nRuns as it is with {platforms[0]}, without siamrpn_jax:\n")
    size, baked = frame_size or EXAMPLE_SIZE, template is not None
    if part == "network":
        text = export.network_example(config.out, platforms[0], loaded)
    else:
        text = export.example(config.out, platforms[0], size, baked=baked)
    print(text, end="")
    return report


def parse_frame_size(text: str | None) -> tuple[int, int] | None:
    """Reads ``640x480``; None for ``any`` and for None.

    Raises:
        InputError: naming the text and what was expected, or a side below 32 pixels,
            in which there is nothing to follow.
    """
    if text in (None, "any"):
        return None
    match = re.fullmatch(r"0*([1-9]\d*)x0*([1-9]\d*)", text)
    if not match:
        raise InputError(
            f"--frame-size {text!r}: expected width x height such as 640x480, or any"
        )
    width, height = int(match[1]), int(match[2])
    if min(width, height) < LEAST_SIDE:
        raise InputError(
            f"--frame-size {text}: expected {LEAST_SIDE} pixels or more on each side"
        )
    return width, height


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and runs."""
    run_or_exit(lambda: run(tyro.cli(Config, args=argv, prog="siamrpn export")))


def _read_target(
    config: Config,
) -> "tuple[np.ndarray, np.ndarray] | tuple[None, None]":
    """The image, RGB uint8, and the box in it, ``cxcywh``."""
    import numpy as np

    from siamrpn_jax.data.read.images import read_image
    from siamrpn_jax.model.boxes import check_boxes, ltwh_to_cxcywh

    if config.template_from is None and (config.box is None or config.check):
        return None, None
    if config.template_from is None or config.box is None:
        raise InputError("--template-from and --box: expected both or neither")
    box = parse_box(config.box)
    image = read_image(config.template_from)
    return image, ltwh_to_cxcywh(check_boxes(box, image)).astype(np.float32)


def _check_size(
    config: Config, image: "np.ndarray", size: tuple[int, int] | None
) -> tuple[int, int]:
    height, width = image.shape[:2]
    if config.frame_size is not None and size != (width, height):
        raise InputError(
            f"--frame-size {config.frame_size}: expected {width}x{height}, the size of "
            f"{config.template_from}"
        )
    return width, height


def _check_platforms(platforms: tuple[str, ...], *, known: list[str]) -> list[str]:
    wrong = [name for name in platforms if name not in known]
    if wrong or not platforms:
        raise InputError(
            f"--platforms {' '.join(wrong)}: expected some of {', '.join(known)}"
        )
    return list(dict.fromkeys(platforms))


def _print_files(folder: Path, platforms: Mapping[str, Mapping[Any, str]]) -> None:
    for functions in platforms.values():
        for name in functions.values():
            path = folder / name
            print(f"{path}  {path.stat().st_size / 1e6:.2f} MB")
    print(folder / "export.json")
