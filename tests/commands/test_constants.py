import dataclasses

import pytest
import tyro

from siamrpn_jax.api import load
from siamrpn_jax.commands.constants import (
    Constants,
    ConstantsOption,
    describe,
    settings_of,
    single_setting,
)
from siamrpn_jax.commands.tracker_specs import make_tracker_specs, open_tracker_spec
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.tracking.config import TrackerConfig


@dataclasses.dataclass(frozen=True)
class Config:
    constants: ConstantsOption = Constants()


def parse(*options: str):
    return tyro.cli(Config, args=list(options)).constants


def test_every_constant_is_an_option_with_its_text(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for field in dataclasses.fields(TrackerConfig):
        assert f"--tracker.{field.name.replace('_', '-')} " in told
    assert "k of Eq. 13, strength of the penalty on changes of size and ratio" in told


def test_what_is_not_given_is_as_in_the_weights():
    assert settings_of(parse()) == [{}]
    setting = single_setting(parse("--tracker.penalty-k", ".1"))
    assert setting == {"penalty_k": 0.1}
    changed, own = load("small", **setting).config, load("small").config
    assert changed == dataclasses.replace(own, penalty_k=0.1)


def test_several_values_are_all_combinations():
    constants = parse(
        *("--tracker.center-size", "None", "7", "--tracker.penalty-k", "0", ".2"),
        *("--tracker.when-lost", "hold"),
    )
    settings = settings_of(constants)
    assert [describe(one) for one in settings] == [
        "[center_size=None,penalty_k=0.0,when_lost=hold]",
        "[center_size=None,penalty_k=0.2,when_lost=hold]",
        "[center_size=7,penalty_k=0.0,when_lost=hold]",
        "[center_size=7,penalty_k=0.2,when_lost=hold]",
    ]
    with pytest.raises(InputError, match="--tracker.center-size has several values"):
        single_setting(constants)


def test_each_setting_is_a_tracker():
    settings = settings_of(parse("--tracker.size-lr", ".2", ".3"))
    specs = make_tracker_specs(["small"], ["siamrpn", "static"], settings=settings)
    names = ["small[size_lr=0.2]", "small[size_lr=0.3]", "static"]
    assert [one.name for one in specs] == names
    tracker, made_from = open_tracker_spec(specs[1])
    assert tracker.config.size_lr == 0.3  # type: ignore[attr-defined]
    assert made_from["tracker_config"]["size_lr"] == 0.3


def test_constants_that_no_tracker_takes():
    with pytest.raises(InputError, match="constants of SiamRPN, but there is only kcf"):
        make_tracker_specs([], ["kcf"], settings=[{"penalty_k": 0.1}])
    (spec,) = make_tracker_specs([], [], settings=[{"penalty_k": -1.0}])
    with pytest.raises(InputError, match="penalty_k is -1"):
        open_tracker_spec(spec)
