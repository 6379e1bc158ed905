"""Label tables: a line a box, in text that people and tools write (txt, csv, tsv).

A first line of names decides alone what the columns mean. Case, spaces and signs do not
matter, nor a prefix such as ``bbox_``: ``Frame #``, ``frame_id`` and ``frameNumber``
are frames. Without names the columns are, by their number,

- 4: ``x, y, w, h``, the frames in turn,
- 5: ``frame, x, y, w, h``,
- 6: ``frame, track, x, y, w, h``, where ``track`` is any text.

Boxes are ``x, y, w, h`` (top-left corner and size), ``x1, y1, x2, y2`` (two corners) or
``cx, cy, w, h`` (centre and size), in pixels counted from 0, where a pixel is 1 wide.
A negative width or height is a fault of its line: corners drawn from bottom right, say.
What is not visible at all is absent, whatever its box says. Columns that are not
understood are left out only where they cannot be a frame, a target, a box or an absence
under another name; rotated boxes are refused, and units other than pixels.

``image_width, image_height`` is the size of the picture that boxes were drawn on, and
so is ``width, height`` beside corners, unless it is the size of the boxes. A table is
of one video: a column that names several is refused.

Nothing is guessed: what has two meanings, or numbers that speak against the columns, is
refused, and the message says which names are understood.
"""

import csv
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.formats import (
    looks_like_corners,
    no_target,
    parse_number,
    read_lines,
    separator_of,
    warn_of_percent,
)
from siamrpn_jax.data.read.images import is_film

NAMES = {
    "frame": "frame frames frame_id frame_number frame_no frame_num frame_nr "
    "frame_index frame_idx frameid framenumber frameno frameindex",
    "image": "image img file filename file_name image_name image_file image_filename "
    "image_path img_name img_path img_file frame_name frame_file path file_path "
    "filepath picture",
    "time": "time timestamp time_stamp t s sec secs second seconds time_s time_sec "
    "time_seconds timestamp_s",
    "time_ms": "ms msec millisecond milliseconds time_ms time_msec timestamp_ms",
    "track": "track id track_id trackid tid object object_id objectid obj obj_id "
    "target target_id targetid instance instance_id identity",
    "category": "category class label class_name category_name label_name class_id "
    "category_id label_id object_class object_type class_label category_label",
    "lost": "lost is_lost absent is_absent absence outside is_outside out_of_view "
    "out_of_frame out_of_image hidden is_hidden invisible is_invisible missing "
    "is_missing deleted is_deleted invalid is_invalid full_occlusion fully_occluded "
    "gone is_gone disappeared has_disappeared off_screen offscreen is_off_screen "
    "has_left has_left_frame left_scene exited has_exited",
    "visible": "visible is_visible visibility present is_present in_view is_in_view "
    "in_frame in_image on_screen onscreen is_on_screen exists",
    "found": "found is_found valid is_valid exist tracked is_tracked tracking "
    "is_tracking detected is_detected success enabled is_enabled",
    "angle": "angle theta rotation rot rotation_angle angle_deg angle_rad box_angle "
    "bbox_angle",
    "confidence": "confidence conf",
}
"""The usual names of each column that is no part of a box, separated by spaces."""

_KEYS = {name: key for key, names in NAMES.items() for name in names.split()}
_SCORES = frozenset("score probability prob".split())
"""They name the confidence where no column has that name."""

_VIDEOS = frozenset(
    "video video_name video_file video_path video_id film film_name movie clip "
    "clip_name clip_id sequence sequence_name sequence_id seq seq_name seq_id camera "
    "camera_name camera_id cam cam_name cam_id".split()
)
"""They name the video of a row; a table is of one."""

_ONE_SIZE = frozenset("resolution image_size frame_size video_size".split())
"""They hold the width and the height of the picture in one, which is not read."""

