import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siamrpn_jax.data.read.tables import (
    TableError,
    check_sizes,
    find_columns,
    normal_name,
    read_table,
    same_fault_in_all,
    split_fields,
)


def table(tmp_path, *lines: str, name="a.csv"):
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n")
    return read_table(path)


@pytest.mark.parametrize(
    ("line", "keys", "form"),
    [
        ("10,20,30,40", "", "ltwh"),
        ("0 10 20 30 40", "frame", "ltwh"),
        ("0,the cat,10,20,30,40", "frame track", "ltwh"),
        ("frame_id,x,y,w,h", "frame", "ltwh"),
        ("Frame #,Track ID,BB Left,bb top,bb width,bb height", "frame track", "ltwh"),
        ("frameno\tid\tx1\ty1\tx2\ty2", "frame track", "corners"),
        ("frame;target;left;top;width;height", "frame track", "ltwh"),
        (
            "filename,width,height,class,xmin,ymin,xmax,ymax",
            "category image",
            "corners",
        ),
        ("time,object,x,y,w,h", "time track", "ltwh"),
        ("frameNumber,bboxX,bboxY,bboxW,bboxH", "frame", "ltwh"),
        ("frame,track,cx,cy,w,h", "frame track", "cxcywh"),
        ("frame,object,x,y,w,h,score,confidence,lost", None, "ltwh"),
        ('"frame","X (px)","Y (px)","W (px)","H (px)"', "frame", "ltwh"),
        ("frame,x,y,w,h,occluded,image_width", "frame", "ltwh"),
        (",frame,x,y,w,h", "frame", "ltwh"),
    ],
)
def test_columns_that_are_understood(line, keys, form):
    columns = find_columns(split_fields(line))
    assert columns.form == form
    if keys is not None:
        assert sorted(columns.keys) == keys.split()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("frame,index,x,y,w,h", "column 'index' is not understood, expected x,y,w,h"),
        ("frame,playerId,x,y,w,h", "column 'playerId' is not understood"),
        ("frame,x,y,w,h,x2,y2", "column 'x2' is not understood"),
        ("x1,y1,x2,y2,x3,y3,x4,y4", "column 'x3' is not understood"),
        ("frame,frame_id,x,y,w,h", "'frame' and 'frame_id' both name the frame"),
        ("id,frame,object,x,y,w,h", "'id' and 'object' both name the track"),
        ("x,y,w,h,cx,cy", "expected one reading of the boxes"),
        ("x,y,w,h,x", "column 'x' occurs twice"),
        ("frame,track", "no box, expected x,y,w,h"),
        ("1,2,3,4,5,6,7,8", "8 columns without names"),
        ("1,2,3", "3 columns without names"),
        ("frame,x,y,w,h,status", "column 'status' is not understood, expected x,y,w,h"),
        ("frame,x,y,w,h,State", "column 'State' is not understood"),
        ("frame,x,y,w,h,ignore", "column 'ignore' is not understood"),
        ("frame,x,y,w,h,alive", "column 'alive' is not understood"),
        ("frame,x,y,w,h,is_active", "column 'is_active' is not understood"),
        ("frame,x,y,w,h,out", "column 'out' is not understood"),
        ("frame,x,y,w,h,trackingOk", "column 'trackingOk' is not understood"),
        ("frame,x,y,w,h,not_found", "column 'not_found' is not understood"),
        ("frame,x,y,w,h,hidden,deleted", "'hidden' and 'deleted' both name the lost"),
        ("frame,x (%),y (%),w (%),h (%)", r"'x \(%\)' has the unit '%', expected pix"),
        ("frame,x,y,w %,h %", "'w %' has the unit '%', expected pixels"),
        ("frame,x [cm],y [cm],w,h", r"'x \[cm\]' has the unit 'cm', expected pixels"),
        ("time (ms),x,y,w,h", r"'time \(ms\)' has the unit 'ms', expected seconds"),
        ("frame (from 1),x,y,w,h", "has the unit 'from 1', expected none"),
        ("x,y,w,h,confidence (%)", "has the unit '%', expected none"),
        ("x,y,w,h,img_w,img_h,video_width,video_height", "one size of the picture"),
    ],
)
def test_columns_that_are_refused(line, message):
    with pytest.raises(TableError, match=message):
        find_columns(split_fields(line))


