"""The networks of the presets in PyTorch, with our variables.

Written as people write them there: channels_last, one grouped convolution for the
correlation, BatchNorm folded for tracking, ``torch.nn.BatchNorm2d`` for training.
Importing this module needs PyTorch.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np

from experiments.benchmarks.cases import anchor_major
from siamrpn_jax.common.errors import MissingExtraError, require
from siamrpn_jax.model.config import (
    RIM,
    ModelConfig,
    describe_layers,
    fine_layers,
)
from siamrpn_jax.model.rpn import SCORE_GAIN

torch: Any = require("torch", extra="bench")
F = torch.nn.functional
Tensor = Any
Detect = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Search patches to logits ``[B, 2K, F, F]`` and offsets ``[B, 4K, F, F]``."""


class TorchSiamRPN(torch.nn.Module):
    """Takes patches ``[B, 3, n, n]`` of grey levels, RGB.

    Args:
        config: the network; every kind of backbone, and the heads that find boxes.
        variables: ours, ``{"params": …, "batch_stats": …}``.
        frozen_layers: backbone layers without gradient, their statistics fixed.
        joint: take batch statistics over exemplar and search maps together, as ours
            does, in plain tensor operations; else of each branch by itself, in
            PyTorch's own layer, which is what is timed.
    """

    def __init__(
        self,
        config: ModelConfig,
        variables: Any,
        *,
        frozen_layers: int = 0,
        joint: bool = False,
    ):
        super().__init__()
        params, stats = jax.device_get((variables["params"], variables["batch_stats"]))
        self.kind, self.width = config.head.kind, config.head.width
        self.template_relu = config.head.template_relu
        self.plan = describe_layers(config.backbone)
        self.fine = fine_layers(config.backbone)
        self.frozen_layers = frozen_layers

        def make(part: str, name: str, bn: str, **options: Any) -> _TorchLayer:
            given = params[part], stats.get(part, {}), name, bn
            return _TorchLayer(*given, joint=joint, **options)

        self.layers = torch.nn.ModuleList(
            make(
                *("backbone", f"conv{i}", f"bn{i}"),
                stride=layer.stride,
                padding=layer.size // 2 if layer.padded else 0,
                depthwise=layer.depthwise,
            )
            for i, layer in enumerate(self.plan, start=1)
        )
        self.neck = make("neck", "conv1", "bn1") if config.neck_width else None
        names = [name for name, own in params["head"].items() if "kernel" in own]
        self.head = torch.nn.ModuleDict(
            {name: make("head", name, f"{name}_bn") for name in names}
        )
        if self.kind == "up_channel":
            for name in ("template_cls", "template_reg"):
                _outputs_first(self.head[name].conv, self.width)
        if self.kind == "hybrid":
            self.bias = torch.nn.Parameter(torch.zeros(1))
            _copy(self.bias, params["head"]["bias"])
        for name in ("mean", "std"):
            value = torch.tensor(getattr(config.input, name)).reshape(1, 3, 1, 1)
            self.register_buffer(name, value)
        for layer in self.layers[:frozen_layers]:
            layer.requires_grad_(False)

    def forward(
        self, z: Tensor, x: Tensor, in_batch: bool = False
    ) -> tuple[Tensor, ...]:
        """Pairs to logits and offsets, and logits with the previous pair's exemplar."""
        features_z, features_x = self.features(z, x)
        cls, reg = self.kernels(features_z)
        logits, deltas = self.correlate(features_x, cls, reg)
        if not in_batch:
            return logits, deltas
        return logits, deltas, self._branch("cls", features_x, cls.roll(1, 0))

    def embed_template(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Exemplar patches to the kernels of both branches."""
        return self.kernels(self.features(z)[0])

    def detect(self, x: Tensor, cls: Tensor, reg: Tensor) -> tuple[Tensor, Tensor]:
        """Search patches to logits and offsets."""
        return self.correlate(self.features(x)[0], cls, reg)

    def features(self, *maps: Tensor) -> list[Tensor]:
        """Backbone and neck, on patches of one or two sizes."""
        dtype = self.layers[0].conv.weight.dtype
        out = [((x - self.mean) / self.std).to(dtype) for x in maps]
        inputs = [out]  # of each layer
        for layer, plan in zip(self.layers, self.plan, strict=True):
            out = layer(*out)
            if plan.pool:
                out = [F.max_pool2d(y, 3, 2) for y in out]
            if plan.shortcut:
                pairs = zip(inputs[-plan.shortcut], out, strict=True)
                out = [_add_shortcut(y, x) for x, y in pairs]
            if plan.activation != "none":
                activate = F.relu if plan.activation == "relu" else F.relu6
                out = [activate(y) for y in out]
            inputs.append(out)
        if self.fine:
            pairs = zip(inputs[self.fine], out, strict=True)
            out = [_join(fine, coarse) for fine, coarse in pairs]
        return self.neck(*out) if self.neck else out

    def kernels(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Exemplar features to ``[B, O, C, h, w]``, or ``[B, C, h, w]`` (depthwise)."""
        if self.kind == "hybrid":
            return features, self.head["template_reg"](features)[0]
        maps = [self.head[f"template_{name}"](features)[0] for name in ("cls", "reg")]
        if self.kind == "up_channel":
            maps = [y.reshape(len(y), -1, self.width, *y.shape[2:]) for y in maps]
        elif self.template_relu:
            maps = [F.relu(y) for y in maps]
        return maps[0], maps[1]

    def correlate(
        self, features: Tensor, cls: Tensor, reg: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Search features and kernels to logits and offsets."""
        return self._branch("cls", features, cls), self._branch("reg", features, reg)

    def train(self, mode: bool = True) -> "TorchSiamRPN":
        """Training mode, but for the statistics of frozen layers."""
        super().train(mode)
        for layer in self.layers[: self.frozen_layers]:
            layer.eval()
        return self

    def fold(self) -> "TorchSiamRPN":
        """Puts the running statistics into the convolutions, in place."""
        for layer in self.all_layers():
            layer.fold()
        return self

    def all_layers(self) -> list["_TorchLayer"]:
        """Every convolution with its BatchNorm."""
        neck = [self.neck] if self.neck else []
        return [*self.layers, *neck, *self.head.values()]

    def _branch(self, name: str, features: Tensor, kernel: Tensor) -> Tensor:
        if self.kind == "hybrid" and name == "cls":
            score = grouped(features, kernel, len(kernel)).float()
            score = SCORE_GAIN * score + self.bias.float()
            return torch.cat([torch.zeros_like(score), score], 1)
        (y,) = self.head[f"search_{name}"](features)
        groups = len(kernel)
        if self.kind == "up_channel":
            return grouped(y, kernel.flatten(0, 1), groups)
        groups *= self.width
        y = grouped(F.relu(y), kernel.flatten(0, 1)[:, None], groups, len(kernel))
        (y,) = self.head[f"mix_{name}"](y)
        return self.head[f"out_{name}"](F.relu(y))[0]


class _TorchLayer(torch.nn.Module):
    """A convolution and, where there is one, its BatchNorm, on several maps."""

    def __init__(
        self,
        params: Any,
        stats: Any,
        conv: str,
        bn: str,
        *,
        stride: int = 1,
        padding: int = 0,
        depthwise: bool = False,
        joint: bool = False,
    ):
        super().__init__()
        kernel, bias = params[conv]["kernel"], params[conv].get("bias")
        size, _, channels, features = kernel.shape
        groups = features if depthwise else 1
        self.conv = torch.nn.Conv2d(
            *(channels * groups, features, size, stride, padding),
            groups=groups,
            bias=bias is not None,
        )
        _copy(self.conv.weight, kernel.transpose(3, 2, 0, 1))
        if bias is not None:
            _copy(self.conv.bias, bias)
        self.bn, self.joint = None, joint
        if bn in params:
            self.bn = torch.nn.BatchNorm2d(features)
            _copy(self.bn.weight, params[bn]["scale"])
            _copy(self.bn.bias, params[bn]["bias"])
            _copy(self.bn.running_mean, stats[bn]["mean"])
            _copy(self.bn.running_var, stats[bn]["var"])

    def forward(self, *maps: Tensor) -> list[Tensor]:
        out = [self.conv(x) for x in maps]
        if self.bn is None:
            return out
        if self.joint and self.training:
            return _normalise_jointly(self.bn, out)
        return [self.bn(y) for y in out]

    def fold(self) -> None:
        """Puts the running statistics into the convolution."""
        if self.bn is not None:
            self.conv = torch.nn.utils.fuse_conv_bn_eval(self.conv, self.bn)
            self.bn = None


@functools.cache
def device() -> str:
    """Where PyTorch runs: beside JAX."""
    gpu = jax.default_backend() == "gpu"
    if gpu and not torch.cuda.is_available():
        raise MissingExtraError("this PyTorch has no CUDA")
    return "cuda" if gpu else "cpu"


def tracking_network(
    config: ModelConfig, variables: Any, *, dtype: str = "float32"
) -> TorchSiamRPN:
    """The network for tracking: BatchNorm folded, channels_last, no gradients."""
    if device() == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")  # TF32, as XLA and cuDNN do
    network = TorchSiamRPN(config, variables).eval().fold()
    network = network.requires_grad_(False).to(device())
    for module in network.all_layers():
        module.to(dtype=getattr(torch, dtype), memory_format=torch.channels_last)
    return network


def to_torch(patches: np.ndarray) -> Tensor:
    """``[B, H, W, C]`` to ``[B, C, H, W]``, channels_last, where PyTorch runs."""
    return torch.from_numpy(patches).permute(0, 3, 1, 2).to(device())


def to_ours(outputs: tuple[Tensor, ...]) -> list[np.ndarray]:
    """Logits and offsets in our layout; see ``cases.anchor_major``."""
    return anchor_major([y.detach().float().cpu().numpy() for y in outputs])


def detector(
    network: TorchSiamRPN,
    z: Tensor,
    *,
    how: Literal["eager", "compiled", "graph"] = "eager",
    x: Tensor = None,
) -> Detect:
    """The search branch for the exemplars ``z``; returns when the device is done.

    Args:
        network: from ``tracking_network``.
        z: exemplar patches.
        how: ``graph``: a CUDA graph; ``compiled``: torch.compile, with CUDA graphs on
            a GPU.
        x: search patches as they will come; for ``graph``.
    """
    with torch.inference_mode():
        kernels = network.embed_template(z)
    detect: Detect = lambda x: network.detect(x, *kernels)  # noqa: E731
    if how == "compiled":
        mode = "reduce-overhead" if device() == "cuda" else "default"
        detect = torch.compile(detect, mode=mode)
    elif how == "graph":
        detect = _cuda_graph(detect, x)

    def call(x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            outputs = detect(x)
        synchronise()
        return outputs

    return call


def synchronise() -> None:
    """Waits for the GPU, if there is one."""
    if device() == "cuda":
        torch.cuda.synchronize()


def _cuda_graph(detect: Detect, x: Tensor) -> Detect:
    static = x.clone()
    with torch.inference_mode():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):  # cuDNN chooses its algorithms before the capture
                detect(static)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = detect(static)

    def replay(x: Tensor) -> tuple[Tensor, Tensor]:
        static.copy_(x)
        graph.replay()
        return outputs

    return replay


def grouped(x: Tensor, kernels: Tensor, groups: int, batch: int = 0) -> Tensor:
    """Each sample with its own kernels, as one grouped convolution."""
    batch = batch or groups
    y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), kernels, groups=groups)
    return y.reshape(batch, -1, *y.shape[2:])


def _add_shortcut(y: Tensor, x: Tensor) -> Tensor:
    cut = (x.shape[-1] - y.shape[-1]) // 2
    return y + (x[:, :, cut:-cut, cut:-cut] if cut else x)


def _join(fine: Tensor, coarse: Tensor) -> Tensor:
    """Features of two strides side by side, without the rim that saw the padding."""
    size = fine.shape[-2:]
    coarse = F.interpolate(coarse, size=size, mode="bilinear", align_corners=True)
    return torch.cat([fine, coarse], 1)[:, :, RIM:-RIM, RIM:-RIM]


def _normalise_jointly(bn: Any, maps: list[Tensor]) -> list[Tensor]:
    rows = torch.cat([y.transpose(0, 1).flatten(1) for y in maps], 1)
    var, mean = torch.var_mean(rows, 1, correction=0)
    factor = bn.weight * torch.rsqrt(var + bn.eps)
    offset = bn.bias - mean * factor
    return [y * factor[:, None, None] + offset[:, None, None] for y in maps]


def _outputs_first(conv: Any, width: int) -> None:
    """Reorders the outputs of a template layer from ``[C, O]`` to ``[O, C]``."""
    for value in (conv.weight, conv.bias):
        rows = value.detach().reshape(width, -1, *value.shape[1:]).transpose(0, 1)
        _copy(value, rows.reshape(value.shape).numpy())


def _copy(to: Tensor, values: np.ndarray) -> None:
    with torch.no_grad():
        to.copy_(torch.from_numpy(np.array(values)))
