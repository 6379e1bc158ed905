"""The index of a prepared folder: its tracks and records, without reading them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from siamrpn_jax.common import configs, files
from siamrpn_jax.common.files import replacing
from siamrpn_jax.data.crops.format import FORMAT_VERSION, CropConfig, RecordError

INDEX_FILE = "index.npz"


@dataclass(frozen=True)
class Index:
    """What is known of all ``T`` tracks and ``N`` records without reading one."""

    starts: np.ndarray
    """``int64 [T + 1]``: track ``t`` has the records ``starts[t]`` to ``starts[t+1]``,
    the last one excluded; none is empty."""

    names: tuple[str, ...]
    """``T`` of them."""

    videos: np.ndarray
    """``int32 [T]`` into ``video_names``; tracks of one video may show each other's
    targets."""

    video_names: tuple[str, ...]

    categories: np.ndarray
    """``int32 [T]`` into ``category_names``, -1 where unknown."""

    category_names: tuple[str, ...]

    frames: np.ndarray
    """``int32 [N]``: frame numbers in the source, increasing within a track."""

    sizes: np.ndarray
    """``float32 [N, 2]``: width and height of the targets in crop pixels."""

    scales: np.ndarray
    """``float32 [N]``: crop pixels per pixel of the source."""

    visibility: np.ndarray
    """``float32 [N]``: above 0 and at most 1."""

    outlined: np.ndarray
    """``bool [N]``: which records hold an outline."""


class Shard(NamedTuple):
    """One of the files that hold the records, in order."""

    file: str
    """Its name in the folder."""

    records: int
    """How many it holds."""

    size: int
    """Bytes."""


class Header(NamedTuple):
    """What an index says of the dataset as a whole."""

    name: str
    """Of the dataset, with which the names of its files begin."""

    crops: CropConfig
    """How its frames were cropped."""

    neighbours: int | None
    """How many annotated frames a pair may lie apart; None: any number."""

    shards: tuple[Shard, ...]
    """In the order of the records."""


def write_index(folder: Path, header: Header, index: Index) -> None:
    """Writes ``index.npz``, with which a prepared folder is complete."""
    about = {
        "format_version": FORMAT_VERSION,
        "name": header.name,
        "neighbours": header.neighbours,
        "crops": configs.to_json(header.crops),
        "shards": [shard._asdict() for shard in header.shards],
    }
    arrays = {
        "about": pack_text([json.dumps(about)]),
        "starts": index.starts.astype(np.int64),
        "names": pack_text(index.names),
        "videos": index.videos.astype(np.int32),
        "video_names": pack_text(index.video_names),
        "categories": index.categories.astype(np.int32),
        "category_names": pack_text(index.category_names),
        "frames": index.frames.astype(np.int32),
        "sizes": index.sizes.astype(np.float32),
        "scales": index.scales.astype(np.float32),
        "visibility": index.visibility.astype(np.float32),
        "outlined": index.outlined.astype(bool),
    }
    with replacing(folder / INDEX_FILE) as temporary:
        np.savez(temporary, **arrays)


def remove_index(folder: Path) -> None:
    """Removes ``index.npz`` if it is there: the folder counts as unfinished."""
    (folder / INDEX_FILE).unlink(missing_ok=True)


def read_index(folder: Path) -> tuple[Header, Index]:
    """Reads what ``write_index`` wrote.

    Raises:
        RecordError: the file is broken, or of another format version.
    """
    path = folder / INDEX_FILE
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            about = json.loads(unpack_text(arrays["about"])[0])
            version = about["format_version"]
            if version != FORMAT_VERSION:
                raise RecordError(
                    f"{path}: is of format version {version}, expected "
                    f"{FORMAT_VERSION}: prepare the dataset again in a new folder"
                )
            return _read_header(about), _read_arrays(arrays)
    except RecordError:
        raise
    except Exception as error:  # NumPy, zlib and zipfile promise no particular ones
        raise RecordError(
            f"{path}: is no whole index ({error}): run the preparation again, which "
            "makes it anew"
        ) from error


def fingerprint(folder: Path | str) -> str:
    """Fingerprint of what a prepared folder holds: other contents have another one.

    Empty where there is no index; ``open_prepared`` says why.
    """
    return files.fingerprint(Path(folder) / INDEX_FILE)


def _read_header(about: dict[str, Any]) -> Header:
    return Header(
        name=about["name"],
        crops=configs.from_json(CropConfig, about["crops"]),
        neighbours=about["neighbours"],
        shards=tuple(Shard(**shard) for shard in about["shards"]),
    )


def _read_arrays(arrays: Any) -> Index:
    return Index(
        starts=arrays["starts"],
        names=unpack_text(arrays["names"]),
        videos=arrays["videos"],
        video_names=unpack_text(arrays["video_names"]),
        categories=arrays["categories"],
        category_names=unpack_text(arrays["category_names"]),
        frames=arrays["frames"],
        sizes=arrays["sizes"],
        scales=arrays["scales"],
        visibility=arrays["visibility"],
        outlined=(
            arrays["outlined"]
            if "outlined" in arrays
            else np.zeros(len(arrays["frames"]), bool)
        ),
    )


def check_index(path: Path, header: Header, index: Index) -> None:
    """Refuses an index that contradicts itself; raises RecordError."""
    tracks, records = len(index.names), len(index.frames)
    stored = sum(shard.records for shard in header.shards)
    expected = {
        "starts": (tracks + 1,),
        "videos": (tracks,),
        "categories": (tracks,),
        "frames": (stored,),
        "sizes": (records, 2),
        "scales": (records,),
        "visibility": (records,),
        "outlined": (records,),
    }
    for name, shape in expected.items():
        found = getattr(index, name).shape
        if found != shape:
            raise RecordError(f"{path}: {name} is {found}, expected {shape}")
    starts = index.starts
    if starts[0] != 0 or starts[-1] != records or (np.diff(starts) < 1).any():
        raise RecordError(f"{path}: the tracks do not divide the {records} records")


def pack_text(lines: Sequence[str]) -> np.ndarray:
    """Lines of text as ``uint8``: far smaller than an array of strings.

    Raises:
        RecordError: a line has a line break within.
    """
    broken = [line for line in lines if "\n" in line]
    if broken:
        raise RecordError(f"{broken[0]!r}: expected a name without line breaks")
    text = "".join(f"{line}\n" for line in lines)
    return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)


def unpack_text(array: np.ndarray) -> tuple[str, ...]:
    """The lines of ``pack_text``."""
    text = array.tobytes().decode("utf-8", "surrogateescape")
    return tuple(text.split("\n")[:-1])
