"""Configs of training. No JAX is loaded here: the command line shows these options."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from siamrpn_jax.common.errors import InputError, check_least, check_range
from siamrpn_jax.model.config import BackboneConfig, ConvImpl, InputConfig, feature_size


@dataclasses.dataclass(frozen=True)
class TargetConfig:
    """How anchors are labelled and sampled."""

    positive_iou: float = 0.6
    """Anchors that overlap the target more than this are positive (``th_hi``)."""
    negative_iou: float = 0.3
    """Anchors that overlap the target less than this are negative (``th_lo``)."""
    force_best: bool = False
    """Make the best anchor positive too if it reaches ``negative_iou``.

    Without it, targets longer than about 4:1 have no positive anchor at all.
    """
    radius: float = 16.0
    """With a ``cross_correlation`` or ``hybrid`` head, whose scores are of cells: those
    at most this many pixels of the search patch from the target's centre are positive,
    all others negative (R of SiamFC)."""
    max_positives: int | None = 16
    """At most this many positive anchors of a pair count, drawn at random; None:
    all."""
    max_samples: int | None = 64
    """At most this many anchors of a pair count: its positives, and negatives drawn at
    random; None: all."""

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        check_range(self, 0, 1, "positive_iou", "negative_iou")
        check_least(self, 0, "radius")
        check_range(self, 0, math.inf, "max_positives", "max_samples")
        if self.positive_iou < self.negative_iou:
            raise InputError(
                f"positive_iou is {self.positive_iou}, expected at least negative_iou, "
                f"{self.negative_iou}"
            )


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms; the paper gives no values for them."""

    FORMER: ClassVar = {"rolled_negatives": "in_batch_negatives"}
    """Fields of older files, and their present names."""

    regression_weight: float = 1.2
    """λ of Eq. 5, for the sum over four coordinates and the mean over positives."""
    sigma: float | None = 1.0
    """σ of the smooth L1 loss (Eq. 4); None takes plain L1, its limit for large σ."""
    giou_weight: float = 0.0
    """Weight of 1 - GIoU of the predicted boxes, mean over positives: errors of all
    four coordinates then count by what they cost in overlap."""
    score_target: Literal["one", "iou"] = "one"
    """What the score of a positive anchor learns: 1, as in the paper, or the overlap of
    its predicted box with the target; then the best score is that of the best box."""
    hard_negatives: int = 0
    """Half of the negatives' weight is for this many hardest ones a pair; 0: off."""
    in_batch_negatives: float = 0.0
    """Weight of the in-batch negatives: each search patch is also classified with the
    exemplar of another pair of the batch, whose target it does not show."""
    teacher_weight: Annotated[float, tyro.conf.arg(aliases=("--teacher-weight",))] = 0.5
    """Weight of what a teacher says, if the data has one: in each cell of the score map
    the best anchor's score learns how likely the target is there."""

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        check_range(self, 1e-6, math.inf, "sigma")
        check_least(self, 0, "regression_weight", "giou_weight", "hard_negatives")
        check_least(self, 0, "in_batch_negatives", "teacher_weight")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer and learning rate; the rate is that of the global batch."""

    kind: Literal["sgd", "adamw"] = "sgd"
    """``sgd``: with momentum, the paper's; ``adamw``."""
    learning_rate: float = 1e-2
    """Rate of the first epoch (after warm-up)."""
    final_learning_rate: float = 1e-6
    """Rate of the last epoch."""
    schedule: Literal["exponential", "cosine"] = "exponential"
    """``exponential``: constant within an epoch, falling by the same factor from one to
    the next ("log space" of section 5.1); ``cosine``: at every step."""
    warmup_steps: int = 0
    """Steps over which the rate first rises linearly to the schedule's."""
    momentum: float = 0.9
    """Momentum of SGD, or decay of AdamW's first moment."""
    second_moment: float = 0.99
    """AdamW's decay of the second moment."""
    weight_decay: float = 1e-4
    """Weight decay, applied to kernels only, not to biases and BatchNorm; AdamW's is
    decoupled."""
    clip_norm: float | None = 10.0
    """Largest global norm of the gradient; None: no clipping."""
    frozen_layers: int = 3
    """Number of first backbone layers that stay as they are, BatchNorm statistics too.
    Only sensible if they come from trained weights; 0 trains all."""
    frozen_statistics: bool = False
    """Keep the running BatchNorm averages of the backbone's layers although the layers
    train: usual when a backbone from ImageNet is tuned in small batches. Needs trained
    weights."""
    trained: tuple[str, ...] = ()
    """Parts to train: ``backbone``, ``head``, or layers such as ``backbone/conv5``,
    each with its BatchNorm; all others stay as they are. Default: all but the frozen
    layers."""
    ema: float | None = None
    """Decay of the exponential moving average of the weights, which is then what is
    evaluated and released; None: no average."""

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        check_least(self, 1e-12, "learning_rate", "final_learning_rate")
        check_least(self, 0, "warmup_steps", "weight_decay", "frozen_layers")
        check_range(self, 0, 1, "momentum", "second_moment", "ema")
        check_range(self, 1e-12, math.inf, "clip_norm")


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """How any network is trained, and for how long."""

    optimizer: OptimizerConfig = OptimizerConfig()
    epochs: int = 50
    """Number of epochs; the schedule of the learning rate spans all of them."""
    steps_per_epoch: int = 4688
    """Optimizer steps in an epoch; the preset ``paper`` sees 600,000 pairs in one."""

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        check_least(self, 1, "epochs", "steps_per_epoch")


