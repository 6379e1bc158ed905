"""A short film, and a tracker whose boxes move in it."""

import cv2
import pytest

from random_variables import random_variables
from siamrpn_jax.api import Tracker
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.labelling.session import Session
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking.config import TrackerConfig
from small_models import tiny_model

COUNT = 14


@pytest.fixture(scope="module")
def tracker():
    model = SiamRPN(tiny_model(widths=(4, 6, 8), width=8))
    variables = random_variables(model.init_variables)
    # Boxes that move, and stay within reach.
    config = TrackerConfig(min_size=4.0, window_influence=0.9, size_lr=0.1)
    return Tracker(model, variables, config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "scene"
    path.mkdir()
    images, _ = make_sequence(5, length=COUNT, height=72, width=96)
    for number, image in enumerate(images):
        cv2.imwrite(str(path / f"{number:03d}.png"), image[..., ::-1])
    return path


@pytest.fixture
def session(folder, tracker):
    return Session(folder, tracker=tracker)
