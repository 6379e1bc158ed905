"""The studies of section 5.6: the trainings they take, and where each figure stands.

A study is a plan: jobs, which are calls of ``siamrpn train`` and ``siamrpn eval-vot``,
and a table whose cells name a job and a data set. Nothing is run here.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model.config import RATIOS_3, RATIOS_5, RATIOS_7

ANCHORS = {"A3": RATIOS_3, "A5": RATIOS_5, "A7": RATIOS_7}
"""The ratios of section 5.6.2."""

TABLE_3 = ((0.279, 0.311), (0.317, 0.344), (0.304, 0.337))
"""EAO on VOT2016 of A3, A5 and A7, without and with YouTube-BB."""

_BOTH = "first + second"


@dataclasses.dataclass(frozen=True)
class Source:
    """What a study trains on and is judged by."""

    first: tuple[str, ...]
    """Folders of the first training set."""
    second: tuple[str, ...]
    """Folders of the second one."""
    datasets: tuple[str, ...]
    """VOT's data sets, by which columns and files are named."""
    shares: tuple[float, ...]
    """Shares of the videos that the study of data size takes."""
    center_sizes: tuple[int, ...]
    """Values of g in the study of the centre region."""
    backbone: str | None
    """The trained backbone of the study of fixed layers."""


class Job(NamedTuple):
    """A network that is trained, and how it tracks."""

    name: str
    train: tuple[str, ...]
    """Options of ``siamrpn train``."""
    track: tuple[str, ...] = ()
    """Options of ``siamrpn eval-vot``."""


class Place(NamedTuple):
    """Where a figure comes from."""

    job: str
    dataset: str
    tracker: int = 0
    """Which of the trackers of one evaluation."""


class Column(NamedTuple):
    """A column of a study's table: measured figures, or the paper's."""

    name: str
    places: tuple[Place | None, ...] = ()
    """Where the figure of each row comes from; None where there is none."""
    reported: tuple[float, ...] = ()
    """The paper's figures instead."""
    dashed: bool = False
    """How its line is drawn; as in the paper, those without the second set."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A study before it is run."""

    title: str
    over: str
    """What the rows are, the label of the figure's axis."""
    jobs: tuple[Job, ...]
    rows: tuple[str, ...]
    columns: tuple[Column, ...]


def plan_anchors(source: Source) -> Plan:
    """Table 3: three sets of anchor ratios, without and with the second set."""
    _need_second(source)
    jobs, columns = [], []
    for label, name, data in _sets(source):
        own = []
        for anchors, ratios in ANCHORS.items():
            options = ("--model.anchors.ratios", *map(str, ratios))
            own.append(Job(f"{anchors}-{label}", (*data, *options)))
        jobs += own
        columns += [
            Column(
                f"{name}, {dataset}",
                tuple(Place(job.name, dataset) for job in own),
                dashed=label == "first",
            )
            for dataset in source.datasets
        ]
    if "vot2016" in source.datasets:
        names = "paper, VID, vot2016", "paper, VID + YouTube-BB, vot2016"
        columns += [
            Column(name, reported=figures, dashed=not place)
            for place, (name, figures) in enumerate(
                zip(names, zip(*TABLE_3, strict=True), strict=True)
            )
        ]
    return Plan(
        "Anchor ratios (Table 3)",
        "anchors",
        tuple(jobs),
        tuple(ANCHORS),
        tuple(columns),
    )


def plan_data_size(source: Source) -> Plan:
    """Fig. 10: more and more videos of the first set, then of the second one too."""
    jobs, rows = [], []
    none: tuple[str, ...] = ()
    for grown, whole, label in (
        (source.first, none, "first"),
        (source.second, source.first, "second"),
    ):
        if not grown:
            continue
        for share in source.shares:
            fractions = (*(1.0,) * len(whole), *(share,) * len(grown))
            options = ("--data", *whole, *grown)
            options += ("--data.fraction", *map(str, fractions))
            jobs.append(Job(f"{label}-{share:g}", options))
            rows.append(f"{'first + ' * bool(whole)}{share:.0%} of {label}")
    columns = [
        Column(dataset, tuple(Place(job.name, dataset) for job in jobs))
        for dataset in source.datasets
    ]
    return Plan(
        "Data size (Fig. 10)", "training data", tuple(jobs), tuple(rows), tuple(columns)
    )


def plan_center_size(source: Source) -> Plan:
    """Fig. 11: the centre region of two networks, nothing trained anew for any size."""
    _need_second(source)
    sizes = tuple(map(str, source.center_sizes))
    track = ("--tracker.center-size", *sizes)
    jobs, columns = [], []
    for label, name, data in _sets(source):
        job = Job(label, data, track)
        jobs.append(job)
        columns += [
            Column(
                f"{name}, {dataset}",
                tuple(Place(job.name, dataset, i) for i in range(len(sizes))),
                dashed=label == "first",
            )
            for dataset in source.datasets
        ]
    return Plan("Centre size (Fig. 11)", "g", tuple(jobs), sizes, tuple(columns))


def plan_frozen(source: Source) -> Plan:
    """Section 5.1: conv1 to conv3 fixed or trained, the backbone pretrained or not."""
    if not source.backbone:
        raise InputError("frozen: expected --backbone, the pretrained one")
    _, _, data = _sets(source)[-1]
    start = ("--backbone", source.backbone)
    jobs = (
        Job("pretrained-fixed", (*data, *start, "--optimizer.frozen-layers", "3")),
        Job("pretrained-trained", (*data, *start, "--optimizer.frozen-layers", "0")),
        Job("random-trained", data),
    )
    fixed, trained, random = (job.name for job in jobs)
    columns = []
    for dataset in source.datasets:
        places = tuple(Place(name, dataset) for name in (fixed, trained))
        columns.append(Column(f"pretrained, {dataset}", places))
        # Nothing is fixed at random values: ``siamrpn train`` trains those layers.
        places = None, Place(random, dataset)
        columns.append(Column(f"from nothing, {dataset}", places, dashed=True))
    rows = "conv1-3 fixed", "all layers trained"
    title = "Pretraining and fixed layers (section 5.1)"
    return Plan(title, "layers", jobs, rows, tuple(columns))


PLANS: Mapping[str, Callable[[Source], Plan]] = {
    "anchors": plan_anchors,
    "data-size": plan_data_size,
    "center-size": plan_center_size,
    "frozen": plan_frozen,
    "backbone": plan_frozen,
}
"""Every study by the names that the command line takes."""


def _sets(source: Source) -> Sequence[tuple[str, str, tuple[str, ...]]]:
    """Label, name and options: the first set alone, and both where there are two."""
    sets = [("first", "first", ("--data", *source.first))]
    if source.second:
        sets.append(("both", _BOTH, ("--data", *source.first, *source.second)))
    return sets


def _need_second(source: Source) -> None:
    if not source.second:
        raise InputError(
            "this study trains without and with a second data set: expected --second"
        )
