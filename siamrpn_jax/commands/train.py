"""``siamrpn train``: from pairs to released weights, in reading order.

A run is a folder::

    config.json           what it was started with
    checkpoints/          the newest two states
    metrics.jsonl         a line every ``log_every`` steps and at the end of each epoch
    events.out.tfevents…  the same for TensorBoard
    weights.safetensors   the result, with its model card
    losses.png, strip.png curves, and unseen scenes being tracked
"""

import collections
import contextlib
import dataclasses
import itertools
import math
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from tqdm.auto import tqdm

from siamrpn_jax import boxes, checkpoints, configs, logs, training, weights
from siamrpn_jax.batch import Batch
from siamrpn_jax.checkpoints import Checkpoints
from siamrpn_jax.commands.errors import run_or_exit
from siamrpn_jax.data import loader, synthetic
from siamrpn_jax.errors import InputError
from siamrpn_jax.evaluation import ope, plots
from siamrpn_jax.extras import require
from siamrpn_jax.model import SiamRPN
from siamrpn_jax.presets import PRESETS, Recipe
from siamrpn_jax.tracker import init_track, track_clip
from siamrpn_jax.training import Metrics, TrainState

_CONFIG_FILE = "config.json"

_UNSEEN_SEED = 1_000_000
"""Scenes with this seed and later ones are never trained on."""


class TrainingError(InputError):
    """A run that cannot start or go on."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a tracker."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    out: Path = Path("runs/train")
    """Folder of the run."""
    resume: bool = False
    """Continue the run in ``out`` from its newest checkpoint."""
    init: str | None = None
    """Start from these weights (name, file or run) instead of random ones."""
    workers: int = 0
    """Processes that make batches; 0: threads of this process."""
    threads: int = 2
    """Threads that make batches, in each process."""
    devices: int | None = None
    """How many devices share the batch; all by default."""
    log_every: int = 20
    """Steps between two lines of metrics."""
    checkpoint_minutes: float = 5.0
    """Minutes between two checkpoints; there is one more at the end."""
    evaluate: int = 8
    """Unseen generated scenes to track at the end; 0: none."""


def run(config: Config) -> dict[str, Any]:
    """Trains, evaluates on unseen scenes, and writes the run's folder.

    Returns:
        the model card of the weights.

    Raises:
        TrainingError: the run exists already, the batch does not fit the devices, or
            the loss is not finite.
        CheckpointError: nothing to resume, or a run of another config.
        DataError: unusable data.
    """
    require("tensorboardX", extra="train")
    require("matplotlib", extra="train")
    config = dataclasses.replace(config, recipe=_thaw(config))
    recipe = config.recipe
    devices = _devices(config)

    # Data
    datasets = [
        loader.open_dataset(
            recipe.data,
            exemplar_size=recipe.model.exemplar_size,
            instance_size=recipe.model.instance_size,
            augment=recipe.augment,
            validation=validation,
        )
        for validation in (False, True)
    ]
    held_out = _validation_batches(datasets[1])

    # Run folder
    _open_run(config)
    store = Checkpoints(config.out / "checkpoints")

    # Model and state
    model = SiamRPN(recipe.model)
    state = _start(config, model, store)
    start_step = int(state.step)
    step_fn = training.pmap_train_step(model, recipe.train, devices=devices)
    print(_headline(config, state, len(devices)))

    # Loop
    clock, window = _Clock(config, start_step), _MetricWindow()
    with contextlib.ExitStack() as stack:
        stack.callback(store.close)
        writers = [
            stack.enter_context(contextlib.closing(writer))
            for writer in _open_writers(config.out, start_step)
        ]
        stream = stack.enter_context(
            loader.batches(
                datasets[0],
                batch_size=recipe.batch_size,
                start_step=start_step,
                workers=config.workers,
                threads=config.threads,
            )
        )
        stop = stack.enter_context(_StopSignal())
        for step in clock.steps(recipe.train):
            state, metrics = step_fn(state, _split(next(stream), len(devices)))
            window.add(step, metrics)
            done = step + 1
            if done % config.log_every == 0 or clock.ends_epoch(done):
                _write(writers, done, clock.log(done, window.fetch()))
            if clock.ends_epoch(done):
                figures = _validate(training.eval_variables(state), held_out, model)
                _write(writers, done, figures)
                clock.report(done, figures)
            if stop.requested:
                break
            if clock.checkpoint_is_due():
                window.fetch()  # raises before a state that is not finite is kept
                store.save(state)
        window.fetch()
        store.save(state)
    if stop.requested:
        print(f"stopped at step {int(state.step)}; go on with --resume")
        return {}
    return _finish(config, model, state, held_out, clock)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: ``train [PRESET] [OPTIONS]``; the default preset is ``small``."""
    args = list(sys.argv[1:] if argv is None else argv)
    preset = args.pop(0) if args and args[0] in PRESETS else "small"
    config = _parse(args, PRESETS[preset]())
    stored = config.out / _CONFIG_FILE
    if config.resume and stored.is_file():
        # Options need not be repeated, and those that are must be the same.
        config = _parse(args, checkpoints.read_config(stored, Recipe))
    run_or_exit(lambda: run(config))


