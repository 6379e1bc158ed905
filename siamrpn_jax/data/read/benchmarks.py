"""Data sets of one-pass evaluation on disk, as their authors hand them out.

==============  ====================================================================
otb, otb50      ``<Name>/img/%04d.jpg`` and ``<Name>/groundtruth_rect.txt``, numbers
                separated by comma, tab or space. Two targets of one folder have
                ``groundtruth_rect.1.txt`` and ``.2.txt`` (Jogging, Skating2; Human4's
                first file is empty). Some sequences are a part of their folder, see
                ``OTB_FRAMES``. Wu et al., TPAMI 2015; OTB's site lists the exceptions.
uav123, uav20l  ``anno/UAV123/<name>.txt`` (``anno/UAV20L/``), NaN where the target is
                absent; frames ``data_seq/UAV123/<folder>/%06d.jpg``. car1_2 is the
                second clip of the folder car1, see ``UAV123_CLIPS``. Mueller et al.,
                ECCV 2016; ``configSeqs.m`` of the download.
nfs             ``<name>/30/<name>.txt`` and frames ``<name>/30/<name>/%05d.jpg``. The
                annotation is of 240 frames a second: every eighth line, from the
                first, is a frame. A line is VATIC's: track, xmin, ymin, xmax, ymax,
                frame, lost, occluded, generated, label. Galoogahi et al., ICCV 2017.
                Also, as many trackers keep it, ``anno/nfs_<name>.txt`` with a line
                x, y, w, h for each frame of ``sequences/<name>/``.
lasot           ``<class>/<class>-<n>/`` with ``img/%08d.jpg``, ``groundtruth.txt``,
                ``full_occlusion.txt`` and ``out_of_view.txt`` (0 and 1, one line);
                ``testing_set.txt`` names the sequences, ``LASOT_TEST`` where there is
                none. Fan et al., CVPR 2019. lasot-ext: its 150 sequences of 2020.
tnl2k           ``<name>/imgs/`` and ``<name>/groundtruth.txt``. Wang et al., CVPR 2021.
dtb70           ``<name>/img/`` and ``<name>/groundtruth_rect.txt``. Li and Yeung, AAAI
                2017.
tc128           ``<name>/img/``, ``<name>/<name>_gt.txt`` and ``<name>_frames.txt``, the
                first and the last frame. Temple Color; Liang et al., TIP 2015.
got10k-val,     ``val/list.txt`` names folders with ``%08d.jpg``, ``groundtruth.txt``
got10k-test     and, but for test, ``cover.label`` and ``absence.label``. The test set
                gives the first box only. Huang et al., TPAMI 2019.
trackingnet-    ``frames/<name>/%d.jpg`` from 0, and the first box in
test            ``anno/<name>.txt``. Mueller et al., ECCV 2018.
==============  ====================================================================

All count pixels from 1, but for NfS's VATIC lines and TrackingNet; what is returned
counts from 0.
Where a target is absent: ``formats.no_target``.
"""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import check_name
from siamrpn_jax.data.read.benchmark_lists import (
    LASOT_EXTENSION,
    LASOT_TEST,
    OTB50,
    OTB100,
    OTB_FRAMES,
    UAV123_CLIPS,
    BenchmarkName,
)
from siamrpn_jax.data.read.formats import (
    no_target,
    parse_number,
    parse_numbers,
    plain_name,
    read_lines,
)
from siamrpn_jax.data.read.images import (
    is_hidden,
    list_images,
    natural_sort,
    refuse_twins,
)
from siamrpn_jax.data.read.rows import (
    FROM_ONE,
    Annotation,
    read_got10k,
    read_lasot,
    read_rows,
)
from siamrpn_jax.data.read.sequences import Sequence, SequenceError

NFS_RATIO = 8
"""Annotated frames for each frame at 30 a second."""


class _MissingError(SequenceError):
    """A sequence that is not there at all."""


class _Reader(NamedTuple):
    size: int  # sequences in the whole benchmark
    layout: str
    names: Callable[[Path], list[str]]
    read: Callable[[Path, str], Sequence]


def read_benchmark(
    name: BenchmarkName, root: str | os.PathLike[str]
) -> tuple[Sequence, ...]:
    """Reads all sequences of a benchmark; frames are paths, none is decoded.

    Args:
        name: which benchmark, and so which layout.
        root: its folder.

    Raises:
        SequenceError: ``root`` holds no such benchmark, or sequences are missing or
            cannot be read; of those that are missing five are named.
    """
    root, reader = Path(root), _READERS[name]
    names = reader.names(root) if root.is_dir() else []
    found, missing, problems = [], [], []
    for sequence in names:
        try:
            found.append(reader.read(root, sequence))
        except _MissingError:
            missing.append(sequence)
        except (InputError, OSError) as error:
            problems.append(str(error))
    if len(missing) == len(names):
        raise SequenceError(f"{root}: holds no {name}; expected {reader.layout}")
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        problems.insert(
            0,
            f"{root}: {name} misses {len(missing)} of {len(names)} sequences: "
            f"{', '.join(missing[:5])}{more} (expected {reader.layout})",
        )
    if problems:
        raise SequenceError("; ".join(problems))
    return tuple(found)


