import os
from typing import Any

import numpy as np
import pytest

from films import write_interlaced
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.media.captures import (
    InterlacedError,
    Retriever,
    open_capture,
    stderr_aside,
)


class Capture:
    """Frames of these levels; those that are None are not written."""

    def __init__(self, *levels: int | None, prints: str = ""):
        self._levels, self._prints = iter(levels), prints
        self._buffer = np.full((32, 8, 3), 7, np.uint8)
        self.retrieved = 0

    def grab(self):
        self._level = next(self._levels)
        return True

    def retrieve(self):
        self.retrieved += 1
        os.write(2, self._prints.encode())
        if self._level is None:
            os.write(2, b"[swscaler @ 0x1] Cannot convert interlaced to progressive")
        else:
            self._buffer = np.full((32, 8, 3), self._level, np.uint8)
        return True, self._buffer


def retrieved(capture: Any, count: int) -> list[float]:
    retrieve, found = Retriever(capture, "film"), []
    for _ in range(count):
        assert capture.grab()
        frame = retrieve()
        assert frame is not None
        found.append(frame.mean())
    return found


def test_frames_that_move_are_taken_once():
    capture = Capture(1, 2, 3)
    assert retrieved(capture, 3) == [1, 2, 3]
    assert capture.retrieved == 3


def test_frames_that_stand_still_are_no_fault(capfd):
    assert retrieved(Capture(5, 5, 5, prints="hello "), 3) == [5, 5, 5]
    assert "hello" in capfd.readouterr().err


@pytest.mark.parametrize("levels", [(None,), (1, None), (1, 1, None), (1, 2, 2, None)])
def test_frames_that_are_not_written_are_refused(levels):
    with pytest.raises(InterlacedError, match="film: is interlaced, and cannot be"):
        retrieved(Capture(*levels), len(levels))


def test_a_film_is_told_how_to_be_mended_and_a_camera_is_not(tmp_path):
    path = tmp_path / "film.m2v"
    write_interlaced(path)
    with open_capture(str(path)) as capture:
        assert capture.grab()
        with pytest.raises(InputError, match=f"ffmpeg -i {path} -vf yadif OUT.mp4"):
            Retriever(capture, str(path))()
    assert "yadif" not in str(InterlacedError(0))


def test_stderr_comes_back(capfd):
    with stderr_aside() as heard:
        os.write(2, b"aside")
        assert heard == b""
    os.write(2, b"aloud")
    assert heard == b"aside" and capfd.readouterr().err == "aloud"
