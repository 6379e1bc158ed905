"""Ground truth as PySOT keeps it: one JSON file for a data set (VOT2018.json, …)."""

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from siamrpn_jax.common.errors import InputError, reason_of
from siamrpn_jax.common.files import check_name, read_json
from siamrpn_jax.data.read.formats import no_target
from siamrpn_jax.data.read.images import read_size
from siamrpn_jax.data.read.rows import FROM_ONE
from siamrpn_jax.evaluation.vot.dataset import VotSequence
from siamrpn_jax.evaluation.vot.regions import area

log = logging.getLogger(__name__)

Size = tuple[int, int]
"""Width and height of frames, pixels."""

Origin = Literal[0, 1]
"""What files count pixels from."""

PYSOT_ATTRIBUTES = (
    "camera_motion",
    "illum_change",
    "motion_change",
    "size_change",
    "occlusion",
)
"""Keys of attributes in PySOT's JSON of VOT data sets."""


class ResultError(InputError):
    """A file of results or annotations that cannot be used."""


@dataclasses.dataclass(frozen=True, eq=False)
class BoxAnnotation:
    """Ground truth of a sequence in a one-pass benchmark."""

    name: str
    """Name of the sequence."""
    boxes: np.ndarray
    """float64 ``[T, 4]`` ``ltwh``; NaN where the target is absent."""
    attributes: tuple[str, ...]
    """What the sequence is difficult for."""


def read_vot_annotations(
    path: str | Path, *, frames: Path | None = None
) -> tuple[VotSequence, ...]:
    """Reads PySOT's JSON of a VOT data set, such as VOT2018.json.

    Args:
        path: the file.
        frames: the folder that its names of frames are relative to, for the sizes of
            sequences that it has none of.

    Returns:
        Sequences whose frames are the names in the file; nothing is looked for there.

    Raises:
        ResultError: naming the sequence, and the frame of a region that is not finite
            or has no area.
    """
    return tuple(
        _vot_annotation(path, name, entry, frames)
        for name, entry in _read_entries(path)
    )


def read_box_annotations(
    path: str | Path, *, origin: Origin = 1
) -> dict[str, BoxAnnotation]:
    """Reads PySOT's JSON of a one-pass benchmark, such as OTB2015.json.

    Args:
        path: the file.
        origin: what it counts pixels from.

    Returns:
        By name. A box with NaN or without area says that the target is absent, and so
        does a 0 in the list ``absent`` of LaSOT.json, which is 1 where it is there.

    Raises:
        ResultError: naming the sequence and the frame.
    """
    found = {}
    for name, entry in _read_entries(path):
        boxes = _rows(path, name, entry, sizes=(4,))
        boxes = np.array([row - shift_of(origin) for row in boxes])
        boxes[no_target(boxes)] = np.nan
        if entry.get("absent"):
            if len(entry["absent"]) != len(boxes):
                raise ResultError(
                    f"{path}: {name}: absent has {len(entry['absent'])} values for "
                    f"{len(boxes)} frames, expected one for each"
                )
            boxes[~_flags(path, name, entry, "absent", len(boxes))] = np.nan
        attributes = tuple(str(tag) for tag in entry.get("attr") or ())
        found[name] = BoxAnnotation(name, boxes, attributes)
    return found


def _vot_annotation(
    path: str | Path, name: str, entry: Mapping[str, Any], root: Path | None
) -> VotSequence:
    regions = _rows(path, name, entry, sizes=(4, 8))
    for index, region in enumerate(regions):
        if not (np.isfinite(region).all() and area(region) > 0):
            raise ResultError(
                f"{path}: {name}, frame {index}: {region.tolist()}, expected finite "
                "numbers of a region with an area"
            )
    attributes = {}
    for key in PYSOT_ATTRIBUTES:
        attributes[key] = _flags(path, name, entry, key, len(regions))
    frames = tuple(Path(str(image)) for image in entry.get("img_names") or ())
    size = _size(path, name, entry, root / frames[0] if root and frames else None)
    return VotSequence(name, frames, tuple(regions), size, attributes, None)


def _size(
    path: str | Path, name: str, entry: Mapping[str, Any], frame: Path | None
) -> Size | None:
    """Width and height; None, and a note, where nothing says them."""
    width, height = (entry.get(key) for key in ("width", "height"))
    if width is None and height is None:
        if frame:
            return read_size(frame)
        log.warning(
            "%s: %s has no width and height: its regions are not clipped to the frames "
            "(--root with the frames says them)",
            *(path, name),
        )
        return None
    if not all(isinstance(side, int) and side > 0 for side in (width, height)):
        raise ResultError(
            f"{path}: {name}: width is {width}, height {height}, expected whole "
            "numbers above 0"
        )
    return entry["width"], entry["height"]


def _flags(
    path: str | Path, name: str, entry: Mapping[str, Any], key: str, count: int
) -> np.ndarray:
    """A list of 0 and 1, bool ``[T]``; one that ends early goes on with 0."""
    values = entry.get(key) or []
    if not isinstance(values, list) or not all(value in (0, 1) for value in values):
        raise ResultError(f"{path}: {name}: {key} is no list of 0 and 1")
    if len(values) > count:
        raise ResultError(
            f"{path}: {name}: {key} has {len(values)} values, expected at most one for "
            f"each of {count} frames"
        )
    flags = np.zeros(count, bool)
    flags[: len(values)] = values
    return flags


def _read_entries(path: str | Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and content of each sequence in PySOT's JSON."""
    path = Path(path)
    content = read_json(path, error=ResultError)
    if not isinstance(content, dict) or not content:
        raise ResultError(f"{path}: expected an object, a sequence for each key")
    for name, entry in content.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("gt_rect"), list):
            raise ResultError(f"{path}: {name}: expected an object with a list gt_rect")
        try:
            check_name(name, error=ResultError)
        except ResultError as error:
            raise ResultError(f"{path}: {error}") from error
        yield name, entry


def _rows(
    path: str | Path, name: str, entry: Mapping[str, Any], *, sizes: tuple[int, ...]
) -> list[np.ndarray]:
    rows = []
    for index, values in enumerate(entry["gt_rect"]):
        try:
            row = np.array(values, np.float64)
        except (TypeError, ValueError, OverflowError):
            row = np.empty(0)
        if row.ndim != 1 or row.size not in sizes:
            expected = " or ".join(str(size) for size in sizes)
            raise ResultError(
                f"{path}: {name}, frame {index}: {values!r}, expected "
                f"{expected} numbers"
            )
        rows.append(row)
    if not rows:
        raise ResultError(f"{path}: {name}: gt_rect is empty, expected a row a frame")
    return rows


def read_text(path: Path) -> str:
    """The text of a file of results or annotations.

    Raises:
        ResultError: it cannot be read, or is no text.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ResultError(f"{path}: cannot be read ({reason_of(error)})") from error
    except UnicodeDecodeError as error:
        raise ResultError(f"{path}: is no text ({error})") from error


def shift_of(origin: Origin) -> np.ndarray:
    """What a box ``ltwh`` counted from 0 must be moved by to count from ``origin``."""
    if origin not in (0, 1):
        raise ResultError(f"origin {origin!r}: expected 0 or 1")
    return origin * FROM_ONE
