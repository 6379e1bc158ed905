"""The rival of our loader: PyTorch's, on crops that are stored as PySOT stores them.

PySOT keeps a JPEG of 511 pixels a side for each annotated frame of each track, at the
scale of our crops, and cuts exemplar and search patch from such files. Only the storage
and the loader differ here: pairs, warps and colours are ours.
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from siamrpn_jax.common.errors import require
from siamrpn_jax.data.crops.format import CropConfig
from siamrpn_jax.data.pairs.crop_tracks import CropTracks
from siamrpn_jax.data.pairs.pairs import PairDataset
from siamrpn_jax.data.pairs.requests import Picture
from siamrpn_jax.data.read.images import decode_image, read_image

CROP = 511
"""Side of PySOT's files, pixels."""

_QUALITY = 95  # OpenCV's default, with which PySOT writes.


class CropFiles(CropTracks):
    """Tracks of a prepared folder whose crops are read from files of 511 pixels.

    Args:
        tracks: whose records; their files are written.
        folder: where to.
    """

    def __init__(self, tracks: CropTracks, folder: Path):
        super().__init__(tracks.records, tracks.tracks, weight=tracks.weight)
        self._folder = folder
        for record in record_numbers(tracks):
            write_crop(tracks, record, self._path(record))
        self.records = copy.copy(tracks.records)
        self.records.crops = CropConfig(exemplar_crop=CROP, search_crop=CROP)

    def exemplar(self, record: int) -> Picture:
        """Both patches are cut from the same kind of file, and black surrounds it."""
        return self.search(record)

    def search(self, record: int) -> Picture:
        """The file of a record."""
        return Picture(read_image(self._path(record)), np.zeros(3))

    def _path(self, record: int) -> Path:
        track = int(np.searchsorted(self.records.index.starts, record, "right")) - 1
        frame = self.records.index.frames[record]
        return self._folder / f"{track:06d}" / f"{frame:06d}.{track:02d}.x.jpg"


def record_numbers(tracks: CropTracks) -> Iterator[int]:
    """All records of some tracks."""
    starts = tracks.records.index.starts
    for track in tracks.tracks:
        yield from range(int(starts[track]), int(starts[track + 1]))


def write_crop(tracks: CropTracks, record: int, path: Path) -> None:
    """Writes a crop of 511 pixels: the stored one, its border mirrored outwards.

    What lies beyond it is not stored; mirrored, it is as costly to decode.
    """
    image = decode_image(tracks.records[record].search, name=f"record {record}")
    low = (CROP - len(image)) // 2
    high = CROP - len(image) - low
    image = cv2.copyMakeBorder(image, low, high, low, high, cv2.BORDER_REFLECT_101)
    flags = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes())


def batches(pairs: PairDataset, *, batch_size: int) -> Iterator[Any]:
    """PyTorch's batches of the first pairs, made in this process: its cheapest way."""
    torch_data: Any = require("torch.utils.data", extra="bench")

    class Pairs(torch_data.Dataset):
        def __len__(self) -> int:
            return 2**31

        def __getitem__(self, index: int) -> tuple[Any, ...]:
            # None, where there is no teacher, is nothing that it could stack.
            return tuple(part for part in pairs[index] if part is not None)

    return iter(torch_data.DataLoader(Pairs(), batch_size=batch_size))
