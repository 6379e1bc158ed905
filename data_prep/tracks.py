"""What a parser yields, and what describes a dataset to the shared writer.

A dataset is a list of units, each parsed by itself: a video's annotations, or some
images of one list. Listing them is cheap and done once; parsing is the workers' part.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.rows import Rejection


class PreparationError(InputError):
    """Raw data, options or an output folder that cannot be used."""


class ImageBytes(NamedTuple):
    """A frame that is no file of its own."""

    name: str
    """For messages."""

    data: bytes
    """An encoded image."""


class VideoFrame(NamedTuple):
    """A frame of a video file."""

    path: Path

    index: int
    """Counted from 0, in the order of decoding."""


Frame = Path | ImageBytes | VideoFrame
"""Where the pixels of a frame are: an image file, bytes, or a frame of a video."""


@dataclass(frozen=True)
class Track:
    """One target through the annotated frames of one video, or in one still."""

    name: str
    """Unique in the dataset, for example ``GOT-10k_Train_000001``."""

    video: str
    """Tracks with equal names may show each other's targets."""

    frames: Sequence[Frame]
    """``T`` of them, in the order of time."""

    boxes: np.ndarray
    """``float64 [T, 4]``, ``ltwh`` in continuous pixels from 0 of the stored frames."""

    numbers: np.ndarray
    """``int64 [T]``, increasing: frame numbers in the source video."""

    visibility: np.ndarray
    """``float32 [T]``, the visible share of the target; at 0 it is absent, no matter
    what the box says, and the frame is left out. 1 where nothing is annotated."""

    category: str = ""
    """The target's class, empty where it has none."""

    size: tuple[int, int] | None = None
    """Annotated width and height of the frames; frames of another size are rejected."""

    sizes: Sequence[tuple[float, float] | None] = ()
    """The same of each frame, where it is annotated frame by frame."""

    relative: bool = False
    """Whether boxes and outlines are fractions of the frame's width and height."""

    outlines: Sequence[tuple[np.ndarray, ...]] = ()
    """The target's polygons ``[n, 2]`` in each frame, in the unit of the boxes; none at
    all where none are annotated."""


class Unit(NamedTuple):
    """What a worker parses at a time."""

    key: str
    """Unique; does not depend on where the raw data lies."""

    content: Any
    """What the dataset's ``read_unit`` needs; picklable."""


@dataclass(frozen=True)
class Options:
    """What every preparation can be asked for."""

    raw: Path
    """Folder of the dataset as it was obtained."""
    out: Path
    """Folder of the prepared dataset."""
    workers: int = 0
    """Processes; 0: one for each core."""
    every_k: int = 1
    """Keep every K-th annotated frame of a track; 1 keeps all."""
    limit: int | None = None
    """Keep only this number of first videos (of stills: images)."""
    max_bad: str = "1%"
    """Fail if more than this share of the records had to be rejected."""
    quality: int = 90
    """Quality of the JPEGs, 1 to 100."""
    search_crop: int = 448
    """Side of the search crops, pixels: room to shift and scale the search patch."""
    per_shard: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Videos (of stills: images) in a shard; by default what makes some 200 MB."""


@dataclass(frozen=True)
class Dataset:
    """A dataset to the shared writer and the shared command line."""

    name: str
    """Begins the names of the shards: lower case, digits, underscores."""

    title: str
    """As people call it."""

    layout: str
    """What ``--raw`` must hold, for messages; several lines."""

    origin: str
    """Where it is obtained."""

    list_units: Callable[[Any], Sequence[Unit]]
    """Lists the units from the options, in an order that never varies.

    Raises PreparationError naming what is missing; the command adds the layout."""

    read_unit: Callable[[Unit], Iterable[Track | Rejection]]
    """Parses one; whatever is wrong in it is a Rejection, never an exception."""

    units_per_shard: int
    """Number of units that make some 200 MB."""

    neighbours: int | None = None
    """How many annotated frames a pair may lie apart; None: any number. YouTube-BB is
    sampled "continuously" (paper, section 5.1): 1."""

    options: type[Options] = Options
    """With the fields of this dataset alone, if it has any."""
