"""A tracker that the VOT toolkit's own client drives, over the TraX protocol.

Needs the package ``vot-trax`` (``pip install 'siamrpn-jax[vot]'``), which is the
protocol alone; nothing of the toolkit is imported. Regions are in continuous pixels as
in VOT's files: a rectangle is ``ltwh``, a polygon of four corners becomes the box that
``evaluation.vot.dataset.region_to_ltwh`` makes of it, any other its bounding box.
"""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from siamrpn_jax.common.errors import InputError, require
from siamrpn_jax.data.read.images import read_image
from siamrpn_jax.evaluation.runner import OnePassTracker
from siamrpn_jax.evaluation.vot.dataset import region_to_ltwh


class FollowedObjects:
    """Any number of objects, some or all of which may join later.

    Objects that come in the same frame are followed together, by one tracker. Before it
    answers for the first frame of a size, and of a number of objects, it runs once
    without counting: what happens once, such as compilation, is then done.

    Args:
        tracker: ``init`` takes boxes ``ltwh [4]``, and ``[N, 4]`` where the client has
            several objects; ``update`` returns them alike. Copies of it share weights.
    """

    def __init__(self, tracker: OnePassTracker) -> None:
        self._tracker = tracker
        self._groups: list[OnePassTracker] = []
        self._warm: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()

    def warm_up(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Runs on a grey frame of each ``(width, height)`` with one object."""
        for width, height in sizes:
            frame = np.full((height, width, 3), 128, np.uint8)
            box = np.array([width / 4, height / 4, width / 2, height / 2])
            self._ready(frame, box)

    def start(self, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Forgets all objects and starts on others.

        Args:
            frame: RGB uint8 ``[H, W, 3]``.
            boxes: ``ltwh [N, 4]``; N may be 0, and objects join later.

        Returns:
            ``ltwh float64 [N, 4]``, the boxes given.
        """
        self._groups.clear()
        return self.add(frame, boxes)

    def add(self, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Follows more objects from this frame on; arguments as for ``start``."""
        if not len(boxes):
            return np.zeros((0, 4))
        # One box takes the path for one target, which is the faster one.
        start = boxes[0] if len(boxes) == 1 else boxes
        self._ready(frame, start)
        group = copy.copy(self._tracker)
        group.init(frame, start)
        self._groups.append(group)
        return np.asarray(boxes, np.float64)

    def update(self, frame: np.ndarray) -> np.ndarray:
        """Finds all objects, in the order in which they came: ``ltwh [N, 4]``."""
        found = [np.atleast_2d(group.update(frame)) for group in self._groups]
        return np.concatenate([np.zeros((0, 4)), *found])

    def _ready(self, frame: np.ndarray, start: np.ndarray) -> None:
        case = frame.shape, start.shape
        if case not in self._warm:
            trial = copy.copy(self._tracker)
            trial.init(frame, start)
            trial.update(frame)
            self._warm.add(case)


def serve(
    tracker: OnePassTracker,
    *,
    name: str = "SiamRPN-JAX",
    sizes: Iterable[tuple[int, int]] = (),
) -> None:
    """Answers a TraX client on the standard streams until it quits.

    Args:
        tracker: as for ``FollowedObjects``.
        name: the tracker's name for the client.
        sizes: ``(width, height)`` of frames to be ready for before the client hears of
            this tracker; other sizes are made ready before their first answer.

    Raises:
        InputError: a region that is neither a rectangle nor a polygon.
        siamrpn_jax.common.errors.MissingExtraError: ``vot-trax`` is not installed.
    """
    trax = require("trax", extra="vot")
    objects = FollowedObjects(tracker)
    objects.warm_up(sizes)
    server = trax.Server(
        [trax.Region.RECTANGLE, trax.Region.POLYGON],
        [trax.Image.PATH],
        tracker_name=name,
        multiobject=True,
    )
    with server:
        while (request := server.wait()).type in ("initialize", "frame"):
            boxes = answer(objects, request)
            server.status([(trax.Rectangle.create(*box), {}) for box in boxes.tolist()])


def answer(objects: FollowedObjects, request: Any) -> np.ndarray:
    """Does what a client asks.

    Args:
        objects: what is followed; changed.
        request: ``trax.server.Request``, to initialize or with a frame.

    Returns:
        ``ltwh [N, 4]`` of all objects.
    """
    frame = read_image(request.image["color"].path())
    new = _boxes(request.objects or ())
    if request.type == "initialize":
        return objects.start(frame, new)
    return np.concatenate([objects.update(frame), objects.add(frame, new)])


def _boxes(objects: Sequence[tuple[Any, Any]]) -> np.ndarray:
    return np.array([_box(region) for region, _ in objects]).reshape(-1, 4)


def _box(region: Any) -> np.ndarray:
    if region.type == "rectangle":
        return np.array(region.bounds(), np.float64)
    if region.type != "polygon":
        raise InputError(
            f"the client sends a {region.type}, expected a rectangle or a polygon"
        )
    corners = np.array(list(region), np.float64)
    if len(corners) == 4:
        return region_to_ltwh(corners.reshape(-1))
    low, high = corners.min(axis=0), corners.max(axis=0)
    return np.concatenate([low, high - low])
