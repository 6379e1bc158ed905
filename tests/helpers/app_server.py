"""The labelling page's server in a thread, and what a browser does with it."""

import base64
import contextlib
import json
import socket
import threading
import time

import cv2
import httpx
import jax
import numpy as np
import uvicorn
from websockets.sync.client import connect
from websockets.typing import Origin

from random_variables import random_variables
from siamrpn_jax.api import Tracker
from siamrpn_jax.app.films import list_films
from siamrpn_jax.app.opened import Desk
from siamrpn_jax.app.server import make_app
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking.config import TrackerConfig
from small_models import tiny_model


def tiny_tracker():
    """A tracker that follows nothing in particular, and compiles fast."""
    model = SiamRPN(tiny_model())
    config = model.config
    sides = config.exemplar_size, config.instance_size
    images = [np.zeros((1, side, side, 3), np.uint8) for side in sides]
    variables = random_variables(model.init, *images)
    return Tracker(model, jax.device_get(variables), TrackerConfig())


def write_film(folder, *, length=24, seed=0):
    """Writes a generated scene as images; returns its boxes, ``ltwh [T, 4]``."""
    folder.mkdir(parents=True)
    frames, boxes = make_sequence(seed, length=length, height=96, width=128)
    for number, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{number:03}.png"), frame[..., ::-1])
    return boxes


@contextlib.contextmanager
def serving(films, tracker, *, out=None, **options):
    """A server of the films in a folder; yields its address, ``host:port``."""
    app = make_app(Desk(list_films(films, out=out), tracker), **options)
    config = uvicorn.Config(
        app, ws="websockets-sansio", log_level="warning", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class Page:
    """What the page in a browser does, for one film."""

    def __init__(self, address, film=0):
        self.address, self.film = address, film
        origin = f"http://{address}"
        self._opened = contextlib.ExitStack()
        client = httpx.Client(base_url=origin, headers={"Origin": origin}, timeout=60)
        self.http = self._opened.enter_context(client)
        self.objects, self.codes, self.boxes = {}, {}, {}
        self.last, self.notices = {}, []
        self.about = {}

    def open(self, **fields):
        """Opens the film and listens; returns the answer."""
        answer = self.post("open", **fields)
        if answer.status_code == 200:
            address = f"ws://{self.address}/films/{self.film}/live"
            origin = Origin(f"http://{self.address}")
            connection = connect(address, origin=origin, max_size=None)
            self.live = self._opened.enter_context(connection)
            self.read()
        return answer

    def post(self, action, **fields):
        return self.http.post(f"/films/{self.film}/{action}", json=fields)

    def do(self, action, **fields):
        """Asks for what has to work, in the state that was last seen."""
        fields = {"revision": self.last["revision"]} | fields
        answer = self.post(action, **fields)
        assert answer.status_code == 200, answer.text
        content = answer.json()
        revision = content.pop("revision")
        self.until(lambda: self.last["revision"] >= revision)
        return content

    def read(self):
        """Takes over the next message."""
        content = json.loads(self.live.recv(timeout=30))
        self.about = content.get("film", self.about)
        self.last = content
        self.objects = {one["id"]: one["name"] for one in content["objects"]}
        for known in (self.codes, self.boxes):
            for number in set(known) - set(self.objects):
                del known[number]
        length = self.about["length"]
        for change in content["changes"]:
            number, start = change["id"], change["start"]
            codes = np.frombuffer(base64.b64decode(change["codes"]), np.uint8)
            boxes = np.frombuffer(base64.b64decode(change["boxes"]), "<f4")
            mine = self.codes.setdefault(number, np.zeros(length, np.uint8))
            mine[start : start + len(codes)] = codes
            empty = np.full((length, 4), np.nan, np.float32)
            mine = self.boxes.setdefault(number, empty)
            mine[start : start + len(codes)] = boxes.reshape(-1, 4)
        if "notice" in content:
            self.notices.append(content["notice"])

    def until(self, condition):
        """Takes messages over until a condition holds."""
        while not condition():
            self.read()

    def settle(self):
        """Waits until nothing goes on and all is saved."""
        self.until(lambda: self.last["job"] is None and self.last["saved"])

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._opened.close()
