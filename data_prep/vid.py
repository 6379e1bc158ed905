"""ImageNet VID (ILSVRC2015): 3,862 videos to train on, 555 to validate, 30 classes.

Russakovsky et al., IJCV 2015. Each frame has a file of its own below ``Annotations``,
``%06d.xml`` from 0, with the size of the frame and any number of objects; one whose
``trackid`` is the same in several frames is one target, which may vanish and come back.

- ``bndbox``: first and last pixel that are inside, counted from 0 (``xmin`` is 0 at
  the left border), so that the width is ``xmax - xmin + 1``.
- ``occluded``: 1 if a part is hidden, not how much: a visibility of ``OCCLUDED``.
- ``generated``: 1 if people did not draw the box, but software filled it in between.
  Such boxes are kept, as is usual, unless asked otherwise.
- ``name``: a WordNet number, see ``CLASSES``.

The last three digits of a video's name count the clips of one recording. Reading an xml
file takes 0.05 ms, and a minute all 1.1 million of them: little beside the images.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from data_prep.rows import list_names, read_xml
from data_prep.tracks import Dataset, Options, PreparationError, Rejection, Track, Unit

OCCLUDED = 0.5
"""The visibility of targets that are partly hidden, where the share is not known."""

CLASSES = {
    "n02691156": "airplane",
    "n02419796": "antelope",
    "n02131653": "bear",
    "n02834778": "bicycle",
    "n01503061": "bird",
    "n02924116": "bus",
    "n02958343": "car",
    "n02402425": "cattle",
    "n02084071": "dog",
    "n02121808": "domestic cat",
    "n02503517": "elephant",
    "n02118333": "fox",
    "n02510455": "giant panda",
    "n02342885": "hamster",
    "n02374451": "horse",
    "n02129165": "lion",
    "n01674464": "lizard",
    "n02484322": "monkey",
    "n03790512": "motorcycle",
    "n02324045": "rabbit",
    "n02509815": "red panda",
    "n02411705": "sheep",
    "n01726692": "snake",
    "n02355227": "squirrel",
    "n02129604": "tiger",
    "n04468005": "train",
    "n01662784": "turtle",
    "n04530566": "watercraft",
    "n02062744": "whale",
    "n02391049": "zebra",
}
"""WordNet number -> name of the class."""


@dataclass(frozen=True)
class VidOptions(Options):
    """Options of ImageNet VID."""

    split: Literal["train", "val", "all"] = "train"
    """Which videos."""
    drawn_only: bool = False
    """Leave out boxes that software filled in between those that people drew."""


class Video(NamedTuple):
    """What a unit holds."""

    annotations: Path
    frames: Path
    drawn_only: bool


class Box(NamedTuple):
    """An object of one frame."""

    number: int
    ltwh: tuple[float, float, float, float]
    visibility: float
    category: str


class Annotation(NamedTuple):
    """What one xml file says."""

    path: Path
    size: tuple[int, int] | None
    boxes: list[tuple[int, Box]]  # with the trackid
    rejections: list[Rejection]


def list_units(options: VidOptions) -> list[Unit]:
    """A unit for each video."""
    roots = [options.raw, options.raw / "ILSVRC2015", options.raw / "ILSVRC"]
    root = next((path for path in roots if (path / "Annotations/VID").is_dir()), None)
    if root is None:
        raise PreparationError(f"{options.raw}: has no Annotations/VID")
    # Only names as published: some trackers put links to the same folders beside them.
    patterns = {
        "train": "train/ILSVRC2015_VID_train_*/ILSVRC2015_train_*",
        "val": "val/ILSVRC2015_val_*",
    }
    annotations, frames = root / "Annotations/VID", root / "Data/VID"
    keys = sorted(
        path.relative_to(annotations).as_posix()
        for split, pattern in patterns.items()
        if options.split in (split, "all")
        for path in annotations.glob(pattern)
    )
    if not keys:
        raise PreparationError(f"{annotations}: holds no videos to {options.split}")
    return [
        Unit(key, Video(annotations / key, frames / key, options.drawn_only))
        for key in keys
    ]


def read_unit(unit: Unit) -> Iterator[Track | Rejection]:
    """The tracks of one video, one for each trackid."""
    video: Video = unit.content
    recording = video.annotations.name[:-3]
    stems, problems = _list_frames(video)
    yield from problems
    tracks: dict[int, list[Box]] = {}
    size = None
    for stem in stems:
        found = _read_xml(video.annotations / f"{stem}.xml", video.drawn_only)
        yield from found.rejections
        size = size or found.size
        if found.boxes and found.size != size:
            reason = f"size is {found.size}, that of the frames before is {size}"
            yield _reject(found.path, reason, len(found.boxes))
            continue
        for trackid, box in found.boxes:
            tracks.setdefault(trackid, []).append(box)
    for trackid, boxes in sorted(tracks.items()):
        yield Track(
            name=f"{unit.key}/{trackid:02d}",
            video=recording,
            frames=[video.frames / f"{box.number:06d}.JPEG" for box in boxes],
            boxes=np.array([box.ltwh for box in boxes], np.float64),
            numbers=np.array([box.number for box in boxes], np.int64),
            visibility=np.array([box.visibility for box in boxes], np.float32),
            category=boxes[0].category,
            size=size,
        )


def _list_frames(video: Video) -> tuple[list[str], list[Rejection]]:
    """Stems of the annotations, none if there are no frames, and what is missing."""
    stems = _stems(video.annotations, ".xml")
    frames = _stems(video.frames, ".JPEG")
    if not stems or not frames:
        empty, kind = (video.frames, "JPEG") if stems else (video.annotations, "xml")
        lost = max(len(stems), len(frames), 1)
        return [], [Rejection(str(empty), None, f"holds no files %06d.{kind}", lost)]
    extra = sorted(frames - stems)
    if not extra:
        return sorted(stems), []
    reason = f"has no file {extra[0]}.xml for a frame ({len(extra)} in all)"
    rejection = Rejection(str(video.annotations), int(extra[0]), reason, len(extra))
    return sorted(stems), [rejection]


def _read_xml(path: Path, drawn_only: bool) -> Annotation:
    """Objects of one frame; those that cannot be read are rejected alone."""
    try:
        root = read_xml(path)
        tags = {part.tag: part.text for part in root.iterfind("size/*")}
        size = int(_number(tags, "width")), int(_number(tags, "height"))
    except ValueError as error:
        return Annotation(path, None, [], [_reject(path, f"cannot be read: {error}")])
    boxes, rejections = [], []
    for index, element in enumerate(root.iterfind("object")):
        tags = {part.tag: part.text for part in element.iter()}
        try:
            if not (drawn_only and _number(tags, "generated")):
                boxes.append((int(_number(tags, "trackid")), _read_box(path, tags)))
        except ValueError as error:
            rejections.append(_reject(path, f"object {index + 1}: {error}"))
    return Annotation(path, size, boxes, rejections)


def _read_box(path: Path, tags: Mapping[str, str | None]) -> Box:
    """From the texts of an object's tags."""
    x0, y0, x1, y1 = (_number(tags, key) for key in ("xmin", "ymin", "xmax", "ymax"))
    visibility = OCCLUDED if _number(tags, "occluded") else 1
    name = tags.get("name") or ""
    ltwh = x0, y0, x1 - x0 + 1, y1 - y0 + 1
    return Box(int(path.stem), ltwh, visibility, CLASSES.get(name, name))


