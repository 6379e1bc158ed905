"""``siamrpn eval-vot``: VOT's experiments and figures, of one tracker or several."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from siamrpn_jax.commands.constants import Constants, ConstantsOption, settings_of
from siamrpn_jax.commands.errors import run_or_exit
from siamrpn_jax.commands.tracker_specs import (
    TrackerSpec,
    add_sources,
    check_names,
    check_tracker_specs,
    make_tracker_specs,
    open_tracker_spec,
)
from siamrpn_jax.commands.vot_output import (
    Scored,
    VotData,
    as_json,
    print_head,
    print_table,
    trajectories_of,
    write_page,
)
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import check_place, lock_folder, write_json
from siamrpn_jax.evaluation import annotations

if TYPE_CHECKING:  # --help must not wait for JAX
    import numpy as np

    from siamrpn_jax.evaluation.runner import OnePassTracker
    from siamrpn_jax.evaluation.vot.protocols import ProtocolConfig


@dataclasses.dataclass(frozen=True)
class Config:
    """Run trackers as VOT does, and print EAO, accuracy, robustness and speed.

    Without a data set, on a small generated one.
    """

    dataset: Literal["vot2015", "vot2016", "vot2017", "vot2018", "vot2019"] | None = (
        None
    )
    """Data set; its year decides over which sequence lengths EAO is averaged. Default:
    four generated sequences."""
    root: Path | None = None
    """The data set: a folder that ``vot initialize`` made (sequences/list.txt), or one
    with a folder for each sequence."""
    groundtruth: Path | None = None
    """Instead of root: PySOT's JSON file of the data set; for --results-only. Beside
    it, root is the folder of the frames, for the sizes that some such files lack."""
    experiment: Literal["baseline", "realtime", "unsupervised"] = "baseline"
    """baseline: restart after each failure. realtime: the same, and frames do not wait
    for the tracker. unsupervised: no restart."""
    weights: tuple[str, ...] = ()
    """Names of released weights, .safetensors files, or training runs' folders. Default
    base, if there is no --tracker."""
    tracker: tuple[Literal["static", "kcf", "csrt"], ...] = ()
    """Others to compare with: static repeats the first box; kcf and csrt need
    opencv-contrib-python."""
    results_only: tuple[Path, ...] = ()
    """Run nothing, score raw results: one folder for each tracker, with
    [<experiment>/]<sequence>/<sequence>_001.txt."""
    convention: Literal["legacy", "toolkit"] = "legacy"
    """Whose formulas: legacy as in published tables up to VOT2019, or those of VOT's
    Python toolkit."""
    overlap: Literal["pysot", "official"] | None = None
    """How regions are drawn: as PySOT does, and with it most published figures of
    Siamese trackers, or as VOT's Python toolkit. Default: as the convention does."""
    json: Path | None = None
    """Write the figures to this file."""
    report: Path | None = None
    """Write a page with tables and plots to this folder (siamrpn-jax[report])."""
    results: Path | None = None
    """Write raw results to <tracker>/<experiment>/ in this folder, in the toolkit's
    format; what is there is not run again. Default results/<dataset>; generated
    sequences leave none."""
    repetitions: int = 1
    """Runs of each sequence; three equal ones are enough, as in the toolkit."""
    fps: float = 20.0
    """Frames a second of the realtime experiment; 20 in VOT2017 to VOT2019."""
    grace: int = 3
    """Answers after a start whose lateness realtime forgives, the start's included."""
    skip_broken: bool = False
    """Score --results-only without the sequences whose files cannot be used; they are
    named, and the figures are marked as incomplete."""
    force: bool = False
    """Remove the results that are there, and run again."""
    efo: bool = False
    """Estimate EFO, VOT's normalised speed, by the time that its filter takes on this
    machine."""
    check_with_toolkit: bool = False
    """Have VOT's own toolkit score the same results, and compare (siamrpn-jax[vot])."""
    constants: ConstantsOption = Constants()


