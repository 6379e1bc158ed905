"""Kernels that keep learning, in ONNX's operators: ``tracking.online``.

Features are ``[M, H, W, C]`` as there, and a kernel is one of ONNX's ``Conv``,
``[1, C, h, w]``; formulas take it as ``[h * w, C]``.
"""

from typing import NamedTuple

import numpy as np

from siamrpn_jax.deploy.graph import Graph, Value
from siamrpn_jax.deploy.onnx_formulas import context_side, crop
from siamrpn_jax.deploy.onnx_network import Weights, embed, kernel_shapes
from siamrpn_jax.deploy.onnx_selection import (
    Found,
    Search,
    confidence_features,
    predict_confidence,
)
from siamrpn_jax.model import rpn
from siamrpn_jax.model.config import ModelConfig, total_stride
from siamrpn_jax.tracking import online

PREFIX = "memory.learned."
"""What the names of its tensors begin with, after ``state.`` and ``next.``."""

_FIRST = len(online.FIRST_VIEWS)


class Examples(NamedTuple):
    """What a kernel learns from, and sizes for its formulas."""

    graph: Graph
    count: int
    """M, how many search patches."""
    side: int
    """H = W, cells of their features."""
    cells: int
    """F, cells of their scores a side."""
    channels: int
    """C."""
    features: Value
    """``[M * H * W, C]``."""

    @property
    def taps(self) -> int:
        """Cells of the kernel a side."""
        return self.side - self.cells + 1


def learned_shapes(
    model: ModelConfig, weights: Weights, *, frames: int
) -> dict[str, list[int]]:
    """Shapes of the fields of ``online.Learned``, by the names of their tensors.

    Its first kernel is not among them: it is the template's.
    """
    kernel, count = kernel_shapes(model, weights)[0], _FIRST + frames
    side, cells = model.score_size + kernel[2] - 1, model.score_size
    shapes = {
        "margin": [],
        "kernel": kernel,
        "features": [count, side, side, kernel[1]],
        "places": [count, 2],
        "logits": [count, cells, cells],
        "shares": [count],
    }
    return {PREFIX + name: shape for name, shape in shapes.items()}


def learn_first(
    graph: Graph,
    model: ModelConfig,
    weights: Weights,
    kernel: Value,
    frame: Value,
    state: dict[str, Value],
    *,
    frames: int,
) -> dict[str, Value]:
    """``online.empty_learned`` and ``learn_first``: the learned part of the state.

    Args:
        graph: what to add to.
        model: the network.
        weights: of it.
        kernel: as the exemplar made it.
        frame: the first one.
        state: before the first step, without what is learned.
        frames: how many later ones will be remembered.
    """
    patches, places = _first_views(graph, model, frame, state)
    maps = embed(graph, model, weights, patches, size=model.instance_size)
    features = graph.op("Transpose", maps, perm=[0, 2, 3, 1])
    shapes = learned_shapes(model, weights, frames=frames)
    examples = _examples(graph, shapes, features, count=_FIRST)
    rows = _as_rows(examples, kernel)
    logits = _score(examples, weights, rows)
    shares = graph.constant(np.full(_FIRST, 1 / _FIRST))
    rows, logits = _descend(
        examples, model, rows, logits, places, shares, steps=online.FIRST_STEPS
    )

    def with_later(values: Value, axes: int) -> Value:
        pads = [0] * axes + [frames] + [0] * (axes - 1)
        return graph.op("Pad", values, graph.int64(pads))

    learned = {
        "margin": graph.constant(0.0),
        "kernel": _as_conv(examples, rows),
        "features": with_later(features, 4),
        "places": with_later(places, 2),
        "logits": with_later(logits, 3),
        "shares": graph.constant(np.zeros(_FIRST + frames)),
    }
    return {PREFIX + name: value for name, value in learned.items()}


