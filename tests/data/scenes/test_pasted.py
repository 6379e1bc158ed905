import numpy as np
import pytest

from data_folders import write_everything
from siamrpn_jax.data.read import pool
from siamrpn_jax.data.scenes.pasted import PastedScene


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    folder = write_everything(tmp_path_factory.mktemp("pasted"))
    return pool.open_pools(
        [folder], validation_fraction=0.5, bytes_limit=0, decoded_limit=2**24
    )[1]


def make_scene(pool, seed):
    rng = np.random.default_rng(seed)
    return PastedScene(pool, rng, length=20)


@pytest.mark.parametrize("seed", range(6))
def test_the_box_is_that_of_the_painted_pixels(held_out, seed):
    """Painted white and black over the same scene, they differ on the target alone."""
    pictures = []
    for level in (0, 255):
        scene = make_scene(held_out, seed)
        scene.above.clear()
        scene.shutter = scene.noise = 0.0
        cutout = scene.target.cutout
        pixels = np.full_like(cutout.pixels, level)
        scene.target.cutout = cutout._replace(pixels=pixels)
        image, box = scene.render(7)
        pictures.append(image.astype(int))
    mask = np.abs(pictures[1] - pictures[0]).max(axis=2) > 60
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    corners = np.clip([*box[:2], *(box[:2] + box[2:])], 0, [320, 240, 320, 240])
    np.testing.assert_allclose(seen, corners, atol=2.0)


def test_nothing_hides_the_target_where_it_is_learned(held_out):
    for seed in range(40):
        scene = make_scene(held_out, seed)
        center = scene.target.center(0.0)
        for other in scene.above:
            apart = np.abs(other.center(0.0) - center).max()
            assert apart > scene.target.rest_side + other.rest_side


def test_blur_keeps_the_middle_of_the_exposure(held_out):
    for seed in range(20):
        scene = make_scene(held_out, seed)
        times = scene._exposure(8.0)
        assert np.mean(times) == pytest.approx(8.0)
        assert len(times) == 1 or scene.shutter > 0
