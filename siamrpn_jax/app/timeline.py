"""What is known of each object through a film, as compact arrays, and its changes."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from siamrpn_jax.labelling.labels import LabelledObject
from siamrpn_jax.labelling.session import Session

UNKNOWN, FOLLOWED, LOST, GONE, KEY = 0, 1, 129, 254, 255
"""Codes of a frame: nothing is known; tracked, plus the confidence in percent; tracked
and said to be lost, plus the confidence in percent; a person said that it is not there;
a person drew the box."""

Reach = dict[tuple[int, int], int]


@dataclass(frozen=True, eq=False)
class Change:
    """New values of an object from a frame on."""

    object_id: int
    start: int
    """The first of the frames."""
    codes: np.ndarray
    """``uint8 [N]``, see ``KEY``."""
    boxes: np.ndarray
    """``ltwh float32 [N, 4]``, pixels; NaN where nothing is known."""

    def as_json(self) -> dict[str, Any]:
        """The change as JSON; its arrays as little-endian bytes in base64."""
        return {
            "id": self.object_id,
            "start": self.start,
            "codes": base64.b64encode(self.codes.tobytes()).decode(),
            "boxes": base64.b64encode(self.boxes.astype("<f4").tobytes()).decode(),
        }


class Timeline:
    """The arrays of all objects of a session, renewed where something has changed.

    Args:
        session: whose objects these are.
    """

    def __init__(self, session: Session):
        self._session = session
        self._reach: dict[int, Reach] = {}
        self._gone: dict[int, tuple[range, ...]] = {}
        self.codes: dict[int, np.ndarray] = {}
        """By object, ``uint8 [T]``."""
        self.boxes: dict[int, np.ndarray] = {}
        """By object, ``ltwh float32 [T, 4]``."""

    def refresh(
        self, *, drawn: tuple[int, int] | None = None, anew: int | None = None
    ) -> list[Change]:
        """Looks what has changed since the last time.

        Args:
            drawn: an object and the frame on which its box was changed.
            anew: an object of which anything may have changed.
        """
        for number in set(self.codes) - set(self._session.object_ids):
            del self.codes[number], self.boxes[number], self._reach[number]
            del self._gone[number]
        changes = []
        for number in self._session.object_ids:
            reach, before = self._session.reach(number), self._reach.get(number, {})
            self._reach[number] = reach
            ranges = _differing(before, reach, every=number == anew)
            now, was = self._session.gone(number), self._gone.get(number, ())
            self._gone[number] = now
            ranges += [(one.start, one.stop) for one in set(now) ^ set(was)]
            if drawn and drawn[0] == number:
                ranges.append((drawn[1], drawn[1] + 1))
            for start, stop in _merged(ranges):
                changes += self._renew(number, start, stop)
        return changes

    def whole(self) -> list[Change]:
        """All that is known, as of the last ``refresh``."""
        changes = []
        for number, codes in self.codes.items():
            edges = np.flatnonzero(np.diff(np.r_[0, codes != UNKNOWN, 0]))
            for start, stop in edges.reshape(-1, 2).tolist():
                changes.append(self._change(number, start, stop))
        return changes

    def around(self, number: int, frame: int) -> tuple[int, int]:
        """The stretch that hangs on one box of an object: its first and last frame.

        It reaches over frames that are known, also to be without it, to the key frames
        before and after.
        """
        codes = self.codes[number]
        first = last = frame
        if codes[frame] == UNKNOWN:
            return first, last
        while first > 0 and codes[first - 1] != UNKNOWN:
            first -= 1
            if codes[first] == KEY:
                break
        while last < len(codes) - 1 and codes[last + 1] != UNKNOWN:
            last += 1
            if codes[last] == KEY:
                break
        return first, last

    def _renew(self, number: int, start: int, stop: int) -> list[Change]:
        """Renews some frames, and returns those whose values are others than before."""
        if number not in self.codes:
            count = self._session.length
            self.codes[number] = np.zeros(count, np.uint8)
            self.boxes[number] = np.full((count, 4), np.nan, np.float32)
        known = self._session.stretch(number, start, stop)
        codes, boxes = _codes(known), known.boxes.astype(np.float32)
        for gone in self._gone[number]:
            codes[max(gone.start - start, 0) : max(gone.stop - start, 0)] = GONE
        old = self.boxes[number][start:stop]
        equal = (boxes == old) | (np.isnan(boxes) & np.isnan(old))
        differs = (codes != self.codes[number][start:stop]) | ~equal.all(axis=1)
        self.codes[number][start:stop], self.boxes[number][start:stop] = codes, boxes
        found = np.flatnonzero(differs)
        if not len(found):
            return []
        return [self._change(number, start + int(found[0]), start + int(found[-1]) + 1)]

    def _change(self, number: int, start: int, stop: int) -> Change:
        codes, boxes = self.codes[number], self.boxes[number]
        return Change(number, start, codes[start:stop].copy(), boxes[start:stop].copy())


def _codes(known: LabelledObject) -> np.ndarray:
    there = np.isfinite(known.boxes).all(axis=1)
    percent = np.nan_to_num(known.confidence, nan=1.0).clip(0, 1) * 100
    codes = np.where(known.lost, LOST, FOLLOWED) + percent.round()
    codes[~there] = UNKNOWN
    codes[known.keys] = KEY
    return codes.astype(np.uint8)


def _differing(before: Reach, now: Reach, *, every: bool) -> list[tuple[int, int]]:
    """The frames, as ranges, that tracks reach at one time and not at another.

    Tracks only grow at their end or are cut short, so all other frames are the same.

    Args:
        before: from ``Session.reach``.
        now: the same, later.
        every: all that is reached at either time.
    """
    ranges = []
    for key, step in before.keys() | now.keys():
        first, last = before.get((key, step)), now.get((key, step))
        if first == last and not every:
            continue
        ends = [end for end in (first, last) if end is not None]
        if every or len(ends) == 1:
            ends.append(key)
        ranges.append((min(ends), max(ends) + 1))
    return ranges


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Joins ranges of frames that meet or overlap, in rising order."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged
