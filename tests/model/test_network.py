import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plain_network
from closeness import check_close
from plain_network import detect, embed_template
from random_variables import random_variables
from siamrpn_jax import presets
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model import network
from siamrpn_jax.model.config import (
    AnchorConfig,
    BackboneConfig,
    HeadConfig,
    InputConfig,
    ModelConfig,
    count_flops,
)
from siamrpn_jax.model.network import (
    SiamRPN,
    count_parameters,
    model_anchors,
)

DEPTHWISE = ModelConfig(
    backbone=BackboneConfig("compact", widths=(4, 6, 8)),
    head=HeadConfig("depthwise", width=8, kernel_size=1),
    anchors=AnchorConfig(ratios=(0.5, 1.0, 2.0)),
    exemplar_size=60,
    instance_size=92,
    conv_impl="xla",  # compiles faster
)
UP_CHANNEL = dataclasses.replace(
    DEPTHWISE, head=HeadConfig("up_channel", width=8, kernel_size=3, adjust=True)
)
BOTH = [
    pytest.param(DEPTHWISE, id="depthwise"),
    pytest.param(UP_CHANNEL, id="up_channel"),
]


def shapes_of(config: ModelConfig):
    """Of parameters and statistics, without computing any."""
    return jax.eval_shape(SiamRPN(config).init_variables, jax.random.key(0))


def count(shapes) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def make(config: ModelConfig, *, batch: int = 2):
    """A model, random variables, and pairs of random patches."""
    model = SiamRPN(config)
    rng = np.random.default_rng(1)
    z, x = (
        rng.integers(0, 256, (batch, size, size, 3), np.uint8)
        for size in (config.exemplar_size, config.instance_size)
    )
    return model, random_variables(model.init, z, x), z, x


def test_numbers_of_the_paper():
    config = presets.paper().model
    shapes = shapes_of(config)
    assert count(shapes["params"]) == 22_632_512
    assert (config.template_size, config.score_size) == (4, 17)
    head = shapes["params"]["head"]
    assert {name: layer["kernel"].shape for name, layer in head.items()} == {
        "template_cls": (3, 3, 256, 10 * 256),
        "template_reg": (3, 3, 256, 20 * 256),
        "search_cls": (3, 3, 256, 256),
        "search_reg": (3, 3, 256, 256),
    }
    model = SiamRPN(config)
    z, x = jnp.zeros((2, 127, 127, 3)), jnp.zeros((2, 255, 255, 3))
    template = jax.eval_shape(
        functools.partial(plain_network.embed_template, model), shapes, z
    )
    assert template.cls_kernel.shape == (2, 4, 4, 256, 10)
    assert template.reg_kernel.shape == (2, 4, 4, 256, 20)
    detection = jax.eval_shape(
        functools.partial(plain_network.detect, model), shapes, template, x
    )
    assert detection.cls_logits.shape == (2, 17, 17, 5, 2)
    assert detection.reg_deltas.shape == (2, 17, 17, 5, 4)
    assert model_anchors(config).shape == (17 * 17 * 5, 4)


@pytest.mark.parametrize(("instance_size", "expected"), [(271, 19), (287, 21)])
def test_score_sizes_of_larger_search_patches(instance_size, expected):
    config = ModelConfig(instance_size=instance_size)
    assert config.score_size == expected


def test_numbers_of_small():
    config = presets.small().model
    shapes = shapes_of(config)
    assert count(shapes["params"]) == 593_214
    assert (config.template_size, config.score_size) == (4, 13)
    assert len(model_anchors(config)) == 13 * 13 * 5
    assert set(shapes["params"]) == {"backbone", "head"}


def test_adjust_adds_one_layer():
    paper = presets.paper().model
    adjusted = dataclasses.replace(
        paper, head=dataclasses.replace(paper.head, adjust=True)
    )
    extra = count(shapes_of(adjusted)["params"]) - count(shapes_of(paper)["params"])
    assert extra == 20 * 20 + 20


NECK = dataclasses.replace(DEPTHWISE, neck_width=5)


@pytest.mark.parametrize("config", [*BOTH, pytest.param(NECK, id="neck")])
def test_template_then_detection_equal_the_whole_network(config):
    model, variables, z, x = make(config)
    output = jax.jit(model.apply)(variables, z, x)
    embed = jax.jit(plain_network.embed_template, static_argnums=0)
    detect = jax.jit(plain_network.detect, static_argnums=0)
    template = embed(model, variables, z)
    check_close(detect(model, variables, template, x), output.detection)
    assert output.in_batch_logits is None
    size, anchors = config.score_size, len(config.anchors.ratios)
    assert output.detection.cls_logits.shape == (2, size, size, anchors, 2)
    assert output.detection.reg_deltas.shape == (2, size, size, anchors, 4)


