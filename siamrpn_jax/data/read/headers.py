"""What image files say of themselves before they are decoded: sizes and a turn."""

import struct
from typing import BinaryIO

_TIFF_SIZES = {1: "B", 3: "H", 4: "I"}  # Types of numbers: byte, short, long.
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_ORIENTATION = 256, 257, 274


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
        if head[:8] == b"\x89PNG\r\n\x1a\n":
            return struct.unpack(">II", head[16:24])
        if head[:4] in (b"GIF8",):
            return struct.unpack("<HH", head[6:10])
        if head[:2] == b"BM":
            return _bmp_size(head)
        if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            return _webp_size(head)
        if head[:4] in (b"II*\0", b"MM\0*"):
            file.seek(0)
            found = _tiff_entries(file)
            return found[_TIFF_WIDTH][0], found[_TIFF_HEIGHT][0]
    except (struct.error, KeyError, OverflowError, ValueError):
        pass
    return None


def without_turn(data: bytes, file: BinaryIO) -> bytes:
    """A TIFF file whose header asks for no turn; OpenCV would always follow it.

    Args:
        data: the whole file.
        file: the same, at its start.
    """
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return data
    try:
        orientation, place = _tiff_entries(file)[_TIFF_ORIENTATION]
    except (struct.error, KeyError, OverflowError, ValueError):
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


def _tiff_entries(file: BinaryIO) -> dict[int, tuple[int, int]]:
    """The first directory: each tag's first number, and where it is in the file."""
    head = file.read(8)
    order = "<" if head[:1] == b"I" else ">"
    (start,) = struct.unpack(order + "I", head[4:])
    file.seek(start)
    (count,) = struct.unpack(order + "H", file.read(2))
    found = {}
    for number in range(count):
        entry = file.read(12)
        tag, kind = struct.unpack(order + "HH", entry[:4])
        if kind in _TIFF_SIZES:
            (value,) = struct.unpack_from(order + _TIFF_SIZES[kind], entry, 8)
            found[tag] = value, start + 2 + 12 * number + 8
    return found
