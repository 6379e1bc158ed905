"""What image files say of themselves before they are decoded.

Sizes, turns, the bits of a sample, and how many images there are.
"""

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

_TIFF_MARKS = (b"II*\0", b"MM\0*")
_BIG_TIFF_MARKS = (b"II+\0", b"MM\0+")
_PNG_MARK = b"\x89PNG\r\n\x1a\n"
_TIFF_SIZES = {1: "B", 3: "H", 4: "I"}  # Types of numbers: byte, short, long.
_TIFF_TAGS = (254, 256, 257, 258, 274)
_TIFF_KIND, _TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_ORIENTATION = _TIFF_TAGS
_BROKEN = (struct.error, KeyError, OverflowError, StopIteration, ValueError)


def image_size(file: BinaryIO) -> tuple[int, int] | None:
    """Width and height by the header of a JPEG, PNG, BMP, WebP, GIF or TIFF file.

    Args:
        file: at its start.

    Returns:
        None where the format is another, or the header makes no sense.
    """
    head = file.read(32)
    try:
        if head[:2] == b"\xff\xd8":
            return _jpeg_size(file)
        if head[:8] == _PNG_MARK:
            return struct.unpack(">II", head[16:24])
        if head[:4] in (b"GIF8",):
            return struct.unpack("<HH", head[6:10])
        if head[:2] == b"BM":
            return _bmp_size(head)
        if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            return _webp_size(head)
        if head[:4] in _TIFF_MARKS:
            file.seek(0)
            found = next(_tiff_directories(file))
            return found[_TIFF_WIDTH][0], found[_TIFF_HEIGHT][0]
    except _BROKEN:
        pass
    return None


def sample_bits(data: bytes) -> int:
    """Bits of a sample of a PNG or TIFF file; 8 where the format is another."""
    try:
        if data[:8] == _PNG_MARK:
            return data[24]
        if data[:4] in _TIFF_MARKS:
            return next(_tiff_directories(io.BytesIO(data)))[_TIFF_BITS][0]
    except (*_BROKEN, IndexError):
        pass
    return 8


def is_big_tiff(data: bytes) -> bool:
    """Whether a file is a BigTIFF, of which nothing else is read here."""
    return data[:4] in _BIG_TIFF_MARKS


def is_no_film(head: bytes) -> bool:
    """Whether a file is a TIFF or WebP: decoders of films read the first image alone.

    Args:
        head: at least its first 12 bytes.
    """
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return webp or head[:4] in (*_TIFF_MARKS, *_BIG_TIFF_MARKS)


def count_images(data: bytes) -> int:
    """Number of images in a TIFF, WebP, PNG or GIF file; 1 where the format is another.

    Smaller copies of a TIFF's image, and masks, do not count.
    """
    try:
        if data[:4] in _TIFF_MARKS:
            return _tiff_pages(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp_frames(data)
        if data[:8] == _PNG_MARK:
            return _png_frames(data)
        if data[:4] == b"GIF8":
            return _gif_frames(data)
    except (*_BROKEN, IndexError):
        pass
    return 1


def jpeg_orientation(file: BinaryIO) -> int:
    """How a JPEG file is to be turned, as EXIF counts it; 1 where it does not say.

    Args:
        file: at its start.
    """
    if file.read(2) != b"\xff\xd8":
        return 1
    # DA starts the pixels: what describes them comes before.
    while len(marker := file.read(4)) == 4 and marker[:2] != b"\xff\xda":
        length = max(0, int.from_bytes(marker[2:], "big") - 2)
        if marker[1] != 0xE1:
            file.seek(length, 1)
            continue
        content = file.read(length)
        if content[:6] == b"Exif\0\0":
            try:
                entries = next(_tiff_directories(io.BytesIO(content[6:])))
                orientation = entries[_TIFF_ORIENTATION][0]
            except _BROKEN:
                return 1
            return orientation if 1 <= orientation <= 8 else 1
    return 1


def without_turn(data: bytes, file: BinaryIO) -> bytes:
    """A TIFF file whose header asks for no turn; OpenCV would always follow it.

    Args:
        data: the whole file.
        file: the same, at its start.
    """
    if data[:4] not in _TIFF_MARKS:
        return data
    try:
        orientation, place = next(_tiff_directories(file))[_TIFF_ORIENTATION]
    except _BROKEN:
        return data
    if orientation == 1:
        return data
    one = struct.pack("<H" if data[:1] == b"I" else ">H", 1)
    return data[:place] + one + data[place + 2 :]


def _jpeg_size(file: BinaryIO) -> tuple[int, int] | None:
    """Width and height from the frame header of a JPEG."""
    file.seek(2)
    while len(marker := file.read(4)) == 4 and marker[0] == 0xFF:
        # C0 to CF start a frame, but for the tables C4 and CC and the reserved C8.
        if marker[1] & 0xF0 == 0xC0 and marker[1] not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">xHH", file.read(5))
            return width, height
        file.seek(int.from_bytes(marker[2:], "big") - 2, 1)
    return None


