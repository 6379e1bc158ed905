import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.pairs import loader
from siamrpn_jax.model import boxes
from siamrpn_jax.model.config import HeadConfig, ModelConfig
from siamrpn_jax.model.layers import layer_of
from siamrpn_jax.model.network import SiamRPN, model_anchors
from siamrpn_jax.presets import paper, small
from siamrpn_jax.training import step as training
from siamrpn_jax.training.config import (
    LossConfig,
    OptimizerConfig,
    TargetConfig,
    TrainConfig,
)
from siamrpn_jax.training.optimizer import label_parameters, make_optimizer
from small_models import random_batch, tiny_model

TINY = tiny_model()
MODEL = SiamRPN(TINY)
SGD = TrainConfig(
    targets=TargetConfig(),
    losses=LossConfig(),
    optimizer=OptimizerConfig(frozen_layers=1),
    epochs=4,
    steps_per_epoch=2,
)
HEAD = {
    f"head/{layer}_{branch}"
    for layer in ("template", "search", "mix", "out")
    for branch in ("cls", "reg")
}
ADAMW = dataclasses.replace(small().train, epochs=4, steps_per_epoch=2)


@functools.cache
def jitted(config: TrainConfig, network: ModelConfig = TINY) -> Any:
    """``train_step``, traced once for all tests."""
    options: Any = dict(model=SiamRPN(network), config=config)
    return jax.jit(functools.partial(training.train_step, **options))


@functools.cache
def mapped(config: TrainConfig, devices: int, network: ModelConfig = TINY) -> Any:
    """The step on so many devices, traced once for all tests."""
    found = jax.devices()[:devices]
    return training.pmap_train_step(SiamRPN(network), config, devices=found)


def split(batch: loader.Batch, devices: int) -> loader.Batch:
    """With a leading axis for the devices."""
    return jax.tree.map(lambda a: a.reshape(devices, -1, *a.shape[1:]), batch)


def run_steps(config: TrainConfig, *, devices: int, steps: int = 4, model=MODEL):
    """Trains on noise; every device sees other data."""
    state = training.init_state(jax.random.key(1), model=model, config=config)
    metrics = {}
    for i in range(steps):
        batch = random_batch(8, model.config, seed=i)
        state, metrics = mapped(config, devices, model.config)(
            state, split(batch, devices)
        )
        jax.block_until_ready(metrics)
    return state, metrics


