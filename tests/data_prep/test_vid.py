import json

import numpy as np
import pytest

from data_prep.tracks import PreparationError
from data_prep.vid import CLASSES, DATASET
from raw_folders import (
    prepare,
    read_all,
    targets,
    touch_frames,
    write_frames,
    write_lines,
)

SET = "train/ILSVRC2015_VID_train_0000"
FIRST = f"{SET}/ILSVRC2015_train_00005000"
SHEEP, DOG = "n02411705", "n02084071"

HEAD = """\
<annotation>
	<folder>ILSVRC2015_VID_train_0000/ILSVRC2015_train_00005000</folder>
	<filename>000000</filename>
	<source>
		<database>ILSVRC_2015</database>
	</source>
	<size>
		<width>{}</width>
		<height>{}</height>
	</size>
"""


def annotation(trackid, corners, *, name=SHEEP, occluded="0", generated="0"):
    x0, y0, x1, y1 = corners
    return f"""\
	<object>
		<trackid>{trackid}</trackid>
		<name>{name}</name>
		<bndbox>
			<xmax>{x1}</xmax>
			<xmin>{x0}</xmin>
			<ymax>{y1}</ymax>
			<ymin>{y0}</ymin>
		</bndbox>
		<occluded>{occluded}</occluded>
		<generated>{generated}</generated>
	</object>
"""


def xml(*objects, size=(1280, 720)):
    return HEAD.format(*size) + "".join(objects) + "</annotation>"


def write_video(root, key, *frames):
    touch_frames(root / "Data/VID" / key, "%06d.JPEG", range(len(frames)))
    for number, text in enumerate(frames):
        write_lines(root / "Annotations/VID" / key / f"{number:06d}.xml", text)


def write_two_sheep(root, key=FIRST):
    """One that vanishes and comes back, and another that appears later."""
    write_video(
        root,
        key,
        xml(annotation(0, (0, 81, 888, 718), occluded="1")),
        xml(annotation(0, (2, 80, 890, 719)), annotation(1, (100, 50, 199, 149))),
        xml(),
        xml(
            annotation(1, (101, 50, 200, 149), generated="1"),
            annotation(0, (1270, 700, 1279, 719), generated="1"),
        ),
    )


@pytest.mark.parametrize("above", ["", "ILSVRC2015", "ILSVRC"])
def test_layout(tmp_path, above):
    write_two_sheep(tmp_path / above)
    tracks, rejections = read_all(DATASET, tmp_path)
    assert not rejections
    assert list(tracks) == [f"{FIRST}/00", f"{FIRST}/01"]
    first, second = tracks.values()
    # Corners are pixels that are inside: 0 to 888 are 889 of them.
    assert first.boxes.tolist() == [
        [0, 81, 889, 638],
        [2, 80, 889, 640],
        [1270, 700, 10, 20],
    ]
    assert first.numbers.tolist() == [0, 1, 3]
    assert first.visibility.tolist() == [0.5, 1, 1]
    assert first.frames[2] == tmp_path / above / "Data/VID" / FIRST / "000003.JPEG"
    assert (first.category, first.size) == ("sheep", (1280, 720))
    assert second.numbers.tolist() == [1, 3]
    assert second.boxes[0].tolist() == [100, 50, 100, 100]
    assert first.video == second.video == "ILSVRC2015_train_00005"


def test_splits_and_what_other_trackers_leave_there(tmp_path):
    write_two_sheep(tmp_path)
    other = "train/ILSVRC2015_VID_train_0003/ILSVRC2015_train_01020010"
    write_two_sheep(tmp_path, other)
    write_two_sheep(tmp_path, "val/ILSVRC2015_val_00007010")
    for kind in ("Annotations", "Data"):
        train = tmp_path / kind / "VID" / "train"
        (train / "a").symlink_to(tmp_path / kind / "VID" / SET)
        (train / "e").symlink_to(tmp_path / kind / "VID" / "val")
    train = [f"{key}/{n}" for key in (FIRST, other) for n in ("00", "01")]
    val = [f"val/ILSVRC2015_val_00007010/{n}" for n in ("00", "01")]
    assert list(read_all(DATASET, tmp_path)[0]) == train
    assert list(read_all(DATASET, tmp_path, split="val")[0]) == val
    assert list(read_all(DATASET, tmp_path, split="all")[0]) == train + val


def test_generated_boxes_can_be_left_out(tmp_path):
    write_two_sheep(tmp_path)
    tracks, rejections = read_all(DATASET, tmp_path, drawn_only=True)
    assert not rejections
    assert [track.numbers.tolist() for track in tracks.values()] == [[0, 1], [1]]


