"""The training loop that commands share, and what a run's folder is.

A run is a folder::

    config.json           what it was started with
    checkpoints/          the newest two states
    metrics.jsonl         a line every ``log_every`` steps and at the end of each epoch
    events.out.tfevents…  the same for TensorBoard

Several processes (see ``distributed``) share the batch and the folder. The first one
writes, prints and validates, the others wait for it.
"""

import collections
import contextlib
import dataclasses
import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import jax
import numpy as np
from tqdm.auto import tqdm

from siamrpn_jax.common import configs
from siamrpn_jax.common.errors import InputError, require
from siamrpn_jax.common.files import lock_folder
from siamrpn_jax.training import checkpoints, distributed, logs
from siamrpn_jax.training import step as train_steps
from siamrpn_jax.training.checkpoints import Checkpoints
from siamrpn_jax.training.config import ProcessConfig, RunOptions, ScheduleConfig
from siamrpn_jax.training.step import Loss, Metrics, TrainableNetwork, TrainState

CONFIG_FILE = "config.json"

_FOLDER_SECONDS = 90.0
"""How long a file may take to be seen by other processes: network file systems cache
for up to a minute that it did not exist."""

Step = Callable[[TrainState, Any], tuple[TrainState, Metrics]]
Validate = Callable[[Any], dict[str, float]]
"""Figures of weights on held-out data."""


class Stopped(SystemExit):
    """A signal stopped a run, after its checkpoint.

    The status is 128 + the signal, so that no scheduler takes the run for done.
    """


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained: all that differs between a tracker and a classifier."""

    model: TrainableNetwork
    schedule: ScheduleConfig
    batch_size: int
    """Samples in an optimizer step, over all devices."""
    seed: int
    """Decides the first weights, and the random choices in the step."""
    batches: Callable[[int], AbstractContextManager[Iterator[Any]]]
    """Opens this process's stream of batches ``[B, …]`` from a step on."""
    validate: Validate
    """Called at the end of each epoch, in the first process."""
    release: Callable[[TrainState, float], dict[str, Any]]
    """Writes what the run is for, given the last state and the seconds that the steps
    took; returns its model card."""
    loss: Loss | None = None
    """What a step makes smaller; ``pair_loss`` by default."""
    start_from: Callable[[TrainState], TrainState] = lambda state: state
    """Puts trained weights into a fresh state, where the run starts from some."""
    samples: str = "pairs"
    """What a sample is called where the speed is printed."""
    shown_losses: tuple[str, ...] = ()
    """Metrics that are printed beside the loss they are parts of."""


def fit(
    options: RunOptions,
    task: Task,
    started: Any,
    devices: Sequence[train_steps.Device],
    *,
    writers: Sequence[logs.MetricWriter] = (),
) -> dict[str, Any]:
    """Trains from a fresh state or from the newest checkpoint to the end, and releases.

    Args:
        options: where and how the run goes on.
        task: what is trained.
        started: the config that the run's folder remembers.
        devices: from ``choose_devices``.
        writers: where metrics go beside the run's own files; used by the first process.

    Returns:
        the model card; empty in all processes but the first.

    Raises:
        InputError: the loss is not finite, processes do not share the folder, or the
            checkpoint is damaged or of another model.
        Stopped: a signal stopped the run, after its checkpoint.
    """
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(
            contextlib.closing(Checkpoints(options.out / "checkpoints"))
        )
        state = train_steps.init_state(
            jax.random.key(task.seed), model=task.model, config=task.schedule
        )
        if options.resume and (store.latest_step() is not None or options.checkpoint):
            state = store.restore(state, step=options.checkpoint)
        else:
            state = task.start_from(state)
            if options.resume:
                distributed.log("no checkpoint to resume from: the run starts anew")
        write_config(options, started)
        clock = Clock(options, task, int(state.step))
        distributed.log(headline(options, task, state, devices))
        stream = stack.enter_context(task.batches(int(state.step)))
        step_fn = train_steps.pmap_train_step(
            task.model, task.schedule, loss=task.loss, devices=devices
        )
        loop = Loop(options, clock, writers, store)
        state, stopped = loop.run(state, step_fn, stream, task.validate, devices)
    if stopped:
        distributed.log(f"stopped at step {int(state.step)}; go on with --resume")
        distributed.wait("end of the stopped run")
        raise Stopped(128 + stopped)
    card = task.release(state, clock.seconds) if distributed.is_first() else {}
    distributed.wait("end of the run")
    return card


