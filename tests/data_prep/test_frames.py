"""Reading frames: files, bytes, and frames of videos."""

import sys

import cv2
import numpy as np
import pytest

from data_folders import write_image
from data_prep import frames
from data_prep.frames import FrameReader, frame_file
from data_prep.tracks import ImageBytes, VideoFrame
from films import write_interlaced
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.media.video import Video, VideoWriter


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Frame ``i`` is grey, of level ``10 i``."""
    path = tmp_path_factory.mktemp("frames") / "film.webm"
    with VideoWriter(path, fps=10, size=(64, 48)) as writer:
        for i in range(20):
            writer.write(np.full((48, 64, 3), 10 * i, np.uint8))
    return path


def level(image: np.ndarray) -> int:
    assert image.shape == (48, 64, 3) and image.dtype == np.uint8
    return round(float(image.mean()) / 10)


def test_files_and_bytes(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    path = tmp_path / "a.png"
    write_image(path, image)
    in_memory = ImageBytes("archive/a.png", path.read_bytes())
    reader = FrameReader()
    np.testing.assert_array_equal(reader.read(path), image)
    np.testing.assert_array_equal(reader.read(in_memory), image)
    assert frame_file(path) == str(path)
    assert frame_file(in_memory) == "archive/a.png"


@pytest.mark.parametrize("order", [range(20), [0, 7, 8, 19], [5, 2, 2, 11, 0]])
def test_frames_of_a_film_in_any_order(film, order):
    reader = FrameReader()
    found = [level(reader.read(VideoFrame(film, i))) for i in order]
    assert found == list(order)
    assert frame_file(VideoFrame(film, 3)) == str(film)


def test_films_in_turn(film, tmp_path):
    other = tmp_path / "other.webm"
    other.write_bytes(film.read_bytes())
    reader = FrameReader()
    for i in (3, 4, 9):
        assert level(reader.read(VideoFrame(film, i))) == i
        assert level(reader.read(VideoFrame(other, i))) == i


def test_a_film_is_decoded_once_and_skipped_frames_are_not_converted(film, monkeypatch):
    opened, converted = [], []

    real = cv2.VideoCapture

    class Counted:
        def __init__(self, path):
            opened.append(path)
            self.capture = real(path)

        def grab(self):
            return self.capture.grab()

        def retrieve(self):
            converted.append(1)
            return self.capture.retrieve()

    monkeypatch.setattr(frames.cv2, "VideoCapture", Counted)
    reader = FrameReader()
    for i in (2, 2, 9, 15):  # the same one twice: two tracks of one video
        assert level(reader.read(VideoFrame(film, i))) == i
    assert len(opened) == 1 and len(converted) == 3


def test_a_decoder_that_opencv_lacks(film, monkeypatch):
    """Then the frames come from `Video`, which knows PyAV."""

    class Blind:
        def __init__(self, path):
            pass

        def grab(self):
            return False

    monkeypatch.setattr(frames.cv2, "VideoCapture", Blind)
    pictures = [np.full((48, 64, 3), 10 * i, np.uint8) for i in range(4)]
    monkeypatch.setattr(frames, "Video", lambda path: pictures)
    reader = FrameReader()
    assert level(reader.read(VideoFrame(film, 3))) == 3
    assert level(reader.read(VideoFrame(film, 1))) == 1


def test_a_broken_film_is_opened_once(tmp_path, monkeypatch):
    path, opened = tmp_path / "no.mp4", []
    path.write_bytes(b"no film at all" * 99)

    def open_video(path):
        opened.append(path)
        return Video(path)

    monkeypatch.setattr(frames, "Video", open_video)
    reader = FrameReader()
    for i in range(3):
        with pytest.raises(InputError, match="not a video that OpenCV can open"):
            reader.read(VideoFrame(path, i))
    assert opened == [path]


def test_what_cannot_be_read_is_named_every_time(film, tmp_path):
    cut = tmp_path / "cut.jpg"
    write_image(cut, np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8))
    cut.write_bytes(cut.read_bytes()[:-300])
    no_film = tmp_path / "no.mp4"
    no_film.write_bytes(b"no film at all" * 99)
    cases = [
        (cut, "cannot be decoded; expected a complete image"),
        (tmp_path / "missing.jpg", "cannot be read"),
        (ImageBytes("a.tar/b.jpg", b""), "the file is empty"),
        (VideoFrame(tmp_path / "missing.mp4", 3), "no such file"),
        (VideoFrame(no_film, 3), "not a video that OpenCV can open"),
        (VideoFrame(film, 20), "has 20 frames, expected one of index 20"),
        (VideoFrame(film, 99), "has 20 frames, expected one of index 99"),
    ]
    reader = FrameReader()
    for frame, message in [*cases, *cases]:
        with pytest.raises(InputError, match=message) as caught:
            reader.read(frame)
        assert str(caught.value).startswith(f"{frame_file(frame)}: ")
    assert level(reader.read(VideoFrame(film, 4))) == 4


@pytest.mark.parametrize("progressive", [0, 3])
@pytest.mark.parametrize("order", [range(8), [1, 6, 2, 7]])
def test_interlaced_films(tmp_path, progressive, order):
    path, reader = tmp_path / "film.m2v", FrameReader()
    levels = write_interlaced(path, progressive=progressive)
    found = [reader.read(VideoFrame(path, number)).mean() for number in order]
    assert found == pytest.approx([levels[number] for number in order], abs=2)


def test_interlaced_films_without_pyav_are_refused(tmp_path, monkeypatch):
    path, reader = tmp_path / "film.m2v", FrameReader()
    write_interlaced(path, progressive=3)
    monkeypatch.setitem(sys.modules, "av", None)
    assert reader.read(VideoFrame(path, 2)).mean() == pytest.approx(80, abs=2)
    for _ in range(2):
        with pytest.raises(InputError, match="film.m2v: is interlaced"):
            reader.read(VideoFrame(path, 5))
