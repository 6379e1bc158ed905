"""Huge memory pages for training on a CPU.

A training step works in hundreds of megabytes that glibc's malloc takes from the kernel
anew each time, page by page of 4 KiB; that is up to half of the step. On huge pages it
is next to nothing. glibc asks for them only if asked to before the process starts.
"""

import os
import platform
import sys
from pathlib import Path

_TUNABLES = "GLIBC_TUNABLES"
_KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_huge_pages() -> None:
    """Starts this command anew with malloc on huge pages, where they can be had.

    For the first lines of a program, before anything is loaded. Does nothing on systems
    other than Linux with glibc, where the kernel gives no pages on request, and where
    ``GLIBC_TUNABLES`` is set already, as it is after the restart.
    """
    if _TUNABLES in os.environ or platform.libc_ver()[0] != "glibc":
        return
    if not _KERNEL.exists() or "[madvise]" not in _KERNEL.read_text():
        return
    os.environ[_TUNABLES] = "glibc.malloc.hugetlb=1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
