"""Where and when figures were taken, for the files that hold them."""

import datetime
import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from siamrpn_jax import __version__

_INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd")
"""Instruction sets that change how fast networks run."""


def today() -> str:
    """The date, ``YYYY-MM-DD``, UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def command_line() -> str:
    """How this program was called, as a shell takes it."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def machine(packages: Iterable[str]) -> dict[str, Any]:
    """Processor, load, system, and versions of the distributions named."""
    versions = {"siamrpn_jax": __version__, "python": platform.python_version()}
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "versions": versions | {name: version(name) for name in packages},
    }


def version(distribution: str) -> str:
    """The version of a distribution, or ``not installed``."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """The processor's name, with its instruction sets where they change the picture."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return platform.processor() or platform.machine()
    lines = (line.partition(":") for line in path.read_text().splitlines())
    fields = {name.strip(): value.strip() for name, _, value in lines}
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    sets = " ".join(flag for flag in _INSTRUCTIONS if flag in flags)
    family = fields.get("cpu family", "?"), fields.get("model", "?")
    name = fields.get("model name", platform.machine())
    return f"{name} (family {family[0]} model {family[1]}; {sets})"
