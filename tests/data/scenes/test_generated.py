from typing import get_args

import cv2
import numpy as np
import pytest

from siamrpn_jax.data.scenes.generated import (
    Difficulty,
    Scene,
    draw_texture,
    make_sequence,
)


def test_shapes_and_determinism():
    frames, boxes = make_sequence(5, length=4, height=100, width=140)
    assert frames.shape == (4, 100, 140, 3) and frames.dtype == np.uint8
    assert boxes.shape == (4, 4) and boxes.dtype == np.float32
    again = make_sequence(5, length=4, height=100, width=140)
    np.testing.assert_array_equal(frames, again[0])
    np.testing.assert_array_equal(boxes, again[1])
    assert not np.array_equal(frames, make_sequence(6, length=4, height=100, width=140))


def test_targets_move_and_stay_inside():
    travelled, extents = [], []
    for seed in range(60):
        scene = Scene(seed)
        outlines = [scene._target.outlines(t)[0] for t in range(0, 300, 7)]
        low = np.array([o.min(axis=0) for o in outlines])
        size = np.array([np.ptp(o, axis=0) for o in outlines])
        center = low + size / 2
        assert (center >= 0).all() and (center <= [320, 240]).all()
        assert (size > 4).all()
        travelled.append(np.ptp(center, axis=0).max())
        extents.append(size[:, 0].max() / size[:, 0].min())
    assert np.median(travelled) > 60  # pixels of 320
    assert np.median(extents) > 1.3


@pytest.mark.parametrize("seed", range(12))
def test_box_is_tight_around_the_visible_target(seed):
    scene = Scene(seed)
    scene._objects = [scene._target]  # nothing may hide it
    frame, (x, y, w, h) = scene.render(30)
    scene._objects = []
    changed = (frame != scene.render(30)[0]).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    expected = np.clip([x, y, x + w, y + h], 0, [320, 240, 320, 240])
    np.testing.assert_allclose(seen, expected, atol=2)


def test_others_come_close_to_the_target():
    covered = 0
    for seed in range(30):
        scene = Scene(seed)
        position = [o is scene._target for o in scene._objects].index(True)
        assert position >= len(scene._objects) - 2
        covered += position == len(scene._objects) - 2
    assert covered > 5


def test_textures_differ():
    rng = np.random.default_rng(0)
    means = [draw_texture(rng, 16, 20).mean(axis=(0, 1)) for _ in range(40)]
    assert np.std(means, axis=0).min() > 20


def test_bad_arguments():
    with pytest.raises(ValueError, match="length=0"):
        make_sequence(0, length=0)
    with pytest.raises(ValueError, match="seed=-1"):
        Scene(-1)
    with pytest.raises(ValueError, match="10x320"):
        Scene(0, height=10)


@pytest.mark.parametrize("how", get_args(Difficulty))
def test_harder_scenes_begin_as_the_scene_does(how):
    scene = Scene(7)
    before = scene.render(20)
    harder = scene.harder(how, length=48)
    frame, box = harder.render(0)
    assert box == pytest.approx(scene.render(0)[1], abs=1e-3)
    assert np.array_equal(frame, scene.render(0)[0]) == (how != "copy")
    assert not np.array_equal(harder.render(20)[0], before[0])
    for one, other in zip(scene.render(20), before, strict=True):
        assert np.array_equal(one, other)  # the scene itself stays


def test_what_is_harder():
    scene, length = Scene(7), 48
    target = scene._target
    turned, left, fast = (
        scene.harder(how, length=length)._target for how in ("turn", "leave", "fast")
    )
    for time in (0, 10, 48):
        angle = (turned.spin - target.spin) * time
        assert angle == pytest.approx(np.pi * time / length)
        assert fast.path(time) == pytest.approx(target.path(6 * time))
        way = target.path(time) - target.path(0)
        begin = target.center + target.path(0)
        assert left.center + left.path(time) == pytest.approx(begin + 3 * way)


def test_a_copy_comes_the_other_way_and_passes_behind():
    scene = Scene(7)
    copied = scene.harder("copy", length=48)
    for time in (0, 24, 48):
        assert np.array_equal(copied.render(time)[1], scene.render(time)[1])
    change = [
        cv2.absdiff(copied.render(t)[0], scene.render(t)[0]).mean() for t in (0, 24, 48)
    ]
    assert change[1] < 0.1 * min(change[0], change[2])
    assert len(copied._objects) == len(scene._objects) + 1


def test_boxes_of_all_objects():
    scene = Scene(3)
    boxes = scene.boxes(7)
    assert boxes.shape == (len(scene._objects), 4) and boxes.dtype == np.float32
    assert boxes[0].tolist() == scene.render(7)[1].tolist()
    assert len(np.unique(boxes, axis=0)) == len(boxes)
