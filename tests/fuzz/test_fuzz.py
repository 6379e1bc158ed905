"""A small part of the campaign; ``python -m tests.fuzz --tries 10000`` is the whole."""

import pytest

from fuzz import campaign
from fuzz.readers import READERS


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused(name):
    found = campaign.run(READERS[name], tries=60)
    assert not found.faults, found.examples
    assert found.counts["read"] or found.counts["refused"]


def test_a_fault_is_found_and_named():
    def read(path):
        return int(path.read_bytes())

    def make(root):
        (root / "number").write_text("1234")
        return root / "number"

    reader = campaign.Reader(make, read, lambda number: number > 1000)
    found = campaign.run(reader, tries=200)
    assert found.counts["crash"] and found.counts["silent"] and found.faults > 100
    assert any("crash: ValueError at test_fuzz.py" in kind for kind in found.examples)
