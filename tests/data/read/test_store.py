import pickle
from pathlib import Path

import numpy as np
import pytest

from data_folders import write_everything
from siamrpn_jax.data.read.images import ImageError
from siamrpn_jax.data.read.store import ImageStore


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[Path]:
    root = write_everything(tmp_path_factory.mktemp("data"))
    return sorted(Path(root).rglob("*.png"))


def store(paths, *, bytes_limit=2**24, decoded_limit=2**24, sizes=None) -> ImageStore:
    return ImageStore(
        paths, bytes_limit=bytes_limit, decoded_limit=decoded_limit, sizes=sizes or {}
    )


def test_limits_change_nothing_but_memory(paths):
    limits = [(0, 0), (2**24, 2**24), (2**24, 100_000)]
    stores = [store(paths, bytes_limit=b, decoded_limit=d) for b, d in limits]
    for i in [0, 1, 2, 0, 5, 1]:
        images = [s[i] for s in stores]
        np.testing.assert_array_equal(images[0], images[1])
        np.testing.assert_array_equal(images[0], images[2])
    assert len(stores[0]._decoded) == 0 and len(stores[0]._bytes) == 0
    assert len(stores[1]._decoded) == 4 and len(stores[1]._bytes) == 4
    assert 1 <= len(stores[2]._decoded) < 4
    assert stores[2]._decoded_size <= 100_000


def test_images_are_read_only(paths):
    with pytest.raises(ValueError, match="read-only"):
        store(paths)[0][0, 0] = 1


def test_the_least_recently_used_image_is_dropped(paths):
    size = store(paths)[0].nbytes
    small = store(paths, decoded_limit=2 * size)
    for i in (0, 1, 0, 2):
        assert small[i].nbytes == size
    assert list(small._decoded) == [0, 2]


def test_a_copy_in_another_process_starts_with_empty_caches(paths):
    full = store(paths)
    expected = full[0]
    copy = pickle.loads(pickle.dumps(full))
    assert not copy._decoded and not copy._bytes and len(copy) == len(paths)
    np.testing.assert_array_equal(copy[0], expected)


def test_files_that_vanish_or_differ_are_named(paths, tmp_path):
    with pytest.raises(ImageError, match="expected the annotated 7x9"):
        store(paths, sizes={0: (7, 9)})[0]
    path = tmp_path / "gone.png"
    path.write_bytes(paths[0].read_bytes())
    vanishing = store([path])
    path.unlink()
    with pytest.raises(ImageError, match=r"gone\.png: cannot be read"):
        vanishing[0]
