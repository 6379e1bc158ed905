"""Where the first weights of a training run come from, if not from chance.

The recipe follows them: ``adopt`` gives it the network, or the input, that the weights
were trained with. What options change after that is said, or refused where the weights
no longer fit.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from flax import traverse_util

from siamrpn_jax import weights
from siamrpn_jax.common import configs
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model.config import BackboneConfig
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.presets import PRESETS, Recipe
from siamrpn_jax.tracking.state import Loaded
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

    A ``hybrid`` head takes the box branch of a ``depthwise`` one, for its own anchor;
    its scores have nothing to take but the features.

    Raises:
        InputError: they do not fit the model; they cannot be read.
        FileNotFoundError: there are none.
    """
    loaded = weights.load_weights(init)
    differing = configs.differences(
        configs.to_json(loaded.model.config), configs.to_json(model.config)
    )
    heads = loaded.model.config.head.kind, model.config.head.kind
    variables: Mapping[str, Any] = loaded.variables
    if heads == ("depthwise", "hybrid"):
        variables = _take_boxes(state, init, loaded, model.config.anchors.ratios)
    if _shapes(variables) != weights.model_shapes(model):
        raise InputError(f"{init} is another model: {'; '.join(differing)}")
    _report_differences(init, differing)
    return _replace(state, variables)


def _take_boxes(
    state: TrainState, init: str, loaded: Loaded, ratios: tuple[float, ...]
) -> dict[str, Any]:
    """Backbone and box branch of a depthwise head, for one of its anchors."""
    known = loaded.model.config.anchors.ratios
    if ratios[0] not in known:
        raise InputError(
            f"--model.anchors.ratios {ratios[0]:g}: expected one of those of {init}, "
            f"{', '.join(f'{ratio:g}' for ratio in known)}"
        )
    place = known.index(ratios[0])
    own = {"params": state.params, "batch_stats": state.batch_stats}
    taken = {}
    for kind, parts in own.items():
        theirs = loaded.variables[kind]
        layers = parts["head"].items()
        head = {name: theirs["head"].get(name, layer) for name, layer in layers}
        taken[kind] = {"backbone": theirs["backbone"], "head": head}
    output = loaded.variables["params"]["head"]["out_reg"].items()
    taken["params"]["head"]["out_reg"] = {
        name: value.reshape(*value.shape[:-1], -1, 4)[..., place, :]
        for name, value in output
    }
    return taken


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


def _shapes(variables: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    flat: Any = traverse_util.flatten_dict(variables, sep="/")
    return {name: leaf.shape for name, leaf in flat.items()}


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
