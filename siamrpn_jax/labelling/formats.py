"""Labels for other tools: one table of writers.

===========  ==================================================================
csv          ``NAME.csv``: ``frame,object,x,y,w,h,confidence…`` as ``siamrpn track``
             writes it, with the class; frames from 0, and of a folder of images the
             name of each.
mot          MOT 1.1: ``NAME/gt/gt.txt``, ``gt/labels.txt``, ``seqinfo.ini`` and
             ``img1/``; frames from 1. A lost object is not considered.
cvat         CVAT for video 1.1: ``NAME.xml``, a box in every frame; ``outside`` where
             an object is lost; frames from 0.
coco         ``annotations/instances_default.json``, COCO with ``videos`` and
             ``track_id``, and ``images/``. Without lost ones.
yolo         Ultralytics: ``images/train/``, ``labels/train/``, ``data.yaml``. Without
             lost ones; boxes end at the edges of the image.
labelstudio  ``NAME.json``: a task with video rectangles in percent; frames from 1;
             without lost ones, before which ``enabled`` is false.
vot          ``NAME-NUMBER/groundtruth.txt`` and ``color/`` for each object; ``nan``
             where it is lost.
===========  ==================================================================

Frames of a film that a format wants as images are written as JPEG; those that are image
files are copied.
"""

import contextlib
import csv
import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, get_args
from xml.etree import ElementTree

import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import replacing
from siamrpn_jax.data.read.images import encode_jpeg, read_size
from siamrpn_jax.labelling import Format, Progress
from siamrpn_jax.labelling.labels import LabelledObject, Labels

CSV_COLUMNS = (
    "frame",
    "object",
    "x",
    "y",
    "w",
    "h",
    "confidence",
    "lost",
    "class",
)
"""Columns of the format ``csv``; ``lost`` is 0 or 1. Where frames are image files,
``image`` follows: their names say which are meant, whatever is missing between them."""

_QUALITY = 95  # Of the JPEGs.

_ONE_SIZE = frozenset(("mot", "cvat", "labelstudio"))
"""Formats that have one size for all frames."""


class FrameSource(Protocol):
    """Where the frames of a film are, see ``media.frames``."""

    def __getitem__(self, index: int) -> np.ndarray:
        """RGB uint8 ``[H, W, 3]``."""
        ...

    def image_file(self, index: int) -> Path | None:
        """The file of a frame; None in a film."""
        ...


def write_labels(
    labels: Labels,
    folder: Path,
    format: Format,
    *,
    frames: FrameSource | None = None,
    every: int = 1,
    progress: Progress | None = None,
) -> list[Path]:
    """Writes labels for another tool.

    Args:
        labels: what is known.
        folder: where to; made where it is missing. What is there stays.
        format: see the module.
        frames: the film, for the formats that want images; None: they get none.
        every: ``yolo`` and ``coco`` take every so many frames; the others take all.
        progress: told after each image that is written; what it raises ends it.

    Returns:
        The files of labels, images not among them.

    Raises:
        InputError: no such format; nothing to write; a file of that name is there; or
            frames are of several sizes, and the format has one for all.
        OSError: naming a file that cannot be written.
    """
    if format not in _WRITERS:
        known = ", ".join(get_args(Format))
        raise InputError(f"format {format!r}, expected one of {known}")
    if every < 1 or (every > 1 and format not in ("yolo", "coco")):
        raise InputError(
            f"every is {every}, expected 1, or more for yolo and coco: in a track no "
            "frame may be missing"
        )
    if not any(one.known.any() for one in labels.objects):
        raise InputError(f"{labels.name}: no object is known in any frame")
    images = _Images(frames, range(0, labels.length, every), progress, labels.size)
    check_images(images.files(), format)
    return _WRITERS[format](labels, folder, images)


def check_images(images: Iterable[Path], format: Format) -> None:
    """Checks that a format can hold frames of the sizes of image files.

    Raises:
        InputError: they have several, and the format has one for all.
    """
    if format not in _ONE_SIZE:
        return
    first: dict[tuple[int, int], Path] = {}
    for image in images:
        first.setdefault(read_size(image), image)
        if len(first) > 1:
            (a, b), (one, other) = first.keys(), first.values()
            raise InputError(
                f"{one} has {a[0]}x{a[1]} pixels and {other.name} {b[0]}x{b[1]}: "
                f"{format} has one size for all frames, expected csv, coco, yolo or vot"
            )


