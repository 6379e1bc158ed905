"""Image classification with the tracker's backbone: what it is pretrained on.

"The backbone is the modified AlexNet pretrained from ImageNet" (paper, section 5.1).
Only the backbone is kept; the classifier is one dense layer on its mean features.
"""

import dataclasses
import functools
from collections.abc import Collection
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from siamrpn_jax.common.errors import InputError, check_least
from siamrpn_jax.model.backbone import Backbone, BackboneConfig, feature_size
from siamrpn_jax.model.convolutions import ConvImpl
from siamrpn_jax.model.network import InputConfig, normalise
from siamrpn_jax.training.batch import LabelledBatch
from siamrpn_jax.training.step import (
    Metrics,
    OptimizerConfig,
    ScheduleConfig,
    TrainState,
)


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
    """The network that is pretrained."""

    backbone: BackboneConfig = BackboneConfig()
    input: InputConfig = InputConfig()
    image_size: int = 223
    """Side of the images in pixels. All strides of the backbone must divide exactly:
    of its sizes this is the nearest to the usual 224."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the convolutions; parameters, statistics and outputs stay float32."""
    conv_impl: ConvImpl = "auto"
    """Formulation of the convolutions; see ``convolutions.conv2d``."""

    def __post_init__(self) -> None:
        """Raises InputError on an image size that the backbone does not divide."""
        feature_size(self.backbone, self.image_size)


@dataclasses.dataclass(frozen=True)
class ClassifierTrainConfig(ScheduleConfig):
    """How the classifier is trained: SGD as usual for AlexNet with BatchNorm."""

    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=0.1,
        final_learning_rate=1e-5,
        schedule="cosine",
        warmup_steps=1000,
        clip_norm=None,
        frozen_layers=0,
    )
    epochs: int = 90
    """The schedule's length."""
    steps_per_epoch: int = 0
    """Optimizer steps in an epoch; 0: as many as show every image once."""
    label_smoothing: float = 0.0
    """Share of the target that is spread evenly over all classes."""

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        check_least(self, 1, "epochs")
        check_least(self, 0, "steps_per_epoch", "label_smoothing")
        if not self.label_smoothing < 1:
            raise InputError(
                f"label_smoothing is {self.label_smoothing}, expected less than 1"
            )


class Classifier(nn.Module):
    """Backbone, mean of the features after ReLU, one dense layer.

    Example:
        >>> model = Classifier(ClassifierConfig(), classes=1000)
        >>> variables = jax.eval_shape(model.init_variables, jax.random.key(0))
        >>> variables["params"]["classifier"]["kernel"].shape
        (256, 1000)
    """

    config: ClassifierConfig
    classes: int

    def setup(self):
        """The backbone has the name that it has in the tracker."""
        config = self.config
        self.backbone = Backbone(config.backbone, config.conv_impl, config.dtype)
        self.classifier = nn.Dense(self.classes)

    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool = False,
        fixed: Collection[str] = (),
        axis_name: str | None = None,
    ) -> jax.Array:
        """Classifies images.

        Args:
            images: RGB ``[B, n, n, 3]``, uint8 or float 0..255.
            train: BatchNorm by batch statistics, over all devices.
            fixed: layers with running averages even while training, see ``BatchNorm``.
            axis_name: device axis of the batch, or None.

        Returns:
            logits, float32 ``[B, classes]``.
        """
        (features,) = self.backbone(
            (normalise(images, self.config.input),),
            train=train,
            fixed=fixed,
            axis_name=axis_name,
        )
        return self.classifier(nn.relu(features).astype(jnp.float32).mean((1, 2)))

    def init_variables(self, rng: jax.Array) -> dict:
        """Fresh ``{"params": …, "batch_stats": …}``."""
        size = self.config.image_size
        return jax.jit(self.init)(rng, jnp.zeros((1, size, size, 3)))


def class_loss(
    params: Any,
    state: TrainState,
    batch: LabelledBatch,
    *,
    model: Classifier,
    config: ClassifierTrainConfig,
    fixed: Collection[str],
    axis_name: str | None,
) -> tuple[jax.Array, tuple[Metrics, Any]]:
    """Softmax cross-entropy, the mean over the global batch; see ``training.Loss``."""
    logits, updates = model.apply(
        {"params": params, "batch_stats": state.batch_stats},
        batch.image,
        train=True,
        fixed=fixed,
        axis_name=axis_name,
        mutable=["batch_stats"],
    )
    wanted = jax.nn.one_hot(batch.label, model.classes)
    wanted = optax.smooth_labels(wanted, config.label_smoothing)
    devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    loss = optax.softmax_cross_entropy(logits, wanted).mean() / devices
    right = (logits.argmax(-1) == batch.label).mean() / devices
    return loss, ({"loss": loss, "accuracy": right}, updates["batch_stats"])


@functools.partial(jax.jit, static_argnames="model")
def label_ranks(
    variables: Any, batch: LabelledBatch, *, model: Classifier
) -> jax.Array:
    """How many classes the network prefers to the right one, int32 ``[B]``."""
    logits: Any = model.apply(variables, batch.image)
    right = jnp.take_along_axis(logits, batch.label[:, None], axis=-1)
    # A network that prefers none must not count as right.
    return (logits >= right).sum(-1) - 1
