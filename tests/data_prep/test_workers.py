"""Processes that write shards, and being cut off at any point."""

import contextlib
import dataclasses
import functools
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep import workers as pool
from data_prep import writer
from data_prep.shards import Progress, Work
from data_prep.tracks import Options, PreparationError
from paths import ROOT
from prepared_folders import DATASET, assert_same_folders, write_prepared, write_raw

MODULE = "tests.helpers.prepared_folders"
COMMAND = f"from data_prep.command import main; main({MODULE!r})"


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """A folder of 6 shards that was prepared without interruption."""
    folder = tmp_path_factory.mktemp("pool") / "reference"
    write_prepared(folder, tracks=12, length=8)
    return folder


def start(reference: Path, out: Path, code: str = COMMAND, *, workers: int, **options):
    """Starts the command in a process group of its own."""
    raw = reference.with_name("reference.raw")
    arguments = ["--raw", raw, "--out", out, "--workers", workers]
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests/helpers'}"},
        **options,
    )


def shards_in(folder: Path) -> int:
    return len(list(folder.glob(".shards/[0-9]*.npz")))


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)


def test_killed_groups_of_processes_end_byte_identical(reference, tmp_path):
    out = tmp_path / "out"
    for count, workers in ((0, 2), (3, 3)):
        process = start(reference, out, workers=workers)
        wait_for(
            lambda count=count: (
                shards_in(out) >= count
                and (count or list(out.glob(".*-part.array_record*")))
            ),
            process,
        )
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not (out / "index.npz").exists()
    finished = sorted(path.stem for path in out.glob(".shards/0*.npz"))
    shards = [next(out.glob(f"scenes-train*record-{number}-*")) for number in finished]
    times = [path.stat().st_mtime_ns for path in shards]
    process = start(reference, out, workers=2)
    output, errors = process.communicate()
    assert process.returncode == 0 and "12 tracks, 96 records" in output, errors
    assert_same_folders(out, reference)
    assert len(shards) >= 3 and times == [path.stat().st_mtime_ns for path in shards]


KILLED_AT_EACH_RENAME = """
import os, pathlib, signal, sys
import cv2, tensorflow_datasets  # imported once, for all forks
from data_prep.command import main

def run(out, kill_at):
    rename, count = os.replace, 0
    def replace(a, b):
        nonlocal count
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(a, b)
    os.replace = replace
    main("MODULE", ["--raw", sys.argv[2], "--out", out, "--workers=1"])

for number in range(1, 99):
    out = f"{sys.argv[4]}/{number}"
    for kill_at in (number, None):
        child = os.fork()
        if not child:
            run(out, kill_at)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if kill_at and status == 0:
            sys.exit()
        assert status == (signal.SIGKILL if kill_at else 0), status
""".replace("MODULE", MODULE)


def test_killed_before_every_rename(tmp_path):
    """Whatever file comes next, the same command goes on behind it."""
    reference, out = tmp_path / "reference", tmp_path / "out"
    write_prepared(reference, tracks=3, length=2)
    process = start(reference, out, KILLED_AT_EACH_RENAME, workers=1)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    folders = list(out.iterdir())
    # Plan, two shards with sidecars, rejections, two files of metadata, index.
    assert len(folders) == 9 + 1
    for folder in folders:
        assert_same_folders(folder, reference)


def test_interrupted_by_the_keyboard(reference, tmp_path):
    out = tmp_path / "out"
    # A shell's background jobs ignore Ctrl-C, and so does what they start.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    process = start(reference, out, f"{listen}; {COMMAND}", workers=2)
    wait_for(lambda: list(out.glob(".*-part.array_record*")), process)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors == "stopped; run the same command again to go on\n"
    assert list(out.glob(".*-part.array_record*")) == []
    assert not (out / "index.npz").exists()


def test_workers_end_with_their_parent(reference, tmp_path):
    out = tmp_path / "out"
    process = start(reference, out, workers=2)
    wait_for(lambda: list(out.glob(".*-part.array_record*")), process)
    process.kill()
    # Their ends of the pipes: all of them have to be closed.
    process.communicate(timeout=20)
    assert not (out / "index.npz").exists()


def test_processes_and_progress(reference, tmp_path):
    """In processes of this very program; any number of them writes the same."""
    raw, out = reference.with_name("reference.raw"), tmp_path / "out"
    run = functools.partial(pool.run, workers=2)
    summary = writer.prepare(DATASET, Options(raw=raw, out=out), run=run)
    assert summary.written == 96
    assert_same_folders(out, reference)


