"""Convolutions without padding, in the formulation that is fast on the platform.

Two formulations of the same sum:

- ``xla``: ``lax.conv_general_dilated``; for GPU and TPU.
- ``winograd``: minimal filtering (Lavin & Gray, CVPR 2016) written as matrix products,
  with a gradient of the same form. XLA's CPU convolutions reach half of what its matrix
  products do, and their gradients less.

``conv2d`` takes kernels ``[k, k, C, O]``, so parameters and checkpoints do not know
which of them ran. Where the kernel stays the same for many calls, ``transform_kernel``
transforms it once and ``conv2d_transformed`` uses the result.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax

from siamrpn_jax.model.config import ConvImpl

_TILE = {1: 1, 2: 3, 3: 4, 4: 3, 5: 4}
"""Output side of a Winograd tile by kernel size; measured best on a CPU."""


class TransformedKernel(struct.PyTreeNode):
    """A kernel as its formulation multiplies with it, and what it was."""

    values: tuple[jax.Array, ...]
    """``xla``: the kernel itself; ``winograd``: n arrays ``[n, C, O]``, one a row of
    points, of the kernel over blocks of pixels."""
    size: int = struct.field(pytree_node=False)
    stride: int = struct.field(pytree_node=False)
    impl: ConvImpl = struct.field(pytree_node=False)
    depthwise: bool = struct.field(pytree_node=False, default=False)


def conv2d(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, impl: ConvImpl = "auto"
) -> jax.Array:
    """Convolution (cross-correlation) of NHWC maps, no padding.

    Args:
        x: ``[B, H, W, C]``.
        kernel: ``[k, k, C, O]``.
        stride: in both directions.
        impl: formulation; ``auto`` takes ``winograd`` on a CPU, else ``xla``. Kernels
            that Winograd's tiles do not fit (10x10 at stride 1) stay with ``xla``.

    Returns:
        ``[B, (H - k) // stride + 1, (W - k) // stride + 1, O]``.
    """
    size = kernel.shape[0]
    if _choose(impl, size, stride) == "xla":
        return _xla_conv(x, kernel, stride)
    # Its transforms need float32 also where maps and kernels are kept in bfloat16.
    blocks = _to_blocks(x.astype(jnp.float32), size, stride)
    y = _winograd(blocks, _block_kernel(kernel.astype(jnp.float32), stride))
    return _from_blocks(y, x.shape, size, stride).astype(x.dtype)


def depthwise_conv2d(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, impl: ConvImpl = "auto"
) -> jax.Array:
    """Convolution of each channel by itself, no padding.

    Args:
        x: ``[B, H, W, C]``.
        kernel: ``[k, k, 1, C]``.
        stride: in both directions.
        impl: ``xla``, or a sum of shifted maps, which on a CPU is ten times faster;
            ``auto`` as in ``conv2d``.

    Returns:
        ``[B, (H - k) // stride + 1, (W - k) // stride + 1, C]``.
    """
    if _choose(impl, 1, 1) == "xla":
        return _xla_conv(x, kernel, stride, groups=x.shape[-1])
    return _sum_of_windows(x, kernel, stride)


def pad(x: jax.Array, width: int) -> jax.Array:
    """``[B, H, W, C]`` with zeros all around."""
    return jnp.pad(x, ((0, 0), (width, width), (width, width), (0, 0)))


def double(x: jax.Array) -> jax.Array:
    """Interpolates ``[B, m, m, C]`` to ``[B, 2m - 1, 2m - 1, C]``, ends kept."""
    weights = jnp.asarray(doubling_matrix(x.shape[1]), x.dtype)
    return jnp.einsum("pi,qj,bijc->bpqc", weights, weights, x)


def doubling_matrix(size: int) -> np.ndarray:
    """Linear interpolation of m values to 2m - 1, ``[2m - 1, m]``.

    Example:
        >>> doubling_matrix(2).tolist()
        [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    places = np.arange(2 * size - 1)[:, None] / 2
    return np.maximum(1 - abs(places - np.arange(size)), 0).astype(np.float32)


def transform_kernel(
    kernel: jax.Array,
    *,
    stride: int = 1,
    impl: ConvImpl = "auto",
    depthwise: bool = False,
) -> TransformedKernel:
    """Does what depends on the kernel alone.

    Args:
        kernel: as ``conv2d``'s, or as ``depthwise_conv2d``'s.
        stride: as theirs.
        impl: as theirs.
        depthwise: which of them.
    """
    size = kernel.shape[0]
    if depthwise:
        return TransformedKernel((kernel,), size, stride, impl, depthwise=True)
    impl = _choose(impl, size, stride)
    values = (kernel,)
    if impl == "winograd":
        block_kernel = _block_kernel(kernel.astype(jnp.float32), stride)
        values = tuple(_kernel_to_points(block_kernel))
    return TransformedKernel(values, size, stride, impl)


def conv2d_transformed(x: jax.Array, kernel: TransformedKernel) -> jax.Array:
    """``conv2d`` or ``depthwise_conv2d`` with a transformed kernel."""
    size, stride = kernel.size, kernel.stride
    if kernel.depthwise:
        return depthwise_conv2d(x, kernel.values[0], stride=stride, impl=kernel.impl)
    if kernel.impl == "xla":
        return _xla_conv(x, kernel.values[0], stride)
    blocks = _to_blocks(x.astype(jnp.float32), size, stride)
    y = _multiply(blocks, kernel.values, taps=_blocking(size, stride)[1])
    return _from_blocks(y, x.shape, size, stride).astype(x.dtype)


def max_pool(x: jax.Array) -> jax.Array:
    """Maximum over 3x3 windows, stride 2, no padding; ``[B, H, W, C]``.

    Slices instead of ``reduce_window``: several times faster on a CPU, both ways.
    """
    for axis in (1, 2):
        last = 2 * ((x.shape[axis] - 3) // 2) + 1
        x = functools.reduce(
            jnp.maximum,
            (lax.slice_in_dim(x, i, i + last, 2, axis) for i in range(3)),
        )
    return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _sum_of_windows(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    total = jnp.zeros((), jnp.float32)
    for (i, j), window in _windows(x, len(kernel), stride):
        total += window * kernel[i, j, 0]
    return total.astype(x.dtype)


def _windows(
    x: jax.Array, size: int, stride: int
) -> Iterator[tuple[tuple[int, int], jax.Array]]:
    """What each tap of a kernel meets."""
    rows, columns = ((n - size) // stride * stride + 1 for n in x.shape[1:3])
    for i, j in itertools.product(range(size), repeat=2):
        yield (i, j), x[:, i : i + rows : stride, j : j + columns : stride]


def _windows_forward(x, kernel, stride):
    return _sum_of_windows(x, kernel, stride), (x, kernel)


def _windows_backward(stride, residuals, dy):
    # Written out because the automatic gradient pads and adds once per tap.
    x, kernel = residuals
    size, dy = len(kernel), jnp.asarray(dy)

    def add(total: jax.Array, place: jax.Array) -> tuple[jax.Array, None]:
        sample, row, column = place
        corner = sample, stride * row, stride * column, 0
        window = lax.dynamic_slice(x, corner, (1, size, size, x.shape[-1]))
        product = window[0] * dy[sample, row, column]
        return total + product.astype(jnp.float32), None

    # Place by place: sums down long columns are seven times slower on a CPU.
    places = jnp.asarray(np.indices(dy.shape[:3]).reshape(3, -1).T)
    nothing = jnp.zeros((size, size, x.shape[-1]), jnp.float32)
    dkernel = lax.scan(add, nothing, places)[0][:, :, None].astype(kernel.dtype)
    ends = [
        (size - 1, n - (stride * (m - 1) + 1), stride - 1)
        for n, m in zip(x.shape[1:3], dy.shape[1:3], strict=True)
    ]
    padded = lax.pad(dy, jnp.zeros((), dy.dtype), [(0, 0, 0), *ends, (0, 0, 0)])
    return _sum_of_windows(padded, kernel[::-1, ::-1], 1), dkernel


_sum_of_windows.defvjp(_windows_forward, _windows_backward)


def _choose(impl: ConvImpl, size: int, stride: int) -> Literal["xla", "winograd"]:
    if impl == "auto":
        impl = "winograd" if jax.default_backend() == "cpu" else "xla"
    return "winograd" if impl == "winograd" and _blocking(size, stride)[1] else "xla"


def _xla_conv(
    x: jax.Array, kernel: jax.Array, stride: int, *, groups: int = 1
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


# Strides: the same convolution with stride 1, from blocks of pixels to blocks of
# outputs. With blocks of one output, a kernel of stride s has ceil(k / s) taps; where
# that is too many for a tile, blocks of 2x2 outputs need fewer (11x11/2: 6 or 4).


def _blocking(size: int, stride: int) -> tuple[int, int]:
    """Side of a block of outputs, and the kernel's taps over blocks; 0: none fits."""
    for outputs in (1, 2):
        taps = -(-(size + stride * (outputs - 1)) // (stride * outputs))
        if taps in _TILE:
            return outputs, taps
    return 1, 0


def _block_kernel(kernel: jax.Array, stride: int) -> jax.Array:
    """``[k, k, C, O]`` to ``[taps, taps, block * C, outputs * O]``."""
    size, _, channels, _ = kernel.shape
    outputs, taps = _blocking(size, stride)
    block = stride * outputs
    starts = [stride * i for i in range(outputs)]
    gaps = [(start, taps * block - size - start) for start in starts]
    shifted = [jnp.pad(kernel, (i, j, (0, 0), (0, 0))) for i in gaps for j in gaps]
    kernel = jnp.concatenate(shifted, -1)
    kernel = kernel.reshape(taps, block, taps, block, channels, -1)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5)
    return kernel.reshape(taps, taps, block * block * channels, -1)


def _to_blocks(x: jax.Array, size: int, stride: int) -> jax.Array:
    """``[B, H, W, C]`` to ``[B, rows, columns, block * C]``."""
    outputs, taps = _blocking(size, stride)
    block = stride * outputs
    if block == 1:
        return x
    b, height, width, c = x.shape
    rows, columns = (
        -(-((n - size) // stride + 1) // outputs) + taps - 1 for n in (height, width)
    )
    x = _resize_to(x, rows * block, columns * block)
    x = x.reshape(b, rows, block, columns, block, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, rows, columns, block * block * c)


def _from_blocks(
    y: jax.Array, x_shape: tuple[int, ...], size: int, stride: int
) -> jax.Array:
    """``[B, rows, columns, outputs * O]`` to ``[B, H', W', O]``."""
    outputs, _ = _blocking(size, stride)
    if outputs == 1:
        return y
    b, rows, columns, _ = y.shape
    y = y.reshape(b, rows, columns, outputs, outputs, -1).transpose(0, 1, 3, 2, 4, 5)
    y = y.reshape(b, rows * outputs, columns * outputs, -1)
    height, width = ((n - size) // stride + 1 for n in x_shape[1:3])
    return y[:, :height, :width]


def _resize_to(x: jax.Array, rows: int, columns: int) -> jax.Array:
    """Cuts or zero-pads the far ends of ``[B, H, W, C]``."""
    x = x[:, :rows, :columns]
    _, h, w, _ = x.shape
    return jnp.pad(x, ((0, 0), (0, rows - h), (0, columns - w), (0, 0)))


# Winograd: for tiles of m outputs and kernels of k taps, n = m + k - 1 points,
# y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A, summed over channels: n² products of [tiles, C] with
# [C, O]. They go by rows of n points, so that what is in flight at a time stays small:
# memory traffic, not arithmetic, is what limits this on a CPU. The gradient is written
# out for reverse mode (grad, vjp, also twice); forward mode (jvp) needs ``xla`` or
# transformed kernels.


@jax.custom_vjp
def _winograd(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _multiply(x, _kernel_to_points(kernel), taps=kernel.shape[0])


def _winograd_forward(x, kernel):
    return _winograd(x, kernel), (x, kernel)


def _winograd_backward(residuals, dy):
    x, kernel = residuals
    k = kernel.shape[0]
    pairs = zip(_to_points(x, k), _gradient_to_points(dy, k), strict=True)
    dk_points = [
        lax.dot_general(x_row, dy_row, (((1,), (1,)), ((0,), (0,))))
        for x_row, dy_row in pairs
    ]
    # The gradient of the input is the full correlation with the turned kernel.
    edge = (k - 1, k - 1)
    padded = jnp.pad(dy, ((0, 0), edge, edge, (0, 0)))
    turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    dx = _multiply(padded, _kernel_to_points(turned), taps=k)
    return dx, _kernel_from_points(dk_points, k)


_winograd.defvjp(_winograd_forward, _winograd_backward)


def _multiply(x: jax.Array, kernel: Sequence[jax.Array], *, taps: int) -> jax.Array:
    """Maps ``[B, H, W, C]`` by a kernel in points: ``[B, H', W', O]``."""
    m = _TILE[taps]
    _, _, a = winograd_matrices(m, taps)
    batch, (rows, columns) = x.shape[0], (n - taps + 1 for n in x.shape[1:3])
    th, tw = -(-rows // m), -(-columns // m)
    folded = []
    for x_row, kernel_row in zip(_to_points(x, taps), kernel, strict=True):
        products = lax.dot_general(x_row, kernel_row, (((2,), (1,)), ((0,), (0,))))
        products = products.reshape(len(products), -1)
        folded.append(jnp.asarray(a, jnp.float32) @ products)
    tiles = jnp.stack([_combine(row, folded) for row in a])
    tiles = tiles.reshape(m, m, batch, th, tw, -1).transpose(2, 3, 0, 4, 1, 5)
    return tiles.reshape(batch, th * m, tw * m, -1)[:, :rows, :columns]


def _to_points(x: jax.Array, k: int) -> list[jax.Array]:
    """Bᵀ d B of all tiles: n rows of points ``[n, B * tiles, C]``."""
    m = _TILE[k]
    b, _, _ = winograd_matrices(m, k)
    th, tw = (-(-(size - k + 1) // m) for size in x.shape[1:3])
    x = _resize_to(x, th * m + k - 1, tw * m + k - 1)
    lines = [x[:, i : i + (th - 1) * m + 1 : m] for i in range(len(b))]
    points = []
    for row in b:
        line = _combine(row, lines)
        taps = [line[:, :, j : j + (tw - 1) * m + 1 : m] for j in range(len(b))]
        points.append(jnp.stack([_combine(r, taps) for r in b]))
    return [row.reshape(len(b), -1, x.shape[-1]) for row in points]


def _gradient_to_points(dy: jax.Array, k: int) -> list[jax.Array]:
    """A dy Aᵀ of all tiles: n rows of points ``[n, B * tiles, O]``."""
    m = _TILE[k]
    _, _, a = winograd_matrices(m, k)
    batch, rows, columns, features = dy.shape
    th, tw = -(-rows // m), -(-columns // m)
    tiles = _resize_to(dy, th * m, tw * m).reshape(batch, th, m, tw, m, features)
    lines = [tiles[:, :, i] for i in range(m)]
    points = []
    for column in a.T:
        line = _combine(column, lines)
        taps = [line[:, :, :, j] for j in range(m)]
        points.append(jnp.stack([_combine(c, taps) for c in a.T]))
    return [row.reshape(len(row), -1, features) for row in points]


def _kernel_to_points(kernel: jax.Array) -> list[jax.Array]:
    """G g Gᵀ: n rows of points ``[n, C, O]``."""
    k = kernel.shape[0]
    _, g, _ = winograd_matrices(_TILE[k], k)
    square = jnp.asarray(np.kron(g, g), jnp.float32)
    points = square @ kernel.reshape(k * k, -1)
    return list(points.reshape(len(g), len(g), *kernel.shape[2:]))


def _kernel_from_points(points: Sequence[jax.Array], k: int) -> jax.Array:
    """The transpose of ``_kernel_to_points``."""
    _, g, _ = winograd_matrices(_TILE[k], k)
    square = jnp.asarray(np.kron(g, g), jnp.float32)
    stacked = jnp.concatenate(points)
    kernel = square.T @ stacked.reshape(len(stacked), -1)
    return kernel.reshape(k, k, *stacked.shape[1:])


def _combine(coefficients: np.ndarray, arrays: Sequence[jax.Array]) -> jax.Array:
    """Sum of arrays times coefficients; those that are zero cost nothing."""
    terms = (
        array if c == 1 else array * np.float32(c)
        for c, array in zip(coefficients, arrays, strict=True)
        if c != 0
    )
    return functools.reduce(jnp.add, terms)


@functools.cache
def winograd_matrices(m: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Toom-Cook matrices of F(m, k): ``Bᵀ [n, n]``, ``G [n, k]``, ``Aᵀ [m, n]``.

    ``Aᵀ[(G g) * (Bᵀ d)]`` are the m outputs of a k-tap filter g over n = m + k - 1
    values d. Points 0, ±1, ±2, ±1/2 and infinity.
    """
    n = m + k - 1
    points = np.array([0, 1, -1, 2, -2, 0.5, -0.5])[: n - 1]
    infinity = np.zeros((1, n))
    infinity[0, -1] = 1
    evaluate = np.vstack([np.vander(points, n, increasing=True), infinity])
    at_k = np.vstack([np.vander(points, k, increasing=True), infinity[:, n - k :]])
    at_m = np.vstack([np.vander(points, m, increasing=True), infinity[:, n - m :]])
    interpolate = np.linalg.inv(evaluate).T
    interpolate[np.abs(interpolate) < 1e-12] = 0  # what rounding leaves of a zero
    return interpolate, at_k, at_m.T