@pytest.mark.parametrize(
    "line",
    [
        "time (s),X [px],Y [px],W (pixels),H (pixel)",
        "frame (#),x,y,w,h,speed (km/h),battery %",
        "timestamp_ms [ms],x,y,w,h,angle (deg)",
    ],
)
def test_units_that_are_read_or_of_no_matter(line):
    assert find_columns(split_fields(line)).form == "ltwh"


def test_names_are_compared_by_their_words():
    names = ["Frame #", "frameNumber", "FRAME_NO", "BBox X", "w [px]", "track-id"]
    wanted = ["frame", "frame_number", "frame_no", "x", "w", "track_id"]
    assert [normal_name(name) for name in names] == wanted


coordinate = st.integers(0, 500)
sides = st.integers(1, 300)


@given(
    st.lists(st.tuples(coordinate, coordinate, sides, sides), min_size=1, max_size=6)
)
def test_all_forms_give_the_same_boxes(tmp_path_factory, boxes):
    folder = tmp_path_factory.mktemp("forms")
    forms = {
        "x,y,w,h": lambda x, y, w, h: (x, y, w, h),
        "x1,y1,x2,y2": lambda x, y, w, h: (x, y, x + w, y + h),
        "cx,cy,w,h": lambda x, y, w, h: (x + w / 2, y + h / 2, w, h),
    }
    for names, convert in forms.items():
        rows = [",".join(map(str, convert(*box))) for box in boxes]
        np.testing.assert_array_equal(table(folder, names, *rows).boxes, boxes)


def test_what_else_a_row_says(tmp_path):
    found = table(
        tmp_path,
        "Frame;Label;Id;X;Y;W;H;Lost;Confidence",
        "3;red car;7;1,5;2;30;40;0;0,25",
        "5.0;;a;;;;;true;",
    )
    first, second = found.rows
    assert (first.frame, first.category, first.track) == (3, "red car", "7")
    assert (first.ltwh, first.lost, first.confidence) == ((1.5, 2, 30, 40), False, 0.25)
    assert (second.frame, second.lost, second.confidence) == (5, True, None)
    assert np.isnan(second.ltwh).all()


@pytest.mark.parametrize(
    "name", ["visible", "Present", "in_view", "visibility", "onScreen"]
)
def test_what_is_not_visible_has_no_box(tmp_path, name):
    cells = ["1", "0", "", "true", "no", "0.25", "2", "partly"]
    rows = [f"{i},10,20,30,40,{cell}" for i, cell in enumerate(cells)]
    found = table(tmp_path, f"frame,x,y,w,h,{name}", *rows)
    assert [row.visibility for row in found.rows] == [1, 0, 1, 1, 0, 0.25]
    absent = np.isnan(found.boxes).all(axis=1)
    assert absent.tolist() == [row.visibility == 0 for row in found.rows]
    assert list(found.faults) == [8, 9]
    assert found.faults[9].endswith(f"expected 0 to 1 as {name}")


PRESENCE = "valid is_valid exist tracked tracking found detected success enabled"


@pytest.mark.parametrize("name", PRESENCE.split())
def test_what_is_not_found_has_no_box(tmp_path, name):
    cells = ["1", "0", "True", "false", "1.0", "0.0", "", "0.5", "lost"]
    rows = [f"{i},10,20,30,40,{cell}" for i, cell in enumerate(cells)]
    found = table(tmp_path, f"frame,x,y,w,h,{name}", *rows)
    assert [row.visibility for row in found.rows] == [1, 0, 1, 0, 1, 0, 1]
    assert np.isnan(found.boxes[:, 0]).tolist() == [bool(i % 2) for i in range(6)] + [0]
    assert list(found.faults) == [9, 10]
    assert found.faults[9].endswith(f"expected 0 or 1 as {name}")


@pytest.mark.parametrize(
    "name",
    [
        *("absence", "hidden", "missing", "deleted", "Full Occlusion", "out_of_frame"),
        *("gone", "hasDisappeared", "Off-screen", "has_left"),
    ],
)
def test_what_is_not_there_is_lost(tmp_path, name):
    rows = [f"{i},10,20,30,40,{cell}" for i, cell in enumerate("01")]
    found = table(tmp_path, f"frame,x,y,w,h,{name}", *rows, "2,10,20,30,40,some")
    assert [row.lost for row in found.rows] == [False, True]
    assert found.faults[4].endswith(f"expected 0 or 1 as {name}")


