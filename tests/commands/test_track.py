import csv
import dataclasses
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import cv2
import jax
import numpy as np
import pytest

from siamrpn_jax import api
from siamrpn_jax.commands import track
from siamrpn_jax.common.errors import InputError, MissingExtraError
from siamrpn_jax.media.frames import Frames
from siamrpn_jax.media.video import Video, VideoWriter
from siamrpn_jax.model.config import BackboneConfig, HeadConfig, ModelConfig
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.weights import save_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    model = SiamRPN(
        ModelConfig(
            backbone=BackboneConfig(kind="compact", widths=(4, 6, 8)),
            head=HeadConfig(kind="depthwise", width=8, kernel_size=1),
            exemplar_size=60,
            instance_size=124,
        )
    )
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    variables = model.init_variables(jax.random.key(0))
    save_weights(path, variables, model=model, tracker_config=TrackerConfig(), card={})
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "car.webm"
    frames = np.random.default_rng(0).integers(0, 255, (5, 64, 80, 3), np.uint8)
    with VideoWriter(path, fps=10, size=(80, 64)) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def read_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_film_and_table(tmp_path, weights, film, capsys):
    boxes = ["--box", "10,10,20,16", "--box=-4,30,20,16.5"]
    out = tmp_path / "deep" / "out"
    track.main(
        ["--video", str(film), "--weights", str(weights), "--out", str(out), *boxes]
    )
    assert sorted(path.name for path in out.iterdir()) == ["boxes.csv", "car.webm"]
    drawn = Video(out / "car.webm")
    assert [frame.shape for frame in drawn] == [(64, 80, 3)] * 5
    rows = read_rows(out / "boxes.csv")
    columns = ["frame", "object", "x", "y", "w", "h", "score", "confidence", "lost"]
    assert list(rows[0]) == columns
    assert [(row["frame"], row["object"]) for row in rows] == [
        (str(frame), str(number)) for frame in range(5) for number in range(2)
    ]
    assert [float(rows[1][key]) for key in "xywh"] == [-4, 30, 20, 16.5]
    expected = api.track(
        film, [[10, 10, 20, 16], [-4, 30, 20, 16.5]], tracker=api.load(weights)
    )
    for result in expected:
        found = [
            [float(row[key]) for key in "xywh"]
            for row in rows
            if int(row["frame"]) == result.index
        ]
        # What computes is the command's choice; of networks that follow nothing, like
        # this one, roundings grow.
        assert np.array(found) == pytest.approx(result.boxes_ltwh, abs=0.01)
        told = [row for row in rows if int(row["frame"]) == result.index]
        confidence = [float(row["confidence"]) for row in told]
        assert confidence == pytest.approx(result.confidence, abs=1e-3, nan_ok=True)
        assert [row["lost"] for row in told] == [str(int(lost)) for lost in result.lost]
    printed = capsys.readouterr().out
    assert str(out / "boxes.csv") in printed and str(out / "car.webm") in printed
    assert "frames 5, " in printed and "frames/s" in printed


def test_exports_for_other_tools(tmp_path, weights, film, capsys):
    boxes = ["--box", "10,10,20,16", "--box", "40,30,20,16"]
    options = ["--video", str(film), "--weights", str(weights), "--out", str(tmp_path)]
    formats = ["--export", "csv", "cvat", "mot", "--names", "car", "dog"]
    track.main([*options, *boxes, *formats])
    rows = read_rows(tmp_path / "csv" / "car.csv")
    whole = read_rows(tmp_path / "boxes.csv")
    assert [row["class"] for row in rows] == ["car", "dog"] * 5
    for key in "xywh":
        found, expected = (
            [float(row[key]) for row in table] for table in (rows, whole)
        )
        assert found == pytest.approx(expected, abs=1e-3)
    root = ElementTree.parse(tmp_path / "cvat" / "car.xml").getroot()
    assert [one.get("label") for one in root.iterfind("track")] == ["car", "dog"]
    assert len(list((tmp_path / "mot/car/img1").iterdir())) == 5
    assert f"mot    {tmp_path / 'mot'}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        track.main([*options, *boxes, *formats])
    assert "csv: is there already, choose another --out" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        track.main([*options, *boxes, "--names", "a", "b", "c"])
    assert "3 for 2 targets" in capsys.readouterr().err


