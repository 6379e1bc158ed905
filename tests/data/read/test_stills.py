import json
import logging

import numpy as np
import pytest

from photos import turned_photo
from siamrpn_jax.data.read.stills import StillsError, find_stills, read_stills

GOOD = {"image_id": 1, "bbox": [2, 3, 10, 12]}


def write(folder, annotations, *, images=None, **extra):
    folder.mkdir(parents=True, exist_ok=True)
    if images is None:
        images = [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}]
    for image in images:
        (folder / image["file_name"]).touch()
    content = {"images": images, "annotations": annotations, **extra}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def test_reads_boxes_polygons_and_sources(tmp_path):
    ring = [2, 3, 12, 3, 50, 15]
    images = [
        {"id": 1, "file_name": "a.jpg", "width": 40, "height": 30, "source": "web"},
        {"id": 7, "file_name": "b.jpg", "width": 40, "height": 30},
    ]
    stills = read_stills(
        write(
            tmp_path / "set",
            [GOOD | {"segmentation": [ring]}, GOOD | {"image_id": 7, "iscrowd": 0}],
            images=images,
        )
    )
    first, second = stills.images
    assert (first.source, second.source) == ("web", "set")
    assert first.path == tmp_path / "set" / "a.jpg"
    np.testing.assert_array_equal(first.objects[0].box, [2, 3, 10, 12])
    np.testing.assert_array_equal(
        first.objects[0].polygons[0], [[2, 3], [12, 3], [12, 15]]
    )
    assert second.objects[0].polygons == ()
    assert stills.rejected == {}


@pytest.mark.parametrize(
    ("bbox", "reason"),
    [
        ([1, 1, 0, 5], "not positive"),
        ([1, 1, 5, -5], "not positive"),
        ([1, 1, float("nan"), 5], "not finite"),
        ([float("inf"), 1, 5, 5], "not finite"),
        ([100, 1, 5, 5], "outside the image"),
        ([-9, 1, 5, 5], "outside the image"),
        ([1, 1, 5], "not four numbers"),
        (["a", 1, 5, 5], "not four numbers"),
        (None, "not four numbers"),
    ],
)
def test_bad_boxes_are_counted_and_reported(tmp_path, caplog, bbox, reason):
    write(tmp_path, [GOOD, {"image_id": 1, "bbox": bbox}])
    with caplog.at_level(logging.WARNING):
        stills = read_stills(tmp_path)
    assert len(stills.images[0].objects) == 1
    assert stills.rejected == {reason: 1}
    assert "skipped 1 boxes" in caplog.text and "a.jpg" in caplog.text


def test_boxes_that_are_corners_are_refused(tmp_path):
    """Objects of 10 x 10 pixels would leave the image of 40 x 30."""
    corners = [GOOD | {"bbox": box} for box in ([20, 15, 30, 25], [1, 2, 11, 12])]
    with pytest.raises(StillsError, match="of its annotations fit as corners"):
        read_stills(write(tmp_path / "a", corners))
    sizes = [*corners, GOOD | {"bbox": [20, 15, 10, 10]}]
    assert len(read_stills(write(tmp_path / "b", sizes)).images[0].objects) == 3


def test_crowds_are_skipped_and_edges_clipped(tmp_path):
    write(tmp_path, [GOOD | {"iscrowd": 1}, {"image_id": 1, "bbox": [-2, 20, 10, 14]}])
    stills = read_stills(tmp_path)
    assert stills.rejected == {"crowd": 1}
    np.testing.assert_array_equal(stills.images[0].objects[0].box, [0, 20, 8, 10])


def test_run_length_masks_are_ignored(tmp_path):
    write(tmp_path, [GOOD | {"segmentation": {"counts": "x", "size": [3, 4]}}])
    assert read_stills(tmp_path).images[0].objects[0].polygons == ()


def test_missing_and_malformed_folders(tmp_path):
    with pytest.raises(StillsError, match="no such folder"):
        find_stills(tmp_path / "none")
    with pytest.raises(StillsError, match="holds no stills"):
        find_stills(tmp_path)
    with pytest.raises(StillsError, match="cannot be read"):
        read_stills(tmp_path)
    (tmp_path / "annotations.json").write_text("{")
    with pytest.raises(StillsError, match="not JSON"):
        read_stills(tmp_path)
    (tmp_path / "annotations.json").write_text('{"images": []}')
    with pytest.raises(StillsError, match="annotations"):
        read_stills(tmp_path)
    (tmp_path / "annotations.json").write_text("[]")
    with pytest.raises(StillsError, match="malformed"):
        read_stills(tmp_path)
    write(tmp_path, [], images=[])
    with pytest.raises(StillsError, match="lists no image"):
        read_stills(tmp_path)


def test_inconsistent_images(tmp_path):
    image = {"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}
    write(tmp_path, [GOOD], images=[image, image])
    with pytest.raises(StillsError, match="listed twice"):
        read_stills(tmp_path)
    write(tmp_path, [GOOD | {"image_id": 3}])
    with pytest.raises(StillsError, match="unknown image id 3"):
        read_stills(tmp_path)
    write(tmp_path, [GOOD])
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(StillsError, match=r"1 of 1 image files are missing.*a\.jpg"):
        read_stills(tmp_path)


def test_finds_subfolders(tmp_path):
    for name in ("x/b", "x/a", "c"):
        write(tmp_path / name, [GOOD])
    names = [p.relative_to(tmp_path).as_posix() for p in find_stills(tmp_path)]
    assert names == ["c", "x/a", "x/b"]


def test_links_are_followed(tmp_path):
    write(tmp_path / "far", [GOOD])
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "far", target_is_directory=True)
    assert find_stills(root) == [root / "link"]
    assert read_stills(root / "link").images[0].path == root / "link" / "a.jpg"


def test_the_layout_of_coco_is_explained(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train2017.json").write_text("{}")
    for root in (tmp_path, tmp_path / "annotations"):
        with pytest.raises(StillsError, match="COCO's own layout, which is not read"):
            find_stills(root)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_boxes_on_photos_that_exif_turns(tmp_path, caplog, orientation):
    """Of a quarter turn the annotated size tells; of half a turn nothing does."""
    folder = write(tmp_path / "set", [GOOD, GOOD])
    photo = turned_photo(np.zeros((30, 40, 3), np.uint8), orientation)
    (folder / "a.jpg").write_bytes(photo)
    with caplog.at_level(logging.WARNING):
        stills = read_stills(folder)
    half = orientation == 3
    assert len(stills.images[0].objects) == (0 if half else 2)
    assert stills.rejected == ({"on a photo that EXIF turns": 2} if half else {})
    assert ("orientation 3" in caplog.text) == half