class _Images:
    """The frames that are written as images."""

    def __init__(
        self,
        frames: FrameSource | None,
        numbers: range,
        progress: Progress | None,
        size: tuple[int, int],
    ):
        self._frames, self._progress, self._size = frames, progress, size
        self.numbers = numbers
        self._done, self._total = 0, 0

    def expect(self, count: int) -> None:
        """Says how many will be written; by default the frames, each once."""
        self._total = count

    def files(self) -> list[Path]:
        """The image files that the frames are; none in a film."""
        files = [self._frames.image_file(n) for n in self.numbers if self._frames]
        return [file for file in files if file]

    def size(self, number: int) -> tuple[int, int]:
        """Width and height of a frame: images of a folder may differ."""
        file = self._frames.image_file(number) if self._frames else None
        return read_size(file) if file else self._size

    def write(
        self, folder: Path, pattern: str, *, first: int, since: int = 0
    ) -> list[str]:
        """Writes them, and returns their names.

        Args:
            folder: where to.
            pattern: of the names without suffix, as ``%06d``.
            first: what the first frame is called by.
            since: from which of the frames on.
        """
        names = []
        for number in self.numbers[since:]:
            source = self._frames.image_file(number) if self._frames else None
            suffix = source.suffix if source else ".jpg"
            name = pattern % (number + first) + suffix
            names.append(name)
            if self._frames is None:
                continue
            with _new(folder / name) as path:
                if source:
                    shutil.copyfile(source, path)
                else:
                    frame = self._frames[number]
                    path.write_bytes(encode_jpeg(frame, quality=_QUALITY))
            self._done += 1
            if self._progress:
                self._progress(self._done, self._total or len(self.numbers))
        return names


@contextlib.contextmanager
def _new(path: Path) -> Iterator[Path]:
    """A temporary name of a file that is not there yet."""
    if path.exists():
        raise InputError(f"{path}: is there already, expected another folder")
    with replacing(path) as temporary:
        yield temporary


