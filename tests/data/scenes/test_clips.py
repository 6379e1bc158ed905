import numpy as np
import pytest

from data_folders import write_everything, write_sequence, write_stills
from siamrpn_jax.data.read import pool
from siamrpn_jax.data.read.sequences import find_sequences, fingerprint, read_sequence
from siamrpn_jax.data.scenes import clips


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_everything(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def pools(folder):
    return pool.open_pools(
        [folder], validation_fraction=0.5, bytes_limit=0, decoded_limit=2**24
    )


def test_equal_seeds_give_equal_clips(pools):
    def make(seed, count):
        return list(clips.composite_clips(pools[1], count, length=4, seed=seed))

    first, again, other = make(3, 2), make(3, 1), make(4, 1)
    assert np.array_equal(first[0].frames, again[0].frames)
    assert np.array_equal(first[0].boxes, again[0].boxes)
    assert not np.array_equal(first[0].frames, other[0].frames)
    assert not np.array_equal(first[0].frames, first[1].frames)
    assert first[0].frames.shape == (4, 240, 320, 3)
    assert first[0].boxes.shape == (4, 4)
    generated = [list(clips.generated_clips(2, length=3, seed=s)) for s in (0, 0, 1)]
    assert np.array_equal(generated[0][1].frames, generated[1][1].frames)
    assert not np.array_equal(generated[0][1].frames, generated[2][1].frames)


def test_held_out_sequences_are_those_that_training_does_not_see(folder, pools):
    training, held_out = pools
    found = clips.pooled_sequences([folder], held_out)
    whole = [read_sequence(path) for path in find_sequences(folder)]
    assert 0 < len(found) < len(whole)
    seen = set(training.store.paths)
    assert not any(seen & set(one.frames) for one in found)
    others = [one for one in whole if one.name not in {f.name for f in found}]
    assert all(set(one.frames) <= seen for one in others)


def test_sequences_of_a_pool_come_from_all_origins_in_turn(tmp_path):
    for name in ("a_1", "a_2", "a_3", "b_1", "c_1", "c_2"):
        write_sequence(tmp_path / name, 0, length=2)
    training, _ = pool.open_pools(
        [str(tmp_path)], validation_fraction=0.0, bytes_limit=0, decoded_limit=0
    )
    names = [one.name for one in clips.pooled_sequences([tmp_path], training)]
    assert names == ["a_1", "b_1", "c_1", "a_2", "c_2", "a_3"]


def test_composites_show_held_out_images_alone(pools):
    training, held_out = pools
    assert not set(training.store.paths) & set(held_out.store.paths)
    drawn = []

    class Recorder:
        def __getitem__(self, index):
            drawn.append(held_out.store.paths[index])
            return held_out.store[index]

    recorded = pool.Pool(**{**vars(held_out), "store": Recorder()})
    list(clips.composite_clips(recorded, 3, length=2, seed=0))
    assert drawn and not set(drawn) & set(training.store.paths)


def test_real_clips_begin_with_the_target(tmp_path):
    write_sequence(tmp_path / "a", 0, length=6)
    path = tmp_path / "a" / "groundtruth.txt"
    rows = path.read_text().splitlines()
    path.write_text("\n".join(["nan,nan,nan,nan", *rows[1:3], "0,0,0,0", *rows[4:]]))
    write_sequence(tmp_path / "b", 1, length=3)
    (tmp_path / "b" / "groundtruth.txt").write_text(
        "1,1,9,9\n" + "nan,nan,nan,nan\n" * 2
    )
    sequences = clips.read_sequences([tmp_path])
    (clip,) = clips.real_clips(sequences, length=4)
    assert clip.name == "a" and clip.source == "real" and len(clip.frames) == 4
    assert np.isnan(clip.boxes[:, 0]).tolist() == [False, False, True, False]
    assert clip.fingerprint == fingerprint(sequences[0].boxes)


def test_folders_of_stills_have_no_sequences(tmp_path):
    write_stills(tmp_path, 2)
    assert clips.read_sequences([tmp_path]) == []


def test_a_cut_takes_the_target_away():
    first, other = clips.generated_clips(2, length=4, seed=0)
    other = clips.replace(other, frames=other.frames[:, :100, :140])
    cut = clips.with_loss(first, other, length=2)
    assert cut.frames.shape == (6, 240, 320, 3)
    assert np.array_equal(cut.frames[:4], first.frames)
    assert np.isnan(cut.boxes).all(axis=1).tolist() == [False] * 4 + [True] * 2


def test_a_fingerprint_knows_boxes_not_names():
    boxes = np.array([[1.0, 2, 3, 4], [np.nan] * 4, [5, 6, 7, 8]])
    mark = fingerprint(boxes)
    assert mark == fingerprint(boxes + 0.001) and len(mark) == 16
    assert mark != fingerprint(boxes[:2])
    assert mark != fingerprint(boxes + 0.02)
    assert mark != fingerprint(np.nan_to_num(boxes))
