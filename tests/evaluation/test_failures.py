import dataclasses

import numpy as np
import pytest

from siamrpn_jax.data.scenes.generated import Scene, make_sequence
from siamrpn_jax.evaluation import failures
from siamrpn_jax.evaluation.failures import SceneFailure, TrackedScene
from siamrpn_jax.evaluation.trackers import StaticTracker

T = 24
BOX = np.array([10.0, 12, 30, 24])


def clip_of(*parts: tuple[int, str]) -> TrackedScene:
    """Frames in which the target is followed, lost or away, so many of each."""
    states = np.repeat([state for _, state in parts], [count for count, _ in parts])
    truth = np.tile(BOX, (len(states), 1))
    found = truth + np.where(states == "lost", 100.0, 1.0)[:, None] * [1, 0, 0, 0]
    truth[states == "away"] = np.nan
    frames = np.full((len(states), 48, 64, 3), 120, np.uint8)
    confidence = np.linspace(0, 1, len(states))
    confidence[0] = np.nan
    return TrackedScene(frames, truth, found, confidence)


@pytest.mark.parametrize(
    ("parts", "followed", "lost", "left"),
    [
        ([(24, "good")], True, False, False),
        ([(10, "good"), (14, "lost")], False, True, False),
        ([(10, "good"), (10, "lost"), (4, "good")], False, False, False),
        ([(8, "good"), (6, "away"), (10, "lost")], False, True, True),
        ([(7, "good"), (7, "away"), (10, "lost")], False, True, False),
        ([(8, "good"), (1, "lost"), (5, "away"), (10, "lost")], False, True, False),
        ([(8, "good"), (6, "away"), (10, "good")], False, False, True),
        ([(8, "good"), (9, "away"), (7, "lost")], False, False, True),
    ],
)
def test_what_a_clip_shows(parts, followed, lost, left):
    clip = clip_of(*parts)
    assert (clip.followed, clip.lost, clip.left) == (followed, lost, left)


def test_frames_shown_begin_before_the_loss_and_end_at_the_end():
    shown = SceneFailure("fast", 0, clip_of((10, "good"), (14, "lost"))).shown
    assert shown.tolist() == [5, 9, 12, 16, 19, 23]
    late = SceneFailure("fast", 0, clip_of((21, "good"), (3, "lost"))).shown
    assert late.tolist() == [16, 17, 19, 20, 22, 23]
    early = SceneFailure("fast", 0, clip_of((1, "good"), (5, "lost"))).shown
    assert early.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_scene_is_tracked_with_its_truth():
    frames, truth = make_sequence(5, length=T)
    tracker = StaticTracker()
    clip = failures.track_scene(tracker, Scene(5), length=T)
    assert np.array_equal(clip.frames, frames)
    assert np.array_equal(clip.truth, truth)
    assert (clip.found == truth[0]).all() and np.isnan(clip.confidence).all()
    tracker.score, tracker.confidence = 0.9, 0.2  # type: ignore[attr-defined]
    again = failures.track_scene(tracker, Scene(5), length=3)
    assert again.confidence[1:].tolist() == [0.2, 0.2] and np.isnan(again.confidence[0])


def test_a_target_is_away_where_its_centre_is():
    scenes = (Scene(seed).harder("leave", length=T) for seed in range(20))
    scene = next(one for one in scenes if one.render(T - 1)[1][0] > 320)
    clip = failures.track_scene(StaticTracker(), scene, length=T)
    middle = np.array([box[:2] + box[2:] / 2 for _, box in map(scene.render, range(T))])
    away = np.any((middle < 0) | (middle > [320, 240]), axis=1)
    assert away[-1] and not away[0]
    assert np.isnan(clip.truth).all(axis=1).tolist() == away.tolist()
    assert np.isnan(clip.overlaps).tolist() == away.tolist()


@dataclasses.dataclass(frozen=True)
class NamedScene:
    """Stands for a scene; `track_scene` is told what happens in it."""

    seed: int
    height: int
    width: int
    how: str = ""

    def harder(self, how, *, length):
        assert length == T
        return dataclasses.replace(self, how=how)

    def render(self, time):
        small = self.seed == 1
        return None, np.array([0, 0, 50, failures.SMALLEST - small])


def test_one_failure_of_each_kind_of_scenes_that_are_followed(monkeypatch):
    good, lost = clip_of((T, "good")), clip_of((10, "good"), (14, "lost"))
    left = clip_of((9, "good"), (5, "away"), (10, "lost"))
    tracked = []

    def track_scene(tracker, scene, *, length):
        assert tracker == "tracker" and (scene.width, scene.height) == (320, 240)
        tracked.append((scene.seed, scene.how))
        if not scene.how:
            return lost if scene.seed == 2 else good
        return {
            (3, "turn"): lost,
            (3, "copy"): lost,  # a scene shows one failure
            (4, "leave"): lost,  # lost before it leaves
            (5, "copy"): lost,
            (6, "leave"): left,
            (6, "fast"): lost,
        }.get((scene.seed, scene.how), good)

    monkeypatch.setattr(failures, "Scene", NamedScene)
    monkeypatch.setattr(failures, "track_scene", track_scene)
    found = failures.find_scene_failures("tracker", seeds=range(9), length=T)  # type: ignore
    assert [(one.how, one.seed) for one in found] == [
        ("turn", 3),
        ("copy", 5),
        ("leave", 6),
    ]
    assert not {(1, ""), (2, "turn"), (3, "copy"), (4, "turn")} & set(tracked)
    assert {(2, ""), (8, "fast")} <= set(tracked)


def test_strips_show_boxes_and_confidence():
    found = [
        SceneFailure("turn", 3, clip_of((10, "good"), (14, "lost"))),
        SceneFailure("leave", 7, clip_of((9, "good"), (5, "away"), (10, "lost"))),
    ]
    picture = failures.draw_failures(found)
    strip = failures.LINE + failures.TILE * 48 // 64
    width = failures.SHOWN * failures.TILE
    assert picture.shape == (failures.LINE + 2 * strip, width, 3)
    assert picture.dtype == np.uint8

    def count(color, index):
        tiles = picture[failures.LINE + index * strip :][:strip]
        same = (tiles == color).all(axis=2)
        return [int(tile.sum()) for tile in np.split(same, failures.SHOWN, axis=1)]

    assert (
        min(count(failures.GREEN, 0)) > 50 and min(count(failures.ORANGE, 0)[:2]) > 50
    )
    shown = np.isnan(found[1].clip.truth[found[1].shown, 0])
    assert shown.any()
    assert [n == 0 for n in count(failures.GREEN, 1)] == shown.tolist()
