"""A network trained here follows objects that it has never seen."""

import dataclasses

import numpy as np
import pytest

from siamrpn_jax import weights
from siamrpn_jax.api import Tracker, load
from siamrpn_jax.commands import train
from siamrpn_jax.data.scenes import generated
from siamrpn_jax.evaluation.ope import metrics
from siamrpn_jax.presets import base, small
from small_models import tiny_model

pytestmark = pytest.mark.usefixtures("optimized")


def follow(tracker: Tracker, seed: int) -> tuple[float, float]:
    """Success AUC of the tracker and of the first box repeated on one scene."""
    frames, truth = generated.make_sequence(seed, length=40)
    tracker.init(frames[0], truth[0])
    predicted = np.stack([truth[0], *(tracker.update(f) for f in frames[1:])])
    static = np.repeat(truth[:1], len(truth), axis=0)
    return metrics.evaluate(predicted, truth).auc, metrics.evaluate(static, truth).auc


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A narrow network after 560 steps on generated scenes, about a minute."""
    recipe = small()
    optimizer = dataclasses.replace(recipe.train.optimizer, warmup_steps=50, ema=0.98)
    recipe = dataclasses.replace(
        recipe,
        model=tiny_model((16, 24, 32, 32, 32), 32),
        train=dataclasses.replace(
            recipe.train, optimizer=optimizer, epochs=2, steps_per_epoch=280
        ),
    )
    out = tmp_path_factory.mktemp("trained") / "run"
    config = train.Config(recipe=recipe, out=out, devices=1, evaluate=4)
    return out, train.run(config)


def test_training_says_that_it_learned(trained):
    out, card = trained
    assert card["figures"]["held_out"]["val_iou"] > 0.4
    scenes = card["figures"]["unseen_scenes"]
    assert scenes["auc"] > scenes["first_box_repeated_auc"] + 0.1
    assert (out / "strip.png").stat().st_size > 10_000


def test_trained_network_follows_unseen_targets(trained):
    out, _ = trained
    results = np.array(
        [follow(load(out), seed) for seed in range(2_000_000, 2_000_004)]
    )
    tracked, static = results.mean(0)
    assert tracked > static + 0.1, results


@pytest.mark.parametrize("preset", [base, small])
def test_shipped_weights_follow_unseen_targets(preset):
    tracker = load(preset.__name__)
    results = np.array([follow(tracker, seed) for seed in range(2_000_000, 2_000_004)])
    tracked, static = results.mean(0)
    assert tracked > static + 0.25, results
    assert weights.load_weights(preset.__name__).model.config == preset().model
