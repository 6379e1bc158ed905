"""``siamrpn train``: from pairs to released weights, in reading order.

A run is a folder, see ``loop``; at the end there are also::

    weights.safetensors    the result, with its model card
    losses.png, strip.png  curves, and unseen scenes being tracked
"""

import contextlib
import dataclasses
import functools
import itertools
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

import jax
import numpy as np
import tyro

from siamrpn_jax import weights
from siamrpn_jax.commands import start
from siamrpn_jax.commands.errors import run_or_exit
from siamrpn_jax.common.errors import check_least
from siamrpn_jax.common.extras import require
from siamrpn_jax.data.crops import format
from siamrpn_jax.data.pairs import loader
from siamrpn_jax.data.pairs.pairs import PairDataset
from siamrpn_jax.data.scenes import generated
from siamrpn_jax.evaluation.ope import metrics
from siamrpn_jax.evaluation.report import plots
from siamrpn_jax.model import boxes
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.presets import PRESETS, Recipe
from siamrpn_jax.tracking.step import init_track, track_clip
from siamrpn_jax.training import checkpoints, distributed, logs, step
from siamrpn_jax.training import run as loop
from siamrpn_jax.training.batch import Batch
from siamrpn_jax.training.checkpoints import Checkpoints
from siamrpn_jax.training.run import Clock, Loop, RunOptions, Samples
from siamrpn_jax.training.step import TrainState

_UNSEEN_SEED = 2**32
"""Training draws 32-bit seeds: scenes with this one and later ones are never seen."""

