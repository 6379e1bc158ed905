"""Files of results that trackers and tools of the field write and read.

===========  =====================================================================
OTB          ``<sequence>.txt``: a line ``x,y,w,h`` for each frame.
VOT          ``<sequence>/<sequence>_001.txt``: a line for each frame, a code or a
             region; ``<sequence>_001_time.value``: seconds. Further runs are 002, ….
             The toolkit may write ``.bin`` instead, which is read, too.
GOT-10k      ``<sequence>/<sequence>_001.txt`` and ``<sequence>_time.txt``, zipped for
             the server.
===========  =====================================================================

Rows of VOT are as ``evaluation.vot.regions`` describes them. Boxes of the others are
``ltwh`` in pixels counted from 0; ``origin`` says what the files count from.
"""

import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Sequence as Items
from pathlib import Path
from typing import Any

import numpy as np

from siamrpn_jax.common.errors import reason_of
from siamrpn_jax.common.files import replacing
from siamrpn_jax.data.read.formats import (
    no_target,
    parse_number,
    parse_numbers,
    plain_name,
)
from siamrpn_jax.evaluation import annotations
from siamrpn_jax.evaluation.annotations import BoxAnnotation, Origin, ResultError
from siamrpn_jax.evaluation.ope.metrics import overlaps
from siamrpn_jax.evaluation.vot.metrics import Trajectory
from siamrpn_jax.evaluation.vot.regions import format_region, parse_region
from siamrpn_jax.model.boxes import ltwh_to_corners, ltwh_to_cxcywh


def write_otb_results(
    path: str | Path, boxes: np.ndarray, *, origin: Origin = 1
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
    shifted = boxes + annotations.shift_of(origin)
    # 17 significant digits would restore every bit; 4 decimals are 0.0001 pixel.
    _write(path, (",".join(f"{value:.4f}" for value in row) for row in shifted))


def read_otb_results(path: str | Path, *, origin: Origin = 1) -> np.ndarray:
    """Reads a result file: float64 [T, 4] ``ltwh``, comma, tab or space between.

    Args:
        path: the file.
        origin: as for ``write_otb_results``.

    Raises:
        ResultError: a line does not hold four finite numbers, is empty and not at the
            end, or there is no line.
    """
    lines = annotations.read_text(Path(path)).rstrip().splitlines()
    rows = [
        _parse_row(line, where=f"{path}:{number}")
        for number, line in enumerate(lines, start=1)
    ]
    if not rows:
        raise ResultError(f"{path}: empty, expected a line x,y,w,h for each frame")
    return np.array(rows) - annotations.shift_of(origin)


def read_box_results(
    folder: str | Path,
    truths: Mapping[str, BoxAnnotation],
    *,
    origin: Origin = 1,
) -> dict[str, np.ndarray]:
    """Reads a tracker's results in OTB's layout, ``<sequence>.txt``.

    Names of files and sequences are equal but for case and ``-`` or ``_``. A file may
    end before frames at the end of the sequence from which the target is absent: NaN
    stands there, as nothing is known and nothing counts.

    Args:
        folder: with the files.
        truths: what results are expected for, by the names of the sequences.
        origin: what the files count pixels from.

    Returns:
        By name of sequence: float64 ``[T, 4]`` ``ltwh``.

    Raises:
        ResultError: sequences without results, all named; two files for one; a line
            that is no box; or more or fewer lines than frames.
    """
    places = _match_files(Path(folder), truths)
    _check_complete(places, f"{folder}: no file <sequence>.txt for")
    found = {}
    for name, annotation in truths.items():
        boxes = read_otb_results(places[name][0], origin=origin)
        rest = annotation.boxes[len(boxes) :]
        if np.isnan(rest).any(axis=1).all():
            boxes = np.concatenate([boxes, np.full_like(rest, np.nan)])
        _check_count(places[name][0], len(boxes), len(annotation.boxes), name)
        found[name] = boxes
    return found


def check_boxes(
    folder: Path,
    runs: Mapping[str, Items[np.ndarray]],
    truths: Mapping[str, np.ndarray],
    *,
    origin: Origin,
) -> None:
    """Refuses results that are something else than they were read as.

    Most trackers write the box that they are given as the first row: where most first
    rows are the truth but for one pixel, so are the other rows. The first row alone
    says nothing of corners, centres or fractions: some trackers write it in another
    form than all others.

    Args:
        folder: where they are from, for the error.
        runs: ``ltwh [T, 4]`` of each run, by name of sequence.
        truths: as many rows for each sequence, NaN where the target is absent.
        origin: what the files were taken to count pixels from.

    Raises:
        ResultError: they count from another origin, are corners, have centres or y
            before x, or are fractions, percent, or pixels of another size.
    """
    pairs = [(boxes, truths[name]) for name in runs for boxes in runs[name]]
    known = [(boxes, truth) for boxes, truth in pairs if not np.isnan(truth[0]).any()]
    if not known:
        return
    first = np.array([boxes[0] for boxes, _ in known])
    true = np.array([truth[0] for _, truth in known])
    other: Origin = 0 if origin else 1
    shift = annotations.shift_of(origin) - annotations.shift_of(other)
    if _most(np.abs(first + shift - true), 0.01):
        raise ResultError(
            f"{folder}: its first rows are the true boxes, moved by a pixel: its files "
            f"seem to count from {other}, expected --results-origin {other}"
        )
    later = [(boxes[1:], truth[1:]) for boxes, truth in known]
    for form, change in _FORMS.items():
        if np.mean([_fit(*pair, change) for pair in later]) > 0.5:
            raise ResultError(
                f"{folder}: its rows fit the truth as {form}, expected x,y,w,h"
            )
    # A tracker that is lost may be half a target away, but not in the first row, too.
    if (
        _most(np.abs(first - ltwh_to_cxcywh(true)), 1.01)
        and np.mean([_fit(*pair, ltwh_to_cxcywh) for pair in later]) > 0.5
    ):
        raise ResultError(
            f"{folder}: its rows fit the truth as centre and size cx,cy,w,h, expected "
            "x,y,w,h"
        )
    rows = np.concatenate([boxes for boxes, _ in later])
    fractions = ((rows > 0) & (rows < 1)).any() and not (rows > 1).any()
    if fractions and true[:, 2:].max() > 4:
        raise ResultError(
            f"{folder}: its rows are fractions of the images, expected pixels"
        )
    factors = [_scale(boxes + annotations.shift_of(origin), t) for boxes, t in later]
    scaled = [pair for pair in factors if pair is not None]
    if 2 * len(scaled) > len(factors):
        x, y = scaled[0]
        raise ResultError(
            f"{folder}: its rows fit the truth after x times {x:.3g}, y times {y:.3g} "
            "(the first of them), expected pixels of the frames, not percent or pixels "
            "of another size"
        )


def _transpose(boxes: np.ndarray) -> np.ndarray:
    """Boxes with y before x, and the height before the width."""
    return boxes[:, [1, 0, 3, 2]]


_FORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "corners x1,y1,x2,y2": ltwh_to_corners,
    "corners y1,x1,y2,x2": lambda truth: _transpose(ltwh_to_corners(truth)),
    "y,x,h,w": _transpose,
}
"""What rows may be in the place of ``x,y,w,h``, and the truth as such."""


