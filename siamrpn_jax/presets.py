"""Named recipes: network, training, data and tracking constants that go together."""

import dataclasses
from collections.abc import Callable
from typing import Annotated

import tyro

from siamrpn_jax import published
from siamrpn_jax.common.configs import check_finite
from siamrpn_jax.common.errors import InputError, check_least
from siamrpn_jax.data.crops.windows import AugmentConfig, paper_augment, small_augment
from siamrpn_jax.data.pairs.pairs import DataConfig
from siamrpn_jax.model.config import (
    AnchorConfig,
    BackboneConfig,
    HeadConfig,
    InputConfig,
    ModelConfig,
)
from siamrpn_jax.tracking.config import TrackerConfig, check_memory
from siamrpn_jax.training.config import (
    LossConfig,
    OptimizerConfig,
    TargetConfig,
    TrainConfig,
)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides what weights come out of a training run."""

    train: Annotated[TrainConfig, tyro.conf.arg(name="")]
    data: DataConfig
    augment: AugmentConfig
    model: ModelConfig
    tracker: TrackerConfig
    batch_size: int
    """Pairs in an optimizer step, over all devices."""
    seed: int = 0
    """Seed of the first weights and of random choices in the step; the data have a seed
    of their own."""

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        check_finite(self)
        check_least(self, 1, "batch_size")
        check_memory(self.model.head, self.tracker)
        anchors = self.model.score_size**2 * len(self.model.anchors.ratios)
        wanted = self.train.losses.hard_negatives
        if wanted > anchors:
            raise InputError(
                f"hard_negatives is {wanted}, expected at most {anchors}, the "
                "number of this network's anchors"
            )


def paper() -> Recipe:
    """SiamRPN as published: AlexNet, up-channel head, SGD, 50 epochs of 600,000 pairs.

    Where the paper is silent: PySOT's and DaSiamRPN's values (see ARCHITECTURE.md).
    """
    return Recipe(
        train=TrainConfig(),
        data=DataConfig(  # "less than 100" frames apart (section 5.1)
            video=1.0, stills=0.0, composites=0.0, max_interval=99
        ),
        augment=paper_augment(),
        model=ModelConfig(),
        tracker=TrackerConfig(),
        batch_size=128,
    )


def small() -> Recipe:
    """A small network of 0.59 M parameters, which trains and runs on a laptop.

    Strided stem, residual 3x3 layers, depthwise head; hard and in-batch negatives,
    AdamW, averaged weights. Eight short epochs, which is enough for generated scenes.
    """
    return Recipe(
        train=TrainConfig(
            targets=TargetConfig(force_best=True, max_positives=None, max_samples=None),
            losses=LossConfig(sigma=None, hard_negatives=32, in_batch_negatives=0.25),
            optimizer=OptimizerConfig(
                kind="adamw",
                learning_rate=2e-3,
                final_learning_rate=1e-5,
                schedule="cosine",
                warmup_steps=150,
                weight_decay=0.02,
                clip_norm=5.0,
                frozen_layers=0,
                ema=0.999,
            ),
            epochs=8,
            steps_per_epoch=200,
        ),
        data=DataConfig(),
        augment=small_augment(),
        model=ModelConfig(
            backbone=BackboneConfig(
                kind="compact", widths=(48, 96, 128, 128, 128), bn_momentum=0.98
            ),
            head=HeadConfig(kind="depthwise", width=128, kernel_size=1),
            anchors=AnchorConfig(base_size=46.0),
            exemplar_size=92,
            instance_size=188,
        ),
        tracker=TrackerConfig(min_size=4.0),
        batch_size=16,
    )


def base() -> Recipe:
    """A small network on features of ImageNet's: 0.77 M parameters, 0.43 GFLOP.

    EfficientNet-Lite0 up to stride 16, which stays as it is, a neck, and a hybrid head,
    whose kernels keep learning while they track.
    Meant for ``--backbone efficientnet-lite0-57934424.pth``; from nothing all of it
    trains.
    """
    recipe = small()
    train = recipe.train
    return dataclasses.replace(
        recipe,
        train=dataclasses.replace(
            train,
            targets=dataclasses.replace(train.targets, radius=11.6),
            losses=dataclasses.replace(train.losses, giou_weight=1.5),
            optimizer=dataclasses.replace(train.optimizer, frozen_layers=33),
        ),
        model=ModelConfig(
            backbone=published.efficientnet_lite0(),
            neck_width=128,
            head=HeadConfig(kind="hybrid", width=128, kernel_size=1),
            anchors=AnchorConfig(base_size=46.0, ratios=(1.0,)),
            input=published.LITE,
            exemplar_size=97,
            instance_size=193,
        ),
        tracker=dataclasses.replace(recipe.tracker, online_frames=16),
    )


def pysot() -> Recipe:
    """PySOT's ``siamrpn_alex_dwxcorr``: for its weights, to train on from them.

    Like PySOT's training: plain L1; a twentieth of the rate from the first epoch to the
    last. Its sum of gradients over 16 GPUs is a rate 16 times as high as it says.
    """
    recipe = paper()
    optimizer = OptimizerConfig(learning_rate=1e-2, final_learning_rate=5e-4)
    train = TrainConfig(losses=LossConfig(sigma=None), optimizer=optimizer)
    return dataclasses.replace(
        recipe,
        train=train,
        model=published.pysot_model(head="depthwise"),
        tracker=published.pysot_tracker(),
    )


def dasiamrpn() -> Recipe:
    """DaSiamRPN's network, of usual width, for its weights; trained as the paper's."""
    return dataclasses.replace(
        paper(),
        model=published.dasiamrpn_model(),
        tracker=published.dasiamrpn_tracker("vot"),
    )


def siamfc() -> Recipe:
    """SiamFC (Bertinetto et al., ECCV workshops 2016), the baseline of the paper.

    No boxes: a score map, logistic loss, and a search over scales. 50 epochs of 50,000
    pairs in batches of 8, from nothing; BatchNorm after the last layer too.
    """
    recipe = paper()
    optimizer = OptimizerConfig(
        final_learning_rate=1e-5, weight_decay=5e-4, frozen_layers=0
    )
    return dataclasses.replace(
        recipe,
        train=TrainConfig(optimizer=optimizer, steps_per_epoch=6250),
        data=dataclasses.replace(recipe.data, max_interval=100),
        model=dataclasses.replace(published.siamfc_model(), input=InputConfig()),
        tracker=published.siamfc_tracker(),
        batch_size=8,
    )


PRESETS: dict[str, Callable[[], Recipe]] = {
    "small": small,
    "base": base,
    "paper": paper,
    "pysot": pysot,
    "dasiamrpn": dasiamrpn,
    "siamfc": siamfc,
}
"""Every recipe by the name that the command line takes."""
