"""What the data side hands to the training step."""

from typing import Any, NamedTuple

Array = Any
"""NumPy's on the host, JAX's on the device."""


class Batch(NamedTuple):
    """B pairs of patches; uint8, a quarter of the bytes that floats would be."""

    z: Array
    """Exemplar patches, uint8 ``[B, Z, Z, 3]``."""
    x: Array
    """Search patches, uint8 ``[B, X, X, 3]``."""
    box: Array
    """The target in the search patch, ``cxcywh`` float32 ``[B, 4]`` in its pixels."""
    positive: Array
    """float32 ``[B]``: 1 where the search patch shows the exemplar's target, else 0."""
    origins: Array
    """uint32 ``[B, 2]``: what the target of the exemplar and that of the search patch
    belong to; patches of one origin may show the same target."""
    teacher: Array | None = None
    """float32 ``[B, n, n]``: how likely the target is in each cell of the score map, as
    a teacher says; None without one."""


class LabelledBatch(NamedTuple):
    """B images, each of one class."""

    image: Array
    """RGB uint8 ``[B, n, n, 3]``."""
    label: Array
    """Number of the class, int32 ``[B]``."""
