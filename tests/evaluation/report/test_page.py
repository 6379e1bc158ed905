import base64
import dataclasses
import html.parser
import re

import cv2
import numpy as np
import pytest

from browser import open_browser
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.evaluation.ope import metrics as ope
from siamrpn_jax.evaluation.report import plots
from siamrpn_jax.evaluation.report.data import (
    REPORTED,
    OpeBenchmark,
    OpeEntry,
    Report,
    StripFrame,
    VotBenchmark,
    VotEntry,
    VotFailure,
    find_vot_failures,
    reported_rows,
)
from siamrpn_jax.evaluation.report.page import render, write_report
from siamrpn_jax.evaluation.vot.dataset import VotSequence
from siamrpn_jax.evaluation.vot.metrics import (
    AttributeFigures,
    PartFigures,
    evaluate,
    evaluate_unsupervised,
)

ATTRIBUTES = ("camera_motion", "illum_change", "motion_change", "occlusion", "empty")


class Reader(html.parser.HTMLParser):
    """Texts of table rows, and all addresses of a page."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.addresses, self.tags = [], [], []
        self.in_row = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href")]
        if tag == "tr":
            self.rows.append("")
            self.in_row = True

    def handle_endtag(self, tag):
        self.in_row = self.in_row and tag != "tr"

    def handle_data(self, data):
        if self.in_row:
            self.rows[-1] += f" {data}"

    def row(self, start):
        return next(row for row in self.rows if row.strip().startswith(start))


def draw_strip(rng, *, polygon):
    frames = []
    for step, index in enumerate((12, 16, 20, 24, 27)):
        y, x = np.mgrid[:270, :480]
        image = np.stack([x // 3, y // 2, 120 + 0 * x], -1).astype(np.uint8)
        image[60:140, 90 + 40 * step : 200 + 40 * step] = rng.integers(90, 255, 3)
        left = 90.0 + 40 * step
        truth = np.array([left, 60, 110, 80])
        if polygon:
            truth = np.array([left, 70, left + 90, 50, left + 112, 128, left + 20, 150])
        found = np.array([left - 26.0 * step, 60 - 4 * step, 100, 84])
        frames.append(StripFrame(index, image, found, truth))
    return tuple(frames)


def make_entry(name, eao, *, fps, count=60, seed=0, **more):
    rng = np.random.default_rng(seed)
    lengths = np.arange(1500)
    curve = np.minimum(1, eao + 0.5 * np.exp(-lengths / 60) - lengths * eao / 4000)
    sequences = {
        f"sequence{i:02d}": PartFigures(
            int(rng.integers(200, 500)), float(rng.uniform(0.4, 0.7)), float(i % 4)
        )
        for i in range(count)
    }
    failures = sum(part.failures for part in sequences.values())
    frames = sum(part.frames for part in sequences.values())
    return VotEntry(
        tracker=name,
        eao=eao,
        accuracy=0.45 + eao / 4,
        robustness=100 * failures / frames,
        failures=failures,
        curve=np.clip(curve, 0, 1),
        sequences=sequences,
        attributes={
            name: AttributeFigures(2000 + 10 * i, eao + 0.03 * i, 3.0 * i, eao)
            for i, name in enumerate(ATTRIBUTES)
        },
        fps=fps,
        **more,
    )


def make_ope(name, shift):
    truth = np.array([[5.0 * i, 2 * i, 40, 30] for i in range(60)])
    drift = np.linspace(0, shift, 60)[:, None] * [1, 0.5, 0, 0]
    metrics = ope.evaluate(truth + drift, truth)
    names = ("Basketball", "Biker", "Bird1")
    cost = {"ms": 8.25, "M param": None if shift > 50 else 0.59}
    return OpeEntry(name, metrics, dict.fromkeys(names, metrics), fps=120.0, cost=cost)


@pytest.fixture
def report():
    rng = np.random.default_rng(0)
    lost = (
        VotFailure("sequence01", 27, 1, draw_strip(rng, polygon=True)),
        VotFailure("sequence02", 27, 1, draw_strip(rng, polygon=False)),
        VotFailure("sequence02", 130),
    )
    entries = (
        make_entry("static", 0.04, fps=9000.0, seed=1),
        make_entry("SiamRPN small", 0.286, fps=171.3, lost=lost, note="small"),
        make_entry("kcf", 0.161, fps=420.0, seed=2, efo_estimate=55.2),
    )
    vot = VotBenchmark("vot2016", "baseline", "legacy", "pysot", (108, 371), entries)
    curves = OpeBenchmark(
        "OTB2015",
        "first frame included",
        (make_ope("SiamRPN small", 30), make_ope("static", 80)),
    )
    about = {"command": "eval_vot.py --dataset vot2016", "device": "CPU, 2 cores"}
    return Report("VOT2016 and OTB2015", vot=(vot,), ope=(curves,), about=about)


def with_entries(*entries, **more):
    fields = {"dataset": "vot2018", "experiment": "baseline", "interval": (100, 356)}
    benchmark = VotBenchmark(
        convention="legacy", overlap="pysot", entries=entries, **(fields | more)
    )
    return Report("r", vot=(benchmark,))


def test_page_is_written_and_stands_alone(tmp_path, report):
    path = write_report(tmp_path / "deep", report)
    assert path == tmp_path / "deep" / "index.html"
    page = Reader(path.read_text("utf-8"))
    assert all(one.startswith(("data:", "#")) for one in page.addresses)
    assert "script" not in page.tags
    assert len([tag for tag in page.tags if tag == "img"]) == 6 + 10
    assert page.row("Basketball").split()[1] == "59"


def test_figures_stand_with_rank_and_convention(report):
    text = render(report)
    page = Reader(text)
    failures = sum(i % 4 for i in range(60)) / 60
    frames = sum(part.frames for part in report.vot[0].entries[1].sequences.values())
    row = page.row("1. SiamRPN small")
    assert row.split()[3:] == [
        "small", "0.2860", f"{0.45 + 0.286 / 4:.3f}", f"{failures:.2f}",
        f"{100 * failures * 60 / frames:.2f}", "171.3", "not", "measured",
    ]  # fmt: skip
    assert page.row("2. kcf").split()[-3:] == ["≈", "55.2", "estimate"]
    assert page.row("3. static")
    for part in ("<b>legacy</b>", "<b>pysot</b>", "108 to 371 frames", "CPU, 2 cores"):
        assert part in text


def test_reported_rows_are_marked_unranked_and_the_papers(report):
    page = Reader(render(report))
    reported = [row for row in page.rows if "reported" in row]
    assert len(reported) == 13 + 8
    assert all(not re.match(r"\s*\d+\.", row) for row in reported)
    ours = page.row("SiamRPN reported").split()
    assert ours == "SiamRPN reported 0.3441 0.56 1.08 – 160 23.3".split()
    table, rows = REPORTED["vot2015"]
    best = max(rows, key=lambda row: row.eao)
    assert (table, len(rows), best.tracker, best.eao) == (
        "Table 1",
        13,
        "SiamRPN",
        0.358,
    )


@pytest.mark.parametrize(
    ("dataset", "experiment", "count"),
    [
        ("vot2015", "baseline", 13),
        ("vot2018", "baseline", 0),
        ("vot2016", "realtime", 0),
    ],
)
def test_reported_rows_stand_beside_the_same_experiment_only(
    dataset, experiment, count
):
    report = with_entries(
        make_entry("a", 0.2, fps=1), dataset=dataset, experiment=experiment
    )
    assert len(reported_rows(report.vot[0])) == count
    table = render(report).partition("<details>")[0]
    assert table.count(">reported<") == count


def test_names_are_text_not_html_nor_mathematics():
    name = "<script>alert('$x_1$')</script> & _a"
    entry = make_entry(name, 0.2, fps=10, note="<b>", missing=("<i>",))
    page = render(with_entries(entry, make_entry("_hidden$", 0.1, fps=None)))
    assert "<script" not in page and "<i>" not in page and "<b>&" not in page
    assert "&lt;script&gt;alert(&#39;$x_1$&#39;)" in page


def test_incomplete_trackers_are_told_and_not_ranked():
    whole = make_entry("whole", 0.1, fps=5.0)
    part = make_entry("part", 0.4, fps=5.0, count=58, missing=("s58", "s59"))
    text = render(with_entries(part, whole))
    page = Reader(text)
    assert page.row("1. whole")
    assert "incomplete" in page.row("part")
    assert "no results for 2 sequences" in text and "s58, s59" in text


def test_figures_that_are_not_there():
    entry = VotEntry(
        "a", None, 0.5, None, None, None, {"s": PartFigures(9, float("nan"), 0.0)}
    )
    page = Reader(render(with_entries(entry, experiment="unsupervised", interval=None)))
    assert page.row("1. a").split()[2:] == ["–", "0.500", "–", "–", "–"]
    assert page.row("s ").split() == ["s", "9", "–", "0.00"]
    assert "img" not in page.tags


def test_bad_reports_are_named():
    with pytest.raises(InputError, match="without trackers"):
        render(Report("nothing"))
    twice = make_entry("a", 0.2, fps=1)
    with pytest.raises(InputError, match="2 trackers are named 'a'"):
        render(with_entries(twice, twice))


def test_plots_are_the_same_for_the_same_figures(report):
    benchmark = report.vot[0]
    first, second = (plots.to_svg(plots.plot_eao_curves(benchmark)) for _ in range(2))
    assert first == second and first.startswith("<?xml")
    unknown = with_entries(make_entry("a", 0.2, fps=None)).vot[0]
    assert plots.plot_speed(unknown, ()) is None


def test_of_many_trackers_the_best_are_named():
    """As in the paper's figures: ten curves, 25 rows; the rest is not lost."""
    entries = [
        make_entry(f"t{i:02}", 0.01 + 0.01 * ((7 * i) % 30), fps=1.0, seed=i)
        for i in range(30)
    ]
    year = with_entries(*entries).vot[0]
    axes = plots.plot_eao_curves(year).axes[0]
    best = sorted(entries, key=lambda entry: -(entry.eao or 0))
    named = [text.get_text().split()[0] for text in axes.get_legend().get_texts()]
    assert named == [entry.tracker for entry in best[:10]]
    assert len(axes.lines) == 30
    axes = plots.plot_ranking(year, ()).axes[0]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows[::-1] == [entry.tracker for entry in best[:25]]
    assert axes.get_title() == "EAO ranking, 5 more below"


