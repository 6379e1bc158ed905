"""Raw datasets in miniature, written for a test, and how parsers read them."""

from pathlib import Path

import numpy as np
import pytest

from data_folders import write_image
from data_prep.command import main
from data_prep.tracks import Dataset, Rejection, Track
from paths import SHARED_DATA
from siamrpn_jax.data.crops.reader import CropDataset, open_prepared
from siamrpn_jax.media.video import VideoWriter


def write_lines(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def write_frames(folder: Path, pattern: str, numbers, *, size=(64, 48)) -> None:
    """Noise, a little different in each frame."""
    rng = np.random.default_rng(0)
    for number in numbers:
        image = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
        write_image(folder / (pattern % number), image)


def write_film(path, *, count, fps=10.0, size=(64, 48)):
    """Frame ``i`` is grey of level ``8 i``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, fps=fps, size=size) as writer:
        for i in range(count):
            writer.write(np.full((size[1], size[0], 3), 8 * i, np.uint8))


def touch_frames(folder: Path, pattern: str, numbers) -> None:
    """Empty files, where no frame is read."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / (pattern % number)).touch()


def read_all(dataset: Dataset, raw: Path, /, **options):
    """Tracks by name, and rejections, of all units."""
    units = dataset.list_units(dataset.options(raw=raw, out=raw / "out", **options))
    assert len({unit.key for unit in units}) == len(units)
    found = [one for unit in units for one in dataset.read_unit(unit)]
    tracks = [one for one in found if isinstance(one, Track)]
    assert len({track.name for track in tracks}) == len(tracks)
    for track in tracks:
        count = len(track.frames)
        assert track.boxes.shape == (count, 4) and track.boxes.dtype == np.float64
        assert track.numbers.shape == (count,) and track.numbers.dtype == np.int64
        assert track.visibility.shape == (count,)
        assert track.visibility.dtype == np.float32
    rejections = [one for one in found if isinstance(one, Rejection)]
    return {track.name: track for track in tracks}, rejections


def prepare(name: str, raw: Path, *arguments: str) -> CropDataset:
    """What the command of a parser makes of a raw folder."""
    out = raw.with_name("prepared")
    fixed = ["--raw", str(raw), "--out", str(out), "--workers", "1"]
    main(name, [*fixed, *arguments])
    return open_prepared(out)


def targets(prepared: CropDataset) -> dict[str, list[int]]:
    """Frame numbers of the records of each track."""
    index = prepared.index
    return {
        name: index.frames[start:stop].tolist()
        for name, start, stop in zip(
            index.names, index.starts[:-1], index.starts[1:], strict=True
        )
    }


def real_sequence(name: str) -> tuple[list[Path], np.ndarray]:
    """Frames and ``ltwh`` boxes from 0 of a real sequence, or skips the test."""
    folder = SHARED_DATA / "dev_sequences" / name
    if not folder.is_dir():
        pytest.skip("skipped: no ../shared")
    boxes = np.loadtxt(folder / "groundtruth.txt", delimiter=",", ndmin=2)
    return sorted((folder / "img").iterdir()), boxes
