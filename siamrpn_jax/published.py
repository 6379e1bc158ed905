"""The networks and tracking constants of published trackers.

The trackers have AlexNet with BatchNorm and take patches of 0 to 255 as they are; those
of the SiamRPN family have anchors cut to whole pixels, and their weights give the same
boxes with these configs as at home. Backbones, with the input that they want, follow.
"""

import dataclasses
from typing import Literal

from siamrpn_jax.model.config import (
    AnchorConfig,
    BackboneConfig,
    HeadConfig,
    InputConfig,
    ModelConfig,
)
from siamrpn_jax.tracking.config import TrackerConfig

GREY_LEVELS: dict[Literal["rgb", "bgr"], InputConfig] = {
    "rgb": InputConfig("rgb", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    "bgr": InputConfig("bgr", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
}
"""0..255 without normalisation, in either channel order."""

IMAGENET = InputConfig(
    "rgb",
    mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
    std=(0.229 * 255, 0.224 * 255, 0.225 * 255),
)
"""torchvision's normalisation."""

LITE = InputConfig("rgb", mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
"""EfficientNet-Lite's normalisation."""

ANCHORS = AnchorConfig(truncate=True)
"""104x32, 88x40, 64x64, 40x80 and 32x96 pixels."""


def pysot_model(*, head: Literal["depthwise", "up_channel"]) -> ModelConfig:
    """PySOT's AlexNet trackers; ``siamrpn_alex_dwxcorr`` has the depthwise head."""
    heads = {
        "depthwise": HeadConfig("depthwise", template_relu=True),
        "up_channel": HeadConfig("up_channel", adjust=True),
    }
    return ModelConfig(
        head=heads[head],
        anchors=ANCHORS,
        input=GREY_LEVELS["bgr"],
        instance_size=287,
        crop="pysot",
    )


def pysot_tracker() -> TrackerConfig:
    """Constants of ``siamrpn_alex_dwxcorr`` (VOT)."""
    return TrackerConfig(penalty_k=0.16, window_influence=0.40, size_lr=0.30)


def dasiamrpn_model(*, scale: int = 1) -> ModelConfig:
    """DaSiamRPN's network; ``scale`` is 2 in its BIG model, 1 in those for VOT and OTB.

    BIG's own tracker searches in 287 pixels while the target is below 0.4 % of the
    frame; here it is 271 for all.
    """
    return ModelConfig(
        backbone=alexnet(scale),
        head=HeadConfig("up_channel", width=256 * scale, adjust=True),
        anchors=ANCHORS,
        input=GREY_LEVELS["bgr"],
        instance_size=271,
        crop="dasiamrpn",
    )


def dasiamrpn_tracker(constants: Literal["vot", "otb", "big"]) -> TrackerConfig:
    """The constants that DaSiamRPN publishes with each of its models."""
    values = {"vot": (0.04, 0.44, 0.45), "otb": (0.22, 0.40, 0.30)}
    k, window, size_lr = values.get(constants, (0.055, 0.42, 0.295))
    return TrackerConfig(penalty_k=k, window_influence=window, size_lr=size_lr)


def siamfc_model() -> ModelConfig:
    """SiamFC's network, the baseline of the paper's tables.

    Patches are cut centred; its own are cut in whole pixels.
    """
    return ModelConfig(
        head=HeadConfig("cross_correlation"),
        anchors=AnchorConfig(ratios=(1.0,)),
        input=GREY_LEVELS["rgb"],
    )


def siamfc_tracker(scales: Literal[3, 5] = 3) -> TrackerConfig:
    """The constants that SiamFC publishes for its trackers of 3 and of 5 scales."""
    three = TrackerConfig(window_influence=0.176, size_lr=0.59)
    if scales == 3:
        return three
    return dataclasses.replace(
        three, scales=5, scale_step=1.025, scale_penalty=0.962, size_lr=0.35
    )


def alexnet(scale: int = 1) -> BackboneConfig:
    """AlexNet with ``scale`` times the paper's channels."""
    widths = tuple(scale * width for width in BackboneConfig().widths)
    return BackboneConfig(widths=widths)


def torchvision_alexnet() -> BackboneConfig:
    """The channels of torchvision's AlexNet; its kernels fit, at stride 2, unpadded."""
    return BackboneConfig(widths=(64, 192, 384, 256, 256))


def efficientnet_lite0() -> BackboneConfig:
    """EfficientNet-Lite0 up to its last block of stride 16."""
    widths = (32, 16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112)
    return BackboneConfig("efficientnet_lite", widths, bn_momentum=0.98)
