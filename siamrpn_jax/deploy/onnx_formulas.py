"""Small formulas of the tracker, in ONNX's operators."""

from typing import Any

import numpy as np

from siamrpn_jax.deploy.graph import Graph, Value


def crop(
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


def frame_size_of(graph: Graph, frame: Value) -> Value:
    """Width and height of a frame, float32 ``[2]``."""
    shape = graph.cast(graph.op("Shape", frame), np.float32)
    return graph.op("Gather", shape, graph.int64([1, 0]), axis=0)


def context_side(graph: Graph, size: Value, *, context: float) -> Value:
    """``tracking.crops.context_side``: sizes ``[…, 2]`` to ``[…]``."""
    width, height = size[0], size[1]
    extra = context * (width + height)
    return graph.op("Sqrt", (width + extra) * (height + extra))


def iou(graph: Graph, boxes: Value, one: Value) -> Value:
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


def clip(graph: Graph, x: Value, low: Any, high: Any) -> Value:
    """As NumPy's: the upper end decides where the two cross."""
    return graph.op("Min", graph.op("Max", x, low), high)


def at(graph: Graph, values: Value, index: Value) -> Value:
    """An element of a row ``[N]``, as a number."""
    return graph.op("Gather", values, index, axis=0)