def test_classes(tmp_path):
    assert len(CLASSES) == len(set(CLASSES.values())) == 30
    box = (0, 0, 9, 9)
    write_video(
        tmp_path,
        FIRST,
        xml(annotation(0, box, name=DOG), annotation(1, box, name="n00007846")),
    )
    tracks, _ = read_all(DATASET, tmp_path)
    assert [track.category for track in tracks.values()] == ["dog", "n00007846"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "cannot be read: is no XML (no element found"),
        (
            xml(annotation(0, (0, 0, 9, 9)))[:-30],
            "cannot be read: is no XML (unclosed token",
        ),
        ("not xml", "cannot be read: is no XML (syntax error"),
        (xml(annotation(0, (0, 0, 9, 9)), size=("", 720)), "cannot be read: width is"),
        ("<annotation></annotation>", "width is missing, expected a number"),
        (xml(annotation("", (0, 0, 9, 9))), "object 1: trackid is missing"),
        (xml(annotation(0, ("a", 0, 9, 9))), "object 1: xmin is 'a', expected a"),
        (xml(annotation(0, ("nan", 0, 9, 9))), "object 1: xmin is 'nan'"),
        (xml(annotation(0, (0, 0, 9, 9), occluded="")), "object 1: occluded is miss"),
    ],
)
def test_an_unreadable_frame_is_lost_alone(tmp_path, text, reason):
    good = xml(annotation(0, (0, 0, 9, 9)))
    write_video(tmp_path, FIRST, good, text, good)
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert tracks[f"{FIRST}/00"].numbers.tolist() == [0, 2]
    assert rejection.file.endswith("00005000/000001.xml") and rejection.frame == 1
    assert reason in rejection.reason and rejection.records == 1


def test_a_bad_object_leaves_the_others_of_its_frame(tmp_path):
    box = (0, 0, 9, 9)
    bad = annotation(0, box).replace("<ymax>9</ymax>", "")
    write_video(tmp_path, FIRST, xml(bad, annotation(1, box)))
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert list(tracks) == [f"{FIRST}/01"]
    assert rejection.reason == "object 1: ymax is missing, expected a number"


def test_a_frame_of_another_size(tmp_path):
    box = annotation(0, (0, 0, 9, 9))
    write_video(tmp_path, FIRST, xml(box), xml(box, size=(640, 480)), xml(box))
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert tracks[f"{FIRST}/00"].numbers.tolist() == [0, 2]
    assert rejection.frame == 1 and "(640, 480)" in rejection.reason


def test_frames_without_annotation(tmp_path):
    write_two_sheep(tmp_path)
    touch_frames(tmp_path / "Data/VID" / FIRST, "%06d.JPEG", [4, 5])
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert len(tracks) == 2 and rejection.records == 2 and rejection.frame == 4
    assert rejection.reason == "has no file 000004.xml for a frame (2 in all)"


@pytest.mark.parametrize("kind", ["Data", "Annotations"])
def test_a_video_without_frames_or_annotations(tmp_path, kind):
    write_two_sheep(tmp_path)
    for path in (tmp_path / kind / "VID" / FIRST).iterdir():
        path.unlink()
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert not tracks and rejection.records == 4
    assert rejection.file == str(tmp_path / kind / "VID" / FIRST)


def test_a_folder_without_the_dataset(tmp_path):
    for raw in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(PreparationError, match="has no Annotations/VID"):
            read_all(DATASET, raw)
    write_two_sheep(tmp_path)
    with pytest.raises(PreparationError, match="no videos to val"):
        read_all(DATASET, tmp_path, split="val")


def test_boxes_are_not_rounded(tmp_path):
    write_video(tmp_path, FIRST, xml(annotation(0, (0.5, 0, 9, 9))))
    (track,) = read_all(DATASET, tmp_path)[0].values()
    np.testing.assert_array_equal(track.boxes, [[0.5, 0, 9.5, 10]])


def test_command(tmp_path):
    raw = tmp_path / "raw"
    write_two_sheep(raw)
    frames = raw / "Data/VID" / FIRST
    write_frames(frames, "%06d.JPEG", range(4), size=(1280, 720))
    bad = frames / "000001.JPEG"
    bad.write_bytes(bad.read_bytes()[:-1000])
    prepared = prepare("vid", raw, "--drawn-only", "--max-bad", "70%")
    assert targets(prepared) == {f"{FIRST}/00": [0]}
    assert prepared.index.visibility.tolist() == [0.5]
    rejected = json.loads((prepared.folder / "rejected.json").read_text())
    # Once for each target of the frame.
    assert [one["file"] for one in rejected] == [f"Data/VID/{FIRST}/000001.JPEG"] * 2
