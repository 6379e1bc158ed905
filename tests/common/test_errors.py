import importlib
import math

import pytest

from siamrpn_jax.common.errors import MissingExtraError, require


def test_an_installed_module_is_returned():
    assert require("math", extra="train") is math
    found = require("importlib.metadata", extra="train")
    assert found is importlib.import_module("importlib.metadata")


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.figure"])
def test_a_missing_package_names_the_extra(module):
    expected = r"^no_such_package is not installed: pip install 'siamrpn-jax\[video\]'$"
    with pytest.raises(MissingExtraError, match=expected) as caught:
        require(module, extra="video")
    assert isinstance(caught.value, ImportError)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import no_such_package", ModuleNotFoundError),
        ("from math import no_such_name", ImportError),
        ("1 / 0", ZeroDivisionError),
    ],
)
def test_a_broken_package_keeps_its_own_error(tmp_path, monkeypatch, line, expected):
    (tmp_path / "broken_package.py").write_text(f"{line}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(expected) as caught:
        require("broken_package", extra="train")
    assert not isinstance(caught.value, MissingExtraError)
