import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_folders import write_sequence
from paths import SHARED
from siamrpn_jax.data.read.benchmark_lists import OTB_FRAMES
from siamrpn_jax.data.read.images import natural_sort
from siamrpn_jax.data.read.sequences import (
    SequenceError,
    _crosses_itself,
    find_sequences,
    play_there_and_back,
    polygon_to_ltwh,
    read_ground_truth,
    read_sequence,
)


def make(folder: Path, lines: list[str], *, frames="img", name="groundtruth.txt"):
    (folder / frames).mkdir(parents=True, exist_ok=True)
    for i in range(len(lines)):
        (folder / frames / f"{i + 1}.jpg").touch()
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder


coordinate = st.floats(-1e4, 1e4).map(lambda v: round(v, 3))
side = st.floats(0.01, 1e4).map(lambda v: round(v, 3))
rows = st.lists(st.tuples(coordinate, coordinate, side, side), min_size=1, max_size=9)


@settings(max_examples=40)
@given(rows, st.sampled_from([",", ", ", "\t", " ", "  "]), st.booleans())
def test_parses_what_was_written(tmp_path_factory, boxes, separator, one_based):
    name = "groundtruth_rect.txt" if one_based else "groundtruth.txt"
    path = tmp_path_factory.mktemp("gt") / name
    lines = (separator.join(map(repr, map(float, b))) for b in boxes)
    path.write_text("\n".join(lines) + "\n\n")
    expected = np.array(boxes) - np.array([1, 1, 0, 0]) * one_based
    np.testing.assert_allclose(read_ground_truth(path), expected)


@pytest.mark.parametrize("frames", ["img", "color", "."])
def test_layouts_and_natural_order(tmp_path, frames):
    make(tmp_path / "a", ["1,2,3,4"] * 11, frames=frames)
    sequence = read_sequence(tmp_path / "a")
    assert sequence.name == "a"
    assert [p.stem for p in sequence.frames] == [str(i) for i in range(1, 12)]
    assert sequence.boxes.shape == (11, 4)


def test_there_and_back(tmp_path):
    folder = make(tmp_path / "walk", [f"{i},2,3,4" for i in range(3)])
    sequence = play_there_and_back(read_sequence(folder), 2)
    assert sequence.name == "walk_x2"
    assert [f.stem for f in sequence.frames] == list("123212321")
    assert sequence.boxes[:, 0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1, 0]


def test_absent_frames_are_nan(tmp_path):
    path = tmp_path / "groundtruth_rect.txt"
    path.write_text("1,1,5,5\nnan,nan,nan,nan\n0,0,0,0\n3,3,5,5\n")
    boxes = read_ground_truth(path)
    np.testing.assert_array_equal(np.isnan(boxes).all(axis=1), [0, 1, 1, 0])
    np.testing.assert_array_equal(boxes[0], [0, 0, 5, 5])


@pytest.mark.parametrize(
    "line",
    ["1,1,0,0", "1,1,-1,-1", "-1,-1,-1,-1", "61,73,24,-11", "60,80,nan,nan"]
    + ["1,2,0,4", "1,2,3,-4", "1,nan,3,4", "0,0,0,0,1,0,1,0"],
)
def test_a_box_without_area_is_an_absent_target(tmp_path, line):
    """As LaSOT and others write it."""
    sequence = read_sequence(make(tmp_path / "a", ["1,2,3,4", line]))
    np.testing.assert_array_equal(np.isnan(sequence.boxes).all(axis=1), [0, 1])


@pytest.mark.parametrize(
    "line",
    ["1,2,inf,4", "1,2,3", "a,b,c,d", "", "1/2/3/4", "1,2 3,4", "1_0,2,3,4"],
)
def test_bad_lines_are_named(tmp_path, line):
    path = tmp_path / "groundtruth.txt"
    path.write_text(f"1,2,3,4\n{line}\n1,2,3,4\n")
    with pytest.raises(SequenceError, match=r"groundtruth\.txt:2"):
        read_ground_truth(path)


def test_polygons_are_in_files_of_vot_alone(tmp_path):
    polygon = "0,0,4,0,4,2,0,2"
    for name in ("groundtruth.txt", "groundtruth_rect.txt"):
        (tmp_path / name).write_text(f"{polygon}\n")
    assert read_ground_truth(tmp_path / "groundtruth.txt").shape == (1, 4)
    with pytest.raises(SequenceError, match=r"8 values in .*expected 4 \(x,y,w,h\)$"):
        read_ground_truth(tmp_path / "groundtruth_rect.txt")