def test_a_partial_occlusion_is_no_absence(tmp_path):
    found = table(tmp_path, "frame,x,y,w,h,occluded,occlusion", "0,1,2,3,4,1,.9")
    assert (found.rows[0].lost, found.rows[0].visibility) == (False, 1)


@pytest.mark.parametrize(
    "names",
    ["x,y,w,h,image_width,image_height", "xmin,ymin,xmax,ymax,width,height"],
)
def test_the_size_of_the_picture(tmp_path, names):
    rows = ["1,2,30,40,180,120", "1,2,30,40,180.0,120", "1,2,30,40,,"]
    rows.append("-1,-1,-1,-1,-1,-1")
    found = table(tmp_path, names, *rows, "1,2,30,40,180,wide", "1,2,30,40,-180,120")
    assert [row.size for row in found.rows] == [(180, 120)] * 2 + [None] * 2
    assert list(found.faults) == [6, 7]
    assert "expected a width and a height as" in found.faults[6]


def test_width_and_height_beside_corners_may_be_of_the_box(tmp_path):
    names = "x1,y1,x2,y2,width,height"
    rows = ["10,20,40,60,30,40", "10,20,39,59,30,40", "0,0,0,0,0,0", "5,5,9.4,9,4,4"]
    found = table(tmp_path, names, *rows, "10,20,40,60,60,40")
    assert len(found.rows) == 4 and not any(row.size for row in found.rows)
    assert found.faults == {6: "line 6: is 60x40, expected 30x40 between its corners"}
    # One box that fills the picture does not make it the size of boxes.
    found = table(tmp_path, names, *["1,2,30,40,180,120"] * 2, "0,0,180,120,180,120")
    assert {row.size for row in found.rows} == {(180, 120)} and not found.faults


@pytest.mark.parametrize("name", ["video", "Video Name", "sequence", "camera", "clip"])
def test_a_table_is_of_one_video(tmp_path, name):
    names, rows = f"{name},frame,x,y,w,h", ["a.mp4,0,1,2,3,4", "a.mp4,1,1,2,3,4"]
    assert len(table(tmp_path, names, *rows).rows) == 2
    message = f"'{name}' is 'a.mp4' in line 2 and 'b.mp4' in line 4, expected a table"
    with pytest.raises(TableError, match=message):
        table(tmp_path, names, *rows, "b.mp4,2,1,2,3,4", "a.mp4,3,1,2,3,4")


@pytest.mark.parametrize(
    "row", ["{},{},20,30,40,7", "{},{}.25,20,30,40,{}", "{},{},20,30,40,0"]
)
def test_six_columns_whose_second_is_no_target(tmp_path, row):
    rows = [row.format(i, 100 + i, 1 + i % 2) for i in range(6)]
    with pytest.raises(TableError, match="its second column is another in most lines"):
        table(tmp_path, *rows)
    named = table(tmp_path, "frame,x,y,w,h,id", *rows)
    assert [row.ltwh[2] for row in named.rows] == [30] * 6


def test_six_columns_of_many_targets(tmp_path):
    """Boxes of one height, a target to each of their few frames."""
    rows = [f"{i // 2},{i},20,30,40,50" for i in range(10)]
    assert len(table(tmp_path, *rows).rows) == 10
    rows = [f"{i},{i % 2 + 0.5},20,30,40,50" for i in range(10)]
    assert len(table(tmp_path, *rows).rows) == 10


def test_a_score_is_the_confidence_where_nothing_else_is(tmp_path):
    for names in ("x,y,w,h,score", "x,y,w,h,Probability"):
        (row,) = table(tmp_path, names, "1,2,3,4,.25").rows
        assert row.confidence == 0.25
    for names in ("x,y,w,h,score,confidence", "x,y,w,h,score,conf"):
        (row,) = table(tmp_path, names, "1,2,3,4,high,.25").rows
        assert row.confidence == 0.25
    with pytest.raises(TableError, match="'score' and 'prob' both name the confidence"):
        find_columns("x,y,w,h,score,prob".split(","))