_SIZES = (("w", "h"), ("width", "height"))
_PICTURES = tuple(
    (f"{what}_{width}", f"{what}_{height}")
    for what in "image img im picture frame video film original orig".split()
    for width, height in _SIZES
)
"""They name the size of the picture that boxes were drawn on."""

_LEFT_TOP = (
    ("x", "y"),
    ("left", "top"),
    ("l", "t"),
    ("xmin", "ymin"),
    ("x_min", "y_min"),
    ("x1", "y1"),
    ("xtl", "ytl"),
    ("x_left", "y_top"),
    ("top_left_x", "top_left_y"),
)
_CORNERS = (
    ("x1", "y1", "x2", "y2"),
    ("x_1", "y_1", "x_2", "y_2"),
    ("x0", "y0", "x1", "y1"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
    ("l", "t", "r", "b"),
    ("xtl", "ytl", "xbr", "ybr"),
)
_CENTERS = (
    ("cx", "cy"),
    ("xc", "yc"),
    ("x_c", "y_c"),
    ("x_center", "y_center"),
    ("xcenter", "ycenter"),
    ("center_x", "center_y"),
    ("x_centre", "y_centre"),
    ("centre_x", "centre_y"),
)
_BOXES: dict[tuple[str, ...], str] = {
    **{(*place, *size): "ltwh" for place in _LEFT_TOP for size in _SIZES},
    **{corners: "corners" for corners in _CORNERS},
    **{(*place, *size): "cxcywh" for place in _CENTERS for size in _SIZES},
}
_COORDINATES = {name for names in _BOXES for name in names}
_BRACKETS = re.compile(r"[(\[](.*?)[)\]]")
_PREFIX = re.compile(r"(?:bounding_box|bbox|bb|box|rect|roi)_?(?=[a-z])")
_KEY_WORDS = frozenset(
    "frame frames time timestamp track tracks id ids object obj target image img file "
    "filename picture index idx number num no nr instance".split()
)
"""An unknown name with such a word may be the key of the row."""

_STATE_WORDS = frozenset(
    "ignore ignored status state valid invalid visible visibility invisible lost "
    "absent absence present hidden missing deleted exist exists tracked found detected "
    "success enabled gone disappeared offscreen off out alive dead active inactive ok "
    "okay seen unseen shown vanished failed failure onscreen".split()
)
"""An unknown name with such a word may say that the target is not there."""

_PIXELS = frozenset(["", "px", "pixel", "pixels"])
_UNITS = {
    "frame": frozenset("# no nr number index".split()),
    "time": frozenset("s sec secs second seconds".split()),
    "time_ms": frozenset("ms msec millisecond milliseconds".split()),
    "angle": frozenset("° deg degree degrees rad radian radians".split()),
}
"""What may stand in brackets behind the names of some columns, beside pixels."""

_ABOUT_SIZE = frozenset("width height w h size rate count url attributes".split())
"""An unknown name with such a last word, as ``file_size``, is no key and no state."""

EXPECTED = (
    "x,y,w,h or frame,x,y,w,h or frame,track,x,y,w,h, or a first line of names: "
    "x,y,w,h or left,top,width,height or x1,y1,x2,y2 or xmin,ymin,xmax,ymax or "
    "cx,cy,w,h; frame, image or time; track; category; lost; visible; confidence"
)

_UNNAMED = {
    4: ("x", "y", "w", "h"),
    5: ("frame", "x", "y", "w", "h"),
    6: ("frame", "track", "x", "y", "w", "h"),
}
_FLAGS = {"0": False, "0.0": False, "false": False, "no": False}
_FLAGS |= {"1": True, "1.0": True, "true": True, "yes": True}

_ROUNDED = 1.5
"""How far sides may be from the corners, in pixels: rounding, and corners that are the
last pixels of a box."""


class TableError(InputError):
    """A table whose columns are not understood, or speak against its numbers."""


class Columns(NamedTuple):
    """What the columns of a table mean."""

    names: tuple[str, ...]
    """As the file has them, or as they are documented."""

    keys: dict[str, int]
    """The place of each column of ``NAMES`` that is there."""

    box: tuple[int, ...]
    """The places of the four numbers of a box."""

    form: str
    """``ltwh``, ``corners`` or ``cxcywh``."""

    named: bool
    """Whether a first line of names says so."""

    size: tuple[int, ...] = ()
    """The places of the width and height of the picture, if they are there; those of
    ``width, height`` beside corners may be of the box."""

    videos: tuple[int, ...] = ()
    """The places of what names the video."""


class LabelRow(NamedTuple):
    """A line of a table."""

    line: int
    """Its number in the file, from 1."""

    ltwh: tuple[float, float, float, float]
    """Pixels from 0; not a number, or without an area, where the target is absent."""

    frame: int | None = None
    """As the file counts."""

    image: str = ""
    seconds: float | None = None
    """From the start of the film."""

    track: str = ""
    category: str = ""
    lost: bool = False
    visibility: float = 1.0
    """The visible share of the target, 0 to 1."""

    confidence: float | None = None
    angle: float = 0.0
    """Angle of the box, in the unit of the file."""

    size: tuple[float, float] | None = None
    """Width and height of the picture that the box was drawn on, where it is given."""

    videos: tuple[str, ...] = ()
    """What names the video: the fields of ``Columns.videos``."""


class LabelTable(NamedTuple):
    """What a file says."""

    path: Path
    columns: Columns
    rows: tuple[LabelRow, ...]
    faults: dict[int, str]
    """What is wrong with lines that could not be read, by their number from 1."""

    @property
    def numbers(self) -> list[int]:
        """The frame numbers that occur."""
        return [row.frame for row in self.rows if row.frame is not None]

    @property
    def boxes(self) -> np.ndarray:
        """``ltwh float64 [n, 4]`` of all rows."""
        return np.array([row.ltwh for row in self.rows], np.float64).reshape(-1, 4)


def read_table(path: str | os.PathLike[str]) -> LabelTable:
    """Reads a label table, as the module describes it.

    Raises:
        TableError: the file cannot be read as text or is empty, its columns are not
            understood, or its numbers speak against them.
    """
    path = Path(path)
    lines = read_lines(path, error=TableError)
    if not lines:
        raise TableError(f"{path}: is empty, expected {EXPECTED}")
    try:
        columns = find_columns(split_fields(lines[0].lstrip("#")))
    except TableError as error:
        raise TableError(f"{path}: line 1 is {lines[0][:80]!r}: {error}") from None
    rows, faults = [], {}
    for number, line in enumerate(lines[columns.named :], start=1 + columns.named):
        if not line.strip() and columns.keys:
            continue
        try:
            rows.append(_read_row(number, split_fields(line), columns))
        except ValueError as error:
            faults[number] = f"line {number} is {line[:80]!r}, {error}"
    if _are_sides_of_boxes(rows, columns):
        faults |= _other_sides(rows)
        rows = [row._replace(size=None) for row in rows if row.line not in faults]
    table = LabelTable(path, columns, tuple(rows), faults)
    if problem := _contradiction(table):
        raise TableError(f"{path}: {problem}")
    return table


def check_sizes(table: LabelTable, size: tuple[int, int]) -> None:
    """Checks what no line of names says against the frames; may warn.

    Args:
        table: what was read.
        size: width and height of the frames.

    Raises:
        TableError: the boxes fit as corners, and not as sizes.
    """
    tracks: dict[str, list[tuple[float, ...]]] = {}
    for row in table.rows:
        tracks.setdefault(row.track, []).append(row.ltwh)
    for rows in tracks.values():
        if not table.columns.named and looks_like_corners(np.array(rows), size):
            raise TableError(f"{table.path}: {AS_CORNERS}")
    warn_of_percent(table.path, table.boxes, size)


def check_film(table: LabelTable, name: str, *, called: str) -> None:
    """Checks that a table is of the film whose frames it lies with.

    What has no suffix of a film may be any name of the video, and proves nothing.

    Args:
        table: what was read.
        name: what the film is to be called, with or without its suffix.
        called: what is called so, for the error.

    Raises:
        TableError: a row names another film.
    """
    for row in table.rows:
        for video in row.videos:
            film = Path(video.replace("\\", "/"))
            if is_film(film) and name not in (film.name, film.stem):
                raise TableError(
                    f"{table.path}: line {row.line} is of {video[:80]!r}, expected a "
                    f"film {name}, as the {called} is called"
                )


AS_CORNERS = (
    "its numbers fit as corners x1,y1,x2,y2 and not as x,y,w,h: expected a first line "
    "of names, x1,y1,x2,y2 or x,y,w,h"
)


def find_columns(fields: Sequence[str]) -> Columns:
    """What the columns mean, by the fields of a file's first line.

    Raises:
        TableError: they are not understood.
    """
    if not have_names(fields):
        if len(fields) not in _UNNAMED:
            raise TableError(
                f"{len(fields)} columns without names, expected {EXPECTED}"
            )
        names, named = _UNNAMED[len(fields)], False
    else:
        names, named = tuple(fields), True
    plain = [normal_name(name) for name in names]
    keys: dict[str, int] = {}
    for place, name in enumerate(plain):
        key = _key_of(name, plain)
        if key in keys:
            raise TableError(
                f"columns {names[keys[key]]!r} and {names[place]!r} both name the "
                f"{key}, expected one"
            )
        if key is not None:
            keys[key] = place
    form, chosen = _choose_box(plain)
    size = _choose_size(plain, form)
    videos = tuple(place for place, name in enumerate(plain) if name in _VIDEOS)
    used = {*keys.values(), *chosen, *size, *videos}
    for place, name in enumerate(plain):
        if name in _ONE_SIZE:
            raise TableError(
                f"column {names[place]!r} is not understood, expected the size of the "
                "frames as image_width,image_height, or no such column"
            )
        if place not in used and _may_matter(name, form):
            raise TableError(
                f"column {names[place]!r} is not understood, expected {EXPECTED}"
            )
    meanings = {place: key for key, place in keys.items()}
    for place in sorted({*meanings, *chosen, *size}):
        _check_unit(names[place], meanings.get(place, ""))
    return Columns(names, keys, chosen, form, named, size, videos)


def _key_of(name: str, plain: Sequence[str]) -> str | None:
    """Which of ``NAMES`` a column is, beside all others; None: none of them."""
    if name not in _SCORES:
        return _KEYS.get(name)
    named = any(_KEYS.get(other) == "confidence" for other in plain)
    return None if named else "confidence"


def _check_unit(name: str, key: str) -> None:
    """Raises TableError for a unit in brackets, or a percent sign, that is not read."""
    units = [unit.strip().lower() for unit in _BRACKETS.findall(name)]
    if "%" in _BRACKETS.sub("", name):
        units.append("%")
    for unit in units:
        if unit not in _PIXELS | _UNITS.get(key, frozenset()):
            usual = {"": "pixels", "time": "seconds", "time_ms": "milliseconds"}
            raise TableError(
                f"column {name!r} has the unit {unit!r}, expected "
                f"{usual.get(key, 'none')}"
            )


def have_names(fields: Sequence[str]) -> bool:
    """Whether a first line holds names: letters, and no number."""
    letters = any(re.search(r"[^\W\d_]", field) for field in fields)
    return letters and not any(_is_number(field) for field in fields)


def normal_name(name: str) -> str:
    """A name in lower case, its words joined by ``_``; units in brackets are left out.

    >>> [normal_name(name) for name in ("Frame #", "frameNumber", "BBox X", "w (px)")]
    ['frame', 'frame_number', 'x', 'w']
    """
    name = _BRACKETS.sub("", name)
    name = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z]$)", "_", name)
    name = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    plain = _PREFIX.sub("", name, count=1) if _PREFIX.match(name) else name
    return plain if plain in _COORDINATES else name