@dataclasses.dataclass(frozen=True)
class TrainConfig(ScheduleConfig):
    """What the step that trains a tracker needs to know; all of it static."""

    targets: TargetConfig = TargetConfig()
    losses: LossConfig = LossConfig()


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
    """Number of epochs; the schedule of the learning rate spans all of them."""
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


@dataclasses.dataclass(frozen=True)
class ProcessConfig:
    """Training in several processes, and which of them this one is."""

    coordinator: str | None = None
    """HOST:PORT of the first of several processes; ``auto``: JAX asks Slurm, Open MPI,
    Kubernetes or Cloud TPU. None: JAX_COORDINATOR_ADDRESS, else a single process."""
    processes: int | None = None
    """Number of processes; None: JAX_NUM_PROCESSES."""
    process_index: int | None = None
    """Which one this is, from 0; None: JAX_PROCESS_ID."""
    start_timeout: int = 300
    """Seconds within which all processes must have started."""
    heartbeat_timeout: int = 100
    """Seconds without a sign of life after which a process counts as dead."""

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        check_least(self, 1, "start_timeout", "heartbeat_timeout")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where and how a run goes on; nothing of it decides what weights come out."""

    out: Path = Path("runs/train")
    """Folder of the run."""
    resume: bool = False
    """Continue the run in ``out`` from its newest checkpoint."""
    checkpoint: int | None = None
    """With ``resume``: the step of an older checkpoint to continue from. What was saved
    after it is removed."""
    workers: int = 0
    """Processes that make batches; 0: threads of this process."""
    threads: int = 2
    """Threads that make batches, in each process."""
    devices: int | None = None
    """Number of devices that share the batch; default all. With several processes it is
    always all."""
    log_every: int = 20
    """Steps between two lines of metrics."""
    checkpoint_minutes: float = 5.0
    """Minutes between two checkpoints; there is one more at the end."""
    process: Annotated[ProcessConfig, tyro.conf.OmitArgPrefixes] = ProcessConfig()

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        check_least(self, 1, "threads", "log_every")
        check_least(self, 0, "workers", "checkpoint_minutes")
        if self.checkpoint is not None and not self.resume:
            raise InputError(f"checkpoint {self.checkpoint} is for --resume")
