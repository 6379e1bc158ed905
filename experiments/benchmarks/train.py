"""Section ``train``: whole optimizer steps, without the loader.

Ours is the product's own step: uint8 pairs and boxes to the next state. PyTorch is
given the same pairs and, ready made, the same targets; then both do the same loss
terms, the same clipping, the same optimizer and average. Before any time is taken, loss
and norm of the gradient of the first step must agree; for this PyTorch takes its batch
statistics over exemplar and search maps together as ours does, while timed it takes
them of each branch by itself in its own fast layer.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import cases
from experiments.benchmarks import contestants as who
from experiments.benchmarks.cases import Network
from experiments.benchmarks.session import Contestant, Race, Running, Session
from siamrpn_jax import presets
from siamrpn_jax.model.network import model_anchors
from siamrpn_jax.training import step as training
from siamrpn_jax.training.batch import Batch
from siamrpn_jax.training.config import TrainConfig
from siamrpn_jax.training.step import TrainState
from siamrpn_jax.training.targets import make_targets

_RATE = "pairs/s"
_EXACT = 1e-2
"""Tolerance of the norm of a gradient through ReLU, pooling and batch statistics:
rounding that turns one maximum changes it by more than rounding."""


def run(session: Session) -> None:
    """The section but for torch.compile."""
    session.expect(
        "train_frozen_vs_torch", "train_all_vs_torch", "small_train_pairs_per_s"
    )
    for net in cases.plain_networks(session.presets):
        if net.name == "paper":
            for frozen, target in ((3, "frozen"), (0, "all")):
                race = _race(session, net, frozen=frozen)
                session.target(f"train_{target}_vs_torch", race.ratio(who.TORCH))
        else:
            race = _race(session, net, frozen=0)
            session.target("small_train_pairs_per_s", race.value(who.OURS, "rate"))


def compiled(session: Session) -> None:
    """The steps beside torch.compile, which takes long to prepare."""
    for net in cases.plain_networks(session.presets):
        _race(session, net, frozen=0, compiled=True)


def _race(
    session: Session, net: Network, *, frozen: int, compiled: bool = False
) -> Race:
    size = 16 if net.name == "small" else 64 if who.on_gpu() else 8
    recipe = presets.PRESETS[net.name]()
    optimizer = dataclasses.replace(recipe.train.optimizer, frozen_layers=frozen)
    config = dataclasses.replace(recipe.train, optimizer=optimizer)
    batch = cases.batch(net.model.config, size)

    ours = functools.partial(_ours, config=config, batch=batch)
    torch = functools.partial(_torch, net, config, batch)
    bf16, rough = net.with_config(dtype="bfloat16"), who.tolerance("bfloat16")
    entries = [
        Contestant(who.OURS, lambda: ours(net), _EXACT),
        Contestant(who.TORCH, torch, _EXACT),
    ]
    if who.on_gpu():
        entries.append(Contestant("ours bfloat16", lambda: ours(bf16), rough))
    if compiled:
        for name, half in (
            (who.TORCH_COMPILED, False),
            ("torch compiled bfloat16", True),
        ):
            if who.on_gpu() or not half:
                make = functools.partial(torch, compiled=True, bfloat16=half)
                tolerance = rough if half else _EXACT
                entries.append(Contestant(name, make, tolerance, seconds=90))
    else:
        make = functools.partial(torch, bfloat16=True)
        entries.append(Contestant(who.TORCH_BF16, make, rough))
    layers = f"conv1-{frozen} frozen" if frozen else "all layers"
    case = f"{net.name}, batch {size}, {layers}{', compiled' * compiled}"
    return session.race("train", case, entries, amount=size, quantity=_RATE, seconds=15)


def _ours(net: Network, config: TrainConfig, batch: Batch) -> Running:
    devices = jax.devices()[:1]
    step = training.pmap_train_step(net.model, config, devices=devices)
    stacked = jax.tree.map(lambda x: x[None], batch)
    (ready,) = training.prefetch(iter([stacked]), devices=devices)
    state = first_state(net, config)

    def call() -> Any:
        nonlocal state
        state, metrics = step(state, ready)
        jax.block_until_ready(state)
        return metrics

    def check() -> list[np.ndarray]:
        metrics = jax.device_get(call())
        return [metrics["loss"], metrics["gradient_norm"]]

    return Running(call, check)


def first_state(net: Network, config: TrainConfig) -> TrainState:
    """The state of step 0 with the network's weights."""
    variables = jax.tree.map(jnp.copy, net.variables)  # the step donates its state
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        rng=jax.random.key(0),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=training.make_optimizer(config).init(variables["params"]),
        ema=jax.tree.map(jnp.copy, variables) if config.optimizer.ema else None,
    )


def first_targets(net: Network, config: TrainConfig, batch: Batch) -> Any:
    """The targets that ours makes in the step of ``first_state``, on the host."""
    rng = jax.random.fold_in(jax.random.key(0), 0)
    rngs = jax.vmap(jax.random.fold_in, (None, 0))(rng, jnp.arange(len(batch.z)))
    make = jax.vmap(
        lambda *one: make_targets(*one, config=config.targets), (0, 0, 0, None)
    )
    anchors = jnp.asarray(model_anchors(net.model.config))
    return jax.device_get(make(rngs, batch.box, batch.positive, anchors))


def _torch(net: Network, config: TrainConfig, batch: Batch, **options: Any) -> Running:
    from experiments.benchmarks.torch_training import TorchTraining

    wanted = first_targets(net, config, batch)
    weights = net.model.config, net.variables

    def check() -> list[np.ndarray]:
        first = TorchTraining(*weights, config, batch, wanted, joint=True, **options)
        return first.step()

    timed = TorchTraining(*weights, config, batch, wanted, **options)
    return Running(timed.step, check)
