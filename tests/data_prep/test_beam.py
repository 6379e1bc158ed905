"""The same shards under Apache Beam."""

import functools

import pytest

from data_prep import beam, writer
from data_prep.shards import Progress, Work
from data_prep.tracks import Options, PreparationError
from prepared_folders import DATASET, assert_same_folders, write_prepared
from siamrpn_jax.common.errors import MissingExtraError


def test_beam_writes_what_processes_write(tmp_path):
    pytest.importorskip("apache_beam", reason="skipped: no apache_beam (extra 'beam')")
    reference, out = tmp_path / "reference", tmp_path / "out"
    write_prepared(reference, tracks=5, length=3)
    options = Options(raw=tmp_path / "reference.raw", out=out)
    run = functools.partial(beam.run, arguments=["--runner=DirectRunner"])
    summary = writer.prepare(DATASET, options, run=run)
    assert summary.accepted and summary.written == 15
    assert_same_folders(out, reference)


def test_arguments_that_beam_refuses():
    pytest.importorskip("apache_beam", reason="skipped: no apache_beam (extra 'beam')")
    with pytest.raises(PreparationError, match="arguments after --: .*NoRunner"):
        beam.run(Work([], 0, Progress()), arguments=["--runner=NoRunner"])


def test_without_beam(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "apache_beam", None)
    write_prepared(tmp_path / "reference", tracks=1, length=1)
    options = Options(raw=tmp_path / "reference.raw", out=tmp_path / "out")
    with pytest.raises(MissingExtraError, match=r"siamrpn-jax\[beam\]"):
        writer.prepare(DATASET, options, run=beam.run)
