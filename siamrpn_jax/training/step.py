"""End-to-end training on one or many devices (paper, sections 3.3 and 5.1).

``train_step`` is the whole step for one device; ``pmap_train_step`` maps it over all.
Both train any network by any loss of the form ``Loss``; ``pair_loss`` is the tracker's.
Loss and learning rate are those of the global batch: two devices with half of the batch
each do what one device does with all of it.
"""

import collections
import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model import boxes, fused
from siamrpn_jax.model.network import SiamRPN, model_anchors, previous_of
from siamrpn_jax.model.promotion import standard_promotion
from siamrpn_jax.training import losses, targets
from siamrpn_jax.training.batch import Batch
from siamrpn_jax.training.config import ScheduleConfig, TrainConfig
from siamrpn_jax.training.optimizer import (
    balance,
    fixed_layers,
    layer_of_path,
    make_optimizer,
    make_schedule,
    still_layers,
)

Metrics = dict[str, jax.Array]
Device = Any
"""What ``jax.devices()`` lists."""

AHEAD = 2
"""Batches on their way to the devices, or waiting there."""


class TrainState(struct.PyTreeNode):
    """All that training changes, and the key of its random choices."""

    step: jax.Array
    rng: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    ema: Any
    """Averaged ``{"params": …, "batch_stats": …}``, or None."""


class TrainableNetwork(Protocol):
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


@standard_promotion
def init_state(
    rng: jax.Array, *, model: TrainableNetwork, config: ScheduleConfig
) -> TrainState:
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
        ema=None if config.optimizer.ema is None else jax.tree.map(jnp.copy, variables),
    )


@standard_promotion
def train_step(
    state: TrainState,
    batch: Any,
    *,
    model: TrainableNetwork,
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
    still = fixed | still_layers(state.params, config.optimizer)
    chosen = cast(Loss, loss or pair_loss)

    def loss_of(params: Any) -> tuple[jax.Array, tuple[Metrics, Any]]:
        return chosen(
            _without_gradient(params, fixed),
            state,
            batch,
            model=model,
            config=config,
            fixed=still,
            axis_name=axis_name,
        )

    gradients, (metrics, batch_stats) = jax.grad(loss_of, has_aux=True)(state.params)
    if axis_name is not None:
        # Every device holds its share of the loss: shares and gradients add up.
        gradients, metrics = jax.lax.psum((gradients, metrics), axis_name)
    optimizer, gradients = make_optimizer(config), balance(gradients)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, balance(updates))
    metrics["gradient_norm"] = optax.tree.norm(gradients)
    metrics["learning_rate"] = make_schedule(config)(state.step)
    state = state.replace(
        step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state
    )
    return _average(state, config.optimizer.ema), metrics


