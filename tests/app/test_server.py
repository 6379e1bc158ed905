import contextlib
import json
import math
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("starlette", reason="skipped: needs siamrpn-jax[app]")
pytest.importorskip("uvicorn", reason="skipped: needs siamrpn-jax[app]")
pytest.importorskip("websockets", reason="skipped: needs siamrpn-jax[app]")
pytest.importorskip("httpx", reason="skipped: needs httpx")

import httpx
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from app_server import Page, serving, tiny_tracker, write_film
from siamrpn_jax.app import server as server_module
from siamrpn_jax.app.films import list_films
from siamrpn_jax.app.guard import make_token
from siamrpn_jax.app.opened import FORMATS, Desk, OpenFilm
from siamrpn_jax.app.timeline import GONE, KEY, UNKNOWN, Timeline
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.labelling import formats
from siamrpn_jax.labelling.runner import Runner
from siamrpn_jax.labelling.session import Session

BOX = [30.0, 20.0, 30.0, 24.0]
LENGTH = 24


@pytest.fixture(autouse=True)
def saved_soon(monkeypatch):
    monkeypatch.setattr("siamrpn_jax.app.saving._PAUSE", 0.05)


@pytest.fixture(scope="module")
def tracker():
    return tiny_tracker()


@pytest.fixture
def films(tmp_path):
    write_film(tmp_path / "films" / "walk", length=LENGTH)
    return tmp_path / "films"


@pytest.fixture
def address(films, tracker):
    with serving(films, tracker) as found:
        yield found


@pytest.fixture
def other(address):
    """Another browser at the same film."""
    with Page(address) as other:
        assert other.open().status_code == 200
        yield other


@pytest.fixture
def page(address):
    with Page(address) as page:
        assert page.open().status_code == 200
        yield page


def saved(films):
    return json.loads((films / "walk.session.json").read_text())


# ----------------------------------------------------------------- what is served


def test_page_and_its_parts_come_from_here_alone(address):
    with httpx.Client(base_url=f"http://{address}") as http:
        answer = http.get("/")
        assert answer.status_code == 200 and "<canvas" in answer.text
        assert answer.headers["content-security-policy"].startswith(
            "default-src 'self'"
        )
        assert "http:" not in answer.text and "https:" not in answer.text
        names = (
            "app.js",
            "canvas.js",
            "model.js",
            "server.js",
            "stage.js",
            "timeline.js",
        )
        for name in (*names, "app.css", "icon.svg"):
            part = http.get(f"/static/{name}")
            assert part.status_code == 200 and part.headers["cache-control"]
            if name.endswith(".js"):
                assert part.headers["content-type"].startswith("text/javascript")
        assert http.get("/films").json() == {
            "films": [{"name": "walk", "labelled": False}]
        }


def test_frames_are_kept_by_the_browser(page):
    mark = page.about["fingerprint"]
    first = page.http.get(f"/films/0/frames/3?v={mark}")
    assert (
        first.content[:2] == b"\xff\xd8"
        and "immutable" in first.headers["cache-control"]
    )
    tag = {"If-None-Match": first.headers["etag"]}
    assert page.http.get("/films/0/frames/3", headers=tag).status_code == 304
    plain = page.http.get("/films/0/frames/3?v=other")
    assert plain.headers["cache-control"] == "no-cache"
    for wrong in (LENGTH, -1, "x", "9" * 5000, "٣", "..%2f..%2fetc%2fpasswd"):
        assert page.http.get(f"/films/0/frames/{wrong}").status_code == 404


def test_films_of_a_folder(tmp_path, monkeypatch):
    write_film(tmp_path / "b" / "img", length=1)
    write_film(tmp_path / "a", length=1)
    (tmp_path / "film.MP4").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden.mp4").touch()
    (tmp_path / "empty").mkdir()
    assert [film.name for film in list_films(tmp_path)] == ["a", "b", "film.MP4"]
    assert [film.name for film in list_films(tmp_path / "a")] == ["a"]
    assert list_films(tmp_path / "a", out=tmp_path / "o")[0].out == tmp_path / "o"
    monkeypatch.setenv("HOME", str(tmp_path))
    for file in (tmp_path / "notes.txt", Path("~/notes.txt")):
        with pytest.raises(InputError, match="notes.txt: is a file, expected a folder"):
            list_films(tmp_path / "a", out=file)
    for name in ("empty", "missing", "notes.txt"):
        wrong = tmp_path / name
        with pytest.raises(InputError, match=f"{name}.*(film|video)"):
            list_films(wrong)


