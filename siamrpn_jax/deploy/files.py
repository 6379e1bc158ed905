"""Exports on the disk: models, what runs them, and whether they agree with JAX.

Each is a folder with models, ``tracker.py`` or a page that runs whole trackers, and a
card, ``onnx.json``, ``tflite.json`` or ``web.json``, that describes them.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

import siamrpn_jax
from siamrpn_jax.common import configs
from siamrpn_jax.common.errors import InputError, require
from siamrpn_jax.common.files import replacing, write_json
from siamrpn_jax.deploy import Part, calibration, litert, onnx_tracker, quantize, web
from siamrpn_jax.deploy.calibration import Calibration
from siamrpn_jax.deploy.graph import OPSET
from siamrpn_jax.deploy.runtime import FORMAT
from siamrpn_jax.model.boxes import cxcywh_to_ltwh, ltwh_to_cxcywh
from siamrpn_jax.tracking.state import Loaded
from siamrpn_jax.tracking.step import make_tracker

RUNTIME = "tracker.py"
"""What runs an export."""


class File(NamedTuple):
    """A model as it is written."""

    data: bytes
    inputs: Mapping[str, Any]
    """Shapes and types by name, as JSON values."""
    outputs: Mapping[str, Any]
    operators: list[str] | None = None
    """Kinds of operators, where they are known."""


def write_onnx(
    folder: Path,
    loaded: Loaded,
    *,
    weights: str,
    part: Part = "both",
    opset: int = OPSET,
    int8: Calibration | None = None,
) -> dict[str, Any]:
    """Writes ``init.onnx``, ``step.onnx``, the network alone, and what runs them.

    Args:
        folder: where to; made where it is missing.
        loaded: network, weights and tracking constants.
        weights: the weights' name or path.
        part: what is written.
        opset: version of ONNX's operators.
        int8: with it, the same with 8-bit convolutions is written into ``int8/``.

    Returns:
        what is in ``onnx.json``.

    Raises:
        InputError: a tracker that no graph is made of, an opset that it cannot have,
            too little to calibrate on, or a folder that holds files of these names.
        MissingExtraError: onnx is not installed.
        OSError: naming a file that cannot be written.
    """
    if int8:
        int8.check()
        if opset < quantize.LEAST_OPSET:
            least = quantize.LEAST_OPSET
            raise InputError(f"opset {opset}: expected {least} or more, for 8 bits")
    models = {}
    if part != "network":
        models |= onnx_tracker.make_models(loaded, opset=opset)
    if part != "whole":
        models |= onnx_tracker.make_networks(loaded, opset=opset)
    files, runtime = _as_files(models), _runtime(part)
    card = _describe_tracker(loaded, weights) | {
        "part": part,
        "opset": opset,
        "frames": "RGB uint8 [height, width, 3], of any size",
        "int8": int8 and int8.describe(),
    }
    if int8 is None:
        return _write(folder, "onnx", files, runtime, card)
    small = quantize.quantize(models, calibration.record(models, loaded, int8))
    files |= {f"int8/{name}": file for name, file in _as_files(small).items()}
    runtime |= {f"int8/{name}": source for name, source in runtime.items()}
    whole = _write(folder, "onnx", files, runtime, card)
    own = {f"{name}.onnx": whole["files"][f"int8/{name}.onnx"] for name in small}
    write_json(folder / "int8" / "onnx.json", {**card, "files": own})
    return whole


def write_tflite(
    folder: Path,
    loaded: Loaded,
    *,
    weights: str,
    part: Part = "both",
    frame_size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Writes ``init.tflite``, ``step.tflite``, the network alone, and what runs them.

    Args:
        folder: where to; made where it is missing.
        loaded: network, weights and tracking constants.
        weights: the weights' name or path.
        part: what is written.
        frame_size: width and height of the frames; the network alone needs none.

    Returns:
        what is in ``tflite.json``.

    Raises:
        InputError: a tracker that cannot be converted, or a folder that holds files of
            these names.
        MissingExtraError: litert-converter is not installed.
        OSError: naming a file that cannot be written.
    """
    models, files = {}, {}
    if part != "network":
        if frame_size is None:
            raise InputError("frame_size is None, expected width and height")
        models |= litert.make_models(loaded, frame_size=frame_size)
    if part != "whole":
        models |= litert.make_networks(loaded)
    for name, model in models.items():
        inputs, outputs = (
            {
                n: {"shape": list(t.shape), "dtype": str(t.dtype)}
                for n, t in side.items()
            }
            for side in (model.inputs, model.outputs)
        )
        files[f"{name}.tflite"] = File(model.data, inputs, outputs)
    card = _describe_tracker(loaded, weights) | {
        "part": part,
        "converter": litert.INSTALL.split()[-1],
    }
    if frame_size is not None:
        width, height = frame_size
        card |= {"frames": f"RGB uint8 [{height}, {width}, 3]"}
    return _write(folder, "tflite", files, _runtime(part), card)


def write_web(
    folder: Path, loaded: Loaded, *, weights: str, node_modules: Path | None
) -> dict[str, Any]:
    """Writes a page that follows objects in the visitor's browser.

    Args:
        folder: where to; made where it is missing.
        loaded: network, weights and tracking constants.
        weights: the weights' name or path.
        node_modules: see ``web.read_packages``.

    Returns:
        what is in ``web.json``.

    Raises:
        InputError: a tracker that no graph is made of, packages that cannot be had, or
            a folder that holds files of these names.
        MissingExtraError: onnx is not installed.
        OSError: naming a file that cannot be written.
    """
    models = onnx_tracker.make_models(loaded)
    packages = web.read_packages(node_modules)
    files = _as_files(models)
    card = _describe_tracker(loaded, weights) | {"packages": web.PACKAGES}
    return _write(folder, "web", files, web.read_page() | packages, card)