def _write_text(path: Path, text: str) -> Path:
    with _new(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _number(value: float, digits: int = 3) -> str:
    """A number without the zeros at its end."""
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") or "0"


def _there(one: LabelledObject) -> np.ndarray:
    """The frames in which an object has a box, lost or not."""
    return np.flatnonzero(np.isfinite(one.boxes).all(axis=1))


def _confidence(one: LabelledObject, frame: int) -> float:
    """1 where a person drew the box."""
    value = one.confidence[frame]
    return 1.0 if np.isnan(value) else float(value)


# --------------------------------------------------------------------------- writers


def _write_csv(labels: Labels, folder: Path, images: _Images) -> list[Path]:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    names = [file.name for file in images.files()]
    rows.writerow([*CSV_COLUMNS, "image"] if names else CSV_COLUMNS)
    for frame in range(labels.length):
        for one in labels.objects:
            if np.isfinite(one.boxes[frame]).all():
                box = [_number(side) for side in one.boxes[frame]]
                sure = _number(_confidence(one, frame), 4)
                row = [frame, one.number, *box, sure, int(one.lost[frame]), one.name]
                rows.writerow([*row, *names[frame : frame + 1]])
    return [_write_text(folder / f"{labels.name}.csv", text.getvalue())]


def _write_mot(labels: Labels, folder: Path, images: _Images) -> list[Path]:
    root, lines = folder / labels.name, []
    for frame in range(labels.length):
        for one in labels.objects:
            if np.isfinite(one.boxes[frame]).all():
                box = ",".join(_number(side) for side in one.boxes[frame])
                seen = int(not one.lost[frame])
                kind = labels.classes.index(one.name) + 1
                # MOT's readers take identities from 1.
                lines.append(f"{frame + 1},{one.number + 1},{box},{seen},{kind},{seen}")
    names = images.write(root / "img1", "%06d", first=1)
    width, height = labels.size
    info = (
        f"[Sequence]\nname={labels.name}\nimDir=img1\n"
        # A whole number: others' readers take no other.
        f"frameRate={int((labels.fps or 25) + 0.5)}\nseqLength={labels.length}\n"
        f"imWidth={width}\nimHeight={height}\nimExt={Path(names[0]).suffix}\n"
    )
    return [
        _write_text(root / "gt" / "gt.txt", "\n".join(lines) + "\n"),
        _write_text(root / "gt" / "labels.txt", "\n".join(labels.classes) + "\n"),
        _write_text(root / "seqinfo.ini", info),
    ]


def _write_cvat(labels: Labels, folder: Path, images: _Images) -> list[Path]:
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    for key, value in (
        ("name", labels.name),
        ("size", labels.length),
        ("mode", "interpolation"),
        ("start_frame", 0),
        ("stop_frame", labels.length - 1),
    ):
        ElementTree.SubElement(task, key).text = str(value)
    kinds = ElementTree.SubElement(task, "labels")
    for name in labels.classes:
        kind = ElementTree.SubElement(kinds, "label")
        ElementTree.SubElement(kind, "name").text = name
        ElementTree.SubElement(kind, "attributes")
    size = ElementTree.SubElement(task, "original_size")
    for key, value in zip(("width", "height"), labels.size, strict=True):
        ElementTree.SubElement(size, key).text = str(value)
    for one in labels.objects:
        _add_cvat_track(root, one)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    return [_write_text(folder / f"{labels.name}.xml", f"{head}{text}\n")]


def _add_cvat_track(root: ElementTree.Element, one: LabelledObject) -> None:
    track = ElementTree.SubElement(
        root,
        "track",
        {"id": str(one.number), "label": one.name, "source": "semi-auto"},
    )
    frames = _there(one)
    for frame in frames:
        _add_cvat_box(
            track, int(frame), one.boxes[frame], outside=bool(one.lost[frame])
        )
        # Tools hold a box until they are told that it ends.
        if frame + 1 < len(one.boxes) and frame + 1 not in frames:
            _add_cvat_box(track, int(frame) + 1, one.boxes[frame], outside=True)


def _add_cvat_box(
    track: ElementTree.Element, frame: int, box: np.ndarray, *, outside: bool
) -> None:
    x, y, w, h = box
    corners = {"xtl": x, "ytl": y, "xbr": x + w, "ybr": y + h}
    fields = {
        "frame": str(frame),
        "keyframe": "1",
        "outside": str(int(outside)),
        "occluded": "0",
        **{key: _number(value) for key, value in corners.items()},
        "z_order": "0",
    }
    ElementTree.SubElement(track, "box", fields)


def _write_coco(labels: Labels, folder: Path, images: _Images) -> list[Path]:
    names = images.write(folder / "images", f"{labels.name}_%06d", first=0)
    width, height = labels.size
    kinds = {name: number for number, name in enumerate(labels.classes, start=1)}
    annotations: list[dict[str, Any]] = []
    for image, frame in enumerate(images.numbers, start=1):
        for one in labels.objects:
            if one.known[frame]:
                box = [round(float(side), 3) for side in one.boxes[frame]]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image,
                        "video_id": 1,
                        "track_id": one.number,
                        "category_id": kinds[one.name],
                        "bbox": box,
                        "area": round(box[2] * box[3], 3),
                        "iscrowd": 0,
                        "score": round(_confidence(one, frame), 4),
                    }
                )
    content = {
        "info": {"description": labels.name},
        "videos": [
            {"id": 1, "name": labels.name, "width": width, "height": height}
            | {"length": labels.length, "fps": labels.fps}
        ],
        "images": [
            {"id": image, "file_name": name, "video_id": 1, "frame_index": frame}
            | dict(zip(("width", "height"), images.size(frame), strict=True))
            for image, (name, frame) in enumerate(
                zip(names, images.numbers, strict=True), start=1
            )
        ],
        "categories": [{"id": number, "name": name} for name, number in kinds.items()],
        "annotations": annotations,
    }
    path = folder / "annotations" / "instances_default.json"
    return [_write_text(path, json.dumps(content) + "\n")]


