"""Trackers in other runtimes, with the methods of ours."""

import pickle
import shutil
import sys

import jax
import numpy as np
import pytest

from exports import COMPACT, FRAMES, TRUTH, follow, make_loaded
from paths import SHARED_DATA
from siamrpn_jax import api
from siamrpn_jax.commands.tracker_specs import (
    TrackerSpec,
    open_tracker_spec,
    report_tuning,
)
from siamrpn_jax.common.errors import InputError, MissingExtraError
from siamrpn_jax.common.files import write_json
from siamrpn_jax.data.read.images import ImageError, read_image
from siamrpn_jax.data.read.sequences import find_sequences, read_sequence
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.deploy import exported, files, litert, runtime
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
def real():
    """60 frames of a real sequence, the first box, and what JAX finds."""
    if not SHARED_DATA.is_dir():
        pytest.skip("skipped: no ../shared")
    path = find_sequences(SHARED_DATA / "dev_sequences")[1]
    sequence = read_sequence(path)
    frames = [read_image(file) for file in sequence.frames[:60]]
    return (
        frames,
        sequence.boxes[0],
        follow(load_weights("small"), frames, sequence.boxes[0]),
    )


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


def test_targets_on_threads_are_those_found_singly(weights):
    """And the same tracker takes one target and several, in any order."""
    skip_without("onnxruntime")
    loaded = load_weights(weights)
    boxes = np.stack([TRUTH[0], [10, 20, 30, 25], [60, 30, 20, 28]])
    tracker = exported.ExportedTracker(loaded, "onnxruntime", threads=2)
    for starts in (boxes, boxes[0], boxes[:2], boxes):
        tracker.init(FRAMES[0], starts)
        found = np.array([tracker.update(frame) for frame in FRAMES[1:6]])
        singly = [
            follow(loaded, FRAMES[:6], box)[:, :4] for box in np.atleast_2d(starts)
        ]
        expected = np.stack(singly, 1).reshape(found.shape)
        np.testing.assert_allclose(found, expected, atol=1e-3)
        assert np.shape(tracker.confidence) == starts.shape[:-1]
    one = exported.ExportedTracker(loaded, "onnxruntime", threads=1)
    one.init(FRAMES[0], boxes)
    alone = np.array([one.update(frame) for frame in FRAMES[1:6]])
    np.testing.assert_allclose(found, alone, atol=1e-4)


@pytest.mark.parametrize("targets", [TRUTH[0], TRUTH[:1]])
def test_numbers_that_are_none_end_the_tracking(targets):
    skip_without("onnxruntime")
    loaded = make_loaded(COMPACT)
    broken = jax.tree.map(
        lambda x: np.asarray(x) * np.float32(np.nan), loaded.variables
    )
    tracker = exported.ExportedTracker(loaded._replace(variables=broken), "onnxruntime")
    tracker.init(FRAMES[0], targets)
    with pytest.raises(InputError, match="is not a number, and tracking ends here"):
        tracker.update(FRAMES[1])
    with pytest.raises(RuntimeError, match="update before init"):
        tracker.update(FRAMES[1])


def test_an_export_is_loaded_and_followed(weights, tmp_path):
    skip_without("onnxruntime")
    loaded = load_weights(weights)
    card = files.write_onnx(tmp_path, loaded, weights="tiny", part="whole")
    assert set(card["files"]) == {"init.onnx", "step.onnx"}
    for name in ("auto", "onnxruntime"):
        tracker = api.load(tmp_path, runtime=name)
        assert tracker.config == loaded.tracker_config
    tracker = pickle.loads(pickle.dumps(tracker))
    tracker.init(FRAMES[0], TRUTH[0])
    found = np.array([tracker.update(frame) for frame in FRAMES[1:]])
    expected = follow(loaded, FRAMES, TRUTH[0])[:, :4]
    np.testing.assert_allclose(found, expected, atol=0.05)
    spec = TrackerSpec("export", str(tmp_path), False, runtime="auto")
    _, settings = open_tracker_spec(spec)
    assert settings["files"]["step.onnx"] == card["files"]["step.onnx"]["sha256"]
    assert report_tuning(spec, {"a": np.ones((2, 4))}) == []
    with pytest.raises(InputError, match="exported for runtime onnxruntime, got 'jax'"):
        api.load(tmp_path)
    with pytest.raises(InputError, match="got 'litert'"):
        api.load(tmp_path, runtime="litert")
    with pytest.raises(InputError, match=r"cannot be changed \(penalty_k, motion\)"):
        api.load(tmp_path, runtime="auto", penalty_k=0.1, motion=0.5)
    with pytest.raises(InputError, match=r"cannot be changed \(pad_to\)"):
        api.load(tmp_path, runtime="auto", pad_to=64)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_an_export_of_another_version_is_refused(kind, weights, tmp_path):
    """By the package and by the file that is copied, with names and both versions."""
    card = tmp_path / f"{kind}.json"
    write_json(card, {"siamrpn_jax": "9.1.0", "format_version": 7, "files": {}})
    (tmp_path / f"step.{kind}").write_bytes(b"of the future")
    ours = rf"{kind}.json: format 7 \(of siamrpn_jax 9.1.0\), expected 1, that of siam"
    with pytest.raises(InputError, match=ours):
        api.load(tmp_path, runtime="auto")
    with pytest.raises(ValueError, match=r"format 7 \(of 9.1.0\), expected 1"):
        runtime.Tracker(tmp_path)


