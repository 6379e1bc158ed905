from typing import Any

import numpy as np
import pytest

from data_folders import write_everything, write_image, write_sequence
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.crops.windows import AugmentConfig, small_augment
from siamrpn_jax.data.pairs.composites import PoolMaterial, make_composite
from siamrpn_jax.data.read.pool import Pool, open_pools
from siamrpn_jax.data.scenes.cutouts import ObjectCutout, draw_cutout, paste


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Pool:
    return open_pools(
        (write_everything(tmp_path_factory.mktemp("data")),),
        validation_fraction=0.0,
        bytes_limit=2**24,
        decoded_limit=2**24,
    )[0]


def bounds_of(mask: np.ndarray) -> list[int]:
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_box_of_a_pasted_object_is_tight():
    rng = np.random.default_rng(0)
    growth = []
    for _ in range(60):
        height, width = rng.integers(20, 300, 2)
        angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        circle = (np.stack([np.cos(angle), np.sin(angle)], 1) + 1) / 2 * [width, height]
        cutout = ObjectCutout(np.full((height, width, 3), 255, np.uint8), (circle,), 0)
        canvas = np.zeros((200, 200, 3), np.uint8)
        center, size = rng.uniform(30, 170, 2), rng.uniform(30, 90, 2)
        box = paste(canvas, cutout, center, size, rng)
        seen = bounds_of(canvas[..., 0] > 127)
        low, high = box[:2] - box[2:] / 2, box[:2] + box[2:] / 2
        expected = np.clip([*low, *high], 0, 200)
        growth.append((seen - expected) * [-1, -1, 1, 1])
    assert np.abs(growth).max() < 1.5
    assert abs(np.mean(growth)) < 0.4


def test_pixels_of_a_pasted_object_are_where_its_outline_is():
    """A bright dot in the middle of the cut-out lands in the middle of its box."""
    pixels = np.zeros((41, 41, 3), np.uint8)
    pixels[18:23, 18:23] = 255
    square = np.array([[0.0, 0], [41, 0], [41, 41], [0, 41]])
    for seed in range(20):
        canvas = np.zeros((120, 120, 3), np.uint8)
        center = np.random.default_rng(seed).uniform(40, 80, 2)
        box = paste(
            canvas,
            ObjectCutout(pixels, (square,), 0),
            center,
            np.array([41.0, 41]),
            np.random.default_rng(seed),
            jitter=0.0,
        )
        weights = canvas[..., 0].astype(float)
        at = np.arange(120) + 0.5
        seen = np.array([weights.sum(0) @ at, weights.sum(1) @ at]) / weights.sum()
        np.testing.assert_allclose(seen, center, atol=0.1)
        np.testing.assert_allclose(box[:2], center, atol=0.01)


def test_the_target_is_turned_and_bent_as_the_config_says(pool):
    def box(seed: int, **augment: Any) -> np.ndarray:
        return make_composite(
            PoolMaterial(pool),
            np.random.default_rng(seed),
            exemplar_size=60,
            instance_size=120,
            augment=AugmentConfig(**augment),
        ).box

    still = np.array(
        [box(i, paste_rotation=0.0, paste_perspective=0.0) for i in range(20)]
    )
    np.testing.assert_allclose(still[:, :2], 60, atol=4)  # outlines are not symmetric
    for change in ({"paste_rotation": 1.0}, {"paste_perspective": 0.2}):
        moved = np.array(
            [
                box(i, **{"paste_rotation": 0.0, "paste_perspective": 0.0} | change)
                for i in range(20)
            ]
        )
        assert np.abs(moved[:, 2:] / still[:, 2:] - 1).mean() > 0.05


def test_paste_outside_changes_nothing():
    canvas = np.zeros((50, 50, 3), np.uint8)
    cutout = ObjectCutout(
        np.full((20, 20, 3), 255, np.uint8), (np.eye(3)[:, :2] * 20,), 0
    )
    center = np.array([300.0, 300])
    box = paste(canvas, cutout, center, np.full(2, 20.0), np.random.default_rng(0))
    assert not canvas.any()
    assert box[:2].min() > 280


def test_cutouts_are_large_enough_and_outlined(pool):
    rng = np.random.default_rng(0)
    origins = set()
    for _ in range(200):
        cutout = draw_cutout(pool, rng, near=int(pool.backgrounds[-1]))
        height, width = cutout.pixels.shape[:2]
        assert min(height, width) >= 6
        points = np.concatenate(cutout.outlines)
        assert points.min() >= -1.01 and (points <= [width + 1.01, height + 1.01]).all()
        assert (np.ptp(points, axis=0) >= 0.5 * np.array([width, height])).all()
        origins.add(pool.store.paths[cutout.image].parent.name)
    assert origins == {"img", "stills", "small"}


def test_composites_have_the_nominal_size(pool):
    """Without augmentation the target's context square is the exemplar's side."""
    rng = np.random.default_rng(1)
    sides = []
    for _ in range(60):
        z, x, box, image, shown = make_composite(
            PoolMaterial(pool),
            rng,
            exemplar_size=60,
            instance_size=120,
            augment=AugmentConfig(),
        )
        assert z.shape == (60, 60, 3) and x.shape == (120, 120, 3)
        assert np.abs(box[:2] - 60).max() < 8
        assert 0 <= image < len(pool.store) and image in shown
        w, h = box[2:]
        sides.append(np.sqrt((w + (w + h) / 2) * (h + (w + h) / 2)))
    assert np.median(sides) == pytest.approx(60, rel=0.12)


def test_composites_vary_in_place_and_scale(pool):
    rng = np.random.default_rng(2)
    boxes = np.array(
        [
            make_composite(
                PoolMaterial(pool),
                rng,
                exemplar_size=60,
                instance_size=120,
                augment=small_augment(),
            )[2]
            for _ in range(80)
        ]
    )
    assert np.isfinite(boxes).all() and (boxes[:, 2:] > 4).all()
    assert (boxes[:, :2] > 20).all() and (boxes[:, :2] < 100).all()
    assert np.std(boxes[:, :2], axis=0).min() > 12


def test_tiny_objects_alone_are_refused(tmp_path):
    write_sequence(tmp_path / "s", 0, length=2)
    for path in (tmp_path / "s" / "img").iterdir():
        write_image(path, np.zeros((1, 40, 3), np.uint8))
    (tmp_path / "s" / "groundtruth.txt").write_text("1,-2,5,5\n1,-2,5,5\n")
    pool, _ = open_pools(
        [str(tmp_path)], validation_fraction=0.0, bytes_limit=0, decoded_limit=0
    )
    with pytest.raises(InputError, match="smaller than 6x6"):
        draw_cutout(pool, np.random.default_rng(0))
