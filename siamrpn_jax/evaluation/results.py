"""Result files: OTB text files of boxes, and one JSON report of an evaluation."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import replacing
from siamrpn_jax.evaluation.ope.metrics import OpeMetrics


class ResultError(InputError):
    """A result file that does not hold boxes."""


def write_otb_results(
    path: str | Path, boxes: np.ndarray, *, origin: Literal[0, 1] = 1
) -> None:
    """Writes boxes as a text file, a line ``x,y,w,h`` for each frame.

    Args:
        path: the file; its folder is made where it is missing.
        boxes: [T, 4] ``ltwh``.
        origin: coordinate of the first pixel in the file: 1 as in the files of the OTB
            toolkit (x and y are written one higher), or 0 as elsewhere in this library.

    Raises:
        ResultError: the boxes are not finite [T, 4].
    """
    boxes = np.asarray(boxes, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise ResultError(
            f"{path}: boxes of shape {boxes.shape}, expected finite [frames, 4]"
        )
    shifted = boxes + _shift(origin)
    # 17 significant digits would restore every bit; 4 decimals are 0.0001 pixel.
    lines = (",".join(f"{value:.4f}" for value in row) for row in shifted)
    _write_text(path, "\n".join(lines) + "\n")


def read_otb_results(path: str | Path, *, origin: Literal[0, 1] = 1) -> np.ndarray:
    """Reads a result file: float64 [T, 4] ``ltwh``, comma, tab or space between.

    Args:
        path: the file.
        origin: as for `write_otb_results`.

    Raises:
        ResultError: a line does not hold four finite numbers, or there is no line.
    """
    rows = []
    for number, line in enumerate(Path(path).read_text().splitlines(), start=1):
        if line.strip():
            rows.append(_parse_row(line, where=f"{path}:{number}"))
    if not rows:
        raise ResultError(f"{path}: empty, expected a line x,y,w,h for each frame")
    return np.array(rows) - _shift(origin)


def make_report(
    tracker: str,
    sequences: Mapping[str, tuple[OpeMetrics, float | None]],
    *,
    mean: OpeMetrics,
    fps: float | None,
    skip_first: bool,
) -> dict[str, Any]:
    """Gathers an evaluation in a JSON-ready dictionary.

    Args:
        tracker: name of the tracker.
        sequences: metrics and frames a second of each sequence; None where unknown.
        mean: mean over the sequences.
        fps: frames a second over all frames; None where unknown.
        skip_first: whether the first frame was left out.
    """
    return {
        "tracker": tracker,
        "convention": {
            "first_frame": "excluded" if skip_first else "included",
            "auc": "mean over 21 overlap thresholds 0..1 of the share of frames above",
            "precision": "share of frames with a centre error <= 20 px",
            "normalized_precision": "share with a relative centre error <= 0.2",
            "absent_frames": "excluded",
            "mean": "each sequence weighs the same",
            "fps": "all updates / their time, without compilation and decoding",
        },
        **_figures(mean, fps),
        "sequences": {
            name: _figures(metrics, speed)
            for name, (metrics, speed) in sequences.items()
        },
    }


def write_json(path: str | Path, report: Mapping[str, Any]) -> None:
    """Writes a report; a figure that is not finite is an error, not ``NaN``."""
    _write_text(path, json.dumps(report, indent=2, allow_nan=False) + "\n")


def _write_text(path: str | Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _figures(metrics: OpeMetrics, fps: float | None) -> dict[str, float | int | None]:
    return {
        "auc": metrics.auc,
        "precision": metrics.precision,
        "normalized_precision": metrics.normalized_precision,
        "normalized_precision_auc": metrics.normalized_precision_auc,
        "fps": fps,
        "frames": metrics.frames,
    }


def _shift(origin: Literal[0, 1]) -> np.ndarray:
    if origin not in (0, 1):
        raise ResultError(f"origin {origin!r}: expected 0 or 1")
    return np.array([origin, origin, 0.0, 0.0])


def _parse_row(line: str, *, where: str) -> list[float]:
    try:
        row = [float(field) for field in line.replace(",", " ").split()]
    except ValueError:
        row = []
    if len(row) != 4 or not np.isfinite(row).all():
        raise ResultError(f"{where}: {line!r}, expected four finite numbers x,y,w,h")
    return row
