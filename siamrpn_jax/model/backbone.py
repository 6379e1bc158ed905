"""Feature extraction: the shared network φ of exemplar and search patch (section 3.1).

No layer has padding, so a shifted patch gives shifted features (Eq. 1). Every size
that a preset uses divides exactly: the feature map is centred on the patch.
"""

import dataclasses
import math
from collections.abc import Collection
from typing import Literal

import flax.linen as nn

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model import convolutions
from siamrpn_jax.model.convolutions import ConvImpl
from siamrpn_jax.model.layers import BatchNorm, Conv, Maps


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """Which network extracts the features."""

    kind: Literal["alexnet", "compact"] = "alexnet"
    """``alexnet``: the paper's; ``compact``: strided stem and residual 3x3 layers."""
    widths: tuple[int, ...] = (96, 256, 384, 384, 256)
    """Channels of conv1, conv2, …"""
    bn_momentum: float = 0.9
    """Share of the old value in the running BatchNorm averages at each step."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One convolution; ``pool``: followed by a 3x3 maximum with stride 2."""

    width: int
    size: int
    stride: int = 1
    pool: bool = False
    residual: bool = False


class Backbone(nn.Module):
    """Convolutions with BatchNorm; ReLU after all but the last."""

    config: BackboneConfig
    conv_impl: ConvImpl = "auto"
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        maps: Maps,
        *,
        train: bool = False,
        fixed: Collection[str] = (),
        axis_name: str | None = None,
    ) -> Maps:
        """Extracts features.

        Args:
            maps: normalised patches ``[B, n, n, 3]``, of one or several sizes.
            train: BatchNorm by batch statistics.
            fixed: layers with running averages even while training, see
                ``BatchNorm``.
            axis_name: device axis of the batch, or None.

        Returns:
            features ``[B, f, f, C]``, see :func:`feature_size`.
        """
        layers = describe_layers(self.config)
        for i, layer in enumerate(layers, start=1):
            inputs = maps
            maps = Conv(
                layer.width,
                layer.size,
                layer.stride,
                use_bias=self.config.kind == "alexnet",
                impl=self.conv_impl,
                dtype=self.dtype,
                name=f"conv{i}",
            )(maps)
            maps = BatchNorm(self.config.bn_momentum, name=f"bn{i}")(
                maps, train=train, fixed=fixed, axis_name=axis_name
            )
            if layer.pool:
                maps = tuple(convolutions.max_pool(x) for x in maps)
            if layer.residual:
                maps = tuple(
                    y + x[:, 1:-1, 1:-1] for x, y in zip(inputs, maps, strict=True)
                )
            if i < len(layers):
                maps = tuple(nn.relu(x) for x in maps)
        return maps


def feature_size(config: BackboneConfig, patch_size: int) -> int:
    """Side of the feature map of a square patch.

    Raises:
        InputError: if some stride does not divide exactly, which would shift the map
            against the patch.

    Example:
        >>> feature_size(BackboneConfig(), 127), feature_size(BackboneConfig(), 255)
        (6, 22)
    """
    size = patch_size
    for i, layer in enumerate(describe_layers(config), start=1):
        windows = [(layer.size, layer.stride)] + [(3, 2)] * layer.pool
        for window, stride in windows:
            size, rest = divmod(size - window, stride)
            size += 1
            if rest or size < 1:
                raise InputError(
                    f"patch size {patch_size} does not fit the {config.kind} backbone: "
                    f"layer {i} ({window}x{window}, stride {stride}) does not divide "
                    "its input exactly"
                )
    return size


def total_stride(config: BackboneConfig) -> int:
    """Distance in patch pixels between neighbouring cells of the feature map."""
    layers = describe_layers(config)
    return math.prod(layer.stride * (2 if layer.pool else 1) for layer in layers)


def multiply_adds(config: BackboneConfig, patch_size: int) -> int:
    """Products of the convolutions on a square patch.

    Example:
        >>> multiply_adds(BackboneConfig("compact", (48, 96)), 188)
        55185408
    """
    size, channels, total = patch_size, 3, 0
    for layer in describe_layers(config):
        size = (size - layer.size) // layer.stride + 1
        total += size**2 * layer.width * layer.size**2 * channels
        size = (size - 3) // 2 + 1 if layer.pool else size
        channels = layer.width
    return total


def describe_layers(config: BackboneConfig) -> tuple[Layer, ...]:
    """The convolutions in their order.

    Raises:
        InputError: a number of widths that the kind does not have.
    """
    widths = config.widths
    if config.kind == "alexnet":
        if len(widths) != 5:
            raise InputError(f"alexnet has 5 layers, got widths {widths}")
        return (
            Layer(widths[0], 11, 2, pool=True),
            Layer(widths[1], 5, pool=True),
            *(Layer(width, 3) for width in widths[2:]),
        )
    if len(widths) < 2:
        raise InputError(f"compact has at least 2 layers, got widths {widths}")
    pairs = zip(widths[1:], widths[2:], strict=False)
    return (
        Layer(widths[0], 8, 4),
        Layer(widths[1], 4, 2),
        *(Layer(new, 3, residual=old == new) for old, new in pairs),
    )
