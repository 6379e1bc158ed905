"""Layers shared by backbone and head.

A layer applies one function to a tuple of maps: exemplar and search branch while
training, one of them alone while tracking. That is the Siamese network's "same
transformation" (paper, section 3.1), and it gives BatchNorm one set of statistics for
both branches.
"""

import re
from collections.abc import Collection

import flax.linen as nn
import jax
import jax.numpy as jnp

from siamrpn_jax.model import convolutions
from siamrpn_jax.model.config import ConvImpl

Maps = tuple[jax.Array, ...]


class Conv(nn.Module):
    """Convolution without padding of each map; parameters as ``flax.linen.Conv``'s."""

    features: int
    size: int
    stride: int = 1
    depthwise: bool = False
    use_bias: bool = True
    impl: ConvImpl = "auto"
    dtype: str = "float32"
    kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()

    @nn.compact
    def __call__(self, maps: Maps) -> Maps:
        """``[B, H, W, C]`` maps to ``[B, H', W', features]`` maps."""
        channels = 1 if self.depthwise else maps[0].shape[-1]
        shape = (self.size, self.size, channels, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        kernel = kernel.astype(self.dtype)
        conv = convolutions.depthwise_conv2d if self.depthwise else convolutions.conv2d
        maps = tuple(
            conv(x.astype(self.dtype), kernel, stride=self.stride, impl=self.impl)
            for x in maps
        )
        if not self.use_bias:
            return maps
        zeros = nn.initializers.zeros_init()
        bias = self.param("bias", zeros, (self.features,), jnp.float32)
        return tuple(x + bias.astype(x.dtype) for x in maps)


class BatchNorm(nn.Module):
    """Batch normalisation with one set of statistics over all maps and devices.

    Parameters and running averages as ``flax.linen.BatchNorm``'s.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self,
        maps: Maps,
        *,
        train: bool,
        fixed: Collection[str] = (),
        axis_name: str | None = None,
        update: bool = True,
    ) -> Maps:
        """Normalises ``[B, H, W, C]`` maps.

        Args:
            maps: any number of maps of C channels.
            train: normalise by this batch's statistics, else by the running averages.
            fixed: layers that keep to the running averages while training, named from
                the root of the network, see ``layer_of``.
            axis_name: device axis over which the batch is spread, or None.
            update: while training, move the running averages.

        Returns:
            maps of the same shapes and type.
        """
        shape = (maps[0].shape[-1],)
        ones, zeros = nn.initializers.ones_init(), nn.initializers.zeros_init()
        scale = self.param("scale", ones, shape, jnp.float32)
        bias = self.param("bias", zeros, shape, jnp.float32)
        running_mean = self.variable(
            "batch_stats", "mean", jnp.zeros, shape, jnp.float32
        )
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        mean, var = running_mean.value, running_var.value
        if train and layer_of("/".join(self.path)) not in fixed:
            mean, var = _moments(maps, axis_name)
            if update and not self.is_initializing():
                m = self.momentum
                running_mean.value = m * running_mean.value + (1 - m) * mean
                running_var.value = m * running_var.value + (1 - m) * var
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        offset = bias - mean * factor
        return tuple((x * factor + offset).astype(x.dtype) for x in maps)


def layer_of(module: str) -> str:
    """The layer that a module is a part of: a BatchNorm belongs to its convolution.

    Example:
        >>> layer_of("backbone/bn5"), layer_of("head/mix_cls_bn"), layer_of("head/mix")
        ('backbone/conv5', 'head/mix_cls', 'head/mix')
    """
    return re.sub(r"\bbn(\d+)$", r"conv\1", module).removesuffix("_bn")


def _moments(maps: Maps, axis_name: str | None) -> tuple[jax.Array, jax.Array]:
    """Mean and variance per channel over maps and devices, float32 ``[C]``."""
    rows = [x.reshape(-1, x.shape[-1]).astype(jnp.float32) for x in maps]
    count = sum(len(x) for x in rows)
    # A product with ones is the fast way to sum down long columns on a CPU.
    mean = jnp.stack([jnp.ones(len(x), x.dtype) @ x for x in rows]).sum(0) / count
    if axis_name is not None:
        mean = jax.lax.pmean(mean, axis_name)
    var = jnp.stack([jnp.square(x - mean).sum(0) for x in rows]).sum(0) / count
    if axis_name is not None:
        var = jax.lax.pmean(var, axis_name)
    return mean, var