# ------------------------------------------------------------------ boxes and tracks


def test_boxes_tracks_and_corrections(page, films):
    assert page.do("draw", frame=0, box=BOX, name="car") == {"object": 1}
    page.do("track", way="forward", frame=0)
    page.settle()
    assert page.codes[1][0] == KEY and (page.codes[1] != UNKNOWN).all()
    before = page.boxes[1].copy()
    page.do("draw", frame=12, object=1, box=[50, 30, 30, 24])
    page.until(lambda: page.codes[1][12] == KEY)
    page.settle()
    assert (page.codes[1] != UNKNOWN).all() and page.codes[1][12] == KEY
    np.testing.assert_array_equal(page.boxes[1][12], [50, 30, 30, 24])
    assert not np.array_equal(page.boxes[1][13:], before[13:])
    page.do("undo")
    page.settle()
    np.testing.assert_array_equal(page.boxes[1], before)
    assert saved(films)["objects"][0]["name"] == "car"
    with Page(page.address) as other:
        other.open()
        np.testing.assert_array_equal(other.boxes[1], page.boxes[1])
        np.testing.assert_array_equal(other.codes[1], page.codes[1])


def test_only_the_stretch_of_a_corrected_box_is_tracked_again(page):
    for frame in (4, 12, 20):
        page.do("draw", frame=frame, box=BOX, **({"object": 1} if frame > 4 else {}))
    page.do("draw", frame=0, box=[60, 50, 20, 20])
    page.do("track", way="between", frame=5, object=1)
    page.settle()
    known = np.flatnonzero(page.codes[1])
    np.testing.assert_array_equal(known, [*range(4, 13), 20])
    np.testing.assert_array_equal(np.flatnonzero(page.codes[2]), [0])
    page.do("track", way="between", frame=13, object=1)
    page.settle()
    first = page.boxes[1][4:12].copy()
    page.do("draw", frame=16, object=1, box=[40, 20, 30, 24])
    page.until(lambda: page.codes[1][16] == KEY)
    page.settle()
    np.testing.assert_array_equal(page.boxes[1][4:12], first)
    np.testing.assert_array_equal(np.flatnonzero(page.codes[1]), range(4, 21))
    np.testing.assert_array_equal(np.flatnonzero(page.codes[2]), [0])
    page.do("erase", frame=16, object=1)
    page.until(lambda: page.codes[1][16] != KEY)
    page.settle()
    np.testing.assert_array_equal(np.flatnonzero(page.codes[1]), range(4, 21))
    page.do("draw", frame=4, object=1, box=[20, 20, 30, 24])
    page.settle()
    page.do("track", way="backward", frame=4, object=1)
    page.settle()
    assert (page.codes[1][:4] != UNKNOWN).all()
    back = page.boxes[1][:4].copy()
    page.do("draw", frame=4, object=1, box=[35, 25, 30, 24])
    page.until(lambda: page.boxes[1][4][0] == 35)
    page.settle()
    assert (page.codes[1][:4] != UNKNOWN).all()
    assert not np.array_equal(page.boxes[1][:4], back)


def test_an_object_leaves_and_comes_back(page, films, tracker):
    page.do("draw", frame=2, box=BOX)
    page.do("track", way="forward", frame=2)
    page.settle()
    before = page.codes[1].copy()
    page.do("gone", frame=10, object=1)
    page.until(lambda: (page.codes[1][10:] == GONE).all())
    assert np.isnan(page.boxes[1][10:]).all() and page.codes[1][9] == before[9]
    assert page.post("gone", frame=12, object=1, revision=10**6).status_code == 422
    page.do("draw", frame=16, object=1, box=[40, 20, 30, 24])
    page.until(lambda: page.codes[1][16] == KEY)
    page.settle()
    assert (page.codes[1][10:16] == GONE).all()
    assert (page.codes[1][16:] != UNKNOWN).all() and page.codes[1][17] != GONE
    session = Session.load(films / "walk.session.json", tracker=tracker)
    assert session.gone(1) == (range(10, 16),)
    page.do("erase", frame=10, object=1)
    page.until(lambda: page.codes[1][10] not in (UNKNOWN, GONE))
    page.settle()
    assert (page.codes[1][2:] != UNKNOWN).all() and GONE not in page.codes[1]
    page.do("undo")
    page.until(lambda: (page.codes[1][10:16] == GONE).all())


