"""Reading images, writing JPEG, and checking frames that a caller hands in.

Images are RGB ``uint8 [H, W, 3]``; OpenCV's BGR order stays inside.
"""

import io
import os
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from os import PathLike
from pathlib import Path

import cv2
import numpy as np

from siamrpn_jax.common.errors import InputError, reason_of
from siamrpn_jax.data.read.headers import (
    count_images,
    image_size,
    is_big_tiff,
    jpeg_orientation,
    sample_bits,
    without_turn,
)

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff"}
)
"""File names that count as frames, in lower case."""

UNREAD_SUFFIXES = frozenset(
    {".heic", ".heif", ".avif", ".jxl", ".jp2", ".gif", ".ppm", ".pgm", ".dng"}
)
"""Those of images that are not read: of telephones, of 16 bits, raw ones."""

FILM_SUFFIXES = frozenset(
    {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv"}
)
"""File names that count as films in a folder, in lower case."""

_NUMBERED = re.compile(
    r"(?P<before>|.*?[^\d.])(?P<sign>(?<![^_ ])-)?"
    r"(?P<number>\d+(?:\.(?P<fraction>\d+))?)(?P<after>\D*)\.[A-Za-z]\w*"
)
"""The name of a file by its last number. A sign is no other character's hyphen."""

_AROUND = re.compile(r"(\D*)(\d|\d.*\d)(\D*)")
"""What is before the numbers of a name, from the first to the last, and after them."""

MAX_PIXELS = 2**27
"""Larger images are not decoded: a kilobyte can declare gigabytes."""


class ImageError(InputError):
    """An image that cannot be read, or a frame of the wrong form."""


def list_images(folder: Path) -> list[Path]:
    """The images of a folder, see ``sort_images``; none where there is no folder."""
    return sort_images(folder.iterdir()) if folder.is_dir() else []


def sort_images(files: Iterable[Path]) -> list[Path]:
    """The images among files in natural order.

    Hidden files are left out: macOS puts a companion ``._NAME`` beside each file that
    it copies to a foreign disk.

    Raises:
        ImageError: beside them, under names that differ by numbers alone, are images of
            a format that is not read; or all numbers of several names are negative.
    """
    shown = [path for path in files if not is_hidden(path.name)]
    images = natural_sort(filter(is_image, shown))
    _refuse_negative(images)
    if unread := _unread(shown):
        _refuse_gaps(images, unread)
    return images


def unread_hint(folders: Iterable[Path]) -> str:
    """The end of a message, where folders hold images of a format that is not read."""
    for folder in folders:
        if folder.is_dir() and (unread := _unread(folder.iterdir())):
            return f"; {unread[0].name} is not read: {_convert(unread[0])}"
    return ""


def _unread(files: Iterable[Path]) -> list[Path]:
    shown = (path for path in files if not is_hidden(path.name))
    return natural_sort(p for p in shown if p.suffix.lower() in UNREAD_SUFFIXES)


def _convert(path: Path) -> str:
    return f"magick mogrify -format png '*{path.suffix}'"


def _refuse_gaps(images: list[Path], unread: list[Path]) -> None:
    """Raises ImageError for frames that would be left out, but for copies of others."""
    stems = {image.stem for image in images}
    names = {re.sub(r"\d+", "0", stem) for stem in stems}
    for path in unread:
        if path.stem not in stems and re.sub(r"\d+", "0", path.stem) in names:
            raise ImageError(
                f"{path}: is not of a format that is read, and {len(images)} images "
                f"beside it are, as {images[0].name}: {_convert(path)}"
            )


def _refuse_negative(images: list[Path]) -> None:
    """Raises ImageError for ``-1``, ``-2``, …: they may go up or down."""
    names = [_NUMBERED.fullmatch(image.name) for image in images]
    if len(names) > 1 and all(name and name["sign"] for name in names):
        raise ImageError(
            f"{images[0]}: all {len(images)} images here have negative numbers, "
            "expected names whose order is plain, as 0001.jpg"
        )


def is_image(path: Path) -> bool:
    """Whether a file is an image by its name: not hidden, with a known suffix."""
    return not is_hidden(path.name) and path.suffix.lower() in IMAGE_SUFFIXES


def is_film(path: Path) -> bool:
    """Whether a file is a film by its name."""
    return path.suffix.lower() in FILM_SUFFIXES


def is_hidden(name: str) -> bool:
    """Whether a file of this name is hidden."""
    return name.startswith(".")


def refuse_twins(images: Iterable[Path]) -> None:
    """Checks that no two images are of one frame, as far as their names tell.

    They are where the suffix alone or a zero before a number tells them apart, or a
    word before or after a name that has a number: ``0001.jpg`` and ``0001_mask.png``;
    or another word after it: ``0001_left.jpg`` and ``0001_right.jpg``. Names with other
    words before their numbers may repeat them: one clip comes after another.

    Raises:
        ImageError: naming two such images.
    """
    by_name: dict[tuple[Path, str], Path] = {}
    for image in images:
        first = by_name.setdefault((image.parent, _unpadded(image.stem)), image)
        if first != image:
            raise _twins(first, image, f"%04d{first.suffix}")
    by_number: dict[tuple[Path, str], Path] = {}
    for image in by_name.values():
        for stem in _without_a_word(image.stem):
            if first := by_name.get((image.parent, _unpadded(stem))):
                raise _twins(first, image, f"%04d{first.suffix}")
        number, word = _before_a_word(image.stem)
        first = by_number.setdefault((image.parent, number), image) if word else image
        if first != image:
            pattern = f"*{_before_a_word(first.stem)[1]}{first.suffix}"
            raise _twins(first, image, pattern)


def _unpadded(stem: str) -> str:
    return str(int(stem)) if stem.isdecimal() else stem


def _without_a_word(stem: str) -> Iterator[str]:
    """A name with a number without two or more letters and signs at one of its ends."""
    if numbers := _AROUND.fullmatch(stem):
        before, middle, after = numbers.groups()
        for end in range(len(after) - 1):
            yield before + middle + after[:end]
        for start in range(2, len(before) + 1):
            yield before[start:] + middle + after


def _before_a_word(stem: str) -> tuple[str, str]:
    """A name up to its last number, and the two or more letters and signs after it."""
    numbers = _AROUND.fullmatch(stem)
    if not numbers or len(numbers[3]) < 2:
        return stem, ""
    return numbers[1] + _unpadded(numbers[2]), numbers[3]


def _twins(first: Path, second: Path, pattern: str) -> ImageError:
    return ImageError(
        f"{first.parent}: holds {first.name} and {second.name}, expected one image of "
        "each frame: move one kind to another folder, or name the other by a pattern, "
        f"as '{first.parent / pattern}'"
    )


def natural_sort(paths: Iterable[Path]) -> list[Path]:
    """Sorts paths so that ``2.jpg`` comes before ``10.jpg``.

    Files of a folder whose names are decimals, as times are, go by their values:
    ``0.15.jpg`` comes before ``0.2.jpg``; one text may be before all numbers, and one
    after them. So do negative numbers beside others.
    """
    folders: dict[Path, list[Path]] = {}
    for path in paths:
        folders.setdefault(path.parent, []).append(path)
    values: dict[Path, Decimal] = {}
    for files in folders.values():
        values |= _values(files)

    def key(path: Path) -> list[tuple[Decimal, str]]:
        if path in values:
            return [*parts(f"{path.parent}{os.sep}"), (values[path], path.name)]
        return parts(str(path))

    def parts(text: str) -> list[tuple[Decimal, str]]:
        fields = re.split(r"(\d+)", text)
        return [(Decimal(f if f.isdecimal() else 0), f) for f in fields]

    return sorted((path for files in folders.values() for path in files), key=key)


def _values(files: Iterable[Path]) -> dict[Path, Decimal]:
    """The numbers of names that go by them; none of counts, in one step or in two.

    ``1.9`` and ``1.10`` count so: of decimals of unequal lengths nobody writes a zero
    at the end.
    """
    names = {file: _NUMBERED.fullmatch(file.name) for file in files}
    found = {file: name for file, name in names.items() if name}
    texts = {(name["before"], name["after"]) for name in found.values()}
    if len(found) < len(names) or len(texts) > 1:
        return {}
    fractions = [name["fraction"] for name in found.values() if name["fraction"]]
    padded = any(len(digits) > 1 and digits.endswith("0") for digits in fractions)
    one_length = len(set(map(len, fractions))) == 1
    signed = len({name["sign"] for name in found.values()}) > 1
    if (padded and not one_length) or not (fractions or signed):
        return {}
    return {
        file: Decimal(f"{name['sign'] or ''}{name['number']}")
        for file, name in found.items()
    }


def read_image(path: str | PathLike[str]) -> np.ndarray:
    """Reads an image file.

    Args:
        path: a file in any format that OpenCV decodes.

    Returns:
        RGB ``uint8 [H, W, 3]``.

    Raises:
        ImageError: the file is missing, unreadable, truncated or no image.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageError(f"{path}: cannot be read ({reason_of(error)})") from error
    return decode_image(data, name=str(path))


def read_size(path: str | PathLike[str]) -> tuple[int, int]:
    """Width and height of an image file, from its header where that is known.

    Raises:
        ImageError: the file is missing, unreadable or no image, or holds more than
            ``MAX_PIXELS``.
    """
    try:
        with open(path, "rb") as file:
            size = image_size(file)
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be read ({reason_of(error)})") from error
    if size is None:
        height, width = read_image(path).shape[:2]
        return width, height
    _check_pixels(size, str(path))
    return size


def _check_pixels(size: tuple[int, int], name: str) -> None:
    width, height = size
    if min(size) < 1 or width * height > MAX_PIXELS:
        raise ImageError(
            f"{name}: declares {width}x{height} pixels, expected 1 to {MAX_PIXELS:,}"
        )


def decode_image(data: bytes, *, name: str) -> np.ndarray:
    """Decodes the bytes of an image file.

    The pixels come as they are stored: an EXIF orientation is not applied, because
    annotations refer to the stored pixels. Grey images are repeated over the three
    channels and transparency is dropped.

    Of 16 bits the upper 8 are kept, where the values use that range: the largest one
    reaches its upper half, and a sixteenth of it lies between smallest and largest.
    Others, as thermal cameras and those of 12 bits write them, would be nearly black or
    nearly one grey, and only their owner knows what range they have: they are refused.
    So are TIFF files of several pages and animated WebP, PNG and GIF files, of which
    only the first image would be read, and BigTIFF, whose pages and bits are not read.

    Args:
        data: the whole file.
        name: what error messages call it.

    Returns:
        RGB ``uint8 [H, W, 3]``.

    Raises:
        ImageError: the bytes are empty, truncated or no image, declare more than
            ``MAX_PIXELS``, hold several images, or 16 bits of a range that is not
            known, or are a BigTIFF.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty, expected an image")
    file = io.BytesIO(data)
    size = image_size(file)
    if size is not None:
        _check_pixels(size, name)
    check_single(data, name=name)
    file.seek(0)
    data = without_turn(data, file)
    # cv2.imread would return a truncated jpeg with a grey tail; imdecode refuses it.
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f"{name}: cannot be decoded ({error.err})") from error
    if image is None:
        raise ImageError(
            f"{name}: cannot be decoded; expected a complete image file, found "
            f"{len(data)} bytes that are truncated or in no known format"
        )
    if sample_bits(data) == 16:
        _check_depth(data, name)
    return image


