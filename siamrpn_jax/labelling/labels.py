"""What is known of the objects of a film; every format is written from it."""

from dataclasses import dataclass

import numpy as np


def is_class(name: str) -> bool:
    """Whether a word can be a class: formats have one a line, or in XML."""
    return bool(name.strip()) and name.isprintable()


@dataclass(frozen=True, eq=False)
class LabelledObject:
    """One object through the T frames of a film."""

    number: int
    """Unique in the film, at least 0."""
    name: str
    """Its class, for example ``car``."""
    boxes: np.ndarray
    """``ltwh float64 [T, 4]``, pixels; NaN where nothing is known."""
    confidence: np.ndarray
    """``float64 [T]`` in 0..1: probability that it is followed; NaN where not known."""
    lost: np.ndarray
    """``bool [T]``: it is said to be lost there, whatever its box."""
    keys: np.ndarray
    """``bool [T]``: a person drew the box."""

    @property
    def known(self) -> np.ndarray:
        """``bool [T]``: there is a box, and the object is not lost."""
        return np.isfinite(self.boxes).all(axis=1) & ~self.lost


@dataclass(frozen=True, eq=False)
class Labels:
    """The objects of a film of T frames."""

    name: str
    """Name of the film, without suffix: names of files are made of it."""
    source: str
    """Where the film is."""
    size: tuple[int, int]
    """Width and height, pixels."""
    fps: float | None
    """Frames a second, where they are known."""
    length: int
    """T."""
    objects: tuple[LabelledObject, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The objects' classes, each once, in the order of their numbers."""
        return tuple(dict.fromkeys(one.name for one in self.objects))
