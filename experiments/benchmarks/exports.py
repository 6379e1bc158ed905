"""Our own exports in other runtimes: the whole step, and the start of a process."""

import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from experiments.benchmarks import contestants as who
from experiments.benchmarks.cases import Network
from experiments.benchmarks.session import Contestant, Running, Session
from experiments.benchmarks.timing import Plan
from siamrpn_jax.deploy import files
from siamrpn_jax.deploy.exported import make_parts
from siamrpn_jax.deploy.runtime import Arrays, Tracker
from siamrpn_jax.tracking.state import Loaded
from siamrpn_jax.weights import load_weights

SIZE = (320, 240)
"""Width and height of the frames of a start."""

_START = """\
import numpy as np
frames = np.random.default_rng(0).integers(0, 256, (2, 240, 320, 3), np.uint8)
{open}
tracker.init(frames[0], np.array([100.0, 80, 60, 40]))
tracker.update(frames[1])
"""


def step(
    net: Network, frames: np.ndarray, start: np.ndarray, *, runtime: str, threads: int
) -> Running:
    """Our whole step as ONNX Runtime, OpenVINO or LiteRT runs the exported files.

    Like ours it looks for the first frame's target in every frame.
    """
    loaded = Loaded(net.model, net.variables, net.tracker, {})
    height, width = frames.shape[1:3]
    size = (width, height) if runtime == who.LITERT else None
    parts = make_parts(loaded, frame_size=size)
    init, run = Tracker(parts, threads=threads).models
    memory = init({"frame": frames[0], "box": np.asarray(start, np.float32)})
    if runtime == who.OPENVINO:
        run = _openvino(parts[1], frames[0], threads)
    turns = itertools.cycle(frames[1:])

    def find(frame: np.ndarray) -> np.ndarray:
        return run(memory | {"frame": frame})["output.box"]

    return Running(lambda: find(next(turns)), lambda: [find(frames[1])])


def starts(session: Session) -> None:
    """From the start of a process to the first box, with ``small``."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        loaded = load_weights("small")

        def onnx() -> Running:
            files.write_onnx(out / "onnx", loaded, weights="small")
            return _process(_opening(out / "onnx"))

        def litert() -> Running:
            files.write_tflite(out / "tflite", loaded, weights="small", frame_size=SIZE)
            return _process(_opening(out / "tflite"))

        def ours() -> Running:
            return _process("import siamrpn_jax; tracker = siamrpn_jax.load('small')")

        entries = [
            Contestant(who.OURS, ours, None),
            Contestant("our export in onnxruntime", onnx, None),
            Contestant("our export in LiteRT", litert, None),
        ]
        plan = Plan(rounds=min(3, session.plan.rounds), turn_seconds=0)
        case = "small, start of a process to the first box, 320x240"
        session.race("track", case, entries, plan=plan, seconds=40)


def _opening(folder: Path) -> str:
    place = f"import sys; sys.path.insert(0, {str(folder)!r})"
    return f"{place}\nfrom tracker import Tracker\ntracker = Tracker({str(folder)!r})"


def _process(opening: str) -> Running:
    command = [sys.executable, "-c", _START.format(open=opening)]
    return Running(lambda: subprocess.run(command, check=True, capture_output=True))


def _openvino(
    model: bytes, frame: np.ndarray, threads: int
) -> Callable[[Arrays], Arrays]:
    from experiments.benchmarks.onnx_models import compile_openvino

    compiled = compile_openvino(
        model, threads=threads, dtype="float32", shapes={"frame": frame.shape}
    )

    def run(inputs: Arrays) -> Arrays:
        found = compiled(inputs)
        return {"output.box": found["output.box"]}

    return run
