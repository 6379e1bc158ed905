"""The server of the labelling page.

=======================================  ============================================
``GET /``, ``GET /static/…``             the page
``GET /films``                           names of the films
``POST /films/N/open``                   opens the film of a number
``GET /films/N/frames/I?v=FINGERPRINT``  a frame, JPEG
``WS /films/N/live``                     all there is, then all that changes, see
                                         ``OpenFilm.connect``
``POST /films/N/ACTION``                 what ``OpenFilm`` does: ``draw``, ``track`` …
=======================================  ============================================

Requests and answers are JSON. What cannot be done is answered by a status of 400 on and
``{"error": …}``, a sentence, with ``offer`` where there is another way.
"""

import asyncio
import contextlib
import json
import mimetypes
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from siamrpn_jax.app.fields import Conflict, Fields
from siamrpn_jax.app.guard import Guard, is_every_address, make_token
from siamrpn_jax.app.opened import Desk, OpenFilm
from siamrpn_jax.common.errors import InputError, reason_of

MAX_REQUEST = 64 * 1024
"""Bytes that the body of a request may have."""

_STATIC = Path(__file__).parent / "static"
_BEHIND = 1000  # Messages after which a browser that does not read has to begin anew.

Action = Callable[[OpenFilm, Fields], dict[str, Any]]

_ACTIONS: dict[str, Action] = {
    "draw": OpenFilm.draw,
    "gone": OpenFilm.gone,
    "erase": OpenFilm.erase,
    "rename": OpenFilm.rename,
    "remove": OpenFilm.remove,
    "undo": OpenFilm.undo,
    "redo": OpenFilm.redo,
    "track": OpenFilm.track,
    "stop": OpenFilm.stop,
    "export": OpenFilm.export,
}
"""What a browser may ask for, by its name in the address."""


def make_app(desk: Desk, *, host: str = "127.0.0.1", token: str = "") -> ASGIApp:
    """The ASGI application.

    Args:
        desk: the films; closed as the application ends.
        host: what the server listens on, see ``Guard``.
        token: see ``Guard``.
    """
    mimetypes.add_type("text/javascript", ".js")  # on Windows anything may be known

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(desk.close)

    app = Starlette(
        routes=[
            Route("/", _page),
            Mount("/static", StaticFiles(directory=_STATIC)),
            Route("/films", _films),
            Route("/films/{film}/open", _open, methods=["POST"]),
            Route("/films/{film}/frames/{frame}", _frame),
            WebSocketRoute("/films/{film}/live", _live),
            Route("/films/{film}/{action}", _act, methods=["POST"]),
        ],
        exception_handlers={
            HTTPException: _answer_http,
            Conflict: _answer_conflict,
            InputError: _answer_input,
            OSError: _answer_disk,
        },
        lifespan=lifespan,
    )
    app.state.desk = desk
    return Guard(app, host=host, token=token)


