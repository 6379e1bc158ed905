"""Figures come from somewhere: tables from reports, the rest with command and date."""

import json
import re

import pytest

from doc_pages import PAGES
from experiments import figures
from experiments.benchmarks import command, timing
from experiments.benchmarks import track as section
from experiments.benchmarks.session import Contestant, Running
from measured import sections, unsourced
from paths import ROOT
from siamrpn_jax import presets, weights
from siamrpn_jax.model.config import count_flops
from siamrpn_jax.model.network import count_parameters

CARDS = ROOT / "siamrpn_jax" / "weights"
CHECKED = [
    *(page for page in PAGES if page.name != "CHANGELOG.md"),
    ROOT / "data_prep" / "README.md",
    *sorted(CARDS.glob("*.md")),
]
NOT_MEASURED = {
    "ARCHITECTURE.md": (
        "published .055, .42, .295",
        "20 frames a second of VOT2017",
        "(under 1 %)",
        "hold boxes within .05 px",
    ),
    "SECURITY.md": ("over 64 KiB",),
    "docs/evaluate.md": ("95 % interval", "needs 130 ms"),
    "docs/faq.md": ("allows 300 seconds",),
    "docs/labelling.md": ("boxes within .01 px",),
    "docs/scale.md": ("(100 s)",),
}
"""What looks measured and is not: settings, published figures, tolerances of tests."""


