import json
import shutil

import numpy as np
import pytest

from data_prep.coco import DATASET, list_images
from data_prep.tracks import PreparationError
from paths import SHARED_DATA
from raw_folders import prepare, read_all, targets, write_frames

# As in instances_train2017.json, fields that nobody needs among them.
LICENSES = [{"url": "http://creativecommons.org/licenses/by-nc-sa/2.0/", "id": 1}]
CATEGORIES = [
    {"supercategory": "person", "id": 1, "name": "person"},
    {"supercategory": "kitchen", "id": 51, "name": "bowl"},
]


def image(number, **fields):
    name = f"{number:012d}.jpg"
    return {
        "license": 1,
        "file_name": name,
        "coco_url": f"http://images.cocodataset.org/train2017/{name}",
        "height": 48,
        "width": 64,
        "date_captured": "2013-11-14 11:18:45",
        "id": number,
    } | fields


def annotation(image_id, bbox, **fields):
    return {
        "segmentation": [[1.0, 2.0, 30.5, 2.0, 30.5, 40.0]],
        "area": 120.5,
        "iscrowd": 0,
        "image_id": image_id,
        "bbox": bbox,
        "category_id": 51,
        "id": 1038967,
    } | fields


def write(path, images, annotations, categories=CATEGORIES):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"info": {}, "licenses": LICENSES, "images": images}
    content |= {"annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))


def write_coco(raw, images, annotations, split="train2017"):
    (raw / split).mkdir(parents=True)
    write(raw / f"annotations/instances_{split}.json", images, annotations)


def test_objects_are_tracks_of_one_frame(tmp_path):
    write_coco(
        tmp_path,
        [image(9), image(25, width=640, height=426), image(30)],
        [
            annotation(9, [1.08, 17.69, 30.5, 20.25]),
            annotation(25, [385.53, 60.03, 215, 297.16], category_id=1),
            annotation(9, [31.2, 4.5, 32, 40], category_id=None),
        ],
    )
    tracks, rejections = read_all(DATASET, tmp_path)
    assert not rejections
    first = tracks["000000000009.jpg#0"]
    np.testing.assert_array_equal(first.boxes, [[1.08, 17.69, 30.5, 20.25]])
    assert first.frames == [tmp_path / "train2017/000000000009.jpg"]
    assert (first.video, first.category) == ("000000000009.jpg", "bowl")
    assert first.size == (64, 48) and not first.relative
    assert first.numbers == [0] and first.visibility == [1]
    (outline,) = first.outlines[0]
    np.testing.assert_array_equal(outline, [[1, 2], [30.5, 2], [30.5, 40]])
    assert tracks["000000000009.jpg#1"].category == ""
    assert tracks["000000000025.jpg#0"].category == "person"
    assert len(tracks) == 3  # and 30 has none


@pytest.mark.parametrize(
    "segmentation",
    [
        {"counts": "a", "size": [4, 5]},
        [[1, 2, 3]],
        [["a"] * 6],
        7,
        None,
        [[1, 2] * 3, 5],
    ],
)
def test_outlines_of_other_forms_are_none(segmentation, tmp_path):
    box = [5, 5, 30, 30]
    write_coco(tmp_path, [image(9)], [annotation(9, box, segmentation=segmentation)])
    tracks, rejections = read_all(DATASET, tmp_path)
    (track,) = tracks.values()
    rings = 1 if segmentation == [[1, 2] * 3, 5] else 0
    assert not rejections and sum(map(len, track.outlines)) == rings


def rotated(rotation, bbox=(20, 18, 30, 12), segmentation=(), **attributes):
    attributes = {"occluded": False, "rotation": rotation, **attributes}
    return annotation(9, bbox, segmentation=segmentation, attributes=attributes)


def test_rotated_boxes_of_cvat_are_turned_about_their_middle(tmp_path):
    mask = {"counts": [2, 4], "size": [48, 64]}
    drawn = [[20, 18, 50, 18, 50, 30]]
    objects = [
        rotated(90.0),
        rotated(0.0),
        rotated(90, segmentation=drawn),
        rotated(90, segmentation=mask),
        rotated(45, bbox=[20, 18, 0, 12]),  # no box: nothing to turn
        annotation(9, [20, 18, 30, 12], segmentation=[], attributes=["rotation"]),
    ]
    write_coco(tmp_path, [image(9)], objects)
    tracks, rejections = read_all(DATASET, tmp_path)
    first, *others = tracks.values()
    np.testing.assert_allclose(first.boxes, [[29, 9, 12, 30]])
    (outline,) = first.outlines[0]
    np.testing.assert_allclose(outline, [[41, 9], [41, 39], [29, 39], [29, 9]])
    boxes = [one.boxes[0].tolist() for one in others]
    assert boxes == [[20, 18, 30, 12]] * 3 + [[20, 18, 0, 12], [20, 18, 30, 12]]
    counts = [sum(map(len, one.outlines)) for one in others]
    assert counts == [0, 1, 0, 0, 0] and not rejections


def test_the_smallest_side_is_that_of_the_turned_box(tmp_path):
    thin = rotated(45, bbox=[20, 20, 30, 4])
    write_coco(tmp_path, [image(9)], [thin, rotated(90, bbox=[20, 20, 30, 4])])
    assert list(read_all(DATASET, tmp_path)[0]) == ["000000000009.jpg#0"]


@pytest.mark.parametrize("rotation", ["left", float("nan"), 10**400, True, [90]])
def test_a_rotation_that_is_no_number_is_rejected(tmp_path, rotation):
    write_coco(tmp_path, [image(9)], [rotated(rotation)])
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert not tracks and rejection.reason.startswith("000000000009.jpg: rotation '")
    assert rejection.reason.endswith("', expected degrees")


def test_crowds_and_small_objects_are_left_out_by_rule(tmp_path, caplog):
    crowd = {"counts": [272, 2, 4], "size": [48, 64]}
    write_coco(
        tmp_path,
        [image(9), image(25)],
        [
            annotation(9, [0, 0, 64, 40], iscrowd=1, segmentation=crowd),
            annotation(9, [5, 5, 9.9, 30]),
            annotation(9, [5, 5, 10, 30]),
            annotation(25, [5, 5, 30, 2]),
        ],
    )
    tracks, rejections = read_all(DATASET, tmp_path)
    assert list(tracks) == ["000000000009.jpg#2"] and not rejections
    assert "1 crowds, 2 objects below 10 pixels" in caplog.text
    tracks, _ = read_all(DATASET, tmp_path, min_side=0)
    assert list(tracks) == [
        "000000000009.jpg#1",
        "000000000009.jpg#2",
        "000000000025.jpg#0",
    ]


@pytest.mark.parametrize("bbox", [None, [1, 2, 3], ["a", 1, 2, 3], 7, [[1, 2, 3, 4]]])
def test_a_broken_annotation_is_one_rejection(tmp_path, bbox):
    good = annotation(9, [1, 2, 30, 40])
    write_coco(tmp_path, [image(9)], [annotation(9, bbox), good])
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert list(tracks) == ["000000000009.jpg#1"]
    assert rejection.file.endswith("instances_train2017.json")
    assert rejection.reason.startswith("000000000009.jpg: bbox ")
    assert rejection.records == 1


def test_annotations_of_images_that_are_not_listed_are_rejected(tmp_path):
    objects = [annotation(9, [1, 2, 30, 40]), annotation(8, [1, 2, 30, 40])]
    nameless = annotation(9, [1, 2, 30, 40])
    del nameless["image_id"]
    write_coco(tmp_path, [image(9)], [*objects, nameless])
    tracks, rejections = read_all(DATASET, tmp_path)
    assert len(tracks) == 1
    assert [one.reason for one in rejections] == [
        "an annotation of image 8, which is not listed",
        "an annotation of image None, which is not listed",
    ]


def test_boxes_that_are_corners_are_refused(tmp_path):
    """Objects of 20 x 20 pixels would leave the images of 64 x 48."""
    corners = [annotation(9, [30, 20, 50, 40]), annotation(25, [5, 6, 25, 26])]
    write_coco(tmp_path, [image(9), image(25)], corners)
    message = r"train2017\.json: the bbox of its annotations fit as corners"
    with pytest.raises(PreparationError, match=message):
        read_all(DATASET, tmp_path)
    # As sizes, one box leaves its image, and another one fits as a size alone.
    path = tmp_path / "annotations/instances_train2017.json"
    write(path, [image(9), image(25)], [corners[0], annotation(25, [40, 20, 20, 20])])
    assert len(read_all(DATASET, tmp_path)[0]) == 2


@pytest.mark.parametrize(("listed", "given"), [(51, 51.0), (51.0, 51), ("51", 51)])
def test_numbers_of_categories_in_any_form(tmp_path, listed, given):
    categories = [{"id": listed, "name": "bowl"}]
    (tmp_path / "train2017").mkdir()
    path = tmp_path / "annotations/instances_train2017.json"
    objects = [annotation(9, [1, 2, 30, 40], category_id=given)]
    write(path, [image(9)], objects, categories)
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert track.category == "bowl"


def test_categories_that_are_not_listed_are_rejected(tmp_path):
    objects = [annotation(9, [1, 2, 30, 40], category_id=n) for n in (51, [7], None)]
    write_coco(tmp_path, [image(9)], objects)
    tracks, (rejection,) = read_all(DATASET, tmp_path)
    assert [track.category for track in tracks.values()] == ["bowl", ""]
    assert "jpg: category_id '[7]', expected one that categories" in rejection.reason
    path = tmp_path / "annotations/instances_train2017.json"
    write(path, [image(9)], objects, categories=[])
    assert len(read_all(DATASET, tmp_path)[0]) == 3


def test_sizes_that_cannot_be_read_are_not_checked(tmp_path):
    bare = {"id": 9, "file_name": "a/b.png"}
    write_coco(tmp_path, [bare], [{"image_id": 9, "bbox": [1, 2, 30, 40]}])
    (track,) = read_all(DATASET, tmp_path)[0].values()
    assert track.size is None and track.category == ""
    assert track.frames == [tmp_path / "train2017/a/b.png"]


def test_lvis_names_images_by_their_address(tmp_path):
    (tmp_path / "train2017").mkdir()
    entry = image(391895)
    del entry["file_name"]
    write(
        tmp_path / "lvis_v1_train.json", [entry], [annotation(391895, [1, 2, 30, 40])]
    )
    options = {"annotations": "lvis_v1_train.json", "images": "."}
    (track,) = read_all(DATASET, tmp_path, **options)[0].values()
    assert track.frames == [tmp_path / "train2017/000000391895.jpg"]
    assert track.video == "train2017/000000391895.jpg"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is a list"),
        ('{"images": []}', "malformed .*annotations"),
        ('{"images": [{"id": 1}], "annotations": []}', "malformed .*coco_url"),
        ('{"images": [{"file_name": "a"}], "annotations": []}', "malformed .*id"),
        ('{"images": [], "annotations": [1]}', "malformed"),
        ('{"images": [], "annotations": []}', "no usable annotations"),
    ],
)
def test_files_that_are_nothing_of_the_kind(tmp_path, content, message):
    write_coco(tmp_path, [], [])
    (tmp_path / "annotations/instances_train2017.json").write_text(content)
    with pytest.raises(
        PreparationError, match=f"instances_train2017.json: .*{message}"
    ):
        read_all(DATASET, tmp_path)