def check_export(
    folder: Path,
    kind: Literal["onnx", "tflite"],
    loaded: Loaded,
    frames: np.ndarray,
    box: np.ndarray,
) -> dict[str, float]:
    """Runs the files in a fresh process, and JAX here, and compares their boxes.

    Args:
        folder: of ``write_onnx`` or ``write_tflite``.
        kind: which of them.
        loaded: what it was made of.
        frames: RGB uint8 ``[T, H, W, 3]``.
        box: of the target in the first one, ``ltwh [4]``.

    Returns:
        frames, and the largest differences of boxes (pixels) and confidences; also
        written into the export's card.

    Raises:
        InputError: the runtime failed.
        MissingExtraError: it is not installed.
    """
    if kind == "onnx":
        require("onnxruntime", extra="onnx")
    else:
        require("ai_edge_litert", extra="litert")
    theirs = _run_apart(folder, frames, box)
    init, step = make_tracker(
        loaded.model, loaded.variables, config=loaded.tracker_config
    )
    template, state = init(frames[0], ltwh_to_cxcywh(box).astype(np.float32))
    ours = []
    for frame in frames[1:]:
        state, output = step(template, state, frame)
        found = cxcywh_to_ltwh(np.asarray(output.box, np.float64))
        ours.append([*found, float(output.confidence)])
    difference = np.abs(np.array(ours) - theirs)
    report = {
        "frames": len(frames),
        "largest_difference_pixels": float(difference[:, :4].max()),
        "largest_difference_confidence": float(difference[:, 4].max()),
    }
    path = folder / f"{kind}.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, card | {"checked_against_jax": report})
    return report


def check_new(folder: Path, names: Iterable[str]) -> None:
    """Raises InputError where a folder has a file of one of these names."""
    for name in names:
        if (folder / name).exists():
            raise InputError(f"{folder / name}: is there already, choose another --out")


def _describe_tracker(loaded: Loaded, weights: str) -> dict[str, Any]:
    return {
        "siamrpn_jax": siamrpn_jax.__version__,
        "format_version": FORMAT,
        "weights": {
            "name": loaded.card.get("name") or weights,
            "licence": loaded.card.get("licence"),
            "tuned_on": loaded.card.get("tuned_on") or [],
        },
        "tracker": configs.to_json(loaded.tracker_config),
        "boxes": "cxcywh: centre, width and height in continuous pixels",
    }


def _runtime(part: Part) -> dict[str, bytes]:
    """What runs a part."""
    if part == "network":
        return {}
    return {RUNTIME: Path(__file__).with_name("runtime.py").read_bytes()}


def _write(
    folder: Path,
    kind: str,
    files: Mapping[str, File],
    others: Mapping[str, bytes],
    card: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes models, what runs them, and last the card."""
    about = f"{kind}.json"
    check_new(folder, [*files, *others, about])
    described: dict[str, dict[str, Any]] = {}
    for name, file in files.items():
        with replacing(folder / name) as part:
            part.write_bytes(file.data)
        described[name] = {
            "bytes": len(file.data),
            "sha256": hashlib.sha256(file.data).hexdigest(),
            "inputs": file.inputs,
            "outputs": file.outputs,
        }
        if file.operators is not None:
            described[name]["operators"] = file.operators
    for name, content in others.items():
        with replacing(folder / name) as part:
            part.write_bytes(content)
    whole = {**card, "files": described}
    write_json(folder / about, whole)
    return whole


_PROGRAM = """\
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from tracker import Tracker
content = np.load(sys.argv[2])
tracker = Tracker(sys.argv[1])
tracker.init(content["frames"][0], content["box"])
rows = [[*tracker.update(f), tracker.confidence] for f in content["frames"][1:]]
assert not {"jax", "siamrpn_jax"} & set(sys.modules)
np.save(sys.argv[2] + ".out", np.array(rows))
"""


def _run_apart(folder: Path, frames: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Boxes and confidences ``[T - 1, 5]`` of the export, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="siamrpn-check-") as place:
        content = Path(place, "clip.npz")
        np.savez(content, frames=frames, box=box)
        command = [sys.executable, "-c", _PROGRAM, str(folder), str(content)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise InputError(f"{folder}: the exported tracker failed ({last})")
        return np.load(f"{content}.out.npy")


def _as_files(models: Mapping[str, Any]) -> dict[str, File]:
    """ONNX models as files."""
    return {
        f"{name}.onnx": File(
            model.SerializeToString(),
            _describe(model.graph.input),
            _describe(model.graph.output),
            sorted({node.op_type for node in model.graph.node}),
        )
        for name, model in models.items()
    }


def _describe(values: Any) -> Mapping[str, Any]:
    """Names, shapes and types of a model's inputs or outputs."""
    onnx: Any = require("onnx", extra="onnx")
    found = {}
    for value in values:
        kind = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        shape = [side.dim_param or side.dim_value for side in kind.shape.dim]
        found[value.name] = {"shape": shape, "dtype": str(dtype)}
    return found