def whole_size(name: BenchmarkName) -> int:
    """Number of sequences of the whole benchmark."""
    return _READERS[name].size


def check_names(name: BenchmarkName | None, found: Iterable[str]) -> None:
    """Refuses the sequences of another benchmark.

    Names are compared as ``formats.plain_name`` has them.

    Args:
        name: of the benchmark that is asked for, or None for none.
        found: the names of the sequences that are there.

    Raises:
        SequenceError: none of them is of the benchmark, as far as its names are known;
            or all are of another one.
    """
    if name is None:
        return
    plain = set(map(plain_name, found))
    known = {other: set(map(plain_name, names)) for other, names in _NAMES.items()}
    own = known.get(name, set())
    others = [other for other, names in known.items() if plain <= names - own]
    if (own and plain.isdisjoint(own)) or others:
        whose = f", they are those of {others[0]}" if others else ""
        raise SequenceError(
            f"--benchmark {name}: its sequences are not the {len(plain)} that are "
            f"there{whose}"
        )


def _read_otb(root: Path, name: str) -> Sequence:
    folder, _, number = name.partition("-")
    text = root / folder / f"groundtruth_rect.{f'{number}.' * bool(number)}txt"
    boxes, frames = _boxes(text), _frames(root / folder / "img")
    if folder in OTB_FRAMES:
        first, last = OTB_FRAMES[folder]
        frames = {n: path for n, path in frames.items() if first <= n <= last}
        if len(boxes) == last:  # some copies annotate what comes before, too
            boxes = boxes[first - 1 :]
    return _sequence(name, frames.values(), boxes, text)


def _uav_names(folder: str) -> Callable[[Path], list[str]]:
    return lambda root: _stems(root / "anno" / folder)


def _read_uav123(root: Path, name: str) -> Sequence:
    folder, _, number = name.rpartition("_")
    if folder not in UAV123_CLIPS or not number.isdecimal():
        return _read_uav(root, "UAV123", name, folder=name, first=1)
    starts = UAV123_CLIPS[folder]
    if not 0 < int(number) <= len(starts):
        raise SequenceError(f"{name}: {folder} has clips 1 to {len(starts)}")
    return _read_uav(root, "UAV123", name, folder=folder, first=starts[int(number) - 1])


def _read_uav20l(root: Path, name: str) -> Sequence:
    return _read_uav(root, "UAV20L", name, folder=name, first=1)


def _read_uav(
    root: Path, subset: str, name: str, *, folder: str, first: int
) -> Sequence:
    text = root / "anno" / subset / f"{name}.txt"
    boxes = _boxes(text)
    frames = _frames(root / "data_seq" / "UAV123" / folder)
    last = first + len(boxes) - 1
    kept = [path for number, path in frames.items() if first <= number <= last]
    return _sequence(name, kept, boxes, text)


def _nfs_names(root: Path) -> list[str]:
    plain = [stem.removeprefix("nfs_") for stem in _stems(root / "anno")]
    return plain or sorted(path.stem for path in root.glob("*/30/[!.]*.txt"))


def _read_nfs(root: Path, name: str) -> Sequence:
    for text in (root / "anno" / f"nfs_{name}.txt", root / "anno" / f"{name}.txt"):
        if text.is_file():
            frames = _frames(root / "sequences" / name)
            return _sequence(name, frames.values(), _boxes(text), text)
    text = root / name / "30" / f"{name}.txt"
    frames = list(_frames(root / name / "30" / name).values())
    boxes = _read_vatic(text)[::NFS_RATIO]
    # 240 frames a second end up to one frame earlier or later than 30 a second.
    if abs(len(frames) - len(boxes)) == 1:
        count = min(len(frames), len(boxes))
        frames, boxes = frames[:count], boxes[:count]
    return _sequence(name, frames, boxes, text)