def test_what_the_paper_says_of_the_real_time_challenge():
    entry = make_entry("a", 0.2, fps=30.0)
    text = render(with_entries(entry, dataset="vot2017", experiment="realtime"))
    assert "33 % above that of SiamFC" in text
    assert "above that of SiamFC" not in render(with_entries(entry, dataset="vot2017"))


def test_efo_is_reported_estimated_or_said_to_be_missing():
    """Never an empty cell, nor frames a second on an axis of EFO."""
    timed = make_entry("a", 0.2, fps=100.0)
    estimated = make_entry("b", 0.3, fps=200.0, efo_estimate=21.5)
    alone = with_entries(timed)
    assert Reader(render(alone)).row("1. a").split()[-1] == "100.0"
    assert "not EFO" in plots.plot_speed(alone.vot[0], ()).axes[0].get_xlabel()
    both = render(with_entries(timed, estimated))
    assert "≈ 21.5" in both and "not measured" in both
    year = with_entries(estimated, dataset="vot2016", interval=(108, 371)).vot[0]
    rows = REPORTED["vot2016"][1]
    axes = plots.plot_speed(year, rows).axes[0]
    assert axes.get_xlabel().startswith("EFO")
    shown = {round(float(x), 3) for line in axes.lines for x in line.get_xdata()}
    assert shown == {21.5, *(row.efo for row in rows)}


