"""Who searches a patch: the same work, from grey levels to logits and offsets.

Exemplars are fixed, and their kernels are made before.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import cases
from experiments.benchmarks.cases import Network, anchor_major
from experiments.benchmarks.session import Contestant, Running
from experiments.benchmarks.torch_tracker import Net
from siamrpn_jax.common.errors import require
from siamrpn_jax.model import fused

OURS = "ours"
TORCH = "torch eager"
TORCH_BF16 = "torch eager bfloat16"
TORCH_COMPILED = "torch compiled"
ONNXRUNTIME = "onnxruntime"
OPENVINO = "OpenVINO"
LITERT = "LiteRT"


def on_gpu() -> bool:
    """Whether JAX runs on a GPU."""
    return jax.default_backend() == "gpu"


def tolerance(dtype: str = "float32") -> float:
    """How equal outputs must be; a GPU multiplies float32 as TF32, of 10 bits."""
    if dtype == "bfloat16":
        return 0.15
    return 2e-2 if on_gpu() else 1e-4


def searchers(
    net: Network, count: int, *, threads: int, compiled: bool = False
) -> list[Contestant]:
    """Who searches ``count`` patches, each for its own exemplar, in one call.

    With ``compiled`` torch.compile, which takes long to prepare, else all others.
    """
    z, x = cases.patches(net.model.config, count)
    entries: list[Contestant] = []

    def add(
        name: str, make: Callable[..., Running], net: Network, **options: Any
    ) -> None:
        rough = "bfloat16" if "bfloat16" in name else "float32"
        seconds = 45 if "compiled" in name else 0
        build = functools.partial(make, net, z, x, **options)
        entries.append(Contestant(name, build, tolerance(rough), seconds))

    add(OURS, our_search, net)
    add(TORCH, torch_search, net)
    if compiled:
        add(TORCH_COMPILED, torch_search, net, how="compiled")
        if on_gpu():
            bf16 = dict(how="compiled", dtype="bfloat16")
            add("torch compiled bfloat16", torch_search, net, **bf16)
        return entries
    if count == 1:
        xla = net.with_config(conv_impl="xla")
        add(ONNXRUNTIME, onnx_search, net, threads=threads)
        add("ours, Flax module", our_search, net, fuse=False)
        add("ours, Flax module, conv_impl xla", our_search, xla, fuse=False)
    if on_gpu():
        add("ours bfloat16", our_search, net.with_config(dtype="bfloat16"))
        add("torch CUDA graph", torch_search, net, how="graph")
        bf16 = dict(how="graph", dtype="bfloat16")
        add("torch CUDA graph bfloat16", torch_search, net, **bf16)
    elif count == 1:
        add(OPENVINO, openvino_search, net, threads=threads)
        bf16 = dict(threads=threads, dtype="bfloat16")
        add(f"{OPENVINO} bfloat16", openvino_search, net, **bf16)
        add(LITERT, litert_search, net, threads=threads)
        add("OpenCV DNN", onnx_search, net, threads=None)
    add(TORCH_BF16, torch_search, net, dtype="bfloat16")
    return entries


def our_search(
    net: Network, z: np.ndarray, x: np.ndarray, *, fuse: bool = True
) -> Running:
    """Ours: with fused weights, or the Flax module."""
    model, patches = net.model, jax.device_put(x)
    weights: Any = net.variables
    if fuse:
        weights = fused.fuse(model, net.variables)
        embed_template = functools.partial(fused.embed_template, model)
        detect = functools.partial(fused.detect, model)
    else:
        embed_template = functools.partial(model.apply, method="embed_template")
        detect = functools.partial(model.apply, method="detect")
    template = jax.jit(embed_template)(weights, z)
    jitted = jax.jit(detect)

    def call() -> Any:
        return jax.block_until_ready(jitted(weights, template, patches))

    def check() -> list[np.ndarray]:
        detection = call()
        return jax.device_get([detection.cls_logits, detection.reg_deltas])

    return Running(call, check)


def torch_search(net: Network, z: np.ndarray, x: np.ndarray, **options: Any) -> Running:
    """PyTorch; options of ``_open_torch``."""
    from experiments.benchmarks.torch_models import to_ours, to_torch

    detect, patches = _open_torch(net, z, x, **options), to_torch(x)
    return Running(lambda: detect(patches), lambda: to_ours(detect(patches)))


def onnx_search(
    net: Network, z: np.ndarray, x: np.ndarray, *, threads: int | None
) -> Running:
    """ONNX Runtime with a number of threads, or OpenCV's DNN module for None."""
    detect, patches = _open_onnx(net, z, threads), _nchw(x)
    return Running(lambda: detect(patches), lambda: anchor_major(detect(patches)))


