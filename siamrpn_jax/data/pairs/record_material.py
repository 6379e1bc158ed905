"""A prepared folder as material for composites: what its records give to paste.

Objects are cut out of exemplar crops, along the outline where the record holds one and
a random shape where it does not. Backgrounds are parts of search crops beside the
target. Nothing but the records is read.
"""

from typing import NamedTuple

import cv2
import numpy as np

from siamrpn_jax.data.crops.format import RecordError
from siamrpn_jax.data.crops.windows import Window, crop
from siamrpn_jax.data.pairs.composites import (
    NEAR,
    Backgrounds,
    TargetOrigin,
    beside,
)
from siamrpn_jax.data.pairs.crop_tracks import CropTracks
from siamrpn_jax.data.pairs.requests import Picture
from siamrpn_jax.data.scenes.cutouts import (
    MIN_SIDE,
    TEXTURES,
    ObjectCutout,
    cut_out,
    texture_window,
)
from siamrpn_jax.model.boxes import ltwh_to_corners

MIN_ROOM = 64.0
"""Crop pixels that a background has at least to one side of the target."""

_OUTLINED = 0.4  # Share of the objects drawn from those with an outline.
_TRIES = 3  # Search crops that are read until one has room beside the target.
_FILL_STEP, _FILL_TOLERANCE = 4, 8  # Pixels between samples; grey levels of JPEG.


class _Scene(NamedTuple):
    """A search crop and where windows of it may lie."""

    pixels: np.ndarray
    areas: list[np.ndarray]  # ``ltwh [4]`` each, crop pixels; at least one.
    track: int

    def draw_area(self, rng: np.random.Generator) -> np.ndarray:
        return self.areas[rng.integers(len(self.areas))]


class RecordMaterial:
    """What some tracks of a prepared folder give to paste; thread safe and picklable.

    An image is a track here: where two are of one video, they may show each other.

    Args:
        tracks: the tracks.
    """

    def __init__(self, tracks: CropTracks):
        self.tracks = tracks
        index = tracks.records.index
        own = np.zeros(len(index.names), bool)
        own[tracks.tracks] = True
        large = np.repeat(own, np.diff(index.starts))
        large &= index.sizes.min(axis=1) >= MIN_SIDE
        self._outlined = np.flatnonzero(large & index.outlined)
        room = tracks.records.crops.search_crop - index.sizes[large].min(axis=1)
        self._room = float(room.max(initial=0)) / 2
        self._objects = int(large.sum())
        order = np.argsort(index.videos[tracks.tracks], kind="stable")
        self._by_video = tracks.tracks[order]
        self._videos = index.videos[self._by_video]

    def __str__(self) -> str:
        return f"composites of {self.tracks}"

    @property
    def lack(self) -> str:
        """Why the folder gives no composites; empty where it does."""
        folder, crops = self.tracks.records.folder, self.tracks.records.crops
        if not self._objects:
            return (
                f"{folder}: gives no composites: none of its targets has {MIN_SIDE} "
                "pixels a side in its crop"
            )
        if self._room < MIN_ROOM:
            return (
                f"{folder}: gives no composites: its search crops of "
                f"{crops.search_crop} pixels leave {self._room:.0f} beside a target at "
                f"most, expected {MIN_ROOM:g} for a background: prepare it with a "
                "larger --search-crop"
            )
        return ""

    def draw_cutout(
        self, rng: np.random.Generator, *, near: int | None = None
    ) -> ObjectCutout:
        """See ``Material``.

        Raises:
            RecordError: a record cannot be used, or the targets seem all too small.
        """
        for _ in range(100):
            track, record = self._draw_object(rng, near)
            picture, outlines = self.tracks.outlined_exemplar(record)
            if rng.random() < TEXTURES:
                pixels = _part(picture.pixels, frame_in(picture))
                box = texture_window(pixels, rng)
                cutout = cut_out(pixels, box, rng, source=track)
            else:
                box = self.tracks.box(record, len(picture.pixels))
                cutout = cut_out(
                    picture.pixels, box, rng, polygons=outlines, source=track
                )
            if cutout is not None:
                return cutout
            near = None
        raise RecordError(
            f"{self.tracks.records.folder}: 100 targets drawn were all below "
            f"{MIN_SIDE} pixels a side in their crops: composites need larger ones"
        )

    def draw_backgrounds(
        self, rng: np.random.Generator, *, exemplar_size: int, instance_size: int
    ) -> Backgrounds:
        """See ``Material``.

        Raises:
            RecordError: a record cannot be used.
        """
        scene = self._draw_scene(rng)
        area = scene.draw_area(rng)
        window = _draw_window(area, rng)
        search = crop(scene.pixels, window, instance_size)
        # Another record for the exemplar would cost as much as all the rest.
        if rng.random() < NEAR:
            window = _inside(area, beside(window, rng))
        else:
            window = _draw_window(scene.draw_area(rng), rng)
        exemplar = crop(scene.pixels, window, exemplar_size)
        return Backgrounds(search, exemplar, scene.track)

    def origin(self, image: int) -> TargetOrigin:
        """See ``Material``."""
        return self.tracks.video(image)

    def _draw_object(
        self, rng: np.random.Generator, near: int | None
    ) -> tuple[int, int]:
        """A track and one of its records."""
        index = self.tracks.records.index
        if near is not None and rng.random() < 0.5:
            video = index.videos[near]
            low = np.searchsorted(self._videos, video, "left")
            high = np.searchsorted(self._videos, video, "right")
            if high - low > 1:
                track = int(self._by_video[rng.integers(low, high)])
                return track, int(rng.integers(*index.starts[track : track + 2]))
        if len(self._outlined) and rng.random() < _OUTLINED:
            record = int(self._outlined[rng.integers(len(self._outlined))])
            return int(index.starts.searchsorted(record, "right")) - 1, record
        return self.tracks.draw_record(rng)

    def _draw_scene(self, rng: np.random.Generator) -> _Scene:
        """A place beside a target; all of its picture where there is no room."""
        for _ in range(_TRIES):
            track, record = self.tracks.draw_record(rng)
            picture = self.tracks.search(record)
            frame = frame_in(picture)
            box = self.tracks.box(record, len(picture.pixels))
            areas = [a for a in areas_beside(box, frame) if a[2:].min() >= MIN_ROOM]
            if areas:
                break
        return _Scene(picture.pixels, areas or [frame], track)


