import numpy as np
import pytest

from random_variables import random_variables
from siamrpn_jax.commands.search_picture import TILE, draw_search, look
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.evaluation.report.plots import GREEN
from siamrpn_jax.model.boxes import ltwh_to_cxcywh
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.state import Loaded
from small_models import tiny_model

MODEL = SiamRPN(tiny_model(widths=(4, 6, 8), width=8))
CELLS = MODEL.config.score_size


def search(center_size):
    variables = random_variables(MODEL.init_variables)
    frames, truth = make_sequence(0, length=2, height=60, width=80)
    loaded = Loaded(MODEL, variables, TrackerConfig(), {})
    box = ltwh_to_cxcywh(truth[0])
    return look(loaded, frames, box, center_size=center_size)


def test_nothing_wins_outside_the_centre_region():
    g = CELLS - 4
    found = search(g)
    inside = np.zeros((CELLS, CELLS), bool)
    inside[2:-2, 2:-2] = True
    assert (found.final[~inside] == 0).all() and (found.final[inside] > 0).all()
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    picture = draw_search(found)
    assert picture.shape[1:] == (3 * TILE, 3) and picture.dtype == np.uint8
    # Green lines round the region in the last two pictures, none in the first.
    green = (picture[-TILE:] == GREEN).all(-1)
    columns = np.flatnonzero(green.any(0))
    assert columns.min() >= TILE + 2 * TILE // CELLS - 3
    assert green[:, TILE : 2 * TILE].any() and green[:, 2 * TILE :].any()


def test_a_region_beyond_the_map_is_refused():
    with pytest.raises(InputError, match="center_size is"):
        search(CELLS + 2)
