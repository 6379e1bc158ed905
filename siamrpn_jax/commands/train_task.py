"""What ``siamrpn train`` trains: data, network, validation, release."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from siamrpn_jax import weights
from siamrpn_jax.commands import start
from siamrpn_jax.commands.train import Config, RunConfig, parse_options
from siamrpn_jax.common import files, provenance
from siamrpn_jax.data.crops import index, reader
from siamrpn_jax.data.pairs import loader
from siamrpn_jax.data.pairs.pairs import PairDataset
from siamrpn_jax.data.pairs.teacher import Teacher
from siamrpn_jax.data.scenes import generated
from siamrpn_jax.evaluation.ope import metrics
from siamrpn_jax.evaluation.report import plots
from siamrpn_jax.model import boxes
from siamrpn_jax.model.network import SiamRPN, model_anchors
from siamrpn_jax.presets import Recipe
from siamrpn_jax.tracking.step import init_track, track_clip
from siamrpn_jax.training import checkpoints, distributed, logs, run, step
from siamrpn_jax.training.batch import Batch
from siamrpn_jax.training.step import TrainState
from siamrpn_jax.weights import cards


def train(config: Config, writers: Sequence[logs.MetricWriter]) -> dict[str, Any]:
    """Does what ``train.run`` says."""
    with run.begin(config, batch_size=config.recipe.batch_size) as devices:
        return _train(config, devices, writers)


def _train(
    config: Config,
    devices: Sequence[step.Device],
    writers: Sequence[logs.MetricWriter],
) -> dict[str, Any]:
    started = describe_run(config)
    recipe = started.recipe
    data, validation = loader.open_datasets(
        recipe.data,
        exemplar_size=recipe.model.exemplar_size,
        instance_size=recipe.model.instance_size,
        augment=recipe.augment,
        context=recipe.model.context,
        teacher=_open_teacher(recipe),
    )
    distributed.log(data.describe())
    held_out = _validation_batches(validation)
    model = SiamRPN(recipe.model)
    _report_thawed_layers(config.recipe, recipe)
    task = run.Task(
        model=model,
        schedule=recipe.train,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        start_from=functools.partial(_start_from, started=started, model=model),
        batches=lambda first: loader.batches(
            data,
            batch_size=recipe.batch_size,
            start_step=first,
            workers=config.workers,
            threads=config.threads,
            host_index=jax.process_index(),
            host_count=jax.process_count(),
        ),
        validate=functools.partial(_validate, held_out=held_out, model=model),
        release=functools.partial(
            _release,
            config=config,
            started=started,
            model=model,
            held_out=held_out,
            learned=cards.pack_names(data.video_names(), known=started.trained_on),
        ),
        shown_losses=("cls_loss", "reg_loss") if recipe.model.head.regresses else (),
    )
    return run.fit(config, task, started, devices, writers=writers)


def complete(
    config: Config, options: list[str], default: Config, *, named: bool
) -> Config:
    """The command line's config, with defaults of the run or weights it starts from.

    Args:
        config: what the options say by themselves.
        options: the command line without the preset.
        default: of the preset.
        named: whether the command line names the preset.
    """
    path = config.out / run.CONFIG_FILE
    init, backbone = config.init, config.backbone
    if config.resume and path.is_file():
        stored = checkpoints.read_config(path, RunConfig)
        if not named:
            # What made the run need not be repeated; what is repeated must be the same.
            default = dataclasses.replace(default, recipe=stored.recipe)
            return parse_options(options, default)
        init, backbone = init or stored.init, backbone or stored.backbone
    # The weights' own values are the defaults of the options.
    recipe = start.adopt(default.recipe, init=init, backbone=backbone)
    return parse_options(options, dataclasses.replace(default, recipe=recipe))


# Before the steps


def describe_run(config: Config) -> RunConfig:
    """What the run is; refuses one that exists, or resumes another."""
    if not config.resume:
        run.check_new(config)
        return RunConfig(
            _thaw(config.recipe, config.init or config.backbone),
            config.init,
            provenance.command_line(),
            config.backbone,
            config.preset,
            _fingerprints(config.recipe),
            _tuned_on(config.init),
            _trained_on(config.init),
        )
    path = config.out / run.CONFIG_FILE
    stored = checkpoints.read_config(path, RunConfig)
    wanted = dataclasses.replace(
        stored,
        recipe=config.recipe,
        init=config.init or stored.init,
        backbone=config.backbone or stored.backbone,
        prepared=_fingerprints(config.recipe),
    )
    checkpoints.check_same(path, stored, wanted)
    return stored


def _fingerprints(recipe: Recipe) -> dict[str, str]:
    """Fingerprints of the prepared folders and of the teacher's files.

    A resumed run must find the same ones.
    """
    folders = filter(reader.is_prepared, recipe.data.folders)
    found = {folder: index.fingerprint(folder) for folder in folders}
    teacher = [Path(file) for file in recipe.data.teacher]
    return found | {str(file): files.fingerprint(file) for file in teacher}


def _tuned_on(init: str | None) -> dict[str, str]:
    """Sequences that the first weights' constants were chosen on, by fingerprint."""
    known = weights.load_weights(init).card.get("tuned_on") if init else None
    return {one["fingerprint"]: one["name"] for one in known or []}


