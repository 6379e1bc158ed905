"""Training pairs: an exemplar, a search patch and where the target lies in it.

Pairs come from prepared folders (``crop_tracks``; pasted, ``record_material``) and from
four further kinds of source: two frames of a sequence, two views of a still, pasted
objects (``composites``) and generated scenes (``scenes.generated``). A pair depends on
the seed and its index alone, never on who asks for it or in which order.

Folders count by their weights: each prepared folder with its own, all other folders
together with the sum of theirs. Within those, the kinds ``video``, ``stills`` and
``composites`` share that sum in the proportion of their own weights, as far as the
folders allow them. Of a prepared folder's weight, ``prepared_composites`` is the share
of pasted objects. Generated scenes count with ``synthetic`` beside the folders.
"""

import functools
from collections.abc import Callable, Iterable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro

from siamrpn_jax.common.errors import InputError, check_least, check_range
from siamrpn_jax.data.crops.windows import (
    AugmentConfig,
    Window,
    context_side,
    map_box,
    sample_window,
)
from siamrpn_jax.data.pairs.composites import (
    Material,
    PoolMaterial,
    TargetOrigin,
    make_composite,
)
from siamrpn_jax.data.pairs.crop_tracks import Balance, CropTracks, RecordPair
from siamrpn_jax.data.pairs.photometry import (
    Photometry,
    apply_photometry,
    draw_photometry,
)
from siamrpn_jax.data.pairs.record_material import RecordMaterial
from siamrpn_jax.data.pairs.requests import CropRequest, Picture, render
from siamrpn_jax.data.pairs.teacher import Teacher
from siamrpn_jax.data.read.pool import Pool, Target
from siamrpn_jax.data.sampling import Weighted, name_hash
from siamrpn_jax.data.scenes.generated import Scene
from siamrpn_jax.model.boxes import ltwh_to_cxcywh

# Generating a scene costs as much as ten pairs drawn from it. So a stretch of indices
# shares a set of scenes, each met at random: neighbours in a batch seldom share one.
_SCENES = 64
_SCENE_STRETCH = 2048
_SCENE_FRAMES = 150


@dataclass(frozen=True)
class DataConfig:
    """What pairs are made of."""

    folders: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--data",))] = ()
    """Prepared folders, and folders with sequences or stills at any depth. None:
    generated scenes only."""

    weights: Annotated[tuple[float, ...], tyro.conf.arg(aliases=("--weights",))] = ()
    """Weight of each folder, in the order of the folders; default 1 each. Each prepared
    folder counts by its own weight, all other folders together by the sum of theirs. A
    sequence or still that lies in two folders belongs to the first one."""

    fraction: tuple[float, ...] = ()
    """Share of each folder's videos and stills to train on, in the order of the
    folders; default: all. Chosen by a hash of the names: a smaller share lies within a
    larger one."""

    video: float = 0.2
    """Weight of pairs of two frames of a sequence."""

    stills: float = 0.4
    """Weight of pairs of two views of one still."""

    composites: float = 0.4
    """Weight of pairs of pasted objects."""

    prepared_composites: float = 0.0
    """Share of the pairs of each prepared folder that are made of pasted objects: its
    own targets, pasted on backgrounds from beside its other targets. (The three weights
    above are for folders that are not prepared.) A folder whose search crops leave no
    room beside the targets gives no such pairs; if no folder can, training is
    refused."""

    synthetic: float = 0.0
    """Weight of pairs of generated scenes, beside those of folders; without folders
    there is nothing else."""

    balance: Balance = "tracks"
    """What is drawn equally often from a prepared folder."""

    max_interval: int = 100
    """Largest distance in source frames between the two frames of a sequence."""

    negative_probability: float = 0.0
    """Share of the pairs whose search patch shows another target (paper: 0)."""

    negative_same_category: float = 0.5
    """Share of those pairs that show a target of the same category, where the category
    is known and other videos have it; the rest show one of another category, if any."""

    neighbour_probability: float = 0.0
    """Share of the pairs of a still with several objects whose search patch is centred
    on another of its objects, as a tracker that has slipped sees it: the target lies
    beside that object, or out of sight, and the pair is a negative one."""

    validation_fraction: float = 0.08
    """Share of sequences, of stills and of the videos of each prepared folder held out
    for validation, chosen by name: at least one of two or more, unless 0."""

    hold_out: tuple[str, ...] = ()
    """Names of sequences and prepared videos that are held out besides, so that the
    tracker can be judged on them."""

    teacher: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--teacher",))] = ()
    """A tracker to learn from as well, see ``losses.teacher-weight``: NanoTrack's two
    ONNX files, BACKBONE and HEAD."""

    bytes_mib: int = 4096
    """Image files are kept in memory if all together are smaller, MiB a process."""

    decoded_mib: int = 1024
    """Decoded images kept in memory, MiB a process."""

    seed: int = 0
    """Equal seeds give equal pairs."""

    def __post_init__(self) -> None:
        """Raises InputError on values out of range."""
        kinds = (self.video, self.stills, self.composites, self.synthetic)
        for weights in (kinds, self.weights):
            if not all(0 <= w < float("inf") for w in weights):
                raise InputError(f"weights {weights}, expected finite ones, at least 0")
        for name in ("weights", "fraction"):
            count = len(getattr(self, name))
            if count not in (0, len(self.folders)):
                raise InputError(
                    f"{name}: {count} numbers for {len(self.folders)} folders, "
                    "expected one for each"
                )
        if not all(0 < share <= 1 for share in self.fraction):
            raise InputError(
                f"fraction={self.fraction}, expected shares above 0 and at most 1"
            )
        check_range(self, 0, 1, "prepared_composites", "validation_fraction")
        check_range(self, 0, 1, "negative_probability", "negative_same_category")
        check_range(self, 0, 1, "neighbour_probability")
        check_least(self, 0, "seed", "max_interval", "bytes_mib", "decoded_mib")

    def weighted_folders(self) -> list[tuple[str, float, float]]:
        """Each folder with its weight, and the share of it that is used."""
        every = (1.0,) * len(self.folders)
        columns = self.folders, self.weights or every, self.fraction or every
        return list(zip(*columns, strict=True))


