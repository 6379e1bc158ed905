"""The tracker as ONNX graphs: ``init`` and ``step``, weights and constants inside.

``init(frame, box)`` gives a template and a state, ``step(template, state, frame)`` the
next state and an output, as ``tracking.step`` does: crop, network, decoding, penalty,
window, votes and confidence. Tensors are called ``template.cls_kernel``, ``state.box``,
``next.box``, ``output.score`` and so on, by the fields of ``Template``, ``TrackState``
and ``TrackOutput``. Frames are RGB uint8 ``[H, W, 3]`` of any size, boxes ``cxcywh``.
The template's kernels are those of ONNX's ``Conv``, ``[O, I, h, w]``.

``make_networks`` gives the network alone: ``template(z)`` and ``search(x, …)``.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

import siamrpn_jax
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.deploy.graph import NEWEST_OPSET, OPSET, Graph, Value
from siamrpn_jax.deploy.runtime import FORMAT
from siamrpn_jax.model import convolutions, fused, rpn
from siamrpn_jax.model.boxes import MAX_LOG_SIZE
from siamrpn_jax.model.config import (
    RIM,
    ConvLayer,
    InputConfig,
    ModelConfig,
    describe_layers,
    fine_layers,
    map_sizes,
)
from siamrpn_jax.model.network import model_anchors
from siamrpn_jax.tracking.confidence import MAX_ODDS, NEAR_IOU
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.memory import check_no_memory
from siamrpn_jax.tracking.selection import LEAST_VOTE, window_and_center
from siamrpn_jax.tracking.state import MOTION_RATE, Loaded

STATE = {
    "box": [4],
    "fill": [3],
    "frame_size": [2],
    "age": [],
    "margin": [],
    "lost": [],
    "motion": [2],
    "search_shift": [2],
    "search_scale": [],
}
"""Shapes of the fields of ``TrackState``, all float32."""


LEAST_OPSET = {"whole": OPSET, "network": 11}
"""The first version of ONNX's operators that has all of a part's, as they are used."""


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


def make_models(loaded: Loaded, *, opset: int = OPSET) -> dict[str, Any]:
    """The models ``init`` and ``step`` of a tracker.

    Args:
        loaded: network, weights and tracking constants.
        opset: version of ONNX's operators.

    Raises:
        InputError: a tracker that this cannot be made of, or an opset without them.
        MissingExtraError: onnx is not installed.
    """
    check(loaded)
    check_opset(opset, "whole")
    weights = fold(loaded)
    about = describe(loaded)
    return {
        "init": _make_init(loaded, weights).build("init", about, opset=opset),
        "step": _make_step(loaded, weights).build("step", about, opset=opset),
    }


def make_networks(loaded: Loaded, *, opset: int = OPSET) -> dict[str, Any]:
    """The models ``template`` and ``search``: the network without the tracker.

    Patches are float32 ``[1, 3, n, n]``, RGB, 0 to 255; logits ``[1, 2K, F, F]`` and
    offsets ``[1, 4K, F, F]`` are anchor-major.

    Args:
        loaded: network and weights.
        opset: version of ONNX's operators.

    Raises:
        InputError: a tracker that this cannot be made of, or an opset without them.
        MissingExtraError: onnx is not installed.
    """
    check(loaded)
    check_opset(opset, "network")
    weights, config, about = fold(loaded), loaded.model.config, describe(loaded)
    template = Graph()
    side = config.exemplar_size
    z = template.input("z", np.float32, [1, 3, side, side])
    for name, kernel, shape in zip(
        ("cls_kernel", "reg_kernel"),
        _embed_template(template, config, weights, z),
        _kernel_shapes(config, weights),
        strict=True,
    ):
        template.output(name, kernel, np.float32, shape)
    search = Graph()
    side, cells = config.instance_size, config.score_size
    x = search.input("x", np.float32, [1, 3, side, side])
    kernels = [
        search.input(name, np.float32, shape)
        for name, shape in zip(
            ("cls_kernel", "reg_kernel"), _kernel_shapes(config, weights), strict=True
        )
    ]
    anchors = len(config.anchors.ratios)
    maps = _detect(search, config, weights, kernels, x)
    for name, values, found in zip(("logits", "deltas"), (2, 4), maps, strict=True):
        shape = [1, values * anchors, cells, cells]
        search.output(name, found, np.float32, shape)
    return {
        "template": template.build("template", about, opset=opset),
        "search": search.build("search", about, opset=opset),
    }


def check(loaded: Loaded) -> None:
    """Raises InputError for trackers that no graph is made of."""
    model, config = loaded.model.config, loaded.tracker_config
    if not model.head.regresses:
        raise InputError(
            f"head {model.head.kind}: expected one that finds boxes, for ONNX"
        )
    if model.crop != "exact":
        raise InputError(
            f"crop {model.crop}: expected exact, for ONNX; LiteRT takes any"
        )
    if config.nms_iou is not None:
        raise InputError(f"nms_iou {config.nms_iou}: expected none, for ONNX")
    check_no_memory(config)


def check_opset(opset: int, part: str) -> None:
    """Raises InputError for a version of ONNX's operators that cannot be had.

    Args:
        opset: the version.
        part: ``whole`` or ``network``.
    """
    least = LEAST_OPSET[part]
    if not least <= opset <= NEWEST_OPSET:
        what = "whole trackers" if part == "whole" else "the network alone"
        raise InputError(
            f"opset {opset}: expected {least} to {NEWEST_OPSET}, for {what}"
        )


def describe(loaded: Loaded) -> dict[str, str]:
    """What the files say of themselves."""
    return {
        "siamrpn_jax": siamrpn_jax.__version__,
        "format_version": str(FORMAT),
        "weights": str(loaded.card.get("name") or ""),
        "licence": str(loaded.card.get("licence") or ""),
        "boxes": "cxcywh in continuous pixels; pixel i covers [i, i+1)",
        "frames": "RGB uint8 [H, W, 3]",
    }


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


# --------------------------------------------------------------------------- graphs


def _make_init(loaded: Loaded, weights: Weights) -> Graph:
    config, graph = loaded.model.config, Graph()
    frame = graph.input("frame", np.uint8, ["height", "width", 3])
    box = graph.input("box", np.float32, [4])
    frame_size = _frame_size(graph, frame)
    fill = graph.reduce("ReduceMean", graph.cast(frame, np.float32), [0, 1])
    side = _context_side(graph, box[2:], context=config.context)
    size = config.exemplar_size
    z = _crop(graph, frame, frame_size, box[:2], side, fill, size=size)
    for name, kernel, shape in zip(
        ("cls_kernel", "reg_kernel"),
        _embed_template(graph, config, weights, z),
        _kernel_shapes(config, weights),
        strict=True,
    ):
        graph.output(f"template.{name}", kernel, np.float32, shape)
    first = {"box": box, "fill": fill, "frame_size": frame_size}
    rest = {"search_scale": graph.constant(1.0)}
    for name, shape in STATE.items():
        value = (first | rest).get(name, graph.constant(np.zeros(shape)))
        graph.output(f"state.{name}", value, np.float32, shape)
    return graph


def _make_step(loaded: Loaded, weights: Weights) -> Graph:
    model, config, graph = loaded.model.config, loaded.tracker_config, Graph()
    kernels = [
        graph.input(f"template.{name}", np.float32, shape)
        for name, shape in zip(
            ("cls_kernel", "reg_kernel"), _kernel_shapes(model, weights), strict=True
        )
    ]
    state = {
        name: graph.input(f"state.{name}", np.float32, shape)
        for name, shape in STATE.items()
    }
    frame = graph.input("frame", np.uint8, ["height", "width", 3])
    box, center = state["box"], state["box"][:2] + state["search_shift"]
    side = _context_side(graph, box[2:], context=model.context)
    scale = model.exemplar_size / side / state["search_scale"]
    x = _crop(
        graph,
        frame,
        state["frame_size"],
        center,
        model.instance_size / scale,
        state["fill"],
        size=model.instance_size,
    )
    logits, deltas = _detect(graph, model, weights, kernels, x)
    found = _Search(graph, model, config, center, scale)
    _select(found, state, _rows(graph, logits, 2), _rows(graph, deltas, 4))
    return graph


@dataclasses.dataclass(frozen=True)
class _Search:
    """One search: what all its parts need."""

    graph: Graph
    model: ModelConfig
    config: TrackerConfig
    center: Value
    """Centre of the search patch in the frame, ``[2]``."""
    scale: Value
    """Patch pixels per frame pixel."""

    def to_frame(self, boxes: Value) -> Value:
        """Boxes ``[N, 4]`` from patch to frame pixels."""
        middle = self.model.instance_size / 2
        center = self.center + (boxes[:2] - middle) / self.scale
        return self.graph.concat(center, boxes[2:] / self.scale, axis=-1)


def _select(
    search: _Search, state: dict[str, Value], logits: Value, deltas: Value
) -> None:
    """``tracking.selection.select_box``, and its outputs."""
    graph, config = search.graph, search.config
    boxes = _decode(search, deltas)
    scores, penalties, windowed = _rank(search, state, boxes, logits)
    order = graph.op("ArgMax", windowed, axis=0, keepdims=1)
    best = order[0]
    winner = graph.op("Gather", boxes, order, axis=0)  # [1, 4]
    overlap = _iou(graph, boxes, winner)
    voted = _vote(search, boxes, winner, best, overlap, scores * penalties)
    voted = search.to_frame(voted)
    evidence = _evidence(search, state, logits, overlap, best)
    weights = [config.confidence_support, config.confidence_margin]
    total = graph.reduce("ReduceSum", evidence * weights, [0]) + config.confidence_bias
    confidence = graph.op("Sigmoid", total)
    weight = _at(graph, scores * penalties, best)
    weight = weight * (config.size_confidence * (confidence - 1.0) + 1.0)
    box = _smooth(search, state, voted, weight)
    threshold = graph.op(
        "Where", state["lost"] > 0.0, config.found_above, config.lost_below
    )
    lost = confidence < threshold
    if config.when_lost == "hold":
        box = graph.op("Where", lost, state["box"], box)
    top, places = graph.ops("TopK", windowed, graph.int64([config.top_k]), outputs=2)
    proposals = search.to_frame(graph.op("Gather", boxes, places, axis=0))
    outputs = {
        "box": (box, [4]),
        "score": (_at(graph, scores, best), []),
        "windowed_score": (_at(graph, windowed, best), []),
        "proposals": (proposals, [config.top_k, 4]),
        "proposal_scores": (top, [config.top_k]),
        "evidence": (evidence, [2]),
        "confidence": (confidence, []),
    }
    _advance(search, state, box, evidence, lost)
    for name, (value, shape) in outputs.items():
        graph.output(f"output.{name}", value, np.float32, shape)
    graph.output("output.lost", lost, np.bool_, [])


def _advance(
    search: _Search, state: dict[str, Value], box: Value, evidence: Value, lost: Value
) -> None:
    """``tracking.state.advance``."""
    graph, config = search.graph, search.config
    step = box[:2] - state["box"][:2] - state["motion"]
    motion = state["motion"] + MOTION_RATE * step
    ahead = _clip(graph, box[:2] + config.motion * motion, 0.0, state["frame_size"])
    wider = state["search_scale"] + config.lost_search_step
    wider = graph.op("Min", wider, config.lost_search)
    following = {
        "box": box,
        "fill": state["fill"],
        "frame_size": state["frame_size"],
        "age": state["age"] + 1,
        "margin": evidence[1],
        "lost": graph.cast(lost, np.float32),
        "motion": motion,
        "search_shift": ahead - box[:2],
        "search_scale": graph.op("Where", lost, wider, 1.0),
    }
    for name, shape in STATE.items():
        graph.output(f"next.{name}", following[name], np.float32, shape)


def _decode(search: _Search, deltas: Value) -> Value:
    """``model.boxes.decode``: boxes ``[N, 4]`` in patch pixels."""
    anchors = model_anchors(search.model).astype(np.float32)
    center = anchors[:, :2] + deltas[:2] * anchors[:, 2:]
    bounded = _clip(search.graph, deltas[2:], -MAX_LOG_SIZE, MAX_LOG_SIZE)
    size = anchors[:, 2:] * search.graph.op("Exp", bounded)
    return search.graph.concat(center, size, axis=-1)


def _rank(
    search: _Search, state: dict[str, Value], boxes: Value, logits: Value
) -> tuple[Value, Value, Value]:
    """``tracking.selection.rank_proposals``: scores, penalties, final scores."""
    graph, config, model = search.graph, search.config, search.model
    scores = graph.op("Sigmoid", logits[1] - logits[0])
    last = state["box"][2:] * search.scale
    ratio = (boxes[2] / boxes[3]) / (last[0] / last[1])
    size = _context_side(graph, boxes[2:], context=model.context)
    size = size / _context_side(graph, last, context=model.context)
    change = graph.op("Max", ratio, 1 / ratio) * graph.op("Max", size, 1 / size)
    penalties = graph.op("Exp", (change - 1) * -config.penalty_k)
    window, inside = window_and_center(model, config)
    share = config.window_influence
    windowed = (1 - share) * scores * penalties + share * window.astype(np.float32)
    seen = inside.astype(np.float32)
    return scores * seen, penalties, windowed * seen


def _vote(
    search: _Search,
    boxes: Value,
    winner: Value,
    best: Value,
    overlap: Value,
    weights: Value,
) -> Value:
    """``tracking.selection.vote``: ``[1, 4]`` in patch pixels."""
    graph, count = search.graph, search.model.score_size**2
    count *= len(search.model.anchors.ratios)
    votes = graph.op("Where", overlap >= search.config.voting_iou, weights, 0.0)
    is_best = graph.op("Equal", graph.int64(np.arange(count)), best)
    own = graph.op("Max", _at(graph, votes, best), LEAST_VOTE)
    votes = graph.op("Where", is_best, own, votes)
    total = graph.reduce("ReduceSum", votes, [0])
    moved = graph.op("MatMul", graph.reshape(votes, [1, -1]), boxes - winner)
    return winner + moved / total


def _smooth(
    search: _Search, state: dict[str, Value], voted: Value, weight: Value
) -> Value:
    """``tracking.selection.smooth_size``: ``[4]`` in frame pixels."""
    graph, config = search.graph, search.config
    box, size = graph.reshape(voted, [4]), state["box"][2:]
    rate = config.size_lr * weight
    size = size + rate * (box[2:] - size)
    limit = state["frame_size"]
    center = _clip(graph, box[:2], 0.0, limit)
    return graph.concat(center, _clip(graph, size, config.min_size, limit))


def _evidence(
    search: _Search, state: dict[str, Value], logits: Value, overlap: Value, best: Value
) -> Value:
    """``tracking.confidence.confidence_features``: ``[2]``."""
    graph, config = search.graph, search.config
    odds = _clip(graph, logits[1] - logits[0], -MAX_ODDS, MAX_ODDS)
    count = search.model.score_size**2 * len(search.model.anchors.ratios)
    near = overlap > NEAR_IOU
    near = near | graph.op("Equal", graph.int64(np.arange(count)), best)
    seen = graph.op("Where", near, graph.op("Sigmoid", odds), 0.0)
    support = graph.op("Log", graph.reduce("ReduceSum", seen, [0]))
    highest, other = (
        graph.reduce("ReduceMax", graph.op("Where", near, *pair), [0])
        for pair in ((odds, -MAX_ODDS), (-MAX_ODDS, odds))
    )
    rate = graph.op("Max", config.margin_rate, 1 / (state["age"] + 1))
    margin = state["margin"] + rate * (highest - other - state["margin"])
    parts = (graph.reshape(part, [1]) for part in (support, margin))
    return graph.concat(*parts)


# -------------------------------------------------------------------------- network


def _kernel_shapes(config: ModelConfig, weights: Weights) -> list[list[int]]:
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


def _embed_template(
    graph: Graph, config: ModelConfig, weights: Weights, z: Value
) -> list[Value]:
    """``model.fused.embed_template``."""
    features = _features(graph, config, weights, z, size=config.exemplar_size)
    kernels = []
    for layer, shape in zip(
        weights.template, _kernel_shapes(config, weights), strict=True
    ):
        if layer is None:
            kernels.append(graph.op("Identity", features))
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


def _detect(
    graph: Graph,
    config: ModelConfig,
    weights: Weights,
    kernels: Sequence[Value],
    x: Value,
) -> list[Value]:
    """``model.fused.detect``: logits and offsets ``[1, …, F, F]``."""
    features = _features(graph, config, weights, x, size=config.instance_size)
    maps = []
    shapes = _kernel_shapes(config, weights)
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


def _features(
    graph: Graph, config: ModelConfig, weights: Weights, x: Value, *, size: int
) -> Value:
    """Patches ``[1, 3, n, n]``, 0 to 255, to features ``[1, C, f, f]``; size is n."""
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


def _rows(graph: Graph, maps: Value, values: int) -> Value:
    """Maps ``[1, K * values, F, F]``, anchor-major, as rows ``[F * F * K, values]``."""
    return graph.reshape(graph.op("Transpose", maps, perm=[0, 2, 3, 1]), [-1, values])


# -------------------------------------------------------------------- small formulas


def _crop(
    graph: Graph,
    frame: Value,
    frame_size: Value,
    center: Value,
    side: Value,
    fill: Value,
    *,
    size: int,
) -> Value:
    """``tracking.crops.crop_and_resize``: ``[1, 3, n, n]``.

    One axis after the other, and weights that are 0 outside the frame in place of a
    choice: runtimes copy whole rows, and broadcast along whole rows.
    """
    offsets = np.arange(size, dtype=np.float32) + 0.5 - size / 2
    taps = []
    for axis in (0, 1):
        limit = frame_size[axis]
        x = center[axis] + (offsets * (side / size) - 0.5)
        x = graph.op("Max", graph.op("Min", x, limit + 1.0), -2.0)
        floor = graph.op("Floor", x)
        right = x - floor
        taps.append(
            [
                _tap(graph, floor, 1.0 - right, limit),
                _tap(graph, floor + 1.0, right, limit),
            ]
        )
    (left, right), (upper, lower) = taps
    low = graph.op("ReduceMin", left[0], keepdims=1)
    columns = graph.op(
        "Slice",
        frame,
        low,
        graph.op("ReduceMax", right[0], keepdims=1) + graph.int64([1]),
        graph.int64([1]),
    )
    rows = [
        graph.cast(graph.op("Gather", columns, index, axis=0), np.float32)
        * graph.reshape(weight, [size, 1, 1])
        for index, weight in (upper, lower)
    ]
    band = rows[0] + rows[1]  # [n, some columns, 3]
    parts = [
        graph.op(
            "Transpose", graph.op("Gather", band, index - low, axis=1), perm=[2, 0, 1]
        )
        * weight
        for index, weight in (left, right)
    ]
    seen = graph.reshape(upper[1] + lower[1], [size, 1]) * (left[1] + right[1])
    patch = parts[0] + parts[1] + graph.reshape(fill, [3, 1, 1]) * (1.0 - seen)
    return graph.reshape(patch, [1, 3, size, size])


def _tap(
    graph: Graph, place: Value, weight: Value, limit: Value
) -> tuple[Value, Value]:
    """Indices ``[n]`` of pixels in a frame, and their weights, 0 outside."""
    inside = graph.cast((place >= 0.0) & (place < limit), np.float32)
    index = graph.op("Max", graph.op("Min", place, limit - 1.0), 0.0)
    return graph.cast(index, np.int64), weight * inside


def _frame_size(graph: Graph, frame: Value) -> Value:
    """Width and height of a frame, float32 ``[2]``."""
    shape = graph.cast(graph.op("Shape", frame), np.float32)
    return graph.op("Gather", shape, graph.int64([1, 0]), axis=0)


def _context_side(graph: Graph, size: Value, *, context: float) -> Value:
    """``tracking.crops.context_side``: sizes ``[…, 2]`` to ``[…]``."""
    width, height = size[0], size[1]
    extra = context * (width + height)
    return graph.op("Sqrt", (width + extra) * (height + extra))


def _iou(graph: Graph, boxes: Value, one: Value) -> Value:
    """``model.boxes.iou`` of boxes ``[N, 4]`` with one of them ``[1, 4]``: ``[N]``."""
    low, high, area = [], [], []
    for box in (boxes, one):
        half = box[2:] / 2
        low.append(box[:2] - half)
        high.append(box[:2] + half)
        area.append(box[2] * box[3])
    sides = graph.op("Min", *high) - graph.op("Max", *low)
    sides = graph.op("Max", sides, 0.0)
    common = sides[0] * sides[1]
    union = area[0] + area[1] - common
    return common / graph.op("Max", union, 1e-12)


def _clip(graph: Graph, x: Value, low: Any, high: Any) -> Value:
    """As NumPy's: the upper end decides where the two cross."""
    return graph.op("Min", graph.op("Max", x, low), high)


def _at(graph: Graph, values: Value, index: Value) -> Value:
    """An element of a row ``[N]``, as a number."""
    return graph.op("Gather", values, index, axis=0)
