import os
import subprocess
import sys
from pathlib import Path

import pytest

from siamrpn_jax.commands import huge_pages

PROGRAM = """
import os, sys
from siamrpn_jax.commands.huge_pages import restart_with_huge_pages
print("started", sys.argv[1:], flush=True)
restart_with_huge_pages()
print(os.environ.get("GLIBC_TUNABLES"), flush=True)
"""


def run(tmp_path: Path, **environment: str) -> list[str]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    kept = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, str(program), "--option", "a b"],
        env={**kept, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.fixture
def offered() -> bool:
    kernel = huge_pages._KERNEL
    return kernel.exists() and "[madvise]" in kernel.read_text()


def test_restarts_once_with_the_same_arguments(tmp_path, offered):
    lines = run(tmp_path)
    start = "started ['--option', 'a b']"
    if offered:
        assert lines == [start, start, "glibc.malloc.hugetlb=1"]
    else:
        assert lines == [start, "None"]


def test_a_users_choice_stays(tmp_path):
    lines = run(tmp_path, GLIBC_TUNABLES="glibc.malloc.hugetlb=0")
    assert lines == ["started ['--option', 'a b']", "glibc.malloc.hugetlb=0"]


def test_kernels_that_give_none_on_request(tmp_path, monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES")
    monkeypatch.setattr(huge_pages.os, "execv", pytest.fail)
    for text in ("[always] madvise never", "always madvise [never]"):
        monkeypatch.setattr(huge_pages, "_KERNEL", tmp_path / "enabled")
        huge_pages._KERNEL.write_text(text)
        huge_pages.restart_with_huge_pages()
    monkeypatch.setattr(huge_pages, "_KERNEL", tmp_path / "absent")
    huge_pages.restart_with_huge_pages()
