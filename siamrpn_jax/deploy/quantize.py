"""ONNX graphs with 8-bit convolutions.

Static quantisation by ONNX Runtime: weights by channel, activations by what they were
in calls that were recorded (``calibration``). All else stays float32: crop, correlation
with the target's own kernels, decoding and selection.
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from siamrpn_jax.common.errors import require
from siamrpn_jax.deploy.calibration import Calls
from siamrpn_jax.deploy.runtime import Arrays

LEAST_OPSET = 13
"""Lowest opset for 8-bit convolutions: before it, weights had one range for a layer."""


def quantize(models: Mapping[str, Any], calls: Calls) -> dict[str, Any]:
    """Makes models with 8-bit convolutions.

    Args:
        models: of ``onnx_tracker``, by name.
        calls: their inputs, of ``calibration.record``.

    Raises:
        MissingExtraError: onnxruntime is not installed.
    """
    tools: Any = require("onnxruntime.quantization", extra="onnx")
    onnx: Any = require("onnx", extra="onnx")
    made = {}
    with tempfile.TemporaryDirectory(prefix="siamrpn-int8-") as folder, _quiet():
        for name, model in models.items():
            whole, out = (Path(folder, f"{name}{n}.onnx") for n in (32, 8))
            whole.write_bytes(model.SerializeToString())
            tools.quantize_static(
                str(whole),
                str(out),
                _Reader(calls[name]),
                nodes_to_quantize=_convolutions(model),
                per_channel=True,
                activation_type=tools.QuantType.QUInt8,
                weight_type=tools.QuantType.QInt8,
            )
            made[name] = onnx.load(str(out))
    return made


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences advice on a preparation that these graphs do not need."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


class _Reader:
    """Inputs of a model, one call after the other, as ONNX Runtime wants them."""

    def __init__(self, inputs: list[Arrays]):
        self._inputs = iter(inputs)

    def get_next(self) -> Arrays | None:
        """The inputs of the next call; None after the last."""
        return next(self._inputs, None)

    def __iter__(self) -> Iterator[Arrays]:
        return self._inputs


def _convolutions(model: Any) -> list[str]:
    """Names of the convolutions whose kernels are constants."""
    constants = {one.name for one in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and node.input[1] in constants
    ]