class Pair(NamedTuple):
    """One training pair."""

    z: np.ndarray
    """Exemplar, RGB ``uint8 [Z, Z, 3]``."""

    x: np.ndarray
    """Search patch, RGB ``uint8 [X, X, 3]``."""

    box: np.ndarray
    """``cxcywh float32 [4]`` in pixels of ``x``: the target, or the other object that a
    negative pair shows. It may reach beyond the patch."""

    positive: np.float32
    """1 if the target of ``z`` is in ``x``, else 0."""

    origins: np.ndarray
    """``uint32 [2]``: what the target of ``z`` and that of ``x`` belong to, as numbers
    that are equal for equal origins."""

    teacher: np.ndarray | None = None
    """What the teacher says of the pair, see ``Teacher.scores``; None without one."""


class _Draw(NamedTuple):
    """A pair before anything is cropped."""

    z: CropRequest
    x: CropRequest
    box: np.ndarray
    origin: TargetOrigin
    """What the target of ``z`` belongs to."""

    shown: frozenset[TargetOrigin]
    """The origins of which ``x`` shows a part."""

    category: str = ""
    """The target's category, where it is known."""

    track: tuple[CropTracks, int] | None = None
    """The folder and the track that both records are of, if they are."""

    in_sight: bool = True
    """Whether the target is in ``x``."""


