"""The frames of a film by their numbers, in any order and in bounded memory.

``Frames`` opens what is on a disk: a film, or images in a folder or of a pattern. PyAV,
where it is installed, reads a list of all frames from a film without decoding it, and
decodes from the nearest key frame. Without it OpenCV counts the frames by decoding them
once, and a jump is trusted only where the time of the frame is that of the count.

``LiveFrames`` is a camera or an address: each frame comes once.
"""

import bisect
import collections
import hashlib
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.images import read_image
from siamrpn_jax.media.captures import Retriever, open_capture
from siamrpn_jax.media.video import (
    Video,
    find_images,
    is_live,
    open_container,
    upright,
)

Item = TypeVar("Item")
Frame = np.ndarray
"""RGB uint8 ``[H, W, 3]``."""

_MIB = 2**20
_ENDS = 2**16  # Bytes at both ends of a film that its fingerprint is made of.


class Frames:
    """Frames by number; safe for several threads.

    Args:
        source: a film's file, a folder of images or of a sequence, or a pattern.
        memory_mib: decoded frames are kept up to this many MiB.

    Raises:
        FileNotFoundError: there is no such film, and no image.
        InputError: no frame can be decoded, or it is one that ``Video`` refuses.
    """

    def __init__(self, source: str | Path, *, memory_mib: float = 256):
        self.source = str(source)
        """What was opened."""
        self._files = _files_of(Path(source))
        video = Video(source)
        self._decoder = _open(Path(source), self._files)
        self._kept: collections.OrderedDict[int, Frame] = collections.OrderedDict()
        self._limit, self._bytes = memory_mib * _MIB, 0
        self._lock = threading.Lock()
        self.name: str = video.name
        """Name of the file or folder, without suffix."""
        self.fps: float | None = video.fps
        """Frames a second, where the film declares it."""
        height, width = self[0].shape[:2]
        self.size: tuple[int, int] = (width, height)
        """Width and height of the first frame, pixels."""
        self.fingerprint: str = _fingerprint(self._files, len(self))
        """Fingerprint of the files: those of other films have another one."""

    def __len__(self) -> int:
        return len(self._decoder)

    def __getitem__(self, index: int) -> Frame:
        """The frame of a number, from 0; not to be written to.

        Raises:
            IndexError: there is no such frame.
            InputError: it cannot be decoded.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.source}: frame {index} of {len(self)}")
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
            fitting = max(1, int(self._limit / max(self._bytes_a_frame(), 1)))
            for number, frame in self._decoder.up_to(index, keep=fitting):
                self._keep(number, frame)
            if index not in self._kept:
                raise InputError(f"{self.source}: frame {index} cannot be decoded")
            return self._kept[index]

    def image_file(self, index: int) -> Path | None:
        """The file of a frame; None in a film."""
        return None if isinstance(self._decoder, _Film) else self._files[index]

    def check_unchanged(self) -> None:
        """Raises InputError where the files are no longer what was opened."""
        try:
            files = _files_of(Path(self.source))
            same = _fingerprint(files, len(self)) == self.fingerprint
        except OSError:
            same = False
        if not same:
            raise InputError(
                f"{self.source}: changed while it was open: expected the film that was "
                "opened; open it again"
            )

    def _bytes_a_frame(self) -> int:
        return next(iter(self._kept.values())).nbytes if self._kept else 0

    def _keep(self, number: int, frame: Frame) -> None:
        frame.setflags(write=False)
        self._bytes += frame.nbytes - getattr(self._kept.get(number), "nbytes", 0)
        self._kept[number] = frame
        self._kept.move_to_end(number)
        while self._bytes > self._limit and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes


class LiveFrames:
    """The frames of a camera or of an address, each of which comes once.

    Args:
        source: ``camera``, a camera's number, or an address such as ``rtsp://…``.

    Raises:
        InputError: it cannot be opened, or no frame comes.
    """

    def __init__(self, source: str | int):
        video = Video(source)
        self.source = str(source)
        """What was opened."""
        self.name: str = video.name
        """``camera``, or the address's host."""
        self.fps: float | None = video.fps
        """Frames a second, where the source declares it."""
        self._frames = iter(video)
        self._position = -1
        try:
            self._frame = self._next()
        except IndexError:
            raise InputError(
                f"{self.source}: not one frame came, expected a stream of video"
            ) from None
        height, width = self._frame.shape[:2]
        self.size: tuple[int, int] = (width, height)
        """Width and height of the first frame, pixels."""
        self.fingerprint: str = ""
        """Nobody can open it again."""

    @property
    def position(self) -> int:
        """Number of the frame that is there now."""
        return self._position

    def __getitem__(self, index: int) -> Frame:
        """The present frame or the next one.

        Raises:
            IndexError: the stream has ended.
            InputError: any other frame.
        """
        if index == self._position + 1:
            self._frame = self._next()
        if index != self._position:
            raise InputError(
                f"{self.source}: frame {index}, expected {self._position} or the next: "
                "frames of a live source come once"
            )
        return self._frame

    def image_file(self, index: int) -> None:
        """There are no files."""

    def check_unchanged(self) -> None:
        """A live source may change as it likes."""

    def _next(self) -> Frame:
        try:
            frame = next(self._frames)
        except StopIteration:
            raise IndexError(f"{self.source}: the stream has ended") from None
        self._position += 1
        return frame


