"""An evaluation as one HTML page that needs nothing else: pictures are inside it.

    write_report("report", Report("VOT2018", vot=(benchmark,)))

The figures come as the plain structures of ``evaluation.report.data``. Every one is
shown with its convention; what the paper reports is marked as reported, and has no
place in the ranks. Tables and pictures are made here, ``page.html`` lays them out. Both
need the extra ``report`` (``pip install 'siamrpn-jax[report]'``).
"""

import base64
import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from siamrpn_jax.common.errors import InputError, require
from siamrpn_jax.common.files import replacing
from siamrpn_jax.data.read.images import encode_jpeg
from siamrpn_jax.evaluation.report import plots
from siamrpn_jax.evaluation.report.data import (
    COST,
    REPORTED,
    REPORTED_REALTIME,
    OpeBenchmark,
    OpeEntry,
    Report,
    Reported,
    StripFrame,
    Study,
    VotBenchmark,
    VotEntry,
    VotFailure,
    reported_rows,
)
from siamrpn_jax.media.drawing import shrink
from siamrpn_jax.model.boxes import ltwh_to_corners

STRIP_WIDTH = 230
"""Width in pixels of a picture in a strip."""

MAX_STRIPS = 60
"""Strips shown for each tracker; all failures are listed."""

FOLDED = 15
"""Rows that a table may have without being folded."""


class Cell(NamedTuple):
    """A cell of a table."""

    text: str
    kind: str = ""
    """``best`` or ``none``: how it looks."""
    note: str = ""
    badges: tuple[str, ...] = ()


class Row(NamedTuple):
    """A row of a table: its cells, or a heading across all of them."""

    cells: Sequence[Cell] = ()
    kind: str = ""
    """``reported``, where the paper's figures are copied."""
    heading: str = ""


class Head(NamedTuple):
    """A cell of a table's head."""

    text: str
    columns: int = 1
    rows: int = 1


class Table(NamedTuple):
    """A table as the template lays it out."""

    head: Sequence[Sequence[Head]]
    rows: Sequence[Row]
    caption: str = ""
    title: str = ""
    """The heading above it."""
    folded: str = ""
    """The line that unfolds it; empty: it is open."""

    @property
    def columns(self) -> int:
        """Number of its columns."""
        return sum(cell.columns for cell in self.head[0])


class Chart(NamedTuple):
    """A picture of the whole benchmark."""

    title: str
    source: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Section:
    """The part of the page about one benchmark."""

    heading: str
    note: Sequence[str]
    """Pieces of text; every second one is set in bold."""
    incomplete: Sequence[VotEntry | OpeEntry]
    tables: Sequence[Table]
    charts: Sequence[Chart]
    details: Sequence[Table]
    """Tables with a title each, below the charts."""
    lost: Sequence[Mapping[str, Any]] = ()
    """For each tracker that lost its target: where, and strips of pictures."""


NONE = Cell("\N{EN DASH}", "none")
"""A cell without a figure."""


