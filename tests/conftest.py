"""Two CPU devices for every test, so that data parallelism is tested anywhere."""

import os
from collections.abc import Iterator

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 2)

# As if restarted with huge pages: a command under test must not restart the tests.
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """Training steps compile in half the time, and run the same operations."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
