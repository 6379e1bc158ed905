"""What ``siamrpn pretrain`` trains: images, network, validation, release."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from siamrpn_jax import weights
from siamrpn_jax.commands.pretrain import Config, RunConfig, parse_options
from siamrpn_jax.common import provenance
from siamrpn_jax.data.pairs import loader
from siamrpn_jax.data.pairs.labelled import LabelledDataset, open_labelled
from siamrpn_jax.evaluation.report import plots
from siamrpn_jax.training import checkpoints, distributed, logs, run, step
from siamrpn_jax.training.classifier import Classifier, class_loss, label_ranks
from siamrpn_jax.training.step import TrainState


def pretrain(config: Config, writers: Sequence[logs.MetricWriter]) -> dict[str, Any]:
    """Does what ``pretrain.run`` says."""
    with run.begin(config, batch_size=config.recipe.batch_size) as devices:
        return _pretrain(config, devices, writers)


def _pretrain(
    config: Config,
    devices: Sequence[step.Device],
    writers: Sequence[logs.MetricWriter],
) -> dict[str, Any]:
    if not config.resume:
        run.check_new(config)
    size = config.recipe.model.image_size
    data, held_out = open_labelled(config.recipe.data, image_size=size)
    started = _describe_run(config, data)
    recipe = started.recipe
    distributed.log(f"{data.describe()}; {len(held_out or ()):,} held out")
    model = Classifier(recipe.model, classes=len(started.classes))
    validate = functools.partial(
        classify_held_out,
        dataset=held_out,
        model=model,
        limit=config.validate,
        threads=config.threads,
    )
    task = run.Task(
        model=model,
        schedule=recipe.train,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        batches=lambda first: loader.batches(
            data,
            batch_size=recipe.batch_size,
            start_step=first,
            workers=config.workers,
            threads=config.threads,
            host_index=jax.process_index(),
            host_count=jax.process_count(),
        ),
        validate=validate,
        release=functools.partial(
            _release, config=config, started=started, classify=validate
        ),
        loss=class_loss,
        samples="images",
    )
    return run.fit(config, task, started, devices, writers=writers)


def complete(config: Config, options: list[str], default: Config) -> Config:
    """The command line's config, with defaults of the run that is resumed.

    What made the run need not be repeated, and what is repeated must be the same.
    """
    path = config.out / run.CONFIG_FILE
    if not path.is_file():
        return config
    stored = checkpoints.read_config(path, RunConfig)
    default = dataclasses.replace(default, recipe=stored.recipe)
    return parse_options(options, default)


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
        limit: the largest number of them to classify, evenly spread; 0: all.
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


def _describe_run(config: Config, data: LabelledDataset) -> RunConfig:
    """What the run is; refuses to resume another."""
    recipe, train = config.recipe, config.recipe.train
    if not train.steps_per_epoch:
        steps = max(1, len(data) // recipe.batch_size)
        train = dataclasses.replace(train, steps_per_epoch=steps)
        recipe = dataclasses.replace(recipe, train=train)
    if not config.resume:
        return RunConfig(recipe, data.classes, provenance.command_line(), config.preset)
    path = config.out / run.CONFIG_FILE
    stored = checkpoints.read_config(path, RunConfig)
    wanted = dataclasses.replace(stored, recipe=recipe, classes=data.classes)
    checkpoints.check_same(path, stored, wanted)
    return stored


def _release(
    state: TrainState,
    seconds: float,
    *,
    config: Config,
    started: RunConfig,
    classify: Callable[..., dict[str, float]],
) -> dict[str, Any]:
    """Classifies all held-out images and writes the backbone; returns its card."""
    recipe, variables = started.recipe, step.eval_variables(state)
    figures = classify(variables, limit=0)
    card: dict[str, Any] = {
        "preset": started.preset,
        "command": started.command,
        "data": [recipe.data.folder],
        "classes": len(started.classes),
        "image_size": recipe.model.image_size,
        "steps": int(state.step),
        "images": int(state.step) * recipe.batch_size,
        "seed": recipe.seed,
        "minutes_since_start_or_resume": round(seconds / 60, 1),
        "device": jax.devices()[0].device_kind,
        "figures": figures,
    }
    curves = plots.plot_training(config.out / "metrics.jsonl")
    plots.save_png(curves, config.out / "losses.png")
    path = config.out / weights.FILE_NAME
    weights.save_backbone(
        path,
        variables,
        config=recipe.model.backbone,
        input_config=recipe.model.input,
        card=card,
    )
    found = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
    print(f"held-out images: {found or 'none'}; curves: {config.out / 'losses.png'}")
    print(f"backbone: {path}; siamrpn train {started.preset} --backbone {config.out}")
    return card
