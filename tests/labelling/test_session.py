import itertools
import json
import re
import sys
import threading
from types import SimpleNamespace

import cv2
import jax
import numpy as np
import pytest

from random_variables import random_variables
from siamrpn_jax.api import Tracker
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.images import read_image
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.deploy.exported import NO_ANSWER
from siamrpn_jax.evaluation.ope.metrics import overlaps
from siamrpn_jax.labelling.session import Session
from siamrpn_jax.media import frames as media
from siamrpn_jax.model.boxes import BoxError

COUNT = 14
FIRST, SECOND = [20.0, 15, 24, 18], [60.0, 30, 16, 20]


def follow(tracker, frames, box):
    """Boxes of one target by the plain tracker, the first one given."""
    tracker.init(frames[0], box)
    return np.array([box, *(tracker.update(frame) for frame in frames[1:])])


def images_of(session, numbers=range(COUNT)):
    return [session.frames[number] for number in numbers]


def boxes_of(session, number):
    (found,) = [one for one in session.labels().objects if one.number == number]
    return found.boxes


def run(session, *args, **options):
    """Results, and how many frames were tracked for them."""
    told = [(0, 0)]
    progress = lambda done, total: told.append((done, total))  # noqa: E731
    results = list(session.propagate(*args, progress=progress, **options))
    assert all(done <= total for done, total in told)
    return results, told[-1][1]


def test_objects_are_followed_as_the_tracker_would(session, tracker):
    session.add_box(0, 4, FIRST, name="car")
    session.add_box(3, 2, SECOND)
    results, _ = run(session)
    assert [result.index for result in results] == list(range(COUNT))
    assert results[0].object_ids == (4,) and results[3].object_ids == (2, 4)
    images = images_of(session)
    expected = follow(tracker, images, FIRST)
    np.testing.assert_allclose(boxes_of(session, 4), expected, atol=0.01)
    expected = follow(tracker, images[3:], SECOND)
    np.testing.assert_allclose(boxes_of(session, 2)[3:], expected, atol=0.01)
    assert np.isnan(boxes_of(session, 2)[:3]).all()
    assert session.name(4) == "car" and session.name(2) == "object"
    later = results[5]
    assert (later.scores > 0).all() and (later.confidence > 0).all()
    assert later.frame.shape == (72, 96, 3) and later.plot().shape == (72, 96, 3)


def test_backwards_is_forwards_through_the_film_turned_round(session, tracker):
    session.add_box(COUNT - 1, 0, FIRST)
    results, _ = run(session, reverse=True)
    assert [result.index for result in results] == list(reversed(range(COUNT)))
    expected = follow(tracker, images_of(session)[::-1], FIRST)
    np.testing.assert_allclose(boxes_of(session, 0)[::-1], expected, atol=0.01)


def test_between_two_boxes_both_ends_are_met(session, tracker):
    """From each box as the tracker goes, joined by the way to either."""
    session.add_box(2, 0, FIRST)
    session.add_box(9, 0, SECOND)
    run(session)
    found, images = boxes_of(session, 0), images_of(session)
    np.testing.assert_array_equal(found[2], FIRST)
    np.testing.assert_array_equal(found[9], SECOND)
    forward = follow(tracker, images[2:10], FIRST)
    backward = follow(tracker, images[9:1:-1], SECOND)[::-1]
    for place in range(1, 7):
        either = (forward[place], backward[place])
        low, high = np.minimum(*either) - 0.01, np.maximum(*either) + 0.01
        assert ((low <= found[2 + place]) & (found[2 + place] <= high)).all()
    expected = follow(tracker, images[9:], SECOND)
    np.testing.assert_allclose(found[9:], expected, atol=0.01)
    assert np.isnan(found[:2]).all()


def test_nothing_is_tracked_twice_and_a_correction_only_where_it_counts(session):
    session.add_box(0, 0, FIRST)
    session.add_box(9, 0, SECOND)
    session.add_box(0, 1, SECOND)
    run(session)
    before = {number: boxes_of(session, number) for number in (0, 1)}
    _, total = run(session)
    assert total == 0
    session.add_box(5, 0, [30, 20, 24, 18])
    _, total = run(session)
    # Backwards from 5 to 1 and forwards from 5 to 8; from 0 and from 9 it is known.
    assert total == 5 + 4
    np.testing.assert_array_equal(boxes_of(session, 1), before[1])
    np.testing.assert_array_equal(boxes_of(session, 0)[9:], before[0][9:])
    assert (boxes_of(session, 0)[1:9] != before[0][1:9]).any(axis=1).all()
    session.remove_box(5, 0)
    run(session)
    np.testing.assert_allclose(boxes_of(session, 0), before[0], atol=0.01)


