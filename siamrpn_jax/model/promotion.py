"""JAX's usual rules of promotion, whatever the caller has asked for."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def standard_promotion(
    function: Callable[Arguments, Result],
) -> Callable[Arguments, Result]:
    """Lets a function broadcast and promote as NumPy does.

    Programs that import this package may run with ``jax_numpy_rank_promotion="raise"``
    or ``jax_numpy_dtype_promotion="strict"``. Put below ``jax.jit``, this costs nothing
    once the function is compiled.
    """

    @functools.wraps(function)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return wrapped