def write_report(folder: str | Path, report: Report) -> Path:
    """Writes ``index.html`` into a folder.

    Args:
        folder: made where it is missing; a page that is there is replaced.
        report: what to show.

    Returns:
        The page.

    Raises:
        InputError: there is nothing to show, or two trackers have one name.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    path = Path(folder) / "index.html"
    page = render(report)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def render(report: Report) -> str:
    """The page as text; arguments and errors as for ``write_report``."""
    benchmarks = [*report.vot, *report.ope]
    if not report.studies and not any(benchmark.entries for benchmark in benchmarks):
        raise InputError("a report without trackers: expected at least one")
    for benchmark in benchmarks:
        _check_names(entry.tracker for entry in benchmark.entries)
    sections = [*map(_vot_section, report.vot), *map(_ope_section, report.ope)]
    sections += map(_study_section, report.studies)
    jinja2 = require("jinja2", extra="report")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("siamrpn_jax.evaluation.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    page = environment.get_template("page.html")
    return page.render(title=report.title, sections=sections, about=report.about)


def _check_names(names: Iterable[str]) -> None:
    for name, count in collections.Counter(names).items():
        if count > 1:
            raise InputError(f"{count} trackers are named {name!r}, expected one")


# The VOT challenge


def _vot_section(benchmark: VotBenchmark) -> Section:
    entries = benchmark.entries
    return Section(
        heading=f"{benchmark.dataset.upper()}, {benchmark.experiment}",
        note=_vot_note(benchmark),
        incomplete=[entry for entry in entries if entry.missing],
        tables=[_vot_table(benchmark), _other_tables(benchmark)],
        charts=_vot_charts(benchmark),
        details=[*_attributes_table(benchmark), *_sequences_table(benchmark)],
        lost=[_where_lost(entry) for entry in entries if entry.lost],
    )


def _vot_note(benchmark: VotBenchmark) -> list[str]:
    interval = speed = ""
    if benchmark.interval:
        interval = ", EAO over {} to {} frames".format(*benchmark.interval)
    if any(entry.fps for entry in benchmark.entries):
        speed = (
            " Frames a second are of updates, with the device waited for, without "
            "compilation and decoding."
        )
    rest = (
        f"{interval}. Failure is the number of failures a sequence, R that of 100 "
        f"frames.{speed}"
    )
    return ["Convention: ", benchmark.convention, ", overlap ", benchmark.overlap, rest]


class _Column(NamedTuple):
    """A figure of every tracker, or of every part of the data."""

    name: str
    value: Callable[[Any], float | None]
    digits: int
    highest: bool = True
    """Whether the highest figure is the best."""


def _vot_table(benchmark: VotBenchmark) -> Table:
    ranked = sorted(benchmark.entries, key=_rank_key)
    complete = [entry for entry in ranked if not entry.missing]
    columns = [
        _Column("EAO", lambda entry: entry.eao, 4),
        _Column("Accuracy", lambda entry: entry.accuracy, 3),
        _Column("Failure", lambda entry: entry.failures_per_sequence, 2, highest=False),
        _Column("R", lambda entry: entry.robustness, 2, highest=False),
        _Column("frames/s", lambda entry: entry.fps, 1),
    ]
    best = [_best([c.value(e) for e in complete], highest=c.highest) for c in columns]
    estimated = any(entry.efo_estimate for entry in ranked)
    has_efo = estimated or bool(reported_rows(benchmark))
    rows = []
    for entry in ranked:
        rank = complete.index(entry) + 1 if entry in complete else None
        cells = [
            _number(column.value(entry), column.digits, best=top)
            for column, top in zip(columns, best, strict=True)
        ]
        efo = [_efo_estimate(entry)] if has_efo else []
        rows.append(Row([_name(entry, rank), *cells, *efo]))
    for dataset, (table, reported) in REPORTED.items():
        if reported == reported_rows(benchmark):
            heading = f"Reported by the paper, {table} ({dataset.upper()})"
            rows += [Row(heading=heading), *map(_reported_row, reported)]
    caption = "Ranks by EAO and bold figures are among the trackers measured here."
    if reported_rows(benchmark):
        caption += (
            " Reported rows are Li et al., CVPR 2018, copied, not measured here; their "
            "EFO belongs to their hardware."
        )
    if estimated:
        caption += " An EFO with ≈ is an estimate, for the machine below."
    if (benchmark.dataset, benchmark.experiment) == ("vot2017", "realtime"):
        caption += f" {REPORTED_REALTIME}"
    names = [c.name for c in columns] + ["EFO"] * has_efo
    return Table(_head("Tracker", *names), rows, caption)


def _other_tables(benchmark: VotBenchmark) -> Table:
    """The paper's tables on other data, folded: no row there compares."""
    rows: list[Row] = []
    for dataset, (table, reported) in REPORTED.items():
        if reported != reported_rows(benchmark):
            heading = f"{table} ({dataset.upper()}, baseline)"
            rows += [Row(heading=heading), *map(_reported_row, reported)]
    head = _head("Tracker", "EAO", "Accuracy", "Failure", "R", "frames/s", "EFO")
    line = (
        "The paper's figures in other experiments (reported; not comparable with the "
        "above)"
    )
    return Table(head, rows, folded=line)


def _reported_row(row: Reported) -> Row:
    cells = [
        Cell(row.tracker, badges=("reported",)),
        _number(row.eao, 4),
        _number(row.accuracy, 2),
        _number(row.failures_per_sequence, 2),
        NONE,
        _number(row.fps, 0),
        Cell(f"{row.efo:g}"),
    ]
    return Row(cells, kind="reported")


def _vot_charts(benchmark: VotBenchmark) -> list[Chart]:
    reported = reported_rows(benchmark)
    marked = " Hollow, grey: reported by the paper." if reported else ""
    charts: list[tuple[str, Any, str]] = []
    if any(entry.eao is not None for entry in benchmark.entries):
        charts += [
            (
                "Expected average overlap by sequence length",
                plots.plot_eao_curves(benchmark),
                "EAO is the mean over the grey interval.",
            ),
            (
                "EAO ranking",
                plots.plot_ranking(benchmark, reported),
                "Best on top." + marked,
            ),
            (
                "Speed and EAO",
                plots.plot_speed(benchmark, reported),
                "Speed is that of the machine below." + marked,
            ),
        ]
    if any(entry.robustness is not None for entry in benchmark.entries):
        charts.append(
            (
                "Accuracy and robustness",
                plots.plot_accuracy_robustness(benchmark, reported),
                "Better is up and to the right." + marked,
            )
        )
    return _charts(charts)


