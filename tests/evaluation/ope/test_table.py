import numpy as np
import pytest

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.sequences import Sequence
from siamrpn_jax.evaluation.ope.table import (
    Benchmark,
    Convention,
    Entry,
    NetworkCost,
    as_json,
    evaluate_runs,
)
from siamrpn_jax.evaluation.runner import Run

PLAIN = Convention()
TOOLKIT = Convention(include_first=True, toolkit=True)
TRUTH = np.array([[10.0, 10, 20, 20]] * 4)


def run_of(boxes, seconds=np.nan):
    seconds = np.full(len(boxes), seconds)
    return Run(np.array(boxes, float), np.full(len(boxes), np.nan), seconds)


def benchmark_of(truths, *, name=None, whole=0, convention=PLAIN):
    sequences = tuple(Sequence(key, (), boxes) for key, boxes in truths.items())
    lengths = {key: len(boxes) for key, boxes in truths.items()}
    return Benchmark(name, sequences, truths, lengths, whole, convention)


@pytest.mark.parametrize(
    ("convention", "text"),
    [
        (PLAIN, "first frame excluded, absent frames excluded"),
        (
            Convention(include_first=True),
            "first frame included, absent frames excluded",
        ),
        (TOOLKIT, "first frame included, absent frames missed"),
    ],
)
def test_conventions_are_told(convention, text):
    assert str(convention) == text


def test_the_first_frame_counts_with_its_true_box():
    wrong = TRUTH.copy()
    wrong[0] = [10, 10, 30, 30]  # x1, y1, x2, y2, as some files begin
    assert evaluate_runs("a", (run_of(wrong),), TRUTH, TOOLKIT).auc == 20 / 21
    assert evaluate_runs("a", (run_of(wrong),), TRUTH, PLAIN).auc == 20 / 21


def test_boxes_that_do_not_begin_within_the_image():
    truth = TRUTH.copy()
    truth[1, 1] = -1.0  # 0 in files that count from 1
    truth[2, 1] = -0.5
    runs = (run_of(truth),)
    assert evaluate_runs("a", runs, truth, TOOLKIT).precision == 3 / 4
    assert evaluate_runs("a", runs, truth, PLAIN).precision == 1


def test_boxes_without_area():
    empty = TRUTH.copy()
    empty[2, 2] = 0
    runs = {"a": (run_of(empty),)}
    with pytest.raises(InputError, match=r"a: predicted box of frame 2 is \[10.0"):
        Entry.of("mine", runs, benchmark_of({"a": TRUTH}))
    benchmark = benchmark_of({"a": TRUTH}, convention=TOOLKIT)
    entry = Entry.of("mine", runs, benchmark)
    assert entry.repaired == {"a": 1}
    assert entry.sequences["a"].precision == 1
    assert as_json(entry, benchmark)["boxes_without_area"] == {"a": 1}


def test_speed_is_known_or_not():
    runs = {"a": (run_of(TRUTH, 0.5),), "b": (run_of(TRUTH),)}
    entry = Entry.of("mine", runs, benchmark_of({"a": TRUTH, "b": TRUTH}))
    assert entry.fps_of("a") == 2 and entry.fps_of("b") is None
    assert entry.fps is None and entry.ms is None


def test_milliseconds_are_the_median_of_all_updates():
    runs = [run_of(TRUTH, 0.5), run_of(TRUTH, 0.25), run_of(TRUTH, 0.25)]
    runs[2].seconds[0] = 99  # a start is no update
    entry = Entry.of(
        "mine",
        {"a": tuple(runs[:2]), "b": (runs[2],)},
        benchmark_of({"a": TRUTH, "b": TRUTH}),
        network=NetworkCost(1_500_000, 2_000_000_000),
    )
    assert entry.ms == 250
    assert entry.cost() == {"ms": 250, "M param": 1.5, "GFLOP": 2.0}
    report = as_json(entry, benchmark_of({"a": TRUTH, "b": TRUTH}))
    assert (report["parameters"], report["flops"]) == (1_500_000, 2_000_000_000)


@pytest.mark.parametrize(("whole", "complete"), [(1, True), (2, False)])
def test_parts_of_a_benchmark_are_told(whole, complete):
    benchmark = benchmark_of({"a": TRUTH}, name="otb", whole=whole)
    entry = Entry.of("mine", {"a": (run_of(TRUTH),)}, benchmark)
    report = as_json(entry, benchmark)
    assert (report["benchmark"], report["complete"]) == ("otb", complete)


def test_sequences_weigh_the_same_and_runs_of_one_too():
    far = TRUTH + [100, 0, 0, 0]
    runs = {"a": (run_of(TRUTH), run_of(far)), "b": (run_of(TRUTH),)}
    entry = Entry.of("mine", runs, benchmark_of({"a": TRUTH, "b": TRUTH}))
    assert entry.sequences["a"].precision == 0.5
    assert entry.mean is not None and entry.mean.precision == 0.75
