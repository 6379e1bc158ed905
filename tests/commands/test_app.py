import contextlib
import json
import signal
import subprocess
import sys

import pytest

from siamrpn_jax.commands import app
from siamrpn_jax.common import errors
from siamrpn_jax.common.errors import InputError, MissingExtraError


def test_missing_extra_is_told(monkeypatch, tmp_path):
    def missing(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(errors.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"siamrpn-jax\[app\]"):
        app.run(app.Config(tmp_path))


def test_nothing_to_label_and_a_wrong_port(tmp_path, capsys):
    pytest.importorskip("starlette", reason="skipped: needs siamrpn-jax[app]")
    with pytest.raises(SystemExit) as caught:
        app.main([str(tmp_path)])
    assert caught.value.code == 2
    assert "holds no film" in capsys.readouterr().err
    with pytest.raises(InputError, match="port is 70000, expected 0 to 65535"):
        app.Config(port=70000)


@pytest.mark.skipif(sys.platform == "win32", reason="skipped: sends POSIX signals")
def test_a_killed_server_loses_nothing(tmp_path):
    for module in ("starlette", "uvicorn", "websockets", "httpx"):
        pytest.importorskip(module, reason="skipped: needs siamrpn-jax[app], httpx")
    from app_server import Page, write_film

    write_film(tmp_path / "walk", length=3)
    with started(tmp_path) as (process, address), Page(address) as page:
        assert page.open().status_code == 200
        page.do("draw", frame=1, box=[30, 20, 30, 24], name="car")
        page.settle()
        process.kill()
    session = json.loads((tmp_path / "walk.session.json").read_text())
    assert session["objects"][0]["boxes"] == [[1, 30.0, 20.0, 30.0, 24.0]]
    with started(tmp_path) as (process, address), Page(address) as page:
        assert page.open().status_code == 200 and page.objects == {1: "car"}
        page.do("rename", object=1, name="bus")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    session = json.loads((tmp_path / "walk.session.json").read_text())
    assert session["objects"][0]["name"] == "bus"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "walk",
        "walk.session.json",
    ]


@contextlib.contextmanager
def started(folder):
    """The command in a process of its own, and the address that it prints."""
    code = "from siamrpn_jax.commands.app import main; main()"
    command = [sys.executable, "-c", code, str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            assert "http://127.0.0.1:" in line
            yield process, line.partition("http://")[2].strip().rstrip("/")
        finally:
            process.kill()