def test_an_empty_one_of_several_ground_truths_is_left_out(tmp_path):
    """OTB's Human4."""
    folder = make(tmp_path / "Human4", ["1,2,3,4"], name="groundtruth_rect.2.txt")
    (folder / "groundtruth_rect.1.txt").touch()
    assert find_sequences(tmp_path) == [folder / "groundtruth_rect.2.txt"]


def test_a_known_part_of_a_folder_is_that_of_the_benchmark(tmp_path):
    """OTB's Tiger1 begins with its sixth frame, annotated from the first or not."""
    first, last = OTB_FRAMES["Tiger1"]
    for lines in (last, last - first + 1):
        folder = make(tmp_path / f"{lines}" / "Tiger1", [], name="groundtruth_rect.txt")
        for number in range(1, last + 1):
            (folder / "img" / f"{number:04d}.jpg").touch()
        (folder / "groundtruth_rect.txt").write_text("11,2,3,4\n" * lines)
        sequence = read_sequence(folder)
        assert len(sequence.frames) == len(sequence.boxes) == last - first + 1
        assert sequence.frames[0].name == f"{first:04d}.jpg"


def test_decimal_commas_between_semicolons(tmp_path):
    path = tmp_path / "groundtruth.txt"
    path.write_text("1,5;2;3,25;4\n")
    np.testing.assert_array_equal(read_ground_truth(path), [[1.5, 2, 3.25, 4]])


def test_a_line_of_names_decides(tmp_path):
    folder = make(tmp_path / "a", ["x1,y1,x2,y2", "1,2,11,22", "0,0,0,0"])
    (folder / "img" / "3.jpg").unlink()
    boxes = read_sequence(folder).boxes
    np.testing.assert_array_equal(boxes, [[1, 2, 10, 20], [np.nan] * 4])
    (folder / "groundtruth.txt").write_text("frame,x,y,w,h\n1,1,2,3,4\n2,1,2,3,4\n")
    assert read_sequence(folder).boxes.shape == (2, 4)
    (folder / "groundtruth.txt").write_text("track,x,y,w,h\n1,1,2,3,4\n2,1,2,3,4\n")
    with pytest.raises(SequenceError, match="names columns beside x,y,w,h"):
        read_sequence(folder)


def test_columns_say_that_a_target_is_absent(tmp_path):
    path = tmp_path / "groundtruth.txt"
    for name, (there, gone) in {"lost": "01", "visible": "10", "present": "10"}.items():
        path.write_text(f"x,y,w,h,{name}\n1,2,3,4,{there}\n1,2,3,4,{gone}\n")
        np.testing.assert_array_equal(
            read_ground_truth(path), [[1, 2, 3, 4], [np.nan] * 4]
        )


@pytest.mark.parametrize("names", ["frame,x,y,w,h", "lost,x,y,w,h"])
def test_empty_lines_within_a_table_are_named(tmp_path, names):
    path = tmp_path / "groundtruth.txt"
    path.write_text(f"{names}\n0,1,2,3,4\n\n1,5,6,7,8\n\n\n")
    with pytest.raises(SequenceError, match=r"groundtruth.txt:3: is empty, expected"):
        read_ground_truth(path)
    faults: dict[int, str] = {}
    assert len(read_ground_truth(path, faults=faults)) == 3
    assert list(faults) == [1]


def test_corners_from_bottom_right_are_named(tmp_path):
    path = tmp_path / "groundtruth.txt"
    path.write_text("x1,y1,x2,y2\n1,2,11,22\n11,22,1,2\n")
    with pytest.raises(SequenceError, match=r"txt:3: .* from top left to bottom right"):
        read_ground_truth(path)


def test_polygons_whose_sides_cross_are_named(tmp_path):
    """Decimal commas between commas, and corners row by row."""
    path = tmp_path / "groundtruth.txt"
    for line in ("12,5,30,7,40,2,50,9", "0,0,9,0,0,9,9,9"):
        path.write_text(f"0,0,9,0,9,9,0,9\n{line}\n")
        with pytest.raises(SequenceError, match="txt:2: the sides of polygon .* cross"):
            read_ground_truth(path)


pixels = st.floats(1, 999)


@given(st.tuples(coordinate, coordinate), pixels, pixels, st.floats(0, 7))
def test_sides_of_rectangles_do_not_cross(corner, w, h, angle):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = np.array([[0, 0], [w, 0], [w, h], [0, h]]) @ turn + corner
    assert not _crosses_itself(corners.round(2).ravel())


