"""Writing files so that nobody ever sees half of one, and folders one at a time."""

import contextlib
import hashlib
import json
import os
import re
import uuid
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from siamrpn_jax.common.errors import InputError, reason_of

_TEMPORARY = re.compile(r"\.[0-9a-f]{12}-part(\.[\w-]+)?")
"""The names that ``replacing`` gives."""

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
    # Not longer than most names: theirs may be as long as the file system allows.
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}-part{path.suffix}")
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


def check_place(path: Path, option: str, *, is_file: bool = False) -> None:
    """Checks, before long work, that a folder or a file can be written.

    Args:
        path: where; folders that are missing will be made.
        option: that gives it, for the error.
        is_file: whether it is to be a file.

    Raises:
        InputError: a folder is where the file is to be, or a file where a folder is; or
            nothing may be written there.
    """
    if is_file and path.is_dir():
        raise InputError(f"{path}: is a folder, expected the name of a file {option}")
    folders = path.parents if is_file else (path, *path.parents)
    place = next(folder for folder in folders if folder.exists())
    if not place.is_dir():
        raise InputError(f"{place}: is no folder, choose another {option}")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"{place}: may not be written to, choose another {option}")


def inside(folder: Path, name: str, *, error: type[InputError] = InputError) -> Path:
    """A path below a folder, by a name that somebody's file gives.

    Args:
        folder: where it has to be.
        name: of a file or folder, or a path with ``/``.
        error: what is raised.

    Raises:
        InputError: as ``error``: the name is empty, leads elsewhere, or is none.
    """
    parts = name.replace("\\", "/").split("/") if isinstance(name, str) else []
    plain = all(part and part not in (".", "..") for part in parts)
    drive = bool(parts) and re.match(r"[A-Za-z]:", parts[0])
    if not parts or not plain or drive or "\0" in name or max(map(len, parts)) > 255:
        raise error(f"{name!r:.300}: expected the name of a file in {folder}")
    return folder.joinpath(*parts)


def check_name(name: str, *, error: type[InputError] = InputError) -> str:
    """The name of a sequence, which becomes the name of a file.

    Raises:
        InputError: as ``error``: it would be a file somewhere else, or none.
    """
    if len(inside(Path(), name, error=error).parts) != 1:
        raise error(f"{name!r:.300}: expected a name without a path")
    return name


def read_json(
    path: str | Path, *, error: type[InputError] = InputError, **options: Any
) -> Any:
    """Reads a JSON file of somebody else's.

    Args:
        path: the file.
        error: what is raised.
        **options: of ``json.loads``.

    Raises:
        InputError: as ``error``, naming the file: it cannot be read, is no JSON, or is
            nested deeper than anybody writes.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as problem:  # ValueError: a NUL in the name
        raise error(f"{path}: cannot be read ({reason_of(problem)})") from problem
    try:
        return json.loads(data.decode("utf-8-sig"), **options)
    except (ValueError, RecursionError) as problem:
        raise error(f"{path}: is not JSON ({str(problem)[:200]})") from problem


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keeps other processes from writing to a folder; made where it is missing.

    The lock ends with the process that holds it, however it ends. What ``replacing``
    left there when a process was killed is removed first.

    Raises:
        InputError: another process writes to the folder.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / LOCK_NAME, timeout=0):
            try:
                remove_temporaries(folder)
                yield
            finally:
                with contextlib.suppress(OSError):  # Windows keeps what is open
                    (folder / LOCK_NAME).unlink()
                if is_new:
                    with contextlib.suppress(OSError):  # it holds something now
                        folder.rmdir()
    except filelock.Timeout:
        raise InputError(
            f"{folder}: another process writes to this folder: wait for it, or choose "
            "another folder"
        ) from None


def remove_temporaries(folder: Path) -> None:
    """Removes what ``replacing`` left in a folder when a process was killed.

    Only for who has the folder alone: others may be at work on theirs.
    """
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of all files at any depth of a folder, by their paths in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
            found[path.relative_to(folder).as_posix()] = digest.hexdigest()
    return found


def fingerprint(path: Path) -> str:
    """Fingerprint of what a file holds, 8 hexadecimal digits; empty without a file."""
    return f"{zlib.crc32(path.read_bytes()):08x}" if path.is_file() else ""
