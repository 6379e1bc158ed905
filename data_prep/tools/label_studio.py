"""Label Studio, a ``.json`` of tasks: films with key frames, or images with shapes.

Percent, frames from 1, linear in between while ``enabled``. Frames count as Label
Studio counts them, by the ``frameRate`` of its ``Video`` tag; where that is not the
film's own, times bring them to each other. A task of a film of another duration is
rejected, and so is one of images of another size.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.shapes import (
    Box,
    LabelledObject,
    from_box,
    from_ellipse,
    from_polygons,
    unusable,
)
from data_prep.tools.units import (
    BROKEN,
    LabelledStill,
    Unreadable,
    declared_size,
    key_of,
    make_track,
)
from data_prep.tracks import (
    Frame,
    PreparationError,
    Rejection,
    Track,
    Unit,
    VideoFrame,
)
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import read_json
from siamrpn_jax.labelling.label_studio import (
    count_frames,
    duration_problem,
    film_frame,
    is_number,
    media_of,
    whole_frame,
)
from siamrpn_jax.media.video import Video

_PERCENT = 0.01
_SHAPES = {"x", "points", "rle", "vertices"}
"""Keys of which the value of a result that is drawn has one."""


class StudioTask(NamedTuple):
    """A unit of Label Studio's: the tracks of one film."""

    path: Path
    film: Path
    results: tuple[dict[str, Any], ...]


def list_units(raw: Path, path: Path, media: Iterable[Path]) -> Iterator[Unit]:
    """A unit for each task that has labels; nothing of another tool's file.

    Args:
        raw: the folder that keys are relative to.
        path: the file.
        media: films and images that tasks may be of.

    Raises:
        PreparationError: the film or image of a task is not there, or is two.
    """
    content = read_json(path, error=PreparationError)
    tasks = content if isinstance(content, list) else [content]
    if not any(map(_is_task, tasks)):
        return
    by_name: dict[str, list[Path]] = {}
    for file in media:
        by_name.setdefault(file.name, []).append(file)
    tasks_of: dict[Path, int] = {}
    for number, task in enumerate(tasks):
        try:
            results = _read_results(task)
            if not results:
                continue
            size = _drawn_size(results)
            file = _find_media(task["data"], by_name)
            if tasks_of.setdefault(file, number) != number:
                raise ValueError(f"is of {file.name}, as task {tasks_of[file]} is")
        except InputError as error:
            raise PreparationError(f"{path}: task {number} {error}") from error
        except ValueError as error:
            problem = Unreadable(path, f"task {number} {error}")
            yield Unit(f"{key_of(raw, path)}#{number}", problem)
            continue
        key = f"{key_of(raw, path)}/{key_of(raw, file)}"
        tracks = tuple(r for r in results if r.get("type") == "videorectangle")
        if tracks:
            yield Unit(key, StudioTask(path, file, tracks))
        elif objects := _read_objects(results):
            yield Unit(key, LabelledStill(path, file, objects, True, size))


def read_unit(key: str, content: StudioTask) -> Iterator[Track | Rejection]:
    """The tracks of a film."""
    try:
        video = Video(content.film)
    except InputError as error:
        yield Rejection(str(content.film), None, str(error), len(content.results))
        return
    for number, result in enumerate(content.results):
        value = result["value"]
        problem = duration_problem(
            value.get("duration"), content.film.name, length=video.length, fps=video.fps
        )
        if problem:
            yield Rejection(str(content.path), None, f"result {number} {problem}")
            continue
        try:
            points = sorted(value["sequence"], key=lambda point: point["frame"])
            if any(point.get("rotation") for point in points):
                raise ValueError("a rotation")
            count = count_frames(value.get("framesCount"), length=video.length)
            rows = {
                film_frame(frame, count=count, length=video.length or count): box
                for frame, box in _between(points, count)
            }
        except InputError as error:
            yield Rejection(str(content.path), None, f"result {number}: {error}")
            continue
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = f"result {number}: {error!r}, expected upright key frames"
            yield Rejection(str(content.path), None, reason)
            continue
        frames: list[Frame] = [VideoFrame(content.film, frame) for frame in rows]
        name, label = str(result.get("id", number)), _label(value)
        yield make_track(
            key,
            name,
            frames,
            list(rows),
            list(rows.values()),
            category=label,
            relative=True,
        )


def _is_task(task: Any) -> bool:
    return (
        isinstance(task, dict)
        and isinstance(task.get("annotations"), list)
        and isinstance(task.get("data"), dict)
    )


def _read_results(task: Any) -> list[dict[str, Any]]:
    """What is drawn in a task; of several annotations the one that is marked as true.

    Raises:
        ValueError: what is wrong with it.
    """
    if not _is_task(task):
        raise ValueError("lacks data, or a list of annotations")
    if not all(isinstance(one, dict) for one in task["annotations"]):
        raise ValueError("has malformed annotations")
    done = [one for one in task["annotations"] if not one.get("was_cancelled")]
    chosen = [one for one in done if one.get("ground_truth")] or done
    if len(chosen) > 1:
        raise ValueError(
            f"has {len(chosen)} annotations, expected one, or one as ground_truth"
        )
    results = [
        result
        for one in chosen
        for result in one.get("result") or ()
        if isinstance(result, dict) and isinstance(result.get("value"), dict)
    ]
    _check_places(results)
    return results