@pytest.mark.parametrize("config", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_two_devices_do_what_one_does(config):
    # Adam divides by the root of tiny second moments: rounding shows more there.
    tolerance = 2e-5 if config.optimizer.kind == "sgd" else 2e-4
    one, metrics_one = run_steps(config, devices=1)
    two, metrics_two = run_steps(config, devices=2)
    for a, b in zip(
        jax.tree.leaves((one.params, one.batch_stats, one.ema, metrics_one)),
        jax.tree.leaves((two.params, two.batch_stats, two.ema, metrics_two)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_pmapped_step_equals_the_plain_one():
    state, _ = run_steps(SGD, devices=1)
    plain = training.init_state(jax.random.key(1), model=MODEL, config=SGD)
    for i in range(4):
        plain, _ = jitted(SGD)(plain, random_batch(8, MODEL.config, seed=i))
    for a, b in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(plain.params), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_state_is_donated():
    state = training.init_state(jax.random.key(0), model=MODEL, config=SGD)
    batch = split(random_batch(8, MODEL.config, seed=0), 1)
    jax.block_until_ready(mapped(SGD, 1)(state, batch))
    kernel = state.params["backbone"]["conv2"]["kernel"]
    assert kernel.is_deleted()


@pytest.mark.parametrize(
    ("frozen", "trained", "learning"),
    [
        (1, (), {"backbone/conv2", "backbone/conv3", *HEAD}),
        (0, ("backbone/conv2", "head/mix_reg"), {"backbone/conv2", "head/mix_reg"}),
    ],
)
def test_fixed_layers_stay_and_the_others_move(frozen, trained, learning):
    """Kernels, BatchNorm's parameters and its statistics alike."""
    optimizer = OptimizerConfig(frozen_layers=frozen, trained=trained)
    config = dataclasses.replace(SGD, optimizer=optimizer)
    before = training.init_state(jax.random.key(1), model=MODEL, config=config)
    after, _ = jitted(config)(before, random_batch(4, TINY, seed=0))
    moved = set()
    for kind in ("params", "batch_stats"):
        old, new = getattr(before, kind), getattr(after, kind)
        same = jax.tree.map(np.array_equal, old, new)
        for path, equal in jax.tree_util.tree_leaves_with_path(same):
            if not equal:
                moved.add(layer_of("/".join(key.key for key in path[:-1])))
                assert moved <= learning, (kind, path)
    assert moved == learning


def test_what_lies_before_the_first_learning_layer_has_no_backward_pass():
    def flops(**optimizer) -> float:
        config = dataclasses.replace(SGD, optimizer=OptimizerConfig(**optimizer))
        init = functools.partial(training.init_state, model=MODEL, config=config)
        state = jax.eval_shape(init, jax.random.key(1))
        step = functools.partial(training.train_step, model=MODEL, config=config)
        lowered = jax.jit(step).lower(state, random_batch(4, TINY, seed=0))
        return (lowered.cost_analysis() or {})["flops"]

    everything = flops(frozen_layers=0)
    assert flops(frozen_layers=3) < 0.6 * everything
    head = ("head/out_cls", "head/out_reg")
    assert flops(frozen_layers=0, trained=head) < flops(frozen_layers=3)


def test_parts_of_a_network():
    shapes = jax.eval_shape(MODEL.init_variables, jax.random.key(0))["params"]

    def learning(**fields) -> set[str]:
        optimizer = OptimizerConfig(**fields)
        layers = {f"backbone/conv{i}" for i in (1, 2, 3)} | HEAD
        return layers - training.fixed_layers(shapes, optimizer)

    both = {"backbone/conv2", "backbone/conv3"}
    assert learning(frozen_layers=1, trained=("backbone",)) == both
    assert learning(frozen_layers=3, trained=("head",)) == HEAD
    assert learning(frozen_layers=0, trained=("head", "backbone/conv2")) == {
        "backbone/conv2",
        *HEAD,
    }


def test_layers_that_train_with_their_statistics_fixed():
    optimizer = OptimizerConfig(frozen_layers=1, frozen_statistics=True)
    config = dataclasses.replace(SGD, optimizer=optimizer)
    state = training.init_state(jax.random.key(0), model=MODEL, config=config)
    after, _ = jitted(config)(state, random_batch(4, TINY, seed=0))

    def moved(kind: str, part: str, layer: str) -> bool:
        before, now = (getattr(s, kind)[part][layer] for s in (state, after))
        return any(not np.array_equal(before[name], now[name]) for name in now)

    assert not moved("batch_stats", "backbone", "bn2")
    assert moved("batch_stats", "head", "search_cls_bn")
    assert [moved("params", "backbone", f"conv{i}") for i in (1, 2)] == [False, True]


def test_makers_of_kernels_train_as_if_the_correlation_scaled_them():
    """Momentum, rate and clipping are those of kernels of unit size, times a factor."""
    width, factor = 8, (16 * 8) ** -0.5
    head = HeadConfig("up_channel", width=width, kernel_size=1)
    model = SiamRPN(dataclasses.replace(TINY, head=head))
    optimizer = OptimizerConfig(frozen_layers=0, weight_decay=0.0, clip_norm=0.5)
    config = dataclasses.replace(SGD, optimizer=optimizer)
    state = training.init_state(jax.random.key(2), model=model, config=config)
    batch = random_batch(4, model.config, seed=0)

    def scaled(params, by):
        makers = ("template_cls", "template_reg")
        head = {
            name: jax.tree.map(lambda x: x * by, layer) if name in makers else layer
            for name, layer in params["head"].items()
        }
        return {**params, "head": head}

    def loss(params, fixed=frozenset()):
        values = training.pair_loss(
            scaled(params, factor),
            state,
            batch,
            model=model,
            config=config,
            fixed=fixed,
            axis_name=None,
        )
        return values[0]

    plain = make_optimizer(config)
    unit = scaled(state.params, 1 / factor)
    gradients = jax.jit(jax.grad(loss))(unit)
    updates, _ = plain.update(gradients, plain.init(unit), unit)
    expected = scaled(optax.apply_updates(unit, updates), factor)
    after, metrics = jitted(config, model.config)(state, batch)
    for found, wanted in zip(
        jax.tree.leaves(after.params), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    norm = optax.tree.norm(gradients)
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-4)
    assert norm > 0.5


def test_unknown_parts_are_named_with_those_that_there_are():
    shapes = jax.eval_shape(MODEL.init_variables, jax.random.key(0))["params"]
    for frozen, part in ((0, "backbone/conv9"), (1, "backbone/conv1"), (0, "hea")):
        optimizer = OptimizerConfig(frozen_layers=frozen, trained=("head", part))
        with pytest.raises(InputError, match=f"'{part}' is no .* backbone, head, back"):
            training.fixed_layers(shapes, optimizer)


def test_frozen_layers_have_no_optimizer_state():
    def count(config: TrainConfig) -> int:
        state = training.init_state(jax.random.key(0), model=MODEL, config=config)
        return sum(x.size for x in jax.tree.leaves(state.opt_state))

    frozen = jax.eval_shape(MODEL.init_variables, jax.random.key(0))["params"]
    sizes = [x.size for x in jax.tree.leaves(frozen["backbone"]["conv1"])]
    all_layers = dataclasses.replace(SGD, optimizer=OptimizerConfig(frozen_layers=0))
    assert count(all_layers) - count(SGD) >= sum(sizes)


def test_every_parameter_is_claimed():
    for recipe in (paper(), small()):
        model = SiamRPN(recipe.model)
        shapes = jax.eval_shape(model.init_variables, jax.random.key(0))["params"]
        fixed = training.fixed_layers(shapes, OptimizerConfig(frozen_layers=3))
        labels = label_parameters(shapes, fixed=fixed)
        assert labels["backbone"]["conv3"]["kernel"] == "fixed"
        assert labels["backbone"]["bn3"]["scale"] == "fixed"
        assert labels["backbone"]["conv4"]["kernel"] == "decayed"
        assert labels["backbone"]["bn4"]["bias"] == "plain"
    with pytest.raises(ValueError, match=r"'head/gate' belongs to no optimizer group"):
        label_parameters({"head": {"gate": jnp.ones(1)}}, fixed=())


def test_paper_schedule_falls_in_log_space():
    config = paper().train
    schedule = training.make_schedule(config)
    firsts = range(0, config.epochs * config.steps_per_epoch, config.steps_per_epoch)
    rates = [np.asarray(schedule(step)) for step in firsts]
    np.testing.assert_allclose(rates, np.geomspace(1e-2, 1e-6, 50), rtol=1e-4)
    assert schedule(config.steps_per_epoch - 1) == pytest.approx(1e-2)


def test_warmup_rises_linearly_to_the_schedule():
    optimizer = OptimizerConfig(warmup_steps=10, frozen_layers=0)
    config = TrainConfig(optimizer=optimizer, epochs=2, steps_per_epoch=100)
    schedule = training.make_schedule(config)
    rates = [np.asarray(schedule(step)) for step in (0, 4, 9, 50)]
    np.testing.assert_allclose(rates, [1e-3, 5e-3, 1e-2, 1e-2], rtol=1e-5)


def test_clipping_bounds_the_gradient_before_momentum():
    optimizer = OptimizerConfig(
        clip_norm=1.0, momentum=0.0, weight_decay=0.0, frozen_layers=0
    )
    config = TrainConfig(optimizer=optimizer, epochs=1, steps_per_epoch=1)
    params = {"head": {"kernel": jnp.ones(4), "bias": jnp.ones(4)}}
    chain = training.make_optimizer(config)
    gradients = jax.tree.map(lambda x: 100.0 * x, params)
    updates, _ = chain.update(gradients, chain.init(params), params)
    assert float(optax.tree.norm(updates)) == pytest.approx(1e-2, rel=1e-4)


def test_weight_decay_reaches_kernels_only():
    optimizer = OptimizerConfig(weight_decay=0.5, momentum=0.0, frozen_layers=0)
    config = TrainConfig(optimizer=optimizer, epochs=1, steps_per_epoch=1)
    params = {"head": {"kernel": jnp.ones(1), "bias": jnp.ones(1)}}
    chain = training.make_optimizer(config)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates: Any = chain.update(zeros, chain.init(params), params)[0]
    assert float(updates["head"]["kernel"][0]) == pytest.approx(-1e-2 * 0.5)
    assert float(updates["head"]["bias"][0]) == 0.0


def test_average_follows_the_weights():
    config = dataclasses.replace(
        SGD, optimizer=dataclasses.replace(SGD.optimizer, ema=0.5)
    )
    state = training.init_state(jax.random.key(1), model=MODEL, config=config)

    def kernel(tree):
        return np.asarray(tree["params"]["backbone"]["conv2"]["kernel"])

    average = kernel(state.ema)
    for i in range(3):
        state, _ = jitted(config)(state, random_batch(4, MODEL.config, seed=i))
        decay = min(0.5, (1 + i + 1) / (10 + i + 1))
        new = np.asarray(state.params["backbone"]["conv2"]["kernel"])
        average = decay * average + (1 - decay) * new
        np.testing.assert_allclose(kernel(state.ema), average, atol=1e-6)
    assert training.eval_variables(state) is state.ema


def test_bfloat16_trains_float32_weights():
    model = SiamRPN(dataclasses.replace(tiny_model(), dtype="bfloat16"))
    state, metrics = run_steps(ADAMW, devices=1, steps=2, model=model)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(state.params))
    assert all(np.isfinite(x) for x in metrics.values())
    _, reference = run_steps(ADAMW, devices=1, steps=2)
    assert float(metrics["loss"]) == pytest.approx(float(reference["loss"]), rel=0.05)


def test_negative_pairs_give_no_regression_gradient():
    batch = random_batch(4, MODEL.config, seed=0)._replace(
        positive=np.zeros(4, np.float32)
    )
    state = training.init_state(jax.random.key(1), model=MODEL, config=ADAMW)
    _, metrics = jitted(ADAMW)(state, batch)
    assert float(metrics["reg_loss"]) == 0.0
    assert float(metrics["cls_loss"]) > 0.0


def test_overfits_four_pairs_until_the_right_anchors_win():
    recipe = small()
    model = SiamRPN(tiny_model((16, 32, 32), 32))
    data, _ = loader.open_datasets(
        dataclasses.replace(recipe.data, seed=3),
        exemplar_size=model.config.exemplar_size,
        instance_size=model.config.instance_size,
        augment=recipe.augment,
    )
    batch = loader.stack([loader.Batch(*data[i]) for i in range(4)])
    optimizer = dataclasses.replace(recipe.train.optimizer, warmup_steps=10, ema=None)
    config = dataclasses.replace(
        recipe.train, optimizer=optimizer, epochs=1, steps_per_epoch=150
    )
    state = training.init_state(jax.random.key(0), model=model, config=config)
    step = training.pmap_train_step(model, config, devices=jax.devices()[:1])
    for _ in range(150):
        state, metrics = step(state, split(batch, 1))
        jax.block_until_ready(metrics)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    output, _ = model.apply(
        variables, batch.z, batch.x, train=True, mutable=["batch_stats"]
    )
    logits = np.asarray(output.detection.cls_logits).reshape(4, -1, 2)
    winners = (logits[..., 1] - logits[..., 0]).argmax(-1)
    anchors = model_anchors(model.config)
    overlap = boxes.iou(anchors[winners], batch.box)
    best = boxes.iou(anchors[None], batch.box[:, None]).max(-1)
    assert (overlap > np.minimum(0.6, best - 1e-4)).all(), (overlap, best)
    deltas = np.asarray(output.detection.reg_deltas).reshape(4, -1, 4)
    decoded = boxes.decode(deltas[np.arange(4), winners], anchors[winners])
    assert (boxes.iou(decoded, batch.box) > 0.8).all()


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (OptimizerConfig, "learning_rate", 0.0),
        (OptimizerConfig, "frozen_layers", -1),
        (TrainConfig, "epochs", 0),
        (TrainConfig, "steps_per_epoch", 0),
    ],
)
def test_numbers_out_of_range_are_refused(kind, field, value):
    with pytest.raises(InputError, match=f"{field} is {value}, expected at least"):
        kind(**{field: value})


