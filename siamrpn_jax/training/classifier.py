"""Image classification with the tracker's backbone: what it is pretrained on.

"The backbone is the modified AlexNet pretrained from ImageNet" (paper, section 5.1).
Only the backbone is kept; the classifier is one dense layer on its mean features.
"""

import functools
from collections.abc import Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from siamrpn_jax.model.backbone import Backbone
from siamrpn_jax.model.network import normalise
from siamrpn_jax.model.promotion import standard_promotion
from siamrpn_jax.training.batch import LabelledBatch
from siamrpn_jax.training.config import ClassifierConfig, ClassifierTrainConfig
from siamrpn_jax.training.step import Metrics, TrainState


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

    @standard_promotion
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

    @standard_promotion
    def init_variables(self, rng: jax.Array) -> dict:
        """Fresh ``{"params": …, "batch_stats": …}``."""
        size = self.config.image_size
        return jax.jit(self.init)(rng, jnp.zeros((1, size, size, 3), jnp.uint8))


@standard_promotion
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
    """Softmax cross-entropy, the mean over the global batch; a ``step.Loss``."""
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
@standard_promotion
def label_ranks(
    variables: Any, batch: LabelledBatch, *, model: Classifier
) -> jax.Array:
    """How many classes the network prefers to the right one, int32 ``[B]``."""
    logits: Any = model.apply(variables, batch.image)
    right = jnp.take_along_axis(logits, batch.label[:, None], axis=-1)
    # A network that prefers none must not count as right, nor one that gives NaN.
    return (~(logits < right)).sum(-1) - 1
