"""What is timed: networks with their weights, patches and frames."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from siamrpn_jax import presets, weights
from siamrpn_jax.common.released import WEIGHTS
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.model.boxes import ltwh_to_cxcywh
from siamrpn_jax.model.config import HeadConfig, ModelConfig
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking import crops
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.training.batch import Batch

HEIGHT, WIDTH = 480, 640
"""Size of the frames that are tracked in, pixels."""

PLAIN = ("paper", "small")
"""Presets whose layers are plain convolutions, and whose loss the others have, too."""


class Network(NamedTuple):
    """A preset with weights: released ones, or random ones where there are none."""

    name: str
    model: SiamRPN
    variables: Any
    tracker: TrackerConfig

    def with_config(self, **changes: Any) -> "Network":
        """The same weights in a network with other fields of ``ModelConfig``."""
        config = dataclasses.replace(self.model.config, **changes)
        return self._replace(model=SiamRPN(config))


def with_group(net: Network) -> HeadConfig:
    """The head with the other formulation of its correlation."""
    return dataclasses.replace(net.model.config.head, correlation="group")


def network(name: str) -> Network:
    """The network of a preset."""
    if name in WEIGHTS:
        loaded = weights.load_weights(name)
        variables = jax.device_put(loaded.variables)
        # The trackers of the others neither vote nor run ahead, and learn nothing.
        config = dataclasses.replace(
            loaded.tracker_config, voting_iou=1.0, motion=0.0, online_frames=None
        )
        return Network(name, loaded.model, variables, config)
    recipe = presets.PRESETS[name]()
    model = SiamRPN(recipe.model)
    return Network(name, model, jax.device_put(random_variables(model)), recipe.tracker)


def plain_networks(names: Sequence[str]) -> list[Network]:
    """Those of the networks that ``PLAIN`` names."""
    return [network(name) for name in names if name in PLAIN]


def random_variables(model: SiamRPN, *, seed: int = 0) -> Any:
    """Weights that keep the maps' variance, with uneven BatchNorm statistics."""
    rng = np.random.default_rng(seed)

    def fill(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        *_, layer, name = (key.key for key in path)
        if name == "kernel":
            values = rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape)
        else:
            low = 0.5 if name in ("var", "scale") else -0.5
            values = rng.uniform(low, low + 1, leaf.shape)
        if "template" in layer:  # the correlation sums 16 times its width
            values /= (16 * model.config.head.width) ** 0.5
        return values.astype(np.float32)

    shapes = jax.eval_shape(model.init_variables, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(fill, shapes)


def patches(
    config: ModelConfig, count: int, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Exemplar and search patches, float32 ``[count, n, n, 3]`` of whole grey levels.

    Every contestant starts from them and normalises them itself.
    """
    rng = np.random.default_rng(seed)
    z, x = (
        rng.integers(0, 256, (count, size, size, 3)).astype(np.float32)
        for size in (config.exemplar_size, config.instance_size)
    )
    return z, x


def batch(config: ModelConfig, count: int, *, seed: int = 0) -> Batch:
    """Training pairs of noise, boxes of about the anchors' size, a quarter negative."""
    rng = np.random.default_rng(seed)
    z, x = (patch.astype(np.uint8) for patch in patches(config, count, seed=seed))
    center = config.instance_size * rng.uniform(0.35, 0.65, (count, 2))
    extent = config.anchors.base_size * rng.uniform(0.8, 1.2, (count, 2))
    box = np.concatenate([center, extent], 1).astype(np.float32)
    origins = np.repeat(np.arange(count, dtype=np.uint32)[:, None], 2, 1)
    return Batch(z, x, box, (np.arange(count) % 4 != 3).astype(np.float32), origins)


@functools.partial(jax.jit, static_argnames=("config", "size"))
def crop(
    frame: jax.Array,
    box: jax.Array,
    fill: jax.Array,
    *,
    config: ModelConfig,
    size: int,
) -> jax.Array:
    """The patch of a box ``cxcywh [4]``, of exemplar or search size: ``[n, n, 3]``."""
    box = jnp.asarray(box, jnp.float32)
    side = crops.context_side(box[2:], context=config.context)
    side = side * size / config.exemplar_size
    return crops.crop_and_resize(frame, box[:2], side, fill, size=size)


def clip(length: int = 8, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A generated scene: uint8 ``[T, 480, 640, 3]`` and boxes ``cxcywh [T, 4]``."""
    frames, boxes = make_sequence(seed, length=length, height=HEIGHT, width=WIDTH)
    return frames, ltwh_to_cxcywh(boxes)


def anchor_major(maps: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The others' logits ``[B, 2K, F, F]`` and offsets ``[B, 4K, F, F]`` in our layout.

    Returns:
        ``[B, F, F, K, 2]`` and ``[B, F, F, K, 4]``.
    """
    maps = [y.transpose(0, 2, 3, 1) for y in maps]
    return [
        y.reshape(*y.shape[:3], -1, values)
        for y, values in zip(maps, (2, 4), strict=False)
    ]
