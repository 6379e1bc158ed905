"""The tracker as LiteRT (TFLite) models: ``init``, ``step``, and the network alone.

Traced by JAX for frames of one size. Tensors are called as in ``deploy.onnx_tracker``;
kernels and patches have the axes that JAX has, patches ``[1, n, n, 3]``.

litert-converter 0.5.0 asks for an xdsl that cannot be installed beside tyro and is not
needed here, hence ``INSTALL``; it runs in a process of its own, by ``convert_litert``.
"""

import dataclasses
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from jax import export

from siamrpn_jax.common.errors import InputError, MissingExtraError
from siamrpn_jax.deploy import convert_litert
from siamrpn_jax.tracking.export import (
    Arrays,
    make_functions,
    make_network_functions,
    patch_shapes,
)
from siamrpn_jax.tracking.state import Loaded

INSTALL = "pip install --no-deps litert-converter==0.5.0"
"""How to get the converter."""

Function = Callable[[Arrays], Arrays]
"""From inputs to outputs, as dicts, or dicts of dicts."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A function for LiteRT, and its tensors by name."""

    data: bytes
    """What a ``.tflite`` file holds."""
    inputs: Mapping[str, jax.ShapeDtypeStruct]
    outputs: Mapping[str, jax.ShapeDtypeStruct]


def make_models(loaded: Loaded, *, frame_size: tuple[int, int]) -> dict[str, Model]:
    """The models ``init`` and ``step`` of a tracker.

    Args:
        loaded: network, weights and tracking constants.
        frame_size: width and height of the frames.

    Raises:
        InputError: a network that cannot be converted.
        MissingExtraError: litert-converter is not installed.
    """
    check(loaded)
    init, step = make_functions(loaded, conv_impl="xla")

    def start(inputs: Arrays) -> Arrays:
        template, state = init(inputs["frame"], inputs["box"])
        return {"template": template, "state": state}

    def follow(inputs: Arrays) -> Arrays:
        state, output = step(inputs["template"], inputs["state"], inputs["frame"])
        return {"next": state, "output": output}

    width, height = frame_size
    frame = jax.ShapeDtypeStruct((height, width, 3), np.uint8)
    first = {"frame": frame, "box": jax.ShapeDtypeStruct((4,), np.float32)}
    memory = jax.eval_shape(start, first)
    return convert(
        {"init": (start, first), "step": (follow, memory | {"frame": frame})}
    )


def make_networks(loaded: Loaded) -> dict[str, Model]:
    """The models ``template`` and ``search``: the network without the tracker.

    Patches are float32 ``[1, n, n, 3]``, RGB, 0 to 255; outputs as ``model.rpn`` says.

    Raises:
        InputError: a network that cannot be converted.
        MissingExtraError: litert-converter is not installed.
    """
    embed, detect = make_network_functions(loaded, conv_impl="xla")

    def template(inputs: Arrays) -> Arrays:
        return embed(inputs["z"])

    def search(inputs: Arrays) -> Arrays:
        kernels = dict(inputs)
        return detect(kernels, kernels.pop("x"))

    z, x = patch_shapes(loaded)
    kernels = jax.eval_shape(embed, z)
    return convert(
        {"template": (template, {"z": z}), "search": (search, kernels | {"x": x})}
    )


def check(loaded: Loaded) -> None:
    """Raises InputError for a tracker with a loop, which cannot be converted."""
    frames = loaded.tracker_config.online_frames
    if frames is not None:
        raise InputError(
            f"online_frames {frames}: expected none, for LiteRT: litert-converter "
            "takes no loops, and kernels learn in one"
        )


def require_converter() -> None:
    """Raises MissingExtraError, with how to get it, where the converter is missing."""
    if importlib.util.find_spec("litert_converter") is None:
        raise MissingExtraError(f"litert-converter is not installed: {INSTALL}")


def convert(functions: Mapping[str, tuple[Function, Arrays]]) -> dict[str, Model]:
    """Traces functions on the shapes of their inputs, and converts them.

    Args:
        functions: with the shapes of their inputs, by name.

    Raises:
        InputError: what cannot be converted.
        MissingExtraError: litert-converter is not installed.
    """
    require_converter()
    tensors = {}
    with tempfile.TemporaryDirectory(prefix="siamrpn-litert-") as place:
        for name, (function, inputs) in functions.items():
            traced = jax.jit(function, keep_unused=True)
            exported = export.export(traced, platforms=["cpu"])(inputs)
            text = exported.mlir_module()
            Path(place, f"{name}.mlir").write_text(text, encoding="utf-8")
            outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
            tensors[name] = _by_name(inputs), _by_name(outputs)
            names = json.dumps([list(one) for one in tensors[name]])
            Path(place, f"{name}.json").write_text(names, encoding="utf-8")
        command = [sys.executable, convert_litert.__file__, place]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "rror" in line]
            said = (errors or ["it says nothing"])[-1].strip()
            raise InputError(f"litert-converter cannot convert this tracker ({said})")
        return {
            name: Model(Path(place, f"{name}.tflite").read_bytes(), *tensors[name])
            for name in functions
        }


def _by_name(tree: Arrays) -> dict[str, jax.ShapeDtypeStruct]:
    """Leaves by the names on the way to them, such as ``state.box``."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {".".join(step.key for step in path): leaf for path, leaf in leaves}
