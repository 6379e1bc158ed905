"""Timing contestants side by side, in rounds.

A machine drifts: other processes come and go, clocks rise and fall. So every contestant
has a turn in every round, the order turns round from one round to the next, and a ratio
is taken within each round before the median over rounds is.

Neighbours disturb each other: after a call the thread pools of OpenMP (PyTorch) and of
ONNX Runtime spin for a while and take the cores from whoever runs next. So a turn
begins with a rest, a contestant calls several times in a row, and its first calls do
not count.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long contestants run."""

    rounds: int = 7
    """Rounds; fewer where the deadline comes first, but at least one."""
    turn_seconds: float = 0.3
    """A turn goes on until its counted calls took this long…"""
    calls: int = 3
    """… and were at least this many."""
    skipped: int = 2
    """First calls of a turn that do not count; one where it takes very long."""
    rest_seconds: float = 0.05
    """Pause before a turn, in which the pools of the one before fall asleep."""
    cpu_time: bool = False
    """Count the CPU seconds of all threads of this process, not those of the clock."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of all counted calls of a contestant, by round."""

    rounds: tuple[tuple[float, ...], ...]

    @property
    def medians(self) -> np.ndarray:
        """Median call of each round, ``[rounds]``."""
        return np.array([np.median(calls) for calls in self.rounds])

    @property
    def median(self) -> float:
        """Median over rounds of the rounds' medians."""
        return float(np.median(self.medians))

    def percentile(self, percent: float) -> float:
        """Percentile over the calls of all rounds."""
        return float(np.percentile(np.concatenate(self.rounds), percent))

    @property
    def calls(self) -> int:
        """Number of counted calls."""
        return sum(len(calls) for calls in self.rounds)


def ratio(ours: Timing, theirs: Timing) -> float:
    """Median over rounds of our time by theirs in the same round."""
    return float(np.median(ours.medians / theirs.medians))


def measure(
    contestants: Mapping[str, Callable[[], Any]],
    *,
    plan: Plan,
    deadline: float = float("inf"),
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Timing]:
    """Times contestants in interleaved rounds.

    Args:
        contestants: by name, functions that return when their work is done.
        plan: rounds and turns.
        deadline: no round starts later than this, but for the first one.
        clock: seconds that never go back.
        sleep: pauses for a number of seconds.
    """
    rounds: dict[str, list[tuple[float, ...]]] = {name: [] for name in contestants}
    for number in range(plan.rounds):
        if number and clock() >= deadline:
            break
        names = list(contestants)
        for name in names if number % 2 == 0 else reversed(names):
            sleep(plan.rest_seconds)
            counted = time.process_time if plan.cpu_time else clock
            rounds[name].append(_turn(contestants[name], plan, counted))
    return {name: Timing(tuple(turns)) for name, turns in rounds.items()}


def _turn(
    call: Callable[[], Any], plan: Plan, clock: Callable[[], float]
) -> tuple[float, ...]:
    begun = clock()
    for _ in range(plan.skipped):
        call()
        if clock() - begun >= plan.turn_seconds:
            break
    times: list[float] = []
    while len(times) < plan.calls or sum(times) < plan.turn_seconds:
        start = clock()
        call()
        times.append(clock() - start)
    return tuple(times)
