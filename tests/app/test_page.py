import json
import threading

import pytest

pytest.importorskip("starlette", reason="skipped: needs siamrpn-jax[app]")
pytest.importorskip("uvicorn", reason="skipped: needs siamrpn-jax[app]")
pytest.importorskip("websockets", reason="skipped: needs siamrpn-jax[app]")
pytest.importorskip("httpx", reason="skipped: needs httpx")

from app_server import serving, tiny_tracker, write_film
from browser import open_browser
from siamrpn_jax.labelling.runner import Runner

SHIFT, CONTROL, RIGHT, LEFT, DELETE = "\ue008", "\ue009", "\ue014", "\ue012", "\ue017"
LENGTH = 16


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    write_film(folder / "walk", length=LENGTH)
    write_film(folder / "run", length=4, seed=1)
    return folder


@pytest.fixture(scope="module")
def address(films):
    with serving(films, tiny_tracker()) as found:
        yield found


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    profile = tmp_path_factory.mktemp("profile")
    with open_browser(profile, width=1280) as browser:
        yield browser


class Film:
    """A film on the page, in pixels of the film."""

    def __init__(self, browser, address, number):
        self.browser = browser
        browser.open("about:blank")
        browser.open(f"http://{address}/#{number}")
        self.is_shown()

    def is_shown(self):
        self.browser.wait("document.querySelector('#picture').dataset.view")

    def point(self, x, y):
        """Where a point of the film is in the window."""
        left, top, view = self.browser.run(
            "const canvas = document.querySelector('#picture');"
            "const place = canvas.getBoundingClientRect();"
            "return [place.left, place.top, canvas.dataset.view]"
        )
        shift_x, shift_y, scale = json.loads(view)
        return left + shift_x + x * scale, top + shift_y + y * scale

    def drag(self, *points):
        self.browser.drag(*(self.point(*point) for point in points))

    def click(self, name):
        self.browser.run(f"document.getElementById('{name}').click()")

    def states(self):
        """What the list of objects says of the present frame."""
        script = "return [...document.querySelectorAll('#objects .now')].map("
        return self.browser.run(f"{script}now => now.textContent)")

    def expect_states(self, *states):
        listed = "[...document.querySelectorAll('#objects .now')].map("
        listed += "now => now.textContent).join()"
        self.browser.wait(f"{listed} === {json.dumps(','.join(states))}")

    def go_to(self, frame):
        self.browser.run(
            f"const field = document.getElementById('frame'); field.value = {frame};"
            "field.dispatchEvent(new Event('change'))"
        )
        self.browser.wait(
            f"document.querySelector('#picture').dataset.frame === '{frame}'"
        )

    def expect_idle(self):
        self.browser.wait("document.getElementById('job').hidden")
        self.browser.wait("document.getElementById('saved').textContent == 'All saved'")


def saved(films):
    session = json.loads((films / "walk.session.json").read_text())
    return {one["id"]: one for one in session["objects"]}


def keys(films, number):
    return {row[0]: row[1:] for row in saved(films)[number]["boxes"]}


