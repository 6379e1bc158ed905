"""The built site: it needs no other host, and looks right on a phone and a laptop."""

import functools
import http.server
import os
import re
import threading
from pathlib import Path

import pytest

from browser import open_browser
from paths import ROOT

SITE = Path(os.environ.get("SIAMRPN_SITE", ROOT / "build" / "docs"))
"""Where ``sphinx-build -W docs build/docs`` has written it."""

pytestmark = pytest.mark.skipif(
    not (SITE / "index.html").is_file(),
    reason=f"skipped: no site in {SITE} (sphinx-build -W docs build/docs)",
)

FAULTS = """
const faults = [];
for (const image of document.images)
  if (!image.complete || !image.naturalWidth) faults.push("picture " + image.src);
for (const part of [document.documentElement, document.querySelector("article")])
  if (part && part.scrollWidth > part.clientWidth)
    faults.push(`${part.tagName} is ${part.scrollWidth} px wide`);
return faults;
"""
LOADED = """(() => {
  for (const image of document.images) image.loading = "eager";
  return document.readyState === "complete"
    && [...document.images].every(image => image.complete);
})()"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, without a line for each request."""

    def log_message(self, format, *args):  # noqa: A002 (its name in the base class)
        del format, args


@pytest.fixture(scope="module")
def address():
    handler = functools.partial(Handler, directory=SITE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def pages():
    names = (page.relative_to(SITE).as_posix() for page in SITE.rglob("*.html"))
    return sorted(name for name in names if not name.startswith("_static/"))


def test_pages_load_nothing_from_other_hosts():
    tag = re.compile(r"<(?:script|link|img|iframe|source|video)\b[^>]*>")
    for page in pages():
        tags = tag.findall((SITE / page).read_text())
        foreign = [
            t for t in tags if re.search(r"""(?:src|href)=["'](https?:)?//""", t)
        ]
        assert foreign == [], page
    for sheet in SITE.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?(https?:)?//", sheet.read_text())


def test_equations_are_mathml():
    texts = [(SITE / page).read_text() for page in pages()]
    assert any('<math xmlns="' in text for text in texts)
    for text in texts:
        framed = len(re.findall(r'<div class="(?:amsmath )?math"', text))
        assert "MathJax" not in text and framed <= text.count('display="block"')


@pytest.mark.parametrize("width", [400, 1280])
def test_every_page_in_a_browser(address, tmp_path, width):
    with open_browser(tmp_path, width=width) as browser:
        browser.resize(width, 900)
        for page in pages():
            browser.open(f"{address}/{page}")
            assert browser.run("return innerWidth") == width
            browser.wait(LOADED)
            assert browser.run(FAULTS) == [], f"{page} at {width} px"
            errors = [text for level, text in browser.logs() if level == "SEVERE"]
            assert [text for text in errors if "favicon.ico" not in text] == [], page


def test_search_finds_a_function(address, tmp_path):
    with open_browser(tmp_path, width=1280) as browser:
        browser.open(f"{address}/search.html?q=track_step")
        results = "document.getElementById('search-results')"
        browser.wait(f"{results}.innerText.includes('track_step')")
        assert browser.run(f"return {results}.querySelectorAll('li a').length") > 0
