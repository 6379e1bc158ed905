"""VOT's figures: accuracy, robustness, expected average overlap (EAO).

A run of a tracker on a sequence of T frames is T rows as in VOT's files, see
``siamrpn_jax.evaluation.vot.regions``: a code or a region for each frame. A tracker
that fails is started anew 5 frames later; the first 10 frames after a start do not
count for accuracy. Sources: Kristan et al., "The Visual Object Tracking VOT2015
challenge results" (EAO), and the programs that the years' figures come from. These
differ:

========================  ==============================  ==============================
what                      ``legacy`` (as published)       ``toolkit`` (Python toolkit)
========================  ==============================  ==============================
accuracy                  mean of all frames together;    mean of each run, of the runs,
                          runs are averaged first         then by length of sequences
parts of a run            begin 5 frames after a          begin at a start, end before a
                          failure; a failure in the       failure, however late it is
                          last 4 frames does not count
EAO over [low, high]      lengths low to high             lengths low + 1 to high + 1
weight of a part          1 / runs of the sequence        1
========================  ==============================  ==============================

``legacy`` follows PySOT, which differs from VOT's Matlab program where a failure lies
exactly 5 frames before the end: PySOT counts it for EAO.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Sequence as Items
from typing import Any, Literal

import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.evaluation.vot.dataset import VotSequence
from siamrpn_jax.evaluation.vot.regions import FAILED, STARTED, Overlap, area, overlaps

Convention = Literal["legacy", "toolkit"]
"""Whose formulas are taken."""

Trajectory = Items[np.ndarray]
"""A run: for each frame ``[1]`` a code, ``[4]`` a box or ``[2n]`` a polygon."""

DEFAULT_OVERLAP: Mapping[Convention, Overlap] = {
    "legacy": "pysot",
    "toolkit": "official",
}
"""The overlap that goes with each convention."""

INTERVALS: Mapping[int, tuple[int, int]] = {
    2015: (108, 371),
    2016: (108, 371),
    2017: (100, 356),
    2018: (100, 356),
    2019: (46, 291),
}
"""Lengths of sequences over which each year's EAO is a mean."""

BURN_IN = 10
"""Frames from a start on that do not count for accuracy."""

SKIP = 5
"""Frames from a failure to the next start."""

UNTAGGED = "empty"
"""Name of the frames without any attribute, as in PySOT."""


@dataclasses.dataclass(frozen=True)
class PartFigures:
    """Figures of one sequence."""

    frames: int
    """Its length."""
    accuracy: float
    """Mean overlap in 0..1; NaN where no frame counts."""
    failures: float
    """Number of failures, mean over runs."""


@dataclasses.dataclass(frozen=True)
class AttributeFigures(PartFigures):
    """Figures of the frames with an attribute, of all sequences."""

    eao: float
    """Parts of runs weigh by the share of their frames with the attribute, PySOT's
    rule; NaN where no part counts."""


@dataclasses.dataclass(frozen=True, eq=False)
class VotFigures:
    """Figures of the experiments with resets."""

    eao: float
    """Mean of the curve over the interval; NaN by the toolkit's formula where all
    fragments are shorter than that."""
    accuracy: float
    """Mean overlap in 0..1; NaN where no frame counts."""
    robustness: float
    """Failures per 100 frames."""
    failures: float
    """Number of failures over all sequences, mean over runs: PySOT's "lost number"."""
    weighted_failures: float
    """Failures a sequence, weighted by length: what the toolkit calls robustness."""
    convention: Convention
    """Whose formulas these are."""
    overlap: Overlap
    """How regions were drawn."""
    interval: tuple[int, int]
    """The one that was asked for; longer than the curve where sequences are short."""
    frames: int
    """Number of frames of all sequences."""
    curve: np.ndarray
    """``[L]``: expected average overlap; element i is for sequences of i + 1 frames."""
    sequences: Mapping[str, PartFigures]
    """By name of sequence."""
    attributes: Mapping[str, AttributeFigures]
    """By name of attribute; empty where none are annotated."""

    def as_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON: NaN becomes None."""
        return _plain(self)


@dataclasses.dataclass(frozen=True, eq=False)
class UnsupervisedFigures:
    """Figures of the experiment without resets."""

    average_overlap: float
    """Mean overlap in 0..1."""
    convention: Convention
    """legacy: frames after the first, sequences weigh the same. toolkit: frames after
    the burn-in, sequences weigh by their length."""
    overlap: Overlap
    """How regions were drawn."""
    frames: int
    """Number of frames of all sequences."""
    sequences: Mapping[str, float]
    """Mean overlap by name of sequence."""

    def as_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON: NaN becomes None."""
        return _plain(self)


