"""Prepared folders of generated sequences, written for a test by the real writer."""

import filecmp
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from data_folders import write_stills
from data_prep import folder as own_folder
from data_prep import workers, writer
from data_prep.tracks import Dataset, ImageBytes, Options, Rejection, Track, Unit
from siamrpn_jax.data.scenes.generated import make_sequence


def list_units(options: Options) -> Sequence[Unit]:
    """One for each line of ``units.txt``: a seed, and how many frames."""
    lines = (options.raw / "units.txt").read_text().splitlines()
    return [Unit(f"scene {line}", line) for line in lines]


def read_unit(unit: Unit) -> Iterator[Track | Rejection]:
    """A scene with one track; the categories are 'even' and 'odd'."""
    seed, length, step = map(int, unit.content.split())
    frames, boxes = make_sequence(seed, length=length, height=120, width=160)
    yield Track(
        name=f"scene_{seed}",
        video=f"video_{seed}",
        frames=[encode(frame, f"scene_{seed}/{i}") for i, frame in enumerate(frames)],
        boxes=boxes.astype(np.float64),
        numbers=np.arange(length) * step,
        visibility=np.ones(length, np.float32),
        category=("even", "odd")[seed % 2],
    )


def encode(frame: np.ndarray, name: str) -> ImageBytes:
    """A frame as an image in memory."""
    data = cv2.imencode(".jpg", frame[..., ::-1])[1].tobytes()
    return ImageBytes(name, data)


DATASET = Dataset(
    name="scenes",
    title="Generated scenes",
    layout="units.txt",
    origin="tests",
    list_units=list_units,
    read_unit=read_unit,
    units_per_shard=2,
)


def write_raw(
    folder: Path, *, tracks: int, length: int, step: int = 1, first_seed: int = 0
) -> None:
    """Writes a raw folder of generated scenes; see `write_prepared`."""
    folder.mkdir(parents=True)
    seeds = range(first_seed, first_seed + tracks)
    lines = [f"{seed} {length} {step}\n" for seed in seeds]
    (folder / "units.txt").write_text("".join(lines))


def write_prepared(
    folder: Path,
    *,
    tracks: int = 4,
    length: int = 12,
    step: int = 1,
    first_seed: int = 0,
    dataset: Dataset = DATASET,
    **options,
) -> None:
    """Writes a prepared folder; ``folder.raw`` beside it says what is in it.

    Track ``i`` is of its own video ``video_<seed>``, seed ``first_seed + i``, with
    source frame numbers 0, ``step``, … and the category ``even`` or ``odd`` by its
    seed. Two tracks make a shard. ``length=1`` makes stills.
    """
    raw = folder.with_name(f"{folder.name}.raw")
    write_raw(raw, tracks=tracks, length=length, step=step, first_seed=first_seed)
    _prepare(dataset, Options(raw=raw, out=folder, workers=1, **options))


def write_prepared_stills(folder: Path, *, count: int, **options) -> None:
    """Prepares what ``write_stills`` writes: every third object has an outline."""
    raw = folder.with_name(f"{folder.name}.raw")
    write_stills(raw, count)
    chosen = own_folder.FolderOptions(raw=raw, out=folder, workers=1, **options)
    _prepare(own_folder.DATASET, chosen)


def _prepare(dataset: Dataset, options: Options) -> None:
    run = functools.partial(workers.run, workers=1)
    summary = writer.prepare(dataset, options, run=run)
    assert summary.accepted, summary.lines()


def assert_same_folders(a: Path, b: Path) -> None:
    """Asserts that two folders hold the same files, byte by byte."""
    names = sorted(str(p.relative_to(a)) for p in a.rglob("*") if p.is_file())
    assert names == sorted(str(p.relative_to(b)) for p in b.rglob("*") if p.is_file())
    _, different, unreadable = filecmp.cmpfiles(a, b, names, shallow=False)
    assert different == unreadable == []
