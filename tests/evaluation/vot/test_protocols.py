import json
from typing import Any

import cv2
import numpy as np
import pytest

from siamrpn_jax.api import load
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.images import ImageError
from siamrpn_jax.evaluation import store
from siamrpn_jax.evaluation.annotations import ResultError
from siamrpn_jax.evaluation.vot import protocols
from siamrpn_jax.evaluation.vot.dataset import (
    VotSequence,
    read_vot_dataset,
    region_to_ltwh,
)
from siamrpn_jax.evaluation.vot.generated import write_synthetic
from siamrpn_jax.evaluation.vot.protocols import ProtocolConfig
from siamrpn_jax.tracking import step as device

SIZE = (64, 48)
TRUTH = [20.0, 16, 12, 10]
FAR = [50.0, 1, 8, 6]
DIAMOND = [26.0, 11, 36, 21, 26, 31, 16, 21]


def make_sequence(folder, count, *, regions=None):
    """Frames whose grey level is their number."""
    folder.mkdir(exist_ok=True)
    frames = tuple(folder / f"{index:03d}.png" for index in range(count))
    for index, path in enumerate(frames):
        assert cv2.imwrite(str(path), np.full((*SIZE[::-1], 3), index, np.uint8))
    rows = [TRUTH] * count if regions is None else regions
    rows = tuple(np.array(row, float) for row in rows)
    return VotSequence(folder.name, frames, rows, SIZE, {}, None)


class Clock:
    """Time that passes only when told to."""

    now: float = 0.0

    def __call__(self):
        return self.now


class Scripted:
    """Finds the target but in given frames; its boxes' y tells what it has seen."""

    def __init__(
        self,
        miss: Any = (),
        *,
        seconds: Any = 0.0,
        start: Any = 0.0,
        answer: Any = None,
    ):
        self.miss, self.clock, self.answer = miss, Clock(), answer
        self.start = float(start)
        self.seconds: Any = seconds if callable(seconds) else lambda index: seconds
        self.calls = []

    def init(self, image, box):
        self.clock.now += self.start
        self.calls.append((int(image[0, 0, 0]), box.tolist()))

    def update(self, image):
        index = int(image[0, 0, 0])
        self.calls.append(index)
        self.clock.now += self.seconds(index)
        if self.answer is not None:
            return self.answer(index)
        if index in self.miss:
            return np.array(FAR)
        return np.array(TRUTH) + [0, index / 10, 0, 0]


def run(tracker, sequence, **options):
    config = ProtocolConfig(**options)
    clock = getattr(tracker, "clock", Clock())
    return protocols.RUN[config.experiment](
        tracker, sequence, config=config, clock=clock
    )


def codes(result):
    """Codes, and for a box the number of the frame in which the tracker saw it."""
    return [
        "SF"[int(row[0]) - 1] if len(row) == 1 and row[0] else
        "." if len(row) == 1 else round((row[1] - TRUTH[1]) * 10)
        for row in result.regions
    ]  # fmt: skip


# ------------------------------------------------------------------ baseline


@pytest.mark.parametrize(
    ("count", "miss", "expected"),
    [
        (6, (), ["S", 1, 2, 3, 4, 5]),
        (12, (3,), ["S", 1, 2, "F", ".", ".", ".", ".", "S", 9, 10, 11]),
        # Failures on the way: nothing runs in the four frames between.
        (9, (2, 3, 4, 5, 6), ["S", 1, "F", ".", ".", ".", ".", "S", 8]),
        # In the last frame but four, the next start would be after the end.
        (8, (3,), ["S", 1, 2, "F", ".", ".", ".", "."]),
        # Five before the end, it is the last frame.
        (9, (3,), ["S", 1, 2, "F", ".", ".", ".", ".", "S"]),
        (4, (3,), ["S", 1, 2, "F"]),
        (8, range(8), ["S", "F", ".", ".", ".", ".", "S", "F"]),
        (1, (), ["S"]),
    ],
)
def test_resets(tmp_path, count, miss, expected):
    tracker = Scripted(miss)
    result = run(tracker, make_sequence(tmp_path / "grey", count))
    assert codes(result) == expected
    ran = [call if isinstance(call, int) else call[0] for call in tracker.calls]
    assert ran == [i for i, code in enumerate(expected) if code != "."]
    assert np.flatnonzero(~np.isnan(result.seconds)).tolist() == ran


