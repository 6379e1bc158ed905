"""The shared writer: from a dataset's units to a prepared folder.

The units are listed and divided into shards: that is the plan, which the folder keeps.
Shards that are not there yet are written, in any order, by processes of this machine or
whatever else runs jobs. Once all are there the folder is finished. Every step can be
cut off at any point and repeated.
"""

import contextlib
import dataclasses
import fcntl
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_prep.finish import Summary, finish
from data_prep.shards import Content, Progress, ShardJob, Work, read_finished
from data_prep.tracks import Dataset, Options, PreparationError, Unit
from siamrpn_jax.common import configs
from siamrpn_jax.common.errors import check_least
from siamrpn_jax.common.files import read_json, remove_temporaries, replacing
from siamrpn_jax.data.crops.format import FORMAT_VERSION, CropConfig
from siamrpn_jax.data.crops.reader import STATE_FOLDER

Runner = Callable[[Work], object]
"""Writes the shards of some jobs, and returns when all of them are written."""

_MAY_CHANGE = {"workers", "max_bad"}
"""Options that a rerun may change, beside all that are paths."""

_PLAN_FILE = "plan.json"
_LOCK_FILE = "lock"


def prepare(dataset: Dataset, options: Options, *, run: Runner) -> Summary:
    """Prepares a dataset, or goes on where an earlier run was cut off.

    Args:
        dataset: what to prepare.
        options: from where, where to, and how.
        run: what writes the shards.

    Returns:
        What it came to. The folder is finished unless more than ``max_bad`` of the
        records were rejected (``Summary.accepted``).

    Raises:
        InputError: unusable options or raw data; a folder with other content, or begun
            with other options; another preparation at work in it.
        OSError: naming the file that cannot be written.
    """
    _check(options)
    max_bad = parse_share(options.max_bad)
    jobs = _divide(dataset, options, _list_units(dataset, options))
    with _locked(options.out):
        _agree(options.out, _plan(dataset, options, jobs))
        for place in (options.out, options.out / STATE_FOLDER):
            remove_temporaries(place)
        work = _remaining(jobs)
        begun = time.monotonic()
        if work.jobs:
            run(work)
        seconds = time.monotonic() - begun
        contents = [_content(job) for job in jobs]
        count = sum(len(c.frames) + c.rejected for c in contents)
        return finish(
            jobs,
            contents,
            neighbours=dataset.neighbours,
            max_bad=max_bad,
            written=count - work.done.records,
            seconds=seconds,
        )


def parse_share(text: str) -> float:
    """A share such as ``1%`` or ``0.01``, as 0 to 1; 1 itself only as ``100%``.

    Raises:
        PreparationError: anything else.
    """
    number = text.strip().removesuffix("%")
    try:
        share = float(number) / (100 if "%" in text else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1 or (share == 1 and "%" not in text):  # 1 may mean 1%
        raise PreparationError(f"max_bad is {text!r}, expected a share: 1% or 0.01")
    return share


def _check(options: Options) -> None:
    check_least(options, 0, "workers")
    check_least(options, 1, "every_k")
    for name in ("limit", "per_shard"):
        if getattr(options, name) is not None:
            check_least(options, 1, name)


# ----------------------------------------------------------------------- the plan


def _list_units(dataset: Dataset, options: Options) -> Sequence[Unit]:
    try:
        if not options.raw.exists():
            raise PreparationError(f"{options.raw}: no such folder")
        units = dataset.list_units(options)[: options.limit]
        if not units:
            raise PreparationError(f"{options.raw}: nothing of {dataset.title} in it")
    except PreparationError as error:
        raise PreparationError(
            f"{error}\n\n{dataset.title} is expected in this layout:\n\n"
            f"{dataset.layout.rstrip()}\n\nWhere to obtain it: {dataset.origin}"
        ) from error
    keys = set()
    for unit in units:
        if unit.key in keys:
            raise PreparationError(f"{unit.key}: listed twice, expected unique units")
        keys.add(unit.key)
    return units


def _divide(
    dataset: Dataset, options: Options, units: Sequence[Unit]
) -> list[ShardJob]:
    crops = CropConfig(search_crop=options.search_crop, quality=options.quality)
    size = options.per_shard or dataset.units_per_shard
    starts = range(0, len(units), size)
    return [
        ShardJob(
            raw=options.raw,
            out=options.out,
            name=dataset.name,
            number=number,
            count=len(starts),
            read_unit=dataset.read_unit,
            units=tuple(units[start : start + size]),
            first_unit=start,
            crops=crops,
            every_k=options.every_k,
        )
        for number, start in enumerate(starts)
    ]


def _plan(
    dataset: Dataset, options: Options, jobs: Sequence[ShardJob]
) -> dict[str, Any]:
    """All that the shards depend on, as JSON; nothing of where they are made."""
    chosen = {
        key: value
        for key, value in dataclasses.asdict(options).items()
        if key not in _MAY_CHANGE and not isinstance(value, Path)
    }
    return {
        "format_version": FORMAT_VERSION,
        "dataset": dataset.name,
        **chosen,
        "per_shard": options.per_shard or dataset.units_per_shard,
        "units": [unit.key for job in jobs for unit in job.units],
    }


def _agree(folder: Path, plan: dict[str, Any]) -> None:
    """Writes the plan, or compares it with that of an earlier run.

    Raises:
        PreparationError: naming what differs.
    """
    path = folder / STATE_FOLDER / _PLAN_FILE
    text = json.dumps(plan, indent=1)
    if not path.exists():
        with replacing(path) as temporary, temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # everything else can be made again
        return
    old = read_json(path, error=PreparationError)
    if differing := _differences(old, json.loads(text)):
        raise PreparationError(
            f"{folder}: was begun with other options or data:\n  "
            + "\n  ".join(differing)
            + "\nRun it with those of before, or choose another --out"
        )


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    before, now = old.pop("units", []), new.pop("units")
    found = configs.differences(old, new)
    if found or before == now:
        return found
    pairs = itertools.zip_longest(before, now)
    place, (a, b) = next((i, pair) for i, pair in enumerate(pairs) if len({*pair}) > 1)
    return [f"units[{place}]: {a!r} -> {b!r}"]


# --------------------------------------------------------------------- the folder


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Makes the folder if need be, and keeps others from writing into it."""
    state = folder / STATE_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    others = sorted(os.listdir(folder))
    if others and not state.exists():
        raise PreparationError(
            f"{folder}: holds {others[0]} and no preparation, expected a new folder"
        )
    state.mkdir(exist_ok=True)
    with (state / _LOCK_FILE).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PreparationError(
                f"{folder}: another preparation is at work in it"
            ) from error
        yield  # closing the file ends the lock, and so does the end of the process


def _remaining(jobs: Sequence[ShardJob]) -> Work:
    """What is still to be written."""
    contents = [read_finished(job) for job in jobs]
    done = [content for content in contents if content is not None]
    units = [len(job.units) for job in jobs]
    missing = [content is None for content in contents]
    return Work(
        jobs=list(itertools.compress(jobs, missing)),
        units=sum(units),
        done=Progress(
            units=sum(units) - sum(itertools.compress(units, missing)),
            records=sum(len(c.frames) + c.rejected for c in done),
        ),
    )


def _content(job: ShardJob) -> Content:
    content = read_finished(job)
    if content is None:
        raise PreparationError(
            f"{job.path}: is not there, though it was written: do all workers share "
            "this folder?"
        )
    return content
