"""Image files by number: bytes kept in memory while they fit, decoded images in an LRU.

The store never changes what an image is, only how fast it comes: two stores over the
same files agree whatever their limits, and any number of threads may share one.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from pathlib import Path
from typing import Any

import numpy as np

from siamrpn_jax.data.read.images import ImageError, decode_image


class ImageStore:
    """Decoded images by index, from a list of files.

    Encoded files stay in memory once read, if all of them together are below
    ``bytes_limit``; else the disk (and the system's cache) serves them. Decoded images
    are kept, the least recently used dropped first, up to ``decoded_limit`` bytes.

    Args:
        paths: image files.
        bytes_limit: largest total size of the files, in bytes, to keep them in memory.
        decoded_limit: bytes of decoded images to keep.
        sizes: expected width and height by index, where annotations hold them.
    """

    def __init__(
        self,
        paths: SequenceOf[Path],
        *,
        bytes_limit: int,
        decoded_limit: int,
        sizes: Mapping[int, tuple[int, int]],
    ):
        self.paths, self._sizes = tuple(paths), dict(sizes)
        self._keep_bytes = sum(p.stat().st_size for p in self.paths) <= bytes_limit
        self._decoded_limit = decoded_limit
        self._reset()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """RGB ``uint8 [H, W, 3]``, read-only.

        Raises:
            ImageError: the file cannot be decoded, or is not of the expected size.
        """
        with self._lock:
            image = self._decoded.get(index)
            if image is not None:
                self._decoded.move_to_end(index)
                return image
        image = decode_image(self._read(index), name=str(self.paths[index]))
        height, width = image.shape[:2]
        if self._sizes.get(index, (width, height)) != (width, height):
            annotated = "x".join(map(str, self._sizes[index]))
            raise ImageError(
                f"{self.paths[index]}: is {width}x{height} pixels, expected the "
                f"annotated {annotated}"
            )
        image.flags.writeable = False
        with self._lock:
            if index not in self._decoded:
                self._decoded[index] = image
                self._decoded_size += image.nbytes
            while self._decoded_size > self._decoded_limit:
                _, dropped = self._decoded.popitem(last=False)
                self._decoded_size -= dropped.nbytes
        return image

    def __getstate__(self) -> dict[str, Any]:
        """Pickles the list of files alone: a worker process fills its own caches."""
        return {
            "paths": self.paths,
            "_sizes": self._sizes,
            "_keep_bytes": self._keep_bytes,
            "_decoded_limit": self._decoded_limit,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def _reset(self) -> None:
        self._bytes: dict[int, bytes] = {}
        self._decoded: OrderedDict[int, np.ndarray] = OrderedDict()
        self._decoded_size = 0
        self._lock = threading.Lock()

    def _read(self, index: int) -> bytes:
        data = self._bytes.get(index)
        if data is None:
            try:
                data = self.paths[index].read_bytes()
            except OSError as error:
                raise ImageError(
                    f"{self.paths[index]}: cannot be read ({error.strerror})"
                ) from error
            if self._keep_bytes:
                self._bytes[index] = data
        return data