def test_pictures_of_failures_show_the_regions(report):
    text = render(report)
    assert text.count('class="truth"') == text.count('class="found"') == 10
    assert 'class="truth" points="90.0,70.0 180.0,50.0 202.0,128.0 110.0,150.0"' in text
    assert 'class="found" points="90.0,60.0 190.0,60.0 190.0,144.0 90.0,144.0"' in text
    data = re.search(r'src="data:image/jpeg;base64,([^"]+)"', text)
    assert data and base64.b64decode(data[1]).startswith(b"\xff\xd8")


def make_sequence(folder, *, written=True):
    """Twelve frames with a box and a run that fails twice, in frames 4 and 10."""
    paths = tuple(folder / f"{i:08d}.png" for i in range(1, 13))
    for i, path in enumerate(paths if written else ()):
        assert cv2.imwrite(str(path), np.full((40, 60, 3), 20 * i, np.uint8))
    truth = tuple(np.array([10.0 + i, 10, 20, 15]) for i in range(12))
    run = [box + [1, 0, 0, 0] for box in truth]
    for frame, code in (
        (0, 1),
        (4, 2),
        *((i, 0) for i in range(5, 9)),
        (9, 1),
        (10, 2),
    ):
        run[frame] = np.array([float(code)])
    run[11] = np.array([0.0])
    tags = {"occlusion": np.arange(12) < 3}
    return VotSequence("walk", paths, truth, (60, 40), tags, None), run


