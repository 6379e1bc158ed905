"""The tracker as ONNX graphs: ``init`` and ``step``, weights and constants inside.

``init(frame, box)`` gives a template and a state, ``step(template, state, frame)`` the
next state and an output, as ``tracking.step`` does: crop, network, decoding, penalty,
window, votes and confidence. Tensors are called ``template.cls_kernel``, ``state.box``,
``next.box``, ``output.score`` and so on, by the fields of ``Template``, ``TrackState``
and ``TrackOutput``. Frames are RGB uint8 ``[H, W, 3]`` of any size, boxes ``cxcywh``.
The template's kernels are those of ONNX's ``Conv``, ``[O, I, h, w]``.

``make_networks`` gives the network alone: ``template(z)`` and ``search(x, …)``.
"""

from typing import Any

import numpy as np

import siamrpn_jax
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.deploy.graph import NEWEST_OPSET, OPSET, Graph, Value
from siamrpn_jax.deploy.onnx_formulas import clip, context_side, crop, frame_size_of
from siamrpn_jax.deploy.onnx_learning import (
    PREFIX,
    learn_first,
    learn_next,
    learned_shapes,
)
from siamrpn_jax.deploy.onnx_network import (
    Weights,
    embed,
    embed_template,
    fold,
    kernel_shapes,
    match,
    rows,
)
from siamrpn_jax.deploy.onnx_selection import Found, Search, output_shapes, select_box
from siamrpn_jax.deploy.runtime import FORMAT
from siamrpn_jax.tracking.state import MOTION_RATE, Loaded

KERNELS = "cls_kernel", "reg_kernel"
"""The fields of a ``Template``."""

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
"""Shapes of the fields of ``TrackState`` but for its memory, all float32."""


LEAST_OPSET = {"whole": OPSET, "network": 11}
"""The first version of ONNX's operators that has all of a part's, as they are used."""


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
        KERNELS,
        embed_template(template, config, weights, z),
        kernel_shapes(config, weights),
        strict=True,
    ):
        template.output(name, kernel, np.float32, shape)
    search = Graph()
    side, cells = config.instance_size, config.score_size
    x = search.input("x", np.float32, [1, 3, side, side])
    kernels = [
        search.input(name, np.float32, shape)
        for name, shape in zip(KERNELS, kernel_shapes(config, weights), strict=True)
    ]
    anchors = len(config.anchors.ratios)
    features = embed(search, config, weights, x, size=side)
    maps = match(search, config, weights, kernels, features)
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
    for name in ("second_template", "distractors"):
        if (value := getattr(config, name)) is not None:
            raise InputError(f"{name} {value}: expected none, for ONNX")


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


def _state_shapes(loaded: Loaded, weights: Weights) -> dict[str, list[int]]:
    """Shapes of what goes from step to step."""
    frames = loaded.tracker_config.online_frames
    if frames is None:
        return STATE
    return STATE | learned_shapes(loaded.model.config, weights, frames=frames)


def _make_init(loaded: Loaded, weights: Weights) -> Graph:
    config, graph = loaded.model.config, Graph()
    frame = graph.input("frame", np.uint8, ["height", "width", 3])
    box = graph.input("box", np.float32, [4])
    frame_size = frame_size_of(graph, frame)
    fill = graph.reduce("ReduceMean", graph.cast(frame, np.float32), [0, 1])
    side = context_side(graph, box[2:], context=config.context)
    size = config.exemplar_size
    z = crop(graph, frame, frame_size, box[:2], side, fill, size=size)
    kernels = embed_template(graph, config, weights, z)
    shapes = kernel_shapes(config, weights)
    for name, kernel, shape in zip(KERNELS, kernels, shapes, strict=True):
        graph.output(f"template.{name}", kernel, np.float32, shape)
    state = {name: graph.constant(np.zeros(shape)) for name, shape in STATE.items()}
    state |= {"box": box, "fill": fill, "frame_size": frame_size}
    state["search_scale"] = graph.constant(1.0)
    frames = loaded.tracker_config.online_frames
    if frames is not None:
        state |= learn_first(
            graph, config, weights, kernels[0], frame, state, frames=frames
        )
    for name, shape in _state_shapes(loaded, weights).items():
        graph.output(f"state.{name}", state[name], np.float32, shape)
    return graph


def _make_step(loaded: Loaded, weights: Weights) -> Graph:
    model, config, graph = loaded.model.config, loaded.tracker_config, Graph()
    kernels = [
        graph.input(f"template.{name}", np.float32, shape)
        for name, shape in zip(KERNELS, kernel_shapes(model, weights), strict=True)
    ]
    shapes = _state_shapes(loaded, weights)
    state = {
        name: graph.input(f"state.{name}", np.float32, shape)
        for name, shape in shapes.items()
    }
    frame = graph.input("frame", np.uint8, ["height", "width", 3])
    box, center = state["box"], state["box"][:2] + state["search_shift"]
    side = context_side(graph, box[2:], context=model.context)
    scale = model.exemplar_size / side / state["search_scale"]
    size = model.instance_size
    limit, fill = state["frame_size"], state["fill"]
    x = crop(graph, frame, limit, center, size / scale, fill, size=size)
    features = embed(graph, model, weights, x, size=size)
    current = [state.get(f"{PREFIX}kernel", kernels[0]), kernels[1]]
    logits, deltas = match(graph, model, weights, current, features)
    search = Search(graph, model, config, center, scale)
    found = select_box(search, state, rows(graph, logits, 2), rows(graph, deltas, 4))
    following = _advance(search, state, found)
    if config.online_frames is not None:
        following |= learn_next(search, weights, state, found, kernels[0], features)
    for name, shape in shapes.items():
        graph.output(f"next.{name}", following[name], np.float32, shape)
    for name, shape in output_shapes(config).items():
        dtype = np.bool_ if name == "lost" else np.float32
        graph.output(f"output.{name}", found.outputs[name], dtype, shape)
    return graph


def _advance(search: Search, state: dict[str, Value], found: Found) -> dict[str, Value]:
    """``tracking.state.advance``."""
    graph, config, box = search.graph, search.config, found.box
    lost = found.outputs["lost"]
    step = box[:2] - state["box"][:2] - state["motion"]
    motion = state["motion"] + MOTION_RATE * step
    ahead = clip(graph, box[:2] + config.motion * motion, 0.0, state["frame_size"])
    wider = state["search_scale"] + config.lost_search_step
    wider = graph.op("Min", wider, config.lost_search)
    return {
        "box": box,
        "fill": state["fill"],
        "frame_size": state["frame_size"],
        "age": state["age"] + 1,
        "margin": found.outputs["evidence"][1],
        "lost": graph.cast(lost, np.float32),
        "motion": motion,
        "search_shift": ahead - box[:2],
        "search_scale": graph.op("Where", lost, wider, 1.0),
    }