def _bmp_size(head: bytes) -> tuple[int, int]:
    """Width and height of a BMP; a negative height means rows from the top."""
    if head[14:18] == (12).to_bytes(4, "little"):  # OS/2's first version
        return struct.unpack("<HH", head[18:22])
    width, height = struct.unpack("<ii", head[18:26])
    return width, abs(height)


def _webp_size(head: bytes) -> tuple[int, int] | None:
    kind = head[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(head[24:27], "little")
        return width + 1, int.from_bytes(head[27:30], "little") + 1
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def _webp_frames(data: bytes) -> int:
    """Frames of a WebP: its ``ANMF`` chunks. Chunks begin at even places."""
    count, place = 0, 12
    while place + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        count += kind == b"ANMF"
        place += 8 + length + length % 2
    return max(count, 1)


def _png_frames(data: bytes) -> int:
    """Frames of an animated PNG, which says their number before its first image."""
    place = 8
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"acTL":
            return max(int.from_bytes(data[place + 8 : place + 12]), 1)
        if kind == b"IDAT":
            break
        place += 12 + length  # a checksum follows
    return 1


def _gif_frames(data: bytes) -> int:
    """Frames of a GIF: what begins with a comma; an extension begins with a ``!``."""
    count, place = 0, 13 + _gif_colours(data[10])
    try:
        while (mark := data[place]) in b"!,":
            count += mark == ord(",")
            place += 2 if mark == ord("!") else 11 + _gif_colours(data[place + 9])
            while length := data[place]:
                place += 1 + length
            place += 1
    except IndexError:
        pass  # cut short: those before it are there
    return max(count, 1)


def _gif_colours(flags: int) -> int:
    """Bytes of the table of colours that follows."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _tiff_pages(data: bytes) -> int:
    count = 0
    try:
        for entries in _tiff_directories(io.BytesIO(data)):
            count += not entries.get(_TIFF_KIND, (0, 0))[0] & 0b101
    except _BROKEN:
        pass  # those before it are there
    return max(count, 1)


def _tiff_directories(file: BinaryIO) -> Iterator[dict[int, tuple[int, int]]]:
    """The known tags of each directory: their first number, and where it is."""
    head = file.read(8)
    order = "<" if head[:1] == b"I" else ">"
    (start,) = struct.unpack(order + "I", head[4:])
    seen = {0}
    while start not in seen:
        seen.add(start)
        file.seek(start)
        (count,) = struct.unpack(order + "H", file.read(2))
        directory = file.read(12 * count + 4)
        found = {}
        for place in range(0, 12 * count, 12):
            tag, kind, values = struct.unpack_from(order + "HHI", directory, place)
            if tag not in _TIFF_TAGS or kind not in _TIFF_SIZES:
                continue
            layout, at = order + _TIFF_SIZES[kind], start + 2 + place + 8
            if values * struct.calcsize(layout) > 4:  # too many to stand here
                (at,) = struct.unpack_from(order + "I", directory, place + 8)
            file.seek(at)
            found[tag] = *struct.unpack(layout, file.read(struct.calcsize(layout))), at
        yield found
        (start,) = struct.unpack_from(order + "I", directory, 12 * count)
