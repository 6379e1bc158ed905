"""Network variables at random, without compiling an initialisation."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def random_variables(init: Callable[..., Any], *args: Any, seed: int = 0) -> Any:
    """Kernels that keep the variance, the rest around the usual first values.

    Args:
        init: ``Module.init``, or a function of key and ``args`` like it.
        args: further arguments of ``init``.
        seed: of the values.
    """
    rng = np.random.default_rng(seed)

    def fill(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key == "kernel":
            deviation = np.prod(leaf.shape[:-1]) ** -0.5
            return rng.normal(0, deviation, leaf.shape).astype(np.float32)
        low = 0.5 if path[-1].key in ("var", "scale") else -0.5
        return rng.uniform(low, low + 1, leaf.shape).astype(np.float32)

    shapes = jax.eval_shape(init, jax.random.key(0), *args)
    return jax.tree_util.tree_map_with_path(fill, shapes)
