import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from random_variables import random_variables
from siamrpn_jax.model import rpn
from siamrpn_jax.model.config import HeadConfig
from siamrpn_jax.model.rpn import Template, correlate, correlate_depthwise

ANCHORS = 3


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def slow_correlate(x, kernel):
    """Eq. 2, one output at a time, float64; value and gradients of ``(y·dy)``."""
    x, kernel = x.astype(np.float64), kernel.astype(np.float64)
    batch, h, w, _, features = kernel.shape
    rows, columns = x.shape[1] - h + 1, x.shape[2] - w + 1
    y = np.zeros((batch, rows, columns, features))
    for b, i, j in np.ndindex(batch, rows, columns):
        y[b, i, j] = np.einsum("hwc,hwco->o", x[b, i : i + h, j : j + w], kernel[b])

    def gradients(dy):
        dx, dk = np.zeros_like(x), np.zeros_like(kernel)
        for b, i, j in np.ndindex(batch, rows, columns):
            dx[b, i : i + h, j : j + w] += kernel[b] @ dy[b, i, j]
            dk[b] += x[b, i : i + h, j : j + w, :, None] * dy[b, i, j]
        return dx, dk

    return y, gradients


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(function, x, kernel, dy):
    y, pullback = jax.vjp(function, x, kernel)
    return y, *pullback(dy)


@pytest.mark.parametrize("impl", ["group", "taps"])
def test_correlation_against_a_slow_sum(impl):
    x, kernel = normal(2, 6, 8, 5), normal(2, 3, 4, 5, 7)
    expected, slow_gradients = slow_correlate(x, kernel)
    dy = normal(*expected.shape)
    function = functools.partial(correlate, impl=impl)
    found = value_and_gradients(function, x, kernel, dy)
    for a, b in zip(found, (expected, *slow_gradients(dy)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)


def test_depthwise_correlation_against_a_grouped_convolution():
    x, kernel = normal(2, 6, 8, 5), normal(2, 3, 4, 5)
    dy = normal(2, 4, 5, 5)

    def grouped(x, kernel):
        """Every channel of every sample is a group of its own."""
        b, rows, columns, channels = x.shape
        y = lax.conv_general_dilated(
            x.transpose(1, 2, 0, 3).reshape(1, rows, columns, b * channels),
            kernel.transpose(1, 2, 0, 3).reshape(3, 4, 1, b * channels),
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=b * channels,
        )
        return y.reshape(4, 5, b, channels).transpose(2, 0, 1, 3)

    found = value_and_gradients(correlate_depthwise, x, kernel, dy)
    expected = value_and_gradients(grouped, x, kernel, dy)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_depthwise_correlation_against_a_loop():
    x, kernel = normal(2, 5, 6, 3), normal(2, 2, 3, 3)
    expected = np.zeros((2, 4, 4, 3))
    for b, i, j, c in np.ndindex(2, 4, 4, 3):
        expected[b, i, j, c] = (x[b, i : i + 2, j : j + 3, c] * kernel[b, ..., c]).sum()
    found = jax.jit(correlate_depthwise)(x, kernel)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_correlations_of_a_batch_equal_a_loop():
    for function, kernel in (
        (correlate, normal(3, 2, 2, 4, 5)),
        (functools.partial(correlate, impl="group"), normal(3, 2, 2, 4, 5)),
        (correlate_depthwise, normal(3, 2, 2, 4)),
    ):
        x = normal(3, 5, 5, 4)
        together, alone = jax.jit(function)(x, kernel), jax.jit(function)
        for i in range(3):
            found = alone(x[i : i + 1], kernel[i : i + 1])[0]
            np.testing.assert_allclose(together[i], found, rtol=1e-5, atol=1e-5)


def make_head(kind: Literal["up_channel", "depthwise"], **options):
    """A head of 6 channels with random variables, and features to feed it."""
    config = HeadConfig(kind, width=6, **options)
    heads = {"up_channel": rpn.UpChannelHead, "depthwise": rpn.DepthwiseHead}
    head = heads[kind](config, ANCHORS)
    z, x = normal(2, 5, 5, 4), normal(2, 9, 9, 4)

    def everything(head, z, x):
        template = head.embed_template(z, train=False)
        search = head.embed_search(x, train=False)
        cls = head.classify(search.cls, template.cls_kernel, train=False)
        reg = head.regress(search.reg, template.reg_kernel, train=False)
        return template, search, cls, reg

    variables = random_variables(nn.init(everything, head), z, x)
    return variables, (z, x), jax.jit(nn.apply(everything, head))(variables, z, x)


@pytest.mark.parametrize("adjust", [False, True])
def test_up_channel_head(adjust):
    variables, (z, x), (template, search, cls, reg) = make_head(
        "up_channel", kernel_size=3, adjust=adjust
    )
    params = variables["params"]

    def conv(name, y):
        kernel = params[name]["kernel"]
        layer = nn.Conv(kernel.shape[-1], kernel.shape[:2], padding="VALID")
        return np.asarray(layer.apply({"params": params[name]}, y))

    for name, values, found, kernel, features in (
        ("cls", 2, cls, template.cls_kernel, search.cls),
        ("reg", 4, reg, template.reg_kernel, search.reg),
    ):
        outputs = values * ANCHORS
        assert params[f"template_{name}"]["kernel"].shape == (3, 3, 4, 6 * outputs)
        # Output o of channel c is number c * outputs + o of the raised channels.
        raised = conv(f"template_{name}", z).reshape(2, 3, 3, 6, outputs)
        np.testing.assert_allclose(kernel, raised, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(
            features, conv(f"search_{name}", x), rtol=1e-4, atol=1e-4
        )
        expected, _ = slow_correlate(np.asarray(features), raised)
        if adjust and name == "reg":
            expected = conv("adjust", expected.astype(np.float32))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-3)
    assert ("adjust" in params) == adjust


@pytest.mark.parametrize("template_relu", [False, True])
def test_depthwise_head(template_relu):
    variables, (z, x), (_, _, cls, reg) = make_head(
        "depthwise", kernel_size=3, template_relu=template_relu
    )
    params, stats = variables["params"], variables["batch_stats"]

    def conv_bn(name, y):
        kernel = params[name]["kernel"]
        conv = nn.Conv(
            kernel.shape[-1], kernel.shape[:2], padding="VALID", use_bias=False
        )
        y = conv.apply({"params": params[name]}, y)
        of = {"params": params[f"{name}_bn"], "batch_stats": stats[f"{name}_bn"]}
        return np.asarray(nn.BatchNorm(True).apply(of, y))

    for name, values, found in (("cls", 2, cls), ("reg", 4, reg)):
        kernel = conv_bn(f"template_{name}", z)
        assert kernel.min() < 0
        kernel = np.maximum(kernel, 0) if template_relu else kernel
        features = np.maximum(conv_bn(f"search_{name}", x), 0)
        y = np.zeros((2, 5, 5, 6))
        for i, j in np.ndindex(5, 5):
            window = features[:, i : i + 3, j : j + 3]
            y[:, i, j] = (window * kernel).sum((1, 2))
        mixed = np.maximum(conv_bn(f"mix_{name}", y.astype(np.float32)), 0)
        out = params[f"out_{name}"]
        expected = mixed @ out["kernel"][0, 0] + out["bias"]
        assert found.shape == (2, 5, 5, values * ANCHORS)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-3)