def test_names_removals_and_undo(page, films):
    page.do("draw", frame=2, box=BOX)
    page.do("draw", frame=3, box=BOX, name="dog")
    page.do("rename", object=1, name="  big car ")
    page.do("remove", object=2)
    page.until(lambda: page.objects == {1: "big car"})
    assert page.last["undo"] == "removal of object 2"
    page.do("undo")
    page.until(lambda: page.objects == {1: "big car", 2: "dog"})
    assert page.codes[2][3] == KEY
    page.do("undo")
    page.do("undo")
    page.do("undo")
    page.until(lambda: not page.objects)
    assert page.post("undo").status_code == 409
    page.settle()
    assert saved(films)["objects"] == []
    for undone in ("box of object 1", "box of object 2", "class of object 1"):
        assert page.last["redo"] == undone
        assert page.do("redo")["step"] == undone
    page.until(lambda: page.objects == {1: "big car", 2: "dog"})
    assert page.codes[1][2] == page.codes[2][3] == KEY
    page.do("undo")
    page.until(lambda: page.objects == {1: "object", 2: "dog"})
    page.do("draw", frame=5, object=2, box=BOX)
    page.until(lambda: page.last["redo"] is None)
    assert page.post("redo").status_code == 409


def test_a_correction_is_made_again_with_its_tracks(page):
    page.do("draw", frame=0, box=BOX)
    page.do("track", way="forward", frame=0)
    page.settle()
    page.do("draw", frame=12, object=1, box=[50, 30, 30, 24])
    page.until(lambda: page.codes[1][12] == KEY)
    page.settle()
    corrected = page.boxes[1].copy()
    page.do("undo")
    page.settle()
    assert not np.array_equal(page.boxes[1], corrected)
    page.do("redo")
    page.settle()
    np.testing.assert_array_equal(page.boxes[1], corrected)


@pytest.fixture
def slowly(monkeypatch):
    """Each frame takes its time."""
    step = Runner.step

    def slow(self, *args, **kwargs):
        time.sleep(0.05)
        step(self, *args, **kwargs)

    monkeypatch.setattr(Runner, "step", slow)


def test_boxes_may_change_while_tracking_goes_on(page, slowly, films, tracker):
    page.do("draw", frame=0, box=BOX)
    page.do("track", way="forward", frame=0)
    page.until(lambda: page.codes[1][2] != UNKNOWN)
    page.do("draw", frame=18, object=1, box=BOX)
    page.do("draw", frame=20, box=BOX)
    page.do("rename", object=1, name="dog")
    page.settle()
    assert (page.codes[1] != UNKNOWN).all() and page.codes[1][18] == KEY
    page.do("draw", frame=0, object=1, box=[32, 20, 30, 24])
    page.do("remove", object=1)
    page.do("undo")
    page.do("erase", frame=18, object=1)
    page.settle()
    assert (page.codes[1] != UNKNOWN).all() and page.codes[1][18] != KEY
    session = Session.load(films / "walk.session.json", tracker=tracker)
    whole = Timeline(session)
    whole.refresh()
    for number in (1, 2):
        np.testing.assert_array_equal(whole.codes[number], page.codes[number])


def test_steps_taken_back_and_made_again_while_tracking_leave_no_gap(page, slowly):
    page.do("draw", frame=0, box=BOX)
    page.do("track", way="forward", frame=0)
    page.settle()
    page.do("draw", frame=4, object=1, box=[50, 30, 30, 24])
    page.until(lambda: page.codes[1][4] == KEY and page.codes[1][6] != UNKNOWN)
    page.do("undo")
    page.until(lambda: page.codes[1][4] != KEY)
    page.settle()
    assert (page.codes[1] != UNKNOWN).all()
    page.do("redo")
    page.until(lambda: page.codes[1][4] == KEY and (page.codes[1] != UNKNOWN).all())
    page.settle()


