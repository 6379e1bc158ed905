"""Images with one class each, for pretraining a backbone.

They come from folders in ImageNet's layout or from a dataset that TensorFlow Datasets
has prepared. A training image depends on the seed and its index alone: every epoch
shows each image once, in another order and cropped and coloured anew.
"""

import functools
import logging
import math
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol

import cv2
import numpy as np
import tyro

from siamrpn_jax.common.errors import InputError, check_least, check_range, require
from siamrpn_jax.common.files import check_name
from siamrpn_jax.data.pairs.photometry import color_table
from siamrpn_jax.data.read import tfds
from siamrpn_jax.data.read.array_records import example_type
from siamrpn_jax.data.read.formats import read_lines
from siamrpn_jax.data.read.images import (
    ImageError,
    decode_image,
    is_hidden,
    is_image,
)
from siamrpn_jax.data.sampling import held_out
from siamrpn_jax.training.batch import LabelledBatch

LAYOUT = (
    "expected train/<class>/*.JPEG and val/<class>/*.JPEG, or <class>/*.JPEG, or a "
    "dataset that TensorFlow Datasets has prepared (imagenet2012/5.1.0)"
)

_VALIDATION = ("val", "validation", "test")
"""Folders and splits of held-out images; the first that is there is taken."""

_ANNOTATIONS = "val_annotations.txt"
"""Where Tiny-ImageNet says of which classes its held-out images are."""

_CENTRAL = 0.875
"""Side of the central square that is classified, as a share of the shorter side."""

_ASPECT = math.log(4 / 3)
"""Largest logarithm of a crop's width over its height."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledConfig:
    """Which images, and how they are varied."""

    folder: Annotated[str, tyro.conf.arg(aliases=("--data",))] = ""
    """Images in folders ``train/<class>`` and ``val/<class>``, or in ``<class>`` alone,
    of which a share is held out; or the folder of a dataset that TFDS has prepared."""

    validation_fraction: float = 0.05
    """Share held out where the folder has no held-out images of its own."""

    min_area: float = 0.08
    """Smallest share of an image that a crop shows; the largest is all of it."""

    flip_probability: float = 0.5
    """Share of the crops that are mirrored."""

    color_probability: float = 0.8
    """Share of the crops whose gamma, gain and bias are changed."""

    color_strength: float = 1.0
    """Strength of those changes; see ``AugmentConfig``."""

    skip_unreadable: bool = False
    """Where an image cannot be decoded, warn and take the next one of the epoch."""

    seed: int = 0
    """Equal seeds give equal images."""

    def __post_init__(self) -> None:
        """Raises InputError on values out of range."""
        check_least(self, 1e-6, "min_area")
        check_least(self, 0, "color_strength")
        check_range(self, 0, 1, "validation_fraction")
        check_range(self, 0, 1, "flip_probability", "color_probability")


class Sample(NamedTuple):
    """An image as it is stored."""

    data: bytes
    label: int
    name: str


class Source(Protocol):
    """Images by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Sample: ...


class LabelledDataset:
    """Images of one size by index; see ``open_labelled``.

    Args:
        config: how they are varied.
        classes: names, by the number of the label.
        source: where they are.
        chosen: numbers of those in the source that belong to this dataset.
        image_size: n, side of the images.
        training: varied and in a new order each epoch, else the middle of each image in
            the order of the source.
    """

    def __init__(
        self,
        config: LabelledConfig,
        classes: tuple[str, ...],
        source: Source,
        chosen: np.ndarray,
        *,
        image_size: int,
        training: bool,
    ):
        self.classes, self.image_size = classes, image_size
        self._config, self._source, self._chosen = config, source, chosen
        self._training = training

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> LabelledBatch:
        """The image of an index of at least 0, without the axis B.

        Raises:
            ImageError: it cannot be decoded.
        """
        epoch, place = divmod(index, len(self))
        image, label = self._read(epoch, place)
        if self._training:
            rng = np.random.default_rng((self._config.seed, index))
            patch = vary(image, rng, config=self._config, size=self.image_size)
        else:
            patch = central(image, size=self.image_size)
        return LabelledBatch(patch, np.int32(label))

    def spread(self, count: int) -> "LabelledDataset":
        """A dataset of ``count`` of the images, evenly spread over all."""
        some = self._chosen[np.linspace(0, len(self) - 1, count).astype(int)]
        return LabelledDataset(
            self._config,
            self.classes,
            self._source,
            some,
            image_size=self.image_size,
            training=self._training,
        )

    def describe(self) -> str:
        """A few words about what there is."""
        return f"{len(self):,} images of {len(self.classes):,} classes"

    def _read(self, epoch: int, place: int) -> tuple[np.ndarray, int]:
        for _ in range(len(self)):
            try:
                data, label, name = self._source[self._number(epoch, place)]
                return decode_image(data, name=name), label
            except ImageError as error:
                if not self._config.skip_unreadable:
                    raise ImageError(
                        f"{error} (--data.skip-unreadable takes others in its place)"
                    ) from error
                warnings.warn(f"left out: {error}", stacklevel=1)
                place = (place + 1) % len(self)
        raise ImageError(f"none of {len(self)} images can be decoded")

    def _number(self, epoch: int, place: int) -> int:
        if self._training:
            place = _order(self._config.seed, epoch, len(self))[place]
        return int(self._chosen[place])


