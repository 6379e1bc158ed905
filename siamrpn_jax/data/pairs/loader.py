"""Batches of pairs or labelled images, by threads or worker processes (grain).

The stream depends on the data, the seed and the step alone: any number of workers or
threads, a restart at any step, and any split over hosts give the same global batches.
"""

import functools
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from collections.abc import Sequence as SequenceOf
from typing import Any

import cv2
import grain
import numpy as np
from absl import flags

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.crops.reader import is_prepared
from siamrpn_jax.data.crops.windows import AugmentConfig
from siamrpn_jax.data.pairs.crop_tracks import (
    CropTracks,
    open_tracks,
    warn_of_small_crops,
)
from siamrpn_jax.data.pairs.labelled import LabelledDataset
from siamrpn_jax.data.pairs.pairs import DataConfig, PairDataset, mixture
from siamrpn_jax.data.pairs.record_material import RecordMaterial
from siamrpn_jax.data.pairs.teacher import Teacher
from siamrpn_jax.data.read.pool import open_pools
from siamrpn_jax.data.sampling import check_held_out
from siamrpn_jax.training.batch import Batch, LabelledBatch

log = logging.getLogger(__name__)

_MIB = 2**20
_ENDLESS = 2**48  # Elements; grain wants a length.


def open_datasets(
    config: DataConfig,
    *,
    exemplar_size: int,
    instance_size: int,
    augment: AugmentConfig,
    context: float = 0.5,
    teacher: Teacher | None = None,
) -> tuple[PairDataset, PairDataset | None]:
    """Reads the folders, once, and splits them into training and validation.

    Args:
        config: what pairs are made of.
        exemplar_size: Z, pixels.
        instance_size: X, pixels.
        augment: how pairs are varied, those of validation too.
        context: context of the crops, see ``windows.context_side``.
        teacher: who says where it sees the targets of training pairs, if anybody does.

    Returns:
        The pairs for training and those for validation; without folders both are
        generated, from other seeds. The second is None where no usable data is held
        out: too few files, or a ``validation_fraction`` of 0.

    Raises:
        InputError: no data, or none of the kinds with a weight can be made from it; a
            name to hold out that no sequence has; a video of one name in two folders,
            held out in one of them alone.
        RecordError: a prepared folder that cannot be used.
        SequenceError: a malformed sequence.
        StillsError: malformed stills.
        ImageError: the first frame of a sequence is no image.
    """
    prepared = _open_prepared(config, augment, patches=instance_size / exemplar_size)
    others = [one for one in config.weighted_folders() if not is_prepared(one[0])]
    training, held_out = open_pools(
        [folder for folder, _, _ in others],
        validation_fraction=config.validation_fraction,
        hold_out=config.hold_out,
        fractions=[fraction for _, _, fraction in others],
        bytes_limit=config.bytes_mib * _MIB,
        decoded_limit=config.decoded_mib * _MIB,
        weights=[weight for _, weight, _ in others],
    )
    videos = {kept.video(track)[1] for _, kept in prepared for track in kept.tracks}
    check_held_out(config.hold_out, {*held_out.sequences, *videos})
    make = functools.partial(
        PairDataset,
        config,
        exemplar_size=exemplar_size,
        instance_size=instance_size,
        augment=augment,
        context=context,
    )
    crop_tracks = [tracks for tracks, _ in prepared]
    whole = make(training, crop_tracks=crop_tracks, teacher=teacher)
    kept = [tracks for _, tracks in prepared if len(tracks)]
    empty = bool(config.folders) and not len(held_out.store) and not kept
    if empty or not mixture(config, held_out, kept):
        return whole, None
    validation = make(held_out, crop_tracks=kept, validation=True)
    _check_apart(whole, validation)
    return whole, validation


def _open_prepared(
    config: DataConfig, augment: AugmentConfig, *, patches: float
) -> list[tuple[CropTracks, CropTracks]]:
    """The tracks of each prepared folder, for training and held out; warns of lacks.

    Args:
        config: what pairs are made of.
        augment: how pairs are varied.
        patches: side of the search patch over that of the exemplar.
    """
    prepared = [
        open_tracks(
            folder,
            validation_fraction=config.validation_fraction,
            hold_out=config.hold_out,
            fraction=fraction,
            weight=weight,
            balance=config.balance,
        )
        for folder, weight, fraction in config.weighted_folders()
        if is_prepared(folder)
    ]
    for tracks, _ in prepared:
        warn_of_small_crops(tracks.records, augment, patches=patches)
        if config.prepared_composites and (lack := RecordMaterial(tracks).lack):
            log.warning("%s", lack)
    return prepared


