"""SiamRPN: backbone and region proposal head under one roof (paper, Fig. 2)."""

import functools
from collections.abc import Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model import anchors, rpn
from siamrpn_jax.model.backbone import Backbone, Neck
from siamrpn_jax.model.config import (
    InputConfig,
    ModelConfig,
    describe_layers,
    feature_size,
    total_stride,
)
from siamrpn_jax.model.layers import Maps
from siamrpn_jax.model.promotion import standard_promotion
from siamrpn_jax.model.rpn import Template


class Detection(struct.PyTreeNode):
    """What the network says of a search patch; N = F * F * K anchors."""

    cls_logits: jax.Array
    """float32 ``[B, F, F, K, 2]``; index 1 is the target."""
    reg_deltas: jax.Array
    """float32 ``[B, F, F, K, 4]``; see ``boxes.decode``."""
    features: jax.Array | None = None
    """``[B, H, W, C]`` of the search patch, where kernels learn from them."""


class PairOutput(struct.PyTreeNode):
    """What training looks at."""

    detection: Detection
    in_batch_logits: jax.Array | None
    """``[B, F, F, K, 2]``: each search patch against the previous pair's exemplar."""


class SiamRPN(nn.Module):
    """The network as a pure function of its variables; see ``ModelConfig``.

    Example:
        >>> model = SiamRPN(ModelConfig())
        >>> variables = jax.eval_shape(model.init_variables, jax.random.key(0))
        >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        22632512
    """

    config: ModelConfig = ModelConfig()

    def setup(self):
        """Backbone and head; their names are the first part of parameter names."""
        config = self.config
        self.backbone = Backbone(config.backbone, config.conv_impl, config.dtype)
        if config.neck_width:
            self.neck = Neck(
                config.neck_width,
                config.conv_impl,
                config.dtype,
                config.backbone.bn_momentum,
            )
        anchors = len(config.anchors.ratios)
        head_args = (config.head, anchors, config.conv_impl, config.dtype)
        if config.head.kind == "up_channel":
            self.head = rpn.UpChannelHead(*head_args)
        elif config.head.regresses:
            hybrid = config.head.kind == "hybrid"
            make = rpn.HybridHead if hybrid else rpn.DepthwiseHead
            self.head = make(*head_args, config.backbone.bn_momentum)
        else:
            self.head = rpn.CrossCorrelationHead(config.head)

    @standard_promotion
    def __call__(
        self,
        z: jax.Array,
        x: jax.Array,
        *,
        train: bool = False,
        fixed: Collection[str] = (),
        in_batch: bool = False,
        axis_name: str | None = None,
    ) -> PairOutput:
        """Detects the targets of exemplars in search patches.

        Args:
            z: exemplar patches ``[B, Z, Z, 3]`` RGB, uint8 or float 0..255.
            x: search patches ``[B, X, X, 3]``.
            train: BatchNorm by batch statistics, over both branches and all devices.
            fixed: layers with running averages even while training, as
                ``backbone/conv1``; see ``BatchNorm``.
            in_batch: also classify each search patch with the previous pair's exemplar.
            axis_name: device axis of the batch, or None.

        Returns:
            a ``PairOutput``.
        """
        bn: dict[str, Any] = dict(train=train, fixed=fixed, axis_name=axis_name)
        features_z, features_x = self._features(z, x, **bn)
        template = self.head.embed_template(features_z, **bn)
        search = self.head.embed_search(features_x, **bn)
        detection = make_detection(
            self.head.classify(search.cls, template.cls_kernel, **bn),
            self.head.regress(search.reg, template.reg_kernel, **bn),
        )
        if not in_batch:
            return PairOutput(detection, None)
        kernel = previous_of(template.cls_kernel, axis_name)
        logits = self.head.classify(search.cls, kernel, **bn, update=False)
        return PairOutput(detection, _split(logits, 2))

    @standard_promotion
    def embed_template(self, z: jax.Array) -> Template:
        """Exemplar patches ``[B, Z, Z, 3]`` to detection kernels; once per target."""
        (features,) = self._features(z)
        return self.head.embed_template(features, train=False)

    @standard_promotion
    def detect(self, template: Template, x: jax.Array) -> Detection:
        """Search patches ``[B, X, X, 3]`` to logits and offsets; once per frame."""
        (features,) = self._features(x)
        search = self.head.embed_search(features, train=False)
        return make_detection(
            self.head.classify(search.cls, template.cls_kernel, train=False),
            self.head.regress(search.reg, template.reg_kernel, train=False),
        )

    @standard_promotion
    def init_variables(self, rng: jax.Array) -> dict:
        """Fresh ``{"params": …, "batch_stats": …}``.

        Raises:
            InputError: patches of a size that does not fit the backbone.
        """
        z, x = self.config.exemplar_size, self.config.instance_size
        for size in (z, x):
            feature_size(self.config.backbone, size)
        patches = jnp.zeros((1, z, z, 3), jnp.uint8), jnp.zeros((1, x, x, 3), jnp.uint8)
        return _init(self, rng, *patches)

    def _features(
        self, *patches: jax.Array, fixed: Collection[str] = (), **bn: Any
    ) -> Maps:
        maps = tuple(normalise(x, self.config.input) for x in patches)
        if _is_fixed(self.config, fixed) and jax.default_backend() == "cpu":
            # Patch by patch it stays in the caches: twice as fast.
            one = nn.scan(
                lambda net, _, x: ((), net.backbone((x[None],))[0][0]),
                variable_broadcast=("params", "batch_stats"),
            )
            maps = tuple(one(self, (), x)[1] for x in maps)
        else:
            maps = self.backbone(maps, fixed=fixed, **bn)
        return self.neck(maps, fixed=fixed, **bn) if self.config.neck_width else maps