def evaluate(
    results: Mapping[str, Items[Trajectory]],
    sequences: Iterable[VotSequence],
    *,
    interval: tuple[int, int],
    convention: Convention = "legacy",
    overlap: Overlap | None = None,
) -> VotFigures:
    """Evaluates the runs of one tracker in an experiment with resets.

    Args:
        results: name of a sequence -> its runs. Other names are left alone.
        sequences: what is evaluated.
        interval: lengths of sequences that EAO is about, see ``interval_of``.
        convention: whose formulas are taken.
        overlap: how regions are drawn; None: as ``DEFAULT_OVERLAP`` says.

    Raises:
        InputError: sequences without results, all named; a run with more or fewer rows
            than the sequence has frames, or whose starts and failures do not take
            turns; ground truth that is NaN or without area; no sequence; or none long
            enough for the interval; a row is no region.
    """
    rules = _rules(convention, overlap)
    paired = _paired(results, sequences)
    _check_interval(interval, max(len(sequence) for sequence, _ in paired), rules)
    runs = [
        _measure(sequence, number, run, rules, share=1 / len(given))
        for sequence, given in paired
        for number, run in enumerate(given, start=1)
    ]
    by_name = _by_sequence(runs)
    length = np.array([len(own[0].sequence) for own in by_name.values()])
    lost = np.array([_failures(own) for own in by_name.values()])
    everything = [np.ones(len(run.sequence)) for run in runs]
    curve = _curve(runs, everything, rules)
    return VotFigures(
        eao=_score(curve, interval, rules),
        accuracy=_accuracy(by_name, rules),
        robustness=float(100 * lost.sum() / length.sum()),
        failures=float(lost.sum()),
        weighted_failures=float((lost * length).sum() / length.sum()),
        convention=rules.convention,
        overlap=rules.overlap,
        interval=interval,
        frames=int(length.sum()),
        curve=curve,
        sequences={
            name: PartFigures(
                frames=len(own[0].sequence),
                accuracy=_sequence_accuracy(own, rules),
                failures=_failures(own),
            )
            for name, own in by_name.items()
        },
        attributes=_attributes(runs, interval, rules),
    )


def evaluate_unsupervised(
    results: Mapping[str, Items[Trajectory]],
    sequences: Iterable[VotSequence],
    *,
    convention: Convention = "legacy",
    overlap: Overlap | None = None,
) -> UnsupervisedFigures:
    """Evaluates the runs of one tracker in the experiment without resets.

    Args:
        results: name of a sequence -> its runs, with one start and no failure.
        sequences: what is evaluated.
        convention: see ``UnsupervisedFigures.convention``.
        overlap: how regions are drawn; None: as ``DEFAULT_OVERLAP`` says.

    Raises:
        InputError: as ``evaluate`` says, and for a run with a failure; a row is no
            region.
    """
    rules = _rules(convention, overlap)
    burn_in = 1 if convention == "legacy" else BURN_IN
    means, lengths = {}, []
    for sequence, given in _paired(results, sequences):
        lengths.append(len(sequence))
        means[sequence.name] = np.mean(
            [
                _mean_without_resets(
                    _measure(sequence, number, run, rules, burn_in=burn_in)
                )
                for number, run in enumerate(given, start=1)
            ]
        ).item()
    weights = lengths if convention == "toolkit" else None
    return UnsupervisedFigures(
        average_overlap=float(np.average(list(means.values()), weights=weights)),
        convention=rules.convention,
        overlap=rules.overlap,
        frames=sum(lengths),
        sequences=means,
    )