def test_channels_are_anchor_major():
    """Both values, then all four, of the first anchor come first."""
    model, variables, z, x = make(DEPTHWISE)
    for name, values in (("out_cls", 2), ("out_reg", 4)):
        layer = variables["params"]["head"][name]
        layer["kernel"] *= 0
        layer["bias"] = np.arange(3 * values, dtype=np.float32)
    detection = jax.jit(model.apply)(variables, z, x).detection
    logits, deltas = detection.cls_logits[1, 2, 3], detection.reg_deltas[1, 2, 3]
    assert logits.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert deltas.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


@pytest.mark.parametrize("config", BOTH)
def test_in_batch_logits_are_those_of_the_previous_exemplar(config):
    model, variables, z, x = make(config, batch=4)
    apply = jax.jit(model.apply, static_argnames=("in_batch", "axis_name"))
    output = apply(variables, z, x, in_batch=True)
    check_close(output.detection, apply(variables, z, x).detection)
    expected = apply(variables, np.roll(z, 1, axis=0), x).detection.cls_logits
    check_close(output.in_batch_logits, expected)

    def shard(z, x):
        return model.apply(variables, z, x, in_batch=True, axis_name="batch")

    for devices in (2, 4):
        shares = (a.reshape(devices, -1, *a.shape[1:]) for a in (z, x))
        found = jax.jit(jax.vmap(shard, axis_name="batch"))(*shares)
        check_close(found.in_batch_logits.reshape(expected.shape), expected)


def test_training_on_two_devices_equals_one():
    """BatchNorm's statistics, of in-batch negatives too, are those of all devices."""
    model, variables, z, x = make(DEPTHWISE, batch=4)

    def train(z, x, axis_name=None):
        return model.apply(
            variables,
            z,
            x,
            train=True,
            in_batch=True,
            axis_name=axis_name,
            mutable=["batch_stats"],
        )

    output, updates = jax.jit(train)(z, x)
    halves = (a.reshape(2, 2, *a.shape[1:]) for a in (z, x))
    mapped = jax.vmap(functools.partial(train, axis_name="batch"), axis_name="batch")
    two, two_updates = jax.jit(mapped)(*halves)
    joined = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), two)
    check_close(joined, output, atol=1e-3)
    check_close(two_updates, jax.tree.map(lambda a: jnp.stack([a, a]), updates))


def test_in_batch_negatives_do_not_move_the_running_averages():
    model, variables, z, x = make(DEPTHWISE)

    @functools.partial(jax.jit, static_argnums=0)
    def train(in_batch):
        _, updates = model.apply(
            variables, z, x, train=True, in_batch=in_batch, mutable=["batch_stats"]
        )
        return updates["batch_stats"]

    check_close(train(True), train(False), atol=1e-6)


def test_a_fixed_backbone_runs_patch_by_patch(monkeypatch):
    """What comes out, its gradient included, is what the whole batch gives."""
    model, variables, z, x = make(NECK)
    fixed = [f"backbone/conv{i}" for i in (1, 2, 3)]

    def run():
        def loss(params):
            known = {**variables, "params": params}
            output, _ = model.apply(
                known, z, x, train=True, fixed=fixed, mutable=["batch_stats"]
            )
            logits = output.detection.cls_logits
            return (logits**2).mean(), logits

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])

    found = run()
    monkeypatch.setattr(network, "_is_fixed", lambda *_: False)
    check_close(found, run(), atol=1e-4)


def test_statistics_of_fixed_layers_stay():
    model, variables, z, x = make(DEPTHWISE)
    fixed = {"backbone/conv2", "head/search_cls", "head/mix_reg"}
    train = functools.partial(
        model.apply, train=True, fixed=fixed, mutable=["batch_stats"]
    )
    _, updates = jax.jit(train)(variables, z, x)
    stay = set()
    for part, layers in updates["batch_stats"].items():
        for layer, values in layers.items():
            old = variables["batch_stats"][part][layer]["mean"]
            moved = values["mean"] != old
            assert moved.all() == moved.any()
            stay |= set() if moved.all() else {f"{part}/{layer}"}
    assert stay == {"backbone/bn2", "head/search_cls_bn", "head/mix_reg_bn"}


