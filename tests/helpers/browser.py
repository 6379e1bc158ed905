"""A real headless Chromium, driven over WebDriver's own HTTP interface."""

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    # A camera that shows a generated film, and is not asked for.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


class Browser:
    """One window."""

    def __init__(self, session_url):
        self._url = session_url

    def open(self, url):
        self._post("url", {"url": url})

    def run(self, script):
        """Runs the body of a JavaScript function and returns what it returns."""
        return self._post("execute/sync", {"script": script, "args": []})

    def logs(self):
        """Messages of the console since the last call, with their level."""
        entries = self._post("se/log", {"type": "browser"})
        return [(entry["level"], entry["message"]) for entry in entries]

    def save_page(self, path):
        """Writes the whole page as PNG."""
        height = self.run("return document.documentElement.scrollHeight")
        self.resize(1280, height + 200)
        self.save_view(path)

    def drag(self, start, *way):
        """Presses the mouse at a point of the window and moves it over others.

        Returns once the button is up again.
        """
        moves = [_move(point, duration=30) for point in way]
        down = {"type": "pointerDown", "button": 0}
        up = {"type": "pointerUp", "button": 0}
        mouse = {"type": "pointer", "id": "mouse", "actions": []}
        mouse["actions"] = [_move(start), down, *moves, up]
        self._post("actions", {"actions": [mouse]})

    def press(self, *keys):
        """Presses keys together, by their WebDriver codes or letters."""
        presses = [{"type": "keyDown", "value": key} for key in keys]
        releases = [{"type": "keyUp", "value": key} for key in reversed(keys)]
        keyboard = {"type": "key", "id": "keys", "actions": [*presses, *releases]}
        self._post("actions", {"actions": [keyboard]})

    def resize(self, width, height):
        """Makes the window so many pixels large."""
        self._post("window/rect", {"width": width, "height": height})

    def wait(self, script, *, seconds=20):
        """Waits until an expression is true, and returns its value."""
        until = time.monotonic() + seconds
        while not (value := self.run(f"return {script}")):
            assert time.monotonic() < until, f"in vain: {script}"
            time.sleep(0.03)
        return value

    def save_view(self, path):
        """Writes what the window shows as PNG."""
        picture = request("GET", f"{self._url}/screenshot")
        path.write_bytes(base64.b64decode(picture))

    def _post(self, command, body):
        return request("POST", f"{self._url}/{command}", body)


@contextlib.contextmanager
def open_browser(profile, *, width, height=900):
    """A window of so many pixels; skips where there is no Chromium.

    The profile is an empty folder.
    """
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("skipped: no chromium and chromedriver (Debian: chromium-driver)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = f"http://127.0.0.1:{port}"
    command = [driver, f"--port={port}", "--silent"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            _wait(server, process)
            size = f"--window-size={width},{height}"
            options = {
                "binary": binary,
                "args": [*ARGUMENTS, size, f"--user-data-dir={profile}"],
            }
            capabilities = {
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL"},
            }
            body = {"capabilities": {"alwaysMatch": capabilities}}
            session = request("POST", f"{server}/session", body)
            url = f"{server}/session/{session['sessionId']}"
            yield Browser(url)
            request("DELETE", url)
        finally:
            process.terminate()


def _move(point, duration=0):
    x, y = map(round, point)
    return {"type": "pointerMove", "x": x, "y": y, "duration": duration}


def request(method, url, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    message = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(message, timeout=60) as answer:
        return json.load(answer)["value"]


def _wait(server, process):
    for _ in range(150):
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            if request("GET", f"{server}/status")["ready"]:
                return
        assert process.poll() is None, "chromedriver ended"
        time.sleep(0.1)
    raise AssertionError("chromedriver does not answer")