def interval_of(year: int) -> tuple[int, int]:
    """Lengths of sequences that a year's EAO is about.

    Raises:
        InputError: there is none for that year.
    """
    if year not in INTERVALS:
        known = ", ".join(str(known) for known in INTERVALS)
        raise InputError(
            f"VOT{year}: no interval of EAO is known, expected one of {known}"
        )
    return INTERVALS[year]


@dataclasses.dataclass(frozen=True)
class _Rules:
    convention: Convention
    overlap: Overlap


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """One run, measured."""

    sequence: VotSequence
    starts: np.ndarray
    """Frames where the tracker was started."""
    failures: np.ndarray
    """Frames where it failed."""
    overlaps: np.ndarray
    """``[T]``: for EAO; 0 where there is no region."""
    counted: np.ndarray
    """``[T]``: for accuracy; NaN where a frame does not count."""
    share: float
    """1 / number of runs of the sequence."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Fragment:
    """A part of a run between two starts, as EAO sees it."""

    overlaps: np.ndarray
    """``[N]`` from the start on; the first one is never used."""
    failed: bool
    """Whether zeros follow for ever; else nothing is known of what would follow."""
    weight: float


def _rules(convention: Convention, overlap: Overlap | None) -> _Rules:
    if convention not in DEFAULT_OVERLAP:
        raise InputError(f"convention {convention!r}: expected 'legacy' or 'toolkit'")
    return _Rules(convention, overlap or DEFAULT_OVERLAP[convention])


def _paired(
    results: Mapping[str, Items[Trajectory]], sequences: Iterable[VotSequence]
) -> list[tuple[VotSequence, Items[Trajectory]]]:
    """Sequences with their runs; all must be there."""
    sequences = list(sequences)
    missing = [s.name for s in sequences if not results.get(s.name)]
    if missing:
        raise InputError(
            f"no results for {len(missing)} of {len(sequences)} sequences: "
            f"{', '.join(missing)}"
        )
    if not sequences:
        raise InputError("no sequence: expected at least one")
    for sequence in sequences:
        _check_truth(sequence)
    return [(sequence, results[sequence.name]) for sequence in sequences]


def _check_truth(sequence: VotSequence) -> None:
    for index, region in enumerate(sequence.regions):
        good = region.size >= 4 and np.isfinite(region).all() and area(region) > 0
        if not good:
            raise InputError(
                f"{sequence.name}: ground truth of frame {index} is {region.tolist()}, "
                "expected finite numbers of a region with an area"
            )


def _measure(
    sequence: VotSequence,
    number: int,
    run: Trajectory,
    rules: _Rules,
    *,
    share: float = 1.0,
    burn_in: int = BURN_IN,
) -> _Run:
    """Checks a run and measures its overlaps."""
    where = f"{sequence.name}, run {number}"
    if len(run) != len(sequence):
        raise InputError(
            f"{where}: {len(run)} rows of results for {len(sequence)} frames, expected "
            "one for each"
        )
    codes = np.array([row[0] if len(row) == 1 else np.nan for row in run])
    starts, failures = np.flatnonzero(codes == STARTED), np.flatnonzero(codes == FAILED)
    _check_turns(codes, where)
    size = sequence.size
    clipped = overlaps(run, sequence.regions, size, convention=rules.overlap)
    counted = clipped.copy()
    for start in starts:
        counted[start : start + burn_in] = np.nan
    if size and rules == _Rules("legacy", "pysot"):  # its EAO knows a smaller image
        size = (size[0] - 1, size[1] - 1)
        clipped = overlaps(run, sequence.regions, size, convention=rules.overlap)
    return _Run(sequence, starts, failures, np.nan_to_num(clipped), counted, share)


def _check_turns(codes: np.ndarray, where: str) -> None:
    """A run begins with a start, and starts and failures take turns."""
    events = np.flatnonzero((codes == STARTED) | (codes == FAILED))
    expected = np.where(np.arange(len(events)) % 2 == 0, STARTED, FAILED)
    wrong = events[codes[events] != expected]
    if not len(events) or events[0] != 0 or len(wrong):
        frame = wrong[0] if len(wrong) and events[0] == 0 else 0
        raise InputError(
            f"{where}: row {frame + 1} does not fit, expected a 1 (start) in the first "
            "row, then 2 (failure) and 1 in turns"
        )


def _by_sequence(runs: Iterable[_Run]) -> dict[str, list[_Run]]:
    found: dict[str, list[_Run]] = {}
    for run in runs:
        found.setdefault(run.sequence.name, []).append(run)
    return found


def _failures(runs: Items[_Run]) -> float:
    return float(np.mean([len(run.failures) for run in runs]))


def _accuracy(runs: Mapping[str, Items[_Run]], rules: _Rules) -> float:
    if rules.convention == "legacy":
        return _mean(np.concatenate([_frame_means(own) for own in runs.values()]))
    means = [_sequence_accuracy(own, rules) for own in runs.values()]
    return float(
        np.average(means, weights=[len(own[0].sequence) for own in runs.values()])
    )


def _sequence_accuracy(runs: Items[_Run], rules: _Rules) -> float:
    if rules.convention == "legacy":
        return _mean(_frame_means(runs))
    # The toolkit counts a run without frames that count as 0.
    return float(np.mean([np.nan_to_num(_mean(run.counted)) for run in runs]))


def _frame_means(runs: Items[_Run]) -> np.ndarray:
    """Mean over runs in each frame, ``[T]``; NaN where it counts in none."""
    counted = np.stack([run.counted for run in runs])
    valid = ~np.isnan(counted)
    with np.errstate(invalid="ignore"):
        return np.where(valid, counted, 0).sum(axis=0) / valid.sum(axis=0)


def _mean(values: np.ndarray) -> float:
    """Mean of what is not NaN; NaN where all is."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


