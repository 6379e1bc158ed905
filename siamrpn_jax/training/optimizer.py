"""The optimizer: learning rate by step, weight decay by parameter, fixed layers.

Every parameter belongs to one of three groups: decayed, plain or fixed.
"""

import re
from collections.abc import Collection, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model.layers import layer_of
from siamrpn_jax.model.rpn import kernel_size_at_start
from siamrpn_jax.training.config import OptimizerConfig, ScheduleConfig


def make_optimizer(config: ScheduleConfig) -> optax.GradientTransformation:
    """One chain for all parameters; each must be claimed by ``label_parameters``."""
    optimizer, schedule = config.optimizer, make_schedule(config)

    def group(weight_decay: float) -> optax.GradientTransformation:
        if optimizer.kind == "adamw":
            return optax.adamw(
                schedule,
                b1=optimizer.momentum,
                b2=optimizer.second_moment,
                weight_decay=weight_decay,
            )
        return optax.chain(
            optax.add_decayed_weights(weight_decay),
            optax.sgd(schedule, momentum=optimizer.momentum),
        )

    groups: dict[Hashable, optax.GradientTransformation] = {
        "decayed": group(optimizer.weight_decay),
        "plain": group(0.0),
        "fixed": optax.set_to_zero(),
    }

    def labels(params: Any) -> Any:
        return label_parameters(params, fixed=fixed_layers(params, optimizer))

    chain = optax.partition(groups, labels)
    if optimizer.clip_norm is None:
        return chain
    # Gradients of fixed layers are zero and do not count.
    return optax.chain(optax.clip_by_global_norm(optimizer.clip_norm), chain)


def balance(updates: Any) -> Any:
    """Scales gradients, or steps, of the layers that make the up-channel kernels.

    Those kernels are small, and their errors are summed over 16 C products: gradients
    are large where steps must be small, and plain SGD at the paper's rate leaves the
    valley within its first steps. Scaling gradients before the optimizer and its steps
    after it trains these layers as if they made kernels of unit size, which the
    correlation then scaled. For other heads nothing changes.

    Args:
        updates: as the network's parameters.
    """
    head = updates.get("head", {})
    if "template_cls" not in head or "template_cls_bn" in head:
        return updates
    scale = kernel_size_at_start(head["search_cls"]["kernel"].shape[-1])
    balanced = {
        name: jax.tree.map(lambda x: x * scale, layer)
        for name, layer in head.items()
        if name in ("template_cls", "template_reg")
    }
    return {**updates, "head": {**head, **balanced}}


def make_schedule(config: ScheduleConfig) -> optax.Schedule:
    """Learning rate by step.

    Example:
        >>> schedule = make_schedule(ScheduleConfig(epochs=50, steps_per_epoch=10))
        >>> [f"{float(schedule(step)):.0e}" for step in (0, 9, 490, 499)]
        ['1e-02', '1e-02', '1e-06', '1e-06']
    """
    optimizer = config.optimizer
    first, last = optimizer.learning_rate, optimizer.final_learning_rate
    if optimizer.schedule == "exponential":
        base = optax.exponential_decay(
            first,
            transition_steps=config.steps_per_epoch,
            decay_rate=(last / first) ** (1 / max(config.epochs - 1, 1)),
            staircase=True,
        )
    else:
        steps = config.epochs * config.steps_per_epoch
        base = optax.cosine_decay_schedule(first, steps, alpha=last / first)
    if not optimizer.warmup_steps:
        return base
    warmup = optimizer.warmup_steps

    def schedule(step: ArrayLike) -> jax.Array:
        return jnp.asarray(base(step)) * jnp.minimum(1.0, (step + 1) / warmup)

    return schedule


def label_parameters(params: Any, *, fixed: Collection[str]) -> Any:
    """Names the optimizer group of every parameter: decayed, plain or fixed.

    Raises:
        ValueError: for a parameter that no rule claims.
    """
    rules = ((r".*/kernel", "decayed"), (r".*/(bias|scale)", "plain"))

    def label(path: tuple[Any, ...], _: jax.Array) -> str:
        if layer_of_path(path) in fixed:
            return "fixed"
        name = "/".join(str(key.key) for key in path)
        for pattern, group in rules:
            if re.fullmatch(pattern, name):
                return group
        raise ValueError(f"parameter {name!r} belongs to no optimizer group")

    return jax.tree_util.tree_map_with_path(label, params)


def fixed_layers(params: Any, optimizer: OptimizerConfig) -> frozenset[str]:
    """The layers that stay as they are, as ``backbone/conv1``.

    Raises:
        InputError: a part that should train and is none, or is frozen altogether.
    """
    layers = _layers(params)
    frozen = {f"backbone/conv{i + 1}" for i in range(optimizer.frozen_layers)}
    learning = {layer for layer in layers if layer not in frozen}
    chosen: set[str] = set()
    for part in optimizer.trained:
        those = {x for x in learning if x == part or x.startswith(f"{part}/")}
        if not those:
            parts = ", ".join(dict.fromkeys([x.split("/")[0] for x in layers] + layers))
            raise InputError(
                f"trained: {part!r} is no part of the network, or frozen "
                f"(frozen_layers={optimizer.frozen_layers}); its parts are {parts}"
            )
        chosen |= those
    return frozenset(layers) - (chosen if optimizer.trained else learning)


def still_layers(params: Any, optimizer: OptimizerConfig) -> frozenset[str]:
    """The layers that keep to their running averages although they train."""
    still = _layers(params) if optimizer.frozen_statistics else ()
    return frozenset(layer for layer in still if layer.startswith("backbone/"))


def _layers(params: Any) -> list[str]:
    paths = (path for path, _ in jax.tree_util.tree_leaves_with_path(params))
    return list(dict.fromkeys(map(layer_of_path, paths)))


def layer_of_path(path: tuple[Any, ...]) -> str:
    """The layer that a parameter belongs to."""
    return layer_of("/".join(str(key.key) for key in path[:-1]))
