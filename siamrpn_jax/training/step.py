"""End-to-end training on one or many devices (paper, sections 3.3 and 5.1).

``train_step`` is the whole step for one device; ``pmap_train_step`` maps it over all.
Both train any network by any loss of the form ``Loss``; ``pair_loss`` is the tracker's.
Loss and learning rate are those of the global batch: two devices with half of the batch
each do what one device does with all of it.
"""

import collections
import dataclasses
import functools
import re
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import Any, Literal, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from siamrpn_jax.common.errors import InputError, check_least
from siamrpn_jax.model import boxes
from siamrpn_jax.model.layers import layer_of
from siamrpn_jax.model.network import SiamRPN, detect, embed_template, model_anchors
from siamrpn_jax.training import augmentation, losses, targets
from siamrpn_jax.training.batch import Batch, RawBatch
from siamrpn_jax.training.losses import LossConfig
from siamrpn_jax.training.targets import TargetConfig

Metrics = dict[str, jax.Array]
Pairs = Batch | RawBatch
"""Patches, or what the device makes them of."""
Device = Any
"""What ``jax.devices()`` lists."""


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer and learning rate; the rate is that of the global batch."""

    kind: Literal["sgd", "adamw"] = "sgd"
    """``sgd``: with momentum, the paper's; ``adamw``."""
    learning_rate: float = 1e-2
    """Rate of the first epoch (after warm-up)."""
    final_learning_rate: float = 1e-6
    """Rate of the last epoch."""
    schedule: Literal["exponential", "cosine"] = "exponential"
    """``exponential``: constant within an epoch, falling by the same factor from one to
    the next ("log space" of section 5.1); ``cosine``: at every step."""
    warmup_steps: int = 0
    """Steps over which the rate first rises linearly to the schedule's."""
    momentum: float = 0.9
    """Of SGD; of AdamW's first moment."""
    second_moment: float = 0.99
    """AdamW's decay of the second moment."""
    weight_decay: float = 1e-4
    """Of kernels only, not of biases and BatchNorm; AdamW's is decoupled."""
    clip_norm: float | None = 10.0
    """Largest global norm of the gradient; None: no clipping."""
    frozen_layers: int = 3
    """The first so many backbone layers stay as they are, BatchNorm statistics too.
    Only sensible if they come from trained weights; 0 trains all."""
    trained: tuple[str, ...] = ()
    """The parts that train, all others stay as they are: ``backbone``, ``head`` or
    layers of theirs as ``backbone/conv5``, BatchNorm included. None named: all, but for
    frozen layers."""
    ema: float | None = None
    """Decay of the exponential moving average of the weights, which is then what is
    evaluated and released; None: no average."""

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        check_least(self, 1e-12, "learning_rate", "final_learning_rate")
        check_least(self, 0, "warmup_steps", "weight_decay", "frozen_layers")


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """How any network is trained, and for how long."""

    optimizer: OptimizerConfig = OptimizerConfig()
    epochs: int = 50
    """The schedule's length."""
    steps_per_epoch: int = 4688
    """Optimizer steps in an epoch: 600,000 pairs at a batch of 128."""

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        check_least(self, 1, "epochs", "steps_per_epoch")


@dataclasses.dataclass(frozen=True)
class TrainConfig(ScheduleConfig):
    """What the step that trains a tracker needs to know; all of it static."""

    targets: TargetConfig = TargetConfig()
    losses: LossConfig = LossConfig()


class TrainState(struct.PyTreeNode):
    """All that training changes, and the key of its random choices."""

    step: jax.Array
    rng: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    ema: Any
    """Averaged ``{"params": …, "batch_stats": …}``, or None."""


class Network(Protocol):
    """A network that can be trained, a hashable Flax module."""

    def init_variables(self, rng: jax.Array) -> dict:
        """Fresh ``{"params": …, "batch_stats": …}``."""
        ...


class Loss(Protocol):
    """What a step makes smaller."""

    def __call__(
        self,
        params: Any,
        state: TrainState,
        batch: Any,
        *,
        model: Any,
        config: Any,
        fixed: Collection[str],
        axis_name: str | None,
    ) -> tuple[jax.Array, tuple[Metrics, Any]]:
        """This device's share of the loss, ``(metrics, new batch statistics)``."""
        ...


def init_state(rng: jax.Array, *, model: Network, config: ScheduleConfig) -> TrainState:
    """A fresh state: random weights, step 0.

    Raises:
        InputError: ``optimizer.trained`` names parts that there are not.
    """
    init_rng, rng = jax.random.split(rng)
    variables = model.init_variables(init_rng)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        rng=rng,
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=make_optimizer(config).init(variables["params"]),
        ema=jax.tree.map(jnp.copy, variables) if config.optimizer.ema else None,
    )