AugmentOn = Literal["host", "device"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunOptions):
    """Train a tracker."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    preset: tyro.conf.Suppress[str | None] = None
    """What the recipe was called, for the model card."""
    init: str | None = None
    """Train on from these weights (name, file or run). Network and tracking constants
    are theirs, but for what other options say."""
    backbone: str | None = None
    """Start from this backbone: a file or run of ``siamrpn pretrain``, a tracker's
    weights, or a PyTorch file (alexnet-bn.pth, torchvision's AlexNet, SiamFC, …). What
    the input looks like is its, but for what other options say."""
    augment_on: Annotated[AugmentOn, tyro.conf.arg(name="augment")] = "host"
    """Where pairs are cropped and coloured. An accelerator spares the host a quarter
    of its time for pairs of prepared folders, and gets 2.8 times as many bytes."""
    evaluate: int = 8
    """Unseen generated scenes to track at the end; 0: none."""

    def __post_init__(self) -> None:
        """Raises InputError on values that are out of range or exclude each other."""
        super().__post_init__()
        check_least(self, 0, "evaluate")
        start.check_one(self.init, self.backbone)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What a run's folder remembers of how it was started."""

    recipe: Recipe
    """Everything that decides what weights come out."""
    init: str | None
    """The weights it started from, or None for random ones."""
    command: str
    """The command line, for the model card."""
    augment_on: AugmentOn = "host"
    """Where pairs were cropped and coloured; the two differ by rounding and noise."""
    backbone: str | None = None
    """The backbone it started from, or None."""
    preset: str | None = None
    """What the recipe was called before options changed it."""
    prepared: dict[str, str] = dataclasses.field(default_factory=dict)
    """Fingerprints of the prepared folders."""
    tuned_on: dict[str, str] = dataclasses.field(default_factory=dict)
    """Fingerprints and names of the sequences on which the tracking constants of the
    first weights were chosen."""


def run(config: Config, *, writers: Sequence[logs.MetricWriter] = ()) -> dict[str, Any]:
    """Trains, evaluates on unseen scenes, and writes the run's folder.

    Args:
        config: what to train, and where.
        writers: where metrics go beside ``metrics.jsonl`` and TensorBoard files; used
            by the first process only.

    Returns:
        the model card of the weights; empty if a signal stopped the run, and in all
        processes but the first.

    Raises:
        TrainingError: the run exists already, the batch does not fit the devices, the
            loss is not finite, or processes do not fit together.
        CheckpointError: nothing to resume, or a run of another config.
        DataError: unusable data.
        InputError: the other processes cannot be joined.
    """
    require("tensorboardX", extra="train")
    require("matplotlib", extra="train")
    started = _describe_run(config)
    distributed.start(config.process)
    recipe = started.recipe
    devices = loop.choose_devices(config, batch_size=recipe.batch_size)
    loop.check_processes_agree(config)

    # Data
    data, validation = loader.open_datasets(
        recipe.data,
        exemplar_size=recipe.model.exemplar_size,
        instance_size=recipe.model.instance_size,
        augment=recipe.augment,
        context=recipe.model.context,
    )
    distributed.say(data.describe())
    held_out = _validation_batches(validation)

    # Model and state
    model = SiamRPN(recipe.model)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(
            contextlib.closing(Checkpoints(config.out / "checkpoints"))
        )
        state = _first_state(config, started, model, store)
        loop.write_config(config, started)
        samples = Samples(recipe.batch_size, "pairs", ("cls_loss", "reg_loss"))
        clock = Clock(config, recipe.train, samples, int(state.step))
        _say_what_thawed(config.recipe, recipe)
        distributed.say(loop.headline(config, recipe.train, samples, state, devices))

        # Loop
        stream = stack.enter_context(
            loader.batches(
                data,
                batch_size=recipe.batch_size,
                start_step=int(state.step),
                workers=config.workers,
                threads=config.threads,
                host_index=jax.process_index(),
                host_count=jax.process_count(),
                device_augment=config.augment_on == "device",
            )
        )
        step_fn = step.pmap_train_step(model, recipe.train, devices=devices)
        validate = functools.partial(_validate, held_out=held_out, model=model)
        steps = Loop(config, clock, writers, store)
        state, stopped = steps.run(state, step_fn, stream, validate, devices)
    if stopped:
        distributed.say(f"stopped at step {int(state.step)}; go on with --resume")
        return {}
    return _finish(config, started, model, state, held_out, clock)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: ``train [PRESET] [OPTIONS]``; the default preset is ``small``."""
    args = list(sys.argv[1:] if argv is None else argv)
    with distributed.ending_together():
        run_or_exit(lambda: run(_parse(args)))


def _parse(args: list[str]) -> Config:
    preset = args[0] if args and args[0] in PRESETS else None
    options = args[1:] if preset else args
    name = preset or "small"
    default = Config(recipe=PRESETS[name](), preset=name)
    config = _parse_options(options, default)
    path = config.out / loop.CONFIG_FILE
    init, backbone = config.init, config.backbone
    if config.resume and path.is_file():
        stored = checkpoints.read_config(path, RunConfig)
        if not preset:
            # What made the run need not be repeated; what is repeated must be the same.
            default = dataclasses.replace(
                default, recipe=stored.recipe, augment_on=stored.augment_on
            )
            return _parse_options(options, default)
        init, backbone = init or stored.init, backbone or stored.backbone
    # The weights' own values are the defaults of the options.
    recipe = start.adopt(default.recipe, init=init, backbone=backbone)
    return _parse_options(options, dataclasses.replace(default, recipe=recipe))


def _parse_options(options: list[str], default: Config) -> Config:
    return tyro.cli(
        Config,
        prog=f"siamrpn train [{'|'.join(PRESETS)}]",
        description="Train a tracker; the word before the options chooses a preset, "
        "whose values are the defaults shown.",
        args=options,
        default=default,
    )


# Before the loop


def _describe_run(config: Config) -> RunConfig:
    """What the run is; refuses one that exists, or resumes another."""
    if not config.resume:
        loop.check_new(config)
        return RunConfig(
            _thaw(config.recipe, config.init or config.backbone),
            config.init,
            loop.command_line(),
            config.augment_on,
            config.backbone,
            config.preset,
            _fingerprints(config.recipe),
            _tuned_on(config.init),
        )
    path = config.out / loop.CONFIG_FILE
    stored = checkpoints.read_config(path, RunConfig)
    wanted = dataclasses.replace(
        stored,
        recipe=config.recipe,
        init=config.init or stored.init,
        augment_on=config.augment_on,
        backbone=config.backbone or stored.backbone,
        prepared=_fingerprints(config.recipe),
    )
    checkpoints.check_same(path, stored, wanted)
    return stored


def _fingerprints(recipe: Recipe) -> dict[str, str]:
    """Of the prepared folders: a resumed run must find what it began with."""
    folders = filter(format.is_prepared, recipe.data.folders)
    return {folder: format.fingerprint(folder) for folder in folders}


def _tuned_on(init: str | None) -> dict[str, str]:
    """Constants come with the weights, and so does what they were chosen on."""
    known = weights.load_weights(init).card.get("tuned_on") if init else None
    return {one["fingerprint"]: one["name"] for one in known or []}


def _thaw(recipe: Recipe, pretrained: str | None) -> Recipe:
    """Layers stay frozen only where they hold trained weights."""
    frozen = recipe.train.optimizer.frozen_layers
    if not frozen or pretrained:
        return recipe
    optimizer = dataclasses.replace(recipe.train.optimizer, frozen_layers=0)
    train = dataclasses.replace(recipe.train, optimizer=optimizer)
    return dataclasses.replace(recipe, train=train)


def _say_what_thawed(wanted: Recipe, recipe: Recipe) -> None:
    if recipe != wanted:
        distributed.say(
            f"training all layers: the first {wanted.train.optimizer.frozen_layers} "
            "are random, not pretrained (--backbone)"
        )


def _first_state(
    config: Config, started: RunConfig, model: SiamRPN, store: Checkpoints
) -> TrainState:
    recipe = started.recipe
    rng = jax.random.key(recipe.seed)
    state = step.init_state(rng, model=model, config=recipe.train)
    if config.resume and store.latest_step() is not None:
        return store.restore(state)
    if started.init:
        return start.from_weights(state, started.init, model=model)
    if started.backbone:
        return start.from_backbone(state, started.backbone, model=model)
    return state


def _validation_batches(dataset: PairDataset | None) -> list[Batch]:
    if not distributed.is_first():
        return []
    if dataset is None:
        print("too little data to hold any out: no validation")
        return []
    with loader.batches(dataset, batch_size=64, threads=2) as stream:
        return cast(list[Batch], list(itertools.islice(stream, 4)))


# In the loop


def _validate(
    variables: Any, held_out: list[Batch], model: SiamRPN
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


# After the loop


def _finish(
    config: Config,
    started: RunConfig,
    model: SiamRPN,
    state: TrainState,
    held_out: list[Batch],
    clock: Clock,
) -> dict[str, Any]:
    """Evaluates, draws and releases; other processes wait for the first."""
    card = {}
    if distributed.is_first():
        card = _release(config, started, model, state, held_out, clock)
    distributed.wait("end of the run")
    return card


def _release(
    config: Config,
    started: RunConfig,
    model: SiamRPN,
    state: TrainState,
    held_out: list[Batch],
    clock: Clock,
) -> dict[str, Any]:
    recipe, variables = started.recipe, step.eval_variables(state)
    optimizer = recipe.train.optimizer
    figures = {"held_out": _validate(variables, held_out, model)}
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
        "minutes_since_start_or_resume": round(clock.seconds / 60, 1),
        "device": jax.devices()[0].device_kind,
        "figures": figures,
    }
    if started.tuned_on:
        marks = started.tuned_on.items()
        card["tuned_on"] = [{"name": n, "fingerprint": mark} for mark, n in marks]
    plots.plot_training(config.out / "losses.png", config.out / "metrics.jsonl")
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
        frames, truth = generated.make_sequence(_UNSEEN_SEED + i)
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
    plots.plot_strip(
        path, shown, predicted=np.stack(predicted), truth=np.stack(truth), titles=titles
    )
    verdict = "it learned" if auc > static_auc + 0.1 else "it did NOT learn to track"
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
    template, state = init_track(variables, frames[0], first, model=model)
    _, output = track_clip(
        variables,
        template,
        state,
        frames[1:],
        model=model,
        config=config.recipe.tracker,
    )
    predicted = boxes.cxcywh_to_ltwh(np.asarray(output.box, np.float64))
    return np.concatenate([truth[:1], predicted])
