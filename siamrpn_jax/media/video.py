"""Videos in and out: frames from files, folders, cameras; annotated films.

Frames are RGB uint8 [H, W, 3] everywhere; OpenCV's BGR stays inside this module.
"""

import array
import contextlib
import glob
import itertools
import logging
import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import urlsplit

import cv2
import numpy as np

from siamrpn_jax.common.errors import InputError, MissingExtraError, require
from siamrpn_jax.common.files import replacing
from siamrpn_jax.data.read.headers import is_no_film
from siamrpn_jax.data.read.images import (
    check_frame,
    check_single,
    list_images,
    read_image,
    refuse_twins,
    sort_images,
    unread_hint,
)
from siamrpn_jax.data.read.sequences import FRAME_FOLDERS, deeper_hint
from siamrpn_jax.media.captures import (
    InterlacedError,
    Retriever,
    open_capture,
    stderr_aside,
)

WHOLE = 0.95
"""Share of its declared length that a whole film has: declarations may be rough."""

GAP = 4.5
"""Intervals between two frames from which on some are taken to be missing."""

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_PRINTF = re.compile(r"%(?:0(\d+))?d")


class Video:
    """The frames of a film, a folder of images, a camera, or an iterator of arrays.

    Iterating yields RGB uint8 [H, W, 3]; one frame is held at a time. A file, folder or
    pattern can be iterated again from its start.

    Args:
        source: a video file; a folder of images (in natural order: 2 before 10), or of
            a sequence, which has them in ``img/`` or ``color/``; a pattern such as
            ``"frames/*.png"`` or ``"frames/%04d.png"``; ``"camera"`` or a camera's
            number; an address that OpenCV opens, as ``rtsp://…``; or an iterable of
            images ([H, W, 3] RGB, [H, W] grey, or [H, W, 4] RGBA; uint8).

    A film that ends long before the length it declares is logged as a warning, and so
    is one of constant speed that has a gap.

    Raises:
        FileNotFoundError: there is no such file, or no image in the folder or pattern.
        InputError: the file opens but no frame comes out of it, or it is interlaced,
            which PyAV alone decodes, and that is not installed. In films that are
            interlaced in part it comes with the first such frame. Or it is a TIFF or
            WebP file of several images.
    """

    def __init__(self, source: str | os.PathLike[str] | int | Iterable[np.ndarray]):
        self.name: str
        """Name of the file or folder without suffix; else "camera" or "frames"."""
        self.fps: float | None = None
        """Frames a second, where the source declares it."""
        self.length: int | None = None
        """Number of frames that the source declares; films may be off by a few."""
        self.images: list[Path] = []
        """The image files that it is made of, if it is."""
        self._frames: Callable[[], Iterator[np.ndarray]]
        if isinstance(source, str | os.PathLike):
            self._open_path(os.fspath(source))
        elif isinstance(source, int):
            self._open_live(source)
        else:
            self.name = "frames"
            self._frames = lambda: _checked_frames(source)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._frames()

    def _open_path(self, source: str) -> None:
        if source == "camera":
            self._open_live(0)
        elif _ADDRESS.match(source):
            self._open_live(source)
        elif is_live(source):
            self._open_live(int(source))
        elif Path(source).is_file():
            self._open_file(source)
        else:
            self._open_images(source)

    def _open_images(self, source: str) -> None:
        self.images = find_images(source)
        folder = Path(source) if Path(source).is_dir() else self.images[0].parent
        self.name = folder.resolve().name
        self.length = len(self.images)
        self._frames = lambda: map(read_image, self.images)

    def _open_file(self, path: str) -> None:
        self.name = Path(path).stem
        _refuse_stack(path)
        with open_capture(path) as capture:
            problem = _problem(capture, path)
            self.fps = _positive(capture.get(cv2.CAP_PROP_FPS))
            length = _positive(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.length = None if length is None else int(length)
        frames = _film_frames
        if problem:
            self._open_with_pyav(path, *problem)
            frames = _pyav_frames
        self._frames = lambda: _warned_if_cut(
            frames(path), path, length=self.length, fps=self.fps
        )

    def _open_with_pyav(self, path: str, problem: str, mend: str) -> None:
        """Tries the decoders of PyAV; OpenCV's wheel has none for AV1, for one."""
        try:
            next(_pyav_frames(path))
            fps, length = _pyav_declared(path)
        except MissingExtraError as error:
            raise InputError(f"{path}: {problem}: {mend}") from error
        except (InputError, StopIteration) as error:
            raise InputError(f"{path}: {problem}, nor by PyAV") from error
        self.fps, self.length = self.fps or fps, self.length or length

    def _open_live(self, source: int | str) -> None:
        what = f"camera {source}" if isinstance(source, int) else source
        with open_capture(source) as capture:
            if not capture.isOpened():
                raise InputError(f"{what} cannot be opened: is it connected?")
            self.fps = _positive(capture.get(cv2.CAP_PROP_FPS))
        self.name = "camera"
        if isinstance(source, str):
            self.name = urlsplit(source).hostname or "stream"
        self._frames = lambda: (frame for _, frame in _opencv_frames(source))


class VideoWriter:
    """Writes an annotated film; a context manager.

    The film grows under a temporary name and gets its own when it is closed whole, so
    a file of that name is never a part of one.

    Args:
        path: ``.webm`` is written by OpenCV as VP8, which browsers play; ``.mp4`` as
            H.264 and needs PyAV (``pip install 'siamrpn-jax[video]'``).
        fps: frames a second.
        size: width and height of every frame in pixels. H.264 needs even ones: an odd
            last row or column is repeated.

    Raises:
        InputError: another suffix, a bad size or rate, the encoder does not start, or
            the film is closed without a frame.
        MissingExtraError: ``.mp4`` without PyAV.
        OSError: naming ``path``: the film cannot be written whole.
    """

    def __init__(self, path: str | Path, *, fps: float, size: tuple[int, int]):
        self.path = Path(path)
        self._size = size
        self._empty = True
        if not (np.isfinite(fps) and fps > 0 and min(size) > 0):
            raise InputError(
                f"{path}: {fps} frames/s of size {size}, expected positive numbers"
            )
        encoders = {".webm": _WebmEncoder, ".mp4": _Mp4Encoder}
        suffix = self.path.suffix.lower()
        if suffix not in encoders:
            raise InputError(f"{path}: suffix {suffix!r}, expected .webm or .mp4")
        with contextlib.ExitStack() as stack:
            part = stack.enter_context(replacing(self.path))
            try:
                self._encoder = encoders[suffix](part, fps, size)
            except InputError as error:
                raise InputError(f"{path}: {error}") from error
            self._until_closed = stack.pop_all()

    def write(self, frame: np.ndarray) -> None:
        """Appends a frame, RGB uint8 [H, W, 3] of the film's size."""
        frame = check_frame(frame)
        height, width, _ = frame.shape
        if (width, height) != self._size:
            raise InputError(
                f"{self.path}: a frame of {width}x{height} pixels, expected "
                f"{self._size[0]}x{self._size[1]}"
            )
        self._encoder.write(frame)
        self._empty = False

    def close(self) -> None:
        """Finishes the film and gives it its name."""
        with self._until_closed:
            if self._empty:
                self._encoder.abandon()
                raise InputError(f"{self.path}: no frame was written")
            self._encoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
            return
        with contextlib.suppress(Exception):  # the first error is the one to report
            self._encoder.abandon()
        self._until_closed.__exit__(kind, error, trace)


def is_live(source: Any) -> bool:
    """Whether a source is a camera or an address, whose frames come once."""
    if isinstance(source, int):
        return True
    if not isinstance(source, str):
        return False
    number = source.isdecimal() and not Path(source).exists()
    return source == "camera" or number or bool(_ADDRESS.match(source))


def find_images(source: str) -> list[Path]:
    """The images of a folder, of a sequence's folder, or of a pattern, in order.

    Raises:
        FileNotFoundError: there are none.
        ImageError: two of them are of one frame.
    """
    folders = [Path(source, name) for name in (".", *FRAME_FOLDERS)]
    images = next(filter(None, map(list_images, folders)), [])
    if not images and not Path(source).is_dir():
        matching = map(Path, glob.glob(source))
        if numbered := _PRINTF.search(Path(source).name):
            matching = _numbered_images(Path(source), numbered)
        images = sort_images(matching)
    if not images:
        hint = unread_hint(folders) or deeper_hint(Path(source))
        raise FileNotFoundError(
            f"{source}: expected a video file, a folder or pattern of images, or "
            f"'camera'{hint}"
        )
    refuse_twins(images)
    return images


def _numbered_images(pattern: Path, place: re.Match[str]) -> list[Path]:
    """The images of a pattern such as ``%04d.jpg``, of FFmpeg's and OpenCV's kind."""
    name = pattern.name
    digits = rf"\d{{{int(place[1])},}}" if place[1] else r"(?:0|[1-9]\d*)"
    before, after = (re.escape(part) for part in _PRINTF.split(name)[::2])
    matches = re.compile(before + digits + after).fullmatch
    return [path for path in list_images(pattern.parent) if matches(path.name)]


def _positive(value: float) -> float | None:
    """What OpenCV declares; where it does not know, it says 0, -1 or less."""
    return value if np.isfinite(value) and value > 0 else None


def _checked_frames(source: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for index, frame in enumerate(source):
        yield check_frame(frame, name=f"frame {index}")


_Timed = tuple[float, np.ndarray]
"""The second in which a frame begins, and the frame."""


def _refuse_stack(path: str) -> None:
    """Raises ImageError for an image of several, of which one would be the film."""
    with open(path, "rb") as file:
        still = is_no_film(file.read(12))
    if still:
        check_single(Path(path).read_bytes(), name=path)


def _problem(capture: cv2.VideoCapture, path: str) -> tuple[str, str] | None:
    """Why OpenCV cannot decode a film, and what to do; None where it can."""
    problem = "not a video that OpenCV can open"
    if capture.isOpened():
        problem = (
            "no frame of this video can be decoded by OpenCV (AV1 is one such codec)"
        )
    try:
        if capture.grab() and Retriever(capture, path)() is not None:
            return None
    except InterlacedError as error:
        return error.problem, error.mend
    return problem, (
        "re-encode it (for example as H.264), or pip install 'siamrpn-jax[video]'"
    )


def _film_frames(path: str) -> Iterator[_Timed]:
    """By OpenCV; from the first frame on that it cannot decode as interlaced, by PyAV.

    Films are interlaced in parts, too: broadcasts, and DVDs of different sources.
    """
    count = 0
    try:
        for timed in _opencv_frames(path):
            yield timed
            count += 1
    except InterlacedError as error:
        try:
            yield from itertools.islice(_pyav_frames(path), count, None)
        except MissingExtraError:
            raise error from None


def _opencv_frames(source: str | int) -> Iterator[_Timed]:
    with open_capture(source) as capture:
        retrieve = Retriever(capture, source)
        while True:
            try:
                frame = retrieve() if capture.grab() else None
                if frame is None:
                    return
                image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            except cv2.error as error:
                raise InputError(
                    f"{source}: a frame is broken ({error.err})"
                ) from error
            yield capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, image


def _warned_if_cut(
    frames: Iterator[_Timed], path: str, *, length: int | None, fps: float | None
) -> Iterator[np.ndarray]:
    """Passes frames on; decoders end at a broken place as if it were the end.

    A declared number of frames is an estimate, of films of no constant speed a bad one:
    the latest time of a frame decides. What an edit list leaves out is not missing.
    """
    times = array.array("d")
    for time, frame in frames:
        yield frame
        times.append(time)
    if length is None or fps is None:
        return
    log = logging.getLogger(__name__)
    if (gap := _gap(times)) is not None:
        log.warning(
            "%s: no frame for %.2f seconds after frame %d, elsewhere one each %.3f: "
            "is it damaged? If so, the numbers of the frames after it are too low",
            *(path, times[gap + 1] - times[gap], gap, np.median(np.diff(times))),
        )
    if len(times) >= WHOLE * length:
        return
    found = max(times, default=0) + 1 / fps
    declared = min(length / fps, _edited_seconds(path) or np.inf)
    if found < WHOLE * declared:
        log.warning(
            "%s: ended after %.1f of the %.1f seconds that it declares: is it whole?",
            *(path, found, declared),
        )


def _gap(times: Sequence[float]) -> int | None:
    """The frame after which frames are missing from a film of constant speed.

    Films of no constant speed have pauses, too, and far more of them: none is a gap.
    """
    intervals = np.diff(times)
    if len(intervals) < 50:
        return None
    usual = np.median(intervals)
    # Time stamps in whole milliseconds are up to one off.
    uneven = np.abs(intervals - usual) > 0.25 * usual + 0.001
    gaps = np.flatnonzero(intervals > GAP * usual)
    if not len(gaps) or uneven.sum() > max(3, 0.02 * len(intervals)):
        return None
    return int(gaps[0])


def _edited_seconds(path: str) -> float | None:
    """How long an MP4 or MOV film is by its edit list; None where none says it.

    Cutting without decoding leaves what comes before a cut in the file, and out of the
    edit list. B-frames and sound make edit lists, too, that leave nothing out.
    """
    try:
        with open(path, "rb") as file:
            moov = next(_boxes(file, b"moov", 0, os.path.getsize(path)))
            (header,) = _boxes(file, b"mvhd", *moov)
            for trak in _boxes(file, b"trak", *moov):
                if _is_video(file, trak):
                    ticks = _edited_ticks(file, trak)
                    return ticks / _ticks_a_second(file, header) if ticks else None
    except (OSError, StopIteration, ValueError, struct.error, ZeroDivisionError):
        pass  # no such film, or one that is cut within what it says of itself
    return None


_Span = tuple[int, int]
"""Where the content of a box begins and ends in its file."""


def _boxes(file: BinaryIO, wanted: bytes, start: int, end: int) -> Iterator[_Span]:
    """The boxes of a name in a part of an MP4 or MOV file."""
    while start + 8 <= end:
        file.seek(start)
        size, name = struct.unpack(">I4s", file.read(8))
        content = start + 8
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
            content += 8
        stop = start + size if size else end
        if stop < content:
            return
        if name == wanted:
            yield content, min(stop, end)
        start = stop


def _is_video(file: BinaryIO, trak: _Span) -> bool:
    (media,) = _boxes(file, b"mdia", *trak)
    ((start, _),) = _boxes(file, b"hdlr", *media)
    file.seek(start + 8)  # version and flags; QuickTime's kind of handler
    return file.read(4) == b"vide"


def _ticks_a_second(file: BinaryIO, header: _Span) -> int:
    """Ticks a second of the film's clock, which edit lists go by."""
    file.seek(header[0])
    # Before it are the dates of its making and of its last change.
    file.seek(16 if file.read(4)[0] else 8, os.SEEK_CUR)
    return struct.unpack(">I", file.read(4))[0]


def _edited_ticks(file: BinaryIO, trak: _Span) -> int:
    """What a track's edits show of it; 0 where it has none, or one without an end."""
    for edits in _boxes(file, b"edts", *trak):
        for start, _ in _boxes(file, b"elst", *edits):
            file.seek(start)
            version, count = struct.unpack(">B3xI", file.read(8))
            entry = struct.Struct(">Qq4x" if version else ">Ii4x")
            rows = [entry.unpack(file.read(entry.size)) for _ in range(count)]
            shown = [duration for duration, place in rows if place >= 0]
            return sum(shown) if all(shown) else 0
    return 0


@contextlib.contextmanager
def open_container(path: str) -> Iterator[Any]:
    """Opens a film; a fault that PyAV finds in the body becomes an InputError."""
    av: Any = require("av", extra="video")
    try:
        with av.open(path) as container:
            yield container
    # FFmpeg's faults, and Python's own for streams and formats that are not there.
    except (av.FFmpegError, ValueError, RuntimeError, IndexError) as error:
        raise InputError(f"{path}: a frame is broken ({error})") from error


def upright(frame: Any) -> np.ndarray:
    """A frame of PyAV as RGB uint8 [H, W, 3], turned as its film says.

    Phones store portrait films lying down, with a rotation beside them.
    """
    image = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(image, k=frame.rotation // 90))


def _pyav_declared(path: str) -> tuple[float | None, int | None]:
    """Frames a second and number of frames, each where the film declares it."""
    with open_container(path) as container:
        stream = container.streams.video[0]
        return float(stream.average_rate or 0) or None, stream.frames or None


def _pyav_frames(path: str) -> Iterator[_Timed]:
    with open_container(path) as container:
        for frame in container.decode(video=0):
            yield float(frame.time or 0), upright(frame)


class _WebmEncoder:
    def __init__(self, path: Path, fps: float, size: tuple[int, int]):
        fourcc = cv2.VideoWriter.fourcc(*"VP80")
        with stderr_aside():  # OpenCV prints that WebM has no such tag, and goes on
            self._writer = cv2.VideoWriter(str(path), fourcc, fps, size)
        if not self._writer.isOpened():  # it would drop every frame silently
            raise InputError("OpenCV cannot write VP8 video here")
        self._path = path
        self._count = 0

    def write(self, frame: np.ndarray) -> None:
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self._count += 1

    def close(self) -> None:
        self._writer.release()
        # OpenCV reports no failed write: the film has to be asked. Where the disk was
        # full it declares no length, or its last frame cannot be reached.
        with open_capture(str(self._path)) as capture:
            declared = capture.get(cv2.CAP_PROP_FRAME_COUNT)
            capture.set(cv2.CAP_PROP_POS_FRAMES, self._count - 1)
            whole = declared == self._count and capture.grab()
        if not whole:
            raise OSError(
                f"the film of {self._count} frames is not whole: is the disk full?"
            )

    def abandon(self) -> None:
        self._writer.release()


class _Mp4Encoder:
    def __init__(self, path: Path, fps: float, size: tuple[int, int]):
        av: Any = require("av", extra="video")
        self._make_frame = av.VideoFrame.from_ndarray
        self._odd = (size[1] % 2, size[0] % 2)
        self._container = av.open(str(path), "w")
        rate = Fraction(fps).limit_denominator(1001)
        self._stream = self._container.add_stream("libx264", rate=rate)
        self._stream.width = size[0] + self._odd[1]
        self._stream.height = size[1] + self._odd[0]
        self._stream.pix_fmt = "yuv420p"

    def write(self, frame: np.ndarray) -> None:
        rows, columns = self._odd
        padded = np.pad(frame, ((0, rows), (0, columns), (0, 0)), mode="edge")
        picture = self._make_frame(padded, format="rgb24")
        self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()

    def abandon(self) -> None:
        # The last frames are not asked for: after a failed write FFmpeg would crash.
        self._container.close()