def test_an_object_that_is_gone_is_not_tracked_until_its_next_box(session, tracker):
    session.add_box(0, 0, FIRST)
    session.add_box(9, 0, SECOND)
    session.mark_gone(5, 0)
    assert session.gone(0) == (range(5, 9),)
    _, total = run(session)
    assert total == 5 + COUNT - 9  # frames 0 to 4, and 9 to the end
    found, images = boxes_of(session, 0), images_of(session)
    assert np.isnan(found[5:9]).all()
    expected = follow(tracker, images, FIRST)
    np.testing.assert_allclose(found[:5], expected[:5], atol=0.01)
    _, total = run(session, reverse=True)
    assert total == 0
    for wrong, message in ((6, "gone on frame 6 already"), (COUNT, f"frame {COUNT}")):
        with pytest.raises(InputError, match=message):
            session.mark_gone(wrong, 0)
    session.mark_gone(3, 0)
    assert session.gone(0) == (range(3, 9),)
    session.remove_box(3, 0)
    run(session)
    assert np.isfinite(boxes_of(session, 0)).all()
    session.mark_gone(9, 0)  # its box there is taken back
    assert list(session.keys(0)) == [0] and session.gone(0) == (range(9, COUNT),)
    with pytest.raises(InputError, match="its only box"):
        session.mark_gone(0, 0)
    session.add_box(11, 0, FIRST)
    assert session.gone(0) == (range(9, 11),)
    session.remove_box(0, 0)
    session.mark_gone(2, 0)
    assert session.gone(0) == (range(2, 11),)
    _, total = run(session, reverse=True)
    assert total == 0


def test_a_part_of_the_film(session, tracker):
    session.add_box(2, 0, FIRST)
    results, total = run(session, 4, 8)
    assert [result.index for result in results] == [4, 5, 6, 7]
    assert total == 6  # frames 2 to 7
    assert np.isnan(boxes_of(session, 0)[8:]).all()
    _, total = run(session)
    assert total == COUNT - 8
    expected = follow(tracker, images_of(session)[2:], FIRST)
    np.testing.assert_allclose(boxes_of(session, 0)[2:], expected, atol=0.01)


def test_what_is_left_early_goes_on_where_it_was(session, tracker):
    session.add_box(0, 0, FIRST)
    list(itertools.islice(session.propagate(), 5))
    known = np.isfinite(boxes_of(session, 0)).all(axis=1).sum()
    assert 5 <= known <= 6
    _, total = run(session)
    assert total == COUNT - known
    expected = follow(tracker, images_of(session), FIRST)
    np.testing.assert_allclose(boxes_of(session, 0), expected, atol=0.01)


def test_only_runs_that_can_go_on_keep_a_tracker_s_state(session, tracker):
    """It is MiB each where kernels learn, and a long session has many key frames."""
    for frame in (2, 5, 9):
        session.add_box(frame, 0, FIRST)

    def kept():
        target = session._objects[0]
        runs = [*target.forward.values(), *target.backward.values()]
        return [(run.key, run.step) for run in runs if run.resume is not None]

    run(session, 0, 12)
    assert kept() == [(9, 1)]
    run(session)
    run(session, reverse=True)
    assert kept() == []
    session.remove_box(5, 0)
    session.remove_box(9, 0)
    run(session)
    expected = follow(tracker, images_of(session)[2:], FIRST)
    np.testing.assert_allclose(boxes_of(session, 0)[2:], expected, atol=0.01)
    assert kept() == []


def test_a_box_drawn_meanwhile_counts(session):
    session.add_box(0, 0, FIRST)
    for result in session.propagate():
        if result.index == 4:
            session.add_box(8, 0, SECOND)
            session.add_box(2, 1, SECOND)
    run(session)
    np.testing.assert_array_equal(boxes_of(session, 0)[8], SECOND)
    assert np.isfinite(boxes_of(session, 0)).all()
    assert np.isfinite(boxes_of(session, 1)[2:]).all()


def test_several_threads_may_draw(session):
    session.add_box(0, 0, FIRST)

    def draw():
        for frame in range(1, COUNT):
            session.add_box(frame, frame % 3, SECOND)

    thread = threading.Thread(target=draw)
    thread.start()
    run(session)
    thread.join()
    run(session)
    for number in session.object_ids:
        first = min(session.keys(number))
        assert np.isfinite(boxes_of(session, number)[first:]).all()


