"""What ``siamrpn inspect`` does: pairs with their labels, drawn and counted."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from siamrpn_jax.commands.inspect_data import Config
from siamrpn_jax.common.files import check_place, replacing, write_json
from siamrpn_jax.data.pairs import loader
from siamrpn_jax.data.pairs.pairs import Pair, PairDataset
from siamrpn_jax.media.drawing import draw_boxes
from siamrpn_jax.model import boxes
from siamrpn_jax.model.network import model_anchors
from siamrpn_jax.training import targets
from siamrpn_jax.training.config import TargetConfig

GREEN, BLUE, RED = (60, 220, 80), (80, 140, 255), (255, 70, 60)
"""RGB of the target, of positive anchors, and of the centres of negative ones."""

ASPECTS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, np.inf)
"""Bounds of the classes of long side over short."""

SIDES = tuple(range(0, 129, 8)) + (np.inf,)
"""Bounds of the classes of sides, patch pixels."""

SHIFTS = tuple(np.arange(11) / 20)
"""Bounds of the classes of shifts, share of the patch."""

_ZOOM = 2  # Of the patches: thin lines hide less.
_COLUMNS = 4  # Pairs side by side.
_MARGIN = 6  # Pixels around each pair.


def inspect(config: Config) -> dict[str, Any]:
    """Does what ``inspect_data.run`` says."""
    check_place(config.out, "--out")
    data = config.data
    if config.folders:
        data = dataclasses.replace(data, folders=tuple(map(str, config.folders)))
    dataset, _ = loader.open_datasets(
        data,
        exemplar_size=config.model.exemplar_size,
        instance_size=config.model.instance_size,
        augment=config.augment,
        context=config.model.context,
    )
    print(dataset.describe())
    anchors = model_anchors(config.model)
    shown: list[np.ndarray] = []
    rows: list[tuple[float, ...]] = []
    by_cells = config.model.head.scores_cells
    for labelled in label(
        dataset, config.pairs, anchors, config.targets, by_cells=by_cells
    ):
        if len(shown) < config.show:
            shown.append(draw(labelled, anchors))
        rows.append(measure(labelled, config.model.instance_size))
    path = config.out / "pairs.png"
    write_sheet(path, shown)
    counts = count(np.array(rows))
    write_json(config.out / "counts.json", counts)
    print(format_counts(counts))
    print(f"sheet: {path} (green: target, blue: positive anchors, red: negatives)")
    return counts


class Labelled(NamedTuple):
    """A pair and the anchors that training would take."""

    pair: Pair
    positive: np.ndarray
    """bool ``[N]``."""
    negative: np.ndarray
    """bool ``[N]``."""


def label(
    dataset: PairDataset,
    pairs: int,
    anchors: np.ndarray,
    config: TargetConfig,
    *,
    by_cells: bool = False,
) -> Iterator[Labelled]:
    """The first pairs of a dataset with the labels that training would give them.

    Args:
        dataset: the pairs.
        pairs: how many.
        anchors: ``cxcywh [N, 4]``.
        config: thresholds and numbers.
        by_cells: label cells by their distances, for heads that score them.
    """

    @jax.jit
    def make(rng: jax.Array, *pair: jax.Array) -> targets.Targets:
        if by_cells:
            return targets.make_cell_targets(*pair, config=config)
        return targets.make_targets(rng, *pair, config=config)

    for index in tqdm(range(pairs), unit="pair", disable=None):
        pair = dataset[index]
        found = make(
            jax.random.key(index),
            jnp.asarray(pair.box),
            jnp.asarray(pair.positive),
            jnp.asarray(anchors),
        )
        yield Labelled(pair, np.asarray(found.positive), np.asarray(found.negative))


def draw(labelled: Labelled, anchors: np.ndarray) -> np.ndarray:
    """Exemplar and search patch side by side, RGB uint8 ``[X, Z + X, 3]``.

    A pair without positive anchors has a red frame, a negative one a grey frame.
    """
    pair = labelled.pair
    exemplar, search = (
        np.repeat(np.repeat(patch, _ZOOM, axis=0), _ZOOM, axis=1)
        for patch in (pair.z, pair.x)
    )
    positive = boxes.cxcywh_to_ltwh(_ZOOM * anchors[labelled.positive])
    search = draw_boxes(search, positive, colors=[BLUE])
    for x, y in (_ZOOM * anchors[labelled.negative, :2]).astype(int):
        search[y - 1 : y + 1, x - 1 : x + 1] = RED
    if pair.positive:
        target = boxes.cxcywh_to_ltwh(_ZOOM * pair.box)
        search = draw_boxes(search, target, colors=[GREEN])
    below = np.zeros((len(search) - len(exemplar), exemplar.shape[1], 3), np.uint8)
    canvas = np.concatenate([np.concatenate([exemplar, below]), search], axis=1)
    frame = (40, 40, 40)
    if not labelled.positive.any():
        frame = RED if pair.positive else (160, 160, 160)
    framed = np.empty(np.add(canvas.shape, (2 * _MARGIN, 2 * _MARGIN, 0)), np.uint8)
    framed[:] = frame
    framed[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN] = canvas
    return framed


def write_sheet(path: Path, pictures: Sequence[np.ndarray]) -> None:
    """Writes pictures of one size in rows of four, as PNG."""
    blank = np.zeros_like(pictures[0])
    columns = min(_COLUMNS, len(pictures))
    filled = [*pictures, *[blank] * (-len(pictures) % columns)]
    rows = [
        np.concatenate(filled[i : i + columns], axis=1)
        for i in range(0, len(filled), columns)
    ]
    sheet = np.concatenate(rows)
    with replacing(path) as temporary:
        _, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
        temporary.write_bytes(data.tobytes())


def measure(labelled: Labelled, size: int) -> tuple[float, ...]:
    """What is counted of a pair: whether positive, anchors, aspect, side and shift.

    Aspect is long side over short, the side the root of the area in patch pixels, the
    shift that of the centre from the patch's middle, as a share of the patch.
    """
    x, y, w, h = map(float, labelled.pair.box)
    shift = max(abs(x - size / 2), abs(y - size / 2)) / size
    return (
        float(labelled.pair.positive),
        float(labelled.positive.sum()),
        max(w / h, h / w),
        (w * h) ** 0.5,
        shift,
    )


def count(rows: np.ndarray) -> dict[str, Any]:
    """Classes and their counts from the rows of ``measure``, ``[n, 5]``."""
    matching = rows[rows[:, 0] > 0]
    _, anchors, aspect, side, shift = matching.T
    without = _classes(aspect[anchors == 0], ASPECTS)["counts"]
    return {
        "pairs": len(rows),
        "negative_pairs": len(rows) - len(matching),
        "mean_positive_anchors": float(anchors.mean()) if len(matching) else 0.0,
        "aspect": _classes(aspect, ASPECTS),
        "aspect_without_positive_anchor": without,
        "side_pixels": _classes(side, SIDES),
        "shift_of_patch": _classes(shift, SHIFTS),
    }


def format_counts(counts: dict[str, Any]) -> str:
    """The counts as text, with bars."""
    lines = [
        f"{counts['pairs']} pairs, {counts['negative_pairs']} of them negative; "
        f"{counts['mean_positive_anchors']:.1f} positive anchors in a positive pair",
        "pairs without a positive anchor, by long side over short:",
    ]
    without = counts["aspect_without_positive_anchor"]
    for name, pairs, lost in zip(*_rows(counts["aspect"]), without, strict=True):
        lines.append(f"  {name:14}{pairs:7} pairs, {lost / max(pairs, 1):6.1%} without")
    titles = {
        "side_pixels": "side of the target (root of its area), pixels of the patch:",
        "shift_of_patch": "its shift from the middle, share of the patch's side:",
    }
    for key, title in titles.items():
        lines.append(title)
        rows = list(zip(*_rows(counts[key]), strict=True))
        most = max(*counts[key]["counts"], 1)
        while rows and not rows[-1][1]:
            rows.pop()
        for name, pairs in rows:
            lines.append(f"  {name:14}{pairs:7} {'#' * round(40 * pairs / most)}")
    return "\n".join(lines)


def _classes(values: np.ndarray, bounds: Sequence[float]) -> dict[str, list[Any]]:
    """How many values lie in each class; JSON has no infinity: None."""
    counts, _ = np.histogram(values, bins=np.array(bounds))
    finite = [float(bound) if np.isfinite(bound) else None for bound in bounds]
    return {"bounds": finite, "counts": counts.tolist()}


def _rows(classes: dict[str, list[Any]]) -> tuple[list[str], list[int]]:
    """Names and counts of the classes."""
    names = [
        f"{low:g} and more" if high is None else f"{low:g} to {high:g}"
        for low, high in itertools.pairwise(classes["bounds"])
    ]
    return names, classes["counts"]