def _check_apart(training: PairDataset, validation: PairDataset) -> None:
    """Refuses videos of one name on both sides, in folders that were split apart."""
    shared = sorted(training.video_names() & validation.video_names())
    if shared:
        raise InputError(
            f"{len(shared)} videos are trained on in one folder and held out for "
            f"validation in another: {', '.join(shared[:8])}: hold them out in all "
            "folders by their names (--data.hold-out), give the folder once, or hold "
            "nothing out (--data.validation-fraction 0)"
        )


class BatchStream(Iterator[Any]):
    """An endless iterator of batches; close it, or use it in a ``with`` statement.

    It yields ``Batch`` or ``LabelledBatch``.
    """

    def __init__(self, iterator: grain.DatasetIterator[Any], *, shared: bool):
        self._iterator, self._shared = iterator, shared

    def __next__(self) -> Any:
        batch = next(self._iterator)
        # Workers hand over shared memory, which must not outlive grain itself.
        return _map(np.array, batch) if self._shared else batch

    def close(self) -> None:
        """Stops the threads and worker processes."""
        self._iterator.close()

    def __enter__(self) -> "BatchStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def batches(
    dataset: PairDataset | LabelledDataset,
    *,
    batch_size: int,
    start_step: int = 0,
    workers: int = 0,
    threads: int = 2,
    prefetch: int = 4,
    host_index: int = 0,
    host_count: int = 1,
) -> BatchStream:
    """Starts the stream of batches.

    OpenCV releases Python's lock, so threads come first; worker processes help where
    one process is not enough, and each keeps its own images in memory. A script that
    uses them needs ``if __name__ == "__main__":``.

    Args:
        dataset: the pairs, or the labelled images.
        batch_size: samples in the global batch, over all hosts.
        start_step: the first batch is the one of this step.
        workers: worker processes; 0 makes batches in this one.
        threads: threads in each process.
        prefetch: batches made ahead in each process.
        host_index: which share of every global batch is wanted.
        host_count: into how many shares it is split.

    Returns:
        An endless iterator of ``Batch``, or of ``LabelledBatch`` for labelled images,
        with ``batch_size // host_count`` samples.

    Raises:
        InputError: a number out of range, or hosts that do not divide the batch.
    """
    if batch_size < 1 or host_count < 1 or batch_size % host_count:
        raise InputError(
            f"batch_size={batch_size}, host_count={host_count}: expected a positive "
            "multiple of the number of hosts"
        )
    if not 0 <= host_index < host_count:
        raise InputError(f"host_index={host_index}, expected 0 to {host_count - 1}")
    if min(start_step, workers) < 0 or min(threads, prefetch) < 1:
        raise InputError(
            f"start_step={start_step}, workers={workers} (expected at least 0), "
            f"threads={threads}, prefetch={prefetch} (expected at least 1)"
        )
    share = batch_size // host_count
    fetch = functools.partial(
        _fetch,
        dataset=dataset,
        batch_size=batch_size,
        first=host_index * share,
        share=share,
    )
    # Batching before the split over workers keeps the stream independent of it.
    pairs = grain.MapDataset.range(start_step * share, _ENDLESS).map(fetch)
    stream = pairs.batch(share, drop_remainder=True, batch_fn=stack).to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    )
    if workers:
        # Grain reads a command-line flag; outside absl's main it was never parsed.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        stream = stream.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers),
            worker_init_fn=_start_worker,
        )
    return BatchStream(iter(stream), shared=workers > 0)


def stack(samples: SequenceOf[Any]) -> Any:
    """Stacks single samples, all of one kind of batch, along a new first axis."""
    return _map(lambda *arrays: np.stack(arrays), *samples)


def _fetch(
    element: int,
    *,
    dataset: PairDataset | LabelledDataset,
    batch_size: int,
    first: int,
    share: int,
) -> Batch | LabelledBatch:
    """From an element of one host's stream to its sample in the global stream."""
    step, place = divmod(element, share)
    index = step * batch_size + first + place
    if isinstance(dataset, LabelledDataset):
        return dataset[index]
    return Batch(*dataset[index])


def _map(function: Callable[..., Any], *trees: Any) -> Any:
    """Maps the arrays at each place of equal nested tuples; None stays."""
    first = trees[0]
    if isinstance(first, tuple):
        parts = zip(*trees, strict=True)
        return type(first)(*(_map(function, *part) for part in parts))
    return None if first is None else function(*trees)


def _start_worker(worker_index: int, worker_count: int) -> None:
    del worker_index, worker_count
    # A terminal signals parent and workers alike. The parent needs its workers until it
    # has ended in order; it stops them itself, without signals.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)  # The workers fill the cores; more threads would only contend.


def _end_with_parent() -> None:
    """Ends this worker process where its parent was killed and cannot do so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
