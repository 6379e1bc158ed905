"""From films to a tracker of one's own: label, export, prepare, fine-tune, judge."""

import dataclasses
import json

import numpy as np

from random_variables import random_variables
from raw_folders import prepare
from siamrpn_jax.commands import eval_ope, train
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.labelling.session import Session
from siamrpn_jax.media.video import VideoWriter
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.presets import small
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.weights import FILE_NAME, save_weights
from small_models import tiny_model

LENGTH = 12


def write_film(path, seed):
    frames, truth = make_sequence(seed, length=LENGTH, height=120, width=160)
    path.parent.mkdir(exist_ok=True)
    with VideoWriter(path, fps=25, size=(160, 120)) as writer:
        for frame in frames:
            writer.write(frame)
    return truth


def test_from_films_to_a_tracker_of_ones_own(tmp_path, capsys):
    model = SiamRPN(tiny_model((8, 16, 16), 16))
    start = tmp_path / "start.safetensors"
    save_weights(
        start,
        random_variables(model.init_variables),
        model=model,
        tracker_config=TrackerConfig(min_size=4.0, lost_below=0.0),
        card={"name": "start"},
    )
    films = tmp_path / "films"
    for seed in (0, 1):
        film = films / f"film{seed}.webm"
        truth = write_film(film, seed)
        session = Session(film, tracker=start)
        for frame in range(0, LENGTH, 4):
            session.add_box(frame, 0, truth[frame], name="toy")
        for _ in session.propagate():
            pass
        session.export(films, "csv")
    data = prepare("folder", films)
    assert len(data) == 2 * LENGTH
    recipe = small()
    recipe = dataclasses.replace(
        recipe,
        model=model.config,
        data=dataclasses.replace(
            recipe.data, folders=(str(tmp_path / "prepared"),), video=1.0
        ),
        train=dataclasses.replace(recipe.train, epochs=1, steps_per_epoch=2),
        batch_size=4,
    )
    run = tmp_path / "run"
    config = train.Config(
        recipe=recipe, out=run, init=str(start), devices=1, threads=1, evaluate=0
    )
    card = train.run(config)
    assert card["pairs"] == 8 and (run / FILE_NAME).is_file()
    for seed in (2, 3):
        truth = write_film(tmp_path / f"judge{seed}.webm", seed)
        judge = Session(tmp_path / f"judge{seed}.webm", tracker=start)
        for frame in range(LENGTH):  # drawn by hand
            judge.add_box(frame, 0, truth[frame])
        judge.export(tmp_path / "judge", "vot")
    eval_ope.main(
        [
            *(
                "--sequences",
                str(tmp_path / "judge"),
                "--weights",
                str(start),
                str(run),
            ),
            *("--compare", "start", "--json", str(tmp_path / "out.json")),
        ]
    )
    report = json.loads((tmp_path / "out.json").read_text())
    assert set(report["trackers"]) == {"start", "run"}
    assert "run less start: AUC" in capsys.readouterr().out
    assert np.isfinite(report["trackers"]["run"]["auc"])
    assert report["trackers"]["start"]["frames"] == 2 * (LENGTH - 1)