class Loop:
    """The steps, and what happens between them.

    Args:
        options: of the run.
        clock: of the run; the steps are its.
        writers: where metrics go beside the run's own files.
        store: where states go.
    """

    def __init__(
        self,
        options: RunOptions,
        clock: "Clock",
        writers: Sequence[logs.MetricWriter],
        store: Checkpoints,
    ):
        self._options, self._clock, self._store = options, clock, store
        self._writers, self._stop = list(writers), _StopSignal()
        self._window = _MetricWindow()

    def run(
        self,
        state: TrainState,
        step_fn: Step,
        stream: Iterator[Any],
        validate: Validate,
        devices: Sequence[train_steps.Device],
    ) -> tuple[TrainState, int]:
        """Trains to the end or to a signal; the last state is saved.

        Args:
            state: to start from.
            step_fn: see ``training.step.pmap_train_step``.
            stream: this process's batches, ``[B, …]``.
            validate: called at the end of each epoch, in the first process.
            devices: those of ``step_fn``.

        Returns:
            the last state, and the number of the signal that stopped the run before its
            end, or 0.
        """
        cv2.setNumThreads(1)  # the loader's threads fill the cores
        own_devices = len(devices) // jax.process_count()
        split = (_split(batch, own_devices) for batch in stream)
        batches = train_steps.prefetch(split, devices=devices)
        with contextlib.ExitStack() as stack:
            own = _open_writers(self._options.out, int(state.step))
            self._writers += [
                stack.enter_context(contextlib.closing(writer)) for writer in own
            ]
            stack.enter_context(self._stop)
            state = self._run(state, step_fn, batches, validate)
            stopped, _ = distributed.agree(stop=self._stop.requested, save=False)
        return state, (self._stop.number or signal.SIGTERM) if stopped else 0

    def _run(
        self,
        state: TrainState,
        step_fn: Step,
        batches: Iterator[Any],
        validate: Validate,
    ) -> TrainState:
        for step in self._clock.steps():
            batch = self._next(batches)
            if batch is None:
                break
            state, metrics = step_fn(state, batch)
            self._window.add(step, metrics)
            done = step + 1
            ends_epoch = self._clock.ends_epoch(done)
            writes = ends_epoch or done % self._options.log_every == 0
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

    def _next(self, batches: Iterator[Any]) -> Any | None:
        try:
            return next(batches)
        except Exception:
            # A signal to the whole process group may have reached the workers first.
            if self._stop.requested and not distributed.several():
                return None
            raise

    def _end_epoch(self, done: int, state: TrainState, validate: Validate) -> None:
        """Validates; other processes wait for the first."""
        if distributed.is_first():
            figures = validate(train_steps.eval_variables(state))
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


@contextlib.contextmanager
def begin(
    options: RunOptions, *, batch_size: int
) -> Iterator[Sequence[train_steps.Device]]:
    """Joins the other processes, if there are any, and chooses the devices.

    In the body the run's folder is this run's alone.

    Raises:
        InputError: the batch does not fit the devices, processes do not fit together or
            cannot be joined, or another run writes to the folder.
        MissingExtraError: the extra ``train`` is not installed.
    """
    require("tensorboardX", extra="train")
    require("matplotlib", extra="train")
    distributed.start(options.process)
    alone = (
        lock_folder(options.out) if distributed.is_first() else contextlib.nullcontext()
    )
    with alone:
        devices = choose_devices(options, batch_size=batch_size)
        check_processes_agree(options)
        yield devices


