"""What is optional is got by ``require``, and named with the extra that has it."""

import ast
import importlib
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from paths import ROOT
from siamrpn_jax import cli
from siamrpn_jax.common.errors import MissingExtraError, require
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.deploy import litert
from siamrpn_jax.evaluation.vot import toolkit
from siamrpn_jax.media.video import VideoWriter

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
FILES = sorted(
    path
    for folder in ("siamrpn_jax", "experiments", "data_prep")
    for path in (ROOT / folder).rglob("*.py")
    # What draws the documentation's pictures is run by those who write it.
    if "pictures" not in path.parts
)

DISTRIBUTIONS = {
    "google": "tensorflow-datasets",  # which brings protobuf
    "tensorflow": "tensorflow-cpu",
    "trax": "vot-trax",
    "vot": "vot-toolkit",
}
"""What installs a module, where the names differ in more than ``_`` and ``-``."""

IMPORTED_PLAINLY = {
    # For type checkers alone.
    "siamrpn_jax/adapters/cvat.py",
    # Behind the ``require`` of the same function, or of ``commands.app``.
    "siamrpn_jax/adapters/label_studio.py",
    "siamrpn_jax/app/guard.py",
    "siamrpn_jax/app/server.py",
    # Copied beside exports, where this package is not.
    "siamrpn_jax/deploy/runtime.py",
}


class Call(NamedTuple):
    """A call of ``require`` in the source."""

    module: str
    extra: str


def calls() -> set[Call]:
    """All calls of ``require`` whose module is written there."""
    found = set()
    for path in FILES:
        tree = ast.parse(path.read_text())
        constants = {
            target.id: str(node.value.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "require":
                module, extra = node.args[0], node.keywords[0].value
                if isinstance(module, ast.Constant):
                    name = ast.unparse(extra)
                    extra = constants.get(name, name.strip("'"))
                    found.add(Call(str(module.value), extra))
    return found


CALLS = sorted(calls())


def requirements(extra: str) -> Iterator[str]:
    """Names of the distributions of an extra, and of the extras that it refers to."""
    for line in EXTRAS[extra]:
        if inner := re.match(r"siamrpn-jax\[(.*)\]", line):
            for name in inner[1].split(","):
                yield from requirements(name)
        else:
            yield re.split(r"[^\w-]", line)[0].replace("_", "-")


@pytest.fixture
def hide(monkeypatch):
    """Makes a module seem not to be installed."""

    def hide_one(module: str) -> None:
        top = module.partition(".")[0]
        for name in [n for n in sys.modules if n.partition(".")[0] == top]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, top, None)

    return hide_one


def test_the_calls_are_found():
    assert {"av", "trax", "starlette", "jinja2", "google.protobuf.message"} <= {
        call.module for call in CALLS
    }


@pytest.mark.parametrize("call", CALLS, ids=lambda call: "-".join(call))
def test_the_error_names_the_extra_that_has_the_module(hide, call):
    hide(call.module)
    top = call.module.partition(".")[0]
    with pytest.raises(MissingExtraError) as caught:
        require(call.module, extra=call.extra)
    expected = f"{top} is not installed: pip install 'siamrpn-jax[{call.extra}]'"
    assert str(caught.value) == expected
    wanted = DISTRIBUTIONS.get(top, top.replace("_", "-"))
    assert wanted in set(requirements(call.extra))


def test_nothing_optional_is_imported_plainly():
    core = {"cv2", "absl", "orbax", "siamrpn_jax", "data_prep", "experiments"}
    core |= {re.split(r"[^\w]", line)[0] for line in PROJECT["dependencies"]}
    core |= sys.stdlib_module_names
    found = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            if {name.partition(".")[0] for name in names} - core:
                found.add(path.relative_to(ROOT).as_posix())
    assert found == IMPORTED_PLAINLY


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a short film."""
    folder = tmp_path_factory.mktemp("films")
    frames, _ = make_sequence(3, length=2)
    with VideoWriter(folder / "film.webm", fps=25, size=(320, 240)) as film:
        for frame in frames:
            film.write(frame)
    return folder


@pytest.mark.parametrize(
    ("hidden", "extra", "command"),
    [
        ("tensorboardX", "train", "train --out FOLDER/run"),
        ("matplotlib", "train", "train --out FOLDER/run"),
        ("matplotlib", "report", "ablate anchors --out FOLDER/study"),
        ("jinja2", "report", "ablate anchors --out FOLDER/study"),
        ("av", "video", "track --video FOLDER/film.webm --box 9,9,40,40 --format mp4"),
        ("onnx", "onnx", "track --video FOLDER/film.webm --box 9,9,40,40 "),
        ("onnxruntime", "onnx", "demo --out FOLDER/demo"),
        ("starlette", "app", "app FOLDER"),
        ("uvicorn", "app", "app FOLDER"),
        ("websockets", "app", "app FOLDER"),
        ("uvicorn", "labelstudio", "label-studio FOLDER"),
        ("starlette", "labelstudio", "label-studio FOLDER"),
        ("flatbuffers", "export", "export --out FOLDER/export"),
        ("onnx", "onnx", "export --format onnx --out FOLDER/export"),
    ],
)
def test_commands_say_it_in_one_line(
    monkeypatch, tmp_path, capsys, hide, folder, hidden, extra, command
):
    hide(hidden)
    monkeypatch.chdir(tmp_path)
    if extra == "onnx" and "export" not in command:
        command += " --runtime onnxruntime"
    words = command.replace("FOLDER", str(folder)).split()
    module = importlib.import_module(cli.module_of(words[0]))
    with pytest.raises(SystemExit) as caught:
        module.main(words[1:])
    assert caught.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert f"{hidden} is not installed: pip install 'siamrpn-jax[{extra}]'" in last


@pytest.mark.parametrize(
    ("call", "hidden", "install"),
    [
        (litert.require_converter, "litert_converter", litert.INSTALL),
        (
            lambda: toolkit.run_toolkit("results", [], interval=(1, 2)),
            "vot",
            "pip install 'siamrpn-jax[vot]'",
        ),
    ],
)
def test_what_is_run_beside_this_package(monkeypatch, call, hidden, install):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == hidden else real(n)
    )
    with pytest.raises(MissingExtraError) as caught:
        call()
    assert str(caught.value).endswith(f" is not installed: {install}")
