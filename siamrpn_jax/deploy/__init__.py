"""The tracker in other runtimes."""

from typing import Literal

Runtime = Literal["jax", "onnxruntime", "litert", "auto"]
"""What computes; all find the same boxes, but in LiteRT kernels do not learn. ``auto``:
for narrow networks on a CPU ONNX Runtime, which starts at once and is the fastest
there, where it is installed and takes the tracker as it is; else JAX."""

Part = Literal["whole", "network", "both"]
"""What is exported: the whole tracker, from frames to boxes; the network alone, from
patches to score maps; or both."""
