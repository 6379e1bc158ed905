"""Writing files so that nobody ever sees half of one, and folders one at a time."""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from siamrpn_jax.common.errors import InputError

LOCK_NAME = ".lock"
"""The hidden file by which processes keep each other from writing to a folder."""


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path in the same folder, renamed to ``path`` at the end.

    If the body fails (a full disk, say) the temporary file is removed and what was at
    ``path`` before stays.

    Raises:
        OSError: naming ``path``, if it cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, report: Mapping[str, Any]) -> None:
    """Writes a report; a figure that is not finite is an error, not ``NaN``."""
    with replacing(path) as temporary:
        text = json.dumps(report, indent=2, allow_nan=False) + "\n"
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keeps other processes from writing to a folder; made where it is missing.

    The lock ends with the process that holds it, however it ends.

    Raises:
        InputError: another process writes to the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / LOCK_NAME, timeout=0):
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # Windows keeps what is open
                    (folder / LOCK_NAME).unlink()
    except filelock.Timeout:
        raise InputError(
            f"{folder}: another process writes to this folder: wait for it, or choose "
            "another folder"
        ) from None
