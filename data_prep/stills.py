"""Stills: each object of an image is a track of one frame."""

import numpy as np

from data_prep.tracks import Frame, Track


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