def learn_next(
    search: Search,
    weights: Weights,
    state: dict[str, Value],
    found: Found,
    kernel: Value,
    maps: Value,
) -> dict[str, Value]:
    """``online.learn_next``: the learned part of the next state.

    Args:
        search: the search of this frame.
        weights: of the network.
        state: before the step.
        found: what the search has found.
        kernel: as the exemplar made it.
        maps: features of the search patch, ``[1, C, H, W]``.
    """
    graph, model, config = search.graph, search.model, search.config
    assert config.online_frames is not None
    shapes = learned_shapes(model, weights, frames=config.online_frames)
    before = {name: state[PREFIX + name] for name in _names(shapes)}
    features = graph.op("Transpose", maps, perm=[0, 2, 3, 1])
    one = _examples(graph, shapes, features, count=1)
    odds = graph.reshape(_score(one, weights, _as_rows(one, kernel)), [-1])
    trusted = state | {"margin": before["margin"]}
    evidence = confidence_features(search, trusted, odds, found.overlap, found.best)
    teaches = predict_confidence(search, evidence) > config.online_above
    offset = found.box[:2] - state["box"][:2] - state["search_shift"]
    later = before["shares"][_FIRST:]
    oldest = graph.op("ArgMin", later, axis=0, keepdims=1) + graph.int64([_FIRST])

    def put(name: str, value: Value) -> Value:
        known = graph.op("Gather", before[name], oldest, axis=0)
        value = graph.op("Where", teaches, value, known)
        place = graph.reshape(oldest, [1, 1])
        return graph.op("ScatterND", before[name], place, value)

    rows = _as_rows(one, before["kernel"])
    fewer = graph.op("Where", teaches, 1 - config.memory_rate, 1.0)
    before["shares"] = before["shares"] * fewer
    after = {
        "margin": evidence[1],
        "features": put("features", features),
        "places": put("places", graph.reshape(offset * search.scale, [1, 2])),
        "logits": put("logits", _score(one, weights, rows)),
        "shares": put("shares", graph.constant([config.memory_rate])),
    }
    count = _FIRST + config.online_frames
    examples = _examples(graph, shapes, after["features"], count=count)
    learned, logits = _descend(
        examples,
        model,
        rows,
        after["logits"],
        after["places"],
        _weigh_examples(graph, after["shares"]),
        steps=online.STEPS,
    )
    kernel = _as_conv(examples, learned)
    after["kernel"] = graph.op("Where", teaches, kernel, before["kernel"])
    after["logits"] = graph.op("Where", teaches, logits, before["logits"])
    return {PREFIX + name: value for name, value in after.items()}


def _names(shapes: dict[str, list[int]]) -> list[str]:
    return [name.removeprefix(PREFIX) for name in shapes]


def _examples(
    graph: Graph, shapes: dict[str, list[int]], features: Value, *, count: int
) -> Examples:
    side, _, channels = shapes[PREFIX + "features"][1:]
    cells = shapes[PREFIX + "logits"][-1]
    rows = graph.reshape(features, [-1, channels])
    return Examples(graph, count, side, cells, channels, rows)


def _first_views(
    graph: Graph, model: ModelConfig, frame: Value, state: dict[str, Value]
) -> tuple[Value, Value]:
    """``online.first_views``: patches ``[V, 3, X, X]``, and places ``[V, 2]``."""
    patches, places = [], []
    usual = context_side(graph, state["box"][2:], context=model.context)
    for right, down, size, mirrored in online.FIRST_VIEWS:
        place = model.exemplar_size * np.array([right, down])
        scale = model.exemplar_size / (usual * size)
        patch = crop(
            graph,
            frame,
            state["frame_size"],
            state["box"][:2] - place / scale,
            model.instance_size / scale,
            state["fill"],
            size=model.instance_size,
        )
        if mirrored:
            ends = -1, np.iinfo(np.int64).min, 3, -1
            patch = graph.op("Slice", patch, *(graph.int64([end]) for end in ends))
        patches.append(patch)
        places.append(place * [-1 if mirrored else 1, 1])
    return graph.concat(*patches), graph.constant(places)


def _descend(
    examples: Examples,
    model: ModelConfig,
    kernel: Value,
    logits: Value,
    places: Value,
    shares: Value,
    *,
    steps: int,
) -> tuple[Value, Value]:
    """``online.descend``: the kernel ``[h * w, C]``, and its logits ``[M, F, F]``.

    Args:
        examples: what to learn from.
        model: the network.
        kernel: the one to begin with, ``[h * w, C]``.
        logits: its.
        places: of the target in the examples, ``[M, 2]``.
        shares: how much each example counts, in all 1, ``[M]``.
        steps: of descent.
    """
    graph = examples.graph
    labels, weights = _label_cells(graph, model, places)
    weights *= graph.reshape(shares, [-1, 1, 1])

    def total(values: Value) -> Value:
        return graph.op("ReduceSum", values, keepdims=0)

    for _ in range(steps):
        scores = graph.op("Sigmoid", logits)
        gradient = _gather(examples, weights * (scores - labels))
        along = _correlate(examples, gradient)
        slopes = graph.op("Max", scores * (1 - scores), online.LEAST_SLOPE)
        curvature = graph.op("Max", total(weights * slopes * along * along), 1e-12)
        length = total(gradient * gradient) / curvature
        kernel, logits = kernel - length * gradient, logits - length * along
    return kernel, logits


