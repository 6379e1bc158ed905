"""A small model's weights, and detections made by hand."""

import jax.numpy as jnp
import pytest

from random_variables import random_variables
from siamrpn_jax.tracking import step as tracker
from tracking_steps import MODEL


@pytest.fixture(scope="module")
def variables():
    patches = (jnp.zeros((1, size, size, 3)) for size in (60, 124))
    return random_variables(MODEL.init, *patches)


@pytest.fixture
def detects(monkeypatch):
    """Sets what the network says; ``track_step`` then runs without jit."""

    def choose(detection):
        monkeypatch.setattr(tracker.fused, "detect", lambda *_, **__: detection)

    return choose
