"""Section ``many``, its films: objects in a film of 1280x720, from file to boxes."""

import csv
import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from experiments.benchmarks.session import Contestant, Running, Session
from siamrpn_jax.api import Tracker, load
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.evaluation.trackers import BaselineName, make_baseline
from siamrpn_jax.labelling.session import Session as Labelling
from siamrpn_jax.media.video import Video, VideoWriter

WIDTH, HEIGHT = 1280, 720
LENGTHS = {1: 60, 8: 30, 32: 12}
"""Frames of the film for each number of objects."""


def run(session: Session, *, nano: tuple[Path, ...] = ()) -> None:
    """Decodes a film, tracks one, 8 and 32 objects, and writes their boxes.

    Args:
        session: what all sections share.
        nano: NanoTrack's backbone and head, if they take part.
    """
    with tempfile.TemporaryDirectory(prefix="siamrpn-film-") as folder:
        for count, length in LENGTHS.items():
            film, starts = _write_film(Path(folder), count, length)
            entries = [
                Contestant(
                    "ours, a session", functools.partial(_ours, film, starts), None
                )
            ]
            peers: list[BaselineName] = ["nano", "csrt"] if nano else ["csrt"]
            for name in peers:
                files = nano if name == "nano" else ()
                make = functools.partial(_peers, name, files, film, starts)
                entries.append(Contestant(f"OpenCV {name}", make, None))
            session.race(
                "many",
                f"small, film of {WIDTH}x{HEIGHT} to boxes, {count} objects",
                entries,
                amount=length,
                quantity="frames/s",
                seconds=30,
            )


def _write_film(folder: Path, count: int, length: int) -> tuple[Path, np.ndarray]:
    """A film, and the boxes of its objects in the first frame, ``ltwh [N, 4]``."""
    frames, truth = make_sequence(0, length=length, height=HEIGHT, width=WIDTH)
    path = folder / f"film{count}.webm"
    with VideoWriter(path, fps=25, size=(WIDTH, HEIGHT)) as writer:
        for frame in frames:
            writer.write(frame)
    rng = np.random.default_rng(0)
    corners = rng.uniform((0, 0), (WIDTH - 140, HEIGHT - 140), (count, 2))
    starts = np.concatenate([corners, rng.uniform(40, 120, (count, 2))], axis=1)
    starts[0] = truth[0]
    return path, starts


def _ours(film: Path, starts: np.ndarray) -> Running:
    tracker = load("small")

    def follow() -> None:
        _write_boxes(film, _session_boxes(tracker, film, starts))

    return Running(follow)


def _session_boxes(
    tracker: Tracker, film: Path, starts: np.ndarray
) -> Iterator[np.ndarray]:
    session = Labelling(film, tracker=tracker)
    for number, box in enumerate(starts):
        session.add_box(0, number, box)
    for result in session.propagate():
        yield result.boxes_ltwh


def _peers(
    name: BaselineName, files: tuple[Path, ...], film: Path, starts: np.ndarray
) -> Running:
    trackers = [make_baseline(name, files=files) for _ in starts]

    def boxes() -> Iterator[np.ndarray]:
        for index, frame in enumerate(Video(film)):
            if index == 0:
                for tracker, box in zip(trackers, starts, strict=True):
                    tracker.init(frame, box)
                yield starts
            else:
                yield np.array([_box(tracker.update(frame)) for tracker in trackers])

    return Running(lambda: _write_boxes(film, boxes()))


def _box(answer: object) -> np.ndarray:
    """The box of a tracker's answer, with or without OpenCV's flag before it."""
    return np.asarray(answer[1] if isinstance(answer, tuple) else answer, np.float64)


def _write_boxes(film: Path, boxes: Iterator[np.ndarray]) -> None:
    """Writes a row for each object in each frame, as a tracker is used for."""
    path = film.with_suffix(f".{os.getpid()}.csv")
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        for index, found in enumerate(boxes):
            rows.writerows([index, n, *box] for n, box in enumerate(found.tolist()))
    path.unlink()
