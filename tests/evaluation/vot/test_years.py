import pytest

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.evaluation.vot.years import LENGTHS, NAMES, check_year


@pytest.mark.parametrize("year", NAMES)
def test_each_year_has_60_sequences(year):
    assert len(set(NAMES[year])) == len(NAMES[year]) == 60
    check_year(
        year,
        dict.fromkeys(NAMES[year], 100)
        | (LENGTHS if "8" in year or "7" in year else {}),
    )


def test_another_years_sequences_are_refused():
    with pytest.raises(
        InputError, match=r"vot2019: \d+ of 60 .*those of vot2017 or vot"
    ):
        check_year("vot2019", LENGTHS)
    some = {"octopus": 50, "bag": 50}
    with pytest.raises(
        InputError, match="vot2018: 1 of 2 .*octopus; .*vot2015 or vot2"
    ):
        check_year("vot2018", some)


def test_as_many_others_are_refused_and_a_few_are_not():
    others = {f"own {n}": 100 for n in range(60)}
    with pytest.raises(InputError, match="vot2016: 60 of 60 sequences are not of it"):
        check_year("vot2016", others)
    check_year("vot2016", {"own": 100})
    check_year("vot2018", {"ball1": 105, "bmx": 76})


def test_other_lengths_are_refused():
    with pytest.raises(
        InputError, match="vot2018: girl has 1499 frames, expected 1500"
    ):
        check_year("vot2018", LENGTHS | {"girl": 1499})