def split_fields(line: str) -> list[str]:
    """The fields of a line, without quotes and white space around them.

    Raises:
        TableError: a quote that does not end.
    """
    separator = separator_of(line)
    if separator is None:
        return line.split()
    reader = csv.reader(
        [line.strip(" ")], delimiter=separator, skipinitialspace=True, strict=True
    )
    try:
        return [field.strip() for field in next(reader, [])]
    except csv.Error as error:
        raise TableError(f"fields that cannot be told apart ({error})") from None


def _choose_box(plain: Sequence[str]) -> tuple[str, tuple[int, ...]]:
    """The form of the boxes, and where their numbers are."""
    twice = [name for name in plain if name in _COORDINATES and plain.count(name) > 1]
    if twice:
        raise TableError(f"column {twice[0]!r} occurs twice, expected one")
    found = {box: form for box, form in _BOXES.items() if set(box) <= set(plain)}
    corners = [box for box, form in found.items() if form == "corners"]
    if len(corners) == 1:  # width and height beside them are of the image, or of these
        about = {(*corners[0][:2], "width", "height")}
        found = {box: form for box, form in found.items() if box not in about}
    if len(found) > 1:
        several = " and ".join(",".join(box) for box in found)
        raise TableError(f"columns {several}: expected one reading of the boxes")
    if not found:
        raise TableError(f"no box, expected {EXPECTED}")
    ((box, form),) = found.items()
    return form, tuple(plain.index(name) for name in box)