def test_an_export_of_a_film_that_cannot_be_read_again(
    tmp_path, monkeypatch, weights, film, capsys
):
    """Not to its end: what decodes by numbers may count fewer frames."""
    monkeypatch.setattr(Frames, "__len__", lambda self: 3)
    options = ["--video", str(film), "--weights", str(weights), "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as caught:
        track.main([*options, "--box", "10,10,20,16", "--export", "mot", "csv"])
    printed = capsys.readouterr()
    assert caught.value.code == 2 and f"film   {tmp_path / 'car.webm'}" in printed.out
    (line,) = [one for one in printed.err.splitlines() if one.startswith("error: ")]
    assert f"{film}: only 3 of the 5 frames that were tracked can be read" in line
    assert "boxes.csv is whole" in line
    assert len(read_rows(tmp_path / "boxes.csv")) == 5
    assert len(read_rows(tmp_path / "csv/car.csv")) == 5
    assert len((tmp_path / "mot/car/gt/gt.txt").read_text().splitlines()) == 5


def test_animation_beside_the_film(tmp_path, weights, film, capsys):
    path = tmp_path / "docs" / "car.webp"
    track.main(
        ["--video", str(film), "--weights", str(weights), "--box", "10,10,20,16"]
        + ["--out", str(tmp_path / "out"), "--animation", str(path)]
        + ["--animation-width", "40"]
    )
    found, animation = cv2.imreadanimation(str(path))
    assert found and list(animation.durations) == [200, 200, 100]  # 10 a second
    assert [frame.shape[:2] for frame in animation.frames] == [(32, 40)] * 3
    assert (tmp_path / "out" / "car.webm").is_file()
    assert f"anim   {path}" in capsys.readouterr().out


def test_default_folder(tmp_path, monkeypatch, weights, film):
    monkeypatch.chdir(tmp_path)
    config = track.Config(str(film), box=("10,10,20,16",), weights=str(weights))
    track.run(config)
    table = tmp_path / "tracks" / "car" / "boxes.csv"
    before = table.read_text()
    other = tmp_path / "car.avi"  # another film of that name
    shutil.copy(film, other)
    config = dataclasses.replace(config, video=str(other), box=("30,20,20,16",))
    with pytest.raises(InputError, match="car/boxes.csv: is there already, .*--out"):
        track.run(config)
    assert table.read_text() == before
    track.run(dataclasses.replace(config, out=table.parent))
    assert table.read_text() != before


def test_mp4_needs_the_extra_or_works(tmp_path, weights, film):
    config = track.Config(
        str(film), ("10 10 20 16",), str(weights), tmp_path, format="mp4"
    )
    try:
        track.run(config)
    except MissingExtraError as error:
        assert "siamrpn-jax[video]" in str(error)
        assert not list(tmp_path.iterdir())
    else:
        assert len(list(Video(tmp_path / "car.mp4"))) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--video", "none.mp4", "--box", "1,2,3,4"],
            "none.mp4: expected a video file",
        ),
        (["--video", "FILM", "--box", "1,2,3"], "--box '1,2,3': expected four numbers"),
        (["--video", "FILM", "--box", "1,2,3,x"], "expected four numbers"),
        (["--video", "FILM", "--box", "1,2,3,nan"], "expected finite x,y,w,h"),
        (["--video", "FILM", "--box", "90,2,3,4"], "outside the frame of 80x64"),
        (["--video", "FILM", "--box", "1,2,3,4", "--weights", "none"], "no weights"),
        (
            ["--video", "FILM", "--box", "1,2,3,4", "--names", "a\nb"],
            r"--names 'a\nb',",
        ),
        (["--video", "FILM"], "pass --box"),
        (
            ["--video", "FILM", "--box", "1,2,3,4", "--animation", "a.mp4"],
            "a.mp4: suffix '.mp4', expected .webp",
        ),
    ],
)
def test_bad_arguments_are_one_line(
    tmp_path, monkeypatch, capsys, weights, film, arguments, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("siamrpn_jax.media.window.has_display", lambda: False)
    arguments = [str(film) if word == "FILM" else word for word in arguments]
    if "--weights" not in arguments:
        arguments += ["--weights", str(weights)]
    with pytest.raises(SystemExit) as caught:
        track.main(arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert message in captured.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_video_itself_is_never_overwritten(weights, film):
    config = track.Config(str(film), ("10,10,20,16",), str(weights), film.parent)
    before = film.read_bytes()
    with pytest.raises(InputError, match="the video itself"):
        track.run(config)
    assert film.read_bytes() == before


def test_the_animation_never_overwrites_the_video(weights, film):
    options = ["--video", str(film), "--box", "10,10,20,16", "--weights", str(weights)]
    before = film.read_bytes()
    with pytest.raises(SystemExit):
        track.main(
            [*options, "--animation", str(film), "--out", str(film.parent / "o")]
        )
    assert film.read_bytes() == before


def test_the_animation_is_never_one_of_the_frames(weights, tmp_path, capsys):
    paths = [tmp_path / "clip" / "img" / f"{i}.png" for i in range(2)]
    paths[0].parent.mkdir(parents=True)
    for path in paths:
        cv2.imwrite(str(path), np.zeros((64, 80, 3), np.uint8))
    before = paths[1].read_bytes()
    folder = paths[0].parent
    for video, name in (
        (folder, "1.png"),
        (folder, "new.webp"),
        (tmp_path / "clip", "new.webp"),
        (folder / "%d.png", "1.png"),
    ):
        options = ["--video", str(video), "--box", "10,10,20,16"]
        options += ["--weights", str(weights), "--out", str(tmp_path / "out")]
        with pytest.raises(SystemExit):
            track.main([*options, "--animation", str(folder / name)])
        assert "would be one of the frames" in capsys.readouterr().err
    assert paths[1].read_bytes() == before


def test_a_pattern_is_followed_twice_into_one_folder(weights, tmp_path):
    for i in range(2):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.zeros((64, 80, 3), np.uint8))
    options = ["--video", str(tmp_path / "*.png"), "--box", "10,10,20,16"]
    options += ["--weights", str(weights), "--out", str(tmp_path / "out")]
    for _ in range(2):
        track.main(options)
    assert (tmp_path / "out" / "boxes.csv").is_file()


class Stopped:
    """Raises as Ctrl-C does, after some calls of what it stands before."""

    def __init__(self, call, *, after):
        self.call, self.left = call, after

    def __call__(self, *arguments):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return self.call(*arguments)


def stop_in(monkeypatch, place, *, after):
    """Ctrl-C in the tracker, the drawing, the film or the table."""
    owners = {"update": api.Tracker, "plot": api.Results, "write": VideoWriter}
    owner, name = (owners[place], place) if place in owners else (track, "_rows")
    stopped = Stopped(getattr(owner, name), after=after)
    monkeypatch.setattr(owner, name, lambda *arguments: stopped(*arguments))


def run_on(film, monkeypatch, weights, out, *, length):
    """Tracks; without a length the film passes for a camera."""

    class Source(Video):
        def __init__(self, source):
            super().__init__(source)
            self.length = length

    monkeypatch.setattr("siamrpn_jax.media.video.Video", Source)
    config = track.Config(str(film), ("10,10,20,16",), str(weights), Path(out))
    track.run(dataclasses.replace(config, runtime="jax"))


@pytest.mark.parametrize("place", ["update", "plot", "write", "rows"])
def test_ctrl_c_ends_a_camera_and_keeps_its_files(
    tmp_path, monkeypatch, weights, film, place
):
    stop_in(monkeypatch, place, after=2)
    run_on(film, monkeypatch, weights, tmp_path, length=None)
    drawn = len(list(Video(tmp_path / "car.webm")))
    rows = len(read_rows(tmp_path / "boxes.csv"))
    # The first frame needs no update; the table may be ahead of the film by a frame.
    expected = {"update": (3, 3), "rows": (2, 2)}.get(place, (2, 3))
    assert (drawn, rows) == expected


@pytest.mark.parametrize(("length", "after"), [(5, 2), (None, 0)])
def test_ctrl_c_keeps_the_boxes_found_so_far(
    tmp_path, monkeypatch, weights, film, length, after
):
    stop_in(monkeypatch, "write", after=after)
    with pytest.raises(KeyboardInterrupt):
        run_on(film, monkeypatch, weights, tmp_path, length=length)
    (left,) = tmp_path.iterdir()
    assert left.name == "boxes.partial.csv" and len(read_rows(left)) == after + 1


def test_a_terminated_run_leaves_no_temporary(tmp_path, weights):
    start = "from siamrpn_jax.cli import main; main()"
    command = [sys.executable, "-c", start, "track", "--box", "5,5,20,20"]
    command += ["--video", "frames", "--weights", str(weights), "--out", "out"]
    (tmp_path / "frames").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    for number in range(2000):
        (tmp_path / "frames" / f"{number}.png").symlink_to("0.png")
    (tmp_path / "frames" / "0.png").unlink()
    cv2.imwrite(str(tmp_path / "frames" / "0.png"), noise)
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    partial = tmp_path / "out" / "boxes.partial.csv"
    while not partial.exists() or partial.read_text().count("\n") < 5:
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, told
    assert [path.name for path in partial.parent.iterdir()] == [partial.name]
    assert "boxes so far: out/boxes.partial.csv" in told


def test_frames_of_another_size(tmp_path, weights):
    """All boxes are kept, and the film has the size of its first frame."""
    for index, (height, width) in enumerate([(40, 50), (40, 50), (80, 90), (40, 50)]):
        image = np.full((height, width, 3), 60 * index, np.uint8)
        cv2.imwrite(str(tmp_path / f"{index:04d}.png"), image)
    pattern, out = str(tmp_path / "%04d.png"), tmp_path / "out"
    animation = tmp_path / "a.webp"
    config = track.Config(
        pattern, ("10,10,20,16",), str(weights), out, "webm", animation
    )
    track.run(config)
    assert len(read_rows(out / "boxes.csv")) == 4
    (film,) = out.glob("*.webm")
    assert {frame.shape for frame in Video(film)} == {(40, 50, 3)}
    assert animation.is_file()


def test_a_film_that_cannot_be_written_costs_no_boxes(
    tmp_path, monkeypatch, weights, film
):
    def full(self, frame):
        raise OSError("No space left on device")

    monkeypatch.setattr(VideoWriter, "write", full)
    config = track.Config(str(film), ("10,10,20,16",), str(weights), tmp_path)
    with pytest.raises(
        InputError, match=r"car\.webm: not written .*boxes\.csv is whole"
    ):
        track.run(config)
    assert [path.name for path in tmp_path.iterdir()] == ["boxes.csv"]
    assert len(read_rows(tmp_path / "boxes.csv")) == 5


def test_a_sequence_folder_is_a_video(tmp_path, weights):
    (tmp_path / "dog" / "img").mkdir(parents=True)
    for index in range(3):
        image = np.full((40, 50, 3), 60 * index, np.uint8)
        cv2.imwrite(str(tmp_path / "dog" / "img" / f"{index}.png"), image)
    folder = str(tmp_path / "dog")
    track.run(track.Config(folder, ("10,10,20,16",), str(weights), tmp_path / "out"))
    assert len(list(Video(tmp_path / "out" / "dog.webm"))) == 3


def test_help_is_documented(capsys):
    with pytest.raises(SystemExit) as caught:
        track.main(["--help"])
    assert caught.value.code == 0
    assert "top-left corner" in capsys.readouterr().out
