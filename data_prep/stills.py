"""Stills: each object of an image is a track of one frame."""

from pathlib import Path

import numpy as np

from data_prep.tracks import Frame, Track
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.images import exif_orientation

_QUARTER_TURNS = (5, 6, 7, 8)
"""Values of EXIF's orientation that exchange width and height."""


def turned(image: Path, size: tuple[int, int] | None) -> str:
    """Why boxes on a photo cannot be placed; nothing, as a rule.

    Pixels are read as they are stored, and tools show photos as EXIF turns them. Where
    the annotated size tells which was meant, it decides: the writer compares it.

    Args:
        image: the file.
        size: annotated width and height, if there are any.
    """
    try:
        orientation = exif_orientation(image)
    except InputError:
        return ""  # for the writer to say
    told = size is not None and size[0] != size[1] and orientation in _QUARTER_TURNS
    if orientation == 1 or told:
        return ""
    return (
        f"EXIF turns it (orientation {orientation}), and whether boxes are of the "
        "picture as it is stored or as it is shown is not known: expected pixels that "
        "are upright (magick mogrify -auto-orient), or no such mark"
    )


def still_track(
    image: str,
    number: int,
    frame: Frame,
    box_ltwh: tuple[float, float, float, float],
    *,
    category: str = "",
    visibility: float = 1.0,
    size: tuple[int, int] | None = None,
    relative: bool = False,
    outlines: tuple[np.ndarray, ...] = (),
) -> Track:
    """A track of one object.

    Args:
        image: name of the image, unique in the dataset; objects of the same image may
            show each other.
        number: of the object in it.
        frame: where its pixels are.
        box_ltwh: in pixels from 0, or fractions of the image if ``relative``.
        category: as in ``Track``, like the rest.
        visibility: of the object.
        size: annotated width and height of the image.
        relative: whether the box is in fractions.
        outlines: polygons of the object, ``[n, 2]`` each.
    """
    return Track(
        name=f"{image}#{number}",
        video=image,
        frames=[frame],
        boxes=np.array([box_ltwh], np.float64),
        numbers=np.zeros(1, np.int64),
        visibility=np.array([visibility], np.float32),
        category=category,
        size=size,
        relative=relative,
        outlines=[outlines] if outlines else (),
    )