def _choose_size(plain: Sequence[str], form: str) -> tuple[int, ...]:
    """Where the width and height of the picture are, if they are there."""
    found = [pair for pair in _PICTURES if set(pair) <= set(plain)]
    if not found and form == "corners" and {"width", "height"} <= set(plain):
        found = [("width", "height")]
    if len(found) > 1 or any(plain.count(name) > 1 for pair in found for name in pair):
        several = " and ".join(",".join(pair) for pair in found)
        raise TableError(f"columns {several}: expected one size of the picture")
    return tuple(plain.index(name) for pair in found for name in pair)


def _may_matter(name: str, form: str) -> bool:
    """Whether a column that is not understood might be a key, a box or an absence."""
    words = name.split("_")
    if name in _COORDINATES or re.fullmatch(r"[xy]_?\d+", name):
        return not (form == "corners" and name in ("width", "height"))
    if len(words) > 1 and words[-1] in _ABOUT_SIZE:
        return False
    return not (_KEY_WORDS | _STATE_WORDS).isdisjoint(words)


def _read_row(number: int, fields: Sequence[str], columns: Columns) -> LabelRow:
    """A line by its columns; raises ValueError saying what was expected."""
    expected = f"expected {','.join(columns.names)}"
    if len(fields) != len(columns.names):
        raise ValueError(expected)
    values = {key: fields[place] for key, place in columns.keys.items()}
    cells = [fields[place] for place in columns.box]
    try:
        decimals = {mark for cell in cells for mark in ".," if mark in cell}
        if len(decimals) > 1:
            raise ValueError
        box = [parse_number(cell) for cell in cells] if any(cells) else [math.nan] * 4
        row = LabelRow(number, _as_ltwh(box, columns.form))
        if "frame" in values:
            row = row._replace(frame=_whole(values["frame"]))
        if "time" in values or "time_ms" in values:
            row = row._replace(seconds=_seconds(values))
        if values.get("confidence"):
            row = row._replace(confidence=parse_number(values["confidence"]))
        if values.get("angle"):
            row = row._replace(angle=parse_number(values["angle"]))
    except ValueError:
        raise ValueError(expected) from None
    _check_sides(row, columns)
    visibility = _visibility(values, columns)
    return row._replace(
        ltwh=row.ltwh if visibility > 0 else (math.nan,) * 4,
        visibility=visibility,
        image=values.get("image", ""),
        track=values.get("track", ""),
        category=values.get("category", ""),
        lost=_flag(values, columns, "lost"),
        size=_picture([fields[place] for place in columns.size], columns),
        videos=tuple(fields[place] for place in columns.videos),
    )


