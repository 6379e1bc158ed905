"""Trained weights: one safetensors file that carries its configs and its model card."""

import dataclasses
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

import siamrpn_jax
from siamrpn_jax.common import configs
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import replacing
from siamrpn_jax.common.released import DEFAULT_WEIGHTS
from siamrpn_jax.model.backbone import Backbone
from siamrpn_jax.model.config import BackboneConfig, InputConfig, ModelConfig
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.state import Loaded
from siamrpn_jax.weights import cards

FORMAT = "siamrpn_jax weights 1"
FILE_NAME = "weights.safetensors"
"""Name of the weights in a training run's folder."""

EXPORTS = {
    "onnx.json": "ONNX Runtime",
    "tflite.json": "LiteRT",
    "export.json": "JAX alone",
    "web.json": "a web page",
}
"""What runs a folder that ``siamrpn export`` has written, by the name of its card."""


class LoadedBackbone(NamedTuple):
    """Weights of a backbone, to start training a tracker from."""

    config: BackboneConfig
    input: InputConfig
    variables: dict[str, Any]
    """``{"params": {"backbone": …}, "batch_stats": {"backbone": …}}``, a part of a
    whole network's; float32 NumPy arrays."""
    card: dict[str, Any]


def load_weights(source: str | Path = DEFAULT_WEIGHTS) -> Loaded:
    """Loads weights by name or from a file.

    Args:
        source: the name of weights that come with the package (see ``bundled``), a
            ``.safetensors`` file, or the folder of a training run.

    Raises:
        FileNotFoundError: there is neither a file nor bundled weights of that name.
        InputError: the file is no weights file of a whole tracker, its card is
            broken or out of range, or its arrays do not fit its configs or hold
            numbers that are not finite.
    """
    path = find(source)
    loaded = read_file(path)
    if isinstance(loaded, LoadedBackbone):
        raise InputError(
            f"{path} holds a backbone alone, expected a whole tracker; train one from "
            "it with --backbone"
        )
    return loaded


def read_file(path: Path) -> Loaded | LoadedBackbone:
    """Reads a file of either kind; raises as ``load_weights``."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            flat = {name: file.get_tensor(name) for name in file.keys()}
    except safetensors.SafetensorError as error:
        raise InputError(
            f"{path} is not a safetensors file: {error}; PyTorch's files go through "
            "'siamrpn import'"
        ) from None
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {metadata.get('format')!r}, expected {FORMAT!r}"
        )
    kind = metadata.get("kind", "tracker")  # files of before this field have trackers
    if kind not in ("tracker", "backbone"):
        raise InputError(f"{path} holds a {kind!r}, expected a tracker or a backbone")
    try:
        parts = {name: json.loads(metadata[name]) for name in _PARTS[kind]}
        read = {name: configs.from_json(_CONFIGS[name], parts[name]) for name in parts}
        known = facts(read["model" if kind == "tracker" else "backbone"], flat)
        card = cards.complete({**known, **json.loads(metadata["card"])})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} has an unreadable config or card{_writer(metadata)}: {error}"
        ) from None
    check_values(path, flat)
    variables = traverse_util.unflatten_dict(flat, sep="/")
    if kind == "backbone":
        check_shapes(path, backbone_shapes(read["backbone"]), flat)
        return LoadedBackbone(read["backbone"], read["input"], variables, card)
    model = SiamRPN(read["model"])
    check_shapes(path, model_shapes(model), flat)
    return Loaded(model, variables, read["tracker"], card)


def save_weights(
    path: str | Path,
    variables: Any,
    *,
    model: SiamRPN,
    tracker_config: TrackerConfig,
    card: dict[str, Any],
) -> None:
    """Writes weights, configs and card to one file, whole or not at all.

    Args:
        path: where to; ends in ``.safetensors``.
        variables: ``{"params": …, "batch_stats": …}``.
        model: the network they belong to.
        tracker_config: constants to track with.
        card: JSON values, see ``cards.FIELDS``; architecture, number of parameters and
            package version are added.

    Raises:
        InputError: a field of the card has the wrong type.
    """
    parts = {"model": model.config, "tracker": tracker_config}
    _write(path, variables, "tracker", parts, card)


def save_backbone(
    path: str | Path,
    variables: Any,
    *,
    config: BackboneConfig,
    input_config: InputConfig,
    card: dict[str, Any],
) -> None:
    """The same for a backbone alone.

    Args:
        path: where to; ends in ``.safetensors``.
        variables: of a whole network or of the backbone alone, see ``LoadedBackbone``.
        config: of the backbone.
        input_config: what its first layer wants to see.
        card: as for ``save_weights``.
    """
    alone = {kind: {"backbone": part["backbone"]} for kind, part in variables.items()}
    parts = {"backbone": config, "input": input_config}
    _write(path, alone, "backbone", parts, card)


def bundled() -> list[str]:
    """Names of the weights that come with the package."""
    folder = resources.files(__name__)
    names = (file.name for file in folder.iterdir())
    return sorted(n.removesuffix(".safetensors") for n in names if "safetensors" in n)


def find(source: str | Path) -> Path:
    """The file that a name, a file or a training run's folder stands for.

    Raises:
        FileNotFoundError: there is none.
        InputError: the folder is an export.
    """
    if source in bundled():  # a folder of that name is ./small
        return Path(str(resources.files(__name__) / f"{source}.safetensors"))
    path = Path(source)
    if path.is_dir():
        path = path / FILE_NAME
        if path.is_file():
            return path
        for card, runs in EXPORTS.items():
            if path.with_name(card).is_file():
                raise InputError(
                    f"{source}: is an export for {runs}, expected what it was made of: "
                    "a .safetensors file or the folder of a training run"
                )
        raise FileNotFoundError(f"{path} is missing: no finished training run is there")
    if path.is_file():
        return path
    expected = "there is no such file"
    if not path.suffix:
        expected = (
            "expected a .safetensors file, the folder of a training run, or one of "
            f"{', '.join(bundled())}"
        )
    raise FileNotFoundError(f"no weights {str(source)!r}: {expected}")


def model_shapes(model: SiamRPN) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter and statistic by its name in the file."""
    # The same however convolutions are computed, and this way they are traced fastest.
    plain = SiamRPN(dataclasses.replace(model.config, conv_impl="xla"))
    expected = jax.eval_shape(plain.init_variables, jax.random.key(0))
    flat: Any = traverse_util.flatten_dict(expected, sep="/")
    return {name: leaf.shape for name, leaf in flat.items()}


