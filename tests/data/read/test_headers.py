import io
import struct

import cv2
import numpy as np
import pytest

from siamrpn_jax.data.read.headers import count_images, image_size, sample_bits
from siamrpn_jax.data.read.images import ImageError, decode_image, read_size

IMAGE = np.random.default_rng(0).integers(0, 255, (37, 53, 3), np.uint8)


def encode(suffix: str, *options: int) -> bytes:
    return cv2.imencode(suffix, IMAGE, options)[1].tobytes()


FILES = {
    "jpeg": encode(".jpg"),
    "progressive": encode(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "png": encode(".png"),
    "bmp": encode(".bmp"),
    "webp": encode(".webp", cv2.IMWRITE_WEBP_QUALITY, 80),
    "lossless": encode(".webp", cv2.IMWRITE_WEBP_QUALITY, 101),
    "tiff": encode(".tiff"),
    "gif": encode(".gif"),
}


@pytest.mark.parametrize("kind", FILES)
def test_sizes_are_those_of_the_pixels(kind):
    assert image_size(io.BytesIO(FILES[kind])) == (53, 37)


@pytest.mark.parametrize("kind", FILES)
def test_broken_headers_have_no_size_or_some_other(kind):
    rng = np.random.default_rng(1)
    for _ in range(300):
        data = bytearray(FILES[kind][: rng.integers(2, 80)])
        data[rng.integers(len(data))] = rng.integers(256)
        size = image_size(io.BytesIO(bytes(data)))
        assert size is None or len(size) == 2


def test_a_file_that_declares_gigabytes_is_not_decoded(tmp_path):
    place = FILES["jpeg"].index(b"\xff\xc0") + 5
    large = struct.pack(">HH", 30000, 30000)
    path = tmp_path / "large.jpg"
    path.write_bytes(FILES["jpeg"][:place] + large + FILES["jpeg"][place + 4 :])
    for read in (read_size, lambda path: decode_image(path.read_bytes(), name="x")):
        with pytest.raises(ImageError, match="declares 30000x30000 pixels, expected 1"):
            read(path)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("turn", [1, 3, 6])
def test_a_turn_of_a_tiff_is_not_followed(order, turn):
    """As of other files: boxes refer to the stored pixels. Built by hand."""
    pixels = IMAGE.tobytes()
    entries = [
        (256, 3, 53),  # width
        (257, 3, 37),
        (258, 3, 8),  # bits; one number stands for all three channels
        (259, 3, 1),  # no compression
        (262, 3, 2),  # RGB
        (273, 4, 8),  # where the pixels are
        (274, 3, turn),
        (277, 3, 3),  # channels
        (278, 3, 37),  # rows in a strip
        (279, 4, len(pixels)),
    ]
    data = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(
        order + "I", 8 + len(pixels)
    )
    data += pixels + struct.pack(order + "H", len(entries))
    for tag, kind, value in entries:
        packed = struct.pack(
            order + ("HH" if kind == 3 else "I"), *[value, 0][: 5 - kind]
        )
        data += struct.pack(order + "HHI", tag, kind, 1) + packed
    data += bytes(4)
    np.testing.assert_array_equal(decode_image(data, name="turned.tiff"), IMAGE)


@pytest.mark.parametrize("kind", FILES)
def test_files_of_one_image_and_eight_bits(kind):
    assert count_images(FILES[kind]) == 1
    assert sample_bits(FILES[kind]) == 8


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 3), (9, 7, 4)])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_are_told_by_the_header(suffix, shape):
    data = cv2.imencode(suffix, np.full(shape, 500, np.uint16))[1].tobytes()
    assert sample_bits(data) == 16
    for length in range(0, len(data), 3):
        assert sample_bits(data[:length]) in (8, 16)


def tiff_of(kinds, *, following=0):
    """A TIFF file of nothing but directories of these kinds."""
    data = b"II*\0" + struct.pack("<I", 8)
    for number, kind in enumerate(kinds, start=1):
        place = 8 + 18 * number if number < len(kinds) else following
        data += struct.pack("<HHHIII", 1, 254, 4, 1, kind, place)
    return data


def test_small_copies_and_masks_are_no_pages():
    assert count_images(tiff_of([0, 0, 0])) == 3
    assert count_images(tiff_of([0, 1, 4, 5])) == 1
    assert count_images(tiff_of([2, 2])) == 2  # pages of a document
    assert count_images(tiff_of([0, 0], following=8)) == 2  # in a circle
    assert count_images(tiff_of([0, 0], following=10**6)) == 2