def check_new(options: RunOptions) -> None:
    """Refuses to start a run in a folder that holds one; raises InputError."""
    if (options.out / CONFIG_FILE).exists():
        raise InputError(
            f"{options.out} holds a run already: --resume it, or choose another --out"
        )


def choose_devices(options: RunOptions, *, batch_size: int) -> list[train_steps.Device]:
    """The devices that share the batch, process by process.

    Raises:
        InputError: they do not divide it, or processes have unequal numbers.
    """
    devices = sorted(jax.devices(), key=lambda device: device.process_index)
    count = len(devices) if options.devices is None else options.devices
    if distributed.several():
        _check_devices_of_all(options, devices)
    if not 1 <= count <= len(devices):
        raise InputError(f"devices={count}, but there are {len(devices)}")
    if batch_size % count:
        raise InputError(f"batch_size={batch_size} does not divide by {count} devices")
    return devices[:count]


def _check_devices_of_all(
    options: RunOptions, devices: list[train_steps.Device]
) -> None:
    if options.devices is not None:
        raise InputError(
            f"devices={options.devices} is for a single process; JAX_LOCAL_DEVICE_IDS "
            "chooses the devices of one of several"
        )
    counts = collections.Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        numbers = ", ".join(str(counts[i]) for i in sorted(counts))
        raise InputError(
            f"the processes have {numbers} devices, expected the same number each"
        )


def check_processes_agree(options: RunOptions) -> None:
    """Checks that all processes have the same options: else they might wait forever.

    Raises:
        InputError: in every process but the first that has other options than it.
    """
    free = {"process": ProcessConfig(), "workers": 0, "threads": 1}
    own = configs.to_json(dataclasses.replace(options, **free))
    text = json.dumps(own, default=str)
    first = distributed.from_first(text)
    if first != text:
        differing = configs.differences(json.loads(first), json.loads(text))
        raise InputError(
            f"process {jax.process_index()} was started with other options than the "
            f"first: {'; '.join(differing)}"
        )


def write_config(options: RunOptions, started: Any) -> None:
    """Writes what a new run is, and waits until all processes see it.

    Raises:
        InputError: they do not share the folder.
    """
    path = options.out / CONFIG_FILE
    if distributed.is_first() and not options.resume:
        checkpoints.write_config(path, started)
    distributed.wait("config is written")
    end = time.monotonic() + _FOLDER_SECONDS
    while not path.is_file():
        if time.monotonic() > end:
            raise InputError(
                f"{path} of the first process is missing: out must be a folder that "
                "all processes share"
            )
        time.sleep(1)


def headline(
    options: RunOptions,
    task: Task,
    state: TrainState,
    devices: Sequence[train_steps.Device],
) -> str:
    """One line about what will run where."""
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    steps = task.schedule.epochs * task.schedule.steps_per_epoch
    of = f" of {jax.process_count()} processes" if distributed.several() else ""
    return (
        f"{parameters:,} parameters; {steps:,} steps of {task.batch_size} "
        f"{task.samples} on {len(devices)} {jax.default_backend()} device(s){of}; "
        f"run: {options.out}"
    )


def _open_writers(folder: Path, start_step: int) -> list[logs.MetricWriter]:
    if not distributed.is_first():
        return []
    return [
        logs.JsonLinesWriter(folder / "metrics.jsonl", start_step=start_step + 1),
        logs.TensorBoardWriter(folder, start_step=start_step + 1),
    ]


# In the loop


class _StopSignal:
    """While active, SIGTERM and SIGINT ask the loop to save and stop."""

    def __init__(self):
        self.number = 0
        """Number of the first signal that came."""
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return bool(self.number)

    def __enter__(self) -> "_StopSignal":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        signal.signal(number, self._previous[number])  # a second one ends at once


