"""Where a tracker fails: generated scenes that it follows, until one thing is harder.

Of scenes that a tracker follows from end to end, four variations are made (see
``data.scenes.generated.Scene.harder``); the first of each kind in which it loses the
target is a ``SceneFailure``. What was changed is then what it failed at.
"""

import dataclasses
from collections.abc import Iterable
from collections.abc import Sequence as Items

import cv2
import numpy as np

from siamrpn_jax.data.scenes.generated import Difficulty, Scene
from siamrpn_jax.evaluation.ope.metrics import overlaps
from siamrpn_jax.evaluation.report.plots import GREEN, ORANGE
from siamrpn_jax.evaluation.runner import OnePassTracker, update_box
from siamrpn_jax.media.drawing import draw_boxes
from siamrpn_jax.model.boxes import ltwh_to_cxcywh

TITLES: dict[Difficulty, str] = {
    "turn": "turns upside down",
    "copy": "a near copy passes by",
    "leave": "leaves the frame and comes back",
    "fast": "moves fast",
}
"""What the target of each kind of failure does."""

LENGTH = 48
"""Frames of a clip."""

SCENE_FOLLOWED = 0.3
"""Overlap above which a frame counts as followed: in every frame of a followed scene.

It is higher than the bound that the confidence is fitted with (``commands.tuning``): a
failure is to begin with a tracker that is clearly on its target."""

SCENE_LOST = 0.1
"""Overlap below which a frame counts as lost: in all of the last frames of a scene in
which the target is lost."""

LAST = 8
"""Number of those last frames, and of the fewest before a target leaves the frame."""

SMALLEST = 24.0
"""Sides in pixels that the first box has at least: smaller ones are hard to see."""

SHOWN = 6
"""Frames of a failure in its strip."""

TILE = 200
"""Width in pixels of a frame in a strip."""

LINE = 22
"""Height in pixels of a line of text."""


@dataclasses.dataclass(frozen=True, eq=False)
class TrackedScene:
    """A tracker on a generated scene of T frames."""

    frames: np.ndarray
    """RGB uint8 ``[T, H, W, 3]``."""
    truth: np.ndarray
    """float64 ``[T, 4]`` ``ltwh``; NaN where its centre is not in the frame."""
    found: np.ndarray
    """float64 ``[T, 4]`` ``ltwh``; the first row is the given box."""
    confidence: np.ndarray
    """float64 ``[T]``: the tracker's confidence, or score where it has none; NaN in the
    first frame and where it has neither."""

    @property
    def overlaps(self) -> np.ndarray:
        """Overlap of found and true boxes, float64 ``[T]``; NaN without a true box."""
        absent = np.isnan(self.truth[:, 0])
        return np.where(absent, np.nan, overlaps(self.found, self.truth))

    @property
    def followed(self) -> bool:
        """The target was there and was followed in all frames."""
        return bool((self.overlaps > SCENE_FOLLOWED).all())

    @property
    def lost(self) -> bool:
        """At the end the target is there, and the tracker is elsewhere."""
        return bool((self.overlaps[-LAST:] < SCENE_LOST).all())

    @property
    def left(self) -> bool:
        """The target was followed for some frames until it left the frame."""
        away = np.flatnonzero(np.isnan(self.overlaps))
        if not len(away) or away[0] < LAST:
            return False
        return bool((self.overlaps[: away[0]] > SCENE_FOLLOWED).all())


@dataclasses.dataclass(frozen=True, eq=False)
class SceneFailure:
    """A scene in which a tracker lost its target."""

    how: Difficulty
    """What made it harder."""
    seed: int
    """The scene's seed."""
    clip: TrackedScene
    """What happened."""

    @property
    def shown(self) -> np.ndarray:
        """Numbers of frames, int ``[SHOWN]``: from before it is lost to the end."""
        good = np.flatnonzero(self.clip.overlaps > SCENE_FOLLOWED)
        last = len(self.clip.frames) - 1
        first = min(max(int(good[-1]) - 4, 0), last - SHOWN + 1)
        return np.linspace(first, last, SHOWN).round().astype(int)


