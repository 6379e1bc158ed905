"""Frames as the page shows them: JPEG, at most 1920 pixels wide, kept in memory."""

import collections
import threading

import numpy as np

from siamrpn_jax.data.read.images import encode_jpeg
from siamrpn_jax.media.drawing import shrink
from siamrpn_jax.media.frames import Frames

MAX_WIDTH = 1920
"""Wider frames are scaled down to this."""

_QUALITY = 85
_KEPT = 96 * 2**20  # Bytes of JPEGs.


class Pictures:
    """JPEGs of a film's frames by their numbers; safe for several threads.

    They have a decoder of their own: who looks around in a film while it is tracked
    does not make the tracking jump to and fro.

    Args:
        frames: the film.
    """

    def __init__(self, frames: Frames):
        self._frames = frames
        self._kept: collections.OrderedDict[int, bytes] = collections.OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, index: int) -> bytes:
        """The JPEG of a frame.

        Raises:
            IndexError: there is no such frame.
            InputError: it cannot be decoded.
        """
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        return self.put(index, self._frames[index])

    def put(self, index: int, frame: np.ndarray) -> bytes:
        """Keeps the JPEG of a frame that somebody has decoded, and returns it."""
        data = encode(frame)
        with self._lock:
            self._bytes += len(data) - len(self._kept.get(index, b""))
            self._kept[index] = data
            self._kept.move_to_end(index)
            while self._bytes > _KEPT and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return data


def encode(frame: np.ndarray) -> bytes:
    """A frame, RGB uint8 ``[H, W, 3]``, as JPEG."""
    return encode_jpeg(shrink(frame, MAX_WIDTH), quality=_QUALITY)
