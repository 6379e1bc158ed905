"""A machine learning backend of Label Studio: boxes drawn on a video are followed.

``siamrpn label-studio`` serves it. Each video rectangle is followed from the boxes that
were drawn of it, through all frames after the first of them; between two of them it
meets both. After one that is not ``enabled`` it is not there, until the next one. The
films are those of a folder, found by their names: Label Studio's own copies are not
fetched.

Label Studio counts frames by the ``frameRate`` of its ``Video`` tag. Where that is not
the film's own, frames are brought to each other by their times.
"""

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from siamrpn_jax.api import Tracker
from siamrpn_jax.common.errors import InputError, require
from siamrpn_jax.labelling.formats import studio_result
from siamrpn_jax.labelling.label_studio import (
    count_frames,
    duration_problem,
    film_frame,
    media_of,
    whole_frame,
)
from siamrpn_jax.labelling.labels import LabelledObject, Labels
from siamrpn_jax.labelling.session import Session

VERSION = "siamrpn_jax"
"""What predictions are marked with."""

_TYPE = "videorectangle"


def make_app(films: Path, *, tracker: Tracker) -> Any:
    """The backend as an ASGI application, of Starlette.

    Args:
        films: folder with the films, at any depth.
        tracker: what boxes are followed with.

    Raises:
        MissingExtraError: Starlette is not installed.
        InputError: there is no such folder.
    """
    require("starlette", extra="labelstudio")
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    if not films.is_dir():
        raise InputError(f"{films}: no such folder, expected one with films")
    lock = threading.Lock()

    def work(body: Any) -> dict[str, Any]:
        with lock:  # one film at a time: the device is busy anyway
            return predict(body, films=films, tracker=tracker)

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "UP", "model_class": VERSION})

    async def setup(_: Request) -> JSONResponse:
        return JSONResponse({"model_version": VERSION})

    async def webhook(_: Request) -> JSONResponse:
        return JSONResponse({"result": {}}, status_code=201)

    async def answer(request: Request) -> JSONResponse:
        try:
            body = await request.json()
        except ValueError as error:
            return JSONResponse({"error": f"no JSON ({error})"}, status_code=400)
        try:
            return JSONResponse(await run_in_threadpool(work, body))
        except (InputError, OSError) as error:
            return JSONResponse({"error": str(error)}, status_code=400)

    routes = [
        Route("/", health),
        Route("/health", health),
        Route("/setup", setup, methods=["POST"]),
        Route("/webhook", webhook, methods=["POST"]),
        Route("/predict", answer, methods=["POST"]),
    ]
    return Starlette(routes=routes)


def predict(body: Any, *, films: Path, tracker: Tracker) -> dict[str, Any]:
    """Follows the rectangles of each task, as Label Studio asks for it.

    Args:
        body: ``{"tasks": […], "params": {"context": {"result": […]}}}``: what was drawn
            is in the context, or else in a task's annotations, drafts or predictions.
        films: folder with the films.
        tracker: what boxes are followed with.

    Returns:
        ``{"results": [{"result": […], "score", "model_version"}]}``, one for each task.

    Raises:
        InputError: a request of another form, a film that is not there, or boxes that
            are none.
    """
    try:
        tasks = body["tasks"]
        context = (body.get("params") or {}).get("context") or {}
        drawn = [(_film(task, films), _regions(task, context)) for task in tasks]
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise InputError(f"malformed request ({error!r})") from error
    results = []
    for film, regions in drawn:
        found = follow(film, regions, tracker=tracker) if regions else []
        score = float(np.mean([one["score"] for one in found])) if found else 0.0
        results.append({"result": found, "score": score, "model_version": VERSION})
    return {"results": results, "model_version": VERSION}


def follow(
    film: Path, regions: list[dict[str, Any]], *, tracker: Tracker
) -> list[dict[str, Any]]:
    """Follows video rectangles through a film.

    Args:
        film: the file.
        regions: results of type ``videorectangle``, with key frames in ``value``.
        tracker: what boxes are followed with.

    Returns:
        The same results with a box in each frame in which they are followed.

    Raises:
        InputError: malformed regions, rotated ones, or those of other films.
    """
    _check_places(regions)
    session = Session(film, tracker=tracker)
    clocks = []
    for number, region in enumerate(regions):
        try:
            value = region["value"]
            _check_duration(value, film, session)
            clock = _Clock(value, session)
            clocks.append(clock)
            name = str((value.get("labels") or ["object"])[0])
            ends = []
            for point in value["sequence"]:
                frame = clock.to_film(point["frame"])
                box = _upright_box(point, session.frames.size)
                session.add_box(frame, number, box, name=name)
                if point.get("enabled") is False:
                    ends.append(frame + 1)
            for end in sorted(set(ends) - set(session.keys(number))):
                if end < session.length:
                    session.mark_gone(end, number)
        except InputError as error:
            raise InputError(f"region {number}: {error}") from error
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"region {number}: malformed ({error!r})") from error
    if session.object_ids:
        start = min(min(session.keys(number)) for number in session.object_ids)
        for _ in session.propagate(start):
            pass
    labels = session.labels()
    return [
        _result(regions[one.number], one, labels, clocks[one.number])
        for one in labels.objects
    ]