def _read_vatic(path: Path) -> np.ndarray:
    rows = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            values = [parse_number(field) for field in line.split()[1:7]]
            x0, y0, x1, y1, _, lost = values
            if not np.isfinite(values).all():
                raise ValueError
        except ValueError:
            raise SequenceError(
                f"{path}:{number}: {line!r}, expected track xmin ymin xmax ymax frame "
                "lost …"
            ) from None
        if not lost and not (x1 > x0 and y1 > y0):
            raise SequenceError(
                f"{path}:{number}: {line!r}, expected xmax above xmin, ymax above ymin"
            )
        rows.append([np.nan] * 4 if lost else [x0, y0, x1 - x0, y1 - y0])
    return np.array(rows)


def _lasot_extension_names(root: Path) -> list[str]:
    there = any(root.glob("*/*/groundtruth.txt"))
    return list(LASOT_EXTENSION) if there else []


def _lasot_names(root: Path) -> list[str]:
    if not any(root.glob("*/*/groundtruth.txt")):
        return []
    listed = root / "testing_set.txt"
    return _names(listed) if listed.is_file() else list(LASOT_TEST)


def _read_lasot(root: Path, name: str) -> Sequence:
    folder = root / name.rpartition("-")[0] / name
    text = _there(folder / "groundtruth.txt")
    boxes = _boxes_of(read_lasot(folder))
    return _sequence(name, _frames(folder / "img").values(), boxes, text)


def _names_by(pattern: str) -> Callable[[Path], list[str]]:
    """Names of the folders that hold a file of a pattern."""
    return lambda root: [
        path.parent.name
        for path in natural_sort(root.glob(f"[!.]*/{pattern}"))
        if not is_hidden(path.name)
    ]


def _read_folder(images: str, text: str) -> Callable[[Path, str], Sequence]:
    """Reads a folder with its frames in one below, and its boxes in a file."""

    def read(root: Path, name: str) -> Sequence:
        path = root / name / text
        boxes = _boxes(path)
        frames = list_images(root / name / images)
        refuse_twins(frames)
        return _sequence(name, frames, boxes, path)

    return read


def _read_tc128(root: Path, name: str) -> Sequence:
    text = root / name / f"{name}_gt.txt"
    listed = root / name / f"{name}_frames.txt"
    limits = parse_numbers(" ".join(_lines(listed)))
    if len(limits) != 2:
        raise SequenceError(f"{listed}: {limits}, expected the first and last frame")
    first, last = limits
    frames = _frames(root / name / "img")
    kept = [path for number, path in frames.items() if first <= number <= last]
    return _sequence(name, kept, _boxes(text), text)


def _got10k_folder(root: Path, subset: str) -> Path:
    return root / subset if (root / subset).is_dir() else root


def _got10k_names(subset: str) -> Callable[[Path], list[str]]:
    def names(root: Path) -> list[str]:
        listed = _got10k_folder(root, subset) / "list.txt"
        return _names(listed) if listed.is_file() else []

    return names


def _read_got10k_val(root: Path, name: str) -> Sequence:
    folder = _got10k_folder(root, "val") / name
    text = _there(folder / "groundtruth.txt")
    # The toolkit goes by the share of the target that is visible.
    has_cover = (folder / "cover.label").is_file()
    boxes = _boxes_of(read_got10k(folder, absence=not has_cover, cover=has_cover))
    return _sequence(name, _frames(folder).values(), boxes, text)


def _read_got10k_test(root: Path, name: str) -> Sequence:
    folder = _got10k_folder(root, "test") / name
    text = folder / "groundtruth.txt"
    return _first_box(name, _frames(folder).values(), _boxes(text), text)


def _trackingnet_names(root: Path) -> list[str]:
    return _stems(root / "anno")


def _read_trackingnet(root: Path, name: str) -> Sequence:
    text = root / "anno" / f"{name}.txt"
    frames = _frames(root / "frames" / name)
    return _first_box(name, frames.values(), _boxes(text, start=0), text)


def _first_box(
    name: str, frames: Iterable[Path], first: np.ndarray, text: Path
) -> Sequence:
    """A sequence of which the first box alone is published."""
    frames = tuple(frames)
    if len(first) != 1:
        raise SequenceError(f"{text}: {len(first)} lines, expected the first box only")
    unknown = np.full((max(len(frames) - 1, 0), 4), np.nan)
    return _sequence(name, frames, np.concatenate([first, unknown]), text)


_UAV_LAYOUT = "data_seq/UAV123/<folder>/%06d.jpg and anno/{}/<name>.txt"
_OTB_LAYOUT = "<Name>/img/ and <Name>/groundtruth_rect.txt"
_GOT10K_LAYOUT = "{0}/list.txt and {0}/<name>/groundtruth.txt"