def _attributes_table(benchmark: VotBenchmark) -> list[Table]:
    """EAO, accuracy and failures on the frames with each attribute."""
    columns = [
        _Column("EAO", lambda part: part.eao, 3),
        _Column("A", lambda part: part.accuracy, 3),
        _Column("failures", lambda part: part.failures, 1, highest=False),
    ]
    caption = "A: accuracy; failures: their number, mean over runs."
    parts = {entry.tracker: entry.attributes for entry in benchmark.entries}
    return _by("attribute", parts, columns, caption)


def _sequences_table(benchmark: VotBenchmark) -> list[Table]:
    """Accuracy and failures on each sequence."""
    columns = [
        _Column("A", lambda part: part.accuracy, 3),
        _Column("failures", lambda part: part.failures, 2, highest=False),
    ]
    caption = "A: accuracy; failures: their number, mean over runs."
    parts = {entry.tracker: entry.sequences for entry in benchmark.entries}
    return _by("sequence", parts, columns, caption)


def _where_lost(entry: VotEntry) -> dict[str, Any]:
    """Every failure by sequence and run, and strips of pictures of the first ones."""
    places: dict[tuple[str, int], list[str]] = collections.defaultdict(list)
    for one in entry.lost:
        places[one.sequence, one.repetition].append(str(one.frame))
    several = max(one.repetition for one in entry.lost) > 1
    return {
        "tracker": entry.tracker,
        "count": len(entry.lost),
        "frames": [
            (f"{sequence}, run {run}" if several else sequence, ", ".join(frames))
            for (sequence, run), frames in places.items()
        ],
        "strips": [_strip(one) for one in entry.lost if one.strip][:MAX_STRIPS],
    }


def _strip(failure: VotFailure) -> dict[str, Any]:
    return {
        "sequence": failure.sequence,
        "frame": failure.frame,
        "repetition": failure.repetition,
        "shots": [_shot(frame) for frame in failure.strip],
    }


def _shot(frame: StripFrame) -> dict[str, Any]:
    """A picture, and its regions in frame coordinates."""
    height, width = frame.image.shape[:2]
    jpeg = encode_jpeg(shrink(frame.image, STRIP_WIDTH), quality=80)
    regions = {"truth": frame.truth, "found": frame.predicted}
    return {
        "index": frame.index,
        "source": _data_url(jpeg, "image/jpeg"),
        "width": width,
        "height": height,
        "polygons": [
            (kind, _points(region))
            for kind, region in regions.items()
            if region is not None and np.isfinite(region).all()
        ],
    }


def _points(region: np.ndarray) -> str:
    """The corners of a box ``ltwh`` or of a polygon, as SVG wants them."""
    if len(region) == 4:
        x0, y0, x1, y1 = ltwh_to_corners(np.asarray(region, np.float64))
        region = np.array([x0, y0, x1, y0, x1, y1, x0, y1])
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in np.reshape(region, (-1, 2)))


# One-pass evaluation


def _ope_section(benchmark: OpeBenchmark) -> Section:
    means = {entry.tracker: entry.metrics for entry in benchmark.entries}
    columns = [
        _Column("AUC", lambda metrics: metrics.auc, 3),
        _Column("P@20", lambda metrics: metrics.precision, 3),
    ]
    parts = {entry.tracker: entry.sequences for entry in benchmark.entries}
    return Section(
        heading=f"{benchmark.dataset}, one pass",
        note=[f"Convention: {benchmark.convention}."],
        incomplete=[entry for entry in benchmark.entries if entry.missing],
        tables=[_ope_table(benchmark)],
        charts=_charts(
            [
                ("Success plot", plots.plot_success(means), "Legend: AUC."),
                (
                    "Precision plot",
                    plots.plot_precision(means),
                    "Legend: share of frames within 20 pixels.",
                ),
            ]
        ),
        details=_by("sequence", parts, columns, ""),
    )


def _ope_table(benchmark: OpeBenchmark) -> Table:
    extra = list(dict.fromkeys(name for e in benchmark.entries for name in e.extra))
    ranked = sorted(
        benchmark.entries, key=lambda e: (bool(e.missing), -e.metrics.auc, e.tracker)
    )
    complete = [entry for entry in ranked if not entry.missing]
    cost = list(dict.fromkeys(name for e in benchmark.entries for name in e.cost))
    values = [_ope_values(entry, extra) for entry in ranked]
    best = [
        _best(column, highest=True)
        for column in zip(*values[: len(complete)], strict=True)
    ] or [None] * (len(extra) + 4)
    rows = []
    for entry, figures in zip(ranked, values, strict=True):
        rank = complete.index(entry) + 1 if entry in complete else None
        digits = [3] * (len(figures) - 1) + [1]
        cells = [*map(_number, figures, digits, best)]
        cells += [_number(entry.cost.get(name), 2) for name in cost]
        rows.append(Row([_name(entry, rank), *cells, Cell(str(entry.metrics.frames))]))
    names = ("AUC", "P@20", "norm P", *extra, "frames/s", *cost, "frames")
    caption = "Ranks by the AUC of the success plot."
    return Table(
        _head("Tracker", *names), rows, f"{caption} {COST}" if cost else caption
    )