def _write_yolo(labels: Labels, folder: Path, images: _Images) -> list[Path]:
    names = images.write(folder / "images/train", f"{labels.name}_%06d", first=0)
    files = []
    for name, frame in zip(names, images.numbers, strict=True):
        lines, size = [], images.size(frame)
        for one in labels.objects:
            if one.known[frame]:
                x, y, w, h = _within(one.boxes[frame], size) / (2 * size)
                numbers = " ".join(_number(v, 7) for v in (x + w / 2, y + h / 2, w, h))
                lines.append(f"{labels.classes.index(one.name)} {numbers}\n")
        path = folder / "labels/train" / f"{Path(name).stem}.txt"
        files.append(_write_text(path, "".join(lines)))
    kinds = "".join(
        f"  {number}: {json.dumps(name)}\n"
        for number, name in enumerate(labels.classes)
    )
    data = f"path: .\ntrain: images/train\nval: images/train\nnames:\n{kinds}"
    return [_write_text(folder / "data.yaml", data), *files]


def _within(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The part of a box, ``ltwh``, that is in the image.

    Where a centre lies outside, Ultralytics leaves out the image and all its boxes.
    """
    low = np.clip(box[:2], 0, size)
    return np.r_[low, np.clip(box[:2] + box[2:], 0, size) - low]


def _write_studio(labels: Labels, folder: Path, images: _Images) -> list[Path]:
    results = [studio_result(one, labels) for one in labels.objects]
    film = Path(labels.source).name
    task = {"data": {"video": film}, "annotations": [{"result": results}]}
    text = json.dumps([task], ensure_ascii=False) + "\n"
    return [_write_text(folder / f"{labels.name}.json", text)]


def studio_result(one: LabelledObject, labels: Labels) -> dict[str, Any]:
    """An object as Label Studio's video rectangle, a key frame in every frame.

    Args:
        one: the object; frames in which it is lost are left out.
        labels: of its film: size, length and frames a second (25 if not known).
    """
    width, height = labels.size
    fps = labels.fps or 25.0
    frames = np.flatnonzero(one.known)
    followed = {*(frames - 1).tolist(), labels.length - 1}
    sequence = []
    for frame in frames.tolist():
        percent = one.boxes[frame] / (width, height, width, height) * 100
        sides = zip(("x", "y", "width", "height"), percent, strict=True)
        # A key frame that is not enabled is the last one before a gap.
        sequence.append(
            {
                "frame": frame + 1,
                "enabled": frame in followed,
                "rotation": 0,
                **{key: round(float(value), 6) for key, value in sides},
                "time": round(frame / fps, 4),
            }
        )
    sure = [_confidence(one, frame) for frame in frames.tolist()]
    return {
        "id": f"object{one.number}",
        "type": "videorectangle",
        "from_name": "box",
        "to_name": "video",
        "origin": "manual",
        "score": round(float(np.mean(sure)), 4) if sure else 0.0,
        "value": {
            "framesCount": labels.length,
            "duration": round(labels.length / fps, 4),
            "sequence": sequence,
            "labels": [one.name],
        },
    }


def _write_vot(labels: Labels, folder: Path, images: _Images) -> list[Path]:
    files = []
    # A sequence begins with its object: frames before are left out.
    starts = {
        one: int(np.argmax(one.known)) for one in labels.objects if any(one.known)
    }
    images.expect(sum(labels.length - start for start in starts.values()))
    for one, start in starts.items():
        root = folder / f"{labels.name}-{one.number}"
        lines = [
            ",".join(_number(side) for side in one.boxes[frame])
            if one.known[frame]
            else "nan,nan,nan,nan"
            for frame in range(start, labels.length)
        ]
        images.write(root / "color", "%08d", first=1 - start, since=start)
        files.append(_write_text(root / "groundtruth.txt", "\n".join(lines) + "\n"))
    return files


_Writer = Callable[[Labels, Path, _Images], list[Path]]

_WRITERS: dict[str, _Writer] = {
    "csv": _write_csv,
    "mot": _write_mot,
    "cvat": _write_cvat,
    "coco": _write_coco,
    "yolo": _write_yolo,
    "labelstudio": _write_studio,
    "vot": _write_vot,
}
"""Every writer by the name of its format."""
