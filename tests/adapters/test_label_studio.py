import copy
import json
import shutil

import numpy as np
import pytest

from siamrpn_jax.adapters.label_studio import make_app
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.labelling.session import Session
from siamrpn_jax.media.video import VideoWriter

testclient = pytest.importorskip("starlette.testclient")

COUNT, SIZE = 8, (96, 72)
FIRST, SECOND = [20.0, 15, 24, 18], [60.0, 30, 16, 20]


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    images, _ = make_sequence(5, length=COUNT, height=SIZE[1], width=SIZE[0])
    (folder / "deep").mkdir()
    with VideoWriter(folder / "deep/scene.webm", fps=25, size=SIZE) as writer:
        for image in images:
            writer.write(image)
    shutil.copy(folder / "deep/scene.webm", folder / "copy.webm")
    (folder / "notes.webm").write_text("no film")
    return folder


@pytest.fixture(scope="module")
def client(films, tracker):
    return testclient.TestClient(make_app(films, tracker=tracker))


def point(frame, box):
    percent = np.array(box) / (*SIZE, *SIZE) * 100
    sides = dict(zip(("x", "y", "width", "height"), percent.tolist(), strict=True))
    return {"frame": frame, "enabled": True, "rotation": 0, **sides}


def region(number, *points, **value):
    return {
        "id": f"r{number}",
        "type": "videorectangle",
        "from_name": "rectangles",
        "to_name": "film",
        "value": {"sequence": list(points), "labels": ["car"]} | value,
    }


def request(*regions, film="/data/upload/3/0123abcd-scene.webm"):
    task = {"id": 1, "data": {"video": film}}
    return {"tasks": [task], "params": {"context": {"result": list(regions)}}}


def boxes(result):
    return {
        row["frame"]: [
            row[key] / 100 * side
            for key, side in zip(
                ("x", "y", "width", "height"), (*SIZE, *SIZE), strict=True
            )
        ]
        for row in result["value"]["sequence"]
    }


def test_rectangles_are_followed_as_a_session_does(client, films, tracker):
    drawn = region(0, point(1, FIRST), point(6, SECOND)), region(1, point(3, SECOND))
    answer = client.post("/predict", json=request(*drawn))
    assert answer.status_code == 200
    (task,) = answer.json()["results"]
    assert task["model_version"] == "siamrpn_jax" and 0 < task["score"] <= 1
    session = Session(films / "deep/scene.webm", tracker=tracker)
    session.add_box(0, 0, FIRST)
    session.add_box(5, 0, SECOND)
    session.add_box(2, 1, SECOND)
    for _ in session.propagate():
        pass
    for result, one in zip(task["result"], session.labels().objects, strict=True):
        assert (result["from_name"], result["to_name"]) == ("rectangles", "film")
        assert result["id"] == f"r{one.number}" and result["type"] == "videorectangle"
        assert result["value"]["labels"] == ["car"]
        found = boxes(result)
        known = np.flatnonzero(one.known)
        assert sorted(found) == (known + 1).tolist()
        for frame in known:
            np.testing.assert_allclose(found[frame + 1], one.boxes[frame], atol=0.01)


def test_a_rectangle_that_ends_is_followed_from_its_next_box_on(client):
    ends = point(3, FIRST) | {"enabled": False}
    answer = client.post("/predict", json=request(region(0, ends, point(7, SECOND))))
    (found,) = answer.json()["results"][0]["result"]
    assert sorted(boxes(found)) == [3, 7, 8]


def test_drawn_boxes_may_be_in_the_task(client):
    body = request()
    drawn = region(0, point(1, FIRST))
    for place in ("drafts", "annotations", "predictions"):
        task = body["tasks"][0] | {place: [{"result": [drawn, {"type": "choices"}]}]}
        answer = client.post("/predict", json={"tasks": [task]}).json()
        assert len(answer["results"][0]["result"][0]["value"]["sequence"]) == COUNT
    answer = client.post("/predict", json=body).json()
    assert answer["results"] == [
        {"result": [], "score": 0.0, "model_version": "siamrpn_jax"}
    ]


def test_another_frame_rate_is_brought_to_the_films(client):
    """Label Studio counts half as many frames: its frame 3 is the film's 4."""
    drawn = region(0, point(3, FIRST), framesCount=COUNT // 2, duration=COUNT / 25)
    answer = client.post("/predict", json=request(drawn)).json()
    value = answer["results"][0]["result"][0]["value"]
    assert value["framesCount"] == COUNT // 2
    assert [row["frame"] for row in value["sequence"]] == [3, 4]
    np.testing.assert_allclose(boxes(answer["results"][0]["result"][0])[3], FIRST)


def test_what_label_studio_asks_first(client):
    assert client.get("/health").json()["status"] == "UP"
    assert client.get("/").status_code == 200
    assert client.post("/setup", json={}).json() == {"model_version": "siamrpn_jax"}
    assert client.post("/webhook", json={}).status_code == 201


def damaged():
    whole = request(region(0, point(1, FIRST)))
    yield {"tasks": 3}, "malformed request"
    yield [], "malformed request"
    yield {"tasks": [{"data": 5}]}, "malformed request"
    yield request(film="/data/other.webm"), "holds no film /data/other.webm"
    yield request(film="../../etc/passwd"), "holds no film ../../etc/passwd"
    two = copy.deepcopy(whole)
    two["tasks"][0]["data"]["title"] = "copy.webm"
    yield two, "copy.webm, expected one film"
    yield request(region(0), film="notes.webm"), "notes.webm: not a video"
    apart = region(0, point(1, FIRST)), region(1) | {"to_name": "other"}
    yield request(*apart), "regions are of film and other, expected one to_name"
    for value, message in (
        ({"duration": 9.5}, "region 0: is of a film of 9.5 s, and scene.webm lasts"),
        ({"framesCount": 10**12}, "region 0: framesCount is 1000000000000, expected"),
        ({"framesCount": 4, "duration": 0.32}, "frame 5, expected 1 to 4"),
    ):
        yield request(region(0, point(5, FIRST), **value)), message
    for path, value, message in (
        ("frame", 99, "region 0: frame 99, expected 1 to 8"),
        ("frame", 0, "region 0: frame 0, expected 1 to 8"),
        ("frame", 1.5, "expected a whole number"),
        ("rotation", 20, "frame 1 has rotation 20, expected 0"),
        ("frame", "a", "expected a whole number"),
        ("frame", True, "expected a whole number"),
        ("x", None, "malformed"),
        ("width", -5, "box"),
    ):
        body = copy.deepcopy(whole)
        body["params"]["context"]["result"][0]["value"]["sequence"][0][path] = value
        yield body, message


@pytest.mark.parametrize(("body", "message"), [*damaged()])
def test_nonsense_is_answered_with_a_sentence(client, body, message):
    answer = client.post("/predict", json=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_no_json(client):
    answer = client.post("/predict", content=b"{")
    assert answer.status_code == 400 and "no JSON" in answer.json()["error"]
    text = json.dumps(request(region(0, point(1, FIRST)))).replace("20", "NaN")
    assert client.post("/predict", content=text).status_code == 400


def test_a_folder_that_is_not_there(tmp_path, tracker):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        make_app(tmp_path / "nowhere", tracker=tracker)