@pytest.mark.parametrize(
    ("card", "what"), [("export.json", "JAX alone"), ("web.json", "a web page")]
)
def test_an_export_that_runs_without_the_package_is_refused(card, what, tmp_path):
    (tmp_path / card).write_text("{}")
    (tmp_path / "step.onnx").touch()
    with pytest.raises(InputError, match=f"is an export for {what}, expected weights"):
        api.load(tmp_path, runtime="auto")


def test_an_export_that_is_half_copied_is_refused(weights, tmp_path):
    whole = tmp_path / "whole"
    files.write_onnx(whole, load_weights(weights), weights="tiny", part="whole")
    data = (whole / "step.onnx").read_bytes()
    for name, content, message in (
        ("init.onnx", None, "is missing, expected all files of the export"),
        ("step.onnx", None, "is missing, expected all files of the export"),
        ("step.onnx", data[:-9], "is damaged, or of another export than onnx.json"),
        ("init.onnx", data, "is damaged, or of another export than onnx.json"),
        ("onnx.json", None, "cannot be read .No such file"),
        ("onnx.json", b"", "is not JSON"),
    ):
        part = tmp_path / "part"
        shutil.copytree(whole, part)
        (part / name).unlink()
        if content is not None:
            (part / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{part / name}: {message}"):
            api.load(part, runtime="auto")
        if content is None and name != "onnx.json":
            with pytest.raises(FileNotFoundError, match=f"{part / name}"):
                runtime.Tracker(part)
        shutil.rmtree(part)


def test_cards_that_are_no_whole_tracker(tmp_path):
    card = tmp_path / "onnx.json"
    for content, message in (
        ("[]", "expected a JSON object"),
        ("{", "is not JSON"),
        ("{}", "not the card of a tracker .KeyError..tracker"),
        ('{"tracker": {"penalty_k": "a"}}', "not the card of a tracker"),
        ('{"tracker": {}, "files": []}', "not the card of a tracker"),
        ('{"part": "network"}', "the network alone; to track, export with --part"),
    ):
        card.write_text(content)
        with pytest.raises(InputError, match=f"onnx.json: {message}"):
            api.load(tmp_path, runtime="auto")


def test_a_runtime_that_is_not_installed(weights, monkeypatch):
    for name, module, extra in (
        ("onnxruntime", "onnxruntime", "onnx"),
        ("onnxruntime", "onnx", "onnx"),
        ("litert", "ai_edge_litert", "litert"),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(MissingExtraError, match=rf"siamrpn-jax\[{extra}\]"):
                api.load(weights, runtime=name)  # type: ignore[call-overload]


def test_auto_takes_what_it_can(weights, monkeypatch):
    skip_without("onnxruntime")
    assert api.load(weights, runtime="auto").name == "siamrpn_onnxruntime"
    # JAX alone is able to.
    assert api.load(weights, runtime="auto", pad_to=64).name == "siamrpn"
    assert api.load(weights, runtime="auto", nms_iou=0.5).name == "siamrpn"
    assert api.load(weights, runtime="auto", second_template=0.5).name == "siamrpn"
    learns = api.load("base", runtime="auto")
    assert learns.name == "siamrpn_onnxruntime"
    assert learns.config.online_frames == 16
    monkeypatch.setattr(exported.importlib.util, "find_spec", lambda _: None)
    assert api.load(weights, runtime="auto").name == "siamrpn"


def test_what_is_refused(weights, tmp_path):
    skip_without("onnxruntime")
    parts = exported.make_parts(load_weights(weights), frame_size=None)
    plain = runtime.Tracker(parts)
    outside = [120, 0, 9, 9], [0, -9, 9, 9]
    for box in ([1, 2, 0, 4], [1, 2, 3], [1, 2, np.nan, 4], *outside):
        with pytest.raises(ValueError, match="expected x,y,width,height in the frame"):
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
