import dataclasses
import json
import math
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paths import SHARED_DATA
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.evaluation import annotations
from siamrpn_jax.evaluation.vot import metrics
from siamrpn_jax.evaluation.vot.dataset import VotSequence
from siamrpn_jax.evaluation.vot.protocols import read_runs

PUBLISHED = SHARED_DATA / "published"

BOX = np.array([10.0, 10, 20, 20])
THIRD = np.array([20.0, 10, 20, 20])
"""Overlaps with BOX by a third in the official drawing: 10 of 30 columns."""
SHIFTED = 11 / 31
"""The same in PySOT's: 11 of 31 columns."""


def make_sequence(length, *, name="car", attributes=None, truth=BOX):
    tags = {k: np.array(v, bool) for k, v in (attributes or {}).items()}
    return VotSequence(name, (), (truth,) * length, (100, 80), tags, None)


def rows(text):
    """A run: ``=`` a box that is right, ``/`` a third, other characters codes."""
    boxes = {"=": BOX, "/": THIRD}
    return tuple(
        boxes.get(c, np.array([float(c)] if c.isdigit() else [])) for c in text
    )


def evaluate(text, *, interval=(10, 15), **options):
    """One run on one sequence."""
    sequence = make_sequence(len(text), attributes=options.pop("attributes", None))
    runs = {"car": [rows(text)]}
    return metrics.evaluate(runs, [sequence], interval=interval, **options)


TEXT = "1=========" + "/////2" + "0000" + "1========="
"""10 frames of burn-in, 5 that count, a failure, 4 without output, 10 of burn-in."""


@pytest.mark.parametrize(
    ("convention", "third"), [("legacy", SHIFTED), ("toolkit", 1 / 3)]
)
def test_hand_worked_run(convention, third):
    found = evaluate(TEXT, convention=convention)
    assert found.accuracy == pytest.approx(third)
    assert found.failures == 1
    assert found.robustness == pytest.approx(100 / 30)
    assert found.weighted_failures == 1
    assert found.frames == 30
    # Of two fragments both are whole up to length 10; then the failed one stays.
    expected = [1.0] * 10 + [(9 + third * min(n, 5)) / (9 + n) for n in range(1, 21)]
    if convention == "toolkit":  # knows no more than the longest fragment
        expected = expected[:15]
    assert found.curve == pytest.approx(expected)
    first = 9 if convention == "legacy" else 10
    assert found.eao == pytest.approx(np.mean(expected[first : first + 6]))
    assert found.overlap == ("pysot" if convention == "legacy" else "official")
    assert found.convention == convention
    assert found.interval == (10, 15)


def test_perfect_run():
    found = evaluate("1" + "=" * 29)
    assert (found.eao, found.accuracy, found.failures) == (1, 1, 0)


@pytest.mark.parametrize(
    ("tail", "legacy", "toolkit"), [(5, True, True), (4, False, True), (1, False, True)]
)
def test_failure_near_the_end(tail, legacy, toolkit):
    """5 frames before the end PySOT counts it, later it does not; the toolkit does."""
    text = "1" + "=" * (29 - tail) + "2" + "0" * (tail - 1)
    sequences = [make_sequence(30), make_sequence(60, name="long")]
    runs = {"car": [rows(text)], "long": [rows("1" + "=" * 59)]}
    answers: dict[metrics.Convention, bool] = {"legacy": legacy, "toolkit": toolkit}
    for convention, failed in answers.items():
        found = metrics.evaluate(
            runs, sequences, interval=(1, 50), convention=convention, overlap="official"
        )
        assert found.failures == 1
        # PySOT divides by the 31 frames to the next start, of which there are 30.
        weight = (30 / 31 if convention == "legacy" else 1) if failed else 0
        expected = (1 + weight * (29 - tail) / 59) / (1 + weight)
        assert found.curve[-1] == pytest.approx(expected)


def test_repetitions_share_the_weight_of_a_sequence():
    sequences = [make_sequence(20), make_sequence(20, name="b")]
    runs = {
        "car": [rows("1" + "=" * 19), rows("1" + "=" * 13 + "200001")],
        "b": [rows("1" + "=" * 19)],
    }
    legacy = metrics.evaluate(runs, sequences, interval=(20, 20))
    assert legacy.failures == 0.5
    assert legacy.robustness == pytest.approx(100 * 0.5 / 40)
    assert legacy.curve[-1] == pytest.approx((0.5 + 0.5 * 13 / 19 + 1) / 2)
    toolkit = metrics.evaluate(runs, sequences, interval=(19, 19), convention="toolkit")
    assert toolkit.curve[-1] == pytest.approx((1 + 13 / 19 + 1) / 3)