def test_corners_are_not_taken_as_sizes(tmp_path):
    corners = [f"{5 + t},{4 + t},{25 + t},{14 + t}" for t in range(6)]
    with pytest.raises(SequenceError, match="fit as corners x1,y1,x2,y2"):
        read_sequence(make(tmp_path / "a", corners))


def test_fractions_are_no_pixels(tmp_path):
    folder = make(tmp_path / "a", ["0.1,0.2,0.3,0.4", "nan,nan,nan,nan"])
    with pytest.raises(SequenceError, match=r"txt: its boxes look like fractions"):
        read_sequence(folder)


LASOT = r"of LaSOT, .*--benchmark lasot \(testing_set.txt .*, or data_prep/lasot.py"
GOT10K = r"of GOT-10k, .*--benchmark got10k-val \(val/.*, or data_prep/got10k.py"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        *((file, LASOT) for file in ("full_occlusion.txt", "nlp.txt")),
        *((file, GOT10K) for file in ("absence.label", "meta_info.ini")),
    ],
)
def test_sequences_of_benchmarks_with_files_of_their_own(tmp_path, file, message):
    """Their boxes would be a pixel off, and absent targets in them."""
    folder = make(tmp_path / "a", ["1,2,3,4"])
    (folder / file).write_text("0\n")
    with pytest.raises(SequenceError, match=f"has {file}, so it is {message}"):
        read_sequence(folder)


def test_boxes_of_frames_of_another_size_are_refused(tmp_path):
    write_sequence(tmp_path / "a", 2, length=2)  # of 160x120 pixels
    path = tmp_path / "a/groundtruth.txt"
    names = "x,y,w,h,image_width,image_height"
    path.write_text("\n".join([names, *["1,2,30,40,160,120"] * 2]))
    assert len(read_sequence(path).boxes) == 2
    path.write_text("\n".join([names, "1,2,30,40,160,120", "1,2,30,40,320,240"]))
    message = r"txt:3: 0001\.png is 160x120 pixels, annotated are 320x240"
    with pytest.raises(SequenceError, match=message):
        read_sequence(path)


def test_a_table_of_another_film_is_refused(tmp_path):
    write_sequence(tmp_path / "a", 2, length=2)
    path = tmp_path / "a/groundtruth.txt"
    for name in ("a.mp4", "films/a.mov", "s7"):
        path.write_text("\n".join(["x,y,w,h,video", *[f"1,2,30,40,{name}"] * 2]))
        assert len(read_sequence(path).boxes) == 2
    path.write_text("\n".join(["x,y,w,h,video", *["1,2,30,40,b.mp4"] * 2]))
    message = r"txt: line 2 is of 'b.mp4', expected a film a, as the folder is called"
    with pytest.raises(SequenceError, match=message):
        read_sequence(path)
    with pytest.raises(SequenceError, match="expected a film a"):
        read_sequence(os.path.relpath(path))


def test_sizes_in_one_column_are_refused(tmp_path):
    folder = make(tmp_path, ["x,y,w,h,resolution", "1,2,3,4,320x240"])
    with pytest.raises(SequenceError, match="'resolution' is not understood, expected"):
        read_sequence(folder)


def test_boxes_that_may_be_percent_are_a_warning(tmp_path, caplog):
    (tmp_path / "img").mkdir()
    for number in (1, 2):
        cv2.imwrite(str(tmp_path / f"img/{number}.png"), np.zeros((240, 320), np.uint8))
    path = tmp_path / "groundtruth.txt"
    for row in ("10.5,20,30,40", "nan,nan,nan,nan"):
        path.write_text(f"60.5,20,39,40\n{row}\n")
        read_sequence(tmp_path)
        message = f"{path}: all its boxes lie in the first 100 of 320x240 pixels"
        assert message in caplog.text
        caplog.clear()
    for rows in ("60.5,20,39,40\n90.5,20,30,40", "60,20,39,40\n10,20,30,40"):
        path.write_text(rows)
        read_sequence(tmp_path)
    assert not caplog.text


