"""Small trackers to export, and what JAX finds with them."""

import dataclasses

import numpy as np

from random_variables import random_variables
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.deploy import runtime
from siamrpn_jax.model.boxes import cxcywh_to_ltwh, ltwh_to_cxcywh
from siamrpn_jax.model.config import (
    AnchorConfig,
    BackboneConfig,
    HeadConfig,
    InputConfig,
    ModelConfig,
)
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.state import Loaded
from siamrpn_jax.tracking.step import make_tracker
from siamrpn_jax.weights import save_weights
from small_models import TINY_EFFICIENT

FRAMES, TRUTH = make_sequence(3, length=12, height=90, width=120)

COMPACT = ModelConfig(
    backbone=BackboneConfig("compact", widths=(4, 8, 8)),  # the last one is residual
    head=HeadConfig("depthwise", width=8, kernel_size=1),
    anchors=AnchorConfig(base_size=30.0, ratios=(0.5, 1.0, 2.0)),
    input=InputConfig("rgb", mean=(90.0, 120.0, 140.0), std=(50.0, 60.0, 70.0)),
    exemplar_size=60,
    instance_size=124,
    conv_impl="xla",
)
ALEXNET = dataclasses.replace(
    COMPACT,
    backbone=BackboneConfig("alexnet", widths=(4, 6, 8, 6, 8)),
    head=HeadConfig("up_channel", width=8, kernel_size=3, adjust=True),
    input=dataclasses.replace(COMPACT.input, order="bgr"),
    exemplar_size=103,
    instance_size=167,
)
MODELS = {
    "compact depthwise": COMPACT,
    "alexnet up_channel bgr": ALEXNET,
    "compact hybrid": dataclasses.replace(
        COMPACT,
        head=HeadConfig("hybrid", width=6, kernel_size=3),
        anchors=AnchorConfig(base_size=30.0, ratios=(1.0,)),
    ),
    "efficientnet_lite hybrid bgr": dataclasses.replace(
        COMPACT,
        backbone=TINY_EFFICIENT,
        neck_width=6,
        head=HeadConfig("hybrid", width=6, kernel_size=1),
        anchors=AnchorConfig(base_size=30.0, ratios=(1.0,)),
        input=ALEXNET.input,
        exemplar_size=97,
        instance_size=145,
    ),
    "alexnet depthwise relu": dataclasses.replace(
        ALEXNET, head=HeadConfig("depthwise", width=6, template_relu=True)
    ),
}
TRACKERS = {
    "plain": TrackerConfig(min_size=4.0),
    "votes and motion": TrackerConfig(
        min_size=4.0, voting_iou=0.6, motion=0.3, center_size=5, top_k=3
    ),
    "hold": TrackerConfig(
        when_lost="hold",
        lost_search=1.5,
        lost_search_step=0.2,
        lost_below=0.4,
        found_above=0.5,
        size_confidence=0.7,
    ),
    "learns": TrackerConfig(
        min_size=4.0, online_frames=3, online_above=0.5, memory_rate=0.3
    ),
}


def make_loaded(model, tracker=TRACKERS["plain"]) -> Loaded:
    network = SiamRPN(model)
    return Loaded(network, random_variables(network.init_variables), tracker, {})


def follow(loaded, frames, box) -> np.ndarray:
    """By JAX: boxes ``ltwh``, score, confidence and lost, ``[T - 1, 7]``."""
    init, step = make_tracker(
        loaded.model, loaded.variables, config=loaded.tracker_config
    )
    template, state = init(frames[0], ltwh_to_cxcywh(np.array(box)).astype(np.float32))
    rows = []
    for frame in frames[1:]:
        state, output = step(template, state, frame)
        found = cxcywh_to_ltwh(np.asarray(output.box, np.float64))
        numbers = output.score, output.confidence, output.lost
        rows.append([*found, *map(float, numbers)])
    return np.array(rows)


def follow_exported(models, frames, box) -> np.ndarray:
    """By the models ``init`` and ``step``, as ``follow``."""
    tracker = runtime.Tracker(models, threads=1)
    tracker.init(frames[0], box)
    return np.array(
        [
            [*tracker.update(f), tracker.score, tracker.confidence, tracker.lost]
            for f in frames[1:]
        ]
    )


def write_tiny_weights(path) -> None:
    """A file of weights that follow nothing."""
    loaded = make_loaded(COMPACT, TRACKERS["votes and motion"])
    save_weights(
        path,
        loaded.variables,
        model=loaded.model,
        tracker_config=loaded.tracker_config,
        card={"name": "tiny"},
    )
