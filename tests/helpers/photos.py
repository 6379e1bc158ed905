"""Photos as cameras write them."""

import struct

import cv2
import numpy as np


def turned_photo(
    image_bgr: np.ndarray, orientation: int, order: str = "<", *, before: bytes = b""
) -> bytes:
    """A JPEG file with an EXIF orientation, and ``before`` in front of it."""
    entry = struct.pack(order + "HHIHH", 274, 3, 1, orientation, 0)
    tiff = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 1)
    content = b"Exif\0\0" + tiff + entry + bytes(4)
    segment = b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content
    data = cv2.imencode(".jpg", image_bgr)[1].tobytes()
    return data[:2] + before + segment + data[2:]
