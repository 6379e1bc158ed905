"""An evaluation as one HTML page that needs nothing else: pictures are inside it.

    write_report("report", Report("VOT2018", vot=(benchmark,)))

The figures come as the plain structures of `siamrpn_jax.evaluation.report.data`. Every
one is shown with its convention; what the paper reports is marked as reported, and has
no place in the ranks. The pictures need matplotlib (``pip install
'siamrpn-jax[report]'``).
"""

import base64
import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from siamrpn_jax.common.files import replacing
from siamrpn_jax.evaluation.report import svg as plots
from siamrpn_jax.evaluation.report.data import (
    COST,
    REPORTED,
    OpeBenchmark,
    OpeEntry,
    Report,
    Reported,
    ReportError,
    StripFrame,
    VotBenchmark,
    VotEntry,
    VotFailure,
    reported_rows,
)
from siamrpn_jax.model.boxes import ltwh_to_corners

STRIP_WIDTH = 230
"""Width in pixels of a picture in a strip."""

MAX_STRIPS = 60
"""Strips shown for each tracker; all failures are listed."""

FOLDED = 15
"""Rows that a table may have without being folded."""

NONE = '<td class="none">&ndash;</td>'
"""A cell without a figure."""

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px 32px 64px; max-width: 1240px; background: #fff;
  color: #1c2330; font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 21px; margin: 40px 0 8px; padding-bottom: 4px;
  border-bottom: 2px solid #d5dae1; }