def test_starts_from_the_box_with_the_area_of_the_polygon(tmp_path):
    polygons = [np.array(DIAMOND) + index / 8 for index in range(9)]
    tracker = Scripted((1,))
    sequence = make_sequence(tmp_path / "grey", 9, regions=polygons)
    assert codes(run(tracker, sequence))[6] == "S"
    starts = [call for call in tracker.calls if not isinstance(call, int)]
    assert [index for index, _ in starts] == [0, 6]
    for index, box in starts:
        assert box == region_to_ltwh(polygons[index]).tolist()
        assert box[2] * box[3] == pytest.approx(200)


def test_overlap_outside_the_image_is_a_failure(tmp_path):
    truth = [[-6.0, 10, 12, 10]] * 3  # to x = 6
    boxes = {1: [-7.0, 10, 9, 10], 2: [-7.0, 10, 4, 10]}
    sequence = make_sequence(tmp_path / "grey", 3, regions=truth)
    result = run(Scripted(answer=lambda index: np.array(boxes[index])), sequence)
    assert result.regions[1].tolist() == boxes[1]
    assert result.regions[2].tolist() == [2]


@pytest.mark.parametrize("overlap", ["pysot", "official"])
def test_failure_follows_the_overlap_that_is_asked_for(tmp_path, overlap):
    """Boxes that hardly overlap share a column of pixels where far edges are drawn."""
    beside = np.array([TRUTH[0] + TRUTH[2] - 0.4, *TRUTH[1:]])
    sequence = make_sequence(tmp_path / "grey", 2)
    result = run(Scripted(answer=lambda _: beside), sequence, overlap=overlap)
    assert (len(result.regions[1]) == 4) == (overlap == "pysot")


def test_unsupervised_never_starts_again(tmp_path):
    tracker = Scripted((2, 3))
    sequence = make_sequence(tmp_path / "grey", 6)
    result = run(tracker, sequence, experiment="unsupervised")
    assert [row.tolist() for row in result.regions[2:4]] == [FAR, FAR]
    assert tracker.calls == [(0, TRUTH), 1, 2, 3, 4, 5]
    assert codes(result)[0] == "S" and codes(result)[4:] == [4, 5]


# ------------------------------------------------------------------ real time


def run_late(tracker, sequence, *, grace=0):
    return run(tracker, sequence, experiment="realtime", fps=20, grace=grace)


@pytest.mark.parametrize("grace", [0, 3])
@pytest.mark.parametrize("miss", [(), (3,), range(20)])
def test_a_tracker_in_time_does_as_in_the_baseline(tmp_path, miss, grace):
    sequence = make_sequence(tmp_path / "grey", 20)
    on_time = run_late(Scripted(miss, seconds=0.05), sequence, grace=grace)
    assert codes(on_time) == codes(run(Scripted(miss), sequence))


@pytest.mark.parametrize(
    ("seconds", "start", "grace", "expected"),
    [
        # Two frames an answer: each frame asked about gets the box before it.
        (0.10, 0.0, 0, ["S", 0, 1, 1, 3, 3, 5, 5, 7, 7]),
        # The start and two answers are forgiven.
        (0.10, 9.0, 3, ["S", 1, 2, 2, 3, 3, 5, 5, 7, 7]),
        # 1.4 frames: lateness adds up.
        (0.07, 0.0, 0, ["S", 1, 1, 2, 4, 4, 5, 7, 8, 8]),
        # Less than half a frame late once is in time.
        (lambda index: 0.06 if index == 3 else 0.05, 0, 0, ["S", *range(1, 10)]),
        # A late start leaves frames without a box: 2.5 frames are 3.
        (0.05, 0.125, 0, ["S", ".", ".", 3, 4, 5, 6, 7, 8, 9]),
        # The answer comes after the end.
        (lambda index: 1.0 if index == 4 else 0, 0, 0, ["S", 1, 2, 3, *[3] * 6]),
        # Being fast is no credit for later.
        (lambda index: 0.1 * (index == 5), 0, 0, ["S", 1, 2, 3, 4, 4, 5, 7, 8, 9]),
    ],
)
def test_late_answers(tmp_path, seconds, start, grace, expected):
    tracker = Scripted(seconds=seconds, start=start)
    result = run_late(tracker, make_sequence(tmp_path / "grey", 10), grace=grace)
    assert codes(result) == expected


def jump_at(index, count):
    """The target jumps to a place that only those find who see it there."""
    there = [2.0, 2, 12, 10]
    return [TRUTH] * index + [there] * (count - index), np.array(there)