@pytest.mark.parametrize("count", [0, 1, 5])
def test_prefetch_sends_ahead_and_keeps_the_order(count):
    taken = []

    def batches():
        for i in range(count):
            taken.append(i)
            yield split(random_batch(2, TINY, seed=i), 2)

    for i, batch in enumerate(training.prefetch(batches(), devices=jax.devices())):
        assert isinstance(batch, loader.Batch)
        assert len(taken) == min(i + 2, count)  # the next one is on its way
        expected = random_batch(2, TINY, seed=i)
        for found in jax.tree.leaves(batch):
            assert len(found.sharding.device_set) == 2
        jax.tree.map(np.testing.assert_array_equal, batch, split(expected, 2))
    assert len(taken) == count


def test_a_step_on_prefetched_batches_is_the_same():
    batch = split(random_batch(8, TINY, seed=0), 2)
    (sent,) = training.prefetch(iter([batch]), devices=jax.devices())
    metrics = []
    for pairs in (batch, sent):
        state = training.init_state(jax.random.key(0), model=MODEL, config=SGD)
        metrics.append(mapped(SGD, 2)(state, pairs)[1])
    jax.tree.map(np.testing.assert_array_equal, *metrics)


def test_a_neighbour_of_the_same_origin_is_no_negative():
    """Without others the loss of in-batch negatives is 0, and moves nothing."""
    losses = dataclasses.replace(SGD.losses, in_batch_negatives=1.0)
    config = dataclasses.replace(SGD, losses=losses)
    batch = random_batch(4, TINY, seed=0)
    state = training.init_state(jax.random.key(0), model=MODEL, config=config)
    _, others = jitted(config)(state, batch)
    assert others["in_batch_loss"] > 0.1
    for origins in (
        np.zeros((4, 2)),
        np.stack([np.arange(4), np.arange(-1, 3) % 4], 1),
    ):
        same = batch._replace(origins=origins.astype(np.uint32))
        assert jitted(config)(state, same)[1]["in_batch_loss"] == 0