def test_stop_keeps_what_was_found(page, slowly):
    page.do("draw", frame=0, box=BOX)
    page.do("track", way="forward", frame=0)
    assert page.post("track", way="forward", frame=0).status_code == 409
    assert page.post("export", format="csv").status_code == 409
    page.until(lambda: 1 in page.codes and page.codes[1][2] != UNKNOWN)
    page.do("stop")
    page.settle()
    known = np.flatnonzero(page.codes[1])
    assert 2 < len(known) < LENGTH
    page.do("track", way="forward", frame=0)
    page.until(lambda: (page.codes[1] != UNKNOWN).all())
    page.settle()


def test_changes_alone_lead_to_the_same_time_line(films, tracker):
    """Whatever is done, the arrays are those of a look at everything."""
    opened = OpenFilm(list_films(films)[0], tracker)
    session, timeline = opened.session, Timeline(opened.session)
    draw, steps = random.Random(0), []
    for _ in range(50):
        numbers = session.object_ids
        frame, number = draw.randrange(LENGTH), draw.randrange(1, 3)
        drawn = anew = None
        action = draw.choice(
            ("draw", "draw", "erase", "gone", "track", "track", "undo")
        )
        if action == "draw":
            steps.append((number, session.remember(number)))
            session.add_box(frame, number, [draw.uniform(0, 90), 20, 30, 24])
            drawn = number, frame
        elif action == "erase" and number in numbers:
            ends = [gone.start for gone in session.gone(number)]
            frame = draw.choice([*session.keys(number), *ends])
            steps.append((number, session.remember(number)))
            session.remove_box(frame, number)
            drawn = number, frame
        elif action == "gone" and number in numbers:
            before = session.remember(number)
            with contextlib.suppress(InputError):  # gone already, or its only box
                session.mark_gone(frame, number)
                steps.append((number, before))
                anew = number
        elif action == "track" and numbers:
            stop = draw.randrange(frame + 1, LENGTH + 1)
            for _ in session.propagate(frame, stop, reverse=draw.random() < 0.5):
                pass
        elif action == "undo" and steps:
            anew, before = steps.pop()
            session.put_back(anew, before)
        timeline.refresh(drawn=drawn, anew=anew)
        whole = Timeline(session)
        whole.refresh()
        assert set(timeline.codes) == set(whole.codes)
        for one, codes in whole.codes.items():
            np.testing.assert_array_equal(timeline.codes[one], codes)
            np.testing.assert_array_equal(timeline.boxes[one], whole.boxes[one])
    opened.close()


# --------------------------------------------------------------- two at the same film


def test_two_browsers_see_the_same_and_stale_writes_are_refused(page, other):
    page.do("draw", frame=0, box=BOX)
    other.until(lambda: 1 in other.objects)
    stale = other.last["revision"]
    page.do("remove", object=1)
    answer = other.post("draw", frame=1, object=1, box=BOX, revision=stale)
    assert answer.status_code == 409 and "no longer there" in answer.json()["error"]
    page.until(lambda: 1 not in page.objects)
    page.do("draw", frame=5, box=BOX)
    answer = other.post("draw", frame=1, object=1, box=BOX, revision=stale)
    assert answer.status_code == 409 and "another one" in answer.json()["error"]
    other.until(lambda: 1 in other.codes and other.codes[1][5] == KEY)
    other.do("rename", object=1, name="dog")
    page.until(lambda: page.objects.get(1) == "dog")


# -------------------------------------------------------------------------- nonsense

NONSENSE = (
    *(None, True, False, "", " ", "a\nb", "x" * 200, "\ud800", [], {}, [[]], [1], -1),
    *(0, 0.5, 1.5, 7, LENGTH, 2**31, 10**400, 1e308, math.nan, math.inf, -math.inf),
    *([0, 0, 0, 0], [1, 1, -5, 5], [1e300, 0, 5, 5], [math.nan, 0, 5, 5]),
    *([500, 0, 5, 5], ["1", 0, 5, 5], [True, 0, 5, 5], "../../etc", "csv\0"),
)
FIELDS = ("frame", "object", "box", "name", "revision", "way", "format", "fresh")
ACTIONS = ("draw", "erase", "gone", "rename", "remove", "track")


