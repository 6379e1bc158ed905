"""Augmentation on the device: the crops and colours of a ``RawBatch``, inside jit.

What ``requests.render`` and ``apply_photometry`` do on the host with OpenCV,
step for step and with the same draws; each step ends in whole grey levels, as there.
"""

import functools

import jax
import jax.numpy as jnp

from siamrpn_jax.model.promotion import standard_promotion
from siamrpn_jax.training.batch import Batch, RawBatch, RawPatches

_BITS = 19  # Of a pixel's fraction in fixed point, which then reaches ±4096 pixels.


@standard_promotion
def render(raw: RawBatch, *, exemplar_size: int, instance_size: int) -> Batch:
    """Makes the patches of a batch.

    Args:
        raw: B pairs.
        exemplar_size: Z, pixels.
        instance_size: X, pixels.

    Returns:
        The batch; its patches are those of the host within the tolerance of
        ``render_patch``.
    """
    z, x = (
        jax.vmap(functools.partial(render_patch, size=size))(patches)
        for patches, size in ((raw.z, exemplar_size), (raw.x, instance_size))
    )
    return Batch(z, x, raw.box, raw.positive, raw.origins)


def render_patch(patch: RawPatches, *, size: int) -> jax.Array:
    """Makes one patch.

    Args:
        patch: a single one, without the axis B.
        size: n, side of the patch in pixels.

    Returns:
        ``uint8 [n, n, 3]``. Against the host's OpenCV 5: within 1 level until the
        table, which can multiply that; .2 in the mean of a patch (nearly all of it from
        a lowered resolution, whose small image is not rounded here) and 4 at most.
        OpenCV 4 rounds coordinates: .4 and 8. Noise is as strong, and another.
    """
    pixels = _round(
        sample(patch.image, patch.matrix, jnp.asarray(patch.fill), size=size)
    )
    if patch.table is not None:
        levels = pixels.astype(jnp.int32).reshape(-1, 3)
        table = jnp.asarray(patch.table)
        pixels = jnp.take_along_axis(table, levels, axis=0).reshape(pixels.shape)
        pixels = pixels.astype(jnp.float32)
    if patch.mixing is not None:
        pixels = _round((pixels[..., None, :] * patch.mixing).sum(-1))
    if patch.shrunk is not None:
        pixels = _round(lower_resolution(pixels, jnp.asarray(patch.shrunk)))
    if patch.blur is not None:
        pixels = _round(correlate(pixels, jnp.asarray(patch.blur)))
    if patch.noise is not None:
        key = jax.random.key(patch.noise_seed)
        noise = jax.random.normal(key, (size, size, 1), jnp.float32) * patch.noise
        pixels = _round(pixels + noise)
    return pixels.astype(jnp.uint8)


def sample(
    image: jax.Array, matrix: jax.Array, fill: jax.Array, *, size: int
) -> jax.Array:
    """Looks an image up at the points of an affine map, bilinearly.

    Args:
        image: ``[H, W, 3]``.
        matrix: ``[2, 3]``: pixel ``(i, j)`` of the result, whose centre lies ``d = (j
            + .5 - n / 2, i + .5 - n / 2)`` from its middle, looks at the point
            ``M[:, :2] @ d + M[:, 2]``.
        fill: colour outside the image, ``[3]``.
        size: n, side of the result.

    Returns:
        float32 ``[n, n, 3]``.
    """
    image = jnp.asarray(image)
    rows, columns, channels = image.shape
    y, x = _fixed_point(jnp.asarray(matrix), size)
    pixels = image.reshape(-1, channels)

    def tap(down: int, right: int) -> jax.Array:
        """A corner of the cell that each point lies in, times its weight."""
        row, column = (y >> _BITS) + down, (x >> _BITS) + right
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        i, j = jnp.clip(row, 0, rows - 1), jnp.clip(column, 0, columns - 1)
        values = jnp.where(inside[..., None], pixels[i * columns + j], fill)
        weight = _share(y, down) * _share(x, right)
        return values * weight[..., None]

    return tap(0, 0) + tap(0, 1) + tap(1, 0) + tap(1, 1)


def lower_resolution(image: jax.Array, side: jax.Array) -> jax.Array:
    """Shrinks an image by area and enlarges it linearly to its size again.

    Args:
        image: ``[n, n, 3]``.
        side: side of the small image in pixels, int32, at most n; n changes nothing.

    Returns:
        float32 ``[n, n, 3]``.
    """
    matrix = _resolution_matrix(image.shape[0], side)
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    return product("ij,jkc->ikc", matrix, product("kj,ijc->ikc", matrix, image))


def correlate(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Correlates every channel ``[n, n, 3]`` with a kernel ``[k, k]``, k odd.

    The image is mirrored about its outermost pixels.
    """
    n, k = image.shape[0], kernel.shape[0]
    margin = k // 2
    padded = jnp.pad(image, ((margin, margin), (margin, margin), (0, 0)), "reflect")

    def add_row(row: int, total: jax.Array) -> jax.Array:
        strip = jax.lax.dynamic_slice_in_dim(padded, row, n)
        return total + sum(strip[:, i : i + n] * kernel[row, i] for i in range(k))

    return jax.lax.fori_loop(0, k, add_row, jnp.zeros_like(image))


def _fixed_point(matrix: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Where the pixels of a patch look, in ``2**-_BITS`` of a pixel index, y first.

    Integers, because a compiler may compute a float twice and round it differently:
    the floor of one and the fraction of the other would be a pixel apart.
    """
    half = 2 ** (_BITS - 1)  # Of a pixel.
    matrix = jnp.round(matrix * half).astype(jnp.int32)
    at = 2 * jnp.arange(size) + 1 - size  # Half pixels from the middle of the patch.
    x, y = matrix[:, :1] * at + 2 * matrix[:, 2:] - half
    x, y = x + (matrix[0, 1] * at)[:, None], y + (matrix[1, 1] * at)[:, None]
    return y, x


def _share(at: jax.Array, offset: int) -> jax.Array:
    """Weight of the pixel before a point, or after it (``offset`` 1)."""
    fraction = (at & (2**_BITS - 1)).astype(jnp.float32) / 2**_BITS
    return fraction if offset else 1 - fraction


def _resolution_matrix(size: int, side: jax.Array) -> jax.Array:
    """``[n, n]``: along one axis, shrinks ``n = size`` pixels to ``side`` and back."""
    # Where each row looks in the small image, in 1 / 2n of its pixels: integers, as in
    # ``_fixed_point``.
    at = (2 * jnp.arange(size) + 1) * side - size
    at = jnp.clip(at, 0, 2 * size * (side - 1))
    part = (at % (2 * size) / (2 * size))[:, None]
    scale, pixel = size / side, jnp.arange(size)

    def tap(offset: int) -> jax.Array:
        """Shares of all pixels in one of the two small pixels that a row mixes."""
        start = (at // (2 * size) + offset)[:, None] * scale
        stop = jnp.minimum(start + scale, pixel + 1)
        return jnp.maximum(stop - jnp.maximum(start, pixel), 0) / scale

    return tap(0) * (1 - part) + tap(1) * part


def _round(pixels: jax.Array) -> jax.Array:
    """Whole grey levels."""
    return jnp.clip(jnp.floor(pixels + 0.5), 0, 255)
