"""A tracker that is never lost."""

import pytest

from random_variables import random_variables
from siamrpn_jax.api import Tracker
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking.config import TrackerConfig
from small_models import tiny_model


@pytest.fixture(scope="module")
def tracker():
    model = SiamRPN(tiny_model(widths=(4, 6, 8), width=8))
    config = TrackerConfig(min_size=4.0, lost_below=0.0)
    return Tracker(model, random_variables(model.init_variables), config)