def test_nonsense_is_refused_and_changes_nothing(page, films):
    page.do("draw", frame=7, box=BOX, name="car")
    page.settle()
    before = (films / "walk.session.json").read_bytes()
    draw = random.Random(0)
    good = {"frame": 7, "object": 1, "box": BOX, "name": "car", "way": "forward"}
    good |= {"revision": page.last["revision"], "format": "csv"}
    for turn in range(400):
        action = draw.choice((*ACTIONS, "export"))
        needed = {
            "draw": "box",
            "erase": "frame",
            "gone": "frame",
            "rename": "name",
            "remove": "object",
        }
        spoilt = needed.get(action, {"track": "way", "export": "format"}.get(action))
        wrong = [value for value in NONSENSE if value not in (7, "car", "csv")]
        if spoilt in ("object", "frame"):
            wrong = [value for value in wrong if not _is_plain(value)]
        if spoilt == "name":
            wrong = [v for v in wrong if v not in ("../../etc",)]
        fields = good | {spoilt: draw.choice(wrong)}
        for name in draw.sample(FIELDS, draw.randrange(3)):
            if name != spoilt:
                fields[name] = draw.choice(NONSENSE)
        text = json.dumps(fields)
        answer = page.http.post(
            f"/films/0/{action}", content=text, headers=_json_headers()
        )
        assert 400 <= answer.status_code < 500, (turn, action, text, answer.text)
        assert len(answer.json()["error"]) > 10
    for body in (
        b"",
        b"null",
        b"[",
        b"\xff",
        b"[" * 60000,
        b'{"a":' * 9000,
        b"1" * 9999,
    ):
        for action in ACTIONS:
            answer = page.http.post(
                f"/films/0/{action}", content=body, headers=_json_headers()
            )
            assert answer.status_code in (422,), (action, body[:20], answer.text)
    assert (
        page.http.post("/films/0/draw", json={"name": "x" * 70000}).status_code == 413
    )
    assert page.http.post("/films/0/draw", content="{}").status_code == 415
    assert page.http.get("/films/0/draw").status_code == 405
    for path in ("/films/0/fly", "/films/1/open", "/films/x/draw", "/films/-1/draw"):
        assert page.http.post(path, json={}).status_code == 404
    for path in ("/static/../films.py", "/static/%2e%2e/films.py", "/nothing"):
        assert page.http.get(path).status_code == 404
    page.do("rename", object=1, name="bus")
    page.settle()
    assert (films / "walk.session.json").read_bytes() == before.replace(b"car", b"bus")
    assert sorted(path.name for path in films.iterdir()) == [
        ".walk.session.json.lock",
        "walk",
        "walk.session.json",
    ]


def _is_plain(value):
    return isinstance(value, int) and not isinstance(value, bool) and value <= 1


def _json_headers():
    return {"Content-Type": "application/json"}


# ------------------------------------------------------------------- who may ask it


def test_other_sites_are_refused(page):
    draw = {"frame": 0, "box": BOX}
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}):
        answer = page.http.post("/films/0/draw", json=draw, headers=headers)
        assert answer.status_code == 403
        assert page.http.get("/films", headers=headers).status_code == 403
    with httpx.Client(base_url=f"http://{page.address}") as http:
        assert http.post("/films/0/draw", json=draw).status_code == 403
        port = page.address.rpartition(":")[2]
        for host in ("evil.example", f"evil.example:{port}", "[", "127.0.0.1.x"):
            answer = http.get("/films", headers={"Host": host})
            assert answer.status_code == 400
        for host in (f"localhost:{port}", f"[::1]:{port}"):
            assert http.get("/films", headers={"Host": host}).status_code == 200
    for origin in (None, Origin("http://evil.example")):
        with pytest.raises(InvalidStatus):
            with connect(f"ws://{page.address}/films/0/live", origin=origin):
                pass
    assert page.last["objects"] == []


def test_other_machines_need_the_token(films, tracker):
    assert make_token("localhost") == "" and len(make_token("0.0.0.0")) > 20
    with serving(films, tracker, host="0.0.0.0", token="secret") as address:
        with httpx.Client(base_url=f"http://{address}") as http:
            for query in ("", "?token=", "?token=wrong", "?token=%ff"):
                assert http.get(f"/{query}").status_code == 403
            port = address.rpartition(":")[2]
            cookie = {"Cookie": f"siamrpn_app_{port}=wrong"}
            assert http.get("/films", headers=cookie).status_code == 403
            answer = http.get("/?token=secret")
            assert answer.status_code == 303 and answer.headers["location"] == "/"
            assert "HttpOnly" in answer.headers["set-cookie"]
            assert http.get("/").status_code == 200
            assert http.get("/films").status_code == 200
        with pytest.raises(InvalidStatus):
            origin = Origin(f"http://{address}")
            with connect(f"ws://{address}/films/0/live", origin=origin):
                pass