def _mean_without_resets(run: _Run) -> float:
    if len(run.failures):
        raise InputError(
            f"{run.sequence.name}: a failure in frame {run.failures[0]}, expected none "
            "in the experiment without resets"
        )
    mean = _mean(run.counted)
    if np.isnan(mean):
        raise InputError(
            f"{run.sequence.name}: none of its {len(run.counted)} frames counts, "
            "expected regions after the burn-in"
        )
    return mean


def _curve(runs: Items[_Run], tags: Items[np.ndarray], rules: _Rules) -> np.ndarray:
    """Expected average overlap for sequences of 1, 2, … frames.

    For a length, a fragment that lasted so long, or that failed before and goes on with
    zeros, gives its mean overlap without the first frame; others say nothing.

    Args:
        runs: all runs.
        tags: for each run ``[T]``, 1 in the frames that it is about.
        rules: the convention.

    Returns:
        ``[L]``, L the longest sequence (legacy) or fragment (toolkit); NaN where no
        fragment says anything. The first is 1: a box that is given is right.
    """
    legacy = rules.convention == "legacy"
    cut = _legacy_fragments if legacy else _toolkit_fragments
    pairs = zip(runs, tags, strict=True)
    fragments = [fragment for run, tag in pairs for fragment in cut(run, tag)]
    whole = (
        [run.overlaps for run in runs] if legacy else [f.overlaps for f in fragments]
    )
    length = max(len(values) for values in whole)
    total, weights = np.zeros(length - 1), np.zeros(length - 1)
    for fragment in fragments:
        padded = np.zeros(length)
        padded[: len(fragment.overlaps)] = fragment.overlaps
        usable = length - 1 if fragment.failed else len(fragment.overlaps) - 1
        means = np.cumsum(padded[1:]) / np.arange(1, length)
        total[:usable] += fragment.weight * means[:usable]
        weights[:usable] += fragment.weight
    with np.errstate(invalid="ignore"):
        return np.concatenate([[1.0], total / weights])


