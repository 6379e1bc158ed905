"""Where the first weights of a training run come from, if not from chance.

The recipe follows them: ``adopt`` gives it the network, or the input, that the weights
were trained with. What options change after that is said, or refused where the weights
no longer fit.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from siamrpn_jax import weights
from siamrpn_jax.common import configs
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model.config import BackboneConfig
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.presets import PRESETS, Recipe
from siamrpn_jax.training import distributed
from siamrpn_jax.training.step import TrainState
from siamrpn_jax.weights.backbones import load_backbone


def adopt(recipe: Recipe, *, init: str | None, backbone: str | None) -> Recipe:
    """The recipe for training on from some weights.

    Args:
        recipe: for training from nothing.
        init: weights of a tracker, whose network and tracking constants are taken.
        backbone: see ``load_backbone``; the input that it wants is taken.

    Raises:
        InputError: weights that cannot be read.
        FileNotFoundError: there are none.
    """
    if init:
        loaded = weights.load_weights(init)
        model, tracker = loaded.model.config, loaded.tracker_config
        return dataclasses.replace(recipe, model=model, tracker=tracker)
    if backbone:
        wanted = load_backbone(backbone).input
        model = dataclasses.replace(recipe.model, input=wanted)
        return dataclasses.replace(recipe, model=model)
    return recipe


def from_weights(state: TrainState, init: str, *, model: SiamRPN) -> TrainState:
    """A fresh state with a tracker's weights in it.

    Raises:
        InputError: they do not fit the model; they cannot be read.
        FileNotFoundError: there are none.
    """
    loaded = weights.load_weights(init)
    differing = configs.differences(
        configs.to_json(loaded.model.config), configs.to_json(model.config)
    )
    if weights.model_shapes(loaded.model) != weights.model_shapes(model):
        raise InputError(f"{init} is another model: {'; '.join(differing)}")
    _report_differences(init, differing)
    return _replace(state, loaded.variables)


def from_backbone(state: TrainState, backbone: str, *, model: SiamRPN) -> TrainState:
    """A fresh state with a backbone's weights in it; the head's stay.

    Raises:
        InputError: it is not the model's backbone; says which options fit it; it cannot
            be read.
        FileNotFoundError: there is none.
    """
    loaded = load_backbone(backbone)
    own = model.config.backbone
    if (loaded.config.kind, loaded.config.widths) != (own.kind, own.widths):
        raise InputError(
            f"backbone {backbone} is {_shape(loaded.config)}, the recipe's is "
            f"{_shape(own)}: {_fitting_options(loaded.config, own)} fits it"
        )
    differing = configs.differences(
        configs.to_json(loaded.input), configs.to_json(model.config.input)
    )
    _report_differences(backbone, [f"input.{text}" for text in differing])
    kinds = {"params": state.params, "batch_stats": state.batch_stats}
    return _replace(state, {k: v | loaded.variables[k] for k, v in kinds.items()})


def _replace(state: TrainState, variables: Mapping[str, Any]) -> TrainState:
    variables = jax.tree.map(jax.numpy.array, dict(variables))
    ema = jax.tree.map(jax.numpy.copy, variables) if state.ema is not None else None
    return state.replace(ema=ema, **variables)


def _report_differences(source: str, differing: list[str]) -> None:
    if differing:
        distributed.log(f"unlike {source} was trained: {'; '.join(differing)}")


def _shape(config: BackboneConfig) -> str:
    return f"{config.kind} {'-'.join(map(str, config.widths))}"


def _fitting_options(wanted: BackboneConfig, own: BackboneConfig) -> str:
    """What to write on the command line."""
    widths = f"--model.backbone.widths {' '.join(map(str, wanted.widths))}"
    if wanted.kind == own.kind:
        return widths
    recipes = {name: make().model.backbone for name, make in PRESETS.items()}
    fitting = [name for name, b in recipes.items() if b.kind == wanted.kind]
    exact = [name for name in fitting if recipes[name].widths == wanted.widths]
    if exact:
        return f"siamrpn train {exact[0]}"
    return f"siamrpn train {fitting[0]} {widths}"
