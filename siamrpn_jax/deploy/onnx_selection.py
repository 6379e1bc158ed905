"""Choosing the box in ONNX's operators: ``tracking.selection`` and ``confidence``."""

import dataclasses
from typing import NamedTuple

import numpy as np

from siamrpn_jax.deploy.graph import Graph, Value
from siamrpn_jax.deploy.onnx_formulas import at, clip, context_side, iou
from siamrpn_jax.model.boxes import MAX_LOG_SIZE
from siamrpn_jax.model.config import ModelConfig
from siamrpn_jax.model.network import model_anchors
from siamrpn_jax.tracking.confidence import MAX_ODDS, NEAR_IOU
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.selection import LEAST_VOTE, window_and_center


@dataclasses.dataclass(frozen=True)
class Search:
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


class Found(NamedTuple):
    """What a search has found."""

    outputs: dict[str, Value]
    """By the fields of ``TrackOutput``."""
    best: Value
    """Index of the winner."""
    overlap: Value
    """IoU of all proposals with the winner, ``[N]``."""

    @property
    def box(self) -> Value:
        """``[4]``, in frame pixels."""
        return self.outputs["box"]


def output_shapes(config: TrackerConfig) -> dict[str, list[int]]:
    """Shapes of the fields of ``TrackOutput``; all are float32, but for ``lost``."""
    return {
        "box": [4],
        "score": [],
        "windowed_score": [],
        "proposals": [config.top_k, 4],
        "proposal_scores": [config.top_k],
        "evidence": [2],
        "confidence": [],
        "lost": [],
    }


def select_box(
    search: Search, state: dict[str, Value], logits: Value, deltas: Value
) -> Found:
    """``tracking.selection.select_box``, of rows of logits and offsets."""
    graph, config = search.graph, search.config
    boxes, odds = _decode(search, deltas), logits[1] - logits[0]
    scores, penalties, windowed = _rank(search, state, boxes, odds)
    order = graph.op("ArgMax", windowed, axis=0, keepdims=1)
    best = order[0]
    winner = graph.op("Gather", boxes, order, axis=0)  # [1, 4]
    overlap = iou(graph, boxes, winner)
    voted = _vote(search, boxes, winner, best, overlap, scores * penalties)
    voted = search.to_frame(voted)
    evidence = confidence_features(search, state, odds, overlap, best)
    confidence = predict_confidence(search, evidence)
    weight = at(graph, scores * penalties, best)
    weight = weight * (config.size_confidence * (confidence - 1.0) + 1.0)
    box = _smooth(search, state, voted, weight)
    threshold = graph.op(
        "Where", state["lost"] > 0.0, config.found_above, config.lost_below
    )
    lost = confidence < threshold
    if config.when_lost == "hold":
        box = graph.op("Where", lost, state["box"], box)
    top, places = graph.ops("TopK", windowed, graph.int64([config.top_k]), outputs=2)
    outputs = {
        "box": box,
        "score": at(graph, scores, best),
        "windowed_score": at(graph, windowed, best),
        "proposals": search.to_frame(graph.op("Gather", boxes, places, axis=0)),
        "proposal_scores": top,
        "evidence": evidence,
        "confidence": confidence,
        "lost": lost,
    }
    return Found(outputs, best, overlap)


def _decode(search: Search, deltas: Value) -> Value:
    """``model.boxes.decode``: boxes ``[N, 4]`` in patch pixels."""
    anchors = model_anchors(search.model).astype(np.float32)
    center = anchors[:, :2] + deltas[:2] * anchors[:, 2:]
    bounded = clip(search.graph, deltas[2:], -MAX_LOG_SIZE, MAX_LOG_SIZE)
    size = anchors[:, 2:] * search.graph.op("Exp", bounded)
    return search.graph.concat(center, size, axis=-1)


def _rank(
    search: Search, state: dict[str, Value], boxes: Value, odds: Value
) -> tuple[Value, Value, Value]:
    """``tracking.selection.rank_proposals``: scores, penalties, final scores."""
    graph, config, model = search.graph, search.config, search.model
    scores = graph.op("Sigmoid", odds)
    last = state["box"][2:] * search.scale
    ratio = (boxes[2] / boxes[3]) / (last[0] / last[1])
    size = context_side(graph, boxes[2:], context=model.context)
    size = size / context_side(graph, last, context=model.context)
    change = graph.op("Max", ratio, 1 / ratio) * graph.op("Max", size, 1 / size)
    penalties = graph.op("Exp", (change - 1) * -config.penalty_k)
    window, inside = window_and_center(model, config)
    share = config.window_influence
    windowed = (1 - share) * scores * penalties + share * window.astype(np.float32)
    seen = inside.astype(np.float32)
    return scores * seen, penalties, windowed * seen


def _vote(
    search: Search,
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
    own = graph.op("Max", at(graph, votes, best), LEAST_VOTE)
    votes = graph.op("Where", is_best, own, votes)
    total = graph.reduce("ReduceSum", votes, [0])
    moved = graph.op("MatMul", graph.reshape(votes, [1, -1]), boxes - winner)
    return winner + moved / total


def _smooth(
    search: Search, state: dict[str, Value], voted: Value, weight: Value
) -> Value:
    """``tracking.selection.smooth_size``: ``[4]`` in frame pixels."""
    graph, config = search.graph, search.config
    box, size = graph.reshape(voted, [4]), state["box"][2:]
    rate = config.size_lr * weight
    size = size + rate * (box[2:] - size)
    limit = state["frame_size"]
    center = clip(graph, box[:2], 0.0, limit)
    return graph.concat(center, clip(graph, size, config.min_size, limit))


def confidence_features(
    search: Search, state: dict[str, Value], odds: Value, overlap: Value, best: Value
) -> Value:
    """``tracking.confidence.confidence_features``, of log odds ``[N]``: ``[2]``."""
    graph, config = search.graph, search.config
    odds = clip(graph, odds, -MAX_ODDS, MAX_ODDS)
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


def predict_confidence(search: Search, evidence: Value) -> Value:
    """The confidence of ``tracking.confidence.predict_lost``."""
    config = search.config
    weights = [config.confidence_support, config.confidence_margin]
    total = search.graph.reduce("ReduceSum", evidence * weights, [0])
    return search.graph.op("Sigmoid", total + config.confidence_bias)
