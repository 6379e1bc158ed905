import cv2
import numpy as np
import pytest

from paths import SHARED_DATA
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.images import ImageError
from siamrpn_jax.data.read.sequences import SequenceError
from siamrpn_jax.evaluation.vot import dataset
from siamrpn_jax.evaluation.vot.generated import write_synthetic

DEV_SEQUENCES = SHARED_DATA / "dev_sequences"
LINES = ["1,2,8,6", "2,2,10,2,10,8,2,8", "3.5,2,8,6"]


def write_sequence(folder, *, lines=LINES, place="color", frames=None, suffix=".jpg"):
    images = folder / place
    images.mkdir(parents=True)
    for number in range(1, (len(lines) if frames is None else frames) + 1):
        image = np.full((24, 32, 3), 9 * number, np.uint8)
        assert cv2.imwrite(str(images / f"{number:08d}{suffix}"), image)
    (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_folder_as_vot_initialize_leaves_it(tmp_path):
    folder = write_sequence(tmp_path / "ant")
    (folder / "sequence").write_text(
        "channels.color=color/%08d.jpg\nfps=25\nformat=default\nname=ant\nuid=a b\n"
    )
    (folder / "occlusion.tag").write_text("0\n1\n1\n")
    (folder / "camera_motion.tag").write_text("1\n")  # ends early
    sequence = dataset.read_vot_sequence(folder)
    assert sequence.name == "ant" and len(sequence) == 3
    assert [path.name for path in sequence.frames] == [f"0000000{i}.jpg" for i in "123"]
    assert [region.tolist() for region in sequence.regions] == [
        [1, 2, 8, 6],
        [2, 2, 10, 2, 10, 8, 2, 8],
        [3.5, 2, 8, 6],
    ]
    assert (sequence.size, sequence.fps) == ((32, 24), 25)
    assert {k: v.tolist() for k, v in sequence.attributes.items()} == {
        "camera_motion": [True, False, False],
        "occlusion": [False, True, True],
    }


@pytest.mark.parametrize(
    ("place", "suffix", "properties"),
    [
        (".", ".jpg", None),
        ("color", ".jpg", None),
        ("color", ".jpg", "channels.color=color/"),
        ("color", ".jpg", "channels.color=color\\%08d.jpg\nfps="),
        ("rgb", ".png", "channels.color = rgb/%08d.png\nwidth=32\nheight=24"),
    ],
)
def test_where_frames_lie(tmp_path, place, suffix, properties):
    folder = write_sequence(tmp_path / "ant", place=place, suffix=suffix)
    if properties:
        (folder / "sequence").write_text(properties)
    (folder / "motion.label").write_text("0\n0\n1\n")
    sequence = dataset.read_vot_sequence(folder)
    assert sequence.frames[2] == folder / place / f"00000003{suffix}"
    assert (sequence.size, sequence.fps) == ((32, 24), None)
    assert sequence.attributes["motion"].tolist() == [False, False, True]


@pytest.mark.parametrize("deep", [False, True])
def test_list_gives_sequences_and_their_order(tmp_path, deep):
    place = tmp_path / "sequences" if deep else tmp_path
    for name in ("a", "b", "c"):
        write_sequence(place / name)
    (place / "list.txt").write_text("c\na\n\n")
    assert [s.name for s in dataset.read_vot_dataset(tmp_path)] == ["c", "a"]
    (place / "list.txt").unlink()
    assert [s.name for s in dataset.read_vot_dataset(tmp_path)] == ["a", "b", "c"]


def test_missing_sequences_are_all_named(tmp_path):
    write_sequence(tmp_path / "b")
    (tmp_path / "list.txt").write_text("a\nb\nc\n")
    with pytest.raises(SequenceError, match=r"list\.txt: 2 of 3 .*: a, c"):
        dataset.read_vot_dataset(tmp_path)
    (tmp_path / "list.txt").write_text("")
    with pytest.raises(SequenceError, match="0 of 0"):
        dataset.read_vot_dataset(tmp_path)


def test_no_sequences(tmp_path):
    with pytest.raises(SequenceError, match="no such folder.*list.txt"):
        dataset.read_vot_dataset(tmp_path / "none")
    with pytest.raises(SequenceError, match="holds no sequence.*list.txt"):
        dataset.read_vot_dataset(tmp_path)


def test_many_bad_sequences_are_counted(tmp_path):
    for name in "abcdefgh":
        write_sequence(tmp_path / name, lines=["1,2,3"])
    with pytest.raises(SequenceError, match=r"a/.*; .*e/.*; and 3 more; expected"):
        dataset.read_vot_dataset(tmp_path)


def test_every_bad_sequence_is_named(tmp_path):
    write_sequence(tmp_path / "a", lines=["1,2,3"])
    write_sequence(tmp_path / "b")
    write_sequence(tmp_path / "c", lines=LINES, frames=2)
    with pytest.raises(SequenceError, match=r"a/groundtruth.*; .*c/color/00000003"):
        dataset.read_vot_dataset(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "a,b,c,d",
        "1,2,3",
        "1,2,3,4,5,6",
        "nan,nan,nan,nan",
        "1,2,inf,4",
        "1,2,0,4",
        "1,2,3,-4",
        "5,5,5,5,5,5,5,5",
        "1,1,5,5,9,9,5,5",
        "1,1,5,1,9,1,3,1",
    ],
)
def test_lines_without_a_region_are_named(tmp_path, line):
    folder = write_sequence(tmp_path / "a", lines=["1,2,3,4", line, "1,2,3,4"])
    with pytest.raises(InputError, match=r"groundtruth\.txt:2: "):
        dataset.read_vot_sequence(folder)


