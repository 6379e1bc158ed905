import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamrpn_jax.model import boxes
from siamrpn_jax.model.anchors import anchor_grid
from siamrpn_jax.model.config import AnchorConfig
from siamrpn_jax.training.config import TargetConfig
from siamrpn_jax.training.targets import Targets, make_cell_targets, make_targets

KEEP_ALL = TargetConfig(max_positives=None, max_samples=None)
GRID = anchor_grid(AnchorConfig(), stride=8, score_size=17, patch_size=255)
KEYS = jax.random.split(jax.random.key(0), 400)

# The target and anchors of known overlap with it, by how far they are shifted.
BOX = np.array([50.0, 50, 20, 20], np.float32)
BY_HAND = np.array(
    [
        [50, 50, 20, 20],  # IoU 1
        [54, 50, 20, 20],  # 16 / 24
        [55, 50, 20, 20],  # 15 / 25: just .6, not more
        [50, 56, 20, 20],  # 14 / 26
        [50, 50, 20, 6],  # 120 / 400: just .3, not less
        [62, 50, 20, 20],  # 8 / 32
        [90, 90, 20, 20],  # 0
    ],
    np.float32,
)

label = jax.jit(make_targets, static_argnames="config")


@functools.partial(jax.jit, static_argnames="config")
def label_often(keys, box, anchors, *, config: TargetConfig) -> Targets:
    """The same pair with many keys."""

    def one(key):
        return make_targets(key, box, jnp.float32(1), anchors, config=config)

    return jax.vmap(one)(keys)


def copies(positive: int, negative: int, *, total: int = 300) -> np.ndarray:
    """So many positive, ignored, and last negative anchors for BOX."""
    ignored = total - positive - negative
    return np.repeat(BY_HAND[[1, 3, 6]], (positive, ignored, negative), axis=0)


