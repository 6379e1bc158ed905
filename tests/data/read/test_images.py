import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from photos import turned_photo
from siamrpn_jax.data.read.images import (
    ImageError,
    check_frame,
    decode_image,
    encode_jpeg,
    exif_orientation,
    list_images,
    natural_sort,
    read_image,
    read_size,
    refuse_twins,
    sort_images,
    unread_hint,
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


def test_jpeg_round_trip():
    found = decode_image(encode_jpeg(PURE, quality=95), name="red")
    np.testing.assert_allclose(found, PURE, atol=4)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (1, 7, 3), (5, 7, 4)])
def test_reads_grey_rgba_and_one_row(shape):
    image = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    decoded = decode_image(encode(image, ".png"), name="x")
    assert decoded.shape == (*shape[:2], 3)
    assert decoded.dtype == np.uint8


@settings(max_examples=25)
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


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_that_are_used_keep_the_upper_eight(suffix, channels):
    rng = np.random.default_rng(0)
    deep = rng.integers(500, 60_000, (20, 30, channels), np.uint16)
    deep[..., 3:] = 65_535
    decoded = decode_image(encode(deep, suffix), name="x").astype(int)
    expected = check_frame((deep[..., :3] >> 8).astype(np.uint8))[..., ::-1]
    assert np.abs(decoded - expected).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("level", [0, 2**16 - 1])
def test_sixteen_bits_of_black_and_white_are_understood(suffix, level):
    deep = np.full((8, 8), level, np.uint16)
    assert (decode_image(encode(deep, suffix), name="x") == level >> 8).all()


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize(
    ("low", "high"), [(8000, 8200), (0, 4095), (0, 16_383), (29_500, 33_300), (7, 7)]
)
def test_sixteen_bits_of_a_range_that_is_not_known_are_refused(suffix, low, high):
    for channels in (1, 3):
        deep = np.full((20, 30, channels), low, np.uint16)
        deep[4:9, 4:9] = high
        with pytest.raises(
            ImageError, match=f"hot: holds values {low} to {high} in 16"
        ):
            decode_image(encode(deep, suffix), name="hot")


def test_signed_numbers_are_refused():
    with pytest.raises(ImageError, match="holds values -700 to -700 in 16 bits"):
        decode_image(encode(np.full((8, 8), -700, np.int16), ".tiff"), name="x")


@pytest.mark.parametrize("order", ["<", ">"])
def test_big_tiff_is_refused_not_read_too_dark(order):
    """OpenCV would read its 12 bits as nearly black, and the first page alone."""
    values = (np.arange(64) * 64).astype(f"{order}u2")
    mark = b"II+\0" if order == "<" else b"MM\0+"
    entries = [(256, 64), (257, 1), (258, 16), (259, 1), (262, 1), (277, 1), (278, 1)]
    entries = [(tag, 3, value) for tag, value in entries]
    entries += [(273, 16, 16), (279, 16, values.nbytes)]
    data = mark + struct.pack(order + "HHQ", 8, 0, 16 + values.nbytes)
    data += values.tobytes() + struct.pack(order + "Q", len(entries))
    for tag, kind, value in sorted(entries):
        field = struct.pack(order + {3: "H", 16: "Q"}[kind], value).ljust(8, b"\0")
        data += struct.pack(order + "HHQ", tag, kind, 1) + field
    data += bytes(8)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None and decoded.max() < 20
    with pytest.raises(ImageError, match="a.tiff: is a BigTIFF, expected PNG"):
        decode_image(data, name="a.tiff")


def test_pages_of_a_tiff_are_refused_with_their_number():
    pages = [RAMP, RAMP, RAMP]
    data = cv2.imencodemulti(".tiff", pages)[1].tobytes()
    with pytest.raises(ImageError, match="a.tiff: holds 3 images, expected one"):
        decode_image(data, name="a.tiff")
    decoded = decode_image(encode(RAMP, ".tiff"), name="x")
    np.testing.assert_array_equal(decoded[..., ::-1], RAMP)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".gif"])
