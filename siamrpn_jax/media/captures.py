"""OpenCV's captures, and whether what comes out of them was decoded at all.

Frames that a film flags as interlaced (AVCHD, DVD, 1080i) are not converted by newer
versions of FFmpeg; OpenCV does not look, and hands out what its memory held before:
nothing, or the frame before. FFmpeg's complaint on stderr is all that tells, and
``Retriever`` listens to it: where ``OPENCV_FFMPEG_LOGLEVEL`` forbids it, nothing does.
"""

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from siamrpn_jax.common.errors import InputError

_COMPLAINT = b"Cannot convert interlaced"
_STDERR = threading.Lock()  # held while the process's stderr leads elsewhere


class InterlacedError(InputError):
    """OpenCV says that it decoded a frame, and has written none.

    Args:
        source: the film, the address or the number of the camera.
    """

    def __init__(self, source: str | int):
        self.problem: str = "is interlaced, and cannot be decoded by OpenCV"
        """What is wrong."""
        self.mend: str = "expected a source that is not"
        """What to do."""
        if isinstance(source, str) and Path(source).is_file():
            self.mend = (
                "pip install 'siamrpn-jax[video]', or "
                f"ffmpeg -i {source} -vf yadif OUT.mp4"
            )
        super().__init__(f"{source}: {self.problem}: {self.mend}")


class Retriever:
    """Takes frames out of a capture, each after ``capture.grab()``.

    The first one is listened to, and so is one that shows the same as the one before:
    either nothing moves, or it was not written.

    Args:
        capture: of OpenCV.
        source: what it reads; error messages name it.
    """

    def __init__(self, capture: cv2.VideoCapture, source: str | int):
        self._capture, self._source = capture, source
        self._rows = np.empty(0)  # some of the frame before

    def __call__(self) -> np.ndarray | None:
        """The frame, BGR as OpenCV has it; None where it cannot be decoded.

        Raises:
            InterlacedError: OpenCV has not written it.
        """
        frame = self._retrieve() if self._rows.size else None
        if frame is None or np.array_equal(frame[::16], self._rows):
            with stderr_aside() as heard:
                frame = self._retrieve()
            if _COMPLAINT in heard:
                raise InterlacedError(self._source)
            if heard:
                os.write(2, heard)
        self._rows = np.empty(0) if frame is None else frame[::16].copy()
        return frame

    def _retrieve(self) -> np.ndarray | None:
        decoded, frame = self._capture.retrieve()
        return frame if decoded else None


@contextlib.contextmanager
def open_capture(source: str | int) -> Iterator[cv2.VideoCapture]:
    """OpenCV's reader of a film, a camera or an address, which may not be open."""
    # A missing camera is one line of ours, not eight of OpenCV's.
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(source)
    finally:
        cv2.utils.logging.setLogLevel(level)
    try:
        yield capture
    finally:
        capture.release()


@contextlib.contextmanager
def stderr_aside() -> Iterator[bytearray]:
    """Sends what libraries print to the process's stderr elsewhere.

    Yields:
        Empty at first; what was printed, when the context has ended.
    """
    heard = bytearray()
    with _STDERR, tempfile.TemporaryFile() as file:
        try:
            kept = os.dup(2)
        except OSError:  # a process without stderr
            yield heard
            return
        try:
            os.dup2(file.fileno(), 2)
            yield heard
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            heard += file.read()