def test_what_is_half_downloaded_is_named(tmp_path, caplog):
    make(tmp_path / "a", ["1,2,3,4"] * 2)
    (tmp_path / "data.zip").touch()  # extracted: the folder is there
    (tmp_path / "data").mkdir()
    (tmp_path / "labelled/img").mkdir(parents=True)
    (tmp_path / "labelled.csv").touch()
    assert find_sequences(tmp_path) == [tmp_path / "a"] and not caplog.text
    (tmp_path / "b/img").mkdir(parents=True)
    (tmp_path / "b/groundtruth.txt.part").touch()
    (tmp_path / "more.zip.crdownload").touch()
    assert find_sequences(tmp_path) == [tmp_path / "a"]
    packed, bare = caplog.messages
    assert packed == (
        f"{tmp_path}: 2 files are archives or unfinished downloads, left out: "
        "more.zip.crdownload, b/groundtruth.txt.part"
    )
    assert bare == (
        f"{tmp_path}: 1 folders have frames and no groundtruth.txt: no sequences: b"
    )


def test_what_is_packed_is_told_where_something_is_missing(tmp_path):
    folder = make(tmp_path / "a", ["1,2,3,4"] * 2)
    image = folder / "img/2.jpg"
    image.rename(folder / "img/2.jpg.part")
    message = f"1 frames but 2 lines.*; {image}.part is no finished download: fetch it"
    with pytest.raises(SequenceError, match=message):
        read_sequence(folder)
    for file in (folder / "img").iterdir():
        file.unlink()
    (folder / "img").rmdir()
    (folder / "img.zip").touch()
    with pytest.raises(
        SequenceError, match=r"no frames.*; .*img.zip is an archive: ex"
    ):
        read_sequence(folder)
    (folder / "groundtruth.txt").unlink()
    with pytest.raises(SequenceError, match=r"no sequence.*; .*img.zip is an archive"):
        find_sequences(tmp_path)


def test_images_that_lie_too_deep_are_told_of(tmp_path):
    folder = make(tmp_path / "a", ["1,2,3,4"] * 2)
    (folder / "img").rename(folder / "images")
    with pytest.raises(SequenceError, match="no frames.*; .*a/images holds images: 2"):
        read_sequence(folder)
    (folder / "img").mkdir()
    (folder / "images").rename(folder / "img/img")
    with pytest.raises(SequenceError, match="no frames.*; .*a/img/img holds images: 2"):
        read_sequence(folder)


def test_bad_lines_can_be_collected(tmp_path):
    folder = make(tmp_path / "a", ["1,2,3,4", "1,2,3", "nan,nan,nan,nan", "1,2,3,x"])
    faults: dict[int, str] = {}
    sequence = read_sequence(folder, faults=faults)
    assert list(faults) == [1, 3]
    assert faults[1].startswith("3 values in '1,2,3'")
    np.testing.assert_array_equal(np.isnan(sequence.boxes[:, 0]), [False] + [True] * 3)
    with pytest.raises(SequenceError, match=r"groundtruth.txt:2: 3 values"):
        read_sequence(folder)


def test_count_mismatch_gives_both_counts(tmp_path):
    make(tmp_path, ["1,2,3,4"] * 5)
    (tmp_path / "img" / "6.jpg").touch()
    with pytest.raises(SequenceError, match="6 frames but 5 lines"):
        read_sequence(tmp_path)


def test_missing_parts_are_named(tmp_path):
    with pytest.raises(SequenceError, match="no such folder"):
        read_sequence(tmp_path / "none")
    with pytest.raises(SequenceError, match="no ground truth"):
        read_sequence(tmp_path)
    (tmp_path / "groundtruth.txt").write_text("1,2,3,4\n")
    with pytest.raises(SequenceError, match="no frames"):
        read_sequence(tmp_path)
    (tmp_path / "groundtruth.txt").write_text("")
    with pytest.raises(SequenceError, match="is empty"):
        read_sequence(tmp_path)
    (tmp_path / "groundtruth.txt").write_bytes(b"\xff\xfa\x00\x80")
    with pytest.raises(SequenceError, match="text"):
        read_sequence(tmp_path)


def test_find_sequences(tmp_path):
    with pytest.raises(SequenceError, match="no such folder"):
        find_sequences(tmp_path / "none")
    with pytest.raises(SequenceError, match="holds no sequence"):
        find_sequences(tmp_path)
    for name in ("b/s10", "b/s9", "a"):
        make(tmp_path / name, ["1,2,3,4"])
    found = [p.relative_to(tmp_path).as_posix() for p in find_sequences(tmp_path)]
    assert found == ["a", "b/s9", "b/s10"]
    assert find_sequences(tmp_path / "a") == [tmp_path / "a"]


