"""The exported page in a real browser, beside Python."""

import functools
import http.server
import json
import shutil
import threading

import cv2
import numpy as np
import pytest

from browser import open_browser
from siamrpn_jax import api
from siamrpn_jax.commands import export
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.deploy import web
from siamrpn_jax.evaluation.ope.metrics import overlaps
from siamrpn_jax.media.video import Video, VideoWriter

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
av = pytest.importorskip("av", reason="skipped: needs siamrpn-jax[video]")

LENGTH = 60
ENDS = "mjs", "wasm"
FRAMES, TRUTH = make_sequence(15, length=LENGTH)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page, and beside it a scene: a film without loss, a usual one, and images."""
    if shutil.which("npm") is None:
        pytest.skip("skipped: no npm")
    folder = tmp_path_factory.mktemp("page")
    try:
        export.run(export.Config(weights="small", format=("web",), out=folder))
    except InputError as error:
        pytest.skip(f"skipped: {error}")  # no registry within reach
    write_lossless(folder / "lossless.webm")
    with VideoWriter(folder / "film.webm", fps=25, size=(320, 240)) as writer:
        for frame in FRAMES[:12]:
            writer.write(frame)
    for index in range(4):
        cv2.imwrite(str(folder / f"{9 + index}.png"), FRAMES[index][..., ::-1])
    return folder


def write_lossless(path):
    """VP9 of red, green and blue: all decoders find the same pixels."""
    with av.open(str(path), "w") as container:
        options = {"lossless": "1", "cpu-used": "8", "deadline": "realtime"}
        stream = container.add_stream("libvpx-vp9", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "gbrp"
        for frame in (*(av.VideoFrame.from_ndarray(f, "rgb24") for f in FRAMES), None):
            container.mux(stream.encode(frame))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(page):
    handler = functools.partial(Quiet, directory=str(page))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile"), width=900) as browser:
        yield browser


def choose(window, *names):
    """Gives files of the server to the page's file field."""
    window.run(
        "const all = new DataTransfer();"
        f"for (const name of {json.dumps(names)}) {{"
        "  const content = await (await fetch(name)).blob();"
        "  all.items.add(new File([content], name, { type: content.type }));"
        "}"
        "const field = document.getElementById('file');"
        "field.files = all.files; field.dispatchEvent(new Event('change'));"
    )
    window.wait("document.getElementById('hint').textContent.includes('Draw a box')")


def draw(window, box):
    left, top, scale = window.run(
        "const canvas = document.getElementById('overlay');"
        "const place = canvas.getBoundingClientRect();"
        "return [place.left, place.top, place.width / canvas.width]"
    )
    x, y, w, h = (scale * side for side in box)
    x, y = x + left, y + top
    window.drag((x, y), (x + w / 2, y + h / 2), (x + w, y + h))


def follow(window, box):
    """Draws a box, and returns the boxes of all frames once the film has ended."""
    draw(window, box)
    window.wait("document.getElementById('state').value.endsWith('end')", seconds=60)
    rows = window.run("return (await import('/page.js')).boxes()")
    assert [row[0] for row in rows] == list(range(len(rows)))
    return np.array([[float(side) for side in row[1:5]] for row in rows])


def follow_in_python(frames, box):
    tracker = api.load("small", runtime="onnxruntime")
    tracker.init(frames[0], box)
    return np.array([box, *(tracker.update(frame) for frame in frames[1:])])


def open_page(window, address):
    window.open(address)
    window.wait("document.getElementById('hint').textContent.startsWith('Choose')")
    window.run("document.getElementById('fast').checked = true")


def test_boxes_are_those_of_python(window, address, page):
    open_page(window, address)
    choose(window, "lossless.webm")
    found = follow(window, TRUTH[0])
    assert len(found) == LENGTH
    np.testing.assert_allclose(found, follow_in_python(FRAMES, found[0]), atol=0.1)
    said = window.run("return document.getElementById('state').value")
    assert f"frame {LENGTH - 1}" in said and "frames/s" in said

    # Most films hold coarser colours, which each decoder widens in its own way.
    choose(window, "film.webm")
    found = follow(window, TRUTH[0])
    expected = follow_in_python(list(Video(page / "film.webm")), found[0])
    assert len(found) == 12 and overlaps(found, expected).min() > 0.95

    choose(window, "12.png", "9.png", "11.png", "10.png")
    found = follow(window, TRUTH[0])
    np.testing.assert_allclose(found, follow_in_python(FRAMES[:4], found[0]), atol=0.1)
    assert window.logs() == []


def test_the_camera_is_followed_and_the_table_saved(window, address):
    open_page(window, address)
    window.run("document.getElementById('camera').click()")
    window.wait("document.getElementById('hint').textContent.includes('Draw a box')")
    draw(window, (200, 150, 120, 110))
    window.wait("document.getElementById('state').value.includes('frames/s')")
    window.run(
        "URL.createObjectURL = (made) => made.text().then((t) => window.made = t);"
        "document.getElementById('save').click()"
    )
    header, first, second, *_ = window.wait("window.made").splitlines()
    assert header == "frame,x,y,w,h,confidence,lost"
    start = [float(value) for value in first.split(",")]
    np.testing.assert_allclose(start[1:5], (200, 150, 120, 110), atol=2)
    assert float(second.split(",")[0]) == start[0] + 1


def test_what_is_no_film(window, address):
    open_page(window, address)
    window.run(
        "const all = new DataTransfer();"
        "all.items.add(new File(['no film'], 'x.mp4', { type: 'video/mp4' }));"
        "const field = document.getElementById('file');"
        "field.files = all.files; field.dispatchEvent(new Event('change'));"
    )
    window.wait(
        "document.getElementById('hint').textContent.includes('x.mp4: no film')"
    )
    assert window.run("return document.getElementById('save').disabled")


def test_packages_of_other_versions_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="npm install onnxruntime-web@"):
        web.read_packages(tmp_path)
    package = tmp_path / "onnxruntime-web"
    (package / "dist").mkdir(parents=True)
    (package / "package.json").write_text('{"version": "0.1"}')
    with pytest.raises(InputError, match="not npm's package onnxruntime-web"):
        web.read_packages(tmp_path)
    for name in ("ort.wasm.min.mjs", *(f"ort-wasm-simd-threaded.{e}" for e in ENDS)):
        (package / "dist" / name).touch()
    with pytest.raises(InputError, match=r"version 0.1, expected 1\."):
        web.read_packages(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no npm .* --node-modules"):
        web.read_packages(None)
