"""The tracker's constants, found by trying many settings on the same clips.

``track_settings`` tracks one target with S settings at once: a clip is read and sent
once, and the network runs on the S search patches of a frame together. The rest is
NumPy: which settings to try, and which to take. A score is the mean over the sources of
clips of the mean over the clips of each; its standard error is that over the clips.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model import fused
from siamrpn_jax.model.network import Detection, SiamRPN
from siamrpn_jax.model.promotion import standard_promotion
from siamrpn_jax.model.rpn import Template
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.memory import recall, remember
from siamrpn_jax.tracking.state import TrackOutput, TrackState, search_patches
from siamrpn_jax.tracking.step import Weights, detect, init_track, select

NAMES = ("penalty_k", "window_influence", "size_lr", "voting_iou", "motion")
"""What is searched for: fields of ``TrackerConfig``, the columns of settings."""

BOUNDS = np.array([[0.0, 0.4], [0.1, 0.7], [0.05, 0.9], [0.3, 1.0], [0.0, 1.0]])
"""Lowest and highest value of each. Published trackers lie well within; they use no
voting (1) and no motion (0)."""

_COUNT = len(NAMES)
_CURVES = np.array([2.0, 1, 1, 1, 1])  # Small penalties differ more than large ones.
_STEPS = 1.1347241384015194 ** -np.arange(1.0, _COUNT + 1)  # Root of x^6 = x + 1.
_CHUNK, _SIZE = 16, 64  # Frames in a call, and what frame sizes are rounded up to.


@functools.partial(jax.jit, static_argnames="model")
@standard_promotion
def track_settings(
    weights: Weights,
    template: Template,
    state: TrackState,
    frames: jax.Array,
    settings: TrackerConfig,
    *,
    model: SiamRPN,
) -> tuple[TrackState, TrackOutput]:
    """Tracks one target through a clip with S settings; each as ``track_clip`` would.

    Args:
        weights: of the model.
        template: of the target.
        state: ``[S, …]``, see ``start_settings``, or from the last call.
        frames: ``[T, H, W, 3]`` RGB uint8.
        settings: a config whose numbers are arrays ``[S]``, see ``make_settings``.
        model: the network (static).

    Returns:
        the last states ``[S, …]``, and the outputs ``[T, S, …]``.
    """
    weights = fused.as_fused(model, weights)
    count = len(state.box)
    templates = jax.tree.map(
        lambda a: jnp.broadcast_to(a, (count, *a.shape[1:])), template
    )
    first = jnp.zeros((), jnp.int32)

    def step(state: TrackState, frame: jax.Array) -> tuple[TrackState, TrackOutput]:
        def crop(state: TrackState, config: TrackerConfig) -> jax.Array:
            return search_patches(state, frame[None], first, model=model, config=config)

        def choose(
            state: TrackState, detection: Detection, config: TrackerConfig
        ) -> tuple[TrackState, TrackOutput]:
            return select(state, detection, model=model, config=config)

        def keep(
            before: TrackState,
            after: TrackState,
            detection: Detection,
            output: TrackOutput,
            config: TrackerConfig,
        ) -> TrackState:
            seen = before, after, detection, output, frame[None], first
            return remember(weights, *seen, model=model, config=config)

        x = jax.vmap(crop)(state, settings)
        known = recall(templates, state.memory, config=settings)
        detection = detect(weights, known, x, model=model, config=settings)
        after, output = jax.vmap(choose)(state, detection, settings)
        return jax.vmap(keep)(state, after, detection, output, settings), output

    return jax.lax.scan(step, state, frames)


def start_settings(state: TrackState, count: int) -> TrackState:
    """The state from ``init_track`` for each of ``count`` settings."""
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (count, *jnp.shape(a))), state)


def make_settings(config: TrackerConfig, table: np.ndarray) -> TrackerConfig:
    """A config with arrays ``[S]`` for numbers.

    Args:
        config: what the table does not name.
        table: ``[S, P]``, columns as in ``NAMES``.
    """
    every = jax.tree.map(
        lambda number: jnp.full(len(table), number, jnp.float32), config
    )
    columns = dict(zip(NAMES, np.asarray(table, np.float32).T, strict=True))
    return dataclasses.replace(every, **columns)


def stack_settings(configs: Sequence[TrackerConfig]) -> TrackerConfig:
    """A config with arrays ``[S]`` for numbers, of S configs equal in all else."""
    return jax.tree.map(lambda *numbers: jnp.array(numbers, jnp.float32), *configs)


class FrameSizeError(InputError):
    """A clip's frames have several sizes."""