def test_accuracy_pools_frames_or_weighs_sequences():
    """10 good frames and 1 poor one, of sequences of 20 and 11 frames."""
    sequences = [make_sequence(20), make_sequence(11, name="b")]
    runs = {"car": [rows("1" + "=" * 19)], "b": [rows("1" + "/" * 10)]}
    legacy = metrics.evaluate(runs, sequences, interval=(5, 8), overlap="official")
    assert legacy.accuracy == pytest.approx((10 + 1 / 3) / 11)
    toolkit = metrics.evaluate(runs, sequences, interval=(5, 8), convention="toolkit")
    assert toolkit.accuracy == pytest.approx((20 + 11 / 3) / 31)
    part = toolkit.sequences["b"]
    assert (part.frames, part.failures) == (11, 0)
    assert part.accuracy == pytest.approx(1 / 3)


@st.composite
def run_texts(draw):
    """A run of 20 to 60 frames that fails where it likes, as VOT's runner writes it."""
    length, text = draw(st.integers(20, 60)), "1"
    while len(text) < length:
        if draw(st.integers(0, 9)) == 0:
            text += "200001"
        else:
            text += draw(st.sampled_from("=/"))
    return text[:length]


def slow_eao(runs, interval, convention):
    """EAO of runs of one sequence each, given as lists of overlaps and codes."""
    longest = max(len(text) for text in runs)
    curve, parts = {}, [0]
    for length in range(2, longest + 1):
        values, weights = [], []
        for text in runs:
            marks = [i for i, c in enumerate(text) if c == "2"]
            value = {"=": 1.0, "/": 1 / 3}
            overlaps = [value.get(c, 0.0) for c in text]
            if convention == "legacy":
                starts = [0] + [m + 5 for m in marks if m + 5 <= len(text)]
                ends = [s + 1 for s in starts[1:]] + [len(text)]
                failed = len(starts) - 1
            else:
                starts = [i for i, c in enumerate(text) if c == "1"]
                ends = [*marks, len(text)][: len(starts)]
                failed = len(marks)
            for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
                part = overlaps[start:end]
                parts.append(len(part))
                weight = len(part) / (end - start) if part else 0.0
                if k < failed:
                    part += [0.0] * longest
                if len(part) >= length:
                    values.append(weight * sum(part[1:length]) / (length - 1))
                    weights.append(weight)
        curve[length] = sum(values) / sum(weights)
    shift = 0 if convention == "legacy" else 1
    lengths = range(interval[0] + shift, interval[1] + shift + 1)
    last = longest if convention == "legacy" else max(parts)
    values = [curve[n] for n in lengths if n <= last]
    return np.mean(values) if values else math.nan


@given(st.lists(run_texts(), min_size=1, max_size=4), st.data())
def test_eao_against_loops(texts, data):
    low = data.draw(st.integers(2, 19))
    interval = (low, data.draw(st.integers(low, 70)))
    names = [f"s{index}" for index in range(len(texts))]
    sequences = [
        make_sequence(len(t), name=n) for t, n in zip(texts, names, strict=True)
    ]
    runs = {name: [rows(text)] for name, text in zip(names, texts, strict=True)}
    for convention in ("legacy", "toolkit"):
        found = metrics.evaluate(
            runs,
            sequences,
            interval=interval,
            convention=convention,
            overlap="official",
        )
        expected = slow_eao(texts, interval, convention)
        assert found.eao == pytest.approx(expected, nan_ok=True)
        lost = sum(text.count("2") for text in texts)
        assert found.failures == lost
        assert found.robustness == pytest.approx(100 * lost / sum(map(len, texts)))


@settings(max_examples=20)
@given(st.lists(run_texts(), min_size=2, max_size=3))
def test_order_of_sequences_is_nothing(texts):
    names = [f"s{index}" for index in range(len(texts))]
    sequences = [
        make_sequence(len(t), name=n) for t, n in zip(texts, names, strict=True)
    ]
    runs = {name: [rows(text)] for name, text in zip(names, texts, strict=True)}
    one = metrics.evaluate(runs, sequences, interval=(5, 20))
    other = metrics.evaluate(runs, sequences[::-1], interval=(5, 20))
    assert one.eao == pytest.approx(other.eao)
    assert one.accuracy == pytest.approx(other.accuracy, nan_ok=True)