def check_single(data: bytes, *, name: str) -> None:
    """Checks that the bytes of an image file hold one image, as far as is known.

    Raises:
        ImageError: they hold several, or are a BigTIFF, whose pages are not read.
    """
    if is_big_tiff(data):
        raise ImageError(
            f"{name}: is a BigTIFF, expected PNG, JPEG or plain TIFF: "
            "magick IN.tiff OUT.png"
        )
    if (count := count_images(data)) > 1:
        raise ImageError(
            f"{name}: holds {count} images, expected one: of TIFF, WebP and GIF files "
            "'magick IN -coalesce OUT-%05d.png' writes a file for each, of PNG files "
            "'ffmpeg -i IN OUT-%05d.png'"
        )


def _check_depth(data: bytes, name: str) -> None:
    """Raises ImageError for a file of 16 bits whose values do not use them."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    values = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), flags))
    low, high = int(values.min()), int(values.max())
    if values.dtype == np.uint16 and high >= 2**15 and high - low >= 2**12:
        return
    if values.dtype == np.uint16 and low == high in (0, 2**16 - 1):
        return
    raise ImageError(
        f"{name}: holds values {low} to {high} in 16 bits, expected 8 bits, or values "
        "that use the range of 0 to 65535. Convert all files with the one range that "
        "yours have: magick IN -level LOW,HIGH -depth 8 OUT.png"
    )


def exif_orientation(image: bytes | str | PathLike[str]) -> int:
    """How EXIF says that a photo is to be turned; ``decode_image`` does not turn it.

    Args:
        image: a file, or all of its bytes. Of JPEG files alone it is looked at.

    Returns:
        1 to 8, where 1 is upright as stored, and what is meant where nothing is said.

    Raises:
        ImageError: the file cannot be read.
    """
    if isinstance(image, bytes):
        return jpeg_orientation(io.BytesIO(image))
    try:
        with open(image, "rb") as file:
            return jpeg_orientation(file)
    except (OSError, ValueError) as error:
        raise ImageError(f"{image}: cannot be read ({reason_of(error)})") from error


def encode_jpeg(image: np.ndarray, *, quality: int) -> bytes:
    """An image, RGB ``uint8 [H, W, 3]``, as JPEG of a quality of 0 to 100."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()


