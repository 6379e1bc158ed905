import json
from typing import Any

import cv2
import numpy as np
import pytest

from data_folders import write_everything
from siamrpn_jax.commands.inspect_data import main, make_config
from siamrpn_jax.commands.inspection import (
    Labelled,
    count,
    draw,
    format_counts,
    label,
    measure,
)
from siamrpn_jax.data.pairs.pairs import Pair
from siamrpn_jax.training.config import TargetConfig

ANCHORS = np.array([[20.0, 30, 10, 10], [40, 30, 10, 10], [60, 30, 10, 10]], np.float32)


def make_labelled(*, positive: bool = True, anchor: bool = True) -> Labelled:
    pair = Pair(
        np.full((32, 32, 3), 50, np.uint8),
        np.full((64, 64, 3), 100, np.uint8),
        np.array([40.0, 30, 24, 12], np.float32),
        np.float32(positive),
        np.zeros(2, np.uint32),
    )
    return Labelled(pair, np.array([0, anchor, 0], bool), np.array([1, 0, 1], bool))


def test_what_is_measured_of_a_pair():
    row = measure(make_labelled(), 64)
    np.testing.assert_allclose(row, [1, 1, 2, np.sqrt(24 * 12), 8 / 64])


def test_counts_by_hand():
    rows = np.array(
        [
            [1, 3, 1.2, 20, 0.01],
            [1, 0, 4.5, 30, 0.2],
            [1, 2, 4.0, 200, 0.2],
            [0, 0, 9.0, 30, 0.2],  # negative: not among the matching
        ]
    )
    counts = count(rows)
    assert counts["pairs"] == 4 and counts["negative_pairs"] == 1
    assert counts["mean_positive_anchors"] == pytest.approx(5 / 3)
    assert counts["aspect"]["counts"] == [1, 0, 0, 0, 2, 0]
    assert counts["aspect_without_positive_anchor"] == [0, 0, 0, 0, 1, 0]
    assert counts["side_pixels"]["counts"][2:4] == [1, 1]
    assert counts["side_pixels"]["counts"][-1] == 1
    assert counts["side_pixels"]["bounds"][-1] is None
    text = format_counts(counts)
    assert "4 to 5              2 pairs,  50.0% without" in text
    json.dumps(counts, allow_nan=False)


def test_nothing_but_negatives():
    counts = count(np.array([[0, 0, 1.0, 20, 0.1]]))
    assert counts["mean_positive_anchors"] == 0
    assert "1 pairs, 1 of them negative" in format_counts(counts)


def test_heads_without_boxes_have_labelled_cells():
    """By their distance from the target, as they are trained."""
    pairs = [make_labelled().pair, make_labelled(positive=False).pair]
    config = TargetConfig(radius=10.0)
    dataset: Any = pairs
    found, other = label(dataset, 2, ANCHORS, config, by_cells=True)
    assert found.positive.tolist() == [False, True, False]
    assert found.negative.tolist() == [True, False, True]
    assert not other.positive.any() and other.negative.all()


def test_a_drawn_pair():
    """Twice the size: the exemplar, the target in green, its frame by its label."""
    picture = draw(make_labelled(), ANCHORS)
    assert picture.shape == (2 * 64 + 12, 2 * (32 + 64) + 12, 3)
    assert (picture[6:70, 6:70] == 50).all()
    search = picture[6:-6, 6 + 64 : -6]
    assert tuple(search[2 * 24, 2 * 40]) == (60, 220, 80)  # upper side of the box
    assert tuple(search[2 * 30, 2 * 20]) != (100, 100, 100)  # a negative's centre
    assert tuple(picture[0, 0]) == (40, 40, 40)
    assert tuple(draw(make_labelled(anchor=False), ANCHORS)[0, 0]) == (255, 70, 60)
    negative = make_labelled(positive=False, anchor=False)
    assert tuple(draw(negative, ANCHORS)[0, 0]) == (160, 160, 160)


def test_the_command(tmp_path, capsys):
    root = write_everything(tmp_path / "data")
    out = tmp_path / "out"
    main([root, "--preset", "paper", "--data.stills", "1", "--pairs", "9"]
         + ["--show", "5", "--out", str(out)])  # fmt: skip
    printed = capsys.readouterr().out
    assert "in 7 stills" in printed and "9 pairs, 0 of them negative" in printed
    assert json.loads((out / "counts.json").read_text())["pairs"] == 9
    sheet = cv2.imread(str(out / "pairs.png"))
    assert sheet is not None
    assert sheet.shape == (2 * (2 * 255 + 12), 4 * (2 * (127 + 255) + 12), 3)


def test_the_preset_with_a_head_that_scores_cells(tmp_path, capsys):
    main(["--preset", "base", "--pairs", "2", "--show", "2", "--out", str(tmp_path)])
    assert "2 pairs" in capsys.readouterr().out
    sheet = cv2.imread(str(tmp_path / "pairs.png"))
    assert sheet is not None
    assert sheet.shape == (2 * 193 + 12, 2 * (2 * (97 + 193) + 12), 3)
    default = make_config("base")
    assert default.model.head.kind == "hybrid" and default.targets.radius == 11.6


def test_a_missing_folder(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "absent"), "--out", str(tmp_path / "out")])
    assert "absent: no such folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_folder(tmp_path, capsys):
    (tmp_path / "out").touch()
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), "--out", str(tmp_path / "out")])
    assert "out: is no folder, choose another --out" in capsys.readouterr().err