def _part(pixels: np.ndarray, area_ltwh: np.ndarray) -> np.ndarray:
    x, y, w, h = area_ltwh.astype(int)
    return pixels[y : y + h, x : x + w]


def frame_in(picture: Picture) -> np.ndarray:
    """The part of a search crop that is not filled.

    Args:
        picture: the crop, and the colour that surrounds its frame.

    Returns:
        ``ltwh float64 [4]``, to some pixels within the frame; not empty.
    """
    side = len(picture.pixels)
    assert picture.fill is not None
    some = np.ascontiguousarray(picture.pixels[::_FILL_STEP, ::_FILL_STEP])
    fill = np.rint(picture.fill)
    low, high = (
        tuple(np.clip(fill + reach, 0, 255).tolist())
        for reach in (-_FILL_TOLERANCE, _FILL_TOLERANCE)
    )
    seen = cv2.inRange(some, low, high) == 0
    low, high = np.zeros(2), np.full(2, float(side))
    for axis in (0, 1):
        lines = np.flatnonzero(seen.any(axis=axis)) * _FILL_STEP
        if len(lines) and lines[0] > 0:
            low[axis] = lines[0] + _FILL_STEP
        if len(lines) and lines[-1] + _FILL_STEP < side:
            high[axis] = lines[-1]
    extent = high - low
    if extent.min() < MIN_SIDE:
        return np.array([0.0, 0.0, side, side])
    return np.concatenate([low, extent])


def areas_beside(box_ltwh: np.ndarray, frame_ltwh: np.ndarray) -> list[np.ndarray]:
    """The parts of a frame left, right, above and below of a box, ``ltwh [4]`` each.

    They may be empty or of negative extent where there is no such part.
    """
    x0, y0, x1, y1 = ltwh_to_corners(frame_ltwh)
    left, top, right, bottom = ltwh_to_corners(box_ltwh)
    width, height = x1 - x0, y1 - y0
    return [
        np.array([x0, y0, left - x0, height]),
        np.array([right, y0, x1 - right, height]),
        np.array([x0, y0, width, top - y0]),
        np.array([x0, bottom, width, y1 - bottom]),
    ]


def _draw_window(area: np.ndarray, rng: np.random.Generator) -> Window:
    side = rng.uniform(0.5, 1.0) * area[2:].min()
    cx, cy = area[:2] + rng.uniform(side / 2, area[2:] - side / 2)
    return Window(float(cx), float(cy), side, side, flip=rng.random() < 0.5)


def _inside(area: np.ndarray, window: Window) -> Window:
    """The square window moved into the area, and shrunk if need be."""
    side = min(window.width, float(area[2:].min()))
    low, high = area[:2] + side / 2, area[:2] + area[2:] - side / 2
    cx, cy = np.clip([window.cx, window.cy], low, high)
    return Window(float(cx), float(cy), side, side)