def run(config: Config) -> dict[str, Any]:
    """Runs and scores, prints a table, and writes what was asked for.

    Returns:
        The report, as it is written to ``json``: of one tracker its figures, of several
        ``{"trackers": {name: figures}}``.

    Raises:
        InputError: options, sequences or results that cannot be used; all are named.
    """
    _check_options(config)
    # Imported here: ``siamrpn eval-vot --help`` must not wait for JAX.
    from siamrpn_jax.common.errors import require
    from siamrpn_jax.evaluation.vot import toolkit

    for name in ("results", "report", "json"):
        if place := getattr(config, name):
            check_place(place, f"--{name}", is_file=name == "json")
    if config.report:
        require("matplotlib", extra="report")  # before an hour of tracking
        require("jinja2", extra="report")
    if config.check_with_toolkit:
        toolkit.check_installed()
    with (
        open_dataset(config) as data,
        _open_results(config) as folder,
        contextlib.ExitStack() as locks,
    ):
        print_head(config, data)
        specs: list[TrackerSpec] = []
        filter_seconds = _filter_seconds() if config.efo else None
        if config.results_only:
            names = [path.resolve().name for path in config.results_only]
            check_names(names)
            scored = [
                _score(config, data, name, _experiment_folder(config, path), None)
                for name, path in zip(names, config.results_only, strict=True)
            ]
        else:
            specs = make_tracker_specs(
                config.weights,
                config.tracker,
                settings=settings_of(config.constants),
            )
            # All are checked, which is fast, then opened: a fault is reported before
            # hours of work, not after, and before anything is removed by --force.
            check_tracker_specs(specs)
            opened = [open_tracker_spec(one) for one in specs]
            places = [folder / one.name / config.experiment for one in specs]
            for place in places:
                locks.enter_context(lock_folder(place))
            for place, (_, made_from) in zip(places, opened, strict=True):
                _open_folder(config, data, place, made_from)
            scored = [
                _run_and_score(config, data, one.name, tracker, place)
                for one, (tracker, _), place in zip(specs, opened, places, strict=True)
            ]
        if filter_seconds:
            scored = [
                dataclasses.replace(one, filter_seconds=filter_seconds)
                for one in scored
            ]
        print_table(config, data, scored)
        if config.check_with_toolkit:
            for one in scored:
                _check_with_toolkit(data, one)
        rows = {one.name: as_json(config, data, one) for one in scored}
        add_sources(rows, specs, _truths(data))
        report = {"trackers": rows} if len(rows) > 1 else next(iter(rows.values()))
        if config.json:
            write_json(config.json, report)
        if config.report:
            write_page(config, config.report, data, scored)
    return report


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and runs."""
    run_or_exit(lambda: run(tyro.cli(Config, args=argv, prog="siamrpn eval-vot")))


# ------------------------------------------------------------------ what is evaluated


def _check_options(config: Config) -> None:
    places = [place for place in (config.root, config.groundtruth) if place]
    if places and not config.dataset:
        raise InputError(
            f"{places[0]}: expected --dataset, whose year says what EAO is about"
        )
    if config.dataset and not places:
        raise InputError(
            f"--dataset {config.dataset}: expected --root with its folder (or "
            "--groundtruth for --results-only)"
        )
    if config.groundtruth and not config.results_only:
        raise InputError("--groundtruth has no images: expected --results-only")
    if config.skip_broken and not config.results_only:
        raise InputError("--skip-broken is for --results-only")
    settings = any(settings_of(config.constants))
    if config.results_only and (config.weights or config.tracker or settings):
        raise InputError("--results-only runs nothing: expected no tracker beside it")
    if config.results_only and config.efo:
        raise InputError(
            "--efo: expected trackers that run on this machine, not --results-only"
        )
    if config.check_with_toolkit and config.experiment == "unsupervised":
        raise InputError(
            "--check-with-toolkit: expected an experiment with resets, not unsupervised"
        )
    if config.repetitions < 1:
        raise InputError(f"--repetitions {config.repetitions}: expected at least 1")


@contextlib.contextmanager
def open_dataset(config: Config) -> Iterator[VotData]:
    """Reads what is evaluated on; generated sequences are there within the body.

    Raises:
        InputError: it cannot be read, or is of another year.
    """
    from siamrpn_jax.evaluation.vot import generated
    from siamrpn_jax.evaluation.vot.dataset import read_vot_dataset
    from siamrpn_jax.evaluation.vot.metrics import interval_of
    from siamrpn_jax.evaluation.vot.years import check_year

    if config.dataset is None:
        with tempfile.TemporaryDirectory(prefix="siamrpn-vot-") as folder:
            generated.write_synthetic(Path(folder))
            sequences = read_vot_dataset(folder)
            yield VotData("synthetic", sequences, generated.INTERVAL)
        return
    if config.groundtruth:
        frames = config.root
        sequences = annotations.read_vot_annotations(config.groundtruth, frames=frames)
    else:
        assert config.root is not None
        sequences = read_vot_dataset(config.root)
    check_year(config.dataset, {one.name: len(one) for one in sequences})
    year = int(config.dataset.removeprefix("vot"))
    yield VotData(config.dataset, sequences, interval_of(year))


@contextlib.contextmanager
def _open_results(config: Config) -> Iterator[Path]:
    if config.results or config.dataset:
        yield config.results or Path("results") / str(config.dataset)
    else:
        with tempfile.TemporaryDirectory(prefix="siamrpn-vot-") as folder:
            yield Path(folder)


# ------------------------------------------------------------------ running


def _open_folder(
    config: Config, data: VotData, folder: Path, made_from: Mapping[str, Any]
) -> None:
    """Checks what is in the folder of a tracker's results before more is added."""
    from siamrpn_jax.evaluation.store import open_results

    settings = _settings(data, _protocol(config), made_from)
    files = [f for s in data.sequences for f in (folder / s.name).glob(f"{s.name}_*")]
    open_results(folder, settings, files, force=config.force)


