"""``siamrpn eval``: one-pass evaluation: OTB, UAV123, NfS, LaSOT, GOT-10k, folders."""

import contextlib
import dataclasses
from collections.abc import Mapping
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
from siamrpn_jax.common.errors import InputError, check_least
from siamrpn_jax.common.files import check_place, lock_folder, write_json
from siamrpn_jax.data.read.benchmark_lists import BenchmarkName
from siamrpn_jax.deploy import Runtime

if TYPE_CHECKING:  # --help must not wait for JAX
    from siamrpn_jax.data.read.sequences import Sequence
    from siamrpn_jax.evaluation.ope.comparison import Comparison
    from siamrpn_jax.evaluation.ope.table import (
        Benchmark,
        Convention,
        Entry,
        NetworkCost,
        Runs,
    )
    from siamrpn_jax.evaluation.runner import OnePassTracker, Run, SequenceTracker
    from siamrpn_jax.evaluation.store import ResultStore

    Opened = tuple[TrackerSpec, OnePassTracker | SequenceTracker, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Config:
    """Evaluate trackers in one pass: success AUC, precision, speed; GOT-10k's AO."""

    sequences: Path | None = None
    """Folder of the benchmark; for --benchmark folder, one sequence (img/ and
    groundtruth.txt) or a folder with some. Sequences that the weights were trained or
    tuned on are named, if the weights know them."""
    benchmark: Literal["folder"] | BenchmarkName = "folder"
    """What the folder holds, as its authors hand it out; folder: any sequences. Test
    sets of that name have no truth: results and a zip for the server are written."""
    there_and_back: int = 0
    """Play each sequence of a folder there and back this many times: one slip then
    costs all that follows, as in long videos. 0: once, forwards."""
    groundtruth: Path | None = None
    """Instead of a folder: PySOT's JSON file, such as OTB2015.json; with
    --results-only."""
    weights: tuple[str, ...] = ()
    """Names of released weights, .safetensors files, training runs' folders, or exports
    (with --runtime auto). Default base, if there is no --tracker."""
    tracker: tuple[Literal["siamrpn", "static", "kcf", "csrt", "nano"], ...] = ()
    """Others to compare with: static repeats the first box; kcf and csrt need
    opencv-contrib-python, nano (NanoTrack, v2 or v3) needs --nano-files."""
    nano_files: tuple[Path, Path] | None = None
    """NanoTrack's two ONNX files, backbone and head, for --tracker nano."""
    results_only: tuple[Path, ...] = ()
    """Run nothing, score raw results: a folder for each tracker with <sequence>.txt, or
    <sequence>/<sequence>_001.txt for GOT-10k."""
    convention: Literal["plain", "toolkit"] | None = None
    """plain: the first frame and those without the target do not count. toolkit:
    as in published figures, the first frame counts with its true box and those without
    the target as missed. Default: plain for folders and GOT-10k, else toolkit."""
    compare: str | None = None
    """Name of one tracker of the table: print each other tracker's success AUC minus
    its AUC, with the 95 % interval of a paired bootstrap over sequences."""
    json: Path | None = None
    """Write the figures to this file, with command, date and machine."""
    results: Path | None = None
    """Write boxes to <sequence>.txt in this folder, a line x,y,w,h a frame (OTB), or in
    GOT-10k's layout; with several trackers, one folder each. What is there is not run
    again."""
    results_origin: tuple[Literal[0, 1], ...] = ()
    """Coordinate of the first pixel in those files: 1 as in OTB's own, or 0. One for
    all, or with --results-only one for each folder. Default 1; TrackingNet's 0."""
    skip_broken: bool = False
    """Score --results-only without the sequences whose files cannot be used; they are
    named, and the figures are marked as incomplete."""
    force: bool = False
    """Remove the results that are there, and run again."""
    plots: Path | None = None
    """Draw curves and strips of frames in this folder (siamrpn-jax[report])."""
    report: Path | None = None
    """Write a page with tables and plots to this folder (siamrpn-jax[report])."""
    runtime: Runtime = "jax"
    """What computes SiamRPN: jax, onnxruntime (siamrpn-jax[onnx]) or litert, with the
    same boxes but for what kernels learn (base), which they do not in litert; or auto:
    what siamrpn track takes by itself."""
    constants: ConstantsOption = Constants()


def run(config: Config) -> dict[str, Any]:
    """Evaluates, prints tables, and writes what was asked for.

    Returns:
        The report: of one tracker its figures, of several ``{"trackers": {name:
        figures}}``. In ``json`` command, date and machine stand before it.

    Raises:
        InputError: options, sequences, frames or results that cannot be used, all of
            them named.
    """
    _check_options(config)
    # Imported here: ``siamrpn eval --help`` must not wait for JAX.
    from siamrpn_jax.common.errors import require
    from siamrpn_jax.evaluation.ope import output
    from siamrpn_jax.evaluation.ope.table import as_json

    for name in ("results", "plots", "report", "json"):
        if place := getattr(config, name):
            check_place(place, f"--{name}", is_file=name == "json")
    if config.plots or config.report:
        require("matplotlib", extra="report")  # before an hour of tracking
    if config.report:
        require("jinja2", extra="report")
    specs: list[TrackerSpec] = []
    if not config.results_only:
        specs = make_tracker_specs(
            config.weights,
            config.tracker,
            nano_files=config.nano_files or (),
            settings=settings_of(config.constants),
            runtime=config.runtime,
        )
    _check_compared(config, specs)
    benchmark = read_benchmark(config)
    if config.results_only:
        entries = _score_results(config, benchmark)
    else:
        # All are checked, which is fast, then opened: what is wrong is reported before
        # an hour of tracking.
        check_tracker_specs(specs)
        opened = _together([(one, *open_tracker(one)) for one in specs])
        with contextlib.ExitStack() as locks:
            stores = _open_stores(config, benchmark, opened, locks)
            entries = [
                _run(config, benchmark, *one, store)
                for one, store in zip(opened, stores, strict=True)
            ]
    if len(entries) > 1 or entries[0].network:
        output.print_comparison(benchmark, entries)
    rows = {entry.tracker: as_json(entry, benchmark) for entry in entries}
    for name, found in _compare(config, entries).items():
        output.print_difference(name, found)
        rows[name]["compared"] = dataclasses.asdict(found)
    add_sources(rows, specs, benchmark.truths)
    report = {"trackers": rows} if len(rows) > 1 else next(iter(rows.values()))
    if config.json:
        write_json(config.json, _made() | report)
    if config.plots:
        output.draw_plots(config.plots, benchmark, entries)
    if config.report:
        print(f"report {output.write_page(config.report, benchmark, entries)}")
    return report


def _made() -> dict[str, Any]:
    """How the figures came about, for their file."""
    from siamrpn_jax.common import provenance

    packages = "jax", "onnxruntime", "opencv-python", "opencv-contrib-python"
    return {
        "command": provenance.command_line(),
        "date": provenance.today(),
        "machine": provenance.machine(packages),
    }


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and runs."""
    run_or_exit(lambda: run(tyro.cli(Config, args=argv, prog="siamrpn eval")))


# ------------------------------------------------------------------ what is evaluated


def _check_options(config: Config) -> None:
    origins, scored = _origins(config), config.results_only
    check_least(config, 0, "there_and_back")
    if bool(config.sequences) == bool(config.groundtruth):
        raise InputError(
            "expected --sequences with a folder, or --groundtruth with a JSON file"
        )
    if config.groundtruth and not scored:
        raise InputError("--groundtruth has no images: expected --results-only")
    if config.there_and_back and (config.benchmark != "folder" or scored):
        raise InputError("--there-and-back is for folders of sequences that are run")
    if config.skip_broken and not scored:
        raise InputError("--skip-broken is for --results-only")
    if config.groundtruth and _is_got10k(config):
        raise InputError(f"{config.benchmark}: expected --sequences, for its images")
    if scored and (config.weights or config.tracker or config.results):
        raise InputError(
            "--results-only runs nothing: expected no --weights, --tracker or --results"
        )
    if scored and any(settings_of(config.constants)):
        raise InputError("--results-only runs nothing: expected no --tracker.*")
    if config.compare and _without_truth(config):
        raise InputError(f"--compare: {config.benchmark} has no truth to compare by")
    if _without_truth(config) and not config.results:
        raise InputError(
            f"{config.benchmark} has no truth to score: expected --results"
        )
    if ("nano" in config.tracker) != (config.nano_files is not None):
        raise InputError(
            "expected --tracker nano and --nano-files BACKBONE HEAD, NanoTrack's two "
            "ONNX files, together"
        )
    if len(origins) not in (1, len(scored)):
        raise InputError(
            f"--results-origin has {len(origins)} values, expected one"
            + (f", or {len(scored)}" if len(scored) > 1 else "")
        )


def _check_compared(config: Config, specs: list[TrackerSpec]) -> None:
    """Checks that ``--compare`` names one of at least two trackers."""
    trackers = [one.name for one in specs]
    trackers += [folder.resolve().name for folder in config.results_only]
    if config.compare and (config.compare not in trackers or len(trackers) < 2):
        raise InputError(
            f"--compare {config.compare}: expected one of several trackers, those here "
            f"are {', '.join(trackers)}"
        )


def read_benchmark(config: Config) -> "Benchmark":
    """Reads and checks all sequences before anything is run.

    Raises:
        InputError: some cannot be read, tracked or counted, or two have one name.
    """
    from siamrpn_jax.data.read import benchmarks
    from siamrpn_jax.data.read.sequences import play_there_and_back
    from siamrpn_jax.evaluation.annotations import read_box_annotations
    from siamrpn_jax.evaluation.ope.table import Benchmark

    name = None if config.benchmark == "folder" else config.benchmark
    sequences: tuple[Sequence, ...] = ()
    if config.groundtruth:
        annotations = read_box_annotations(config.groundtruth)
        truths = {key: one.boxes for key, one in annotations.items()}
        benchmarks.check_names(name, truths)
    else:
        assert config.sequences is not None
        if name:
            sequences = benchmarks.read_benchmark(name, config.sequences)
        else:
            sequences = read_sequences(config.sequences)
            if times := config.there_and_back:
                sequences = tuple(play_there_and_back(s, times) for s in sequences)
        truths = {sequence.name: sequence.boxes for sequence in sequences}
    benchmark = Benchmark(
        name,
        sequences,
        {} if _without_truth(config) else truths,
        {key: len(boxes) for key, boxes in truths.items()},
        benchmarks.whole_size(name) if name else 0,
        _convention(config),
    )
    if not config.results_only:
        _check_sequences(benchmark)
    return benchmark


def read_sequences(root: Path) -> "tuple[Sequence, ...]":
    """Reads all sequences below a folder.

    Raises:
        InputError: some cannot be read, or two have one name.
    """
    from siamrpn_jax.data.read.sequences import find_sequences, read_sequence

    sequences, problems = {}, []
    for path in find_sequences(root):
        try:
            sequence = read_sequence(path)
            if sequence.name in sequences:
                problems.append(f"{path}: a second sequence named {sequence.name}")
            sequences[sequence.name] = sequence
        except (InputError, OSError) as error:
            problems.append(str(error))
    if problems:
        raise InputError("; ".join(problems))
    return tuple(sequences.values())


def _check_sequences(benchmark: "Benchmark") -> None:
    """Checks that a tracker can start on each sequence, and that it can be scored."""
    import numpy as np

    from siamrpn_jax.evaluation.ope.table import evaluate_runs
    from siamrpn_jax.evaluation.runner import Run, check_sequence

    problems = []
    for one in benchmark.sequences:
        try:
            box = check_sequence(one)
            if one.name in benchmark.truths:
                still = np.tile(box, (len(one.boxes), 1))
                runs = (Run(still, still[:, 0], still[:, 0]),)
                evaluate_runs(one.name, runs, one.boxes, benchmark.convention)
        except (InputError, OSError) as error:
            problems.append(str(error))
    if problems:
        raise InputError("; ".join(problems))


def _convention(config: Config) -> "Convention":
    from siamrpn_jax.evaluation.ope.table import Convention

    published = config.benchmark != "folder" or config.groundtruth is not None
    default = "toolkit" if published and not _is_got10k(config) else "plain"
    toolkit = (config.convention or default) == "toolkit"
    return Convention(toolkit, toolkit)


def _is_got10k(config: Config) -> bool:
    return config.benchmark.startswith("got10k")


def _without_truth(config: Config) -> bool:
    return config.benchmark.endswith("-test")


def _origins(config: Config) -> tuple[Literal[0, 1], ...]:
    """What the files of results count from."""
    default = 0 if config.benchmark == "trackingnet-test" else 1
    return config.results_origin or (default,)


# ------------------------------------------------------------------ running and scoring


def _together(opened: "list[Opened]") -> "list[Opened]":
    """Lets settings that differ in numbers alone run together, on an accelerator."""
    from siamrpn_jax.api import Tracker
    from siamrpn_jax.commands import together

    if len(opened) == 1 or not together.pays():
        return opened
    groups: dict[Any, list[int]] = {}
    for place, (spec, tracker, _) in enumerate(opened):
        if isinstance(tracker, Tracker):
            key = spec.source, together.kind_of(tracker.config)
            groups.setdefault(key, []).append(place)
    opened = list(opened)
    for places in groups.values():
        if len(places) == 1:
            continue
        trackers: Any = [opened[place][1] for place in places]
        members = together.Together(trackers).members()
        for place, member in zip(places, members, strict=True):
            opened[place] = opened[place][0], member, opened[place][2]
        names = ", ".join(opened[place][0].name for place in places)
        print(f"together, each with its share of the time: {names}")
    return opened


def _open_stores(
    config: Config,
    benchmark: "Benchmark",
    opened: "list[Opened]",
    locks: contextlib.ExitStack,
) -> "list[ResultStore | None]":
    """The folders of the trackers' results, each locked; None if none are written."""
    import siamrpn_jax

    if not config.results:
        return [None] * len(opened)
    several, stores = len(opened) > 1, []
    for spec, _, _ in opened:
        folder = config.results / spec.name if several else config.results
        locks.enter_context(lock_folder(folder))
        stores.append(_store(config, folder, _origins(config)[0]))
    about = {"siamrpn_jax": siamrpn_jax.__version__, "benchmark": config.benchmark}
    names = list(benchmark.lengths)
    for store, (_, _, settings) in zip(stores, opened, strict=True):
        store.open(about | settings, force=config.force, names=names)
    return stores


def _run(
    config: Config,
    benchmark: "Benchmark",
    spec: TrackerSpec,
    tracker: "OnePassTracker | SequenceTracker",
    settings: dict[str, Any],
    store: "ResultStore | None",
) -> "Entry":
    from siamrpn_jax.evaluation.ope import output
    from siamrpn_jax.evaluation.ope.table import Entry, evaluate_runs
    from siamrpn_jax.evaluation.runner import run_sequence

    output.print_head(benchmark, spec.name)
    runs: dict[str, tuple[Run, ...]] = {}
    for one in benchmark.sequences:
        run = store.run(tracker, one) if store else run_sequence(tracker, one)
        runs[one.name], metrics = (run,), None
        if one.name in benchmark.truths:
            truth, convention = one.boxes, benchmark.convention
            metrics = evaluate_runs(one.name, (run,), truth, convention)
        output.print_sequence(one.name, metrics, run.fps, len(run.boxes))
    entry = Entry.of(spec.name, runs, benchmark, network=_network_cost(settings))
    output.print_mean(entry)
    if store:
        print(f"boxes  {store.folder} (x and y count from {store.origin})")
        if _is_got10k(config) or _without_truth(config):
            path = store.folder / f"{spec.name}.zip"
            store.pack(path, benchmark.lengths)
            print(f"zip    {path}")
    return entry


def open_tracker(spec: TrackerSpec) -> "tuple[OnePassTracker, dict[str, Any]]":
    """Opens a tracker; also returns what its results depend on."""
    return open_tracker_spec(spec)


def _network_cost(settings: Mapping[str, Any]) -> "NetworkCost | None":
    """Counts the network that results depend on, if it is one of ours."""
    from siamrpn_jax.common import configs
    from siamrpn_jax.evaluation.ope.table import NetworkCost
    from siamrpn_jax.model.config import ModelConfig, count_flops
    from siamrpn_jax.model.network import count_parameters

    if "model" not in settings:
        return None
    try:
        model = configs.from_json(ModelConfig, settings["model"])
    except (InputError, AttributeError, TypeError):
        return None  # another version's, or another tool's: only its size is not known
    return NetworkCost(count_parameters(model), count_flops(model))


def _store(config: Config, folder: Path, origin: Literal[0, 1]) -> "ResultStore":
    from siamrpn_jax.evaluation.store import ResultStore

    return ResultStore(folder, "got10k" if _is_got10k(config) else "otb", origin)


def _score_results(config: Config, benchmark: "Benchmark") -> "list[Entry]":
    from siamrpn_jax.evaluation.ope import output
    from siamrpn_jax.evaluation.ope.table import Entry

    folders, origins = config.results_only, _origins(config)
    names = [folder.resolve().name for folder in folders]
    check_names(names)
    origins = origins * len(names) if len(origins) == 1 else origins
    entries = []
    for name, folder, origin in zip(names, folders, origins, strict=True):
        store = _store(config, folder, origin)
        runs, missing = _read_runs(config, store, benchmark)
        network = _network_cost(store.settings())
        entry = Entry.of(name, runs, benchmark, network=network, missing=missing)
        entries.append(entry)
        output.print_head(benchmark, name)
        for one, metrics in entry.sequences.items():
            output.print_sequence(one, metrics, entry.fps_of(one), metrics.frames)
        output.print_mean(entry)
    return entries


def _read_runs(
    config: Config, store: "ResultStore", benchmark: "Benchmark"
) -> "tuple[Runs, list[str]]":
    """A tracker's results, and the sequences whose files cannot be used."""
    if not config.skip_broken:
        return store.read(benchmark.truths), []
    runs, missing = {}, []
    for name, truth in benchmark.truths.items():
        try:
            runs |= store.read({name: truth})
        except InputError as error:
            missing.append(name)
            print(f"{store.folder.name}: left out: {error}")
    if not runs:
        raise InputError(f"{store.folder}: no sequence has results that can be used")
    return runs, missing


def _compare(config: Config, entries: "list[Entry]") -> "dict[str, Comparison]":
    """Compares the other trackers with the one that ``--compare`` names."""
    from siamrpn_jax.evaluation.ope.comparison import compare

    if not config.compare:
        return {}
    aucs = {
        entry.tracker: {name: one.auc for name, one in entry.sequences.items()}
        for entry in entries
    }
    others = aucs.pop(config.compare)
    return {
        name: compare(own, others, other=config.compare) for name, own in aucs.items()
    }
