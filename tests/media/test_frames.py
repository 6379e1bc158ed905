import importlib.util
import sys
import threading

import cv2
import numpy as np
import pytest

from films import write_coded, write_interlaced
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.images import read_image
from siamrpn_jax.media import frames as media
from siamrpn_jax.media.frames import Frames, LiveFrames, open_frames, read_ahead
from siamrpn_jax.media.video import Video, VideoWriter

COUNT = 40


def picture(number: int) -> np.ndarray:
    """A frame that says its number: a bright square at a place of its own."""
    frame = np.full((48, 96, 3), 40, np.uint8)
    row, column = divmod(number, 10)
    frame[4 + 10 * row : 12 + 10 * row, 2 + 9 * column : 9 + 9 * column] = 230
    return frame


def number_of(frame: np.ndarray) -> int:
    return int(
        np.argmax([frame[p.astype(bool)].mean() for p in map(_mask, range(COUNT))])
    )


def _mask(number: int) -> np.ndarray:
    return picture(number)[..., 0] > 100


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.webm"
    with VideoWriter(path, fps=10, size=(96, 48)) as writer:
        for number in range(COUNT):
            writer.write(picture(number))
    return path


@pytest.fixture(params=["pyav", "opencv"])
def decoder(request, monkeypatch):
    if request.param == "opencv":
        monkeypatch.setattr(media, "find_spec", lambda name: None)
    elif not importlib.util.find_spec("av"):
        pytest.skip("PyAV is not installed")
    return request.param


def test_frames_in_any_order_are_those_in_turn(film, decoder):
    order = [*range(COUNT), *reversed(range(COUNT)), 17, 3, 38, 0, 39, 20, 21, 5]
    frames = Frames(film, memory_mib=0.05)  # some three frames
    assert (len(frames), frames.name, frames.size) == (COUNT, "film", (96, 48))
    assert frames.fps == pytest.approx(10)
    assert [number_of(frames[number]) for number in order] == order
    in_turn = list(Video(film))
    for number in (0, 7, 39):
        difference = np.abs(frames[number].astype(int) - in_turn[number]).mean()
        assert difference < 2
        if decoder == "opencv":
            assert difference == 0


@pytest.mark.parametrize(
    ("name", "rate", "coding"),
    [
        ("b.avi", 25, {"bf": "2", "g": "12", "b_strategy": "0"}),  # stores no times
        ("b.mkv", 25, {"bf": "2", "g": "12", "b_strategy": "0"}),
        ("fast.mkv", 2000, {"bf": "0", "g": "12"}),  # two frames in a millisecond
        ("fast_b.mkv", 1200, {"bf": "2", "g": "12", "b_strategy": "0"}),
        ("raw.h264", 25, {"bf": "2", "g": "12", "b_strategy": "0"}),
    ],
)
def test_times_that_do_not_number_the_frames(tmp_path, decoder, name, rate, coding):
    pictures = [picture(number) for number in range(COUNT)]
    write_coded(tmp_path / name, pictures, rate=rate, coding=coding)
    assert [number_of(frame) for frame in Video(tmp_path / name)] == [*range(COUNT)]
    frames = Frames(tmp_path / name, memory_mib=0.05)
    assert len(frames) == COUNT
    order = [*range(COUNT), 39, 38, 7, 8, 6, 31, 0, 21, 20]
    assert [number_of(frames[number]) for number in order] == order


def test_a_film_whose_first_frames_cannot_be_decoded(tmp_path, decoder):
    """They are listed, and what they refer to was cut off before them."""
    pictures = [picture(number) for number in range(COUNT)]
    whole, path = tmp_path / "whole.mp4", tmp_path / "film.mp4"
    write_coded(whole, pictures, coding={"bf": "0", "g": "10"})
    av = pytest.importorskip("av")
    with av.open(str(whole)) as source, av.open(str(path), "w") as film:
        stream = film.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        for packet in packets[5:]:
            packet.stream = stream
            film.mux(packet)
    expected = [number_of(frame) for frame in Video(path)]
    assert expected == [*range(10, COUNT)]
    frames = Frames(path)
    order = [*reversed(range(len(frames)))]
    assert [number_of(frames[number]) for number in order] == expected[::-1]


def test_memory_is_bounded(film, decoder):
    frames = Frames(film, memory_mib=0.05)
    for number in reversed(range(COUNT)):
        frames[number]
        kept = sum(frame.nbytes for frame in frames._kept.values())
        assert kept == frames._bytes <= 0.05 * 2**20