def backbone_shapes(config: BackboneConfig) -> dict[str, tuple[int, ...]]:
    """The same for a backbone alone."""
    patches = (jax.ShapeDtypeStruct((1, 129, 129, 3), np.float32),)
    expected = jax.eval_shape(Backbone(config).init, jax.random.key(0), patches)
    flat: Any = traverse_util.flatten_dict(expected)
    return {"/".join((k[0], "backbone", *k[1:])): v.shape for k, v in flat.items()}


def facts(
    config: ModelConfig | BackboneConfig, arrays: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Those fields of a card that follow from the weights."""
    learned = [v.size for name, v in arrays.items() if name.startswith("params/")]
    return {"architecture": cards.describe(config), "parameters": sum(learned)}


def check_shapes(
    path: str | Path,
    wanted: Mapping[str, tuple[int, ...]],
    flat: Mapping[str, np.ndarray],
) -> None:
    """Compares the arrays of a file with what its configs ask for.

    Raises:
        InputError: naming the arrays that are wrong, missing, or too many.
    """
    found = {name: array.shape for name, array in flat.items()}
    wrong = [
        f"{name}: {found.get(name, 'missing')}, expected {wanted.get(name, 'nothing')}"
        for name in sorted({*wanted, *found})
        if wanted.get(name) != found.get(name)
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise InputError(f"{path} does not fit: {'; '.join(wrong[:5])}{more}")


def check_values(path: str | Path, flat: Mapping[str, np.ndarray]) -> None:
    """Checks the numbers of a file.

    Raises:
        InputError: naming an array that is not float32, holds a number that is not
            finite, or a variance below 0.
    """
    for name, array in flat.items():
        if array.dtype != np.float32:
            raise InputError(f"{path}: {name} is {array.dtype}, expected float32")
        if not np.isfinite(array).all():
            raise InputError(f"{path}: {name} holds numbers that are not finite")
        if name.endswith("/var") and (array < 0).any():
            raise InputError(f"{path}: {name} holds variances below 0")


_CONFIGS: dict[str, Any] = {
    "model": ModelConfig,
    "tracker": TrackerConfig,
    "backbone": BackboneConfig,
    "input": InputConfig,
}
_PARTS = {"tracker": ("model", "tracker"), "backbone": ("backbone", "input")}
"""The configs in a file's metadata by its kind."""


def _write(
    path: str | Path,
    variables: Any,
    kind: str,
    parts: Mapping[str, Any],
    card: dict[str, Any],
) -> None:
    flat = traverse_util.flatten_dict(jax.device_get(variables), sep="/")
    # safetensors writes wrong values for arrays that are not contiguous.
    arrays = {name: np.ascontiguousarray(array) for name, array in flat.items()}
    known = facts(parts["model" if kind == "tracker" else "backbone"], arrays)
    version = {"siamrpn_jax": siamrpn_jax.__version__}
    card = cards.complete({**card, **known, **version})
    metadata = {
        "format": FORMAT,
        "kind": kind,
        **{name: json.dumps(configs.to_json(part)) for name, part in parts.items()},
        "card": json.dumps(card),
    }
    with replacing(path) as temporary:
        temporary.write_bytes(safetensors.numpy.save(arrays, metadata))


def _writer(metadata: Mapping[str, str]) -> str:
    """Which version wrote a file that this one cannot read, if it is another one."""
    try:
        version = json.loads(metadata["card"])["siamrpn_jax"]
    except (KeyError, TypeError, ValueError):
        return ""
    own = siamrpn_jax.__version__
    return "" if version == own else f" (of siamrpn_jax {version}; this is {own})"