@pytest.mark.parametrize(
    ("config", "conv_impl"), [(DEPTHWISE, "xla"), (UP_CHANNEL, "winograd")]
)
def test_bfloat16_is_close_and_returns_float32(config, conv_impl):
    model, variables, z, x = make(config)
    exact = jax.jit(model.apply)(variables, z, x).detection
    config = dataclasses.replace(config, dtype="bfloat16", conv_impl=conv_impl)
    rough = jax.jit(SiamRPN(config).apply)(variables, z, x).detection
    for a, b in zip(jax.tree.leaves(rough), jax.tree.leaves(exact), strict=True):
        assert a.dtype == jnp.float32
        assert jnp.abs(a - b).max() < 0.1 * jnp.abs(b).max()


def test_input_normalisation():
    """RGB comes in; order, mean and deviation are those of the weights."""
    values = InputConfig("bgr", mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 5.0))
    bgr = dataclasses.replace(DEPTHWISE, input=values)
    neutral = InputConfig("rgb", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    rgb = dataclasses.replace(DEPTHWISE, input=neutral)
    model, variables, z, x = make(bgr)
    found = jax.jit(model.apply)(variables, z, x)
    z, x = ((a[..., ::-1] - np.array(values.mean)) / values.std for a in (z, x))
    expected = jax.jit(SiamRPN(rgb).apply)(variables, np.float32(z), np.float32(x))
    check_close(found, expected)


def test_sizes_that_do_not_divide_are_refused():
    config = ModelConfig(instance_size=256)
    with pytest.raises(InputError, match="patch size 256 does not fit"):
        _ = config.score_size
    config = ModelConfig(exemplar_size=255, instance_size=127)
    with pytest.raises(InputError, match="instance_size 127 is smaller than exempl"):
        _ = config.score_size


def test_sizes_that_do_not_fit_are_refused_before_anything_is_made():
    config = dataclasses.replace(presets.PRESETS["base"]().model, instance_size=192)
    with pytest.raises(InputError, match="patch size 192 does not fit the efficient"):
        jax.eval_shape(SiamRPN(config).init_variables, jax.random.key(0))


def test_equal_configs_share_one_trace():
    traces = []

    @functools.partial(jax.jit, static_argnames="model")
    def anchors(model: SiamRPN):
        traces.append(model)
        return jnp.asarray(model_anchors(model.config))

    for instance_size in (92, 92, 100):
        model = SiamRPN(dataclasses.replace(DEPTHWISE, instance_size=instance_size))
        anchors(model)
    assert len(traces) == 2
    assert hash(SiamRPN(DEPTHWISE)) == hash(SiamRPN(dataclasses.replace(DEPTHWISE)))


def test_fresh_variables_give_moderate_logits():
    model, _, z, x = make(UP_CHANNEL)
    quickly = {"xla_backend_optimization_level": 0}
    init = jax.jit(model.init_variables, compiler_options=quickly)
    variables = init(jax.random.key(0))
    assert set(variables) == {"params", "batch_stats"}
    output = jax.jit(model.apply)(variables, z, x)
    assert 0.1 < output.detection.cls_logits.std() < 10


def test_one_pair_has_no_in_batch_negatives():
    config = presets.small().model
    z, x = (
        jnp.zeros((1, n, n, 3)) for n in (config.exemplar_size, config.instance_size)
    )
    model = SiamRPN(config)
    with pytest.raises(InputError, match="at least 2 pairs"):
        jax.eval_shape(
            lambda rng: model.init(rng, z, x, in_batch=True), jax.random.key(0)
        )


HYBRID = dataclasses.replace(
    presets.small().model,
    head=HeadConfig("hybrid", width=128, kernel_size=3),
    anchors=AnchorConfig(ratios=(1.0,)),
)


@pytest.mark.parametrize(
    "config",
    [presets.small().model, presets.paper().model, presets.pysot().model, HYBRID],
    ids=["small", "paper", "pysot", "hybrid"],
)
def test_operations_are_those_that_xla_counts(config):
    """XLA counts a multiply-add as 2, too, and what is done once an element."""
    config = dataclasses.replace(config, conv_impl="xla")
    model = SiamRPN(config)
    variables = jax.eval_shape(model.init_variables, jax.random.key(0))
    z, x = (
        jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
        for side in (config.exemplar_size, config.instance_size)
    )
    template = jax.eval_shape(functools.partial(embed_template, model), variables, z)
    lowered = jax.jit(functools.partial(detect, model)).lower(variables, template, x)
    counted = (lowered.cost_analysis() or {})["flops"]
    assert 0.99 * counted < count_flops(config) < counted


def test_small_costs_what_the_readme_says():
    config = presets.PRESETS["small"]().model
    assert f"{count_parameters(config) / 1e6:.2f}" == "0.59"
    assert f"{count_flops(config) / 1e9:.2f}" == "0.40"
