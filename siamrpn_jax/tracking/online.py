"""Kernels that keep learning what tells their target from its surroundings.

The kernel of a ``hybrid`` head's scores is at first the exemplar's own features, which
say what the target looks like but not what else is there. With
``TrackerConfig.online_frames`` it goes on as a classifier of its own target: logistic
regression on search features, those of the first frame (shifted, mirrored, at other
scales) and of the last frames, each labelled by where the box was found (as ATOM,
Danelljan et al., CVPR 2019, section 3.2; beside a Siamese network, DROL, Zhou et al.,
AAAI 2020). The features are those that the search computes anyway, and the network
still searches once a frame.

A kernel that learned from a wrong box would be sure of it ever after. So it is the
first kernel that says which frames teach: those in which it sees the target there, too.

A step goes down the gradient as far as its quadratic model says (DiMP, Bhat et al.,
ICCV 2019, section 3.2): there is no rate to choose.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from siamrpn_jax.model import fused, rpn
from siamrpn_jax.model.config import total_stride
from siamrpn_jax.model.network import Detection, SiamRPN
from siamrpn_jax.model.rpn import Template
from siamrpn_jax.tracking.confidence import confidence_features, predict_lost
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.selection import rank_proposals
from siamrpn_jax.tracking.state import (
    TrackOutput,
    TrackState,
    float32_numbers,
    patch_scale,
    search_patches,
)

FIRST_VIEWS = (
    *((0.0, 0.0, 1.0, False), (0.0, 0.0, 1.0, True)),
    *((0.3, 0.2, 1.0, False), (-0.3, 0.2, 1.0, True)),
    *((0.3, -0.2, 1.0, True), (-0.3, -0.2, 1.0, False)),
    *((0.0, 0.0, 1.18, False), (0.0, 0.0, 0.86, True), (-0.1, 0.4, 1.0, False)),
)
"""How the first frame is looked at: where the target's centre lies from the middle of
the patch, in exemplar sides to the right and down; the patch's size relative to the
usual; whether it is mirrored."""

FIRST_SHARE = 0.4
"""The least share of the first frame in what is learned from."""

FIRST_STEPS, STEPS = 15, 1
"""Steps of descent in the first frame, and in each later one."""

NEAR, FAR = 0.12, 0.25
"""Cells up to NEAR exemplar sides from the target's centre are the target's, those
beyond FAR are not, those between say nothing."""

LEAST_SLOPE = 0.02
"""Least derivative of the sigmoid in the quadratic model: steps stay finite."""


class Learned(struct.PyTreeNode):
    """A kernel that keeps learning, and the M search patches that it learns from.

    The first of them are of the first frame, the others of later ones.
    """

    first: jax.Array
    """float32 ``[h, w, C]``: the kernel as the exemplar made it."""
    margin: jax.Array
    """float32 ``[]``: of the first kernel, as ``TrackState.margin``."""
    kernel: jax.Array
    """float32 ``[h, w, C]``: in the place of the template's ``cls_kernel``."""
    features: jax.Array
    """float32 ``[M, H, W, C]``: of the search patches."""
    places: jax.Array
    """float32 ``[M, 2]``: the target's centre from the patch's middle, patch pixels."""
    logits: jax.Array
    """float32 ``[M, F, F]``: what the kernel makes of the features."""
    shares: jax.Array
    """float32 ``[M]``: how much of the whole the later frames are; 0 before there are
    any, and for the first frame, which has the rest."""


def empty_learned(template: Template, *, model: SiamRPN, frames: int) -> Learned:
    """Kernels of N targets that have learned nothing yet, all leaves ``[N, …]``.

    Args:
        template: of the targets.
        model: the network.
        frames: number of later frames to remember.
    """
    count, height, width, channels = template.cls_kernel.shape
    cells = model.config.score_size
    patches = count, len(FIRST_VIEWS) + frames
    size = cells + height - 1, cells + width - 1
    kernel = template.cls_kernel.astype(jnp.float32)
    return Learned(
        first=kernel,
        margin=jnp.zeros(count, jnp.float32),
        kernel=kernel,
        features=jnp.zeros((*patches, *size, channels), jnp.float32),
        places=jnp.zeros((*patches, 2), jnp.float32),
        logits=jnp.zeros((*patches, cells, cells), jnp.float32),
        shares=jnp.zeros(patches, jnp.float32),
    )


