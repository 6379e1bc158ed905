"""COCO with ``videos`` and ``track_id``, any ``.json``: tracks.

Images lie in ``images/``, beside the file or its folder, or beside the file. What is
``lost`` is absent; crowds are no targets and left out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.coco import category_key, category_problem
from data_prep.shapes import Box
from data_prep.tools.units import (
    BROKEN,
    Unreadable,
    corners_problem,
    declared_size,
    key_of,
    make_track,
)
from data_prep.tracks import PreparationError, Rejection, Track, Unit
from siamrpn_jax.common.files import inside, read_json


class CocoVideo(NamedTuple):
    """A unit of COCO's with videos: the tracks of one of them."""

    path: Path
    images: Path
    video: Any
    """The id of the video."""


class _Image(NamedTuple):
    """An image of a video."""

    frame: int
    path: Path
    size: tuple[int, int] | None


def list_units(raw: Path, path: Path) -> Iterator[Unit]:
    """A unit for each video; nothing of files of another kind.

    Raises:
        PreparationError: the videos cannot be read.
    """
    content = read_json(path, error=PreparationError)
    if not isinstance(content, dict) or not {"videos", "images"} <= content.keys():
        return
    places = (path.parent / "images", path.parent.parent / "images")
    images = next((place for place in places if place.is_dir()), path.parent)
    try:
        videos = {video["id"]: video.get("name") for video in content["videos"]}
        shown = {
            image["id"]
            for image in content["images"]
            if image.get("video_id") in videos
        }
        lost = sum(one["image_id"] not in shown for one in content["annotations"])
    except (AttributeError, KeyError, TypeError) as error:
        raise PreparationError(f"{path}: malformed videos ({error!r})") from error
    for video, name in videos.items():
        key = f"{key_of(raw, path)}/{name or video}"
        yield Unit(key, CocoVideo(path, images, video))
    if lost:
        reason = f"{lost} annotations whose image is in no video that is listed"
        yield Unit(key_of(raw, path), Unreadable(path, reason, lost))


def read_unit(key: str, content: CocoVideo) -> Iterator[Track | Rejection]:
    """The tracks of a video."""
    whole = read_json(content.path, error=PreparationError)
    try:
        names = {
            category_key(one["id"]): str(one["name"])
            for one in whole.get("categories", ())
        }
        images = {
            one["id"]: _Image(
                _frame_index(one),
                inside(content.images, one["file_name"]),
                declared_size(one.get("width"), one.get("height")),
            )
            for one in whole["images"]
            if one.get("video_id") == content.video
        }
        tracks: dict[Any, list[dict[str, Any]]] = {}
        for one in whole["annotations"]:
            if one["image_id"] in images and not one.get("iscrowd"):
                track = one.get("track_id", one.get("instance_id"))
                tracks.setdefault(track, []).append(one)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        yield Rejection(str(content.path), None, f"malformed ({error!r})")
        return
    if nameless := tracks.pop(None, []):
        reason = f"{key}: annotations without a track_id"
        yield Rejection(str(content.path), None, reason, len(nameless))
    for rows in tracks.values():
        rows.sort(key=lambda row: images[row["image_id"]].frame)
    boxes = [_ltwh(row.get("bbox")) for rows in tracks.values() for row in rows]
    if boxes and (problem := corners_problem(boxes, next(iter(images.values())).path)):
        yield Rejection(str(content.path), None, f"{key}: {problem}", len(boxes))
        return
    for name, rows in tracks.items():
        problems = [text for row in rows if (text := category_problem(row, names))]
        if problems:
            reason = f"{key}: track {name}: {problems[0]}"
            yield Rejection(str(content.path), None, reason, len(rows))
            continue
        shown = [images[row["image_id"]] for row in rows]
        sizes = [image.size for image in shown]
        yield make_track(
            key,
            str(name),
            [image.path for image in shown],
            [image.frame for image in shown],
            [_ltwh(row.get("bbox")) for row in rows],
            seen=[0.0 if row.get("lost") else 1.0 for row in rows],
            category=names.get(category_key(rows[0].get("category_id")), ""),
            size=sizes[0] if len(set(sizes)) == 1 else None,
            sizes=sizes if len(set(sizes)) > 1 else (),
        )


def _frame_index(image: dict[str, Any]) -> int:
    number = image.get("frame_index", image.get("frame_id", 0))
    if type(number) is not int or not 0 <= number < 2**31:
        raise ValueError(f"frame_index {number!r:.80}, expected a whole number")
    return number


def _ltwh(bbox: Any) -> Box:
    try:
        x, y, w, h = map(float, bbox)
    except (TypeError, ValueError, OverflowError):
        return BROKEN
    return x, y, w, h