@pytest.mark.parametrize("name", ["angle", "Theta", "rotation", "angle (deg)"])
def test_rotated_boxes_are_refused(tmp_path, name):
    names = f"frame,x,y,w,h,{name}"
    rows = ["0,1,2,3,4,0", "1,1,2,3,4,0.0", "2,1,2,3,4,", "3,0,0,0,0,7"]
    assert len(table(tmp_path, names, *rows).rows) == 4
    with pytest.raises(TableError, match=r"is -0.5 in line 6, expected 0 in all") as e:
        table(tmp_path, names, *rows, "4,1,2,3,4,-0.5", "5,1,2,3,4,9")
    assert f"a.csv: column '{name}' is" in str(e.value)
    assert table(tmp_path, names, "0,1,2,3,4,left").faults


@pytest.mark.parametrize(
    ("names", "row", "message"),
    [
        ("x1,y1,x2,y2", "80,80,40,40", "expected x1,y1,x2,y2 from top left to bottom"),
        ("x1,y1,x2,y2", "80,10,40,40", "expected x1,y1,x2,y2 from top left to bottom"),
        ("xmin,ymin,xmax,ymax", "8,80,40,40", "expected xmin,ymin,xmax,ymax from top"),
        ("x,y,w,h", "80,80,-40,-40", "expected a width and a height that are not neg"),
        ("cx,cy,w,h", "80,80,40,-1", "expected a width and a height that are not neg"),
        ("x1,y1,x2,y2", "-1,-1,-1,-1", ""),
        ("x1,y1,x2,y2", "0,0,0,0", ""),
        ("x,y,w,h", "-1,-1,-1,-1", ""),
        ("x,y,w,h", "1,1,-1,-1", ""),
        ("x,y,w,h", "nan,nan,nan,nan", ""),
    ],
)
def test_negative_sizes_are_faults_and_no_absence(tmp_path, names, row, message):
    found = table(tmp_path, names, "10,10,20,20", row)
    assert bool(found.faults) == bool(message)
    assert message in found.faults.get(3, "")


@pytest.mark.parametrize(
    ("text", "seconds"), [("1.5", 1.5), ("01:02.5", 62.5), ("1:00:00", 3600)]
)
def test_times(tmp_path, text, seconds):
    (row,) = table(tmp_path, "time,x,y,w,h", f"{text},1,2,3,4").rows
    assert row.seconds == seconds
    (row,) = table(tmp_path, "timestamp_ms,x,y,w,h", "250,1,2,3,4").rows
    assert row.seconds == 0.25


def test_bad_rows_are_faults_of_their_own(tmp_path):
    lines = ["frame,x,y,w,h", "0,1,2,3,4", "x,1,2,3,4", "", "1.5,1,2,3,4", "2,1,2,3"]
    found = table(tmp_path, *lines, "-1,1,2,3,4", '3,"1,2,3,4', "4,1_0,2,3,4")
    assert [row.frame for row in found.rows] == [0]
    assert list(found.faults) == [3, 5, 6, 7, 8, 9]
    assert found.faults[3] == "line 3 is 'x,1,2,3,4', expected frame,x,y,w,h"
    # Decimal commas and decimal points in one row: one of them means something else.
    assert table(tmp_path, "x;y;w;h", "1,5;2.5;3;4").faults


def test_numbers_against_the_columns_are_refused(tmp_path):
    with pytest.raises(TableError, match=r"a\.csv: all boxes are fractions of 1"):
        table(tmp_path, "x,y,w,h", ".1,.2,.3,.4", ".1,.2,.3,.4")
    with pytest.raises(TableError, match="the first of four columns counts"):
        table(tmp_path, *(f"{n},20,30,40" for n in range(1, 8)))
    with pytest.raises(TableError, match=r"a\.csv: is empty"):
        table(tmp_path, "")
    corners = [f"{t},{10 + t},{8 + t},{40 + t},{28 + t}" for t in range(6)]
    with pytest.raises(TableError, match=r"fit as corners .*expected a first line"):
        check_sizes(table(tmp_path, *corners), (320, 240))
    check_sizes(table(tmp_path, "frame,x,y,w,h", *corners), (320, 240))


def test_a_fault_of_all_targets_is_no_accident():
    tracks = [[2, 3, 4], [11, 12]]
    assert same_fault_in_all(tracks, [5, 13])
    assert same_fault_in_all(tracks, [1, 10, 40])
    assert not same_fault_in_all(tracks, [5, 40])
    assert not same_fault_in_all([[2, 3]], [1])