def learn_first(
    weights: Any,
    learned: Learned,
    state: TrackState,
    frame: jax.Array,
    *,
    model: SiamRPN,
) -> Learned:
    """Learns what else is in the first frame.

    Args:
        weights: of the model, fused.
        learned: of one target, with its first kernel.
        state: before the first step.
        frame: ``[H, W, 3]`` RGB uint8.
        model: the network.
    """
    patches, places = first_views(state, frame, model=model)
    features = fused.embed_search(model, weights, patches).astype(jnp.float32)
    seen = learned.replace(
        features=features,
        places=places,
        logits=score_patches(weights, features, learned.kernel),
        shares=jnp.zeros(len(places), jnp.float32),
    )
    kernel, logits = descend(seen, steps=FIRST_STEPS, model=model)
    known = slice(len(places))
    return learned.replace(
        kernel=kernel,
        features=learned.features.at[known].set(features),
        places=learned.places.at[known].set(places),
        logits=learned.logits.at[known].set(logits),
    )


def learn_next(
    weights: Any,
    learned: Learned,
    before: TrackState,
    detection: Detection,
    output: TrackOutput,
    *,
    model: SiamRPN,
    config: TrackerConfig,
) -> Learned:
    """Learns from a frame, if the first kernel trusts its box; forgets the oldest one.

    Args:
        weights: of the model, fused.
        learned: of one target.
        before: the state before the step.
        detection: of the search patch, with a batch axis of 1, and its features.
        output: of the step.
        model: the network.
        config: as of the step; ``online_above`` and ``memory_rate`` are used here.
    """
    assert detection.features is not None  # as ``step.detect`` returns them
    features = detection.features.astype(jnp.float32)
    score = functools.partial(score_patches, weights, features)
    evidence = judge(
        score(learned.first),
        before.replace(margin=learned.margin),
        detection,
        model=model,
        config=config,
    )
    confidence, _ = predict_lost(evidence, jnp.array(False), config=config)
    teaches = confidence > config.online_above
    offset = output.box[:2] - before.box[:2] - before.search_shift
    place = offset * patch_scale(before, model=model)
    known = len(FIRST_VIEWS)
    oldest = known + jnp.argmin(learned.shares[known:])

    def put(many: jax.Array, one: jax.Array) -> jax.Array:
        return many.at[oldest].set(jnp.where(teaches, one, many[oldest]))

    shares = (1 - config.memory_rate) * learned.shares
    shares = shares.at[oldest].set(config.memory_rate)
    after = learned.replace(
        margin=evidence[1],
        features=put(learned.features, features[0]),
        places=put(learned.places, place),
        logits=put(learned.logits, score(learned.kernel)[0]),
        shares=jnp.where(teaches, shares, learned.shares),
    )
    kernel, logits = jax.lax.cond(
        teaches,
        lambda: descend(after, steps=STEPS, model=model),
        lambda: (learned.kernel, learned.logits),
    )
    return after.replace(kernel=kernel, logits=logits)


def judge(
    logits: jax.Array,
    before: TrackState,
    detection: Detection,
    *,
    model: SiamRPN,
    config: TrackerConfig,
) -> jax.Array:
    """Support and margin ``[2]`` that another kernel's logits give to the winner.

    Args:
        logits: of that kernel, ``[1, F, F]``.
        before: the state before the step, with the margin of that kernel.
        detection: by which the winner was chosen.
        model: the network.
        config: as of the step.
    """
    config = float32_numbers(config)
    last_size = before.box[2:] * patch_scale(before, model=model)
    proposals = rank_proposals(detection, last_size, model=model, config=config)
    both = jnp.stack([jnp.zeros_like(logits), logits], -1)[..., None, :]
    return confidence_features(
        before,
        detection.replace(cls_logits=both),
        proposals.boxes,
        jnp.argmax(proposals.windowed),
        config=config,
    )


def score_patches(
    weights: fused.FusedWeights, features: jax.Array, kernel: jax.Array
) -> jax.Array:
    """The logits ``[M, F, F]`` of a kernel on search features ``[M, H, W, C]``."""
    return correlate(features, kernel) + fused.score_bias(weights)


def first_views(
    state: TrackState, frame: jax.Array, *, model: SiamRPN
) -> tuple[jax.Array, jax.Array]:
    """The first frame's search patches ``[V, X, X, 3]``, and places ``[V, 2]``."""
    right, down, sizes, mirrored = jnp.array(FIRST_VIEWS, jnp.float32).T
    places = model.config.exemplar_size * jnp.stack([right, down], -1)

    def look(place: jax.Array, size: jax.Array, mirror: jax.Array) -> jax.Array:
        view = state.replace(search_scale=size)
        view = view.replace(search_shift=-place / patch_scale(view, model=model))
        first = jnp.zeros((), jnp.int32)
        (patch,) = search_patches(view, frame[None], first, model=model)
        return jnp.where(mirror > 0, patch[:, ::-1], patch)

    patches = jax.vmap(look)(places, sizes, mirrored)
    sides = jnp.stack([1 - 2 * mirrored, jnp.ones_like(mirrored)], -1)
    return patches, places * sides


