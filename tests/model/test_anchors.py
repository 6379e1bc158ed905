import dataclasses

import numpy as np
import pytest

from siamrpn_jax.model import config
from siamrpn_jax.model.anchors import anchor_grid, anchor_sizes
from siamrpn_jax.model.config import AnchorConfig

REAL = [(110.851, 36.950), (90.510, 45.255), (64, 64), (45.255, 90.510)]
REAL += [(36.950, 110.851)]
# As DaSiamRPN and PySOT have them; their weights know no others.
TRUNCATED = [(104, 32), (88, 40), (64, 64), (40, 80), (32, 96)]


def test_real_valued_sizes():
    np.testing.assert_allclose(anchor_sizes(AnchorConfig(), stride=8), REAL, atol=1e-3)


def test_truncated_sizes():
    assert anchor_sizes(AnchorConfig(truncate=True), stride=8).tolist() == [
        list(size) for size in TRUNCATED
    ]


@pytest.mark.parametrize(
    ("ratios", "widths"),
    [
        (config.RATIOS_3, [90.510, 64, 45.255]),
        (config.RATIOS_5, [110.851, 90.510, 64, 45.255, 36.950]),
        (config.RATIOS_7, [128, 110.851, 90.510, 64, 45.255, 36.950, 32]),
    ],
    ids=["A3", "A5", "A7"],
)
def test_ratio_sets_of_table_3(ratios, widths):
    sizes = anchor_sizes(AnchorConfig(ratios=ratios), stride=8)
    np.testing.assert_allclose(sizes[:, 0], widths, atol=1e-3)
    np.testing.assert_allclose(sizes[:, 1] / sizes[:, 0], ratios, rtol=1e-6)
    np.testing.assert_allclose(sizes.prod(-1), 64**2, rtol=1e-6)


def test_base_size_scales_both_kinds_of_sizes():
    for truncate in (False, True):
        anchors = AnchorConfig(truncate=truncate)
        half = dataclasses.replace(anchors, base_size=32.0)
        whole = anchor_sizes(anchors, stride=8)
        np.testing.assert_allclose(anchor_sizes(half, stride=8), whole / 2)


def test_grid_of_the_paper():
    grid = anchor_grid(AnchorConfig(), stride=8, score_size=17, patch_size=255)
    assert grid.shape == (17 * 17 * 5, 4) and grid.dtype == np.float32
    cells = grid.reshape(17, 17, 5, 4)
    # 64 px each way from the middle of the patch, in steps of the stride.
    expected = 127.5 + 8 * np.arange(-8, 9)
    for row in range(17):
        for column in range(17):
            assert (cells[row, column, :, 0] == expected[column]).all()
            assert (cells[row, column, :, 1] == expected[row]).all()
            np.testing.assert_allclose(cells[row, column, :, 2:], REAL, atol=1e-3)


@pytest.mark.parametrize(("score_size", "patch_size"), [(17, 255), (19, 271), (6, 93)])
def test_grid_lies_around_the_patch_centre(score_size, patch_size):
    anchors = AnchorConfig()
    grid = anchor_grid(anchors, stride=6, score_size=score_size, patch_size=patch_size)
    np.testing.assert_allclose(grid[:, :2].mean(0), patch_size / 2)
    np.testing.assert_allclose(np.ptp(grid[:, :2], axis=0), (score_size - 1) * 6)


def test_grid_has_the_order_of_flattened_logits():
    size, count = 4, 3
    anchors = AnchorConfig(ratios=config.RATIOS_3)
    grid = anchor_grid(anchors, stride=8, score_size=size, patch_size=80)
    logits = np.zeros((size, size, count, 2))
    logits[1, 2, 0, 1] = 1  # second row, third column, the flattest anchor
    best = logits.reshape(-1, 2)[:, 1].argmax()
    expected = (40 + 0.5 * 8, 40 - 0.5 * 8, 90.510, 45.255)
    np.testing.assert_allclose(grid[best], expected, atol=1e-3)
