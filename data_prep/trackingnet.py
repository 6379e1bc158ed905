"""TrackingNet: 30,132 videos from YouTube-BB in 12 chunks, a box in every frame.

Müller et al., ECCV 2018. A chunk holds ``frames/<video>/%d.jpg`` from 0 and a box
``x,y,w,h`` a frame in ``anno/<video>.txt``, whose first line is of ``0.jpg``. A name
``cGJLuwZIG5s_2`` is the target 2 of a video on the web, of which there may be others.

One box a second is drawn by people, those between are a correlation filter's, so many
are loose and reach beyond the image. No absence, occlusion or class is annotated.
Whether pixels count from 0 or 1 is not published; boxes are taken as counted from 0,
as the authors' own tool draws them. ``TEST`` has the first box only and is not read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.rows import list_names, numbered_track
from data_prep.tracks import Dataset, Options, PreparationError, Rejection, Track, Unit
from siamrpn_jax.data.read.rows import read_rows


@dataclass(frozen=True)
class TrackingNetOptions(Options):
    """Options of TrackingNet."""

    chunks: tuple[int, ...] = ()
    """Which of the chunks 0 to 11; by default all that are there."""


def list_units(options: TrackingNetOptions) -> list[Unit]:
    """A unit for each video of the chunks, with boxes, frames or both."""
    there = {
        int(found[1])
        for path in (options.raw.iterdir() if options.raw.is_dir() else ())
        if (found := re.fullmatch(r"TRAIN_(\d+)", path.name))
    }
    missing = [f"TRAIN_{n}" for n in options.chunks if n not in there]
    if missing or not there:
        wanted = ", ".join(missing) or "TRAIN_0 to TRAIN_11"
        raise PreparationError(f"{options.raw}: has no {wanted}")
    units = []
    for chunk in sorted(set(options.chunks) or there):
        folder = options.raw / f"TRAIN_{chunk}"
        names = {Path(name).stem for name in list_names(folder / "anno", ".txt")}
        names.update(list_names(folder / "frames", ""))
        units += [Unit(f"TRAIN_{chunk}/{name}", folder) for name in sorted(names)]
    if not units:
        raise PreparationError(f"{options.raw}: the chunks hold no anno or frames")
    return units


def read_unit(unit: Unit) -> Iterator[Track | Rejection]:
    """The track of one video."""
    folder: Path = unit.content
    name = unit.key.partition("/")[2]
    text = folder / "anno" / f"{name}.txt"
    rows = read_rows(text, columns=4, expected="x,y,w,h", first=0)
    yield from numbered_track(
        rows,
        folder / "frames" / name,
        "%d.jpg",
        boxes=rows.values,
        visibility=np.ones(len(rows.good), np.float32),
        name=unit.key,
        video=name.rpartition("_")[0] or name,
    )


DATASET = Dataset(
    name="trackingnet",
    title="TrackingNet",
    layout="""\
RAW/TRAIN_0/frames/-3TIfnTSM6c_2/%d.jpg    (from 0.jpg; extracted from RAW/TRAIN_0/zips)
RAW/TRAIN_0/anno/-3TIfnTSM6c_2.txt         (x,y,w,h in each line)
RAW/TRAIN_1/… to RAW/TRAIN_11/…            (as many of them as there are)""",
    origin="https://github.com/SilvioGiancola/TrackingNet-devkit",
    list_units=list_units,
    read_unit=read_unit,
    units_per_shard=7,
    options=TrackingNetOptions,
)

if __name__ == "__main__":
    from data_prep.command import main

    main("trackingnet")
