"""The tracker in other runtimes."""

from typing import Literal

Runtime = Literal["jax", "onnxruntime", "litert"]
"""What computes; all find the same boxes."""
