import itertools
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
from data_folders import write_everything, write_sequence

from siamrpn_jax.data.augment import small_augment
from siamrpn_jax.data.loader import Batch, batches, open_datasets
from siamrpn_jax.data.pairs import DataConfig, PairDataset


def open_small(root, **fields) -> PairDataset:
    training, validation = open_datasets(
        DataConfig(folders=(str(root),), validation_fraction=0, **fields),
        exemplar_size=32,
        instance_size=64,
        augment=small_augment(),
    )
    assert validation is None
    return training


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> PairDataset:
    return open_small(write_everything(tmp_path_factory.mktemp("data")))


def take(dataset, count: int, **options) -> list[Batch]:
    with batches(dataset, **{"batch_size": 4, **options}) as stream:
        return list(itertools.islice(stream, count))


def assert_equal(found: list[Batch], expected: list[Batch]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        for left, right in zip(a, b, strict=True):
            np.testing.assert_array_equal(left, right)


def test_form_of_a_batch(dataset):
    (batch,) = take(dataset, 1)
    assert isinstance(batch, Batch)
    assert batch.z.shape == (4, 32, 32, 3) and batch.z.dtype == np.uint8
    assert batch.x.shape == (4, 64, 64, 3) and batch.x.dtype == np.uint8
    assert batch.box.shape == (4, 4) and batch.box.dtype == np.float32
    assert batch.positive.shape == (4,) and batch.positive.dtype == np.float32
    np.testing.assert_array_equal(batch.x[3], dataset[3].x)


def test_threads_and_processes_do_not_change_the_stream(dataset):
    expected = take(dataset, 5, threads=1)
    assert_equal(take(dataset, 5, threads=2, prefetch=3), expected)
    assert_equal(take(dataset, 5, workers=2, threads=1), expected)


def test_workers_survive_the_signals_of_a_terminal(dataset):
    expected = take(dataset, 24)
    with batches(dataset, batch_size=4, workers=1, threads=1) as stream:
        found = [next(stream)]
        workers = multiprocessing.active_children()
        for number in (signal.SIGINT, signal.SIGTERM):
            for worker in workers:
                os.kill(worker.pid or 0, number)
        found += itertools.islice(stream, 23)  # more than are made ahead
        start = time.monotonic()
    assert time.monotonic() - start < 8
    assert workers and not any(worker.is_alive() for worker in workers)
    assert_equal(found, expected)


def test_restarts_anywhere(dataset):
    expected = take(dataset, 6)
    assert_equal(take(dataset, 3, start_step=3), expected[3:])
    assert_equal(take(dataset, 1, start_step=5, threads=1), expected[5:])


def test_hosts_share_the_global_batch(dataset):
    expected = take(dataset, 3)
    hosts = [take(dataset, 3, host_index=i, host_count=2) for i in range(2)]
    for step in range(3):
        parts = zip(*(host[step] for host in hosts), strict=True)
        joined = Batch(*(np.concatenate(part) for part in parts))
        assert_equal([joined], [expected[step]])
        assert len(hosts[0][step].x) == 2


def test_steps_differ(dataset):
    first, second = take(dataset, 2)
    assert (first.x != second.x).any()


def test_a_closed_stream_stops(dataset):
    stream = batches(dataset, batch_size=2)
    next(stream)
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        next(stream)


def test_errors_of_the_data_reach_the_caller(tmp_path):
    write_sequence(tmp_path / "s", 0, length=2)
    dataset = open_small(tmp_path, composites=0.0)
    for path in (tmp_path / "s" / "img").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"img/000\d\.png"):
        take(dataset, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"batch_size": 3, "host_count": 2},
        {"host_index": 1},
        {"start_step": -1},
        {"threads": 0},
        {"prefetch": 0},
        {"workers": -1},
    ],
)
def test_bad_options(dataset, options):
    with pytest.raises(ValueError, match="expected"):
        batches(dataset, **{"batch_size": 4, **options})
