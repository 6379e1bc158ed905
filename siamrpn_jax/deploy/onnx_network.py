"""The network in ONNX's operators, as ``model.fused`` runs it."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from siamrpn_jax.deploy.graph import Graph, Value
from siamrpn_jax.model import convolutions, fused, rpn
from siamrpn_jax.model.config import (
    RIM,
    ConvLayer,
    InputConfig,
    ModelConfig,
    describe_layers,
    fine_layers,
    map_sizes,
)
from siamrpn_jax.tracking.state import Loaded


class Layer(NamedTuple):
    """A convolution with its BatchNorm folded in."""

    kernel: np.ndarray
    """``[O, I, h, w]``."""
    bias: np.ndarray
    """``[O]``."""


class Weights(NamedTuple):
    """The layers of a network, as ``model.fused`` has them."""

    backbone: tuple[Layer, ...]
    neck: Layer | None
    template: tuple[Layer | None, Layer]
    search: tuple[Layer | None, Layer]
    """None: features are correlated as they are."""
    outputs: tuple[tuple[Layer, ...], tuple[Layer, ...]]
    """After the correlation; classification and regression, as the two above."""


def fold(loaded: Loaded) -> Weights:
    """The layers of a network with BatchNorm folded in."""
    config = loaded.model.config

    def layer(part: str, conv: str, norm: str) -> Layer:
        kernel, bias = fused.fold_norm(loaded.variables, part, conv, norm)
        return Layer(np.asarray(kernel).transpose(3, 2, 0, 1), np.asarray(bias))

    def head(name: str) -> Layer:
        return layer("head", name, f"{name}_bn")

    count, cells = len(describe_layers(config.backbone)), config.head.scores_cells

    def output(branch: str) -> tuple[Layer, ...]:
        if branch == "cls" and cells:
            bias = np.append(0, loaded.variables["params"]["head"]["bias"])
            gain = np.reshape([0, rpn.SCORE_GAIN], (2, 1, 1, 1))
            return (Layer(gain.astype(np.float32), bias.astype(np.float32)),)
        if config.head.kind in ("depthwise", "hybrid"):
            return head(f"mix_{branch}"), head(f"out_{branch}")
        adjusted = branch == "reg" and config.head.adjust
        return (head("adjust"),) if adjusted else ()

    return Weights(
        backbone=tuple(
            layer("backbone", f"conv{i}", f"bn{i}") for i in range(1, count + 1)
        ),
        neck=layer("neck", "conv1", "bn1") if config.neck_width else None,
        template=(None if cells else head("template_cls"), head("template_reg")),
        search=(None if cells else head("search_cls"), head("search_reg")),
        outputs=(output("cls"), output("reg")),
    )


def kernel_shapes(config: ModelConfig, weights: Weights) -> list[list[int]]:
    """Shapes of the template's kernels."""
    side, width = config.template_size, len(weights.search[1].bias)
    depthwise = [width, 1, side, side]
    if config.head.kind == "hybrid":
        whole = side + config.head.kernel_size - 1
        return [[1, config.feature_width, whole, whole], depthwise]
    if config.head.kind == "depthwise":
        return [depthwise, depthwise]
    anchors = len(config.anchors.ratios)
    return [[values * anchors, width, side, side] for values in (2, 4)]


