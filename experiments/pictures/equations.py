"""Pictures beside the paper's equations, drawn by the functions that compute them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments.pictures.tools import Group, Image, beside, figure_pixels, shrink
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.evaluation.report.plots import COLORS
from siamrpn_jax.media.drawing import draw_boxes
from siamrpn_jax.model.anchors import anchor_sizes
from siamrpn_jax.model.boxes import cxcywh_to_ltwh, ltwh_to_cxcywh
from siamrpn_jax.model.config import ModelConfig, total_stride
from siamrpn_jax.model.network import model_anchors
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.crops import channel_mean, context_side, crop_and_resize
from siamrpn_jax.tracking.selection import change_penalty, window_and_center
from siamrpn_jax.training.config import TargetConfig
from siamrpn_jax.training.losses import smooth_l1
from siamrpn_jax.training.targets import make_targets

MODEL = ModelConfig()
"""The paper's network."""

GREEN, ORANGE, WHITE = (40, 200, 60), (255, 140, 0), (255, 255, 255)
RED_DOT, BLUE_BOX = (220, 30, 50), (60, 120, 255)


def make_crops(work: Path) -> Mapping[str, Image]:
    """Eq. 15: where exemplar and search patch lie in a frame, and what they show."""
    del work
    frames, boxes = make_sequence(7, length=25, height=360, width=480)
    frame, box = frames[24], ltwh_to_cxcywh(boxes[24])
    side = float(context_side(jnp.asarray(box[2:])))
    squares = [(side, MODEL.exemplar_size)]
    squares += [(side * MODEL.instance_size / MODEL.exemplar_size, MODEL.instance_size)]
    drawn = draw_boxes(frame, cxcywh_to_ltwh(box), colors=[GREEN])
    patches = []
    for (length, size), color in zip(squares, (ORANGE, WHITE), strict=True):
        square = np.array([*box[:2], length, length])
        drawn = draw_boxes(drawn, cxcywh_to_ltwh(square), colors=[color])
        patch = crop_and_resize(
            jnp.asarray(frame),
            jnp.asarray(box[:2]),
            jnp.float32(length),
            channel_mean(jnp.asarray(frame)),
            size=size,
        )
        patches.append(np.asarray(jnp.round(patch), np.uint8))
    return {"pictures/crops.webp": beside(drawn, *patches)}


def make_anchors(work: Path) -> Mapping[str, Image]:
    """Section 3.3: the anchors of a cell, and the labels that a target gives them."""
    del work
    size, zoom = MODEL.instance_size, 2
    frames, boxes = make_sequence(7, length=25, height=360, width=480)
    center = ltwh_to_cxcywh(boxes[24])
    side = context_side(jnp.asarray(center[2:])) * size / MODEL.exemplar_size
    fill = channel_mean(jnp.asarray(frames[24]))
    shift = np.array([24.0, -16.0])  # frame pixels: as if the target had moved
    looked = jnp.asarray(center[:2] - shift)
    patch = crop_and_resize(jnp.asarray(frames[24]), looked, side, fill, size=size)
    scale = size / float(side)
    target = np.array([*(size / 2 + shift * scale), *(center[2:] * scale)])
    picture = np.asarray(jnp.round(patch), np.uint8)
    picture = cv2.resize(picture, None, fx=zoom, fy=zoom)
    anchors = model_anchors(MODEL)
    found = make_targets(
        jax.random.key(0),
        jnp.asarray(target, jnp.float32),
        jnp.float32(1),
        jnp.asarray(anchors),
        config=TargetConfig(),
    )
    centers = zoom * anchors[:: len(MODEL.anchors.ratios), :2]
    cell = _dots(picture, centers, WHITE)
    middle = np.full((len(MODEL.anchors.ratios), 2), size / 2)
    sizes = anchor_sizes(MODEL.anchors, stride=total_stride(MODEL.backbone))
    cell = draw_boxes(cell, cxcywh_to_ltwh(zoom * np.hstack([middle, sizes])))
    labels = _dots(picture, zoom * anchors[np.asarray(found.negative), :2], RED_DOT)
    kept = cxcywh_to_ltwh(zoom * anchors[np.asarray(found.positive)])
    labels = draw_boxes(labels, kept, colors=[BLUE_BOX])
    labels = draw_boxes(labels, cxcywh_to_ltwh(zoom * target), colors=[GREEN])
    return {"pictures/anchors.webp": shrink(beside(cell, labels), 900)}


def make_losses(work: Path) -> Mapping[str, Image]:
    """Eq. 4 for some values of σ."""
    del work
    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    axes = figure.subplots()
    x = jnp.linspace(-2, 2, 401)
    labels = {"σ = 1": 1.0, "σ = 3": 3.0, "plain L1 (None)": None}
    for color, (label, sigma) in zip(COLORS, labels.items(), strict=False):
        loss = smooth_l1(x, jnp.zeros_like(x), sigma=sigma)
        axes.plot(x, loss, color=color, label=label)
    axes.set(xlabel="error of a coordinate", ylabel="loss", ylim=(0, 2))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize="small")
    return {"pictures/smooth_l1.webp": figure_pixels(figure)}


def make_penalty(work: Path) -> Mapping[str, Image]:
    """Eqs 13 and 14, the cosine window, and the centre region."""
    del work
    figure = Figure(figsize=(9.4, 3.3), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    factors = np.linspace(0.4, 2.5, 400)
    last = jnp.array([40.0, 40.0])
    for color, k in zip(COLORS, (0.055, 0.16, 0.5), strict=False):
        sizes = jnp.asarray(40 * factors[:, None] * np.ones(2))
        penalty = change_penalty(sizes, last, k=k)
        left.plot(factors, penalty, color=color, label=f"k = {k:g}")
    left.set(xlabel="size, relative to the last one", ylabel="penalty", ylim=(0, 1.03))
    left.set(title="Eq. 13, ratio unchanged")
    left.grid(alpha=0.25)
    left.spines[["top", "right"]].set_visible(False)
    left.legend(fontsize="small")
    cells = MODEL.score_size
    for axes, g in ((middle, None), (right, 7)):
        window, inside = window_and_center(MODEL, TrackerConfig(center_size=g))
        shown = (window * inside).reshape(cells, cells, -1)[..., 0]
        axes.imshow(shown, vmin=0, vmax=1, extent=(0, cells, cells, 0))
        axes.set(title="cosine window" if g is None else f"within g = {g}")
        axes.set(xticks=[], yticks=[])
        if g:
            corner = (cells - g) / 2
            axes.add_patch(_frame(corner, g))
    return {"pictures/penalty.webp": figure_pixels(figure)}


GROUPS = (
    Group(("pictures/crops.webp",), make_crops),
    Group(("pictures/anchors.webp",), make_anchors),
    Group(("pictures/smooth_l1.webp",), make_losses),
    Group(("pictures/penalty.webp",), make_penalty),
)
"""What these functions make."""


def _dots(
    picture: np.ndarray, centers: np.ndarray, color: tuple[int, int, int]
) -> np.ndarray:
    """The picture with a dot at each of some points ``[n, 2]``."""
    drawn = picture.copy()
    for x, y in centers.round().astype(int).tolist():
        cv2.circle(drawn, (x, y), 3, color, cv2.FILLED, cv2.LINE_AA)
    return drawn


def _frame(corner: float, side: int) -> Any:
    return Rectangle((corner, corner), side, side, fill=False, ec="#28c83c", lw=2)