def track_frames(
    weights: Weights,
    frames: Iterable[np.ndarray],
    box: np.ndarray,
    settings: TrackerConfig,
    *,
    model: SiamRPN,
) -> TrackOutput:
    """Learns a target and tracks it with S settings through clips of any size.

    Frames are padded to sizes that clips share, and sent a few at a time: clips of all
    lengths and of similar sizes are compiled for once.

    Args:
        weights: of the model; fused ones save time.
        frames: T of them, at least two, ``[H, W, 3]`` RGB uint8.
        box: of the target in the first frame, ``cxcywh [4]``.
        settings: from ``make_settings`` or ``stack_settings``.
        model: the network.

    Returns:
        NumPy arrays ``[T - 1, S, …]``, from the second frame on.

    Raises:
        FrameSizeError: the frames have several sizes.
    """
    frames = iter(frames)
    first = next(frames)
    height, width = first.shape[:2]
    template, state = init_track(
        weights,
        _pad(first[None])[0],
        box,
        model=model,
        config=settings,
        frame_size=np.array([width, height], np.float32),
    )
    state = start_settings(state, jnp.size(settings.penalty_k))
    outputs, kept = [], 0
    while chunk := list(itertools.islice(frames, _CHUNK)):
        if {frame.shape for frame in chunk} != {first.shape}:
            raise FrameSizeError(f"frames of {width}x{height} and of other sizes")
        kept += len(chunk)
        chunk += chunk[-1:] * (_CHUNK - len(chunk))
        state, output = track_settings(
            weights, template, state, _pad(np.stack(chunk)), settings, model=model
        )
        outputs.append(jax.device_get(output))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:kept], *outputs)


def _pad(frames: np.ndarray) -> np.ndarray:
    """Frames ``[T, H, W, 3]`` with zeros at their right and lower ends."""
    height, width = frames.shape[1:3]
    border = ((0, 0), (0, -height % _SIZE), (0, -width % _SIZE), (0, 0))
    return np.pad(frames, border)


# ------------------------------------------------------------- what to try, and to take


def draw_settings(
    count: int, *, seed: int, middle: np.ndarray | None = None, reach: float = 1.0
) -> np.ndarray:
    """Settings spread evenly over a box, by an additive recurrence.

    Args:
        count: S.
        seed: where the recurrence starts.
        middle: the box's middle, ``[P]``; that of ``BOUNDS`` by default. A box that
            would leave them is moved back.
        reach: the box's sides as a share of those of ``BOUNDS``.

    Returns:
        ``float64 [S, P]``.
    """
    start = np.random.default_rng(seed).random(_COUNT)
    unit = (start + np.arange(count)[:, None] * _STEPS) % 1
    low, high = BOUNDS.T
    place = (
        np.full(_COUNT, 0.5)
        if middle is None
        else (np.clip((middle - low) / (high - low), 0, 1)) ** (1 / _CURVES)
    )
    corner = np.clip(place - reach / 2, 0, 1 - reach)
    return low + (corner + reach * unit) ** _CURVES * (high - low)


class Choice(NamedTuple):
    """What the scores of some settings say."""

    best: int
    """Which setting has the highest score."""
    error: float
    """Standard error of its gain over the first one."""
    plateau: np.ndarray
    """bool ``[S]``: those at most that much below it."""
    center: np.ndarray
    """``[P]``: their mean."""


def choose(settings: np.ndarray, scores: np.ndarray, sources: Sequence[str]) -> Choice:
    """The middle of the plateau: the best of many settings is so by chance, too.

    Args:
        settings: ``[S, P]``, the current one first.
        scores: ``[S, C]``, a clip's success AUC each.
        sources: of the C clips.
    """
    means = mean_score(scores, sources)
    best = int(np.argmax(means))
    _, error = mean_difference(scores[best], scores[0], sources)
    plateau = means >= means[best] - error
    return Choice(best, error, plateau, settings[plateau].mean(axis=0))


def mean_score(scores: np.ndarray, sources: Sequence[str]) -> np.ndarray:
    """Mean over sources of the mean over their clips: ``[…, C]`` to ``[…]``."""
    return scores @ _shares(sources)


def mean_difference(
    scores: np.ndarray, others: np.ndarray, sources: Sequence[str]
) -> tuple[float, float]:
    """How much better scores ``[C]`` are on the same clips, and its standard error.

    The error comes from the differences clip by clip, by source; that of a source with
    a single clip is taken as the difference itself.
    """
    gain = np.asarray(scores - others, np.float64)
    kinds, variance = np.asarray(sources), 0.0
    for kind in np.unique(kinds):
        part = gain[kinds == kind]
        spread = part.var(ddof=1) if len(part) > 1 else float(part[0]) ** 2
        variance += spread / len(part) / len(np.unique(kinds)) ** 2
    return float(gain @ _shares(sources)), float(np.sqrt(variance))


def second_fold(sources: Sequence[str]) -> np.ndarray:
    """The clips in the second of two folds, bool ``[C]``: every second of a source."""
    kinds, second = np.asarray(sources), np.zeros(len(sources), bool)
    for kind in np.unique(kinds):
        second[np.flatnonzero(kinds == kind)[1::2]] = True
    return second


def _shares(sources: Sequence[str]) -> np.ndarray:
    """``[C]``: what each clip counts, together 1."""
    kinds, index, counts = np.unique(
        np.asarray(sources), return_inverse=True, return_counts=True
    )
    return 1 / (len(kinds) * counts[index])
