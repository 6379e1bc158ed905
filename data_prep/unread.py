"""Files of your own folder that look like labels, and that nothing reads."""

import re
from collections.abc import Iterable, Set
from pathlib import Path

_TABLES = (".csv", ".tsv", ".txt")
_TREES = (".json", ".jsonl", ".ndjson", ".xml")
_ABOUT = re.compile(
    r"read.?me|licen[cs]e|copying|notice|requirements|change.?log|citation", re.I
)
"""Names of texts that come with data."""

_COMPANIONS = frozenset(("det.txt", "notes.json", "dataset_info.json"))
"""What some tools write beside the labels, and nobody needs to read."""

_NUMBER = re.compile(r"(?<![\w./-])(?<!\d:)[-+]?(?:\d+\.?\d*|\.\d+)(?![\w./:-])")
"""A number that stands alone: in no word, name of a file, date or time."""

_ENOUGH = 4
"""Numbers of a box."""

_HEAD = 2**16
"""How much of a file is looked at, bytes."""


def find_unread(
    folders: Iterable[tuple[Path, list[str]]], taken: Set[Path]
) -> list[Path]:
    """The files that look like labels and are not taken.

    Args:
        folders: each folder, with the names of its files.
        taken: the files that are read.
    """
    files = (folder / name for folder, names in folders for name in sorted(names))
    return [path for path in files if path not in taken and _looks_like_labels(path)]


def _looks_like_labels(path: Path) -> bool:
    """Whether it may hold a box: four numbers, of a table in one line."""
    suffix = path.suffix.lower()
    if suffix not in (*_TABLES, *_TREES) or path.name in _COMPANIONS:
        return False
    if _ABOUT.match(path.name):
        return False
    text = _head(path)
    parts = text.splitlines() if suffix in _TABLES else [text]
    return any(len(_NUMBER.findall(part)) >= _ENOUGH for part in parts)


def _head(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_HEAD)
    except OSError:
        return ""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    return data.decode(encoding, errors="replace")
