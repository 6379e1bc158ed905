import ast
import re

import pytest

import siamrpn_jax
from paths import ROOT

PACKAGE = ROOT / "siamrpn_jax"
FIRST_PAGE = (ROOT / "docs/api.md").read_text()
PAGES = sorted((ROOT / "docs/api").glob("*.md"))
WITHOUT_PAGE = {"api", "app", "cli", "commands"}
"""Rooms of the command line; what ``api`` offers is on the first page."""
ADDED_BY_FLAX = {"name", "parent", "scope"}


def module_names():
    """Modules of documented rooms that define something public."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not parts or parts[0] in WITHOUT_PAGE:
            continue
        body = ast.parse(path.read_text(encoding="utf-8")).body
        if any(
            isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"
            for node in body
        ):
            yield ".".join(parts)


MODULES = list(module_names())


def hidden(text, module):
    """Names that the page leaves out of a module."""
    directive = rf"automodule:: siamrpn_jax\.{re.escape(module)}\n"
    found = re.search(directive + r"   :exclude-members: (.*)\n", text)
    return set(found[1].split(", ")) if found else set()


@pytest.mark.parametrize("name", siamrpn_jax.__all__)
def test_first_page_has_every_name(name):
    assert re.search(rf"^\.\. \S+:: siamrpn_jax\.{name}$", FIRST_PAGE, re.M)


@pytest.mark.parametrize("module", MODULES)
def test_pages_have_every_module(module):
    text = "".join(page.read_text() for page in PAGES)
    assert text.count(f".. automodule:: siamrpn_jax.{module}\n") == 1
    for name in hidden(text, module) - ADDED_BY_FLAX:
        assert name in siamrpn_jax.__all__
        assert f"~siamrpn_jax.{name}`" in text


def test_pages_name_modules_that_exist():
    text = "".join(page.read_text() for page in PAGES)
    named = re.findall(r"\.\. automodule:: siamrpn_jax\.(\S+)", text)
    for path in (PACKAGE / name.replace(".", "/") for name in named):
        assert path.is_dir() or path.with_suffix(".py").exists()


def test_every_page_is_listed_and_begins_with_a_sentence():
    for page in PAGES:
        assert f"\napi/{page.stem}\n" in FIRST_PAGE
        assert re.match(r"# .+\n\n[A-Z][^`#]", page.read_text())
