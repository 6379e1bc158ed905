"""What ``siamrpn eval-vot`` prints and writes: tables, JSON, and the page."""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siamrpn_jax.evaluation.vot import years

if TYPE_CHECKING:  # --help must not wait for JAX
    from siamrpn_jax.commands.eval_vot import Config
    from siamrpn_jax.evaluation.report.data import VotBenchmark
    from siamrpn_jax.evaluation.vot.dataset import VotSequence
    from siamrpn_jax.evaluation.vot.metrics import (
        Trajectory,
        UnsupervisedFigures,
        VotFigures,
    )
    from siamrpn_jax.evaluation.vot.protocols import VotRun


@dataclasses.dataclass(frozen=True, eq=False)
class VotData:
    """What is evaluated on."""

    name: str
    sequences: "tuple[VotSequence, ...]"
    interval: tuple[int, int]

    @property
    def whole(self) -> int:
        """Number of sequences of the whole data set."""
        return len(years.NAMES[self.name]) if self.name in years.NAMES else 0

    @property
    def complete(self) -> bool:
        """Whether these are all sequences of the data set."""
        return self.name == "synthetic" or len(self.sequences) == self.whole


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """A tracker, its results and its figures."""

    name: str
    folder: Path
    results: "Mapping[str, list[VotRun]]"
    figures: "VotFigures | UnsupervisedFigures"
    warm_up: float | None
    """Seconds; None where nothing was run."""
    sequences: "tuple[VotSequence, ...]"
    """Sequences that were scored."""
    broken: tuple[str, ...] = ()
    """Names of those that were not, as their files cannot be used."""
    filter_seconds: float | None = None
    """What VOT's filter takes on this machine, where EFO is asked for."""

    @property
    def fps(self) -> float | None:
        """Updates a second over all runs; None where their times are not known."""
        return _fps(self.results)

    @property
    def efo_estimate(self) -> float | None:
        """Frames a second in units of VOT's filter."""
        fps, seconds = self.fps, self.filter_seconds
        return fps * seconds if fps and seconds else None


def trajectories_of(
    results: "Mapping[str, list[VotRun]]",
) -> "dict[str, list[Trajectory]]":
    """The regions of all runs by sequence."""
    return {name: [run.regions for run in runs] for name, runs in results.items()}


def _fps(results: "Mapping[str, list[VotRun]]") -> float | None:
    """Updates a second over all runs; None where their times are not known."""
    import numpy as np

    runs = [run for own in results.values() for run in own]
    seconds = np.concatenate([run.updates for run in runs])
    total = float(seconds.sum())
    return len(seconds) / total if total > 0 else None


def device_text() -> str:
    """What JAX runs on, where it was used."""
    import os

    jax = sys.modules.get("jax")
    kind = jax.devices()[0].device_kind if jax else "cpu"
    return f"{kind}, {os.cpu_count()} cores"


# ------------------------------------------------------------------ printing


def print_head(config: "Config", data: VotData) -> None:
    """Prints what is evaluated, and in which experiment."""
    frames = sum(len(sequence) for sequence in data.sequences)
    print(f"{data.name}, {len(data.sequences)} sequences, {frames} frames", end="")
    if data.name == "synthetic":
        print(": generated, its figures compare with those of no data set")
    elif data.complete:
        print()
    else:
        print(
            f": not the {data.whole} of the whole set, figures do not compare "
            "with its own"
        )
    timing = f" at {config.fps:g} frames/s, grace {config.grace}"
    known = config.experiment == "realtime" and not config.results_only
    print(f"experiment {config.experiment}{timing if known else ''}")


def print_table(config: "Config", data: VotData, scored: list[Scored]) -> None:
    """Prints a row for each tracker, and what belongs to it."""
    figures = scored[0].figures
    low, high = data.interval
    lengths = f", EAO over lengths {low} to {high}"
    print(
        f"convention {figures.convention}, overlap {figures.overlap}"
        f"{'' if config.experiment == 'unsupervised' else lengths}"
    )
    head = ["EAO", "Accuracy", "Failure", "lost", "per 100", "frames/s"]
    if config.experiment == "unsupervised":
        head = ["overlap", "frames/s"]
    if config.efo:
        head.append("EFO ≈")
    print(_row("tracker", *head))
    for one in scored:
        print(_row(one.name, *_cells(one)))
    for one in scored:
        if one.broken:
            print(
                f"{one.name}: INCOMPLETE, without {', '.join(one.broken)}: its figures "
                "do not compare"
            )
        if one.warm_up is not None:
            print(
                f"{one.name}: {one.warm_up:.1f} s of compilation and warm-up, which "
                f"frames/s leaves out; on {device_text()}"
            )
    if config.experiment != "unsupervised":
        print(
            "Failure: lost by sequence, the paper's column. per 100: lost by 100 frames"
        )


