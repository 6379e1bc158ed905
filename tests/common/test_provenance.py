"""What a report says of its machine."""

import datetime
import json

from siamrpn_jax.common import provenance


def test_the_machine_is_named_with_versions_also_of_what_is_absent():
    about = json.loads(json.dumps(provenance.machine(["numpy", "no-such-package"])))
    assert about["cpu"] and about["cores"] >= 1 and about["system"]
    assert about["versions"]["no-such-package"] == "not installed"
    assert about["versions"]["numpy"][0].isdigit()
    assert {"python", "siamrpn_jax"} < set(about["versions"])


def test_the_command_line_can_be_pasted(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/siamrpn", "eval", "--json", "a b.json"])
    assert provenance.command_line() == "siamrpn eval --json 'a b.json'"


def test_the_date_is_one():
    assert datetime.date.fromisoformat(provenance.today()).year >= 2026