def open_frames(source: Any, *, memory_mib: float = 256) -> Frames | LiveFrames:
    """Opens a film, images, a camera or an address: ``Frames`` or ``LiveFrames``."""
    if is_live(source):
        return LiveFrames(source)
    return Frames(source, memory_mib=memory_mib)


def read_ahead(
    read: Callable[[Item], Frame], items: Iterable[Item], *, depth: int = 8
) -> Iterator[Frame]:
    """Yields what is read of each item, read in a background thread.

    Args:
        read: reads one.
        items: what it is given, in turn.
        depth: how many may be read before they are asked for.
    """
    waiting: collections.deque[Future[Frame]] = collections.deque()
    with ThreadPoolExecutor(1, "read_ahead") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


# ------------------------------------------------------------------------- decoders


class _Decoder(Protocol):
    def __len__(self) -> int: ...

    def up_to(self, index: int, *, keep: int) -> Iterator[tuple[int, Frame]]:
        """A frame, and those that have to be decoded before it: ``keep`` at most."""
        ...


class _Images:
    """Image files, each a frame."""

    def __init__(self, files: list[Path]):
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def up_to(self, index: int, *, keep: int) -> Iterator[tuple[int, Frame]]:
        del keep
        yield index, read_image(self._files[index])


class _Film:
    """A film: frames are decoded in turn, from the present place or after a jump."""

    def __init__(self, path: Path, times: list[Any]):
        self.path = path
        self.times = times
        """When each frame is shown, as far as it is known."""
        self.timed = len(times) if _rising(times) else 0
        """How many of the first frames are told apart by their times."""
        self._position = 0
        """Number of the frame that comes next."""
        self._stream: Iterator[tuple[int, Callable[[], Frame]]] = iter(())

    def __len__(self) -> int:
        return len(self.times)

    def up_to(self, index: int, *, keep: int) -> Iterator[tuple[int, Frame]]:
        # Decoding on is cheaper than a jump to the key frame before.
        if not self._position <= index < self._position + 16:
            self._stream = self.jump(max(0, min(index, self.timed - 1)))
        found = self._read_on(index, keep)
        if not found or found[-1][0] != index:
            # What a jump led to is not what the count says: from the start, then.
            self._stream = self.jump(0)
            found = self._read_on(index, keep)
        for number, convert in found:
            yield number, convert()

    def jump(self, index: int) -> Iterator[tuple[int, Callable[[], Frame]]]:
        """Numbers from one at or before ``index`` on, and what makes their frames."""
        raise NotImplementedError

    def _read_on(
        self, index: int, keep: int
    ) -> collections.deque[tuple[int, Callable[[], Frame]]]:
        found: collections.deque[tuple[int, Callable[[], Frame]]]
        found = collections.deque(maxlen=keep)
        for number, convert in self._stream:
            self._position = number + 1
            found.append((number, convert))
            if number >= index:
                break
        return found


