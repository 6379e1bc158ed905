import subprocess
import sys

import cv2
import numpy as np
import pytest

from films import write_coded, write_interlaced
from plain_frames import solid
from siamrpn_jax.common.errors import InputError, MissingExtraError
from siamrpn_jax.data.read.images import ImageError
from siamrpn_jax.media import video
from siamrpn_jax.media.frames import Frames
from siamrpn_jax.media.video import Video, VideoWriter

RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)


def write_film(path, colors=(RED, GREEN, BLUE, RED), **size):
    frames = [solid(color, **size) for color in colors]
    height, width, _ = frames[0].shape
    with VideoWriter(path, fps=10, size=(width, height)) as writer:
        for frame in frames:
            writer.write(frame)
    return frames


def assert_alike(found, expected, *, within=20):
    """Lossy coding moves colours by some levels, never a channel to another."""
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == np.uint8
        assert a.shape == b.shape
        assert np.abs(a.mean((0, 1)) - b.mean((0, 1))).max() < within


def test_writing_a_film_prints_nothing(tmp_path, capfd):
    with VideoWriter(tmp_path / "film.webm", fps=25, size=(64, 48)) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
    assert capfd.readouterr() == ("", "")


def test_webm_round_trip(tmp_path):
    frames = write_film(tmp_path / "deep" / "film.webm")
    film = Video(tmp_path / "deep" / "film.webm")
    assert (film.length, film.name) == (4, "film")
    assert film.fps == pytest.approx(10)
    assert_alike(list(film), frames)
    assert_alike(list(film), frames)  # a film can be read again


def test_opencv_reads_our_film_in_bgr(tmp_path):
    write_film(tmp_path / "film.webm", [RED] * 3)
    capture = cv2.VideoCapture(str(tmp_path / "film.webm"))
    _, frame = capture.read()
    assert frame.mean((0, 1)) == pytest.approx(RED[::-1], abs=20)


def test_mp4_round_trip_or_the_extra_is_named(tmp_path):
    path = tmp_path / "film.mp4"
    try:
        import av  # noqa: F401 # pyright: ignore[reportMissingImports]
    except ImportError:
        with pytest.raises(MissingExtraError, match=r"siamrpn-jax\[video\]"):
            write_film(path)
        assert not list(tmp_path.iterdir())
        return
    frames = write_film(path, width=63, height=47)
    film = Video(path)
    assert (film.fps, film.length) == (pytest.approx(10), 4)
    assert video._pyav_declared(str(path)) == (pytest.approx(10), 4)
    # H.264 sizes are even: the last row and column were repeated.
    assert {frame.shape for frame in film} == {(48, 64, 3)}
    found = [frame[:47, :63] for frame in film]
    assert_alike(found, frames)
    assert_alike([f[:47, :63] for _, f in video._pyav_frames(str(path))], frames)


@pytest.mark.parametrize("width, height", [(63, 47), (33, 16)])
def test_odd_sizes_as_webm(tmp_path, width, height):
    frames = write_film(tmp_path / "film.webm", width=width, height=height)
    found = list(Video(tmp_path / "film.webm"))
    assert len(found) == len(frames)
    assert abs(found[0].shape[0] - height) <= 1 and abs(found[0].shape[1] - width) <= 1


def test_an_unfinished_film_has_no_name(tmp_path):
    path = tmp_path / "film.webm"
    with pytest.raises(KeyError), VideoWriter(path, fps=10, size=(64, 48)) as writer:
        writer.write(solid(RED))
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_does_not_start_names_the_film(tmp_path, monkeypatch):
    class Broken:
        fourcc = cv2.VideoWriter.fourcc

        def __init__(self, *_):
            self.isOpened = lambda: False

    monkeypatch.setattr(video.cv2, "VideoWriter", Broken)
    with pytest.raises(InputError, match=r"film\.webm: OpenCV cannot write VP8"):
        VideoWriter(tmp_path / "film.webm", fps=10, size=(64, 48))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".webm", ".mp4"])
def test_a_film_without_frames_is_refused(tmp_path, suffix):
    if suffix == ".mp4":
        pytest.importorskip("av")
    path = tmp_path / f"film{suffix}"
    with pytest.raises(InputError, match="film.*no frame was written"):
        VideoWriter(path, fps=10, size=(64, 48)).close()
    assert not list(tmp_path.iterdir())