def _number(tags: Mapping[str, str | None], key: str) -> float:
    """The number that a tag holds.

    Raises:
        ValueError: there is none.
    """
    text = tags.get(key)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        found = "missing" if text is None else repr(text)
        raise ValueError(f"{key} is {found}, expected a number")
    return value


def _reject(path: Path, reason: str, records: int = 1) -> Rejection:
    """One frame's annotation."""
    return Rejection(str(path), int(path.stem), reason, records)


def _stems(folder: Path, suffix: str) -> set[str]:
    """Names of the numbered files of a kind, without it."""
    stems = {name.removesuffix(suffix) for name in list_names(folder, suffix)}
    return {stem for stem in stems if stem.isdecimal()}


DATASET = Dataset(
    name="vid",
    title="ImageNet VID",
    layout="""\
RAW/Annotations/VID/train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000/%06d.xml
RAW/Data/VID/train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000/%06d.JPEG
RAW/Annotations/VID/val/ILSVRC2015_val_00000000/%06d.xml    (for --split val or all)
RAW/Data/VID/val/ILSVRC2015_val_00000000/%06d.JPEG
(or RAW is the folder above, with ILSVRC2015 or ILSVRC in it)""",
    origin="https://image-net.org/challenges/LSVRC/2015/ (ILSVRC2015_VID, 86 GB)",
    list_units=list_units,
    read_unit=read_unit,
    units_per_shard=8,
    options=VidOptions,
)

if __name__ == "__main__":
    from data_prep.command import main

    main("vid")
