"""Imported weights do what they do in PyTorch; every test skips without it.

Networks are compared with PyTorch in float64, on random weights and statistics. Whole
trajectories run free, each tracker on its own boxes: once with weights whose score is
the correlation of random features, which do follow the target, and once with all
weights random, where only agreement means anything.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import plain_network as plain
import torch_siamese as theirs
from paths import SHARED_DATA
from random_variables import random_variables
from siamrpn_jax.data.read.images import read_image
from siamrpn_jax.data.read.sequences import read_sequence
from siamrpn_jax.model import fused
from siamrpn_jax.model.boxes import cxcywh_to_ltwh, iou, ltwh_to_cxcywh
from siamrpn_jax.model.config import ModelConfig
from siamrpn_jax.model.network import SiamRPN, normalise
from siamrpn_jax.tracking.state import Loaded
from siamrpn_jax.tracking.step import make_tracker
from siamrpn_jax.weights.backbones import load_backbone
from siamrpn_jax.weights.torch_layouts import LAYOUTS, export_torch, import_torch

pytestmark = pytest.mark.usefixtures("optimized")
torch: Any = theirs.torch

SEQUENCES = SHARED_DATA / "dev_sequences"
WIDTH = 0.25
"""Of the networks, as a share of the published; layouts go by names, not widths."""

TRACKERS = list(theirs.TRACKERS)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def save(path: Path, network, kind: str) -> Path:
    """In one of the forms in which such files are met."""
    state = network.state_dict()
    legacy = kind.startswith("legacy")
    if kind.endswith("checkpoint"):
        parameters = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=np.float64(0.1), momentum=0.9)
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()  # makes its momentum
        state = {f"module.{name}": tensor for name, tensor in state.items()}
        state = {
            "epoch": 20,
            "state_dict": state,
            "optimizer": optimizer.state_dict(),
        }
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    return path


def relative_error(found, expected) -> float:
    found, expected = np.asarray(found, np.float64), np.asarray(expected)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def patches(config: ModelConfig):
    rng = np.random.default_rng(3)
    sizes = config.exemplar_size, config.instance_size
    return [rng.integers(0, 256, (1, n, n, 3), np.uint8) for n in sizes]


def as_theirs(config: ModelConfig, patch: np.ndarray):
    """What the network is given there, in float64."""
    patch = patch[..., ::-1] if config.input.order == "bgr" else patch
    values = (patch - np.array(config.input.mean)) / np.array(config.input.std)
    return theirs.to_torch(values)


def anchor_major(maps, values: int) -> np.ndarray:
    """``[B, values * K * C, h, w]`` in blocks to ``[B, h, w, C, K, values]``."""
    maps = maps.numpy()
    b, _, h, w = maps.shape
    blocks = maps.reshape(b, values, theirs.ANCHORS, -1, h, w)
    return blocks.transpose(0, 4, 5, 3, 2, 1)


@functools.partial(jax.jit, static_argnames=("model", "module"))
def answer(module, model, variables, z, x):
    template = module.embed_template(model, variables, z)
    return template, module.detect(model, variables, template, x)


@functools.partial(jax.jit, static_argnames="model")
def features(model: SiamRPN, variables, x):
    def extract(network, x):
        return network.backbone((normalise(x, model.config.input),))[0]

    return model.apply(variables, x, method=extract)


def check_network(loaded: Loaded, network, *, tolerance: float = 1e-5):
    """Features, template kernels, logits and offsets; plain and prepared."""
    config = loaded.model.config
    z, x = patches(config)
    model = SiamRPN(dataclasses.replace(config, conv_impl="xla"))
    with torch.no_grad():
        network = network.double()
        their_features = network.extract(as_theirs(config, z))
        kernels = network.kernels(as_theirs(config, z))
        cls, reg = network.outputs(kernels, as_theirs(config, x))
    found = features(model, loaded.variables, z)
    expected = their_features.numpy().transpose(0, 2, 3, 1)
    assert relative_error(found, expected) <= tolerance
    if config.head.kind == "up_channel":
        wanted = [anchor_major(k, v) for k, v in zip(kernels, (2, 4), strict=True)]
        wanted = [k.reshape(*k.shape[:4], -1) for k in wanted]
    else:
        wanted = [k.numpy().transpose(0, 2, 3, 1) for k in kernels]
    wanted += [anchor_major(cls, 2)[..., 0, :, :], anchor_major(reg, 4)[..., 0, :, :]]
    for module in (plain, fused):
        answers = answer(module, model, loaded.variables, z, x)
        for a, b in zip(jax.tree.leaves(answers), wanted, strict=True):
            assert relative_error(a, b) <= tolerance


@pytest.mark.parametrize("name", TRACKERS)
def test_networks(name, tmp_path):
    kinds = ("zip", "legacy", "zip checkpoint", "legacy checkpoint")
    kind = kinds[TRACKERS.index(name) % len(kinds)]
    network = theirs.randomise(theirs.TRACKERS[name](WIDTH), seed=1)
    path = save(tmp_path / "net.pth", network, kind)
    found, loaded = import_torch(path)
    assert found == name and isinstance(loaded, Loaded)
    assert loaded.model.config.crop == LAYOUTS[name].model.crop
    check_network(loaded, network)


@pytest.mark.parametrize("kind", ["zip", "legacy", "zip checkpoint"])
@pytest.mark.parametrize("name", ["dasiamrpn", "pysot-alexnet-dwxcorr"])
def test_every_format_gives_the_same_weights(name, kind, tmp_path):
    network = theirs.randomise(theirs.TRACKERS[name](WIDTH / 4), seed=2)
    expected = import_torch(save(tmp_path / "a.pth", network, "zip"))[1]
    found = import_torch(save(tmp_path / "b.pth", network, kind))[1]
    for a, b in zip(
        jax.tree.leaves(found.variables),
        jax.tree.leaves(expected.variables),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_types_are_widened(dtype, tmp_path):
    network = theirs.randomise(theirs.TRACKERS["dasiamrpn"](WIDTH / 4), seed=2)
    network = network.to(getattr(torch, dtype))
    _, loaded = import_torch(save(tmp_path / "a.pth", network, "zip"))
    kernel = loaded.variables["params"]["backbone"]["conv2"]["kernel"]
    expected = network.featureExtract[4].weight.float().detach().numpy()
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, expected.transpose(2, 3, 1, 0))


@pytest.mark.parametrize("name", theirs.BACKBONES)
def test_backbones(name, tmp_path):
    network = theirs.randomise(theirs.BACKBONES[name](WIDTH), seed=4)
    loaded = load_backbone(save(tmp_path / "net.pth", network, "zip"))
    config = ModelConfig(
        backbone=loaded.config, input=loaded.input, conv_impl="xla", instance_size=127
    )
    (x, _), model = patches(config), SiamRPN(config)
    extract = getattr(network.double(), "extract", network)
    with torch.no_grad():
        expected = extract(as_theirs(config, x))
    found = features(model, loaded.variables, x)
    expected = expected.numpy().transpose(0, 2, 3, 1)
    assert relative_error(found, expected) <= 1e-5


def test_the_score_map_of_siamfc(tmp_path):
    network = theirs.randomise(theirs.SiamFC(WIDTH), seed=5)
    name, loaded = import_torch(save(tmp_path / "net.pth", network, "zip"))
    assert name == "siamfc" and isinstance(loaded, Loaded)
    config = loaded.model.config
    z, x = patches(config)
    model = SiamRPN(dataclasses.replace(config, conv_impl="xla"))
    network = network.double()
    with torch.no_grad():
        expected = 1e-3 * torch.stack(
            [
                torch.nn.functional.conv2d(b[None], a[None])[0, 0]
                for a, b in zip(
                    network.extract(as_theirs(config, z)),
                    network.extract(as_theirs(config, x)),
                    strict=True,
                )
            ]
        )
    for module in (plain, fused):
        _, detection = answer(module, model, loaded.variables, z, x)
        logits = np.asarray(detection.cls_logits, np.float64)[..., 0, :]
        assert logits.shape[1:3] == (17, 17)
        found = logits[..., 1] - logits[..., 0]
        assert relative_error(found, expected.numpy()) <= 1e-5


@pytest.mark.parametrize("name", [name for name in TRACKERS if LAYOUTS[name].can_write])
def test_what_we_write_pytorch_loads(name, tmp_path):
    """Our random weights in their network, with strict names and safe loading."""
    network = theirs.TRACKERS[name](WIDTH / 4).eval()
    template = import_torch(save(tmp_path / "a.pth", network, "zip"))[1]
    assert isinstance(template, Loaded)
    z, x = patches(template.model.config)
    variables = random_variables(template.model.init, z, x)
    export_torch(tmp_path / "b.pth", variables, layout=name)
    network.load_state_dict(torch.load(tmp_path / "b.pth", weights_only=True))
    check_network(template._replace(variables=variables), network, tolerance=2e-5)


# --- Trajectories ---


@functools.cache
def sequence(name: str = "otb_Crossing", length: int = 51):
    """Real frames, and boxes ``ltwh``."""
    if not SEQUENCES.is_dir():
        pytest.skip("skipped: no ../shared")
    found = read_sequence(SEQUENCES / name)
    return [read_image(path) for path in found.frames[:length]], found.boxes[:length]


def plain_tracker(name: str, network) -> theirs.PlainTracker:
    """With the constants as published, not as our configs have them."""
    pysot = name.startswith("pysot")
    return theirs.PlainTracker(
        network,
        instance_size=287 if pysot else 271,
        constants=(0.16, 0.40, 0.30) if pysot else (0.04, 0.44, 0.45),
        half_pixel=pysot,
    )


def track_both(name: str, network, path: Path):
    """Boxes ``ltwh [T - 1, 4]`` of PyTorch's tracker and of ours, each on its own."""
    frames, boxes = sequence()
    tracker = plain_tracker(name, network)
    tracker.init(frames[0], boxes[0])
    expected = np.stack([tracker.update(frame)[0] for frame in frames[1:]])
    _, loaded = import_torch(save(path, network, "zip"))
    assert isinstance(loaded, Loaded)
    init, step = make_tracker(
        loaded.model, loaded.variables, config=loaded.tracker_config
    )
    template, state = init(frames[0], ltwh_to_cxcywh(boxes[0]).astype(np.float32))
    found = []
    for frame in frames[1:]:
        state, output = step(template, state, frame)
        found.append(cxcywh_to_ltwh(np.asarray(output.box, np.float64)))
    return np.stack(found), expected