def slow_labels(box, anchors, *, positive_iou, negative_iou):
    positive, negative = [], []
    x0, y0, x1, y1 = boxes.cxcywh_to_corners(box.astype(np.float64))
    for anchor in anchors.astype(np.float64):
        u0, v0, u1, v1 = boxes.cxcywh_to_corners(anchor)
        width = max(0.0, min(x1, u1) - max(x0, u0))
        height = max(0.0, min(y1, v1) - max(y0, v0))
        common = width * height
        union = (x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - common
        positive.append(common / union > positive_iou)
        negative.append(common / union < negative_iou)
    return positive, negative


def test_labels_by_hand():
    found = label(KEYS[0], BOX, 1.0, BY_HAND, config=KEEP_ALL)
    assert found.positive.tolist() == [True, True] + 5 * [False]
    assert found.negative.tolist() == 5 * [False] + [True, True]


def test_labels_of_the_papers_grid():
    rng = np.random.default_rng(0)
    for _ in range(5):
        box = np.array([*rng.uniform(90, 160, 2), *rng.uniform(40, 110, 2)], np.float32)
        found = label(KEYS[0], box, 1.0, GRID, config=KEEP_ALL)
        positive, negative = slow_labels(box, GRID, positive_iou=0.6, negative_iou=0.3)
        assert found.positive.tolist() == positive
        assert found.negative.tolist() == negative


def test_cells_near_the_target_are_positive():
    """SiamFC: at most R from its centre, wherever it is; Euclidean distance."""
    box, config = jnp.array([130.0, 99.0, 40.0, 90.0]), TargetConfig(radius=20.0)
    cells = GRID[::5]
    found = make_cell_targets(box, jnp.float32(1), jnp.asarray(cells), config=config)
    for i, (x, y, _, _) in enumerate(cells):
        near = (x - 130.0) ** 2 + (y - 99.0) ** 2 <= 400
        assert (found.positive[i], found.negative[i]) == (near, not near)
    assert found.positive.sum() == 19
    decoded = boxes.decode(np.asarray(found.deltas), cells)
    near = np.asarray(found.positive)
    np.testing.assert_allclose(decoded[near], np.tile(box, (19, 1)), rtol=1e-4)
    other = make_cell_targets(box, jnp.float32(0), jnp.asarray(cells), config=config)
    assert not other.positive.any() and other.negative.all()


def test_deltas_are_those_that_decode_to_the_box():
    box = np.array([120.0, 140, 50, 80], np.float32)
    found = label(KEYS[0], box, 1.0, GRID, config=TargetConfig())
    decoded = boxes.decode(np.asarray(found.deltas), GRID)
    np.testing.assert_allclose(decoded, np.broadcast_to(box, decoded.shape), rtol=1e-4)


def test_a_pair_without_the_target_has_negatives_only():
    for force_best in (False, True):
        config = TargetConfig(force_best=force_best)
        box = np.array([127.5, 127.5, 64, 64], np.float32)
        found = label(KEYS[0], box, 0.0, GRID, config=config)
        assert not found.positive.any()
        assert found.negative.sum() == 64


@pytest.mark.parametrize(
    ("candidates", "kept"),
    [
        ((100, 200), (16, 48)),
        ((5, 200), (5, 59)),  # negatives fill up
        ((100, 20), (16, 20)),  # too few negatives
        ((0, 200), (0, 64)),
        ((0, 0), (0, 0)),
    ],
)
def test_at_most_16_positives_and_64_samples(candidates, kept):
    anchors = copies(*candidates)
    found = label_often(KEYS[:5], BOX, anchors, config=TargetConfig())
    np.testing.assert_array_equal(found.positive.sum(1), kept[0])
    np.testing.assert_array_equal(found.negative.sum(1), kept[1])
    everything = label(KEYS[0], BOX, 1.0, anchors, config=KEEP_ALL)
    assert not (found.positive & ~everything.positive).any()
    assert not (found.negative & ~everything.negative).any()


def test_no_limits_keep_everything():
    found = label(KEYS[0], BOX, 1.0, copies(100, 150), config=KEEP_ALL)
    assert (found.positive.sum(), found.negative.sum()) == (100, 150)


@pytest.mark.parametrize(
    ("limits", "kept"), [((0, 0), (0, 0)), ((16, 64), (3, 2)), ((9, 2), (3, 0))]
)
def test_limits_beside_the_number_of_anchors(limits, kept):
    config = TargetConfig(max_positives=limits[0], max_samples=limits[1])
    anchors = copies(3, 2, total=6)
    found = label(KEYS[0], BOX, 1.0, anchors, config=config)
    assert (found.positive.sum(), found.negative.sum()) == kept


def test_sampling_is_uniform():
    found = label_often(KEYS, BOX, copies(50, 200), config=TargetConfig())
    for chosen, kept in (
        (found.positive[:, :50], 16 / 50),
        (found.negative[:, 100:], 48 / 200),
    ):
        share = np.asarray(chosen, float).mean(0)
        # 400 draws, 5 standard deviations.
        assert np.abs(share - kept).max() < 5 * (kept * (1 - kept) / 400) ** 0.5


def test_sampling_depends_on_the_key_alone():
    anchors = copies(50, 200)
    first, again, other = (
        label(key, BOX, 1.0, anchors, config=TargetConfig())
        for key in (KEYS[0], KEYS[0], KEYS[1])
    )
    np.testing.assert_array_equal(first.positive, again.positive)
    np.testing.assert_array_equal(first.negative, again.negative)
    assert (first.positive != other.positive).any()
    assert (first.negative != other.negative).any()


def test_elongated_targets_have_a_positive_only_by_force():
    box = np.array([127.5, 127.5, 170, 24], np.float32)  # 7:1
    plain = label(KEYS[0], box, 1.0, GRID, config=TargetConfig())
    assert not plain.positive.any()
    forced = label(KEYS[0], box, 1.0, GRID, config=TargetConfig(force_best=True))
    overlap = boxes.iou(box, GRID)
    chosen = np.asarray(forced.positive)
    assert chosen.any() and not (chosen & np.asarray(forced.negative)).any()
    np.testing.assert_allclose(overlap[chosen], overlap.max(), atol=1e-6)


def test_nothing_is_forced_on_targets_that_no_anchor_fits():
    box = np.array([127.5, 127.5, 8, 8], np.float32)
    found = label(KEYS[0], box, 1.0, GRID, config=TargetConfig(force_best=True))
    assert boxes.iou(box, GRID).max() < 0.3
    assert not found.positive.any()


def test_force_best_changes_nothing_where_there_are_positives():
    config = TargetConfig(force_best=True, max_positives=None, max_samples=None)
    forced = label(KEYS[0], BOX, 1.0, BY_HAND, config=config)
    plain = label(KEYS[0], BOX, 1.0, BY_HAND, config=KEEP_ALL)
    np.testing.assert_array_equal(forced.positive, plain.positive)


def test_a_batch_equals_a_loop():
    rng = np.random.default_rng(1)
    size = 4
    batch = np.concatenate(
        [rng.uniform(90, 160, (size, 2)), rng.uniform(40, 110, (size, 2))], 1
    ).astype(np.float32)
    positive = np.array([1, 0, 1, 1], np.float32)

    def one(key, box, is_positive):
        return label(key, box, is_positive, GRID, config=TargetConfig())

    together = jax.jit(jax.vmap(one))(KEYS[:size], batch, positive)
    for i in range(size):
        alone = label(KEYS[i], batch[i], positive[i], GRID, config=TargetConfig())
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-6)
