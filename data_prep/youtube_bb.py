"""YouTube-BB: 5.6 million boxes of 23 classes in 240,000 videos, one a second.

Real et al., CVPR 2017. Published is one csv file a split, without the videos. A row is
``youtube_id, timestamp_ms, class_id, class_name, object_id, object_presence, xmin,
xmax, ymin, ymax``; the borders are fractions of the frame. A target is known by the
video, its class and its object together. Rows of one may lie between those of others.
Where ``object_presence`` is ``absent`` or ``uncertain`` there is no box.

Frames come from what the common tools leave in any folder below ``--raw``; of several
the first is taken:

- ``<youtube_id>_<ms>_<class>_<object>.jpg`` (youtube-bb-utility) or
  ``<youtube_id>+<class>+<object>+<ms>.jpg`` (youtube-bb): the annotated frames.
- ``<youtube_id>+<class>+<object>.mp4`` (youtube-bb): cut from the video, from the first
  annotated time on.
- ``<youtube_id>.mp4`` (yt-dlp and others): the whole video.

In films the frame nearest in time is taken, by the rate that the file declares. Source
frames are numbered at 30 a second: ``round(timestamp_ms * 30 / 1000)``.

Many videos are gone for good, so those that are not there are no fault: they are listed
in ``rejected.json`` as the loss of no record.
"""

import gzip
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from data_prep.tracks import (
    Dataset,
    Frame,
    Options,
    PreparationError,
    Rejection,
    Track,
    Unit,
    VideoFrame,
)
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.formats import parse_number
from siamrpn_jax.data.read.images import FILM_SUFFIXES
from siamrpn_jax.data.read.sequences import walk
from siamrpn_jax.media.video import Video

COLUMNS = 10
_LONGEST_MS = 1e9
"""Times beyond, twelve days, are damage."""

FRAMES_A_SECOND = 30
"""At which source frames are numbered."""

FRAME_NAMES = {
    "{0}_{ms}_{1}_{2}.jpg": re.compile(r"(.+)_\d+_(\d+)_(\d+)\.jpg"),
    "{0}+{1}+{2}+{ms}.jpg": re.compile(r"(.+)\+(\d+)\+(\d+)\+\d+\.jpg"),
}
"""Names of extracted frames; 0, 1 and 2 are the video, the class and the object."""

CLIP_NAME = re.compile(r"(.+)\+(\d+)\+(\d+)")
"""Name of a film cut from the video, without its suffix."""

log = logging.getLogger(__name__)

Target = tuple[str, str, str]
"""The video, the class and the object."""


@dataclass(frozen=True)
class YoutubeBbOptions(Options):
    """Options of YouTube-BB."""

    split: Literal["train", "validation"] = "train"
    """Which videos."""


class Frames(NamedTuple):
    """The annotated frames of a target, as images."""

    folder: Path
    name: str
    """One of ``FRAME_NAMES``."""


class Film(NamedTuple):
    """A film that shows a target."""

    path: Path
    cut: bool
    """Whether it begins at the first annotated time, not at 0."""


@dataclass
class Media:
    """What is there of one video."""

    frames: dict[Target, Frames] = field(default_factory=dict)
    films: dict[Target | None, Film] = field(default_factory=dict)
    """By target; of none in particular is the whole video."""

    def of(self, target: Target) -> Frames | Film | None:
        """What shows a target, if anything does."""
        films = self.films
        return self.frames.get(target) or films.get(target) or films.get(None)


class Annotated(NamedTuple):
    """What a unit holds of a video that is there."""

    csv: Path
    lines: list[str]
    media: Media


class Unusable(NamedTuple):
    """What the last unit holds, if there is any of it."""

    csv: Path
    missing: list[str]
    """Videos that are not there."""

    lines: list[str]
    """Rows that are not of ten columns."""


class Row(NamedTuple):
    """What the csv file says of one target and frame."""

    ms: int
    category: str
    visible: bool
    ltwh: tuple[float, float, float, float]


def list_units(options: YoutubeBbOptions) -> list[Unit]:
    """A unit for each video that is there, in the order of the csv file."""
    csv = options.raw / f"yt_bb_detection_{options.split}.csv"
    found = find_media(options.raw)
    videos: dict[str, list[str]] = {}
    missing: dict[str, None] = {}
    broken: list[str] = []
    for line in _lines(csv):
        video = line.partition(",")[0]
        if line.count(",") != COLUMNS - 1:
            broken.append(line.strip())
        elif video in found:
            videos.setdefault(video, []).append(line)
        else:
            missing[video] = None
    if not videos:
        raise PreparationError(
            f"{options.raw}: holds none of the {len(missing)} videos of {csv.name}"
        )
    units = [
        Unit(video, Annotated(csv, lines, found[video]))
        for video, lines in videos.items()
    ]
    if missing:
        log.warning(
            "%s: holds %d of the %d videos; rejected.json will list the others",
            *(options.raw, len(videos), len(missing) + len(videos)),
        )
    if missing or broken:
        units.append(Unit("unusable", Unusable(csv, list(missing), broken)))
    return units


