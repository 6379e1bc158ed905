"""What the data side hands to the training step."""

from typing import NamedTuple

import numpy as np


class Batch(NamedTuple):
    """B pairs of patches; uint8, a quarter of the bytes that floats would be."""

    z: np.ndarray
    """Exemplar patches, uint8 ``[B, Z, Z, 3]``."""
    x: np.ndarray
    """Search patches, uint8 ``[B, X, X, 3]``."""
    box: np.ndarray
    """The target in the search patch, ``cxcywh`` float32 ``[B, 4]`` in its pixels."""
    positive: np.ndarray
    """float32 ``[B]``: 1 where the search patch shows the exemplar's target, else 0."""
