"""Training pairs: an exemplar, a search patch and where the target lies in it.

Pairs come from four kinds of source: two frames of a sequence, two views of a still,
pasted objects (`composites`) and generated scenes (`synthetic`). A pair depends on the
seed and its index alone, never on who asks for it or in which order.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro

from siamrpn_jax.boxes import ltwh_to_cxcywh
from siamrpn_jax.data.augment import (
    AugmentConfig,
    Window,
    context_side,
    crop,
    map_box,
    photometric,
    sample_window,
)
from siamrpn_jax.data.composites import make_composite
from siamrpn_jax.data.pool import DataError, Pool, Target, Weighted
from siamrpn_jax.data.synthetic import Scene

# Generating a scene costs as much as ten pairs drawn from it. So a stretch of indices
# shares a set of scenes, each met at random: neighbours in a batch seldom share one.
_SCENES = 64
_SCENE_STRETCH = 2048
_SCENE_FRAMES = 150


@dataclass(frozen=True)
class DataConfig:
    """What pairs are made of."""

    folders: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--data",))] = ()
    """Folders with sequences or stills, at any depth. None: generated scenes only."""

    video: float = 0.2
    """Weight of pairs of two frames of a sequence."""

    stills: float = 0.4
    """Weight of pairs of two views of one still."""

    composites: float = 0.4
    """Weight of pairs of pasted objects."""

    synthetic: float = 0.0
    """Weight of pairs of generated scenes; without folders there is nothing else."""

    max_interval: int = 100
    """Largest distance in frames between the two frames of a sequence."""

    negative_probability: float = 0.0
    """How many pairs show another target in the search patch (paper: none)."""

    validation_fraction: float = 0.08
    """Share of sequences and of stills held out for validation, chosen by name: at
    least one of two or more, unless 0."""

    bytes_mib: int = 4096
    """Image files are kept in memory if all together are smaller, MiB a process."""

    decoded_mib: int = 1024
    """Decoded images kept in memory, MiB a process."""

    seed: int = 0
    """Equal seeds give equal pairs."""

    def __post_init__(self) -> None:
        """Raises DataError on values out of range."""
        weights = (self.video, self.stills, self.composites, self.synthetic)
        if not all(0 <= w < float("inf") for w in weights):
            raise DataError(f"weights {weights}, expected finite ones, at least 0")
        for name in ("negative_probability", "validation_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"{name}={getattr(self, name)}, expected 0 to 1")
        for name in ("seed", "max_interval", "bytes_mib", "decoded_mib"):
            if getattr(self, name) < 0:
                raise DataError(f"{name}={getattr(self, name)}, expected at least 0")


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


class _Draw(NamedTuple):
    """A pair before photometric changes."""

    z: np.ndarray
    x: np.ndarray
    box: np.ndarray
    origin: "_Origin"
    """What the target belongs to."""

    shown: "frozenset[_Origin]"
    """Of what ``x`` shows a part."""


_Origin = tuple[str, int]
"""``image`` and an origin of the pool, or ``scene`` and its seed."""


class PairDataset:
    """Pairs by index, without end; thread safe and picklable.

    Args:
        config: what pairs are made of.
        pool: what its folders hold, see `loader.open_datasets`.
        exemplar_size: Z, pixels.
        instance_size: X, pixels.
        augment: how they are varied.
        context: context of the crops, see `augment.context_side`.
        validation: whether the pairs are for validation: other draws, other scenes.

    Raises:
        DataError: none of the kinds with a weight can be made from the pool.
    """

    def __init__(
        self,
        config: DataConfig,
        pool: Pool,
        *,
        exemplar_size: int,
        instance_size: int,
        augment: AugmentConfig,
        context: float = 0.5,
        validation: bool = False,
    ):
        self.config, self.augment, self.validation = config, augment, validation
        self.exemplar_size, self.instance_size = exemplar_size, instance_size
        self.pool, self.context = pool, context
        kinds = usable_kinds(config, pool)
        if not kinds:
            raise DataError(
                f"folders {config.folders} hold no usable pair of a kind with a "
                f"positive weight (video {config.video}, stills {config.stills}, "
                f"composites {config.composites}, synthetic {config.synthetic})"
            )
        self._kinds = Weighted(kinds, kinds.values())
        self._reset()

    def __getitem__(self, index: int) -> Pair:
        """The pair of an index of at least 0.

        Raises:
            ImageError: an image cannot be decoded, or is not of the annotated size.
        """
        # Validation draws differ from those of training even where the data is shared.
        rng = np.random.default_rng((self.config.seed, index, int(self.validation)))
        drawn = self._draw(rng, index)
        positive = not rng.random() < self.config.negative_probability
        if not positive:
            other = self._draw_other(rng, index, drawn.origin)
            drawn = drawn._replace(x=other.x, box=other.box)
        z, x = photometric(drawn.z, drawn.x, rng, self.augment)
        return Pair(z, x, drawn.box, np.float32(positive))

    def describe(self) -> str:
        """One line about what was found and how it is mixed."""
        pool = self.pool
        mix = zip(self._kinds, self._kinds.probabilities(), strict=True)
        return (
            f"{'validation' if self.validation else 'training'} pairs from "
            f"{len(pool.store)} images: {len(pool.tracks)} sequences, "
            f"{sum(map(len, pool.stills))} objects in {len(pool.stills)} stills, "
            f"{len(pool.small)} small images; mixture "
            + ", ".join(f"{share:.0%} {kind}" for kind, share in mix)
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

    def _draw(self, rng: np.random.Generator, index: int) -> _Draw:
        match self._kinds.draw(rng):
            case "video":
                return self._video(rng)
            case "stills":
                return self._still(rng)
            case "composites":
                pair = make_composite(
                    self.pool,
                    rng,
                    exemplar_size=self.exemplar_size,
                    instance_size=self.instance_size,
                    augment=self.augment,
                    context=self.context,
                )
                return self._from_images(pair[:3], pair.image, pair.shown)
            case _:
                return self._synthetic(rng, index)

    def _from_images(
        self,
        views: tuple[np.ndarray, np.ndarray, np.ndarray],
        image: int,
        shown: Iterable[int],
    ) -> _Draw:
        """A pair whose target is of ``image``; its search patch shows ``shown``."""
        origins = self.pool.origins
        seen = frozenset(("image", int(origins[i])) for i in shown)
        return _Draw(*views, ("image", int(origins[image])), seen)

    def _draw_other(
        self, rng: np.random.Generator, index: int, origin: _Origin
    ) -> _Draw:
        """A pair that shows nothing of an origin; generated if the data has no other.

        The images of a sequence are one origin: a composite of any frame may show the
        target of them all.
        """
        for _ in range(8):
            other = self._draw(rng, index)
            if origin not in other.shown:
                return other
        return self._synthetic(rng, index + _SCENE_STRETCH)

    def _video(self, rng: np.random.Generator) -> _Draw:
        """Two frames of a sequence, ``max_interval`` apart at most, in any order."""
        track = self.pool.tracks.draw(rng)
        i = int(rng.integers(len(track.numbers)))
        near = track.numbers[i] + np.array([-1, 1]) * self.config.max_interval
        low = np.searchsorted(track.numbers, near[0], "left")
        high = np.searchsorted(track.numbers, near[1], "right")
        j = int(rng.integers(low, high))
        z, x = (Target(int(track.images[k]), track.boxes[k]) for k in (i, j))
        images = self.pool.store[z.image], self.pool.store[x.image]
        views = self._views(rng, images, (z, x))
        return self._from_images(views, z.image, {x.image})

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
        angle = 0.0
        if rng.random() < self.augment.rotation_probability:
            angle = rng.uniform(-self.augment.rotation, self.augment.rotation)
        views = self._views(rng, (image, image), (target, target), angle=angle)
        return self._from_images(views, target.image, {target.image})

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
        targets = Target(-1, z_box), Target(-1, x_box)
        origin = ("scene", seed)
        return _Draw(*self._views(rng, (z, x), targets), origin, frozenset({origin}))

    def _views(
        self,
        rng: np.random.Generator,
        images: tuple[np.ndarray, np.ndarray],
        targets: tuple[Target, Target],
        *,
        angle: float = 0.0,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Crops the exemplar around one target and the search patch around another."""
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
        return (
            crop(images[0], z_window, self.exemplar_size),
            crop(images[1], x_window, self.instance_size),
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


def usable_kinds(config: DataConfig, pool: Pool) -> dict[str, float]:
    """The kinds of pairs that a pool allows, with their weights, all positive."""
    has_objects = bool(len(pool.stills) or len(pool.tracks) or pool.small)
    weights = {
        "video": config.video * (len(pool.tracks) > 0),
        "stills": config.stills * (len(pool.stills) > 0),
        "composites": config.composites * (has_objects and len(pool.backgrounds) > 0),
        "synthetic": config.synthetic if config.folders else 1.0,
    }
    return {kind: weight for kind, weight in weights.items() if weight > 0}
