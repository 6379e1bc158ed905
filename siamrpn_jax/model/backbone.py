"""Feature extraction: the shared network φ of exemplar and search patch (section 3.1).

No layer of the paper's backbone has padding, so a shifted patch gives shifted features
(Eq. 1). Every size that a preset uses divides exactly: the feature map is centred on
the patch.
"""

from collections.abc import Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from siamrpn_jax.model import convolutions
from siamrpn_jax.model.config import (
    RIM,
    BackboneConfig,
    ConvImpl,
    ConvLayer,
    describe_layers,
    fine_layers,
)
from siamrpn_jax.model.layers import BatchNorm, Conv, Maps


class Backbone(nn.Module):
    """The convolutions of ``describe_layers``, each with its BatchNorm."""

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
            features ``[B, f, f, C]``, see ``feature_size``.
        """
        inputs = [maps]  # of each layer
        for i, layer in enumerate(describe_layers(self.config), start=1):
            if layer.padded:
                maps = tuple(convolutions.pad(x, layer.size // 2) for x in maps)
            maps = Conv(
                layer.width,
                layer.size,
                layer.stride,
                depthwise=layer.depthwise,
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
            if layer.shortcut:
                before = inputs[-layer.shortcut]
                maps = tuple(map(add_shortcut, maps, before))
            maps = tuple(activate(x, layer) for x in maps)
            inputs.append(maps)
        fine = fine_layers(self.config)
        return tuple(map(join, inputs[fine], maps)) if fine else maps


class Neck(nn.Module):
    """A 1x1 convolution with BatchNorm: features of any backbone, made for the head."""

    width: int
    conv_impl: ConvImpl = "auto"
    dtype: str = "float32"
    bn_momentum: float = 0.9

    @nn.compact
    def __call__(self, maps: Maps, *, train: bool = False, **bn: Any) -> Maps:
        """``[B, f, f, C]`` maps to ``[B, f, f, width]`` maps; see ``BatchNorm``."""
        args: dict[str, Any] = dict(impl=self.conv_impl, dtype=self.dtype, name="conv1")
        maps = Conv(self.width, 1, use_bias=False, **args)(maps)
        return BatchNorm(self.bn_momentum, name="bn1")(maps, train=train, **bn)


def add_shortcut(y: jax.Array, x: jax.Array) -> jax.Array:
    """A block's output ``[B, h, w, C]`` and the middle of its input."""
    cut = (x.shape[1] - y.shape[1]) // 2
    return y + x[:, cut : x.shape[1] - cut, cut : x.shape[2] - cut]


def activate(x: jax.Array, layer: ConvLayer) -> jax.Array:
    """What follows a layer."""
    if layer.activation == "none":
        return x
    return nn.relu(x) if layer.activation == "relu" else nn.relu6(x)


def join(fine: jax.Array, coarse: jax.Array) -> jax.Array:
    """Features of two strides, ``[B, 2m - 1, 2m - 1, C]`` and ``[B, m, m, D]``.

    Returns:
        the middle of both, ``[B, 2m - 1 - 2 RIM, 2m - 1 - 2 RIM, C + D]``.
    """
    joined = jnp.concatenate([fine, convolutions.double(coarse)], -1)
    return joined[:, RIM:-RIM, RIM:-RIM]