def name(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", CHECKED, ids=name)
def test_measured_figures_have_a_command_and_a_date(page):
    """In their section, in one above it, or, the same figures, behind a link there."""
    allowed = NOT_MEASURED.get(name(page), ())
    text = page.read_text()
    assert [phrase for phrase in allowed if phrase not in text] == []
    lacking = {}
    for one in sections(page):
        without = one.text
        for phrase in allowed:
            without = without.replace(phrase, "")
        if figures_of := unsourced(page, one._replace(text=without)):
            lacking[one.heading] = figures_of
    assert lacking == {}


def test_what_the_rule_takes_for_measured(tmp_path):
    page, home = tmp_path / "page.md", tmp_path / "home.md"
    home.write_text(
        "# Home\nOn 2026-11-29 `siamrpn eval` gave .642, at 3.3 ms.\n"
        "## Below\n.123\n# Elsewhere\n.456\n"
    )
    page.write_text(
        "# Page\nA size of 255, `3.3 ms`, 1.5 or 640x480.\n"
        "## Bare\n5 minutes and 7.1\nms; .54 to .64, .161\n"
        "## Copy\n.642 at 3.3 ms [from here](home.md#home), not 4 ms\n"
        "## Table\n| a | 3.4 |\n|---|---|\n| b | .5 |\n"
        "```bash\npython x.py\n```\n"
        "## Whole\n2026-11: 3 MB\n```bash\npython x.py\n```\n"
    )
    found = {one.heading: unsourced(page, one) for one in sections(page)}
    assert {heading: lacking for heading, lacking in found.items() if lacking} == {
        "Bare": ["5 minutes", "7.1 ms", ".161"],
        "Copy": ["4 ms"],
        "Table": ["3.4", ".5"],
    }
    lacking = [one.heading for one in sections(home) if unsourced(home, one)]
    assert lacking == ["Elsewhere"]


@pytest.mark.parametrize("page", figures.PAGES)
def test_tables_are_rendered_from_their_reports(page):
    text = (ROOT / page).read_text()
    assert text.count("<!-- figures: ") == text.count("<!-- end of figures -->") > 0
    assert figures.render(text) == text, "run: python experiments/figures.py"


@pytest.mark.parametrize("path", sorted(figures.FIGURES.glob("*.json")), ids=name)
def test_reports_say_how_they_were_made(path):
    report = json.loads(path.read_text())
    assert report["command"] and report["machine"]["cpu"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", report["date"])
    assert "convention" in report or report["source"]


def test_a_later_run_replaces_the_figures(tmp_path, monkeypatch, capsys):
    """The benchmark writes its file, the script renders; nothing else is to be done."""
    reports = tmp_path / "docs" / "figures"
    reports.mkdir(parents=True)
    for path in figures.FIGURES.glob("*.json"):
        (reports / path.name).write_bytes(path.read_bytes())
    for page in figures.PAGES:
        (tmp_path / page).write_text((ROOT / page).read_text())
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    monkeypatch.setattr(figures, "FIGURES", reports)
    race_of_constants(monkeypatch, {"ours": 0.02, "torch eager": 0.03})
    command.main(["track", "--json", str(reports / "track.json"), "--no-compiled"])
    figures.main()
    assert "changed README.md\nchanged docs/speed.md" in capsys.readouterr().out
    made = (tmp_path / "docs" / "speed.md").read_text()
    (row,) = re.findall(r"^\| `paper`, 640.*", made, re.M)
    assert row.endswith("frames/s | 50 | 33.3 | **1.5** |  |  |")
    assert figures.provenance_of(json.loads((reports / "track.json").read_text())) in (
        made
    )
    figures.main()
    assert capsys.readouterr().out == ""


def race_of_constants(monkeypatch, seconds):
    """The section ``track`` becomes one race whose contestants need so long."""

    def measure(contestants, **_):
        return {one: timing.Timing(((seconds[one],),)) for one in contestants}

    def run(session):
        entries = [
            Contestant(one, lambda: Running(lambda: None), None) for one in seconds
        ]
        session.race("track", "paper, whole step, 640x480 frame to box", entries)

    monkeypatch.setattr(timing, "measure", measure)
    monkeypatch.setattr(section, "run", run)


def test_every_weights_file_has_a_model_card():
    assert weights.bundled() == sorted(path.stem for path in CARDS.glob("*.md"))


@pytest.mark.parametrize("name", weights.bundled())
def test_the_model_card_has_the_figures_of_the_weights(name):
    loaded, text = weights.load_weights(name), (CARDS / f"{name}.md").read_text()
    assert f"{loaded.card['parameters']:,} parameters" in text
    assert loaded.card["parameters"] == count_parameters(loaded.model.config)
    assert f"{count_flops(loaded.model.config) / 1e9:.2f} GFLOP a frame" in text
    size = (CARDS / f"{name}.safetensors").stat().st_size
    assert f"{size / 1e6:.1f} MB" in text
    mean, held_out = loaded.card["figures"].values()
    assert f"| **mean** | **{figures.score(mean)}** |" in text
    assert f"the mean is {figures.score(held_out)}" in text


@pytest.mark.parametrize("name", weights.bundled())
def test_the_model_card_has_the_figures_of_the_evaluation(name):
    text = (CARDS / f"{name}.md").read_text()
    trackers = figures.read("eval")["trackers"]
    rows = re.findall(r"\| (\w+_[\w-]+) \| (\.\d+) \| ([.\d]+) ", text)
    assert {row[0]: row[1:] for row in rows} == {
        one: (figures.score(row["auc"]), figures.score(row["precision"]))
        for one, row in trackers[name]["sequences"].items()
    }
    others = {one: figures.score(row["auc"]) for one, row in trackers.items()}
    others["v2"] = figures.score(figures.read("eval_nano_v2")["auc"])
    assert (
        "first box repeated {static}, KCF {kcf}, CSRT {csrt}, "
        "NanoTrack v2 {v2}, v3 {nano}"
    ).format(**others) in " ".join(text.split())


def test_architecture_has_the_sizes_of_the_networks():
    small, paper = presets.small().model, presets.paper().model
    assert (
        f"`paper` has {count_parameters(paper) / 1e6:.2f} M parameters, "
        f"`small` {count_parameters(small) / 1e6:.2f} M and "
        f"{count_flops(small) / 1e9:.2f} GFLOP a frame"
    ) in (ROOT / "ARCHITECTURE.md").read_text()