def find_media(root: Path) -> dict[str, Media]:
    """What is there of which video, in any folder below ``root``."""
    found: dict[str, Media] = {}
    for folder, _, files in walk(root):
        for file in sorted(files):
            stem, suffix = os.path.splitext(file)
            if suffix == ".jpg":
                for name, pattern in FRAME_NAMES.items():
                    if target := _target(pattern.fullmatch(file)):
                        media = found.setdefault(target[0], Media())
                        media.frames.setdefault(target, Frames(folder, name))
            elif suffix.lower() in FILM_SUFFIXES:
                target = _target(CLIP_NAME.fullmatch(stem))
                media = found.setdefault(target[0] if target else stem, Media())
                film = Film(folder / file, cut=target is not None)
                media.films.setdefault(target, film)
    return found


def read_unit(unit: Unit) -> Iterator[Track | Rejection]:
    """The tracks of one video, one for each target."""
    content: Annotated | Unusable = unit.content
    if isinstance(content, Unusable):
        yield from (_unreadable(content.csv, line) for line in content.lines)
        yield from (_not_there(video) for video in content.missing)
        return
    targets: dict[Target, list[Row]] = {}
    for line in content.lines:
        fields = line.strip().split(",")
        if row := _parse(fields):
            targets.setdefault((fields[0], fields[2], fields[4]), []).append(row)
        else:
            yield _unreadable(content.csv, line)
    for target, rows in targets.items():
        rows.sort(key=lambda row: row.ms)
        media = content.media.of(target)
        if media is None:
            yield _not_there("+".join(target))
            continue
        try:
            yield _track(target, rows, media)
        except (InputError, OSError) as error:
            reason = str(error).removeprefix(f"{media[0]}: ")
            yield Rejection(str(media[0]), None, reason, sum(r.visible for r in rows))


def _unreadable(csv: Path, line: str) -> Rejection:
    reason = f"row {line.strip()[:120]!r}, expected the ten columns"
    return Rejection(str(csv), None, reason)


def _not_there(name: str) -> Rejection:
    return Rejection(name, None, "is not below --raw", records=0)


def _target(match: re.Match[str] | None) -> Target | None:
    return (match[1], match[2], match[3]) if match else None


def _track(target: Target, rows: list[Row], media: Frames | Film) -> Track:
    times = np.array([row.ms for row in rows])
    if isinstance(media, Film):
        frames = _film_frames(media, times)
    else:
        frames = [media.folder / media.name.format(*target, ms=row.ms) for row in rows]
    return Track(
        name="+".join(target),
        video=target[0],
        frames=frames,
        boxes=np.array([row.ltwh for row in rows]),
        numbers=np.round(times * FRAMES_A_SECOND / 1000).astype(np.int64),
        visibility=np.array([row.visible for row in rows], np.float32),
        category=rows[0].category,
        relative=True,
    )


def _film_frames(media: Film, times_ms: np.ndarray) -> list[Frame]:
    """The frames nearest to the times.

    Raises:
        InputError, OSError: the film cannot be opened, or declares no rate.
    """
    film = Video(media.path)
    if film.fps is None:
        raise InputError(f"{media.path}: declares no frame rate")
    start = times_ms[0] if media.cut else 0
    indices = np.round((times_ms - start) / 1000 * film.fps).astype(int)
    # A clip ends just before the last annotated time.
    indices[indices == film.length] -= 1
    return [VideoFrame(media.path, index) for index in indices.tolist()]


def _parse(fields: list[str]) -> Row | None:
    """A row of ten columns; None where it cannot be read."""
    _, ms, _, category, _, presence, *borders = fields
    visible = presence == "present"
    if not (visible or presence in ("absent", "uncertain")):
        return None
    try:
        x0, x1, y0, y1 = map(parse_number, borders) if visible else [np.nan] * 4
        time = parse_number(ms)
    except ValueError:
        return None
    if not (0 <= time < _LONGEST_MS and time == int(time)):
        return None
    return Row(int(time), category, visible, (x0, y0, x1 - x0, y1 - y0))


def _lines(csv: Path) -> Iterator[str]:
    """Lines of the file, which may still be compressed."""
    packed = csv.with_name(f"{csv.name}.gz")
    try:
        if csv.is_file() or not packed.is_file():
            file = open(csv, encoding="utf-8")
        else:
            file = gzip.open(packed, "rt", encoding="utf-8")
        with file:
            yield from file
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise PreparationError(f"{csv}: cannot be read ({error})") from error


DATASET = Dataset(
    name="youtube_bb",
    title="YouTube-BoundingBoxes",
    layout="""\
RAW/yt_bb_detection_train.csv                            (or .csv.gz; or validation)
and, in any folder below RAW, any of
  AAB6lO-XiKE.mp4                                        (the video)
  AAB6lO-XiKE+0+0.mp4                                    (cut from it)
  AAB6lO-XiKE_238000_0_0.jpg, AAB6lO-XiKE+0+0+238000.jpg (annotated frames)""",
    origin="https://research.google.com/youtube-bb/download.html (csv files); videos "
    "from YouTube, by https://github.com/mbuckler/youtube-bb for example",
    list_units=list_units,
    read_unit=read_unit,
    units_per_shard=180,
    neighbours=1,
    options=YoutubeBbOptions,
)

if __name__ == "__main__":
    from data_prep.command import main

    main("youtube_bb")