def _check_places(results: Sequence[dict[str, Any]]) -> None:
    """Raises ValueError unless all is drawn on one medium, as it is stored."""
    drawn = [
        result
        for result in results
        if result.get("type") == "videorectangle" or _SHAPES & result["value"].keys()
    ]
    media = sorted({str(one["to_name"]) for one in drawn if one.get("to_name")})
    if len(media) > 1:
        raise ValueError(f"is drawn on {' and '.join(media)}, expected one to_name")
    for result in drawn:
        if result.get("item_index"):
            raise ValueError(
                f"is drawn on an image of item_index {result['item_index']!r:.80}, "
                "expected one image a task"
            )
        if result.get("image_rotation"):
            raise ValueError(
                f"has image_rotation {result['image_rotation']!r:.80}, expected 0: "
                "turn the pixels of the image first"
            )


def _drawn_size(results: Sequence[dict[str, Any]]) -> tuple[int, int] | None:
    """Width and height of what is drawn on; None where it is not told.

    Raises:
        ValueError: results tell different ones.
    """
    told = [(one.get("original_width"), one.get("original_height")) for one in results]
    sizes = sorted({size for sides in told if (size := declared_size(*sides))})
    if len(sizes) > 1:
        (a, b), (c, d) = sizes[:2]
        raise ValueError(f"is drawn on an image of {a}x{b} and {c}x{d}, expected one")
    return sizes[0] if sizes else None


def _find_media(data: dict[str, Any], by_name: dict[str, list[Path]]) -> Path:
    """The file that a task is of.

    Raises:
        InputError: there is none, or there are several of its name.
        ValueError: it is of several.
    """
    found = media_of(data, by_name)
    if len(found) > 1:
        names = " and ".join(file.name for file in found)
        raise ValueError(f"is of {names}, expected one film or image a task")
    if found:
        return found[0]
    sources = ", ".join(value for value in data.values() if isinstance(value, str))
    raise PreparationError(
        f"is of {sources or 'nothing'}, expected that film beside it"
    )


# ------------------------------------------------------------------------------ images


def _read_objects(results: Sequence[dict[str, Any]]) -> tuple[LabelledObject, ...]:
    """What is drawn on an image, in fractions of it.

    A shape may stand there twice, without and with its label: the last one counts.
    """
    shapes = [result for result in results if _SHAPES & result["value"].keys()]
    named = {str(r.get("id", number)): r for number, r in enumerate(shapes)}
    return tuple(_read_shape(result) for result in named.values())


def _read_shape(result: dict[str, Any]) -> LabelledObject:
    value = result["value"]
    category, angle = _label(value), value.get("rotation", 0)
    # Fractions of the two sides are of different length: shapes are rotated in pixels.
    sides = result.get("original_width"), result.get("original_height")
    if not _are_numbers(angle) or (angle and not _are_numbers(*sides)):
        return unusable(category, "a rotation without original_width, original_height")
    size = np.array(sides, float) if angle else np.ones(2)
    if "points" in value:
        try:
            polygon = _PERCENT * np.array(value["points"], float)
        except (TypeError, ValueError):
            return LabelledObject(category, BROKEN)
        return from_polygons(category, [polygon])
    if "radiusX" in value:
        numbers = [value.get(key) for key in ("x", "y", "radiusX", "radiusY")]
        if not _are_numbers(*numbers):
            return LabelledObject(category, BROKEN)
        middle, radii = _PERCENT * np.array(numbers, float).reshape(2, 2) * size
        return _divided(from_ellipse(category, middle, radii, angle=angle), size)
    if "height" in value:
        box = (np.array(_percent(value)) * np.tile(size, 2)).tolist()
        return _divided(from_box(category, box, angle=angle, about="corner"), size)
    return unusable(category, f"a {result.get('type')}")


def _divided(one: LabelledObject, size: np.ndarray) -> LabelledObject:
    """Its pixels as fractions of a width and height."""
    x, y, w, h = (np.array(one.box) / np.tile(size, 2)).tolist()
    outlines = tuple(outline / size for outline in one.outlines)
    return one._replace(box=(x, y, w, h), outlines=outlines)


def _label(value: dict[str, Any]) -> str:
    """The first label of a shape: under ``labels``, ``rectanglelabels`` or the like."""
    lists = [v for key, v in value.items() if key.endswith("labels") and v]
    return str(lists[0][0]) if lists else ""


def _percent(value: dict[str, Any]) -> Box:
    """A box in fractions; not finite where a number is missing."""
    sides = [value.get(key) for key in ("x", "y", "width", "height")]
    if not _are_numbers(*sides):
        return BROKEN
    x, y, w, h = (_PERCENT * np.array(sides, float)).tolist()
    return x, y, w, h


def _are_numbers(*values: Any) -> bool:
    return all(map(is_number, values))


# ------------------------------------------------------------------------------- films


def _between(
    points: list[dict[str, Any]], count: int
) -> Iterator[tuple[int, tuple[float, ...]]]:
    """Frames from 1 and boxes in fractions: key frames, and what lies between them.

    A key frame that is not ``enabled`` ends what it begins; the last one, if it is,
    holds to the end of the film.
    """
    for point, after in zip(points, [*points[1:], None], strict=True):
        first, box = whole_frame(point["frame"]), np.array(_percent(point))
        yield first, tuple(box)
        if not point.get("enabled", True):
            continue
        last = whole_frame(after["frame"]) if after else count + 1
        end = np.array(_percent(after)) if after else box
        for frame in range(first + 1, last):
            share = (frame - first) / (last - first)
            yield frame, tuple(box + share * (end - box))
