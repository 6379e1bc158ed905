import cv2
import pytest

from random_variables import random_variables
from siamrpn_jax.commands import card
from siamrpn_jax.data.scenes.generated import Scene
from siamrpn_jax.evaluation import failures
from siamrpn_jax.evaluation.trackers import StaticTracker
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.weights import save_weights
from small_models import tiny_model


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    model = SiamRPN(tiny_model(widths=(4, 6, 8), width=8))
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    variables = random_variables(model.init_variables)
    save_weights(path, variables, model=model, tracker_config=TrackerConfig(), card={})
    return str(path)


def options(weights, out, **more):
    words = {
        "weights": weights,
        "out": out,
        "length": 6,
        "width": 80,
        "seed": 3,
        "center-size": 0,
        **more,
    }
    return [word for name, value in words.items() for word in (f"--{name}", str(value))]


def test_pictures_of_a_tracked_target_and_of_failures(
    tmp_path, monkeypatch, weights, capsys
):
    asked = []

    def find_scene_failures(tracker, *, seeds):
        asked.append((tracker.name, seeds))
        clip = failures.track_scene(StaticTracker(), Scene(5), length=12)
        return [failures.SceneFailure("copy", 5, clip)]

    monkeypatch.setattr(failures, "find_scene_failures", find_scene_failures)
    size = tiny_model().score_size - 2
    card.main(options(weights, tmp_path / "docs", **{"scenes": 7, "center-size": size}))
    assert asked == [("siamrpn", range(7))]
    found, animation = cv2.imreadanimation(str(tmp_path / "docs" / "tiny.webp"))
    assert found and [frame.shape[:2] for frame in animation.frames] == [(60, 80)] * 3
    assert list(animation.durations) == [80, 80, 80]
    strips = cv2.imread(str(tmp_path / "docs" / "failures.webp"))
    assert strips is not None and strips.shape[1] == failures.SHOWN * failures.TILE
    assert cv2.imread(str(tmp_path / "docs" / "search.webp")) is not None
    printed = capsys.readouterr().out
    assert "scene   3: overlap " in printed
    assert "scene   5: lost, a near copy passes by" in printed
    assert "never lost, moves fast" in printed
    assert printed.index("upside down") < printed.index("moves fast")


def test_the_same_weights_give_the_same_pictures(tmp_path, weights):
    for name in "ab":
        card.main(options(weights, tmp_path / name, scenes=2))
    first, second = (sorted((tmp_path / name).iterdir()) for name in "ab")
    assert [path.name for path in first] == ["tiny.webp"]  # it follows no scene
    assert first[0].read_bytes() == second[0].read_bytes()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seed", -1, "--seed is -1, expected at least 0"),
        ("length", 1, "--length is 1, expected at least 2"),
        ("width", 20, "--width is 20, expected at least 64"),
        ("stride", 0, "--stride is 0"),
        ("scenes", -2, "--scenes is -2"),
        ("weights", "nowhere", "no weights 'nowhere'"),
        ("out", __file__, "is no folder, choose another --out"),
    ],
)
def test_bad_options_are_one_line(tmp_path, weights, capsys, name, value, message):
    with pytest.raises(SystemExit) as caught:
        card.main([*options(weights, tmp_path / "docs"), f"--{name}", str(value)])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not list(tmp_path.iterdir())
