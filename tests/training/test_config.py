"""Options that are refused before anything is compiled."""

import pytest

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.training.config import LossConfig, OptimizerConfig, TargetConfig


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (OptimizerConfig, {"ema": 1.5}, "ema is 1.5"),
        (OptimizerConfig, {"momentum": -3.0}, "momentum is -3"),
        (OptimizerConfig, {"clip_norm": -1.0}, "clip_norm is -1"),
        (LossConfig, {"sigma": 0.0}, "sigma is 0"),
        (LossConfig, {"hard_negatives": -1}, "hard_negatives is -1"),
        (LossConfig, {"giou_weight": float("nan")}, "giou_weight is nan"),
        (TargetConfig, {"positive_iou": 1.2}, "positive_iou is 1.2"),
        (TargetConfig, {"radius": -1.0}, "radius is -1"),
        (TargetConfig, {"max_positives": -1}, "max_positives is -1"),
        (TargetConfig, {"max_samples": -1}, "max_samples is -1"),
        (
            TargetConfig,
            {"positive_iou": 0.2, "negative_iou": 0.5},
            "positive_iou is 0.2, expected at least negative_iou, 0.5",
        ),
    ],
)
def test_options_out_of_range(config, fields, message):
    with pytest.raises(InputError, match=message):
        config(**fields)


def test_options_at_their_limits():
    OptimizerConfig(ema=0.0, momentum=0.0, clip_norm=None)
    LossConfig(sigma=None)
    TargetConfig(positive_iou=0.5, negative_iou=0.5, radius=0.0)
    TargetConfig(max_positives=None, max_samples=None)
