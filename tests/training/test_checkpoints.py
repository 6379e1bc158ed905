import dataclasses
import json
import re
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.presets import Recipe, paper
from siamrpn_jax.training import checkpoints
from siamrpn_jax.training import step as training
from siamrpn_jax.training.checkpoints import Checkpoints
from small_models import tiny_model, tiny_recipe

RECIPE = tiny_recipe()


@pytest.fixture(scope="module")
def state():
    rng = jax.random.key(5)
    state = training.init_state(rng, model=SiamRPN(RECIPE.model), config=RECIPE.train)
    return state.replace(step=jnp.int32(7))


def plain(tree):
    """Random keys as numbers, so that everything can be compared."""

    def numbers(x):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x)

    return jax.tree.map(numbers, tree)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(plain(a)), jax.tree.leaves(plain(b)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_round_trip_is_exact(tmp_path, state):
    store = Checkpoints(tmp_path)
    store.save(state)
    store.close()
    again = Checkpoints(tmp_path)
    assert again.latest_step() == 7
    assert_same(again.restore(state), state)
    again.close()


def test_state_from_two_devices_restores_on_one(tmp_path, state):
    mesh = Mesh(np.array(jax.devices()), ("batch",))
    spread = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    store = Checkpoints(tmp_path)
    store.save(spread)
    restored = store.restore(state)
    store.close()
    assert_same(restored, state)
    assert {len(x.devices()) for x in jax.tree.leaves(restored)} == {1}


def test_only_the_newest_are_kept(tmp_path, state):
    store = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        store.save(state.replace(step=jnp.int32(step)))
    store.close()
    kept = sorted(p.name for p in tmp_path.iterdir() if p.name.isdigit())
    assert kept == ["2", "3"]


@pytest.fixture
def two(tmp_path, state):
    """A store with checkpoints of the steps 7 and 9, and its folder."""
    store = Checkpoints(tmp_path)
    store.save(state)
    store.save(state.replace(step=jnp.int32(9)))
    yield store, tmp_path
    store.close()


def test_every_flipped_bit_and_missing_file_is_named(two, state):
    store, folder = two
    files = [path for path in (folder / "9").rglob("*") if path.is_file()]
    assert len(files) > 3
    rng = np.random.default_rng(0)
    for path in files:
        name = path.relative_to(folder / "9").as_posix()
        whole = path.read_bytes()
        if whole:
            data = bytearray(whole)
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
            path.write_bytes(data)
            with pytest.raises(InputError, match=f"9: {re.escape(name)} was changed"):
                store.restore(state)
        path.unlink()
        with pytest.raises(
            InputError, match=r"is missing; --checkpoint 7 goes on from"
        ):
            store.restore(state)
        path.write_bytes(whole)
    assert int(store.restore(state).step) == 9


def test_an_older_whole_checkpoint_can_be_taken(two, state):
    store, folder = two
    shutil.rmtree(folder / "9" / "state")
    with pytest.raises(InputError, match="no checkpoint 8, there are 7, 9"):
        store.restore(state, step=8)
    assert int(store.restore(state, step=7).step) == 7
    assert store.latest_step() == 7
    store.save(state.replace(step=jnp.int32(8)))
    kept = {path.name for path in folder.iterdir()}
    assert kept == {"7", "8", "7.sha256.json", "8.sha256.json"}


def test_checkpoints_without_checksums_are_taken(two, state):
    """Those of an earlier version of the package."""
    store, folder = two
    (folder / "9.sha256.json").unlink()
    assert int(store.restore(state).step) == 9


def test_nothing_to_restore(tmp_path, state):
    store = Checkpoints(tmp_path)
    with pytest.raises(InputError, match="no checkpoint in"):
        store.restore(state)
    store.close()


def test_checkpoint_of_another_model_is_refused(tmp_path, state):
    store = Checkpoints(tmp_path)
    store.save(state)
    wider = SiamRPN(tiny_model((8, 24, 24)))
    other = training.init_state(jax.random.key(0), model=wider, config=RECIPE.train)
    with pytest.raises(InputError, match="is of another model"):
        store.restore(other)
    store.close()


def test_config_of_another_run_is_refused_by_field(tmp_path):
    path = tmp_path / "config.json"
    checkpoints.check_same(path, RECIPE, RECIPE)
    optimizer = dataclasses.replace(RECIPE.train.optimizer, learning_rate=0.5)
    train = dataclasses.replace(RECIPE.train, optimizer=optimizer)
    other = dataclasses.replace(RECIPE, train=train, batch_size=8)
    with pytest.raises(InputError) as error:
        checkpoints.check_same(path, RECIPE, other)
    assert "batch_size: 4 -> 8" in str(error.value)
    assert "train.optimizer.learning_rate: 0.002 -> 0.5" in str(error.value)
    assert "seed" not in str(error.value)


def test_config_reads_back(tmp_path):
    path = tmp_path / "config.json"
    for recipe in (RECIPE, paper()):
        checkpoints.write_config(path, recipe)
        assert checkpoints.read_config(path, Recipe) == recipe
    path.write_text(json.dumps({"batch": 3}))
    with pytest.raises(InputError, match="no field batch"):
        checkpoints.read_config(path, Recipe)
    path.write_text('{"train": ')
    with pytest.raises(InputError, match="not a run's config"):
        checkpoints.read_config(path, Recipe)


def test_missing_config_means_nothing_to_resume(tmp_path):
    with pytest.raises(InputError, match="nothing to resume"):
        checkpoints.read_config(tmp_path / "config.json", Recipe)


def test_full_disk_names_the_folder(tmp_path, state, monkeypatch):
    store = Checkpoints(tmp_path)

    def full_disk(*_, **__):
        raise ValueError("OUT_OF_RANGE: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store._manager, "save", full_disk)
        with pytest.raises(OSError, match=f"cannot save to {tmp_path}.*No space left"):
            store.save(state)
    usage = SimpleNamespace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=f"to {tmp_path}: .*0.0 MB are free"):
        store.save(state)
    assert store.latest_step() is None
    store.close()
