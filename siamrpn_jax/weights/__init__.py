"""Trained weights: one safetensors file that carries its configs and its model card."""

import json
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

import siamrpn_jax
from siamrpn_jax import configs
from siamrpn_jax.errors import InputError
from siamrpn_jax.files import replacing
from siamrpn_jax.model import ModelConfig, SiamRPN
from siamrpn_jax.tracker import TrackerConfig

FORMAT = "siamrpn_jax weights 1"
FILE_NAME = "weights.safetensors"
"""Name of the weights in a training run's folder."""


class WeightsError(InputError):
    """A file does not hold weights that fit."""


class Loaded(NamedTuple):
    """What a weights file holds."""

    model: SiamRPN
    variables: dict[str, Any]
    """``{"params": …, "batch_stats": …}``, float32 NumPy arrays."""
    tracker_config: TrackerConfig
    card: dict[str, Any]
    """Where the weights come from: data, command, steps, figures, licence."""


def load_weights(source: str | Path = "small") -> Loaded:
    """Loads weights by name or from a file.

    Args:
        source: the name of weights that come with the package (see ``bundled``), a
            ``.safetensors`` file, or the folder of a training run.

    Raises:
        FileNotFoundError: there is neither a file nor bundled weights of that name.
        WeightsError: the file is no weights file, or its arrays do not fit its configs.
    """
    path = _find(source)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            flat = {name: file.get_tensor(name) for name in file.keys()}
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path} is not a safetensors file: {error}") from None
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path} has format {metadata.get('format')!r}, expected {FORMAT!r}"
        )
    try:
        model = SiamRPN(configs.from_json(ModelConfig, json.loads(metadata["model"])))
        tracker = configs.from_json(TrackerConfig, json.loads(metadata["tracker"]))
        card = json.loads(metadata["card"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} has an unreadable config: {error}") from None
    _check_shapes(path, model, flat)
    return Loaded(model, traverse_util.unflatten_dict(flat, sep="/"), tracker, card)


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
        card: JSON values; the package version is added.
    """
    flat = traverse_util.flatten_dict(jax.device_get(variables), sep="/")
    # safetensors writes wrong values for arrays that are not contiguous.
    arrays = {name: np.ascontiguousarray(array) for name, array in flat.items()}
    card = {**card, "siamrpn_jax": siamrpn_jax.__version__}
    metadata = {
        "format": FORMAT,
        "model": json.dumps(configs.to_json(model.config)),
        "tracker": json.dumps(configs.to_json(tracker_config)),
        "card": json.dumps(card),
    }
    with replacing(path) as temporary:
        temporary.write_bytes(safetensors.numpy.save(arrays, metadata))


def bundled() -> list[str]:
    """Names of the weights that come with the package."""
    folder = resources.files(__name__)
    names = (file.name for file in folder.iterdir())
    return sorted(n.removesuffix(".safetensors") for n in names if "safetensors" in n)


def _find(source: str | Path) -> Path:
    if source in bundled():  # a folder of that name is ./small
        return Path(str(resources.files(__name__) / f"{source}.safetensors"))
    path = Path(source)
    if path.is_dir():
        path = path / FILE_NAME
        if path.is_file():
            return path
        raise FileNotFoundError(f"{path} is missing: no finished training run is there")
    if path.is_file():
        return path
    raise FileNotFoundError(
        f"no weights {str(source)!r}: expected a .safetensors file, the folder of a "
        f"training run, or one of {', '.join(bundled())}"
    )


def _check_shapes(path: Path, model: SiamRPN, flat: dict[str, np.ndarray]) -> None:
    expected = jax.eval_shape(model.init_variables, jax.random.key(0))
    shapes: Any = jax.tree.map(lambda leaf: leaf.shape, expected)
    wanted = traverse_util.flatten_dict(shapes, sep="/")
    found = {name: array.shape for name, array in flat.items()}
    wrong = [
        f"{name}: {found.get(name, 'missing')}, expected {wanted.get(name, 'nothing')}"
        for name in sorted({*wanted, *found})
        if wanted.get(name) != found.get(name)
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise WeightsError(f"{path} does not fit: {'; '.join(wrong[:5])}{more}")
