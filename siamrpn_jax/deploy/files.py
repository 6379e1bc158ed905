"""Exports on the disk: models, what runs them, and whether they agree with JAX.

Each is a folder with models, ``tracker.py`` or a page that runs them, and a card,
``onnx.json``, ``tflite.json`` or ``web.json``, that describes them.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

import siamrpn_jax
from siamrpn_jax.common import configs
from siamrpn_jax.common.errors import InputError, require
from siamrpn_jax.common.files import replacing, write_json
from siamrpn_jax.deploy import litert, onnx_tracker, quantize, web
from siamrpn_jax.deploy.graph import OPSET
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


def write_onnx(
    folder: Path, loaded: Loaded, *, weights: str, int8_scenes: int = 0
) -> dict[str, Any]:
    """Writes ``init.onnx``, ``step.onnx``, the network alone, and what runs them.

    Args:
        folder: where to; made where it is missing.
        loaded: network, weights and tracking constants.
        weights: the weights' name or path.
        int8_scenes: with more than 0, 8-bit models are written into ``int8/``, too,
            calibrated on so many generated scenes.

    Returns:
        what is in ``onnx.json``.

    Raises:
        InputError: a tracker that no graph is made of, or a folder that holds files of
            these names.
        MissingExtraError: onnx is not installed.
        OSError: naming a file that cannot be written.
    """
    whole = onnx_tracker.make_models(loaded)
    models = whole | onnx_tracker.make_networks(loaded)
    if int8_scenes:
        small = quantize.quantize(whole, scenes=int8_scenes)
        models |= {f"int8/{name}": model for name, model in small.items()}
    files = _as_files(models)
    card = _describe_tracker(loaded, weights) | {
        "opset": OPSET,
        "frames": "RGB uint8 [height, width, 3], of any size",
        "int8": int8_scenes and {"calibrated_on_generated_scenes": int8_scenes},
    }
    runtime = _runtime()
    if int8_scenes:
        runtime |= {f"int8/{name}": source for name, source in runtime.items()}
    return _write(folder, "onnx", files, runtime, card)


def write_tflite(
    folder: Path, loaded: Loaded, *, weights: str, frame_size: tuple[int, int]
) -> dict[str, Any]:
    """Writes ``init.tflite``, ``step.tflite``, the network alone, and what runs them.

    Args:
        folder: where to; made where it is missing.
        loaded: network, weights and tracking constants.
        weights: the weights' name or path.
        frame_size: width and height of the frames.

    Returns:
        what is in ``tflite.json``.

    Raises:
        InputError: a tracker that cannot be converted, or a folder that holds files of
            these names.
        MissingExtraError: litert-converter is not installed.
        OSError: naming a file that cannot be written.
    """
    models = litert.make_models(loaded, frame_size=frame_size)
    files = {}
    for name, model in (models | litert.make_networks(loaded)).items():
        tensors = (
            {
                n: {"shape": list(t.shape), "dtype": str(t.dtype)}
                for n, t in side.items()
            }
            for side in (model.inputs, model.outputs)
        )
        files[f"{name}.tflite"] = File(model.data, *tensors)
    width, height = frame_size
    card = _describe_tracker(loaded, weights) | {
        "converter": litert.INSTALL.split()[-1],
        "frames": f"RGB uint8 [{height}, {width}, 3]",
    }
    return _write(folder, "tflite", files, _runtime(), card)


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


def _describe_tracker(loaded: Loaded, weights: str) -> dict[str, Any]:
    return {
        "siamrpn_jax": siamrpn_jax.__version__,
        "weights": {
            "name": loaded.card.get("name") or weights,
            "licence": loaded.card.get("licence"),
        },
        "tracker": configs.to_json(loaded.tracker_config),
        "boxes": "cxcywh: centre, width and height in continuous pixels",
    }


def _runtime() -> dict[str, bytes]:
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
    if there := [n for n in (*files, *others, about) if (folder / n).exists()]:
        raise InputError(f"{folder / there[0]}: is there already, choose another --out")
    described = {}
    for name, file in files.items():
        with replacing(folder / name) as part:
            part.write_bytes(file.data)
        described[name] = {
            "bytes": len(file.data),
            "sha256": hashlib.sha256(file.data).hexdigest(),
            "inputs": file.inputs,
            "outputs": file.outputs,
        }
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