def _fit(
    boxes: np.ndarray, truth: np.ndarray, form: Callable[[np.ndarray], np.ndarray]
) -> bool:
    """Whether rows are far nearer to true boxes in a form than as they were read."""
    known = ~np.isnan(boxes + truth).any(axis=1)
    boxes, truth = boxes[known], truth[known]
    error = np.abs(boxes - form(truth)).sum()
    return bool(error < 0.5 * np.abs(boxes - truth).sum())


def _scale(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray | None:
    """Factors of x and y that rows need to overlap true boxes; None: none, or small.

    A tracker that follows something else may be off by any factor of the place, but not
    by the same one of the size; and one that stays where it is says nothing.
    """
    known = ~no_target(boxes) & ~no_target(truth)
    boxes, truth = boxes[known], truth[known]
    if not len(boxes):
        return None
    products, squares = (
        (boxes * other).reshape(-1, 2, 2).sum((0, 1)) for other in (truth, boxes)
    )
    factors = products / squares
    scaled = boxes * np.tile(factors, 2)
    still = np.broadcast_to(scaled.mean(0), scaled.shape)
    followed, by_chance = (overlaps(one, truth).mean() for one in (scaled, still))
    found = followed > max(0.5, by_chance + 0.01)
    large = np.abs(np.log(np.abs(factors))).min() > np.log(1.5)
    return factors if found and large else None


def _most(errors: np.ndarray, tolerance: float) -> bool:
    """Whether more than half of the rows ``[N, 4]`` are within a tolerance."""
    return bool((errors < tolerance).all(axis=1).mean() > 0.5)


def read_trajectory(
    path: str | Path, *, frames: int | None = None, name: str = ""
) -> Trajectory:
    """Reads the file of a run, text or the toolkit's binary.

    Args:
        path: the file.
        frames: number of rows that there must be, if it is known.
        name: of the sequence, for the error.

    Returns:
        For each frame a code ``[1]``, a box ``[4]`` or a polygon ``[2n]``.

    Raises:
        ResultError: more or fewer rows, or a broken file.
        InputError: a row is no region, as file:line.
    """
    path = Path(path)
    if _is_binary(path):
        rows = tuple(_unpack(path))
    else:
        lines = annotations.read_text(path).rstrip().splitlines()
        rows = tuple(
            parse_region(line, where=f"{path}:{number}")
            for number, line in enumerate(lines, start=1)
        )
    _check_count(path, len(rows), frames, name)
    return rows


def write_trajectory(path: str | Path, rows: Trajectory) -> None:
    """Writes a run as text; folders are made where they are missing."""
    _write(path, (format_region(row) for row in rows))


def vot_run_path(folder: str | Path, name: str, number: int) -> Path:
    """File of a run, ``number`` from 1."""
    return Path(folder) / name / f"{name}_{number:03d}.txt"


def vot_time_path(path: str | Path) -> Path:
    """File of seconds beside the file of a run."""
    path = Path(path)
    return path.with_name(f"{path.stem}_time.value")


def find_vot_runs(folder: str | Path, name: str) -> tuple[Path, ...]:
    """Files of a sequence's runs, in order; ``.bin`` before ``.txt``, as the toolkit.

    Raises:
        ResultError: a number is left out.
    """
    numbered = re.compile(re.escape(name) + r"_(\d{3})\.(bin|txt)")
    place = Path(folder) / name
    found: dict[int, Path] = {}
    for path in sorted(place.iterdir(), reverse=True) if place.is_dir() else ():
        if match := numbered.fullmatch(path.name):
            found[int(match[1])] = path  # .bin comes after .txt here
    if sorted(found) != list(range(1, len(found) + 1)):
        numbers = ", ".join(f"{number:03d}" for number in sorted(found))
        raise ResultError(f"{place}: has runs {numbers}, expected 001, 002, …")
    return tuple(found[number] for number in sorted(found))


def read_seconds(path: str | Path, *, frames: int | None = None) -> np.ndarray:
    """Reads ``_time.value``: float64 ``[T]`` seconds; NaN for an empty line.

    Raises:
        ResultError: a line is no number of at least 0, or ``frames`` is another number.
    """
    lines = annotations.read_text(Path(path)).split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    seconds = []
    for number, line in enumerate(lines, start=1):
        try:
            value = parse_number(line.strip()) if line.strip() else np.nan
        except ValueError:
            value = -1.0
        if value < 0 or value == np.inf:
            raise ResultError(f"{path}:{number}: {line!r}, expected seconds or nothing")
        seconds.append(value)
    _check_count(Path(path), len(seconds), frames, "")
    return np.array(seconds)


def write_seconds(path: str | Path, seconds: np.ndarray) -> None:
    """Writes ``_time.value``: a line for each frame, empty where there is NaN."""
    _write(path, ("" if np.isnan(value) else f"{value:.6f}" for value in seconds))


def write_got10k_run(
    folder: str | Path,
    name: str,
    boxes: np.ndarray,
    seconds: np.ndarray,
    *,
    origin: Origin = 1,
) -> None:
    """Writes a run for GOT-10k: ``<name>/<name>_001.txt`` and ``<name>_time.txt``.

    Args:
        folder: of the tracker.
        name: of the sequence.
        boxes: ``[T, 4]`` ``ltwh``; the first one is the given box.
        seconds: ``[T]``.
        origin: what the file counts pixels from.

    Raises:
        ResultError: boxes and seconds differ in number, or are not finite.
    """
    place = Path(folder) / name
    if len(boxes) != len(seconds) or not np.isfinite(seconds).all():
        raise ResultError(
            f"{place}: {len(boxes)} boxes and {len(seconds)} times, expected as many "
            "of both, all finite"
        )
    _write(place / f"{name}_time.txt", (f"{value:.8f}" for value in seconds))
    # Last: they say that all is there.
    write_otb_results(place / f"{name}_001.txt", boxes, origin=origin)


def read_got10k_results(
    folder: str | Path, frames: Mapping[str, int], *, origin: Origin = 1
) -> dict[str, tuple[np.ndarray, ...]]:
    """Reads a tracker's results on GOT-10k.

    Args:
        folder: of the tracker.
        frames: name of a sequence -> its length.
        origin: what the files count pixels from.

    Returns:
        Name of a sequence -> boxes of its runs, each float64 ``[T, 4]`` ``ltwh``.

    Raises:
        ResultError: sequences without results, all named; a line that is no box; or
            more or fewer lines than frames.
    """
    files = {name: find_vot_runs(folder, name) for name in frames}
    _check_complete(files, f"{folder}: no file <sequence>/<sequence>_001.txt for")
    found = {}
    for name, paths in files.items():
        found[name] = tuple(read_otb_results(path, origin=origin) for path in paths)
        for path, boxes in zip(paths, found[name], strict=True):
            _check_count(path, len(boxes), frames[name], name)
    return found


def zip_got10k(path: str | Path, folder: str | Path, frames: Mapping[str, int]) -> None:
    """Packs a tracker's results for GOT-10k's server.

    Args:
        path: the file to write.
        folder: of the tracker; its sequences become the folders in the file.
        frames: name of a sequence -> its length: all that must be there.

    Raises:
        ResultError: as ``read_got10k_results`` says, or times are missing.
    """
    folder = Path(folder)
    read_got10k_results(folder, frames)
    times = {
        n: [p for p in [folder / n / f"{n}_time.txt"] if p.is_file()] for n in frames
    }
    _check_complete(times, f"{folder}: no file <sequence>/<sequence>_time.txt for")
    files = {
        f"{name}/{file.name}": file
        for name in sorted(frames)
        for file in (*find_vot_runs(folder, name), *times[name])
    }
    zip_files(path, files)


def zip_files(path: str | Path, files: Mapping[str, Path]) -> None:
    """Packs files by the names that they have in the archive; equal ones, equal bytes.

    Raises:
        ResultError: some are missing, all named.
    """
    missing = [name for name, file in files.items() if not file.is_file()]
    if missing:
        raise ResultError(f"{path}: no results {', '.join(missing)}")
    with (
        replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, file in files.items():
            # ZipInfo has a fixed date.
            entry = zipfile.ZipInfo(name)
            archive.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)


def _is_binary(path: Path) -> bool:
    """Whether a file begins as the toolkit's binary format; no text does."""
    try:
        with path.open("rb") as file:
            return file.read(2) == struct.pack("<h", 1)
    except OSError as error:
        raise ResultError(f"{path}: cannot be read ({reason_of(error)})") from error


def _unpack(path: Path) -> Iterator[np.ndarray]:
    """Rows of the toolkit's binary format, version 1.

    After version (int16) and number (uint32), each row is a type (uint8) and then: 0 a
    code (uint32), 1 a box (4 float32), 2 a polygon (uint16 and that many pairs of
    float32). 3, a mask, is none of the experiments here.
    """
    content, offset = path.read_bytes(), 0

    def take(layout: str) -> tuple[Any, ...]:
        nonlocal offset
        values = struct.unpack_from(layout, content, offset)
        offset += struct.calcsize(layout)
        return values

    try:
        _, count = take("<hI")
        for number in range(1, count + 1):
            (kind,) = take("<B")
            if kind == 0:
                row = take("<I")
            elif kind == 1:
                row = take("<4f")
            elif kind == 2:
                (corners,) = take("<H")
                row = take(f"<{2 * corners}f")
            else:
                raise ResultError(
                    f"{path}: row {number} has type {kind}, expected a code, a box or "
                    "a polygon"
                )
            text = ",".join(str(value) for value in row)
            yield parse_region(text, where=f"{path}: row {number}")
    except struct.error as error:
        raise ResultError(f"{path}: broken, ends within a row ({error})") from error
    if offset != len(content):
        raise ResultError(f"{path}: broken, goes on after its {count} rows")


def _match_files(folder: Path, names: Iterable[str]) -> dict[str, list[Path]]:
    present: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.txt")):
        present.setdefault(plain_name(path.stem), []).append(path)
    found = {name: present.get(plain_name(name), []) for name in names}
    for name, paths in found.items():
        if len(paths) > 1:
            files = ", ".join(path.name for path in paths)
            raise ResultError(f"{folder}: {files} are for {name}, expected one file")
    return found


def _check_complete(files: Mapping[str, Items[Path]], what: str) -> None:
    missing = [name for name, found in files.items() if not found]
    if missing:
        raise ResultError(
            f"{what} {len(missing)} of {len(files)} sequences: {', '.join(missing)}"
        )


def _check_count(path: Path, rows: int, frames: int | None, name: str) -> None:
    if frames is not None and rows != frames:
        raise ResultError(
            f"{path}: {rows} rows for {frames} frames{f' of {name}' if name else ''}, "
            "expected one for each"
        )


def _write(path: str | Path, lines: Iterable[str]) -> None:
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _parse_row(line: str, *, where: str) -> list[float]:
    if not line.strip():
        raise ResultError(f"{where}: is empty, expected a box x,y,w,h of its frame")
    row = parse_numbers(line)
    if len(row) != 4 or not np.isfinite(row).all():
        raise ResultError(f"{where}: {line!r}, expected four finite numbers x,y,w,h")
    return row
