"""The optimizer step of ``cases.PLAIN`` in PyTorch. Importing it needs PyTorch."""

from typing import Any

import numpy as np

from experiments.benchmarks.torch_models import (
    F,
    Tensor,
    TorchSiamRPN,
    device,
    synchronise,
    to_torch,
    torch,
)
from siamrpn_jax.model.config import ModelConfig
from siamrpn_jax.training.batch import Batch
from siamrpn_jax.training.config import LossConfig, TrainConfig
from siamrpn_jax.training.targets import Targets


class TorchTraining:
    """A network, its optimizer and one batch with its targets.

    Args:
        model: the network.
        variables: its first weights.
        config: optimizer and loss.
        batch: pairs, uint8.
        targets: of these pairs, on the host.
        joint: see ``TorchSiamRPN``.
        compiled: run forward and backward pass through torch.compile.
        bfloat16: under autocast.
    """

    def __init__(
        self,
        model: ModelConfig,
        variables: Any,
        config: TrainConfig,
        batch: Batch,
        targets: Targets,
        *,
        joint: bool = False,
        compiled: bool = False,
        bfloat16: bool = False,
    ):
        if device() == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")  # TF32, as XLA and cuDNN do
        self.device = device()
        frozen = config.optimizer.frozen_layers
        network = TorchSiamRPN(model, variables, frozen_layers=frozen, joint=joint)
        network = network.to(device(), memory_format=torch.channels_last).train()
        self.network, self.config, self.bfloat16 = network, config, bfloat16
        self.z, self.x = to_torch(batch.z), to_torch(batch.x)
        self.targets = [torch.from_numpy(np.array(a)).to(device()) for a in targets]
        self.params = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = _optimizer(self.params, config)
        self.average = None
        if config.optimizer.ema:
            self.average = [p.detach().clone() for p in self.params]
        self.loss = torch.compile(self._loss) if compiled else self._loss

    def step(self) -> list[np.ndarray]:
        """One step; loss and norm of the gradient before it."""
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        clip = self.config.optimizer.clip_norm or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.params, clip)
        self.optimizer.step()
        if self.average is not None:
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.params, 1e-3)
        synchronise()
        return [np.array(loss.item()), np.array(norm.item())]

    def _loss(self) -> Tensor:
        in_batch = self.config.losses.in_batch_negatives > 0
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bfloat16):
            outputs = self.network(self.z.float(), self.x.float(), in_batch)
        return total_loss(outputs, self.targets, self.config.losses)


def total_loss(
    outputs: tuple[Tensor, ...], targets: list[Tensor], config: LossConfig
) -> Tensor:
    """The loss of ``training.step.pair_loss``.

    Args:
        outputs: maps ``[B, 2K, F, F]``, ``[B, 4K, F, F]`` and, for in-batch negatives,
            ``[B, 2K, F, F]``.
        targets: those of ``Targets``, ``[B, N]``, ``[B, N]`` and ``[B, N, 4]``.
        config: weights of the terms.
    """
    positive, negative, wanted = targets
    logits, deltas = _by_anchor(outputs[0], 2), _by_anchor(outputs[1], 4)
    margin = logits[..., 1] - logits[..., 0]
    positives = _mean(F.softplus(-margin), positive)
    loss = 0.5 * (positives + _negatives(F.softplus(margin), negative, config))
    errors = (deltas - wanted).abs()
    if config.sigma is not None:
        errors = F.smooth_l1_loss(
            deltas, wanted, reduction="none", beta=1 / config.sigma**2
        )
    loss = loss + config.regression_weight * _mean(errors.sum(-1), positive)
    if config.in_batch_negatives:
        logits = _by_anchor(outputs[2], 2)
        in_batch = F.softplus(logits[..., 1] - logits[..., 0])
        everything = torch.ones_like(negative)
        loss = loss + config.in_batch_negatives * _negatives(
            in_batch, everything, config
        )
    return loss


def _by_anchor(maps: Tensor, values: int) -> Tensor:
    return maps.float().permute(0, 2, 3, 1).reshape(len(maps), -1, values)


def _negatives(losses: Tensor, mask: Tensor, config: LossConfig) -> Tensor:
    everything = _mean(losses, mask)
    if not config.hard_negatives:
        return everything
    hardest, index = torch.where(mask, losses, 0.0).topk(config.hard_negatives)
    return 0.5 * (everything + _mean(hardest, mask.gather(1, index)))


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def _optimizer(params: list[Tensor], config: TrainConfig) -> Any:
    """Weight decay on kernels only; in PyTorch's fused kernels."""
    settings = config.optimizer
    groups = [
        {
            "params": [p for p in params if p.ndim == 4],
            "weight_decay": settings.weight_decay,
        },
        {"params": [p for p in params if p.ndim != 4], "weight_decay": 0.0},
    ]
    rate = settings.learning_rate
    if settings.kind == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, fused=True)
    betas = settings.momentum, settings.second_moment
    return torch.optim.AdamW(groups, lr=rate, betas=betas, fused=True)
