import copy
import dataclasses
import itertools
import pickle
from typing import Any

import jax
import numpy as np
import pytest

from siamrpn_jax import api
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.images import ImageError
from siamrpn_jax.evaluation.runner import OnePassTracker
from siamrpn_jax.model import boxes
from siamrpn_jax.model.config import BackboneConfig, HeadConfig, ModelConfig
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking import step as step_module
from siamrpn_jax.tracking.config import TrackerConfig, find_idle
from siamrpn_jax.tracking.slots import add_target, empty_slots, track_many
from siamrpn_jax.tracking.step import init_track, track_clip, track_step
from siamrpn_jax.weights import save_weights

MODEL = SiamRPN(
    ModelConfig(
        conv_impl="xla",
        backbone=BackboneConfig(kind="compact", widths=(4, 6, 8)),
        head=HeadConfig(kind="depthwise", width=8, kernel_size=1),
        exemplar_size=60,
        instance_size=124,
    )
)
CONFIG = TrackerConfig()
TARGETS = np.array([[20.0, 10, 24, 30], [60.0, 40, 20, 16]])


@pytest.fixture(scope="module")
def variables():
    return MODEL.init_variables(jax.random.key(0))


@pytest.fixture(scope="module")
def tracker(variables):
    return api.Tracker(MODEL, variables, CONFIG)


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 255, (4, 80, 100, 3), np.uint8))


def test_one_target_against_the_pure_functions(tracker, variables, frames):
    box = boxes.ltwh_to_cxcywh(TARGETS[0]).astype(np.float32)
    template, state = init_track(variables, frames[0], box, model=MODEL)
    tracker.init(frames[0], TARGETS[0])
    assert np.isnan(tracker.score) and np.isnan(tracker.confidence)
    assert tracker.lost is False
    for frame in frames[1:]:
        state, output = track_step(
            variables, template, state, frame, model=MODEL, config=CONFIG
        )
        found = tracker.update(frame)
        assert found.shape == (4,) and found.dtype == np.float64
        center = boxes.ltwh_to_cxcywh(found)
        assert center == pytest.approx(np.asarray(output.box), abs=1e-4)
        assert tracker.score == pytest.approx(float(output.score), abs=1e-6)
        assert tracker.confidence == pytest.approx(float(output.confidence), abs=1e-5)
        assert tracker.lost is bool(output.lost)


def test_several_targets_equal_one_after_the_other(tracker, frames):
    expected = []
    for target in TARGETS:
        tracker.init(frames[0], target)
        expected.append(
            [
                (tracker.update(frame), tracker.score, tracker.confidence, tracker.lost)
                for frame in frames[1:]
            ]
        )
    tracker.init(frames[0], TARGETS)
    assert np.isnan(tracker.confidence).all() and tracker.lost.tolist() == [False] * 2
    for index, frame in enumerate(frames[1:]):
        found = tracker.update(frame)
        assert found.shape == (2, 4)
        assert found == pytest.approx(
            np.stack([e[index][0] for e in expected]), abs=1e-2
        )
        scores = [e[index][1] for e in expected]
        assert tracker.score == pytest.approx(scores, abs=1e-4)
        confidences = [e[index][2] for e in expected]
        assert tracker.confidence == pytest.approx(confidences, abs=1e-3)
        assert tracker.lost.tolist() == [e[index][3] for e in expected]


def test_starting_again_forgets(tracker, frames):
    tracker.init(frames[0], TARGETS[0])
    first = [tracker.update(frame).tolist() for frame in frames[1:]]
    tracker.init(frames[1], TARGETS)
    tracker.update(frames[2])
    tracker.init(frames[0], TARGETS[0])
    assert [tracker.update(frame).tolist() for frame in frames[1:]] == first


def test_new_targets_are_not_compiled_for(tracker, frames):
    tracker.init(frames[0], TARGETS[0])
    tracker.update(frames[1])
    jitted: list[Any] = [step_module._init_track, track_step]
    before = [function._cache_size() for function in jitted]
    tracker.init(frames[0], TARGETS[1])
    tracker.update(frames[1])
    assert [function._cache_size() for function in jitted] == before


@pytest.mark.parametrize("target", [TARGETS[0], TARGETS], ids=["one", "several"])
def test_padding_changes_nothing(tracker, variables, frames, target):
    """80x100 frames in 96x128 ones; the second target looks into the padding."""
    padding = api.Tracker(MODEL, variables, CONFIG, pad_to=32)
    for each in (tracker, padding):
        each.init(frames[0], target)
    for frame in frames[1:]:
        expected = tracker.update(frame)
        assert padding.update(frame) == pytest.approx(expected, abs=1e-3)
        assert padding.score == pytest.approx(tracker.score, abs=1e-5)