def test_a_jump_that_leads_elsewhere_is_noticed(film, monkeypatch):
    """Then the film is decoded from its start: slow, and right."""
    monkeypatch.setattr(media, "find_spec", lambda name: None)
    frames = Frames(film, memory_mib=0.05)

    class Jumping:
        def __init__(self, capture):
            self._capture = capture

        def __getattr__(self, name):
            return getattr(self._capture, name)

        def set(self, key, value):
            return self._capture.set(key, max(value - 3, 0))

    real = media.open_capture

    class Context:
        def __init__(self, source):
            self._context = real(source)

        def __enter__(self):
            return Jumping(self._context.__enter__())

        def __exit__(self, *error):
            return self._context.__exit__(*error)

    monkeypatch.setattr(media, "open_capture", Context)
    assert [number_of(frames[number]) for number in (30, 5, 38)] == [30, 5, 38]


def test_images_of_a_folder(tmp_path):
    for number in range(12):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(number))
    frames = Frames(tmp_path)
    assert [number_of(frames[number]) for number in (11, 2, 10)] == [11, 2, 10]
    assert frames.image_file(10) == tmp_path / "10.png"
    assert frames.fps is None and not frames[3].flags.writeable
    for number in (-1, 12):
        with pytest.raises(IndexError, match="of 12"):
            frames[number]


def test_several_threads_see_the_same(film):
    frames, seen = Frames(film, memory_mib=0.05), []

    def look(numbers):
        seen.extend((number, number_of(frames[number])) for number in numbers)

    threads = [
        threading.Thread(target=look, args=([*range(start, COUNT, 3)],))
        for start in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == COUNT and all(a == b for a, b in seen)


def test_a_film_that_changes_is_noticed(tmp_path):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(number))
    frames = Frames(tmp_path)
    frames.check_unchanged()
    assert frames.fingerprint == Frames(tmp_path).fingerprint != ""
    cv2.imwrite(str(tmp_path / "3.png"), picture(3))
    with pytest.raises(InputError, match="changed while it was open"):
        frames.check_unchanged()
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(InputError, match="changed while it was open"):
        frames.check_unchanged()


def test_what_is_no_film(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_frames(tmp_path / "nowhere.mp4")
    (tmp_path / "film.mp4").write_bytes(b"no film")
    with pytest.raises(InputError, match="film.mp4: not a video"):
        open_frames(tmp_path / "film.mp4")


@pytest.mark.parametrize("progressive", [0, 3])
def test_interlaced_films(tmp_path, progressive):
    path = tmp_path / "film.m2v"
    levels = write_interlaced(path, progressive=progressive)
    frames = Frames(path)
    found = [frames[number].mean() for number in range(len(frames))]
    assert found == pytest.approx(levels, abs=2)


@pytest.mark.parametrize("progressive", [0, 3])
def test_interlaced_films_without_pyav_are_refused(tmp_path, monkeypatch, progressive):
    path = tmp_path / "film.m2v"
    write_interlaced(path, progressive=progressive)
    monkeypatch.setattr(media, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match="film.m2v: is interlaced.*yadif"):
        Frames(path)[7]


def test_frames_of_a_camera_come_once(monkeypatch):
    class Camera:
        def __init__(self, source):
            self.name, self.fps, self.source = "camera", 25.0, source

        def __iter__(self):
            return map(picture, range(3))

    monkeypatch.setattr(media, "Video", Camera)
    for source in ("camera", 0, "rtsp://host/stream"):
        live = open_frames(source)
        assert isinstance(live, LiveFrames) and live.position == 0
        assert [number_of(live[number]) for number in (0, 1, 1)] == [0, 1, 1]
        for number in (0, 3):
            with pytest.raises(InputError, match="expected 1 or the next"):
                live[number]
        assert number_of(live[2]) == 2
        with pytest.raises(IndexError, match="has ended"):
            live[3]
    monkeypatch.setattr(Camera, "__iter__", lambda self: iter(()))
    with pytest.raises(InputError, match="rtsp://host/stream: not one frame came"):
        open_frames("rtsp://host/stream")


@pytest.mark.parametrize("depth", [0, 1, 3, 50])
def test_read_ahead_keeps_order(tmp_path, depth):
    files = [tmp_path / f"{number}.png" for number in range(9)]
    for number, path in enumerate(files):
        cv2.imwrite(str(path), picture(number))
    found = read_ahead(read_image, files, depth=depth)
    assert [number_of(frame) for frame in found] == list(range(9))


def test_read_ahead_leaves_no_thread_behind():
    before = threading.active_count()
    ahead = read_ahead(picture, range(9))
    next(ahead)
    ahead.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