def test_a_saved_session_goes_on(session, tracker, tmp_path):
    session.add_box(0, 0, FIRST, name="car")
    session.add_box(9, 0, SECOND)
    session.add_box(4, 7, SECOND, name="dog")
    session.mark_gone(10, 7)
    run(session, 0, 12)
    session.save(tmp_path / "scene.json")
    opened = Session.load(tmp_path / "scene.json", tracker=tracker)
    assert opened.object_ids == (0, 7) and opened.name(7) == "dog"
    assert opened.gone(7) == (range(10, COUNT),) and not opened.gone(0)
    for number in (0, 7):
        np.testing.assert_allclose(
            boxes_of(opened, number), boxes_of(session, number), atol=6e-4
        )
    _, total = run(opened, 0, 12)
    assert total == 0
    run(opened)
    run(session)
    np.testing.assert_allclose(boxes_of(opened, 7), boxes_of(session, 7), atol=0.01)
    other = _write([np.zeros((72, 96, 3), np.uint8)], tmp_path / "elsewhere")
    with pytest.raises(InputError, match="of another film than .*elsewhere"):
        Session.load(tmp_path / "scene.json", other, tracker=tracker)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: [c], "is no session"),
        (lambda c: c | {"format": "siamrpn_jax session 9"}, "is no session"),
        (lambda c: c | {"film": {}}, "malformed session"),
        (lambda c: c | {"objects": c["objects"] * 2}, "two objects have the number 0"),
        (lambda c: c | {"objects": [{"id": 0}]}, "malformed object"),
        (lambda c: c | {"objects": [5]}, "malformed object"),
        (lambda c: _with(c, boxes=[]), "object 0 has no box"),
        (lambda c: _with(c, boxes=[[99, 1, 2, 3, 4]]), "frame 99 of"),
        (lambda c: _with(c, boxes=[[0, 1, 2, -3, 4]]), "box"),
        (lambda c: _with(c, gone=[99]), "frame 99 of"),
        (lambda c: _with(c, gone=[0]), "its only box"),
        (lambda c: _with(c, gone=7), "malformed object"),
        (lambda c: _with(c, gone=["a"]), "frame a of"),
        (lambda c: _with(c, id="a"), "object 'a', expected a number"),
        (lambda c: _with(c, name=" "), "expected a word"),
        (lambda c: _with(c, forward=[{"key": 3, "found": []}]), "malformed object"),
        (lambda c: _with(c, forward=[{"key": 0, "found": [[1, 2]]}]), "malformed"),
        (
            lambda c: _with(
                c, forward=[{"key": 0, "found": [[1, 2, 3, 4, 5, 6, 0]] * 99}]
            ),
            "tracked to 99",
        ),
        (
            lambda c: _with(c, forward=[{"key": 0, "found": [[1, 2, -3, 4, 5, 6, 0]]}]),
            "is no box with score",
        ),
    ],
)
def test_files_that_are_no_session(session, tracker, tmp_path, damage, message):
    session.add_box(0, 0, FIRST)
    path = tmp_path / "scene.json"
    session.save(path)
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(InputError, match=message) as raised:
        Session.load(path, tracker=tracker)
    assert str(path) in str(raised.value)


def _with(content, **fields):
    return content | {"objects": [content["objects"][0] | fields]}


def test_what_cannot_be_drawn_is_refused(session):
    session.add_box(0, 0, FIRST)
    for frame in (-1, COUNT, 1.0, None):
        with pytest.raises(InputError, match="expected 0 to 13"):
            session.add_box(frame, 0, FIRST)
    for number in (-1, 2**31, "a", 1.5, None):
        with pytest.raises(InputError, match="expected a number from 0 on"):
            session.add_box(0, number, FIRST)
    for box in ([1, 2, 3], [[1, 2, 3, 4]] * 2, [0, 0, -1, 5], [np.nan] * 4, "a"):
        with pytest.raises((InputError, BoxError)):
            session.add_box(0, 1, box)
    with pytest.raises(InputError, match="expected a word"):
        session.add_box(0, 1, FIRST, name="")
    with pytest.raises(InputError, match=r"name 'a\\nb', expected a word"):
        session.add_box(0, 1, FIRST, name="a\nb")  # two lines of labels.txt
    with pytest.raises(InputError, match="object 9, expected one of 0"):
        session.remove(9)
    with pytest.raises(InputError, match="has no box on frame 3"):
        session.remove_box(3, 0)
    for start, stop in ((3, 3), (-1, 2), (0, COUNT + 1), (COUNT, None)):
        last = (COUNT if stop is None else stop) - 1
        message = f"frames {start} to {last}, expected some of the 14"
        with pytest.raises(InputError, match=message):
            next(session.propagate(start, stop))
    assert session.object_ids == (0,)