def _run_and_score(
    config: Config, data: VotData, name: str, tracker: "OnePassTracker", folder: Path
) -> Scored:
    from siamrpn_jax.evaluation.vot.protocols import run_to_files

    warm_up: list[float] = []
    for sequence in data.sequences:
        seconds = run_to_files(
            tracker,
            sequence,
            folder,
            config=_protocol(config),
            repetitions=config.repetitions,
        )
        if seconds is not None:
            warm_up.append(seconds)
        state = "was there" if seconds is None else f"warm-up {seconds:.1f} s"
        print(f"{name}  {sequence.name}  {len(sequence)} frames  {state}", flush=True)
    return _score(config, data, name, folder, sum(warm_up) if warm_up else None)


def _filter_seconds() -> float:
    from siamrpn_jax.commands.efo import filter_seconds

    seconds = filter_seconds()
    print(f"VOT's filter takes {seconds:.3f} s here: EFO is that times frames/s")
    return seconds


def _protocol(config: Config) -> "ProtocolConfig":
    from siamrpn_jax.evaluation.vot.protocols import ProtocolConfig

    return ProtocolConfig(
        experiment=config.experiment,
        # Not by the convention: one run can be scored by both.
        overlap=config.overlap or "pysot",
        fps=config.fps,
        grace=config.grace,
    )


def _settings(
    data: VotData, protocol: "ProtocolConfig", made_from: Mapping[str, Any]
) -> dict[str, Any]:
    import siamrpn_jax

    settings = {"siamrpn_jax": siamrpn_jax.__version__, "dataset": data.name}
    settings |= {"experiment": protocol.experiment, **made_from}
    if protocol.experiment != "unsupervised":
        settings["overlap"] = protocol.overlap
    if protocol.experiment == "realtime":
        settings |= {"fps": protocol.fps, "grace": protocol.grace}
    return settings


# ------------------------------------------------------------------ scoring


def _experiment_folder(config: Config, folder: Path) -> Path:
    inner = folder / config.experiment
    return inner if inner.is_dir() else folder


def _score(
    config: Config,
    data: VotData,
    name: str,
    folder: Path,
    warm_up: float | None,
) -> Scored:
    from siamrpn_jax.evaluation.vot import metrics
    from siamrpn_jax.evaluation.vot.protocols import read_runs

    results, broken = {}, []
    try:
        for one in data.sequences:
            try:
                results[one.name] = read_runs(folder, one)
            except InputError as error:
                if not config.skip_broken:
                    raise
                broken.append(one.name)
                print(f"{name}: left out: {error}")
        if not results:
            raise InputError("no sequence has results that can be used")
        sequences = tuple(one for one in data.sequences if one.name in results)
        runs = trajectories_of(results)
        if config.experiment == "unsupervised":
            figures = metrics.evaluate_unsupervised(
                runs,
                sequences,
                convention=config.convention,
                overlap=config.overlap,
            )
        else:
            figures = metrics.evaluate(
                runs,
                sequences,
                interval=data.interval,
                convention=config.convention,
                overlap=config.overlap,
            )
    except InputError as error:
        raise InputError(
            f"{name}: {error} (read from {folder}/<sequence>/<sequence>_001.txt)"
        ) from error
    return Scored(name, folder, results, figures, warm_up, sequences, tuple(broken))


def _check_with_toolkit(data: VotData, scored: Scored) -> None:
    from siamrpn_jax.evaluation.vot import metrics, toolkit

    figures = metrics.evaluate(
        trajectories_of(scored.results),
        scored.sequences,
        interval=data.interval,
        convention="toolkit",
    )
    theirs = toolkit.check_with_toolkit(figures, scored.folder, scored.sequences)
    print(
        f"{scored.name}: the toolkit has the same figures, EAO {theirs.eao:.6f}, "
        f"accuracy {theirs.accuracy:.6f}, weighted failures {theirs.failures:.6f}"
    )


def _truths(data: VotData) -> "dict[str, np.ndarray]":
    """Name of a sequence -> boxes, as ``read_sequence`` makes them of its regions."""
    import numpy as np

    from siamrpn_jax.evaluation.vot.dataset import region_to_ltwh

    return {
        one.name: np.array([region_to_ltwh(region) for region in one.regions])
        for one in data.sequences
    }