class _PyavFilm(_Film):
    """By PyAV. Where times do not tell frames apart they are counted from the first."""

    def __init__(self, path: Path):
        listed, declared, reorders = self._listed(path)
        super().__init__(path, sorted(listed))
        # AVI stores no times: those that FFmpeg guesses of B-frames are in their order
        # in the file, which is not the one in which they are shown.
        guessed = reorders and listed == self.times
        true = self.timed and self._begins_right()
        if guessed or not true or (len(listed) != declared and not self._ends_right()):
            decoded = self._decoded(path)
            super().__init__(path, decoded)
            if guessed and decoded != listed:
                self.timed = 0

    def jump(self, index: int) -> Iterator[tuple[int, Callable[[], Frame]]]:
        with open_container(str(self.path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            if index:
                container.seek(self.times[index], stream=stream)
            for number, frame in enumerate(container.decode(stream)):
                if self.timed:
                    number = bisect.bisect_left(self.times, frame.pts)
                if self.times[number : number + 1] == [frame.pts]:
                    yield number, lambda frame=frame: upright(frame)

    @staticmethod
    def _listed(path: Path) -> tuple[list[int], int, bool]:
        """The times of all frames as they lie in the film, nothing decoded.

        And the number of frames, where the film declares it, or 0; and whether it may
        hold them in another order than it shows them.
        """
        with open_container(str(path)) as container:
            stream = container.streams.video[0]
            times = [
                packet.pts
                for packet in container.demux(stream)
                if packet.size and not packet.is_discard and packet.pts is not None
            ]
            return times, stream.frames, stream.codec_context.has_b_frames

    @staticmethod
    def _decoded(path: Path) -> list[int | None]:
        """The times of all frames as they are decoded."""
        with open_container(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            return [frame.pts for frame in container.decode(stream)]

    def _begins_right(self) -> bool:
        """Whether the first frame that comes out is the first of the list."""
        return next(iter(self.jump(0)), (None,))[0] == 0

    def _ends_right(self) -> bool:
        last = None
        for last, _ in self.jump(len(self) - 1):  # noqa: B007
            pass
        return last == len(self) - 1


class _OpencvFilm(_Film):
    def __init__(self, path: Path):
        with open_capture(str(path)) as capture:
            times = []
            while capture.grab():
                times.append(capture.get(cv2.CAP_PROP_POS_MSEC))
        super().__init__(path, times)
        known = len(times)
        while known and not times[known - 1]:  # none for the last ones, as in AVI
            known -= 1
        self.timed = max(1, known) if _rising(times[:known]) else 0

    def jump(self, index: int) -> Iterator[tuple[int, Callable[[], Frame]]]:
        with open_capture(str(self.path)) as capture:
            retrieve = Retriever(capture, str(self.path))
            number = 0
            if index:
                capture.set(cv2.CAP_PROP_POS_FRAMES, index)
                number = index
            while capture.grab():
                if number >= len(self.times):
                    return
                if capture.get(cv2.CAP_PROP_POS_MSEC) != self.times[number]:
                    return
                if (frame := retrieve()) is None:
                    return
                yield number, lambda frame=frame: cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
                number += 1


def _rising(times: Sequence[Any]) -> bool:
    """Whether each of some times is there, and later than the one before."""
    known = all(time is not None for time in times)
    return known and all(a < b for a, b in itertools.pairwise(times))


def _open(path: Path, files: list[Path]) -> _Decoder:
    if not path.is_file():
        return _Images(files)
    film = None
    if find_spec("av"):
        try:
            film = _PyavFilm(path)
        except InputError:
            film = None  # OpenCV may know it
    if not film or not len(film):
        film = _OpencvFilm(path)
    if not len(film):
        raise InputError(f"{path}: no frame of this film can be decoded")
    return film


def _files_of(path: Path) -> list[Path]:
    return [path] if path.is_file() else find_images(str(path))


def _fingerprint(files: list[Path], length: int) -> str:
    """Fingerprint of names and sizes, and of a single file's ends: 16 hex digits."""
    digest = hashlib.sha256(f"{length}".encode())
    for path in files:
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
    if len(files) == 1:
        with files[0].open("rb") as file:
            digest.update(file.read(_ENDS))
            file.seek(max(0, files[0].stat().st_size - _ENDS))
            digest.update(file.read(_ENDS))
    return digest.hexdigest()[:16]
