import cv2
import numpy as np
import pytest

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.media.animation import AnimationWriter

COLORS = np.array([[200, 40, 30], [30, 180, 50], [20, 60, 210], [220, 210, 40]])
FRAMES = np.broadcast_to(COLORS[:, None, None], (4, 48, 96, 3)).astype(np.uint8)


def write(path, frames=FRAMES, **options):
    with AnimationWriter(path, **{"fps": 25, **options}) as writer:
        for frame in frames:
            writer.write(frame)


def read(path):
    """Frames RGB, and milliseconds of each."""
    found, animation = cv2.imreadanimation(str(path))
    assert found
    return [frame[..., 2::-1] for frame in animation.frames], list(animation.durations)


@pytest.mark.parametrize("suffix", ["webp", "gif", "png", "avif"])
def test_what_is_written_is_read_back(tmp_path, suffix):
    path = tmp_path / "deep" / f"a.{suffix}"
    if not cv2.haveImageWriter(str(path)):
        with pytest.raises(InputError, match="expected .webp"):
            write(path)
        return
    write(path)
    frames, durations = read(path)
    assert durations == [40] * 4
    for frame, color in zip(frames, COLORS, strict=True):
        assert frame.shape == (48, 96, 3)
        assert np.abs(frame.mean((0, 1)) - color).max() < 8
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_width_and_stride(tmp_path):
    write(tmp_path / "a.webp", np.repeat(FRAMES, 2, 0)[:7], width=48, stride=3, fps=30)
    frames, durations = read(tmp_path / "a.webp")
    assert [frame.shape for frame in frames] == [(24, 48, 3)] * 3
    assert durations == [100, 100, 33]  # as long as seven frames
    shown = [frame.mean((0, 1)) for frame in frames]
    assert np.abs(np.array(shown) - COLORS[[0, 1, 3]]).max() < 8


def test_small_frames_are_not_enlarged(tmp_path):
    write(tmp_path / "a.webp", width=1000)
    assert read(tmp_path / "a.webp")[0][0].shape == (48, 96, 3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.mp4", {}, "a.mp4: suffix '.mp4', expected .webp"),
        ("a.webp", {"fps": 0}, "0 frames/s"),
        ("a.webp", {"fps": np.nan}, "nan frames/s"),
        ("a.webp", {"width": 0}, "width 0"),
        ("a.webp", {"stride": -1}, "stride -1: expected numbers above 0"),
        ("a.webp", {"frames": []}, "no frame was written"),
    ],
)
def test_what_cannot_be_is_named(tmp_path, name, options, message):
    with pytest.raises(InputError, match=message):
        write(tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_a_failure_on_the_way_leaves_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError):
        with AnimationWriter(tmp_path / "a.webp", fps=25) as writer:
            writer.write(FRAMES[0])
            raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_a_failed_write_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "imwriteanimation", lambda *_: False)
    with pytest.raises(OSError, match=r"cannot write .*a\.webp: OpenCV could not"):
        write(tmp_path / "a.webp")
