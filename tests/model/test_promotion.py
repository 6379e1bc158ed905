import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamrpn_jax.model import fused
from siamrpn_jax.model.promotion import standard_promotion
from siamrpn_jax.presets import small
from siamrpn_jax.tracking import search
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.slots import add_target, empty_slots, track_many
from siamrpn_jax.tracking.step import init_track, track_clip, track_step
from siamrpn_jax.training import step as training
from small_models import random_batch
from tracking_steps import BOX, CLIP, HYBRID, MODEL

MODES = {
    "rank": lambda: jax.numpy_rank_promotion("raise"),
    "type": lambda: jax.numpy_dtype_promotion("strict"),
    "x64": lambda: jax.enable_x64(True),
    "nan": lambda: jax.debug_nans(True),
}
EVERYTHING = TrackerConfig(
    nms_iou=0.5,
    voting_iou=0.5,
    size_confidence=0.5,
    motion=0.5,
    when_lost="hold",
    lost_search=2.0,
    lost_search_step=0.5,
    second_template=0.5,
    center_size=7,
    min_size=4.0,
)


def types(tree) -> set[str]:
    return {str(x.dtype) for x in jax.tree.leaves(tree)}


@pytest.mark.parametrize("mode", MODES)
def test_tracking_under_strict_rules(mode):
    with MODES[mode]():
        variables = MODEL.init_variables(jax.random.key(0))
        assert types(variables) == {"float32"}
        options = {"model": MODEL, "config": EVERYTHING}
        template, state = init_track(variables, CLIP[0], BOX, **options)
        padded = np.array([70, 50], np.float32)
        init_track(variables, CLIP[0], BOX, frame_size=padded, **options)
        state, output = track_step(variables, template, state, CLIP[1], **options)
        assert types(state) == {"float32"} and types(output) == {"float32", "bool"}
        state, _ = track_clip(variables, template, state, CLIP, **options)
        slots = empty_slots(3, **options)
        slots = add_target(variables, slots, 1, CLIP[0], BOX, **options)
        slots, output = track_many(variables, slots, CLIP[:2], **options)
        assert types(slots) == {"float32", "int32", "bool"}
        assert np.isfinite(output.box).all()
        settings = search.make_settings(EVERYTHING, search.draw_settings(2, seed=0))
        weights = fused.fuse(MODEL, variables)
        found = search.track_frames(weights, CLIP, BOX, settings, model=MODEL)
        assert types(found) == {"float32", "bool"}


@pytest.mark.parametrize("mode", ["rank", "type", "x64"])
def test_kernels_learn_under_strict_rules(mode):
    """Traced alone: what would be refused is refused there."""
    config = dataclasses.replace(EVERYTHING, online_frames=2, distractors=0.2)
    with MODES[mode]():
        variables = HYBRID.init_variables(jax.random.key(0))
        start = functools.partial(
            init_track, variables, CLIP[0], model=HYBRID, config=config
        )
        template, state = jax.eval_shape(start, BOX)
        step = functools.partial(track_step, model=HYBRID, config=config)
        after, output = jax.eval_shape(step, variables, template, state, CLIP[1])
        assert types(after) == types(state) == {"float32"}
        assert types(output) == {"float32", "bool"}


@pytest.mark.parametrize("mode", ["rank", "type", "x64"])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_training_under_strict_rules(mode, kind):
    """Traced alone: what would be refused is refused there."""
    train = small().train
    losses = dataclasses.replace(
        train.losses, giou_weight=1.5, score_target="iou", in_batch_negatives=0.5
    )
    optimizer = dataclasses.replace(
        train.optimizer, kind=kind, warmup_steps=3, ema=0.9, frozen_layers=1
    )
    config = dataclasses.replace(train, losses=losses, optimizer=optimizer)
    options = {"model": MODEL, "config": config}
    batch = random_batch(4, MODEL.config, seed=0)
    with MODES[mode]():
        init = functools.partial(training.init_state, **options)
        state = jax.eval_shape(init, jax.random.key(1))
        step = functools.partial(training.train_step, **options)
        after, _ = jax.eval_shape(step, state, batch)
        assert types(after) == types(state)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        jax.eval_shape(
            functools.partial(training.pair_iou, model=MODEL), variables, batch
        )


def test_the_callers_rules_hold_again_afterwards():
    double = standard_promotion(lambda x: x + jnp.ones(3))
    with jax.numpy_rank_promotion("raise"):
        assert double(jnp.ones((2, 3))).shape == (2, 3)
        with pytest.raises(ValueError, match="rank_promotion"):
            _ = jnp.ones((2, 3)) + jnp.ones(3)