def open_labelled(
    config: LabelledConfig, *, image_size: int
) -> tuple[LabelledDataset, LabelledDataset | None]:
    """Lists the images; none is read.

    Args:
        config: which, and how they are varied.
        image_size: side of the images that are wanted, pixels.

    Returns:
        Those for training and those that are held out, None where there are none.

    Raises:
        InputError: a folder that is missing or holds no classes, or no images of one.
        TfdsError: a dataset of TFDS that is not whole.
        MissingExtraError: such a dataset, and TFDS is not installed.
    """
    root = Path(config.folder)
    if not config.folder or not root.is_dir():
        missing = f"{root}: no such folder" if config.folder else "no data"
        raise InputError(f"{missing}; {LAYOUT}")
    version = _find_version(root)
    parts = _open_tfds(version) if version else _open_folders(root)
    classes, training, validation = parts
    make = functools.partial(LabelledDataset, config, classes, image_size=image_size)
    everything = np.arange(len(training))
    if validation is not None:
        kept = make(validation, np.arange(len(validation)), training=False)
        return make(training, everything, training=True), kept
    names = {i: training.name(i) for i in range(len(training))}
    out = np.zeros(len(training), bool)
    out[list(held_out(names, config.validation_fraction))] = True
    kept = make(training, everything[out], training=False) if out.any() else None
    return make(training, everything[~out], training=True), kept


# ------------------------------------------------------------------- what is shown


def vary(
    image: np.ndarray, rng: np.random.Generator, *, config: LabelledConfig, size: int
) -> np.ndarray:
    """A random part of an image ``[H, W, 3]``, mirrored and coloured: ``[n, n, 3]``."""
    patch = _resize(image, draw_part(rng, image.shape, min_area=config.min_area), size)
    if rng.random() < config.flip_probability:
        patch = cv2.flip(patch, 1)
    if rng.random() < config.color_probability:
        patch = cv2.LUT(patch, color_table(rng, config.color_strength))
    return patch


def central(image: np.ndarray, *, size: int) -> np.ndarray:
    """The middle of an image ``[H, W, 3]``: ``[n, n, 3]``."""
    height, width = image.shape[:2]
    side = max(1, round(_CENTRAL * min(height, width)))
    return _resize(image, ((width - side) // 2, (height - side) // 2, side, side), size)


def draw_part(
    rng: np.random.Generator, shape: Sequence[int], *, min_area: float
) -> tuple[int, int, int, int]:
    """Draws a rectangle of an image, area and proportions at random.

    Args:
        rng: the source of randomness.
        shape: of the image, ``[H, W, …]``.
        min_area: its smallest share of the image.

    Returns:
        ``ltwh`` in whole pixels, within the image.
    """
    height, width = shape[:2]
    for _ in range(10):
        area = rng.uniform(min(min_area, 1.0), 1.0) * height * width
        aspect = math.exp(rng.uniform(-_ASPECT, _ASPECT))
        w = max(1, round(math.sqrt(area * aspect)))
        h = max(1, round(math.sqrt(area / aspect)))
        if w <= width and h <= height:
            x, y = rng.integers(width - w + 1), rng.integers(height - h + 1)
            return int(x), int(y), w, h
    side = min(height, width)
    return (width - side) // 2, (height - side) // 2, side, side


def _resize(
    image: np.ndarray, part: tuple[int, int, int, int], size: int
) -> np.ndarray:
    x, y, w, h = part
    shrinks = w * h > size * size
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image[y : y + h, x : x + w], (size, size), interpolation=how)


@functools.lru_cache(maxsize=2)  # batches are made ahead, over the end of an epoch
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, count)).permutation(count)


# ------------------------------------------------------------------------- folders


class _Files:
    """Image files below one folder."""

    def __init__(self, root: Path, paths: list[str], labels: list[int]):
        self._root, self._paths = str(root), paths
        self._labels = np.array(labels, np.int32)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, i: int) -> Sample:
        path = Path(self._root, self._paths[i])
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ImageError(f"{path}: cannot be read ({error.strerror})") from error
        return Sample(data, int(self._labels[i]), str(path))

    def name(self, i: int) -> str:
        return self._paths[i]


_Parts = tuple[tuple[str, ...], Any, Any]
"""Classes, the source for training, and the held-out one or None."""


