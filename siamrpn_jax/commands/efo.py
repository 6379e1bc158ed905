"""EFO, VOT's normalised speed, estimated for this machine.

VOT2014 to VOT2017 give speeds in equivalent filter operations: frames a second times
the seconds that a maximum filter of 30x30 pixels takes, computed plainly, on an image
of 600x600 on the same machine (Kristan et al., VOT2014). Their toolkit's filter was a
program of its own; this one is compiled by XLA, and so the figure is an estimate.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

IMAGE, WINDOW = 600, 30  # Pixels a side.


def filter_seconds(*, runs: int = 5) -> float:
    """Processor seconds of one filter operation, median over some runs.

    Of all threads together: it is one operation on one processor that counts.
    """
    noise = np.random.default_rng(0).integers(0, 256, (IMAGE, IMAGE), np.uint8)
    image = jax.device_put(noise, jax.devices("cpu")[0])
    jax.block_until_ready(maximum_filter(image))
    seconds = []
    for _ in range(runs):
        start = time.process_time()
        jax.block_until_ready(maximum_filter(image))
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


@jax.jit
def maximum_filter(image: jax.Array) -> jax.Array:
    """The highest pixel of each window of an image ``uint8 [H, W]``, every one anew."""
    window = (WINDOW, WINDOW)
    return jax.lax.reduce_window(
        image, jnp.uint8(0), jax.lax.max, window, (1, 1), "SAME"
    )