NAMES = ["dasiamrpn", "pysot-alexnet", "pysot-alexnetlegacy-dwxcorr"]


@pytest.mark.parametrize("name", NAMES)
def test_trajectories_that_follow(name, tmp_path):
    network = follower(name)
    found, expected = track_both(name, network, tmp_path / "net.pth")
    assert np.abs(found - expected).max() <= 0.5
    truth = sequence()[1]
    overlap, still = (
        iou(ltwh_to_cxcywh(boxes), ltwh_to_cxcywh(truth[1:])).mean()
        for boxes in (found, np.repeat(truth[:1], len(found), 0))
    )
    assert overlap > still + 0.15  # the target left its first box


@pytest.mark.parametrize("name", NAMES)
def test_trajectories_of_random_weights(name, tmp_path):
    network = theirs.randomise(theirs.TRACKERS[name](WIDTH), seed=6)
    # Scores are not all 0 or 1, and sizes stay finite.
    cls, loc = (float(y.std()) for y in first_outputs(name, network))
    head = getattr(network, "rpn_head", network)
    if "dwxcorr" in name:
        last = ((head.cls.head[3], cls), (head.loc.head[3], 10 * loc))
    else:
        template, adjust = (getattr(head, head.NAMES[i]) for i in (0, 4))
        last = ((template, cls), (adjust, 10 * loc))
    for conv, factor in last:
        conv.weight.data /= factor
        conv.bias.data /= factor
    found, expected = track_both(name, network, tmp_path / "net.pth")
    assert np.ptp(found[:, :2], axis=0).max() > 5  # it goes somewhere
    assert np.abs(found - expected).max() <= 0.5


