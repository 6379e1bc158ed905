"""GOT-10k: 9,335 videos to train on, 180 to validate, at 10 frames a second.

Huang et al., TPAMI 2019. A video's folder holds ``%08d.jpg`` from 1 and what
``read_got10k`` reads; -1,-1,-1,-1 and boxes without area stand where the target is
absent. ``meta_info.ini`` names the class, the video on the web, of which there may be
several clips, and the size of the frames. The frames of some ten videos change their
size on the way; those of another size than named are rejected.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_prep.rows import numbered_track
from data_prep.tracks import Dataset, Options, PreparationError, Rejection, Track, Unit
from siamrpn_jax.common.files import check_name
from siamrpn_jax.data.read.rows import read_got10k, read_lines

UNUSABLE = frozenset(
    f"GOT-10k_Train_{number:06d}" for number in (*range(8623, 8638), 9058, 9059)
)
"""Training videos that are left out: their first frames repeat one image while the
boxes move on, so that no box fits (reported to the authors in 2019)."""


@dataclass(frozen=True)
class Got10kOptions(Options):
    """Options of GOT-10k."""

    split: Literal["train", "val"] = "train"
    """Which videos."""


def list_units(options: Got10kOptions) -> list[Unit]:
    """A unit for each video of ``list.txt``, or without that file for each folder."""
    inner = options.raw / options.split
    folder = inner if inner.is_dir() else options.raw
    listed, problem = read_lines(folder / "list.txt")
    if problem and folder.is_dir():
        listed = sorted(path.name for path in folder.iterdir() if path.is_dir())
    prefix = f"GOT-10k_{options.split.title()}_"
    names = dict.fromkeys(line.strip() for line in listed if line.startswith(prefix))
    if not names:
        raise PreparationError(f"{folder}: has no list.txt or folders with {prefix}…")
    for name in names:
        check_name(name, error=PreparationError)
    return [Unit(name, folder / name) for name in names if name not in UNUSABLE]


def read_unit(unit: Unit) -> Iterator[Track | Rejection]:
    """The track of one video."""
    folder: Path = unit.content
    rows, boxes, visibility = read_got10k(folder)
    meta = _read_meta(folder / "meta_info.ini")
    yield from numbered_track(
        rows,
        folder,
        "%08d.jpg",
        boxes=boxes,
        visibility=visibility,
        name=unit.key,
        video=meta.get("url") or unit.key,
        category=meta.get("object_class", ""),
        size=_read_size(meta.get("resolution", "")),
    )


def _read_meta(path: Path) -> dict[str, str]:
    """Lines ``key: value``; none where there is no such file."""
    lines, _ = read_lines(path)
    return dict(line.split(": ", 1) for line in map(str.strip, lines) if ": " in line)


def _read_size(text: str) -> tuple[int, int] | None:
    """From ``(width, height)``."""
    found = re.fullmatch(r"\((\d+), *(\d+)\)", text)
    return (int(found[1]), int(found[2])) if found else None


DATASET = Dataset(
    name="got10k",
    title="GOT-10k",
    layout="""\
RAW/train/list.txt                                (or RAW is the folder train itself)
RAW/train/GOT-10k_Train_000001/%08d.jpg           (from 00000001.jpg)
RAW/train/GOT-10k_Train_000001/groundtruth.txt    (x,y,w,h in each line)
RAW/train/GOT-10k_Train_000001/absence.label, cover.label, meta_info.ini
RAW/val/…                                         (for --split val)""",
    origin="http://got-10k.aitestunion.com/downloads (19 zip files of training videos)",
    list_units=list_units,
    read_unit=read_unit,
    units_per_shard=24,
    options=Got10kOptions,
)

if __name__ == "__main__":
    from data_prep.command import main

    main("got10k")