def _flag(
    values: dict[str, str], columns: Columns, key: str, *, unsaid: bool = False
) -> bool:
    """What a column of yes and no says; raises ValueError for anything else."""
    text = values.get(key, "").lower()
    if text and text not in _FLAGS:
        raise ValueError(f"expected 0 or 1 as {columns.names[columns.keys[key]]}")
    return _FLAGS[text] if text else unsaid


def _visibility(values: dict[str, str], columns: Columns) -> float:
    """The visible share; 0 where the target is not found."""
    try:
        share = _share(values.get("visible", ""))
    except ValueError:
        name = columns.names[columns.keys["visible"]]
        raise ValueError(f"expected 0 to 1 as {name}") from None
    return share if _flag(values, columns, "found", unsaid=True) else 0.0


def _picture(cells: Sequence[str], columns: Columns) -> tuple[float, float] | None:
    """A width and height as the file has them; None where nothing is said."""
    if not any(cells):
        return None
    try:
        width, height = map(parse_number, cells)
    except ValueError:
        width = height = math.inf
    if width == height == -1 or (math.isnan(width) and math.isnan(height)):
        return None
    if not (0 <= width < math.inf and 0 <= height < math.inf):
        names = ",".join(columns.names[place] for place in columns.size)
        raise ValueError(f"expected a width and a height as {names}")
    whole = int(width), int(height)
    return whole if whole == (width, height) else (width, height)


