"""Ground truth as text: rows of numbers, and the rule for frames without a target."""

import re

import numpy as np


def parse_numbers(line: str) -> list[float]:
    """The numbers of a row, separated by commas, tabs or spaces.

    Returns:
        None at all where anything in the row is not a number; ``nan`` is one.
    """
    try:
        return [float(field) for field in re.split(r"\s*,\s*|\s+", line.strip(" \t,"))]
    except ValueError:
        return []


def no_target(boxes: np.ndarray) -> np.ndarray:
    """Where boxes say that there is no target in the frame.

    The one rule for evaluation, training and preparation: a box that is not finite, or
    whose width or height is not above 0, as data sets write it (``nan,nan,nan,nan``,
    ``0,0,0,0``, LaSOT's ``1,1,0,0``, ``-1,-1,-1,-1``).

    Args:
        boxes: ``ltwh [..., 4]``.

    Returns:
        bool ``[...]``.
    """
    has_area = (boxes[..., 2:] > 0).all(axis=-1)
    return np.asarray(~(np.isfinite(boxes).all(axis=-1) & has_area))
