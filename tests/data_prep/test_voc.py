import json

import numpy as np
import pytest

from data_prep.tracks import PreparationError
from data_prep.vid import OCCLUDED
from data_prep.voc import DATASET
from raw_folders import (
    prepare,
    read_all,
    real_sequence,
    targets,
    write_frames,
    write_lines,
)
from siamrpn_jax.data.read.images import read_size

HEAD = """\
<annotation>
	<folder>VOC2007</folder>
	<filename>{}.jpg</filename>
	<source>
		<database>The VOC2007 Database</database>
	</source>
	<size>
		<width>{}</width>
		<height>{}</height>
		<depth>3</depth>
	</size>
	<segmented>0</segmented>
"""

PART = """\
		<part>
			<name>head</name>
			<bndbox>
				<xmin>11</xmin>
				<ymin>12</ymin>
				<xmax>13</xmax>
				<ymax>14</ymax>
			</bndbox>
		</part>
"""


def item(corners, *, name="dog", truncated=0, difficult=0, extra="", before=""):
    x0, y0, x1, y1 = corners
    return f"""\
	<object>
		<name>{name}</name>
		<pose>Left</pose>
		<truncated>{truncated}</truncated>
		<difficult>{difficult}</difficult>
{before}		<bndbox>
			<xmin>{x0}</xmin>
			<ymin>{y0}</ymin>
			<xmax>{x1}</xmax>
			<ymax>{y1}</ymax>
		</bndbox>
{extra}	</object>
"""


def write_image(year_folder, key, *objects, size=(64, 48)):
    text = HEAD.format(key, *size) + "".join(objects) + "</annotation>"
    write_lines(year_folder / "Annotations" / f"{key}.xml", text)


def write_list(year_folder, *keys, split="trainval"):
    write_lines(year_folder / f"ImageSets/Main/{split}.txt", *keys)


def test_boxes_count_from_1_and_include_their_last_pixel(tmp_path):
    folder = tmp_path / "VOCdevkit/VOC2007"
    write_list(folder, "000005", "000007")
    write_image(
        folder, "000005", item((1, 1, 64, 48)), item((9, 11, 9, 12), name="cow")
    )
    write_image(folder, "000007", size=(10, 20))
    tracks, rejections = read_all(DATASET, tmp_path)
    assert not rejections and list(tracks) == ["000005#0", "000005#1"]
    first, second = tracks.values()
    np.testing.assert_array_equal(first.boxes, [[0, 0, 64, 48]])
    np.testing.assert_array_equal(second.boxes, [[8, 10, 1, 2]])
    assert (first.category, second.category) == ("dog", "cow")
    assert first.frames == [folder / "JPEGImages/000005.jpg"]
    assert first.size == (64, 48) and first.video == second.video == "000005"


def test_boxes_of_parts_are_not_those_of_objects(tmp_path):
    write_list(tmp_path / "VOC2012", "2008_000008")
    write_image(
        tmp_path / "VOC2012",
        "2008_000008",
        item((45.7, 2, 50, 9.3), before=PART, extra=PART),
    )
    (track,) = read_all(DATASET, tmp_path)[0].values()
    np.testing.assert_allclose(track.boxes, [[44.7, 1, 5.3, 8.3]])


def test_marks(tmp_path):
    occluded = "\t\t<occluded>1</occluded>\n"
    write_list(tmp_path / "VOC2012", "a")
    write_image(
        tmp_path / "VOC2012",
        "a",
        item((1, 1, 9, 9), difficult=1, truncated=1),
        item((1, 1, 9, 9), truncated=1),
        item((1, 1, 9, 9), extra=occluded),
        item((1, 1, 9, 9)),
    )
    tracks, rejections = read_all(DATASET, tmp_path)
    seen = {name: track.visibility.tolist() for name, track in tracks.items()}
    assert seen == {"a#1": [OCCLUDED], "a#2": [OCCLUDED], "a#3": [1]}
    assert not rejections
    assert "a#0" in read_all(DATASET, tmp_path, difficult=True)[0]


def rotated(rotation):
    other = "<attribute><name>keyframe</name><value>True</value></attribute>"
    own = f"<attribute><name>rotation</name><value>{rotation}</value></attribute>"
    return f"<attributes>{other}{own}</attributes>"