def test_a_port_in_use_is_told(films, tracker, address):
    desk = Desk(list_films(films), tracker)
    port = int(address.rpartition(":")[2])
    with pytest.raises(InputError, match=f"port {port} .* choose another --port"):
        server_module.serve(desk, host="127.0.0.1", port=port, ready=print)
    with pytest.raises(InputError, match="no.such.host"):
        server_module.serve(desk, host="no.such.host", port=0, ready=print)


# ------------------------------------------------------------------------ the disk


def test_a_new_server_goes_on_where_the_last_one_was(films, tracker):
    with serving(films, tracker) as address, Page(address) as page:
        page.open()
        page.do("draw", frame=0, box=BOX, name="car")
        page.do("track", way="forward", frame=0)
        page.settle()
        page.do("rename", object=1, name="bus")  # not waited for: saved at the end
    with serving(films, tracker) as address, Page(address) as again:
        again.open()
        assert again.objects == {1: "bus"}
        np.testing.assert_array_equal(again.codes[1], page.codes[1])
        np.testing.assert_allclose(again.boxes[1], page.boxes[1], atol=1e-3)


def test_a_full_disk_is_told_and_tried_again(page, films, monkeypatch):
    save = Session.save

    def full(self, path):
        raise OSError(f"cannot write {path}: no space left")

    monkeypatch.setattr("siamrpn_jax.app.saving._RETRY", 0.1)
    monkeypatch.setattr(Session, "save", full)
    page.do("draw", frame=0, box=BOX)
    page.until(lambda: "no space left" in page.last["problem"])
    assert not page.last["saved"]
    monkeypatch.setattr(Session, "save", save)
    page.until(lambda: page.last["saved"] and not page.last["problem"])
    assert len(saved(films)["objects"]) == 1


def test_a_fault_while_saving_is_told_and_tried_again(page, films, monkeypatch, caplog):
    save = Session.save

    def wrong(self, path):
        raise ValueError("Out of range float values")

    monkeypatch.setattr("siamrpn_jax.app.saving._RETRY", 0.1)
    monkeypatch.setattr(Session, "save", wrong)
    page.do("draw", frame=0, box=BOX)
    page.until(lambda: "see the terminal: ValueError" in page.last["problem"])
    assert not page.last["saved"]
    page.do("draw", frame=1, box=BOX)
    page.until(lambda: page.last["problem"])
    monkeypatch.setattr(Session, "save", save)
    page.until(lambda: page.last["saved"] and not page.last["problem"])
    assert len(saved(films)["objects"]) == 2
    (record,) = [one for one in caplog.records if one.message == "saving failed"]
    assert record.exc_info


def test_a_fault_while_saving_does_not_keep_a_film_open(
    films, tracker, monkeypatch, caplog
):
    def wrong(self, path):
        raise ValueError("Out of range float values")

    with serving(films, tracker) as address, Page(address) as page:
        page.open()
        monkeypatch.setattr(Session, "save", wrong)
        page.do("draw", frame=0, box=BOX)
        page.until(lambda: page.last["problem"])
    assert any("is not saved (saving failed" in one.message for one in caplog.records)
    assert not list(films.glob(".*.lock"))


