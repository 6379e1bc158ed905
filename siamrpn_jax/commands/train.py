"""``siamrpn train``: from pairs to released weights, in reading order.

A run is a folder::

    config.json           what it was started with
    checkpoints/          the newest two states
    metrics.jsonl         a line every ``log_every`` steps and at the end of each epoch
    events.out.tfevents…  the same for TensorBoard
    weights.safetensors   the result, with its model card
    losses.png, strip.png curves, and unseen scenes being tracked

Several processes (see ``distributed``) share the batch and the folder. The first one
writes, prints, validates and evaluates, the others wait for it.
"""

import collections
import contextlib
import dataclasses
import functools
import itertools
import json
import math
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal, cast

import jax
import numpy as np
import tyro
from tqdm.auto import tqdm

from siamrpn_jax import (
    boxes,
    checkpoints,
    configs,
    distributed,
    logs,
    training,
    weights,
)
from siamrpn_jax.batch import Batch
from siamrpn_jax.checkpoints import Checkpoints
from siamrpn_jax.commands.errors import run_or_exit
from siamrpn_jax.data import loader, synthetic
from siamrpn_jax.data.pairs import PairDataset
from siamrpn_jax.distributed import ProcessConfig
from siamrpn_jax.errors import InputError, check_least
from siamrpn_jax.evaluation import ope, plots
from siamrpn_jax.extras import require
from siamrpn_jax.model import SiamRPN
from siamrpn_jax.presets import PRESETS, Recipe
from siamrpn_jax.tracker import init_track, track_clip
from siamrpn_jax.training import Metrics, Pairs, TrainState

_CONFIG_FILE = "config.json"

_FOLDER_SECONDS = 90.0
"""How long a file may take to be seen by other processes: network file systems cache
for up to a minute that it did not exist."""

_UNSEEN_SEED = 2**32
"""Training draws 32-bit seeds: scenes with this one and later ones are never seen."""


