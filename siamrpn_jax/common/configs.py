"""Configs as JSON and back, and what differs between two of them."""

import dataclasses
import math
import sys
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
        InputError: for a field that the dataclass does not have or that is missing, a
            value of another type than the field's or none of its choices, and a number
            that is not finite or out of the field's range.

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
    required = {
        field.name
        for field in dataclasses.fields(typing.cast(Any, kind))
        if field.default is field.default_factory is dataclasses.MISSING
    }
    if missing := sorted(required - set(fields)):
        raise InputError(f"{kind.__name__} misses {', '.join(missing)}")
    return kind(**fields)


def check_finite(value: Any, *, name: str = "the number") -> None:
    """Checks all numbers of a config: what is not finite cannot be read back from JSON.

    Args:
        value: the config, or what a field of it holds.
        name: of the field.

    Raises:
        InputError: naming the first field with such a number, and the number.
    """
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            check_finite(getattr(value, field.name), name=field.name)
    elif isinstance(value, tuple):
        for one in value:
            check_finite(one, name=name)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{name} is {value}, expected a finite number")


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
    """A JSON value as the type of a field."""
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    if value is None and types.NoneType in options:
        return None
    faults = []
    for option in options:
        try:
            return _parse_one(option, value, name)
        except InputError as error:
            faults.append(error)
    raise faults[0]


def _parse_one(hint: Any, value: Any, name: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _parse_one(arguments[0], value, name)
    if origin is typing.Literal:
        if value not in arguments:
            expected = ", ".join(map(repr, arguments))
            raise InputError(f"{name} is {value!r}, expected one of {expected}")
        return value
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise InputError(f"{name} is {value!r}, expected fields by name")
        return from_json(typing.cast(Any, hint), value)
    if origin is tuple:
        return _parse_tuple(arguments, value, name)
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{name} is {value!r}, expected a number")
        if not -sys.float_info.max <= value <= sys.float_info.max:
            raise InputError(f"{name} is {value!r}, expected a finite number")
    elif hint in _EXPECTED and type(value) is not hint:
        raise InputError(f"{name} is {value!r}, expected {_EXPECTED[hint]}")
    return value


_EXPECTED = {int: "a whole number", bool: "true or false", str: "text"}


def _parse_tuple(arguments: tuple[Any, ...], value: Any, name: str) -> Any:
    if not isinstance(value, list | tuple):
        raise InputError(f"{name} is {value!r}, expected a list")
    if arguments[-1] is Ellipsis:
        arguments = arguments[:1] * len(value)
    if len(arguments) != len(value):
        raise InputError(f"{name} is {value!r}, expected {len(arguments)} values")
    return tuple(
        _parse(hint, item, name=name)
        for hint, item in zip(arguments, value, strict=True)
    )


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)