def train_step(
    state: TrainState,
    batch: Any,
    *,
    model: Network,
    config: ScheduleConfig,
    loss: Loss | None = None,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """One optimizer step on one device's share of the batch.

    Args:
        state: the same on all devices.
        batch: this device's samples, as ``loss`` wants them.
        model: the network.
        config: optimizer, and what ``loss`` needs.
        loss: what to make smaller; ``pair_loss`` by default.
        axis_name: the mapped device axis; None on a single device.

    Returns:
        the next state and the metrics of the global batch, the same on all devices.
    """
    fixed = fixed_layers(state.params, config.optimizer)
    chosen = cast(Loss, loss or pair_loss)

    def loss_of(params: Any) -> tuple[jax.Array, tuple[Metrics, Any]]:
        return chosen(
            _without_gradient(params, fixed),
            state,
            batch,
            model=model,
            config=config,
            fixed=fixed,
            axis_name=axis_name,
        )

    gradients, (metrics, batch_stats) = jax.grad(loss_of, has_aux=True)(state.params)
    if axis_name is not None:
        # Every device holds its share of the loss: shares and gradients add up.
        gradients, metrics = jax.lax.psum((gradients, metrics), axis_name)
    optimizer = make_optimizer(config)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics["gradient_norm"] = optax.tree.norm(gradients)
    metrics["learning_rate"] = make_schedule(config)(state.step)
    state = state.replace(
        step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state
    )
    return _average(state, config.optimizer.ema), metrics


def pmap_train_step(
    model: Network,
    config: ScheduleConfig,
    *,
    loss: Loss | None = None,
    devices: Sequence[Device] | None = None,
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """``train_step`` over devices.

    The state goes in and comes out as it is, neither stacked nor replicated by the
    caller; its buffers are donated. The batch has a leading device axis,
    ``[devices, B, …]``.

    With several processes (``jax.distributed``) ``devices`` are those of all of them,
    process by process; each calls the step with the same state and with its own part
    of the batch, ``[its devices, B, …]``, and gets arrays of its own devices back.
    """
    devices = jax.devices() if devices is None else devices
    everywhere = NamedSharding(_mesh(devices), PartitionSpec())

    def step(
        rng: jax.Array, state: TrainState, batch: Any
    ) -> tuple[TrainState, Metrics]:
        state, metrics = train_step(
            state.replace(rng=rng),
            batch,
            model=model,
            config=config,
            loss=loss,
            axis_name="batch",
        )
        return state.replace(rng=None), metrics

    mapped = jax.pmap(
        step,
        axis_name="batch",
        in_axes=(None, None, 0),
        out_axes=None,
        devices=devices,
        donate_argnums=1,
    )

    def mapped_step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        # Nothing moves after the first step; without this the second one, whose state
        # comes from the devices, would be compiled anew.
        state = jax.device_put(state, everywhere)
        # With several processes pmap reads keys back; this one is never waited for.
        stepped, metrics = mapped(state.rng, state.replace(rng=None), batch)
        return stepped.replace(rng=state.rng), metrics

    return mapped_step


def prefetch(
    batches: Iterator[Any], *, devices: Sequence[Device], depth: int = 2
) -> Iterator[Any]:
    """Sends batches to the devices ahead of their use.

    While a step runs, the next batches are under way: the devices do not wait for the
    host's memory.

    Args:
        batches: with a leading device axis, ``[devices, B, …]``.
        devices: those of ``pmap_train_step``.
        depth: batches on the way or waiting.
    """
    split = NamedSharding(_mesh(devices), PartitionSpec("batch"))
    waiting: collections.deque[Any] = collections.deque()
    for batch in batches:
        waiting.append(jax.device_put(batch, split))
        if len(waiting) >= depth:
            yield waiting.popleft()
    yield from waiting


def pair_loss(
    params: Any,
    state: TrainState,
    batch: Pairs,
    *,
    model: SiamRPN,
    config: TrainConfig,
    fixed: Collection[str],
    axis_name: str | None,
) -> tuple[jax.Array, tuple[Metrics, Any]]:
    """The loss of Eq. 5, this device's share of it.

    Args:
        params: what the gradient is taken of; those of ``state`` are not used.
        state: for statistics, random key and step.
        batch: this device's pairs.
        model: the network.
        config: targets and losses.
        fixed: layers whose BatchNorm statistics stay, see ``fixed_layers``.
        axis_name: the mapped device axis, or None.

    Returns:
        the loss, and ``(metrics, new batch statistics)``.
    """
    if isinstance(batch, RawBatch):
        batch = augmentation.render(
            batch,
            exemplar_size=model.config.exemplar_size,
            instance_size=model.config.instance_size,
        )
    output, updates = model.apply(
        {"params": params, "batch_stats": state.batch_stats},
        batch.z,
        batch.x,
        train=True,
        fixed=fixed,
        rolled=config.losses.rolled_negatives > 0,
        axis_name=axis_name,
        mutable=["batch_stats"],
    )
    size = len(batch.z)
    rngs = _sample_rngs(jax.random.fold_in(state.rng, state.step), size, axis_name)
    anchors = jnp.asarray(model_anchors(model.config))
    make = functools.partial(targets.make_targets, config=config.targets)
    wanted = jax.vmap(make, in_axes=(0, 0, 0, None))(
        rngs, jnp.asarray(batch.box), jnp.asarray(batch.positive), anchors
    )
    logits = output.detection.cls_logits.reshape(size, -1, 2)
    deltas = output.detection.reg_deltas.reshape(size, -1, 4)
    kwargs: dict[str, Any] = dict(config=config.losses, axis_name=axis_name)
    classification = losses.classification_loss(logits, wanted, deltas=deltas, **kwargs)
    regression = losses.regression_loss(deltas, wanted, **kwargs)
    loss = classification + config.losses.regression_weight * regression
    metrics = {"cls_loss": classification, "reg_loss": regression}
    if config.losses.giou_weight:
        metrics["giou_loss"] = losses.overlap_loss(deltas, wanted, axis_name=axis_name)
        loss += config.losses.giou_weight * metrics["giou_loss"]
    if output.rolled_logits is not None:
        rolled = output.rolled_logits.reshape(size, -1, 2)
        metrics["rolled_loss"] = losses.rolled_loss(rolled, **kwargs)
        loss += config.losses.rolled_negatives * metrics["rolled_loss"]
    return loss, ({"loss": loss, **metrics}, updates["batch_stats"])


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


def label_parameters(params: Any, *, fixed: Collection[str]) -> Any:
    """Names the optimizer group of every parameter: decayed, plain or fixed.

    Raises:
        ValueError: for a parameter that no rule claims.
    """
    rules = ((r".*/kernel", "decayed"), (r".*/(bias|scale)", "plain"))

    def label(path: tuple[Any, ...], _: jax.Array) -> str:
        if _layer(path) in fixed:
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
    paths = (path for path, _ in jax.tree_util.tree_leaves_with_path(params))
    layers = list(dict.fromkeys(map(_layer, paths)))
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


def eval_variables(state: TrainState) -> dict[str, Any]:
    """The weights to track with: the averaged ones where there are any."""
    if state.ema is not None:
        return state.ema
    return {"params": state.params, "batch_stats": state.batch_stats}


@functools.partial(jax.jit, static_argnames="model")
def pair_iou(variables: Any, batch: Batch, *, model: SiamRPN) -> jax.Array:
    """IoU of the best-scored proposal with the target for each pair, ``[B]``."""
    size = len(batch.z)
    template = embed_template(model, variables, jnp.asarray(batch.z))
    detection = detect(model, variables, template, jnp.asarray(batch.x))
    logits = detection.cls_logits.reshape(size, -1, 2)
    best = jnp.argmax(logits[..., 1] - logits[..., 0], axis=-1)
    deltas = detection.reg_deltas.reshape(size, -1, 4)
    deltas = jnp.take_along_axis(deltas, best[:, None, None], axis=1)[:, 0]
    anchors = jnp.asarray(model_anchors(model.config))[best]
    return boxes.iou(boxes.decode(deltas, anchors), jnp.asarray(batch.box))


def _average(state: TrainState, decay: float | None) -> TrainState:
    """Moves the average towards the weights, faster at the start."""
    if decay is None:
        return state
    rate = jnp.maximum(1 - decay, 9 / (10 + state.step))
    new = {"params": state.params, "batch_stats": state.batch_stats}
    ema = jax.tree.map(lambda old, x: old + rate * (x - old), state.ema, new)
    return state.replace(ema=ema)


def _layer(path: tuple[Any, ...]) -> str:
    """The layer that a parameter belongs to."""
    return layer_of("/".join(str(key.key) for key in path[:-1]))


def _without_gradient(params: Any, fixed: Collection[str]) -> Any:
    """The same parameters; what lies before the first that learns has no gradient."""

    def hold(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
        return jax.lax.stop_gradient(x) if _layer(path) in fixed else x

    return jax.tree_util.tree_map_with_path(hold, params)


def _mesh(devices: Sequence[Device]) -> Mesh:
    """The devices of this process."""
    return Mesh(np.array(devices), ("batch",)).local_mesh


def _sample_rngs(rng: jax.Array, size: int, axis_name: str | None) -> jax.Array:
    """A key for each pair by its place in the global batch, whatever the devices."""
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * size
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
        rng, first + jnp.arange(size)
    )
