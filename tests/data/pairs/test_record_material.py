"""Composites of prepared folders."""

import itertools
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_folders import write_stills
from prepared_folders import write_prepared, write_prepared_stills
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.crops.format import CropConfig, make_record
from siamrpn_jax.data.crops.reader import open_prepared
from siamrpn_jax.data.crops.windows import AugmentConfig, small_augment
from siamrpn_jax.data.pairs import composites, record_material
from siamrpn_jax.data.pairs.crop_tracks import CropTracks
from siamrpn_jax.data.pairs.loader import open_datasets
from siamrpn_jax.data.pairs.pairs import DataConfig, PairDataset
from siamrpn_jax.data.pairs.record_material import (
    RecordMaterial,
    areas_beside,
    frame_in,
)
from siamrpn_jax.data.pairs.requests import Picture
from siamrpn_jax.data.read.images import decode_image
from siamrpn_jax.data.sampling import name_hash
from siamrpn_jax.data.scenes import cutouts


@pytest.fixture(scope="module")
def stills(tmp_path_factory) -> Path:
    """Eight images with twelve objects, four of them outlined."""
    path = tmp_path_factory.mktemp("prepared") / "stills"
    write_prepared_stills(path, count=8)
    return path


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("prepared") / "scenes"
    write_prepared(path, tracks=6, length=4)
    return path


def material(folder: Path, *tracks: int) -> RecordMaterial:
    records = open_prepared(folder)
    chosen = tracks or range(len(records.index.names))
    return RecordMaterial(CropTracks(records, np.array(chosen)))


def open_pairs(*folders: Path, augment=None, **fields) -> PairDataset:
    defaults: dict[str, Any] = {"prepared_composites": 1.0, "validation_fraction": 0.0}
    config = DataConfig(folders=tuple(map(str, folders)), **defaults | fields)
    return open_datasets(
        config,
        exemplar_size=60,
        instance_size=120,
        augment=augment or small_augment(),
    )[0]


def test_the_box_is_the_bounds_of_what_was_pasted(stills, monkeypatch):
    """White discs on black, nothing beside or before them."""
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    circle = (np.stack([np.cos(angle), np.sin(angle)], 1) + 1) / 2

    def white(*args, **options):
        cutout = cutouts.cut_out(*args, **options)
        if cutout is None:
            return None
        outlines = (circle * cutout.pixels.shape[1::-1],)
        pixels = np.full_like(cutout.pixels, 255)
        return cutout._replace(pixels=pixels, outlines=outlines)

    def black(self, rng, *, exemplar_size, instance_size):
        sides = instance_size, exemplar_size
        x, z = (np.zeros((side, side, 3), np.uint8) for side in sides)
        return composites.Backgrounds(x, z, 0)

    monkeypatch.setattr(record_material, "cut_out", white)
    monkeypatch.setattr(RecordMaterial, "draw_backgrounds", black)
    monkeypatch.setattr(composites, "_DISTRACTORS", np.array([1.0]))
    monkeypatch.setattr(composites.cv2, "LUT", lambda pixels, _: pixels)
    pasted: list[int] = []

    def counted(canvas, *args, **options):
        pasted.append(len(canvas))
        return cutouts.paste(canvas, *args, **options)

    monkeypatch.setattr(composites, "paste", counted)
    source, errors = material(stills), []
    augment = AugmentConfig(search_shift=0.1, search_scale=0.3, paste_rotation=0.5)
    for seed in range(60):
        pasted.clear()
        _, x, box, _, _ = composites.make_composite(
            source,
            np.random.default_rng(seed),
            exemplar_size=60,
            instance_size=160,
            augment=augment,
        )
        if pasted.count(160) > 1:
            continue  # an occluder: it may cover an edge
        bright = x[..., 0] > 127
        columns, rows = np.flatnonzero(bright.any(0)), np.flatnonzero(bright.any(1))
        seen = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        corners = np.concatenate([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2])
        errors.append((seen - corners) * [-1, -1, 1, 1])
    assert len(errors) > 30
    assert np.abs(errors).max() < 1.5 and abs(np.mean(errors)) < 0.5


