import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from data_folders import write_everything, write_image, write_sequence
from random_variables import random_variables
from siamrpn_jax import weights
from siamrpn_jax.commands import eval_ope, eval_vot, tune, tuning
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.images import read_image
from siamrpn_jax.data.scenes import clips
from siamrpn_jax.evaluation.ope import metrics
from siamrpn_jax.model import boxes
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking import search
from siamrpn_jax.tracking import step as tracker
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.weights import cards
from small_models import tiny_model

CONFIG = TrackerConfig(min_size=4.0)

HELD_OUT = tuple(f"held_{i}" for i in range(6))
"""With two by their hash these are as many as the constants need."""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Random weights in a file; all but the window says little, so boxes stay near."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    model = SiamRPN(tiny_model())
    variables = random_variables(model.init_variables)
    head = variables["params"]["head"]
    for name, factor in (("out_cls", 1e-4), ("out_reg", 1e-3)):
        head[name] = jax.tree.map(lambda a, f=factor: a * f, head[name])
    card = {"name": "tiny", "figures": {"AUC": 0.5}}
    weights.save_weights(path, variables, model=model, tracker_config=CONFIG, card=card)
    return path


@pytest.fixture(scope="module")
def tuned(source, tmp_path_factory):
    """The command on a folder of training data: its report and where it wrote."""
    root = tmp_path_factory.mktemp("tuned")
    folder = write_everything(root / "data")
    for name in HELD_OUT:
        write_sequence(root / "data" / name, int(name[5:]) + 5)
    out = root / "tuned.safetensors"
    tune.main(
        ["--weights", str(source), "--data", folder, "--out", str(out)]
        + ["--settings", "3", "--clips", "2", "--frames", "6"]
        + ["--validation-fraction", "0.4", "--hold-out", *HELD_OUT]
    )
    return folder, out


def test_weights_and_table(source, tuned):
    folder, out = tuned
    report = json.loads(out.with_suffix(".json").read_text())
    before, after = weights.load_weights(source), weights.load_weights(out)
    assert report["clips"] == {"real": 8, "composite": 2, "generated": 2}
    assert len(report["tried"]) == report["settings_tried"] == 3 + 1 + 3 + 1
    current = {name: getattr(CONFIG, name) for name in search.NAMES}
    assert report["tried"][0].items() >= current.items()
    assert report["current"] == report["tried"][0]
    assert "composite" not in report["current"]  # no judge of constants
    for name in search.NAMES:
        way = report["found"][name] - report["current"][name]
        chosen = report["current"][name] + report["support"] * way
        assert getattr(after.tracker_config, name) == pytest.approx(chosen)
    fit = report["confidence"]["fields"]
    for name, value in fit.items():
        assert getattr(after.tracker_config, name) == value
    assert report["taken"] == (report["support"] > 0)
    assert after.model == before.model
    for a, b in zip(*map(_leaves, (before, after)), strict=True):
        assert np.array_equal(a, b)


def _leaves(loaded):
    return jax.tree.leaves(loaded.variables)


def test_learned_sequences_are_asked_for(tuned):
    folder, _ = tuned
    config = tune.Config(
        data=(folder,), learned=5, clips=2, frames=4, validation_fraction=0.4
    )
    found = tuning.read_clips(config)
    kinds = [clip.source for clip in found]
    real = ["real"] * 4 + ["learned"] * 5
    assert kinds == real + ["composite"] * 2 + ["generated"] * 2
    assert len({clip.fingerprint for clip in found[:9]}) == 9


def test_sequences_held_out_by_name(tuned):
    folder, _ = tuned
    name = HELD_OUT[2]
    given = {"data": (folder,), "clips": 2, "frames": 4, "validation_fraction": 0.0}
    found = tuning.read_clips(tune.Config(**given, hold_out=(name,)))
    assert [Path(clip.name).name for clip in found if clip.source == "real"] == [name]
    with pytest.raises(InputError, match="hold_out: nobody: no such sequence"):
        tuning.read_clips(tune.Config(**given, hold_out=("nobody",)))


def test_equal_seeds_find_equal_constants(source, tuned, tmp_path):
    folder, out = tuned
    config = tune.Config(
        weights=str(source),
        data=(folder,),
        out=tmp_path / "again.safetensors",
        settings=3,
        clips=2,
        frames=6,
        validation_fraction=0.4,
        hold_out=HELD_OUT,
    )
    again = json.loads(json.dumps(tune.run(config)))
    first = json.loads(out.with_suffix(".json").read_text())
    assert {**again, "command": 0} == {**first, "command": 0}


