"""What ``siamrpn ablate`` does: jobs one after the other, then the table."""

import dataclasses
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro

import siamrpn_jax
from siamrpn_jax import weights
from siamrpn_jax.commands import eval_vot, train
from siamrpn_jax.commands.ablate import Config, job_command, source_of
from siamrpn_jax.commands.studies import PLANS, Column, Job, Place, Plan, plan_frozen
from siamrpn_jax.common import configs, provenance
from siamrpn_jax.common.errors import InputError, MissingExtraError, require
from siamrpn_jax.common.files import read_json, replacing, write_json
from siamrpn_jax.evaluation.report.data import Report, Study, StudyColumn
from siamrpn_jax.evaluation.report.page import write_report
from siamrpn_jax.evaluation.vot.generated import write_synthetic
from siamrpn_jax.training import run

GENERATED = "generated"
"""What the generated sequences are called where data sets have their names."""

REDUCED_TRAIN = (
    "--model.backbone.widths 16 24 32 32 32 --model.head.width 32 --epochs 3 "
    "--steps-per-epoch 200 --data.video 1 --data.stills 0 --data.composites 0"
)
"""How the jobs of a reduced study are trained: about a minute each on two cores."""

REDUCED_FROZEN = (
    "--epochs 3 --steps-per-epoch 60 --data.video 1 --data.stills 0 --data.composites 0"
)
"""The same where the backbone is that of the released ``small``."""

REDUCED_SETS = {"first": (8, 5000), "second": (16, 6000)}
"""Number of generated sequences, and the seed of the first one."""

_FRAMES = 16
"""Number of frames of each of those sequences."""

_NOTE = (
    "A reduced study: small networks, few steps, generated scenes. ",
    "Its figures compare with none. ",
)


@dataclasses.dataclass(frozen=True)
class _Call:
    """The commands of one job."""

    folder: Path
    train: list[str]
    """Arguments of ``siamrpn train``."""
    evaluate: dict[str, list[str]]
    """Arguments of ``siamrpn eval-vot`` for each data set."""

    def figures(self, dataset: str) -> Path:
        """Where the evaluation leaves its figures."""
        return self.folder / f"{dataset}.json"

    @property
    def problem(self) -> Path:
        """Where a failure leaves its reason."""
        return self.folder / "problem.txt"


def ablate(config: Config) -> dict[str, Any]:
    """Does what ``ablate.run`` says."""
    require("matplotlib", extra="report")  # before hours of training
    require("jinja2", extra="report")
    out = config.out or Path("runs") / "ablate" / config.study
    whole = config if config.data else _reduced(config, out / "data")
    model = train.parse([whole.preset, *shlex.split(whole.train)]).recipe.model
    source = source_of(whole, cells=model.score_size)
    source = dataclasses.replace(source, datasets=source.datasets or (GENERATED,))
    plan = PLANS[config.study](source)
    calls = {job.name: _call(whole, out / "jobs" / job.name, job) for job in plan.jobs}
    _check_plan(out / "plan.json", config, calls)
    if config.list:
        print("\n".join(job_command(config, name) for name in calls))
        return {}
    if config.job:
        if config.job not in calls:
            raise InputError(f"--job {config.job}: expected one of {', '.join(calls)}")
        _run_job(calls[config.job])
        return {}
    if not config.gather:
        _check_datasets(whole, calls)
        for name, call in calls.items():
            _try_job(name, call)
    return _write_table(config, out, _gather(config, plan, calls))


# --------------------------------------------------------------------- what is run


def _reduced(config: Config, data: Path) -> Config:
    """The study on generated scenes, which are written where they are missing."""
    folders = {name: data / name for name in REDUCED_SETS}
    for name, (count, seed) in REDUCED_SETS.items():
        if not folders[name].is_dir():
            _write_scenes(folders[name], count, seed)
    frozen = PLANS[config.study] is plan_frozen
    return dataclasses.replace(
        config,
        data=(str(folders["first"]),),
        second=(str(folders["second"]),),
        preset="small",
        train=f"{REDUCED_FROZEN if frozen else REDUCED_TRAIN} {config.train}",
        backbone=config.backbone or ("small" if frozen else None),
    )


