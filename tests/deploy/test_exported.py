"""Trackers in other runtimes, with the methods of ours."""

import pickle

import numpy as np
import pytest

from exports import FRAMES, TRUTH, follow, write_tiny_weights
from paths import SHARED_DATA
from siamrpn_jax import api
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.images import ImageError, read_image
from siamrpn_jax.data.read.sequences import find_sequences, read_sequence
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.deploy import exported, litert, runtime
from siamrpn_jax.model.boxes import BoxError
from siamrpn_jax.weights import load_weights


def skip_without(runtime):
    if runtime == "litert":
        extra = "skipped: needs siamrpn-jax[litert]"
        pytest.importorskip("ai_edge_litert", reason=extra)
        why = f"skipped: needs {litert.INSTALL}"
        pytest.importorskip("litert_converter", reason=why)
    else:
        pytest.importorskip("onnxruntime", reason="skipped: needs siamrpn-jax[onnx]")
        pytest.importorskip("onnx", reason="skipped: needs siamrpn-jax[onnx]")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    write_tiny_weights(path)
    return path


@pytest.fixture(scope="module")
def real():
    """60 frames of a real sequence, the first box, and what JAX finds."""
    if not SHARED_DATA.is_dir():
        pytest.skip("skipped: no ../shared")
    path = find_sequences(SHARED_DATA / "dev_sequences")[1]
    sequence = read_sequence(path)
    frames = [read_image(file) for file in sequence.frames[:60]]
    return frames, sequence.boxes[0], follow(load_weights(), frames, sequence.boxes[0])


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_small_on_a_real_sequence(runtime, real):
    skip_without(runtime)
    frames, box, expected = real
    tracker = api.load("small", runtime=runtime)
    tracker.init(frames[0], box)
    found = np.stack([tracker.update(frame) for frame in frames[1:]])
    np.testing.assert_allclose(found, expected[:, :4], atol=0.05)


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_one_target_and_several_in_frames_of_several_sizes(runtime, weights):
    skip_without(runtime)
    same = api.load(weights, window_influence=0.2)
    tracker = api.load(weights, runtime=runtime, window_influence=0.2)
    assert tracker.name == f"siamrpn_{runtime}" and tracker.config == same.config
    tracker = pickle.loads(pickle.dumps(tracker))
    with pytest.raises(RuntimeError, match="update before init"):
        tracker.update(FRAMES[0])
    larger, _ = make_sequence(4, length=1, height=110, width=140)
    for start in (TRUTH[0], np.stack([TRUTH[0], [10, 20, 30, 25]])):
        for one in (tracker, same):
            one.init(FRAMES[0], start)
        for frame in (FRAMES[1], larger[0], FRAMES[2]):
            found = tracker.update(frame)
            np.testing.assert_allclose(found, same.update(frame), atol=0.05)
            np.testing.assert_allclose(tracker.confidence, same.confidence, atol=1e-3)
            assert np.shape(tracker.lost) == np.shape(found)[:-1]


def test_auto_takes_what_it_can(weights, monkeypatch):
    skip_without("onnxruntime")
    assert api.load(weights, runtime="auto").name == "siamrpn_onnxruntime"
    # JAX alone is able to.
    assert api.load(weights, runtime="auto", pad_to=64).name == "siamrpn"
    assert api.load(weights, runtime="auto", nms_iou=0.5).name == "siamrpn"
    monkeypatch.setattr(exported.importlib.util, "find_spec", lambda _: None)
    assert api.load(weights, runtime="auto").name == "siamrpn"


def test_what_is_refused(weights, tmp_path):
    skip_without("onnxruntime")
    parts = exported.make_parts(load_weights(weights), frame_size=None)
    plain = runtime.Tracker(parts)
    for box in ([1, 2, 0, 4], [1, 2, 3], [1, 2, np.nan, 4]):
        with pytest.raises(ValueError, match="expected x,y,width,height of positive"):
            plain.init(FRAMES[0], box)
    with pytest.raises(ValueError, match=r"frame of uint8 \(90, 120\), expected uint8"):
        plain.init(FRAMES[0][..., 0], TRUTH[0])
    with pytest.raises(FileNotFoundError, match="init"):
        runtime.Tracker(tmp_path)
    tracker = api.load(weights, runtime="onnxruntime")
    with pytest.raises(ImageError, match="got float64"):
        tracker.init(FRAMES[0].astype(float), TRUTH[0])
    with pytest.raises(BoxError):
        tracker.init(FRAMES[0], [1, 2, 0, 4])
    with pytest.raises(InputError, match="'tpu', expected one of jax, onnxruntime"):
        api.load(weights, runtime="tpu")  # type: ignore[call-overload]
    with pytest.raises(InputError, match="pad_to is 64: frames are padded for jax"):
        api.load(weights, runtime="litert", pad_to=64)
