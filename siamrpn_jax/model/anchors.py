"""The anchor grid of the region proposal network (paper, section 3.3).

One scale, a few aspect ratios, one set of anchors at each cell of the score map.
"""

import dataclasses

import numpy as np

RATIOS_3 = (0.5, 1.0, 2.0)
"""A3 of the paper's Table 3."""
RATIOS_5 = (1 / 3, 0.5, 1.0, 2.0, 3.0)
"""A5 of the paper's Table 3, its best and its default."""
RATIOS_7 = (0.25, 1 / 3, 0.5, 1.0, 2.0, 3.0, 4.0)
"""A7 of the paper's Table 3."""


@dataclasses.dataclass(frozen=True)
class AnchorConfig:
    """Sizes and spacing of the anchors."""

    stride: int = 8
    """Distance of neighbouring anchors in search patch pixels: the network's stride."""
    base_size: float = 64.0
    """Side in pixels of the square anchor; the others have the same area."""
    ratios: tuple[float, ...] = RATIOS_5
    """Height over width, one anchor each."""
    truncate: bool = False
    """Truncate sizes to integers in units of the stride, as DaSiamRPN and PySOT do.

    Only weights imported from there need it: it makes the ratios unequal (104x32 px
    against 32x96 px for 1/3 and 3).
    """


def anchor_sizes(config: AnchorConfig) -> np.ndarray:
    """Widths and heights of the anchors of one cell, float32 ``[K, 2]``.

    Example:
        >>> anchor_sizes(AnchorConfig(ratios=(1.0, 4.0))).tolist()
        [[64.0, 64.0], [32.0, 128.0]]
    """
    ratios = np.asarray(config.ratios, np.float64)
    if not config.truncate:
        widths = config.base_size / np.sqrt(ratios)
        return np.stack([widths, widths * ratios], -1).astype(np.float32)
    # DaSiamRPN: areas of stride² px, sides cut to integers, then scaled up.
    widths = np.floor(np.sqrt(config.stride**2 / ratios))
    heights = np.floor(widths * ratios)
    scale = config.base_size / config.stride
    return (np.stack([widths, heights], -1) * scale).astype(np.float32)


def anchor_grid(
    config: AnchorConfig, *, score_size: int, patch_size: int
) -> np.ndarray:
    """All anchors of a score map, in search patch pixels.

    The backbone has no padding, so the score map is centred on the patch: its middle
    cell looks at the patch's centre, ``patch_size / 2``.

    Args:
        config: sizes and spacing.
        score_size: F, cells along one side of the score map.
        patch_size: side of the search patch in pixels.

    Returns:
        ``cxcywh`` float32 ``[F * F * K, 4]``: rows first, then columns, then ratios;
        the order of ``logits.reshape(-1, 2)`` for logits ``[F, F, K, 2]``.
    """
    steps = (np.arange(score_size) - (score_size - 1) / 2) * config.stride
    steps = (steps + patch_size / 2).astype(np.float32)
    sizes = anchor_sizes(config)
    grid = np.zeros((score_size, score_size, len(sizes), 4), np.float32)
    grid[..., 0] = steps[None, :, None]
    grid[..., 1] = steps[:, None, None]
    grid[..., 2:] = sizes
    return grid.reshape(-1, 4)
