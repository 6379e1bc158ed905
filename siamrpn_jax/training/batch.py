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


class RawPatches(NamedTuple):
    """B patches to be: images of one size C, and all that is drawn for them.

    The changes are applied in the order of the fields. A field is None where the
    recipe never makes that change. One sample has the same fields without the axis B.
    """

    image: Array
    """uint8 ``[B, C, C, 3]``."""
    matrix: Array
    """float32 ``[B, 2, 3]``, continuous pixels: the point ``d`` from the middle of the
    patch lies at ``M[:, :2] @ d + M[:, 2]`` of the image."""
    fill: Array
    """uint8 ``[B, 3]``: the colour outside the image."""
    table: Array | None
    """uint8 ``[B, 256, 3]``: the new value of each level, for each channel."""
    mixing: Array | None
    """float32 ``[B, 3, 3]``: ``new = M @ old`` for the channels of a pixel."""
    shrunk: Array | None
    """int32 ``[B]``: side in pixels that the patch is shrunk to and enlarged from."""
    blur: Array | None
    """float32 ``[B, 13, 13]``: kernel, anchored in its middle."""
    noise: Array | None
    """float32 ``[B]``: standard deviation of Gaussian noise, grey levels."""
    noise_seed: Array
    """uint32 ``[B]``."""


class RawBatch(NamedTuple):
    """B pairs that the device crops and colours.

    ``augmentation.render`` makes a ``Batch`` of them.

    One pair has the same fields without the axis B.
    """

    z: RawPatches
    x: RawPatches
    box: Array
    """As in ``Batch``."""
    positive: Array
    """As in ``Batch``."""
    origins: Array
    """As in ``Batch``."""