def descend(
    learned: Learned, *, steps: int, model: SiamRPN
) -> tuple[jax.Array, jax.Array]:
    """Steps of steepest descent on the logistic loss of all examples.

    Returns:
        the kernel, and its logits on the examples.
    """
    labels, weights = label_cells(learned.places, model=model)
    weights *= weigh_examples(learned.shares)[:, None, None]

    def step(
        carry: tuple[jax.Array, jax.Array], _: None
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        kernel, logits = carry
        scores = jax.nn.sigmoid(logits)
        gradient = gather(learned.features, weights * (scores - labels))
        along = correlate(learned.features, gradient)
        slopes = jnp.maximum(scores * (1 - scores), LEAST_SLOPE)
        curvature = jnp.sum(weights * slopes * along**2)
        length = jnp.sum(gradient**2) / jnp.maximum(curvature, 1e-12)
        return (kernel - length * gradient, logits - length * along), None

    start = learned.kernel, learned.logits
    return jax.lax.scan(step, start, None, length=steps)[0]


def label_cells(places: jax.Array, *, model: SiamRPN) -> tuple[jax.Array, jax.Array]:
    """Which cells are the target's, and how much each counts.

    The target's cells and the others count half each; the nearest cell is always the
    target's.

    Args:
        places: ``[M, 2]``, as in ``Learned``.
        model: the network.

    Returns:
        labels, 0 or 1, and weights, which sum up to 1: ``[M, F, F]``.
    """
    config = model.config
    middle = (config.score_size - 1) / 2
    at = jnp.arange(config.score_size, dtype=jnp.float32) - middle
    at *= total_stride(config.backbone)
    x, y = (places[:, axis, None] - at for axis in (0, 1))
    distances = jnp.hypot(x[:, None, :], y[:, :, None])
    nearest = distances.min((1, 2), keepdims=True)
    near = distances <= jnp.maximum(NEAR * config.exemplar_size, nearest)
    far = distances > FAR * config.exemplar_size
    near, far = near.astype(jnp.float32), far.astype(jnp.float32)
    halves = [cells / cells.sum((1, 2), keepdims=True) / 2 for cells in (near, far)]
    return near, halves[0] + halves[1]


def weigh_examples(shares: jax.Array) -> jax.Array:
    """How much each of M examples counts, in all 1, by ``Learned.shares``."""
    count = len(FIRST_VIEWS)
    later = shares[count:]
    later *= jnp.minimum(1.0, (1 - FIRST_SHARE) / jnp.maximum(later.sum(), 1e-6))
    first = jnp.broadcast_to((1 - later.sum()) / count, count)
    return jnp.concatenate([first, later])


def correlate(features: jax.Array, kernel: jax.Array) -> jax.Array:
    """Scores ``[M, F, F]`` of a kernel ``[h, w, C]``, without their bias.

    As ``rpn.correlate`` of each with the same kernel, with its taps in the first axis:
    on a CPU in two thirds of the time.
    """
    height, width, channels = kernel.shape
    patches, rows, columns = features.shape[:3]
    taps = kernel.reshape(-1, channels) @ features.reshape(-1, channels).T
    taps = rpn.SCORE_GAIN * taps.reshape(height, width, patches, rows, columns)
    down, right = rows - height + 1, columns - width + 1
    total = jnp.zeros((), jnp.float32)
    for i in range(height):
        for j in range(width):
            total += taps[i, j, :, i : i + down, j : j + right]
    return total


def gather(features: jax.Array, slopes: jax.Array) -> jax.Array:
    """The transpose of ``correlate``: ``[M, F, F]`` to a kernel ``[h, w, C]``."""
    rows, columns, channels = features.shape[1:]
    below, beside = rows - slopes.shape[1], columns - slopes.shape[2]
    around = jnp.pad(slopes, ((0, 0), (below, below), (beside, beside)))
    # Columns, then rows: each tap cut by itself takes a second longer to compile.
    taps = jnp.stack([around[..., j : j + columns] for j in range(beside, -1, -1)])
    taps = jnp.stack([taps[:, :, i : i + rows] for i in range(below, -1, -1)])
    seen = features.reshape(-1, channels)
    kernel = taps.reshape(-1, len(seen)) @ seen
    return rpn.SCORE_GAIN * kernel.reshape(below + 1, beside + 1, channels)
