import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_folders import write_everything, write_sequence, write_stills
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.pool import Pool, open_pools
from siamrpn_jax.data.sampling import Weighted
from siamrpn_jax.model.boxes import ltwh_to_cxcywh


def pools(
    *folders, fraction=0.0, hold_out=(), shares=(), weights=()
) -> tuple[Pool, Pool]:
    return open_pools(
        [str(folder) for folder in folders],
        validation_fraction=fraction,
        hold_out=hold_out,
        fractions=shares,
        weights=weights,
        bytes_limit=2**24,
        decoded_limit=2**24,
    )


def pool(*folders) -> Pool:
    return pools(*folders)[0]


# ---------------------------------------------------------------------- held out


def test_the_split_is_disjoint_and_complete(tmp_path):
    write_stills(tmp_path / "a", 40)
    for i in range(12):
        write_sequence(tmp_path / f"clip_{i}", i, length=2)
    training, held_out = pools(tmp_path, fraction=0.3)
    first, second = set(training.store.paths), set(held_out.store.paths)
    assert not first & second
    assert len(first | second) == 40 + 24
    assert (len(training.tracks), len(held_out.tracks)) == (8, 4)
    assert (len(training.stills), len(held_out.stills)) == (28, 12)
    again = pools(tmp_path, fraction=0.3)[1]
    assert again.store.paths == held_out.store.paths


@pytest.mark.parametrize(("count", "held"), [(1, 0), (2, 1), (3, 1)])
def test_few_sequences_are_split_where_they_can_be(tmp_path, count, held):
    for i in range(count):
        write_sequence(tmp_path / f"clip_{i}", i, length=2)
    training, held_out = pools(tmp_path, fraction=0.08)
    assert (len(training.tracks), len(held_out.tracks)) == (count - held, held)


def test_smaller_shares_lie_within_larger_ones(tmp_path):
    """Each folder has a share of its own; what is held out stays the same."""
    for name in ("a", "b"):
        write_stills(tmp_path / name / "stills", 10)
        for i in range(10):
            write_sequence(tmp_path / name / f"clip_{i}", i, length=2)
    folders = tmp_path / "a", tmp_path / "b"
    whole, kept = pools(*folders, fraction=0.2)
    used: dict[float, set[Path]] = {}
    for share in (0.01, 0.25, 0.6, 1.0):
        part, held_out = pools(*folders, fraction=0.2, shares=(share, 1.0))
        assert held_out.store.paths == kept.store.paths
        used[share] = {path for path in part.store.paths if folders[0] in path.parents}
        others = set(part.store.paths) - used[share]
        assert others == {p for p in whole.store.paths if folders[1] in p.parents}
    assert used[0.01] < used[0.25] < used[0.6] < used[1.0]
    assert used[1.0] == {p for p in whole.store.paths if folders[0] in p.parents}


@pytest.mark.parametrize("fraction", [0.0, 0.25])
def test_sequences_are_held_out_by_name(tmp_path, fraction):
    for i in range(12):
        write_sequence(tmp_path / f"group_{i % 2}" / f"clip_{i}", i, length=2)
    named = ("clip_3", "group_0/clip_8")
    training, held_out = pools(tmp_path, fraction=fraction, hold_out=named)
    assert {"group_1/clip_3", "group_0/clip_8"} <= set(held_out.sequences)
    assert not set(training.sequences) & set(held_out.sequences)
    # The share is one of the others.
    assert len(held_out.sequences) == len(held_out.tracks) == 2 + (3 if fraction else 0)
    assert len(training.sequences) + len(held_out.sequences) == 12


def test_a_root_that_is_a_sequence_is_trained_on(tmp_path):
    write_sequence(tmp_path, 0, length=3)
    training, held_out = pools(tmp_path, fraction=0.5)
    assert len(training.tracks) == 1 and len(held_out.store) == 0


def test_roots_that_are_sequences_are_told_apart(tmp_path):
    folders = [tmp_path / x / "clip" for x in "abc"]
    for i, folder in enumerate(folders):
        write_sequence(folder, i, length=2)
    training, held_out = pools(*folders, fraction=0.1)
    assert (len(training.tracks), len(held_out.tracks)) == (2, 1)


@pytest.mark.parametrize(("fraction", "held"), [(0.0, 0), (1.0, 2)])
def test_nothing_and_never_everything_is_held_out(tmp_path, fraction, held):
    for i in range(3):
        write_sequence(tmp_path / f"clip_{i}", i, length=2)
    assert len(pools(tmp_path, fraction=fraction)[1].tracks) == held


def test_what_two_folders_hold_is_read_once(tmp_path):
    for i in range(3):
        write_sequence(tmp_path / "x" / f"clip_{i}", i, length=2)
    write_stills(tmp_path / "x" / "stills", 4)
    both = pool(tmp_path, tmp_path / "x")
    assert len(both.tracks) == 3 and len(both.store) == 6 + 4


def test_a_symbolic_link_is_data(tmp_path):
    write_sequence(tmp_path / "far" / "clip", 0, length=2)
    write_stills(tmp_path / "far" / "stills", 2)
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "far", target_is_directory=True)
    linked = pool(root)
    assert len(linked.tracks) == 1 and len(linked.stills) == 2


def test_targets_of_one_folder_stay_together(tmp_path):
    for i in range(2):
        folder = tmp_path / f"jogging{i}"
        write_sequence(folder, i, length=2)
        boxes = folder / "groundtruth.txt"
        for n in (1, 2):
            shutil.copy(boxes, folder / f"groundtruth_rect.{n}.txt")
        boxes.unlink()
    for part in pools(tmp_path, fraction=0.5):
        assert len(part.tracks) == 2 and len(part.store) == 2
        assert set(part.origins) == {0}


