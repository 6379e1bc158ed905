"""Tracking in three lines: ``load`` a tracker, ``init`` it on a frame, ``update`` it.

Example::

    tracker = siamrpn_jax.load()
    for result in siamrpn_jax.track("film.mp4", [20, 40, 64, 48], tracker=tracker):
        print(result.index, result.boxes_ltwh, result.scores)

Frames are RGB uint8 [H, W, 3]. Boxes at this border are ``ltwh``: x and y of the
top-left corner, width, height, in continuous pixels (the image is [0, W] x [0, H]).
"""

import dataclasses
import itertools
import logging
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.released import DEFAULT_WEIGHTS
from siamrpn_jax.data.read.images import as_array, check_frame
from siamrpn_jax.deploy import Runtime
from siamrpn_jax.deploy.exported import (
    NO_ANSWER,
    Export,
    ExportedTracker,
    choose,
    find_card,
    read_export,
)
from siamrpn_jax.media.drawing import draw_boxes
from siamrpn_jax.media.video import Video
from siamrpn_jax.model.boxes import (
    check_boxes,
    cxcywh_to_ltwh,
    ltwh_to_corners,
    ltwh_to_cxcywh,
)
from siamrpn_jax.model.fused import fuse
from siamrpn_jax.tracking.config import TrackerConfig, check_memory, find_idle
from siamrpn_jax.tracking.memory import without_learning
from siamrpn_jax.tracking.selection import window_and_center
from siamrpn_jax.tracking.slots import add_target, empty_slots, track_many
from siamrpn_jax.tracking.state import Loaded, with_frame_size
from siamrpn_jax.tracking.step import make_tracker
from siamrpn_jax.weights import load_weights

log = logging.getLogger(__name__)


