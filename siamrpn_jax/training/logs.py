"""Where the numbers of a training run go."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from siamrpn_jax.common.errors import require
from siamrpn_jax.common.files import replacing


class MetricWriter(Protocol):
    """What ``train`` writes to; any experiment tracker fits behind it."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records named numbers of a step."""
        ...

    def close(self) -> None:
        """Makes everything durable."""
        ...


class JsonLinesWriter:
    """One JSON object a line: ``{"step": 100, "loss": 0.7, …}``.

    Args:
        path: the file; it is continued if it exists.
        start_step: lines of this step and later ones, left by a run that went on after
            its last checkpoint, are removed first.
    """

    def __init__(self, path: Path, *, start_step: int = 0):
        lines = path.read_text().splitlines() if path.is_file() else []
        kept = [line for line in lines if _step(line) < start_step]
        with replacing(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept))
        self._path, self._file = path, path.open("a", encoding="utf-8")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends a line, at once visible to readers.

        Raises:
            OSError: naming the file.
        """
        try:
            self._file.write(json.dumps({"step": step, **metrics}) + "\n")
            self._file.flush()
        except OSError as error:
            raise OSError(f"cannot write {self._path}: {error}") from error

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TensorBoardWriter:
    """Event files for TensorBoard, written without TensorFlow (extra ``train``)."""

    def __init__(self, folder: Path, *, start_step: int = 0):
        tensorboard = require("tensorboardX", extra="train")
        purge = start_step or None
        self._writer = tensorboard.SummaryWriter(str(folder), purge_step=purge)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds one scalar per metric."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()


def _step(line: str) -> float:
    """The step of a line; a line cut short by a crash is dropped like a late one."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")
