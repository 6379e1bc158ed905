"""Who may import whom, and what every module owes its readers."""

import ast
import doctest
import importlib
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import siamrpn_jax
from siamrpn_jax import cli

PACKAGE = Path(siamrpn_jax.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in FILES]

ROOMS = (
    "common",
    "model",
    "tracking",
    "training",
    "data.sampling",
    "data.read",
    "data.crops",
    "data.scenes",
    "data.pairs",
    "media",
    "evaluation",
    "published",
    "weights",
    "presets",
    "deploy",
    "api",
    "labelling",
    "adapters",
    "app",
    "commands",
    "cli",
)
"""The rooms from bottom to top: each imports from itself and from those before it."""

FLOORS = {
    "model": (
        "config",
        "promotion",
        "boxes",
        "anchors",
        "convolutions",
        "layers",
        "backbone",
        "rpn",
        "network",
        "fused",
    ),
    "tracking": (
        "config",
        "crops",
        "state",
        "confidence",
        "selection",
        "scales",
        "online",
        "memory",
        "step",
        "slots",
        "search",
        "export",
    ),
    "training": (
        "config",
        "batch",
        "targets",
        "losses",
        "optimizer",
        "step",
        "classifier",
        "distributed",
        "checkpoints",
        "logs",
        "run",
    ),
}
"""The modules of the rooms that compute on the device, in the order of the data flow:
each imports from those before it."""

HOST_MODULES = ("training/config.py", "training/run.py")
"""In those rooms, what works for the host alone: options, and the loop around steps."""

WITHOUT_JAX = ("data", "media", "evaluation")
"""Rooms whose modules load no JAX, but for ``data.pairs.loader``: grain loads it."""

HOST_LIBRARIES = {
    "av",
    "cv2",
    "grain",
    "matplotlib",
    "tensorboardX",
    "tensorflow_datasets",
    "trax",
    "vot",
    "tqdm",
    "tyro",
}


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all modules and objects that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_modules(path: Path) -> set[str]:
    """Dotted names below ``siamrpn_jax`` of the modules that a file imports."""
    return {
        name.removeprefix("siamrpn_jax.")
        for name in imports(path)
        if name.startswith("siamrpn_jax.")
    }


def dotted(path: Path) -> str:
    """The module of a file, below ``siamrpn_jax``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts).removesuffix("__init__").rstrip(".")


def room(module: str) -> str:
    """The room that a module is in."""
    found = [r for r in ROOMS if module == r or module.startswith(f"{r}.")]
    assert found, f"{module} is in no room"
    return found[0]


IN_ROOMS = [path for path in FILES if dotted(path) not in ("", "data")]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_the_package_stands_alone(path):
    outside = {"experiments", "data_prep", "tests"}
    assert not outside & {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", IN_ROOMS, ids=map(dotted, IN_ROOMS))
def test_rooms_import_downwards(path):
    own = ROOMS.index(room(dotted(path)))
    above = {m for m in own_modules(path) if m[0].islower() and m != "__version__"}
    assert [m for m in above if ROOMS.index(room(m)) > own] == []


@pytest.mark.parametrize("name", FLOORS)
def test_device_code_imports_downwards_and_nothing_of_the_host(name):
    floors = FLOORS[name]
    files = {path.stem: path for path in (PACKAGE / name).glob("[!_]*.py")}
    assert set(files) == set(floors)
    for number, floor in enumerate(floors):
        modules = own_modules(files[floor])
        inside = {m.split(".")[1] for m in modules if m.startswith(f"{name}.")}
        assert inside <= set(floors[:number]), floor
        libraries = {imported.split(".")[0] for imported in imports(files[floor])}
        if f"{name}/{floor}.py" not in HOST_MODULES:
            assert not HOST_LIBRARIES & libraries, floor


def test_public_names_are_where_they_are_said_to_be():
    assert all(hasattr(siamrpn_jax, name) for name in siamrpn_jax.__all__)


def test_the_root_holds_few_files():
    assert len(list(PACKAGE.glob("*.py"))) <= 6


def test_host_code_does_not_load_jax():
    """In a fresh process; grain, which only the loader needs, loads JAX itself."""
    modules = [
        f"siamrpn_jax.{dotted(path)}"
        for folder in WITHOUT_JAX
        for path in sorted((PACKAGE / folder).rglob("*.py"))
        if path.stem != "loader"
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {modules}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'jax' not in sys.modules, name\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_does_not_load_jax(name):
    code = (
        "import sys\n"
        "from siamrpn_jax import cli\n"
        f"sys.argv = ['siamrpn', {name!r}, '--help']\n"
        "try:\n"
        "    cli.main()\n"
        "except SystemExit:\n"
        "    assert 'jax' not in sys.modules\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_public_names_are_documented(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the module has no docstring"
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [
        node
        for node in tree.body
        if isinstance(node, kinds)
        and not node.name.startswith("_")
        # The parts of an overloaded function have the docstring of the whole.
        and "overload" not in map(ast.unparse, node.decorator_list)
    ]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_fields_of_configs_are_documented(path):
    """A string under each field, which the command line shows."""
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, ast.ClassDef) or not node.name.endswith("Config"):
            continue
        for field, after in itertools.pairwise([*node.body, None]):
            if not isinstance(field, ast.AnnAssign):
                continue
            nested = re.search("Config|Constants|Recipe", ast.unparse(field.annotation))
            documented = nested or isinstance(after, ast.Expr)
            assert documented, f"{node.name}.{ast.unparse(field.target)}"


WITH_EXAMPLES = [path for path in FILES if ">>>" in path.read_text()]


@pytest.mark.parametrize(
    "path", WITH_EXAMPLES, ids=[path.stem for path in WITH_EXAMPLES]
)
def test_examples_in_docstrings(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted and not result.failed
