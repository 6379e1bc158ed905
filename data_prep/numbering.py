"""Which image of a folder the number of a frame means.

Names of images count, as a rule, without a gap: then an image's place among them tells
its number. Where images are missing, or two share a number, it does not.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from data_prep.tracks import PreparationError

_TIMES = 10**9
"""Numbers from here on are times, not counts."""


def find_numbers(images: Sequence[Path]) -> dict[int, int]:
    """The places of images by the numbers in their names, rising.

    The number of a name is the one that differs from image to image. There is none in
    dates and times, or where no two names are alike but for their numbers.

    Args:
        images: in natural order.

    Returns:
        Nothing where the names do not number the images, or do so without a gap: there
        the place says all that is known.

    Raises:
        PreparationError: two images have one number, or one of them has none.
    """
    fields = [tuple(map(int, re.findall(r"\d+", image.stem))) for image in images]
    shapes: dict[str, list[int]] = {}
    for place, image in enumerate(images):
        shapes.setdefault(re.sub(r"\d+", "0", image.stem), []).append(place)
    if not any(fields) or len(shapes) > max(3, len(images) // 2):
        return {}
    for image, numbers in zip(images, fields, strict=True):
        if not numbers:
            raise PreparationError(f"{image.name} has no number, {_EXPECTED}")
    counted = [[fields[place] for place in places] for places in shapes.values()]
    columns = [_counting(rows) for rows in counted]
    if None in columns:
        _refuse_twins(images, fields)
        return {}
    numbers = [0] * len(images)
    for places, column in zip(shapes.values(), columns, strict=True):
        for place in places:
            numbers[place] = fields[place][column or 0]
    _refuse_twins(images, numbers)
    in_turn = numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    if in_turn or max(numbers) >= _TIMES:
        return {}
    return dict(sorted(zip(numbers, range(len(numbers)), strict=True)))


_EXPECTED = "expected images that are numbered, one for each frame, or named as image"


def _counting(names: Sequence[tuple[int, ...]]) -> int | None:
    """Which number of names that are alike counts: the one that differs."""
    columns = list(zip(*names, strict=True))
    differ = [place for place, column in enumerate(columns) if len(set(column)) > 1]
    if len(differ) > 1:
        return None
    return differ[0] if differ else len(columns) - 1


def _refuse_twins(images: Sequence[Path], numbers: Sequence[object]) -> None:
    first: dict[object, Path] = {}
    for image, number in zip(images, numbers, strict=True):
        if number in first:
            names = f"{first[number].name} and {image.name}"
            raise PreparationError(f"{names} have one number, {_EXPECTED}")
        first[number] = image


def first_number(frames: Sequence[int], images: dict[int, int]) -> int | None:
    """The number in a table of the first image, where some are missing.

    Args:
        frames: the numbers in the table.
        images: what ``find_numbers`` found.

    Returns:
        The image's own number, or 0 where the table counts from 0. None where the
        frames have room in either way, or in none.
    """
    low, high = min(images), max(images)
    if low == 0 or not frames:
        return 0
    own = low <= min(frames) and max(frames) <= high
    from_zero = max(frames) <= high - low
    if own == from_zero:
        return None
    return low if own else 0
