"""What every test runs with: two CPU devices, and one cache of compiled functions.

Two devices test data parallelism anywhere. The cache is shared by all processes of a
run of the tests, the commands they start included, and goes with it.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator

CACHE = "JAX_COMPILATION_CACHE_DIR"
OWN_CACHE = "" if CACHE in os.environ else tempfile.mkdtemp(prefix="compiled-")
if OWN_CACHE:
    os.environ |= {
        CACHE: OWN_CACHE,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }

# Nearly all that is compiled here runs a few times: the same operations, compiled in a
# good half of the time. What runs long asks for ``optimized``.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# As if restarted with huge pages: a command under test must not restart the tests.
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")

import hypothesis  # noqa: E402 (the environment decides)
import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 2)

# What is measured is whether tests hold, not how busy the machine is.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


SLOW_FIRST = (
    "test_end_to_end.py",
    "test_train_processes.py",
    "test_train.py",
    "test_step.py",
    "test_toolkit.py",
)
"""Files that take longest, where processes share the tests: begun first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the slow files first, all others as they come."""
    items.sort(key=lambda item: item.path.name not in SLOW_FIRST)


def pytest_unconfigure() -> None:
    """Removes the cache, in the process that made it."""
    if OWN_CACHE:
        shutil.rmtree(OWN_CACHE, ignore_errors=True)


@pytest.fixture(scope="module")
def optimized() -> Iterator[None]:
    """Functions compile with all optimizations."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
