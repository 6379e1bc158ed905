"""LaSOT: 1,400 videos of 70 classes, some 2,500 frames each.

Fan et al., CVPR 2019. A video's folder holds ``img/%08d.jpg`` from 1 and what
``read_lasot`` reads; ``nlp.txt``, a sentence on the target, is not read. The test set
is the four videos of each class that ``testing_set.txt`` names, or ``LASOT_TEST``; of
the rest only the 70 classes are for training: the 15 that were added in 2020 are for
evaluation alone.
"""

from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_prep.rows import numbered_track
from data_prep.tracks import Dataset, Options, PreparationError, Rejection, Track, Unit
from siamrpn_jax.data.read.benchmark_lists import LASOT_TEST
from siamrpn_jax.data.read.images import natural_sort
from siamrpn_jax.data.read.rows import read_lasot, read_lines

CLASSES = frozenset(name.rpartition("-")[0] for name in LASOT_TEST)
"""The 70 classes of the training set, each of which is also in the test set."""


@dataclass(frozen=True)
class LasotOptions(Options):
    """Options of LaSOT."""

    split: Literal["train", "test", "all"] = "train"
    """Which videos; the benchmark is on those of test (protocol II)."""


def list_units(options: LasotOptions) -> list[Unit]:
    """A unit for each video, in folders of the classes or without them."""
    folders = {
        text.parent.name: text.parent
        for pattern in ("*/groundtruth.txt", "*/*/groundtruth.txt")
        for text in options.raw.glob(pattern)
    }
    listed, _ = read_lines(options.raw / "testing_set.txt")
    test = {line.strip() for line in listed} or set(LASOT_TEST)
    kept = [
        folder
        for name, folder in folders.items()
        if options.split == "all" or _split(name, test) == options.split
    ]
    if not kept:
        found = f"{len(folders)} videos, none to {options.split}" if folders else "none"
        raise PreparationError(f"{options.raw}: expected LaSOT videos, found {found}")
    return [Unit(path.name, path) for path in natural_sort(kept)]


def read_unit(unit: Unit) -> Iterator[Track | Rejection]:
    """The track of one video."""
    folder: Path = unit.content
    rows, boxes, visibility = read_lasot(folder)
    yield from numbered_track(
        rows,
        folder / "img",
        "%08d.jpg",
        boxes=boxes,
        visibility=visibility,
        name=unit.key,
        video=unit.key,
        category=_category(unit.key),
    )


def _split(name: str, test: Set[str]) -> str:
    """``train``, ``test``, or nothing for classes that were added later."""
    if name in test:
        return "test"
    return "train" if _category(name) in CLASSES else ""


def _category(name: str) -> str:
    """The class of a video: airplane for ``airplane-1``."""
    return name.rpartition("-")[0]


DATASET = Dataset(
    name="lasot",
    title="LaSOT",
    layout="""\
RAW/airplane/airplane-1/img/%08d.jpg        (from 00000001.jpg; the folders of the
RAW/airplane/airplane-1/groundtruth.txt      classes may be left out)
RAW/airplane/airplane-1/full_occlusion.txt, out_of_view.txt
RAW/testing_set.txt                         (may be missing)""",
    origin="http://vision.cs.stonybrook.edu/~lasot/ (a zip file for each class)",
    list_units=list_units,
    read_unit=read_unit,
    units_per_shard=1,
    options=LasotOptions,
)

if __name__ == "__main__":
    from data_prep.command import main

    main("lasot")
