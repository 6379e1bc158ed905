"""One target or several followed by another runtime, with the methods of a tracker."""

import copy
import hashlib
import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np

from siamrpn_jax import __version__
from siamrpn_jax.common import configs
from siamrpn_jax.common.errors import InputError, require
from siamrpn_jax.common.files import read_json
from siamrpn_jax.data.read.images import as_array, check_frame
from siamrpn_jax.deploy import Runtime, onnx_tracker, runtime
from siamrpn_jax.model.boxes import check_boxes
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.state import Loaded
from siamrpn_jax.weights import EXPORTS, FILE_NAME, bundled

CARDS: dict[str, Literal["onnxruntime", "litert"]] = {
    "onnx.json": "onnxruntime",
    "tflite.json": "litert",
}
"""What runs an export, by the name of its card."""

NO_ANSWER = (
    "the network's answer is not a number, and tracking ends here: are the weights "
    "those of this network?"
)
"""What is said of boxes or scores that are not finite."""


class Export(NamedTuple):
    """A folder that ``siamrpn export`` has written."""

    folder: Path
    """Where its models are."""
    runtime: Literal["onnxruntime", "litert"]
    """What runs them."""
    card: dict[str, Any]
    """What it says of itself."""
    tracker_config: TrackerConfig
    """The constants that are in its models."""
    frame_shape: tuple[int | str, ...]
    """Shape of the frames that it takes; a name in it: any size."""