def test_rotated_boxes_of_cvat_are_turned_about_their_middle(tmp_path):
    corners = (21, 19, 50, 30)
    write_list(tmp_path / "VOC2012", "a")
    write_image(
        tmp_path / "VOC2012",
        "a",
        *(item(corners, extra=rotated(value)) for value in ("90.0", "0.0", "left")),
        item((21, 19, 10, 30), extra=rotated(45)),  # no box: for the writer to reject
    )
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    first, second, third = tracks.values()
    np.testing.assert_allclose(first.boxes, [[29, 9, 12, 30]])
    (outline,) = first.outlines[0]
    np.testing.assert_allclose(outline, [[41, 9], [41, 39], [29, 39], [29, 9]])
    np.testing.assert_array_equal(second.boxes, [[20, 18, 30, 12]])
    np.testing.assert_array_equal(third.boxes, [[20, 18, -10, 12]])
    assert not second.outlines and not third.outlines
    assert rejection.reason == "object 2: rotation 'left', expected degrees"


def test_years_and_splits(tmp_path):
    devkit = tmp_path / "VOCdevkit"
    for year, key in (("2007", "000005"), ("2012", "2008_000008")):
        write_list(devkit / f"VOC{year}", key)
        write_list(devkit / f"VOC{year}", f"{key} 1", split="val")
        write_image(devkit / f"VOC{year}", key, item((1, 1, 9, 9)))
    both = ["000005#0", "2008_000008#0"]
    assert list(read_all(DATASET, tmp_path)[0]) == both
    assert list(read_all(DATASET, devkit, split="val")[0]) == both
    assert list(read_all(DATASET, tmp_path, year="2012")[0]) == both[1:]
    assert list(read_all(DATASET, devkit / "VOC2007")[0]) == both[:1]
    with pytest.raises(PreparationError, match="has no VOC2007/.*/test.txt"):
        read_all(DATASET, tmp_path, year="2007", split="test")
    with pytest.raises(PreparationError, match="has no VOC2007/.* or VOC2012/"):
        read_all(DATASET, tmp_path / "nowhere")
    write_list(devkit / "VOC2007", "")
    with pytest.raises(PreparationError, match="trainval.txt: names no images"):
        read_all(DATASET, devkit / "VOC2007")


def test_unreadable_annotations_are_rejections(tmp_path):
    folder = tmp_path / "VOC2007"
    write_list(folder, "1", "2", "3", "4")
    write_lines(folder / "Annotations/2.xml", "<annotation><object>")
    write_image(
        folder, "3", item((1, "one", 9, 9)), "<object><name>cow</name></object>"
    )
    write_image(folder, "4", item((1, 1, 9, 9)))
    tracks, rejections = read_all(DATASET, tmp_path)
    assert list(tracks) == ["4#0"]
    assert [one.reason.partition("(")[0] for one in rejections] == [
        "cannot be read ",
        "is no XML ",
        "object 0 has no bndbox with xmin, ymin, xmax, ymax",
        "object 1 has no bndbox with xmin, ymin, xmax, ymax",
    ]
    files = [one.file.rpartition("/")[2] for one in rejections]
    assert files == ["1.xml", "2.xml", "3.xml", "3.xml"]


def test_command(tmp_path):
    folder = tmp_path / "raw/VOCdevkit/VOC2007"
    write_list(folder, "000005", "000007")
    write_image(folder, "000005", item((1, 1, 64, 48)), item((50, 40, 70, 60)))
    write_image(folder, "000007", item((1, 1, 64, 48)), size=(48, 64))
    write_frames(folder / "JPEGImages", "%06d.jpg", [5, 7])
    prepared = prepare("voc", tmp_path / "raw", "--max-bad", "40%")
    assert targets(prepared) == {"000005#0": [0], "000005#1": [0]}
    sizes = prepared.index.sizes / prepared.index.scales[:, None]
    np.testing.assert_allclose(sizes, [[64, 48], [15, 9]], rtol=1e-5)
    (rejected,) = json.loads((prepared.folder / "rejected.json").read_text())
    assert rejected["file"] == "VOCdevkit/VOC2007/JPEGImages/000007.jpg"
    assert "48x64" in rejected["reason"]


def test_command_on_a_real_image(tmp_path):
    frames, boxes = real_sequence("otb_Basketball")
    folder = tmp_path / "raw/VOC2007"
    x, y, w, h = boxes[0]
    corners = (x + 1, y + 1, x + w, y + h)
    write_list(folder, "000005")
    write_image(folder, "000005", item(corners), size=read_size(frames[0]))
    (folder / "JPEGImages").mkdir()
    (folder / "JPEGImages/000005.jpg").write_bytes(frames[0].read_bytes())
    prepared = prepare("voc", tmp_path / "raw")
    np.testing.assert_allclose(prepared[0].size / prepared[0].scale, [w, h], 1e-5)
