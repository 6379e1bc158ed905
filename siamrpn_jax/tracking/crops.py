"""Exemplar and search crops on the device (paper, section 5.1 and Eq. 15).

A crop is a square of the frame around a point, resized to ``n x n`` pixels. Output
pixel ``i`` looks at frame coordinate ``center + (i + 0.5 - n / 2) * side / n`` and is
interpolated bilinearly between the four nearest pixel centres (pixel ``j`` has its
centre at ``j + 0.5``); there is no antialiasing, as in ``cv2.resize``. What lies
outside the frame has the colour ``fill``, the frame's channel mean.
"""

import jax
import jax.numpy as jnp


def context_side(size: jax.Array, *, context: float = 0.5) -> jax.Array:
    """Side A of the square that holds the target and its context (Eq. 15).

    ``A² = (w + p)(h + p)`` with ``p = context * (w + h)``.

    Args:
        size: target width and height ``[..., 2]`` in any unit.
        context: margin as a share of the sum of both sides; the paper's is 1/2.

    Returns:
        ``[...]`` in the unit of ``size``.
    """
    padded = size + context * size.sum(-1, keepdims=True)
    return jnp.sqrt(padded[..., 0] * padded[..., 1])


def channel_mean(frame: jax.Array, *, frame_size: jax.Array | None = None) -> jax.Array:
    """Mean colour of a frame ``[H, W, 3]``, float32 ``[3]``.

    ``frame_size``, width and height, leaves out what the frame was padded with.
    """
    if frame_size is None:
        return frame.mean((0, 1), dtype=jnp.float32)
    width, height = frame_size
    inside = jnp.arange(frame.shape[0])[:, None] < height
    inside &= jnp.arange(frame.shape[1]) < width
    total = jnp.where(inside[..., None], frame.astype(jnp.float32), 0.0).sum((0, 1))
    return total / (width * height)


def crop_and_resize(
    frame: jax.Array,
    center: jax.Array,
    side: jax.Array,
    fill: jax.Array,
    *,
    size: int,
    frame_size: jax.Array | None = None,
    whole_pixels: bool = False,
) -> jax.Array:
    """Cuts a square out of a frame and resizes it.

    Args:
        frame: ``[H, W, 3]``, uint8 or float.
        center: x and y of the square's centre in frame pixels, ``[2]``.
        side: its side in frame pixels, scalar.
        fill: colour outside the frame, float32 ``[3]``.
        size: n, side of the result in pixels.
        frame_size: width and height ``[2]`` of a frame padded at its right and lower
            ends; by default all of it is the frame.
        whole_pixels: as DaSiamRPN and PySOT: a square of whole pixels is cut out, at
            most 1 px up and left of the centre, and resized by ``cv2.resize``; the
            result and the fill are whole grey levels.

    Returns:
        float32 ``[n, n, 3]`` in the grey levels of the frame.
    """
    if frame_size is None:
        frame_size = jnp.array(frame.shape[1::-1], jnp.float32)
    first = jnp.zeros((), jnp.int32)
    return crop_from(
        frame[None],
        first,
        center,
        side,
        fill,
        size=size,
        frame_size=frame_size,
        whole_pixels=whole_pixels,
    )


def crop_from(
    frames: jax.Array,
    index: jax.Array,
    center: jax.Array,
    side: jax.Array,
    fill: jax.Array,
    *,
    size: int,
    frame_size: jax.Array,
    whole_pixels: bool = False,
) -> jax.Array:
    """``crop_and_resize`` of frame ``index`` of ``frames [V, H, W, 3]``.

    Under ``vmap`` over all but the frames, no frame is copied.
    """
    frames = jnp.asarray(frames)
    _, rows, columns, channels = frames.shape
    look, mix = _look, _mix
    if whole_pixels:
        look, mix, fill = _look_in_whole_pixels, _mix_as_opencv, jnp.floor(fill)
    columns_seen, fx = look(center[0], side, size=size, limit=frame_size[0])
    rows_seen, fy = look(center[1], side, size=size, limit=frame_size[1])
    pixels = frames.reshape(-1, channels)
    start = index * rows * columns

    def tap(y: jax.Array, x: jax.Array) -> jax.Array:
        inside = ((y >= 0) & (y < frame_size[1]))[:, None] & (
            (x >= 0) & (x < frame_size[0])
        )
        y, x = jnp.clip(y, 0, rows - 1), jnp.clip(x, 0, columns - 1)
        values = pixels[start + y[:, None] * columns + x].astype(jnp.float32)
        return jnp.where(inside[..., None], values, fill)

    taps = [[tap(y, x) for x in columns_seen] for y in rows_seen]
    return mix(taps, fx[None, :, None], fy[:, None, None])


def _look(
    center: jax.Array, side: jax.Array, *, size: int, limit: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """Where output pixels look along one axis.

    Returns:
        the two pixels, int32 ``[n]`` each, and the weight of the second.
    """
    offsets = (jnp.arange(size, dtype=jnp.float32) + 0.5 - size / 2) * (
        side / size
    ) - 0.5
    # Far outside only "outside" matters; the clip keeps the integers in range.
    x = jnp.clip(center + offsets, -2.0, limit + 1.0)
    floor = jnp.floor(x)
    first = floor.astype(jnp.int32)
    return (first, first + 1), x - floor


def _look_in_whole_pixels(
    center: jax.Array, side: jax.Array, *, size: int, limit: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """The same in a square that is cut out before it is resized.

    Its side is rounded, it begins with the pixel ``floor(center - side / 2)``, and
    nothing beyond its own pixels is seen.
    """
    side = jnp.maximum(jnp.round(side), 1.0)
    halves = (2 * jnp.arange(size, dtype=jnp.int32) + 1) * side.astype(jnp.int32) - size
    floor = (halves // (2 * size)).astype(jnp.float32)
    x = floor + (halves % (2 * size)) / (2 * size)  # rounded as there

    def pixel(inside: jax.Array) -> jax.Array:
        seen = jnp.floor(center - side / 2) + jnp.clip(inside, 0.0, side - 1)
        return jnp.clip(seen, -2.0, limit + 1.0).astype(jnp.int32)

    return (pixel(floor), pixel(floor + 1)), x - floor


def _mix(taps: list[list[jax.Array]], fx: jax.Array, fy: jax.Array) -> jax.Array:
    """Bilinear interpolation between two rows of two pixels."""
    top, bottom = (left * (1 - fx) + right * fx for left, right in taps)
    return top * (1 - fy) + bottom * fy


def _mix_as_opencv(
    taps: list[list[jax.Array]], fx: jax.Array, fy: jax.Array
) -> jax.Array:
    """The same in ``cv2.resize``'s arithmetic, bit for bit.

    Weights have 11 bits and sums are cut, not rounded: a tracker's features notice.
    """

    def weights(fraction: jax.Array) -> tuple[jax.Array, jax.Array]:
        right = jnp.round(2048 * fraction).astype(jnp.int32)
        return jnp.round(2048 * (1 - fraction)).astype(jnp.int32), right

    (x0, x1), (y0, y1) = weights(fx), weights(fy)
    top, bottom = (
        (left.astype(jnp.int32) * x0 + right.astype(jnp.int32) * x1) >> 4
        for left, right in taps
    )
    total = (top * y0 >> 16) + (bottom * y1 >> 16)
    return ((total + 2) >> 2).astype(jnp.float32)
