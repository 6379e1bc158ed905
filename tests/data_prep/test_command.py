"""The command line that all parsers share."""

import dataclasses
import json
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Literal

import pytest

from data_folders import write_image, write_sequence
from data_prep import beam, command
from data_prep import workers as pool
from data_prep.tracks import Options, Rejection
from paths import ROOT
from prepared_folders import DATASET, read_unit, write_raw
from siamrpn_jax.data.crops.reader import open_prepared
from siamrpn_jax.data.read import images


@pytest.fixture
def raw(tmp_path) -> Path:
    write_raw(tmp_path / "raw", tracks=2, length=3)
    return tmp_path / "raw"


def run(raw: Path, *arguments: str, name: str = "helpers.prepared_folders") -> Path:
    """In this process, so with one worker."""
    out = raw.with_name("out")
    fixed = ["--raw", str(raw), "--out", str(out), "--workers", "1"]
    command.main(f"tests.{name}", [*fixed, *arguments])
    return out


@dataclasses.dataclass(frozen=True)
class OwnOptions(Options):
    split: Literal["train", "val"] = "train"
    """Which part."""


@pytest.fixture
def made(monkeypatch):
    """The dataset with an option of its own, as a module of its own."""
    seen = []

    def list_units(options):
        seen.append(options)
        return DATASET.list_units(options)

    module = types.ModuleType("tests.made")
    dataset = dataclasses.replace(DATASET, options=OwnOptions, list_units=list_units)
    module.DATASET = dataset  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "tests.made", module)
    return seen


def test_a_dataset_from_the_command_line(raw, capsys):
    out = run(raw, "--every-k", "2")
    assert open_prepared(out).index.frames.tolist() == [0, 2, 0, 2]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Generated scenes:"
    assert lines[1].startswith("2 tracks, 4 records, ") and str(out) in lines[1]
    assert "rejected: 0 records (0.00%)" in lines


def test_options_of_one_dataset(raw, made):
    run(raw, "--split", "val", name="made")
    (options,) = made
    assert isinstance(options, OwnOptions)
    assert (options.split, options.workers, options.raw) == ("val", 1, raw)


def test_help_shows_all_options(made, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main("tests.made", ["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "data_prep/scenes.py" in text and "Prepare Generated scenes" in text
    for option in (
        "--raw",
        "--every-k",
        "--max-bad",
        "--split",
        "--beam",
        "Which part",
    ):
        assert option in text


def test_status_1_above_max_bad(raw, made, monkeypatch, capsys):
    def read(unit):
        yield from read_unit(unit)
        yield Rejection("a.txt", 4, "unreadable", 3)

    module = sys.modules["tests.made"]
    changed = dataclasses.replace(DATASET, read_unit=read)
    monkeypatch.setattr(module, "DATASET", changed)
    with pytest.raises(SystemExit) as caught:
        run(raw, name="made")
    assert caught.value.code == 1
    output = capsys.readouterr()
    assert "rejected: 6 records (50.00%)" in output.out and "unreadable" in output.out
    assert "again with --max-bad 50%" in output.err
    run(raw, "--max-bad", "50%", name="made")
    assert "speed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-bad", "lots"], "error: max_bad is 'lots', expected a share"),
        (["--quality", "0"], "error: quality is 0, expected 1 to 100"),
        (["--", "--runner=X"], "error: arguments after -- are Beam's, expected --beam"),
    ],
)
def test_status_2_and_one_line_for_bad_options(raw, arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        run(raw, *arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(message) and error.count("\n") == 1


def test_a_missing_raw_folder(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        run(tmp_path / "nowhere")
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "nowhere: no such folder" in error
    assert "Generated scenes is expected in this layout:\n\nunits.txt" in error
    assert "Where to obtain it: tests" in error


def test_interrupted(raw, monkeypatch, capsys):
    def interrupt(work, *, workers):
        raise KeyboardInterrupt

    monkeypatch.setattr(pool, "run", interrupt)
    with pytest.raises(SystemExit) as caught:
        run(raw)
    assert caught.value.code == 130
    assert "run the same command again to go on" in capsys.readouterr().err


def test_beam_gets_what_follows_two_dashes(raw, monkeypatch):
    seen = []

    def write(work, *, arguments):
        seen.append(arguments)
        pool.run(work, workers=1)

    monkeypatch.setattr(beam, "run", write)
    run(raw, "--beam", "--", "--runner=DirectRunner", "--direct_num_workers=2")
    assert seen == [["--runner=DirectRunner", "--direct_num_workers=2"]]


def test_a_parser_as_a_script(tmp_path):
    """Run by its path, as its users do."""
    script = ROOT / "data_prep" / "got10k.py"
    arguments = ["--raw", tmp_path / "nowhere", "--out", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2 and "GOT-10k is expected in this layout" in done.stderr


@pytest.mark.filterwarnings(r"ignore:label\(\) is deprecated:DeprecationWarning")
def test_the_examples_of_the_readme(tmp_path, monkeypatch, capsys):
    text = (ROOT / "data_prep" / "README.md").read_text()
    ours, theirs, parser = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "parsers").mkdir()
    (tmp_path / "parsers" / "mine.py").write_text(parser)
    monkeypatch.syspath_prepend(tmp_path)
    raw, out = tmp_path / "raw", tmp_path / "out"
    for name in "ab":
        write_sequence(raw / name, 0, length=4)
        for path in (raw / name / "img").iterdir():
            image = images.read_image(path)
            write_image(raw / name / f"{path.stem}.jpg", image)
        (raw / name / "groundtruth.txt").rename(raw / name / "boxes.csv")
    (raw / "b" / "boxes.csv").write_text("no number\n")
    arguments = ["--raw", str(raw), "--out", str(out), "--workers=1", "--max-bad=50%"]
    command.main("parsers.mine", arguments)
    (rejection,) = json.loads((out / "rejected.json").read_text())
    assert rejection["file"] == "b/boxes.csv" and rejection["records"] == 4
    capsys.readouterr()
    for example in (ours, theirs):
        exec(example.replace("/fast/got10k", str(out)).replace("1000", "3"), {})
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("4 a 3 [") and second == "4 (448, 448, 3)"
