import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paths import SHARED_DATA
from siamrpn_jax.evaluation.ope import metrics
from siamrpn_jax.evaluation.results import read_otb_results

PUBLISHED = SHARED_DATA / "published"


def slow_iou(a, b):
    """Overlap of two ltwh boxes, one number at a time."""
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    inter = max(w, 0) * max(h, 0)
    return inter / (a[2] * a[3] + b[2] * b[3] - inter)


def test_hand_worked_sequence():
    truth = np.array([[0, 0, 10, 10]] * 4, float)
    predicted = np.array(
        [
            [0, 0, 10, 10],  # overlap 1
            [5, 0, 10, 10],  # overlap 50/150, error 5, half a width
            [0, 1, 10, 10],  # overlap 90/110, error 1, a tenth of a height
            [30, 0, 10, 10],  # overlap 0, error 30, three widths
        ],
        float,
    )
    found = metrics.evaluate(predicted, truth)
    # Above a third lie 0, .05, …, .30 (7 thresholds); above 9/11 0, …, .80 (17).
    assert found.auc == pytest.approx((7 + 17 + 0) / 21 / 3)
    assert found.precision == pytest.approx(2 / 3)
    assert found.normalized_precision == pytest.approx(1 / 3)
    # Within .1 from threshold 10 of 0..50, within .5 at the last one.
    assert found.normalized_precision_auc == pytest.approx((41 + 1) / 51 / 3)
    assert found.frames == 3
    assert found.precision_curve[[0, 1, 4, 5, 29, 30, 50]] == pytest.approx(
        np.array([0, 1, 1, 2, 2, 3, 3]) / 3
    )


def test_first_frame_is_counted_on_request_only():
    truth = np.array([[0, 0, 10, 10]] * 2, float)
    predicted = np.array([[0, 0, 10, 10], [50, 0, 10, 10]], float)
    assert metrics.evaluate(predicted, truth).auc == 0
    # Equal boxes lie above all thresholds but the last, 1, which is strict.
    included = metrics.evaluate(predicted, truth, skip_first=False)
    assert included.auc == pytest.approx(20 / 21 / 2)
    assert included.frames == 2


def test_absent_frames_count_for_nothing():
    truth = np.array([[0, 0, 10, 10], [np.nan] * 4, [0, 0, 10, 10]])
    predicted = np.array([[0, 0, 10, 10], [90, 90, 10, 10], [0, 0, 10, 10]], float)
    found = metrics.evaluate(predicted, truth)
    assert found.frames == 1
    assert found.precision == 1


box = st.tuples(
    *(st.floats(-50, 50) for _ in range(2)), *(st.floats(0.5, 60) for _ in range(2))
)


@given(st.lists(st.tuples(box, box), min_size=2, max_size=6))
def test_against_loops(pairs):
    predicted, truth = (np.array(column) for column in zip(*pairs, strict=True))
    found = metrics.evaluate(predicted, truth)
    overlaps, near, relative = [], 0, 0
    for (px, py, pw, ph), (tx, ty, tw, th) in pairs[1:]:
        overlaps.append(slow_iou((px, py, pw, ph), (tx, ty, tw, th)))
        dx, dy = px + pw / 2 - tx - tw / 2, py + ph / 2 - ty - th / 2
        near += math.hypot(dx, dy) <= 20
        relative += math.hypot(dx / tw, dy / th) <= 0.2
    got = metrics.overlaps(predicted[1:], truth[1:])
    assert got == pytest.approx(overlaps, abs=1e-9)
    assert found.auc == pytest.approx(metrics.success_curve(got).mean())
    assert found.precision == near / len(overlaps)
    assert found.normalized_precision == relative / len(overlaps)


@given(st.lists(box, min_size=1, max_size=6))
def test_perfect_boxes(boxes):
    truth = np.array(boxes)
    found = metrics.evaluate(truth, truth, skip_first=False)
    assert found.auc == pytest.approx(20 / 21)
    assert found.precision == found.normalized_precision == 1


@given(st.lists(st.tuples(box, box), min_size=2, max_size=6), st.floats(0.1, 10))
def test_overlap_ignores_scale(pairs, scale):
    predicted, truth = (np.array(column) for column in zip(*pairs, strict=True))
    scaled = metrics.overlaps(predicted * scale, truth * scale)
    assert scaled == pytest.approx(metrics.overlaps(predicted, truth), abs=1e-9)


def test_thresholds():
    assert metrics.SUCCESS_THRESHOLDS == pytest.approx([i / 20 for i in range(21)])
    assert metrics.PRECISION_THRESHOLDS[20] == 20
    assert metrics.NORMALIZED_THRESHOLDS[20] == 0.2


