"""SiamRPN: backbone and region proposal head under one roof (paper, Fig. 2)."""

import dataclasses
from collections.abc import Collection
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model import anchors, backbone, rpn
from siamrpn_jax.model.anchors import AnchorConfig
from siamrpn_jax.model.backbone import Backbone, BackboneConfig
from siamrpn_jax.model.convolutions import ConvImpl
from siamrpn_jax.model.rpn import HeadConfig, Template


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """What the network's first layer wants to see; images come as RGB uint8."""

    order: Literal["rgb", "bgr"] = "rgb"
    """Channel order of the weights; PySOT's and DaSiamRPN's files want ``bgr``."""
    mean: tuple[float, float, float] = (118.0, 118.0, 118.0)
    """Subtracted, in grey levels and in ``order``."""
    std: tuple[float, float, float] = (60.0, 60.0, 60.0)
    """Divided by."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The whole network. Equal configs share one compiled function."""

    backbone: BackboneConfig = BackboneConfig()
    head: HeadConfig = HeadConfig()
    anchors: AnchorConfig = AnchorConfig()
    input: InputConfig = InputConfig()
    exemplar_size: int = 127
    """Side of the exemplar patch z in pixels."""
    instance_size: int = 255
    """Side of the search patch x in pixels."""
    context: float = 0.5
    """Context around the target in both patches; p of Eq. 15 over the mean side."""
    crop: Literal["exact", "dasiamrpn", "pysot"] = "exact"
    """How tracking cuts its patches; training always cuts exactly.

    ``dasiamrpn``: whole pixels, as that project cuts them, up to 1 px up and left of
    the target; the patch in whole grey levels. ``pysot``: the same, and the first box
    counts as half a pixel further up and left. For weights from there, to get the same
    boxes as there.
    """
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the convolutions; parameters, statistics and outputs stay float32."""
    conv_impl: ConvImpl = "auto"
    """Formulation of the convolutions; see ``convolutions.conv2d``."""

    @property
    def score_size(self) -> int:
        """F, side of the score map: 17 for 127 and 255 pixels."""
        size = self._embedded(self.instance_size) - self._embedded(self.exemplar_size)
        if size < 0:
            raise InputError(
                f"instance_size {self.instance_size} is smaller than exemplar_size "
                f"{self.exemplar_size}"
            )
        return size + 1

    @property
    def template_size(self) -> int:
        """Side of the detection kernels: 4 for 127 pixels."""
        return self._embedded(self.exemplar_size)

    def _embedded(self, patch_size: int) -> int:
        features = backbone.feature_size(self.backbone, patch_size)
        return features - self.head.kernel_size + 1


class Detection(struct.PyTreeNode):
    """What the network says of a search patch; N = F * F * K anchors."""

    cls_logits: jax.Array
    """float32 ``[B, F, F, K, 2]``; index 1 is the target."""
    reg_deltas: jax.Array
    """float32 ``[B, F, F, K, 4]``; see ``boxes.decode``."""


class PairOutput(struct.PyTreeNode):
    """What training looks at."""

    detection: Detection
    rolled_logits: jax.Array | None
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
        anchors = len(config.anchors.ratios)
        head_args = (config.head, anchors, config.conv_impl, config.dtype)
        if config.head.kind == "up_channel":
            self.head = rpn.UpChannelHead(*head_args)
        else:
            self.head = rpn.DepthwiseHead(*head_args, config.backbone.bn_momentum)

    def __call__(
        self,
        z: jax.Array,
        x: jax.Array,
        *,
        train: bool = False,
        fixed: Collection[str] = (),
        rolled: bool = False,
        axis_name: str | None = None,
    ) -> PairOutput:
        """Detects the targets of exemplars in search patches.

        Args:
            z: exemplar patches ``[B, Z, Z, 3]`` RGB, uint8 or float 0..255.
            x: search patches ``[B, X, X, 3]``.
            train: BatchNorm by batch statistics, over both branches and all devices.
            fixed: layers with running averages even while training, as
                ``backbone/conv1``; see ``BatchNorm``.
            rolled: also classify each search patch with the previous pair's exemplar.
            axis_name: device axis of the batch, or None.

        Returns:
            a ``PairOutput``.
        """
        bn: dict[str, Any] = dict(train=train, fixed=fixed, axis_name=axis_name)
        features_z, features_x = self.backbone(
            (normalise(z, self.config.input), normalise(x, self.config.input)), **bn
        )
        template = self.head.embed_template(features_z, **bn)
        search = self.head.embed_search(features_x, **bn)
        detection = make_detection(
            self.head.classify(search.cls, template.cls_kernel, **bn),
            self.head.regress(search.reg, template.reg_kernel, **bn),
        )
        if not rolled:
            return PairOutput(detection, None)
        kernel = _roll(template.cls_kernel, axis_name)
        logits = self.head.classify(search.cls, kernel, **bn, update=False)
        return PairOutput(detection, _split(logits, 2))

    def embed_template(self, z: jax.Array) -> Template:
        """Exemplar patches ``[B, Z, Z, 3]`` to detection kernels; once per target."""
        (features,) = self.backbone((normalise(z, self.config.input),))
        return self.head.embed_template(features, train=False)

    def detect(self, template: Template, x: jax.Array) -> Detection:
        """Search patches ``[B, X, X, 3]`` to logits and offsets; once per frame."""
        (features,) = self.backbone((normalise(x, self.config.input),))
        search = self.head.embed_search(features, train=False)
        return make_detection(
            self.head.classify(search.cls, template.cls_kernel, train=False),
            self.head.regress(search.reg, template.reg_kernel, train=False),
        )

    def init_variables(self, rng: jax.Array) -> dict:
        """Fresh ``{"params": …, "batch_stats": …}``."""
        z, x = self.config.exemplar_size, self.config.instance_size
        patches = jnp.zeros((1, z, z, 3)), jnp.zeros((1, x, x, 3))
        return jax.jit(self.init)(rng, *patches)


def normalise(patches: jax.Array, config: InputConfig) -> jax.Array:
    """RGB patches ``[..., 3]``, 0..255, as the first layer wants them."""
    patches = patches.astype(jnp.float32)
    if config.order == "bgr":
        patches = patches[..., ::-1]
    return (patches - jnp.array(config.mean)) / jnp.array(config.std)


def make_detection(logits: jax.Array, deltas: jax.Array) -> Detection:
    """Head outputs ``[B, F, F, 2K]`` and ``[B, F, F, 4K]``, anchor-major."""
    return Detection(_split(logits, 2), _split(deltas, 4))


def embed_template(model: SiamRPN, variables: Any, z: jax.Array) -> Template:
    """``SiamRPN.embed_template`` as a function of the variables."""
    return cast(Template, model.apply(variables, z, method="embed_template"))


def detect(
    model: SiamRPN, variables: Any, template: Template, x: jax.Array
) -> Detection:
    """``SiamRPN.detect`` as a function of the variables."""
    return cast(Detection, model.apply(variables, template, x, method="detect"))


def model_anchors(config: ModelConfig) -> np.ndarray:
    """The anchors of the score map in search patch pixels, ``cxcywh [N, 4]``.

    Raises:
        InputError: the anchors' stride is not the network's.
    """
    stride = backbone.total_stride(config.backbone)
    if config.anchors.stride != stride:
        raise InputError(
            f"anchors.stride is {config.anchors.stride}, "
            f"expected the network's {stride}"
        )
    return anchors.anchor_grid(
        config.anchors, score_size=config.score_size, patch_size=config.instance_size
    )


def count_parameters(config: ModelConfig) -> int:
    """Trained numbers of a network; running averages of BatchNorm are none.

    Example:
        >>> count_parameters(ModelConfig())
        22632512
    """
    shapes = jax.eval_shape(SiamRPN(config).init_variables, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def count_flops(config: ModelConfig) -> int:
    """Floating-point operations of a frame: the search branch, without the crop.

    A multiply-add counts as 2, as elsewhere where FLOPs and not MACs are given.
    Convolutions and correlations count as the paper writes them, whatever formulation
    computes them; BatchNorm, which is folded, and what is done once an element do not
    (less than 1 %).

    Example:
        >>> count_flops(ModelConfig())
        9642956352
    """
    head = rpn.multiply_adds(
        config.head,
        channels=config.backbone.widths[-1],
        features=backbone.feature_size(config.backbone, config.instance_size),
        kernel=config.template_size,
        anchors=len(config.anchors.ratios),
    )
    return 2 * (backbone.multiply_adds(config.backbone, config.instance_size) + head)


def _roll(kernels: jax.Array, axis_name: str | None) -> jax.Array:
    """Shifts ``[B, …]`` by one along the batch of all devices."""
    last = kernels[-1:]
    n = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    if n * len(kernels) == 1:
        raise InputError("rolled_negatives needs batches of at least 2 pairs")
    if axis_name is not None:
        last = jax.lax.ppermute(last, axis_name, [(i, (i + 1) % n) for i in range(n)])
    return jnp.concatenate([last, kernels[:-1]])


def _split(maps: jax.Array, values: int) -> jax.Array:
    """``[B, F, F, K * values]`` to ``[B, F, F, K, values]``."""
    return maps.reshape(*maps.shape[:3], -1, values).astype(jnp.float32)
