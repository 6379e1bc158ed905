import numpy as np
import pytest

from siamrpn_jax.data.read import benchmarks
from siamrpn_jax.data.read.benchmark_lists import (
    LASOT_EXTENSION,
    LASOT_TEST,
    OTB50,
    OTB100,
)
from siamrpn_jax.data.read.sequences import SequenceError

BOX = "11,21,30,40"
FOUND = [10.0, 20.0, 30.0, 40.0]


def touch(folder, numbers, pattern="{:04d}.jpg"):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / pattern.format(number)).touch()


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def read(name, root):
    return {one.name: one for one in benchmarks.read_benchmark(name, root)}


def shrink(monkeypatch, **lists):
    for key, names in lists.items():
        monkeypatch.setattr(benchmarks, key, names)


def numbers(sequence):
    return [int(path.stem) for path in sequence.frames]


def test_lists_have_the_benchmarks_sizes():
    assert (len(set(OTB50)), len(set(OTB100)), len(set(LASOT_TEST))) == (50, 100, 280)
    assert set(OTB50) < set(OTB100)
    assert benchmarks.whole_size("uav123") == 123


@pytest.mark.parametrize("separator", [",", "\t", " "])
def test_otb(tmp_path, monkeypatch, separator):
    shrink(monkeypatch, OTB100=("Girl", "Jogging-1", "Jogging-2", "Human4-2"))
    line = BOX.replace(",", separator)
    touch(tmp_path / "Girl" / "img", [1, 2])
    write(tmp_path / "Girl" / "groundtruth_rect.txt", line, line)
    touch(tmp_path / "Jogging" / "img", [1, 2])
    write(tmp_path / "Jogging" / "groundtruth_rect.1.txt", line, line)
    write(tmp_path / "Jogging" / "groundtruth_rect.2.txt", "1,1,2,3", "0,0,0,0")
    touch(tmp_path / "Human4" / "img", [1])
    write(tmp_path / "Human4" / "groundtruth_rect.1.txt")
    write(tmp_path / "Human4" / "groundtruth_rect.2.txt", line)
    found = read("otb", tmp_path)
    assert list(found) == ["Girl", "Jogging-1", "Jogging-2", "Human4-2"]
    assert found["Girl"].boxes.tolist() == [FOUND] * 2
    assert found["Jogging-1"].frames == found["Jogging-2"].frames
    assert found["Jogging-2"].boxes[0].tolist() == [0, 0, 2, 3]
    assert np.isnan(found["Jogging-2"].boxes[1]).all()


@pytest.mark.parametrize(
    ("name", "present", "lines", "first"),
    [
        ("David", range(1, 771), 471, 300),
        ("BlurCar1", range(247, 989), 742, 247),
        ("BlurCar3", range(1, 360), 357, 3),
        ("Football1", range(1, 80), 74, 1),
        ("Freeman4", range(1, 300), 283, 1),
        ("Tiger1", range(1, 355), 349, 6),
        ("Tiger1", range(1, 355), 354, 6),  # the download annotates all frames
    ],
)
def test_otb_sequences_that_are_a_part(
    tmp_path, monkeypatch, name, present, lines, first
):
    shrink(monkeypatch, OTB100=(name,))
    touch(tmp_path / name / "img", present)
    rows = [f"{index + 1},1,9,9" for index in range(lines)]
    write(tmp_path / name / "groundtruth_rect.txt", *rows)
    found = read("otb", tmp_path)[name]
    assert numbers(found)[0] == first and len(found.frames) == len(found.boxes)
    # The last line belongs to the last frame.
    assert found.boxes[-1, 0] == lines - 1


def test_a_folder_without_any_of_the_sequences(tmp_path):
    touch(tmp_path / "mine" / "img", [1, 2])
    with pytest.raises(SequenceError, match=r"holds no otb; expected <Name>/img"):
        read("otb", tmp_path)


