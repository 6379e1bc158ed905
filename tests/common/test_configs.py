import dataclasses
import json
import math
from typing import ClassVar, Literal

import pytest

from siamrpn_jax.commands.pretrain import make_recipe
from siamrpn_jax.common import configs
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model.config import BackboneConfig, HeadConfig, ModelConfig
from siamrpn_jax.presets import PRESETS, Recipe
from siamrpn_jax.tracking.config import TrackerConfig


@dataclasses.dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...] = (1, 2)
    kind: Literal["round", "square"] = "round"


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = Inner()
    other: Inner | None = None
    limit: float | None = 0.5
    table: tuple[tuple[float, float], ...] = ()


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_json(name):
    recipe = PRESETS[name]()
    text = json.dumps(configs.to_json(recipe), allow_nan=False)
    again = configs.from_json(Recipe, json.loads(text))
    assert again == recipe and hash(again) == hash(recipe)


def test_json_by_hand():
    config = Outer("a", other=Inner((3,)), limit=None, table=((1.0, 2.0), (3.0, 4.0)))
    values = {
        "name": "a",
        "inner": {"sizes": [1, 2], "kind": "round"},
        "other": {"sizes": [3], "kind": "round"},
        "limit": None,
        "table": [[1.0, 2.0], [3.0, 4.0]],
    }
    assert configs.to_json(config) == values
    assert configs.from_json(Outer, values) == config


@dataclasses.dataclass(frozen=True)
class Renamed:
    FORMER: ClassVar = {"old_size": "size", "gone": None}
    size: int = 1


@pytest.mark.parametrize("values", [{"old_size": 3}, {"size": 3, "gone": "x"}])
def test_files_with_former_names_of_fields_are_read(values):
    assert configs.from_json(Renamed, values) == Renamed(3)
    assert configs.to_json(Renamed(3)) == {"size": 3}


def test_missing_fields_take_their_defaults():
    found = configs.from_json(Outer, {"name": "b", "inner": {"kind": "square"}})
    assert found == Outer("b", Inner(kind="square"))


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (
            TrackerConfig,
            {"penalty": 1, "top_k": 3, "x": 1},
            "TrackerConfig.*penalty, x",
        ),
        (ModelConfig, {"head": {"depth": 3}}, "HeadConfig has no field depth"),
        (HeadConfig, {"kind": "wide"}, r"HeadConfig\.kind is 'wide', .*'depthwise'"),
        (ModelConfig, {"backbone": {"kind": "vgg"}}, r"BackboneConfig\.kind is 'vgg'"),
    ],
)
def test_what_a_config_does_not_know_is_an_error(kind, values, expected):
    with pytest.raises(InputError, match=expected):
        configs.from_json(kind, values)


def test_differences():
    old = configs.to_json(Outer("a", Inner((1,)), limit=0.25))
    new = configs.to_json(Outer("b", Inner((1, 3)), other=Inner()))
    assert configs.differences(old, old) == []
    assert configs.differences(old, new) == [
        "inner.sizes: [1] -> [1, 3]",
        "limit: 0.25 -> 0.5",
        "name: 'a' -> 'b'",
        "other: None -> {'sizes': [1, 2], 'kind': 'round'}",
    ]
    assert configs.differences({"a": 1}, {"b": 2}) == ["a: 1 -> None", "b: None -> 2"]


def test_differences_of_networks():
    wide = ModelConfig(backbone=BackboneConfig(widths=(192, 512, 768, 768, 512)))
    found = configs.differences(configs.to_json(ModelConfig()), configs.to_json(wide))
    assert found == [
        "backbone.widths: [96, 256, 384, 384, 256] -> [192, 512, 768, 768, 512]"
    ]


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (TrackerConfig, {"size_lr": float("nan")}, "size_lr is nan, expected a finite"),
        (TrackerConfig, {"penalty_k": 10**400}, "expected a finite number"),
        (
            TrackerConfig,
            {"window_influence": 1.5},
            "window_influence is 1.5, expected 0",
        ),
        (TrackerConfig, {"top_k": True}, "top_k is True, expected a whole number"),
        (TrackerConfig, {"top_k": 8.0}, "top_k is 8.0, expected a whole number"),
        (
            ModelConfig,
            {"instance_size": "188"},
            "instance_size is '188', expected a who",
        ),
        (ModelConfig, {"context": -100}, "context is -100, expected 0 to 10"),
        (ModelConfig, {"anchors": {"ratios": [0, 1]}}, r"ratios is \(0, 1\), expected"),
        (
            ModelConfig,
            {"anchors": {"ratios": []}},
            "ratios are none, expected at least",
        ),
        (ModelConfig, {"anchors": [1]}, r"anchors is \[1\], expected fields by name"),
        (ModelConfig, {"input": {"std": [0, 1, 1]}}, "std is"),
        (ModelConfig, {"input": {"mean": [1, 2]}}, "expected 3 values"),
        (ModelConfig, {"backbone": {"widths": [8, "x"]}}, "widths is 'x', expected a"),
        (ModelConfig, {"backbone": {"widths": 8}}, "widths is 8, expected a list"),
        (Outer, {"inner": {}}, "Outer misses name"),
        (Outer, {"name": None}, "name is None, expected text"),
    ],
)
def test_values_of_another_type_or_out_of_range_are_named(kind, values, message):
    with pytest.raises(InputError, match=message):
        configs.from_json(kind, values)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_numbers_that_are_not_finite_are_named(value):
    configs.check_finite(Outer("a"))
    with pytest.raises(InputError, match=f"limit is {value}, expected a finite number"):
        configs.check_finite(Outer("a", limit=value))
    with pytest.raises(InputError, match=f"table is {value}, expected a finite number"):
        configs.check_finite(Outer("a", table=((0.0, 1.0), (0.0, value))))


@pytest.mark.parametrize("make", [PRESETS["small"], make_recipe])
def test_a_recipe_that_could_not_be_resumed_is_refused(make):
    recipe = make()
    optimizer = dataclasses.replace(recipe.train.optimizer, clip_norm=math.inf)
    train = dataclasses.replace(recipe.train, optimizer=optimizer)
    with pytest.raises(InputError, match="clip_norm is inf, expected a finite number"):
        dataclasses.replace(recipe, train=train)
