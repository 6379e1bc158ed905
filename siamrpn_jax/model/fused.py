"""The network as tracking runs it: what depends on the weights alone is done once.

``fuse`` folds BatchNorm into the convolutions, joins the classification and
regression convolutions of the search branch, and turns kernels into the form that the
platform multiplies with. Bias and ReLU come after the pooling, with which they commute.
The results are those of ``network.SiamRPN`` without ``train``, up to rounding.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from siamrpn_jax.model import backbone, convolutions, rpn
from siamrpn_jax.model.config import ConvImpl, most_values
from siamrpn_jax.model.convolutions import TransformedKernel
from siamrpn_jax.model.layers import BatchNorm
from siamrpn_jax.model.network import Detection, SiamRPN, make_detection, normalise
from siamrpn_jax.model.promotion import standard_promotion
from siamrpn_jax.model.rpn import Template

_BRANCHES = ("cls", "reg")

_CHUNK_BYTES, _CHUNK_PATCHES = 12 * 2**20, 16
"""Limits for what a CPU computes at a time: bytes of the largest map, and patches;
measured best. More does not fit the caches, and glibc takes large working memory from
the kernel anew for each call."""


class FusedConv(struct.PyTreeNode):
    """A convolution with its BatchNorm, if it had one."""

    kernel: TransformedKernel
    bias: jax.Array
    """``[O]``."""


class FusedWeights(struct.PyTreeNode):
    """The network's weights as tracking uses them."""

    backbone: tuple[FusedConv, ...]
    neck: FusedConv | None
    template: tuple[FusedConv, ...]
    """What makes detection kernels of exemplar features: classification, regression;
    of heads that score cells, regression alone."""
    search: FusedConv | None
    """What prepares search features; classification and regression side by side, or
    regression alone. None where they are correlated as they are."""
    cls_output: tuple[FusedConv, ...]
    """1x1 convolutions after the correlation, with ReLU between them."""
    reg_output: tuple[FusedConv, ...]


@functools.partial(jax.jit, static_argnums=0)
@standard_promotion
def fuse(model: SiamRPN, variables: Any) -> FusedWeights:
    """Makes the weights to track with.

    Args:
        model: the network (static).
        variables: of the model, ``{"params": …, "batch_stats": …}``.

    Returns:
        what ``embed_template`` and ``detect`` compute with.
    """
    config = model.config
    fold = functools.partial(fold_norm, variables)
    make = functools.partial(_fuse_conv, dtype=config.dtype)
    layers = backbone.describe_layers(config.backbone)
    features = [
        make(
            *fold("backbone", f"conv{i}", f"bn{i}"),
            stride=layer.stride,
            impl=config.conv_impl,
            depthwise=layer.depthwise,
        )
        for i, layer in enumerate(layers, start=1)
    ]
    neck = None
    if config.neck_width:
        neck = make(*fold("neck", "conv1", "bn1"), impl=config.conv_impl)
    body = tuple(features), neck

    def head(name: str, impl: ConvImpl = config.conv_impl) -> FusedConv:
        return make(*fold("head", name, f"{name}_bn"), impl=impl)

    if config.head.scores_cells:
        gain = jnp.float32([[[[0.0, rpn.SCORE_GAIN]]]])
        bias = jnp.pad(variables["params"]["head"]["bias"], (1, 0))
        score = _fuse_conv(gain, bias, dtype="float32", impl="xla")
        if not config.head.regresses:
            return FusedWeights(*body, (), None, (score,), ())
        template, search = head("template_reg", "xla"), head("search_reg")
        boxes = head("mix_reg"), head("out_reg")
        return FusedWeights(*body, (template,), search, (score,), boxes)

    # Run once a target: the transformed kernels of ``paper`` would fill 280 MB.
    template = head("template_cls", "xla"), head("template_reg", "xla")
    branches = [fold("head", f"search_{b}", f"search_{b}_bn") for b in _BRANCHES]
    kernel, bias = (jnp.concatenate(x, -1) for x in zip(*branches, strict=True))
    search = make(kernel, bias, impl=config.conv_impl)
    if config.head.kind == "depthwise":
        outputs = [(head(f"mix_{b}"), head(f"out_{b}")) for b in _BRANCHES]
    else:
        outputs = [(), (head("adjust"),) if config.head.adjust else ()]
    return FusedWeights(*body, template, search, *outputs)


@standard_promotion
def embed_template(model: SiamRPN, weights: Any, z: jax.Array) -> Template:
    """Exemplar patches to detection kernels (paper, section 4.1).

    Args:
        model: the network.
        weights: a ``FusedWeights``, or the model's variables, which each call fuses.
        z: ``[B, Z, Z, 3]`` RGB, uint8 or float 0..255.
    """
    weights = as_fused(model, weights)
    features = _features(model, weights, z)
    head = model.config.head
    kernels = [_apply(conv, features) for conv in weights.template]
    if head.kind == "up_channel":
        kernels = [k.reshape(*k.shape[:3], head.width, -1) for k in kernels]
    elif head.template_relu:
        kernels = [jax.nn.relu(k) for k in kernels]
    if head.scores_cells:
        return Template(features, *kernels or [None])
    return Template(*kernels)


def embed_search(model: SiamRPN, weights: FusedWeights, x: jax.Array) -> jax.Array:
    """Search patches to the features ``[B, H, W, C]`` that ``detect`` looks at."""
    return _features(model, weights, x)


def score_bias(weights: FusedWeights) -> jax.Array:
    """The bias of the scores, of a head that scores cells."""
    (score,) = weights.cls_output
    return score.bias[1]


