"""Films as cameras write them, made for a test."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest


def write_coded(
    path: Path,
    pictures: Sequence[np.ndarray] | np.ndarray,
    *,
    codec: str = "libx264",
    rate: int = 25,
    coding: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
) -> None:
    """Writes a film by FFmpeg's encoders, with their B-frames where nothing is said.

    Args:
        path: the suffix says which container.
        pictures: RGB ``uint8 [H, W, 3]``, of even sizes.
        codec: FFmpeg's name for it.
        rate: frames a second.
        coding: the encoder's options.
        container: those of the container.
    """
    av = pytest.importorskip("av", reason="PyAV writes the film of this test")
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no encoder {codec}")
    with av.open(str(path), "w", options=container or {}) as film:
        stream = film.add_stream(codec, rate=rate)
        stream.pix_fmt, stream.options = "yuv420p", coding or {}
        stream.height, stream.width = pictures[0].shape[:2]
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            film.mux(stream.encode(frame))
        film.mux(stream.encode())


def write_interlaced(path: Path, *, count: int = 8, progressive: int = 0) -> list[int]:
    """Writes an MPEG-2 film whose frames are interlaced, all but the first ones.

    Args:
        path: ``.m2v``: parts that are told apart by their flags lie one after another.
        count: how many frames.
        progressive: how many at its start are not interlaced.

    Returns:
        The grey level of each frame.
    """
    levels = [40 + 20 * number for number in range(count)]
    parts = [
        _encode(path.with_suffix(".part.m2v"), levels[:progressive], flags=""),
        _encode(
            path.with_suffix(".part.m2v"), levels[progressive:], flags="+ilme+ildct"
        ),
    ]
    path.write_bytes(b"".join(parts))
    return levels


def _encode(path: Path, levels: list[int], *, flags: str) -> bytes:
    av = pytest.importorskip("av", reason="PyAV writes the film of this test")
    if not levels:
        return b""
    if "mpeg2video" not in av.codecs_available:
        pytest.skip("this PyAV has no encoder for MPEG-2")
    with av.open(str(path), "w", format="mpeg2video") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.bit_rate, stream.options = 2_000_000, {"flags": flags} if flags else {}
        for level in levels:
            picture = np.full((64, 96, 3), level, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    data = path.read_bytes()
    path.unlink()
    return data
