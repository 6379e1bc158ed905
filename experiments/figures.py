"""Renders the tables of figures in README and docs: ``python experiments/figures.py``.

A table stands between ``<!-- figures: NAME -->`` and ``<!-- end of figures -->``. It
comes from ``docs/figures``, where the reports lie as ``benchmark.py --json`` and
``siamrpn eval --json`` write them: with command, date, machine and versions. A report
whose rows were not written by these commands says in ``source`` where they are from.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures"
PAGES = ("README.md", "docs/speed.md", "docs/deploy.md")
"""Where tables stand."""

Report = dict[str, Any]
Reports = Callable[[str], Report]
"""From the name of a file in ``docs/figures`` to its content."""

_BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.S)
_TORCH, _ORT = "torch eager", "onnxruntime"
_VERSIONS = {"jax": "JAX", "torch": "PyTorch", "onnxruntime": "ONNX Runtime"}


@dataclasses.dataclass(frozen=True)
class Race:
    """A row of a table of speeds: one race, whose contestants do the same work."""

    what: str
    """What is done, with the unit of the rates."""
    report: str
    """File without its suffix: a section of the benchmark."""
    case: str
    ours: str = "ours"
    one_thread: bool = False


_STEP = "whole step, 640x480 frame to box"
_EXPORT = "our export in onnxruntime"


def _steps(net: str) -> tuple[Race, Race]:
    """A frame to a box, in JAX and exported."""
    what, case = f"`{net}`, 640×480 frame to box, frames/s", f"{net}, {_STEP}"
    exported = "the same, our export in ONNX Runtime"
    return Race(what, "track", case), Race(exported, "track", case, _EXPORT)


def _eight(net: str) -> Race:
    case = f"{net}, search branch, 8 targets"
    return Race(f"`{net}`, 8 targets, target-frames/s", "many", case)


def _patches(net: str) -> tuple[Race, Race]:
    """The network alone, on all threads and on one."""
    case = f"{net}, search branch, 1 patch"
    what = f"`{net}`, network alone"
    return (
        Race(f"{what}, all threads, patches/s", "track", case),
        Race(f"{what}, 1 thread, patches/s", "track", case, one_thread=True),
    )


_TRAINING = (
    Race(
        "`paper`, training, batch 8, conv1-3 fixed, pairs/s",
        *("train", "paper, batch 8, conv1-3 frozen"),
    ),
    Race(
        "`paper`, training, batch 8, all layers, pairs/s",
        *("train", "paper, batch 8, all layers"),
    ),
    Race(
        "`small`, training, batch 16, pairs/s",
        *("train", "small, batch 16, all layers"),
    ),
)
_STEPS = (_steps("paper")[0], *_steps("base"), *_steps("small"))
SHORT = (*_STEPS, _eight("base"), _TRAINING[0], _TRAINING[2])
"""The rows of the README."""

LONG = (
    *(*_patches("paper"), _patches("base")[0], *_patches("small")),
    *_STEPS,
    *(_eight(net) for net in ("paper", "base", "small")),
    *_TRAINING,
)
"""The rows of the page about speed."""

RUNTIMES = {
    "JAX": "ours",
    "our export in ONNX Runtime": _EXPORT,
    "in OpenVINO": "our export in OpenVINO",
    "in LiteRT": "our export in LiteRT",
    "PyTorch eager, crop by OpenCV": _TORCH,
    "ONNX Runtime, crop by OpenCV": _ORT,
}
"""Columns of the table of runtimes, and their contestants."""

STARTS = {
    "JAX, most of it compilation": "ours",
    "`tracker.py` with ONNX Runtime": _EXPORT,
    "`tracker.py` with LiteRT": "our export in LiteRT",
}
"""Rows of the table of starts, and their contestants."""


def read(name: str) -> Report:
    """A report by its name."""
    return json.loads((FIGURES / f"{name}.json").read_text())


def render(text: str, reports: Reports = read) -> str:
    """A page with all its tables made anew.

    Raises:
        KeyError: a table has a name that is not one of ``TABLES``.
    """

    def table(block: re.Match[str]) -> str:
        begin, name, end = block.groups()
        return f"{begin}{TABLES[name](reports)}\n{end}"

    return _BLOCK.sub(table, text)


def speeds(races: Sequence[Race], reports: Reports, *, brief: bool = False) -> str:
    """Rates of ours and of others, and how many times as fast ours is."""
    used = [reports(name) for name in dict.fromkeys(race.report for race in races)]
    head = ["", "siamrpn_jax"]
    for rival in ("torch", "onnxruntime"):
        name = _VERSIONS[rival]
        head += [name + _one_version(used, rival), f"times as fast as {name}"]
    rows = []
    for race in races:
        report = reports(race.report)
        mine = _rate(report, race, race.ours)
        cells = [race.what, _number(mine)]
        for rival in (_TORCH, _ORT):
            theirs = _rate(report, race, rival)
            cells += [_number(theirs), _times(mine, theirs)]
        rows.append(cells)
    return _table(head, rows) + "\n\n" + sources(used, brief=brief)


def runtimes(reports: Reports) -> str:
    """Milliseconds of a step in several runtimes, with the 90th percentile."""
    report = reports("track")
    rows = []
    for net in ("small", "base", "paper"):
        cells = [f"`{net}`"]
        for contestant in RUNTIMES.values():
            row = _find(report, f"{net}, {_STEP}", contestant)
            cells.append(
                f"{_number(row['median_ms'])} ({_number(row['p90_ms'])})" if row else ""
            )
        rows.append(cells)
    return _table(["", *RUNTIMES], rows) + "\n\n" + sources([report])


def starts(reports: Reports) -> str:
    """Seconds from the start of a process to its first box."""
    report = reports("track")
    case = "small, start of a process to the first box, 320x240"
    rows = []
    for what, contestant in STARTS.items():
        row = _find(report, case, contestant)
        rows.append([what, _number(row["median_ms"] / 1e3) if row else ""])
    return _table(["", "seconds"], rows)


def results(reports: Reports) -> str:
    """Trackers on the development sequences."""
    head = ["tracker", "AUC", "P@20", "ms a frame", "M parameters", "GFLOP"]
    shown = [reports(name) for name in RESULTS]
    main, trained, paper, v2 = shown
    trackers = main["trackers"]
    entries = {
        "first box repeated": trackers["static"] | {"ms": None},
        "KCF (OpenCV)": trackers["kcf"],
        "CSRT (OpenCV)": trackers["csrt"],
        "**`small`**": trackers["small"],
        "**`base`**": trackers["base"],
        "`small`'s network, trained on 2 CPU cores only (280,000 pairs, about an "
        "hour)": trained,
        "`paper`'s network, on 1 CPU core (12,000 pairs)": paper,
        "NanoTrack v2 (trained on GOT-10k and more)": v2,
        "NanoTrack v3 (the same)": trackers["nano"],
    }
    rows = []
    for name, entry in entries.items():
        cells = [score(entry["auc"]), score(entry.get("precision"))]
        cells.append(_number(entry.get("ms")))
        for key, unit in (("parameters", 1e6), ("flops", 1e9)):
            count = entry.get(key)
            cells.append(f"{count / unit:.2f}".lstrip("0") if count else "")
        if name.startswith("**"):
            cells = [cell and f"**{cell}**" for cell in cells]
        rows.append([name, *cells])
    return _table(head, rows) + "\n\n" + sources(shown, brief=True)


RESULTS = ("eval", "eval_cpu_training", "eval_paper", "eval_nano_v2")
"""Reports of the table of results."""

TABLES: dict[str, Callable[[Reports], str]] = {
    "speed": lambda reports: speeds(SHORT, reports, brief=True),
    "speeds": lambda reports: speeds(LONG, reports),
    "runtimes": runtimes,
    "starts": starts,
    "results": results,
}
"""What makes a table, by its name."""


def sources(reports: Iterable[Report], *, brief: bool = False) -> str:
    """Command, date and machine of reports; versions and remarks where not brief."""
    if not brief:
        return "\n".join(f"- {provenance_of(report)}." for report in reports)
    texts = []
    for report in reports:
        command = re.sub(" --(json|compare) [^ ]+", "", report["command"])
        cpu = report["machine"]["cpu"]
        cpu = re.sub(r"\(family (\d+) [^)]*\)", r"(family \1)", cpu)
        texts.append(
            f"{report['date']}, `{command}`, {report['machine']['cores']} "
            f"cores of {cpu}"
        )
    return f"Measured {'; '.join(texts)}. More: `docs/figures`."


def provenance_of(report: Report) -> str:
    """Date, command, machine, versions and remarks of a report in one line."""
    about = report["machine"]
    versions = about.get("versions", {})
    shown = [f"{_VERSIONS[n]} {versions[n]}" for n in _VERSIONS if n in versions]
    cores = about.get("threads", about["cores"])
    machine = ", ".join([f"{cores} cores of {about['cpu']}", *shown])
    text = f"{report['date']}, `{report['command']}`: {machine}"
    return f"{text}; {report['source']}" if "source" in report else text


def _one_version(reports: Iterable[Report], package: str) -> str:
    """Major and minor version of a package where all reports have the same."""
    versions = {report["machine"]["versions"][package] for report in reports}
    short = {".".join(version.split(".")[:2]) for version in versions}
    return f" {short.pop()}" if len(short) == 1 else ""


def _find(
    report: Report, case: str, contestant: str, *, threads: int | None = None
) -> dict[str, Any] | None:
    """The row of a contestant that was timed."""
    wanted = (case, contestant, threads or report["machine"]["threads"])
    for row in report["rows"]:
        if (row["case"], row["contestant"], row["threads"]) == wanted:
            return row if row["status"] == "ok" else None
    return None


def _rate(report: Report, race: Race, contestant: str) -> float | None:
    threads = 1 if race.one_thread else None
    row = _find(report, race.case, contestant, threads=threads)
    return row["rate"] if row else None


def _times(mine: float | None, theirs: float | None) -> str:
    """How many times as fast ours is; bold where it is faster."""
    if mine is None or theirs is None:
        return ""
    text = _number(mine / theirs)
    return f"**{text}**" if mine > theirs else text


def _number(value: float | None) -> str:
    """Three digits, or those that the file has; no zero before the point."""
    if value is None:
        return ""
    digits = next((n for n, least in enumerate((100, 10)) if value >= least), 2)
    text = f"{value:.{digits}f}"
    return (f"{value:g}" if float(text) == value else text).removeprefix("0")


def score(value: float | None) -> str:
    """A share of one with three decimals, without the zero before the point."""
    return "" if value is None else f"{value:.3f}".removeprefix("0")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main() -> None:
    """Renders all pages, and says which have changed."""
    for name in PAGES:
        page = ROOT / name
        text = page.read_text()
        made = render(text)
        if made != text:
            page.write_text(made)
            print(f"changed {name}")


if __name__ == "__main__":
    main()
