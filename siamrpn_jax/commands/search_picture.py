"""A picture of one search: the patch, its score map, and the centre region g x g."""

import dataclasses

import cv2
import jax.numpy as jnp
import numpy as np

from siamrpn_jax.evaluation.report.plots import GREEN, ORANGE
from siamrpn_jax.media.drawing import draw_boxes
from siamrpn_jax.model.boxes import cxcywh_to_ltwh
from siamrpn_jax.tracking.memory import recall
from siamrpn_jax.tracking.selection import rank_proposals
from siamrpn_jax.tracking.state import (
    Loaded,
    float32_numbers,
    patch_scale,
    search_patches,
)
from siamrpn_jax.tracking.step import detect, init_track, track_step

TILE = 364
"""Side of each of the three pictures, pixels."""

_LINE = 24  # Height of the text above them.


@dataclasses.dataclass(frozen=True, eq=False)
class Search:
    """What a tracker sees in one frame; F cells a side."""

    patch: np.ndarray
    """The search patch, RGB uint8 ``[X, X, 3]``."""
    scores: np.ndarray
    """The best score of each cell, ``[F, F]`` in 0..1."""
    final: np.ndarray
    """The best score after penalty and window, 0 outside the centre region ``[F, F]``.
    """
    box: np.ndarray
    """The best proposal, ``ltwh [4]`` in patch pixels."""
    center_size: int
    """g, cells a side of the centre region."""


def look(
    loaded: Loaded, frames: np.ndarray, box: np.ndarray, *, center_size: int
) -> Search:
    """Tracks through frames, and looks at the search in the last one.

    Args:
        loaded: a tracker whose head finds boxes.
        frames: RGB uint8 ``[T, H, W, 3]``.
        box: of the target in the first one, ``cxcywh [4]``.
        center_size: g (paper, section 4.3).

    Raises:
        InputError: g does not fit the score map.
    """
    model, weights = loaded.model, loaded.variables
    config = dataclasses.replace(loaded.tracker_config, center_size=center_size)
    config = float32_numbers(config)
    template, state = init_track(weights, frames[0], box, model=model, config=config)
    for frame in frames[1:-1]:
        state, _ = track_step(
            weights, template, state, frame, model=model, config=config
        )
    x = search_patches(state, jnp.asarray(frames[-1:]), jnp.int32(0), model=model)
    template = recall(template, state.memory, config=config)
    detection = detect(weights, template, x[None], model=model)
    last_size = state.box[2:] * patch_scale(state, model=model)
    found = rank_proposals(detection, last_size, model=model, config=config)
    logits = np.asarray(detection.cls_logits, np.float64)
    side = model.config.score_size
    scores = 1 / (1 + np.exp(logits[..., 0] - logits[..., 1]))
    return Search(
        patch=np.asarray(jnp.round(x[0]), np.uint8),
        scores=scores.reshape(side, side, -1).max(-1),
        final=np.asarray(found.windowed).reshape(side, side, -1).max(-1),
        box=cxcywh_to_ltwh(np.asarray(found.boxes)[int(np.argmax(found.windowed))]),
        center_size=center_size,
    )


def draw_search(search: Search) -> np.ndarray:
    """Three pictures side by side, with a line of text above each: RGB uint8.

    The search patch with the best proposal; the scores with the centre region; and the
    final scores, of which that of the best proposal is the highest.
    """
    zoom = TILE / len(search.patch)
    patch = cv2.resize(search.patch, (TILE, TILE), interpolation=cv2.INTER_LINEAR)
    patch = draw_boxes(patch, search.box[None] * zoom, colors=[ORANGE])
    cells, g = len(search.scores), search.center_size
    cell, edge = TILE / cells, (cells - search.center_size) / 2
    region = np.array([[edge, edge, g, g]]) * cell
    scores = draw_boxes(_heat(search.scores), region, colors=[GREEN])
    final = draw_boxes(_heat(search.final), region, colors=[GREEN])
    titles = (
        "search patch, best proposal",
        f"scores, {cells}x{cells} cells; green: g = {g}",
        "final scores: penalty, window, g",
    )
    tiles = [
        np.concatenate([_text(title), tile])
        for title, tile in zip(titles, (patch, scores, final), strict=True)
    ]
    return np.concatenate(tiles, axis=1)


def _heat(values: np.ndarray) -> np.ndarray:
    """Cells ``[F, F]`` in 0..1 as colours, dark to bright."""
    grey = np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)
    colors = cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS)
    large = cv2.resize(colors, (TILE, TILE), interpolation=cv2.INTER_NEAREST)
    return cv2.cvtColor(large, cv2.COLOR_BGR2RGB)


def _text(line: str) -> np.ndarray:
    picture = np.full((_LINE, TILE, 3), 255, np.uint8)
    font, color = cv2.FONT_HERSHEY_SIMPLEX, (30, 30, 30)
    cv2.putText(picture, line, (4, _LINE - 8), font, 0.45, color, 1, cv2.LINE_AA)
    return picture
