import numpy as np
import pytest

from siamrpn_jax.commands import demo
from siamrpn_jax.media.video import Video


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(demo, "LENGTH", 5)


def test_everything_is_shown(short, tmp_path, capsys):
    # ONNX Runtime compiles nothing.
    demo.main(["--out", str(tmp_path / "demo"), "--runtime", "onnxruntime"])
    lines = capsys.readouterr().out.splitlines()
    told = dict(line.split(maxsplit=1) for line in lines if line.strip(" next"))
    assert told["scene"].startswith(str(tmp_path)) and "ms a frame" in told["speed"]
    for index in "012":
        auc, *spans = told[index].split()
        assert 0.5 < float(auc) <= 1 and spans == ["never", "never"]
    film, scene = Video(told["film"]), Video(told["scene"])
    assert len(list(film)) == len(list(scene)) == 5
    assert told["picture"].endswith("tracked.webp")
    assert (tmp_path / "demo/tracked.webp").stat().st_size > 1000
    assert f"siamrpn track --video {tmp_path}/demo/scene.webm --box 374,63,51,18" in (
        "\n".join(lines)
    )


def test_objects_and_their_true_boxes(monkeypatch):
    monkeypatch.setattr(demo, "LENGTH", 75)
    frames, truth = demo.make_scene(89)
    assert frames.shape == (75, 360, 480, 3) and truth.shape == (75, 3, 4)
    out = np.isnan(truth[..., 0])
    assert demo.spans(np.flatnonzero(out[:, 0]).tolist()) == "47-66"
    assert not out[:, 1:].any()


def test_no_more_objects_than_that(short, monkeypatch):
    monkeypatch.setattr(demo, "MOST_OBJECTS", 2)
    assert demo.make_scene(89)[1].shape[1] == 2


def test_share_inside():
    boxes = np.array(
        [[0, 0, 10, 10], [-5, -5, 10, 10], [95, 0, 10, 10], [200, 0, 9, 9]]
    )
    assert demo.share_inside(boxes, (100, 50)).tolist() == [1, 0.25, 0.5, 0]


@pytest.mark.parametrize(
    ("numbers", "text"), [([], "never"), ([3], "3"), ([0, 1, 5, 7, 8], "0-1, 5, 7-8")]
)
def test_spans(numbers, text):
    assert demo.spans(numbers) == text


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--seed", "-1"), "seed is -1, expected at least 0"),
        (("--weights", "no/such.safetensors"), "no/such.safetensors"),
        (("--out", __file__), "is no folder, choose another --out"),
    ],
)
def test_bad_options(short, tmp_path, monkeypatch, capsys, options, problem):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        demo.main([*options, "--runtime", "jax"])
    assert caught.value.code == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
