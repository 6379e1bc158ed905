"""The Markdown of the documentation: its examples run, its links lead somewhere."""

import pytest

from doc_pages import PAGES, anchors, examples, links, promised
from paths import ROOT

WITH_EXAMPLES = [page for page in PAGES if examples(page)]
LINKING = [
    *PAGES,
    ROOT / "data_prep" / "README.md",
    *sorted((ROOT / "siamrpn_jax" / "weights").glob("*.md")),
]


def name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=name)
def test_examples_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = examples(page)
    exec(compile(code, name(page), "exec"), {})
    printed = capsys.readouterr().out
    assert [shape for shape in promised(code) if shape not in printed] == []


def test_there_are_examples():
    assert {"README.md", "docs/follow.md"} <= {name(page) for page in WITH_EXAMPLES}
    assert promised(examples(ROOT / "docs" / "follow.md"))


@pytest.mark.parametrize("page", LINKING, ids=name)
def test_links_lead_somewhere(page):
    for file, anchor in links(page):
        target = page.parent / file if file else page
        assert target.exists(), file
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{file}#{anchor}"
