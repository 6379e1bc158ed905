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

PACKAGE = Path(siamrpn_jax.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in FILES]

DEVICE = (
    "errors",
    "boxes",
    "anchors",
    "crops",
    "batch",
    "augmentation",
    "targets",
    "losses",
    "convolutions",
    "layers",
    "backbone",
    "rpn",
    "model",
    "inference",
    "tracker",
    "many",
    "tuning",
    "training",
    "classifier",
)
"""What runs on the device, in the order of the data flow: imports go upwards here."""

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
    """First parts below ``siamrpn_jax`` of what a file imports."""
    parts = (name.split(".") for name in imports(path))
    return {p[1] for p in parts if p[0] == "siamrpn_jax" and len(p) > 1}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_the_package_stands_alone(path):
    outside = {"experiments", "data_prep", "tests"}
    assert not outside & {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("module", DEVICE)
def test_device_code_imports_downwards_and_nothing_of_the_host(module):
    path = PACKAGE / f"{module}.py"
    assert not HOST_LIBRARIES & {name.split(".")[0] for name in imports(path)}
    assert own_modules(path) <= set(DEVICE[: DEVICE.index(module)])


@pytest.mark.parametrize("folder", ["data", "evaluation"])
def test_host_code_knows_nothing_of_the_network(folder):
    for path in (PACKAGE / folder).glob("*.py"):
        assert own_modules(path) & set(DEVICE) <= {"errors", "boxes", "batch"}, path


def test_host_code_does_not_load_jax():
    """In a fresh process; grain, which only the loader needs, loads JAX itself."""
    modules = [
        f"siamrpn_jax.{folder}.{path.stem}"
        for folder in ("data", "evaluation")
        for path in sorted((PACKAGE / folder).glob("*.py"))
        if path.stem not in ("__init__", "loader")
    ]
    modules += ["siamrpn_jax.data", "siamrpn_jax.evaluation", "siamrpn_jax.cli"]
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


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_public_names_are_documented(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the module has no docstring"
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [
        node
        for node in tree.body
        if isinstance(node, kinds) and not node.name.startswith("_")
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
            nested = re.search("Config|Recipe", ast.unparse(field.annotation))
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