def test_a_film_is_labelled(window, address, films):
    film = Film(window, address, 1)
    assert window.run("return document.getElementById('film').value") == "1"
    film.drag((30, 20), (45, 30), (62, 46))
    film.expect_states("key frame")
    film.expect_idle()
    assert keys(films, 1)[0] == pytest.approx([30, 20, 32, 26], abs=0.5)

    film.click("forward")
    window.wait(f"document.getElementById('frame').value === '{LENGTH - 1}'")
    film.expect_idle()
    assert film.states()[0] not in ("–", "key frame")

    # A slow network: what is on its way is not called saved.
    window.run(
        "const fetched = window.fetch; window.fetch = async (...asked) => {"
        "await new Promise((go) => setTimeout(go, 150)); return fetched(...asked) }"
    )

    # Corrected by dragging: moved where it is, then made larger by a corner.
    film.go_to(8)
    window.wait("/%|lost/.test(document.querySelector('.now')?.textContent)")
    x, y, w, h = window_box(films, 8)
    film.drag((x + w / 2, y + h / 2), (x + w / 2 + 3, y + h / 2), (64, 48))
    film.expect_states("key frame")
    film.expect_idle()
    moved = keys(films, 1)[8]
    assert moved == pytest.approx([64 - w / 2, 48 - h / 2, w, h], abs=0.5)
    corner = moved[0] + moved[2], moved[1] + moved[3]
    film.drag(corner, (corner[0] + 5, corner[1] + 6), (corner[0] + 10, corner[1] + 8))
    film.expect_idle()
    larger = [*moved[:2], moved[2] + 10, moved[3] + 8]
    assert keys(films, 1)[8] == pytest.approx(larger, abs=0.6)

    # Ctrl-Z takes the size back, then the move.
    window.press(CONTROL, "z")
    window.press(CONTROL, "z")
    film.go_to(8)
    window.wait("/%|lost/.test(document.querySelector('.now')?.textContent)")
    film.expect_idle()
    assert set(keys(films, 1)) == {0}

    # The same steps again, and back once more.
    window.press(CONTROL, SHIFT, "z")
    window.press(CONTROL, "y")
    film.expect_states("key frame")
    film.expect_idle()
    assert keys(films, 1)[8] == pytest.approx(larger, abs=0.6)
    film.click("undo")
    film.click("undo")
    window.wait("document.getElementById('undo').title.includes('box of object 1')")
    window.wait("!document.getElementById('redo').disabled")
    film.expect_idle()
    assert set(keys(films, 1)) == {0}

    # A second object, selected by its digit, and removed by a key.
    window.press("n")
    film.drag((80, 60), (90, 70), (110, 85))
    window.wait("document.querySelectorAll('#objects li').length === 2")
    window.press("1")
    window.wait("document.querySelector('#objects li.on').dataset.id === '1'")
    window.press("2")
    window.wait("document.querySelector('#objects li.on').dataset.id === '2'")
    window.run(
        "const field = document.querySelectorAll('#objects input')[1];"
        "field.value = 'dog'; field.dispatchEvent(new Event('change'))"
    )
    film.expect_idle()
    window.wait("document.getElementById('undo').title.includes('class of object 2')")

    # Exported, and the names of the page are those of the files.
    window.run("document.getElementById('format').value = 'csv'")
    film.click("export")
    window.wait("document.querySelector('.toast')?.textContent.includes('walk-csv')")
    text = (films / "labels" / "walk-csv" / "walk.csv").read_text()
    assert ",dog,008.png\n" in text and text.count("\n") == 1 + LENGTH + 1

    # A reload finds everything, on the same frame.
    window.run("location.reload()")
    film.is_shown()
    window.wait("document.querySelectorAll('#objects li').length === 2")
    window.wait("document.getElementById('frame').value === '8'")
    assert window.run(
        "return document.querySelectorAll('#objects input')[1].value"
    ) == ("dog")
    window.press(CONTROL, "z")
    window.wait("document.querySelectorAll('#objects input')[1].value === 'object'")
    window.press("2")
    window.press(DELETE)
    window.wait("document.querySelectorAll('#objects li').length === 1")
    assert window.logs() == []


def window_box(films, frame):
    """Where the first object was found in a frame, from its file."""
    found = {
        run["key"] + 1 + place: row[:4]
        for run in saved(films)[1]["forward"]
        for place, row in enumerate(run["found"])
    }
    return found[frame]


