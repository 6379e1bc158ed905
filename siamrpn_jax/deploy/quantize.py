"""ONNX graphs with 8-bit convolutions, calibrated on generated scenes.

Static quantisation by ONNX Runtime: weights by channel, activations by what they were
while generated scenes were tracked. All else stays float32: crop, correlation with the
target's own kernels, decoding and selection.
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from siamrpn_jax.common.errors import InputError, require
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.deploy.runtime import Arrays, Run, Tracker

FRAMES = 12
"""Frames of each scene."""

_SEED = 3 * 2**32
"""Of the first scene; those of training and of its evaluation are below."""


def quantize(models: dict[str, Any], *, scenes: int) -> dict[str, Any]:
    """Makes ``init`` and ``step`` with 8-bit convolutions.

    Args:
        models: of ``onnx_tracker.make_models``.
        scenes: generated scenes to calibrate on.

    Raises:
        InputError: fewer than 4 scenes: ranges of so few are chance.
        MissingExtraError: onnxruntime is not installed.
    """
    if scenes < 4:
        raise InputError(f"{scenes} scenes to calibrate on, expected 4 or more")
    tools: Any = require("onnxruntime.quantization", extra="onnx")
    onnx: Any = require("onnx", extra="onnx")
    seen = _record(models, scenes)
    made = {}
    with tempfile.TemporaryDirectory(prefix="siamrpn-int8-") as folder, _quiet():
        for name, model in models.items():
            whole, out = (Path(folder, f"{name}{n}.onnx") for n in (32, 8))
            whole.write_bytes(model.SerializeToString())
            tools.quantize_static(
                str(whole),
                str(out),
                _Reader(seen[name]),
                nodes_to_quantize=_convolutions(model),
                per_channel=True,
                activation_type=tools.QuantType.QUInt8,
                weight_type=tools.QuantType.QInt8,
            )
            made[name] = onnx.load(str(out))
    return made


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without advice on a preparation that these graphs, built folded, do not need."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


class _Reader:
    """Inputs of a model, one call after the other, as ONNX Runtime wants them."""

    def __init__(self, inputs: list[Arrays]):
        self._inputs = iter(inputs)

    def get_next(self) -> Arrays | None:
        """The inputs of the next call; None after the last."""
        return next(self._inputs, None)

    def __iter__(self) -> Iterator[Arrays]:
        return self._inputs


def _record(models: dict[str, Any], scenes: int) -> dict[str, list[Arrays]]:
    """The inputs of both models while scenes are tracked."""
    seen: dict[str, list[Arrays]] = {name: [] for name in models}

    def recording(name: str, model: Run) -> Run:
        def run(inputs: Arrays) -> Arrays:
            seen[name].append(inputs)
            return model(inputs)

        return run

    tracker = Tracker([models[name].SerializeToString() for name in ("init", "step")])
    tracker.models = list(map(recording, ("init", "step"), tracker.models))
    for scene in range(scenes):
        frames, truth = make_sequence(_SEED + scene, length=FRAMES)
        tracker.init(frames[0], np.asarray(truth[0], np.float64))
        for frame in frames[1:]:
            tracker.update(frame)
    return seen


def _convolutions(model: Any) -> list[str]:
    """Names of the convolutions whose kernels are constants."""
    constants = {one.name for one in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and node.input[1] in constants
    ]
