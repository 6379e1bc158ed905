"""Turns, rounds and ratios, by a clock that only calls move."""

import time

import pytest

from experiments.benchmarks.timing import Plan, Timing, measure, ratio


class Clock:
    """Time passes in calls and rests alone; remembers who ran."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.log.append("rest")
        self.now += seconds

    def contestant(self, name, *seconds):
        durations = iter(seconds)
        last = seconds[-1]

        def call():
            self.log.append(name)
            self.now += next(durations, last)

        return call


def run(clock, contestants, plan, **options):
    return measure(contestants, plan=plan, clock=clock, sleep=clock.sleep, **options)


def test_the_first_calls_of_a_turn_do_not_count():
    clock = Clock()
    plan = Plan(rounds=1, turn_seconds=0.0, calls=3, skipped=2, rest_seconds=0.5)
    times = run(clock, {"a": clock.contestant("a", 9, 8, 3, 1, 2)}, plan)
    # The first call took longer than a turn: it is the only one that is skipped.
    assert times["a"].rounds == ((8.0, 3.0, 1.0),)
    clock = Clock()
    plan = Plan(rounds=1, turn_seconds=5.0, calls=3, skipped=2, rest_seconds=0.0)
    times = run(clock, {"a": clock.contestant("a", 1, 1, 3, 1, 2)}, plan)
    assert times["a"].rounds == ((3.0, 1.0, 2.0),)


def test_a_turn_lasts_until_its_time_is_used():
    clock = Clock()
    plan = Plan(rounds=1, turn_seconds=1.0, calls=2, skipped=0)
    times = run(clock, {"a": clock.contestant("a", 0.25)}, plan)
    assert times["a"].calls == 4


def test_the_order_turns_round_and_a_rest_comes_before_each_turn():
    clock = Clock()
    plan = Plan(rounds=2, turn_seconds=0.0, calls=1, skipped=0)
    run(clock, {n: clock.contestant(n, 1) for n in "ab"}, plan)
    assert clock.log == ["rest", "a", "rest", "b", "rest", "b", "rest", "a"]


def test_no_round_starts_after_the_deadline_but_for_the_first():
    clock = Clock()
    plan = Plan(rounds=5, turn_seconds=0.0, calls=1, skipped=0, rest_seconds=0)
    calls = {n: clock.contestant(n, 1) for n in "ab"}
    times = run(clock, calls, plan, deadline=3.0)
    assert len(times["a"].rounds) == len(times["b"].rounds) == 2
    assert len(run(clock, calls, plan, deadline=-1.0)["a"].rounds) == 1


def test_figures_of_a_timing():
    timing = Timing(((1.0, 2.0, 9.0), (4.0, 4.0, 4.0), (3.0, 3.0, 30.0)))
    assert timing.median == 3.0  # of 2, 4 and 3
    assert timing.percentile(50) == 4.0
    assert timing.percentile(100) == 30.0
    assert timing.calls == 9


def test_the_ratio_is_taken_within_rounds():
    """A machine that is twice as slow in one round leaves it as it is."""
    ours = Timing(((1.0,), (2.0,), (1.0,)))
    theirs = Timing(((2.0,), (4.0,), (2.5,)))
    assert ratio(ours, theirs) == pytest.approx(0.5)


def test_cpu_time_is_what_calls_compute_not_how_long_they_wait():
    plan = Plan(rounds=1, turn_seconds=0.0, calls=1, skipped=0, cpu_time=True)
    times = measure({"waits": lambda: time.sleep(0.05)}, plan=plan)
    assert times["waits"].median < 0.04
