from pathlib import Path

import cv2
import numpy as np
import pytest

from paths import SHARED_DATA
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.images import ImageError
from siamrpn_jax.data.read.sequences import Sequence, find_sequences, read_sequence
from siamrpn_jax.evaluation import runner, trackers
from siamrpn_jax.evaluation.ope import got10k, metrics
from siamrpn_jax.model.boxes import BoxError

DEV_SEQUENCES = SHARED_DATA / "dev_sequences"
BOX = [2.0, 3.0, 8.0, 6.0]


def make_sequence(folder: Path, count: int = 5) -> Sequence:
    """Writes frames whose grey level is 10 times their number."""
    frames = []
    for index in range(count):
        frames.append(folder / f"{index:03d}.png")
        cv2.imwrite(str(frames[-1]), np.full((24, 32, 3), 10 * index, np.uint8))
    return Sequence("grey", tuple(frames), np.array([BOX] * count))


class Recorder:
    """Answers with the frame's grey level as x, and notes what it was asked."""

    def __init__(self, answer=lambda box: box):
        self.calls = []
        self.answer = answer

    def init(self, image, box):
        self.calls.append(("init", int(image[0, 0, 0]), box.tolist()))

    def update(self, image):
        level = int(image[0, 0, 0])
        self.calls.append(("update", level))
        self.score = level / 100
        return self.answer([float(level), 0.0, 5.0, 5.0])


def test_protocol_and_warm_up(tmp_path):
    tracker = Recorder()
    run = runner.run_sequence(tracker, make_sequence(tmp_path))
    warm_up = [("init", 0, BOX), ("update", 10)]
    updates = [("update", level) for level in (10, 20, 30, 40)]
    assert tracker.calls == [*warm_up, ("init", 0, BOX), *updates]
    assert run.boxes.tolist() == [BOX] + [[x, 0, 5, 5] for x in (10, 20, 30, 40)]
    assert np.isnan(run.scores[0])
    assert run.scores[1:] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert run.seconds.shape == (5,)


def test_opencv_pair_keeps_the_last_box_where_lost(tmp_path):
    tracker = Recorder(lambda box: (box[0] != 20, box))
    run = runner.run_sequence(tracker, make_sequence(tmp_path))
    assert run.boxes[:, 0].tolist() == [2, 10, 10, 30, 40]


def test_fps_counts_updates_alone():
    run = runner.Run(np.zeros((5, 4)), np.zeros(5), np.array([9.0, 1, 1, 1, 1]))
    fast = runner.Run(np.zeros((3, 4)), np.zeros(3), np.array([9.0, 0.5, 0.5]))
    assert run.fps == pytest.approx(1)
    assert runner.total_fps([run, fast]) == pytest.approx(6 / 5)


@pytest.mark.parametrize("answer", [None, [1, 2, 3], [1, 2, 3, np.nan]])
def test_bad_answers_are_named(tmp_path, answer):
    tracker = Recorder(lambda box: answer)
    with pytest.raises(InputError, match="grey, frame 1: .*x,y,w,h"):
        runner.run_sequence(tracker, make_sequence(tmp_path))


def test_sequences_that_cannot_be_run(tmp_path):
    with pytest.raises(InputError, match="grey: 1 frame, expected at least 2"):
        runner.run_sequence(Recorder(), make_sequence(tmp_path, 1))
    sequence = make_sequence(tmp_path)
    sequence.boxes[0] = np.nan
    with pytest.raises(InputError, match="grey: no ground truth in the first"):
        runner.run_sequence(Recorder(), sequence)
    sequence.boxes[0] = [40, 3, 8, 6]
    with pytest.raises(BoxError, match=r"grey: first box .*outside .*000\.png"):
        runner.run_sequence(Recorder(), sequence)


def test_broken_frame_is_named(tmp_path):
    sequence = make_sequence(tmp_path)
    sequence.frames[3].write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"003\.png"):
        runner.run_sequence(Recorder(), sequence)


def test_static_tracker_repeats_the_first_box(tmp_path):
    sequence = make_sequence(tmp_path)
    run = runner.run_sequence(trackers.make_baseline("static"), sequence)
    assert run.boxes.tolist() == [BOX] * 5
    assert np.isnan(run.scores).all()


@pytest.mark.parametrize("name", ["kcf", "csrt"])
def test_opencv_tracker_follows_or_names_the_wheel(tmp_path, name):
    if not hasattr(cv2, f"Tracker{name.upper()}_create"):
        with pytest.raises(InputError, match="opencv-contrib-python"):
            trackers.make_baseline(name)
        return
    sequence, truth = make_moving_sequence(tmp_path)
    run = runner.run_sequence(trackers.make_baseline(name), sequence)
    assert metrics.overlaps(run.boxes, truth).min() > 0.6


def make_moving_sequence(folder: Path) -> tuple[Sequence, np.ndarray]:
    rng = np.random.default_rng(0)
    patch = rng.integers(0, 255, (20, 24, 3), np.uint8)
    frames, boxes = [], []
    for index in range(6):
        frame = np.full((80, 120, 3), 90, np.uint8)
        x, y = 20 + 3 * index, 30 + index
        frame[y : y + 20, x : x + 24] = cv2.GaussianBlur(patch, (5, 5), 0)
        frames.append(folder / f"{index}.png")
        cv2.imwrite(str(frames[-1]), frame)
        boxes.append([x, y, 24, 20])
    return Sequence("moving", tuple(frames), np.array(boxes, float)), np.array(boxes)


def test_static_tracker_on_the_development_sequences():
    if not DEV_SEQUENCES.is_dir():
        pytest.skip("skipped: no ../shared")
    rows = []
    for folder in find_sequences(DEV_SEQUENCES):
        boxes = read_sequence(folder).boxes
        rows.append(metrics.evaluate(np.repeat(boxes[:1], len(boxes), axis=0), boxes))
    assert len(rows) == 12
    assert metrics.mean_metrics(rows).auc == pytest.approx(0.218, abs=0.005)


def test_got10k_counts_pixels_from_one(tmp_path):
    tracker = Recorder()
    adapter = got10k.Got10kTracker(tracker, name="mine")
    assert (adapter.name, adapter.is_deterministic) == ("mine", True)
    files = [str(path) for path in make_sequence(tmp_path).frames]
    boxes, seconds = adapter.track(files, np.array(BOX), visualize=False)
    assert tracker.calls[0] == ("init", 0, [1, 2, 8, 6])
    assert boxes.tolist() == [BOX] + [[x + 1, 1, 5, 5] for x in (10, 20, 30, 40)]
    assert seconds.shape == (5,)
    with pytest.raises(InputError, match="no frames: 0 frame"):
        adapter.track([], np.array(BOX))
