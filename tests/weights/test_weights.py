from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

import siamrpn_jax
from siamrpn_jax import weights
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking.config import TrackerConfig
from small_models import tiny_model

MODEL = SiamRPN(tiny_model())
TRACKER = TrackerConfig(penalty_k=0.25, center_size=7)


@pytest.fixture(scope="module")
def variables():
    return jax.device_get(MODEL.init_variables(jax.random.key(2)))


def save(path, variables, **kwargs):
    card = {"data": ["here"], "steps": 3}
    weights.save_weights(
        path, variables, model=MODEL, tracker_config=TRACKER, card=card, **kwargs
    )


def test_round_trip(tmp_path, variables):
    path = tmp_path / "weights.safetensors"
    save(path, variables)
    for source in (path, str(path), tmp_path):
        loaded = weights.load_weights(source)
        assert loaded.model == MODEL
        assert loaded.tracker_config == TRACKER
        assert loaded.card["steps"] == 3
        assert loaded.card["siamrpn_jax"] == siamrpn_jax.__version__
        jax.tree.map(np.testing.assert_array_equal, loaded.variables, variables)


def test_arrays_that_are_not_contiguous(tmp_path, variables):
    path = tmp_path / "weights.safetensors"
    turned = jax.tree.map(lambda x: np.asfortranarray(x.T.copy()).T, variables)
    save(path, turned)
    loaded = weights.load_weights(path).variables
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def test_keys_are_paths(tmp_path, variables):
    path = tmp_path / "weights.safetensors"
    save(path, variables)
    keys = safetensors.numpy.load_file(path).keys()
    assert "params/backbone/conv1/kernel" in keys
    assert "batch_stats/backbone/bn1/mean" in keys


def test_wrong_shapes_are_named(tmp_path, variables):
    params = dict(variables["params"])
    params["extra"] = {"bias": np.zeros(3, np.float32)}
    backbone = dict(params["backbone"])
    del backbone["conv1"]
    backbone["bn1"] = jax.tree.map(lambda x: x[:4], backbone["bn1"])
    path = tmp_path / "weights.safetensors"
    save(path, {**variables, "params": {**params, "backbone": backbone}})
    with pytest.raises(InputError) as error:
        weights.load_weights(path)
    message = str(error.value)
    assert str(path) in message
    assert "params/backbone/bn1/bias: (4,), expected (8,)" in message
    assert "params/backbone/conv1/kernel: missing, expected (8, 8, 3, 8)" in message
    assert "params/extra/bias: (3,), expected nothing" in message


def test_foreign_files(tmp_path):
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"not weights at all")
    with pytest.raises(InputError, match="garbage.safetensors is not a safetensors"):
        weights.load_weights(garbage)
    foreign = tmp_path / "foreign.safetensors"
    safetensors.numpy.save_file({"w": np.zeros(3, np.float32)}, foreign)
    with pytest.raises(InputError, match="format None, expected 'siamrpn_jax"):
        weights.load_weights(foreign)


def test_truncated_file(tmp_path, variables):
    path = tmp_path / "weights.safetensors"
    save(path, variables)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="is not a safetensors file"):
        weights.load_weights(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.astype(np.float64), "is float64, expected float32"),
        (lambda x: np.full_like(x, np.nan), "holds numbers that are not finite"),
        (lambda x: -1 - np.abs(x), "holds variances below 0"),
    ],
)
def test_numbers_that_no_network_has_are_refused(tmp_path, variables, change, message):
    path = tmp_path / "weights.safetensors"
    name = "batch_stats/backbone/bn1/var"
    save(path, variables)
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    arrays = safetensors.numpy.load_file(path)
    arrays[name] = change(arrays[name])
    safetensors.numpy.save_file(arrays, path, metadata)
    with pytest.raises(InputError, match=f"weights.safetensors: {name} {message}"):
        weights.load_weights(path)


def test_unknown_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights 'large'.*small"):
        weights.load_weights("large")
    with pytest.raises(FileNotFoundError, match="no finished training run"):
        weights.load_weights(tmp_path)


def test_an_export_is_refused_by_what_it_is(tmp_path):
    for card, runs in weights.EXPORTS.items():
        folder = tmp_path / card
        folder.mkdir()
        (folder / card).touch()
        message = f"{card}: is an export for {runs}, expected what it was made of"
        with pytest.raises(InputError, match=message):
            weights.load_weights(folder)


def test_failed_write_leaves_nothing(tmp_path, variables, monkeypatch):
    def full_disk(self, data):
        with self.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    path = tmp_path / "weights.safetensors"
    with pytest.raises(OSError, match=f"cannot write {path}.*No space left"):
        save(path, variables)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["base", "small"])
def test_bundled_weights_follow_their_card(name):
    assert name in weights.bundled()
    loaded = weights.load_weights(name)
    assert loaded.card["name"] == name
    for field in ("data", "command", "figures", "licence", "steps", "pairs"):
        assert field in loaded.card


def test_a_folder_of_the_same_name_does_not_hide_what_comes_with_the_package(
    tmp_path, monkeypatch
):
    (tmp_path / "small").mkdir()
    monkeypatch.chdir(tmp_path)
    assert weights.load_weights("small").card["name"] == "small"
    with pytest.raises(FileNotFoundError, match="no finished training run"):
        weights.load_weights("./small")
