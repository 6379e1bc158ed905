"""Follows an object by exported models: NumPy, and ONNX Runtime or LiteRT, alone.

This file is copied beside the models and needs nothing else::

    tracker = Tracker("folder")
    tracker.init(frame, [20, 40, 64, 48])  # x, y, width, height
    box = tracker.update(next_frame)

    python tracker.py film.mp4 --box 20,40,64,48   # needs opencv-python, too

Frames are RGB uint8 [H, W, 3], boxes x, y, width, height; pixel i covers [i, i+1).
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Run = Callable[[Arrays], Arrays]
Models = str | Path | Sequence[bytes]
FORMAT = 1  # of exports that this file runs: what their tensors are called and mean


class Tracker:
    """One object through a video.

    Args:
        models: folder with ``init`` and ``step`` (.onnx or .tflite), or both as bytes.
        threads: of the runtime; 0: as many as there are cores, in LiteRT at most 4.
        providers: of ONNX Runtime, for example ``["CUDAExecutionProvider"]``.
    """

    def __init__(
        self, models: Models = ".", *, threads: int = 0, providers: Sequence[str] = ()
    ):
        files = _read_models(Path(models)) if isinstance(models, str | Path) else models
        self.models = [_open_model(model, threads, providers) for model in files]
        """``init`` and ``step``, as functions from inputs to outputs."""
        self._memory: Arrays = {}
        self.score, self.confidence, self.lost = float("nan"), float("nan"), False
        """Figures of the last update: 0 to 1, 0 to 1, whether the target is lost."""

    def init(self, image: Any, box: Any) -> None:
        """Starts on a frame with the target's box."""
        frame, sides = _check_frame(image), np.asarray(box, np.float64)
        good = sides.shape == (4,) and np.isfinite(sides).all()
        end = np.minimum(sides[:2] + sides[2:], frame.shape[1::-1]) if good else 0
        if not good or min(end - np.maximum(sides[:2], 0)) <= 0:
            raise ValueError(f"box {box}, expected x,y,width,height in the frame")
        start = np.array([*sides[:2] + sides[2:] / 2, *sides[2:]], np.float32)
        self._memory = self.models[0]({"frame": frame, "box": start})
        self.score, self.confidence, self.lost = float("nan"), float("nan"), False

    def update(self, image: Any) -> np.ndarray:
        """Finds the target in the next frame: x, y, width, height, float64 [4]."""
        if not self._memory:
            raise RuntimeError("update before init: call init(frame, box) first")
        frame = _check_frame(image)
        self._memory["state.frame_size"] = np.array(frame.shape[1::-1], np.float32)
        found = self.models[1](self._memory | {"frame": frame})
        self._memory |= {f"state.{n[5:]}": found[n] for n in found if n[:5] == "next."}
        self.score = float(found["output.score"])
        self.confidence = float(found["output.confidence"])
        self.lost = bool(found["output.lost"])
        cx, cy, w, h = found["output.box"].astype(np.float64)
        return np.array([cx - w / 2, cy - h / 2, w, h])


def _check_frame(image: Any) -> np.ndarray:
    rgb = np.asarray(image)
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"frame of {rgb.dtype} {rgb.shape}, expected uint8 [H,W,3]")
    return np.ascontiguousarray(rgb)


def _read_models(folder: Path) -> list[bytes]:
    """``init`` and ``step`` of a folder, if its card says that they are for this."""
    kind = "tflite" if any(folder.glob("*.tflite")) else "onnx"
    card = folder / f"{kind}.json"
    about = json.loads(card.read_text("utf-8")) if card.exists() else {}
    theirs, by = about.get("format_version", FORMAT), about.get("siamrpn_jax")
    if theirs != FORMAT:
        raise ValueError(f"{card}: format {theirs} (of {by}), expected {FORMAT}")
    return [(folder / f"{name}.{kind}").read_bytes() for name in ("init", "step")]


def _open_model(model: bytes, threads: int, providers: Sequence[str]) -> Run:
    if model[4:8] == b"TFL3":
        return _open_litert(model, threads)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    names = list(providers or ["CPUExecutionProvider"])
    session: Any = onnxruntime.InferenceSession(model, options, providers=names)
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(None, inputs), strict=True))


def _open_litert(model: bytes, threads: int) -> Run:
    from ai_edge_litert.interpreter import Interpreter  # type: ignore

    threads = threads or min(4, os.cpu_count() or 1)
    interpreter = Interpreter(model_content=model, num_threads=threads)
    runner: Any = interpreter.get_signature_runner()
    fit = tuple(runner.get_input_details()["frame"]["shape"])

    def run(inputs: Arrays) -> Arrays:
        if (got := inputs["frame"].shape) != fit:
            raise ValueError(f"frame of {got[1]}x{got[0]}, expected {fit[1]}x{fit[0]}")
        return runner(**inputs)

    return run


def main() -> None:
    """Follows an object through a film, and prints a row for each frame."""
    import cv2

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("film")
    parser.add_argument("--box", required=True, help="x,y,width,height in frame 0")
    parser.add_argument("--models", default=Path(__file__).parent, type=Path)
    options = parser.parse_args()
    box: Any = [float(side) for side in options.box.split(",")]
    film, tracker, index = cv2.VideoCapture(options.film), Tracker(options.models), 0
    while (read := film.read())[0]:
        frame = cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
        if index:
            box = tracker.update(frame)
        else:
            tracker.init(frame, box)
            print("frame,x,y,w,h,confidence,lost")
        sides = ",".join(f"{side:.3f}" for side in box)
        print(f"{index},{sides},{tracker.confidence:.4f},{int(tracker.lost)}")
        index += 1
    if not index:
        raise SystemExit(f"{options.film}: no frame can be decoded")


if __name__ == "__main__":
    sys.tracebacklimit = 0  # a mistake is answered with one line
    main()