def serve(desk: Desk, *, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serves until Ctrl-C, and saves everything.

    Args:
        desk: the films.
        host: name or address to listen on.
        port: 0 takes one that is free.
        ready: told the address of the page, once it can be opened.

    Raises:
        InputError: the port is taken, or there is no such host.
    """
    with contextlib.closing(listen(host, port)) as listening:
        token = make_token(host)
        shown = socket.gethostname() if is_every_address(host) else host
        shown = f"[{shown}]" if ":" in shown else shown
        query = f"?token={token}" if token else ""
        config = uvicorn.Config(
            make_app(desk, host=host, token=token),
            ws="websockets-sansio",
            ws_max_size=MAX_REQUEST,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=3,
        )
        ready(f"http://{shown}:{listening.getsockname()[1]}/{query}")
        with contextlib.suppress(KeyboardInterrupt):  # how it is meant to end
            uvicorn.Server(config).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        InputError: the port is taken, or there is no such host.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(
            f"cannot listen on port {port} of {host} ({reason_of(error)}): choose "
            "another --port or --host, or end the program that has it"
        ) from error


# --------------------------------------------------------------------------- routes


async def _page(request: Request) -> Response:
    return FileResponse(_STATIC / "index.html")


async def _films(request: Request) -> Response:
    desk: Desk = request.app.state.desk
    films = [
        {"name": film.name, "labelled": next(film.session_files()).exists()}
        for film in desk.films
    ]
    return _json({"films": films})


async def _open(request: Request) -> Response:
    desk: Desk = request.app.state.desk
    index = _index(request, "film", len(desk.films))
    fields = await _fields(request)
    await run_in_threadpool(desk.open, index, fresh=fields.flag("fresh"))
    return _json({})


async def _act(request: Request) -> Response:
    action = _ACTIONS.get(request.path_params["action"])
    if action is None:
        raise HTTPException(404, "there is no such action")
    opened = _opened(request)
    fields = await _fields(request)
    return _json(await run_in_threadpool(action, opened, fields))


async def _frame(request: Request) -> Response:
    opened = _opened(request)
    index = _index(request, "frame", opened.session.length)
    mark = opened.session.frames.fingerprint
    tag = f'"{mark}-{index}"'
    lasting = request.query_params.get("v") == mark
    cache = "private, max-age=31536000, immutable" if lasting else "no-cache"
    headers = {"ETag": tag, "Cache-Control": cache}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    data = await run_in_threadpool(opened.pictures.get, index)
    return Response(data, media_type="image/jpeg", headers=headers)


async def _live(browser: WebSocket) -> None:
    """Sends what changes until the browser, or the film, is gone."""
    desk: Desk = browser.app.state.desk
    place = browser.path_params["film"]
    opened = desk.get(int(place)) if _is_index(place, len(desk.films)) else None
    await browser.accept()
    if opened is None:
        await browser.close(4404, "the film is not open")
        return
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[str | None]()

    def put(text: str | None) -> None:
        if queue.qsize() <= _BEHIND:
            queue.put_nowait(text if queue.qsize() < _BEHIND else None)

    def send(text: str | None) -> None:
        with contextlib.suppress(RuntimeError):  # the server ends
            loop.call_soon_threadsafe(put, text)

    await run_in_threadpool(opened.connect, send)
    sending = asyncio.create_task(_send_all(browser, queue))
    try:
        while (await browser.receive())["type"] != "websocket.disconnect":
            pass  # a browser has nothing to say here
    finally:
        sending.cancel()
        opened.disconnect(send)


async def _send_all(browser: WebSocket, queue: asyncio.Queue[str | None]) -> None:
    while (text := await queue.get()) is not None:
        await browser.send_text(text)
    await browser.close(4000, "begin anew")


# -------------------------------------------------------------------------- helpers


def _json(
    content: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """ASCII: names of files may hold what UTF-8 cannot."""
    text = json.dumps(content)
    return Response(text, status, headers, media_type="application/json")


def _is_index(text: str, count: int) -> bool:
    plain = text.isascii() and text.isdecimal() and len(text) < 10
    return plain and int(text) < count


def _index(request: Request, name: str, count: int) -> int:
    text = request.path_params[name]
    if not _is_index(text, count):
        raise HTTPException(404, f"there is no such {name}: expected 0 to {count - 1}")
    return int(text)


def _opened(request: Request) -> OpenFilm:
    desk: Desk = request.app.state.desk
    opened = desk.get(_index(request, "film", len(desk.films)))
    if opened is None:
        raise HTTPException(409, "the film is not open: reload the page")
    return opened


async def _fields(request: Request) -> Fields:
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise HTTPException(415, "expected a request of type application/json")
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > MAX_REQUEST:
            raise HTTPException(
                413, f"expected a request of {MAX_REQUEST} bytes at most"
            )
    return Fields(data)


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"error": error.detail}, error.status_code, error.headers)


async def _answer_conflict(request: Request, error: Exception) -> Response:
    assert isinstance(error, Conflict)
    return _json({"error": str(error), "offer": error.offer}, 409)


async def _answer_input(request: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, 422)


async def _answer_disk(request: Request, error: Exception) -> Response:
    missing = isinstance(error, FileNotFoundError)
    return _json({"error": str(error)}, 404 if missing else 507)
