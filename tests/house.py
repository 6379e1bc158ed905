"""Figures of the house: ``python tests/house.py`` prints how large and how tidy it is.

Lines, files in the package's root, lengths of functions, the share of public names
with a docstring, and how many files of the package three journeys visit: from a frame
to a box, from a pair to its gradient, from VOT's result files to an EAO.
"""

import ast
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCES = ("siamrpn_jax", "experiments", "data_prep")


def source_files() -> list[Path]:
    """All source files, tests excluded."""
    return sorted(path for name in SOURCES for path in (ROOT / name).rglob("*.py"))


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    """All functions and methods of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            yield node


def length(function: ast.FunctionDef) -> int:
    """Lines of a function, its docstring included."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def documented_share(paths: list[Path]) -> float:
    """Share of public functions, methods and classes with a docstring."""
    public = [
        ast.get_docstring(node) is not None
        for path in paths
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        and not node.name.startswith("_")
    ]
    return statistics.mean(public)


def visited_files(journey: Callable[[], Any]) -> list[str]:
    """Files of the package whose functions a call runs, in the order they are met."""
    package = str(ROOT / "siamrpn_jax")
    files: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(package) and name not in files:
            files.append(name)

    sys.setprofile(note)
    try:
        journey()
    finally:
        sys.setprofile(None)
    return [str(Path(name).relative_to(package)) for name in files]
