import itertools
import multiprocessing
import os
import signal
import time

import jax
import numpy as np
import pytest

from data_folders import write_everything, write_sequence
from prepared_folders import write_prepared
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.crops.windows import small_augment
from siamrpn_jax.data.pairs.loader import batches, open_datasets
from siamrpn_jax.data.pairs.pairs import DataConfig, PairDataset
from siamrpn_jax.data.sampling import name_hash
from siamrpn_jax.training.batch import Batch


def open_small(*roots, **fields) -> PairDataset:
    folders = tuple(map(str, roots))
    training, validation = open_datasets(
        DataConfig(folders=folders, validation_fraction=0, **fields),
        exemplar_size=32,
        instance_size=64,
        augment=small_augment(),
    )
    assert validation is None
    return training


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> PairDataset:
    """Of a prepared folder and others."""
    root = tmp_path_factory.mktemp("data")
    write_prepared(root / "prepared", tracks=3, length=4)
    return open_small(root / "prepared", write_everything(root / "plain"))


def take(dataset, count: int, **options) -> list:
    with batches(dataset, **{"batch_size": 4, **options}) as stream:
        return list(itertools.islice(stream, count))


def assert_equal(found, expected) -> None:
    """Equal arrays in equal nested sequences."""
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        if isinstance(a, tuple):
            assert type(a) is type(b)
            assert_equal(a, b)
        else:
            np.testing.assert_array_equal(a, b)


def test_names_of_the_videos(dataset):
    clips = {f"videos/clip_{i}" for i in range(3)}
    assert dataset.video_names() == clips | {f"video_{i}" for i in range(3)}


def test_a_video_on_both_sides_of_the_split_is_refused(tmp_path):
    """Of two folders that share a video, one holds it out and one does not."""
    for i in range(6):
        write_sequence(tmp_path / "a" / f"clip_{i}", i)
    names = [f"clip_{i}" for i in range(6)]
    first = sorted(names, key=name_hash)[0]
    write_sequence(tmp_path / "b" / first, 0)
    write_sequence(tmp_path / "b" / "other", 9)

    def open_both(**fields) -> tuple[PairDataset, PairDataset | None]:
        folders = tuple(str(tmp_path / name) for name in "ab")
        return open_datasets(
            DataConfig(folders=folders, **fields),
            exemplar_size=32,
            instance_size=64,
            augment=small_augment(),
        )

    message = rf"1 videos are trained on in one folder .*: {first}: .*--data.hold-out"
    with pytest.raises(InputError, match=message):
        open_both(validation_fraction=0.01)
    training, validation = open_both(validation_fraction=0.0, hold_out=(first,))
    assert validation and validation.video_names() == {first}
    assert training.video_names() == {*names, "other"} - {first}


def test_form_of_a_batch(dataset):
    (batch,) = take(dataset, 1)
    assert isinstance(batch, Batch)
    assert batch.z.shape == (4, 32, 32, 3) and batch.z.dtype == np.uint8
    assert batch.x.shape == (4, 64, 64, 3) and batch.x.dtype == np.uint8
    assert batch.box.shape == (4, 4) and batch.box.dtype == np.float32
    assert batch.positive.shape == (4,) and batch.positive.dtype == np.float32
    assert batch.origins.shape == (4, 2) and batch.origins.dtype == np.uint32
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
        parts = [jax.tree.leaves(host[step]) for host in hosts]
        joined = [np.concatenate(pair) for pair in zip(*parts, strict=True)]
        assert_equal(joined, jax.tree.leaves(expected[step]))
        assert len(hosts[0][step].box) == 2


def test_another_host_makes_other_pairs(tmp_path):
    write_prepared(tmp_path / "prepared", tracks=3, length=4)
    only_prepared = open_small(tmp_path / "prepared")
    one, two = (
        np.concatenate([batch.box for batch in take(only_prepared, 4, **host)])
        for host in ({"host_index": i, "host_count": 2} for i in range(2))
    )
    assert not set(map(tuple, one)) & set(map(tuple, two))


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


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_record_is_named_with_its_shard(tmp_path, workers):
    write_prepared(tmp_path / "prepared", tracks=2, length=2)
    dataset = open_small(tmp_path / "prepared")
    (shard,) = (tmp_path / "prepared").glob("scenes-train*")
    data = bytearray(shard.read_bytes())
    for start in range(200, len(data), 97):  # its length stays as it was
        data[start] ^= 255
    shard.write_bytes(data)
    with pytest.raises(ValueError, match=rf"{shard.name}.*record \d"):
        take(dataset, 1, workers=workers)


def test_a_shard_that_was_cut_short_is_named(tmp_path):
    write_prepared(tmp_path / "prepared", tracks=2, length=2)
    (shard,) = (tmp_path / "prepared").glob("scenes-train*")
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match=shard.name):
        open_small(tmp_path / "prepared")


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
