"""Section ``data``: what the loader delivers, and what its parts cost."""

import contextlib
import dataclasses
import functools
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np

from experiments.benchmarks import cases, torch_data
from experiments.benchmarks.session import Contestant, Row, Running, Session
from experiments.benchmarks.timing import Plan
from siamrpn_jax import presets
from siamrpn_jax.data.crops import format, reader
from siamrpn_jax.data.pairs import loader
from siamrpn_jax.data.pairs.crop_tracks import CropTracks
from siamrpn_jax.data.pairs.pairs import DataConfig, PairDataset
from siamrpn_jax.data.read.images import decode_image
from siamrpn_jax.data.read.pool import open_pools
from siamrpn_jax.tracking import crops

_BATCH = 16
_STORED_BATCH, _STORED_BATCHES = 32, 4  # Pairs in a batch, batches in a call.
_STORED_RECORDS = 1500  # Some 100 MB as files.


def run(session: Session, *, folders: Sequence[Path] = ()) -> None:
    """The whole section."""
    recipe = presets.small()
    config = dataclasses.replace(recipe.data, folders=tuple(map(str, folders)))
    pairs, _ = loader.open_datasets(
        config,
        exemplar_size=recipe.model.exemplar_size,
        instance_size=recipe.model.instance_size,
        augment=recipe.augment,
    )
    for threads in sorted({1, session.threads, 2 * session.threads}):
        _loader(session, pairs, threads, source="folders" if folders else "scenes")
    _parts(session)
    session.expect("pairs_per_cpu_second", "pairs_per_cpu_second_vs_pysot_files")
    for folder in filter(reader.is_prepared, folders[:1]):
        _stored(session, folder)


def _loader(
    session: Session, pairs: loader.PairDataset, threads: int, *, source: str
) -> None:
    """One stream at a time, without rounds: what it makes ahead would disturb others.

    Its first batches do not count: there images are read and scenes drawn.
    """
    with loader.batches(pairs, batch_size=_BATCH, threads=threads) as stream:
        session.race(
            "data",
            f"small, pairs from {source}, batch {_BATCH}",
            [Contestant.part(f"threads={threads}", lambda: next(stream))],
            amount=_BATCH,
            quantity="pairs/s",
            compare=False,
            plan=Plan(
                rounds=1, turn_seconds=10 * session.plan.turn_seconds, skipped=40
            ),
        )


def _parts(session: Session) -> None:
    """A frame's way into the tracker: decoding on the host, crop on the device."""
    frames, truth = cases.clip(2)
    bgr = cv2.cvtColor(frames[0], cv2.COLOR_RGB2BGR)
    jpeg = cv2.imencode(".jpg", bgr)[1].tobytes()
    frame, fill = jax.device_put(frames[0]), crops.channel_mean(frames[0])
    config = presets.paper().model
    calls = {
        "decode a JPEG of 640x480": lambda: decode_image(jpeg, name="frame"),
        "crop 255x255 on the device": lambda: jax.block_until_ready(
            cases.crop(frame, truth[0], fill, config=config, size=255)
        ),
    }
    parts = [Contestant.part(name, call) for name, call in calls.items()]
    session.race("data", "one frame", parts, compare=False)
    large = cv2.resize(frames[0], (1280, 720), interpolation=cv2.INTER_CUBIC)
    make = functools.partial(format.make_record, large, crops=format.CropConfig())
    box = np.array([500.0, 300, 90, 120])
    calls = {"cut and encode": lambda: make(box)}
    parts = [Contestant.part(name, call) for name, call in calls.items()]
    session.race("data", "one record of a frame of 1280x720", parts, compare=False)


def _stored(session: Session, folder: Path) -> None:
    """CropDataset records beside PySOT's files: the same pairs, warps and colours.

    In CPU time of this process, with one thread each: what one core makes.
    """
    found = reader.open_prepared(folder)
    tracks = CropTracks(found, _first_tracks(found, _STORED_RECORDS))
    with contextlib.ExitStack() as stack:
        stack.callback(cv2.setNumThreads, cv2.getNumThreads())
        cv2.setNumThreads(1)  # as in training
        files = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def ours() -> Running:
            stream = loader.batches(_pairs(tracks), batch_size=_STORED_BATCH, threads=1)
            return Running(_several(stack.enter_context(stream)))

        def theirs() -> Running:
            pairs = _pairs(torch_data.CropFiles(tracks, files))
            return Running(
                _several(torch_data.batches(pairs, batch_size=_STORED_BATCH))
            )

        race = session.race(
            "data",
            f"prepared records of {found.name}, paper, CPU time",
            [
                Contestant("siamrpn_jax", ours, None),
                Contestant("PyTorch DataLoader, 511-pixel files", theirs, None),
            ],
            amount=_STORED_BATCH * _STORED_BATCHES,
            quantity="pairs/CPU-s",
            seconds=60,
            plan=Plan(rounds=3, turn_seconds=2, skipped=3, cpu_time=True),
        )
        _note_sizes(session, tracks, files)
    session.target("pairs_per_cpu_second", race.value("siamrpn_jax", "rate"))
    session.target(
        "pairs_per_cpu_second_vs_pysot_files",
        race.ratio("PyTorch DataLoader, 511-pixel files"),
    )


def _first_tracks(found: reader.CropDataset, limit: int) -> np.ndarray:
    """The first tracks that together have this number of records, at least one."""
    count = int(np.searchsorted(found.index.starts, limit, "right")) - 1
    return np.arange(min(max(count, 1), len(found.index.names)))


def _pairs(tracks: CropTracks) -> PairDataset:
    recipe = presets.paper()
    pool, _ = open_pools((), validation_fraction=0, bytes_limit=0, decoded_limit=0)
    return PairDataset(
        DataConfig(folders=(str(tracks.records.folder),)),
        pool,
        crop_tracks=[tracks],
        exemplar_size=recipe.model.exemplar_size,
        instance_size=recipe.model.instance_size,
        augment=recipe.augment,
    )


def _several(stream: Iterator[Any]) -> Callable[[], Any]:
    return lambda: list(itertools.islice(stream, _STORED_BATCHES))


def _note_sizes(session: Session, tracks: CropTracks, files: Path) -> None:
    """What is decoded for a pair: exemplar and search crop, or two files."""
    numbers = list(torch_data.record_numbers(tracks))
    read = [tracks.records[i] for i in numbers]
    stored = np.mean([len(r.exemplar) + len(r.search) for r in read])
    sizes = [path.stat().st_size for path in files.rglob("*.jpg")]
    for name, size in (
        ("siamrpn_jax", stored),
        ("PySOT's files", 2 * np.mean(sizes) if sizes else np.nan),
    ):
        note = f"{size / 1024:.1f} KiB" if np.isfinite(size) else "no files"
        session.add(
            Row(
                "data",
                "JPEG bytes decoded for a pair",
                name,
                "ok",
                note,
                threads=session.threads,
            )
        )