def test_attributes():
    dark = [0] * 10 + [1] * 10 + [0] * 10
    found = evaluate(TEXT, attributes={"dark": dark}, overlap="official")
    assert set(found.attributes) == {"dark", "empty"}
    row = found.attributes["dark"]
    assert (row.frames, row.failures) == (10, 1)
    assert row.accuracy == pytest.approx(1 / 3)
    # Only the failed fragment, 21 frames of which 10 are dark, has a weight.
    curve = [1.0] * 10 + [(9 + n / 3) / (9 + n) for n in range(1, 6)]
    assert row.eao == pytest.approx(np.mean([*curve[9:], (9 + 5 / 3) / 15][:6]))
    rest = found.attributes["empty"]
    assert (rest.frames, rest.failures) == (20, 0)
    assert math.isnan(rest.accuracy)  # all frames that count are dark
    assert evaluate(TEXT).attributes == {}


def test_dictionary_for_json():
    found = evaluate(TEXT, attributes={"dark": [0] * 30}).as_dict()
    read = json.loads(json.dumps(found, allow_nan=False))
    assert read == found
    keys = {"eao", "accuracy", "robustness", "failures", "convention", "overlap"}
    assert keys | {"interval", "sequences"} <= set(read)
    assert read["interval"] == [10, 15]
    assert read["sequences"]["car"]["failures"] == 1
    assert read["attributes"]["dark"]["accuracy"] is None


def test_intervals():
    assert metrics.interval_of(2015) == metrics.interval_of(2016) == (108, 371)
    assert metrics.interval_of(2017) == metrics.interval_of(2018) == (100, 356)
    assert metrics.interval_of(2019) == (46, 291)
    with pytest.raises(InputError, match="VOT2020: no interval .* 2015, 2016"):
        metrics.interval_of(2020)


def test_short_sequences_have_no_eao():
    with pytest.raises(InputError, match=r"\[100, 356\]: the longest .* 30 frames"):
        evaluate(TEXT, interval=metrics.interval_of(2018))
    with pytest.raises(InputError, match=r"\[9, 8\]: expected 1 <= low <= high"):
        evaluate(TEXT, interval=(9, 8))


def test_missing_sequences_are_all_named():
    sequences = [make_sequence(30, name=name) for name in ("a", "b", "c")]
    with pytest.raises(InputError, match="2 of 3 sequences: a, c"):
        metrics.evaluate({"b": [rows(TEXT)], "a": []}, sequences, interval=(5, 9))
    with pytest.raises(InputError, match="no sequence"):
        metrics.evaluate({}, [], interval=(5, 9))


@pytest.mark.parametrize("count", [29, 31])
def test_rows_are_never_trimmed(count):
    sequences = [make_sequence(count)]
    with pytest.raises(InputError, match=f"car, run 1: 30 rows .* {count} frames"):
        metrics.evaluate({"car": [rows(TEXT)]}, sequences, interval=(5, 9))


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("====", 1),
        ("0===", 1),
        ("11==", 2),
        ("1=2=2", 5),
        ("2===", 1),
        ("1=20001=1", 9),
    ],
)
def test_starts_and_failures_take_turns(text, row):
    with pytest.raises(InputError, match=f"car, run 1: row {row} does not fit"):
        evaluate(text, interval=(1, 3))


@pytest.mark.parametrize(
    "truth", [[np.nan] * 4, [1, 2, 0, 4], [1, 1, 2, 2, 3, 3, 4, 4], [0]]
)
def test_bad_truth_is_named(truth):
    sequence = make_sequence(30, truth=np.array(truth, float))
    with pytest.raises(InputError, match="car: ground truth of frame 0 is .* an area"):
        metrics.evaluate({"car": [rows(TEXT)]}, [sequence], interval=(5, 9))


def test_bad_predictions_and_names():
    run = [*rows(TEXT)]
    run[3] = np.array([1, 2, np.nan, 4])
    with pytest.raises(InputError, match="nan"):
        metrics.evaluate({"car": [run]}, [make_sequence(30)], interval=(5, 9))
    with pytest.raises(InputError, match="convention 'matlab'"):
        evaluate(TEXT, convention="matlab")
    with pytest.raises(InputError, match="overlap 'exact'"):
        evaluate(TEXT, overlap="exact")