def test_a_worker_that_dies(tmp_path):
    raw = tmp_path / "raw"
    write_raw(raw, tracks=4, length=2)
    made = dataclasses.replace(DATASET, read_unit=die)
    options = Options(raw=raw, out=tmp_path / "out")
    run = functools.partial(pool.run, workers=2)
    with pytest.raises(PreparationError, match="a worker process died"):
        writer.prepare(made, options, run=run)


def die(unit):
    os._exit(9)


def test_a_fault_of_a_parser_keeps_its_traceback(tmp_path):
    raw = tmp_path / "raw"
    write_raw(raw, tracks=4, length=2)
    made = dataclasses.replace(DATASET, read_unit=fail)
    options = Options(raw=raw, out=tmp_path / "out")
    with pytest.raises(RuntimeError, match="a fault in scene"):
        writer.prepare(made, options, run=functools.partial(pool.run, workers=2))


def fail(unit):
    raise RuntimeError(f"a fault in {unit.key}")


@contextlib.contextmanager
def small_files(limit: int):
    """As on a full disk: files cannot grow beyond so many bytes."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk(tmp_path, reference, workers):
    raw, out = reference.with_name("reference.raw"), tmp_path / "out"
    options = Options(raw=raw, out=out)
    run = functools.partial(pool.run, workers=workers)
    with (
        small_files(200_000),
        pytest.raises(OSError, match=r"cannot write .*/scenes-train\.array_record"),
    ):
        writer.prepare(DATASET, options, run=run)
    assert [path.name for path in out.iterdir()] == [".shards"]
    writer.prepare(DATASET, options, run=functools.partial(pool.run, workers=1))
    assert_same_folders(out, reference)


def test_an_output_folder_that_cannot_be_made(reference, tmp_path):
    (tmp_path / "file").touch()
    raw = reference.with_name("reference.raw")
    options = Options(raw=raw, out=tmp_path / "file" / "out")
    with pytest.raises(OSError, match="file"):
        writer.prepare(DATASET, options, run=pool.run)


def test_shards_that_were_damaged_are_made_anew(reference, tmp_path):
    raw, out = reference.with_name("reference.raw"), tmp_path / "out"
    run = functools.partial(pool.run, workers=1)
    options = Options(raw=raw, out=out)
    writer.prepare(DATASET, options, run=run)
    cut, gone, unknown = sorted(out.glob("scenes-train*"))[:3]
    cut.write_bytes(cut.read_bytes()[:-1])
    gone.unlink()
    (out / ".shards/00002.npz").write_bytes(b"no sidecar")
    times = {path: path.stat().st_mtime_ns for path in out.glob("scenes-train*")}
    summary = writer.prepare(DATASET, options, run=run)
    assert summary.written == 48
    assert_same_folders(out, reference)
    assert unknown.stat().st_mtime_ns != times[unknown]


def test_a_finished_folder_is_done_at_once(reference):
    raw, out = reference.with_name("reference.raw"), reference
    made = dataclasses.replace(DATASET, read_unit=fail)
    options = Options(raw=raw, out=out, workers=7, max_bad="5%")
    summary = writer.prepare(made, options, run=pool.run)
    assert summary.accepted and summary.written == 0 and summary.records == 96


def test_the_bar_judges_the_rest_by_what_is_done(monkeypatch):
    bars = []

    class Bar:
        def __init__(self, **options):
            self.options, self.total, self.n = options, options["total"], 0
            bars.append(self)

        def update(self, count):
            self.n += count

        def close(self):
            pass

    monkeypatch.setattr(pool, "tqdm", Bar)
    with pool._Bar(Work(jobs=[], units=10, done=Progress(units=0, records=0))) as bar:
        assert bars[0].total is None
        bar.add(Progress(records=30))
        assert bars[0].total is None and bars[0].n == 30
        bar.add(Progress(units=1))
        assert bars[0].total == 300
        bar.show(Progress(units=2, records=70))
        assert bars[0].total == 350 and bars[0].n == 70
    assert bars[0].options["disable"] is None  # silent where nobody looks
    with pool._Bar(Work(jobs=[], units=10, done=Progress(units=5, records=100))):
        assert bars[1].total == 200 and bars[1].options["initial"] == 100
