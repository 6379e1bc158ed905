"""What the labelling page needs of a session: parts of it, and the way back."""

import numpy as np
import pytest

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.labelling.session import Session

COUNT = 14
FIRST, SECOND = [20.0, 15, 24, 18], [60.0, 30, 16, 20]


def boxes(session, number=1):
    return session.stretch(number, 0, COUNT).boxes


def run(results):
    return [result.index for result in results]


def test_reach_and_stretch_tell_what_is_known(session):
    session.add_box(3, 1, FIRST, name="car")
    assert session.reach(1) == {(3, 1): 3, (3, -1): 3}
    run(session.propagate(3, 8))
    assert session.reach(1) == {(3, 1): 7, (3, -1): 3}
    part = session.stretch(1, 2, 6)
    assert part.name == "car" and part.keys.tolist() == [False, True, False, False]
    whole = session.labels().objects[0]
    np.testing.assert_array_equal(part.boxes, whole.boxes[2:6])
    np.testing.assert_array_equal(part.confidence, whole.confidence[2:6])
    with pytest.raises(InputError, match="object 2"):
        session.reach(2)


def test_an_object_becomes_what_it_was(session):
    session.add_box(0, 1, FIRST, name="car")
    run(session.propagate())
    before, remembered = boxes(session), session.remember(1)
    session.add_box(6, 1, SECOND, name="bus")
    run(session.propagate())
    assert not np.array_equal(boxes(session), before)
    session.put_back(1, remembered)
    np.testing.assert_array_equal(boxes(session), before)
    assert session.name(1) == "car" and list(session.keys(1)) == [0]
    session.remove(1)
    session.put_back(1, remembered)
    np.testing.assert_array_equal(boxes(session), before)
    assert session.remember(7) is None
    session.put_back(1, None)
    assert session.object_ids == ()


def test_what_was_tracked_since_stays_where_it_is_still_true(session):
    session.add_box(0, 1, FIRST, name="car")
    remembered = session.remember(1)
    session.rename(1, "bus")
    run(session.propagate())
    tracked = boxes(session)
    session.put_back(1, remembered)
    assert session.name(1) == "car"
    np.testing.assert_array_equal(boxes(session), tracked)
    moved = session.remember(1)
    session.add_box(0, 1, SECOND)
    run(session.propagate())
    session.put_back(1, moved)
    np.testing.assert_array_equal(boxes(session), tracked)
    # A key frame that comes back ends what was tracked across it meanwhile.
    session.add_box(6, 1, SECOND)
    with_key = session.remember(1)
    session.remove_box(6, 1)
    run(session.propagate())
    session.put_back(1, with_key)
    assert session.reach(1)[0, 1] == 5 and list(session.keys(1)) == [0, 6]


def test_some_objects_and_only_what_is_new(session):
    session.add_box(0, 1, FIRST)
    session.add_box(4, 2, SECOND)
    assert run(session.propagate(0, 6, object_ids=[1])) == [0, 1, 2, 3, 4, 5]
    assert session.reach(2) == {(4, 1): 4, (4, -1): 4}
    assert run(session.propagate(0, 6, object_ids=[1], new_only=True)) == []
    assert run(session.propagate(object_ids=[1], new_only=True)) == list(
        range(6, COUNT)
    )


def test_a_saved_track_is_gone_on_with_and_never_forgotten(session, tracker, tmp_path):
    session.add_box(0, 1, FIRST)
    run(session.propagate(0, 7))
    session.save(tmp_path / "film.json")
    run(session.propagate())
    again = Session.load(tmp_path / "film.json", tracker=tracker)
    kept = boxes(again)
    results = again.propagate()
    next(results)
    results.close()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(boxes(again), kept)
    run(again.propagate())
    np.testing.assert_allclose(boxes(again), boxes(session), atol=2e-3)
    np.testing.assert_array_equal(boxes(again)[:7], kept[:7])