def test_objects_go_with_their_last_box(session):
    session.add_box(0, 0, FIRST)
    session.add_box(4, 0, SECOND)
    session.remove_box(0, 0)
    assert list(session.keys(0)) == [4]
    session.rename(0, "cat")
    assert session.name(0) == "cat"
    session.remove_box(4, 0)
    assert session.object_ids == () and session.result(4) is None
    assert list(session.propagate()) == []


def test_a_film_that_changes_is_refused(folder, tracker, tmp_path):
    for path in sorted(folder.iterdir())[:4]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    session = Session(tmp_path, tracker=tracker)
    session.add_box(0, 0, FIRST)
    (tmp_path / "003.png").unlink()
    with pytest.raises(InputError, match="changed while it was open"):
        list(session.propagate())


def test_a_camera_goes_forwards_only(monkeypatch, folder, tracker):
    images = [read_image(path) for path in sorted(folder.iterdir())]

    class Camera:
        def __init__(self, source):
            self.name, self.fps = "camera", None

        def __iter__(self):
            return iter(images)

    monkeypatch.setattr(media, "Video", Camera)
    session = Session("camera", tracker=tracker)
    session.add_box(0, 0, FIRST)
    with pytest.raises(InputError, match="goes forwards only"):
        next(session.propagate(reverse=True))
    for result in session.propagate():
        if result.index == 4:
            break
    session.add_box(4, 1, SECOND)
    with pytest.raises(InputError, match="expected the present one, 4"):
        session.add_box(2, 1, SECOND)
    results = list(session.propagate())
    assert [result.index for result in results] == list(range(4, COUNT))
    expected = follow(tracker, images, FIRST)
    np.testing.assert_allclose(boxes_of(session, 0), expected, atol=0.01)
    expected = follow(tracker, images[4:], SECOND)
    np.testing.assert_allclose(boxes_of(session, 1)[4:], expected, atol=0.01)


def test_supervision(session):
    supervision = pytest.importorskip("supervision")
    session.add_box(0, 3, FIRST, name="car")
    session.add_box(0, 5, SECOND)
    run(session)
    found = session.to_supervision(0)
    assert isinstance(found, supervision.Detections)
    np.testing.assert_allclose(found.xyxy, [[20, 15, 44, 33], [60, 30, 76, 50]])
    assert found.tracker_id.tolist() == [3, 5]


def test_supervision_of_one_frame(session, monkeypatch):
    stand_in = SimpleNamespace(Detections=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "supervision", stand_in)
    session.add_box(0, 3, FIRST, name="car")
    session.add_box(COUNT - 1, 5, SECOND, name="dog")
    found = session.to_supervision(COUNT - 1)
    np.testing.assert_allclose(found.xyxy, [[60, 30, 76, 50]])
    assert found.tracker_id.tolist() == [5] and found.class_id.tolist() == [1]
    assert found.confidence.tolist() == [1] and found.data["class_name"] == ["dog"]
    assert session.to_supervision(1).xyxy.shape == (0, 4)
    for number in (-1, COUNT):
        with pytest.raises(InputError, match=f"frame {number} of .* 0 to {COUNT - 1}"):
            session.to_supervision(number)


def test_an_answer_that_is_no_number(folder, tracker):
    variables = random_variables(tracker.model.init_variables)
    broken = jax.tree.map(lambda leaf: leaf * np.nan, variables)
    session = Session(folder, tracker=Tracker(tracker.model, broken, tracker.config))
    session.add_box(0, 0, FIRST)
    told = f"frame 1, object 0: {NO_ANSWER}"
    with pytest.raises(InputError, match=re.escape(told)):
        list(session.propagate())


def test_two_sides_are_better_than_one(tmp_path):
    """With the released weights, key frames 40 apart, on scenes that are hard."""
    gains = []
    for seed in (100, 101):
        images, truth = make_sequence(seed, length=41, height=120, width=160)
        session = Session(_write(images, tmp_path / str(seed)))
        session.add_box(0, 0, truth[0])
        run(session)
        one_sided = overlaps(boxes_of(session, 0), truth.astype(np.float64))
        session.add_box(40, 0, truth[40])
        run(session)
        two_sided = overlaps(boxes_of(session, 0), truth.astype(np.float64))
        gains.append(two_sided[1:40].mean() - one_sided[1:40].mean())
    assert np.mean(gains) > 0, gains


def _write(images, folder):
    folder.mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / f"{number:03d}.png"), image[..., ::-1])
    return folder
