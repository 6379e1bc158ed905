import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model.backbone import Backbone
from siamrpn_jax.model.config import BackboneConfig, InputConfig
from siamrpn_jax.model.network import normalise
from siamrpn_jax.training import classifier
from siamrpn_jax.training import step as training
from siamrpn_jax.training.batch import LabelledBatch
from siamrpn_jax.training.classifier import Classifier
from siamrpn_jax.training.config import ClassifierConfig, ClassifierTrainConfig

TINY = ClassifierConfig(
    BackboneConfig("compact", (4, 6)),
    InputConfig("bgr"),
    image_size=36,
    conv_impl="xla",
)
MODEL = Classifier(TINY, classes=7)
TRAIN = ClassifierTrainConfig(epochs=1, steps_per_epoch=10, label_smoothing=0.1)


def random_batch(size: int, *, seed: int) -> LabelledBatch:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (size, 36, 36, 3), np.uint8)
    return LabelledBatch(image, rng.integers(0, 7, size, np.int32))


@pytest.fixture(scope="module")
def state():
    return training.init_state(jax.random.key(0), model=MODEL, config=TRAIN)


def test_features_are_averaged_after_relu(state):
    batch = random_batch(2, seed=0)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    alone = {kind: part["backbone"] for kind, part in variables.items()}
    images = (normalise(jnp.asarray(batch.image), TINY.input),)
    features: Any = Backbone(TINY.backbone, "xla").apply(alone, images)
    mean = nn.relu(features[0]).mean((1, 2))
    dense = state.params["classifier"]
    expected = mean @ dense["kernel"] + dense["bias"]
    found = jnp.asarray(MODEL.apply(variables, batch.image))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_loss_is_smoothed_cross_entropy_of_the_global_batch(state):
    batch = random_batch(4, seed=1)
    loss, (metrics, _) = classifier.class_loss(
        state.params,
        state,
        batch,
        model=MODEL,
        config=TRAIN,
        fixed=(),
        axis_name=None,
    )
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits, _ = MODEL.apply(variables, batch.image, train=True, mutable=["batch_stats"])
    logits = np.asarray(logits, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    right = log_p[np.arange(4), batch.label]
    expected = -(0.9 * right + 0.1 * log_p.mean(-1)).mean()
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    accuracy = (logits.argmax(-1) == batch.label).mean()
    assert float(metrics["accuracy"]) == pytest.approx(accuracy)


def test_two_devices_do_what_one_does():
    results = []
    for devices in (1, 2):
        state = training.init_state(jax.random.key(0), model=MODEL, config=TRAIN)
        step = training.pmap_train_step(
            MODEL,
            TRAIN,
            loss=classifier.class_loss,
            devices=jax.devices()[:devices],
        )
        for i in range(3):
            batch = random_batch(8, seed=i)
            shares = (x.reshape(devices, -1, *x.shape[1:]) for x in batch)
            state, metrics = step(state, LabelledBatch(*shares))
            jax.block_until_ready(metrics)
        results.append((state.params, state.batch_stats, metrics))
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def test_ranks_count_what_is_preferred_and_ties():
    """A classifier without a kernel says its bias."""
    params = MODEL.init_variables(jax.random.key(0))
    dense = params["params"]["classifier"]
    dense["kernel"] = jnp.zeros_like(dense["kernel"])
    dense["bias"] = jnp.array([3.0, 1.0, 2.0, 0.0, 0.0, 5.0, 4.0])
    batch = random_batch(7, seed=0)._replace(label=np.arange(7, dtype=np.int32))
    ranks = classifier.label_ranks(params, batch, model=MODEL)
    np.testing.assert_array_equal(ranks, [2, 4, 3, 6, 6, 0, 1])
    dense["bias"] = jnp.full(7, jnp.nan)
    ranks = classifier.label_ranks(params, batch, model=MODEL)
    np.testing.assert_array_equal(ranks, 6)


def test_bfloat16_gives_float32_logits(state):
    model = Classifier(dataclasses.replace(TINY, dtype="bfloat16"), classes=7)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    batch = random_batch(2, seed=0)
    found = jnp.asarray(model.apply(variables, batch.image))
    assert found.dtype == jnp.float32
    expected = jnp.asarray(MODEL.apply(variables, batch.image))
    np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.parametrize(
    ("kind", "fields", "match"),
    [
        (ClassifierConfig, {"image_size": 224}, "patch size 224 does not fit the alex"),
        (ClassifierTrainConfig, {"epochs": 0}, "epochs is 0"),
        (ClassifierTrainConfig, {"label_smoothing": 1.0}, "expected less than 1"),
        (ClassifierTrainConfig, {"label_smoothing": -0.1}, "label_smoothing is -0.1"),
    ],
)
def test_values_out_of_range(kind, fields, match):
    with pytest.raises(InputError, match=match):
        kind(**fields)
