"""The loader beside its rival: the same pairs from another kind of storage."""

import numpy as np
import pytest

from experiments.benchmarks import data, torch_data
from experiments.benchmarks.session import Session
from experiments.benchmarks.timing import Plan
from prepared_folders import write_prepared
from siamrpn_jax.data.crops.reader import open_prepared
from siamrpn_jax.data.pairs.crop_tracks import CropTracks
from siamrpn_jax.data.read.images import read_size


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "out"
    write_prepared(folder, tracks=3, length=5)
    return folder


@pytest.fixture
def tracks(folder) -> CropTracks:
    return CropTracks(open_prepared(folder), np.arange(3))


def test_files_give_the_same_pairs(tracks, tmp_path):
    files = torch_data.CropFiles(tracks, tmp_path)
    paths = sorted(tmp_path.rglob("*.x.jpg"))
    assert len(paths) == 15 and read_size(paths[0]) == (511, 511)
    ours, theirs = data._pairs(tracks), data._pairs(files)
    for i in range(20):
        a, b = ours[i], theirs[i]
        np.testing.assert_allclose(a.box, b.box, atol=1e-3)
        # JPEG's losses, and black where the frame does not fill the crop.
        z, x = (np.abs(u.astype(int) - v).mean() for u, v in ((a.z, b.z), (a.x, b.x)))
        assert z < 6 and x < 6


def test_the_first_tracks_hold_so_many_records(tracks):
    found = tracks.records
    assert data._first_tracks(found, 10).tolist() == [0, 1]
    assert data._first_tracks(found, 1).tolist() == [0]
    assert data._first_tracks(found, 999).tolist() == [0, 1, 2]


def test_the_section_measures_what_there_is(folder, monkeypatch):
    monkeypatch.setattr(data, "_STORED_BATCH", 2)
    monkeypatch.setattr(
        data,
        "Plan",
        lambda **fields: Plan(**{**fields, "rounds": 1, "turn_seconds": 0.01}),
    )
    plan = Plan(rounds=1, turn_seconds=0.01, calls=1, skipped=0)
    session = Session(plan=plan, seconds=60, threads=1)
    data.run(session, folders=[folder])
    assert session.targets["pairs_per_cpu_second"]
    theirs = next(row for row in session.rows if row.contestant.startswith("PyTorch"))
    assert theirs.status in ("ok", "absent")
    sizes = [row.note for row in session.rows if "decoded for a pair" in row.case]
    assert all(note.endswith("KiB") for note in sizes) and len(sizes) == 2
