"""Convolutions without padding, in the formulation that is fast on the platform.

One function, :func:`conv2d`, two formulations of the same sum:

- ``xla``: ``lax.conv_general_dilated``; for GPU and TPU.
- ``winograd``: minimal filtering (Lavin & Gray, CVPR 2016) written as batched matrix
  products, with a gradient of the same form. XLA's CPU convolutions reach half of what
  its matrix products do, and their gradients less. Kernels that span more than five
  strides (conv1 of AlexNet) stay with ``xla``.

Both take the same kernels ``[k, k, C, O]``, so parameters and checkpoints do not know
which of them ran.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

ConvImpl = Literal["auto", "xla", "winograd"]

_TILE = {2: 3, 3: 4, 5: 4}
"""Output side of a Winograd tile by kernel size; measured best on a CPU."""


def conv2d(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, impl: ConvImpl = "auto"
) -> jax.Array:
    """Convolution (cross-correlation) of NHWC maps, no padding.

    Args:
        x: ``[B, H, W, C]``.
        kernel: ``[k, k, C, O]``.
        stride: in both directions.
        impl: formulation; ``auto`` takes ``winograd`` on a CPU, else ``xla``.

    Returns:
        ``[B, (H - k) // stride + 1, (W - k) // stride + 1, O]``.
    """
    if impl == "auto":
        impl = "winograd" if jax.default_backend() == "cpu" else "xla"
    taps = -(-kernel.shape[0] // stride)
    if impl == "xla" or (taps > 1 and taps not in _TILE):
        return _xla_conv(x, kernel, stride)
    if stride > 1:
        x, kernel = _unstride(x, kernel, stride)
    if taps == 1:
        return x @ kernel[0, 0]
    # Its transforms need float32 also where maps and kernels are kept in bfloat16.
    y = _winograd(x.astype(jnp.float32), kernel.astype(jnp.float32))
    return y.astype(x.dtype)


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


def space_to_depth(x: jax.Array, block: int) -> jax.Array:
    """``[B, H, W, C]`` to ``[B, H/block, W/block, block * block * C]``."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // block, block, w // block, block, c)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // block, w // block, block * block * c)


def _xla_conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _unstride(
    x: jax.Array, kernel: jax.Array, stride: int
) -> tuple[jax.Array, jax.Array]:
    """The same convolution with stride 1, over blocks of ``stride x stride`` pixels."""
    k, _, channels, features = kernel.shape
    taps = -(-k // stride)
    pad = taps * stride - k
    kernel = jnp.pad(kernel, ((0, pad), (0, pad), (0, 0), (0, 0)))
    kernel = kernel.reshape(taps, stride, taps, stride, channels, features)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(taps, taps, -1, features)
    rows, columns = (((n - k) // stride + taps) * stride for n in x.shape[1:3])
    x = _resize_to(x, rows, columns)
    return space_to_depth(x, stride), kernel


def _resize_to(x: jax.Array, rows: int, columns: int) -> jax.Array:
    """Cuts or zero-pads the far ends of ``[B, H, W, C]``."""
    x = x[:, :rows, :columns]
    _, h, w, _ = x.shape
    return jnp.pad(x, ((0, 0), (0, rows - h), (0, columns - w), (0, 0)))


# Winograd: for tiles of m outputs and kernels of k taps, n = m + k - 1 points,
# y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A, summed over channels. Each of the three transforms is
# one matrix product with a Kronecker square, the ⊙ with its sum n² products of
# [tiles, C] with [C, O]. The gradient is written out for reverse mode (grad, vjp, also
# twice); forward mode (jvp) needs `xla`.


@jax.custom_vjp
def _winograd(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _from_points(_to_points(x, kernel.shape[0]), kernel, x.shape)


def _winograd_forward(x, kernel):
    return _winograd(x, kernel), (x, kernel)


def _winograd_backward(residuals, dy):
    x, kernel = residuals
    k, _, channels, features = kernel.shape
    m = _TILE[k]
    _, kron_g, kron_a = _kronecker_squares(m, k)
    points = _to_points(x, k)
    batch, rows, columns = x.shape[0], dy.shape[1], dy.shape[2]
    th, tw = -(-rows // m), -(-columns // m)
    tiles = _resize_to(dy, th * m, tw * m).reshape(batch, th, m, tw, m, features)
    tiles = tiles.transpose(2, 4, 0, 1, 3, 5).reshape(m * m, -1)
    dy_points = (kron_a.T @ tiles).reshape(points.shape[0], -1, features)
    dk_points = lax.dot_general(points, dy_points, (((1,), (1,)), ((0,), (0,))))
    dk = (kron_g.T @ dk_points.reshape(points.shape[0], -1)).reshape(kernel.shape)
    # The gradient of the input is the full correlation with the turned kernel.
    edge = (k - 1, k - 1)
    padded = jnp.pad(dy, ((0, 0), edge, edge, (0, 0)))
    turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    return _from_points(_to_points(padded, k), turned, padded.shape), dk


_winograd.defvjp(_winograd_forward, _winograd_backward)


def _to_points(x: jax.Array, k: int) -> jax.Array:
    """Bᵀ d B of all tiles, ``[n², B * tiles, C]``."""
    m = _TILE[k]
    n = m + k - 1
    kron_b, _, _ = _kronecker_squares(m, k)
    batch, rows, columns, channels = x.shape
    th, tw = -(-(rows - k + 1) // m), -(-(columns - k + 1) // m)
    x = _resize_to(x, th * m + k - 1, tw * m + k - 1)
    taps = [
        x[:, i : i + (th - 1) * m + 1 : m, j : j + (tw - 1) * m + 1 : m].reshape(-1)
        for i in range(n)
        for j in range(n)
    ]
    points = jnp.asarray(kron_b) @ jnp.stack(taps)
    return points.reshape(n * n, batch * th * tw, channels)


def _from_points(
    points: jax.Array, kernel: jax.Array, x_shape: tuple[int, ...]
) -> jax.Array:
    """The products with the kernel and their way back to maps ``[B, H', W', O]``."""
    k, _, channels, features = kernel.shape
    m = _TILE[k]
    _, kron_g, kron_a = _kronecker_squares(m, k)
    batch = x_shape[0]
    rows, columns = x_shape[1] - k + 1, x_shape[2] - k + 1
    th, tw = -(-rows // m), -(-columns // m)
    weights = jnp.asarray(kron_g) @ kernel.reshape(k * k, -1)
    weights = weights.reshape(-1, channels, features)
    products = lax.dot_general(points, weights, (((2,), (1,)), ((0,), (0,))))
    tiles = jnp.asarray(kron_a) @ products.reshape(products.shape[0], -1)
    tiles = tiles.reshape(m, m, batch, th, tw, features).transpose(2, 3, 0, 4, 1, 5)
    return tiles.reshape(batch, th * m, tw * m, features)[:, :rows, :columns]


@functools.cache
def _kronecker_squares(m: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``Bᵀ⊗Bᵀ [n², n²]``, ``G⊗G [n², k²]`` and ``Aᵀ⊗Aᵀ [m², n²]``, float32."""
    matrices = (np.kron(matrix, matrix) for matrix in winograd_matrices(m, k))
    b, g, a = (matrix.astype(np.float32) for matrix in matrices)
    return b, g, a


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
    return np.linalg.inv(evaluate).T, at_k, at_m.T