def test_what_cannot_be_saved_is_not_lost(tmp_path, tracker, caplog, monkeypatch):
    """Another film is opened meanwhile, and then the server ends."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("a", "b"):
        write_film(tmp_path / "films" / name, length=2)
    out = tmp_path / "out"
    with serving(tmp_path / "films", tracker, out=out) as address:
        out.touch()  # no folder
        with Page(address, film=0) as page:
            page.open()
            page.do("draw", frame=0, box=BOX, name="car")
            page.until(lambda: page.last["problem"])
        with Page(address, film=1) as page:
            assert page.open().status_code == 200
        with Page(address, film=0) as page:
            page.open()
            assert page.objects == {1: "car"} and not page.last["saved"]
    (rescued,) = tmp_path.glob("siamrpn-*/a.session.json")
    assert json.loads(rescued.read_text())["objects"][0]["name"] == "car"
    (record,) = [one for one in caplog.records if "cannot be saved" in one.message]
    assert str(rescued) in record.message


def test_the_session_of_another_film_stays(films, tracker):
    write_film(films / "other", length=5, seed=1)
    with serving(films, tracker) as address, Page(address, film=1) as page:
        page.open()
        page.do("draw", frame=0, box=BOX)
        page.settle()
    before = (films / "walk.session.json").read_bytes()
    (films / "other.session.json").write_bytes(before)
    with serving(films, tracker) as address, Page(address) as page:
        answer = page.open()
        assert answer.status_code == 409
        assert answer.json()["offer"] == "other.session-2.json"
        assert "another film" in answer.json()["error"]
        assert page.open(fresh=True).status_code == 200
        page.do("draw", frame=1, box=BOX)
        page.settle()
    assert (films / "other.session.json").read_bytes() == before
    with serving(films, tracker) as address, Page(address) as page:
        assert page.open().status_code == 200 and page.objects == {1: "object"}


def test_a_film_is_open_in_one_process(page, films, tracker):
    with serving(films, tracker) as address, Page(address) as other:
        answer = other.open()
        assert answer.status_code == 409
        assert "another siamrpn app" in answer.json()["error"]


def test_a_film_that_changes_is_told(page, films):
    page.do("draw", frame=0, box=BOX)
    page.settle()
    (films / "walk" / f"{LENGTH - 1:03}.png").unlink()
    page.do("track", way="forward", frame=0)
    page.until(lambda: page.notices)
    assert "changed while it was open" in page.notices[0]
    answer = page.post("export", format="csv")
    assert answer.status_code == 422 and "changed while" in answer.json()["error"]
    assert not (films / "labels" / "walk-csv").exists()
    page.settle()
    answer = page.post("open")
    assert answer.status_code == 409 and answer.json()["offer"]


@pytest.mark.parametrize("format", FORMATS)
def test_exports(page, films, format):
    assert page.post("export", format=format).status_code == 422  # nothing is known
    assert not (films / "labels" / f"walk-{format}").exists()
    page.do("draw", frame=0, box=BOX)
    answer = page.do("export", format=format)
    folder = films / "labels" / f"walk-{format}"
    assert answer["folder"] == str(folder) and answer["files"] >= 1
    assert any(path.is_file() for path in folder.rglob("*"))
    assert ("commands" in answer) == (format == "mot")
    again = page.post("export", format=format)
    assert again.status_code == 409 and "not written over" in again.json()["error"]
    assert again.json()["offer"] == f"walk-{format}-2"
    answer = page.do("export", format=format, fresh=True)
    assert answer["folder"] == f"{folder}-2"


def test_an_export_says_how_far_it_is_and_can_be_stopped(page, films, monkeypatch):
    jpeg = formats._Images.write

    def slow(self, *args, **kwargs):
        tell = self._progress
        self._progress = lambda *count: (time.sleep(0.03), tell(*count))
        return jpeg(self, *args, **kwargs)

    monkeypatch.setattr(formats._Images, "write", slow)
    page.do("draw", frame=4, box=BOX)
    page.do("draw", frame=6, box=BOX)
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(page.post, "export", format="vot")
        page.until(lambda: page.last["job"] and page.last["job"]["done"] > 0)
        assert page.last["job"]["label"] == "Exporting"
        # The objects' frames, each from its first box on.
        assert page.last["job"]["total"] == 2 * LENGTH - 4 - 6
        page.do("stop")
        answer = asked.result()
    assert answer.status_code == 409 and "stopped" in answer.json()["error"]
    assert not list((films / "labels").iterdir())
    page.settle()
    page.do("export", format="vot")


def test_an_export_to_a_full_disk_leaves_nothing(page, films, monkeypatch):
    def full(self, folder, format, **options):
        folder.mkdir(parents=True)
        raise OSError("cannot write: no space left")

    monkeypatch.setattr(Session, "export", full)
    page.do("draw", frame=0, box=BOX)
    answer = page.post("export", format="csv")
    assert answer.status_code == 507 and "no space" in answer.json()["error"]
    assert not list((films / "labels").iterdir())