class ExportedTracker:
    """SiamRPN as a stateful object, run by ONNX Runtime or LiteRT.

    ``init`` and ``update`` are those of ``siamrpn_jax.Tracker``; of N targets each is
    searched for by itself, in ONNX Runtime several at once, on threads. It takes frames
    of any size; for LiteRT models are made when the first frame of a size comes, which
    takes seconds, and an export takes frames of its own size alone.

    Args:
        loaded: network, weights and tracking constants, or an export.
        name: of the runtime.
        threads: of the runtime; 0: as many as there are cores, in LiteRT at most 4.

    Raises:
        InputError: not one of these runtimes, or a tracker that no graph is made of.
        MissingExtraError: the runtime, or what makes its models, is not installed.
    """

    is_deterministic = True

    def __init__(self, loaded: Loaded | Export, name: Runtime, *, threads: int = 0):
        exported = isinstance(loaded, Export)
        if exported and name != loaded.runtime:
            raise InputError(
                f"{loaded.folder}: exported for runtime {loaded.runtime}, got {name!r}"
            )
        if name == "litert":
            require("ai_edge_litert", extra="litert")
            from siamrpn_jax.deploy import litert

            if not exported:
                litert.require_converter()
                litert.check(loaded)
        elif name == "onnxruntime":
            require("onnxruntime", extra="onnx")
            if not exported:
                require("onnx", extra="onnx")
                onnx_tracker.check(loaded)
        else:
            known = ", ".join(get_args(Runtime))
            raise InputError(f"runtime {name!r}, expected one of {known}")
        self.name = f"siamrpn_{name}"
        self.config = loaded.tracker_config
        """How the network's answers become a box."""
        self.runtime: Runtime = name
        """The runtime's name."""
        self.score: float | np.ndarray = np.nan
        """Score of the last update in 0..1: a number, or float64 [N]."""
        self.confidence: float | np.ndarray = np.nan
        """Probability in 0..1 that the last update still follows the target."""
        self.lost: bool | np.ndarray = False
        """The confidence says that the target is lost: a bool, or bool [N]."""
        self._loaded, self._threads = loaded, threads
        cores = threads or os.cpu_count() or 1
        self._at_once = cores if name == "onnxruntime" else 1  # LiteRT: one at a time
        self._parts: dict[Any, runtime.Models] = {}
        self._made: dict[Any, runtime.Tracker] = {}
        self._targets: list[runtime.Tracker] = []
        self._many = False
        self._pool: ThreadPoolExecutor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """All but what runs, for other processes."""
        without = {"_parts": {}, "_made": {}, "_targets": [], "_pool": None}
        return vars(self) | without

    def init(self, image: Any, box: Any) -> None:
        """Starts on a frame; see ``siamrpn_jax.Tracker.init``."""
        frame = check_frame(as_array(image))
        boxes = check_boxes(box, frame)
        self._many = boxes.ndim == 2
        opened = self._open(frame, len(np.atleast_2d(boxes)))
        self._targets = [copy.copy(opened) for _ in np.atleast_2d(boxes)]
        for target, one in zip(self._targets, np.atleast_2d(boxes), strict=True):
            target.init(frame, one)
        self._show()

    def update(self, image: Any) -> np.ndarray:
        """Finds the targets in the next frame; see ``siamrpn_jax.Tracker.update``."""
        if not self._targets:
            raise RuntimeError("update before init: call init(frame, box) first")
        frame = check_frame(as_array(image))
        models = self._open(frame, len(self._targets)).models

        def find(target: runtime.Tracker) -> np.ndarray:
            target.models = models
            return target.update(frame)

        if len(self._targets) > 1 and self._at_once > 1:
            self._pool = self._pool or ThreadPoolExecutor(self._at_once, "targets")
            boxes = list(self._pool.map(find, self._targets))
        else:
            boxes = list(map(find, self._targets))
        found = [
            (*box, one.score) for box, one in zip(boxes, self._targets, strict=True)
        ]
        if not np.isfinite(found).all():
            self._targets = []
            raise InputError(NO_ANSWER)
        self._show()
        return np.stack(boxes) if self._many else boxes[0]

    def _show(self) -> None:
        scores, confidences, lost = (
            [getattr(target, name) for target in self._targets]
            for name in ("score", "confidence", "lost")
        )
        if self._many:
            self.score, self.confidence = np.array(scores), np.array(confidences)
            self.lost = np.array(lost)
        else:
            self.score, self.confidence, self.lost = scores[0], confidences[0], lost[0]

    def _open(self, frame: np.ndarray, targets: int) -> runtime.Tracker:
        """What runs frames of this size, for this number of targets."""
        loaded, threads, size = self._loaded, self._threads, None
        if isinstance(loaded, Export):
            check_size(loaded, frame)
            self._parts[size] = loaded.folder
        elif self.runtime == "litert":
            size = frame.shape[1], frame.shape[0]
        if size not in self._parts and isinstance(loaded, Loaded):
            self._parts[size] = make_parts(loaded, frame_size=size)
        if targets > 1 and self._at_once > 1:
            threads = max(1, self._at_once // targets)
        if (size, threads) not in self._made:
            made = runtime.Tracker(self._parts[size], threads=threads)
            self._made[size, threads] = made
        return self._made[size, threads]


def find_card(source: str | Path) -> Path | None:
    """The card of an export that a name stands for, or None: it is something else.

    Raises:
        InputError: it is an export of a format that no runtime of this package runs.
    """
    if source in bundled():
        return None
    others = EXPORTS.keys() - CARDS.keys()
    there = [c for c in (*CARDS, FILE_NAME, *others) if Path(source, c).is_file()]
    if there and there[0] in others:
        raise InputError(
            f"{source}: is an export for {EXPORTS[there[0]]}, expected weights, or an "
            "export of --format onnx or tflite"
        )
    for name in CARDS:  # without its card, an export is one that was not copied whole
        card = Path(source, name)
        if card.is_file() or card.with_name(f"step.{card.stem}").is_file():
            return card
    return None


def read_export(card: Path) -> Export:
    """Reads what an export says of itself.

    Args:
        card: its ``onnx.json`` or ``tflite.json``.

    Raises:
        InputError: a card that cannot be read, of another version, or of the network
            alone; or files that are missing, or others than it tells of.
    """
    about = read_json(card)
    if not isinstance(about, dict):
        raise InputError(f"{card}: expected a JSON object")
    theirs = about.get("format_version", runtime.FORMAT)
    if theirs != runtime.FORMAT:
        raise InputError(
            f"{card}: format {theirs} (of siamrpn_jax {about.get('siamrpn_jax')}), "
            f"expected {runtime.FORMAT}, that of siamrpn_jax {__version__}: export "
            "it again"
        )
    if about.get("part") == "network":
        raise InputError(
            f"{card}: the network alone; to track, export with --part whole"
        )
    try:
        config = configs.from_json(TrackerConfig, about["tracker"])
        step = about["files"][f"step.{card.stem}"]
        shape = tuple(step["inputs"]["frame"]["shape"])
        names = (f"init.{card.stem}", f"step.{card.stem}")
        digests = [about["files"][name]["sha256"] for name in names]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{card}: not the card of a tracker ({error!r})") from None
    for name, digest in zip(names, digests, strict=True):
        _check_file(card.parent / name, digest, card)
    return Export(card.parent, CARDS[card.name], about, config, shape)


def _check_file(path: Path, digest: str, card: Path) -> None:
    """Raises InputError for a file that was not copied, or not to its end."""
    if not path.is_file():
        raise InputError(f"{path}: is missing, expected all files of the export")
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise InputError(
            f"{path}: is damaged, or of another export than {card.name}, expected all "
            "files of one export"
        )


def check_size(export: Export, frame: np.ndarray) -> None:
    """Raises InputError for a frame of another size than an export takes."""
    pairs = zip(export.frame_shape, frame.shape, strict=True)
    if any(isinstance(wanted, int) and wanted != got for wanted, got in pairs):
        height, width = export.frame_shape[:2]
        raise InputError(
            f"frame of {frame.shape[1]}x{frame.shape[0]}, expected {width}x{height}, "
            f"which {export.folder} is exported for"
        )


def choose(loaded: Loaded) -> Literal["jax", "onnxruntime"]:
    """What ``auto`` is for a tracker on this machine.

    In wide networks, those of AlexNet's kind, our own convolutions are the faster ones.
    """
    installed = all(map(importlib.util.find_spec, ("onnx", "onnxruntime")))
    narrow = loaded.model.config.backbone.kind != "alexnet"
    if not (installed and narrow and jax.default_backend() == "cpu"):
        return "jax"
    try:
        onnx_tracker.check(loaded)
    except InputError:
        return "jax"
    return "onnxruntime"


def make_parts(loaded: Loaded, *, frame_size: tuple[int, int] | None) -> list[bytes]:
    """``init`` and ``step`` for ONNX Runtime, or for LiteRT where a size is given."""
    names = ("init", "step")
    if frame_size is None:
        graphs = onnx_tracker.make_models(loaded)
        return [graphs[name].SerializeToString() for name in names]
    from siamrpn_jax.deploy import litert

    models = litert.make_models(loaded, frame_size=frame_size)
    return [models[name].data for name in names]