def pmap_train_step(
    model: TrainableNetwork,
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


def prefetch(batches: Iterator[Any], *, devices: Sequence[Device]) -> Iterator[Any]:
    """Sends batches to the devices ahead of their use.

    While a step runs, the next batches are under way: the devices do not wait for the
    host's memory.

    Args:
        batches: with a leading device axis, ``[devices, B, …]``.
        devices: those of ``pmap_train_step``.
    """
    split = NamedSharding(_mesh(devices), PartitionSpec("batch"))
    waiting: collections.deque[Any] = collections.deque()
    for batch in batches:
        waiting.append(jax.device_put(batch, split))
        if len(waiting) >= AHEAD:
            yield waiting.popleft()
    yield from waiting


@standard_promotion
def pair_loss(
    params: Any,
    state: TrainState,
    batch: Batch,
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
        fixed: layers whose BatchNorm statistics stay.
        axis_name: the mapped device axis, or None.

    Returns:
        the loss, and ``(metrics, new batch statistics)``.
    """
    output, updates = model.apply(
        {"params": params, "batch_stats": state.batch_stats},
        batch.z,
        batch.x,
        train=True,
        fixed=fixed,
        in_batch=config.losses.in_batch_negatives > 0,
        axis_name=axis_name,
        mutable=["batch_stats"],
    )
    size = len(batch.z)
    rngs = _sample_rngs(jax.random.fold_in(state.rng, state.step), size, axis_name)
    wanted = _label(rngs, batch, model=model, config=config)
    logits = output.detection.cls_logits.reshape(size, -1, 2)
    deltas = output.detection.reg_deltas.reshape(size, -1, 4)
    kwargs: dict[str, Any] = dict(config=config.losses, axis_name=axis_name)
    terms = {
        "cls_loss": losses.classification_loss(logits, wanted, deltas=deltas, **kwargs)
    }
    if model.config.head.regresses:
        terms["reg_loss"] = losses.regression_loss(deltas, wanted, **kwargs)
    if config.losses.giou_weight:
        terms["giou_loss"] = losses.overlap_loss(deltas, wanted, axis_name=axis_name)
    if batch.teacher is not None:
        terms["teacher_loss"] = losses.teacher_loss(
            output.detection.cls_logits, jnp.asarray(batch.teacher), **kwargs
        )
    if output.in_batch_logits is not None:
        in_batch = output.in_batch_logits.reshape(size, -1, 2)
        exemplars = previous_of(jnp.asarray(batch.origins), axis_name)[:, :1]
        same_origin = (exemplars == batch.origins).any(-1)
        terms["in_batch_loss"] = losses.in_batch_loss(in_batch, same_origin, **kwargs)
    weights = {
        "cls_loss": 1.0,
        "reg_loss": config.losses.regression_weight,
        "giou_loss": config.losses.giou_weight,
        "teacher_loss": config.losses.teacher_weight,
        "in_batch_loss": config.losses.in_batch_negatives,
    }
    loss = sum((weights[name] * term for name, term in terms.items()), jnp.float32(0))
    return loss, ({"loss": loss, **terms}, updates["batch_stats"])


def _label(
    rngs: jax.Array, batch: Batch, *, model: SiamRPN, config: TrainConfig
) -> targets.Targets:
    """The targets of each pair, with an axis B."""
    anchors = jnp.asarray(model_anchors(model.config), jnp.float32)
    box, positive = jnp.asarray(batch.box), jnp.asarray(batch.positive)
    head = model.config.head
    if not head.scores_cells:
        make = functools.partial(targets.make_targets, config=config.targets)
        return jax.vmap(make, in_axes=(0, 0, 0, None))(rngs, box, positive, anchors)
    needs_boxes = config.losses.giou_weight or config.losses.score_target == "iou"
    if needs_boxes and not head.regresses:
        raise InputError(
            f"losses: giou_weight {config.losses.giou_weight:g} and score_target "
            f"{config.losses.score_target} need boxes, expected 0 and one: the head is "
            f"{head.kind}"
        )
    label = functools.partial(targets.make_cell_targets, config=config.targets)
    return jax.vmap(label, in_axes=(0, 0, None))(box, positive, anchors)


def eval_variables(state: TrainState) -> dict[str, Any]:
    """The weights to track with: the averaged ones where there are any."""
    if state.ema is not None:
        return state.ema
    return {"params": state.params, "batch_stats": state.batch_stats}


@functools.partial(jax.jit, static_argnames="model")
@standard_promotion
def pair_iou(variables: Any, batch: Batch, *, model: SiamRPN) -> jax.Array:
    """IoU of the best-scored proposal with the target for each pair, ``[B]``."""
    size = len(batch.z)
    weights = fused.fuse(model, variables)
    template = fused.embed_template(model, weights, jnp.asarray(batch.z))
    detection = fused.detect(model, weights, template, jnp.asarray(batch.x))
    logits = detection.cls_logits.reshape(size, -1, 2)
    best = jnp.argmax(logits[..., 1] - logits[..., 0], axis=-1)
    deltas = detection.reg_deltas.reshape(size, -1, 4)
    deltas = jnp.take_along_axis(deltas, best[:, None, None], axis=1)[:, 0]
    anchors = jnp.asarray(model_anchors(model.config), jnp.float32)[best]
    return boxes.iou(boxes.decode(deltas, anchors), jnp.asarray(batch.box))


def _average(state: TrainState, decay: float | None) -> TrainState:
    """Moves the average towards the weights, faster at the start."""
    if decay is None:
        return state
    rate = jnp.maximum(1 - decay, 9 / (10 + state.step))
    new = {"params": state.params, "batch_stats": state.batch_stats}
    ema = jax.tree.map(lambda old, x: old + rate * (x - old), state.ema, new)
    return state.replace(ema=ema)


def _without_gradient(params: Any, fixed: Collection[str]) -> Any:
    """The same parameters; what lies before the first that learns has no gradient."""

    def hold(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
        return jax.lax.stop_gradient(x) if layer_of_path(path) in fixed else x

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
