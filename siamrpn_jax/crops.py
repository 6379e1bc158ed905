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
        context: share of the mean side added; the paper's is 1/2.

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
    total = jnp.where(inside[..., None], frame, 0).sum((0, 1), dtype=jnp.float32)
    return total / (width * height)


def crop_and_resize(
    frame: jax.Array,
    center: jax.Array,
    side: jax.Array,
    fill: jax.Array,
    *,
    size: int,
    frame_size: jax.Array | None = None,
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

    Returns:
        float32 ``[n, n, 3]`` in the grey levels of the frame.
    """
    if frame_size is None:
        frame_size = jnp.array(frame.shape[1::-1], jnp.float32)
    first = jnp.zeros((), jnp.int32)
    return crop_from(
        frame[None], first, center, side, fill, size=size, frame_size=frame_size
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
) -> jax.Array:
    """:func:`crop_and_resize` of frame ``index`` of ``frames [V, H, W, 3]``.

    Under ``vmap`` over all but the frames, no frame is copied.
    """
    frames = jnp.asarray(frames)
    _, rows, columns, channels = frames.shape
    offsets = (jnp.arange(size) + 0.5 - size / 2) * (side / size) - 0.5
    x0, fx = _floor_and_fraction(center[0] + offsets, limit=frame_size[0])
    y0, fy = _floor_and_fraction(center[1] + offsets, limit=frame_size[1])
    pixels = frames.reshape(-1, channels)
    start = index * rows * columns

    def tap(y: jax.Array, x: jax.Array) -> jax.Array:
        inside = ((y >= 0) & (y < frame_size[1]))[:, None] & (
            (x >= 0) & (x < frame_size[0])
        )
        y, x = jnp.clip(y, 0, rows - 1), jnp.clip(x, 0, columns - 1)
        values = pixels[start + y[:, None] * columns + x].astype(jnp.float32)
        return jnp.where(inside[..., None], values, fill)

    fx, fy = fx[None, :, None], fy[:, None, None]
    top = tap(y0, x0) * (1 - fx) + tap(y0, x0 + 1) * fx
    bottom = tap(y0 + 1, x0) * (1 - fx) + tap(y0 + 1, x0 + 1) * fx
    return top * (1 - fy) + bottom * fy


def _floor_and_fraction(
    x: jax.Array, *, limit: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # Far outside only "outside" matters; the clip keeps the integers in range.
    x = jnp.clip(x, -2.0, limit + 1.0)
    floor = jnp.floor(x)
    return floor.astype(jnp.int32), x - floor
