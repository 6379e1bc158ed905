"""The region proposal network: correlation and the heads (paper, section 3.2).

The exemplar's features become the kernels of a local detector; correlating the search
features with them gives, at each cell, two logits and four box offsets per anchor.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from siamrpn_jax.model.config import ConvImpl, CorrelationImpl, HeadConfig
from siamrpn_jax.model.layers import BatchNorm, Conv


class Template(struct.PyTreeNode):
    """The detection kernels that one exemplar stands for (paper, section 4.1).

    ``up_channel``: ``[B, h, w, C, 2K]`` and ``[B, h, w, C, 4K]``; ``depthwise``:
    ``[B, h, w, C]`` twice; ``cross_correlation``: ``[B, h, w, C]`` and None;
    ``hybrid``: ``[B, h, w, C]`` of the scores and ``[B, h, w, C]`` of the boxes.
    """

    cls_kernel: jax.Array
    reg_kernel: Any


class SearchFeatures(struct.PyTreeNode):
    """Search features ready to be correlated, ``[B, H, W, C]`` each."""

    cls: jax.Array
    reg: Any
    """None where the head finds no boxes."""


def correlate(
    x: jax.Array, kernel: jax.Array, *, impl: CorrelationImpl = "taps"
) -> jax.Array:
    """Correlates each sample with its own kernel (Eq. 2).

    Formulations, equal up to rounding:

    - ``group``: one convolution with ``feature_group_count = B``.
    - ``taps``: one batched product of all positions with all kernel taps, then a sum of
      shifted slices. On a CPU 50 times faster in the backward pass, on a GPU by a
      tenth.

    Args:
        x: ``[B, H, W, C]``.
        kernel: ``[B, h, w, C, O]``.
        impl: formulation.

    Returns:
        ``[B, H - h + 1, W - w + 1, O]``.
    """
    return (
        _correlate_group(x, kernel) if impl == "group" else _correlate_taps(x, kernel)
    )


def _correlate_group(x: jax.Array, kernel: jax.Array) -> jax.Array:
    b, rows, columns, channels = x.shape
    _, h, w, _, features = kernel.shape
    y = lax.conv_general_dilated(
        x.transpose(1, 2, 0, 3).reshape(1, rows, columns, b * channels),
        kernel.transpose(1, 2, 3, 0, 4).reshape(h, w, channels, b * features),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=b,
    )
    y = y.reshape(*y.shape[1:3], b, features)
    return y.transpose(2, 0, 1, 3)


def _correlate_taps(x: jax.Array, kernel: jax.Array) -> jax.Array:
    b, rows, columns, channels = x.shape
    _, h, w, _, features = kernel.shape
    columns_of_taps = kernel.transpose(0, 3, 1, 2, 4).reshape(b, channels, -1)
    y = jnp.matmul(
        x.reshape(b, rows * columns, channels),
        columns_of_taps,
        preferred_element_type=jnp.float32,
    )
    y = y.reshape(b, rows, columns, h, w, features)
    out_rows, out_columns = rows - h + 1, columns - w + 1
    total = jnp.zeros((), jnp.float32)
    for i in range(h):
        for j in range(w):
            total += y[:, i : i + out_rows, j : j + out_columns, i, j]
    return total.astype(x.dtype)


@jax.custom_vjp
def correlate_depthwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Correlates each channel of each sample with its own kernel (SiamRPN++, Eq. 2).

    Args:
        x: ``[B, H, W, C]``.
        kernel: ``[B, h, w, C]``.

    Returns:
        ``[B, H - h + 1, W - w + 1, C]``.
    """
    h, w = kernel.shape[1:3]
    rows, columns = x.shape[1] - h + 1, x.shape[2] - w + 1
    total = jnp.zeros((), jnp.float32)
    for i in range(h):
        for j in range(w):
            window = x[:, i : i + rows, j : j + columns]
            total += window * kernel[:, i : i + 1, j : j + 1]
    return total.astype(x.dtype)


def _depthwise_forward(x, kernel):
    return correlate_depthwise(x, kernel), (x, kernel)


def _depthwise_backward(residuals, dy):
    # Written out because the automatic gradient pads and adds once per tap.
    x, kernel = residuals
    h, w = kernel.shape[1:3]
    rows, columns = dy.shape[1:3]
    padded = jnp.pad(dy, ((0, 0), (h - 1, h - 1), (w - 1, w - 1), (0, 0)))
    dx = correlate_depthwise(padded, kernel[:, ::-1, ::-1])
    dkernel = [
        [(x[:, i : i + rows, j : j + columns] * dy).sum((1, 2)) for j in range(w)]
        for i in range(h)
    ]
    return dx, jnp.stack([jnp.stack(row, 1) for row in dkernel], 1)


