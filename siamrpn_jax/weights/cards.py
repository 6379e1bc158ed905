"""The model card: what a weights file says about itself."""

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.sampling import name_hash
from siamrpn_jax.model.config import BackboneConfig, ModelConfig

Card = dict[str, Any]

FIELDS: dict[str, tuple[tuple[type, ...], Any]] = {
    "name": ((str,), None),
    "architecture": ((str,), None),
    "parameters": ((int,), None),
    "preset": ((str,), None),
    "data": ((list, str), []),
    "steps": ((int,), None),
    "figures": ((dict,), {}),
    "licence": ((str,), None),
    "siamrpn_jax": ((str,), None),
}
"""What every card has: JSON types, and the value where nothing was said. None, which
each may be, means not stated. Cards hold more: the command, the seed, …"""


def complete(card: Mapping[str, Any]) -> Card:
    """The card with every field of ``FIELDS``; those of older files lack some.

    Raises:
        InputError: a field of another type, or a value that JSON does not have.
    """
    defaults = {name: default for name, (_, default) in FIELDS.items()}
    card = {**defaults, **card}
    for name, (kinds, _) in FIELDS.items():
        if card[name] is not None and not isinstance(card[name], kinds):
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise InputError(
                f"model card: {name} is {card[name]!r}, expected {expected}"
            )
    try:
        return json.loads(json.dumps(card))
    except TypeError as error:
        raise InputError(f"model card: {error}") from None


def tuned_among(card: Mapping[str, Any], fingerprints: Mapping[str, str]) -> list[str]:
    """Which sequences the tracking constants of the weights were chosen on.

    Args:
        card: of the weights.
        fingerprints: name -> ``data.read.sequences.fingerprint`` of sequences.
    """
    known = {one["fingerprint"] for one in card.get("tuned_on") or []}
    return [name for name, fingerprint in fingerprints.items() if fingerprint in known]


def pack_names(names: Iterable[str], *, known: str = "") -> str:
    """Names of videos as a short text that tells whether a name is among them.

    Args:
        names: whole ones; their last part counts, which is what a sequence is called.
        known: another such text, the names of which are taken over.

    Returns:
        32-bit hashes in base64; empty where there are no names.
    """
    hashes = {name_hash(_last(name)) for name in names} | set(_unpack(known))
    return base64.b64encode(np.array(sorted(hashes), ">u4").tobytes()).decode()


def trained_among(card: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Which sequences the weights were trained on, by their names.

    Args:
        card: of the weights; older ones do not tell.
        names: of sequences.
    """
    known = set(_unpack((card.get("trained_on") or {}).get("names", "")))
    return [name for name in names if name_hash(_last(name)) in known]


def trained_on(names: str) -> dict[str, Any]:
    """The field of a card that says what the weights were trained on.

    Args:
        names: see ``pack_names``.
    """
    return {"videos": len(_unpack(names)), "names": names}


def _unpack(names: str) -> list[int]:
    return np.frombuffer(base64.b64decode(names), ">u4").tolist()


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def describe(config: ModelConfig | BackboneConfig) -> str:
    """The architecture in one line.

    Example:
        >>> describe(ModelConfig())
        'alexnet 96-256-384-384-256, up_channel head 256, 5 anchors, 127 and 255 px'
    """
    backbone = config if isinstance(config, BackboneConfig) else config.backbone
    text = f"{backbone.kind} {'-'.join(map(str, backbone.widths))}"
    if isinstance(config, BackboneConfig):
        return f"{text}, backbone alone"
    text += f", neck {config.neck_width}" if config.neck_width else ""
    patches = f"{config.exemplar_size} and {config.instance_size} px"
    if not config.head.regresses:
        return f"{text}, {config.head.kind} head, {patches}"
    adjust = " with adjust layer" if config.head.adjust else ""
    head = f"{config.head.kind} head {config.head.width}{adjust}"
    if config.head.scores_cells:
        return f"{text}, {head}, {patches}"
    return f"{text}, {head}, {len(config.anchors.ratios)} anchors, {patches}"


def show(card: Mapping[str, Any]) -> str:
    """The card as lines to read; the fields of ``FIELDS`` first."""
    names = [*FIELDS, *(name for name in card if name not in FIELDS)]
    width = max(map(len, names)) + 2
    return "\n".join(f"{name:<{width}}{_text(card.get(name))}" for name in names)


def _text(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return "not stated"
    if isinstance(value, dict) and set(value) == {"videos", "names"}:
        return f"{value['videos']:,} videos, known by their names"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_text(item)}" for key, item in value.items())
    if isinstance(value, list) and isinstance(value[0], dict) and "name" in value[0]:
        names = [str(item["name"]) for item in value]
        more = ", …" if len(names) > 3 else ""
        return f"{len(names)} sequences: {', '.join(names[:3])}{more}"
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return f"{value:,}" if type(value) is int else str(value)
