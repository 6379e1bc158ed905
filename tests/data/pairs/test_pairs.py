import ast
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import siamrpn_jax.data
from data_folders import write_everything, write_sequence, write_stills
from paths import SHARED
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.crops.windows import AugmentConfig, context_side, small_augment
from siamrpn_jax.data.pairs.loader import open_datasets
from siamrpn_jax.data.pairs.pairs import DataConfig, PairDataset
from siamrpn_jax.data.read.images import ImageError

KINDS = ("video", "stills", "composites", "synthetic")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    return write_everything(tmp_path_factory.mktemp("data"))


def datasets(
    root, *, augment=None, context=0.5, **fields
) -> tuple[PairDataset, PairDataset | None]:
    folders = () if root is None else (str(root),)
    return open_datasets(
        DataConfig(folders=folders, **fields),
        exemplar_size=48,
        instance_size=96,
        augment=augment or small_augment(),
        context=context,
    )


def dataset(root, **options) -> PairDataset:
    return datasets(root, **{"validation_fraction": 0.0, **options})[0]


def only(kind: str) -> dict[str, Any]:
    return {name: float(name == kind) for name in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_depends_on_seed_and_index_alone(root, kind):
    first, second = dataset(root, **only(kind)), dataset(root, **only(kind))
    expected = [first[i] for i in range(12)]
    for i in reversed(range(12)):  # another order, caches in another state
        for a, b in zip(second[i], expected[i], strict=True):
            np.testing.assert_array_equal(a, b)
    other = dataset(root, **only(kind), seed=1)
    assert any((other[i].x != expected[i].x).any() for i in range(12))
    assert any((expected[0].x != e.x).any() for e in expected[1:])


GOLDEN = np.array(
    [
        [69.2, 30.4, 18.4, 12.0, 0.0, 150.1, 75.0],
        [60.4, 28.4, 37.0, 30.8, 0.0, 174.3, 131.5],
        [57.9, 25.8, 34.1, 32.7, 0.0, 146.2, 113.6],
        [34.4, 29.1, 12.9, 21.7, 1.0, 92.8, 82.7],
        [50.9, 50.4, 24.9, 23.3, 1.0, 106.6, 102.7],
        [44.2, 25.5, 28.0, 24.9, 1.0, 80.3, 57.5],
        [70.3, 34.0, 32.8, 35.6, 1.0, 117.5, 123.1],
        [29.6, 26.3, 31.5, 29.2, 0.0, 32.5, 27.4],
    ]
)
"""Box, positive, and mean level of exemplar and search patch of pairs 0, 1, …"""


def test_the_stream_of_a_seed_stays_as_it_is(root):
    """Runs that are resumed with a later version go on with the same pairs."""
    pairs = dataset(root, synthetic=0.2, negative_probability=0.3)
    found = [
        [*p.box, p.positive, p.z.mean(), p.x.mean()]
        for p in map(pairs.__getitem__, range(8))
    ]
    np.testing.assert_allclose(found, GOLDEN, atol=1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_form_of_a_pair(root, kind):
    pairs = dataset(root, **only(kind))
    for i in range(30):
        pair = pairs[i]
        assert pair.z.shape == (48, 48, 3) and pair.z.dtype == np.uint8
        assert pair.x.shape == (96, 96, 3) and pair.x.dtype == np.uint8
        assert pair.box.dtype == np.float32 and np.isfinite(pair.box).all()
        assert (pair.box[2:] > 2).all()
        assert (pair.box[:2] >= 18).all() and (pair.box[:2] <= 78).all()
        assert pair.positive == 1


def test_boxes_of_stills_surround_the_object(tmp_path):
    """The objects are bright and plain, the background is dark."""
    write_stills(tmp_path, 10, side=300)
    geometric = AugmentConfig(search_shift=0.2, search_scale=0.2, flip_probability=0.5)
    pairs = dataset(tmp_path, augment=geometric, **only("stills"))
    for i in range(40):
        pair = pairs[i]
        x0, y0 = np.round(pair.box[:2] - pair.box[2:] / 2).astype(int)
        x1, y1 = np.round(pair.box[:2] + pair.box[2:] / 2).astype(int)
        inside = pair.x[max(y0 + 2, 0) : y1 - 2, max(x0 + 2, 0) : x1 - 2].reshape(-1, 3)
        assert np.ptp(inside, axis=0).max() <= 2
        for outside in (
            pair.x[max(y0, 0) : y1, max(x0 - 3, 0) : max(x0 - 2, 0)],
            pair.x[y1 + 2 : y1 + 3, max(x0, 0) : x1],
        ):
            assert not np.isclose(outside, inside[0], atol=8).all(axis=-1).any()


def test_threads_share_a_dataset(root):
    pairs = dataset(root, decoded_mib=0)
    expected = [pairs[i].x for i in range(40)]
    shared, failures = dataset(root), []

    def work():
        for i in range(40):
            if not np.array_equal(shared[i].x, expected[i]):
                failures.append(i)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_survives_pickling(root):
    pairs = dataset(root, synthetic=0.5)
    expected = pairs[3]
    copy = pickle.loads(pickle.dumps(pairs))
    np.testing.assert_array_equal(copy[3].x, expected.x)


def test_negatives_show_another_target(root):
    pairs = dataset(root, negative_probability=0.5, synthetic=0.3)
    flags = np.array([pairs[i].positive for i in range(80)])
    assert 20 < flags.sum() < 60
    always = dataset(root, negative_probability=1.0, **only("stills"))
    assert all(always[i].positive == 0 for i in range(10))


def test_negatives_of_a_single_target_come_from_generated_scenes(tmp_path):
    write_sequence(tmp_path / "one", 0)
    pairs = dataset(tmp_path, negative_probability=1.0, **only("video"))
    assert pairs[0].positive == 0


def test_negatives_never_show_their_own_target(tmp_path):
    """Composites of any frame of a sequence show what its video pairs show."""
    for i in range(2):
        write_sequence(tmp_path / f"s{i}", i, length=4)
    pairs = dataset(tmp_path, video=0.5, stills=0.0, composites=0.5)
    rng = np.random.default_rng(0)
    scenes = 0
    for i in range(60):
        drawn = pairs._draw(rng, i)
        kind, origin = drawn.origin
        assert kind == "image" and origin in pairs.pool.origins
        other = pairs._draw_other(rng, i, drawn)
        assert drawn.origin not in other.shown
        scenes += other.origin[0] == "scene"
    assert scenes < 30
    single = dataset(tmp_path / "s0", **only("composites"))
    other = single._draw_other(rng, 0, single._draw(rng, 0))
    assert other.origin[0] == "scene"


def test_without_validation_data(tmp_path):
    write_sequence(tmp_path, 0, length=3)
    training, validation = datasets(tmp_path)
    assert validation is None and "1 sequences" in training.describe()
    write_stills(tmp_path / "stills", 5)
    assert datasets(tmp_path, validation_fraction=0.0)[1] is None
    assert datasets(tmp_path)[1] is not None
    assert datasets(tmp_path, **only("video"))[1] is None  # the one sequence is trained


def test_validation_uses_the_held_out_data(root):
    training, validation = datasets(root)
    assert validation is not None and "validation pairs" in validation.describe()
    paths = [set(part.pool.store.paths) for part in (training, validation)]
    assert paths[1] and not paths[0] & paths[1]
    training, validation = datasets(None, validation_fraction=0.0)
    assert validation is not None
    assert (training[0].x != validation[0].x).any()


def test_surroundings_of_a_neighbour(tmp_path):
    """Objects have a colour each: what the patches show can be read off."""
    write_stills(tmp_path, 10, side=300)
    settings = only("stills") | {"neighbour_probability": 1.0}
    pairs = dataset(tmp_path, augment=AugmentConfig(), **settings)
    slipped, absent = 0, 0
    for pair in (pairs[i] for i in range(60)):
        target, middle = pair.z[24, 24].astype(int), pair.x[48, 48].astype(int)
        slipped += np.abs(target - middle).max() > 8
        column, row = np.rint(pair.box[:2]).astype(int)
        if pair.positive:
            assert np.abs(pair.x[row, column] - target).max() <= 8
        else:
            assert not (0 < pair.box[:2]).all() or not (pair.box[:2] < 96).all()
            absent += 1
    assert slipped > 20 and 5 < absent < slipped


@pytest.mark.parametrize("kind", ["video", "stills", "synthetic"])
def test_context_widens_the_crops(root, kind):
    plain = AugmentConfig()
    near, far = (
        dataset(root, augment=plain, context=c, **only(kind)) for c in (0.25, 0.5)
    )
    for i in range(8):
        (_, _, w, h), box = near[i].box, far[i].box
        ratio = context_side(w, h, context=0.5) / context_side(w, h, context=0.25)
        np.testing.assert_allclose(near[i].box[2:], box[2:] * ratio, rtol=1e-3)


def test_context_holds_for_composites(root):
    near, far = (
        dataset(root, augment=AugmentConfig(), context=c, **only("composites"))
        for c in (0.0, 0.5)
    )
    areas = [np.median([np.prod(d[i].box[2:]) for i in range(40)]) for d in (near, far)]
    assert areas[0] == pytest.approx(4 * areas[1], rel=0.25)


def test_without_folders_everything_is_generated():
    pairs = dataset(None)
    assert "100% synthetic" in pairs.describe()
    assert pairs[0].x.std() > 0


def test_frames_of_a_pair_are_close(tmp_path):
    write_sequence(tmp_path / "s", 0, length=8)
    pairs = dataset(tmp_path, max_interval=2, **only("video"))
    seen = []
    original = pairs._requests
    pairs._requests = lambda rng, reads, targets, **k: (
        seen.append((targets[0].image, targets[1].image)),
        original(rng, reads, targets, **k),
    )[1]
    for i in range(100):
        pairs[i]
    distance = np.abs(np.diff(np.array(seen), axis=1))
    assert set(distance.ravel()) == {0, 1, 2}


def test_folders_without_data(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        dataset(tmp_path / "none")
    with pytest.raises(InputError, match="holds no training data"):
        dataset(tmp_path)
    write_stills(tmp_path, 2)
    with pytest.raises(InputError, match="no usable pair"):
        dataset(tmp_path, **only("video"))


@pytest.mark.parametrize(
    "fields",
    [
        {"video": -1.0},
        {"stills": float("nan")},
        {"negative_probability": 1.5},
        {"negative_same_category": -0.1},
        {"folders": ("a", "b"), "weights": (1.0, -1.0)},
        {"validation_fraction": -0.1},
        {"seed": -1},
        {"max_interval": -1},
        {"folders": ("a", "b"), "fraction": (0.5,)},
        {"folders": ("a",), "fraction": (0.0,)},
    ],
)
def test_settings_out_of_range(fields):
    with pytest.raises(InputError, match="expected"):
        DataConfig(**fields)


def test_a_broken_image_is_named(tmp_path):
    write_sequence(tmp_path / "s", 0, length=2)
    for path in (tmp_path / "s" / "img").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ImageError, match=r"img/000\d\.png"):
        dataset(tmp_path, **only("video"))[0]


def test_an_image_of_another_size_than_annotated_is_named(tmp_path):
    write_stills(tmp_path, 3, side=200)
    path = tmp_path / "annotations.json"
    path.write_text(path.read_text().replace('"width": 200', '"width": 300'))
    with pytest.raises(ImageError, match="300x200"):
        dataset(tmp_path, **only("stills"))[0]


def test_the_data_package_does_not_import_jax():
    package = Path(siamrpn_jax.data.__file__).parent
    for path in package.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not any(n.split(".")[0] in ("jax", "flax") for n in names), path


@pytest.mark.skipif(not SHARED.is_dir(), reason="skipped: no ../shared")
def test_real_data_of_every_kind():
    pairs, validation = open_datasets(
        DataConfig(folders=(str(SHARED / "data" / "train"),), synthetic=0.2),
        exemplar_size=92,
        instance_size=188,
        augment=small_augment(),
    )
    assert validation is not None and len(validation.pool.tracks) > 10
    assert len(pairs.pool.tracks) > 150 and len(pairs.pool.stills) > 7000
    shares = {}
    chances = pairs.pool.tracks.probabilities()
    for track, p in zip(pairs.pool.tracks, chances, strict=True):
        shares[track.group] = shares.get(track.group, 0) + p
    assert max(shares.values()) < 0.65  # 185 of 198 sequences are of one group
    boxes = np.array([pairs[i].box for i in range(60)])
    assert np.isfinite(boxes).all() and (boxes[:, 2:] > 3).all()