correlate_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


SCORE_GAIN = 1e-3
"""What SiamFC multiplies correlations with: sums of thousands of products."""


def kernel_size_at_start(width: int) -> float:
    """How large the up-channel head's kernels are before training.

    The correlation sums h·w·C products, 16 C in the paper's network, of unit variance:
    kernels this small give logits of about unit variance.
    """
    return (16 * width) ** -0.5


class UpChannelHead(nn.Module):
    """The paper's head: the exemplar branch raises the channels 2K and 4K times."""

    config: HeadConfig
    anchors: int
    conv_impl: ConvImpl = "auto"
    dtype: str = "float32"

    def setup(self):
        """Four convolutions, and the optional one on the regression output."""
        width, size = self.config.width, self.config.kernel_size
        kwargs: dict[str, Any] = dict(impl=self.conv_impl, dtype=self.dtype)
        small = nn.initializers.variance_scaling(
            kernel_size_at_start(width) ** 2, "fan_in", "normal"
        )
        for name, outputs in (("cls", 2), ("reg", 4)):
            up = width * outputs * self.anchors
            conv = Conv(up, size, kernel_init=small, **kwargs)
            setattr(self, f"template_{name}", conv)
            setattr(self, f"search_{name}", Conv(width, size, **kwargs))
        if self.config.adjust:
            self.adjust = Conv(4 * self.anchors, 1, **kwargs)

    def embed_template(self, features: jax.Array, **_: Any) -> Template:
        """Exemplar features ``[B, f, f, C]`` to detection kernels."""
        return Template(
            cls_kernel=self._kernel(self.template_cls, features),
            reg_kernel=self._kernel(self.template_reg, features),
        )

    def embed_search(self, features: jax.Array, **_: Any) -> SearchFeatures:
        """Search features ``[B, f, f, C]``, once for each branch."""
        (cls,), (reg,) = self.search_cls((features,)), self.search_reg((features,))
        return SearchFeatures(cls=cls, reg=reg)

    def classify(self, search: jax.Array, kernel: jax.Array, **_: Any) -> jax.Array:
        """Logits ``[B, F, F, 2K]``."""
        return correlate(search, kernel, impl=self.config.correlation)

    def regress(self, search: jax.Array, kernel: jax.Array, **_: Any) -> jax.Array:
        """Offsets ``[B, F, F, 4K]``."""
        deltas = correlate(search, kernel, impl=self.config.correlation)
        return self.adjust((deltas,))[0] if self.config.adjust else deltas

    def _kernel(self, conv: Conv, features: jax.Array) -> jax.Array:
        (kernel,) = conv((features,))
        return kernel.reshape(*kernel.shape[:3], self.config.width, -1)