class _Clock:
    """Brings Label Studio's frames, from 1, to those of the film, from 0."""

    def __init__(self, value: dict[str, Any], session: Session):
        self.length = session.length
        self.count = count_frames(value.get("framesCount"), length=session.length)
        """Frames of the film as Label Studio counts them."""

    def to_film(self, frame: Any) -> int:
        return film_frame(whole_frame(frame), count=self.count, length=self.length)

    def from_film(self) -> np.ndarray:
        """The film's frame of each of Label Studio's."""
        return np.array([self.to_film(frame + 1) for frame in range(self.count)], int)


def _result(
    region: dict[str, Any], one: LabelledObject, labels: Labels, clock: _Clock
) -> dict[str, Any]:
    """What was found of a region, in its own words where it has them."""
    shown = clock.from_film()
    counted = LabelledObject(
        number=one.number,
        name=one.name,
        boxes=one.boxes[shown],
        confidence=one.confidence[shown],
        lost=one.lost[shown],
        keys=one.keys[shown],
    )
    fps = labels.fps and labels.fps * clock.count / clock.length
    film = Labels(labels.name, labels.source, labels.size, fps, clock.count, ())
    found = studio_result(counted, film)
    for key in ("id", "from_name", "to_name"):
        found[key] = region.get(key, found[key])
    found["value"]["labels"] = region["value"].get("labels") or [one.name]
    return found


def _check_places(regions: list[dict[str, Any]]) -> None:
    """Raises InputError unless all is drawn on one film of the task."""
    places = sorted({str(one["to_name"]) for one in regions if one.get("to_name")})
    if len(places) > 1:
        raise InputError(f"regions are of {' and '.join(places)}, expected one to_name")


def _check_duration(value: dict[str, Any], film: Path, session: Session) -> None:
    """Raises InputError where another film was drawn on."""
    duration, fps = value.get("duration"), session.frames.fps
    if problem := duration_problem(duration, film.name, length=session.length, fps=fps):
        raise InputError(problem)


def _upright_box(point: dict[str, Any], size: tuple[int, int]) -> list[float]:
    """``ltwh`` in pixels of a key frame in percent.

    Raises:
        InputError: it is rotated.
    """
    if point.get("rotation"):
        raise InputError(
            f"frame {point['frame']} has rotation {point['rotation']!r:.80}, expected "
            "0: boxes are followed upright"
        )
    width, height = size
    scales = (("x", width), ("y", height), ("width", width), ("height", height))
    return [float(point[key]) / 100 * scale for key, scale in scales]


def _regions(task: dict[str, Any], context: dict[str, Any]) -> list[dict[str, Any]]:
    """The video rectangles that were drawn: in the context, or in the task."""
    drafts = task.get("drafts") or []
    lists = [
        context.get("result"),
        *(one.get("result") for one in drafts),
        *(one.get("result") for one in task.get("annotations") or []),
        *(one.get("result") for one in task.get("predictions") or []),
    ]
    for results in lists:
        if found := [one for one in results or [] if one.get("type") == _TYPE]:
            return found
    return []


def _film(task: dict[str, Any], films: Path) -> Path:
    """The film of a task, by its address.

    Raises:
        InputError: there is none, or there are several.
    """
    by_name: dict[str, list[Path]] = {}
    for folder, _, files in os.walk(films):
        for file in files:
            by_name.setdefault(file, []).append(Path(folder, file))
    found = media_of(task["data"], by_name)
    if len(found) > 1:
        raise InputError(
            f"the task is of {' and '.join(map(str, found))}, expected one film"
        )
    if found:
        return found[0]
    addresses = [value for value in task["data"].values() if isinstance(value, str)]
    raise InputError(
        f"{films}: holds no film {' or '.join(addresses) or 'of this task'}"
    )