def test_failures_are_found_and_shown_once_a_sequence(tmp_path):
    sequence, run = make_sequence(tmp_path)
    found = find_vot_failures({"walk": [run, run]}, [sequence])
    places = [(one.sequence, one.frame, one.repetition) for one in found]
    assert places == [("walk", 4, 1), ("walk", 10, 1), ("walk", 4, 2), ("walk", 10, 2)]
    assert [len(one.strip) for one in found] == [5, 0, 0, 0]
    strip = found[0].strip
    assert [frame.index for frame in strip] == [0, 1, 2, 3, 4]
    assert [frame.predicted is None for frame in strip] == [True, *[False] * 3, True]
    assert [int(frame.image.mean()) for frame in strip] == [0, 20, 40, 60, 80]
    assert all(frame.truth is sequence.regions[frame.index] for frame in strip)
    none = find_vot_failures({"walk": [run]}, [sequence], strips=0)
    assert not any(one.strip for one in none)


def test_failures_without_images_have_no_pictures(tmp_path):
    sequence, run = make_sequence(tmp_path, written=False)
    for given in (sequence, dataclasses.replace(sequence, frames=())):
        found = find_vot_failures({"walk": [run], "other": [run]}, [given])
        assert [(one.frame, one.strip) for one in found] == [(4, ()), (10, ())]


def test_entries_from_computed_figures(tmp_path):
    sequence, run = make_sequence(tmp_path, written=False)
    figures = evaluate({"walk": [run]}, [sequence], interval=(3, 9))
    entry = VotEntry.of("a", figures, [sequence], fps=9.0)
    assert (entry.eao, entry.failures, entry.fps) == (figures.eao, 2, 9.0)
    assert entry.failures_per_sequence == 2
    assert entry.accuracy is None  # no frame is later than the burn-in
    page = Reader(render(with_entries(entry)))
    assert page.row("occlusion").split()[:2] == ["occlusion", "3"]
    whole = [np.array([1.0]), *(box + 1.0 for box in sequence.regions[1:])]
    unsupervised = evaluate_unsupervised({"walk": [whole]}, [sequence])
    entry = VotEntry.of("a", unsupervised, [sequence])
    assert entry.accuracy == unsupervised.average_overlap and entry.eao is None
    page = Reader(render(with_entries(entry, experiment="unsupervised")))
    assert page.row("walk").split()[:2] == ["walk", "12"]


def test_page_in_a_browser(tmp_path, report):
    path = write_report(tmp_path / "report", report)
    with open_browser(tmp_path / "profile", width=1280) as browser:
        browser.open(path.as_uri())
        browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
        widths = browser.run(
            "return [...document.images].map(i => i.complete && i.naturalWidth)"
        )
        assert len(widths) == 16 and all(width > 0 for width in widths)
        assert browser.run("return window.innerWidth") == 1280
        page = "document.documentElement"
        assert browser.run(f"return {page}.scrollWidth <= {page}.clientWidth")
        assert browser.run("return document.title") == "VOT2016 and OTB2015"
        assert browser.logs() == []
        browser.save_page(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 50_000
