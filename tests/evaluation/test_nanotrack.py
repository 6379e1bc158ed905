import jax.numpy as jnp
import numpy as np
import pytest

from nano_networks import use_fakes
from paths import SHARED_DATA
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.sequences import find_sequences, read_sequence
from siamrpn_jax.evaluation import nanotrack, trackers
from siamrpn_jax.evaluation.ope import metrics
from siamrpn_jax.evaluation.runner import run_sequence
from siamrpn_jax.model import boxes
from siamrpn_jax.tracking.selection import change_penalty

PEERS = SHARED_DATA / "peers"
V2 = [PEERS / "nanotrack_v2" / f"nanotrack_{n}_sim.onnx" for n in ("backbone", "head")]
V3 = [PEERS / "nanotrack_v3" / f"nanotrack_{n}.onnx" for n in ("backbone", "head")]
FRAME = np.full((200, 300, 3), 90, np.uint8)


@pytest.fixture(params=[15, 16])
def tracker(request, tmp_path, monkeypatch):
    files = use_fakes(monkeypatch, tmp_path, side=request.param)
    return trackers.make_baseline("nano", files=files)


def test_the_box_of_the_best_cell(tracker):
    """By hand: the cell lies 32 pixels to the left and 16 below in the patch."""
    tracker.init(FRAME, np.array([130.0, 80, 40, 40]))
    scale = 127 / 80  # (40 + 40) pixels of context become 127
    box = tracker.update(FRAME)
    size = np.array([56, 64]) / scale
    change = np.sqrt((size[0] + size.sum() / 2) * (size[1] + size.sum() / 2)) / 80
    change = max(change, 1 / change) * (64 / 56)
    rate = np.exp(-(change - 1) * 0.138) * 0.348
    expected = rate * size + (1 - rate) * 40
    center = np.array([150, 100]) + np.array([-32 + 8, 16 + 8]) / scale
    assert box[2:] == pytest.approx(expected, abs=1e-4)
    assert box[:2] + box[2:] / 2 == pytest.approx(center, abs=1e-4)


def test_the_penalty_is_ours():
    rng = np.random.default_rng(3)
    sizes, last = rng.uniform(1, 200, (15, 15, 2)), rng.uniform(10, 90, 2)
    every = jnp.asarray(sizes.reshape(-1, 2))
    ours = change_penalty(every, jnp.asarray(last), k=nanotrack.PENALTY_K)
    found = nanotrack._penalty(sizes, last)
    assert found.ravel() == pytest.approx(np.asarray(ours), abs=1e-6)


def test_the_box_stays_within_the_frame(tracker):
    tracker.init(FRAME, np.array([0.0, 180, 12, 12]))
    for _ in range(60):
        box = tracker.update(FRAME)
    center = boxes.ltwh_to_cxcywh(box)
    assert (center[:2] >= 0).all() and (center[:2] <= [300, 200]).all()
    assert (box[2:] >= nanotrack.MIN_SIZE).all()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "0 ONNX files of NanoTrack, expected two: BACKBONE HEAD"),
        (("a.onnx", "none.onnx"), r"no such ONNX file of NanoTrack: .*none\.onnx$"),
        (("a.onnx", "a.onnx"), r"a\.onnx: expected ONNX files .* OpenCV: "),
    ],
)
def test_files_that_are_no_nanotrack_are_named(tmp_path, names, message):
    (tmp_path / "a.onnx").write_bytes(b"nothing")
    files = [tmp_path / name for name in names]
    with pytest.raises(InputError, match=message):
        trackers.make_baseline("nano", files=files)


@pytest.mark.skipif(not PEERS.is_dir(), reason="skipped: no ../shared")
def test_networks_of_another_kind_are_refused():
    with pytest.raises(InputError, match="expected ONNX files of NanoTrack's backbone"):
        trackers.make_baseline("nano", files=[V2[1], V2[0]])
    for files in ([V2[0], V3[1]], [V3[0], V2[1]]):
        with pytest.raises(InputError, match="of NanoTrack"):
            trackers.make_baseline("nano", files=files)


@pytest.mark.skipif(not PEERS.is_dir(), reason="skipped: no ../shared")
@pytest.mark.parametrize(("files", "auc"), [(V2, 0.684), (V3, 0.672)])
def test_on_the_development_sequences(files, auc):
    """Others measured .669 with version 3; OpenCV's tracker has .647 with version 2.

    The latter rounds each box to whole pixels and searches around that. A last bit more
    or less in a penalty moves these means by up to .002.
    """
    tracker = trackers.make_baseline("nano", files=files)
    rows = []
    for folder in find_sequences(SHARED_DATA / "dev_sequences"):
        sequence = read_sequence(folder)
        rows.append(
            metrics.evaluate(run_sequence(tracker, sequence).boxes, sequence.boxes)
        )
    assert metrics.mean_metrics(rows).auc == pytest.approx(auc, abs=0.005)