_READERS: dict[str, _Reader] = {
    "otb": _Reader(100, _OTB_LAYOUT, lambda root: list(OTB100), _read_otb),
    "otb50": _Reader(50, _OTB_LAYOUT, lambda root: list(OTB50), _read_otb),
    "uav123": _Reader(
        123, _UAV_LAYOUT.format("UAV123"), _uav_names("UAV123"), _read_uav123
    ),
    "uav20l": _Reader(
        20, _UAV_LAYOUT.format("UAV20L"), _uav_names("UAV20L"), _read_uav20l
    ),
    "nfs": _Reader(
        100, "<name>/30/<name>.txt and <name>/30/<name>/%05d.jpg", _nfs_names, _read_nfs
    ),
    "lasot": _Reader(
        280,
        "<class>/<class>-<n>/groundtruth.txt of all that testing_set.txt names, or of "
        "the 280 where there is none",
        _lasot_names,
        _read_lasot,
    ),
    "lasot-ext": _Reader(
        150, "<class>/<class>-<n>/groundtruth.txt", _lasot_extension_names, _read_lasot
    ),
    "tnl2k": _Reader(
        700,
        "<name>/imgs/ and <name>/groundtruth.txt",
        _names_by("groundtruth.txt"),
        _read_folder("imgs", "groundtruth.txt"),
    ),
    "dtb70": _Reader(
        70,
        "<name>/img/ and <name>/groundtruth_rect.txt",
        _names_by("groundtruth_rect.txt"),
        _read_folder("img", "groundtruth_rect.txt"),
    ),
    "tc128": _Reader(
        128,
        "<name>/img/, <name>/<name>_gt.txt and <name>/<name>_frames.txt",
        _names_by("*_gt.txt"),
        _read_tc128,
    ),
    "got10k-val": _Reader(
        180, _GOT10K_LAYOUT.format("val"), _got10k_names("val"), _read_got10k_val
    ),
    "got10k-test": _Reader(
        180, _GOT10K_LAYOUT.format("test"), _got10k_names("test"), _read_got10k_test
    ),
    "trackingnet-test": _Reader(
        511,
        "anno/<name>.txt and frames/<name>/%d.jpg",
        _trackingnet_names,
        _read_trackingnet,
    ),
}


_NAMES = {
    "otb": OTB100,
    "otb50": OTB50,
    "lasot": LASOT_TEST,
    "lasot-ext": LASOT_EXTENSION,
}
"""The sequences of benchmarks whose names are known."""


def _boxes(text: Path, *, start: int = 1) -> np.ndarray:
    """Boxes ``[T, 4]`` from 0 of rows from ``start``; NaN where one is absent."""
    rows = read_rows(_there(text), columns=4, expected="x,y,w,h")
    boxes = rows.values - start * FROM_ONE
    return _boxes_of(Annotation(rows, boxes, np.ones(len(boxes), np.float32)))


def _boxes_of(annotation: Annotation) -> np.ndarray:
    """Boxes ``[T, 4]`` that are NaN where the target is absent; no row may be wrong."""
    for file, _, reason, _ in annotation.rows.rejections:
        raise SequenceError(f"{file}: {reason}")
    boxes = annotation.boxes.copy()
    boxes[no_target(boxes) | (annotation.visibility == 0)] = np.nan
    return boxes


def _frames(folder: Path) -> dict[int, Path]:
    """Images of a folder by the number that their names end with, in order."""
    images = list_images(folder)
    if not images:
        raise SequenceError(f"{folder}: has no frames")
    frames = {}
    for path in images:
        number = re.search(r"\d+$", path.stem)
        if not number or int(number[0]) in frames:
            raise SequenceError(f"{path}: expected one frame for each number")
        frames[int(number[0])] = path
    return frames


def _sequence(
    name: str, frames: Iterable[Path], boxes: np.ndarray, text: Path
) -> Sequence:
    frames = tuple(frames)
    if len(frames) != len(boxes):
        raise SequenceError(
            f"{name}: {len(frames)} frames but {len(boxes)} boxes in {text}; expected "
            "one for each"
        )
    return Sequence(name, frames, boxes)


def _there(text: Path) -> Path:
    if not text.is_file():
        raise _MissingError(str(text))
    return text


def _lines(path: Path) -> list[str]:
    lines = read_lines(_there(path), error=SequenceError)
    return [line.strip() for line in lines if line.strip()]


def _names(listed: Path) -> list[str]:
    """Names of sequences in a list, which become names of files."""
    try:
        return [check_name(line, error=SequenceError) for line in _lines(listed)]
    except SequenceError as error:
        raise SequenceError(f"{listed}: {error}") from error


def _stems(folder: Path) -> list[str]:
    texts = (path for path in folder.glob("*.txt") if not is_hidden(path.name))
    return [path.stem for path in natural_sort(texts)]
