"""Fused weights against ``model``'s plain network, which has its own tests."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plain_network as plain
from closeness import check_relative
from random_variables import random_variables
from siamrpn_jax import presets
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.model import fused
from siamrpn_jax.model.boxes import ltwh_to_cxcywh
from siamrpn_jax.model.config import (
    AnchorConfig,
    BackboneConfig,
    ConvImpl,
    HeadConfig,
    InputConfig,
    ModelConfig,
)
from siamrpn_jax.model.fused import FusedWeights, as_fused, fuse
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking.selection import select_box
from siamrpn_jax.tracking.state import first_state, search_patches
from siamrpn_jax.weights import load_weights
from small_models import TINY_EFFICIENT

COMPACT = ModelConfig(
    backbone=BackboneConfig("compact", widths=(4, 8, 8)),  # the last one is residual
    head=HeadConfig("depthwise", width=8, kernel_size=1),
    anchors=AnchorConfig(ratios=(0.5, 1.0, 2.0)),
    input=InputConfig("rgb", mean=(90.0, 120.0, 140.0), std=(50.0, 60.0, 70.0)),
    exemplar_size=60,
    instance_size=76,
    conv_impl="xla",
)
ALEXNET = dataclasses.replace(
    COMPACT,
    backbone=BackboneConfig("alexnet", widths=(4, 6, 8, 6, 8)),
    head=HeadConfig("up_channel", width=8, kernel_size=3),
    exemplar_size=103,
    instance_size=119,
)
BGR = dataclasses.replace(COMPACT.input, order="bgr")
CONFIGS = {
    "compact depthwise rgb": COMPACT,
    "alexnet up_channel bgr": dataclasses.replace(ALEXNET, input=BGR),
    "compact up_channel adjust bgr": dataclasses.replace(
        COMPACT,
        input=BGR,
        head=HeadConfig("up_channel", width=8, kernel_size=3, adjust=True),
    ),
    "alexnet depthwise rgb": dataclasses.replace(
        ALEXNET, head=HeadConfig("depthwise", width=6, template_relu=True)
    ),
    "compact hybrid bgr": dataclasses.replace(
        COMPACT,
        input=BGR,
        head=HeadConfig("hybrid", width=6, kernel_size=3, template_relu=True),
        anchors=AnchorConfig(ratios=(1.0,)),
    ),
    "efficientnet_lite hybrid with a neck": dataclasses.replace(
        COMPACT,
        backbone=TINY_EFFICIENT,
        neck_width=6,
        head=HeadConfig("hybrid", width=6, kernel_size=1),
        anchors=AnchorConfig(ratios=(1.0,)),
        exemplar_size=97,
        instance_size=145,
    ),
    "alexnet cross_correlation rgb": dataclasses.replace(
        ALEXNET,
        head=HeadConfig("cross_correlation"),
        anchors=AnchorConfig(ratios=(1.0,)),
    ),
}
TOLERANCES = {"xla": 1e-5, "winograd": 5e-5}
"""Largest error as a share of the largest value of the same array."""


def make_pair(config: ModelConfig):
    """Two random exemplar and two search patches."""
    rng = np.random.default_rng(1)
    sizes = config.exemplar_size, config.instance_size
    return [rng.integers(0, 256, (2, n, n, 3), np.uint8) for n in sizes]


def make_variables(config: ModelConfig):
    """Random ones, BatchNorm's means, variances and signs of scales included."""
    variables = random_variables(SiamRPN(config).init, *make_pair(config))
    rng = np.random.default_rng(2)

    def turn(path, leaf):
        if path[-1].key != "scale":
            return leaf
        # Pooling does not commute with a factor below 0.
        return leaf * rng.choice([-1, 1], leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(turn, variables)


def make_run(module, config: ModelConfig):
    """``(weights, z, x)`` to a template and a detection, by the module's functions."""

    @jax.jit
    def run(weights, z, x):
        template = module.embed_template(SiamRPN(config), weights, z)
        return template, module.detect(SiamRPN(config), weights, template, x)

    return run


@functools.cache
def reference(name: str):
    """What the plain network says, and what it is asked."""
    config = CONFIGS[name]
    variables, pair = make_variables(config), make_pair(config)
    return variables, pair, make_run(plain, config)(variables, *pair)


# "alexnet depthwise" has no convolution that the others have not: it compiles slowly.
@pytest.mark.parametrize(
    ("name", "impl"),
    [(name, "xla") for name in CONFIGS]
    + [(name, "winograd") for name in list(CONFIGS)[:3]],
)
def test_fused_weights_against_the_plain_network(name, impl):
    variables, pair, expected = reference(name)
    config = dataclasses.replace(CONFIGS[name], conv_impl=impl)
    weights = fuse(SiamRPN(config), variables)
    found = make_run(fused, config)(weights, *pair)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    check_relative(found, expected, TOLERANCES[impl])


@pytest.mark.parametrize("name", list(CONFIGS)[:2])
def test_variables_are_fused_in_each_call(name):
    variables, pair, expected = reference(name)
    found = make_run(fused, CONFIGS[name])(variables, *pair)
    check_relative(found, expected, TOLERANCES["xla"])


def test_prepared_weights_stay_as_they_are():
    variables, _, _ = reference("compact depthwise rgb")
    model = SiamRPN(COMPACT)
    weights = as_fused(model, variables)
    assert isinstance(weights, FusedWeights)
    assert as_fused(model, weights) is weights


def test_what_is_prepared():
    """BatchNorm is gone, the search branch is one convolution of twice the width."""
    variables, _, _ = reference("alexnet depthwise rgb")
    weights = fuse(SiamRPN(CONFIGS["alexnet depthwise rgb"]), variables)
    shapes = [
        (conv.kernel.values[0].shape, len(conv.bias)) for conv in weights.backbone
    ]
    assert shapes == [
        ((11, 11, 3, 4), 4),
        ((5, 5, 4, 6), 6),
        ((3, 3, 6, 8), 8),
        ((3, 3, 8, 6), 6),
        ((3, 3, 6, 8), 8),
    ]
    assert weights.search.kernel.values[0].shape == (3, 3, 8, 12)
    outputs = [conv.kernel.values[0].shape for conv in weights.cls_output]
    assert outputs == [(1, 1, 6, 6), (1, 1, 6, 2 * 3)]
    folded = variables["params"]["backbone"]["conv2"]["kernel"].astype(np.float64)
    norm = variables["params"]["backbone"]["bn2"]
    stats = variables["batch_stats"]["backbone"]["bn2"]
    folded = folded * norm["scale"] / np.sqrt(stats["var"] + 1e-5)
    check_relative(weights.backbone[1].kernel.values[0], folded, 1e-6)


def make_gradients(module, name: str, impl: ConvImpl):
    """Gradients of some sum of the answers with respect to all parameters."""
    variables, (_, x), (template, detection) = reference(name)
    model = SiamRPN(dataclasses.replace(CONFIGS[name], conv_impl=impl))
    stats, rng = variables["batch_stats"], np.random.default_rng(3)
    directions = [rng.normal(size=leaf.shape) for leaf in jax.tree.leaves(detection)]

    @jax.jit
    @jax.grad
    def gradients(params):
        values = {"params": params, "batch_stats": stats}
        found = jax.tree.leaves(module.detect(model, values, template, x))
        pairs = zip(found, directions, strict=True)
        return sum(jnp.vdot(leaf, direction) for leaf, direction in pairs)

    return gradients(variables["params"])


@pytest.mark.parametrize(
    ("name", "impl"),
    [("compact depthwise rgb", "winograd"), ("alexnet up_channel bgr", "xla")],
)
def test_gradients_through_variables(name, impl):
    """Whoever fine-tunes through the tracker gets the plain network's gradients."""
    expected = make_gradients(plain, name, "xla")
    found = make_gradients(fused, name, impl)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(expected["backbone"]))
    check_relative(found, expected, 2e-4)