SIAMFC = dataclasses.replace(
    TINY,
    head=HeadConfig("cross_correlation"),
    anchors=dataclasses.replace(TINY.anchors, ratios=(1.0,)),
)


def test_a_score_map_alone_learns_by_the_logistic_loss():
    """Mean of log(1 + exp(-y v)), positive and negative cells half and half."""
    model, batch = SiamRPN(SIAMFC), random_batch(4, SIAMFC, seed=0)
    batch = batch._replace(positive=np.array([1, 1, 0, 1], np.float32))
    config = dataclasses.replace(
        SGD,
        targets=TargetConfig(radius=12.0),
        optimizer=OptimizerConfig(frozen_layers=0),
    )
    state = training.init_state(jax.random.key(0), model=model, config=config)
    after, metrics = jitted(config, model.config)(state, batch)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    output, _ = model.apply(
        variables, batch.z, batch.x, train=True, mutable=["batch_stats"]
    )
    logits = np.asarray(output.detection.cls_logits, np.float64)[..., 0, :]
    values = (logits[..., 1] - logits[..., 0]).reshape(4, -1)
    losses: dict[bool, list[float]] = {True: [], False: []}
    for pair, (cx, cy, _, _) in enumerate(batch.box):
        for (x, y, _, _), value in zip(
            model_anchors(SIAMFC), values[pair], strict=True
        ):
            near = np.hypot(x - cx, y - cy) <= 12 and batch.positive[pair] > 0
            sign = 1 if near else -1
            losses[bool(near)].append(np.log1p(np.exp(-sign * value)))
    expected = (np.mean(losses[True]) + np.mean(losses[False])) / 2
    assert losses[True]
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-4)
    assert "reg_loss" not in metrics
    assert float(after.params["head"]["bias"][0]) != 0


