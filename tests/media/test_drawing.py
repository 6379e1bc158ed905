import numpy as np

from plain_frames import solid
from siamrpn_jax.media import drawing


def test_draw_boxes_covers_the_box_and_nothing_else():
    frame = solid((0, 0, 0))
    drawn = drawing.draw_boxes(frame, np.array([10.0, 20, 8, 6]))
    assert not frame.any()
    rows, columns = np.nonzero(drawn.any(-1))
    # The box covers pixels 10..17 and 20..25.
    assert (columns.min(), columns.max()) == (10, 17)
    assert (rows.min(), rows.max()) == (20, 25)
    assert drawn[20, 10].tolist() == list(drawing.COLORS[0])


def test_dashed_boxes_lie_on_whole_ones():
    frame = solid((0, 0, 0))
    boxes = np.array([[2.0, 3, 40, 30], [20, 10, 30, 30]])
    whole, first, second = (
        drawing.draw_boxes(frame, some).max(-1) > 0
        for some in (boxes, boxes[:1], boxes[1:])
    )
    for dashed in ([False, True], np.array([False, True])):
        drawn = drawing.draw_boxes(frame, boxes, dashed=dashed).max(-1) > 0
        assert not (drawn & ~whole).any() and drawn[first].all()
        share = drawn[second & ~first].mean()
        assert 0.3 < share < 0.7


def test_draw_boxes_survives_odd_boxes():
    frame = solid((0, 0, 0))
    boxes = np.array([[np.nan] * 4, [-50, -50, 20, 20], [1e12, 0, 1e12, 5]])
    assert not drawing.draw_boxes(frame, boxes).any()
    assert drawing.draw_boxes(frame, np.array([[-5, -5, 500, 20.0]]), ["label"]).any()


def test_wider_frames_shrink_in_their_proportions():
    frame = solid((9, 8, 7))
    rows, columns = frame.shape[:2]
    assert drawing.shrink(frame, columns) is frame
    small = drawing.shrink(frame, columns // 2)
    assert small.shape == (rows // 2, columns // 2, 3)
    assert drawing.shrink(frame, 1).shape[0] == 1  # not 0
    assert (small == frame[0, 0]).all()
