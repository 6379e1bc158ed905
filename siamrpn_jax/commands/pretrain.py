"""``siamrpn pretrain``: a backbone learns to classify images (ImageNet), to start from.

A run is a folder, see ``loop``; at the end there are also ``weights.safetensors``, the
backbone alone with its model card, for ``siamrpn train --backbone``, and the curves
``losses.png``.
"""

import contextlib
import dataclasses
import functools
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro

from siamrpn_jax import weights
from siamrpn_jax.commands.errors import run_or_exit
from siamrpn_jax.common.errors import InputError, check_least
from siamrpn_jax.common.extras import require
from siamrpn_jax.data.pairs import loader
from siamrpn_jax.data.pairs.labelled import (
    LabelledConfig,
    LabelledDataset,
    open_labelled,
)
from siamrpn_jax.evaluation.report import plots
from siamrpn_jax.model.backbone import BackboneConfig, feature_size
from siamrpn_jax.presets import PRESETS
from siamrpn_jax.training import checkpoints, distributed, logs, step
from siamrpn_jax.training import run as loop
from siamrpn_jax.training.checkpoints import Checkpoints
from siamrpn_jax.training.classifier import (
    Classifier,
    ClassifierConfig,
    ClassifierTrainConfig,
    class_loss,
    label_ranks,
)
from siamrpn_jax.training.run import Clock, Loop, RunOptions, Samples
from siamrpn_jax.training.step import TrainState

_USUAL_SIZE = 224


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides what weights come out of a pretraining run."""

    train: Annotated[ClassifierTrainConfig, tyro.conf.arg(name="")]
    data: LabelledConfig
    model: ClassifierConfig
    batch_size: int = 256
    """Images in an optimizer step, over all devices."""
    seed: int = 0
    """Of the first weights; the images have their own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunOptions):
    """Train a backbone to classify images; trackers start from it by --backbone."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    preset: tyro.conf.Suppress[str | None] = None
    """Whose backbone it is, for the model card."""
    out: Path = Path("runs/pretrain")
    """Folder of the run."""
    validate: int = 0
    """How many held-out images are classified after each epoch; 0: all. At the end it
    is all of them."""

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        super().__post_init__()
        check_least(self, 0, "validate")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What a run's folder remembers of how it was started."""

    recipe: Recipe
    """With the number of steps as it follows from the images."""
    classes: tuple[str, ...]
    """Names of the classes, by their numbers."""
    command: str
    """The command line, for the model card."""
    preset: str | None = None
    """Whose backbone it is."""


def make_recipe(preset: str = "paper") -> Recipe:
    """The recipe for the backbone of a tracker's preset, with the input it wants."""
    model = PRESETS[preset]().model
    size = _image_size(model.backbone)
    network = ClassifierConfig(model.backbone, model.input, image_size=size)
    return Recipe(ClassifierTrainConfig(), LabelledConfig(), network)