class Tracker:
    """SiamRPN as a stateful object, with the protocol of OpenCV and of got10k.

    ``init(frame, box)`` starts, ``update(frame)`` returns the new box (got10k's
    convention: the box itself, not OpenCV's pair). Given N boxes it follows N targets,
    all in one call on the device. It can be started again at any time.

    The first frame of a new size, and a new N, are compiled for: that call is slow.
    ``pad_to=64``, say, pads frames to multiples of 64 pixels, so that sizes in between
    share one compilation; what is found does not change.

    Args:
        model: the network, as ``siamrpn_jax.weights.load_weights`` returns it.
        variables: its weights.
        config: how the network's answers become a box.
        pad_to: frames are padded to multiples of this number of pixels.

    Raises:
        InputError: ``pad_to`` is not a whole number above 0.
    """

    name = "siamrpn"
    is_deterministic = True

    def __init__(
        self, model: Any, variables: Any, config: TrackerConfig, *, pad_to: int = 1
    ):
        if not isinstance(pad_to, int) or pad_to < 1:
            raise InputError(f"pad_to is {pad_to!r}, expected a whole number above 0")
        self.score: float | np.ndarray = np.nan
        """Score of the last update in 0..1: a number, or float64 [N]. How much the
        patch looks like the target; it may stay high when the target is lost."""
        self.confidence: float | np.ndarray = np.nan
        """Probability in 0..1 that the last update still follows the target."""
        self.lost: bool | np.ndarray = False
        """The confidence says that the target is lost: a bool, or bool [N]."""
        self.config = config
        """How the network's answers become a box."""
        self.model = model
        """The network."""
        self.weights = fuse(model, variables)
        """Its weights, fused."""
        self.pad_to = pad_to
        """Frames are padded to multiples of this number of pixels."""
        self._init, self._step = make_tracker(model, self.weights, config=config)
        self._started = False

    def __copy__(self) -> "Tracker":
        """Another tracker with the same weights and compiled functions."""
        made = type(self).__new__(type(self))
        vars(made).update(vars(self))
        return made

    def __getstate__(self) -> dict[str, Any]:
        """All but the compiled functions, with arrays of NumPy: for other processes."""
        kept = {k: v for k, v in vars(self).items() if k not in ("_init", "_step")}
        return jax.tree.map(
            lambda x: np.asarray(x) if isinstance(x, jax.Array) else x, kept
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Makes the functions anew; they compile at the first call."""
        vars(self).update(state)
        made = make_tracker(self.model, self.weights, config=self.config)
        self._init, self._step = made

    def init(self, image: Any, box: Any) -> None:
        """Starts on a frame.

        Args:
            image: RGB uint8 [H, W, 3], or what NumPy can turn into it (a PIL image).
            box: ``ltwh`` [4], or [N, 4] for N targets.

        Raises:
            siamrpn_jax.data.read.images.ImageError: not such an image.
            siamrpn_jax.model.boxes.BoxError: a box is not finite, has no area, or lies
                outside the frame.
        """
        frame = check_frame(as_array(image))
        boxes = check_boxes(box, frame)
        start = ltwh_to_cxcywh(boxes).astype(np.float32)
        self._frame_size = frame.shape[1::-1]
        size = np.array(self._frame_size, np.float32)
        padded = jnp.asarray(pad_frame(frame, self.pad_to))
        self._many = boxes.ndim == 2
        if self._many:
            slots = empty_slots(len(boxes), model=self.model, config=self.config)
            for i, one in enumerate(start):
                slots = add_target(
                    self.weights,
                    slots,
                    i,
                    padded,
                    one,
                    model=self.model,
                    config=self.config,
                    frame_size=size,
                )
            self._slots = slots
            self.score = np.full(len(boxes), np.nan)
            self.confidence = np.full(len(boxes), np.nan)
            self.lost = np.zeros(len(boxes), bool)
        else:
            started = self._init(padded, start, frame_size=size)
            self._template, self._state = started
            self.score = self.confidence = np.nan
            self.lost = False
        self._started = True

    def update(self, image: Any) -> np.ndarray:
        """Finds the targets in the next frame.

        Args:
            image: RGB uint8 [H, W, 3], or what NumPy can turn into it; of any size.

        Returns:
            ``ltwh`` float64 [4], or [N, 4] if ``init`` was given N boxes.

        Raises:
            siamrpn_jax.data.read.images.ImageError: not such an image.
            InputError: the network's answer is not finite.
            RuntimeError: ``init`` was not called before.
        """
        if not self._started:
            raise RuntimeError("update before init: call init(frame, box) first")
        image = check_frame(as_array(image))
        if image.shape[1::-1] != self._frame_size:
            self._change_frame_size(image.shape[1::-1])
        frame = jnp.asarray(pad_frame(image, self.pad_to))
        if self._many:
            self._slots, output = track_many(
                self.weights,
                self._slots,
                frame[None],
                model=self.model,
                config=self.config,
            )
        else:
            self._state, output = self._step(self._template, self._state, frame)
        wanted = (output.box, output.score, output.confidence, output.lost)
        boxes, scores, confidences, lost = jax.device_get(wanted)
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            self._started = False
            raise InputError(NO_ANSWER)
        if self._many:
            self.score = scores.astype(np.float64)
            self.confidence = confidences.astype(np.float64)
            self.lost = lost
        else:
            self.score, self.confidence = float(scores), float(confidences)
            self.lost = bool(lost)
        return cxcywh_to_ltwh(boxes.astype(np.float64))

    def _change_frame_size(self, size: tuple[int, ...]) -> None:
        """Goes on with frames of another size."""
        self._frame_size = size
        if self._many:
            state = with_frame_size(self._slots.state, size)
            self._slots = self._slots.replace(state=state)
        else:
            self._state = with_frame_size(self._state, size)


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """What ``track`` found in one frame, for N targets."""

    index: int
    """Number of the frame, from 0."""
    frame: np.ndarray
    """RGB uint8 [H, W, 3]."""
    boxes_ltwh: np.ndarray
    """float64 [N, 4]: x, y, w, h."""
    scores: np.ndarray
    """float64 [N] in 0..1: how much each box looks like its target; NaN in the first
    frame, whose boxes were given."""
    confidence: np.ndarray
    """float64 [N]: probability that each target is still followed; first frame: NaN."""
    lost: np.ndarray
    """bool [N]: the confidence says that the target is lost; first frame: False."""
    object_ids: tuple[int, ...]
    """Numbers of the targets: the order of the boxes given."""
    speed_ms: float
    """Milliseconds that finding the targets took; includes compilation where a frame
    size is seen for the first time."""

    @property
    def boxes_corners(self) -> np.ndarray:
        """float64 [N, 4]: x0, y0, x1, y1."""
        return ltwh_to_corners(self.boxes_ltwh)

    def plot(self) -> np.ndarray:
        """Draws the boxes on a copy of the frame: RGB uint8 [H, W, 3].

        With number and confidence; where the target is lost, dashed and "lost".
        """
        known = zip(self.object_ids, self.confidence, self.lost, strict=True)
        labels = [_label(*one) for one in known]
        return draw_boxes(self.frame, self.boxes_ltwh, labels, dashed=self.lost)


@overload
def load(
    name_or_path: str | Path = DEFAULT_WEIGHTS,
    *,
    pad_to: int = 1,
    runtime: Literal["jax"] = "jax",
    **constants: Any,
) -> Tracker: ...


@overload
def load(
    name_or_path: str | Path = DEFAULT_WEIGHTS,
    *,
    runtime: Literal["onnxruntime", "litert"],
    **constants: Any,
) -> ExportedTracker: ...


@overload
def load(
    name_or_path: str | Path = DEFAULT_WEIGHTS,
    *,
    pad_to: int = 1,
    runtime: Runtime,
    **constants: Any,
) -> Tracker | ExportedTracker: ...


def load(
    name_or_path: str | Path = DEFAULT_WEIGHTS,
    *,
    pad_to: int = 1,
    runtime: Runtime = "jax",
    **constants: Any,
) -> Tracker | ExportedTracker:
    """Makes a tracker from released weights, a training run or an export.

    Args:
        name_or_path: a name ("base" and "small" come with the package), a
            ``.safetensors`` file, or the folder of a training run; or an export of
            ``siamrpn export``, for ONNX Runtime, LiteRT or ``auto``.
        pad_to: see ``Tracker``.
        runtime: ``onnxruntime`` compiles nothing, whatever the size of the frames, and
            starts in a fraction of a second; ``litert`` makes models for each size.
            The boxes are the same, but in LiteRT kernels do not learn, as with
            ``online_frames=None``; of several targets each is searched for by itself.
            ``auto``: see ``deploy.Runtime``.
        **constants: fields of ``TrackerConfig`` in place of those of the weights; a
            warning names those that change nothing beside the others.

    Returns:
        a ``Tracker``, or an ``ExportedTracker`` with the same methods.

    Raises:
        InputError: unusable weights, a constant out of range, or another runtime; an
            export of another version, for another runtime, or with constants.
        MissingExtraError: the runtime is not installed.

    Example:
        >>> load("small", window_influence=0.3).config.window_influence
        0.3
    """
    loaded = read(name_or_path, **constants)
    if isinstance(loaded, Export):
        if pad_to != 1:
            raise InputError(f"{loaded.folder}: an export cannot be changed (pad_to)")
        own = loaded.runtime if runtime == "auto" else runtime
        return ExportedTracker(loaded, own)
    config = loaded.tracker_config
    if runtime == "auto":
        runtime = choose(loaded) if pad_to == 1 else "jax"
    if runtime == "litert" and "online_frames" not in constants:
        loaded = without_learning(loaded)
        if loaded.tracker_config != config:
            log.warning(
                "%s: its kernels learn while tracking (online_frames %s), in runtime "
                "%s they do not",
                *(name_or_path, config.online_frames, runtime),
            )
    idle = find_idle(loaded.model.config.head, loaded.tracker_config)
    for name, value in constants.items():
        if name in idle:
            what = name_or_path, name, value, idle[name]
            log.warning("%s: %s %s changes nothing: %s", *what)
    if runtime == "jax":
        return Tracker(loaded.model, loaded.variables, config, pad_to=pad_to)
    if pad_to != 1:
        raise InputError(f"pad_to is {pad_to!r}: frames are padded for jax alone")
    return ExportedTracker(loaded, runtime)


def read(name_or_path: str | Path, **constants: Any) -> Loaded | Export:
    """Reads and checks what ``load`` makes a tracker of, which takes longer.

    Args:
        name_or_path: as for ``load``.
        **constants: as for ``load``.

    Raises:
        InputError: unusable weights, or a constant out of range or of no use to their
            network; an export of another version, or with constants.
    """
    if card := find_card(name_or_path):
        export = read_export(card)
        if constants:
            names = ", ".join(constants)
            raise InputError(f"{card.parent}: an export cannot be changed ({names})")
        return export
    loaded = load_weights(name_or_path)
    config = dataclasses.replace(loaded.tracker_config, **constants)
    try:  # says at once what does not fit
        if loaded.model.config.head.regresses:
            window_and_center(loaded.model.config, config)
        check_memory(loaded.model.config.head, config)
    except InputError as error:
        raise InputError(f"{name_or_path}: {error}") from None
    return loaded._replace(tracker_config=config)


def track(
    source: Video | str | Path | int | Iterable[np.ndarray],
    boxes: Any,
    *,
    tracker: Tracker | ExportedTracker | None = None,
) -> Iterator[Results]:
    """Tracks through a film, one frame in memory at a time.

    Args:
        source: anything that ``siamrpn_jax.media.video.Video`` takes.
        boxes: the targets in the first frame, ``ltwh`` [4] or [N, 4].
        tracker: what to track with; by default ``load()``.

    Returns:
        An iterator over the ``Results`` of each frame, the first one with the boxes
        given. The first frame is read, and the tracker starts, at the call.

    Raises:
        model.boxes.BoxError, InputError, FileNotFoundError: as
            ``Tracker.init`` and ``Video`` say; here, or at a later frame.
    """
    tracker = tracker or load()
    video = source if isinstance(source, Video) else Video(source)
    frames = iter(video)
    first = next(frames, None)
    if first is None:
        raise InputError(f"{video.name}: no frames")
    start = time.perf_counter()
    found = np.atleast_2d(check_boxes(boxes, first))
    # One box takes the plain path, which vmap over one target would only slow.
    tracker.init(first, found[0] if len(found) == 1 else found)
    return _track(tracker, first, frames, found, start=start)


def _track(
    tracker: Tracker | ExportedTracker,
    first: np.ndarray,
    frames: Iterator[np.ndarray],
    found: np.ndarray,
    *,
    start: float,
) -> Iterator[Results]:
    """The results of a tracker that has started on the first frame."""
    ids = tuple(range(len(found)))
    for index, frame in enumerate(itertools.chain([first], frames)):
        if index:
            start = time.perf_counter()
            found = np.atleast_2d(tracker.update(frame))
        scores = np.atleast_1d(np.asarray(tracker.score, np.float64))
        confidence = np.atleast_1d(np.asarray(tracker.confidence, np.float64))
        lost = np.atleast_1d(np.asarray(tracker.lost, bool))
        milliseconds = 1000 * (time.perf_counter() - start)
        yield Results(
            index=index,
            frame=frame,
            boxes_ltwh=found,
            scores=scores,
            confidence=confidence,
            lost=lost,
            object_ids=ids,
            speed_ms=milliseconds,
        )


def _label(number: int, confidence: float, lost: bool) -> str:
    if lost:
        return f"{number}: lost"
    return f"{number}" if np.isnan(confidence) else f"{number}: {confidence:.2f}"


def pad_frame(frame: np.ndarray, multiple: int) -> np.ndarray:
    """A frame with zeros at its right and lower ends, up to multiples in pixels."""
    rows, columns = (-n % multiple for n in frame.shape[:2])
    if not rows and not columns:
        return frame
    return np.pad(frame, ((0, rows), (0, columns), (0, 0)))
