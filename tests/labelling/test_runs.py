import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siamrpn_jax.labelling.runs import Found, Run, join

BOX = np.array([10.0, 10, 20, 20])


def found(shift=0.0, confidence=0.9, *, lost=False) -> Found:
    return Found(BOX + [shift, 0, 0, 0], 0.8, confidence, lost)


@pytest.mark.parametrize("step", [1, -1])
def test_a_run_knows_its_frames(step):
    run = Run(50, step, BOX)
    assert run.last == 50 and run.at(50) is None
    for place, confidence in enumerate((0.9, 0.3, 0.7)):
        run.append(found(place, confidence))
    assert run.last == 50 + 3 * step
    for place, weakest in enumerate((0.9, 0.3, 0.3)):
        entry = run.at(50 + step * (place + 1))
        assert entry is not None
        assert entry[0].box[0] == 10 + place and entry[1] == weakest
    assert run.at(50 + 4 * step) is None and run.at(50 - step) is None


@pytest.mark.parametrize("step", [1, -1])
def test_a_run_is_cut_where_something_changed(step):
    """What lies before the cut stays; a cut elsewhere changes nothing."""
    for at, left in ((-2, 3), (0, 3), (1, 0), (2, 1), (3, 2), (4, 3)):
        run = Run(50, step, BOX, resume="state")
        for place in range(3):
            run.append(found(place))
        run.cut(50 + step * at)
        assert len(run.found) == len(run.weakest) == left
        assert run.resume == ("state" if left == 3 else None)


def test_tracks_that_agree_are_averaged_by_the_way_to_their_key_frames():
    for share in (0.0, 0.25, 1.0):
        one = join((found(0), 0.9), (found(4, 0.5), 0.2), share=share)
        np.testing.assert_allclose(one.box, BOX + [4 * share, 0, 0, 0])
        assert one.confidence == 0.9 and not one.lost
    both = (found(lost=True), 0.1), (found(1, lost=True), 0.1)
    assert join(*both, share=0.5).lost


def test_of_tracks_that_part_the_one_that_was_never_unsure_is_taken():
    slipped, sure = (found(100, 0.95), 0.05), (found(0, 0.6), 0.6)
    for share in (0.1, 0.5, 0.9):
        assert join(slipped, sure, share=share).box[0] == 10
        assert join(sure, slipped, share=share).box[0] == 10
    # Equally sure: the nearer key frame.
    far = (found(100, 0.6), 0.6)
    assert join(far, sure, share=0.2).box[0] == 110
    assert join(far, sure, share=0.8).box[0] == 10


numbers = st.floats(-1e6, 1e6)
sizes = st.floats(1e-3, 1e6)
chances = st.floats(0, 1)


@given(
    st.tuples(numbers, numbers, sizes, sizes),
    st.tuples(numbers, numbers, sizes, sizes),
    chances,
    chances,
    chances,
)
def test_a_joined_box_is_a_box_between_the_two(first, second, a, b, share):
    one = Found(np.array(first), 0.5, a, False)
    other = Found(np.array(second), 0.5, b, True)
    joined = join((one, a), (other, b), share=share)
    low = np.minimum(one.box, other.box) - 1e-6
    high = np.maximum(one.box, other.box) + 1e-6
    assert ((low <= joined.box) & (joined.box <= high)).all()
    assert joined.confidence in (a, b)