def test_a_hybrid_head_learns_scores_of_cells_and_boxes_of_those_near():
    config = dataclasses.replace(
        TINY,
        head=dataclasses.replace(TINY.head, kind="hybrid"),
        anchors=dataclasses.replace(TINY.anchors, ratios=(1.0,)),
    )
    model, batch = SiamRPN(config), random_batch(4, config, seed=0)
    setting = dataclasses.replace(
        SGD,
        targets=TargetConfig(radius=12.0),
        losses=LossConfig(giou_weight=1.0),
        optimizer=OptimizerConfig(frozen_layers=0),
    )
    labels = training._label(
        jax.random.split(jax.random.key(0), 4), batch, model=model, config=setting
    )
    cells = model_anchors(config)
    for pair, box in enumerate(batch.box):
        near = np.hypot(*(cells[:, :2] - box[:2]).T) <= 12
        near &= batch.positive[pair] > 0
        np.testing.assert_array_equal(labels.positive[pair], near)
        found = boxes.decode(np.asarray(labels.deltas[pair]), cells)
        np.testing.assert_allclose(found, np.tile(box, (len(cells), 1)), rtol=1e-4)
    state = training.init_state(jax.random.key(0), model=model, config=setting)
    after, metrics = jitted(setting, config)(state, batch)
    assert {"cls_loss", "reg_loss", "giou_loss"} <= metrics.keys()
    moved = jax.tree.map(
        lambda a, b: bool((a != b).any()), state.params["head"], after.params["head"]
    )
    assert moved["bias"] and moved["out_reg"]["kernel"]


def test_losses_of_boxes_need_a_head_with_boxes():
    model, batch = SiamRPN(SIAMFC), random_batch(2, SIAMFC, seed=0)
    losses = dataclasses.replace(SGD.losses, score_target="iou")
    config = dataclasses.replace(SGD, losses=losses)
    state = training.init_state(jax.random.key(0), model=model, config=config)
    with pytest.raises(InputError, match="score_target iou need boxes"):
        training.train_step(state, batch, model=model, config=config)


def test_what_a_teacher_says_counts_by_its_weight():
    losses = dataclasses.replace(SGD.losses, teacher_weight=0.25)
    config = dataclasses.replace(SGD, losses=losses)
    state = training.init_state(jax.random.key(0), model=MODEL, config=config)
    batch, side = random_batch(4, TINY, seed=0), TINY.score_size
    taught = batch._replace(teacher=np.full((4, side, side), 0.25, np.float32))
    (_, alone), (_, found) = (jitted(config)(state, x) for x in (batch, taught))
    assert "teacher_loss" not in alone
    share = float(found["loss"] - alone["loss"])
    assert share == pytest.approx(0.25 * float(found["teacher_loss"]), rel=1e-4)
