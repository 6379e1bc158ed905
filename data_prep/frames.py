"""The pixels of frames: image files, bytes, and frames of videos."""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from data_prep.tracks import Frame, ImageBytes, VideoFrame
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.images import ImageError, decode_image, read_image
from siamrpn_jax.media.captures import InterlacedError, Retriever
from siamrpn_jax.media.video import Video


class FrameReader:
    """Reads frames; those of a video fastest in the order in which it holds them."""

    def __init__(self) -> None:
        self._film: _Film | None = None
        self._latest: tuple[Frame, np.ndarray] | None = None

    def read(self, frame: Frame) -> np.ndarray:
        """The pixels, RGB ``uint8 [H, W, 3]``; the latest frame is not decoded again.

        Raises:
            InputError: the frame is missing, truncated or cannot be decoded; the
                message begins with ``frame_file`` and a colon.
        """
        if self._latest is None or self._latest[0] != frame:
            self._latest = frame, self._decode(frame)
        return self._latest[1]

    def _decode(self, frame: Frame) -> np.ndarray:
        if isinstance(frame, ImageBytes):
            return decode_image(frame.data, name=frame.name)
        if isinstance(frame, VideoFrame):
            if self._film is None or self._film.path != frame.path:
                self._film = _Film(frame.path)
            return self._film.read(frame.index)
        return read_image(frame)


def frame_file(frame: Frame) -> str:
    """The file that a frame is, or is in."""
    if isinstance(frame, ImageBytes):
        return frame.name
    return str(frame.path if isinstance(frame, VideoFrame) else frame)


class _Film:
    """A video, decoded from its start, and again if an earlier frame is asked for.

    Seeking would be faster where the frames lie far apart, but decoders are not exact
    in which frame they land on.
    """

    def __init__(self, path: Path):
        self.path = path
        self._fault = ""  # why no frame of it can be read
        self._decode = _opencv_pictures
        self._restart()

    def read(self, index: int) -> np.ndarray:
        if self._fault:
            raise ImageError(self._fault)
        try:
            return self._read(index)
        except InterlacedError:
            if self._decode is _video_pictures:
                raise
        self._decode = _video_pictures
        self._restart()
        return self.read(index)

    def _read(self, index: int) -> np.ndarray:
        if index < self._position:
            self._restart()
        try:
            for picture in self._pictures:
                self._position += 1
                if self._position > index:
                    return picture()
        except InputError as error:
            if not self._position:
                self._fault = str(error)
            self._restart()
            raise
        raise ImageError(
            f"{self.path}: has {self._position} frames, expected one of index {index}"
        )

    def _restart(self) -> None:
        self._pictures, self._position = self._decode(self.path), 0


_Picture = Callable[[], np.ndarray]


def _opencv_pictures(path: Path) -> Iterator[_Picture]:
    """The frames in order; calling one converts it, so that others can be skipped.

    Only the latest may be called.
    """
    if not path.is_file():
        raise ImageError(f"{path}: no such file, expected a video")
    capture = cv2.VideoCapture(str(path))
    retrieve = Retriever(capture, str(path))

    def convert() -> np.ndarray:
        if (image := retrieve()) is None:
            raise ImageError(f"{path}: a frame cannot be decoded")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    if capture.grab():
        yield convert
        while capture.grab():
            yield convert
    else:
        yield from _video_pictures(path)


def _video_pictures(path: Path) -> Iterator[_Picture]:
    """The same by `Video`: it knows other decoders, or says what is wrong."""
    for image in Video(path):
        yield lambda image=image: image
