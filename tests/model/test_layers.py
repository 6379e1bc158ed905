import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import closeness
from siamrpn_jax.model.layers import BatchNorm, Conv

check_close = functools.partial(closeness.check_close, rtol=2e-5, atol=2e-5)

rng = np.random.default_rng(0)
MAPS = (
    rng.normal(3.0, 2.0, (4, 3, 3, 5)).astype(np.float32),
    rng.normal(-1.0, 1.0, (4, 6, 5, 5)).astype(np.float32),
)
VARIANCES = rng.uniform(0.5, 2, 5).astype(np.float32)
VARIANCES[0] = 1e-6  # smaller than what is added to it
VARIABLES = {
    "params": {
        "scale": rng.uniform(0.5, 2, 5).astype(np.float32),
        "bias": rng.normal(size=5).astype(np.float32),
    },
    "batch_stats": {
        "mean": rng.normal(size=5).astype(np.float32),
        "var": VARIANCES,
    },
}


def rows(maps):
    return jnp.concatenate([x.reshape(-1, x.shape[-1]) for x in maps])


def ours(variables, maps, *, train=True, **kwargs):
    module = BatchNorm(momentum=0.8)
    return module.apply(variables, maps, train=train, mutable=["batch_stats"], **kwargs)


def flax(variables, maps, *, train=True):
    """flax's layer on the values of both maps side by side."""
    module = nn.BatchNorm(not train, momentum=0.8, use_fast_variance=False)
    return module.apply(variables, rows(maps), mutable=["batch_stats"])


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_against_flax(train):
    found, updates = jax.jit(functools.partial(ours, train=train))(VARIABLES, MAPS)
    expected, expected_updates = flax(VARIABLES, MAPS, train=train)
    assert [y.shape for y in found] == [x.shape for x in MAPS]
    check_close(rows(found), expected)
    check_close(updates, expected_updates)
    if not train:
        check_close(updates["batch_stats"], VARIABLES["batch_stats"])


def test_gradients_of_batch_norm_against_flax():
    weights = rng.normal(size=rows(MAPS).shape).astype(np.float32)

    def loss(function, joined):
        def total(params, maps):
            y, _ = function({**VARIABLES, "params": params}, maps)
            return (weights * (y if joined else rows(y))).sum()

        return jax.jit(jax.grad(total, (0, 1)))

    found = loss(ours, False)(VARIABLES["params"], MAPS)
    check_close(found, loss(flax, True)(VARIABLES["params"], MAPS))


def test_fresh_batch_norm_has_the_variables_of_flax():
    key = jax.random.key(0)
    found = BatchNorm().init(key, MAPS, train=True)
    expected = nn.BatchNorm(False).init(key, MAPS[0])
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    check_close(found, expected)


def test_batch_norm_leaves_averages_alone_if_told_to():
    expected, _ = jax.jit(ours)(VARIABLES, MAPS)
    found, updates = jax.jit(functools.partial(ours, update=False))(VARIABLES, MAPS)
    check_close(found, expected)
    for old, new in zip(
        jax.tree.leaves(VARIABLES["batch_stats"]), jax.tree.leaves(updates), strict=True
    ):
        np.testing.assert_array_equal(new, old)


def test_batch_norm_over_two_devices_equals_one():
    expected = jax.jit(ours)(VARIABLES, MAPS)
    shares = [x.reshape(2, 2, *x.shape[1:]) for x in MAPS]
    mapped = functools.partial(ours, axis_name="batch")
    mapped = jax.vmap(mapped, in_axes=(None, 0), axis_name="batch")
    y, updates = jax.jit(mapped)(VARIABLES, tuple(shares))
    joined = [part.reshape(x.shape) for part, x in zip(y, MAPS, strict=True)]
    check_close(joined, expected[0])
    on_both = jax.tree.map(lambda a: np.stack([a, a]), expected[1])
    check_close(updates, on_both)


def test_batch_norm_keeps_the_type_of_its_maps():
    maps = tuple(x.astype(jnp.bfloat16) for x in MAPS)
    found, updates = jax.jit(ours)(VARIABLES, maps)
    assert all(y.dtype == jnp.bfloat16 for y in found)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(updates))
    expected, _ = jax.jit(ours)(VARIABLES, MAPS)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.astype(jnp.float32), b, atol=0.05)


@pytest.mark.parametrize(
    ("size", "stride", "use_bias"), [(3, 1, True), (4, 2, False), (1, 1, True)]
)
def test_conv_against_flax(size, stride, use_bias):
    layer = Conv(7, size, stride, use_bias=use_bias)
    theirs = nn.Conv(7, (size, size), stride, padding="VALID", use_bias=use_bias)
    maps = tuple(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))) for x in MAPS)
    variables = jax.jit(layer.init)(jax.random.key(0), maps)
    expected_shapes = jax.eval_shape(theirs.init, jax.random.key(0), maps[0])
    shapes = jax.tree.map(jnp.shape, variables)
    assert shapes == jax.tree.map(jnp.shape, expected_shapes)
    if use_bias:
        variables["params"]["bias"] = jnp.arange(7.0)
    found = jax.jit(layer.apply)(variables, maps)
    assert isinstance(found, tuple) and len(found) == 2
    apply = jax.jit(lambda variables: tuple(theirs.apply(variables, x) for x in maps))
    check_close(found, apply(variables))


def test_conv_computes_in_the_given_type():
    layer = Conv(7, 3, dtype="bfloat16")
    found, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), MAPS)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("bfloat16")}