FULL_DISK = """
import resource, signal, sys
import numpy as np
from siamrpn_jax.media.video import VideoWriter

path, limit = sys.argv[1], int(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
rng = np.random.default_rng(0)
try:
    with VideoWriter(path, fps=10, size=(64, 48)) as writer:
        for _ in range(60):
            writer.write(rng.integers(0, 255, (48, 64, 3), np.uint8))
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files there")
@pytest.mark.parametrize("suffix", [".webm", ".mp4"])
def test_a_full_disk_is_told(tmp_path, suffix):
    if suffix == ".mp4":
        pytest.importorskip("av")
    path = tmp_path / f"film{suffix}"

    def write(limit):
        command = [sys.executable, "-c", FULL_DISK, str(path), str(limit)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout

    assert write(10**9) == ""
    assert Video(path).length == 60
    size = path.stat().st_size
    path.unlink()
    for limit in (0, size // 2, size - 500):
        assert f"cannot write {path}" in write(limit)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fps", [0.5, 12.34, 23.976, 29.97, 1000])
def test_whole_films_of_any_rate(tmp_path, fps):
    with VideoWriter(tmp_path / "film.webm", fps=fps, size=(64, 48)) as writer:
        for color in [RED, GREEN, BLUE] * 7:
            writer.write(solid(color))
    assert Video(tmp_path / "film.webm").length == 21


@pytest.mark.parametrize(
    ("name", "fps", "size", "message"),
    [
        ("film.avi", 10, (64, 48), "suffix '.avi', expected .webm or .mp4"),
        ("film", 10, (64, 48), "suffix ''"),
        ("film.webm", 0, (64, 48), "0 frames/s"),
        ("film.webm", np.nan, (64, 48), "nan frames/s"),
        ("film.webm", 10, (0, 48), r"size \(0, 48\)"),
    ],
)
def test_bad_films_are_refused(tmp_path, name, fps, size, message):
    with pytest.raises(InputError, match=message):
        VideoWriter(tmp_path / name, fps=fps, size=size)


def test_frames_of_another_size_are_refused(tmp_path):
    with VideoWriter(tmp_path / "film.webm", fps=10, size=(64, 48)) as writer:
        writer.write(solid(RED))
        with pytest.raises(InputError, match="32x48 pixels, expected 64x48"):
            writer.write(solid(RED, width=32))
        with pytest.raises(ImageError):
            writer.write(solid(RED).astype(float))


def test_folder_in_natural_order(tmp_path):
    folder = tmp_path / "car"
    folder.mkdir()
    for number in (1, 2, 10):
        image = solid((number, 0, 0))
        path = folder / f"frame{number}.png"
        cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    (folder / "notes.txt").write_text("no image")
    for source in (folder, str(folder), str(folder / "*.png")):
        film = Video(source)
        assert (film.length, film.fps) == (3, None)
        assert film.name == "car"
        assert [frame[0, 0].tolist() for frame in film] == [
            [number, 0, 0] for number in (1, 2, 10)
        ]
    assert Video(str(folder / "frame1*.png")).length == 2


@pytest.mark.parametrize("subfolder", ["img", "color"])
def test_sequence_folder(tmp_path, subfolder):
    folder = tmp_path / "car"
    (folder / subfolder).mkdir(parents=True)
    (folder / "groundtruth.txt").write_text("1,2,3,4\n")
    cv2.imwrite(str(folder / subfolder / "1.png"), solid(GREEN))
    film = Video(folder)
    assert (film.name, film.length) == ("car", 1)
    cv2.imwrite(str(folder / "a.png"), solid((7, 7, 7)))  # its own images come first
    assert [frame[0, 0, 0] for frame in Video(folder)] == [7]


def test_two_images_of_a_frame_are_refused(tmp_path):
    """A pattern tells which are meant."""
    for number in range(3):
        for name in (f"{number:04d}.png", f"{number:04d}_mask.png"):
            cv2.imwrite(str(tmp_path / name), solid((number, 0, 0)))
    for source in (tmp_path, tmp_path / "*.png"):
        for open_source in (Video, Frames):
            with pytest.raises(ImageError, match=r"0000.png and 0000_mask.png, expec"):
                open_source(str(source))
    for pattern in ("%04d.png", "*_mask.png", "000?.png"):
        assert Video(tmp_path / pattern).length == 3


def test_iterator_of_arrays():
    frames = [
        solid(RED),
        solid(RED)[..., 0],
        np.dstack([solid(RED), solid(RED)[..., :1]]),
    ]
    found = list(Video(iter(frames)))
    assert [frame.shape for frame in found] == [(48, 64, 3)] * 3
    assert Video(iter(frames)).length is None
    with pytest.raises(ImageError, match="frame 1"):
        list(Video([solid(RED), solid(RED).astype(np.float32)]))


def test_one_frame_at_a_time():
    taken = []

    def camera():
        for index in range(100):
            taken.append(index)
            yield solid(RED)

    frames = iter(Video(camera()))
    for _ in range(2):
        next(frames)
    assert taken == [0, 1]


@pytest.mark.parametrize("source", ["none.mp4", "none/*.png", "none", "."])
def test_missing_sources_are_named(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a video file"):
        Video(source)


def test_images_that_lie_too_deep_are_told_of(tmp_path):
    place = tmp_path / "seq/img/img"
    place.mkdir(parents=True)
    cv2.imwrite(str(place / "1.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(FileNotFoundError, match="'camera'; .*img/img holds images: 1"):
        Video(tmp_path / "seq")


class Declared:
    """A capture whose source says something else of itself."""

    def __init__(self, capture, **declared):
        self._capture, self._declared = capture, declared

    def __getattr__(self, name):
        return getattr(self._capture, name)

    def get(self, key):
        names = {"fps": cv2.CAP_PROP_FPS, "length": cv2.CAP_PROP_FRAME_COUNT}
        names["milliseconds"] = cv2.CAP_PROP_POS_MSEC
        told = {names[name]: value for name, value in self._declared.items()}
        return told.get(key, self._capture.get(key))


@pytest.mark.parametrize("fps, expected", [(15.0, 15), (0.0, None), (-1.0, None)])
def test_a_camera_has_its_own_rate(tmp_path, monkeypatch, fps, expected):
    frames = write_film(tmp_path / "film.webm")
    film = str(tmp_path / "film.webm")
    open_capture = cv2.VideoCapture
    monkeypatch.setattr(
        cv2, "VideoCapture", lambda index: Declared(open_capture(film), fps=fps)
    )
    camera = Video("camera")
    assert (camera.name, camera.fps, camera.length) == ("camera", expected, None)
    assert_alike(list(camera), frames)


@pytest.mark.parametrize("length, warnings", [(100, 1), (4, 0), (-1, 0)])
def test_a_film_that_ends_early_is_a_warning(
    tmp_path, monkeypatch, caplog, length, warnings
):
    write_film(tmp_path / "film.webm")
    open_capture = cv2.VideoCapture
    monkeypatch.setattr(
        cv2, "VideoCapture", lambda path: Declared(open_capture(path), length=length)
    )
    film = Video(tmp_path / "film.webm")
    next(iter(film))  # leaving early is no fault of the film
    assert not caplog.records
    assert len(list(film)) == 4
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == warnings
    assert all("film.webm: ended after 0.4 of the 10.0 seconds" in m for m in messages)


def test_films_of_no_constant_speed_are_whole(tmp_path, monkeypatch, caplog):
    """Twice the frames are declared, but the last one comes at the end."""
    write_film(tmp_path / "film.webm")
    open_capture = cv2.VideoCapture
    monkeypatch.setattr(
        cv2,
        "VideoCapture",
        lambda path: Declared(open_capture(path), length=8, milliseconds=700.0),
    )
    assert len(list(Video(tmp_path / "film.webm"))) == 4
    assert not caplog.records


def box(name, *content):
    data = b"".join(content)
    return (8 + len(data)).to_bytes(4, "big") + name + data


def track(handler, *edits, version=0):
    """A track of an MP4: edits are durations and where in the track they begin."""
    size = 8 if version else 4
    rows = [
        duration.to_bytes(size, "big") + start.to_bytes(size, "big", signed=True)
        for duration, start in edits
    ]
    head = bytes([version, 0, 0, 0]) + len(rows).to_bytes(4, "big")
    listed = box(b"elst", head, *(row + bytes([0, 1, 0, 0]) for row in rows))
    media = box(b"mdia", box(b"hdlr", bytes(8), handler, bytes(12)))
    return box(b"trak", *[box(b"edts", listed)] * bool(edits), media)


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ([(900, 512)], 1.5),
        ([(900, 0)], 1.5),
        ([(600, -1), (900, 512), (300, 9000)], 2),  # a late start, and two parts
        ([(0, 512)], None),  # without an end: films that are written piece by piece
        ([], None),
    ],
)
def test_what_an_edit_list_shows(tmp_path, version, edits, expected):
    clock = bytes([version, 0, 0, 0]) + bytes(16 if version else 8)
    clock += (600).to_bytes(4, "big") + bytes(80)
    sound = track(b"soun", (60, 1024), version=version)
    seen = track(b"vide", *edits, version=version)
    moov = box(b"moov", box(b"mvhd", clock), sound, seen)
    path = tmp_path / "film.mp4"
    for before in (bytes(99), bytes(2**17)):
        wide = (1).to_bytes(4, "big") + b"mdat" + (16 + len(before)).to_bytes(8, "big")
        for mdat in (box(b"mdat", before), wide + before):
            path.write_bytes(box(b"ftyp", b"isom") + mdat + moov)
            assert video._edited_seconds(str(path)) == expected
    whole = box(b"ftyp", b"isom") + moov
    for end in range(0, len(whole), 5):
        path.write_bytes(whole[:end])
        assert video._edited_seconds(str(path)) in (expected, None)


NOISE = np.random.default_rng(0).integers(0, 255, (100, 48, 64, 3), np.uint8)


def warnings_of(path, caplog):
    """What is logged while a film is read, and how many frames it has."""
    caplog.clear()
    count = len(list(Video(path)))
    return [record.getMessage() for record in caplog.records], count


@pytest.mark.parametrize("b_frames", ["0", "3"])
def test_half_of_an_mp4_is_a_warning(tmp_path, caplog, b_frames):
    """FFmpeg writes an edit list for B-frames, which leaves nothing out."""
    path = tmp_path / "film.mp4"
    write_coded(
        path, NOISE, coding={"bf": b_frames}, container={"movflags": "faststart"}
    )
    data = path.read_bytes()
    assert warnings_of(path, caplog) == ([], 100)
    path.write_bytes(data[: len(data) // 2])
    (message,), count = warnings_of(path, caplog)
    assert 40 < count < 60
    assert "film.mp4: ended after" in message and "of the 4.0 seconds" in message


def test_an_mp4_that_is_trimmed_is_whole(tmp_path, caplog):
    """Cutting without decoding changes the edit list alone: here to the second half."""
    path = tmp_path / "film.mp4"
    write_coded(
        path, NOISE, coding={"bf": "2", "g": "10"}, container={"movflags": "faststart"}
    )
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12
    assert int.from_bytes(data[at : at + 4], "big") == 4000  # milliseconds
    data[at : at + 4] = (2000).to_bytes(4, "big")
    start = int.from_bytes(data[at + 4 : at + 8], "big") + 50 * 512
    data[at + 4 : at + 8] = start.to_bytes(4, "big")
    path.write_bytes(data)
    assert warnings_of(path, caplog) == ([], 50)
    path.write_bytes(data[: len(data) * 3 // 4])
    (message,), count = warnings_of(path, caplog)
    assert 15 < count < 35
    assert "of the 2.0 seconds" in message


def times_with_pauses(*pauses, count=200):
    """Twenty-five frames a second, with so many frames missing after some."""
    steps = np.full(count, 0.04)
    for place, missing in pauses:
        steps[place] *= 1 + missing
    return np.concatenate([[0], np.cumsum(steps)]).round(3)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (times_with_pauses((144, 11)), 144),
        (times_with_pauses((30, 6), (90, 20)), 30),
        (times_with_pauses(), None),
        (times_with_pauses((144, 1), (150, 2)), None),  # a camera was busy
        (times_with_pauses(*((i, 9) for i in range(5, 200, 20))), None),  # no changes
        (times_with_pauses((10, 9), count=30), None),  # too few to tell
        (np.arange(200) // 2 / 1000, None),  # two in a millisecond
        (np.arange(200) / 30 // 0.001 / 1000, None),
        (np.cumsum(np.random.default_rng(0).uniform(0, 0.1, 200)), None),
    ],
)
def test_gaps_in_films_of_constant_speed(times, expected):
    assert video._gap(times) == expected


def test_a_gap_in_a_film_with_all_its_frames_is_a_warning(caplog):
    """MP4 declares the frames that it holds, where others are missing."""
    times = times_with_pauses((144, 11))
    frames = [(time, np.zeros((1, 1, 3), np.uint8)) for time in times]
    read = video._warned_if_cut(iter(frames), "a.mp4", length=len(times), fps=25)
    assert len(list(read)) == len(times)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("a.mp4: no frame for 0.48 seconds after frame 144")


def test_damage_within_a_film_is_a_warning(tmp_path, caplog):
    """FFmpeg goes on behind it, and says nothing of the frames in between."""
    path = tmp_path / "film.mkv"
    write_coded(path, NOISE, coding={"g": "10", "bf": "0"})
    data = bytearray(path.read_bytes())
    assert warnings_of(path, caplog) == ([], 100)
    middle = len(data) // 2
    data[middle : middle + len(data) // 20] = bytes(len(data) // 20)
    path.write_bytes(data)
    messages, count = warnings_of(path, caplog)
    assert 85 < count < 99
    assert any("film.mkv: no frame for 0." in message for message in messages)
    assert any("is it damaged? If so, the" in message for message in messages)


def animated_webp():
    animation = cv2.Animation()
    animation.frames = [solid(RED), solid(GREEN), solid(BLUE)]
    animation.durations = [40] * 3
    return cv2.imencodeanimation(".webp", animation)[1].tobytes()


def tiff_stack():
    pages = [solid(RED), solid(GREEN), solid(BLUE)]
    return cv2.imencodemulti(".tiff", pages)[1].tobytes()


@pytest.mark.parametrize("suffix", [".tif", ".webp", ".mp4"])
@pytest.mark.parametrize(
    ("kind", "make"), [(".tiff", tiff_stack), (".webp", animated_webp)]
)
def test_images_of_several_are_no_films(tmp_path, suffix, kind, make):
    """Of a TIFF the first page would be read; GIF and PNG are read as films are."""
    path = tmp_path / f"stack{suffix}"
    path.write_bytes(make())
    for open_source in (Video, Frames):
        with pytest.raises(ImageError, match="stack.*: holds 3 images, expected one:"):
            open_source(path)
    path.write_bytes(cv2.imencode(kind, solid(RED))[1].tobytes())
    assert len(list(Video(path))) == 1


def test_numbered_patterns(tmp_path):
    for name in ("f0001.png", "f0002.png", "f0010.png", "f3.png", "g0001.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
    assert Video(tmp_path / "f%04d.png").length == 3
    assert Video(tmp_path / "f%d.png").length == 1
    with pytest.raises(FileNotFoundError, match="expected a video file, a folder or"):
        Video(tmp_path / "h%04d.png")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "IMG_1.heic").touch()
    with pytest.raises(FileNotFoundError, match="; IMG_1.heic is not read: magick"):
        Video(tmp_path / "photos")


def test_missing_camera_is_one_line(capfd):
    with pytest.raises(InputError, match="camera 77 cannot be opened"):
        Video("77")
    assert capfd.readouterr().err == ""


def test_undecodable_file_says_what_to_do(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"no film at all" * 100)
    with pytest.raises(InputError, match=r"film\.mp4: not a video"):
        Video(path)


def test_codec_without_decoder_names_the_extra(tmp_path, monkeypatch):
    """As OpenCV does with AV1: the file opens, and no frame ever comes."""
    write_film(tmp_path / "film.webm")

    class Undecodable:
        def __init__(self, source):
            self._capture = open_capture(source)

        def __getattr__(self, name):
            return getattr(self._capture, name)

        def grab(self):
            return False

    open_capture = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", Undecodable)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"AV1.*siamrpn-jax\[video\]"):
        Video(tmp_path / "film.webm")


def test_a_film_that_only_pyav_opens_has_its_rate(tmp_path, monkeypatch):
    pytest.importorskip("av")
    frames = write_film(tmp_path / "film.mp4")
    open_capture = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda path: open_capture())
    film = Video(tmp_path / "film.mp4")
    assert (film.fps, film.length) == (pytest.approx(10), 4)
    assert_alike(list(film), frames)


def test_a_codec_that_nobody_knows(tmp_path):
    pytest.importorskip("av")
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for color in (RED, GREEN):
        writer.write(solid(color))
    writer.release()
    path.write_bytes(path.read_bytes().replace(b"MJPG", b"QQQQ"))
    with pytest.raises(InputError, match="film.avi: .*nor by PyAV"):
        Video(path)


@pytest.mark.parametrize("progressive", [0, 3])
def test_interlaced_films_are_read_by_pyav(tmp_path, progressive):
    """OpenCV hands out frames of them that it has not written."""
    path = tmp_path / "film.m2v"
    levels = write_interlaced(path, progressive=progressive)
    film = Video(path)
    for _ in range(2):
        assert [frame.mean() for frame in film] == pytest.approx(levels, abs=2)


def test_interlaced_films_without_pyav_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "film.m2v"
    write_interlaced(path)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError) as caught:
        Video(path)
    for part in (f"{path}: is interlaced", "'siamrpn-jax[video]'", f"{path} -vf yadif"):
        assert part in str(caught.value)


def test_films_interlaced_in_part_end_in_an_error_without_pyav(tmp_path, monkeypatch):
    path, found = tmp_path / "film.m2v", []
    levels = write_interlaced(path, progressive=3)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match="film.m2v: is interlaced"):
        for frame in Video(path):
            found.append(frame.mean())
    assert found == pytest.approx(levels[:3], abs=2)