AugmentOn = Literal["host", "device"]


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
    augment_on: Annotated[AugmentOn, tyro.conf.arg(name="augment")] = "host"
    """Where pairs are cropped and coloured. An accelerator spares the host a quarter
    of its time for pairs of prepared folders, and gets 2.8 times as many bytes."""
    workers: int = 0
    """Processes that make batches; 0: threads of this process."""
    threads: int = 2
    """Threads that make batches, in each process."""
    devices: int | None = None
    """How many devices share the batch; all by default, and with several processes."""
    log_every: int = 20
    """Steps between two lines of metrics."""
    checkpoint_minutes: float = 5.0
    """Minutes between two checkpoints; there is one more at the end."""
    evaluate: int = 8
    """Unseen generated scenes to track at the end; 0: none."""
    process: Annotated[ProcessConfig, tyro.conf.arg(name="")] = ProcessConfig()

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        check_least(self, 1, "threads", "log_every")
        check_least(self, 0, "workers", "checkpoint_minutes", "evaluate")


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
    devices, recipe = _devices(config), started.recipe
    _check_processes_agree(config)

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
        state = _start(config, started, model, store)
        _write_config(config, started)
        clock = _Clock(config, recipe, int(state.step))
        distributed.say(_headline(config, recipe, state, devices))

        # Loop
        own_writers = [
            stack.enter_context(contextlib.closing(writer))
            for writer in _open_writers(config.out, int(state.step))
        ]
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
        stop = stack.enter_context(_StopSignal())
        step_fn = training.pmap_train_step(model, recipe.train, devices=devices)
        validate = functools.partial(_validate, held_out=held_out, model=model)
        loop = _Loop(config, clock, [*own_writers, *writers], store, stop)
        split = (_split(batch, len(devices) // jax.process_count()) for batch in stream)
        batches = training.prefetch(split, devices=devices)
        state = loop.run(state, step_fn, batches, validate)
        stopped, _ = distributed.agree(stop=stop.requested, save=False)
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
    config = _parse_options(options, Config(recipe=PRESETS[preset or "small"]()))
    path = config.out / _CONFIG_FILE
    if config.resume and path.is_file() and not preset:
        # What made the run need not be repeated, and what is repeated must be the same.
        stored = checkpoints.read_config(path, RunConfig)
        default = Config(recipe=stored.recipe, augment_on=stored.augment_on)
        config = _parse_options(options, default)
    return config


def _parse_options(options: list[str], default: Config) -> Config:
    return tyro.cli(
        Config,
        prog=f"siamrpn train [{'|'.join(PRESETS)}]",
        description="Train a tracker; the word before the options chooses a preset, "
        "whose values are the defaults shown.",
        args=options,
        default=default,
    )


class _Loop:
    """The steps, and what happens between them."""

    def __init__(
        self,
        config: Config,
        clock: "_Clock",
        writers: Sequence[logs.MetricWriter],
        store: Checkpoints,
        stop: "_StopSignal",
    ):
        self._config, self._clock, self._store = config, clock, store
        self._writers, self._stop = writers, stop
        self._window = _MetricWindow()

    def run(
        self,
        state: TrainState,
        step_fn: Callable[[TrainState, Pairs], tuple[TrainState, Metrics]],
        batches: Iterator[Pairs],
        validate: Callable[[Any], dict[str, float]],
    ) -> TrainState:
        """Trains to the end or to a signal; the last state is saved."""
        for step in self._clock.steps():
            batch = self._next(batches)
            if batch is None:
                break
            state, metrics = step_fn(state, batch)
            self._window.add(step, metrics)
            done = step + 1
            ends_epoch = self._clock.ends_epoch(done)
            writes = ends_epoch or done % self._config.log_every == 0
            if writes:
                self._write(done, self._clock.log(done, self._window.fetch()))
            if ends_epoch:
                self._end_epoch(done, state, validate)
            stop, save = self._agree(waited=writes)
            if stop:
                break
            if save:
                self._save(state)
        self._save(state)
        return state

    def _next(self, batches: Iterator[Pairs]) -> Pairs | None:
        try:
            return next(batches)
        except Exception:
            # A signal to the whole process group may have reached the workers first.
            if self._stop.requested and not distributed.several():
                return None
            raise

    def _end_epoch(
        self,
        done: int,
        state: TrainState,
        validate: Callable[[Any], dict[str, float]],
    ) -> None:
        """Validates; other processes wait for the first."""
        if distributed.is_first():
            figures = validate(training.eval_variables(state))
            self._write(done, figures)
            self._clock.report(done, figures)
        distributed.wait(f"validation at step {done}")

    def _agree(self, *, waited: bool) -> tuple[bool, bool]:
        """Whether to stop, and whether to save.

        Several processes ask each other only where they ``waited`` for the devices.
        """
        if distributed.several() and not waited:
            return False, False
        return distributed.agree(
            stop=self._stop.requested, save=self._clock.checkpoint_is_due()
        )

    def _write(self, step: int, metrics: dict[str, float]) -> None:
        for writer in self._writers if metrics and distributed.is_first() else ():
            writer.write(step, metrics)

    def _save(self, state: TrainState) -> None:
        self._window.check()  # raises before a state that is not finite is kept
        self._store.save(state)


# Before the loop


def _describe_run(config: Config) -> RunConfig:
    """What the run is; refuses one that exists, or resumes another."""
    path = config.out / _CONFIG_FILE
    if not config.resume:
        if path.exists():
            raise TrainingError(
                f"{config.out} holds a run already: --resume it, or choose another "
                "--out"
            )
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        recipe = _thaw(config.recipe, config.init)
        return RunConfig(recipe, config.init, command, config.augment_on)
    stored = checkpoints.read_config(path, RunConfig)
    init = config.init or stored.init
    wanted = RunConfig(config.recipe, init, stored.command, config.augment_on)
    checkpoints.check_same(path, stored, wanted)
    return stored


def _thaw(recipe: Recipe, init: str | None) -> Recipe:
    """Layers stay frozen only where they hold trained weights."""
    frozen = recipe.train.optimizer.frozen_layers
    if not frozen or init:
        return recipe
    optimizer = dataclasses.replace(recipe.train.optimizer, frozen_layers=0)
    train = dataclasses.replace(recipe.train, optimizer=optimizer)
    return dataclasses.replace(recipe, train=train)


def _devices(config: Config) -> list[training.Device]:
    """The devices that share the batch, process by process."""
    devices = sorted(jax.devices(), key=lambda device: device.process_index)
    count = len(devices) if config.devices is None else config.devices
    if distributed.several():
        _check_devices_of_all(config, devices)
    if not 1 <= count <= len(devices):
        raise TrainingError(f"devices={count}, but there are {len(devices)}")
    if config.recipe.batch_size % count:
        raise TrainingError(
            f"batch_size={config.recipe.batch_size} does not divide by {count} devices"
        )
    return devices[:count]


def _check_devices_of_all(config: Config, devices: list[training.Device]) -> None:
    if config.devices is not None:
        raise TrainingError(
            f"devices={config.devices} is for a single process; JAX_LOCAL_DEVICE_IDS "
            "chooses the devices of one of several"
        )
    counts = collections.Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        numbers = ", ".join(str(counts[i]) for i in sorted(counts))
        raise TrainingError(
            f"the processes have {numbers} devices, expected the same number each"
        )


def _check_processes_agree(config: Config) -> None:
    """Other steps or other lines of metrics, and the processes would wait forever."""
    free = {"process": ProcessConfig(), "workers": 0, "threads": 1}
    own = configs.to_json(dataclasses.replace(config, **free))
    text = json.dumps(own, default=str)
    first = distributed.from_first(text)
    if first != text:
        differing = configs.differences(json.loads(first), json.loads(text))
        raise TrainingError(
            f"process {jax.process_index()} was started with other options than the "
            f"first: {'; '.join(differing)}"
        )


def _write_config(config: Config, started: RunConfig) -> None:
    """Writes what the run is, and waits until all processes see it."""
    path = config.out / _CONFIG_FILE
    if distributed.is_first() and not config.resume:
        checkpoints.write_config(path, started)
    distributed.wait("config is written")
    end = time.monotonic() + _FOLDER_SECONDS
    while not path.is_file():
        if time.monotonic() > end:
            raise TrainingError(
                f"{path} of the first process is missing: out must be a folder that "
                "all processes share"
            )
        time.sleep(1)


def _start(
    config: Config, started: RunConfig, model: SiamRPN, store: Checkpoints
) -> TrainState:
    recipe, init = started.recipe, started.init
    rng = jax.random.key(recipe.seed)
    state = training.init_state(rng, model=model, config=recipe.train)
    if config.resume and store.latest_step() is not None:
        return store.restore(state)
    if not init:
        return state
    loaded = weights.load_weights(init)
    differing = configs.differences(
        configs.to_json(loaded.model.config), configs.to_json(model.config)
    )
    if differing:
        raise TrainingError(f"{init} is another model: {'; '.join(differing)}")
    variables = jax.tree.map(jax.numpy.array, loaded.variables)
    ema = jax.tree.map(jax.numpy.copy, variables) if state.ema is not None else None
    return state.replace(ema=ema, **variables)


def _validation_batches(dataset: PairDataset | None) -> list[Batch]:
    if not distributed.is_first():
        return []
    if dataset is None:
        print("too little data to hold any out: no validation")
        return []
    with loader.batches(dataset, batch_size=64, threads=2) as stream:
        return cast(list[Batch], list(itertools.islice(stream, 4)))


def _open_writers(folder: Path, start_step: int) -> list[logs.MetricWriter]:
    if not distributed.is_first():
        return []
    return [
        logs.JsonLinesWriter(folder / "metrics.jsonl", start_step=start_step + 1),
        logs.TensorBoardWriter(folder, start_step=start_step + 1),
    ]


def _headline(
    config: Config, recipe: Recipe, state: TrainState, devices: list[training.Device]
) -> str:
    lines = []
    if recipe != config.recipe:
        frozen = config.recipe.train.optimizer.frozen_layers
        lines = [f"training all layers: the first {frozen} are random, not pretrained"]
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    steps = recipe.train.epochs * recipe.train.steps_per_epoch
    of = f" of {jax.process_count()} processes" if distributed.several() else ""
    lines.append(
        f"{parameters:,} parameters; {steps:,} steps of {recipe.batch_size} pairs on "
        f"{len(devices)} {jax.default_backend()} device(s){of}; run: {config.out}"
    )
    return "\n".join(lines)


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
        signal.signal(number, self._previous[number])  # a second one ends at once


class _MetricWindow:
    """Metrics of the steps since the last fetch; on the device until looked at."""

    def __init__(self):
        self._on_device: collections.deque[tuple[int, Metrics]] = collections.deque()
        self._on_host: list[dict[str, np.ndarray]] = []

    def add(self, step: int, metrics: Metrics) -> None:
        """Takes the metrics of a step without waiting for it, but for the last but two.

        That one is waited for: the host never runs far ahead of the device.
        """
        self._on_device.append((step, metrics))
        if len(self._on_device) > 2:
            jax.block_until_ready(self._on_device[-3][1])

    def check(self) -> None:
        """Waits for all steps so far.

        Raises:
            TrainingError: some step's loss or gradient was not finite.
        """
        while self._on_device:
            step, metrics = self._on_device.popleft()
            values = jax.device_get(metrics)
            wrong = [name for name, value in values.items() if not np.isfinite(value)]
            if wrong:
                raise TrainingError(
                    f"step {step}: {', '.join(wrong)} not finite; the last checkpoint "
                    "is kept"
                )
            self._on_host.append(values)

    def fetch(self) -> dict[str, float]:
        """Means over the steps since the last fetch, at least one; raises as check."""
        self.check()
        values, self._on_host = self._on_host, []
        return {name: float(np.mean([v[name] for v in values])) for name in values[0]}


class _Clock:
    """Progress bar, speed, and when to save."""

    def __init__(self, config: Config, recipe: Recipe, start_step: int):
        self._config, self._start_step = config, start_step
        self._train, self._batch_size = recipe.train, recipe.batch_size
        self._begun = self._saved = self._logged = time.monotonic()
        self._logged_step, self._last = start_step, {}
        self.seconds = 0.0

    def steps(self) -> Iterator[int]:
        """The steps to do, behind a progress bar (only on a terminal)."""
        total = self._train.epochs * self._train.steps_per_epoch
        with tqdm(
            total=total,
            initial=self._start_step,
            unit="step",
            disable=None if distributed.is_first() else True,
        ) as self._bar:
            for step in range(self._start_step, total):
                yield step
                self._bar.update()

    def ends_epoch(self, done: int) -> bool:
        return done % self._train.steps_per_epoch == 0

    def log(self, done: int, metrics: dict[str, float]) -> dict[str, float]:
        """Adds the speed since the last call, and shows the line on the bar."""
        now = time.monotonic()
        steps = done - self._logged_step
        speed = steps * self._batch_size / max(now - self._logged, 1e-9)
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
        train, last = self._train, self._last
        elapsed = time.monotonic() - self._begun
        left = train.epochs * train.steps_per_epoch - done
        seconds = elapsed / max(done - self._start_step, 1) * left
        held_out = "".join(f"{name} {value:.3f}, " for name, value in figures.items())
        self._bar.write(
            f"epoch {done // train.steps_per_epoch}/{train.epochs}: "
            f"loss {last['loss']:.3f} (cls {last['cls_loss']:.3f}, "
            f"reg {last['reg_loss']:.3f}), lr {last['learning_rate']:.1e}; {held_out}"
            f"{last['pairs_per_second']:.0f} pairs/s, left {_minutes(seconds)}"
        )

    def checkpoint_is_due(self) -> bool:
        if time.monotonic() - self._saved < 60 * self._config.checkpoint_minutes:
            return False
        self._saved = time.monotonic()
        return True


def _split(batch: Pairs, devices: int) -> Pairs:
    """``[B, …]`` arrays to ``[devices, B / devices, …]``."""
    return jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)


def _validate(
    variables: Any, held_out: list[Batch], model: SiamRPN
) -> dict[str, float]:
    """Mean IoU of the best proposal on held-out pairs, and the share above .5."""
    if not held_out:
        return {}
    overlap = np.concatenate(
        [
            np.asarray(training.pair_iou(variables, batch, model=model))[
                batch.positive > 0
            ]
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
    clock: _Clock,
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
    clock: _Clock,
) -> dict[str, Any]:
    recipe, variables = started.recipe, training.eval_variables(state)
    card: dict[str, Any] = {
        "command": started.command,
        "init": started.init,
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
