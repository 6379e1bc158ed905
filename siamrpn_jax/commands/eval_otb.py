"""``siamrpn eval``: one-pass evaluation (OTB) on a folder of sequences."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from siamrpn_jax.commands.errors import run_or_exit
from siamrpn_jax.errors import InputError

if TYPE_CHECKING:  # --help must not wait for JAX
    import numpy as np

    from siamrpn_jax.data.sequences import Sequence
    from siamrpn_jax.evaluation.ope import OpeMetrics
    from siamrpn_jax.evaluation.runner import OnePassTracker, Run


class EvaluationError(InputError):
    """Sequences that cannot be evaluated; names every one."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Evaluate a tracker on sequences: success AUC, precision, speed."""

    sequences: Path
    """A sequence folder (img/ and groundtruth.txt), or a folder that holds some."""
    weights: str = "small"
    """Name of released weights, a .safetensors file, or a training run's folder."""
    tracker: Literal["siamrpn", "static", "kcf", "csrt"] = "siamrpn"
    """static repeats the first box; kcf and csrt need opencv-contrib-python."""
    json: Path | None = None
    """Write the figures to this file."""
    results: Path | None = None
    """Write boxes to <sequence>.txt in this folder, a line x,y,w,h a frame (OTB)."""
    results_origin: Literal[0, 1] = 1
    """Coordinate of the first pixel in those files: 1 as in OTB's own, or 0."""
    plots: Path | None = None
    """Draw curves and strips of frames in this folder (siamrpn-jax[report])."""
    include_first: bool = False
    """Count the first frame, as the OTB toolkit does, though its box was given."""


def run(config: Config) -> dict[str, Any]:
    """Evaluates, prints a table, and writes what was asked for.

    Returns:
        The report, as it is written to ``json``.

    Raises:
        InputError: sequences or frames that cannot be read, all of them named.
        FileNotFoundError: no sequences there.
    """
    # Imported here: `siamrpn eval --help` must not wait for JAX.
    from siamrpn_jax.evaluation import ope, results, runner
    from siamrpn_jax.extras import require

    if config.plots:
        require("matplotlib", extra="report")  # told before an hour of tracking
    sequences = read_sequences(config)
    tracker = open_tracker(config)
    first = "included" if config.include_first else "excluded"
    print(f"tracker {config.tracker}, {len(sequences)} sequences, first frame {first}")
    print(_row("sequence", "AUC", "P@20", "norm P", "fps", "frames"))
    metrics: dict[str, OpeMetrics] = {}
    runs: dict[str, Run] = {}
    for sequence in sequences:
        name = sequence.name
        runs[name] = runner.run_sequence(tracker, sequence)
        metrics[name] = _evaluate(config, sequence, runs[name].boxes)
        print(_figures_row(name, metrics[name], runs[name].fps), flush=True)
        if config.results:
            path = config.results / f"{name}.txt"
            results.write_otb_results(
                path, runs[name].boxes, origin=config.results_origin
            )
    mean, fps = ope.mean_metrics(metrics.values()), runner.total_fps(runs.values())
    print(_figures_row("mean", mean, fps))
    if config.results:
        print(f"boxes  {config.results} (x and y count from {config.results_origin})")
    report = results.make_report(
        config.tracker,
        {name: (row, runs[name].fps) for name, row in metrics.items()},
        mean=mean,
        fps=fps,
        skip_first=not config.include_first,
    )
    if config.json:
        results.write_json(config.json, report)
    if config.plots:
        _plot(config, sequences, runs, mean)
    return report


def read_sequences(config: Config) -> "list[Sequence]":
    """Reads and checks all sequences of the folder before anything is run.

    Raises:
        EvaluationError: some cannot be read, tracked or counted, or two have one name.
    """
    import numpy as np

    from siamrpn_jax.data.sequences import find_sequences, read_sequence
    from siamrpn_jax.evaluation.runner import check_sequence

    sequences, problems = {}, []
    for path in find_sequences(config.sequences):
        try:
            sequence = read_sequence(path)
            if sequence.name in sequences:
                problems.append(f"{path}: a second sequence named {sequence.name}")
            box = check_sequence(sequence)
            _evaluate(config, sequence, np.tile(box, (len(sequence.boxes), 1)))
            sequences[sequence.name] = sequence
        except (InputError, OSError) as error:
            problems.append(str(error))
    if problems:
        raise EvaluationError("; ".join(problems))
    return list(sequences.values())


def open_tracker(config: Config) -> "OnePassTracker":
    """Opens the tracker that the configuration names."""
    if config.tracker == "siamrpn":
        from siamrpn_jax.api import load

        return load(config.weights)
    from siamrpn_jax.evaluation.baselines import make_baseline

    return make_baseline(config.tracker)


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and runs."""
    config = tyro.cli(Config, args=argv, prog="siamrpn eval")
    run_or_exit(lambda: run(config))


def _evaluate(
    config: Config, sequence: "Sequence", boxes: "np.ndarray"
) -> "OpeMetrics":
    from siamrpn_jax.evaluation.ope import MetricError, evaluate

    try:
        return evaluate(boxes, sequence.boxes, skip_first=not config.include_first)
    except MetricError as error:
        raise EvaluationError(f"{sequence.name}: {error}") from error


def _plot(
    config: Config,
    sequences: "list[Sequence]",
    runs: "dict[str, Run]",
    mean: "OpeMetrics",
) -> None:
    import numpy as np

    from siamrpn_jax.data.images import read_image
    from siamrpn_jax.evaluation import plots

    assert config.plots is not None
    plots.plot_success(config.plots / "success.png", {config.tracker: mean})
    plots.plot_precision(config.plots / "precision.png", {config.tracker: mean})
    for sequence in sequences:
        shown = np.unique(np.linspace(0, len(sequence.frames) - 1, 6).astype(int))
        plots.plot_strip(
            config.plots / f"{sequence.name}.png",
            [read_image(sequence.frames[index]) for index in shown],
            predicted=runs[sequence.name].boxes[shown],
            truth=sequence.boxes[shown],
            titles=[f"{sequence.name} {index}" for index in shown],
        )


def _figures_row(name: str, metrics: "OpeMetrics", fps: float) -> str:
    shares = (metrics.auc, metrics.precision, metrics.normalized_precision)
    return _row(name, *(f"{v:.3f}" for v in shares), f"{fps:.1f}", f"{metrics.frames}")


def _row(name: str, *cells: str) -> str:
    return f"{name:<24}" + "".join(f"{cell:>9}" for cell in cells)
