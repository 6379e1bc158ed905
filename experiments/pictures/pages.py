"""Pictures of pages in a browser: reports, the labelling page, the exported page."""

import contextlib
import functools
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.pictures.tools import (
    SECOND_BOX,
    Group,
    Image,
    program,
    read_png,
    shrink,
    siamrpn,
    write_film,
)

sys.path.append(str(Path(__file__).parents[2] / "tests" / "helpers"))
from browser import Browser, open_browser  # noqa: E402  # lies in tests/helpers

WIDTH, HEIGHT = 1180, 760
"""Size of the window in pixels."""

PATIENCE = 180
"""Seconds until a page must have done what it was asked for."""

FRAME = 40
"""The frame of the film at which the labelling page is shown."""


def make_eval_vot(work: Path) -> Mapping[str, Image]:
    """The page of ``siamrpn eval-vot --report``."""
    report = ("--report", work / "report")
    siamrpn("eval-vot", "--weights", "small", "--tracker", "static", *report)
    shown = _show(work, work / "report" / "index.html", height=1500)
    return {"pictures/vot_report.webp": shown}


def make_ablate(work: Path) -> Mapping[str, Image]:
    """The page of a reduced ``siamrpn ablate``."""
    siamrpn("ablate", "anchors", "--out", work / "study")
    shown = _show(work, work / "study" / "index.html", height=1000)
    return {"pictures/ablation.webp": shown}


def make_app(work: Path) -> Mapping[str, Image]:
    """The labelling page after two objects were drawn and tracked."""
    box, _ = write_film(work / "scene.webm")
    with _serving_app(work / "scene.webm") as address, _window(work) as window:
        window.open(address)
        _draw(window, box)
        window.run("document.getElementById('new').click()")
        _draw(window, SECOND_BOX)
        window.run("document.getElementById('frame').value = 0")
        window.run("document.getElementById('forward').click()")
        window.wait("!document.getElementById('job').hidden")
        window.wait("document.getElementById('job').hidden", seconds=PATIENCE)
        _go_to(window, FRAME)
        saved = "document.getElementById('saved').textContent === 'All saved'"
        window.wait(saved, seconds=PATIENCE)
        picture = _save_view(window, work)
    return {"pictures/app.webp": picture}


def make_web(work: Path) -> Mapping[str, Image]:
    """The page of ``siamrpn export --format web`` while it follows an object."""
    page = work / "page"
    siamrpn("export", "--format", "web", "--out", page)
    box, _ = write_film(page / "scene.webm")
    with _serving(page) as address, _window(work) as window:
        window.open(address)
        _choose(window, "scene.webm")
        x, y, w, h = map(float, box.split(","))
        left, top, scale = window.run(
            "const canvas = document.getElementById('overlay');"
            "const place = canvas.getBoundingClientRect();"
            "return [place.left, place.top, place.width / canvas.width]"
        )
        corners = ((x, y), (x + w / 2, y + h / 2), (x + w, y + h))
        window.drag(*((left + a * scale, top + b * scale) for a, b in corners))
        ended = "document.getElementById('state').value.endsWith('end')"
        window.wait(ended, seconds=PATIENCE)
        picture = _save_view(window, work)
    return {"pictures/web_page.webp": shrink(picture, 900)}


GROUPS = (
    Group(("pictures/vot_report.webp",), make_eval_vot),
    Group(("pictures/ablation.webp",), make_ablate),
    Group(("pictures/app.webp",), make_app),
    Group(("pictures/web_page.webp",), make_web),
)
"""What these functions make."""


# ------------------------------------------------------------------------ the browser


@contextlib.contextmanager
def _window(work: Path) -> Iterator[Browser]:
    profile = work / "profile"
    profile.mkdir()
    with open_browser(profile, width=WIDTH, height=HEIGHT) as browser:
        yield browser


def _save_view(window: Browser, work: Path) -> np.ndarray:
    window.save_view(work / "view.png")
    return read_png(work / "view.png")


def _show(work: Path, page: Path, *, height: int) -> np.ndarray:
    """The upper part of a page that needs no server."""
    with _window(work) as window:
        window.open(page.as_uri())
        window.resize(WIDTH, height)
        return shrink(_save_view(window, work), 1000)


# ------------------------------------------------------------------ the labelling page


@contextlib.contextmanager
def _serving_app(film: Path) -> Iterator[str]:
    """Runs ``siamrpn app``; yields the address that it prints."""
    command = [program(), "app", film, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            yield line.split()[-1]
        finally:
            process.terminate()


def _draw(window: Browser, box: str) -> None:
    """Draws a box ``x,y,w,h`` of the film by the mouse, and waits until it is kept."""
    shown = "document.querySelector('#picture').dataset.view"
    window.wait(shown, seconds=PATIENCE)
    before = window.run("return document.querySelectorAll('#objects li').length")
    left, top, view = window.run(
        "const canvas = document.querySelector('#picture');"
        "const place = canvas.getBoundingClientRect();"
        "return [place.left, place.top, canvas.dataset.view]"
    )
    shift_x, shift_y, scale = json.loads(view)
    x, y, w, h = map(float, box.split(","))
    corners = ((x, y), (x + w / 2, y + h / 2), (x + w, y + h))
    points = (
        (left + shift_x + a * scale, top + shift_y + b * scale) for a, b in corners
    )
    window.drag(*points)
    drawn = f"document.querySelectorAll('#objects li').length === {before + 1}"
    window.wait(drawn, seconds=PATIENCE)


def _go_to(window: Browser, frame: int) -> None:
    window.run(
        f"const field = document.getElementById('frame'); field.value = {frame};"
        "field.dispatchEvent(new Event('change'))"
    )
    window.wait(f"document.querySelector('#picture').dataset.frame === '{frame}'")
    window.wait("/%|lost/.test(document.querySelector('.now')?.textContent)")


# ------------------------------------------------------------------- the exported page


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Prints nothing."""


@contextlib.contextmanager
def _serving(folder: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def _choose(window: Browser, name: str) -> None:
    """Gives a file of the server to the page's file field."""
    window.wait("!document.getElementById('hint').textContent.startsWith('Loading')")
    window.run(
        f"const content = await (await fetch('{name}')).blob();"
        "const all = new DataTransfer();"
        f"all.items.add(new File([content], '{name}', {{ type: content.type }}));"
        "const field = document.getElementById('file');"
        "field.files = all.files; field.dispatchEvent(new Event('change'));"
    )
    window.wait("document.getElementById('hint').textContent.includes('Draw a box')")