def test_missing_and_broken_sequences_are_all_named(tmp_path, monkeypatch):
    shrink(monkeypatch, OTB50=("Box", "Car1", "Girl", "Skating2-1"))
    touch(tmp_path / "Girl" / "img", [1, 2])
    write(tmp_path / "Girl" / "groundtruth_rect.txt", BOX)
    touch(tmp_path / "Car1" / "img", [1])
    write(tmp_path / "Car1" / "groundtruth_rect.txt", "1,2,3")
    with pytest.raises(SequenceError) as caught:
        read("otb50", tmp_path)
    message = str(caught.value)
    assert "misses 2 of 4 sequences: Box, Skating2-1" in message
    assert "Girl: 2 frames but 1 boxes" in message
    assert "groundtruth_rect.txt: line 1 is '1,2,3', expected x,y,w,h" in message


def test_of_many_missing_sequences_five_are_named(tmp_path):
    folder = tmp_path / "airplane" / "airplane-1"
    touch(folder / "img", [1], "{:08d}.jpg")
    write(folder / "groundtruth.txt", BOX)
    for labels in ("full_occlusion.txt", "out_of_view.txt"):
        write(folder / labels, "0")
    message = "misses 279 of 280 sequences: airplane-9, .*-6 and 274 more .*testing_set"
    with pytest.raises(SequenceError, match=message) as caught:
        read("lasot", tmp_path)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))
    write(tmp_path / "testing_set.txt", "airplane-1")
    assert list(read("lasot", tmp_path)) == ["airplane-1"]


@pytest.mark.parametrize("name", benchmarks._READERS)
def test_a_folder_without_the_benchmark(tmp_path, name):
    with pytest.raises(SequenceError, match="expected"):
        read(name, tmp_path / "nowhere")
    with pytest.raises(SequenceError, match="expected"):
        read(name, tmp_path)


def test_uav123_clips_share_a_folder(tmp_path):
    pattern = "{:06d}.jpg"
    touch(tmp_path / "data_seq" / "UAV123" / "bird1", range(770, 780), pattern)
    touch(tmp_path / "data_seq" / "UAV123" / "car1_s", [1, 2], pattern)
    anno = tmp_path / "anno" / "UAV123"
    write(anno / "bird1_2.txt", BOX, "NaN,NaN,NaN,NaN", BOX)
    write(anno / "car1_s.txt", BOX, BOX)
    write(anno / "att" / "bird1_2.txt", "0,1")
    found = read("uav123", tmp_path)
    assert numbers(found["bird1_2"]) == [775, 776, 777]
    assert np.isnan(found["bird1_2"].boxes).any(axis=1).tolist() == [0, 1, 0]
    assert found["bird1_2"].boxes[2].tolist() == FOUND
    assert numbers(found["car1_s"]) == [1, 2]


def test_uav123_clip_that_does_not_exist(tmp_path):
    write(tmp_path / "anno" / "UAV123" / "bird1_4.txt", BOX)
    with pytest.raises(SequenceError, match="bird1 has clips 1 to 3"):
        read("uav123", tmp_path)


def test_uav20l_takes_the_folder_from_its_first_frame(tmp_path):
    touch(tmp_path / "data_seq" / "UAV123" / "bird1", range(1, 9), "{:06d}.jpg")
    write(tmp_path / "anno" / "UAV20L" / "bird1.txt", *[BOX] * 5)
    assert numbers(read("uav20l", tmp_path)["bird1"]) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("lines", "frames", "kept"), [(17, 3, 3), (24, 4, 3)])
def test_nfs_takes_every_eighth_line(tmp_path, lines, frames, kept):
    folder = tmp_path / "ball" / "30"
    touch(folder / "ball", range(1, frames + 1), "{:05d}.jpg")
    rows = [f'0 {n} 20 {n + 30} 60 {n} {int(n == 8)} 0 0 "ball"' for n in range(lines)]
    write(folder / "ball.txt", *rows)
    found = read("nfs", tmp_path)["ball"]
    assert len(found.frames) == kept
    assert found.boxes[[0, 2]].tolist() == [[0, 20, 30, 40], [16, 20, 30, 40]]
    assert np.isnan(found.boxes[1]).all()  # lost


