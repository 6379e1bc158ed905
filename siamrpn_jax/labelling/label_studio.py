"""What Label Studio means: the media that its tasks are of, and its count of frames."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from siamrpn_jax.common.errors import InputError

_UPLOAD = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the names of files that are uploaded."""

_SHARE_OFF, _SECONDS_OFF = 0.05, 0.2
"""How far a duration may be from the film's own: sound lasts on, lengths are rough."""

_MOST_A_FRAME, _LONGEST = 1000, 10**6
"""Frames that Label Studio may count for one of a film, by a high rate of a slow one;
and those of a film whose number of frames is not known."""


def media_of(
    data: Mapping[str, Any], by_name: Mapping[str, Sequence[Path]]
) -> list[Path]:
    """The files that a task is of, each once; more than one where it is unclear.

    Args:
        data: of the task; its texts may be addresses.
        by_name: files to choose from, by their names.

    Raises:
        InputError: several files agree equally well with an address.
    """
    addresses = [value for value in data.values() if isinstance(value, str)]
    found = [find_media(address, by_name) for address in addresses]
    return list(dict.fromkeys(filter(None, found)))


def find_media(address: str, by_name: Mapping[str, Sequence[Path]]) -> Path | None:
    """The file that an address means: of equal names the one whose folders agree best.

    Args:
        address: a path or a URL, such as ``/data/local-files/?d=a/my%20film.mp4``,
            ``/data/upload/3/0123abcd-film.mp4`` or a signed one of a cloud storage.
        by_name: files to choose from, by their names.

    Returns:
        The file, or None if none has the name.

    Raises:
        InputError: several files agree equally well.
    """
    for text in _paths(address):
        *folders, name = re.split(r"[/\\]", text)
        found = by_name.get(name) or by_name.get(_UPLOAD.sub("", name)) or ()
        agreements = [_agreement(folders, file.parent.parts) for file in found]
        best = [
            file
            for file, agreement in zip(found, agreements, strict=True)
            if agreement == max(agreements)
        ]
        if len(best) > 1:
            raise InputError(f"is of {address}: {best[0]} or {best[1]}?")
        if best:
            return best[0]
    return None


def count_frames(told: Any, *, length: int | None) -> int:
    """The frames of a film as Label Studio counts them.

    Args:
        told: ``framesCount``; the film's own number where it is missing.
        length: of the film, frames, where it is known.

    Raises:
        InputError: it is no number, or none that this film has.
    """
    if length and not told:
        return length
    high = _MOST_A_FRAME * (length or _LONGEST)
    if not is_number(told) or not 1 <= told <= high:
        raise InputError(f"framesCount is {told!r:.80}, expected 1 to {high}")
    return int(told)


def whole_frame(frame: Any) -> int:
    """The number of a key frame as Label Studio counts.

    Raises:
        InputError: it is no whole number.
    """
    if not is_number(frame) or frame % 1:
        raise InputError(f"frame {frame!r:.80}, expected a whole number")
    return int(frame)


def film_frame(frame: int, *, count: int, length: int) -> int:
    """The frame of a film, from 0, that Label Studio shows as one of its own.

    It counts by the ``frameRate`` of its ``Video`` tag, 24 unless it is set, not by the
    film's own; times bring them to each other.

    Args:
        frame: as Label Studio counts, from 1.
        count: of frames in the film as Label Studio counts them.
        length: of the film, frames.

    Raises:
        InputError: there is no such frame.
    """
    if not 1 <= frame <= count:
        raise InputError(f"frame {frame}, expected 1 to {count}")
    if count == length:
        return frame - 1
    return min(round((frame - 1) * length / count), length - 1)


def duration_problem(
    duration: Any, name: str, *, length: int | None, fps: float | None
) -> str:
    """What tells that another film was labelled; nothing, as a rule.

    Args:
        duration: of the film as Label Studio has it, seconds; where it has none, or the
            film's own is not known, nothing can be told.
        name: of the film's file.
        length: of the film, frames.
        fps: of the film, frames a second.
    """
    if not (is_number(duration) and duration > 0 and length and fps):
        return ""
    seconds = length / fps
    if abs(duration - seconds) <= max(_SHARE_OFF * seconds, _SECONDS_OFF):
        return ""
    return (
        f"is of a film of {duration:.4g} s, and {name} lasts {seconds:.4g} s, "
        "expected the film that was labelled"
    )


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number."""
    return type(value) in (int, float)


def _paths(address: str) -> Iterator[str]:
    """What an address may say of a file's path, the most likely first."""
    try:
        parts = urlsplit(address)
    except ValueError:  # brackets that hold no IP address
        pass
    else:
        yield from parse_qs(parts.query).get("d", ())  # a file of a local storage
        yield unquote(parts.path)
    yield address  # a path whose name looks like a part of a URL


def _agreement(wanted: Sequence[str], found: Sequence[str]) -> int:
    """Number of folders above a file that are the same, from the file on."""
    pairs = zip(reversed(wanted), reversed(found), strict=False)
    equal = [a == b for a, b in pairs]
    return equal.index(False) if False in equal else len(equal)