class _MetricWindow:
    """Metrics of the steps since the last fetch; on the device until looked at."""

    def __init__(self):
        self._on_device: collections.deque[tuple[int, Metrics]] = collections.deque()
        self._on_host: list[dict[str, np.ndarray]] = []

    def add(self, step: int, metrics: Metrics) -> None:
        """Queues metrics; blocks only on those of two steps ago.

        So the host never runs far ahead of the device.
        """
        self._on_device.append((step, metrics))
        if len(self._on_device) > 2:
            jax.block_until_ready(self._on_device[-3][1])

    def check(self) -> None:
        """Waits for all steps so far.

        Raises:
            InputError: some step's loss or gradient was not finite.
        """
        while self._on_device:
            step, metrics = self._on_device.popleft()
            values = jax.device_get(metrics)
            wrong = [name for name, value in values.items() if not np.isfinite(value)]
            if wrong:
                raise InputError(
                    f"step {step}: {', '.join(wrong)} not finite; the last checkpoint "
                    "is kept"
                )
            self._on_host.append(values)

    def fetch(self) -> dict[str, float]:
        """Means over the steps since the last fetch, at least one; raises as check."""
        self.check()
        values, self._on_host = self._on_host, []
        return {name: float(np.mean([v[name] for v in values])) for name in values[0]}


class Clock:
    """Progress bar, speed, and when to save."""

    def __init__(
        self,
        options: RunOptions,
        task: Task,
        start_step: int,
    ):
        self._options, self._start_step = options, start_step
        self._schedule, self._task = task.schedule, task
        self._begun = self._saved = self._logged = time.monotonic()
        self._logged_step, self._last = start_step, {}
        self.seconds = 0.0
        """From the start, or the last resumption, to the last line of metrics."""

    def steps(self) -> Iterator[int]:
        """The steps to do, behind a progress bar (only on a terminal)."""
        total = self._schedule.epochs * self._schedule.steps_per_epoch
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
        """Whether an epoch ends after this number of steps."""
        return done % self._schedule.steps_per_epoch == 0

    def log(self, done: int, metrics: dict[str, float]) -> dict[str, float]:
        """Adds the speed since the last call, and shows the line on the bar."""
        now = time.monotonic()
        steps = done - self._logged_step
        speed = steps * self._task.batch_size / max(now - self._logged, 1e-9)
        self._logged, self._logged_step = now, done
        self.seconds = now - self._begun
        self._last = {**metrics, f"{self._task.samples}_per_second": speed}
        self._bar.set_postfix_str(
            f"loss {metrics['loss']:.3f}, lr {metrics['learning_rate']:.1e}, "
            f"{speed:.0f} {self._task.samples}/s"
        )
        return self._last

    def report(self, done: int, figures: dict[str, float]) -> None:
        """One line at the end of an epoch, also where there is no terminal."""
        schedule, name, last = self._schedule, self._task.samples, self._last
        elapsed = time.monotonic() - self._begun
        left = schedule.epochs * schedule.steps_per_epoch - done
        seconds = elapsed / max(done - self._start_step, 1) * left
        held_out = "".join(f"{key} {value:.3f}, " for key, value in figures.items())
        parts = ", ".join(
            f"{part.removesuffix('_loss')} {last[part]:.3f}"
            for part in self._task.shown_losses
        )
        self._bar.write(
            f"epoch {done // schedule.steps_per_epoch}/{schedule.epochs}: "
            f"loss {last['loss']:.3f}{parts and f' ({parts})'}, "
            f"lr {last['learning_rate']:.1e}; {held_out}"
            f"{last[f'{name}_per_second']:.0f} {name}/s, left {_minutes(seconds)}"
        )

    def checkpoint_is_due(self) -> bool:
        """Whether it is time to save; asked, it counts from now."""
        if time.monotonic() - self._saved < 60 * self._options.checkpoint_minutes:
            return False
        self._saved = time.monotonic()
        return True


def _split(batch: Any, devices: int) -> Any:
    """``[B, …]`` arrays to ``[devices, B / devices, …]``."""
    return jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)


def _minutes(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "unknown"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