def _trained_on(init: str | None) -> str:
    """Names of the videos that the first weights were trained on, packed."""
    known = weights.load_weights(init).card.get("trained_on") if init else None
    return (known or {}).get("names", "")


def _thaw(recipe: Recipe, pretrained: str | None) -> Recipe:
    """The recipe with frozen layers only where weights are given to start from."""
    frozen = recipe.train.optimizer.frozen_layers
    if not frozen or pretrained:
        return recipe
    optimizer = dataclasses.replace(recipe.train.optimizer, frozen_layers=0)
    train = dataclasses.replace(recipe.train, optimizer=optimizer)
    return dataclasses.replace(recipe, train=train)


def _report_thawed_layers(wanted: Recipe, recipe: Recipe) -> None:
    if recipe != wanted:
        distributed.log(
            f"training all layers: the first {wanted.train.optimizer.frozen_layers} "
            "are random, not pretrained (--backbone)"
        )


def _start_from(state: TrainState, *, started: RunConfig, model: SiamRPN) -> TrainState:
    """The state with the weights that the run starts from, if it does from any."""
    if started.init:
        return start.from_weights(state, started.init, model=model)
    if started.backbone:
        return start.from_backbone(state, started.backbone, model=model)
    return state


def _open_teacher(recipe: Recipe) -> Teacher | None:
    if not recipe.data.teacher:
        return None
    model = recipe.model
    return Teacher(
        recipe.data.teacher,
        exemplar_size=model.exemplar_size,
        instance_size=model.instance_size,
        places=np.unique(model_anchors(model)[:, 0]) - model.instance_size / 2,
    )


def _validation_batches(dataset: PairDataset | None) -> list[Batch]:
    if not distributed.is_first():
        return []
    if dataset is None:
        print("too little data to hold any out: no validation")
        return []
    with loader.batches(dataset, batch_size=64, threads=2) as stream:
        return cast(list[Batch], list(itertools.islice(stream, 4)))


# While it runs, and at the end


def _validate(
    variables: Any, *, held_out: list[Batch], model: SiamRPN
) -> dict[str, float]:
    """Mean IoU of the best proposal on held-out pairs, and the share above .5."""
    if not held_out:
        return {}
    overlap = np.concatenate(
        [
            np.asarray(step.pair_iou(variables, batch, model=model))[batch.positive > 0]
            for batch in held_out
        ]
    )
    return {"val_iou": float(overlap.mean()), "val_hit": float((overlap > 0.5).mean())}


