"""The anchor grid of the region proposal network (paper, section 3.3).

One scale, a few aspect ratios, one set of anchors at each cell of the score map.
"""

import numpy as np

from siamrpn_jax.model.config import AnchorConfig


def anchor_sizes(config: AnchorConfig, *, stride: int) -> np.ndarray:
    """Widths and heights of the anchors of one cell, float32 ``[K, 2]``.

    Example:
        >>> anchor_sizes(AnchorConfig(ratios=(1.0, 4.0)), stride=8).tolist()
        [[64.0, 64.0], [32.0, 128.0]]
    """
    ratios = np.asarray(config.ratios, np.float64)
    if not config.truncate:
        widths = config.base_size / np.sqrt(ratios)
        return np.stack([widths, widths * ratios], -1).astype(np.float32)
    # DaSiamRPN: areas of stride² px, sides cut to integers, then scaled up.
    widths = np.floor(np.sqrt(stride**2 / ratios))
    heights = np.floor(widths * ratios)
    scale = config.base_size / stride
    return (np.stack([widths, heights], -1) * scale).astype(np.float32)


def anchor_grid(
    config: AnchorConfig, *, stride: int, score_size: int, patch_size: int
) -> np.ndarray:
    """All anchors of a score map, in search patch pixels.

    The backbone has no padding, so the score map is centred on the patch: its middle
    cell looks at the patch's centre, ``patch_size / 2``.

    Args:
        config: sizes of the anchors of one cell.
        stride: distance of neighbouring cells in patch pixels.
        score_size: F, cells along one side of the score map.
        patch_size: side of the search patch in pixels.

    Returns:
        ``cxcywh`` float32 ``[F * F * K, 4]``: rows first, then columns, then ratios;
        the order of ``logits.reshape(-1, 2)`` for logits ``[F, F, K, 2]``.
    """
    steps = (np.arange(score_size) - (score_size - 1) / 2) * stride
    steps = (steps + patch_size / 2).astype(np.float32)
    sizes = anchor_sizes(config, stride=stride)
    grid = np.zeros((score_size, score_size, len(sizes), 4), np.float32)
    grid[..., 0] = steps[None, :, None]
    grid[..., 1] = steps[:, None, None]
    grid[..., 2:] = sizes
    return grid.reshape(-1, 4)