def test_objects_are_cut_along_their_outlines(stills, monkeypatch):
    monkeypatch.setattr(record_material, "TEXTURES", 0.0)
    source, outlined = material(stills), 0
    records = source.tracks.records
    for seed in range(60):
        cutout = source.draw_cutout(np.random.default_rng(seed))
        low = np.min(cutout.outlines[0], axis=0)
        high = np.max(cutout.outlines[0], axis=0)
        size = records.index.sizes[records.index.starts[cutout.image]]
        offset = (160 - size) / 2 - ((160 - size) / 2).astype(int)
        exact = len(cutout.outlines[0]) == 4 and np.allclose(
            [low, high], [offset, offset + size], atol=1e-3
        )
        outlined += exact and bool(records.index.outlined[cutout.image])
        # The targets are of one colour, and nothing else is as bright.
        inside = cutout.pixels[2:-2, 2:-2].reshape(-1, 3)
        assert np.ptp(inside.astype(int), axis=0).max() < 45
    assert 15 < outlined < 45


def test_turned_stills_have_the_bounds_of_their_outlines(stills):
    """The outlines of these targets are their boxes: nothing is estimated."""
    augment = AugmentConfig(rotation=0.5, rotation_probability=1.0)
    pairs = open_pairs(stills, augment=augment, prepared_composites=0.0)
    (tracks,), exact, estimated = pairs.crop_tracks, 0, 0
    for i in range(40):
        pair = tracks.draw(np.random.default_rng((0, i, 0)), max_interval=0)
        drawn = pairs._records(np.random.default_rng(i), tracks, pair)
        assert drawn.x.window is not None
        c, s = abs(np.cos(drawn.x.window.angle)), abs(np.sin(drawn.x.window.angle))
        if s < 0.1:
            continue
        w, h = tracks.records.index.sizes[pair.search] * 60 / 127
        bounds = np.allclose(drawn.box[2:], [c * w + s * h, s * w + c * h], rtol=1e-3)
        outlined = tracks.records.index.outlined[pair.search]
        assert bounds == outlined
        exact, estimated = exact + outlined, estimated + (not outlined)
    assert exact > 4 and estimated > 4


def test_folders_from_before_there_were_outlines_serve(stills, tmp_path):
    copy = Path(shutil.copytree(stills, tmp_path / "old"))
    with np.load(copy / "index.npz") as arrays:
        before = {name: arrays[name] for name in arrays if name != "outlined"}
    np.savez(copy / "index.npz", **before)
    assert not open_prepared(copy).index.outlined.any()
    assert open_pairs(copy)[5].x.any()


def test_backgrounds_lie_beside_the_target_within_the_frame():
    frame = np.full((300, 400, 3), 90, np.uint8)
    frame[::2] += 60
    frame[150:190, 200:240] = (250, 0, 0)
    record = make_record(frame, np.array([200.0, 150, 40, 40]), crops=CropConfig())
    picture = Picture(decode_image(record.search, name="JPEG"), record.fill)
    seen = frame_in(picture)
    whole = np.array([0.0, 0, 400, 300]) - [220, 170, 0, 0]
    exact = np.concatenate([whole[:2] * record.scale + 224, whole[2:] * record.scale])
    np.testing.assert_allclose(seen[0], 0)  # the frame is wider than the crop
    np.testing.assert_allclose(seen[2], 448)
    assert 0 <= seen[1] - max(exact[1], 0) <= 12
    assert 0 <= min(exact[1] + exact[3], 448) - seen[1] - seen[3] <= 12
    box = np.concatenate([(448 - record.size) / 2, record.size])
    rng = np.random.default_rng(0)
    for area in areas_beside(box, seen):
        assert area[2:].min() > record_material.MIN_ROOM
        for _ in range(10):
            window = record_material._draw_window(area, rng)
            near = record_material._inside(area, composites.beside(window, rng))
            for one in (window, near):
                half = one.width / 2
                assert one.cx - half >= area[0] - 1e-6
                assert one.cx + half <= area[0] + area[2] + 1e-6
                patch = record_material.crop(picture.pixels, one, 60)
                assert patch[..., 1].min() > 50  # neither target nor fill


