import socket

import jax
import pytest

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.training import distributed
from siamrpn_jax.training.config import ProcessConfig


@pytest.fixture
def joined(monkeypatch) -> list:
    """What ``jax.distributed.initialize`` is called with, which then does nothing."""
    calls = []
    monkeypatch.setattr(
        jax.distributed,
        "initialize",
        lambda *args, **named: calls.append((args, named)),
    )
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    return calls


@pytest.fixture
def listener():
    with socket.create_server(("localhost", 0)) as server:
        yield server.getsockname()[1]


def test_a_single_process_joins_nothing(joined):
    distributed.start(ProcessConfig())
    assert joined == []
    assert distributed.is_first() and not distributed.several()
    distributed.wait("nobody")
    assert distributed.agree(stop=False, save=True) == (False, True)
    assert distributed.from_first("text") == "text"
    tree = {"a": 1}
    assert distributed.as_global(tree) is tree


def test_options_reach_jax(joined, listener):
    address = f"localhost:{listener}"
    config = ProcessConfig(address, 4, 3, start_timeout=7, heartbeat_timeout=9)
    distributed.start(config)
    seconds = {"initialization_timeout": 7, "heartbeat_timeout_seconds": 9}
    assert joined == [((address, 4, 3), seconds)]


def test_environment_fills_in_what_the_options_leave_open(
    joined, listener, monkeypatch
):
    address = f"127.0.0.1:{listener}"
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", address)
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "1")
    distributed.start(ProcessConfig())
    distributed.start(ProcessConfig(processes=8, process_index=5))
    assert [args for args, _ in joined] == [(address, 2, 1), (address, 8, 5)]


def test_a_cluster_is_asked_only_if_told_to(joined, monkeypatch):
    distributed.start(ProcessConfig("auto"))
    ((args, named),) = joined
    assert args == () and named["num_processes"] is None

    def no_cluster(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", no_cluster)
    with pytest.raises(InputError, match="coordinator auto: JAX finds no cluster"):
        distributed.start(ProcessConfig("auto"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"processes": 2}, "need a coordinator HOST:PORT"),
        ({"process_index": 0}, "need a coordinator HOST:PORT"),
        ({"coordinator": "h:1", "processes": 2}, "h:1 without process_index"),
        ({"coordinator": "h:1", "process_index": 0}, "h:1 without processes"),
        (
            {"coordinator": "h:1", "processes": 2, "process_index": 2},
            "process_index is 2, expected 0 to 1",
        ),
        (
            {"coordinator": "h:1", "processes": 2, "process_index": -1},
            "process_index is -1",
        ),
        *(
            (
                {"coordinator": address, "processes": 2, "process_index": 1},
                f"coordinator is '{address}', expected HOST:PORT",
            )
            for address in ("host", "host:", ":80", "host:x", "host:0", "host:70000")
        ),
    ],
)
def test_incomplete_and_impossible_options(joined, options, message):
    with pytest.raises(InputError, match=message):
        distributed.start(ProcessConfig(**options))
    assert joined == []


def test_bad_variable_is_named(joined, monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    with pytest.raises(
        InputError, match="JAX_NUM_PROCESSES is 'two', expected a whole"
    ):
        distributed.start(ProcessConfig("h:1", process_index=0))


def test_taken_port_is_named(joined, listener):
    with pytest.raises(InputError, match=f"port {listener} cannot be had"):
        distributed.start(ProcessConfig(f"localhost:{listener}", 2, 0))


def test_coordinator_that_does_not_answer_is_named(joined):
    with socket.socket() as closed:
        closed.bind(("localhost", 0))
        address = f"localhost:{closed.getsockname()[1]}"
        config = ProcessConfig(address, 2, 1, start_timeout=1)
        with pytest.raises(InputError, match=f"{address} does not answer within 1 s"):
            distributed.start(config)


def test_start_timeout_out_of_range():
    with pytest.raises(InputError, match="start_timeout is 0"):
        ProcessConfig(start_timeout=0)


@pytest.mark.parametrize(
    ("error", "code"), [(SystemExit(2), 2), (ValueError("broken"), 1)]
)
def test_one_of_several_that_fails_ends_at_once(error, code, monkeypatch, capsys):
    ends = []
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed.os, "_exit", ends.append)
    with distributed.ending_together():
        raise error
    assert ends == [code]
    assert ("broken" in capsys.readouterr().err) == (code == 1)


def test_a_single_process_fails_as_ever():
    with pytest.raises(ValueError, match="broken"), distributed.ending_together():
        raise ValueError("broken")
