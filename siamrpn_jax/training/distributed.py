"""Training in several processes, on one machine or many (``jax.distributed``).

Each process runs the same command and says which one it is; with nothing said there is
one process, and none of this costs anything::

    siamrpn train … --coordinator 10.0.0.1:8476 --processes 2 --process-index 0
    siamrpn train … --coordinator 10.0.0.1:8476 --processes 2 --process-index 1

Values come from the options, else from ``JAX_COORDINATOR_ADDRESS``,
``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID``. ``--coordinator auto`` takes them from
Slurm, Open MPI, Kubernetes or Cloud TPU, as ``jax.distributed.initialize`` does. The
first process, index 0, holds the coordinator: its address must be reachable from all.

A process that dies takes the others with it: at once where a connection breaks (in the
midst of a step on CPUs, or when it was the first), else when JAX has missed its
heartbeat for ``--heartbeat-timeout`` seconds.
"""

import contextlib
import dataclasses
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec
from orbax.checkpoint import multihost

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.training.config import ProcessConfig

_BARRIER_MS = 24 * 3600 * 1000
"""A process that dies ends the wait of the others; time need not."""


# Start and end


def start(config: ProcessConfig) -> None:
    """Joins the other processes, if there are any; must come before any computation.

    Raises:
        InputError: incomplete or impossible options, a port that is taken, or no
            coordinator that answers in time. Where the coordinator waits in vain for
            the others, JAX ends the process itself.
    """
    if jax.distributed.is_initialized():
        return
    config = _with_environment(config)
    if config.coordinator is None:
        return
    # It would catch SIGTERM, which means: save and stop.
    jax.config.update("jax_enable_preemption_service", False)
    if config.coordinator == "auto":
        _start_found(config)
        return
    host, port = _check(config)
    print(
        f"process {config.process_index} of {config.processes}: waiting up to "
        f"{config.start_timeout} s for all at {config.coordinator}",
        flush=True,
    )
    if config.process_index == 0:
        _check_free(port)
    else:
        _wait_for_coordinator(host, port, config.start_timeout)
    jax.distributed.initialize(
        config.coordinator,
        config.processes,
        config.process_index,
        initialization_timeout=config.start_timeout,
        heartbeat_timeout_seconds=config.heartbeat_timeout,
    )


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """One of several processes that fails in the body ends at once, after its message.

    JAX alone would first wait for the others, which wait for this one. Ctrl-C ends a
    single process at once, too: Python's own end would crash in the loader's threads.
    """
    try:
        yield
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) else 1
        if not code or not (code == 130 or jax.distributed.is_initialized()):
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        if isinstance(error, jax.errors.JaxRuntimeError):
            print("error: has another process ended? See its output", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


# Between start and end; with one process these cost nothing


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def several() -> bool:
    """Whether there are other processes."""
    return jax.process_count() > 1


def log(text: str) -> None:
    """Prints, in the first process."""
    if is_first():
        print(text, flush=several())


def wait(name: str) -> None:
    """Waits until all processes have come to the barrier of that name."""
    if several():
        multihost.get_barrier_sync_fn()(key=name, timeout_ms=_BARRIER_MS)


def agree(*, stop: bool, save: bool) -> tuple[bool, bool]:
    """Decides for all processes; all must call it after the same step.

    Args:
        stop: some process wants to stop; one is enough.
        save: the state should be saved; the first process decides.

    Returns:
        ``(stop, save)``, the same in all processes.
    """
    if not several():
        return stop, save
    wishes = multihost_utils.process_allgather(np.array([stop, save]))
    return bool(wishes[:, 0].any()), bool(wishes[0, 1])


def from_first(text: str) -> str:
    """The first process's text, in all processes."""
    if not several():
        return text
    data = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(data.size)))
    data = data if is_first() else np.zeros(size, np.uint8)
    return bytes(multihost_utils.broadcast_one_to_all(data)).decode()


def as_global(tree: Any) -> Any:
    """Arrays that every process holds a copy of, as arrays over all devices.

    Args:
        tree: arrays equal in all processes, on one or all devices of each.

    Returns:
        The same values; nothing is sent between processes.
    """
    if not several():
        return tree
    mesh = Mesh(np.array(jax.devices()), ("devices",))
    spec = PartitionSpec()
    return multihost_utils.host_local_array_to_global_array(tree, mesh, spec)


# Helpers of start


def _with_environment(config: ProcessConfig) -> ProcessConfig:
    """Fills in what the options leave open."""
    coordinator = config.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    if coordinator is None:
        if (config.processes, config.process_index) != (None, None):
            raise InputError("processes and process_index need a coordinator HOST:PORT")
        return config
    return dataclasses.replace(
        config,
        coordinator=coordinator,
        processes=_or_variable(config.processes, "JAX_NUM_PROCESSES"),
        process_index=_or_variable(config.process_index, "JAX_PROCESS_ID"),
    )


def _or_variable(value: int | None, variable: str) -> int | None:
    text = os.environ.get(variable)
    if value is not None or text is None:
        return value
    if not text.isdecimal():
        raise InputError(f"{variable} is {text!r}, expected a whole number")
    return int(text)


def _start_found(config: ProcessConfig) -> None:
    try:
        jax.distributed.initialize(
            num_processes=config.processes,
            process_id=config.process_index,
            initialization_timeout=config.start_timeout,
            heartbeat_timeout_seconds=config.heartbeat_timeout,
        )
    except ValueError as error:
        raise InputError(f"coordinator auto: JAX finds no cluster: {error}") from None


def _check(config: ProcessConfig) -> tuple[str, int]:
    """Host and port; raises InputError on what is missing or impossible."""
    count, index = config.processes, config.process_index
    if count is None or index is None:
        missing = "processes" if count is None else "process_index"
        raise InputError(
            f"coordinator {config.coordinator} without {missing}: several processes "
            "need coordinator, processes and process_index"
        )
    if not 0 <= index < count:
        raise InputError(f"process_index is {index}, expected 0 to {count - 1}")
    host, _, port = (config.coordinator or "").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(f"coordinator is {config.coordinator!r}, expected HOST:PORT")
    return host.strip("[]"), int(port)


def _check_free(port: int) -> None:
    """Raises InputError on a port that is taken, on which JAX would crash."""
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=dual).close()
    except OSError as error:
        raise InputError(f"coordinator: port {port} cannot be had: {error}") from None


def _wait_for_coordinator(host: str, port: int, seconds: float) -> None:
    """Waits until the coordinator answers: JAX would crash where nobody does."""
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=seconds).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise InputError(
                    f"coordinator {host}:{port} does not answer within {seconds} s: "
                    f"{error}; is the process with index 0 running, on that host?"
                ) from None
        time.sleep(0.2)