def test_without_resets():
    sequences = [make_sequence(20), make_sequence(40, name="b")]
    runs = {"car": [rows("1" + "=" * 19)], "b": [rows("1" + "/" * 19 + "=" * 20)]}
    legacy = metrics.evaluate_unsupervised(runs, sequences, overlap="official")
    b = (19 / 3 + 20) / 39
    assert legacy.sequences == {"car": 1, "b": pytest.approx(b)}
    assert legacy.average_overlap == pytest.approx((1 + b) / 2)
    assert (legacy.convention, legacy.overlap) == ("legacy", "official")
    toolkit = metrics.evaluate_unsupervised(runs, sequences, convention="toolkit")
    assert toolkit.average_overlap == pytest.approx((20 + 40 * (10 / 3 + 20) / 30) / 60)
    assert toolkit.as_dict()["frames"] == 60
    with pytest.raises(InputError, match="car: a failure in frame 15"):
        metrics.evaluate_unsupervised({"car": [rows(TEXT)]}, [make_sequence(30)])
    with pytest.raises(InputError, match="none of its 8 frames counts"):
        short = {"car": [rows("1=======")]}
        metrics.evaluate_unsupervised(short, [make_sequence(8)], convention="toolkit")


@pytest.mark.parametrize(
    ("tracker", "convention", "accuracy", "robustness", "lost", "weighted", "eao"),
    [
        ("LightTrack", "legacy", 0.5292, 0.1779, 38, None, 0.4182),
        ("NanoTrack", "legacy", 0.5424, 0.3278, 70, None, 0.3113),
        ("LightTrack", "toolkit", 0.535704, 0.1779, 38, 0.851143, 0.422287),
    ],
)
def test_published_results(
    tracker, convention, accuracy, robustness, lost, weighted, eao
):
    """Published: EAO .418 and .311; the toolkit's are its own, of version 0.9.0."""
    if not PUBLISHED.is_dir():
        pytest.skip("skipped: no ../shared")
    begin = time.perf_counter()
    sequences = annotations.read_vot_annotations(
        PUBLISHED / "groundtruth" / "VOT2018.json"
    )
    folder = PUBLISHED / "vot2018" / tracker / "baseline"
    runs = {
        one.name: [run.regions for run in read_runs(folder, one)] for one in sequences
    }
    found = metrics.evaluate(
        runs, sequences, interval=metrics.interval_of(2018), convention=convention
    )
    assert time.perf_counter() - begin < 60
    near = 5e-7 if convention == "toolkit" else 5e-5
    assert found.accuracy == pytest.approx(accuracy, abs=near)
    assert found.robustness == pytest.approx(robustness, abs=5e-5)
    assert found.failures == lost
    assert found.eao == pytest.approx(eao, abs=near)
    if weighted:
        assert found.weighted_failures == pytest.approx(weighted, abs=near)
    assert set(found.attributes) == {*annotations.PYSOT_ATTRIBUTES, "empty"}
    assert found.frames == 21356


@settings(max_examples=20)
@given(st.lists(run_texts(), min_size=1, max_size=4))
def test_against_the_python_toolkit(texts):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        toolkit = pytest.importorskip("vot.analysis.supervised", reason="no extra vot")
    overlaps, weights, success, accuracy = [], [], [], []
    for text in texts:
        values = np.array([{"=": 1.0, "/": 1 / 3}.get(c, 0.0) for c in text])
        starts = [i for i, c in enumerate(text) if c == "1"]
        failures = [i for i, c in enumerate(text) if c == "2"]
        for start, end in zip(starts, [*failures, len(text)], strict=False):
            overlaps.append(values[start:end].tolist())
            success.append(end not in failures)
            weights.append(1)
        masked = [
            any(start <= i < start + 10 for start in starts) for i in range(len(text))
        ]
        kept = [c in "=/" and not m for c, m in zip(text, masked, strict=True)]
        accuracy.append(values[kept].mean() if any(kept) else 0.0)
    names = [f"s{index}" for index in range(len(texts))]
    sequences = [
        make_sequence(len(t), name=n) for t, n in zip(texts, names, strict=True)
    ]
    runs = {name: [rows(text)] for name, text in zip(names, texts, strict=True)}
    found = metrics.evaluate(runs, sequences, interval=(5, 19), convention="toolkit")
    curve = toolkit.compute_eao_curve(overlaps, weights, success)[5:20]
    expected = np.mean(curve) if len(curve) else np.nan
    assert found.eao == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert found.accuracy == pytest.approx(
        np.average(accuracy, weights=[len(text) for text in texts]), abs=1e-6
    )


def test_figures_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        evaluate(TEXT).eao = 1.0  # type: ignore
