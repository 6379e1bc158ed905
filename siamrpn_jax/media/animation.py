"""Animated pictures for pages: WebP, GIF, PNG or AVIF, as OpenCV writes them."""

from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import replacing
from siamrpn_jax.data.read.images import check_frame
from siamrpn_jax.media.drawing import shrink

SUFFIXES = (".webp", ".gif", ".png", ".avif")
"""Formats that OpenCV may have been built with."""

QUALITY = 75
"""Quality of WebP, up to 100. Where light changes slowly, it keeps blocks of earlier
frames."""


class AnimationWriter:
    """Collects frames and writes them, repeated for ever; a context manager.

    All frames shown are held until the end, when the file gets its name: this is for
    short films.

    Args:
        path: its suffix names the format.
        fps: frames a second of the film.
        width: in pixels; wider frames are made smaller, others are left.
        stride: one of this number of frames is shown, for as long as they all last.

    Raises:
        InputError: a suffix that OpenCV cannot write here, a rate, width or stride that
            is not above 0, or no frame at the end.
        OSError: naming ``path``: it cannot be written whole.
    """

    def __init__(
        self, path: str | Path, *, fps: float, width: int = 480, stride: int = 1
    ):
        self.path = Path(path)
        self._width, self._stride, self._fps = width, stride, fps
        self._frames: list[np.ndarray] = []
        self._count = 0
        if self.path.suffix.lower() not in SUFFIXES:
            raise InputError(
                f"{path}: suffix {self.path.suffix!r}, expected {', '.join(SUFFIXES)}"
            )
        if not hasattr(cv2, "imwriteanimation") or not cv2.haveImageWriter(str(path)):
            raise InputError(
                f"{path}: OpenCV {cv2.__version__} writes no such animation here, "
                "expected .webp"
            )
        if not (np.isfinite(fps) and min(fps, width, stride) > 0):
            raise InputError(
                f"{path}: {fps} frames/s, width {width}, stride {stride}: expected "
                "numbers above 0"
            )

    def write(self, frame: np.ndarray) -> None:
        """Appends a frame, RGB uint8 [H, W, 3]; all of one size."""
        if self._count % self._stride == 0:
            frame = shrink(check_frame(frame), self._width)
            self._frames.append(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self._count += 1

    def close(self) -> None:
        """Writes the file."""
        if not self._frames:
            raise InputError(f"{self.path}: no frame was written")
        # Whole milliseconds whose sum does not drift from the film's length.
        starts = np.append(np.arange(0, self._count, self._stride), self._count)
        animation = cv2.Animation()
        animation.frames = self._frames
        animation.durations = [
            int(ms) for ms in np.diff(np.round(starts * 1000 / self._fps))
        ]
        with replacing(self.path) as part:
            options = [cv2.IMWRITE_WEBP_QUALITY, QUALITY]
            if part.suffix.lower() != ".webp":
                options = []
            if not cv2.imwriteanimation(str(part), animation, options):
                raise OSError(f"OpenCV could not write {len(self._frames)} frames")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