def test_where_a_target_fills_its_frame_all_of_it_is_the_background():
    frame = np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)
    record = make_record(frame, np.array([5.0, 5, 50, 50]), crops=CropConfig())
    picture = Picture(decode_image(record.search, name="JPEG"), record.fill)
    box = np.concatenate([(448 - record.size) / 2, record.size])
    areas = areas_beside(box, frame_in(picture))
    assert max(area[2:].min() for area in areas) < record_material.MIN_ROOM


def test_pairs_depend_on_seed_and_index_alone(stills, scenes):
    pairs, again = (open_pairs(stills, scenes, seed=4) for _ in range(2))
    again = pickle.loads(pickle.dumps(again))
    others = open_pairs(stills, scenes, seed=5)
    for i in (7, 0, 3):
        for ours, theirs in zip(pairs[i][:5], again[i][:5], strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert (pairs[i].x != others[i].x).any()


def test_without_the_option_pairs_are_those_of_before(scenes):
    plain = open_pairs(scenes, prepared_composites=0.0)
    assert "composites" not in plain.describe()
    assert plain.describe().endswith("mixture 100% scenes")


def test_the_share_of_the_folders_weight(stills, scenes):
    pairs = open_pairs(stills, scenes, weights=(3.0, 1.0), prepared_composites=0.2)
    assert pairs.describe().endswith(
        "mixture 60% stills, 15% composites of stills, 20% scenes, 5% composites of "
        "scenes"
    )


def test_what_is_shown_belongs_to_a_video(stills, scenes):
    for folder in (stills, scenes):
        names = open_prepared(folder).index.video_names
        known = {name_hash(repr(("video", name))) for name in names}
        pairs = open_pairs(folder)
        seen = {int(o) for i in range(20) for o in pairs[i].origins}
        assert len(seen) > 2 and seen <= known


def test_negative_pairs_never_show_the_video_of_the_target(scenes):
    pairs = open_pairs(scenes, negative_probability=1.0, prepared_composites=0.7)
    for i in range(40):
        rng = np.random.default_rng((pairs.config.seed, i, 0))
        target = pairs._draw(rng, i)
        rng.random()
        other = pairs._draw_other(rng, i, target)
        assert target.origin not in other.shown and other.origin in other.shown
        assert pairs[i].positive == 0
        assert pairs[i].origins[0] != pairs[i].origins[1]


def test_look_alikes_come_from_the_same_video(stills):
    source = material(stills)
    index = source.tracks.records.index
    pair = next(
        a
        for a, b in itertools.pairwise(range(len(index.names)))
        if index.videos[a] == index.videos[b]
    )
    rng = np.random.default_rng(0)
    drawn = [source.draw_cutout(rng, near=pair).image for _ in range(100)]
    same = sum(source.origin(i) == source.origin(pair) for i in drawn)
    assert 45 < same < 75


def test_folders_without_room_for_backgrounds_are_refused(tmp_path, scenes, caplog):
    narrow = tmp_path / "narrow"
    write_prepared(narrow, tracks=3, length=2, search_crop=160)
    message = (
        rf"prepared_composites=1: {narrow}: gives no composites: its search crops of "
        r"160 pixels leave \d\d beside a target at most, expected 64 .* --search-crop"
    )
    with pytest.raises(InputError, match=message):
        open_pairs(narrow)
    # Beside another folder that gives some, it is warned of.
    pairs = open_pairs(narrow, scenes)
    assert "narrow: gives no composites" in caplog.text
    assert pairs.describe().endswith("mixture 50% narrow, 50% composites of scenes")


def test_refused_without_a_prepared_folder(tmp_path):
    write_stills(tmp_path / "s", 3)
    for folders in ((), (tmp_path / "s",)):
        found = folders[0] if folders else "no folders"
        with pytest.raises(InputError, match=f"prepared folder .*, found {found};"):
            open_pairs(*folders)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_out_of_range(share):
    with pytest.raises(InputError, match="prepared_composites"):
        DataConfig(prepared_composites=share)