def _open_folders(root: Path) -> _Parts:
    divided = (root / "train").is_dir()
    training = root / "train" if divided else root
    classes = _subfolders(training)
    if len(classes) < 2:
        found = ", ".join(classes) or "none"
        raise InputError(
            f"{training}: expected a folder for each of at least two classes, found "
            f"{found}; {LAYOUT}"
        )
    validation = next((root / n for n in _VALIDATION if (root / n).is_dir()), None)
    if not divided or validation is None:
        return classes, _list_files(training, classes), None
    if (validation / _ANNOTATIONS).is_file():
        return classes, _list_files(training, classes), _read_tiny(validation, classes)
    own = _subfolders(validation)
    if unknown := sorted(set(own) - set(classes)):
        raise InputError(f"{validation}: class {unknown[0]} is not in {training}")
    if not own:
        raise InputError(f"{validation}: holds no folders of classes; {LAYOUT}")
    return classes, _list_files(training, classes), _list_files(validation, classes)


def _subfolders(folder: Path) -> tuple[str, ...]:
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.is_dir() and e.name[0] != "."]
    return tuple(sorted(names))


def _list_files(root: Path, classes: tuple[str, ...]) -> _Files:
    """The images of all classes, at any depth below their folders."""
    paths: list[str] = []
    labels: list[int] = []
    others: list[Path] = []
    for label, name in enumerate(classes):
        before = len(paths)
        for folder, folders, files in os.walk(root / name, followlinks=True):
            folders.sort()
            for file in sorted(files):
                path = Path(folder, file)
                if is_image(path):
                    paths.append(path.relative_to(root).as_posix())
                elif not is_hidden(file):
                    others.append(path)
        if len(paths) == before and (root / name).is_dir():
            raise InputError(f"{root / name}: holds no images of this class")
        labels += [label] * (len(paths) - before)
    if others:
        text = "%s: left out: %d files that are no images by their names, e.g. %s"
        log.warning(text, root, len(others), others[0])
    return _Files(root, paths, labels)


def _read_tiny(root: Path, classes: tuple[str, ...]) -> _Files:
    """The held-out images of Tiny-ImageNet: lines of file name, class and a box."""
    path, numbers = root / _ANNOTATIONS, {name: i for i, name in enumerate(classes)}
    lines = [line.split("\t") for line in read_lines(path)]
    for number, fields in enumerate(lines, start=1):
        if len(fields) < 2 or fields[1] not in numbers:
            raise InputError(
                f"{path}, line {number}: expected an image and one of the classes of "
                f"the training images, tabs between them, found {fields[:2]}"
            )
    files = [f"images/{check_name(fields[0], error=InputError)}" for fields in lines]
    return _Files(root, files, [numbers[fields[1]] for fields in lines])


# ---------------------------------------------------------------------------- TFDS


class _Records:
    """Images of one split of a dataset of TFDS."""

    def __init__(
        self, folder: Path, split: str, *, image: str, label: str, classes: int
    ):
        self._image, self._label, self._classes = image, label, classes
        shards = tfds.split_shards(folder, split)
        self._shards = list(shards)
        self._places = [tfds.find_places(s, n) for s, n in shards.items()]
        self._ends = np.cumsum([len(places) for places in self._places])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, i: int) -> Sample:
        shard = int(np.searchsorted(self._ends, i, "right"))
        places = self._places[shard]
        place = places[int(i - self._ends[shard]) + len(places)]
        name = f"{self._shards[shard]}: record at {place}"
        try:
            data = tfds.read_record(self._shards[shard], place)
            feature = example_type().FromString(data).features.feature
            image = feature[self._image].bytes_list.value[0]
            label = feature[self._label].int64_list.value[0]
        except Exception as error:  # which ones the readers raise is not documented
            raise ImageError(f"{name}: cannot be read ({error})") from error
        if not 0 <= label < self._classes:
            raise ImageError(
                f"{name}: has label {label}, expected 0 to {self._classes - 1}"
            )
        return Sample(image, label, name)

    def name(self, i: int) -> str:
        return str(i)


def _find_version(root: Path) -> Path | None:
    """The folder itself, or its newest version; None if TFDS did not prepare it."""
    if (root / "features.json").is_file():
        return root
    found = [path.parent for path in root.glob("*/features.json")]
    return max(found, key=_version, default=None)


def _version(folder: Path) -> list[int]:
    return list(map(int, re.findall(r"\d+", folder.name)))


def _open_tfds(folder: Path) -> _Parts:
    every = tfds.read_features(folder)
    features = require("tensorflow_datasets", extra="train").features
    images = [name for name, f in every.items() if type(f) is features.Image]
    labels = [name for name, f in every.items() if isinstance(f, features.ClassLabel)]
    if not images or not labels:
        found = ", ".join(sorted(every))
        raise InputError(f"{folder}: has {found}, expected an image and a class label")
    splits = tfds.split_infos(folder)
    split = next((name for name in _VALIDATION if name in splits), None)
    classes = tuple(every[labels[0]].names)
    read = functools.partial(
        _Records, folder, image=images[0], label=labels[0], classes=len(classes)
    )
    return classes, read("train"), read(split) if split else None