def _parse(args: list[str], recipe: Recipe) -> Config:
    return tyro.cli(
        Config,
        prog=f"siamrpn train [{'|'.join(PRESETS)}]",
        description="Train a tracker; the word before the options chooses a preset, "
        "whose values are the defaults shown.",
        args=args,
        default=Config(recipe=recipe),
    )


# Before the loop


def _thaw(config: Config) -> Recipe:
    """Layers stay frozen only where they hold trained weights."""
    recipe, frozen = config.recipe, config.recipe.train.optimizer.frozen_layers
    if not frozen or config.init or config.resume:
        return recipe
    print(f"training all layers: the first {frozen} are random, not pretrained")
    optimizer = dataclasses.replace(recipe.train.optimizer, frozen_layers=0)
    train = dataclasses.replace(recipe.train, optimizer=optimizer)
    return dataclasses.replace(recipe, train=train)


def _devices(config: Config) -> list[training.Device]:
    devices = jax.devices()
    count = len(devices) if config.devices is None else config.devices
    if not 1 <= count <= len(devices):
        raise TrainingError(f"devices={count}, but there are {len(devices)}")
    if config.recipe.batch_size % count:
        raise TrainingError(
            f"batch_size={config.recipe.batch_size} does not divide by {count} devices"
        )
    return devices[:count]


def _open_run(config: Config) -> None:
    path = config.out / _CONFIG_FILE
    if config.resume:
        checkpoints.check_config(path, config.recipe)
    elif path.exists():
        raise TrainingError(
            f"{config.out} holds a run already: --resume it, or choose another --out"
        )
    else:
        checkpoints.write_config(path, config.recipe)


def _start(config: Config, model: SiamRPN, store: Checkpoints) -> TrainState:
    recipe = config.recipe
    rng = jax.random.key(recipe.seed)
    state = training.init_state(rng, model=model, config=recipe.train)
    if config.resume and store.latest_step() is not None:
        return store.restore(state)
    if not config.init:
        return state
    loaded = weights.load_weights(config.init)
    differing = configs.differences(
        configs.to_json(loaded.model.config), configs.to_json(model.config)
    )
    if differing:
        raise TrainingError(f"{config.init} is another model: {'; '.join(differing)}")
    variables = jax.tree.map(jax.numpy.array, loaded.variables)
    ema = jax.tree.map(jax.numpy.copy, variables) if state.ema is not None else None
    return state.replace(ema=ema, **variables)


def _validation_batches(dataset: loader.PairDataset) -> list[Batch]:
    with loader.batches(dataset, batch_size=64, threads=2) as stream:
        return list(itertools.islice(stream, 4))


def _open_writers(folder: Path, start_step: int) -> list[logs.MetricWriter]:
    return [
        logs.JsonLinesWriter(folder / "metrics.jsonl", start_step=start_step + 1),
        logs.TensorBoardWriter(folder, start_step=start_step + 1),
    ]


def _headline(config: Config, state: TrainState, devices: int) -> str:
    train, parameters = config.recipe.train, jax.tree.leaves(state.params)
    steps = train.epochs * train.steps_per_epoch
    data = ", ".join(config.recipe.data.folders) or "generated scenes"
    return (
        f"{sum(x.size for x in parameters):,} parameters; {steps:,} steps of "
        f"{config.recipe.batch_size} pairs on {devices} {jax.default_backend()} "
        f"device(s); data: {data}; run: {config.out}"
    )


# In the loop


class _StopSignal:
    """While active, SIGTERM and SIGINT ask the loop to save and stop."""

    def __init__(self):
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "_StopSignal":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True


class _MetricWindow:
    """Metrics of the steps since the last fetch; on the device until then."""

    def __init__(self):
        self._steps: collections.deque[tuple[int, Metrics]] = collections.deque()

    def add(self, step: int, metrics: Metrics) -> None:
        """Takes the metrics of a step without waiting for it, but for the last but two.

        That one is waited for: the host never runs far ahead of the device.
        """
        self._steps.append((step, metrics))
        if len(self._steps) > 2:
            jax.block_until_ready(self._steps[-3][1])

    def fetch(self) -> dict[str, float]:
        """Means over the window, which is then empty.

        Raises:
            TrainingError: some step's loss or gradient was not finite.
        """
        fetched = [(step, jax.device_get(metrics)) for step, metrics in self._steps]
        self._steps.clear()
        for step, metrics in fetched:
            wrong = [name for name, value in metrics.items() if not np.isfinite(value)]
            if wrong:
                raise TrainingError(
                    f"step {step}: {', '.join(wrong)} not finite; the last checkpoint "
                    "is kept"
                )
        if not fetched:
            return {}
        names = fetched[0][1]
        return {
            name: float(np.mean([metrics[name] for _, metrics in fetched]))
            for name in names
        }