class DepthwiseHead(nn.Module):
    """SiamRPN++'s head: depthwise correlation, then two 1x1 convolutions."""

    config: HeadConfig
    anchors: int
    conv_impl: ConvImpl = "auto"
    dtype: str = "float32"
    bn_momentum: float = 0.9

    def setup(self):
        """The same layers for classification and regression."""
        self._add_branch("cls", 2 * self.anchors)
        self._add_branch("reg", 4 * self.anchors)

    def embed_template(self, features: jax.Array, **bn: Any) -> Template:
        """Exemplar features ``[B, f, f, C]`` to detection kernels."""
        cls, reg = (self._kernel(name, features, bn) for name in ("cls", "reg"))
        return Template(cls_kernel=cls, reg_kernel=reg)

    def embed_search(self, features: jax.Array, **bn: Any) -> SearchFeatures:
        """Search features ``[B, f, f, C]``, once for each branch."""
        cls, reg = (self._search(name, features, bn) for name in ("cls", "reg"))
        return SearchFeatures(cls=cls, reg=reg)

    def classify(self, search: jax.Array, kernel: jax.Array, **bn: Any) -> jax.Array:
        """Logits ``[B, F, F, 2K]``."""
        return self._maps("cls", search, kernel, bn)

    def regress(self, search: jax.Array, kernel: jax.Array, **bn: Any) -> jax.Array:
        """Offsets ``[B, F, F, 4K]``."""
        return self._maps("reg", search, kernel, bn)

    def _add_branch(self, name: str, outputs: int) -> None:
        width, size = self.config.width, self.config.kernel_size
        kwargs: dict[str, Any] = dict(impl=self.conv_impl, dtype=self.dtype)
        tiny = nn.initializers.normal(0.01)
        layers = {
            f"template_{name}": Conv(width, size, use_bias=False, **kwargs),
            f"search_{name}": Conv(width, size, use_bias=False, **kwargs),
            f"mix_{name}": Conv(width, 1, use_bias=False, **kwargs),
            f"out_{name}": Conv(outputs, 1, kernel_init=tiny, **kwargs),
            f"template_{name}_bn": BatchNorm(self.bn_momentum),
            f"search_{name}_bn": BatchNorm(self.bn_momentum),
            f"mix_{name}_bn": BatchNorm(self.bn_momentum),
        }
        for layer, module in layers.items():
            setattr(self, layer, module)

    def _layer(self, name: str, x: jax.Array, bn: dict[str, Any]) -> jax.Array:
        conv, norm = getattr(self, name), getattr(self, f"{name}_bn")
        (y,) = norm(conv((x,)), **bn)
        return y

    def _kernel(self, name: str, features: Any, bn: dict[str, Any]) -> jax.Array:
        kernel = self._layer(f"template_{name}", features, bn)
        return nn.relu(kernel) if self.config.template_relu else kernel

    def _search(self, name: str, features: Any, bn: dict[str, Any]) -> jax.Array:
        return nn.relu(self._layer(f"search_{name}", features, bn))

    def _maps(self, name: str, search: Any, kernel: Any, bn: dict[str, Any]) -> Any:
        correlated = correlate_depthwise(search, kernel)
        mixed = nn.relu(self._layer(f"mix_{name}", correlated, bn))
        return getattr(self, f"out_{name}")((mixed,))[0]


class CrossCorrelationHead(nn.Module):
    """SiamFC's head: exemplar and search features are correlated as they are.

    Bertinetto et al., ECCV workshops 2016, Eq. 1: a score for each cell, with a bias,
    and no boxes.
    """

    config: HeadConfig

    def setup(self):
        """The bias is all that it learns."""
        self.bias = self.param("bias", nn.initializers.zeros_init(), (1,), jnp.float32)

    def embed_template(self, features: jax.Array, **_: Any) -> Template:
        """Exemplar features ``[B, f, f, C]``, which are the kernels."""
        return Template(cls_kernel=features, reg_kernel=None)

    def embed_search(self, features: jax.Array, **_: Any) -> SearchFeatures:
        """Search features ``[B, f, f, C]`` as they are."""
        return SearchFeatures(cls=features, reg=None)

    def classify(self, search: jax.Array, kernel: jax.Array, **_: Any) -> jax.Array:
        """Logits ``[B, F, F, 2]``: 0 and the score, which make the logistic loss."""
        return score_cells(search, kernel, self.bias, impl=self.config.correlation)

    def regress(self, search: Any, kernel: Any, **_: Any) -> None:
        """There are no boxes."""


class HybridHead(DepthwiseHead):
    """Scores as ``CrossCorrelationHead``, and a box a cell as ``DepthwiseHead``.

    Which cell the target is in is learned from fewer pairs by plain correlation; how
    its size changes, by the branch of the RPN.
    """

    def setup(self):
        """The layers of one branch, and the bias of the scores."""
        self._add_branch("reg", 4 * self.anchors)
        self.bias = self.param("bias", nn.initializers.zeros_init(), (1,), jnp.float32)

    def embed_template(self, features: jax.Array, **bn: Any) -> Template:
        """Exemplar features ``[B, f, f, C]``, as they are and as a kernel."""
        return Template(features, self._kernel("reg", features, bn))

    def embed_search(self, features: jax.Array, **bn: Any) -> SearchFeatures:
        """Search features ``[B, f, f, C]``, as they are and for the boxes."""
        return SearchFeatures(features, self._search("reg", features, bn))

    def classify(self, search: jax.Array, kernel: jax.Array, **_: Any) -> jax.Array:
        """Logits ``[B, F, F, 2]``: 0 and the score."""
        return score_cells(search, kernel, self.bias, impl=self.config.correlation)


def score_cells(
    search: jax.Array, kernel: jax.Array, bias: jax.Array, *, impl: CorrelationImpl
) -> jax.Array:
    """Features correlated as they are: logits ``[B, F, F, 2]``, 0 and the score."""
    score = correlate(search, kernel[..., None], impl=impl).astype(jnp.float32)
    score = SCORE_GAIN * score + bias
    return jnp.concatenate([jnp.zeros_like(score), score], -1)
