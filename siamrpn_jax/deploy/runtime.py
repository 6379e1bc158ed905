"""Follows an object by ``init.onnx`` and ``step.onnx``: NumPy and ONNX Runtime alone.

This file is copied beside the models and needs nothing else::

    tracker = Tracker("folder")
    tracker.init(frame, [20, 40, 64, 48])  # x, y, width, height
    box = tracker.update(next_frame)

    python tracker.py film.mp4 --box 20,40,64,48   # needs opencv-python, too

Frames are RGB uint8 [H, W, 3]. Boxes are x, y, width, height in continuous pixels:
pixel i covers [i, i+1).
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

Arrays = dict[str, np.ndarray]


class Tracker:
    """One object through a video.

    Args:
        models: the folder with ``init.onnx`` and ``step.onnx``, or the two models as
            bytes.
        threads: of ONNX Runtime; 0: as it likes.
        providers: of ONNX Runtime, for example ``["CUDAExecutionProvider"]``.
    """

    name = "siamrpn_onnx"

    def __init__(
        self,
        models: str | Path | tuple[bytes, bytes] = ".",
        *,
        threads: int = 0,
        providers: list[str] | None = None,
    ):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        if isinstance(models, str | Path):
            paths = (Path(models, f"{name}.onnx") for name in ("init", "step"))
            parts = [path.read_bytes() for path in paths]
        else:
            parts = list(models)
        providers = providers or ["CPUExecutionProvider"]
        self._sessions = [
            onnxruntime.InferenceSession(model, options, providers=providers)
            for model in parts
        ]
        self._names = [[o.name for o in one.get_outputs()] for one in self._sessions]
        self._memory: Arrays = {}
        self.score = self.confidence = float("nan")
        """Of the last update, 0 to 1: how much the box looks like the target, and the
        probability that the target is still followed."""
        self.lost = False
        """The confidence says that the target is lost."""

    def init(self, image: Any, box: Any) -> None:
        """Starts on a frame with the target's box."""
        frame = _check_frame(image)
        x, y, w, h = _check_box(box)
        start = np.array([x + w / 2, y + h / 2, w, h], np.float32)
        self._memory = self._run(0, {"frame": frame, "box": start})
        self.score = self.confidence = float("nan")
        self.lost = False

    def update(self, image: Any) -> np.ndarray:
        """Finds the target in the next frame: x, y, width, height, float64 [4]."""
        if not self._memory:
            raise RuntimeError("update before init: call init(frame, box) first")
        frame = _check_frame(image)
        size = np.array(frame.shape[1::-1], np.float32)
        memory = self._memory | {"state.frame_size": size}
        found = self._run(1, memory | {"frame": frame})
        template = {k: v for k, v in memory.items() if k.startswith("template.")}
        state = {
            f"state.{name.removeprefix('next.')}": value
            for name, value in found.items()
            if name.startswith("next.")
        }
        self._memory = template | state
        self.score = float(found["output.score"])
        self.confidence = float(found["output.confidence"])
        self.lost = bool(found["output.lost"])
        cx, cy, w, h = found["output.box"].astype(np.float64)
        return np.array([cx - w / 2, cy - h / 2, w, h])

    def _run(self, which: int, inputs: Arrays) -> Arrays:
        values: Any = self._sessions[which].run(None, inputs)
        return dict(zip(self._names[which], values, strict=True))


def _check_frame(image: Any) -> np.ndarray:
    frame = np.asarray(image)
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(
            f"frame of {frame.dtype} {frame.shape}, expected uint8 [H,W,3]"
        )
    return np.ascontiguousarray(frame)


def _check_box(box: Any) -> np.ndarray:
    values = np.asarray(box, np.float64)
    if values.shape != (4,) or not np.isfinite(values).all() or min(values[2:]) <= 0:
        raise ValueError(f"box {box}, expected x, y, width, height of positive size")
    return values


def main() -> None:
    """Follows an object through a film, and prints a row for each frame."""
    import cv2

    parser = argparse.ArgumentParser(description="Follow an object through a film.")
    parser.add_argument("film")
    parser.add_argument("--box", required=True, help="x,y,width,height in frame 0")
    parser.add_argument("--models", default=str(Path(__file__).parent))
    options = parser.parse_args()
    tracker = Tracker(options.models)
    film, index = cv2.VideoCapture(options.film), 0
    print("frame,x,y,w,h,confidence,lost")
    while True:
        decoded, image = film.read()
        if not decoded:
            break
        frame = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        if index == 0:
            box = np.array([float(side) for side in options.box.split(",")])
            tracker.init(frame, box)
        else:
            box = tracker.update(frame)
        sides = ",".join(f"{side:.3f}" for side in box)
        print(f"{index},{sides},{tracker.confidence:.4f},{int(tracker.lost)}")
        index += 1
    if not index:
        sys.exit(f"{options.film}: no frame can be decoded")


if __name__ == "__main__":
    main()
