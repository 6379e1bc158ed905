"""Feature extraction: the shared network φ of exemplar and search patch (section 3.1).

No layer has padding, so a shifted patch gives shifted features (Eq. 1). Every size
that a preset uses divides exactly: the feature map is centred on the patch.
"""

from collections.abc import Collection

import flax.linen as nn

from siamrpn_jax.model import convolutions
from siamrpn_jax.model.config import BackboneConfig, ConvImpl, describe_layers
from siamrpn_jax.model.layers import BatchNorm, Conv, Maps


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
            features ``[B, f, f, C]``, see ``feature_size``.
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
