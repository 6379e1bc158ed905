"""CVAT's tracking function against ``cvat_sdk``'s own classes."""

import numpy as np
import pytest

from random_variables import random_variables
from siamrpn_jax.adapters import cvat
from siamrpn_jax.api import Tracker
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.tracking.config import TrackerConfig

auto_annotation = pytest.importorskip("cvat_sdk.auto_annotation")
Image = pytest.importorskip("PIL.Image")

FRAMES, TRUTH = make_sequence(5, length=6, height=72, width=96)
BOX = TRUTH[0].astype(np.float64)
CORNERS = [*BOX[:2], *(BOX[:2] + BOX[2:])]


def shape(kind="rectangle", points=CORNERS):
    return auto_annotation.TrackableShape(type=kind, points=points)


def test_rectangles_are_those_of_the_tracker(tracker):
    function = cvat.SiamRPNFunction(tracker)
    assert isinstance(function.spec, auto_annotation.TrackingFunctionSpec)
    assert function.spec.supported_shape_types == {"rectangle"}
    images = [
        function.preprocess_image(None, Image.fromarray(frame)) for frame in FRAMES
    ]
    state = function.init_tracking_state(None, images[0], shape())
    tracker.init(FRAMES[0], BOX)
    for image, frame in zip(images[1:], FRAMES[1:], strict=True):
        found = function.track(None, image, state)
        assert found is not None and found.type == "rectangle"
        x, y, w, h = tracker.update(frame)
        np.testing.assert_allclose(found.points, [x, y, x + w, y + h], atol=0.01)


def test_a_lost_shape_is_none(tracker):
    config = TrackerConfig(min_size=4.0, lost_below=1.0, found_above=1.0)
    lost = Tracker(
        tracker.model, random_variables(tracker.model.init_variables), config
    )
    function = cvat.SiamRPNFunction(lost)
    image = function.preprocess_image(None, Image.fromarray(FRAMES[0]))
    state = function.init_tracking_state(None, image, shape())
    assert function.track(None, image, state) is None


def test_other_shapes_are_refused(tracker):
    function = cvat.SiamRPNFunction(tracker)
    image = function.preprocess_image(None, Image.fromarray(FRAMES[0]))
    for kind, points in (("polygon", [1, 2, 3, 4, 5, 6]), ("rectangle", [1, 2, 3])):
        with pytest.raises(InputError, match="expected a rectangle: x0, y0, x1, y1"):
            function.init_tracking_state(None, image, shape(kind, points))


def test_the_module_is_what_cvat_loads():
    function = cvat.create(weights="small", window_influence=0.3)
    assert function.spec.supported_shape_types == {"rectangle"}
    with pytest.raises(FileNotFoundError, match="no weights 'nothing'"):
        cvat.create(weights="nothing")