def _legacy_fragments(run: _Run, tag: np.ndarray) -> Iterator[_Fragment]:
    """Fragments as PySOT cuts them: with the next one's first frame as the last."""
    length = len(run.overlaps)
    begins = [0, *(f + SKIP for f in run.failures if f + SKIP <= length)]
    for index, begin in enumerate(begins):
        failed = index + 1 < len(begins)
        end = begins[index + 1] + 1 if failed else length
        if end > begin:
            # Where the next one would begin right after the run, PySOT divides by one
            # frame more than there is.
            weight = run.share * tag[begin:end].sum() / (end - begin)
            yield _Fragment(run.overlaps[begin:end], failed, weight)


def _toolkit_fragments(run: _Run, tag: np.ndarray) -> Iterator[_Fragment]:
    """Fragments from each start to the failure after it, or to the end."""
    ends = [*run.failures, len(run.overlaps)]
    for index, begin in enumerate(run.starts):
        end = ends[index]
        failed = index < len(run.failures)
        yield _Fragment(run.overlaps[begin:end], failed, tag[begin:end].mean())


def _score(curve: np.ndarray, interval: tuple[int, int], rules: _Rules) -> float:
    """Mean of the curve over the interval, as far as the curve goes."""
    begin = _first_index(interval, rules)
    return _mean(curve[begin : begin + interval[1] - interval[0] + 1])


def _first_index(interval: tuple[int, int], rules: _Rules) -> int:
    return interval[0] - 1 if rules.convention == "legacy" else interval[0]


def _check_interval(interval: tuple[int, int], longest: int, rules: _Rules) -> None:
    low, high = interval
    if not 1 <= low <= high:
        raise InputError(f"interval {list(interval)}: expected 1 <= low <= high")
    if _first_index(interval, rules) >= longest:
        raise InputError(
            f"EAO over lengths {list(interval)}: the longest sequence has {longest} "
            "frames; expected longer ones, or another interval"
        )


def _attributes(
    runs: Items[_Run], interval: tuple[int, int], rules: _Rules
) -> dict[str, AttributeFigures]:
    names = list(dict.fromkeys(n for run in runs for n in run.sequence.attributes))
    if not names:
        return {}
    return {
        name: _attribute(
            runs, [_tag(run.sequence, name) for run in runs], interval, rules
        )
        for name in [*names, UNTAGGED]
    }


def _attribute(
    runs: Items[_Run],
    tags: Items[np.ndarray],
    interval: tuple[int, int],
    rules: _Rules,
) -> AttributeFigures:
    pairs = list(zip(runs, tags, strict=True))
    weights = [run.share for run in runs]

    def total(count: Callable[[_Run, np.ndarray], float]) -> float:
        return float(np.dot([count(run, tag) for run, tag in pairs], weights))

    tagged = [
        dataclasses.replace(run, counted=np.where(tag > 0, run.counted, np.nan))
        for run, tag in pairs
    ]
    means = [_frame_means(own) for own in _by_sequence(tagged).values()]
    return AttributeFigures(
        frames=round(total(lambda run, tag: tag.sum())),
        accuracy=_mean(np.concatenate(means)),
        failures=total(lambda run, tag: tag[run.failures].sum()),
        eao=_score(_curve(runs, tags, rules), interval, rules),
    )


def _tag(sequence: VotSequence, name: str) -> np.ndarray:
    """``[T]``, 1 in the frames with an attribute."""
    none = np.zeros(len(sequence))
    if name == UNTAGGED:
        every = [np.asarray(tag, float) for tag in sequence.attributes.values()]
        return 1 - np.max([none, *every], axis=0)
    return np.asarray(sequence.attributes.get(name, none), float)


def _plain(value: Any) -> Any:
    """Dataclasses, arrays and NaN as JSON has them."""
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {field.name: _plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
