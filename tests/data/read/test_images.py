import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamrpn_jax.data.read.images import (
    ImageError,
    check_frame,
    decode_image,
    list_images,
    read_image,
    read_size,
)

RAMP = np.linspace(0, 255, 40 * 60 * 3).reshape(40, 60, 3).astype(np.uint8)
PURE = np.zeros((8, 8, 3), np.uint8)
PURE[..., 0] = 255  # red


def encode(image_bgr: np.ndarray, suffix: str) -> bytes:
    return cv2.imencode(suffix, image_bgr)[1].tobytes()


def test_reads_rgb(tmp_path):
    path = tmp_path / "red.png"
    path.write_bytes(encode(PURE[..., ::-1], ".png"))
    np.testing.assert_array_equal(read_image(path), PURE)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (1, 7, 3), (5, 7, 4)])
def test_reads_grey_rgba_and_one_row(shape):
    image = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    decoded = decode_image(encode(image, ".png"), name="x")
    assert decoded.shape == (*shape[:2], 3)
    assert decoded.dtype == np.uint8


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 0.9999))
def test_truncated_files_raise(share):
    for suffix in (".jpg", ".png"):
        data = encode(RAMP, suffix)
        with pytest.raises(ImageError, match="cut.jpg"):
            decode_image(data[: int(share * len(data))], name="cut.jpg")


def test_jpeg_without_its_end_marker_raises():
    with pytest.raises(ImageError, match="truncated"):
        decode_image(encode(RAMP, ".jpg")[:-2], name="cut.jpg")


def test_missing_and_foreign_files_raise(tmp_path):
    with pytest.raises(ImageError, match="none.jpg"):
        read_image(tmp_path / "none.jpg")
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(ImageError, match="text.jpg"):
        read_image(tmp_path / "text.jpg")
    with pytest.raises(ImageError, match="empty"):
        decode_image(b"", name="x")


def test_check_frame_accepts_and_converts():
    assert check_frame(RAMP) is RAMP
    for grey in (RAMP[..., 0], RAMP[..., :1]):
        converted = check_frame(grey)
        assert converted.shape == RAMP.shape
        np.testing.assert_array_equal(converted[..., 2], RAMP[..., 0])
    rgba = np.concatenate([RAMP, RAMP[..., :1]], axis=2)
    np.testing.assert_array_equal(check_frame(rgba), RAMP)
    assert check_frame(RAMP[:1]).shape == (1, 60, 3)


@pytest.mark.parametrize(
    "frame",
    [
        RAMP.astype(np.float32),
        RAMP.astype(np.uint16),
        RAMP[None],
        RAMP[:0],
        np.zeros((4, 4, 2), np.uint8),
        np.zeros(4, np.uint8),
        None,
    ],
)
def test_check_frame_names_what_it_got(frame):
    with pytest.raises(ImageError, match="camera: got") as error:
        check_frame(frame, name="camera")
    if frame is not None:
        assert str(frame.dtype) in str(error.value)
        assert str(list(frame.shape)) in str(error.value)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_size_without_decoding(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encode(RAMP, suffix))
    assert read_size(path) == (60, 40)


def test_size_of_a_progressive_jpeg_with_much_before_its_header(tmp_path):
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    data = cv2.imencode(".jpg", RAMP, options)[1].tobytes()
    comment = b"\xff\xfe" + (50_002).to_bytes(2, "big") + bytes(50_000)
    path = tmp_path / "a.jpg"
    path.write_bytes(data[:2] + 2 * comment + data[2:])
    assert read_size(path) == (60, 40)


def test_size_of_no_image(tmp_path):
    path = tmp_path / "a.jpg"
    with pytest.raises(ImageError, match="cannot be read"):
        read_size(path)
    for data in (b"", b"no image", b"\xff\xd8\xff\xc0\x00\x10\x08"):
        path.write_bytes(data)
        with pytest.raises(ImageError, match="a.jpg"):
            read_size(path)


def test_hidden_files_are_no_images(tmp_path):
    """Companions that macOS adds, and folders that are not there."""
    for name in ("10.jpg", "2.JPG", "._2.JPG", ".DS_Store", "notes.txt", ".x.png"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["2.JPG", "10.jpg"]
    assert list_images(tmp_path / "none") == []
