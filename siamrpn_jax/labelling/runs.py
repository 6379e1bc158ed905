"""Tracks between key frames: what was found from one, and how two are joined."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from siamrpn_jax.model import boxes


class Found(NamedTuple):
    """What was found of an object in a frame."""

    box: np.ndarray
    """``ltwh float64 [4]``, pixels."""
    score: float
    """How much it looks like the target; NaN in a key frame."""
    confidence: float
    """Probability that the object is followed; NaN in a key frame."""
    lost: bool
    """The confidence says that it is lost."""


@dataclasses.dataclass(eq=False)
class Run:
    """A track from a key frame on, forwards or backwards."""

    key: int
    """The frame that it begins at, whose box a person drew."""
    step: int
    """1: forwards, -1: backwards."""
    box: np.ndarray
    """That box, ``ltwh float64 [4]``."""
    found: list[Found] = dataclasses.field(default_factory=list)
    """Frames ``key + step``, ``key + 2 * step``, …."""
    weakest: list[float] = dataclasses.field(default_factory=list)
    """The lowest confidence from the key frame to each of them."""
    resume: Any = None
    """What the tracker goes on with after the last of them; None: it cannot."""

    @property
    def last(self) -> int:
        """The last frame that is known, or the key frame."""
        return self.key + self.step * len(self.found)

    def append(self, found: Found) -> None:
        """Adds the next frame."""
        before = self.weakest[-1] if self.weakest else 1.0
        self.found.append(found)
        self.weakest.append(min(before, found.confidence))

    def cut(self, frame: int) -> None:
        """Forgets a frame and all after it, in the run's own direction."""
        kept = (frame - self.key) * self.step - 1
        if 0 <= kept < len(self.found):
            del self.found[kept:], self.weakest[kept:]
            self.resume = None

    def copy(self) -> "Run":
        """As it is now: later changes to one do not reach the other."""
        lists = {"found": list(self.found), "weakest": list(self.weakest)}
        return dataclasses.replace(self, **lists)

    def continues(self, other: "Run") -> bool:
        """Whether it begins with the same box and holds what another has found."""
        count = len(other.found)
        same = np.array_equal(self.box, other.box) and len(self.found) >= count
        return same and (not count or self.found[count - 1] is other.found[-1])

    def at(self, frame: int) -> tuple[Found, float] | None:
        """What was found in a frame, and the lowest confidence up to there."""
        place = (frame - self.key) * self.step - 1
        if not 0 <= place < len(self.found):
            return None
        return self.found[place], self.weakest[place]


def join(
    forward: tuple[Found, float], backward: tuple[Found, float], *, share: float
) -> Found:
    """One box of two tracks that reach a frame from the key frames on both sides.

    Where the boxes overlap by half they are averaged, and the nearer key frame counts
    more. Where they do not, one of the two has slipped: the one whose confidence was
    never as low on its way, weighed by how near its key frame is.

    Args:
        forward: from ``Run.at``, of the key frame before.
        backward: the same of the key frame after.
        share: of the way from the first key frame to the second, in 0..1.
    """
    (first, first_weakest), (second, second_weakest) = forward, backward
    first_weight = (1 - share) * max(first_weakest, 1e-6)
    second_weight = share * max(second_weakest, 1e-6)
    ours, theirs = (boxes.ltwh_to_cxcywh(found.box) for found in (first, second))
    if boxes.iou(ours, theirs) < 0.5:
        return first if first_weight >= second_weight else second
    return Found(
        box=(1 - share) * first.box + share * second.box,
        score=(1 - share) * first.score + share * second.score,
        confidence=max(first.confidence, second.confidence),
        lost=first.lost and second.lost,
    )