h3 { font-size: 16px; margin: 26px 0 8px; }
p { margin: 6px 0; max-width: 900px; }
.note, figcaption, caption { color: #56606e; font-size: 13px; text-align: left; }
nav a { margin-right: 16px; } a { color: #0b62a4; }
.scroll { overflow-x: auto; margin: 8px 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { caption-side: bottom; padding-top: 6px; max-width: 900px; }
th, td { padding: 4px 12px; text-align: right; border-bottom: 1px solid #e6e9ee;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead tr + tr th:first-child { text-align: right; }
thead th { border-bottom: 2px solid #b9c1cc; vertical-align: bottom; }
th.first { text-align: center; border-bottom: 1px solid #d5dae1; }
td.best { font-weight: 700; }
td.none { color: #a9b1bc; }
tbody tr:hover { background: #f4f7fa; }
tr.group td { padding-top: 12px; color: #56606e; font-size: 13px; text-align: left;
  white-space: normal; }
tr.reported td { color: #56606e; font-style: italic; }
.badge { margin-left: 8px; padding: 1px 7px; border-radius: 9px; background: #e9edf2;
  color: #56606e; font: 11px/1.5 system-ui, sans-serif; }
.badge.bad { background: #fbe3e4; color: #9b1c25; }
.warning { padding: 8px 14px; border-left: 4px solid #d1495b; background: #fdf3f3; }
.charts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr));
  margin: 24px 0; gap: 18px 24px; align-items: start; }
@media (max-width: 800px) { .charts { grid-template-columns: minmax(0, 1fr); } }
figure { margin: 0; } .charts img { width: 100%; height: auto; display: block; }
.strip { display: flex; flex-wrap: wrap; gap: 6px; margin: 4px 0 16px; }
.shot { width: 196px; } .picture { position: relative; }
.picture img { width: 100%; display: block; }
.picture svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.truth, .found { fill: none; stroke-width: 2.5; vector-effect: non-scaling-stroke; }
.truth { stroke: #28c83c; } .found { stroke: #ff8c00; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 2px 16px;
  font-size: 13px; } dt { color: #56606e; } dd { margin: 0; overflow-wrap: anywhere; }
details > summary { cursor: pointer; margin: 10px 0; }
"""


def write_report(folder: str | Path, report: Report) -> Path:
    """Writes ``index.html`` into a folder.

    Args:
        folder: made where it is missing; a page that is there is replaced.
        report: what to show.

    Returns:
        The page.

    Raises:
        ReportError: there is nothing to show, or two trackers have one name.
        siamrpn_jax.common.errors.MissingExtraError: matplotlib is not installed.
    """
    path = Path(folder) / "index.html"
    page = render(report)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def render(report: Report) -> str:
    """The page as text; arguments and errors as for `write_report`."""
    benchmarks = [*report.vot, *report.ope]
    if not any(benchmark.entries for benchmark in benchmarks):
        raise ReportError("a report without trackers: expected at least one")
    for benchmark in benchmarks:
        _check_names(entry.tracker for entry in benchmark.entries)
    sections = [
        *((_vot_heading(one), _vot_section(one)) for one in report.vot),
        *((f"{one.dataset}, one pass", _ope_section(one)) for one in report.ope),
    ]
    links = "".join(
        f'<a href="#part{i}">{escape(heading)}</a>'
        for i, (heading, _) in enumerate(sections)
    )
    body = "".join(
        f'<section id="part{i}"><h2>{escape(heading)}</h2>{text}</section>'
        for i, (heading, text) in enumerate(sections)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(report.title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(report.title)}</h1><nav>{links}</nav>{body}"
        f"{_about(report.about)}</body></html>\n"
    )


def _vot_section(benchmark: VotBenchmark) -> str:
    return "".join(
        (
            _vot_convention(benchmark),
            _missing(benchmark.entries),
            _vot_table(benchmark),
            _vot_charts(benchmark),
            _attributes_table(benchmark),
            _sequences_table(benchmark),
            _failures(benchmark.entries),
        )
    )


def _ope_section(benchmark: OpeBenchmark) -> str:
    charts = _charts(
        [
            ("Success plot", plots.plot_success(benchmark), "Legend: AUC."),
            (
                "Precision plot",
                plots.plot_precision(benchmark),
                "Legend: share of frames within 20 pixels.",
            ),
        ]
    )
    return "".join(
        (
            f'<p class="note">Convention: {escape(benchmark.convention)}.</p>',
            _missing(benchmark.entries),
            _ope_table(benchmark),
            charts,
            _ope_sequences(benchmark),
        )
    )


def _vot_heading(benchmark: VotBenchmark) -> str:
    return f"{benchmark.dataset.upper()}, {benchmark.experiment}"


def _vot_convention(benchmark: VotBenchmark) -> str:
    interval = ""
    if benchmark.interval:
        interval = ", EAO over {} to {} frames".format(*benchmark.interval)
    speed = ""
    if any(entry.fps for entry in benchmark.entries):
        speed = (
            " Frames a second are of updates, with the device waited for, without "
            "compilation and decoding."
        )
    return (
        f'<p class="note">Convention: <b>{escape(benchmark.convention)}</b>, overlap '
        f"<b>{escape(benchmark.overlap)}</b>{interval}. Failure is the number of "
        f"failures a sequence, R that of 100 frames.{speed}</p>"
    )


def _vot_table(benchmark: VotBenchmark) -> str:
    ranked = sorted(benchmark.entries, key=_rank_key)
    complete = [entry for entry in ranked if not entry.missing]
    columns: list[tuple[str, Callable[[VotEntry], float | None], int, bool]] = [
        ("EAO", lambda entry: entry.eao, 4, True),
        ("Accuracy", lambda entry: entry.accuracy, 3, True),
        ("Failure", lambda entry: entry.failures_per_sequence, 2, False),
        ("R", lambda entry: entry.robustness, 2, False),
        ("frames/s", lambda entry: entry.fps, 1, True),
    ]
    best = {
        name: _best([value(entry) for entry in complete], highest=highest)
        for name, value, _, highest in columns
    }
    rows = []
    for entry in ranked:
        rank = complete.index(entry) + 1 if entry in complete else None
        cells = [
            _number(value(entry), digits, best=best[name])
            for name, value, digits, _ in columns
        ]
        rows.append(_row(_name(entry, rank), *cells, _efo_estimate(entry)))
    for dataset, (table, reported) in REPORTED.items():
        if reported == reported_rows(benchmark):
            rows.append(_group(f"Reported by the paper, {table} ({dataset.upper()})"))
            rows.extend(map(_reported_row, reported))
    head = _head("Tracker", *(name for name, *_ in columns), "EFO")
    caption = "Ranks by EAO and bold figures are among the trackers measured here."
    if reported_rows(benchmark):
        caption += (
            " Reported rows are Li et al., CVPR 2018, copied, not measured here; their "
            "EFO belongs to their hardware."
        )
    if any(entry.efo_estimate for entry in ranked):
        caption += " An EFO with ≈ is an estimate."
    return _table(head, rows, caption) + _other_tables(benchmark)


def _other_tables(benchmark: VotBenchmark) -> str:
    """The paper's tables on other data, folded: no row there compares."""
    rows = []
    for dataset, (table, reported) in REPORTED.items():
        if reported != reported_rows(benchmark):
            rows.append(_group(f"{table} ({dataset.upper()}, baseline)"))
            rows.extend(map(_reported_row, reported))
    head = _head("Tracker", "EAO", "Accuracy", "Failure", "R", "frames/s", "EFO")
    return (
        "<details><summary>The paper's figures in other experiments (reported; not "
        f"comparable with the above)</summary>{_table(head, rows, '')}</details>"
    )


def _vot_charts(benchmark: VotBenchmark) -> str:
    reported = reported_rows(benchmark)
    marked = " Hollow, grey: reported by the paper." if reported else ""
    charts: list[tuple[str, str | None, str]] = []
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


def _charts(charts: Iterable[tuple[str, str | None, str]]) -> str:
    figures = []
    for alt, svg, caption in charts:
        if svg is not None:
            source = _data_url(svg.encode(), "image/svg+xml")
            figures.append(
                f'<figure><img src="{source}" alt="{escape(alt)}">'
                f"<figcaption>{escape(caption)}</figcaption></figure>"
            )
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""


def _attributes_table(benchmark: VotBenchmark) -> str:
    """EAO, accuracy and failures on the frames with each attribute."""
    columns = [
        _Column("EAO", lambda part: part.eao, 3),
        _Column("A", lambda part: part.accuracy, 3),
        _Column("failures", lambda part: part.failures, 1, highest=False),
    ]
    caption = "A: accuracy; failures: their number, mean over runs."
    parts = {entry.tracker: entry.attributes for entry in benchmark.entries}
    return _by("attribute", parts, columns, caption)


def _sequences_table(benchmark: VotBenchmark) -> str:
    """Accuracy and failures on each sequence."""
    columns = [
        _Column("A", lambda part: part.accuracy, 3),
        _Column("failures", lambda part: part.failures, 2, highest=False),
    ]
    caption = "A: accuracy; failures: their number, mean over runs."
    parts = {entry.tracker: entry.sequences for entry in benchmark.entries}
    return _by("sequence", parts, columns, caption)


def _ope_sequences(benchmark: OpeBenchmark) -> str:
    columns = [
        _Column("AUC", lambda metrics: metrics.auc, 3),
        _Column("P@20", lambda metrics: metrics.precision, 3),
    ]
    parts = {entry.tracker: entry.sequences for entry in benchmark.entries}
    return _by("sequence", parts, columns, "")


@dataclasses.dataclass(frozen=True)
class _Column:
    """A figure of every tracker."""

    name: str
    value: Callable[[Any], float | None]
    digits: int
    highest: bool = True
    """Whether the highest figure is the best."""


def _by(
    what: str,
    parts: Mapping[str, Mapping[str, Any]],
    columns: Sequence[_Column],
    caption: str,
) -> str:
    """A table with a row for each part; the trackers side by side.

    Args:
        what: what a part is: "sequence", ….
        parts: tracker -> name of a part -> its figures, ``frames`` among them.
        columns: of each tracker.
        caption: below the table.
    """
    names = list(dict.fromkeys(name for one in parts.values() for name in one))
    if not names:
        return ""
    rows = []
    for name in names:
        found = [one.get(name) for one in parts.values()]
        cells = [f"<td>{next(part.frames for part in found if part)}</td>"]
        values = [[part and c.value(part) for part in found] for c in columns]
        best = [
            _best(v, highest=c.highest) for v, c in zip(values, columns, strict=True)
        ]
        for place in range(len(found)):
            for value, column, top in zip(values, columns, best, strict=True):
                cells.append(_number(value[place], column.digits, best=top))
        rows.append(_row(escape(name), *cells))
    span = f'colspan="{len(columns)}"'
    trackers = "".join(f'<th {span} class="first">{escape(t)}</th>' for t in parts)
    head = "".join(f"<th>{escape(column.name)}</th>" for column in columns)
    top = (
        f'<tr><th rowspan="2">{what}</th><th rowspan="2">frames</th>{trackers}</tr>'
        f"<tr>{head * len(parts)}</tr>"
    )
    table = _table(top, rows, caption)
    if len(rows) > FOLDED:  # what follows a long table must be found
        table = f"<details><summary>{len(rows)} {what}s</summary>{table}</details>"
    return f"<h3>By {what}</h3>{table}"


def _ope_table(benchmark: OpeBenchmark) -> str:
    extra = list(dict.fromkeys(name for e in benchmark.entries for name in e.extra))
    ranked = sorted(
        benchmark.entries, key=lambda e: (bool(e.missing), -e.metrics.auc, e.tracker)
    )
    complete = [entry for entry in ranked if not entry.missing]
    cost = list(dict.fromkeys(name for e in benchmark.entries for name in e.cost))
    names = ("AUC", "P@20", "norm P", *extra, "frames/s", *cost, "frames")
    head = _head("Tracker", *names)
    columns = [_ope_values(entry, extra) for entry in ranked]
    best = [
        _best(column, highest=True)
        for column in zip(*columns[: len(complete)], strict=True)
    ] or [None] * (len(extra) + 4)
    rows = []
    for entry, values in zip(ranked, columns, strict=True):
        rank = complete.index(entry) + 1 if entry in complete else None
        digits = [3] * (len(values) - 1) + [1]
        cells = [*map(_number, values, digits, best)]
        cells += [_number(entry.cost.get(name), 2) for name in cost]
        cells += [f"<td>{entry.metrics.frames}</td>"]
        rows.append(_row(_name(entry, rank), *cells))
    caption = "Ranks by the AUC of the success plot."
    return _table(head, rows, f"{caption} {COST}" if cost else caption)


def _ope_values(entry: OpeEntry, extra: Sequence[str]) -> list[float | None]:
    metrics = entry.metrics
    values = [metrics.auc, metrics.precision, metrics.normalized_precision]
    return [*values, *(entry.extra.get(name) for name in extra), entry.fps]


def _failures(entries: Iterable[VotEntry]) -> str:
    text = []
    for entry in entries:
        if not entry.lost:
            continue
        name, count = escape(entry.tracker), len(entry.lost)
        text.append(f"<h3>Where {name} lost its target ({count})</h3>")
        text.append(_failure_counts(entry.lost))
        shown = [one for one in entry.lost if one.strip][:MAX_STRIPS]
        if shown:
            text.append(
                f'<p class="note">Pictures of {len(shown)}. Green is the annotation, '
                "orange what the tracker found; where it is lost its box is not "
                "kept.</p>"
            )
        text.extend(map(_failure_strip, shown))
    return "".join(text)


def _failure_counts(lost: Sequence[VotFailure]) -> str:
    """Every failure in one list, by sequence and run."""
    places: dict[tuple[str, int], list[str]] = collections.defaultdict(list)
    for one in lost:
        places[one.sequence, one.repetition].append(str(one.frame))
    runs = max(one.repetition for one in lost)
    items = "".join(
        f"<dt>{escape(sequence)}{f', run {run}' if runs > 1 else ''}</dt>"
        f"<dd>{', '.join(frames)}</dd>"
        for (sequence, run), frames in places.items()
    )
    return (
        f"<details><summary>Frames of all failures</summary><dl>{items}</dl></details>"
    )


def _failure_strip(failure: VotFailure) -> str:
    shots = "".join(map(_shot, failure.strip))
    return (
        f'<p class="note"><b>{escape(failure.sequence)}</b>, lost in frame '
        f'{failure.frame}, run {failure.repetition}</p><div class="strip">{shots}</div>'
    )


def _shot(frame: StripFrame) -> str:
    """A picture with its regions drawn over it in frame coordinates."""
    height, width = frame.image.shape[:2]
    source = _data_url(_jpeg(frame.image), "image/jpeg")
    shapes = _polygon(frame.truth, "truth") + _polygon(frame.predicted, "found")
    return (
        f'<figure class="shot"><div class="picture">'
        f'<img src="{source}" alt="frame {frame.index}">'
        f'<svg viewBox="0 0 {width} {height}">{shapes}</svg></div>'
        f"<figcaption>frame {frame.index}</figcaption></figure>"
    )


def _polygon(region: np.ndarray | None, kind: str) -> str:
    if region is None or not np.isfinite(region).all():
        return ""
    if len(region) == 4:
        x0, y0, x1, y1 = ltwh_to_corners(np.asarray(region, np.float64))
        region = np.array([x0, y0, x1, y0, x1, y1, x0, y1])
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in np.reshape(region, (-1, 2)))
    return f'<polygon class="{kind}" points="{points}"/>'


def _jpeg(image: np.ndarray) -> bytes:
    height, width = image.shape[:2]
    if width > STRIP_WIDTH:
        size = STRIP_WIDTH, max(1, round(height * STRIP_WIDTH / width))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return data.tobytes()


def _data_url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _missing(entries: Iterable[VotEntry | OpeEntry]) -> str:
    return "".join(
        f'<p class="warning">{escape(entry.tracker)}: no results for '
        f"{len(entry.missing)} sequences; its figures are not those of the data set: "
        f"{escape(', '.join(entry.missing))}.</p>"
        for entry in entries
        if entry.missing
    )


def _about(about: Mapping[str, str]) -> str:
    if not about:
        return ""
    items = "".join(
        f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>"
        for key, value in about.items()
    )
    return f"<h2>How it was measured</h2><dl>{items}</dl>"


def _reported_row(row: Reported) -> str:
    name = f'{escape(row.tracker)}<span class="badge">reported</span>'
    cells = (
        _number(row.eao, 4),
        _number(row.accuracy, 2),
        _number(row.failures_per_sequence, 2),
        NONE,
        _number(row.fps, 0),
        f"<td>{row.efo:g}</td>",
    )
    return _row(name, *cells, kind="reported")


def _name(entry: VotEntry | OpeEntry, rank: int | None) -> str:
    place = f"{rank}. " if rank else ""
    text = f"{place}{escape(entry.tracker)}"
    if entry.note:
        text += f' <span class="note">{escape(entry.note)}</span>'
    if entry.missing:
        text += '<span class="badge bad">incomplete</span>'
    return text


def _efo_estimate(entry: VotEntry) -> str:
    if entry.efo_estimate is None:
        return NONE
    return f'<td>≈ {entry.efo_estimate:.1f}<span class="badge">estimate</span></td>'


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


def _number(value: float | None, digits: int, best: float | None = None) -> str:
    if value is None or not np.isfinite(value):
        return NONE
    mark = ' class="best"' if value == best else ""
    return f"<td{mark}>{value:.{digits}f}</td>"


def _row(name: str, *cells: str, kind: str = "") -> str:
    opening = f'<tr class="{kind}">' if kind else "<tr>"
    return f"{opening}<td>{name}</td>{''.join(cells)}</tr>"


def _group(text: str) -> str:
    return f'<tr class="group"><td colspan="7">{escape(text)}</td></tr>'


def _head(*cells: str) -> str:
    return f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in cells)}</tr>"


def _table(head: str, rows: Sequence[str], caption: str) -> str:
    below = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table>{below}<thead>{head}</thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _check_names(names: Iterable[str]) -> None:
    for name, count in collections.Counter(names).items():
        if count > 1:
            raise ReportError(f"{count} trackers are named {name!r}, expected one")