class PairDataset:
    """Pairs by index, without end; thread safe and picklable.

    Args:
        config: what pairs are made of.
        pool: what its folders hold, see ``loader.open_datasets``.
        crop_tracks: those of its folders that are prepared.
        exemplar_size: Z, pixels.
        instance_size: X, pixels.
        augment: how they are varied.
        context: context of the crops, see ``windows.context_side``.
        teacher: who says where it sees the targets, if anybody does.
        validation: whether the pairs are for validation: other draws, other scenes.

    Raises:
        InputError: nothing with a weight can be made from the folders.
    """

    def __init__(
        self,
        config: DataConfig,
        pool: Pool,
        *,
        crop_tracks: SequenceOf[CropTracks] = (),
        exemplar_size: int,
        instance_size: int,
        augment: AugmentConfig,
        context: float = 0.5,
        teacher: Teacher | None = None,
        validation: bool = False,
    ):
        self.config, self.augment, self.validation = config, augment, validation
        self.exemplar_size, self.instance_size = exemplar_size, instance_size
        self.teacher = teacher
        self.pool, self.crop_tracks, self.context = pool, tuple(crop_tracks), context
        sources = mixture(config, pool, crop_tracks)
        if not sources:
            raise InputError(
                f"folders {config.folders} hold no usable pair of a kind with a "
                f"positive weight (video {config.video}, stills {config.stills}, "
                f"composites {config.composites}, synthetic {config.synthetic})"
            )
        pasted = any(isinstance(source, RecordMaterial) for source in sources)
        if config.prepared_composites and not pasted and not validation:
            raise InputError(_without_composites(config, self.crop_tracks))
        self._sources = Weighted(tuple(sources), sources.values())
        self._reset()

    def __getitem__(self, index: int) -> Pair:
        """The pair of an index of at least 0.

        Raises:
            ImageError: an image cannot be decoded, or is not of the annotated size.
            RecordError: a record of a prepared folder cannot be used.
        """
        rng, drawn, positive, origins = self._draw_pair(index)
        changes = self._draw_photometry(rng, drawn)
        sizes = self.exemplar_size, self.instance_size
        z, x = (
            apply_photometry(render(request, size), change, rng)
            for request, change, size in zip(
                (drawn.z, drawn.x), changes, sizes, strict=True
            )
        )
        said = self.teacher.scores(z, x) if self.teacher else None
        return Pair(z, x, drawn.box, positive, origins, said)

    def video_names(self) -> frozenset[str]:
        """Names of the sequences and of the prepared videos, without stills."""
        prepared = (tracks.video_names() for tracks in self.crop_tracks)
        return frozenset(self.pool.sequences).union(*prepared)

    def describe(self) -> str:
        """One line about what was found and how it is mixed."""
        pool = self.pool
        found = [tracks.describe() for tracks in self.crop_tracks]
        if len(pool.store) or not found:
            found.append(
                f"{len(pool.store)} images: {len(pool.tracks)} sequences, "
                f"{sum(map(len, pool.stills))} objects in {len(pool.stills)} stills, "
                f"{len(pool.small)} small images"
            )
        mix = zip(self._sources, self._sources.probabilities(), strict=True)
        return (
            f"{'validation' if self.validation else 'training'} pairs from "
            f"{'; '.join(found)}; mixture "
            + ", ".join(f"{share:.0%} {source}" for source, share in mix)
        )

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_scene"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def _reset(self) -> None:
        self._scene = functools.lru_cache(maxsize=2 * _SCENES)(Scene)

    def _draw_pair(
        self, index: int
    ) -> tuple[np.random.Generator, _Draw, np.float32, np.ndarray]:
        """All of a pair but its looks, which the generator is to draw next."""
        # Validation draws differ from those of training even where the data is shared.
        rng = np.random.default_rng((self.config.seed, index, int(self.validation)))
        drawn = self._draw(rng, index)
        negative = rng.random() < self.config.negative_probability
        searched = drawn
        if negative:
            searched = self._draw_other(rng, index, drawn)
            drawn = drawn._replace(x=searched.x, box=searched.box)
        names = (repr(one.origin) for one in (drawn, searched))
        origins = np.array([name_hash(name) for name in names], np.uint32)
        positive = drawn.in_sight and not negative
        return rng, drawn, np.float32(positive), origins

    def _draw(self, rng: np.random.Generator, index: int) -> _Draw:
        match self._sources.draw(rng):
            case CropTracks() as tracks:
                pair = tracks.draw(rng, max_interval=self.config.max_interval)
                return self._records(rng, tracks, pair)
            case RecordMaterial() as material:
                return self._composite(rng, material)
            case "video":
                return self._video(rng)
            case "stills":
                return self._still(rng)
            case "composites":
                return self._composite(rng, PoolMaterial(self.pool))
            case _:
                return self._synthetic(rng, index)

    def _draw_other(self, rng: np.random.Generator, index: int, target: _Draw) -> _Draw:
        """A pair whose search patch shows nothing of a target's origin.

        The images of a sequence are one origin: a composite of any frame may show the
        target of them all. Where the data has no other target, a scene is generated.
        """
        if target.category and rng.random() < self.config.negative_same_category:
            other = self._draw_same_category(rng, target)
            if other is not None:
                return other
        for _ in range(8):
            other = self._draw(rng, index)
            new = not target.category or other.category != target.category
            if new and target.origin not in other.shown:
                return other
        other = self._draw_same_category(rng, target)
        return other or self._synthetic(rng, index + _SCENE_STRETCH)

    def _draw_same_category(
        self, rng: np.random.Generator, target: _Draw
    ) -> _Draw | None:
        """A pair of another video of the target's folder, if its category has any."""
        if target.track is None:
            return None
        tracks, track = target.track
        pair = tracks.draw_same_category(rng, track)
        return None if pair is None else self._records(rng, tracks, pair)

    def _records(
        self, rng: np.random.Generator, tracks: CropTracks, pair: RecordPair
    ) -> _Draw:
        """Two records of a prepared folder, or a single one twice."""
        crops, origin = tracks.records.crops, tracks.video(pair.track)
        reads = (
            functools.partial(tracks.exemplar, pair.exemplar),
            functools.partial(tracks.search, pair.search),
        )
        angle = self._draw_angle(rng) if tracks.is_still(pair.track) else 0.0
        side = crops.search_crop
        polygons = tracks.outlines(pair.search, side) if angle else ()
        targets = (
            Target(-1, tracks.box(pair.exemplar, crops.exemplar_crop)),
            Target(-1, tracks.box(pair.search, side), polygons),
        )
        return _Draw(
            *self._requests(rng, reads, targets, angle=angle),
            origin,
            frozenset({origin}),
            tracks.category(pair.track),
            (tracks, pair.track),
        )

    def _video(self, rng: np.random.Generator) -> _Draw:
        """Two frames of a sequence, ``max_interval`` apart at most, in any order."""
        track = self.pool.tracks.draw(rng)
        i = int(rng.integers(len(track.numbers)))
        near = track.numbers[i] + np.array([-1, 1]) * self.config.max_interval
        low = np.searchsorted(track.numbers, near[0], "left")
        high = np.searchsorted(track.numbers, near[1], "right")
        j = int(rng.integers(low, high))
        z, x = (Target(int(track.images[k]), track.boxes[k]) for k in (i, j))
        reads = (self._reader(z.image), self._reader(x.image))
        requests = self._requests(rng, reads, (z, x))
        return self._from_images(requests, z.image, {x.image})

    def _still(self, rng: np.random.Generator) -> _Draw:
        """Two views of one still; mostly one that fills the search window."""
        for _ in range(6):
            targets = self.pool.stills.draw(rng)
            target = targets[rng.integers(len(targets))]
            image = self.pool.store[target.image]
            _, _, w, h = map(float, target.box)
            side = context_side(w, h, context=self.context)
            side *= self.instance_size / self.exemplar_size
            if side < 1.5 * min(image.shape[:2]) or rng.random() < 0.15:
                break
        angle, read = self._draw_angle(rng), self._reader(target.image)
        slip = None
        chance = self.config.neighbour_probability if len(targets) > 1 else 0.0
        if chance and rng.random() < chance:
            others = [other for other in targets if other is not target]
            near = others[rng.integers(len(others))]
            slip = ltwh_to_cxcywh(near.box)[:2] - ltwh_to_cxcywh(target.box)[:2]
        requests = self._requests(
            rng, (read, read), (target, target), angle=angle, slip=slip
        )
        drawn = self._from_images(requests, target.image, {target.image})
        center = drawn.box[:2]
        in_sight = bool(((center > 0) & (center < self.instance_size)).all())
        return drawn._replace(in_sight=in_sight)

    def _composite(self, rng: np.random.Generator, material: Material) -> _Draw:
        """Pasted objects: patches already."""
        pair = make_composite(
            material,
            rng,
            exemplar_size=self.exemplar_size,
            instance_size=self.instance_size,
            augment=self.augment,
            context=self.context,
        )
        z, x = (
            CropRequest(functools.partial(Picture, patch)) for patch in (pair.z, pair.x)
        )
        shown = frozenset(map(material.origin, pair.shown))
        return _Draw(z, x, pair.box, material.origin(pair.image), shown)

    def _synthetic(self, rng: np.random.Generator, index: int) -> _Draw:
        """Two frames of a generated scene."""
        stretch = index // _SCENE_STRETCH
        number = stretch * _SCENES + int(rng.integers(_SCENES))
        # Odd scenes are for validation.
        key = (self.config.seed, 2 * number + int(self.validation))
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        scene = self._scene(seed)
        first = rng.uniform(0, _SCENE_FRAMES)
        reach = min(self.config.max_interval, _SCENE_FRAMES)
        second = first + rng.uniform(-reach, reach)
        (z, z_box), (x, x_box) = scene.render(first), scene.render(second)
        reads = functools.partial(Picture, z), functools.partial(Picture, x)
        targets = Target(-1, z_box), Target(-1, x_box)
        origin = ("scene", seed)
        return _Draw(*self._requests(rng, reads, targets), origin, frozenset({origin}))

    def _reader(self, image: int) -> Callable[[], Picture]:
        return lambda: Picture(self.pool.store[image])

    def _draw_photometry(
        self, rng: np.random.Generator, drawn: _Draw
    ) -> tuple[Photometry, Photometry]:
        """What is changed in the exemplar and in the search patch."""
        shift = drawn.box[:2] - self.instance_size / 2
        return draw_photometry(rng, self.augment, shift)

    def _draw_angle(self, rng: np.random.Generator) -> float:
        """By which a pair made of one still is turned."""
        if rng.random() < self.augment.rotation_probability:
            return rng.uniform(-self.augment.rotation, self.augment.rotation)
        return 0.0

    def _from_images(
        self,
        requests: tuple[CropRequest, CropRequest, np.ndarray],
        image: int,
        shown: Iterable[int],
    ) -> _Draw:
        """A pair whose target is of ``image``; its search patch shows ``shown``."""
        origins = self.pool.origins
        seen = frozenset(("image", int(origins[i])) for i in shown)
        return _Draw(*requests, ("image", int(origins[image])), seen)

    def _requests(
        self,
        rng: np.random.Generator,
        reads: tuple[Callable[[], Picture], Callable[[], Picture]],
        targets: tuple[Target, Target],
        *,
        angle: float = 0.0,
        slip: np.ndarray | None = None,
    ) -> tuple[CropRequest, CropRequest, np.ndarray]:
        """The exemplar around one target, the search patch around another, its box.

        The search patch is ``slip`` pixels of the image beside it, ``[2]``.
        """
        a = self.augment
        z_box, x_box = (ltwh_to_cxcywh(t.box.astype(np.float64)) for t in targets)
        flip = rng.random() < a.flip_probability
        z_window = sample_window(
            z_box,
            rng,
            side=context_side(z_box[2], z_box[3], context=self.context),
            shift=a.template_shift,
            scale=a.template_scale,
            aspect=a.template_aspect,
            flip=flip,
        )
        x_window = sample_window(
            x_box,
            rng,
            side=context_side(x_box[2], x_box[3], context=self.context)
            * (self.instance_size / self.exemplar_size),
            shift=a.search_shift,
            scale=a.search_scale,
            aspect=a.search_aspect,
            angle=angle,
            flip=flip,
        )
        if slip is not None:
            cx, cy = x_window.cx + float(slip[0]), x_window.cy + float(slip[1])
            x_window = x_window._replace(cx=cx, cy=cy)
        return (
            CropRequest(reads[0], z_window),
            CropRequest(reads[1], x_window),
            _map_target(targets[1], x_box, x_window, self.instance_size),
        )