def test_animated_images_are_refused_with_their_number(suffix):
    """OpenCV reads the first image of them, and says nothing of the others."""
    animation = cv2.Animation()
    animation.frames = [np.roll(RAMP, 9 * n, axis=1) for n in range(4)]
    animation.durations = [40] * 4
    data = cv2.imencodeanimation(suffix, animation)[1].tobytes()
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is not None
    with pytest.raises(ImageError, match=f"a{suffix}: holds 4 images, expected one"):
        decode_image(data, name=f"a{suffix}")
    still = encode(RAMP, suffix)
    assert decode_image(still, name="x").shape == RAMP.shape
    for length in range(12, len(data), 7):  # cut short: refused for either reason
        with pytest.raises(ImageError):
            decode_image(data[: min(length, len(data) - 3)], name="x")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_photos(tmp_path, order, orientation):
    xmp = b"http://ns.adobe.com/xap/1.0/\0"
    other = b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp
    for before in (b"", other):
        data = turned_photo(RAMP, orientation, order, before=before)
        assert exif_orientation(data) == orientation
        assert decode_image(data, name="x").shape == RAMP.shape  # as it is stored
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    assert exif_orientation(path) == exif_orientation(str(path)) == orientation


def test_photos_that_say_nothing_of_a_turn(tmp_path):
    for data in (
        encode(RAMP, ".jpg"),
        encode(RAMP, ".png"),
        b"",
        turned_photo(RAMP, 0),
        turned_photo(RAMP, 9),
    ):
        assert exif_orientation(data) == 1
    with pytest.raises(ImageError, match="none.jpg: cannot be read"):
        exif_orientation(tmp_path / "none.jpg")


def test_broken_photos_have_some_orientation():
    rng = np.random.default_rng(2)
    for _ in range(300):
        data = bytearray(turned_photo(RAMP, 6)[: rng.integers(2, 200)])
        data[rng.integers(len(data))] = rng.integers(256)
        assert 1 <= exif_orientation(bytes(data)) <= 8


def test_frames_that_would_be_left_out_are_refused(tmp_path):
    """A HEIC among JPEGs; not the copy of one, and not another picture beside them."""
    for name in ("IMG_1.JPG", "IMG_2.jfif", "IMG_10.jpe", "IMG_1.HEIC", "logo.gif"):
        (tmp_path / name).touch()
    names = [path.name for path in list_images(tmp_path)]
    assert names == ["IMG_1.JPG", "IMG_2.jfif", "IMG_10.jpe"]
    (tmp_path / "IMG_3.HEIC").touch()
    with pytest.raises(
        ImageError,
        match="IMG_3.HEIC: is not of a format that is read, and 3 images beside it are",
    ):
        list_images(tmp_path)


def test_images_that_are_not_read_are_named_where_there_are_no_others(tmp_path):
    assert unread_hint([tmp_path / "none", tmp_path]) == ""
    (tmp_path / "._0000.ppm").touch()  # the companion that macOS writes
    (tmp_path / "0001.ppm").touch()
    assert list_images(tmp_path) == []
    expected = "; 0001.ppm is not read: magick mogrify -format png '*.ppm'"
    assert unread_hint([tmp_path / "none", tmp_path]) == expected


