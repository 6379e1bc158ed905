import dataclasses

import pytest

from siamrpn_jax.commands.studies import PLANS, Place, Source
from siamrpn_jax.common.errors import InputError

SOURCE = Source(
    first=("vid",),
    second=("ytbb", "more"),
    datasets=("vot2015", "vot2016"),
    shares=(0.5, 1.0),
    center_sizes=(3, 5),
    backbone="alexnet.pth",
)


def options(job, name: str) -> list[str]:
    """The values of an option of a training."""
    words = list(job.train)
    start = words.index(name) + 1
    ends = [i for i, word in enumerate(words) if i >= start and word.startswith("--")]
    return words[start : min(ends, default=len(words))]


def test_table_3_without_and_with_the_second_set():
    plan = PLANS["anchors"](SOURCE)
    assert plan.rows == ("A3", "A5", "A7") and len(plan.jobs) == 6
    by_name = {job.name: job for job in plan.jobs}
    assert options(by_name["A5-first"], "--data") == ["vid"]
    assert options(by_name["A7-both"], "--data") == ["vid", "ytbb", "more"]
    ratios = options(by_name["A5-both"], "--model.anchors.ratios")
    assert [float(ratio) for ratio in ratios] == [1 / 3, 0.5, 1, 2, 3]
    assert plan.columns[1].name == "first, vot2016"
    assert plan.columns[1].places[2] == Place("A7-first", "vot2016")
    assert [column.dashed for column in plan.columns] == [1, 1, 0, 0, 1, 0]
    assert [column.reported for column in plan.columns[4:]] == [
        (0.279, 0.317, 0.304),
        (0.311, 0.344, 0.337),
    ]
    other = PLANS["anchors"](dataclasses.replace(SOURCE, datasets=("vot2018",)))
    assert not any(column.reported for column in other.columns)


def test_the_first_set_grows_and_then_the_second():
    plan = PLANS["data-size"](SOURCE)
    assert plan.rows == (
        "50% of first",
        "100% of first",
        "first + 50% of second",
        "first + 100% of second",
    )
    shares = [options(job, "--data.fraction") for job in plan.jobs]
    assert shares == [["0.5"], ["1.0"], ["1.0", "0.5", "0.5"], ["1.0"] * 3]
    alone = PLANS["data-size"](dataclasses.replace(SOURCE, second=()))
    assert alone.rows == plan.rows[:2]


def test_two_networks_with_every_centre_size():
    plan = PLANS["center-size"](SOURCE)
    assert [job.track for job in plan.jobs] == [("--tracker.center-size", "3", "5")] * 2
    assert plan.rows == ("3", "5")
    assert plan.columns[3].places == (
        Place("both", "vot2016", 0),
        Place("both", "vot2016", 1),
    )


def test_nothing_is_fixed_at_random():
    plan = PLANS["frozen"](SOURCE)
    fixed, free, random = plan.jobs
    assert options(fixed, "--optimizer.frozen-layers") == ["3"]
    assert options(free, "--backbone") == ["alexnet.pth"]
    assert "--backbone" not in random.train
    assert plan.columns[1].places == (None, Place("random-trained", "vot2015"))


@pytest.mark.parametrize(
    ("study", "without", "message"),
    [
        ("anchors", {"second": ()}, "expected --second"),
        ("center-size", {"second": ()}, "expected --second"),
        ("frozen", {"backbone": None}, "expected --backbone"),
    ],
)
def test_what_a_study_cannot_do_without(study, without, message):
    with pytest.raises(InputError, match=message):
        PLANS[study](dataclasses.replace(SOURCE, **without))