def _label_cells(
    graph: Graph, model: ModelConfig, places: Value
) -> tuple[Value, Value]:
    """``online.label_cells``: labels and weights ``[M, F, F]``."""
    middle = (model.score_size - 1) / 2
    at = (np.arange(model.score_size) - middle) * total_stride(model.backbone)
    x, y = (places[axis] for axis in (0, 1))
    across = graph.reshape(x, [-1, 1, 1]) - at.reshape(1, 1, -1)
    down = graph.reshape(y, [-1, 1, 1]) - at.reshape(1, -1, 1)
    distances = graph.op("Sqrt", across * across + down * down)
    nearest = graph.op("ReduceMin", distances, graph.int64([1, 2]), keepdims=1)
    reach = graph.op("Max", nearest, online.NEAR * model.exemplar_size)
    masks = distances <= reach, distances > online.FAR * model.exemplar_size
    near, far = (graph.cast(cells, np.float32) for cells in masks)
    halves = [
        cells / (2 * graph.op("ReduceSum", cells, graph.int64([1, 2]), keepdims=1))
        for cells in (near, far)
    ]
    return near, halves[0] + halves[1]


def _weigh_examples(graph: Graph, shares: Value) -> Value:
    """``online.weigh_examples``: ``[M]``."""
    later = shares[_FIRST:]
    total = graph.reduce("ReduceSum", later, [0])
    most = (1 - online.FIRST_SHARE) / graph.op("Max", total, 1e-6)
    later *= graph.op("Min", most, 1.0)
    rest = (1 - graph.op("ReduceSum", later, keepdims=1)) / _FIRST
    return graph.concat(graph.op("Expand", rest, graph.int64([_FIRST])), later)


def _score(examples: Examples, weights: Weights, kernel: Value) -> Value:
    """``online.score_patches``: ``[M, F, F]``."""
    (score,) = weights.outputs[0]
    return _correlate(examples, kernel) + score.bias[1]


def _correlate(examples: Examples, kernel: Value) -> Value:
    """``online.correlate``: a kernel ``[h * w, C]`` to ``[M, F, F]``."""
    graph, count, side, cells = examples[:4]
    taps = graph.op("Gemm", kernel, examples.features, transB=1, alpha=rpn.SCORE_GAIN)
    whole = examples.taps
    sums = graph.reshape(taps, [whole, whole, count, side, side])
    for axis in (0, 1):  # Rows, then columns: each tap cut by itself is 49 operators.
        parts = [
            _cut(graph, sums, {axis: (i, i + 1), axis + 3: (i, i + cells)})
            for i in range(whole)
        ]
        sums = graph.op("Sum", *parts)
    return graph.reshape(sums, [count, cells, cells])


def _gather(examples: Examples, slopes: Value) -> Value:
    """``online.gather``: slopes ``[M, F, F]`` to a kernel ``[h * w, C]``."""
    graph, count, side, cells = examples[:4]
    rim, whole = side - cells, examples.taps
    pads = graph.int64([0, rim, rim, 0, rim, rim])
    taps = graph.op("Pad", slopes, pads)
    taps = graph.reshape(taps, [1, count, side + rim, side + rim])
    for axis in (3, 2):
        starts = range(whole - 1, -1, -1)
        parts = [_cut(graph, taps, {axis: (i, i + side)}) for i in starts]
        taps = graph.concat(*parts)
    taps = graph.reshape(taps, [whole**2, -1])
    return graph.op("MatMul", taps, examples.features) * rpn.SCORE_GAIN


def _cut(graph: Graph, values: Value, ends: dict[int, tuple[int, int]]) -> Value:
    """A part, from the first to before the last index along some axes."""
    starts, stops = zip(*ends.values(), strict=True)
    return graph.op("Slice", values, *map(graph.int64, (starts, stops, list(ends))))


def _as_rows(examples: Examples, kernel: Value) -> Value:
    """A kernel of ``Conv`` as ``[h * w, C]``."""
    rows = examples.graph.reshape(kernel, [examples.channels, -1])
    return examples.graph.op("Transpose", rows, perm=[1, 0])


def _as_conv(examples: Examples, rows: Value) -> Value:
    """A kernel ``[h * w, C]`` as one of ``Conv``."""
    kernel = examples.graph.op("Transpose", rows, perm=[1, 0])
    shape = [1, examples.channels, examples.taps, examples.taps]
    return examples.graph.reshape(kernel, shape)