def test_keys_and_the_time_line(window, address, films):
    film = Film(window, address, 1)
    film.go_to(2)
    for pressed, frame in (
        ((RIGHT,), 3),
        ((LEFT,), 2),
        ((SHIFT, RIGHT), 12),
        ((SHIFT, LEFT), 2),
        (("\ue010",), LENGTH - 1),
        (("\ue011",), 0),
    ):
        window.press(*pressed)
        window.wait(f"document.getElementById('frame').value === '{frame}'")
    left, top, width = window.run(
        "const place = document.getElementById('timeline').getBoundingClientRect();"
        "return [place.left, place.top, place.width]"
    )
    window.drag((left + width - 4, top + 30))
    window.wait(f"document.getElementById('frame').value === '{LENGTH - 1}'")
    window.press(" ")  # from the end it plays from the start
    window.wait("document.getElementById('play').textContent === 'Pause'")
    window.press(" ")
    window.wait("document.getElementById('play').textContent === 'Play'")
    film.go_to(9)
    window.press("g")
    film.expect_states("gone")
    film.expect_idle()
    assert saved(films)[1]["gone"] == [9]
    film.go_to(11)
    window.wait("document.getElementById('gone').textContent === 'Not gone'")
    film.click("gone")  # wherever it is gone
    window.wait("document.querySelector('.now').textContent !== 'gone'")
    film.expect_idle()
    assert saved(films)[1]["gone"] == []
    window.press("?")
    window.wait("document.getElementById('dialog').open")
    window.press("\ue00c")
    window.wait("!document.getElementById('dialog').open")
    assert window.logs() == []


def test_what_somebody_should_look_at(window, address):
    """Where an object is lost, or two are in one place, once for each stretch."""
    Film(window, address, 1)
    window.run("import('/static/model.js').then((module) => (window.module = module))")
    window.wait("window.module")
    found = window.run(
        "const model = new window.module.Model({ length: 20 });"
        "const put = (id, first, last, code, box) => {"
        "  const one = model.objects.get(id) ?? model.add(id);"
        "  for (let i = first; i <= last; i++) {"
        "    one.codes[i] = code;"
        "    one.boxes.set(box, 4 * i);"
        "  }"
        "};"
        "put(1, 0, 19, 90, [10, 10, 20, 20]);"
        "put(1, 5, 7, 140, [10, 10, 20, 20]);"  # lost
        "put(2, 0, 19, 90, [40, 10, 20, 20]);"
        "put(2, 6, 6, 140, [40, 10, 20, 20]);"
        "put(2, 12, 15, 90, [12, 11, 20, 20]);"  # on the other
        "put(3, 0, 19, 254, [10, 10, 20, 20]);"  # gone
        "const walk = (id, frame, step) => {"
        "  const seen = [];"
        "  let next;"
        "  while ((next = model.doubtFrom(id, frame, step))) {"
        "    seen.push([next.frame, next.ids]);"
        "    frame = next.frame;"
        "  }"
        "  return seen;"
        "};"
        "return [walk(null, 0, 1), walk(null, 19, -1), walk(2, 0, 1), walk(3, 0, 1)]"
    )
    every = [[5, [1]], [6, [2]], [12, [1, 2]]]
    assert found == [every, every[::-1], every[1:], []]


def test_another_film_of_the_folder(window, address):
    film = Film(window, address, 1)
    window.run("location.hash = '0'")
    window.wait("document.getElementById('about').textContent.includes('4 frames')")
    film.is_shown()
    assert film.states() == []
    hint = "document.getElementById('hint').textContent"
    window.wait(f"{hint}.includes('Draw a box')")
    film.click("forward")
    window.wait("document.querySelector('.toast.bad')")
    toast = window.run("return document.querySelector('.toast.bad').textContent")
    assert "there is no object yet" in toast
    refused = [text for _, text in window.logs()]
    assert all("422" in text for text in refused) and len(refused) == 1


def test_what_takes_long_at_first_is_said_to_start(window, address, monkeypatch):
    step, compiled = Runner.step, threading.Event()

    def slow(self, index, frame, *, lock):
        assert index == 0 or compiled.wait(20)
        step(self, index, frame, lock=lock)

    monkeypatch.setattr(Runner, "step", slow)
    film = Film(window, address, 0)
    film.drag((30, 20), (45, 30), (62, 46))
    film.expect_idle()
    film.click("forward")
    doing = "document.getElementById('doing').textContent"
    window.wait(f"{doing} == 'Tracking: starting …'")
    assert window.run("return document.getElementById('progress').position") == -1
    compiled.set()
    film.expect_idle()