def test_sizes_of_a_bucket_compile_once(variables, tracker):
    padding = api.Tracker(MODEL, variables, CONFIG, pad_to=48)
    large = np.random.default_rng(1).integers(0, 255, (2, 96, 144, 3), np.uint8)
    tracker.init(large[0], TARGETS[0])  # multiples of 48: nothing to pad
    tracker.update(large[1])
    jitted: list[Any] = [step_module._init_track, track_step]
    before = [function._cache_size() for function in jitted]
    for height, width in ((96, 144), (49, 97), (80, 100)):
        padding.init(large[0, :height, :width], TARGETS[0])
        padding.update(large[1, :height, :width])
    assert [function._cache_size() for function in jitted] == before
    padding.init(large[0, :, :96], TARGETS[0])  # the next bucket
    assert jitted[0]._cache_size() == before[0] + 1


@pytest.mark.parametrize("pad_to", [0, -64, 32.0])
def test_bad_padding_is_refused(tmp_path, variables, pad_to):
    path = tmp_path / "tiny.safetensors"
    save_weights(path, variables, model=MODEL, tracker_config=CONFIG, card={})
    message = f"pad_to is {pad_to}, expected a whole number above 0"
    with pytest.raises(InputError, match=message):
        api.Tracker(MODEL, variables, CONFIG, pad_to=pad_to)
    with pytest.raises(InputError, match=message):
        api.load(path, pad_to=pad_to)


def test_protocol_of_got10k(tracker, frames):
    image = pytest.importorskip("PIL.Image")
    protocol: OnePassTracker = tracker
    assert (tracker.name, tracker.is_deterministic) == ("siamrpn", True)
    protocol.init(image.fromarray(frames[0]), TARGETS[0])
    from_image = protocol.update(image.fromarray(frames[1]))
    tracker.init(frames[0], TARGETS[0].tolist())
    assert tracker.update(frames[1]).tolist() == from_image.tolist()
    tracker.update(image.fromarray(frames[1][..., 0]))  # grey


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([1, 2, 3], r"shape \(3,\)"),
        (np.zeros((0, 4)), r"shape \(0, 4\)"),
        ([1, 2, np.nan, 4], "nan.*finite"),
        ([1, 2, np.inf, 4], "inf.*finite"),
        ([1, 2, 0, 4], "above 0"),
        ([1, 2, 3, -4], "above 0"),
        ([0.1, 0.5, 0.2, 1], "looks like fractions of the frame, expected pixels"),
        ([100, 2, 3, 4], "outside the frame of 100x80"),
        ([-3, 2, 3, 4], "outside the frame of 100x80"),
        ([[1, 2, 3, 4], [1, 80, 3, 4]], r"\[1.0, 80.0, 3.0, 4.0\]: outside"),
        ("box", "expected four numbers"),
        (None, "boxes of shape|four numbers"),
        ([[1, 2, 3, 4], [1, 2]], "four numbers"),
    ],
)
def test_bad_boxes_are_named(tracker, frames, box, message):
    with pytest.raises(boxes.BoxError, match=message):
        tracker.init(frames[0], box)


def test_boxes_may_stick_out(frames):
    found = boxes.check_boxes([-5, -5, 10, 10], frames[0])
    assert found.tolist() == [-5, -5, 10, 10]


@pytest.mark.parametrize(
    "frame", [np.zeros((8, 8, 3)), np.zeros((8, 8, 2), np.uint8), None]
)
def test_bad_frames_are_refused(tracker, frames, frame):
    with pytest.raises(ImageError):
        tracker.init(frame, TARGETS[0])
    tracker.init(frames[0], TARGETS[0])
    with pytest.raises(ImageError):
        tracker.update(frame)


def test_update_before_init(variables, frames):
    with pytest.raises(RuntimeError, match="update before init"):
        api.Tracker(MODEL, variables, CONFIG).update(frames[0])