def test_bfloat16_is_near():
    """About as near to float32 as the plain network in bfloat16."""
    variables, pair, expected = reference("compact depthwise rgb")
    config = dataclasses.replace(COMPACT, dtype="bfloat16")
    weights = fuse(SiamRPN(config), variables)
    found, rounded = (
        jax.tree.leaves(make_run(module, config)(values, *pair))
        for module, values in ((fused, weights), (plain, variables))
    )
    assert weights.backbone[0].bias.dtype == jnp.bfloat16
    assert [leaf.dtype for leaf in found] == [leaf.dtype for leaf in rounded]
    for a, b, c in zip(found, rounded, jax.tree.leaves(expected), strict=True):
        ours, theirs = (float(jnp.abs(leaf - c).mean()) for leaf in (a, b))
        assert 0 < ours <= 3 * theirs
        assert ours <= 0.05 * float(jnp.abs(c).mean())


# --- Real sizes ---


def test_trained_weights_at_full_size():
    """On a generated scene, Winograd finds what the plain convolutions find."""
    loaded = load_weights("small")
    config, variables = loaded.model.config, loaded.variables
    plain_model, model = (
        SiamRPN(dataclasses.replace(config, conv_impl=impl))
        for impl in ("xla", "winograd")
    )
    frames, boxes = make_sequence(3, length=4)
    first = jnp.zeros((), jnp.int32)
    state = first_state(
        jnp.asarray(ltwh_to_cxcywh(boxes[0]), jnp.float32),
        jnp.full(3, 118.0),
        jnp.array([320.0, 240.0]),
    )
    # The exemplar is the middle of the first frame's search patch.
    patches = [
        search_patches(state, jnp.asarray(frames[t])[None], first, model=model)[0]
        for t in (0, 3)
    ]
    edge = (config.instance_size - config.exemplar_size) // 2
    z, x = patches[0][None, edge:-edge, edge:-edge], patches[1][None]
    found = make_run(fused, model.config)(fuse(model, variables), z, x)
    expected = make_run(plain, plain_model.config)(variables, z, x)
    check_relative(found, expected, 1e-5)
    select = functools.partial(select_box, model=model, config=loaded.tracker_config)
    (_, output), (_, wanted) = (select(state, d) for _, d in (found, expected))
    assert output.score > 0.9
    np.testing.assert_allclose(output.box, wanted.box, atol=1e-3)
    np.testing.assert_allclose(output.score, wanted.score, atol=1e-5)


def test_sizes_of_the_paper():
    """What the device holds and answers, without computing any."""
    model = SiamRPN(presets.paper().model)
    variables = jax.eval_shape(model.init_variables, jax.random.key(0))

    def run(variables, z, x):
        weights = fuse(model, variables)
        template = fused.embed_template(model, weights, z)
        return weights, template, fused.detect(model, weights, template, x)

    z, x = jnp.zeros((2, 127, 127, 3)), jnp.zeros((2, 255, 255, 3))
    weights, template, detection = jax.eval_shape(run, variables, z, x)
    shapes = [leaf.shape for leaf in jax.tree.leaves((template, detection))]
    assert shapes[:2] == [(2, 4, 4, 256, 10), (2, 4, 4, 256, 20)]
    assert shapes[2:] == [(2, 17, 17, 5, 2), (2, 17, 17, 5, 4)]
    # Template convolutions run once a target and stay as they are.
    kernels = [conv.kernel.values[0] for conv in weights.template]
    assert [k.shape for k in kernels] == [(3, 3, 256, 2560), (3, 3, 256, 5120)]
    assert (weights.cls_output, weights.reg_output) == ((), ())