def test_nfs_of_another_length_or_format(tmp_path):
    folder = tmp_path / "ball" / "30"
    touch(folder / "ball", range(1, 6), "{:05d}.jpg")
    write(folder / "ball.txt", *['0 1 2 3 4 0 0 0 0 "ball"'] * 17)
    with pytest.raises(SequenceError, match="ball: 5 frames but 3 boxes"):
        read("nfs", tmp_path)
    write(folder / "ball.txt", "1,2,3,4")
    with pytest.raises(SequenceError, match=r"ball.txt:1: '1,2,3,4', expected track"):
        read("nfs", tmp_path)


def test_nfs_as_boxes_beside_sequences(tmp_path):
    touch(tmp_path / "sequences" / "ball", [1, 2], "{:05d}.jpg")
    line = BOX.replace(",", "\t")
    write(tmp_path / "anno" / "nfs_ball.txt", line, line)
    assert read("nfs", tmp_path)["ball"].boxes.tolist() == [FOUND] * 2


def write_lasot(root, name, *, occluded, outside):
    folder = root / name.split("-")[0] / name
    touch(folder / "img", [1, 2, 3], "{:08d}.jpg")
    write(folder / "groundtruth.txt", BOX, BOX, "0,5,0,0")
    write(folder / "full_occlusion.txt", occluded)
    write(folder / "out_of_view.txt", outside)


def test_lasot(tmp_path, monkeypatch):
    write_lasot(tmp_path, "cat-1", occluded="0,0,0", outside="0,1,1")
    write_lasot(tmp_path, "cat-2", occluded="0,1,0", outside="0,0,0")
    shrink(monkeypatch, LASOT_TEST=("cat-1",))
    found = read("lasot", tmp_path)
    assert list(found) == ["cat-1"]
    absent = np.isnan(found["cat-1"].boxes).any(axis=1)
    assert absent.tolist() == [False, True, True]
    write(tmp_path / "testing_set.txt", "cat-2", "dog-1")
    with pytest.raises(SequenceError, match="misses 1 of 2 sequences: dog-1"):
        read("lasot", tmp_path)
    write(tmp_path / "testing_set.txt", "cat-2")
    assert list(read("lasot", tmp_path)) == ["cat-2"]


def test_lasot_flags_of_another_length(tmp_path):
    write_lasot(tmp_path, "cat-1", occluded="0,0", outside="0,1,1")
    write(tmp_path / "testing_set.txt", "cat-1")
    with pytest.raises(SequenceError, match="2 labels for 3 rows"):
        read("lasot", tmp_path)


def test_the_extension_of_lasot(tmp_path, monkeypatch):
    assert len(set(LASOT_EXTENSION)) == 150 and LASOT_EXTENSION[0] == "atv-1"
    write_lasot(tmp_path, "wingsuit-10", occluded="0,0,0", outside="0,0,1")
    shrink(monkeypatch, LASOT_EXTENSION=("wingsuit-10",))
    (found,) = read("lasot-ext", tmp_path).values()
    assert np.isnan(found.boxes).any(axis=1).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("name", "images", "text"),
    [
        ("tnl2k", "imgs", "groundtruth.txt"),
        ("dtb70", "img", "groundtruth_rect.txt"),
    ],
)
def test_folders_with_frames_and_boxes(tmp_path, name, images, text):
    for folder in ("Sheep2", "Sheep10"):
        touch(tmp_path / folder / images, [9, 10], "frame{}.jpg")
        write(tmp_path / folder / text, BOX, "0,0,0,0")
    found = read(name, tmp_path)
    assert list(found) == ["Sheep2", "Sheep10"]
    assert found["Sheep2"].boxes[0].tolist() == FOUND
    assert np.isnan(found["Sheep2"].boxes[1]).all()
    assert numbers_of_ends(found["Sheep10"]) == [9, 10]
    (tmp_path / "Sheep2" / images / "frame9.jpg").unlink()
    with pytest.raises(SequenceError, match="1 frames but 2 boxes"):
        read(name, tmp_path)