# ---------------------------------------------------------------------- left out


def replace_boxes(folder: Path, changes: dict[int, str]) -> None:
    path = folder / "groundtruth.txt"
    lines = path.read_text().splitlines()
    for line, text in changes.items():
        lines[line] = text
    path.write_text("\n".join(lines))


def test_absent_frames_are_left_out(tmp_path, caplog):
    write_sequence(tmp_path / "s", 0, length=5)
    replace_boxes(tmp_path / "s", {1: "nan,nan,nan,nan"})
    track = pool(tmp_path).tracks[0]
    np.testing.assert_array_equal(track.numbers, [0, 2, 3, 4])
    np.testing.assert_array_equal(track.images, [0, 2, 3, 4])
    assert len(track.boxes) == 4
    assert np.isfinite(ltwh_to_cxcywh(track.boxes)).all()
    assert not caplog.records


def test_unusable_boxes_of_sequences_are_counted_once(tmp_path, caplog):
    for name in "ab":
        write_sequence(tmp_path / name, 0, length=5)
    changes = {0: "900,9,20,20", 2: "9,-80,20,20", 3: "5,5,1,30"}
    replace_boxes(tmp_path / "a", changes)
    replace_boxes(tmp_path / "b", dict.fromkeys(range(5), "900,9,20,20"))
    with caplog.at_level(logging.WARNING):
        (track,) = pools(tmp_path, fraction=0.5)[0].tracks
    np.testing.assert_array_equal(track.numbers, [1, 4])
    (record,) = caplog.records
    assert "7 boxes of sequences outside the image" in record.message
    assert "1 boxes of sequences below 4 pixels" in record.message
    assert "1 sequences with fewer than 2 usable boxes" in record.message


def test_unusable_objects_of_stills_are_counted(tmp_path, caplog):
    write_stills(tmp_path, 1)
    path = tmp_path / "annotations.json"
    start, _, _ = path.read_text().partition('"annotations"')
    boxes = [[0, 0, 5, 90], [0, 0, 190, 190], [0, 0, 12, 190], [9, 9, 40, 40]]
    rows = ", ".join(f'{{"image_id": 0, "bbox": {box}}}' for box in boxes)
    path.write_text(f'{start}"annotations": [{rows}]}}')
    with caplog.at_level(logging.WARNING):
        assert [len(targets) for targets in pool(tmp_path).stills] == [1]
    (record,) = caplog.records
    for reason in ("below 10 pixels", "on more than 80%", "of an aspect ratio"):
        assert f"1 objects {reason}" in record.message


def test_folders_without_data(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        pool(tmp_path / "none")
    with pytest.raises(InputError, match="holds no training data.*films with labels"):
        pool(tmp_path)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").write_text("{}")
    with pytest.raises(InputError, match=r"COCO's own layout.*as annotations\.json"):
        pool(tmp_path)


# --------------------------------------------------------------- origins, weights


def test_the_frames_of_a_sequence_are_one_origin(tmp_path):
    for i in range(2):
        write_sequence(tmp_path / f"clip_{i}", i, length=3)
    write_stills(tmp_path / "stills", 2)
    np.testing.assert_array_equal(pool(tmp_path).origins, [0, 0, 0, 3, 3, 3, 6, 7])


def test_a_large_group_does_not_drown_the_others(tmp_path):
    for i in range(16):
        write_sequence(tmp_path / f"same_{i}", 0, length=2)
    write_sequence(tmp_path / "lone_a", 1, length=2)
    write_sequence(tmp_path / "lone_b", 2, length=2, meta={"dataset": "third"})
    opened = pool(tmp_path)
    share: dict[str, float] = {}
    for track, p in zip(opened.tracks, opened.tracks.probabilities(), strict=True):
        share[track.group] = share.get(track.group, 0) + p
    assert share == pytest.approx({"same": 4 / 6, "lone": 1 / 6, "third": 1 / 6})


def test_sources_of_stills_are_balanced(tmp_path):
    write_stills(tmp_path / "many", 32, source="web")
    write_stills(tmp_path / "few", 1)
    opened = pool(tmp_path)
    lone = [t[0].image for t in opened.stills].index(0)  # "few" comes first
    assert opened.stills.probabilities()[lone] == pytest.approx(1 / (1 + 32**0.6))


def test_folders_that_are_not_prepared_count_by_their_weights(tmp_path):
    """Each sequence and still is drawn by the factor of its folder; of 0: never."""
    for name in ("a", "b", "c"):
        write_sequence(tmp_path / name / f"{name}_clip", 0, length=4)
        write_stills(tmp_path / name / "stills", 2)
    roots = [tmp_path / name for name in ("a", "b", "c")]
    training, _ = pools(*roots, weights=(1.0, 0.25, 0.0))
    assert training.weight == 1.25
    np.testing.assert_allclose(training.tracks.probabilities(), [0.8, 0.2])
    np.testing.assert_allclose(training.stills.probabilities(), [0.4, 0.4, 0.1, 0.1])
    assert not any(tmp_path / "c" in path.parents for path in training.store.paths)


def test_small_images_are_only_cut_out(tmp_path):
    opened = pool(write_everything(tmp_path))
    small = {t.image for t in opened.small}
    assert small and all("small" in str(opened.store.paths[i]) for i in small)
    assert small.isdisjoint(opened.backgrounds)
    assert small.isdisjoint(t[0].image for t in opened.stills)


def test_weighted_draws_follow_the_weights():
    items = Weighted("abc", [1.0, 0.0, 3.0])
    rng = np.random.default_rng(0)
    drawn = [items.draw(rng) for _ in range(400)]
    assert "b" not in drawn
    assert 240 < drawn.count("c") < 360