def test_track_is_lazy_and_tells_what_it_saw(tracker, frames):
    endless = itertools.cycle(frames)
    results = list(itertools.islice(api.track(endless, TARGETS, tracker=tracker), 3))
    assert [result.index for result in results] == [0, 1, 2]
    assert results[0].boxes_ltwh.tolist() == TARGETS.tolist()
    for unknown in (results[0].scores, results[0].confidence):
        assert unknown.dtype == np.float64 and np.isnan(unknown).all()
    assert results[0].lost.tolist() == [False, False]
    tracker.init(frames[0], TARGETS)
    for result, frame in zip(results[1:], frames[1:], strict=False):
        assert result.boxes_ltwh == pytest.approx(tracker.update(frame))
        assert result.scores == pytest.approx(tracker.score)
        assert result.confidence == pytest.approx(tracker.confidence)
        assert result.lost.tolist() == tracker.lost.tolist()
        assert result.object_ids == (0, 1)
        assert result.speed_ms > 0
        assert (result.frame == frame).all()
        assert (result.plot() != frame).any()


def test_track_with_one_box(tracker, frames):
    results = list(api.track(frames, TARGETS[0], tracker=tracker))
    assert len(results) == len(frames)
    assert {result.boxes_ltwh.shape for result in results} == {(1, 4)}
    for name in ("scores", "confidence", "lost"):
        assert {getattr(result, name).shape for result in results} == {(1,)}


def test_results_formats():
    result = make_result()
    assert result.boxes_corners.tolist() == [[1, 2, 4, 6]]
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.index = 1  # type: ignore[misc]


def make_result(*, confidence: float = 0.9, lost: bool = False) -> api.Results:
    return api.Results(
        index=0,
        frame=np.zeros((9, 9, 3), np.uint8),
        boxes_ltwh=np.array([[1.0, 2, 3, 4]]),
        scores=np.ones(1),
        confidence=np.array([confidence]),
        lost=np.array([lost]),
        object_ids=(7,),
        speed_ms=1.0,
    )


def test_what_is_drawn_tells_of_loss(monkeypatch):
    calls = []

    def draw(frame, boxes, labels, *, dashed):
        calls.append((labels, list(dashed)))
        return frame

    monkeypatch.setattr(api, "draw_boxes", draw)
    for result in (
        make_result(confidence=np.nan),
        make_result(),
        make_result(confidence=0.04, lost=True),
    ):
        result.plot()
    expected = [(["7"], [False]), (["7: 0.90"], [False]), (["7: lost"], [True])]
    assert calls == expected


def test_load_from_a_file(tmp_path, tracker, variables, frames):
    path = tmp_path / "tiny.safetensors"
    save_weights(path, variables, model=MODEL, tracker_config=CONFIG, card={})
    tracker.init(frames[0], TARGETS[0])
    expected = tracker.update(frames[1])
    for loaded in (api.load(path), api.load(path, pad_to=32)):
        loaded.init(frames[0], TARGETS[0])
        assert loaded.update(frames[1]) == pytest.approx(expected, abs=1e-3)
    with pytest.raises(FileNotFoundError, match="nothing"):
        api.load("nothing")


def test_a_centre_region_that_does_not_fit_is_refused_before_any_frame():
    with pytest.raises(InputError, match="center_size is 6 on a map of 13x13"):
        api.load("small", center_size=6)


def test_constants_that_change_nothing_are_told(caplog):
    api.load("base", lost_search=2, lost_search_step=0.1, online_above=0.2)
    assert not caplog.messages
    api.load("base", lost_search_step=0.1, memory_rate=0.2, memory_above=0.7, scales=5)
    assert caplog.messages == [
        "base: lost_search_step 0.1 changes nothing: lost_search is 1",
        "base: memory_above 0.7 changes nothing: second_template and distractors are "
        "None",
        "base: scales 5 changes nothing: a hybrid head finds boxes",
    ]
    caplog.clear()
    api.load("base", online_frames=None, memory_rate=0.2)
    (told,) = caplog.messages
    assert told.startswith("base: memory_rate 0.2 changes nothing: online_frames, ")
    siamfc = HeadConfig("cross_correlation")
    assert find_idle(siamfc, CONFIG)["voting_iou"].endswith("head finds no boxes")


