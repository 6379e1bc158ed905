import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from siamrpn_jax.model import boxes

CONVERSIONS = [
    (boxes.ltwh_to_cxcywh, boxes.cxcywh_to_ltwh),
    (boxes.cxcywh_to_corners, boxes.corners_to_cxcywh),
    (boxes.ltwh_to_corners, boxes.corners_to_ltwh),
]
# The same box in each format, worked out by hand.
LTWH, CXCYWH, CORNERS = (10, 20, 4, 6), (12, 23, 4, 6), (10, 20, 14, 26)

# Eighths of pixels: every conversion of them is exact.
eighths = st.integers(-8000, 8000).map(lambda i: i / 8)
some_boxes = hnp.arrays(np.float64, (3, 4), elements=eighths)


@pytest.mark.parametrize(
    ("convert", "given_box", "expected"),
    [
        (boxes.ltwh_to_cxcywh, LTWH, CXCYWH),
        (boxes.cxcywh_to_ltwh, CXCYWH, LTWH),
        (boxes.cxcywh_to_corners, CXCYWH, CORNERS),
        (boxes.corners_to_cxcywh, CORNERS, CXCYWH),
        (boxes.ltwh_to_corners, LTWH, CORNERS),
        (boxes.corners_to_ltwh, CORNERS, LTWH),
    ],
)
def test_conversions_by_hand(convert, given_box, expected):
    assert convert(np.array(given_box, np.float64)).tolist() == list(expected)


@given(some_boxes)
def test_conversions_round_trip(values):
    for there, back in CONVERSIONS:
        np.testing.assert_array_equal(back(there(values)), values)
        np.testing.assert_array_equal(there(back(values)), values)


corner_pairs = st.tuples(*[st.integers(0, 12)] * 4).map(
    lambda c: (min(c[0], c[1]), min(c[2], c[3]), max(c[0], c[1]), max(c[2], c[3]))
)


@given(corner_pairs, corner_pairs)
def test_iou_of_whole_pixel_boxes_counts_pixels(a, b):
    masks = np.zeros((2, 12, 12), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, (a, b), strict=True):
        mask[y0:y1, x0:x1] = True
    union = (masks[0] | masks[1]).sum()
    expected = (masks[0] & masks[1]).sum() / union if union else 0.0
    pair = boxes.corners_to_cxcywh(np.array([a, b], np.float64))
    assert boxes.iou(pair[0], pair[1]) == pytest.approx(expected, abs=1e-12)
    assert boxes.iou(pair[1], pair[0]) == boxes.iou(pair[0], pair[1])


@given(corner_pairs, corner_pairs)
def test_generalised_iou_of_whole_pixel_boxes_counts_pixels(a, b):
    masks = np.zeros((3, 12, 12), bool)
    bounds = (*np.minimum(a, b)[:2], *np.maximum(a, b)[2:])
    for mask, (x0, y0, x1, y1) in zip(masks, (a, b, bounds), strict=True):
        mask[y0:y1, x0:x1] = True
    union, intersection = (masks[0] | masks[1]).sum(), (masks[0] & masks[1]).sum()
    if not union or not masks[2].any():
        return
    expected = intersection / union - (masks[2].sum() - union) / masks[2].sum()
    pair = boxes.corners_to_cxcywh(np.array([a, b], np.float64))
    found = boxes.generalised_iou(pair[0], pair[1])
    assert found == pytest.approx(expected, abs=1e-12)
    stretched = pair * [0.5, 7.0, 0.5, 7.0]
    found = boxes.generalised_iou(stretched[0], stretched[1])
    assert found == pytest.approx(expected, abs=1e-12)


def test_iou_broadcasts():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(1, 20, (5, 1, 4)), rng.uniform(1, 20, (7, 4))
    table = boxes.iou(a, b)
    assert table.shape == (5, 7)
    for i in range(5):
        for j in range(7):
            assert table[i, j] == boxes.iou(a[i, 0], b[j])


def test_iou_of_a_box_with_itself_is_one_at_any_size():
    for size in (1e-3, 1.0, 1e5):
        box = np.array([7.0, -3.0, size, size], np.float32)
        assert boxes.iou(box, box) == pytest.approx(1.0, abs=1e-2)


def test_encode_by_hand():
    anchor = np.array([10.0, 20, 40, 80])
    box = np.array([30.0, 0, 20, 160])
    deltas = boxes.encode(box, anchor)
    assert deltas == pytest.approx([0.5, -0.25, math.log(0.5), math.log(2)])


positions = st.floats(-500, 500)
sizes = st.floats(5, 250)  # at most e^3.9 between any two
codable = st.tuples(positions, positions, sizes, sizes).map(np.array)


@given(codable, codable)
def test_decode_inverts_encode(box, anchor):
    decoded = boxes.decode(boxes.encode(box, anchor), anchor)
    np.testing.assert_allclose(decoded, box, rtol=1e-9, atol=1e-9)


def test_decoded_sizes_stay_finite_and_positive():
    anchor = np.array([5.0, 5, 64, 32], np.float32)
    deltas = np.array([[0, 0, 1e4, 1e4], [0, 0, -1e4, -1e4]], np.float32)
    limit = math.exp(4.0)
    expected = [[5, 5, 64 * limit, 32 * limit], [5, 5, 64 / limit, 32 / limit]]
    np.testing.assert_allclose(boxes.decode(deltas, anchor), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "function", [function for pair in CONVERSIONS for function in pair]
)
def test_conversions_are_the_same_in_jax(function):
    values = np.random.default_rng(1).uniform(1, 90, (2, 3, 4)).astype(np.float32)
    check_both_libraries(function, values)


@pytest.mark.parametrize("function", [boxes.iou, boxes.encode, boxes.decode])
def test_pairwise_functions_are_the_same_in_jax(function):
    values = np.random.default_rng(2).uniform(1, 3, (2, 5, 4)).astype(np.float32)
    check_both_libraries(function, values[0], values[1])


def check_both_libraries(function, *arrays):
    ours, theirs = function(*arrays), function(*map(jnp.asarray, arrays))
    assert isinstance(ours, np.ndarray) and isinstance(theirs, jnp.ndarray)
    assert ours.dtype == theirs.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


suppress = jax.jit(boxes.non_maximum_suppression)


def slow_nms(candidates, threshold):
    kept = []
    for i, box in enumerate(candidates):
        if all(boxes.iou(box, candidates[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_nms_against_a_slow_one(threshold):
    rng = np.random.default_rng(0)
    for _ in range(20):
        centers, sizes = rng.uniform(0, 60, (25, 2)), rng.uniform(15, 40, (25, 2))
        candidates = np.concatenate([centers, sizes], 1).astype(np.float32)
        found = np.nonzero(suppress(candidates, iou_threshold=threshold))[0]
        assert found.tolist() == slow_nms(candidates, threshold)