def embed(
    graph: Graph, config: ModelConfig, weights: Weights, x: Value, *, size: int
) -> Value:
    """Patches ``[B, 3, n, n]``, 0 to 255, to features ``[B, C, f, f]``; size is n."""
    layers, image = describe_layers(config.backbone), config.input
    if layers[0].padded:  # with zeros that stand for the mean
        mean = np.array(image.mean[::-1] if image.order == "bgr" else image.mean)
        x = x - mean[:, None, None].astype(np.float32)
        image = dataclasses.replace(image, mean=(0.0, 0.0, 0.0))
    first, *others = weights.backbone
    convs = _for_patches(first, image), *others
    inputs = [x]  # of each layer
    for i, (layer, conv) in enumerate(zip(layers, convs, strict=True), start=1):
        y = _conv(graph, conv, x, layer)
        if layer.pool:
            y = graph.op("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2])
        if layer.shortcut:
            across = layers[i - layer.shortcut : i]
            cut = sum(0 if one.padded else one.size // 2 for one in across)
            y = y + _middle(graph, inputs[-layer.shortcut], cut)
        x = _activate(graph, y, layer)
        inputs.append(x)
    fine = fine_layers(config.backbone)
    if fine:
        side = map_sizes(config.backbone, size)[-1]
        x = _join(graph, inputs[fine], x, side=side)
    return x if weights.neck is None else _conv(graph, weights.neck, x)


def embed_template(
    graph: Graph, config: ModelConfig, weights: Weights, z: Value
) -> list[Value]:
    """``model.fused.embed_template``."""
    features = embed(graph, config, weights, z, size=config.exemplar_size)
    kernels = []
    for layer, shape in zip(
        weights.template, kernel_shapes(config, weights), strict=True
    ):
        if layer is None:
            kernels.append(features)
            continue
        kernel = _conv(graph, layer, features)
        if config.head.kind in ("depthwise", "hybrid"):
            if config.head.template_relu:
                kernel = graph.op("Relu", kernel)
            kernels.append(graph.reshape(kernel, shape))
        else:
            outputs, width, side, _ = shape
            kernel = graph.reshape(kernel, [width, outputs, side, side])
            kernels.append(graph.op("Transpose", kernel, perm=[1, 0, 2, 3]))
    return kernels


def match(
    graph: Graph,
    config: ModelConfig,
    weights: Weights,
    kernels: Sequence[Value],
    features: Value,
) -> list[Value]:
    """Features of a search patch to logits and offsets ``[1, …, F, F]``."""
    maps = []
    shapes = kernel_shapes(config, weights)
    for layer, kernel, shape, chain in zip(
        weights.search, kernels, shapes, weights.outputs, strict=True
    ):
        sides = shape[2:]
        found = features if layer is None else _conv(graph, layer, features)
        if layer is not None and config.head.kind in ("depthwise", "hybrid"):
            found = graph.op("Relu", found)
            groups = len(layer.bias)
            found = graph.op("Conv", found, kernel, kernel_shape=sides, group=groups)
        else:
            found = graph.op("Conv", found, kernel, kernel_shape=sides)
        for place, output in enumerate(chain):
            found = _conv(graph, output, graph.op("Relu", found) if place else found)
        maps.append(found)
    return maps


def rows(graph: Graph, maps: Value, values: int) -> Value:
    """Maps ``[1, K * values, F, F]``, anchor-major, as rows ``[F * F * K, values]``."""
    return graph.reshape(graph.op("Transpose", maps, perm=[0, 2, 3, 1]), [-1, values])


def _activate(graph: Graph, x: Value, layer: ConvLayer) -> Value:
    """``model.backbone.activate``."""
    if layer.activation == "none":
        return x
    relu = layer.activation == "relu"
    return graph.op("Relu", x) if relu else graph.op("Clip", x, 0.0, 6.0)


def _join(graph: Graph, fine: Value, coarse: Value, *, side: int) -> Value:
    """``model.backbone.join``; ``side`` is that of the coarse features."""
    double = convolutions.doubling_matrix(side)
    rows = graph.op("MatMul", double, coarse)
    whole = graph.op("MatMul", rows, np.ascontiguousarray(double.T))
    return _middle(graph, graph.concat(fine, whole, axis=1), RIM)


def _middle(graph: Graph, maps: Value, cut: int) -> Value:
    """Maps without some cells at each end."""
    if not cut:
        return maps
    ends = (graph.int64([end, end]) for end in (cut, -cut))
    return graph.op("Slice", maps, *ends, graph.int64([2, 3]))


def _for_patches(conv: Layer, image: InputConfig) -> Layer:
    """The first layer with the normalisation, and the order of colours, folded in."""
    mean, std = (
        np.array(v, np.float64)[:, None, None] for v in (image.mean, image.std)
    )
    kernel = conv.kernel / std
    bias = conv.bias - (kernel * mean).sum((1, 2, 3))
    if image.order == "bgr":
        kernel = kernel[:, ::-1]
    return Layer(*(np.ascontiguousarray(v, np.float32) for v in (kernel, bias)))


def _conv(graph: Graph, conv: Layer, x: Value, layer: ConvLayer | None = None) -> Value:
    """A convolution; without a description, of stride 1 and not padded."""
    sides = conv.kernel.shape[2:]  # optional, but some converters want them
    options: dict[str, Any] = dict(kernel_shape=sides)
    if layer is not None:
        options["strides"] = [layer.stride] * 2
        if layer.padded:
            options["pads"] = [layer.size // 2] * 4
        if layer.depthwise:
            options["group"] = layer.width
    return graph.op("Conv", x, conv.kernel, conv.bias, **options)