@pytest.mark.parametrize("other", [image(9, file_name="x.jpg"), image(9, id=10)])
def test_an_image_listed_twice(tmp_path, other):
    write_coco(tmp_path, [image(9), other], [annotation(9, [1, 2, 30, 40])])
    with pytest.raises(PreparationError, match="lists an image twice"):
        read_all(DATASET, tmp_path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(PreparationError, match="train2017: no such folder"):
        read_all(DATASET, tmp_path)
    (tmp_path / "val2017").mkdir()
    with pytest.raises(
        PreparationError, match="instances_val2017.json: cannot be read"
    ):
        read_all(DATASET, tmp_path, split="val2017")


def test_the_order_of_units_never_varies(tmp_path):
    images = [image(n, file_name=f"{n}.jpg") for n in (5, 3, 9)]
    annotations = [annotation(n, [1, 2, 30, 40]) for n in (9, "x", 3, "y", 5)]
    write(tmp_path / "a.json", images, annotations)
    units = list_images(tmp_path / "a.json", tmp_path, min_side=0, prefix="mine/")
    assert [unit.key for unit in units] == [
        "mine/5.jpg",
        "mine/3.jpg",
        "mine/9.jpg",
        "mine/image x",
        "mine/image y",
    ]


def test_command(tmp_path):
    raw = tmp_path / "raw"
    objects = [
        annotation(9, [1, 2, 30, 40]),
        annotation(9, [20.5, 10, 20, 60]),
        annotation(25, [3, 3, 20, 20]),
        annotation(30, [3, 3, 20, 20]),
        annotation(31, [3, 3, 20, 0]),
    ]
    images = [image(9), image(25, width=99), image(30), image(31)]
    write_coco(raw, images, objects)
    write_frames(raw / "train2017", "%012d.jpg", [9, 25, 31])
    prepared = prepare("coco", raw, "--max-bad", "60%", "--min-side", "0")
    assert targets(prepared) == {"000000000009.jpg#0": [0], "000000000009.jpg#1": [0]}
    assert prepared.index.video_names == ("000000000009.jpg",)
    assert prepared.index.category_names == ("bowl",)
    sizes = prepared.index.sizes / prepared.index.scales[:, None]
    np.testing.assert_allclose(sizes, [[30, 40], [20, 38]], rtol=1e-5)  # clipped
    rejected = json.loads((prepared.folder / "rejected.json").read_text())
    assert [one["file"] for one in rejected] == [
        "train2017/000000000025.jpg",
        "train2017/000000000030.jpg",
        "train2017/000000000031.jpg",
    ]
    assert "64x48" in rejected[0]["reason"] and "99x48" in rejected[0]["reason"]


def test_command_on_real_images(tmp_path):
    folder = SHARED_DATA / "train" / "stills_common"
    if not folder.is_dir():
        pytest.skip("skipped: no ../shared")
    raw = tmp_path / "raw"
    content = json.loads((folder / "annotations.json").read_text())
    raw.mkdir()
    shutil.copy(folder / "annotations.json", raw / "own.json")
    images = content["images"][:3]
    for entry in images:
        (raw / entry["file_name"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / entry["file_name"], raw / entry["file_name"])
    own = ["--annotations", "own.json", "--images", ".", "--limit", "3"]
    prepared = prepare("coco", raw, *own)
    ids = {entry["id"] for entry in images}
    boxes = [a["bbox"] for a in content["annotations"] if a["image_id"] in ids]
    assert len(prepared) == sum(min(box[2:]) >= 10 for box in boxes) > 3
