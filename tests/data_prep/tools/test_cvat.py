"""CVAT's XML."""

import numpy as np
import pytest

from data_prep.folder import DATASET
from data_prep.tracks import PreparationError, VideoFrame
from raw_folders import read_all, touch_frames, write_film

CVAT = """<?xml version="1.0"?><annotations><version>1.1</version>
<track id="0" label="car"><box frame="0" outside="0" occluded="0" keyframe="1"
 xtl="1.5" ytl="2" xbr="11.5" ybr="22"/><box frame="2" outside="1" keyframe="1"
 xtl="1" ytl="2" xbr="11" ybr="22"/></track>
<track id="1" label="dog"><box frame="1" outside="0" xtl="x" ytl="2" xbr="3" ybr="4"/>
</track></annotations>"""


@pytest.mark.parametrize("media", ["film.mp4", "images", "."])
def test_cvat_tracks(tmp_path, media):
    (tmp_path / "annotations.xml").write_text(CVAT)
    if media == "film.mp4":
        (tmp_path / media).touch()
    else:
        touch_frames(tmp_path / media, "%d.png", range(3))
    car, dog = read_all(DATASET, tmp_path)[0].values()
    assert (car.name, car.category) == ("annotations.xml/0", "car")
    assert car.numbers.tolist() == [0, 2] and car.visibility.tolist() == [1, 0]
    np.testing.assert_array_equal(car.boxes[0], [1.5, 2, 10, 20])
    if media == "film.mp4":
        assert car.frames[1] == VideoFrame(tmp_path / media, 2)
    else:
        assert car.frames[1] == tmp_path / media / "2.png"
    assert not np.isfinite(dog.boxes).any()  # for the writer to reject


def test_cvat_without_its_film(tmp_path):
    (tmp_path / "annotations.xml").write_text(CVAT)
    with pytest.raises(PreparationError, match="expected one film or a folder images/"):
        read_all(DATASET, tmp_path)


def test_cvat_images(tmp_path):
    touch_frames(tmp_path / "images", "%d.png", [1])
    image = '<image name="{}" width="9" height="9"><box label="a" {}/></image>'
    sides = 'xtl="1" ytl="2" xbr="4" ybr="6"'
    for name in ("1.png", "../1.png"):
        text = f"<annotations>{image.format(name, sides)}</annotations>"
        (tmp_path / "annotations.xml").write_text(text)
        if name == "1.png":
            (track,) = read_all(DATASET, tmp_path)[0].values()
            assert track.frames == [tmp_path / "images/1.png"]
            np.testing.assert_array_equal(track.boxes, [[1, 2, 3, 4]])
        else:
            with pytest.raises(PreparationError, match="expected the name of a file"):
                read_all(DATASET, tmp_path)


SHAPES = """<annotations><image name="1.png" width="90" height="90">
<tag label="sunny"/>
<box label="a" xtl="10" ytl="20" xbr="50" ybr="30" rotation="90"/>
<polygon label="b" points="1,2;7,2;7.5,9"/>
<ellipse label="c" cx="40" cy="50" rx="10" ry="5"/>
<mask label="d" rle="0, 6" left="3" top="4" width="2" height="3"/>
<polyline label="e" points="1,2;7,2;7.5,9"/>
<polygon label="f" points="1,2;7,x;7.5,9"/>
</image></annotations>"""


def test_cvat_shapes(tmp_path):
    """What is drawn in other ways is understood, or rejected by its name."""
    touch_frames(tmp_path / "images", "%d.png", [1])
    (tmp_path / "annotations.xml").write_text(SHAPES)
    tracks, (line,) = read_all(DATASET, tmp_path)
    boxes = {one.category: one.boxes[0] for one in tracks.values()}
    assert not np.isfinite(boxes.pop("f")).any()  # for the writer to reject
    expected = {
        "a": [25, 5, 10, 40],
        "b": [1, 2, 6.5, 7],
        "c": [30, 45, 20, 10],
        "d": [3, 4, 2, 3],
    }
    assert boxes.keys() == expected.keys()
    for name, box in expected.items():
        np.testing.assert_allclose(boxes[name], box)
    outlined = [bool(one.outlines) for one in tracks.values()]
    assert outlined == [True, True, True, False, False]
    assert line.file.endswith("annotations.xml")
    assert "1.png, object 4: a polyline, expected a rectangle" in line.reason


def test_cvat_tracks_of_polygons(tmp_path):
    touch_frames(tmp_path / "images", "%d.png", range(3))
    corners = ['points="1,2;7,2;7,9"', 'points="2,2;8,2;8,9"', 'points="3,2"']
    shapes = [
        f'<polygon frame="{i}" outside="0" {points}/>'
        for i, points in enumerate(corners)
    ]
    (tmp_path / "annotations.xml").write_text(
        f'<annotations><track id="0">{"".join(shapes)}</track></annotations>'
    )
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    (track,) = tracks.values()
    np.testing.assert_allclose(track.boxes, [[1, 2, 6, 7], [2, 2, 6, 7]])
    assert track.numbers.tolist() == [0, 1] and len(track.outlines) == 2
    assert "track 0, frame '2': a polygon of fewer than 3 corners" in rejection.reason


def write_tracks(folder, *frames, meta="", tracks=1):
    box = '<box frame="{}" outside="0" xtl="{}" ytl="2" xbr="30" ybr="30"/>'
    shapes = "".join(box.format(frame, frame) for frame in frames)
    text = "".join(
        f'<track id="{i}" task_id="{i}">{shapes}</track>' for i in range(tracks)
    )
    file = folder / "annotations.xml"
    file.write_text(f"<annotations><meta>{meta}</meta>{text}</annotations>")


