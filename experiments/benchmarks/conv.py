"""Section ``conv``: each convolution of the networks by itself, and the correlation."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import cases
from experiments.benchmarks import contestants as who
from experiments.benchmarks.session import Contestant, Running, Session
from siamrpn_jax.model import convolutions, rpn
from siamrpn_jax.model.config import ModelConfig

Function = Callable[..., Any]
Maker = Callable[[], Running]

_BATCH = 4
"""Pairs in the gradients."""


class Layer(NamedTuple):
    """A convolution of the search branch."""

    name: str
    side: int
    """Side of its input."""
    channels: int
    features: int
    size: int
    stride: int


def run(session: Session) -> None:
    """The whole section."""
    for net in cases.plain_networks(session.presets):
        for layer in layers(net.model.config, net.variables["params"]):
            _layer(session, net.name, layer)
    if "paper" in session.presets:
        _correlation(session)


def layers(config: ModelConfig, params: Any) -> Iterator[Layer]:
    """The convolutions that a search patch meets, with the sizes of their inputs."""
    alexnet = config.backbone.kind == "alexnet"
    strides, side = [2] if alexnet else [4, 2], config.instance_size
    for i in range(len(config.backbone.widths)):
        size, _, channels, features = params["backbone"][f"conv{i + 1}"]["kernel"].shape
        stride = strides[i] if i < len(strides) else 1
        yield Layer(f"conv{i + 1}", side, channels, features, size, stride)
        side = (side - size) // stride + 1
        if alexnet and i < 2:
            side = (side - 3) // 2 + 1
    size, _, channels, features = params["head"]["search_cls"]["kernel"].shape
    yield Layer("search_cls", side, channels, features, size, 1)


def _layer(session: Session, preset: str, layer: Layer) -> None:
    """Forward on one patch as in tracking, gradients on several as in training."""
    rng, stride = np.random.default_rng(0), layer.stride
    shape = layer.size, layer.size, layer.channels, layer.features
    kernel = rng.normal(0, np.prod(shape[:3]) ** -0.5, shape).astype(np.float32)
    maps = _BATCH, layer.side, layer.side, layer.channels
    x = rng.normal(size=maps).astype(np.float32)

    def ours(impl: Any) -> Function:
        return functools.partial(convolutions.conv2d, stride=stride, impl=impl)

    def torch(x: Any, kernel: Any) -> Any:
        from experiments.benchmarks.torch_models import F

        return F.conv2d(x, kernel, stride=stride)

    plain = {"ours, winograd": ours("winograd"), "ours, xla": ours("xla")}
    prepared = convolutions.transform_kernel(jnp.asarray(kernel), stride=stride)
    one = x[:1]
    entries = {
        who.OURS: lambda: _jitted(convolutions.conv2d_transformed, one, prepared)
    }
    entries |= {name: _maker(f, one, kernel) for name, f in plain.items()}
    entries[who.TORCH] = lambda: _torch(torch, one, kernel)
    entries[who.ONNXRUNTIME] = lambda: _onnx(one, kernel, stride, session.threads)
    title = f"{preset}, {_title(layer)}, batch"
    _race(session, f"{title} 1", entries)

    g = np.array(ours("xla")(x, kernel))
    functions = {who.OURS: ours("auto"), **plain}
    entries = {n: _maker(_gradients(f), x, kernel, g) for n, f in functions.items()}
    entries[who.TORCH] = lambda: _torch(torch, x, kernel, g)
    _race(session, f"{title} {_BATCH}, gradients", entries)


def _correlation(session: Session) -> None:
    """The correlation of ``paper`` as it is while training."""
    rng, batch = np.random.default_rng(0), 2 * _BATCH
    x = rng.normal(size=(batch, 20, 20, 256)).astype(np.float32)
    kernel = rng.normal(0, 1 / 64, (batch, 4, 4, 256, 20)).astype(np.float32)

    def torch(x: Any, kernel: Any) -> Any:
        from experiments.benchmarks.torch_models import grouped

        return grouped(x, kernel.flatten(0, 1), len(kernel))

    functions: dict[str, Function] = {
        who.OURS: functools.partial(rpn.correlate, impl="taps"),
        "ours, correlation group": functools.partial(rpn.correlate, impl="group"),
    }
    g = np.array(functions[who.OURS](x, kernel))
    forward = {name: _maker(f, x, kernel) for name, f in functions.items()}
    forward[who.TORCH] = lambda: _torch(torch, x, kernel)
    _race(session, f"paper, correlation, batch {batch}", forward)
    backward = {n: _maker(_gradients(f), x, kernel, g) for n, f in functions.items()}
    backward[who.TORCH] = lambda: _torch(torch, x, kernel, g)
    _race(session, f"paper, correlation, batch {batch}, gradients", backward)


def _race(session: Session, title: str, makers: dict[str, Maker]) -> None:
    tolerance = 10 * who.tolerance()  # Winograd's rounding of one layer by itself
    contestants = [Contestant(name, make, tolerance) for name, make in makers.items()]
    session.race("conv", title, contestants, seconds=2)


def _gradients(function: Function) -> Function:
    """The gradients of both arguments, given that of the result."""
    return lambda x, kernel, g: jax.vjp(function, x, kernel)[1](g)


def _maker(function: Function, *arrays: Any) -> Maker:
    return lambda: _jitted(function, *arrays)


def _jitted(function: Function, *arrays: Any) -> Running:
    jitted, arrays = jax.jit(function), jax.device_put(arrays)
    return Running(
        lambda: jax.block_until_ready(jitted(*arrays)),
        lambda: jax.tree.leaves(jax.device_get(jitted(*arrays))),
    )


def _torch(
    function: Function, x: np.ndarray, kernel: np.ndarray, g: np.ndarray | None = None
) -> Running:
    """PyTorch, channels_last; with ``g`` the gradients, else the function itself."""
    from experiments.benchmarks import torch_models as torch

    # [..., h, w, C, O] to [..., O, C, h, w]
    kernel = np.ascontiguousarray(np.moveaxis(kernel, (-1, -2), (-4, -3)))
    leaves = torch.to_torch(x), torch.torch.from_numpy(kernel).to(torch.device())
    back: Any = [lambda y: y.permute(0, 2, 3, 1)]
    if g is not None:
        cotangent = torch.to_torch(g)
        leaves = tuple(leaf.clone().requires_grad_() for leaf in leaves)
        back += [lambda y: y.movedim((-4, -3), (-1, -2))]

    def call() -> Any:
        y = [function(*leaves)]
        if g is not None:
            y = torch.torch.autograd.grad(y, leaves, cotangent)
        torch.synchronise()
        return y

    def check() -> list[np.ndarray]:
        return [
            move(y.detach()).cpu().numpy() for move, y in zip(back, call(), strict=True)
        ]

    return Running(call, check)


def _onnx(x: np.ndarray, kernel: np.ndarray, stride: int, threads: int) -> Running:
    from experiments.benchmarks import onnx_models as onnx

    size, _, channels, features = kernel.shape
    conv = onnx.torch.nn.Conv2d(channels, features, size, stride, bias=False)
    conv.weight.data = onnx.torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
    patches = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    model = onnx.export(conv.requires_grad_(False), onnx.torch.from_numpy(patches))
    run = onnx.open_onnxruntime(model, threads=threads)
    return Running(
        lambda: run(patches), lambda: [run(patches)[0].transpose(0, 2, 3, 1)]
    )


def _title(layer: Layer) -> str:
    name, side, channels, features, size, stride = layer
    step = f"/{stride}" if stride > 1 else ""
    return f"{name} {size}x{size}{step} {side}x{side}x{channels} to {features}"