def _ope_values(entry: OpeEntry, extra: Sequence[str]) -> list[float | None]:
    metrics = entry.metrics
    values = [metrics.auc, metrics.precision, metrics.normalized_precision]
    return [*values, *(entry.extra.get(name) for name in extra), entry.fps]


# Parts of both


def _by(
    what: str,
    parts: Mapping[str, Mapping[str, Any]],
    columns: Sequence[_Column],
    caption: str,
) -> list[Table]:
    """A table with a row for each part, the trackers side by side; none without parts.

    Args:
        what: what a part is: "sequence", ….
        parts: tracker -> name of a part -> its figures, ``frames`` among them.
        columns: of each tracker.
        caption: below the table.
    """
    names = list(dict.fromkeys(name for one in parts.values() for name in one))
    if not names:
        return []
    rows = []
    for name in names:
        found = [one.get(name) for one in parts.values()]
        values = [[part and c.value(part) for part in found] for c in columns]
        best = [
            _best(v, highest=c.highest) for v, c in zip(values, columns, strict=True)
        ]
        cells = [Cell(name), Cell(str(next(part.frames for part in found if part)))]
        for place in range(len(found)):
            for value, column, top in zip(values, columns, best, strict=True):
                cells.append(_number(value[place], column.digits, best=top))
        rows.append(Row(cells))
    trackers = [Head(tracker, columns=len(columns)) for tracker in parts]
    head = [
        [Head(what, rows=2), Head("frames", rows=2), *trackers],
        [Head(column.name) for column in columns] * len(parts),
    ]
    # What follows a long table must be found.
    folded = f"{len(rows)} {what}s" if len(rows) > FOLDED else ""
    return [Table(head, rows, caption, f"By {what}", folded)]


# Studies


def _study_section(study: Study) -> Section:
    best = [_best(column.values, highest=True) for column in study.columns]
    rows = []
    for number, name in enumerate(study.rows):
        cells = [Cell(name)]
        for place, (column, top) in enumerate(zip(study.columns, best, strict=True)):
            cell = _number(column.values[number], 3, best=top)
            badges = ("reported",) if column.reported else ()
            why = study.missing.get((number, place), "")
            cells.append(cell._replace(badges=badges, note=why))
        rows.append(Row(cells))
    head = _head(study.over, *(column.name for column in study.columns))
    caption = "EAO; bold: the best of its column."
    marked = ""
    if any(column.reported for column in study.columns):
        marked = (
            " Grey: reported by the paper (Li et al., CVPR 2018), not measured here."
        )
    chart = (study.title, plots.plot_study(study), "EAO." + marked)
    return Section(
        heading=study.title,
        note=study.note,
        incomplete=(),
        tables=[Table(head, rows, caption + marked)],
        charts=_charts([chart]),
        details=(),
    )


def _head(*cells: str) -> list[list[Head]]:
    return [[Head(cell) for cell in cells]]


def _name(entry: VotEntry | OpeEntry, rank: int | None) -> Cell:
    text = f"{rank}. {entry.tracker}" if rank else entry.tracker
    badges = ("incomplete",) if entry.missing else ()
    return Cell(text, note=entry.note, badges=badges)


def _efo_estimate(entry: VotEntry) -> Cell:
    if entry.efo_estimate is None:
        return Cell("not measured")
    return Cell(f"≈ {entry.efo_estimate:.1f}", badges=("estimate",))


def _rank_key(entry: VotEntry) -> tuple[bool, float, float, str]:
    return (
        bool(entry.missing),
        -(entry.eao or 0.0),
        -(entry.accuracy or 0.0),
        entry.tracker,
    )


def _best(values: Sequence[float | None], *, highest: bool) -> float | None:
    """The best of the figures there are; None where nothing competes."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    if not known or min(known) == max(known):
        return None
    return max(known) if highest else min(known)


def _number(value: float | None, digits: int, best: float | None = None) -> Cell:
    if value is None or not np.isfinite(value):
        return NONE
    return Cell(f"{value:.{digits}f}", "best" if value == best else "")


def _charts(charts: Iterable[tuple[str, Any, str]]) -> list[Chart]:
    """Title, figure and caption of each; those without a figure are left out."""
    return [
        Chart(title, _data_url(plots.to_svg(figure).encode(), "image/svg+xml"), caption)
        for title, figure, caption in charts
        if figure is not None
    ]


def _data_url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