def test_cvat_images_go_by_their_numbers(tmp_path):
    """Frame 2 was deleted, and every third frame is annotated."""
    touch_frames(tmp_path / "images", "frame_%06d.PNG", [0, 1, 3, 6])
    write_tracks(tmp_path, 0, 2, 3, 6)
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    (track,) = tracks.values()
    names = [str(path)[-16:] for path in track.frames]
    assert names == ["frame_000000.PNG", "frame_000003.PNG", "frame_000006.PNG"]
    assert track.boxes[:, 0].tolist() == [0, 3, 6]
    assert "frame '2': no such frame" in rejection.reason


def test_cvat_names_whose_order_is_not_known(tmp_path):
    touch_frames(tmp_path / "images", "%d.jpg", range(1, 13))
    write_tracks(tmp_path, 0)
    with pytest.raises(PreparationError, match=r"is 2\.jpg or 10\.jpg frame 1\?"):
        read_all(DATASET, tmp_path)


def test_cvat_labels_of_another_film(tmp_path):
    (tmp_path / "a.mp4").touch()
    write_tracks(tmp_path, 0, meta="<source>b.mp4</source>")
    with pytest.raises(PreparationError, match=r"labels b\.mp4, found a\.mp4"):
        read_all(DATASET, tmp_path)
    (tmp_path / "b.avi").touch()  # the same film, encoded anew
    size = "<original_size><width>640</width><height>480</height></original_size>"
    meta = f"<task>{size}</task><source>b.mp4</source>"
    write_tracks(tmp_path, 0, meta=meta)
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert track.frames == [VideoFrame(tmp_path / "b.avi", 0)]
    assert track.size == (640, 480)


def test_cvat_export_of_a_project(tmp_path):
    (tmp_path / "a.mp4").touch()
    write_tracks(tmp_path, 0, tracks=2)
    with pytest.raises(PreparationError, match="tracks of 2 tasks, expected one"):
        read_all(DATASET, tmp_path)


def task(size, more="<start_frame>0</start_frame>"):
    return f"<task><size>{size}</size>{more}</task>"


def test_cvat_tasks_of_other_frames_are_rejected(tmp_path):
    write_film(tmp_path / "a.mp4", count=8)
    for size, read in [(8, 1), (12, 0), (5, 0)]:
        write_tracks(tmp_path, 0, 4, meta=task(size))
        tracks, rejections = read_all(DATASET, tmp_path)
        assert (len(tracks), len(rejections)) == (read, 1 - read)
    reason = "has a task of 5 frames, and a.mp4 has 8, expected the film that was"
    assert rejections[0].reason.startswith(reason) and rejections[0].records == 2
    for part in ("<start_frame>2</start_frame>", "<frame_filter>step=2</frame_filter>"):
        write_tracks(tmp_path, 2, 4, meta=task(3, part))
        assert len(read_all(DATASET, tmp_path)[0]) == 1


def test_cvat_tasks_of_other_images_are_rejected(tmp_path):
    """Image 3 of 8 was deleted: those after it would be one frame too early."""
    touch_frames(tmp_path / "images", "v_%03d.jpg", [0, 1, 2, 4, 5, 6, 7])
    write_tracks(tmp_path, 0, 4, meta=task(8))
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert not tracks and rejection.records == 2
    assert "has a task of 8 images, and images holds 7" in rejection.reason
    touch_frames(tmp_path / "images", "v_%03d.jpg", [3])
    assert len(read_all(DATASET, tmp_path)[0]) == 1


def test_cvat_images_with_their_numbers_may_be_fewer(tmp_path):
    touch_frames(tmp_path / "images", "frame_%06d.jpg", [0, 4])
    write_tracks(tmp_path, 0, 4, meta=task(8))
    tracks, rejections = read_all(DATASET, tmp_path)
    assert len(tracks) == 1 and not rejections


def test_cvat_corners_from_bottom_right_are_no_absence(tmp_path):
    touch_frames(tmp_path / "images", "%d.png", range(2))
    box = '<box frame="{}" outside="{}" xtl="50" ytl="60" xbr="10" ybr="20"/>'
    shapes = box.format(0, 0) + box.format(1, 1)
    (tmp_path / "annotations.xml").write_text(
        f'<annotations><track id="0">{shapes}</track></annotations>'
    )
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert track.visibility.tolist() == [1, 0]  # for the writer to reject, and absent
    assert track.boxes[0].tolist() == [50, 60, -40, -40]


@pytest.mark.parametrize(
    ("files", "source", "message"),
    [
        (["a.mp4", "a.webm"], "a.mp4", r"is it of a\.mp4 or of a\.webm\?"),
        (["b.mp4", "images/1.png"], "", r"is it of b\.mp4 or of images\?"),
        (["a.mp4", "b.mp4", "images/1.png"], "a.mp4", ""),
    ],
)
def test_cvat_two_that_its_tracks_may_be_of(tmp_path, files, source, message):
    (tmp_path / "images").mkdir()
    for name in files:
        (tmp_path / name).touch()
    write_tracks(tmp_path, 0, meta=f"<source>{source}</source>")
    if message:
        with pytest.raises(PreparationError, match=message):
            read_all(DATASET, tmp_path)
    else:
        (track,) = read_all(DATASET, tmp_path)[0].values()
        assert track.frames == [VideoFrame(tmp_path / "a.mp4", 0)]