@pytest.mark.parametrize("numbers", [(1, 2), (2,)])
def test_numbered_ground_truth_is_a_sequence_each(tmp_path, numbers):
    for n in numbers:
        name = f"groundtruth_rect.{n}.txt"
        folder = make(tmp_path / "Jogging", [f"{n},2,3,4"] * 3, name=name)
    found = find_sequences(tmp_path)
    assert [p.name for p in found] == [f"groundtruth_rect.{n}.txt" for n in numbers]
    for path, n in zip(found, numbers, strict=True):
        sequence = read_sequence(path)
        assert sequence.name == f"Jogging-{n}" and len(sequence.frames) == 3
        np.testing.assert_array_equal(sequence.boxes[0], [n - 1, 1, 3, 4])
    with pytest.raises(
        SequenceError, match=rf"has .*rect\.{numbers[-1]}\.txt; expected"
    ):
        read_sequence(folder)


def test_annotations_of_a_range_of_frames(tmp_path):
    name, first, last = "David", *OTB_FRAMES["David"]
    lines = ["1,1,5,5"] * (last - first + 1)
    folder = make(tmp_path / name, lines, name="groundtruth_rect.txt")
    assert len(read_sequence(folder).frames) == 471  # of a copy without the others
    for i in range(len(lines), last):
        (folder / "img" / f"{i + 1}.jpg").touch()
    frames = read_sequence(folder).frames
    assert [frames[0].stem, frames[-1].stem] == ["300", "770"] and len(frames) == 471
    folder.rename(tmp_path / "other")
    with pytest.raises(SequenceError, match="770 frames but 471 lines"):
        read_sequence(tmp_path / "other")


def test_links_are_followed_once(tmp_path):
    make(tmp_path / "far" / "a", ["1,2,3,4"])
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "far", target_is_directory=True)
    (root / "same").symlink_to(tmp_path / "far", target_is_directory=True)
    (tmp_path / "far" / "loop").symlink_to(root, target_is_directory=True)
    assert find_sequences(root) == [root / "link" / "a"]


def test_folders_that_cannot_be_read_are_told(tmp_path, monkeypatch, caplog):
    for name in ("a", "b"):
        make(tmp_path / name, ["1,2,3,4"])
    scandir = os.scandir

    def forbid(path):
        if Path(path) == tmp_path / "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbid)
    assert find_sequences(tmp_path) == [tmp_path / "a"]
    assert f"{tmp_path / 'b'}: left out: cannot be read (Permission" in caplog.text


def test_natural_sort_mixes_words_and_numbers():
    names = ["10.jpg", "x.jpg", "2.jpg", "02.jpg"]
    expected = ["02.jpg", "2.jpg", "10.jpg", "x.jpg"]
    assert [p.name for p in natural_sort(map(Path, names))] == expected


@given(
    st.floats(-np.pi, np.pi),
    st.floats(1, 50),
    st.floats(1, 50),
    st.floats(-99, 99),
    st.floats(-99, 99),
)
def test_polygon_keeps_centre_and_area(angle, w, h, cx, cy):
    c, s = np.cos(angle), np.sin(angle)
    corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2
    polygon = corners @ np.array([[c, s], [-s, c]]) + [cx, cy]
    x, y, bw, bh = polygon_to_ltwh(polygon.ravel())
    np.testing.assert_allclose([x + bw / 2, y + bh / 2], [cx, cy], atol=1e-6)
    np.testing.assert_allclose(bw * bh, w * h, rtol=1e-6)
    np.testing.assert_allclose(bw / bh, np.divide(*np.ptp(polygon, axis=0)), rtol=1e-6)


def test_upright_polygon_is_its_box(tmp_path):
    path = tmp_path / "groundtruth.txt"
    path.write_text("10,20,40,20,40,60,10,60\n")
    np.testing.assert_allclose(read_ground_truth(path), [[10, 20, 30, 40]])


@pytest.mark.skipif(not SHARED.is_dir(), reason="skipped: no ../shared")
def test_reads_the_development_sequences():
    folders = find_sequences(SHARED / "data" / "dev_sequences")
    read = [read_sequence(folder) for folder in folders]
    assert len(read) == 12
    assert sum(len(s.frames) for s in read) == 1008
    car = read[[s.name for s in read].index("vot_car")]
    polygons = np.loadtxt(
        SHARED / "data/dev_sequences/vot_car/groundtruth_polygon.txt", delimiter=","
    )
    boxes = np.array([polygon_to_ltwh(p) for p in polygons])
    assert np.abs(boxes - car.boxes).max() < 1  # theirs adds a pixel of the original
