"""A small generated data set in VOT's format, for machines without any other.

Its figures show that everything works; they compare with those of no real data set.
"""

from pathlib import Path

import numpy as np

from siamrpn_jax.data.read.images import encode_jpeg
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.model.boxes import ltwh_to_corners, ltwh_to_cxcywh

LENGTHS = (60, 80, 50, 70)
"""Frames of the sequences of ``write_synthetic``."""

INTERVAL = (30, 60)
"""Lengths over which EAO is taken: VOT's own are longer than these sequences."""


def write_synthetic(
    root: Path, *, lengths: tuple[int, ...] = LENGTHS, seed: int = 104
) -> None:
    """Writes sequences as ``vot initialize`` leaves them, below ``root/sequences``.

    Every other one is annotated with four corners, the others with boxes. Their names
    are their seeds: of one name, one scene.

    Args:
        root: a folder, made where it is missing.
        lengths: frames of each sequence.
        seed: of the first one; those after it count on.
    """
    names = [f"scene{seed + index}" for index in range(len(lengths))]
    for index, (name, length) in enumerate(zip(names, lengths, strict=True)):
        frames, boxes = make_sequence(seed + index, length=length)
        folder = root / "sequences" / name
        _write_frames(folder / "color", frames)
        regions = _corners(boxes) if index % 2 else boxes
        np.savetxt(folder / "groundtruth.txt", regions, "%.2f", ",")
        for attribute, flags in _attributes(boxes).items():
            np.savetxt(folder / f"{attribute}.tag", flags, "%d")
        height, width = frames.shape[1:3]
        (folder / "sequence").write_text(
            f"name={name}\nfps=25\nformat=default\nchannels.color=color/%08d.jpg\n"
            f"width={width}\nheight={height}\nlength={length}\n"
        )
    (root / "sequences" / "list.txt").write_text("\n".join(names) + "\n")


def _write_frames(folder: Path, frames: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, 1):
        (folder / f"{number:08d}.jpg").write_bytes(encode_jpeg(frame, quality=92))


def _corners(boxes: np.ndarray) -> np.ndarray:
    """``ltwh [T, 4]`` to corners ``[T, 8]``, clockwise from the upper left one."""
    return ltwh_to_corners(boxes)[:, [0, 1, 2, 1, 2, 3, 0, 3]]


def _attributes(boxes: np.ndarray) -> dict[str, np.ndarray]:
    """Frames in which the target moves or grows fast."""
    center = ltwh_to_cxcywh(boxes)[:, :2]
    step = np.linalg.norm(np.diff(center, axis=0, prepend=center[:1]), axis=1)
    log_area = np.log(boxes[:, 2] * boxes[:, 3])
    growth = np.abs(np.diff(log_area, prepend=log_area[:1]))
    return {"motion_change": step > 4, "size_change": growth > 0.05}
