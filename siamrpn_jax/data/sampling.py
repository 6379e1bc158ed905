"""Drawing by weights, and what is held out for validation."""

import math
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from collections.abc import Sequence as SequenceOf
from typing import Any, Generic, TypeVar

import numpy as np

from siamrpn_jax.common.errors import InputError

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Any)


class Weighted(Generic[Item]):
    """Items that are drawn with unequal probabilities."""

    def __init__(self, items: SequenceOf[Item], weights: Iterable[float]):
        self._items = items
        self._cumulative = np.cumsum(np.fromiter(weights, np.float64))

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __getitem__(self, index: int) -> Item:
        return self._items[index]

    def draw(self, rng: np.random.Generator) -> Item:
        """Draws one item."""
        value = rng.random() * self._cumulative[-1]
        place = int(np.searchsorted(self._cumulative, value, "right"))
        return self._items[min(place, len(self) - 1)]

    def probabilities(self) -> np.ndarray:
        """``float64 [n]``, summing to 1."""
        return np.diff(self._cumulative, prepend=0) / self._cumulative[-1]


def held_out(names: Mapping[Key, str], fraction: float) -> set[Key]:
    """The keys whose names come first in the order of a hash; never all of them."""
    order = sorted(names, key=lambda k: (name_hash(names[k]), names[k], k))
    return set(order[: max(min(len(order) - 1, math.ceil(fraction * len(order))), 0)])


def share_of(names: Mapping[Key, str], fraction: float) -> set[Key]:
    """The keys of a share of the names, by a hash: smaller shares lie within larger.

    It begins where ``held_out`` ends, so that a share of what is not held out stays the
    same whatever is.

    Args:
        names: of each key.
        fraction: the share, above 0; at least one name is kept where there is any.
    """
    order = sorted(names, key=lambda k: (-name_hash(names[k]), names[k], k))
    return set(order[: math.ceil(fraction * len(order))])


def is_among(name: str, names: Collection[str]) -> bool:
    """Whether a sequence is one of ``names``: by its whole name, a path, or its end."""
    return name in names or name.rpartition("/")[2] in names


def check_held_out(hold_out: Iterable[str], known: Collection[str]) -> None:
    """Each name that was asked for is a sequence that was held out.

    Args:
        hold_out: the names.
        known: names of the sequences that were held out, whole ones.

    Raises:
        InputError: some are not; a misspelt one would be learned from in silence.
    """
    ends = {name.rpartition("/")[2] for name in known}
    if unknown := sorted(set(hold_out) - ends - set(known)):
        raise InputError(
            f"hold_out: {', '.join(unknown)}: no such sequence in the folders: "
            "expected names of sequence folders or of prepared videos"
        )


def name_hash(name: str) -> int:
    """32 bits that are the same everywhere."""
    return zlib.crc32(name.encode("utf-8", "surrogateescape"))
