"""CVAT's AI tracker: a tracking function for ``cvat-cli function run-agent``.

::

    pip install 'siamrpn-jax[cvat]' cvat-cli
    cvat-cli function create-native SiamRPN --function-module siamrpn_jax.adapters.cvat
    cvat-cli function run-agent NUMBER --function-module siamrpn_jax.adapters.cvat

Parameters of ``create`` are given to both commands, as ``-p weights=str:runs/mine``.
The agent runs on any machine that reaches the server, and needs no GPU.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from siamrpn_jax.api import Tracker, load
from siamrpn_jax.common.errors import InputError, require
from siamrpn_jax.common.released import DEFAULT_WEIGHTS
from siamrpn_jax.data.read.images import check_frame
from siamrpn_jax.model.boxes import corners_to_cxcywh, cxcywh_to_corners
from siamrpn_jax.model.rpn import Template
from siamrpn_jax.tracking.state import TrackState
from siamrpn_jax.tracking.step import make_tracker

if TYPE_CHECKING:
    from cvat_sdk import auto_annotation as cvat

SHAPE = "rectangle"
"""The shapes of CVAT that are followed."""


@dataclasses.dataclass(eq=False)
class TrackingState:
    """What is known of one shape; CVAT keeps it from image to image."""

    template: Template
    state: TrackState


def create(weights: str = DEFAULT_WEIGHTS, **constants: Any) -> "SiamRPNFunction":
    """Makes the function, as ``cvat-cli`` asks for it.

    Args:
        weights: a name, a file or a training run's folder.
        **constants: fields of ``TrackerConfig``.

    Raises:
        MissingExtraError: cvat_sdk is not installed.
        InputError: unusable weights or constants.
    """
    return SiamRPNFunction(load(weights, **constants))


class SiamRPNFunction:
    """A ``TrackingFunction`` of ``cvat_sdk.auto_annotation``.

    Args:
        tracker: what shapes are followed with.

    Raises:
        MissingExtraError: cvat_sdk is not installed.
    """

    def __init__(self, tracker: Tracker):
        self._cvat: Any = require("cvat_sdk.auto_annotation", extra="cvat")
        self._init, self._step = make_tracker(
            tracker.model, tracker.weights, config=tracker.config
        )

    @property
    def spec(self) -> "cvat.TrackingFunctionSpec":
        """What the function can do: follow rectangles."""
        return self._cvat.TrackingFunctionSpec(supported_shape_types=[SHAPE])

    def preprocess_image(self, context: Any, image: Any) -> jax.Array:
        """Takes an image to the device, once for all shapes on it.

        Args:
            context: of CVAT, not used.
            image: of PIL.

        Returns:
            RGB uint8 ``[H, W, 3]``.
        """
        return jnp.asarray(check_frame(np.asarray(image.convert("RGB"))))

    def init_tracking_state(
        self, context: Any, pp_image: jax.Array, shape: "cvat.TrackableShape"
    ) -> TrackingState:
        """Learns a shape from the image that it is drawn on.

        Args:
            context: of CVAT, not used.
            pp_image: of ``preprocess_image``.
            shape: a rectangle, ``points`` are its corners ``x0, y0, x1, y1``.

        Raises:
            InputError: another shape.
            siamrpn_jax.model.boxes.BoxError: a rectangle without area.
        """
        if shape.type != SHAPE or len(shape.points) != 4:
            raise InputError(
                f"shape {shape.type} of {len(shape.points)} numbers, expected a "
                f"{SHAPE}: x0, y0, x1, y1"
            )
        box = corners_to_cxcywh(np.array(shape.points, np.float64))
        return TrackingState(*self._init(pp_image, box.astype(np.float32)))

    def track(
        self, context: Any, pp_image: jax.Array, state: TrackingState
    ) -> "cvat.TrackableShape | None":
        """Finds a shape on the next image.

        Args:
            context: of CVAT, not used.
            pp_image: of ``preprocess_image``.
            state: of ``init_tracking_state``; changed.

        Returns:
            the rectangle, or None where the target is lost.
        """
        state.state, output = self._step(state.template, state.state, pp_image)
        box, lost = jax.device_get((output.box, output.lost))
        if lost:
            return None
        points = cxcywh_to_corners(box.astype(np.float64)).tolist()
        return self._cvat.TrackableShape(type=SHAPE, points=points)