def _release(
    state: TrainState,
    seconds: float,
    *,
    config: Config,
    started: RunConfig,
    model: SiamRPN,
    held_out: list[Batch],
    learned: str,
) -> dict[str, Any]:
    """Evaluates, draws and writes the weights; returns their model card."""
    recipe, variables = started.recipe, step.eval_variables(state)
    optimizer = recipe.train.optimizer
    figures = {"held_out": _validate(variables, held_out=held_out, model=model)}
    card: dict[str, Any] = {
        "preset": started.preset,
        "command": started.command,
        "init": started.init,
        "backbone": started.backbone,
        "frozen_layers": optimizer.frozen_layers,
        "trained": list(optimizer.trained) or "all",
        "data": list(recipe.data.folders) or ["generated scenes"],
        "steps": int(state.step),
        "pairs": int(state.step) * recipe.batch_size,
        "seed": recipe.seed,
        "minutes_since_start_or_resume": round(seconds / 60, 1),
        "device": jax.devices()[0].device_kind,
        "figures": figures,
    }
    if learned:
        card["trained_on"] = cards.trained_on(learned)
    if recipe.data.teacher:
        card["teacher"] = [Path(file).name for file in recipe.data.teacher]
    if started.tuned_on:
        known = started.tuned_on.items()
        card["tuned_on"] = [{"name": name, "fingerprint": key} for key, name in known]
    curves = plots.plot_training(config.out / "metrics.jsonl")
    plots.save_png(curves, config.out / "losses.png")
    if config.evaluate:
        figures["unseen_scenes"] = _track_unseen(config, model, variables)
    path = config.out / weights.FILE_NAME
    weights.save_weights(
        path, variables, model=model, tracker_config=recipe.tracker, card=card
    )
    print(f"weights: {path}; curves: {config.out / 'losses.png'}")
    return card


def _track_unseen(config: Config, model: SiamRPN, variables: Any) -> dict[str, float]:
    """Tracks generated scenes that no pair came from; prints and draws them."""
    tracked, repeated = [], []
    strip: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]] = []
    for i in range(config.evaluate):
        frames, truth = generated.make_sequence(generated.UNSEEN_SEED + i)
        predicted = _track(config, model, variables, frames, truth)
        static = np.repeat(truth[:1], len(truth), axis=0)
        tracked.append(metrics.evaluate(predicted, truth).auc)
        repeated.append(metrics.evaluate(static, truth).auc)
        if i < 2:
            strip += [
                (f"scene {i}, frame {t}", frames[t], predicted[t], truth[t])
                for t in np.linspace(1, len(frames) - 1, 4).astype(int)
            ]
    auc, static_auc = float(np.mean(tracked)), float(np.mean(repeated))
    path = config.out / "strip.png"
    titles, shown, predicted, truth = (
        list(column) for column in zip(*strip, strict=True)
    )
    figure = plots.plot_strip(
        shown,
        predicted={"tracked": np.stack(predicted)},
        truth=np.stack(truth),
        titles=titles,
    )
    plots.save_png(figure, path)
    verdict = "it follows" if auc > static_auc + 0.1 else "it does NOT follow"
    print(
        f"{config.evaluate} unseen generated scenes, success AUC: {auc:.3f} tracked, "
        f"{static_auc:.3f} first box repeated: {verdict}; frames: {path}"
    )
    return {"auc": auc, "first_box_repeated_auc": static_auc}


def _track(
    config: Config,
    model: SiamRPN,
    variables: Any,
    frames: np.ndarray,
    truth: np.ndarray,
) -> np.ndarray:
    """Boxes ``ltwh [T, 4]`` of a clip whose first true box is given."""
    first = boxes.ltwh_to_cxcywh(truth[0])
    tracker = config.recipe.tracker
    template, state = init_track(
        variables, frames[0], first, model=model, config=tracker
    )
    _, output = track_clip(
        variables, template, state, frames[1:], model=model, config=tracker
    )
    predicted = boxes.cxcywh_to_ltwh(np.asarray(output.box, np.float64))
    return np.concatenate([truth[:1], predicted])