@pytest.mark.parametrize("boxes", [TARGETS[0], TARGETS], ids=["one", "many"])
def test_frames_may_change_their_size(variables, boxes):
    """What lies outside a smaller frame is outside, whatever came before."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 90, 120, 3), np.uint8)
    smaller, found = frames[1, :64, :80], []
    for pad_to in (1, 96):
        tracker = api.Tracker(MODEL, variables, CONFIG, pad_to=pad_to)
        tracker.init(frames[0], boxes)
        found.append(tracker.update(smaller))
        again = tracker.update(frames[1])
        assert again.shape == boxes.shape
    # Were the larger frame's rest seen instead, padding would not give the same.
    np.testing.assert_allclose(*found, atol=1e-2)


def test_a_tracker_goes_to_another_process_and_on(tracker, frames):
    """Before it is started, and in the midst of a film."""
    for target in (TARGETS[0], TARGETS):
        other = pickle.loads(pickle.dumps(tracker))
        tracker.init(frames[0], target)
        other.init(frames[0], target)
        again = pickle.loads(pickle.dumps(other))
        for frame in frames[1:]:
            expected = tracker.update(frame)
            np.testing.assert_array_equal(again.update(frame), expected)
            np.testing.assert_array_equal(again.confidence, tracker.confidence)


def test_a_copy_follows_another_target_with_the_same_weights(tracker, frames):
    other = copy.copy(tracker)
    shared = zip(*map(jax.tree.leaves, (tracker.weights, other.weights)), strict=True)
    assert all(a is b for a, b in shared)
    for one, target in zip((tracker, other), TARGETS[:2], strict=True):
        one.init(frames[0], target)
    found = tracker.update(frames[1]), other.update(frames[1])
    tracker.init(frames[0], TARGETS[:2])
    np.testing.assert_allclose(tracker.update(frames[1]), found, atol=1e-3)


def test_numbers_that_are_none_end_the_tracking(variables, frames):
    broken = jax.tree.map(lambda x: x * np.float32(np.nan), variables)
    tracker = api.Tracker(MODEL, broken, CONFIG)
    tracker.init(frames[0], TARGETS[0])
    with pytest.raises(InputError, match="is not a number, and tracking ends here"):
        tracker.update(frames[1])
    with pytest.raises(RuntimeError, match="update before init"):
        tracker.update(frames[1])


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([1, 2, 1e19, 4], "expected sides of 0.001 to 1e"),
        ([1, 2, 1e-22, 4], "expected sides of 0.001 to 1e"),
        ([1, 2, np.inf, 4], "expected finite x,y,w,h"),
        (["1", "2", "3", "4"], "expected four numbers"),
        ([True, True, True, True], "expected four numbers"),
        ([True, 1, 2, 3], "expected four numbers"),
        ((1.0, 1.0, np.True_, 3.0), "expected four numbers"),
        (None, "expected four numbers"),
    ],
)
def test_boxes_are_checked_by_all_who_start_from_them(
    tracker, variables, frames, box, message
):
    slots = empty_slots(2, model=MODEL)
    starts = [
        lambda: tracker.init(frames[0], box),
        lambda: init_track(variables, frames[0], box, model=MODEL),
        lambda: add_target(variables, slots, 0, frames[0], box, model=MODEL),
        lambda: api.track(frames, box, tracker=tracker),
    ]
    for start in starts:
        with pytest.raises(boxes.BoxError, match=message):
            start()


@pytest.mark.parametrize(
    "change",
    [lambda x: x / np.float32(255), lambda x: x[..., :2], lambda x: x.astype(int)],
    ids=["float", "two channels", "int"],
)
def test_frames_are_checked_by_all_who_take_them(tracker, variables, frames, change):
    frame = change(frames[0])
    box = boxes.ltwh_to_cxcywh(TARGETS[0]).astype(np.float32)
    weights: Any = {"model": MODEL}
    template, state = init_track(variables, frames[0], box, **weights)
    slots, clip = empty_slots(2, model=MODEL), frame[None]
    tracker.init(frames[0], TARGETS[0])
    calls = [
        lambda: tracker.init(frame, TARGETS[0]),
        lambda: tracker.update(frame),
        lambda: init_track(variables, frame, box, **weights),
        lambda: track_step(variables, template, state, frame, **weights),
        lambda: track_clip(variables, template, state, clip, **weights),
        lambda: track_many(variables, slots, clip, **weights),
        lambda: api.track([frame], TARGETS[0], tracker=tracker),
    ]
    for call in calls:
        with pytest.raises(InputError, match="expected RGB uint8"):
            call()


def test_pictures_of_other_colours_are_refused(tracker):
    image = pytest.importorskip("PIL.Image")
    grey = image.new("L", (100, 80))
    tracker.init(grey, TARGETS[0])
    for mode in ("CMYK", "P", "YCbCr", "1"):
        with pytest.raises(ImageError, match=f"image of mode {mode}, expected RGB"):
            tracker.init(grey.convert(mode), TARGETS[0])


def test_errors_come_at_the_call(tracker, tmp_path):
    with pytest.raises(FileNotFoundError):
        api.track(tmp_path / "none.mp4", TARGETS[0], tracker=tracker)
    with pytest.raises(InputError, match="frames: no frames"):
        api.track([], TARGETS[0], tracker=tracker)
