"""The search branch as an ONNX model, in ONNX Runtime, OpenVINO and OpenCV's DNN.

Exported from the PyTorch twin; the target's kernels are constants of the graph, which
lets all engines prepare them like any other weights.
"""

import io
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import jax
import numpy as np

from experiments.benchmarks.torch_models import TorchSiamRPN, torch
from siamrpn_jax.common.errors import MissingExtraError, require

Outputs = list[np.ndarray]
Run = Callable[[np.ndarray], Outputs]
"""Input ``[B, C, H, W]`` to the outputs in the order of the module."""


class Search(torch.nn.Module):
    """The search branch for one exemplar, BatchNorm folded."""

    def __init__(self, network: TorchSiamRPN, z: Any):
        super().__init__()
        self.network = network.eval().fold().requires_grad_(False)
        self.kernels = network.embed_template(z)

    def forward(self, x: Any) -> Any:
        """Patches to logits and offsets."""
        return self.network.detect(x, *self.kernels)


def export(module: Any, x: Any) -> bytes:
    """A PyTorch module for inputs of the shape of ``x``, as an ONNX file."""
    require("onnx", extra="bench")
    file = io.BytesIO()
    with warnings.catch_warnings():
        # The newer exporter needs one package more and gives the same graph. Sizes
        # become constants, which is what is wanted.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        torch.onnx.export(module, (x,), file, dynamo=False, input_names=["x"])
    return file.getvalue()


def open_onnxruntime(model: bytes, *, threads: int) -> Run:
    """Runs the model in ONNX Runtime, on the device that JAX uses."""
    runtime: Any = require("onnxruntime", extra="bench")
    provider = "CPUExecutionProvider"
    if jax.default_backend() == "gpu":
        provider = "CUDAExecutionProvider"
        if provider not in runtime.get_available_providers():
            raise MissingExtraError("this ONNX Runtime has no CUDA provider")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(model, options, providers=[provider])
    return lambda x: session.run(None, {"x": x})


def open_openvino(model: bytes, *, threads: int, dtype: str) -> Run:
    """Runs the model in OpenVINO on the CPU, with the precision that is named."""
    compiled = compile_openvino(model, threads=threads, dtype=dtype)

    def detect(x: np.ndarray) -> Outputs:
        return list(compiled(x).values())

    return detect


def compile_openvino(
    model: bytes,
    *,
    threads: int,
    dtype: str,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Any:
    """A compiled model of OpenVINO; ``shapes`` of inputs that are free in the file."""
    vino: Any = require("openvino", extra="bench")
    core = vino.Core()
    read = core.read_model(io.BytesIO(model))
    if shapes:
        read.reshape(dict(shapes))
    options = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[dtype],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    return core.compile_model(read, "CPU", options)


def open_opencv(model: bytes) -> Run:
    """Runs the model in OpenCV's DNN module, on the CPU."""
    net = cv2.dnn.readNetFromONNX(np.frombuffer(model, np.uint8))

    def detect(x: np.ndarray) -> Outputs:
        net.setInput(x)
        return list(net.forward(net.getUnconnectedOutLayersNames()))

    return detect
