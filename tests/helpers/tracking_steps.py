"""One tracking step whose detection is made by hand, and the model it runs with."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np

import closeness
from siamrpn_jax.model.config import (
    AnchorConfig,
    BackboneConfig,
    HeadConfig,
    ModelConfig,
)
from siamrpn_jax.model.network import Detection, SiamRPN
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.state import first_state
from siamrpn_jax.tracking.step import init_track, track_step

CONFIG = TrackerConfig(min_size=4.0)
F, K = 9, 3
BOX = np.array([40.0, 30, 24, 18], np.float32)

check_close = functools.partial(closeness.check_close, atol=1e-3)  # of boxes: pixels


def make_model() -> SiamRPN:
    """Equal to every other one, and a new object each time."""
    return SiamRPN(
        ModelConfig(
            backbone=BackboneConfig("compact", widths=(4, 6, 8)),
            head=HeadConfig("depthwise", width=8, kernel_size=1),
            anchors=AnchorConfig(base_size=30.0, ratios=(0.5, 1.0, 2.0)),
            exemplar_size=60,
            instance_size=124,
            conv_impl="xla",  # compiles faster
        )
    )


MODEL = make_model()
HYBRID = SiamRPN(
    dataclasses.replace(
        MODEL.config,
        head=dataclasses.replace(MODEL.config.head, kind="hybrid"),
        anchors=dataclasses.replace(MODEL.config.anchors, ratios=(1.0,)),
    )
)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


CLIP = noise(4, 60, 80)


def run(variables, clip, box, *, model=MODEL, config=CONFIG):
    """Outputs of a clip, frame after frame, as a list."""
    template, state = init_track(variables, clip[0], box, model=model)
    outputs = []
    for frame in clip[1:]:
        state, output = track_step(
            variables, template, state, frame, model=model, config=config
        )
        outputs.append(output)
    return outputs


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def detection_at(row=4, column=4, anchor=1, *, deltas=(0, 0, 0, 0), logit=2.0):
    """One anchor says target with the given logit, all others a firm no."""
    logits = np.zeros((1, F, F, K, 2), np.float32)
    logits[..., 1] = -20
    logits[0, row, column, anchor, 1] = logit
    offsets = np.zeros((1, F, F, K, 4), np.float32)
    offsets[0, row, column, anchor] = deltas
    return Detection(jnp.asarray(logits), jnp.asarray(offsets))


def step(box, *, shape=(480, 640), config=CONFIG):
    """One step from a box; ``detect`` is given, so weights and frame do not matter."""
    return continue_from(start(box, shape=shape), shape=shape, config=config)[1]


def start(box, *, shape=(480, 640)):
    size = jnp.array(shape[::-1], jnp.float32)
    return first_state(jnp.asarray(box, jnp.float32), jnp.zeros(3), size)


def continue_from(state, *, shape=(480, 640), config=CONFIG):
    frame = jnp.zeros((*shape, 3), jnp.uint8)
    state, output = inspect.unwrap(track_step)(
        None, None, state, frame, model=MODEL, config=config
    )
    np.testing.assert_array_equal(state.box, output.box)
    return state, output


LOSING = TrackerConfig(
    confidence_bias=0.5,
    confidence_support=1.0,
    confidence_margin=0.0,
    lost_below=0.2,
    found_above=0.6,
    window_influence=0.0,
    size_lr=0.0,
    min_size=4.0,
)
"""One proposal with logit l: its odds are about ``exp(0.5) * sigmoid(l)``."""


def follow(detects, logits, *, config):
    """Steps with one proposal a stride to the right; all others are far below."""
    state, found = start((200.0, 150.0, 40.0, 40.0)), []
    for logit in logits:
        detects(detection_at(4, 5, 1, logit=logit))
        state, output = continue_from(state, config=config)
        found.append((state, output))
    return found
