import pytest

from siamrpn_jax.commands.tracker_specs import (
    make_tracker_specs,
    name_of,
    open_tracker_spec,
)
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.released import DEFAULT_WEIGHTS


@pytest.mark.parametrize(
    ("weights", "trackers", "expected"),
    [
        ([], [], [(DEFAULT_WEIGHTS, DEFAULT_WEIGHTS)]),
        (["w.safetensors"], [], [("w", "w.safetensors")]),
        ([], ["kcf"], [("kcf", "kcf")]),
        ([], ["kcf", "siamrpn"], [(DEFAULT_WEIGHTS, DEFAULT_WEIGHTS), ("kcf", "kcf")]),
        (["a/b.safetensors", "small"], [], [("b", "a/b.safetensors"), ("small",) * 2]),
        (["small"], ["static"], [("small", "small"), ("static", "static")]),
    ],
)
def test_contestants(weights, trackers, expected):
    found = make_tracker_specs(weights, trackers)
    assert [(one.name, one.source) for one in found] == expected
    for one in found:
        assert one.is_baseline == (one.name in ("static", "kcf"))


def test_names_must_differ():
    with pytest.raises(InputError, match="named b: expected different"):
        make_tracker_specs(["x/b.safetensors", "y/b.safetensors"], [])
    with pytest.raises(InputError, match="named kcf"):
        make_tracker_specs([], ["kcf", "kcf"])


def test_files_are_of_nano_alone(tmp_path):
    files = [tmp_path / "backbone.onnx", tmp_path / "head.onnx"]
    static, nano = make_tracker_specs([], ["static", "nano"], nano_files=files)
    assert static.files == () and nano.files == tuple(files)


def test_names_of_weights(tmp_path):
    run = tmp_path / "run7"
    run.mkdir()
    assert name_of("small") == "small"
    assert name_of(str(run)) == "run7"
    assert name_of(str(run / "weights.safetensors")) == "run7"
    assert name_of(str(run / "best.safetensors")) == "best"


def test_results_depend_on_the_weights():
    (one,) = make_tracker_specs([], [])
    tracker, settings = open_tracker_spec(one)
    assert hasattr(tracker, "init") and hasattr(tracker, "update")
    assert {"weights", "model", "tracker_config"} < settings.keys()
    (other,) = make_tracker_specs([], ["static"])
    assert open_tracker_spec(other)[1]["tracker"] == "static"