def openvino_search(
    net: Network, z: np.ndarray, x: np.ndarray, *, threads: int, dtype: str = "float32"
) -> Running:
    """OpenVINO; the precision is a hint that it follows where the processor has it."""
    from experiments.benchmarks import onnx_models as onnx

    model, patches = _export_onnx(net, z), _nchw(x)
    detect = onnx.open_openvino(model, threads=threads, dtype=dtype)
    return Running(lambda: detect(patches), lambda: anchor_major(detect(patches)))


def litert_search(
    net: Network, z: np.ndarray, x: np.ndarray, *, threads: int
) -> Running:
    """LiteRT with XNNPACK."""
    from siamrpn_jax.deploy import litert

    runtime: Any = require("ai_edge_litert.interpreter", extra="litert")
    model = net.with_config(conv_impl="xla").model
    template = fused.embed_template(model, net.variables, jax.numpy.asarray(z))

    def search(inputs: dict[str, Any]) -> dict[str, Any]:
        detection = fused.detect(model, net.variables, template, inputs["x"])
        return {"cls": detection.cls_logits, "reg": detection.reg_deltas}

    patches = np.asarray(x, np.float32)
    shapes = {"x": jax.ShapeDtypeStruct(patches.shape, np.float32)}
    (made,) = litert.convert({"search": (search, shapes)}).values()
    opened = runtime.Interpreter(model_content=made.data, num_threads=threads)
    run = opened.get_signature_runner()

    def call() -> list[np.ndarray]:
        found = run(x=patches)
        return [found["cls"], found["reg"]]

    return Running(call, call)


def torch_net(net: Network, z: np.ndarray, **options: Any) -> Net:
    """PyTorch for a ``HostTracker``: host patch to host outputs."""
    from experiments.benchmarks.torch_models import to_ours, to_torch

    size = net.model.config.instance_size
    x = np.zeros((1, size, size, 3), np.float32)
    detect = _open_torch(net, z, x, **options)
    return lambda patch: to_ours(detect(to_torch(patch).float()))


def onnx_net(net: Network, z: np.ndarray, *, threads: int) -> Net:
    """ONNX Runtime for a ``HostTracker``."""
    detect = _open_onnx(net, z, threads)
    return lambda patch: anchor_major(detect(_nchw(patch)))


def _open_torch(
    net: Network,
    z: np.ndarray,
    x: np.ndarray,
    *,
    dtype: str = "float32",
    how: Any = "eager",
) -> Any:
    from experiments.benchmarks import torch_models as torch

    network = torch.tracking_network(net.model.config, net.variables, dtype=dtype)
    return torch.detector(network, torch.to_torch(z), how=how, x=torch.to_torch(x))


def _open_onnx(net: Network, z: np.ndarray, threads: int | None) -> Any:
    from experiments.benchmarks import onnx_models as onnx

    model = _export_onnx(net, z)
    if threads is None:
        return onnx.open_opencv(model)
    return onnx.open_onnxruntime(model, threads=threads)


def _export_onnx(net: Network, z: np.ndarray) -> bytes:
    from experiments.benchmarks import onnx_models as onnx
    from experiments.benchmarks.torch_models import TorchSiamRPN, torch

    config = net.model.config
    network = TorchSiamRPN(config, net.variables)
    module = onnx.Search(network, torch.from_numpy(_nchw(z)))
    size = config.instance_size
    return onnx.export(module, torch.zeros(1, 3, size, size))


def _nchw(patches: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(patches.transpose(0, 3, 1, 2), np.float32)
