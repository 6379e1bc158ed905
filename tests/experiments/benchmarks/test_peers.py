"""The others' networks and trackers do what ours do."""

import dataclasses

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import cases, contestants, train
from experiments.benchmarks.cases import Network
from experiments.benchmarks.session import relative_error
from experiments.benchmarks.torch_tracker import HostTracker, subwindow
from exports import MODELS as EXPORTED
from siamrpn_jax.model.config import BackboneConfig, HeadConfig, ModelConfig
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.published import LITE
from siamrpn_jax.tracking import crops
from siamrpn_jax.tracking import step as tracker
from siamrpn_jax.tracking.config import TrackerConfig
from small_models import tiny_model, tiny_recipe

ALEXNET = ModelConfig(
    backbone=BackboneConfig(widths=(8, 16, 16, 16, 16)),
    head=HeadConfig(width=16),
    conv_impl="xla",
)
CONFIGS = {
    "alexnet": ALEXNET,
    "alexnet depthwise": dataclasses.replace(
        ALEXNET, head=HeadConfig("depthwise", width=16, template_relu=True)
    ),
    "compact": tiny_model(),
    "efficientnet_lite hybrid": dataclasses.replace(
        EXPORTED["efficientnet_lite hybrid bgr"], input=LITE
    ),
}


def network(config):
    model = SiamRPN(config)
    return Network("tiny", model, cases.random_variables(model), TrackerConfig())


def ours(net, z, x):
    return contestants.our_search(net, z, x, fuse=False).check()


def torch_models():
    pytest.importorskip("torch", reason="skipped: no torch (extra bench)")
    from experiments.benchmarks import torch_models

    return torch_models


@pytest.mark.parametrize("name", CONFIGS)
def test_the_torch_twin_equals_ours(name):
    torch, net = torch_models(), network(CONFIGS[name])
    z, x = cases.patches(net.model.config, 2)
    twin = torch.tracking_network(net.model.config, net.variables)
    detect = torch.detector(twin, torch.to_torch(z))
    found = torch.to_ours(detect(torch.to_torch(x)))
    assert relative_error(found, ours(net, z, x)) < 1e-4


def test_onnx_engines_equal_ours():
    torch_models()
    for module in ("onnx", "onnxruntime"):
        pytest.importorskip(module, reason=f"skipped: no {module} (extra bench)")
    net = network(CONFIGS["compact"])
    z, x = cases.patches(net.model.config, 1)
    expected = ours(net, z, x)
    for threads in (1, None):
        found = contestants.onnx_search(net, z, x, threads=threads).check()
        assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize("preset", ["small", "paper"])
def test_the_torch_step_has_our_loss_and_gradient(preset):
    torch_models()
    config = tiny_recipe().train
    if preset == "paper":  # its loss and optimizer, on the small network
        from siamrpn_jax.presets import paper

        config = paper().train
        optimizer = dataclasses.replace(config.optimizer, frozen_layers=1)
        config = dataclasses.replace(config, optimizer=optimizer)
    net = network(CONFIGS["compact"])
    batch = cases.batch(net.model.config, 4)
    expected = train._ours(net, config, batch).check()
    found = train._torch(net, config, batch).check()
    assert relative_error(found, expected) < 1e-3


def test_the_host_tracker_takes_our_step():
    """On the same patch; the engine is ours here, the rest of the step theirs."""
    net = cases.network("small")
    frames, truth = cases.clip(2)
    fill, config = crops.channel_mean(frames[0]), net.model.config
    z, x = (
        np.array(cases.crop(frame, truth[0], fill, config=config, size=size))
        for frame, size in zip(
            frames, (config.exemplar_size, config.instance_size), strict=True
        )
    )
    host = HostTracker(
        config, net.tracker, lambda x: ours(net, z[None], x), frames[0], truth[0]
    )
    init, step = tracker.make_tracker(net.model, net.variables, config=net.tracker)
    _, output = step(*init(frames[0], truth[0]), frames[1])
    np.testing.assert_allclose(host.step(frames[1], x), output.box, atol=0.01)
    np.testing.assert_allclose(host.box, truth[0])


@pytest.mark.parametrize("center", [(160.0, 120.0), (3.0, 230.0)])
def test_their_crop_shows_what_ours_shows(center):
    """Up to the half pixel that whole-pixel corners cost them, in a smooth image."""
    frame = cv2.GaussianBlur(cases.clip(1)[0][0], (0, 0), 5)[:240, :320]
    box, fill = np.array([*center, 60.0, 50.0]), crops.channel_mean(frame)
    config = CONFIGS["compact"]
    size = config.instance_size
    mine = cases.crop(frame, box, fill, config=config, size=size)
    side = crops.context_side(jnp.asarray(box[2:])) * size / config.exemplar_size
    theirs = subwindow(frame, box, float(side), np.asarray(fill), size)
    assert np.abs(np.asarray(mine) - theirs).mean() < 2.0