def _write_scenes(folder: Path, count: int, seed: int) -> None:
    """Writes generated scenes, whole or not at all: other jobs may write the same."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        write_synthetic(temporary, lengths=(_FRAMES,) * count, seed=seed)
        os.rename(temporary, folder)
    except OSError:
        if not folder.is_dir():  # else another job wrote the same in the meantime
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _call(config: Config, folder: Path, job: Job) -> _Call:
    options = [config.preset, "--out", str(folder), "--evaluate", "0", *job.train]
    call = _Call(folder, [*options, *shlex.split(config.train)], {})
    years = zip(config.dataset, map(str, config.root), strict=True)
    sets = {year: ["--dataset", year, "--root", root] for year, root in years}
    for dataset, options in (sets or {GENERATED: []}).items():
        call.evaluate[dataset] = [
            *("--weights", str(folder), "--json", str(call.figures(dataset))),
            *("--results", str(folder / "results" / dataset)),
            *(*options, *job.track),
        ]
    return call


def _check_plan(path: Path, config: Config, calls: Mapping[str, _Call]) -> None:
    """Writes the plan, or refuses a folder that holds another; raises InputError."""
    free = {"out": None, "list": False, "job": None, "gather": False}
    text = json.dumps(configs.to_json(dataclasses.replace(config, **free)), default=str)
    options = json.loads(text)
    if not path.is_file():
        jobs = {
            name: [call.train, *call.evaluate.values()] for name, call in calls.items()
        }
        write_json(path, {"options": options, "jobs": jobs})
        return
    started = read_json(path)
    started = started.get("options") if isinstance(started, dict) else None
    changes = configs.differences(started if isinstance(started, dict) else {}, options)
    if changes:
        raise InputError(
            f"{path}: the study was started with other options: {'; '.join(changes)}; "
            "choose another --out"
        )


def _check_datasets(config: Config, calls: Mapping[str, _Call]) -> None:
    """Reads what is evaluated on before hours of training; raises InputError."""
    for options in (
        next(iter(calls.values())).evaluate.values() if config.dataset else ()
    ):
        with eval_vot.open_dataset(tyro.cli(eval_vot.Config, args=options)):
            pass


def _try_job(name: str, call: _Call) -> None:
    """A job that fails leaves its reason; the others go on."""
    try:
        _run_job(call)
    except (InputError, OSError, MissingExtraError) as error:
        print(f"job {name} failed: {error}", file=sys.stderr)


def _run_job(call: _Call) -> None:
    """Trains and evaluates what is not there yet."""
    call.problem.unlink(missing_ok=True)
    try:
        if not (call.folder / weights.FILE_NAME).is_file():
            started = (call.folder / run.CONFIG_FILE).is_file()
            train.run(train.parse([*call.train, *["--resume"] * started]))
        for dataset, options in call.evaluate.items():
            if not call.figures(dataset).is_file():
                eval_vot.run(tyro.cli(eval_vot.Config, args=options))
    except (InputError, OSError, MissingExtraError) as error:
        with replacing(call.problem) as temporary:
            temporary.write_text(f"{error}\n", encoding="utf-8")
        raise


# ------------------------------------------------------------------- what came out


def _gather(config: Config, plan: Plan, calls: Mapping[str, _Call]) -> Study:
    """The table of what is there."""
    missing: dict[tuple[int, int], str] = {}
    columns = []
    for number, column in enumerate(plan.columns):
        values: list[float | None] = list(column.reported)
        for row, place in enumerate(column.places):
            value, reason = _figure(calls, place)
            values.append(value)
            if reason:
                missing[row, number] = reason
        columns.append(_as_drawn(column, values))
    note = _NOTE if not config.data else ("EAO, convention legacy.",)
    return Study(plan.title, note, plan.over, plan.rows, tuple(columns), missing)


def _as_drawn(column: Column, values: list[float | None]) -> StudyColumn:
    reported = bool(column.reported)
    return StudyColumn(column.name, tuple(values), reported, column.dashed)


def _figure(
    calls: Mapping[str, _Call], place: Place | None
) -> tuple[float | None, str]:
    """The EAO at a place, or why there is none."""
    if place is None:
        return None, ""
    call = calls[place.job]
    path = call.figures(place.dataset)
    if not path.is_file():
        if call.problem.is_file():
            return None, call.problem.read_text(encoding="utf-8").strip()
        return None, "not run yet"
    report = read_json(path)
    rows = list(report.get("trackers", {"": report}).values())
    return rows[place.tracker]["eao"], ""


def _write_table(config: Config, out: Path, study: Study) -> dict[str, Any]:
    """Prints the study, and writes its files."""
    table = {
        "study": config.study,
        "title": study.title,
        "reduced": not config.data,
        "complete": not study.missing,
        "rows": list(study.rows),
        "columns": [dataclasses.asdict(column) for column in study.columns],
        "missing": [
            {"row": study.rows[row], "column": study.columns[column].name, "why": why}
            for (row, column), why in study.missing.items()
        ],
    }
    write_json(out / "table.json", table)
    print(_as_text(study))
    command = provenance.command_line()
    about = {"command": command, "siamrpn_jax": siamrpn_jax.__version__}
    page = write_report(out, Report(study.title, studies=(study,), about=about))
    print(f"table   {out / 'table.json'}\nreport  {page}")
    return table


def _as_text(study: Study) -> str:
    """The table for a terminal: a line for each column of it, which may be many."""
    width = max(len(column.name) for column in study.columns) + 2
    cells = [max(len(row), 5) + 2 for row in study.rows]
    head = "".join(f"{row:>{n}}" for row, n in zip(study.rows, cells, strict=True))
    lines = [f"{study.title}: EAO", f"{study.over:<{width}}{head}"]
    for column in study.columns:
        values = ["-" if v is None else f"{v:.3f}" for v in column.values]
        row = "".join(f"{v:>{n}}" for v, n in zip(values, cells, strict=True))
        lines.append(f"{column.name:<{width}}{row}")
    lines += [
        f"missing: {study.columns[column].name}, {study.rows[row]}: {why}"
        for (row, column), why in study.missing.items()
    ]
    return "\n".join(lines)
