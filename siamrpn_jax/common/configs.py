"""Configs as JSON and back, and what differs between two of them."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from siamrpn_jax.common.errors import InputError

Config = TypeVar("Config")


def to_json(config: Any) -> dict[str, Any]:
    """A frozen dataclass as nested dicts of JSON values; tuples become lists."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return value

    return plain(dataclasses.asdict(config))


def from_json(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """Builds a config of the given dataclass.

    Raises:
        InputError: for a field that the dataclass does not have, or a value that is
            none of a field's choices.

    Files of older versions stay readable: fields that are missing take their defaults,
    and the class variable ``FORMER`` of a dataclass maps names that its fields once had
    to their present ones, or to None where a field is gone.
    """
    former: Mapping[str, str | None] = getattr(kind, "FORMER", {})
    values = {
        name: value
        for key, value in values.items()
        if (name := former.get(key, key)) is not None
    }
    hints = typing.get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(typing.cast(Any, kind))}
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(f"{kind.__name__} has no field {', '.join(unknown)}")
    fields = {}
    for key, value in values.items():
        fields[key] = _parse(hints[key], value, name=f"{kind.__name__}.{key}")
    return kind(**fields)


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], *, prefix: str = ""
) -> list[str]:
    """Fields of two nested JSON configs that differ, as ``name: old -> new``."""
    found = []
    for key in sorted({*old, *new}):
        name, a, b = prefix + key, old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, prefix=f"{name}.")
        elif a != b:
            found.append(f"{name}: {a!r} -> {b!r}")
    return found


def _parse(hint: Any, value: Any, *, name: str) -> Any:
    if typing.get_origin(hint) is typing.Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            expected = ", ".join(map(repr, choices))
            raise InputError(f"{name} is {value!r}, expected one of {expected}")
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    for option in options:
        if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
            return from_json(typing.cast(Any, option), value)
        if typing.get_origin(option) is tuple and isinstance(value, list):
            return _tuple(value)
    return value


def _tuple(value: Any) -> Any:
    return tuple(_tuple(item) for item in value) if isinstance(value, list) else value


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)
