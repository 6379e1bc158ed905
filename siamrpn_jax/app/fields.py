"""What a browser sends, checked field by field."""

import json
import math
from collections.abc import Collection
from typing import Any, NoReturn

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.labelling.labels import is_class

MAX_NAME = 100
"""Characters that a class may have."""


class Conflict(InputError):
    """Something that was right once, or would be: with a way out where there is one.

    Args:
        message: what is wrong, a sentence.
        offer: what the page may offer instead; empty: nothing.
    """

    def __init__(self, message: str, *, offer: str = ""):
        super().__init__(message)
        self.offer = offer


class Fields:
    """The fields of a request, each checked as it is read.

    Args:
        data: the request's body, JSON.

    Raises:
        InputError: it is no JSON object.
    """

    def __init__(self, data: bytes):
        try:
            content = json.loads(data or b"{}", parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise InputError(f"the request is not JSON ({error})"[:200]) from error
        if not isinstance(content, dict):
            raise InputError("the request is no JSON object")
        self._content: dict[str, Any] = content

    def __contains__(self, name: str) -> bool:
        """Whether a field is there, and is not null."""
        return self._get(name) is not None

    def whole(self, name: str, *, low: int = 0, high: int = 2**31 - 1) -> int:
        """A whole number in ``low`` to ``high``."""
        value = self._get(name)
        plain = isinstance(value, int) and not isinstance(value, bool)
        if not plain or not low <= value <= high:
            self._refuse(name, f"a whole number from {low} to {high}")
        return value

    def flag(self, name: str) -> bool:
        """True or false; false where it is missing."""
        value = self._get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            self._refuse(name, "true or false")
        return value

    def box(self, name: str) -> list[float]:
        """A box, ``ltwh [4]``, finite numbers."""
        sides = self._get(name)
        four = isinstance(sides, list) and len(sides) == 4
        if not four or not all(_is_number(side) for side in sides):
            self._refuse(name, "four finite numbers x,y,w,h")
        return [float(side) for side in sides]

    def word(self, name: str) -> str:
        """A class: a line of text that is not blank, without blanks at its ends."""
        value = self._get(name)
        text = value.strip() if isinstance(value, str) else ""
        if not is_class(text) or len(text) > MAX_NAME:
            self._refuse(name, f"a line of 1 to {MAX_NAME} printable characters")
        return text

    def choice(self, name: str, known: Collection[str]) -> str:
        """One of several words."""
        value = self._get(name)
        if not isinstance(value, str) or value not in known:
            self._refuse(name, f"one of {', '.join(known)}")
        return value

    def _get(self, name: str) -> Any:
        return self._content.get(name)

    def _refuse(self, name: str, expected: str) -> NoReturn:
        given = repr(self._get(name))
        shown = given if len(given) <= 60 else f"{given[:60]}…"
        raise InputError(f"{name} is {shown}, expected {expected}")


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e9 and math.isfinite(value)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")