def test_cross_correlation_head():
    """Exemplar features are the kernel; a factor, a bias, and a logit of 0 beside."""
    z, x = normal(2, 3, 3, 4), normal(2, 7, 7, 4)
    head = rpn.CrossCorrelationHead(HeadConfig("cross_correlation"))

    def everything(head, z, x):
        template = head.embed_template(z, train=False)
        search = head.embed_search(x, train=False)
        return head.classify(search.cls, template.cls_kernel), head.regress(x, z)

    variables = {"params": {"bias": np.array([0.7], np.float32)}}
    logits, boxes = nn.apply(everything, head)(variables, z, x)
    assert boxes is None and logits.shape == (2, 5, 5, 2)
    for b, i, j in np.ndindex(2, 5, 5):
        product = (x[b, i : i + 3, j : j + 3].astype(np.float64) * z[b]).sum()
        np.testing.assert_allclose(
            logits[b, i, j], [0, 0.001 * product + 0.7], atol=1e-5
        )


def test_hybrid_head():
    """The score of one head and the boxes of the other, on the same features."""
    z, x = normal(2, 5, 5, 4), normal(2, 9, 9, 4)
    config = HeadConfig("hybrid", width=6, kernel_size=3)
    hybrid = rpn.HybridHead(config, 1, "xla")
    boxes = rpn.DepthwiseHead(HeadConfig("depthwise", 6, 3), 1, "xla")

    def everything(head, z, x):
        template = head.embed_template(z, train=False)
        search = head.embed_search(x, train=False)
        deltas = head.regress(search.reg, template.reg_kernel, train=False)
        return head.classify(search.cls, template.cls_kernel, train=False), deltas

    variables = nn.init(everything, boxes)(jax.random.key(0), z, x)
    variables["params"]["bias"] = np.array([0.7], np.float32)
    logits, deltas = nn.apply(everything, hybrid)(variables, z, x)
    _, expected = nn.apply(everything, boxes)(variables, z, x)
    np.testing.assert_array_equal(deltas, expected)
    scores = rpn.CrossCorrelationHead(HeadConfig("cross_correlation"))
    template = nn.apply(lambda head, z, x: head.classify(x, z), scores)(
        {"params": {"bias": variables["params"]["bias"]}}, z, x
    )
    np.testing.assert_array_equal(logits, template)
    assert logits.shape == (2, 5, 5, 2) and deltas.shape == (2, 5, 5, 4)


def test_a_template_is_a_pytree():
    template = Template(jnp.zeros((1, 4, 4, 2)), jnp.ones((1, 4, 4, 2)))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), template, template)
    assert isinstance(stacked, Template) and stacked.reg_kernel.shape == (2, 1, 4, 4, 2)


@pytest.mark.parametrize("correlation", [correlate, correlate_depthwise])
def test_bfloat16_sums_in_float32(correlation):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 9, 9, 32)), jnp.bfloat16)
    shape = (2, 4, 4, 32) if correlation is correlate_depthwise else (2, 4, 4, 32, 3)
    kernel = jnp.asarray(rng.normal(size=shape), jnp.bfloat16)
    y = correlation(x, kernel)
    assert y.dtype == jnp.bfloat16
    exact = correlation(x.astype(jnp.float32), kernel.astype(jnp.float32))
    error = np.abs(np.asarray(y, np.float32) - exact).max() / np.abs(exact).max()
    assert error < 2**-8  # one rounding at the end, not one per tap
