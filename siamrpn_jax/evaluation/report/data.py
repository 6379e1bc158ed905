"""What a report of an evaluation shows: plain figures, and the paper's own tables."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from siamrpn_jax.data.read.images import read_image
from siamrpn_jax.evaluation.ope.metrics import OpeMetrics
from siamrpn_jax.evaluation.vot.dataset import VotSequence
from siamrpn_jax.evaluation.vot.metrics import (
    AttributeFigures,
    PartFigures,
    Trajectory,
    UnsupervisedFigures,
    VotFigures,
)
from siamrpn_jax.evaluation.vot.regions import FAILED, STARTED
from siamrpn_jax.evaluation.vot.years import NAMES


@dataclasses.dataclass(frozen=True, eq=False)
class StripFrame:
    """One picture of a strip.

    Regions are float arrays as in VOT's files: ``[4]`` x, y, width, height, or ``[2n]``
    corners x, y, …; in continuous pixels.
    """

    index: int
    """Number of the frame, from 0."""
    image: np.ndarray
    """RGB uint8 ``[H, W, 3]``."""
    predicted: np.ndarray | None = None
    """What the tracker found."""
    truth: np.ndarray | None = None
    """The annotation."""


@dataclasses.dataclass(frozen=True, eq=False)
class VotFailure:
    """A place where a tracker lost its target."""

    sequence: str
    """Name of the sequence."""
    frame: int
    """Number of the frame, from 0."""
    repetition: int = 1
    """Run in which it happened, from 1."""
    strip: tuple[StripFrame, ...] = ()
    """Pictures from before the failure, in order; none where there are no images."""


@dataclasses.dataclass(frozen=True, eq=False)
class VotEntry:
    """A tracker's figures in a VOT experiment; None where there is no such figure."""

    tracker: str
    """Name."""
    eao: float | None
    """Expected average overlap."""
    accuracy: float | None
    """Mean overlap in 0..1."""
    robustness: float | None
    """Failures per 100 frames."""
    failures: float | None
    """Number of failures over all sequences, mean over repetitions."""
    curve: np.ndarray | None
    """``[L]``: expected average overlap; element i is for sequences of i + 1 frames."""
    sequences: Mapping[str, PartFigures]
    """By name of sequence."""
    attributes: Mapping[str, AttributeFigures] = dataclasses.field(default_factory=dict)
    """By name of attribute."""
    fps: float | None = None
    """Frames a second, the device waited for, compilation and decoding excluded."""
    efo_estimate: float | None = None
    """Estimate of VOT's normalised speed; shown as an estimate only."""
    lost: tuple[VotFailure, ...] = ()
    """Where the target was lost."""
    missing: tuple[str, ...] = ()
    """Sequences without results: the figures are then shown as incomplete, unranked."""
    note: str = ""
    """Where the results come from, for example a folder or a name of weights."""

    @classmethod
    def of(
        cls,
        tracker: str,
        figures: VotFigures | UnsupervisedFigures,
        sequences: Iterable[VotSequence],
        **more: Any,
    ) -> Self:
        """An entry from the figures of ``siamrpn_jax.evaluation.vot.metrics``.

        Args:
            tracker: its name.
            figures: as they were computed.
            sequences: what was evaluated.
            more: the fields from ``fps`` on.
        """
        if isinstance(figures, VotFigures):
            return cls(
                tracker,
                eao=_known(figures.eao),
                accuracy=_known(figures.accuracy),
                robustness=figures.robustness,
                failures=figures.failures,
                curve=figures.curve,
                sequences=figures.sequences,
                attributes=figures.attributes,
                **more,
            )
        lengths = {sequence.name: len(sequence) for sequence in sequences}
        parts = {
            name: PartFigures(lengths[name], overlap, float("nan"))
            for name, overlap in figures.sequences.items()
        }
        overlap = figures.average_overlap
        return cls(tracker, None, overlap, None, None, None, parts, **more)

    @property
    def failures_per_sequence(self) -> float | None:
        """The paper's column "Failure"."""
        if self.failures is None or not self.sequences:
            return None
        return self.failures / len(self.sequences)


