"""Races: who is built, checked against ours, timed, and noted in a row.

Nobody is timed whose output differs from ours, and nothing that one contestant does
(an absent package, a failed compilation) ends the run: it becomes a row that says so.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from experiments.benchmarks import timing
from experiments.benchmarks.timing import Plan, Timing
from siamrpn_jax.common.errors import InputError, MissingExtraError

Status = Literal["ok", "absent", "failed", "left out"]


class Running(NamedTuple):
    """A contestant that is ready."""

    call: Callable[[], Any]
    """One unit of work; returns when it is done."""
    check: Callable[[], Sequence[np.ndarray]] = tuple
    """The arrays that must equal those of the others, in our layout."""


@dataclasses.dataclass(frozen=True)
class Contestant:
    """Who takes part, and how equal its output must be."""

    name: str
    make: Callable[[], Running]
    """Builds it; ImportError and InputError mean that it is absent here."""
    tolerance: float | None = 1e-4
    """Largest error relative to the largest value; None where another algorithm runs,
    whose output is not to be compared."""
    seconds: float = 0
    """Left out where less time than this remains: what its preparation may take."""

    @classmethod
    def part(cls, name: str, call: Callable[[], Any]) -> "Contestant":
        """A part of some whole, compared with nobody."""
        return cls(name, lambda: Running(call), None)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table."""

    section: str
    case: str
    contestant: str
    status: Status
    note: str = ""
    """Why there is no figure, or what to know of it."""
    quantity: str = "ms"
    """What ``ratio`` compares: ``ms``, or a rate such as ``pairs/s``."""
    ratio: float | None = None
    """Ours by theirs: of times below 1, of rates above 1 where ours is faster."""
    max_error: float | None = None
    """Largest difference from ours, by the largest value of ours."""
    median_ms: float | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    rate: float | None = None
    """Units a second at the median."""
    rounds: int = 0
    calls: int = 0
    threads: int = 0


class Race(NamedTuple):
    """The rows of one race; the first contestant is ours."""

    rows: list[Row]

    def ratio(self, name: str) -> float | str:
        """Ours by that contestant, or the reason why there is none."""
        row = self[name]
        if row.ratio is not None:
            return row.ratio
        mine = self.rows[0]
        lacking = row if row.status != "ok" else mine
        return f"{lacking.contestant}: {lacking.status}: {lacking.note}"

    def value(self, name: str, field: str) -> float | str:
        """A figure of that contestant, or the reason why there is none."""
        row = self[name]
        value = getattr(row, field)
        return f"{name}: {row.status}: {row.note}" if value is None else value

    def __getitem__(self, name: Any) -> Row:
        return next(row for row in self.rows if row.contestant == name)


