from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from siamrpn_jax.common import errors
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.evaluation.vot import trax
from siamrpn_jax.evaluation.vot.trax import FollowedObjects, answer


class Drifting:
    """Boxes move a pixel to the right in each frame; copies share the log."""

    def __init__(self):
        self.log = []

    def init(self, image, box):
        self.log.append(("init", image.shape, np.shape(box)))
        self.boxes = np.asarray(box, float)

    def update(self, image):
        self.log.append(("update", image.shape, self.boxes.shape))
        self.boxes = self.boxes + [1, 0, 0, 0]
        return self.boxes


def rectangle(*box):
    return SimpleNamespace(type="rectangle", bounds=lambda: box), {}


def polygon(*corners):
    class Polygon(list):
        type = "polygon"

    return Polygon(corners), {}


@pytest.fixture
def ask(tmp_path):
    path = tmp_path / "00000001.png"
    cv2.imwrite(str(path), np.zeros((30, 40, 3), np.uint8))
    image = {"color": SimpleNamespace(path=lambda: str(path))}

    def make(kind, *objects):
        return SimpleNamespace(type=kind, image=image, objects=list(objects) or None)

    return make


def test_objects_join_later_and_keep_their_order(ask):
    objects = FollowedObjects(Drifting())
    start = answer(objects, ask("initialize", rectangle(1, 2, 3, 4)))
    np.testing.assert_array_equal(start, [[1, 2, 3, 4]])
    two = rectangle(10, 2, 3, 4), rectangle(20, 2, 3, 4)
    joined = answer(objects, ask("frame", *two))
    np.testing.assert_array_equal(joined[:, 0], [2, 10, 20])
    np.testing.assert_array_equal(answer(objects, ask("frame"))[:, 0], [3, 11, 21])
    again = answer(objects, ask("initialize", rectangle(5, 6, 7, 8)))
    np.testing.assert_array_equal(again, [[5, 6, 7, 8]])
    assert len(answer(objects, ask("frame"))) == 1


def test_all_objects_may_join_later(ask):
    tracker = Drifting()
    objects = FollowedObjects(tracker)
    assert answer(objects, ask("initialize")).shape == (0, 4)
    assert answer(objects, ask("frame")).shape == (0, 4) and not tracker.log
    joined = answer(objects, ask("frame", rectangle(1, 2, 3, 4)))
    np.testing.assert_array_equal(joined, [[1, 2, 3, 4]])
    np.testing.assert_array_equal(answer(objects, ask("frame"))[:, 0], [2])


def test_each_size_and_number_of_objects_is_ready_before_the_first_answer(ask):
    tracker = Drifting()
    objects = FollowedObjects(tracker)
    objects.warm_up([(40, 30), (20, 10)])
    trial = lambda shape, box: [("init", shape, box), ("update", shape, box)]  # noqa: E731
    assert tracker.log == trial((30, 40, 3), (4,)) + trial((10, 20, 3), (4,))
    tracker.log.clear()
    one, two = rectangle(1, 2, 3, 4), rectangle(5, 6, 7, 8)
    answer(objects, ask("initialize", one))
    assert tracker.log == [("init", (30, 40, 3), (4,))]
    tracker.log.clear()
    answer(objects, ask("initialize", one, two))
    assert tracker.log == [*trial((30, 40, 3), (2, 4)), ("init", (30, 40, 3), (2, 4))]


def test_polygons_become_boxes(ask):
    objects = FollowedObjects(Drifting())
    rotated = polygon((5, 0), (10, 5), (5, 10), (0, 5))
    triangle = polygon((0, 0), (8, 2), (4, 6))
    found = answer(objects, ask("initialize", rotated, triangle))
    half = np.sqrt(50) / 2
    expected = [[5 - half, 5 - half, 2 * half, 2 * half], [0, 0, 8, 6]]
    np.testing.assert_allclose(found, expected)


def test_other_regions_are_named(ask):
    mask = SimpleNamespace(type="mask"), {}
    with pytest.raises(InputError, match="sends a mask"):
        answer(FollowedObjects(Drifting()), ask("initialize", mask))


def test_a_server_answers_until_the_client_quits(ask, monkeypatch):
    sent = []

    class Server:
        def __init__(self, regions, images, *, tracker_name, multiobject):
            sent.append((regions, images, tracker_name, multiobject))
            asked = ask("initialize", rectangle(1, 2, 3, 4)), ask("frame"), ask("quit")
            self.wait = iter(asked).__next__

        def __enter__(self):
            return self

        def __exit__(self, *_):
            sent.append("closed")

        def status(self, objects):
            sent.append(objects)

    fake = SimpleNamespace(
        Server=Server,
        Region=SimpleNamespace(RECTANGLE="r", POLYGON="p"),
        Image=SimpleNamespace(PATH="path"),
        Rectangle=SimpleNamespace(create=lambda *box: box),
    )
    monkeypatch.setattr(trax, "require", lambda *_, **__: fake)
    trax.serve(Drifting(), name="n", sizes=[(8, 8)])
    assert sent == [
        (["r", "p"], ["path"], "n", True),
        [((1, 2, 3, 4), {})],
        [((2, 2, 3, 4), {})],
        "closed",
    ]


def test_the_extra_is_named(monkeypatch):
    def missing(module, *, extra):
        raise errors.MissingExtraError(f"{module}: 'siamrpn-jax[{extra}]'")

    monkeypatch.setattr(trax, "require", missing)
    with pytest.raises(errors.MissingExtraError, match=r"trax: 'siamrpn-jax\[vot\]'"):
        trax.serve(Drifting())