@dataclasses.dataclass(frozen=True, eq=False)
class VotBenchmark:
    """A VOT experiment: trackers whose figures share one convention."""

    dataset: str
    """For example "vot2018"."""
    experiment: str
    """"baseline", "realtime" or "unsupervised"."""
    convention: str
    """"legacy" or "toolkit"."""
    overlap: str
    """How overlaps were measured: "pysot", "official", "toolkit", …."""
    interval: tuple[int, int] | None
    """Lengths of sequences over which EAO is the mean of the curve."""
    entries: tuple[VotEntry, ...]
    """The trackers."""


COST = (
    "ms: median of an update. GFLOP: search branch of a frame, a multiply-add counts "
    "as 2."
)
"""What the columns of ``OpeEntry.cost`` are."""


@dataclasses.dataclass(frozen=True, eq=False)
class OpeEntry:
    """A tracker's figures in a one-pass evaluation."""

    tracker: str
    """Name."""
    metrics: OpeMetrics
    """Mean over sequences."""
    sequences: Mapping[str, OpeMetrics]
    """By name of sequence."""
    extra: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """More figures, a column each, for example AO, SR.50 and SR.75."""
    fps: float | None = None
    """As in ``VotEntry``."""
    missing: tuple[str, ...] = ()
    """As in ``VotEntry``."""
    note: str = ""
    """As in ``VotEntry``."""
    cost: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    """What a frame costs, a column each; None where it is not known."""


@dataclasses.dataclass(frozen=True, eq=False)
class OpeBenchmark:
    """A one-pass evaluation: trackers whose figures share one convention."""

    dataset: str
    """For example "OTB2015"."""
    convention: str
    """In words, for example "first frame excluded"."""
    entries: tuple[OpeEntry, ...]
    """The trackers."""


@dataclasses.dataclass(frozen=True)
class StudyColumn:
    """A column of a study, a line of its figure."""

    name: str
    """For example "first + second, vot2016"."""
    values: tuple[float | None, ...]
    """EAO of each row; None where there is none."""
    reported: bool = False
    """The paper's figures, not measured here."""
    dashed: bool = False
    """How the line is drawn."""


@dataclasses.dataclass(frozen=True)
class Study:
    """Networks that differ in one thing: a table and a figure."""

    title: str
    """Heading."""
    note: Sequence[str]
    """Pieces of text; every second one is set in bold."""
    over: str
    """What the rows are."""
    rows: tuple[str, ...]
    """Their names."""
    columns: tuple[StudyColumn, ...]
    """The figures."""
    missing: Mapping[tuple[int, int], str]
    """Why figures are missing, by row and column."""


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """One page."""

    title: str
    """Heading."""
    vot: tuple[VotBenchmark, ...] = ()
    """VOT experiments, a section each."""
    ope: tuple[OpeBenchmark, ...] = ()
    """One-pass evaluations, a section each."""
    studies: tuple[Study, ...] = ()
    """Studies, a section each."""
    about: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """How the figures came about: command, device, versions, …; shown as they are."""


@dataclasses.dataclass(frozen=True)
class Reported:
    """A row of the paper's tables: measured by others, elsewhere."""

    tracker: str
    """Name."""
    eao: float
    """Expected average overlap."""
    accuracy: float
    """Mean overlap."""
    failures_per_sequence: float
    """Column "Failure"."""
    efo: float
    """VOT's normalised speed."""
    fps: float | None = None
    """Frames a second, where the paper's text names them."""


REPORTED_SEQUENCES = len(NAMES["vot2015"])
"""Sequences of the data sets of Tables 1 and 2."""

