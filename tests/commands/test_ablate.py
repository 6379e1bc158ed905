import itertools
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import tyro

from siamrpn_jax.commands import ablate, ablation
from siamrpn_jax.commands.ablate import Config, job_command, source_of
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.evaluation.vot.generated import LENGTHS
from siamrpn_jax.presets import small

pytest.importorskip("matplotlib")


@pytest.fixture
def ran(monkeypatch):
    """What was trained and evaluated: nothing is, but for files that say so."""
    done: list[str] = []
    broken: set[str] = set()

    def train(options: list[str]) -> None:
        folder = Path(options[options.index("--out") + 1])
        if folder.name in broken:
            raise InputError("no such data")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ablation.weights.FILE_NAME).touch()
        done.append(f"train {folder.name}{' again' * ('--resume' in options)}")

    def evaluate(config: Any) -> None:
        name = Path(config.weights[0]).name
        sizes = getattr(config.constants, "center_size", ()) or (len(name),)
        rows = {f"{name}[{size}]": {"eao": size / 100} for size in sizes}
        several = {"trackers": rows} if len(rows) > 1 else rows.popitem()[1]
        config.json.write_text(json.dumps(several))
        done.append(f"eval {name}")

    class Options(list):
        """What was parsed; as a config it has the network of ``small``."""

        recipe = small()

    monkeypatch.setattr(ablation.train, "parse", Options)
    monkeypatch.setattr(ablation.train, "run", train)
    monkeypatch.setattr(ablation.eval_vot, "run", evaluate)
    sets = {"first": (1, 1), "second": (1, 2)}
    monkeypatch.setattr(ablation, "REDUCED_SETS", sets)
    return done, broken


def test_no_scene_is_trained_on_twice_or_evaluated():
    """Of one name, one scene: ``siamrpn eval-vot`` would say so of every job."""
    sets = [range(seed, seed + n) for n, seed in ablation.REDUCED_SETS.values()]
    seeds = [*itertools.chain(*sets), *range(104, 104 + len(LENGTHS))]
    assert len(seeds) == len(set(seeds)) == 28


def test_a_table_without_any_data(tmp_path, ran):
    done, _ = ran
    table = ablate.run(Config(study="anchors", out=tmp_path))
    assert done[:2] == ["train A3-first", "eval A3-first"] and len(done) == 12
    assert table["reduced"] and table["complete"]
    assert [column["values"] for column in table["columns"]] == [
        (0.08, 0.08, 0.08),
        (0.07, 0.07, 0.07),
    ]
    assert json.loads((tmp_path / "table.json").read_text())["rows"] == table["rows"]
    page = (tmp_path / "index.html").read_text()
    assert "Anchor ratios (Table 3)" in page and "A reduced study" in page
    assert (tmp_path / "data/second/sequences/scene2/color").is_dir()
    ablate.run(Config(study="anchors", out=tmp_path))
    assert len(done) == 12  # nothing is run again


def test_a_job_that_fails_leaves_its_reason_and_the_others_go_on(tmp_path, ran):
    done, broken = ran
    broken.add("A5-first")
    (tmp_path / "jobs/A7-both").mkdir(parents=True)
    (tmp_path / "jobs/A7-both/config.json").touch()  # was stopped on the way
    config = Config(study="anchors", out=tmp_path)
    table = ablate.run(config)
    assert len(done) == 10 and "train A7-both again" in done
    assert table["missing"] == [
        {"row": "A5", "column": "first, generated", "why": "no such data"}
    ]
    assert table["columns"][0]["values"][1] is None
    assert "no such data" in (tmp_path / "index.html").read_text()
    broken.clear()
    assert ablate.run(config)["complete"] and done[-1] == "eval A5-first"


def test_jobs_one_by_one_and_what_is_there(tmp_path, ran, capsys):
    done, broken = ran
    config = Config(study="center-size", out=tmp_path, list=True)
    ablate.run(config)
    lines = capsys.readouterr().out.splitlines()
    assert not done and len(lines) == 2
    words = shlex.split(lines[1])
    assert words[:2] == ["siamrpn", "ablate"]
    assert ablate.run(tyro.cli(Config, args=words[2:])) == {}
    assert done == ["train both", "eval both"]
    table = ablate.run(Config(study="center-size", out=tmp_path, gather=True))
    assert table["rows"] == ["1", "3", "5", "7", "9", "11", "13"]
    first, both = (column["values"] for column in table["columns"])
    assert first == (None,) * 7 and both[3] == 0.07
    assert {one["why"] for one in table["missing"]} == {"not run yet"}
    broken.add("first")
    with pytest.raises(InputError, match="no such data"):
        ablate.run(Config(study="center-size", out=tmp_path, job="first"))
    assert (tmp_path / "jobs/first/problem.txt").read_text() == "no such data\n"
    with pytest.raises(InputError, match="--job A3: expected one of first, both"):
        ablate.run(Config(study="center-size", out=tmp_path, job="A3"))


def test_a_study_is_not_resumed_with_other_options(tmp_path, ran):
    ablate.run(Config(study="anchors", out=tmp_path, list=True))
    with pytest.raises(InputError, match="other options: train: '' -> '--epochs 9'"):
        ablate.run(Config(study="anchors", out=tmp_path, train="--epochs 9"))
    with pytest.raises(InputError, match="study: 'anchors' -> 'center-size'"):
        ablate.run(Config(study="center-size", out=tmp_path))


def test_a_printed_command_is_the_same_study():
    config = Config(
        study="data-size",
        data=("a b", "c"),
        dataset=("vot2015", "vot2016"),
        root=(Path("x"), Path("y")),
        train="--epochs 3 --workers 4",
        shares=(0.1, 1.0),
    )
    words = shlex.split(job_command(config, "first-1"))[2:]
    expected = {**vars(config), "job": "first-1"}
    assert vars(tyro.cli(Config, args=words)) == expected


def test_centre_sizes_are_those_of_the_map():
    config = Config(study="center-size")
    assert source_of(config, cells=17).center_sizes == (*range(1, 18, 2),)
    assert source_of(config, cells=4).center_sizes == (2, 4)
    for size in (4, 15):
        config = Config(study="center-size", center_sizes=(3, size))
        with pytest.raises(
            InputError, match=f"--center-sizes {size} on a map of 13x13"
        ):
            source_of(config, cells=13)


def test_data_sets_are_read_before_anything_is_trained(tmp_path, ran):
    done, _ = ran
    config = Config(
        study="data-size",
        out=tmp_path / "out",
        data=("a",),
        dataset=("vot2016",),
        root=(tmp_path / "none",),
    )
    with pytest.raises(InputError, match="none"):
        ablate.run(config)
    assert not done


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": ("a",)}, "--data and --dataset together"),
        ({"second": ("a",)}, "--second: expected --data"),
        ({"data": ("a",), "dataset": ("vot2016",)}, "1 --dataset and 0 --root"),
        ({"list": True, "gather": True}, "exclude each other"),
        ({"shares": (0.0,)}, r"shares are \(0.0,\), expected"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(InputError, match=message):
        ablate.run(Config(study="anchors", **options))
