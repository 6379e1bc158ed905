"""Labels as annotation tools export them, found in your own folder.

====================  ==============================================================
MOT 1.1, MOTChallenge ``CLIP/gt/gt.txt`` (or ``CLIP/det/det.txt``) and ``CLIP/img1/``:
                      ``frame, id, x, y, w, h[, considered, class, visibility]``,
                      frames from 1; class names in ``gt/labels.txt``. Boxes are taken
                      as they are written; a file of corners is rejected. What is
                      not considered is left out.
CVAT 1.1              ``annotations.xml`` (any ``.xml``): tracks over a film or a folder
                      ``images/`` beside it, frames from 0, as many as the task has;
                      or images. Boxes, rotated ones too, polygons, ellipses and
                      masks.
Label Studio          a ``.json`` of tasks: ``videorectangle`` with key frames in
                      percent, frames from 1, linear in between while ``enabled``; or
                      rectangles, polygons and ellipses of images; one film or image
                      a task, not rotated.
COCO                  Roboflow's ``_annotations.coco.json`` beside its images. With
                      ``videos`` and ``track_id``, any ``.json``, its images in
                      ``images/``, beside it or its folder, or beside it: tracks; what
                      is ``lost`` is absent.
YOLO                  ``labels/*.txt`` and ``images/``, below a split or the other way
                      round; class names and ``kpt_shape`` in ``data.yaml``. Boxes,
                      polygons, and the boxes of key points.
VIA                   a ``.csv`` with ``region_shape_attributes``, beside its images:
                      rectangles, polygons, circles and ellipses.
====================  ==============================================================

Polygons are kept as outlines, and the box of a rotated shape is what it covers. A shape
that has no extent (points, lines) or is not known is rejected by its name, and so are
labels that belong to no image or video.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from data_prep import coco
from data_prep.stills import still_track
from data_prep.tools import coco_videos, cvat, label_studio, mot, via, yolo
from data_prep.tools.units import LabelledStill, Unreadable, key_of
from data_prep.tracks import Rejection, Track, Unit
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import read_json
from siamrpn_jax.data.read.images import is_film, is_image
from siamrpn_jax.data.read.stills import turn_problem

ToolContent = (
    mot.Mot
    | cvat.Cvat
    | label_studio.StudioTask
    | coco_videos.CocoVideo
    | LabelledStill
    | Unreadable
)
"""What units of these readers hold."""


def list_units(raw: Path, folders: Iterable[tuple[Path, list[str]]]) -> list[Unit]:
    """A unit for each file of tracks, and for each labelled image.

    Args:
        raw: the folder that keys are relative to.
        folders: each folder below it, with the names of its files.

    Raises:
        PreparationError: a file of a tool cannot be read.
    """
    units: list[Unit] = []
    folders = list(folders)
    files = [folder / name for folder, names in folders for name in names]
    media = [path for path in files if is_image(path) or is_film(path)]
    for folder, names in folders:
        for name in sorted(names):
            units += _units_of(raw, folder / name, media)
        if "labels" in folder.relative_to(raw).parts:
            units += yolo.list_units(raw, folder, names)
    return units


def _units_of(raw: Path, path: Path, media: list[Path]) -> Iterator[Unit]:
    folder, suffix = path.parent, path.suffix.lower()
    if path.name in ("gt.txt", "det.txt") and (folder.parent / "img1").is_dir():
        yield from mot.list_units(raw, path)
    elif path.name == "_annotations.coco.json":
        prefix = "" if folder == raw else f"{key_of(raw, folder)}/"
        yield from coco.list_images(path, folder, min_side=0, prefix=prefix)
    elif suffix == ".json" and _mentions(path, b'"videos"'):
        yield from coco_videos.list_units(raw, path)
    elif suffix == ".json" and _mentions(path, b'"result"'):  # not in COCO's stills
        yield from label_studio.list_units(raw, path, media)
    elif suffix == ".xml" and _mentions(path, b"<annotations"):
        yield from cvat.list_units(raw, path)
    elif suffix == ".csv" and _mentions(path, b"region_shape_attributes"):
        yield from via.list_units(raw, path)


def read_unit(unit: Unit) -> Iterator[Track | Rejection]:
    """The tracks of one unit."""
    content: ToolContent = unit.content
    match content:
        case mot.Mot():
            yield from mot.read_unit(unit.key, content)
        case cvat.Cvat():
            yield from cvat.read_unit(unit.key, content)
        case label_studio.StudioTask():
            yield from label_studio.read_unit(unit.key, content)
        case coco_videos.CocoVideo():
            yield from coco_videos.read_unit(unit.key, content)
        case Unreadable():
            yield Rejection(str(content.path), None, content.reason, content.records)
        case LabelledStill():
            yield from _read_still(unit.key, content)


def _read_still(key: str, content: LabelledStill) -> Iterator[Track | Rejection]:
    if problem := turn_problem(content.image, content.size):
        yield Rejection(str(content.image), None, problem, len(content.objects))
        return
    for number, one in enumerate(content.objects):
        if one.problem:
            reason = f"{content.image.name}, object {number}: {one.problem}"
            yield Rejection(str(content.path), None, reason)
            continue
        yield still_track(
            key,
            number,
            content.image,
            one.box,
            category=one.category,
            relative=content.relative,
            size=content.size,
            outlines=one.outlines,
        )


def _mentions(path: Path, word: bytes) -> bool:
    """Whether a file holds a word; where it stands differs from tool to tool."""
    try:
        return word in path.read_bytes()
    except OSError:
        return False


def describe_unknown(folders: Iterable[tuple[Path, list[str]]]) -> str:
    """What lies there that looks like labels, for the message that nothing is known."""
    for folder, names in folders:
        for name in sorted(names):
            path = folder / name
            if path.suffix.lower() == ".json":
                try:
                    content = read_json(path)
                except InputError:
                    continue
                if isinstance(content, dict) and {"images", "annotations"} <= set(
                    content
                ):
                    return (
                        f"; {path} is of COCO's form: python data_prep/coco.py "
                        "--annotations FILE --images FOLDER reads it"
                    )
            if path.suffix.lower() in (
                ".json",
                ".xml",
                ".csv",
                ".txt",
                ".tsv",
                ".yaml",
            ):
                if not is_image(path):
                    return (
                        f"; {path} is there, and of no layout known (a table of boxes "
                        "is called as its film: film.csv beside film.mp4)"
                    )
    return ""