class Session:
    """What all sections share: the plan, the deadline, the rows and the targets.

    Args:
        plan: rounds and turns of every race.
        seconds: after these no further contestant is built.
        threads: of every contestant, for the rows.
        presets: networks that are wanted.
        show: called with every row.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        seconds: float,
        threads: int,
        presets: Iterable[str] = ("paper", "small", "base"),
        show: Callable[[Row], None] = lambda row: None,
    ):
        self.plan, self.threads, self.presets = plan, threads, tuple(presets)
        self.deadline = time.perf_counter() + seconds
        self.rows: list[Row] = []
        self.targets: dict[str, float | None] = {}
        self.reasons: dict[str, str] = {}
        self._show = show

    def expect(self, *names: str) -> None:
        """Declares targets, which stay null where nobody measures them."""
        for name in names:
            self.target(name, "left out")

    def target(self, name: str, value: float | str) -> None:
        """Sets a target, or says why it has no value."""
        missing = isinstance(value, str)
        self.targets[name] = None if missing else value
        self.reasons.pop(name, None)
        if missing:
            self.reasons[name] = value

    def add(self, row: Row) -> None:
        """Notes a row."""
        self.rows.append(row)
        self._show(row)

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.perf_counter()

    def race(
        self,
        section: str,
        case: str,
        contestants: Sequence[Contestant],
        *,
        amount: float = 1,
        quantity: str = "ms",
        seconds: float = 12,
        compare: bool = True,
        plan: Plan | None = None,
    ) -> Race:
        """Builds, checks and times contestants; the first is ours.

        Args:
            section: of the benchmark.
            case: what is done, with its sizes.
            contestants: in the order of the rows.
            amount: units that one call does.
            quantity: ``ms``, or the rate's unit such as ``pairs/s``.
            seconds: no round starts later, counted from the first.
            compare: False for parts of one whole, which do different things.
            plan: in place of the session's.
        """
        about: dict[str, Any] = dict(
            section=section, case=case, quantity=quantity, threads=self.threads
        )
        rows: dict[str, Row] = {}
        ready: dict[str, Callable[[], Any]] = {}
        ours = None
        for one in contestants:
            built = self._build(one, ours, first=not rows, compare=compare)
            row = Row(**about, contestant=one.name, status=built.status)
            rows[one.name] = dataclasses.replace(
                row, note=built.note, max_error=built.error
            )
            if built.call is not None:
                ready[one.name] = built.call
            if one is contestants[0]:
                ours = built.arrays
        deadline = min(self.deadline, time.perf_counter() + seconds)
        timings = timing.measure(ready, plan=plan or self.plan, deadline=deadline)
        mine = timings.get(contestants[0].name) if compare else None
        for name, theirs in timings.items():
            rows[name] = _timed(rows[name], theirs, mine, amount)
        for row in rows.values():
            self.add(row)
        return Race(list(rows.values()))

    def _build(
        self,
        one: Contestant,
        ours: Sequence[np.ndarray] | None,
        *,
        first: bool,
        compare: bool,
    ) -> "_Built":
        if self.seconds_left <= one.seconds:
            return _Built("left out", "no time left")
        compare = compare and one.tolerance is not None
        if compare and ours is None and not first:
            return _Built("left out", "nothing of ours to compare with")
        try:
            running = one.make()
            arrays = running.check() if compare else running.call()
        except (MissingExtraError, InputError) as problem:
            return _Built("absent", _line(problem))
        except Exception as problem:  # a contestant must not end the run
            return _Built("failed", _line(problem))
        if not compare:
            return _Built(call=running.call)
        error = None if first or ours is None else relative_error(arrays, ours)
        if error is None or error <= (one.tolerance or 0):
            return _Built("ok", "", running.call, arrays, error)
        note = f"differs by {error:.1e}, allowed {one.tolerance:.0e}"
        return _Built("failed", note, error=error)


class _Built(NamedTuple):
    """What became of a contestant."""

    status: Status = "ok"
    note: str = ""
    call: Callable[[], Any] | None = None
    arrays: Sequence[np.ndarray] | None = None
    error: float | None = None


def relative_error(
    arrays: Sequence[np.ndarray], expected: Sequence[np.ndarray]
) -> float:
    """Largest difference by the largest expected value, the worst of all arrays."""
    if [np.shape(a) for a in arrays] != [np.shape(e) for e in expected]:
        return float("inf")
    pairs = zip(arrays, expected, strict=True)
    return float(np.max([np.abs(a - e).max() / np.abs(e).max() for a, e in pairs]))


def _timed(row: Row, theirs: Timing, mine: Timing | None, amount: float) -> Row:
    ratio = None if mine is None else timing.ratio(mine, theirs)
    if ratio is not None and row.quantity != "ms":
        ratio = 1 / ratio
    return dataclasses.replace(
        row,
        ratio=ratio,
        median_ms=1e3 * theirs.median,
        p50_ms=1e3 * theirs.percentile(50),
        p90_ms=1e3 * theirs.percentile(90),
        p99_ms=1e3 * theirs.percentile(99),
        rate=amount / theirs.median,
        rounds=len(theirs.rounds),
        calls=theirs.calls,
    )


def _line(problem: Exception) -> str:
    """An exception in one short line."""
    text = f"{type(problem).__name__}: {problem}"
    return " ".join(text.split())[:160]
