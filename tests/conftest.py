"""Two CPU devices for every test, so that data parallelism is tested anywhere."""

import os

import jax

jax.config.update("jax_num_cpu_devices", 2)

# As if restarted with huge pages: a command under test must not restart the tests.
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