def test_scores_are_those_of_tracking_and_evaluating_alone(source):
    loaded = weights.load_weights(source)
    (clip,) = clips.generated_clips(1, length=8, seed=2)
    clip.boxes[3] = np.nan  # absent
    settings = search.draw_settings(2, seed=3)
    found = tuning.score_settings(loaded, loaded.variables, clip, settings)
    for score, values in zip(found, settings, strict=True):
        config = dataclasses.replace(
            CONFIG, **dict(zip(search.NAMES, values.tolist(), strict=True))
        )
        init, step = tracker.make_tracker(loaded.model, loaded.variables, config=config)
        template, state = init(clip.frames[0], boxes.ltwh_to_cxcywh(clip.boxes[0]))
        overlaps = []
        for frame, truth in zip(clip.frames[1:], clip.boxes[1:], strict=True):
            state, output = step(template, state, frame)
            if np.isfinite(truth[0]):
                box = np.asarray(output.box, np.float64)
                overlaps.append(boxes.iou(box, boxes.ltwh_to_cxcywh(truth)))
        thresholds = metrics.SUCCESS_THRESHOLDS
        slow = np.mean([[o > t for t in thresholds] for o in overlaps])
        assert score == pytest.approx(slow, abs=0.02)


def test_without_real_sequences_the_constants_stay(source, tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    report = tune.run(
        tune.Config(weights=str(source), out=out, settings=2, clips=2, frames=6)
    )
    assert "constants stay: 0 real sequences, expected 8" in capsys.readouterr().out
    assert (report["taken"], report["settings_tried"]) == (False, 0)
    after = weights.load_weights(out)
    for name in search.NAMES:
        assert getattr(after.tracker_config, name) == getattr(CONFIG, name)
    assert after.tracker_config.confidence_bias != CONFIG.confidence_bias
    assert after.card["tuning"]["gain"] is None


@pytest.mark.parametrize(
    ("gain", "confirmed", "support"),
    [(0.04, 0.03, 0.75), (0.04, 0.06, 1), (0.04, -0.01, 0), (0.009, 0.009, 0)],
)
def test_constants_move_as_far_as_cross_validation_confirms(gain, confirmed, support):
    settings = np.stack([np.zeros(5), np.arange(5.0)])
    both = tuning.Tried(settings, np.zeros((2, 9)))
    result = tuning.Result(both, (gain, 0.01), (confirmed, 0.01), both)
    assert result.support == pytest.approx(support)
    assert result.chosen == pytest.approx(support * np.arange(5.0))


def test_a_confidence_that_cannot_be_fitted_stays(
    source, tmp_path, monkeypatch, capsys
):
    """The search took minutes: its result must not be lost."""

    def lose(loaded, clip, settings, *_):
        raise InputError("0 frames with the target followed")

    monkeypatch.setattr(tuning, "calibrate", lose)
    out = tmp_path / "out.safetensors"
    config = tune.Config(weights=str(source), out=out, settings=2, clips=2, frames=3)
    assert tune.run(config)["confidence"] is None
    assert "confidence not fitted: 0 frames" in capsys.readouterr().out
    bias = weights.load_weights(out).tracker_config.confidence_bias
    assert bias == CONFIG.confidence_bias


def test_sequences_that_one_may_quote_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        tune.main(["--sequences", str(tmp_path)])
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert "--also-quoted" in told and "flatter" in told


def test_an_empty_folder_of_sequences_is_named(tmp_path):
    config = tune.Config(sequences=(tmp_path,), also_quoted=True)
    with pytest.raises(InputError, match=str(tmp_path)):
        tuning.read_clips(config)


@pytest.mark.parametrize(
    "wrong",
    [{"settings": 1}, {"clips": 0}, {"frames": 1}, {"validation_fraction": 0.0}],
)
def test_numbers_out_of_range(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        tune.Config(**wrong)


def test_without_folders_there_are_generated_scenes_alone():
    found = tuning.read_clips(tune.Config(clips=2, frames=3))
    assert [clip.source for clip in found] == ["generated"] * 2


def test_prepared_folders_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning.reader, "is_prepared", lambda folder: True)
    with pytest.raises(InputError, match="prepared folder"):
        tuning.read_clips(tune.Config(data=(tmp_path,)))


def test_where_the_result_goes(source, tmp_path):
    def out(**options):
        return tuning._out(tune.Config(**options))

    assert str(out()) == "base-tuned.safetensors"
    path = str(source)
    assert out(weights=path) == source.with_name("tiny-tuned.safetensors")
    shutil.copy(source, tmp_path / "weights.safetensors")
    assert out(weights=str(tmp_path)) == tmp_path / "tuned.safetensors"
    with pytest.raises(InputError, match=".safetensors"):
        out(out=tmp_path)
    with pytest.raises(InputError, match="is no folder, choose another --out"):
        out(out=tmp_path / "weights.safetensors" / "mine.safetensors")
    (tmp_path / "tuned.json").mkdir()  # in the place of the table
    with pytest.raises(InputError, match=r"tuned\.json: is a folder"):
        out(weights=str(tmp_path))


def make_report(*, taken=True, quoted=False):
    return {name: 0 for name in tuning._STAMPED} | {"taken": taken, "quoted": quoted}


def make_clip(name, mark):
    empty = np.zeros((0, 4))
    return clips.Clip(name, "real", empty, empty, mark)


def test_the_stamp_remembers_earlier_tunings():
    card = {
        "figures": {"AUC": 0.5},
        "tuned_on": [{"name": "a", "fingerprint": "1"}],
        "tuning": {"quoted": True},
    }
    used = [make_clip("renamed", "1"), make_clip("b", "2"), make_clip("made", None)]
    new = tuning.stamp(card, make_report(), used)
    assert [one["fingerprint"] for one in new["tuned_on"]] == ["1", "2"]
    assert new["tuning"]["quoted"]
    assert new["figures"] == {"before tuning, AUC": 0.5}
    same = tuning.stamp({"figures": {"AUC": 0.5}}, make_report(taken=False), used)
    assert same["figures"] == {"AUC": 0.5} and not same["tuning"]["quoted"]


def test_cards_tell_the_stamp_in_short():
    names = [{"name": f"clip{i}", "fingerprint": f"{i}"} for i in range(200)]
    text = cards.show(cards.complete({"tuned_on": names}))
    assert "200 sequences: clip0, clip1, clip2, …" in text
    assert "clip3" not in text


def test_evaluations_tell_what_was_tuned_on(tuned, tmp_path, capsys):
    folder, out = tuned
    used = [one["name"] for one in weights.load_weights(out).card["tuned_on"]]
    assert len(used) == 8
    sequences = tmp_path / "quoted"
    for one in clips.read_sequences([folder]):
        if one.name == used[0]:
            shutil.copytree(one.frames[0].parents[1], sequences / "renamed")
    write_sequence(sequences / "other", 99, length=3)
    path = tmp_path / "out.json"
    eval_ope.main(
        ["--sequences", str(sequences), "--weights", str(out), "--json", str(path)]
    )
    assert json.loads(path.read_text())["tuned_on"] == ["renamed"]
    (note,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("NOTE")]
    assert "on 1 of these" in note and note.endswith("renamed")
    eval_ope.main(["--sequences", str(sequences), "--tracker", "static"])
    assert "NOTE" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def trained(source, tmp_path_factory) -> Path:
    """Weights that say that they were trained on ``clip_1`` and ``held_2``."""
    loaded, path = weights.load_weights(source), tmp_path_factory.mktemp("t") / "t"
    path = path.with_suffix(".safetensors")
    names = cards.pack_names(["videos/clip_1", "held_2"])
    weights.save_weights(
        path,
        loaded.variables,
        model=loaded.model,
        tracker_config=loaded.tracker_config,
        card={"trained_on": cards.trained_on(names)},
    )
    return path


def test_judges_that_training_learned_from_are_refused(trained, tuned, tmp_path):
    folder, _ = tuned
    common = {"weights": str(trained), "frames": 6, "out": tmp_path / "a.safetensors"}
    message = r"was trained on 1 of the sequences that would judge it: held_2: expected"
    with pytest.raises(InputError, match=message):
        tune.run(tune.Config(data=(Path(folder),), hold_out=HELD_OUT, **common))
    with pytest.raises(InputError, match="trained on 2 of .*: held_2, clip_1: "):
        tune.run(tune.Config(sequences=(Path(folder),), also_quoted=True, **common))
    assert not (tmp_path / "a.safetensors").exists()


def test_evaluations_tell_what_was_trained_on(trained, tmp_path, capsys):
    for name in ("held_2", "other"):
        write_sequence(tmp_path / "quoted" / name, 99, length=3)
    report = eval_ope.run(
        eval_ope.Config(sequences=tmp_path / "quoted", weights=(str(trained),))
    )
    assert report["trained_on"] == ["held_2"]
    (note,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("NOTE")]
    assert "trained on 1 of these" in note and note.endswith("held_2")


def test_vot_tells_it_too(tuned, tmp_path):
    folder, out = tuned
    used = [one["name"] for one in weights.load_weights(out).card["tuned_on"]]
    one = next(s for s in clips.read_sequences([folder]) if s.name == used[0])
    target = tmp_path / "vot" / one.name
    target.mkdir(parents=True)
    shutil.copy(one.frames[0].parents[1] / "groundtruth.txt", target)
    for i, frame in enumerate(one.frames, 1):
        write_image(target / f"{i:08d}.jpg", read_image(frame))
    (target.parent / "list.txt").write_text(f"{one.name}\n")
    report = eval_vot.run(
        eval_vot.Config(
            "vot2018",
            root=target.parent,
            weights=(str(out),),
            experiment="unsupervised",
            results=tmp_path / "results",
        )
    )
    assert report["tuned_on"] == [one.name]