def _are_sides_of_boxes(rows: Sequence[LabelRow], columns: Columns) -> bool:
    """Whether ``width, height`` beside corners is said of the boxes, by most rows."""
    if [normal_name(columns.names[place]) for place in columns.size] != [
        "width",
        "height",
    ]:
        return False
    given = [row for row in rows if row.size and not no_target(np.array(row.ltwh))]
    return 2 * (len(given) - len(_other_sides(given))) > len(given)


def _other_sides(rows: Sequence[LabelRow]) -> dict[int, str]:
    """Faults of the rows with a size that is not that of their box."""
    return {
        row.line: f"line {row.line}: is {row.size[0]:g}x{row.size[1]:g}, expected "
        f"{row.ltwh[2]:g}x{row.ltwh[3]:g} between its corners"
        for row in rows
        if row.size
        and not no_target(np.array(row.ltwh))
        and np.abs(np.subtract(row.size, row.ltwh[2:])).max() > _ROUNDED
    }


def _check_sides(row: LabelRow, columns: Columns) -> None:
    """Raises ValueError for a negative side, but for the -1 of an absent target."""
    width, height = row.ltwh[2:]
    if columns.form == "corners":
        if width < 0 or height < 0:
            names = ",".join(columns.names[place] for place in columns.box)
            raise ValueError(f"expected {names} from top left to bottom right")
    elif (width < 0 or height < 0) and not width == height == -1:
        raise ValueError("expected a width and a height that are not negative")


def _as_ltwh(box: Sequence[float], form: str) -> tuple[float, float, float, float]:
    a, b, c, d = box
    if form == "corners":
        return a, b, c - a, d - b
    return (a - c / 2, b - d / 2, c, d) if form == "cxcywh" else (a, b, c, d)