def as_array(image: object) -> np.ndarray:
    """An array of what NumPy takes; of a PIL image, if its mode is RGB or grey.

    Raises:
        ImageError: a PIL image of another mode.
    """
    mode = getattr(image, "mode", None)
    if isinstance(mode, str) and mode not in ("RGB", "RGBA", "L"):
        raise ImageError(f"image of mode {mode}, expected RGB: image.convert('RGB')")
    return np.asarray(image)


def check_frame(frame: np.ndarray, *, name: str = "frame") -> np.ndarray:
    """Checks a frame, and gives grey and RGBA ones three channels.

    Args:
        frame: ``uint8``, RGB ``[H, W, 3]``, grey ``[H, W]`` or ``[H, W, 1]``, or RGBA
            ``[H, W, 4]`` (its transparency is dropped). ``H`` and ``W`` at least 1.
        name: what error messages call it.

    Returns:
        RGB ``uint8 [H, W, 3]``: ``frame`` itself where it already has this form.

    Raises:
        ImageError: any other type, shape or ``dtype``.
    """
    expected = "expected RGB uint8 [H, W, 3]"
    if not isinstance(frame, np.ndarray):
        raise ImageError(f"{name}: got {type(frame).__name__}, {expected}")
    found = f"{name}: got {frame.dtype} {list(frame.shape)}"
    if frame.dtype != np.uint8:
        raise ImageError(f"{found}, {expected}")
    if frame.ndim == 2:
        frame = frame[..., None]
    if frame.ndim != 3 or frame.shape[2] not in (1, 3, 4) or 0 in frame.shape:
        raise ImageError(f"{found}, {expected} (grey and RGBA are converted)")
    if frame.shape[2] == 1:
        return np.repeat(frame, 3, axis=2)
    return frame if frame.shape[2] == 3 else np.ascontiguousarray(frame[..., :3])