def follower(name: str):
    """Weights that follow: the score is the correlation of random features.

    Features have zero mean and unit variance on the first frame; the convolutions of
    the classification branch pass them on; offsets are small and random.
    """
    network = theirs.randomise(theirs.TRACKERS[name](WIDTH), seed=2)
    frames, _ = sequence()
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    backbone = norms[:5]
    for norm in backbone:
        norm.momentum = None
        norm.reset_running_stats()
        norm.train()
    with torch.no_grad():
        network.extract(theirs.to_torch(frames[0][None, ..., ::-1]).float())
    network.eval()
    pass_on = pass_on_depthwise if "dwxcorr" in name else pass_on_up_channel
    scale = pass_on(getattr(network, "rpn_head", network))
    cls, _ = first_outputs(name, network)
    scale(cls[theirs.ANCHORS :] - cls[: theirs.ANCHORS])
    return network


def first_outputs(name: str, network):
    """Logits and offsets ``[C, F, F]`` in the frame of the exemplar."""
    frames, boxes = sequence()
    tracker = plain_tracker(name, network)
    tracker.init(frames[0], boxes[0])
    size = tracker.instance_size
    side = round(theirs.context(*tracker.size) * (size / 127))
    x = theirs.subwindow(frames[0], tracker.center, size, side, tracker.average)
    with torch.no_grad():
        x = theirs.to_torch(x[None, ..., ::-1]).float()
        return [y[0] for y in network.outputs(tracker.kernels, x)]