def _cells(scored: Scored) -> list[str]:
    from siamrpn_jax.evaluation.vot.metrics import UnsupervisedFigures

    figures, efo = scored.figures, scored.efo_estimate
    speed = ["-" if scored.fps is None else f"{scored.fps:.1f}"]
    speed += [] if efo is None else [f"{efo:.1f}"]
    if isinstance(figures, UnsupervisedFigures):
        return [f"{figures.average_overlap:.3f}", *speed]
    share = figures.failures / len(figures.sequences)
    return [
        f"{figures.eao:.3f}",
        f"{figures.accuracy:.3f}",
        f"{share:.2f}",
        f"{figures.failures:.1f}",
        f"{figures.robustness:.3f}",
        *speed,
    ]


def _row(name: str, *cells: str) -> str:
    return f"{name:<24}" + "".join(f"{cell:>10}" for cell in cells)


def as_json(config: "Config", data: VotData, scored: Scored) -> dict[str, Any]:
    """The figures of one tracker, as they are written."""
    figures = scored.figures.as_dict()
    if config.experiment == "unsupervised":
        frames = {sequence.name: len(sequence) for sequence in data.sequences}
        figures |= {
            "eao": None,
            "accuracy": figures.pop("average_overlap"),
            "robustness": None,
            "failures": None,
            "interval": None,
            "sequences": {
                name: {"frames": frames[name], "accuracy": accuracy, "failures": None}
                for name, accuracy in figures["sequences"].items()
            },
        }
    for name, row in figures["sequences"].items():
        row["fps"] = _fps({name: scored.results[name]})
    ran = not config.results_only
    return {
        "tracker": scored.name,
        "dataset": data.name,
        "experiment": config.experiment,
        "complete": data.complete and not scored.broken,
        "broken": list(scored.broken),
        "fps": scored.fps,
        "efo_estimate": scored.efo_estimate,
        "efo_filter_seconds": scored.filter_seconds,
        "warm_up_seconds": scored.warm_up,
        "device": device_text() if ran else None,
        "realtime": {"fps": config.fps, "grace": config.grace}
        if ran and config.experiment == "realtime"
        else None,
        **figures,
    }


# ------------------------------------------------------------------ report


def write_page(
    config: "Config", folder: Path, data: VotData, scored: list[Scored]
) -> None:
    """Writes the page with tables and plots; prints where it is."""
    import siamrpn_jax
    from siamrpn_jax.evaluation.report import page as report
    from siamrpn_jax.evaluation.report.data import Report

    options = [
        f"{field.name}={getattr(config, field.name)}"
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != field.default
    ]
    about = {"options": ", ".join(options), "siamrpn_jax": siamrpn_jax.__version__}
    if not config.results_only:
        about["device"] = device_text()
    benchmark = _benchmark(config, data, scored)
    title = f"{data.name} {config.experiment}"
    page = report.write_report(folder, Report(title, vot=(benchmark,), about=about))
    print(f"report  {page}")


def _benchmark(config: "Config", data: VotData, scored: list[Scored]) -> "VotBenchmark":
    from siamrpn_jax.evaluation.report.data import (
        VotBenchmark,
        VotEntry,
        find_vot_failures,
    )

    return VotBenchmark(
        dataset=data.name,
        experiment=config.experiment,
        convention=scored[0].figures.convention,
        overlap=scored[0].figures.overlap,
        interval=None if config.experiment == "unsupervised" else data.interval,
        entries=tuple(
            VotEntry.of(
                one.name,
                one.figures,
                one.sequences,
                fps=one.fps,
                efo_estimate=one.efo_estimate,
                lost=find_vot_failures(trajectories_of(one.results), one.sequences),
                missing=one.broken,
                note=str(one.folder) if config.results_only else "",
            )
            for one in scored
        ),
    )
