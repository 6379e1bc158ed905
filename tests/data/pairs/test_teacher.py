import pickle

import cv2
import numpy as np
import pytest

from nano_networks import use_fakes
from paths import SHARED_DATA
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.pairs.teacher import Teacher

V3 = SHARED_DATA / "peers/nanotrack_v3"
PLACES = 8.0 * np.arange(-6, 7)


def patches(seed: int, *, exemplar: int = 127, instance: int = 255):
    rng = np.random.default_rng(seed)
    return (
        rng.integers(0, 256, (exemplar, exemplar, 3), np.uint8),
        rng.integers(0, 256, (instance, instance, 3), np.uint8),
    )


@pytest.mark.parametrize("cells", [15, 16])
def test_scores_times_centre_ness_between_the_cells(tmp_path, monkeypatch, cells):
    """By hand: the fake finds its target 32 pixels to the left and 16 below."""
    files = use_fakes(monkeypatch, tmp_path, side=cells)
    teacher = Teacher(files, exemplar_size=127, instance_size=255, places=PLACES)
    scores = teacher.scores(*patches(0))
    assert (scores.shape, scores.dtype) == ((13, 13), np.float32)
    central = np.sqrt(20 / 36 * 24 / 40)  # Distances of the fake's boxes.
    other = central / (1 + np.exp(9))
    assert scores[8, 2] == pytest.approx(central, abs=1e-6)
    assert scores[8, 3] == pytest.approx((central + other) / 2, abs=1e-6)
    assert scores[7, 3] == pytest.approx((central + 3 * other) / 4, abs=1e-6)
    assert scores[8, 4] == pytest.approx(other, abs=1e-6)


def test_in_patches_of_another_size(tmp_path, monkeypatch):
    """What are 16 pixels for the teacher are 8 where exemplars have half the side."""
    files = use_fakes(monkeypatch, tmp_path, side=15)
    teacher = Teacher(
        files, exemplar_size=64, instance_size=130, places=PLACES / 127 * 64 * 2
    )
    scores = teacher.scores(*patches(0, exemplar=64, instance=130))
    assert np.unravel_index(scores.argmax(), scores.shape) == (7, 4)
    again = pickle.loads(pickle.dumps(teacher))
    found = again.scores(*patches(0, exemplar=64, instance=130))
    np.testing.assert_array_equal(found, scores)


def test_patches_that_do_not_fit_are_named(tmp_path, monkeypatch):
    files = use_fakes(monkeypatch, tmp_path, side=15)
    with pytest.raises(InputError, match=r"backbone.* sees 255 pixels .* patch, 188"):
        Teacher(files, exemplar_size=127, instance_size=188, places=PLACES)
    with pytest.raises(InputError, match="reach 144 pixels from its middle"):
        Teacher(files, exemplar_size=127, instance_size=255, places=3 * PLACES)
    with pytest.raises(InputError, match="no such ONNX file of NanoTrack: none"):
        Teacher(["none", "none"], exemplar_size=92, instance_size=188, places=PLACES)


@pytest.mark.skipif(not V3.is_dir(), reason="skipped: no ../shared")
def test_nanotrack_finds_a_target_where_it_is():
    rng = np.random.default_rng(4)
    files = [str(V3 / f"nanotrack_{name}.onnx") for name in ("backbone", "head")]
    teacher = Teacher(files, exemplar_size=92, instance_size=188, places=PLACES)
    small = rng.integers(0, 256, (5, 5, 3), np.uint8)
    target = cv2.resize(small, (46, 46), interpolation=cv2.INTER_CUBIC)
    z, x = np.full((92, 92, 3), 110, np.uint8), np.full((188, 188, 3), 110, np.uint8)
    z[23:69, 23:69] = target
    for dx, dy in ((0, 0), (-24, 16), (32, -32)):
        patch = x.copy()
        left, top = 71 + dx, 71 + dy
        patch[top : top + 46, left : left + 46] = target
        scores = teacher.scores(z, patch)
        row, column = np.unravel_index(scores.argmax(), scores.shape)
        assert scores.max() > 0.5
        assert abs(PLACES[column] - dx) <= 8 and abs(PLACES[row] - dy) <= 8
