"""Networks and batches small enough for tests."""

import dataclasses

import numpy as np

from siamrpn_jax.model.config import BackboneConfig, HeadConfig, ModelConfig
from siamrpn_jax.presets import Recipe, small
from siamrpn_jax.training.batch import Batch

TINY_EFFICIENT = BackboneConfig(
    "efficientnet_lite", widths=(4, 2, 3, 3, 4, 4, 5, 5, 5, 6, 6, 6)
)


def tiny_model(widths: tuple[int, ...] = (8, 16, 16), width: int = 16) -> ModelConfig:
    """The network of ``small`` with few channels; plain convolutions compile fast."""
    return dataclasses.replace(
        small().model,
        conv_impl="xla",
        backbone=BackboneConfig("compact", widths, bn_momentum=0.9),
        head=HeadConfig("depthwise", width, kernel_size=1),
    )


def tiny_recipe(**train: object) -> Recipe:
    """The recipe of ``small`` for a tiny network; arguments replace fields of train."""
    recipe = small()
    return dataclasses.replace(
        recipe,
        model=tiny_model(),
        train=dataclasses.replace(recipe.train, **train),
        batch_size=4,
    )


def random_batch(size: int, config: ModelConfig, *, seed: int) -> Batch:
    """Noise with boxes of about the anchors' size; one pair in four is negative."""
    rng = np.random.default_rng(seed)
    z, x = config.exemplar_size, config.instance_size
    center = rng.uniform(0.35 * x, 0.65 * x, (size, 2))
    extent = config.anchors.base_size * rng.uniform(0.8, 1.2, (size, 2))
    return Batch(
        z=rng.integers(0, 256, (size, z, z, 3), np.uint8),
        x=rng.integers(0, 256, (size, x, x, 3), np.uint8),
        box=np.concatenate([center, extent], 1).astype(np.float32),
        positive=(np.arange(size) % 4 != 3).astype(np.float32),
        origins=np.arange(2 * size, dtype=np.uint32).reshape(size, 2),
    )