def test_the_held_box_fails(tmp_path):
    """Asked about frame 3 it answers in frame 6; the target jumps in frame 4.

    The held box fails there. The answer about frame 3 misses frame 6, so that the
    failure is the answer's; the next start is 5 frames after it.
    """
    regions, there = jump_at(4, 14)
    tracker = Scripted(
        seconds=lambda index: 0.2 if index == 3 else 0.0,
        answer=lambda index: there if index > 3 else np.array(TRUTH),
    )
    sequence = make_sequence(tmp_path / "grey", 14, regions=regions)
    rows = [row.tolist() for row in run_late(tracker, sequence).regions]
    box, new = TRUTH, there.tolist()
    assert rows == [[1], box, box, box, [0], [0], [2], *[[0]] * 4, [1], new, new]


def test_the_held_box_fails_but_the_answer_is_right(tmp_path):
    """As in the toolkit of 2017: the answer is kept, the start is 5 frames after it."""
    regions, there = jump_at(3, 13)
    tracker = Scripted(
        seconds=lambda index: 0.15 if index == 3 else 0.0,
        answer=lambda index: there if index >= 3 else np.array(TRUTH),
    )
    sequence = make_sequence(tmp_path / "grey", 13, regions=regions)
    rows = [row.tolist() for row in run_late(tracker, sequence).regions]
    box, new = TRUTH, there.tolist()
    assert rows == [[1], box, box, [2], [0], new, *[[0]] * 4, [1], new, new]


def test_a_start_forgives_again(tmp_path):
    tracker = Scripted((1,), seconds=0.1)
    result = run_late(tracker, make_sequence(tmp_path / "grey", 11), grace=2)
    assert codes(result) == ["S", "F", *"....", "S", 7, 7, 8, 8]


@pytest.mark.parametrize("options", [{"fps": 0}, {"fps": np.nan}, {"grace": -1}])
def test_impossible_settings(options):
    with pytest.raises(InputError, match=next(iter(options))):
        ProtocolConfig(**options)


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize("experiment", ["baseline", "realtime", "unsupervised"])
@pytest.mark.parametrize("answer", [None, [1, 2, 3], [1, 2, np.nan, 4]])
def test_an_answer_that_is_no_box_is_named(tmp_path, experiment, answer):
    tracker = Scripted(answer=lambda index: answer if index == 3 else TRUTH)
    sequence = make_sequence(tmp_path / "grey", 6)
    with pytest.raises(InputError, match=r"grey, frame 3: .*expected a finite box"):
        run(tracker, sequence, experiment=experiment)


def test_a_frame_that_cannot_be_decoded(tmp_path):
    sequence = make_sequence(tmp_path / "grey", 6)
    sequence.frames[4].write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"grey/004\.png"):
        run(Scripted(), sequence)


def test_a_frame_of_another_size(tmp_path):
    sequence = make_sequence(tmp_path / "grey", 6)
    cv2.imwrite(str(sequence.frames[2]), np.zeros((9, 8, 3), np.uint8))
    with pytest.raises(InputError, match=r"002\.png: 8x9 pixels, expected 64x48"):
        run(Scripted(), sequence)


def test_a_start_outside_the_image(tmp_path):
    regions = [TRUTH] * 6 + [[70.0, 1, 2, 3]]
    sequence = make_sequence(tmp_path / "grey", 7, regions=regions)
    with pytest.raises(InputError, match="grey, frame 6: cannot start, box .*outside"):
        run(Scripted((1,)), sequence)


# ------------------------------------------------------------------ files


def run_to_files(tracker, sequence, folder, *, repetitions=1):
    return protocols.run_to_files(
        tracker,
        sequence,
        folder,
        config=ProtocolConfig(),
        repetitions=repetitions,
        clock=tracker.clock,
    )


def test_warm_up_comes_first_and_is_not_counted(tmp_path):
    tracker = Scripted(seconds=lambda index: 0.5 if len(tracker.calls) == 2 else 0.1)
    sequence = make_sequence(tmp_path / "grey", 3)
    warm = run_to_files(tracker, sequence, tmp_path / "out")
    assert warm == pytest.approx(0.5)
    assert tracker.calls == [(0, TRUTH), 1, (0, TRUTH), 1, 2]
    times = (tmp_path / "out" / "grey" / "grey_001_time.value").read_text().split()
    assert [float(value) for value in times] == pytest.approx([0, 0.1, 0.1])