def find_scene_failures(
    tracker: OnePassTracker,
    *,
    seeds: Iterable[int] = range(200),
    length: int = LENGTH,
    height: int = 240,
    width: int = 320,
) -> list[SceneFailure]:
    """Looks for one failure of each kind.

    Args:
        tracker: what is to fail. Same answers give the same failures.
        seeds: of the scenes tried, in this order.
        length: T, more than ``LAST``.
        height: H of the scenes in pixels.
        width: W.

    Returns:
        At most one of each kind, in the order of ``TITLES``, each of another scene.
    """
    found: dict[Difficulty, SceneFailure] = {}
    for seed in seeds:
        scene = Scene(seed, height=height, width=width)
        missing: list[Difficulty] = [how for how in TITLES if how not in found]
        if not missing:
            break
        if scene.render(0)[1][2:].min() < SMALLEST:
            continue
        if not track_scene(tracker, scene, length=length).followed:
            continue
        for how in missing:
            clip = track_scene(tracker, scene.harder(how, length=length), length=length)
            if clip.lost and (clip.left or how != "leave"):
                found[how] = SceneFailure(how, seed, clip)
                break
    return [found[how] for how in TITLES if how in found]


def track_scene(tracker: OnePassTracker, scene: Scene, *, length: int) -> TrackedScene:
    """Tracks the target of a generated scene from its first frame on.

    Args:
        tracker: any.
        scene: whose first frame shows the target.
        length: T.

    Raises:
        InputError: the tracker returned no box.
    """
    rendered = [scene.render(time) for time in range(length)]
    frames = np.stack([frame for frame, _ in rendered])
    truth = np.stack([box for _, box in rendered]).astype(np.float64)
    tracker.init(frames[0], truth[0])
    found, confidence = [truth[0]], np.full(length, np.nan)
    for index, frame in enumerate(frames[1:], start=1):
        found.append(update_box(tracker, frame, found[-1], where=f"frame {index}"))
        score = getattr(tracker, "score", np.nan)
        confidence[index] = getattr(tracker, "confidence", score)
    middle, size = ltwh_to_cxcywh(truth)[:, :2], (scene.width, scene.height)
    truth[((middle < 0) | (middle > size)).any(axis=1)] = np.nan
    return TrackedScene(frames, truth, np.stack(found), confidence)


def draw_failures(failures: Items[SceneFailure]) -> np.ndarray:
    """Draws a strip of frames for each failure, one below the other.

    Returns:
        RGB uint8 ``[h, w, 3]``: true boxes green, the tracker's orange with its
        confidence.
    """
    legend = _text("true box green; tracked box orange, with the confidence in it")
    return np.concatenate([legend, *map(_draw_strip, failures)])


def _draw_strip(failure: SceneFailure) -> np.ndarray:
    clip, tiles = failure.clip, []
    scale = TILE / clip.frames.shape[2]
    size = (TILE, round(clip.frames.shape[1] * scale))
    for index in failure.shown:
        frame = cv2.resize(clip.frames[index], size, interpolation=cv2.INTER_AREA)
        boxes = np.stack([clip.truth[index], clip.found[index]]) * scale
        drawn = draw_boxes(frame, boxes[:1], colors=[GREEN])
        score = clip.confidence[index]
        label = "" if np.isnan(score) else f"{score:.2f}"
        tiles.append(
            draw_boxes(drawn, boxes[1:], [label] * bool(label), colors=[ORANGE])
        )
    numbers = " ".join(map(str, failure.shown))
    title = f"{TITLES[failure.how]} (scene {failure.seed}, frames {numbers})"
    return np.concatenate([_text(title), np.concatenate(tiles, axis=1)])


def _text(line: str) -> np.ndarray:
    """A line of dark text on white, as wide as a strip."""
    picture = np.full((LINE, SHOWN * TILE, 3), 255, np.uint8)
    font, color = cv2.FONT_HERSHEY_SIMPLEX, (30, 30, 30)
    cv2.putText(picture, line, (4, LINE - 7), font, 0.5, color, 1, cv2.LINE_AA)
    return picture