def _map_target(
    target: Target, box_cxcywh: np.ndarray, window: Window, size: int
) -> np.ndarray:
    """The target's box in a patch: from its outline if that fits its box."""
    outline = None
    if target.polygons and window.angle:
        points = np.concatenate(target.polygons)
        low, extent = points.min(axis=0), np.ptp(points, axis=0)
        if np.abs(np.concatenate([low, extent]) - target.box).max() < 2:
            outline = points
    return map_box(box_cxcywh, window, size, outline=outline)


Source = str | CropTracks | RecordMaterial
"""A kind of pairs of folders that are not prepared, a prepared folder, or composites of
one."""


def mixture(
    config: DataConfig, pool: Pool, crop_tracks: SequenceOf[CropTracks] = ()
) -> dict[Source, float]:
    """What pairs can be drawn from, with weights, all positive; see the module."""
    has_objects = bool(len(pool.stills) or len(pool.tracks) or pool.small)
    kinds = {
        "video": config.video * (len(pool.tracks) > 0),
        "stills": config.stills * (len(pool.stills) > 0),
        "composites": config.composites * (has_objects and len(pool.backgrounds) > 0),
    }
    total = sum(kinds.values()) or 1.0
    weights: dict[Source, float] = {
        kind: pool.weight * weight / total for kind, weight in kinds.items()
    }
    for tracks in crop_tracks:
        weight, share = tracks.weight * (len(tracks) > 0), config.prepared_composites
        if share and not (material := RecordMaterial(tracks)).lack:
            weights |= {tracks: weight * (1 - share), material: weight * share}
        else:
            weights[tracks] = weight
    weights["synthetic"] = config.synthetic if config.folders else 1.0
    return {source: weight for source, weight in weights.items() if weight > 0}


def _without_composites(config: DataConfig, crop_tracks: Iterable[CropTracks]) -> str:
    """Why no prepared folder gives composites, where they are asked for."""
    asked = f"prepared_composites={config.prepared_composites:g}"
    lacks = [lack for tracks in crop_tracks if (lack := RecordMaterial(tracks).lack)]
    if lacks:
        return f"{asked}: {'; '.join(lacks)}"
    found = ", ".join(config.folders) or "no folders"
    return (
        f"{asked}: expected a prepared folder with a weight, found {found}; composites "
        "of other folders are asked for by the weight composites"
    )