def test_what_is_there_is_not_run_again(tmp_path):
    sequence, folder = make_sequence(tmp_path / "grey", 12), tmp_path / "out"
    run_to_files(Scripted((3,)), sequence, folder)
    before = (folder / "grey" / "grey_001.txt").read_text()
    assert [line.split(".")[0] for line in before.splitlines()[3:9]] == list("200001")
    tracker = Scripted((5,))
    assert run_to_files(tracker, sequence, folder) is None
    assert tracker.calls == []
    run_to_files(tracker, sequence, folder, repetitions=2)
    assert (folder / "grey" / "grey_001.txt").read_text() == before
    assert (folder / "grey" / "grey_002.txt").read_text().splitlines()[5] == "2"


def test_an_interrupted_run_leaves_whole_sequences_only(tmp_path):
    sequences = [make_sequence(tmp_path / name, 6) for name in ("one", "two")]

    def interrupted(index):
        if len(tracker.calls) > 12:
            raise KeyboardInterrupt
        return np.array(TRUTH)

    tracker, folder = Scripted(answer=interrupted), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        for sequence in sequences:
            run_to_files(tracker, sequence, folder)
    assert {path.name for path in folder.rglob("*.txt")} == {"one_001.txt"}
    again = Scripted()
    for sequence in sequences:
        run_to_files(again, sequence, folder)
    assert sum(not isinstance(call, int) for call in again.calls) == 2  # both of "two"
    assert len(list(folder.rglob("*_001.txt"))) == 2


@pytest.mark.parametrize(("changes", "runs"), [(False, 3), (True, 5)])
def test_three_equal_runs_are_enough(tmp_path, changes, runs):
    def answer(index):
        starts = sum(not isinstance(call, int) for call in tracker.calls)
        return np.array(TRUTH) + [0, starts * changes / 10, 0, 0]

    tracker = Scripted(answer=answer)
    sequence = make_sequence(tmp_path / "grey", 4)
    run_to_files(tracker, sequence, tmp_path / "out", repetitions=5)
    assert len(list((tmp_path / "out").rglob("grey_00?.txt"))) == runs


def test_results_that_are_cut_short_are_named(tmp_path):
    sequence, folder = make_sequence(tmp_path / "grey", 6), tmp_path / "out"
    run_to_files(Scripted(), sequence, folder)
    path = folder / "grey" / "grey_001.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(InputError, match="grey.*5.*6"):
        run_to_files(Scripted(), sequence, folder)


def open_again(folder, settings, *, force):
    store.open_results(folder, settings, list(folder.rglob("grey_*")), force=force)


def test_settings_guard_results(tmp_path):
    sequence, folder = make_sequence(tmp_path / "grey", 6), tmp_path / "out"
    open_again(folder, {"fps": 20}, force=False)
    run_to_files(Scripted(), sequence, folder, repetitions=2)
    open_again(folder, {"fps": 20}, force=False)
    with pytest.raises(ResultError, match="other settings .fps: 20 -> 25.; .*force"):
        open_again(folder, {"fps": 25}, force=False)
    assert len(list(folder.rglob("grey_00?.txt"))) == 2
    open_again(folder, {"fps": 25}, force=True)
    assert list(folder.rglob("grey_*")) == []
    assert json.loads((folder / "settings.json").read_text()) == {"fps": 25}


def test_results_of_unknown_origin(tmp_path):
    sequence, folder = make_sequence(tmp_path / "grey", 6), tmp_path / "out"
    run_to_files(Scripted(), sequence, folder)
    with pytest.raises(ResultError, match=r"grey_001.* but no settings\.json"):
        open_again(folder, {}, force=False)


# ------------------------------------------------------------------ the real one


class Unsteady:
    """The real tracker, that says another place in some frames."""

    def __init__(self):
        self.tracker = load()
        self.frames = 0

    def init(self, image, box):
        self.tracker.init(image, box)

    def update(self, image):
        self.frames += 1
        box = self.tracker.update(image)
        return box if self.frames % 4 else np.array([0.0, 0, 1, 1])


def test_a_start_compiles_nothing(tmp_path):
    write_synthetic(tmp_path, lengths=(24,))
    (sequence,) = read_vot_dataset(tmp_path)
    tracker = Unsteady()
    protocols.warm_up(tracker, sequence)
    jitted: list[Any] = [device._init_track, device.track_step]
    before = [function._cache_size() for function in jitted]
    result = protocols.run_baseline(tracker, sequence, config=ProtocolConfig())
    assert sum(len(row) == 1 and row[0] == 1 for row in result.regions) >= 3
    assert [function._cache_size() for function in jitted] == before
