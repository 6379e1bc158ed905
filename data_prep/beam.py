"""Shards written under Apache Beam: on one machine or on many.

The file system of ``--raw`` and ``--out`` must be the same for all workers. Each shard
is one element; the machine that started the pipeline finishes the folder.
"""

from collections.abc import Sequence

import cv2

from data_prep.shards import ShardJob, Work, write_shard
from data_prep.tracks import PreparationError
from siamrpn_jax.common.errors import require


def run(work: Work, *, arguments: Sequence[str] = ()) -> None:
    """Writes shards in a pipeline, and waits for its end.

    Args:
        work: what to write.
        arguments: Beam's own, for example ``--runner=FlinkRunner``.

    Raises:
        PreparationError: Beam refuses the arguments.
        MissingExtraError: apache_beam is not installed.
    """
    beam = require("apache_beam", extra="beam")
    options = require("apache_beam.options.pipeline_options", extra="beam")
    try:
        pipeline = beam.Pipeline(options=options.PipelineOptions(list(arguments)))
    except ValueError as error:
        raise PreparationError(f"arguments after --: {error}") from error
    with pipeline:
        jobs = pipeline | beam.Create(list(work.jobs))
        # Without this a runner may fuse the steps, and one worker write all shards.
        _ = jobs | beam.Reshuffle() | beam.Map(_write)


def _write(job: ShardJob) -> None:
    cv2.setNumThreads(1)  # the runner decides how many workers share a machine
    write_shard(job)