def numbers_of_ends(sequence):
    return [int(path.stem.removeprefix("frame")) for path in sequence.frames]


@pytest.mark.parametrize("limits", ["2,3", "2\t3"])
def test_temple_color_says_which_frames(tmp_path, limits):
    touch(tmp_path / "Ball_ce1" / "img", [1, 2, 3, 4])
    write(tmp_path / "Ball_ce1" / "Ball_ce1_gt.txt", BOX, BOX)
    listed = tmp_path / "Ball_ce1" / "Ball_ce1_frames.txt"
    write(listed, limits)
    (found,) = read("tc128", tmp_path).values()
    assert found.name == "Ball_ce1" and numbers(found) == [2, 3]
    assert found.boxes.tolist() == [FOUND] * 2
    write(listed, "all")
    with pytest.raises(SequenceError, match="expected the first and last frame"):
        read("tc128", tmp_path)


def test_trackingnet_counts_from_0_and_knows_the_first_box_only(tmp_path):
    touch(tmp_path / "frames" / "abc_1", [0, 1, 2], "{}.jpg")
    write(tmp_path / "anno" / "abc_1.txt", BOX)
    (found,) = read("trackingnet-test", tmp_path).values()
    assert found.boxes[0].tolist() == [11, 21, 30, 40]
    assert np.isnan(found.boxes[1:]).all() and numbers(found) == [0, 1, 2]


def write_got10k(root, subset, *lines, **labels):
    folder = root / subset / "GOT-10k_000001"
    touch(folder, [1, 2, 3], "{:08d}.jpg")
    write(folder / "groundtruth.txt", *lines)
    for name, flags in labels.items():
        write(folder / f"{name}.label", *flags)
    write(root / subset / "list.txt", "GOT-10k_000001")


@pytest.mark.parametrize("inner", ["", "val"])
def test_got10k_validation(tmp_path, inner):
    write_got10k(tmp_path, "val", BOX, BOX, BOX, absence="001", cover="808")
    (found,) = read("got10k-val", tmp_path / inner).values()
    assert found.name == "GOT-10k_000001"
    # As its toolkit: what cover says decides, where it is there.
    assert np.isnan(found.boxes).any(axis=1).tolist() == [False, True, False]
    (tmp_path / "val" / found.name / "cover.label").unlink()
    (found,) = read("got10k-val", tmp_path / inner).values()
    assert np.isnan(found.boxes).any(axis=1).tolist() == [False, False, True]


def test_got10k_test_knows_the_first_box_only(tmp_path):
    write_got10k(tmp_path, "test", BOX)
    (found,) = read("got10k-test", tmp_path).values()
    assert found.boxes[0].tolist() == FOUND and np.isnan(found.boxes[1:]).all()
    assert len(found.boxes) == 3
    write_got10k(tmp_path, "test", BOX, BOX)
    with pytest.raises(SequenceError, match="2 lines, expected the first box only"):
        read("got10k-test", tmp_path)


def test_frames_must_be_numbered(tmp_path, monkeypatch):
    shrink(monkeypatch, OTB100=("Girl",))
    touch(tmp_path / "Girl" / "img", ["a"], "{}.jpg")
    write(tmp_path / "Girl" / "groundtruth_rect.txt", BOX)
    with pytest.raises(SequenceError, match="one frame for each number"):
        read("otb", tmp_path)


def test_another_benchmarks_sequences_are_refused():
    benchmarks.check_names("otb", ["jogging_1", "Human4-2"])
    benchmarks.check_names("otb50", OTB50)
    benchmarks.check_names("uav123", ["bike1", "car1_2"])
    benchmarks.check_names(None, ["anything"])
    with pytest.raises(SequenceError, match="uav123: .* 2 .*those of otb"):
        benchmarks.check_names("uav123", ["Basketball", "Bird2"])
    with pytest.raises(SequenceError, match="otb: its sequences are not the 1 that"):
        benchmarks.check_names("otb", ["bike1"])
