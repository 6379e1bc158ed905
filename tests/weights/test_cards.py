import json

import numpy as np
import pytest
import safetensors.numpy

import siamrpn_jax
from random_variables import random_variables
from siamrpn_jax import weights
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model.config import BackboneConfig, HeadConfig, ModelConfig
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.weights import cards
from small_models import tiny_model

MODEL = SiamRPN(tiny_model())


@pytest.fixture(scope="module")
def variables():
    z, x = (np.zeros((1, n, n, 3)) for n in (92, 188))
    return random_variables(MODEL.init, z, x)


@pytest.fixture
def save(tmp_path, variables):
    def save(card, *, metadata=None):
        """Writes weights; ``metadata`` then replaces entries of the file's."""
        path = tmp_path / "weights.safetensors"
        config = TrackerConfig()
        weights.save_weights(
            path, variables, model=MODEL, tracker_config=config, card=card
        )
        if metadata is None:
            return path
        with safetensors.safe_open(path, "numpy") as file:
            old = file.metadata()
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        new = {k: v for k, v in {**old, **metadata}.items() if v is not None}
        safetensors.numpy.save_file(arrays, path, new)
        return path

    return save


def test_what_every_file_carries(save, variables):
    card = {"preset": "small", "data": ["here"], "steps": 3, "seed": 5}
    found = weights.load_weights(save(card)).card
    assert set(cards.FIELDS) <= set(found)
    assert (found["preset"], found["steps"], found["seed"]) == ("small", 3, 5)
    assert (found["licence"], found["figures"]) == (None, {})
    assert found["architecture"] == (
        "compact 8-16-16, depthwise head 16, 5 anchors, 92 and 188 px"
    )
    count = sum(leaf.size for leaf in jax_leaves(variables["params"]))
    assert found["parameters"] == count
    assert found["siamrpn_jax"] == siamrpn_jax.__version__


def jax_leaves(tree):
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in jax_leaves(value)]
    return [tree]


@pytest.mark.parametrize(
    ("card", "error"),
    [
        ({"steps": "many"}, "model card: steps is 'many', expected int"),
        ({"data": 3}, "model card: data is 3, expected list or str"),
        ({"figures": [1]}, "model card: figures is .1., expected dict"),
        ({"licence": {"MIT": 1}}, "model card: licence is .*, expected str"),
        ({"seed": {1, 2}}, "model card: .*not JSON"),
    ],
)
def test_cards_that_are_not_written(save, card, error, tmp_path):
    with pytest.raises(InputError, match=error):
        save(card)
    assert not list(tmp_path.iterdir())


def test_files_of_before_take_defaults(save):
    """Without a kind, with a card that lacks fields."""
    old = json.dumps({"steps": 7, "siamrpn_jax": "0.0.1"})
    loaded = weights.load_weights(save({}, metadata={"kind": None, "card": old}))
    assert loaded.model == MODEL
    assert loaded.card["steps"] == 7 and loaded.card["data"] == []
    assert loaded.card["siamrpn_jax"] == "0.0.1"
    assert loaded.card["parameters"] > 0 and "compact" in loaded.card["architecture"]


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        ({"card": "{"}, "unreadable config or card: Expecting"),
        ({"card": None}, "unreadable config or card: 'card'"),
        ({"card": "[1]"}, "unreadable config or card"),
        (
            {"card": json.dumps({"steps": "7", "siamrpn_jax": "9.0"})},
            "unreadable config or card .of siamrpn_jax 9.0; this is .*: model card: "
            "steps is '7', expected int",
        ),
        (
            {"tracker": '{"warp": 9}', "card": '{"siamrpn_jax": "9.0"}'},
            ".of siamrpn_jax 9.0; this is .*: TrackerConfig has no field warp",
        ),
        ({"kind": "classifier"}, "holds a 'classifier', expected a tracker or a back"),
    ],
)
def test_cards_that_are_not_read(save, metadata, error):
    path = save({}, metadata=metadata)
    with pytest.raises(InputError, match=f"{path} .*{error}"):
        weights.load_weights(path)


def test_the_shipped_card():
    card = weights.load_weights("small").card
    assert card["parameters"] == 593_214
    assert card["architecture"].startswith("compact 48-96-128-128-128, depthwise")
    text = cards.show(card)
    lines = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert lines["steps"] == "66,750" and lines["preset"] == "small"
    assert "Apache-2.0" in lines["licence"]
    assert list(lines)[: len(cards.FIELDS)] == list(cards.FIELDS)
    assert set(lines) == set(card)


def test_what_weights_were_trained_on():
    names = cards.pack_names(["a/car", "goat"])
    names = cards.pack_names(["b/goat", "ägäis"], known=names)
    card = cards.complete({"trained_on": cards.trained_on(names)})
    assert card["trained_on"]["videos"] == 3
    asked = ["car", "x/goat", "cow", "ägäis", "a"]
    assert cards.trained_among(card, asked) == ["car", "x/goat", "ägäis"]
    assert cards.trained_among(cards.complete({}), asked) == []
    assert cards.pack_names(()) == ""
    assert "trained_on    3 videos, known by their names" in cards.show(card)


def test_architectures_in_words():
    adjusted = ModelConfig(head=HeadConfig(width=512, adjust=True), instance_size=271)
    assert cards.describe(adjusted) == (
        "alexnet 96-256-384-384-256, up_channel head 512 with adjust layer, 5 anchors, "
        "127 and 271 px"
    )
    assert cards.describe(BackboneConfig()) == (
        "alexnet 96-256-384-384-256, backbone alone"
    )
