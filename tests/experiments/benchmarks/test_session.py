"""Who is timed, who is not and why, and what is written of it."""

import json
import time

import numpy as np
import pytest

from experiments.benchmarks import report
from experiments.benchmarks.session import Contestant, Running, Session, relative_error
from experiments.benchmarks.timing import Plan
from siamrpn_jax.common.errors import MissingExtraError

PLAN = Plan(rounds=2, turn_seconds=0.0, calls=2, skipped=0, rest_seconds=0.0)


def contestant(name, value, **options):
    array = np.array([1.0, value])
    return Contestant(name, lambda: Running(lambda: None, lambda: [array]), **options)


def broken(name, error):
    def make():
        raise error

    return Contestant(name, make)


def session(**options):
    return Session(plan=PLAN, threads=1, **{"seconds": 60, **options})


def race(contestants, **options):
    return session(**options).race("track", "a case", contestants)


def test_equal_contestants_are_timed():
    rows = race([contestant("ours", 2.0), contestant("theirs", 2.0001)]).rows
    assert [row.status for row in rows] == ["ok", "ok"]
    assert rows[0].ratio == 1.0 and rows[0].max_error is None
    assert rows[1].max_error == pytest.approx(5e-5)
    assert rows[1].ratio is not None and rows[1].median_ms is not None
    assert (rows[1].rounds, rows[1].calls) == (2, 4)


def test_a_contestant_whose_output_differs_is_not_timed():
    row = race([contestant("ours", 2.0), contestant("theirs", 2.1)])["theirs"]
    assert row.status == "failed" and row.median_ms is None
    assert row.note == "differs by 5.0e-02, allowed 1e-04"


def test_another_algorithm_is_timed_without_comparison():
    entries = [contestant("ours", 2.0), contestant("kcf", 0.0, tolerance=None)]
    assert race(entries)["kcf"].ratio is not None


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MissingExtraError("torch is not installed"), "absent"),
        (ImportError("libfoo.so"), "failed"),
        (RuntimeError("out of memory"), "failed"),
    ],
)
def test_who_cannot_be_built_is_a_row_and_not_the_end(error, status):
    found = race([contestant("ours", 2.0), broken("theirs", error)])
    assert found["ours"].status == "ok"
    assert found["theirs"].status == status and str(error) in found["theirs"].note
    reason = found.ratio("theirs")
    assert isinstance(reason, str) and str(error) in reason


def test_without_ours_nobody_is_timed_but_who_is_not_compared():
    kcf = contestant("kcf", 0.0, tolerance=None)
    rows = race([broken("ours", RuntimeError()), contestant("theirs", 2.0), kcf]).rows
    assert [row.status for row in rows] == ["failed", "left out", "ok"]


def test_a_result_that_is_no_number_differs():
    found = race([contestant("ours", 2.0), contestant("theirs", np.nan)])
    assert found["theirs"].status == "failed"


def test_after_the_deadline_everyone_is_left_out():
    found = race([contestant("ours", 2.0)], seconds=0)
    assert found["ours"].status == "left out"
    slow = contestant("ours", 2.0, seconds=90)
    assert race([slow], seconds=60)["ours"].status == "left out"


def test_ratios_of_rates_are_above_one_where_ours_is_faster():
    def sleeper(name, seconds):
        running = Running(lambda: time.sleep(seconds), lambda: [np.ones(1)])
        return Contestant(name, lambda: running)

    running, entries = session(), [sleeper("ours", 0.001), sleeper("theirs", 0.01)]
    row = running.race("track", "times", entries)["theirs"]
    assert row.ratio is not None and row.ratio < 0.5
    row = running.race("many", "rates", entries, amount=8, quantity="frames/s")[
        "theirs"
    ]
    assert row.ratio is not None and row.ratio > 2
    assert row.rate is not None and 400 < row.rate <= 800


def test_relative_error_is_the_worst_of_all_arrays():
    ones = np.ones(3)
    assert relative_error([ones, ones * 2.5], [ones, ones * 2]) == 0.25
    assert relative_error([np.ones(2)], [ones]) == float("inf")


def test_the_report_has_all_that_it_promises(capsys):
    running = session(show=report.Printer())
    running.expect("late_vs_never", "paper_search_vs_torch")
    entries = [contestant("ours", 2.0), broken("torch", MissingExtraError("no torch"))]
    found = running.race("track", "a case", entries)
    running.target("paper_search_vs_torch", found.ratio("torch"))
    running.target("small_step_p50_ms", found.value("ours", "p50_ms"))
    written = report.make_report(running, report.machine(1), "benchmark track")
    written = json.loads(json.dumps(written, allow_nan=False))
    assert set(written) == {
        *("command", "date", "machine", "plan", "convention"),
        *("targets", "reasons", "rows"),
    }
    assert written["targets"]["late_vs_never"] is None
    assert written["reasons"]["late_vs_never"] == "left out"
    assert written["targets"]["paper_search_vs_torch"] is None
    assert "no torch" in written["reasons"]["paper_search_vs_torch"]
    assert written["targets"]["small_step_p50_ms"] > 0
    assert {"cpu", "cores", "threads", "versions"} <= set(written["machine"])
    assert {"median_ms", "p50_ms", "p99_ms", "rounds"} <= set(written["rows"][0])
    shown = capsys.readouterr().out
    assert "track: a case (1 thread)" in shown and "torch: absent" in shown
    assert "none (left out)" in report.format_targets(running)
