import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from closeness import check_relative
from siamrpn_jax.model.convolutions import (
    TransformedKernel,
    conv2d,
    conv2d_transformed,
    depthwise_conv2d,
    double,
    max_pool,
    transform_kernel,
    winograd_matrices,
)

# Winograd's transforms cost about one digit: with k = 5 its points reach 2⁷.
TOLERANCES = {"xla": 2e-6, "winograd": 2e-5}

# Kernel size, stride, height, width: all layers of the presets, and sizes that divide
# neither by the stride nor by the Winograd tile.
LAYERS = [
    (1, 1, 5, 7),
    (2, 1, 9, 8),
    (3, 1, 10, 13),
    (5, 1, 12, 11),
    (8, 4, 28, 31),
    (4, 2, 15, 14),
    (11, 2, 23, 31),
    (3, 2, 9, 12),
    (2, 3, 10, 8),
]


def slow_conv(x, kernel, stride):
    """A sum over kernel taps, float64; its value and the gradients of ``(y·dy)``."""
    x, kernel = x.astype(np.float64), kernel.astype(np.float64)
    k = kernel.shape[0]
    rows, columns = ((n - k) // stride + 1 for n in x.shape[1:3])

    def window(array, i, j):
        end_i, end_j = i + stride * rows, j + stride * columns
        return array[:, i:end_i:stride, j:end_j:stride]

    y = np.zeros((x.shape[0], rows, columns, kernel.shape[3]))
    taps = [(i, j) for i in range(k) for j in range(k)]
    for i, j in taps:
        y += window(x, i, j)[:, :rows, :columns] @ kernel[i, j]

    def gradients(dy):
        dx, dk = np.zeros_like(x), np.zeros_like(kernel)
        for i, j in taps:
            window(dx, i, j)[:, :rows, :columns] += dy @ kernel[i, j].T
            dk[i, j] = np.einsum("bhwc,bhwo->co", window(x, i, j), dy)
        return dx, dk

    return y, gradients


@functools.partial(jax.jit, static_argnames=("stride", "impl"))
def convolve(x, kernel, dy, *, stride, impl):
    """Value and gradients of the product's convolution."""
    conv = functools.partial(conv2d, stride=stride, impl=impl)
    y, pullback = jax.vjp(conv, x, kernel)
    return y, pullback(dy)


def arrays(k, height, width, *, channels=3, features=4, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(batch, height, width, channels))
    kernel = rng.normal(size=(k, k, channels, features))
    return x.astype(np.float32), kernel.astype(np.float32)


@pytest.mark.parametrize("impl", ["xla", "winograd"])
@pytest.mark.parametrize(("k", "stride", "height", "width"), LAYERS)
def test_values_and_gradients_against_a_slow_sum(impl, k, stride, height, width):
    x, kernel = arrays(k, height, width)
    expected, slow_gradients = slow_conv(x, kernel, stride)
    dy = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
    y, gradients = convolve(x, kernel, dy, stride=stride, impl=impl)
    assert y.shape == expected.shape
    check_relative(y, expected, TOLERANCES[impl])
    for found, wanted in zip(gradients, slow_gradients(dy), strict=True):
        check_relative(found, wanted, TOLERANCES[impl])


@pytest.mark.parametrize("impl", TOLERANCES)
@pytest.mark.parametrize(
    ("k", "stride", "height", "width"),
    [(3, 1, 7, 9), (3, 2, 9, 9), (5, 1, 8, 6), (5, 2, 13, 11), (3, 2, 8, 10)],
)
def test_depthwise_against_a_slow_sum(impl, k, stride, height, width):
    """As a convolution whose kernel is 0 between different channels."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, height, width, 4)).astype(np.float32)
    kernel = rng.normal(size=(k, k, 1, 4)).astype(np.float32)
    expected, gradients = slow_conv(x, kernel * np.eye(4), stride)
    conv = functools.partial(depthwise_conv2d, stride=stride, impl=impl)
    found, pull = jax.vjp(conv, x, kernel)
    dy = rng.normal(size=expected.shape).astype(np.float32)
    dx, dkernel = gradients(dy)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    found_dx, found_dkernel = pull(dy)
    np.testing.assert_allclose(found_dx, dx, rtol=1e-4, atol=1e-5)
    own = np.diagonal(dkernel, axis1=2, axis2=3)[:, :, None]
    np.testing.assert_allclose(found_dkernel, own, rtol=1e-4, atol=1e-4)


def test_doubling_keeps_the_ends_and_interpolates():
    x = np.random.default_rng(3).normal(size=(2, 5, 5, 3)).astype(np.float32)
    expected = np.zeros((2, 9, 9, 3))
    expected[:, ::2, ::2] = x
    expected[:, 1::2, ::2] = (x[:, 1:] + x[:, :-1]) / 2
    expected[:, :, 1::2] = (expected[:, :, :-1:2] + expected[:, :, 2::2]) / 2
    np.testing.assert_allclose(double(jnp.asarray(x)), expected, rtol=1e-5, atol=1e-6)


def test_precision_with_many_channels():
    x, kernel = arrays(5, 16, 16, channels=96, features=16)
    expected, _ = slow_conv(x, kernel, 1)
    check_relative(jax.jit(conv2d)(x, kernel), expected, 2e-5)


@pytest.mark.parametrize("impl", ["xla", "winograd"])
@pytest.mark.parametrize("k", [1, 3])
def test_bfloat16_stays_bfloat16(impl, k):
    x, kernel = (jnp.asarray(a, jnp.bfloat16) for a in arrays(k, 9, 9))
    expected, _ = slow_conv(np.asarray(x), np.asarray(kernel), 1)
    dy = jnp.ones(expected.shape, jnp.bfloat16)
    y, (dx, dk) = convolve(x, kernel, dy, stride=1, impl=impl)
    assert [a.dtype for a in (y, dx, dk)] == 3 * [jnp.bfloat16]
    check_relative(y.astype(jnp.float32), expected, 1e-2)


def test_vmap_equals_a_loop():
    x, kernel = arrays(3, 9, 9, batch=4)
    x, kernel = x[:, None], np.stack([kernel, 2 * kernel, -kernel, kernel + 1])
    conv = functools.partial(conv2d, impl="winograd")

    def gradient(x, kernel):
        return jax.grad(lambda *a: jnp.square(conv(*a)).sum(), (0, 1))(x, kernel)

    many, one = jax.jit(jax.vmap(gradient)), jax.jit(gradient)
    together = many(x, kernel)
    for i in range(4):
        for a, b in zip(together, one(x[i], kernel[i]), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-3)


def test_second_derivatives():
    """Gradient penalties and Hessian products differentiate the gradient again."""
    x, kernel = arrays(3, 7, 7, batch=1)

    def penalty(kernel, impl):
        def loss(x):
            return jnp.sin(conv2d(x, kernel, impl=impl)).sum()

        return jnp.square(jax.grad(loss)(x)).sum()

    second = jax.jit(jax.grad(penalty), static_argnums=1)
    expected = second(kernel, "xla")
    check_relative(second(kernel, "winograd"), np.asarray(expected), 1e-4)


# --- Transformed kernels ---


@functools.partial(jax.jit, static_argnames=("stride", "impl"))
def convolve_transformed(x, kernel, *, stride, impl):
    """A transformed kernel, what it gives, and what the plain one gives."""
    transformed = transform_kernel(kernel, stride=stride, impl=impl)
    plain = conv2d(x, kernel, stride=stride, impl=impl)
    return transformed, conv2d_transformed(x, transformed), plain


# 9x9 goes by blocks of 2x2 outputs at stride 1, too; 10x10 fits no tile.
@pytest.mark.parametrize("impl", ["xla", "winograd"])
@pytest.mark.parametrize(
    ("k", "stride", "height", "width"), [*LAYERS, (9, 1, 17, 14), (10, 1, 12, 15)]
)
def test_prepared_kernels_against_a_slow_sum(impl, k, stride, height, width):
    x, kernel = arrays(k, height, width)
    expected, _ = slow_conv(x, kernel, stride)
    transformed, y, plain = convolve_transformed(x, kernel, stride=stride, impl=impl)
    assert (transformed.size, transformed.stride) == (k, stride)
    assert transformed.impl == ("xla" if k == 10 else impl)
    assert y.shape == expected.shape and y.dtype == jnp.float32
    check_relative(y, expected, TOLERANCES[impl])
    check_relative(y, np.asarray(plain), TOLERANCES[impl])


@pytest.mark.parametrize("impl", ["xla", "winograd"])
def test_prepared_in_bfloat16(impl):
    x, kernel = (jnp.asarray(a, jnp.bfloat16) for a in arrays(3, 9, 9))
    expected, _ = slow_conv(np.asarray(x), np.asarray(kernel), 1)
    _, y, _ = convolve_transformed(x, kernel, stride=1, impl=impl)
    assert y.dtype == jnp.bfloat16
    check_relative(y.astype(jnp.float32), expected, 1e-2)


def test_prepared_kernels_are_pytrees():
    """One function for all kernels of a kind, and a batch of them under vmap."""
    x, kernel = arrays(4, 9, 8, batch=3)
    kernels = np.stack([kernel, -kernel, kernel + 1])
    traces = []

    @jax.jit
    def convolve_one(x, transformed: TransformedKernel):
        traces.append(transformed.impl)
        return conv2d_transformed(x[None], transformed)

    transform = functools.partial(transform_kernel, stride=2, impl="winograd")
    singles = [convolve_one(x[i], transform(jnp.asarray(kernels[i]))) for i in range(3)]
    assert traces == ["winograd"]
    stacked = jax.vmap(transform)(jnp.asarray(kernels))
    assert {len(leaf) for leaf in jax.tree.leaves(stacked)} == {3}
    assert (stacked.size, stacked.stride) == (4, 2)
    together = jax.vmap(convolve_one)(x, stacked)
    for i, (found, single) in enumerate(zip(together, singles, strict=True)):
        expected, _ = slow_conv(x[i : i + 1], kernels[i], 2)
        check_relative(single, expected, 2e-5)
        check_relative(found, expected, 2e-5)


@pytest.mark.parametrize("impl", ["xla", "winograd"])
@pytest.mark.parametrize(("k", "stride"), [(3, 1), (11, 2)])
def test_forward_mode_through_prepared_kernels(impl, k, stride):
    """The sum is linear in maps and in kernels: y' = conv(x', k) + conv(x, k')."""
    (x, kernel), (dx, dk) = (arrays(k, 15, 14, seed=seed) for seed in (0, 1))

    @jax.jit
    def tangent(x, kernel, dx, dk):
        def conv(x, kernel):
            return conv2d_transformed(
                x, transform_kernel(kernel, stride=stride, impl=impl)
            )

        return jax.jvp(conv, (x, kernel), (dx, dk))[1]

    expected = slow_conv(dx, kernel, stride)[0] + slow_conv(x, dk, stride)[0]
    check_relative(tangent(x, kernel, dx, dk), expected, TOLERANCES[impl])


def equations(jaxpr):
    """All equations of a program, those of the functions it calls included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def test_what_winograd_multiplies():
    """3x3 over 14x14: nine tiles of 6x6 products, not 144 outputs of 3x3."""
    x, kernel = jnp.zeros((1, 14, 14, 32)), jnp.zeros((3, 3, 32, 8))
    transformed = transform_kernel(kernel, impl="winograd")
    programs = {
        "transformed": jax.make_jaxpr(conv2d_transformed)(x, transformed),
        "plain": jax.make_jaxpr(functools.partial(conv2d, impl="winograd"))(x, kernel),
    }
    dots = {}
    for name, program in programs.items():
        found = list(equations(program.jaxpr))
        names = {equation.primitive.name for equation in found}
        assert "conv_general_dilated" not in names
        dots[name] = [e for e in found if e.primitive.name == "dot_general"]
    products = 0
    for equation in dots["transformed"]:
        (contracted, _), (batch, _) = equation.params["dimension_numbers"]
        if batch:
            over = equation.invars[0].aval.shape[contracted[0]]
            products += over * equation.outvars[0].aval.size
    assert products == 9 * 36 * 32 * 8
    # A row of points each: products, and their sum into rows of the tile.
    assert len(dots["transformed"]) == 2 * 6
    assert len(dots["plain"]) == len(dots["transformed"]) + 1  # G g Gᵀ


# --- Pieces ---


@pytest.mark.parametrize(("m", "k"), [(3, 2), (4, 3), (4, 5), (2, 3), (6, 3), (1, 2)])
def test_winograd_matrices_filter(m, k):
    rng = np.random.default_rng(m + k)
    data, taps = rng.normal(size=m + k - 1), rng.normal(size=k)
    b, g, a = winograd_matrices(m, k)
    expected = np.correlate(data, taps, "valid")
    np.testing.assert_allclose(a @ ((g @ taps) * (b @ data)), expected, rtol=1e-9)


@pytest.mark.parametrize("shape", [(3, 3), (9, 12), (10, 7)])
def test_max_pool_against_flax(shape):
    x = np.random.default_rng(0).normal(size=(2, *shape, 3)).astype(np.float32)

    def ours(x):
        return jnp.sin(max_pool(x)).sum(), max_pool(x)

    def theirs(x):
        y = nn.max_pool(x, (3, 3), strides=(2, 2))
        return jnp.sin(y).sum(), y

    found, expected = (jax.jit(jax.grad(f, has_aux=True))(x) for f in (ours, theirs))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
