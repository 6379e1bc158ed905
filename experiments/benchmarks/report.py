"""What a benchmark prints and writes."""

import dataclasses
import os
from typing import Any

import cv2
import jax

from experiments.benchmarks.session import Row, Session
from siamrpn_jax.common import provenance

PACKAGES = (
    *("jax", "jaxlib", "flax", "numpy"),
    *("torch", "onnxruntime", "onnx", "openvino", "ai-edge-litert"),
)


def machine(threads: int) -> dict[str, Any]:
    """Where and with what the figures were taken."""
    about = provenance.machine(PACKAGES)
    versions = about["versions"] | {"opencv": cv2.__version__}
    return about | {
        "threads": threads,
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES"),
        "device": jax.devices()[0].device_kind,
        "versions": versions,
    }


def describe(about: dict[str, Any]) -> str:
    """The machine in a few lines."""
    versions = ", ".join(f"{name} {v}" for name, v in about["versions"].items())
    return (
        f"{about['cpu']}, {about['cores']} cores, threads {about['threads']}, "
        f"load before {about['load_before']}, "
        f"GLIBC_TUNABLES {about['glibc_tunables']}\n"
        f"device {about['device']}; {about['system']}\n{versions}"
    )


def make_report(
    session: Session, about: dict[str, Any], command: str
) -> dict[str, Any]:
    """Gathers a session in a JSON-ready dictionary."""
    return {
        "command": command,
        "date": provenance.today(),
        "machine": about,
        "plan": dataclasses.asdict(session.plan),
        "convention": {
            "ratio": "ours / theirs, of times; of rates where quantity is not ms",
            "median_ms": "median over rounds of the median call of a round",
            "p50_ms, p90_ms, p99_ms": "over all counted calls",
            "max_error": "largest difference from ours / largest value of ours",
        },
        "targets": session.targets,
        "reasons": session.reasons,
        "rows": [dataclasses.asdict(row) for row in session.rows],
    }


class Printer:
    """Prints rows as they come, with a heading wherever a new case begins."""

    def __init__(self) -> None:
        self._case: tuple[Any, ...] | None = None

    def __call__(self, row: Row) -> None:
        """Prints one row."""
        case = row.section, row.case, row.threads
        if case != self._case:
            plural = "thread" if row.threads == 1 else "threads"
            print(f"\n{row.section}: {row.case} ({row.threads} {plural})")
            rate = "units/s" if row.quantity == "ms" else row.quantity
            print(
                f"{'ours/theirs':>11} {'median ms':>10} {'p50':>9} {'p90':>9} "
                f"{'p99':>9} {rate:>15} {'error':>8} {'rounds':>6}  contestant"
            )
        self._case = case
        print(format_row(row), flush=True)


def format_row(row: Row) -> str:
    """One line of the table; ``ours/theirs`` compares what ``quantity`` says."""
    if row.median_ms is None:
        return f"{'-':>11} {'':>10} {row.contestant}: {row.status}: {row.note}"
    ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
    error = "" if row.max_error is None else f"{row.max_error:.0e}"
    note = f" ({row.note})" if row.note else ""
    return (
        f"{ratio:>11} {row.median_ms:>10.3f} {row.p50_ms:>9.3f} {row.p90_ms:>9.3f} "
        f"{row.p99_ms:>9.3f} {row.rate:>15.2f} {error:>8} {row.rounds:>6}  "
        f"{row.contestant}{note}"
    )


def format_targets(session: Session) -> str:
    """The figures that are watched, or why they are missing."""
    lines = ["\ntargets"]
    for name, value in session.targets.items():
        shown = f"none ({session.reasons[name]})" if value is None else f"{value:.3f}"
        lines.append(f"  {name:<38} {shown}")
    return "\n".join(lines)