@standard_promotion
def detect(
    model: SiamRPN,
    weights: Any,
    template: Template,
    x: jax.Array,
    *,
    keep_features: bool = False,
) -> Detection:
    """Search patches to logits and offsets (paper, section 4.2).

    Args:
        model: the network.
        weights: a ``FusedWeights``, or the model's variables, which each call fuses.
        template: of each patch's target.
        x: ``[B, X, X, 3]`` RGB, uint8 or float 0..255.
        keep_features: return the features of the search patches, too.
    """
    weights = as_fused(model, weights)
    run = functools.partial(_detect, model, weights, keep_features)
    chunk = _chunk_size(model)
    if chunk is None or len(x) <= chunk:
        return run(template, x)
    whole = len(x) // chunk * chunk
    parts = jax.tree.map(
        lambda a: a[:whole].reshape(-1, chunk, *a.shape[1:]), (template, x)
    )
    found = jax.lax.map(lambda part: run(*part), parts)
    found = jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), found)
    if whole == len(x):
        return found
    rest = run(*jax.tree.map(lambda a: a[whole:], (template, x)))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), found, rest)


def as_fused(model: SiamRPN, weights: Any) -> FusedWeights:
    """Fuses weights unless they are fused already."""
    return weights if isinstance(weights, FusedWeights) else fuse(model, weights)


def _chunk_size(model: SiamRPN) -> int | None:
    """Patches that go through the network together; None: all of them."""
    if jax.default_backend() != "cpu":
        return None
    config = model.config
    values = most_values(config.backbone, config.instance_size)
    return max(1, min(_CHUNK_PATCHES, _CHUNK_BYTES // (4 * values)))


def _detect(
    model: SiamRPN,
    weights: FusedWeights,
    keep_features: bool,
    template: Template,
    x: jax.Array,
) -> Detection:
    search = embed_search(model, weights, x)
    found = _match(model, weights, template, search)
    return found.replace(features=search) if keep_features else found


def _match(
    model: SiamRPN, weights: FusedWeights, template: Template, search: jax.Array
) -> Detection:
    if model.config.head.scores_cells:
        kernel = template.cls_kernel[..., None]
        score = rpn.correlate(search, kernel, impl=model.config.head.correlation)
        logits = _chain(weights.cls_output, score.astype(jnp.float32))
        if weights.search is None:
            return make_detection(logits, None)
        search = jax.nn.relu(_apply(weights.search, search))
        correlated = rpn.correlate_depthwise(search, template.reg_kernel)
        return make_detection(logits, _chain(weights.reg_output, correlated))
    assert weights.search is not None
    search = _apply(weights.search, search)
    if model.config.head.kind == "depthwise":
        kernels = jnp.concatenate([template.cls_kernel, template.reg_kernel], -1)
        correlated = rpn.correlate_depthwise(jax.nn.relu(search), kernels)
        cls, reg = jnp.split(correlated, 2, -1)
    else:
        correlate = functools.partial(rpn.correlate, impl=model.config.head.correlation)
        cls, reg = jnp.split(search, 2, -1)
        cls = correlate(cls, template.cls_kernel)
        reg = correlate(reg, template.reg_kernel)
    return make_detection(
        _chain(weights.cls_output, cls), _chain(weights.reg_output, reg)
    )


def _features(model: SiamRPN, weights: FusedWeights, patches: jax.Array) -> jax.Array:
    """The backbone: ``[B, n, n, 3]`` to ``[B, f, f, C]``."""
    config = model.config
    x = normalise(patches, config.input)
    inputs = [x]  # of each layer
    for layer, conv in zip(
        backbone.describe_layers(config.backbone), weights.backbone, strict=True
    ):
        if layer.padded:
            x = convolutions.pad(x, layer.size // 2)
        y = convolutions.conv2d_transformed(x.astype(config.dtype), conv.kernel)
        if layer.pool:
            y = convolutions.max_pool(y)
        y += conv.bias
        if layer.shortcut:
            y = backbone.add_shortcut(y, inputs[-layer.shortcut])
        x = backbone.activate(y, layer)
        inputs.append(x)
    fine = backbone.fine_layers(config.backbone)
    features = backbone.join(inputs[fine], x) if fine else x
    return features if weights.neck is None else _apply(weights.neck, features)


def _chain(convs: tuple[FusedConv, ...], x: jax.Array) -> jax.Array:
    for i, conv in enumerate(convs):
        x = _apply(conv, jax.nn.relu(x) if i else x)
    return x


def _apply(conv: FusedConv, x: jax.Array) -> jax.Array:
    return convolutions.conv2d_transformed(x, conv.kernel) + conv.bias


def fold_norm(
    variables: Any, part: str, conv: str, norm: str
) -> tuple[jax.Array, jax.Array]:
    """Kernel and bias of a convolution followed by its BatchNorm, if it has one."""
    params = variables["params"][part]
    kernel = params[conv]["kernel"]
    bias = params[conv].get("bias", np.zeros(kernel.shape[-1], kernel.dtype))
    if norm not in params:
        return kernel, bias
    stats = variables["batch_stats"][part][norm]
    factor = params[norm]["scale"] * (stats["var"] + BatchNorm.epsilon) ** -0.5
    return kernel * factor, (bias - stats["mean"]) * factor + params[norm]["bias"]


def _fuse_conv(
    kernel: jax.Array,
    bias: jax.Array,
    *,
    dtype: str,
    impl: ConvImpl,
    stride: int = 1,
    depthwise: bool = False,
) -> FusedConv:
    kernel, bias = kernel.astype(dtype), bias.astype(dtype)
    transformed = convolutions.transform_kernel(
        kernel, stride=stride, impl=impl, depthwise=depthwise
    )
    return FusedConv(transformed, bias)
