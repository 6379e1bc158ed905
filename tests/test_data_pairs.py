import ast
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import write_everything, write_sequence, write_stills

import siamrpn_jax.data
from siamrpn_jax.boxes import ltwh_to_cxcywh
from siamrpn_jax.data.augment import AugmentConfig, small_augment
from siamrpn_jax.data.images import ImageError
from siamrpn_jax.data.pairs import DataConfig, PairDataset
from siamrpn_jax.data.pool import DataError, Weighted, open_pool
from siamrpn_jax.data.store import ImageStore

SHARED = Path(__file__).parents[2] / "shared"
KINDS = ("video", "stills", "composites", "synthetic")
LIMITS = {"bytes_limit": 2**24, "decoded_limit": 2**24}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    return write_everything(tmp_path_factory.mktemp("data"))


def dataset(root, *, augment=None, validation=False, **fields) -> PairDataset:
    folders = () if root is None else (str(root),)
    fields = {"validation_fraction": 0.0, **fields}
    return PairDataset(
        DataConfig(folders=folders, **fields),
        exemplar_size=48,
        instance_size=96,
        augment=augment or small_augment(),
        validation=validation,
    )


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


def test_without_folders_everything_is_generated():
    pairs = dataset(None)
    assert "100% synthetic" in pairs.describe()
    assert pairs[0].x.std() > 0


def test_validation_is_disjoint_and_depends_on_names(tmp_path):
    write_stills(tmp_path / "a", 40)
    for i in range(12):
        write_sequence(tmp_path / f"clip_{i}", i, length=2)
    parts = [
        open_pool([str(tmp_path)], validation=v, validation_fraction=0.3, **LIMITS)
        for v in (False, True)
    ]
    train, held_out = (set(part.store.paths) for part in parts)
    assert not train & held_out
    assert len(train | held_out) == 40 + 24
    assert 8 <= len(held_out) <= 32
    assert all(len(part.tracks) and len(part.stills) for part in parts)
    pairs = dataset(tmp_path, validation=True, validation_fraction=0.3)
    assert set(pairs.pool.store.paths) == held_out
    assert (dataset(None)[0].x != dataset(None, validation=True)[0].x).any()


def test_frames_of_a_pair_are_close(tmp_path):
    write_sequence(tmp_path / "s", 0, length=8)
    pairs = dataset(tmp_path, max_interval=2, **only("video"))
    seen = []
    original = pairs._views
    pairs._views = lambda rng, images, targets, **k: (
        seen.append((targets[0].image, targets[1].image)),
        original(rng, images, targets, **k),
    )[1]
    for i in range(100):
        pairs[i]
    distance = np.abs(np.diff(np.array(seen), axis=1))
    assert set(distance.ravel()) == {0, 1, 2}


def test_absent_frames_are_left_out(tmp_path):
    write_sequence(tmp_path / "s", 0, length=5)
    path = tmp_path / "s" / "groundtruth.txt"
    lines = path.read_text().splitlines()
    lines[1] = "nan,nan,nan,nan"
    path.write_text("\n".join(lines))
    track = open_pool(
        [str(tmp_path)], validation=False, validation_fraction=0, **LIMITS
    ).tracks[0]
    np.testing.assert_array_equal(track.numbers, [0, 2, 3, 4])
    np.testing.assert_array_equal(track.images, [0, 2, 3, 4])
    assert len(track.boxes) == 4
    assert np.isfinite(ltwh_to_cxcywh(track.boxes)).all()


def test_a_large_group_does_not_drown_the_others(tmp_path):
    for i in range(16):
        write_sequence(tmp_path / f"same_{i}", 0, length=2)
    write_sequence(tmp_path / "lone_a", 1, length=2)
    write_sequence(tmp_path / "lone_b", 2, length=2, meta={"dataset": "third"})
    pool = open_pool([str(tmp_path)], validation=False, validation_fraction=0, **LIMITS)
    share: dict[str, float] = {}
    for track, p in zip(pool.tracks, pool.tracks.probabilities(), strict=True):
        share[track.group] = share.get(track.group, 0) + p
    assert share == pytest.approx({"same": 4 / 6, "lone": 1 / 6, "third": 1 / 6})


def test_sources_of_stills_are_balanced(tmp_path):
    write_stills(tmp_path / "many", 32, source="web")
    write_stills(tmp_path / "few", 1)
    pool = open_pool([str(tmp_path)], validation=False, validation_fraction=0, **LIMITS)
    lone = [t[0].image for t in pool.stills].index(0)  # "few" comes first
    assert pool.stills.probabilities()[lone] == pytest.approx(1 / (1 + 32**0.6))


def test_small_images_are_only_cut_out(root):
    pool = open_pool([root], validation=False, validation_fraction=0, **LIMITS)
    small = {t.image for t in pool.small}
    assert small and all("small" in str(pool.store.paths[i]) for i in small)
    assert small.isdisjoint(pool.backgrounds)
    assert small.isdisjoint(t[0].image for t in pool.stills)


def test_weighted_draws_follow_the_weights():
    items = Weighted("abc", [1.0, 0.0, 3.0])
    rng = np.random.default_rng(0)
    drawn = [items.draw(rng) for _ in range(400)]
    assert "b" not in drawn
    assert 240 < drawn.count("c") < 360


def test_folders_without_data(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        dataset(tmp_path / "none")
    with pytest.raises(DataError, match="holds no training data"):
        dataset(tmp_path)
    write_stills(tmp_path, 2)
    with pytest.raises(DataError, match="no usable pair"):
        dataset(tmp_path, **only("video"))


@pytest.mark.parametrize(
    "fields",
    [
        {"video": -1.0},
        {"stills": float("nan")},
        {"negative_probability": 1.5},
        {"validation_fraction": -0.1},
        {"seed": -1},
        {"max_interval": -1},
    ],
)
def test_settings_out_of_range(fields):
    with pytest.raises(DataError, match="expected"):
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


def test_store_limits_change_nothing_but_memory(root):
    paths = sorted(Path(root).rglob("*.png"))
    limits = [(0, 0), (2**24, 2**24), (2**24, 100_000)]
    stores = [
        ImageStore(paths, bytes_limit=b, decoded_limit=d, sizes={}) for b, d in limits
    ]
    for i in [0, 1, 2, 0, 5, 1]:
        images = [store[i] for store in stores]
        np.testing.assert_array_equal(images[0], images[1])
        np.testing.assert_array_equal(images[0], images[2])
    assert len(stores[0]._decoded) == 0 and len(stores[0]._bytes) == 0
    assert len(stores[1]._decoded) == 4 and len(stores[1]._bytes) == 4
    assert 1 <= len(stores[2]._decoded) < 4
    assert stores[2]._decoded_size <= 100_000
    with pytest.raises(ValueError, match="read-only"):
        stores[1][0][0, 0] = 1


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
    pairs = PairDataset(
        DataConfig(folders=(str(SHARED / "data" / "train"),), synthetic=0.2),
        exemplar_size=92,
        instance_size=188,
        augment=small_augment(),
    )
    assert len(pairs.pool.tracks) > 150 and len(pairs.pool.stills) > 7000
    shares = {}
    chances = pairs.pool.tracks.probabilities()
    for track, p in zip(pairs.pool.tracks, chances, strict=True):
        shares[track.group] = shares.get(track.group, 0) + p
    assert max(shares.values()) < 0.65  # 185 of 198 sequences are of one group
    boxes = np.array([pairs[i].box for i in range(60)])
    assert np.isfinite(boxes).all() and (boxes[:, 2:] > 3).all()