GAINS = torch.tensor([0.8, 0.9, 1.0, 0.9, 0.8])
"""Of the anchors' scores: no two are equal."""


def centre_tap(channels: int):
    kernel = torch.zeros(channels, channels, 3, 3)
    kernel[range(channels), range(channels), 1, 1] = 1
    return kernel


def pass_on_up_channel(head):
    template, offsets, search, _, adjust = (getattr(head, name) for name in head.NAMES)
    channels = len(search.weight)
    kernel = torch.zeros(2, theirs.ANCHORS, channels, channels, 3, 3)
    kernel[1] = centre_tap(channels) * GAINS[:, None, None, None, None]
    template.weight.data = kernel.reshape(template.weight.shape)
    search.weight.data = centre_tap(channels)
    for conv in (template, search):
        conv.bias.data.zero_()
    for conv in (offsets, adjust):
        conv.weight.data *= 0.03
        conv.bias.data *= 0.03

    def scale(logits):
        template.weight.data *= 4 / logits.max()

    return scale


def pass_on_depthwise(head):
    channels = len(head.cls.head[0].weight)
    for branch in (head.cls.conv_kernel, head.cls.conv_search):
        branch[0].weight.data = centre_tap(channels)
        identity(branch[1])
    head.cls.head[0].weight.data = torch.eye(channels)[..., None, None]
    identity(head.cls.head[1])
    out = head.cls.head[3]
    out.weight.data.zero_()
    out.weight.data[theirs.ANCHORS :] = GAINS[:, None, None, None]
    out.bias.data.zero_()
    for value in (head.loc.head[3].weight, head.loc.head[3].bias):
        value.data *= 0.004

    def scale(logits):
        factor = 6 / (logits.max() - logits.median())
        out.weight.data *= factor
        out.bias.data[theirs.ANCHORS :] = -3 - factor * logits.median()

    return scale


def identity(norm):
    torch.nn.init.ones_(norm.weight)
    torch.nn.init.zeros_(norm.bias)
    norm.reset_running_stats()