def _share(text: str) -> float:
    """From 0 to 1, or yes or no; 1 where nothing is said."""
    if not text:
        return 1.0
    if (flag := _FLAGS.get(text.lower())) is not None:
        return float(flag)
    value = parse_number(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def _whole(text: str) -> int:
    """A frame number; spreadsheets write ``5.0``."""
    value = parse_number(text)
    if not (0 <= value < 2**53 and value == int(value)):
        raise ValueError
    return int(value)


def _seconds(values: dict[str, str]) -> float:
    """From seconds, ``minutes:seconds``, ``hours:minutes:seconds`` or milliseconds."""
    parts = values["time"].split(":") if "time" in values else []
    if len(parts) > 3:
        raise ValueError
    total = 0.0 if parts else parse_number(values["time_ms"]) / 1000
    for part in parts:
        total = 60 * total + parse_number(part)
    if not 0 <= total < 2**53:
        raise ValueError
    return total


def _contradiction(table: LabelTable) -> str:
    """What speaks against the columns in the numbers alone; nothing, as a rule."""
    boxes = table.boxes[~no_target(table.boxes)]
    if len(boxes) and (np.abs(boxes) <= 1).all() and (boxes[:, 2:] < 1).any():
        return "all boxes are fractions of 1, expected pixels"
    if not table.columns.named and not table.columns.keys and counts(boxes[:, 0]):
        return (
            "the first of four columns counts 1, 2, 3, …, expected x,y,w,h (or a first "
            "line of names)"
        )
    return _several_videos(table) or _track_at_the_end(table) or _rotation(table)


def _several_videos(table: LabelTable) -> str:
    """Two videos that rows are of; nothing, as a rule."""
    for column, place in enumerate(table.columns.videos):
        first = {row.videos[column]: row.line for row in reversed(table.rows)}
        if len(first) > 1:
            a, b = sorted(first, key=lambda name: first[name])[:2]
            return (
                f"column {table.columns.names[place]!r} is {a[:80]!r} in line "
                f"{first[a]} and {b[:80]!r} in line {first[b]}, expected a table for "
                "each video"
            )
    return ""


def _track_at_the_end(table: LabelTable) -> str:
    """What tells that six columns are ``frame, x, y, w, h`` and something more.

    With a box a frame, the second of them is another in most rows: positions, and no
    name of a target. They have fractions, or the last column never changes.
    """
    if table.columns.named or len(table.columns.names) != 6 or len(table.rows) < 5:
        return ""
    try:
        second = {parse_number(row.track) for row in table.rows}
    except ValueError:
        return ""
    a_frame = len(set(table.numbers)) == len(table.rows)
    fractions = any(value % 1 > 0 for value in second)
    constant = len({row.ltwh[3] for row in table.rows}) == 1
    if a_frame and 2 * len(second) > len(table.rows) and (fractions or constant):
        return (
            "its second column is another in most lines, and so no target, expected "
            "frame,track,x,y,w,h (or a first line of names)"
        )
    return ""


def _rotation(table: LabelTable) -> str:
    """The first box that is not upright; nothing, as a rule."""
    for row, absent in zip(table.rows, no_target(table.boxes), strict=True):
        if row.angle != 0 and not absent:
            name = table.columns.names[table.columns.keys["angle"]]
            return (
                f"column {name!r} is {row.angle:g} in line {row.line}, expected 0 in "
                "all lines: boxes are read as upright"
            )
    return ""


def counts(values: np.ndarray) -> bool:
    """Whether numbers are 0, 1, 2, … or 1, 2, 3, …, at least 5 of them."""
    return len(values) >= 5 and any(
        np.array_equal(values, np.arange(first, first + len(values)))
        for first in (0, 1)
    )


def _is_number(field: str) -> bool:
    try:
        parse_number(field)
    except ValueError:
        return False
    return True


def same_fault_in_all(tracks: Sequence[Sequence[int]], faults: Sequence[int]) -> bool:
    """Whether there is a fault beside the first, or the last, line of every track.

    That is no accident: a header that counts as a row, or frames counted from 1.

    Args:
        tracks: the lines of each that can be used, rising.
        faults: the lines that cannot.
    """
    if len(tracks) < 2:
        return False  # that may be an accident
    bad = set(faults)
    before = all(lines[0] - 1 in bad for lines in tracks)
    return before or all(lines[-1] + 1 in bad for lines in tracks)