REPORTED: Mapping[str, tuple[str, tuple[Reported, ...]]] = {
    "vot2015": (
        "Table 1",
        (
            Reported("DeepSRDCF", 0.3181, 0.56, 1.0, 0.38),
            Reported("EBT", 0.313, 0.45, 1.02, 1.76),
            Reported("SRDCF", 0.2877, 0.55, 1.18, 1.99),
            Reported("LDP", 0.2785, 0.49, 1.3, 4.36),
            Reported("sPST", 0.2767, 0.54, 1.42, 1.01),
            Reported("SC-EBT", 0.2548, 0.54, 1.72, 0.8),
            Reported("NSAMF", 0.2536, 0.53, 1.29, 5.47),
            Reported("Struck", 0.2458, 0.46, 1.5, 2.44),
            Reported("RAJSSC", 0.242, 0.57, 1.75, 2.12),
            Reported("S3Tracker", 0.2403, 0.52, 1.67, 14.27),
            Reported("SiamFC-3s", 0.2915, 0.54, 1.42, 8.68),
            Reported("SiamFC-5s", 0.275, 0.53, 1.45, 7.84),
            Reported("SiamRPN", 0.358, 0.58, 0.93, 23.0, fps=160),
        ),
    ),
    "vot2016": (
        "Table 2",
        (
            Reported("C-COT", 0.331, 0.53, 0.85, 0.507),
            Reported("ECO-HC", 0.322, 0.53, 1.08, 15.13),
            Reported("Staple", 0.2952, 0.54, 1.35, 11.14),
            Reported("EBT", 0.2913, 0.47, 0.9, 3.011),
            Reported("MDNet_N", 0.257, 0.54, 1.2, 0.534),
            Reported("SiamRN", 0.2766, 0.55, 1.37, 5.44),
            Reported("SiamAN", 0.2352, 0.53, 1.65, 9.21),
            Reported("SiamRPN", 0.3441, 0.56, 1.08, 23.3, fps=160),
        ),
    ),
}
"""Data set -> table and rows of Li et al. (CVPR 2018), in the paper's order; 160 frames
a second on a GTX 1060 are the paper's text (5.1-5.3)."""


REPORTED_REALTIME = (
    "The paper reports this experiment (5.4, Fig. 8) as ratios only: its EAO is 14 % "
    "above that of CSRDCF++, second, and 33 % above that of SiamFC, third."
)
"""What Li et al. (CVPR 2018) say of VOT2017's real-time challenge."""

STRIP_FRAMES = 5
"""Pictures of a strip."""

STRIP_SPAN = 24
"""Frames before a failure at which its strip begins, if the tracker ran so long."""


def find_vot_failures(
    results: Mapping[str, Sequence[Trajectory]],
    sequences: Iterable[VotSequence],
    *,
    strips: int = 24,
) -> tuple[VotFailure, ...]:
    """All failures of a tracker, some with pictures.

    Args:
        results: name of a sequence -> its runs.
        sequences: where they were run; frames that are not there are not shown.
        strips: number of failures with pictures: the first one of a sequence each.

    Raises:
        siamrpn_jax.data.read.images.ImageError: a frame cannot be decoded.
    """
    found: list[VotFailure] = []
    for sequence in sequences:
        for number, run in enumerate(results.get(sequence.name, ()), start=1):
            codes = [row[0] if len(row) == 1 else np.nan for row in run]
            for frame in np.flatnonzero(np.equal(codes, FAILED)).tolist():
                new = all(one.sequence != sequence.name for one in found)
                strip: tuple[StripFrame, ...] = ()
                if new and sum(bool(one.strip) for one in found) < strips:
                    strip = _read_strip(sequence, run, frame)
                found.append(VotFailure(sequence.name, frame, number, strip))
    return tuple(found)


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _read_strip(
    sequence: VotSequence, run: Trajectory, frame: int
) -> tuple[StripFrame, ...]:
    """Pictures up to a failure, none from before the tracker was started."""
    starts = [i for i in range(frame) if len(run[i]) == 1 and run[i][0] == STARTED]
    begin = max([frame - STRIP_SPAN, 0, *starts])
    shown = np.unique(np.linspace(begin, frame, STRIP_FRAMES).astype(int)).tolist()
    # Annotations alone come with no frames at all.
    if not sequence.frames or not all(sequence.frames[i].is_file() for i in shown):
        return ()
    return tuple(
        StripFrame(
            index=i,
            image=read_image(sequence.frames[i]),
            predicted=run[i] if len(run[i]) > 1 else None,
            truth=sequence.regions[i],
        )
        for i in shown
    )


def reported_rows(benchmark: VotBenchmark) -> tuple[Reported, ...]:
    """The paper's rows on the same data and experiment; none elsewhere."""
    if benchmark.experiment != "baseline":
        return ()
    return REPORTED.get(benchmark.dataset, ("", ()))[1]