def run(config: Config, *, writers: Sequence[logs.MetricWriter] = ()) -> dict[str, Any]:
    """Trains, classifies held-out images, and writes the run's folder.

    Args:
        config: what to train, and where.
        writers: where metrics go beside ``metrics.jsonl`` and TensorBoard files; used
            by the first process only.

    Returns:
        the model card of the backbone; empty if a signal stopped the run, and in all
        processes but the first.

    Raises:
        TrainingError: the run exists already, the batch does not fit the devices, the
            loss is not finite, or processes do not fit together.
        CheckpointError: nothing to resume, or a run of another config.
        DataError: unusable data.
        ImageError: an image that cannot be decoded.
        InputError: the other processes cannot be joined.
    """
    require("tensorboardX", extra="train")
    require("matplotlib", extra="train")
    if not config.resume:
        loop.check_new(config)
    distributed.start(config.process)
    devices = loop.choose_devices(config, batch_size=config.recipe.batch_size)
    loop.check_processes_agree(config)

    # Data
    size = config.recipe.model.image_size
    data, held_out = open_labelled(config.recipe.data, image_size=size)
    started = _describe_run(config, data)
    recipe = started.recipe
    distributed.say(f"{data.describe()}; {len(held_out or ()):,} held out")

    # Model and state
    model = Classifier(recipe.model, classes=len(started.classes))
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(
            contextlib.closing(Checkpoints(config.out / "checkpoints"))
        )
        rng = jax.random.key(recipe.seed)
        state = step.init_state(rng, model=model, config=recipe.train)
        if config.resume and store.latest_step() is not None:
            state = store.restore(state)
        loop.write_config(config, started)
        samples = Samples(recipe.batch_size, "images")
        clock = Clock(config, recipe.train, samples, int(state.step))
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
            )
        )
        step_fn = step.pmap_train_step(
            model, recipe.train, loss=class_loss, devices=devices
        )
        validate = functools.partial(
            classify_held_out,
            dataset=held_out,
            model=model,
            limit=config.validate,
            threads=config.threads,
        )
        steps = Loop(config, clock, writers, store)
        state, stopped = steps.run(state, step_fn, stream, validate, devices)
    if stopped:
        distributed.say(f"stopped at step {int(state.step)}; go on with --resume")
        return {}
    return _finish(config, started, state, clock, validate)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: ``pretrain [PRESET] --data DIR``; the default is ``paper``."""
    args = list(sys.argv[1:] if argv is None else argv)
    with distributed.ending_together():
        run_or_exit(lambda: run(_parse(args)))


def _parse(args: list[str]) -> Config:
    preset = args[0] if args and args[0] in PRESETS else None
    options = args[1:] if preset else args
    name = preset or "paper"
    default = Config(recipe=make_recipe(name), preset=name)
    config = _parse_options(options, default)
    path = config.out / loop.CONFIG_FILE
    if config.resume and path.is_file() and not preset:
        # What made the run need not be repeated, and what is repeated must be the same.
        stored = checkpoints.read_config(path, RunConfig)
        default = dataclasses.replace(default, recipe=stored.recipe)
        config = _parse_options(options, default)
    return config


def _parse_options(options: list[str], default: Config) -> Config:
    return tyro.cli(
        Config,
        prog=f"siamrpn pretrain [{'|'.join(PRESETS)}]",
        description="Train a backbone to classify images, from which trackers start by "
        "--backbone; the word before the options says whose backbone.",
        args=options,
        default=default,
    )


def classify_held_out(
    variables: Any,
    *,
    dataset: LabelledDataset | None,
    model: Classifier,
    limit: int = 0,
    threads: int = 2,
) -> dict[str, float]:
    """Classifies the middle of held-out images.

    Args:
        variables: of the classifier.
        dataset: the images.
        model: the network.
        limit: at most so many of them, evenly spread; 0: all.
        threads: to read them with.

    Returns:
        the shares whose class is the first, and among the first five; empty without
        images.
    """
    if dataset is None:
        return {}
    count = min(limit or len(dataset), len(dataset))
    size = min(64, count)
    some = dataset.spread(count)
    with loader.batches(some, batch_size=size, threads=threads) as stream:
        batches = itertools.islice(stream, -(-count // size))
        ranks = [
            np.asarray(label_ranks(variables, batch, model=model)) for batch in batches
        ]
    first = np.concatenate(ranks)[:count]  # the stream goes on from the start
    return {"top1": float((first < 1).mean()), "top5": float((first < 5).mean())}


def _image_size(config: BackboneConfig) -> int:
    """The largest up to the usual size that all strides divide exactly."""
    for size in range(_USUAL_SIZE, 0, -1):
        with contextlib.suppress(InputError):
            feature_size(config, size)
            return size
    raise InputError(f"no image of up to {_USUAL_SIZE} pixels fits {config}")


def _describe_run(config: Config, data: LabelledDataset) -> RunConfig:
    """What the run is; refuses to resume another."""
    recipe, train = config.recipe, config.recipe.train
    if not train.steps_per_epoch:
        steps = max(1, len(data) // recipe.batch_size)
        train = dataclasses.replace(train, steps_per_epoch=steps)
        recipe = dataclasses.replace(recipe, train=train)
    if not config.resume:
        return RunConfig(recipe, data.classes, loop.command_line(), config.preset)
    path = config.out / loop.CONFIG_FILE
    stored = checkpoints.read_config(path, RunConfig)
    wanted = dataclasses.replace(stored, recipe=recipe, classes=data.classes)
    checkpoints.check_same(path, stored, wanted)
    return stored


def _finish(
    config: Config,
    started: RunConfig,
    state: TrainState,
    clock: Clock,
    classify: Callable[..., dict[str, float]],
) -> dict[str, Any]:
    """Classifies all held-out images and releases; others wait for the first."""
    card = {}
    if distributed.is_first():
        figures = classify(step.eval_variables(state), limit=0)
        card = _release(config, started, state, clock, figures)
    distributed.wait("end of the run")
    return card


def _release(
    config: Config,
    started: RunConfig,
    state: TrainState,
    clock: Clock,
    figures: dict[str, float],
) -> dict[str, Any]:
    """Writes the backbone, and draws the curves."""
    recipe = started.recipe
    card: dict[str, Any] = {
        "preset": started.preset,
        "command": started.command,
        "data": [recipe.data.folder],
        "classes": len(started.classes),
        "image_size": recipe.model.image_size,
        "steps": int(state.step),
        "images": int(state.step) * recipe.batch_size,
        "seed": recipe.seed,
        "minutes_since_start_or_resume": round(clock.seconds / 60, 1),
        "device": jax.devices()[0].device_kind,
        "figures": figures,
    }
    plots.plot_training(config.out / "losses.png", config.out / "metrics.jsonl")
    path = config.out / weights.FILE_NAME
    weights.save_backbone(
        path,
        step.eval_variables(state),
        config=recipe.model.backbone,
        input_config=recipe.model.input,
        card=card,
    )
    found = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
    print(f"held-out images: {found or 'none'}; curves: {config.out / 'losses.png'}")
    print(f"backbone: {path}; siamrpn train {started.preset} --backbone {config.out}")
    return card