class _Clock:
    """Progress bar, speed, and when to save."""

    def __init__(self, config: Config, start_step: int):
        self._config, self._start_step = config, start_step
        self._steps_per_epoch = config.recipe.train.steps_per_epoch
        self._begun = self._saved = self._logged = time.monotonic()
        self._logged_step, self._last = start_step, {}
        self.seconds = 0.0

    def steps(self, train: training.TrainConfig) -> Iterator[int]:
        """The steps to do, behind a progress bar (only on a terminal)."""
        total = train.epochs * train.steps_per_epoch
        with tqdm(
            total=total, initial=self._start_step, unit="step", disable=None
        ) as self._bar:
            for step in range(self._start_step, total):
                yield step
                self._bar.update()

    def ends_epoch(self, done: int) -> bool:
        return done % self._steps_per_epoch == 0

    def log(self, done: int, metrics: dict[str, float]) -> dict[str, float]:
        """Adds the speed since the last call, and shows the line on the bar."""
        now = time.monotonic()
        steps = done - self._logged_step
        speed = steps * self._config.recipe.batch_size / max(now - self._logged, 1e-9)
        self._logged, self._logged_step = now, done
        self.seconds = now - self._begun
        self._last = {**metrics, "pairs_per_second": speed}
        self._bar.set_postfix_str(
            f"loss {metrics['loss']:.3f}, lr {metrics['learning_rate']:.1e}, "
            f"{speed:.0f} pairs/s"
        )
        return self._last

    def report(self, done: int, figures: dict[str, float]) -> None:
        """One line at the end of an epoch, also where there is no terminal."""
        train = self._config.recipe.train
        elapsed = time.monotonic() - self._begun
        left = train.epochs * train.steps_per_epoch - done
        left_seconds = elapsed / max(done - self._start_step, 1) * left
        last = self._last
        self._bar.write(
            f"epoch {done // self._steps_per_epoch}/{train.epochs}: "
            f"loss {last['loss']:.3f} (cls {last['cls_loss']:.3f}, "
            f"reg {last['reg_loss']:.3f}), lr {last['learning_rate']:.1e}, "
            f"held out: IoU {figures['val_iou']:.3f}, "
            f"IoU > .5 {figures['val_hit']:.2f}; "
            f"{last['pairs_per_second']:.0f} pairs/s, left {_minutes(left_seconds)}"
        )

    def checkpoint_is_due(self) -> bool:
        if time.monotonic() - self._saved < 60 * self._config.checkpoint_minutes:
            return False
        self._saved = time.monotonic()
        return True


def _split(batch: Batch, devices: int) -> Batch:
    """``[B, …]`` arrays to ``[devices, B / devices, …]``."""
    return Batch(*(x.reshape(devices, -1, *x.shape[1:]) for x in batch))


def _validate(
    variables: Any, held_out: list[Batch], model: SiamRPN
) -> dict[str, float]:
    """Mean IoU of the best proposal on held-out pairs, and the share above .5."""
    overlap = np.concatenate(
        [
            np.asarray(training.pair_iou(variables, batch, model=model))[
                batch.positive > 0
            ]
            for batch in held_out
        ]
    )
    return {"val_iou": float(overlap.mean()), "val_hit": float((overlap > 0.5).mean())}


def _write(
    writers: list[logs.MetricWriter], step: int, metrics: dict[str, float]
) -> None:
    for writer in writers:
        writer.write(step, metrics)


# After the loop


def _finish(
    config: Config,
    model: SiamRPN,
    state: TrainState,
    held_out: list[Batch],
    clock: _Clock,
) -> dict[str, Any]:
    recipe, variables = config.recipe, training.eval_variables(state)
    card: dict[str, Any] = {
        "command": "siamrpn " + shlex.join(sys.argv[1:]),
        "data": list(recipe.data.folders) or ["generated scenes"],
        "steps": int(state.step),
        "pairs": int(state.step) * recipe.batch_size,
        "seed": recipe.seed,
        "minutes_since_start_or_resume": round(clock.seconds / 60, 1),
        "device": jax.devices()[0].device_kind,
        "held_out": _validate(variables, held_out, model),
    }
    plots.plot_training(config.out / "losses.png", config.out / "metrics.jsonl")
    if config.evaluate:
        card["unseen_scenes"] = _track_unseen(config, model, variables)
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
        frames, truth = synthetic.make_sequence(_UNSEEN_SEED + i)
        predicted = _track(config, model, variables, frames, truth)
        static = np.repeat(truth[:1], len(truth), axis=0)
        tracked.append(ope.evaluate(predicted, truth).auc)
        repeated.append(ope.evaluate(static, truth).auc)
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


def _minutes(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "unknown"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