def test_mean_weighs_sequences_not_frames():
    truth = np.array([[0, 0, 10, 10]] * 5, float)
    good = metrics.evaluate(truth, truth)
    bad = metrics.evaluate(truth[:2] + [[100, 0, 0, 0]], truth[:2])
    mean = metrics.mean_metrics([good, bad])
    assert mean.auc == pytest.approx((good.auc + bad.auc) / 2)
    assert mean.precision == 0.5
    assert mean.frames == 5
    assert mean.success_curve.shape == (21,)
    with pytest.raises(metrics.MetricError, match="no sequence"):
        metrics.mean_metrics([])


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        ([[0, 0, 9, 9], [0, 0, np.nan, 9]], r"predicted box of frame 1 .* finite"),
        ([[0, 0, 9, 9], [0, 0, -1, 9]], "predicted box of frame 1 .* above 0"),
        ([[0, 0, 9, 9]], r"shape \(1, 4\), ground truth \(2, 4\)"),
    ],
)
def test_bad_predictions_are_named(predicted, message):
    with pytest.raises(metrics.MetricError, match=message):
        metrics.evaluate(np.array(predicted), np.array([[0, 0, 9, 9]] * 2))


def test_bad_truth_is_named():
    good = np.array([[0, 0, 9, 9]] * 2, float)
    with pytest.raises(metrics.MetricError, match="ground-truth box of frame 1"):
        metrics.evaluate(good, np.array([[0, 0, 9, 9], [0, 0, 0, 9]]))
    with pytest.raises(metrics.MetricError, match="none of the 2 frames"):
        metrics.evaluate(good, np.array([[0, 0, 9, 9], [np.nan] * 4]))


def test_published_results_of_mdnet():
    """Published: AUC .678, precision .909; the first frame counts there."""
    if not PUBLISHED.is_dir():
        pytest.skip("skipped: no ../shared")
    annotations = json.loads((PUBLISHED / "groundtruth" / "OTB2015.json").read_text())
    files = {
        path.stem.lower().replace("-", "_"): path
        for path in (PUBLISHED / "otb100" / "MDNet").iterdir()
    }
    rows = []
    for name, entry in annotations.items():
        boxes = read_otb_results(files[name.lower()])
        truth = np.array(entry["gt_rect"], float)
        truth[(truth[:, 2:] <= 0).any(axis=1)] = np.nan
        truth[:, :2] -= 1  # both count from 1
        count = min(len(boxes), len(truth))
        rows.append(metrics.evaluate(boxes[:count], truth[:count], skip_first=False))
    mean = metrics.mean_metrics(rows)
    assert mean.auc == pytest.approx(0.6776, abs=0.0005)
    assert mean.precision == pytest.approx(0.9089, abs=0.0005)


def test_absent_frames_may_count_as_missed():
    truth = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [np.nan] * 4, [0, 0, 10, 10]])
    predicted = np.array([[0, 0, 10, 10]] * 4, float)
    found = metrics.evaluate(predicted, truth, count_absent=True)
    assert found.frames == 3
    assert found.auc == pytest.approx(2 / 3 * 20 / 21)
    assert found.precision == found.normalized_precision == pytest.approx(2 / 3)
    every = metrics.evaluate(predicted, truth, count_absent=True, skip_first=False)
    assert every.precision == pytest.approx(3 / 4)
    predicted[2] = np.nan  # nothing is asked of it
    assert metrics.evaluate(predicted, truth).frames == 2


def test_got10k_by_hand():
    truth = np.array([[0, 0, 10, 10]] * 4, float)
    predicted = truth.copy()
    predicted[2, 0] = 2  # overlap 80/120
    predicted[3, 0] = 50
    absent = truth.copy()
    absent[1] = np.nan
    found = metrics.evaluate_got10k(
        [(predicted, truth, (100, 100)), (predicted, absent, (100, 100))]
    )
    assert found.frames == 5
    assert found.ao == pytest.approx((1 + 2 / 3 + 0 + 2 / 3 + 0) / 5)
    assert (found.sr50, found.sr75) == (3 / 5, 1 / 5)
    with pytest.raises(metrics.MetricError, match="no sequence"):
        metrics.evaluate_got10k([])
    with pytest.raises(metrics.MetricError, match="shape"):
        metrics.evaluate_got10k([(predicted[:2], truth, (100, 100))])


def test_got10k_clips_to_the_image():
    boxes = np.array([[-5, -5, 20, 20], [90, 95, 20, 20], [120, 50, 20, 20]], float)
    expected = [[0, 0, 20, 20], [90, 95, 10, 5], [100, 50, 0, 20]]
    assert metrics.clip_got10k(boxes, (100, 100)).tolist() == expected
    outside = np.array([[200, 0, 10, 10]] * 2, float)
    assert metrics.evaluate_got10k([(outside, outside, (100, 100))]).ao == 0
