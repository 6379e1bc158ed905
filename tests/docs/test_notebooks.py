import ast
import json
import re

import pytest

from paths import ROOT

FOLDER = ROOT / "docs/notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
FIELDS = {
    "markdown": {"cell_type", "id", "metadata", "source"},
    "code": {
        "cell_type",
        "id",
        "metadata",
        "source",
        "execution_count",
        "outputs",
    },
}
"""Fields of a cell in version 4.5 of the format; all are required."""


def read_code(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return ["".join(cell["source"]) for cell in cells]


def test_there_are_notebooks():
    assert len(PATHS) >= 3


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
class TestNotebook:
    def test_is_valid(self, path):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
        assert notebook["metadata"]["kernelspec"]["name"] == "python3"
        ids = [cell["id"] for cell in notebook["cells"]]
        assert len(set(ids)) == len(ids)
        assert all(re.fullmatch(r"[\w-]{1,64}", one) for one in ids)
        for cell in notebook["cells"]:
            assert set(cell) == FIELDS[cell["cell_type"]]
            assert all(isinstance(line, str) for line in cell["source"])

    def test_begins_with_its_title(self, path):
        first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]
        assert first["cell_type"] == "markdown"
        assert re.match(r"# \w", first["source"][0])

    def test_stores_no_outputs(self, path):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs")
            assert cell.get("execution_count") is None

    def test_first_code_installs_what_is_missing(self, path):
        first = read_code(path)[0]
        assert re.search(
            r"try:\n    import siamrpn_jax as srj\nexcept ImportError:\n", first
        )
        assert re.search(r'^    %pip install .*"siamrpn-jax\[train\]"$', first, re.M)

    def test_code_compiles_and_is_narrow(self, path):
        for number, code in enumerate(read_code(path)):
            plain = re.sub(r"%pip.*", "pass", code)
            ast.parse(plain, filename=f"{path.name}, code cell {number}")
            assert max(map(len, code.splitlines())) <= 100

    def test_is_part_of_the_site(self, path):
        index = (ROOT / "docs/index.md").read_text()
        assert f"\nnotebooks/{path.stem}\n" in index