@functools.partial(jax.jit, static_argnums=0)  # traced once for equal configs
def _init(model: SiamRPN, rng: jax.Array, z: jax.Array, x: jax.Array) -> dict:
    return dict(model.init(rng, z, x))


def _is_fixed(config: ModelConfig, fixed: Collection[str]) -> bool:
    """Whether no layer of the backbone looks at the batch."""
    layers = range(1, 1 + len(describe_layers(config.backbone)))
    return {f"backbone/conv{i}" for i in layers} <= set(fixed)


def normalise(patches: jax.Array, config: InputConfig) -> jax.Array:
    """RGB patches ``[..., 3]``, 0..255, as the first layer wants them."""
    patches = patches.astype(jnp.float32)
    if config.order == "bgr":
        patches = patches[..., ::-1]
    return (patches - jnp.float32(config.mean)) / jnp.float32(config.std)


def make_detection(logits: jax.Array, deltas: jax.Array | None) -> Detection:
    """Head outputs ``[B, F, F, 2K]`` and ``[B, F, F, 4K]``, anchor-major.

    Without offsets they are 0: each box is the anchor's own.
    """
    if deltas is None:
        deltas = jnp.zeros((*logits.shape[:3], 2 * logits.shape[3]), logits.dtype)
    return Detection(_split(logits, 2), _split(deltas, 4))


def model_anchors(config: ModelConfig) -> np.ndarray:
    """The anchors of the score map in search patch pixels, ``cxcywh [N, 4]``."""
    return anchors.anchor_grid(
        config.anchors,
        stride=total_stride(config.backbone),
        score_size=config.score_size,
        patch_size=config.instance_size,
    )


def count_parameters(config: ModelConfig) -> int:
    """Trained numbers of a network; running averages of BatchNorm are none.

    Example:
        >>> count_parameters(ModelConfig())
        22632512
    """
    shapes = jax.eval_shape(SiamRPN(config).init_variables, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def previous_of(values: jax.Array, axis_name: str | None) -> jax.Array:
    """Shifts ``[B, …]`` by one along the batch of all devices."""
    last = values[-1:]
    n = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    if n * len(values) == 1:
        raise InputError("in_batch_negatives needs batches of at least 2 pairs")
    if axis_name is not None:
        last = jax.lax.ppermute(last, axis_name, [(i, (i + 1) % n) for i in range(n)])
    return jnp.concatenate([last, values[:-1]])


def _split(maps: jax.Array, values: int) -> jax.Array:
    """``[B, F, F, K * values]`` to ``[B, F, F, K, values]``."""
    return maps.reshape(*maps.shape[:3], -1, values).astype(jnp.float32)
