"""Exports on the disk: models, what runs them, and whether they agree with JAX."""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import siamrpn_jax
from siamrpn_jax.common import configs
from siamrpn_jax.common.errors import InputError, require
from siamrpn_jax.common.files import replacing, write_json
from siamrpn_jax.deploy import onnx_tracker, quantize
from siamrpn_jax.deploy.graph import OPSET
from siamrpn_jax.model.boxes import cxcywh_to_ltwh, ltwh_to_cxcywh
from siamrpn_jax.tracking.state import Loaded
from siamrpn_jax.tracking.step import make_tracker

CARD = "onnx.json"
"""What describes an export to ONNX."""

RUNTIME = "tracker.py"
"""What runs it."""


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
        What is in ``onnx.json``.

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
    runtimes = [RUNTIME, f"int8/{RUNTIME}"] if int8_scenes else [RUNTIME]
    names = [*(f"{name}.onnx" for name in models), *runtimes, CARD]
    if there := [name for name in names if (folder / name).exists()]:
        raise InputError(f"{folder / there[0]}: is there already, choose another --out")
    files = {}
    for name, model in models.items():
        data = model.SerializeToString()
        with replacing(folder / f"{name}.onnx") as part:
            part.write_bytes(data)
        files[f"{name}.onnx"] = {
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "inputs": _describe(model.graph.input),
            "outputs": _describe(model.graph.output),
        }
    source = Path(__file__).with_name("runtime.py").read_text(encoding="utf-8")
    for name in runtimes:
        with replacing(folder / name) as part:
            part.write_text(source, encoding="utf-8")
    card = {
        "siamrpn_jax": siamrpn_jax.__version__,
        "opset": OPSET,
        "weights": {
            "name": loaded.card.get("name") or weights,
            "licence": loaded.card.get("licence"),
        },
        "tracker": configs.to_json(loaded.tracker_config),
        "frames": "RGB uint8 [height, width, 3], of any size",
        "boxes": "cxcywh: centre, width and height in continuous pixels",
        "int8": int8_scenes and {"calibrated_on_generated_scenes": int8_scenes},
        "files": files,
    }
    write_json(folder / CARD, card)
    return card


def check_onnx(
    folder: Path, loaded: Loaded, frames: np.ndarray, box: np.ndarray
) -> dict[str, float]:
    """Runs the files in a fresh process, and JAX here, and compares their boxes.

    Args:
        folder: of ``write_onnx``.
        loaded: what it was made of.
        frames: RGB uint8 ``[T, H, W, 3]``.
        box: of the target in the first one, ``ltwh [4]``.

    Returns:
        Frames, and the largest differences of boxes (pixels) and confidences; also
        written into the export's card.

    Raises:
        InputError: the runtime failed.
    """
    require("onnxruntime", extra="onnx")
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
    path = folder / CARD
    card = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, card | {"checked_against_jax": report})
    return report


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