@pytest.mark.parametrize(
    ("names", "twins"),
    [
        ("0001.jpg, 0001_mask.png, 0002.jpg", "0001.jpg and 0001_mask.png"),
        ("0001.jpg, 0001.png", "0001.jpg and 0001.png"),
        ("a.JPG, a.jpg", "a.JPG and a.jpg"),
        ("01.jpg, 1.jpg", "01.jpg and 1.jpg"),
        ("1.jpg, 0001_mask.png", "1.jpg and 0001_mask.png"),
        ("1.jpg, 2.jpg, 2seg.png", "2.jpg and 2seg.png"),
        ("f_1.jpg, f_1-edited.jpg", "f_1.jpg and f_1-edited.jpg"),
        ("f_1_rgb.jpg, f_1_rgb_mask.jpg", "f_1_rgb.jpg and f_1_rgb_mask.jpg"),
        ("00001.jpg, mask_00001.png", "00001.jpg and mask_00001.png"),
        ("frame_1.jpg, mask_frame_1.png", "frame_1.jpg and mask_frame_1.png"),
        ("1-2_5.jpg, 1-2_5 copy.jpg", "1-2_5.jpg and 1-2_5 copy.jpg"),
        ("a/1.jpg, a/1.png", "a: holds 1.jpg and 1.png"),
        ("a/1.jpg, b/1.png, b/1_m.png, c/1_m.png", "b: holds 1.png and 1_m.png"),
        ("1_left.jpg, 1_right.jpg, 2_left.jpg", "1_left.jpg and 1_right.jpg"),
        ("f1-rgb.png, f2-rgb.png, f01-depth.png", "f1-rgb.png and f01-depth.png"),
        ("a_1 L.png, a_1 R.png", "a_1 L.png and a_1 R.png"),
        ("cam1_001.jpg, cam1_002.jpg, cam2_001.jpg, cam2_002.jpg", ""),
        ("a_1.jpg, a_2.jpg, b_1.jpg, b_2.jpg", ""),  # one clip after another
        ("1.png, 2.jpg, 10_old.jpg, 30_old.jpg", ""),
        ("car.jpg, car_red.jpg", ""),  # no numbers
        ("1_start.jpg, 2.jpg, 3_end.jpg", ""),
        ("1.jpg, 1a.jpg, 1b.jpg, 2.jpg", ""),  # one put in between
        ("1.jpg, 1_1.jpg, 1_2.jpg, 2.jpg", ""),
        ("1.05.jpg, 1.5.jpg, 10.5.jpg", ""),
        ("a/1.jpg, b/1.jpg, c/1_mask.png", ""),
    ],
)
def test_two_images_of_one_frame(names, twins):
    images = [Path(name) for name in names.split(", ")]
    if not twins:
        return refuse_twins(images)
    with pytest.raises(ImageError, match=f"{twins}, expected one image of each frame"):
        refuse_twins(images)
    with pytest.raises(ImageError, match="expected one image of each frame"):
        refuse_twins(images[::-1])


def test_the_pattern_that_tells_two_cameras_apart():
    pair = [Path("a/01_left.jpg"), Path("a/01_right.png")]
    with pytest.raises(ImageError, match=r"as 'a/\*_left.jpg'$"):
        refuse_twins(pair)
    with pytest.raises(ImageError, match=r"as 'a/%04d.jpg'$"):
        refuse_twins([Path("a/01.jpg"), *pair])


@pytest.mark.parametrize(
    "names",
    [
        "0.jpg 0.1.jpg 0.15.jpg 0.2.jpg 1.jpg 1.05.jpg 1.5.jpg 10.25.jpg",
        "0.0.jpg 0.04.jpg 0.08.jpg 0.12.png 0.2.jpg 10.0.jpg",
        "0.25.jpg 0.50.jpg 1.00.jpg 10.75.jpg",
        "1.1.jpg 1.2.jpg 1.9.jpg 1.10.jpg 1.11.jpg 2.1.jpg",  # scene and frame
        "1.2.0.jpg 1.15.0.jpg",
        "frame_0.jpg frame_0.05.jpg frame_0.1.jpg frame_0.15.jpg frame_0.2.jpg",
        "0s.jpg 0.05s.jpg 0.1s.jpg 0.15s.jpg 10.2s.jpg",
        "cam1_t0.5s.jpg cam1_t0.75s.jpg cam1_t1s.jpg",
        "v1.8.jpg v1.9.jpg v1.10.jpg v1.11.jpg v2.1.jpg",  # counts
        "v1.9.5.jpg v1.9.15.jpg",
        "a0.2.jpg a0.15.jpg b0.1.jpg",  # of two kinds
        "-5.jpg -2.jpg -1.jpg 0.jpg 1.jpg 10.jpg",
        "f_-1.5.jpg f_-1.25.jpg f_0.jpg f_0.5.jpg",
        "f-1.jpg f-2.jpg f-10.jpg",
        "0.2.jpg 0.15.jpg x.jpg",  # not wholly times
        "a1/0.15.jpg a1/0.2.jpg a2/0.2.jpg a10/1.jpg a10/x.jpg b/c/1.jpg",
    ],
)
def test_names_that_are_decimals_go_by_their_values(names):
    paths = [Path(name) for name in names.split()]
    for seed in range(5):
        mixed = np.random.default_rng(seed).permutation(np.array(paths, object))
        assert natural_sort(mixed) == paths
    absolute = [Path("/clip 2") / path for path in paths]
    assert natural_sort(reversed(absolute)) == absolute


def test_negative_numbers_alone_are_refused():
    with pytest.raises(ImageError, match="all 2 images here have negative numbers"):
        sort_images([Path("a/-1.jpg"), Path("a/-2.jpg")])
    assert sort_images([Path("a/-1.jpg")]) == [Path("a/-1.jpg")]
