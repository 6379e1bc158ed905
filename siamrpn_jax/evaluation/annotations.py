"""Ground truth as PySOT keeps it: one JSON file for a data set (VOT2018.json, …)."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import read_json
from siamrpn_jax.data.read.formats import no_target
from siamrpn_jax.evaluation.vot.dataset import VotSequence
from siamrpn_jax.evaluation.vot.regions import area

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


def read_vot_annotations(path: str | Path) -> tuple[VotSequence, ...]:
    """Reads PySOT's JSON of a VOT data set, such as VOT2018.json.

    Returns:
        Sequences whose frames are the names in the file; nothing is looked for there.

    Raises:
        ResultError: naming the sequence, and the frame of a region that is not finite
            or has no area.
    """
    return tuple(
        _vot_annotation(path, name, entry) for name, entry in _read_entries(path)
    )


def read_box_annotations(
    path: str | Path, *, origin: Origin = 1
) -> dict[str, BoxAnnotation]:
    """Reads PySOT's JSON of a one-pass benchmark, such as OTB2015.json.

    Args:
        path: the file.
        origin: what it counts pixels from.

    Returns:
        By name. A box with NaN or without area says that the target is absent.

    Raises:
        ResultError: naming the sequence and the frame.
    """
    found = {}
    for name, entry in _read_entries(path):
        boxes = _rows(path, name, entry, sizes=(4,))
        boxes = np.array([row - shift_of(origin) for row in boxes])
        boxes[no_target(boxes)] = np.nan
        attributes = tuple(str(tag) for tag in entry.get("attr") or ())
        found[name] = BoxAnnotation(name, boxes, attributes)
    return found


def _vot_annotation(
    path: str | Path, name: str, entry: Mapping[str, Any]
) -> VotSequence:
    regions = _rows(path, name, entry, sizes=(4, 8))
    for index, region in enumerate(regions):
        if not (np.isfinite(region).all() and area(region) > 0):
            raise ResultError(
                f"{path}: {name}, frame {index}: {region.tolist()}, expected finite "
                "numbers of a region with an area"
            )
    width, height = (entry.get(key) for key in ("width", "height"))
    if not all(isinstance(side, int) and side > 0 for side in (width, height)):
        raise ResultError(
            f"{path}: {name}: width is {width}, height {height}, expected whole "
            "numbers above 0"
        )
    attributes = {}
    for key in PYSOT_ATTRIBUTES:
        flags = entry.get(key) or [0] * len(regions)  # PySOT leaves some lists empty
        if not isinstance(flags, list) or not all(flag in (0, 1) for flag in flags):
            raise ResultError(f"{path}: {name}: {key} is no list of 0 and 1")
        if len(flags) != len(regions):
            raise ResultError(
                f"{path}: {name}: {key} has {len(flags)} values, expected 0 or 1 for "
                f"each of {len(regions)} frames"
            )
        attributes[key] = np.array(flags, bool)
    frames = tuple(Path(str(image)) for image in entry.get("img_names") or ())
    size = (entry["width"], entry["height"])
    return VotSequence(name, frames, tuple(regions), size, attributes, None)


def _read_entries(path: str | Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and content of each sequence in PySOT's JSON."""
    path = Path(path)
    content = read_json(path, error=ResultError)
    if not isinstance(content, dict) or not content:
        raise ResultError(f"{path}: expected an object, a sequence for each key")
    for name, entry in content.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("gt_rect"), list):
            raise ResultError(f"{path}: {name}: expected an object with a list gt_rect")
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
        raise ResultError(f"{path}: cannot be read ({error})") from error
    except UnicodeDecodeError as error:
        raise ResultError(f"{path}: is no text ({error})") from error


def shift_of(origin: Origin) -> np.ndarray:
    """What a box ``ltwh`` counted from 0 must be moved by to count from ``origin``."""
    if origin not in (0, 1):
        raise ResultError(f"origin {origin!r}: expected 0 or 1")
    return np.array([origin, origin, 0.0, 0.0])