def test_frames_and_lines_differ(tmp_path):
    folder = write_sequence(tmp_path / "few", frames=2)
    match = r"00000003\.jpg: no such frame; .* has 3 lines and .* has 2 images"
    with pytest.raises(SequenceError, match=match):
        dataset.read_vot_sequence(folder)
    folder = write_sequence(tmp_path / "many", frames=4)
    with pytest.raises(SequenceError, match=r"3 lines, but there is .*00000004\.jpg"):
        dataset.read_vot_sequence(folder)
    folder = write_sequence(tmp_path / "gap", frames=3)
    (folder / "color" / "00000002.jpg").unlink()
    with pytest.raises(SequenceError, match=r"00000002\.jpg: no such frame"):
        dataset.read_vot_sequence(folder)


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("occlusion.tag", "0\n1\n2\n", r"occlusion\.tag:3: '2', expected 0 or 1"),
        ("occlusion.tag", "0\n1\n1\n1\n", r"occlusion\.tag: 4 lines for 3 frames"),
        ("groundtruth.txt", "", "is empty"),
        ("sequence", "fps=fast", "fps=fast, expected above 0"),
        ("sequence", "width=32\nheight=-1", "height=-1, expected above 0"),
        ("sequence", "channels.color=color/0.jpg", "channels.color=color/0.jpg"),
        ("sequence", b"\xff\xfa", "cannot be read"),
    ],
)
def test_bad_files_are_named(tmp_path, name, text, match):
    folder = write_sequence(tmp_path / "a")
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SequenceError, match=match):
        dataset.read_vot_sequence(folder)


def test_no_ground_truth_and_a_broken_first_frame(tmp_path):
    folder = write_sequence(tmp_path / "a")
    (folder / "color" / "00000001.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"00000001\.jpg"):
        dataset.read_vot_sequence(folder)
    (folder / "groundtruth.txt").unlink()
    with pytest.raises(SequenceError, match=r"groundtruth\.txt: cannot be read"):
        dataset.read_vot_sequence(folder)


def test_box_to_start_from_keeps_the_area():
    diamond = np.array([10.0, 0, 20, 10, 10, 20, 0, 10])
    side = np.sqrt(200)
    expected = [10 - side / 2, 10 - side / 2, side, side]
    assert dataset.region_to_ltwh(diamond) == pytest.approx(expected)
    box = np.array([1.0, 2, 3, 4])
    assert dataset.region_to_ltwh(box).tolist() == [1, 2, 3, 4]


def test_synthetic_set(tmp_path):
    write_synthetic(tmp_path, lengths=(5, 4))
    first, second = dataset.read_vot_dataset(tmp_path)
    assert (first.name, second.name) == ("scene104", "scene105")
    assert (len(first), len(second)) == (5, 4)
    assert first.regions[0].shape == (4,) and second.regions[0].shape == (8,)
    assert first.size == (320, 240) and first.fps == 25
    assert set(first.attributes) == {"motion_change", "size_change"}


def test_development_sequences_with_polygons(tmp_path):
    if not DEV_SEQUENCES.is_dir():
        pytest.skip("skipped: no ../shared")
    source = DEV_SEQUENCES / "vot_car"
    folder = tmp_path / "car"
    folder.mkdir()
    (folder / "color").symlink_to(source / "img")
    (folder / "groundtruth.txt").write_text(
        (source / "groundtruth_polygon.txt").read_text()
    )
    sequence = dataset.read_vot_sequence(folder)
    boxes = np.loadtxt(source / "groundtruth.txt", delimiter=",")
    ours = np.stack([dataset.region_to_ltwh(region) for region in sequence.regions])
    assert np.abs(ours - boxes).max() < 1.01  # boxes there have the inclusive pixel
