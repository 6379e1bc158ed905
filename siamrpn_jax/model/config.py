"""The network's configs, and what follows from them by arithmetic: sizes and costs.

No JAX is loaded here: the command line shows these options.
"""

import dataclasses
import math
from typing import ClassVar, Literal

from siamrpn_jax.common.errors import InputError, check_range

ConvImpl = Literal["auto", "xla", "winograd"]
CorrelationImpl = Literal["group", "taps"]

RATIOS_3 = (0.5, 1.0, 2.0)
"""A3 of the paper's Table 3."""
RATIOS_5 = (1 / 3, 0.5, 1.0, 2.0, 3.0)
"""A5 of the paper's Table 3, its best and its default."""
RATIOS_7 = (0.25, 1 / 3, 0.5, 1.0, 2.0, 3.0, 4.0)
"""A7 of the paper's Table 3."""


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """Which network extracts the features."""

    kind: Literal["alexnet", "compact", "efficientnet_lite"] = "alexnet"
    """``alexnet``: the paper's; ``compact``: strided stem and residual 3x3 layers;
    ``efficientnet_lite``: EfficientNet-Lite0 up to stride 16, its features of strides
    8 and 16 side by side."""
    widths: tuple[int, ...] = (96, 256, 384, 384, 256)
    """Channels of conv1, conv2, …; of ``efficientnet_lite`` those of conv1 and of its
    11 blocks."""
    bn_momentum: float = 0.9
    """Share of the old value in the running BatchNorm averages at each step."""

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        check_range(self, 1, 2**16, "widths")
        check_range(self, 0, 1, "bn_momentum")


HeadKind = Literal["up_channel", "depthwise", "cross_correlation", "hybrid"]


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """Which head, and how it correlates."""

    kind: HeadKind = "up_channel"
    """``up_channel``: the paper's; ``depthwise``: SiamRPN++'s, lighter;
    ``cross_correlation``: SiamFC's, a score map without boxes, whose tracker searches
    over scales. It correlates the features as they are; the other fields are for the
    other heads. ``hybrid``: scores as SiamFC, boxes as ``depthwise``, one a cell."""
    width: int = 256
    """Channels that are correlated; the paper keeps the backbone's."""
    kernel_size: int = 3
    """Side of the convolutions that prepare exemplar and search features."""
    adjust: bool = False
    """1x1 convolution on the regression output: in every published weight file, not in
    the paper. Only with ``up_channel``."""
    template_relu: bool = False
    """ReLU on the exemplar's side too, as in PySOT; without it the detection kernels
    keep their sign. Only with ``depthwise`` and ``hybrid``."""
    correlation: CorrelationImpl = "taps"
    """Formulation of the up-channel correlation; see ``correlate``."""

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        check_range(self, 1, 2**16, "width")
        check_range(self, 1, 31, "kernel_size")

    @property
    def regresses(self) -> bool:
        """Whether there are boxes beside the scores."""
        return self.kind != "cross_correlation"

    @property
    def scores_cells(self) -> bool:
        """Whether there is one score a cell, learned from distances, not from IoU."""
        return self.kind in ("cross_correlation", "hybrid")


@dataclasses.dataclass(frozen=True)
class AnchorConfig:
    """Sizes of the anchors of one cell."""

    FORMER: ClassVar = {"stride": None}
    """Fields of older files that are gone: the stride is the network's."""

    base_size: float = 64.0
    """Side in pixels of the square anchor; the others have the same area."""
    ratios: tuple[float, ...] = RATIOS_5
    """Height over width, one anchor each."""
    truncate: bool = False
    """Truncate sizes to whole numbers of strides, as DaSiamRPN and PySOT do.

    Only weights imported from there need it: it makes the ratios unequal (104x32 px
    against 32x96 px for 1/3 and 3).
    """

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range, or no ratio."""
        check_range(self, 1, 2**16, "base_size")
        check_range(self, 0.01, 100, "ratios")
        if not self.ratios:
            raise InputError("ratios are none, expected at least one anchor")


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """What the network's first layer wants to see; images come as RGB uint8."""

    order: Literal["rgb", "bgr"] = "rgb"
    """Channel order of the weights; PySOT's and DaSiamRPN's files want ``bgr``."""
    mean: tuple[float, float, float] = (118.0, 118.0, 118.0)
    """Subtracted, in grey levels and in ``order``."""
    std: tuple[float, float, float] = (60.0, 60.0, 60.0)
    """Divided by."""

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        check_range(self, -1e6, 1e6, "mean")
        check_range(self, 1e-6, 1e6, "std")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The whole network. Equal configs share one compiled function."""

    backbone: BackboneConfig = BackboneConfig()
    neck_width: int | None = None
    """Channels of a 1x1 convolution with BatchNorm between backbone and head, as in
    SiamRPN++; None: none."""
    head: HeadConfig = HeadConfig()
    anchors: AnchorConfig = AnchorConfig()
    input: InputConfig = InputConfig()
    exemplar_size: int = 127
    """Side of the exemplar patch z in pixels."""
    instance_size: int = 255
    """Side of the search patch x in pixels."""
    context: float = 0.5
    """Context around the target in both patches: p of Eq. 15 over w + h; paper: 1/2."""
    crop: Literal["exact", "dasiamrpn", "pysot"] = "exact"
    """How tracking cuts its patches; training always cuts exactly.

    ``dasiamrpn``: whole pixels, as that project cuts them, up to 1 px up and left of
    the target; the patch in whole grey levels. ``pysot``: the same, and the first box
    counts as half a pixel further up and left. For weights from there, to get the same
    boxes as there.
    """
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the convolutions; parameters, statistics and outputs stay float32."""
    conv_impl: ConvImpl = "auto"
    """Formulation of the convolutions; see ``convolutions.conv2d``."""

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range."""
        check_range(self, 8, 2**13, "exemplar_size", "instance_size")
        check_range(self, 0, 10, "context")
        if self.neck_width is not None:
            check_range(self, 1, 2**16, "neck_width")
        if self.head.scores_cells and len(self.anchors.ratios) != 1:
            raise InputError(
                f"anchors.ratios are {len(self.anchors.ratios)} numbers, expected one: "
                f"a {self.head.kind} head has one score a cell"
            )

    @property
    def feature_width(self) -> int:
        """Channels of the features that the head gets."""
        return self.neck_width or backbone_width(self.backbone)

    @property
    def score_size(self) -> int:
        """F, side of the score map: 17 for 127 and 255 pixels."""
        size = self._embedded(self.instance_size) - self._embedded(self.exemplar_size)
        if size < 0:
            raise InputError(
                f"instance_size {self.instance_size} is smaller than exemplar_size "
                f"{self.exemplar_size}"
            )
        return size + 1

    @property
    def template_size(self) -> int:
        """Side of the detection kernels: 4 for 127 pixels."""
        return self._embedded(self.exemplar_size)

    def _embedded(self, patch_size: int) -> int:
        features = feature_size(self.backbone, patch_size)
        return features - self.head.kernel_size + 1 if self.head.regresses else features


@dataclasses.dataclass(frozen=True)
class ConvLayer:
    """One convolution with its BatchNorm, and what comes after it, in this order."""

    width: int
    size: int
    stride: int = 1
    padded: bool = False
    """With zeros around the map, which keeps its size at stride 1."""
    depthwise: bool = False
    """Each channel by itself."""
    pool: bool = False
    """A 3x3 maximum with stride 2."""
    shortcut: int = 0
    """Number of layers, up to this one, whose common input is added; 0: none."""
    activation: Literal["relu", "relu6", "none"] = "relu"


RIM = 3
"""Cells cut off all around the joined features of ``efficientnet_lite``: they saw the
zeros around the patch (SiamDW's cropping)."""

_BLOCKS = (
    *((3, 1, 1), (3, 2, 6), (3, 1, 6), (5, 2, 6), (5, 1, 6), (3, 2, 6)),
    *((3, 1, 6), (3, 1, 6), (5, 1, 6), (5, 1, 6), (5, 1, 6)),
)
"""Kernel size, stride and expansion of EfficientNet-Lite0's blocks up to stride 16."""


def describe_layers(config: BackboneConfig) -> tuple[ConvLayer, ...]:
    """The convolutions in their order.

    Raises:
        InputError: a number of widths that the kind does not have.
    """
    widths = config.widths
    if config.kind == "alexnet":
        if len(widths) != 5:
            raise InputError(f"alexnet has 5 layers, got widths {widths}")
        return (
            ConvLayer(widths[0], 11, 2, pool=True),
            ConvLayer(widths[1], 5, pool=True),
            *(ConvLayer(width, 3) for width in widths[2:-1]),
            ConvLayer(widths[-1], 3, activation="none"),
        )
    if config.kind == "efficientnet_lite":
        return _efficientnet_layers(widths)
    if len(widths) < 2:
        raise InputError(f"compact has at least 2 layers, got widths {widths}")
    strided = ConvLayer(widths[0], 8, 4), ConvLayer(widths[1], 4, 2)
    pairs = zip(widths[1:], widths[2:], strict=False)
    layers = *strided, *(ConvLayer(b, 3, shortcut=int(a == b)) for a, b in pairs)
    return *layers[:-1], dataclasses.replace(layers[-1], activation="none")


def _efficientnet_layers(widths: tuple[int, ...]) -> tuple[ConvLayer, ...]:
    """Each block widens, convolves each channel by itself, and narrows again."""
    if len(widths) != 1 + len(_BLOCKS):
        raise InputError(
            f"efficientnet_lite has conv1 and {len(_BLOCKS)} blocks, got widths "
            f"{widths}"
        )
    layers = [ConvLayer(widths[0], 3, 2, padded=True, activation="relu6")]
    for (size, stride, expansion), before, width in zip(
        _BLOCKS, widths[:-1], widths[1:], strict=True
    ):
        inner = expansion * before
        if expansion > 1:
            layers.append(ConvLayer(inner, 1, activation="relu6"))
        each = ConvLayer(inner, size, stride, padded=True, depthwise=True)
        layers.append(dataclasses.replace(each, activation="relu6"))
        shortcut = 3 if stride == 1 and before == width else 0
        layers.append(ConvLayer(width, 1, shortcut=shortcut, activation="none"))
    return tuple(layers)


def fine_layers(config: BackboneConfig) -> int:
    """Number of layers up to the finer features that join the last ones; 0: none.

    Example:
        >>> fine_layers(BackboneConfig())
        0
    """
    if config.kind != "efficientnet_lite":
        return 0
    strides = [layer.stride for layer in describe_layers(config)]
    coarse = max(i for i, stride in enumerate(strides) if stride == 2)
    return coarse - 1  # the block of the last stride begins with a 1x1 convolution


def backbone_width(config: BackboneConfig) -> int:
    """Channels of the features."""
    layers, fine = describe_layers(config), fine_layers(config)
    return layers[-1].width + (layers[fine - 1].width if fine else 0)


def feature_size(config: BackboneConfig, patch_size: int) -> int:
    """Side of the feature map of a square patch.

    Raises:
        InputError: if some stride does not divide exactly, which would shift the map
            against the patch.

    Example:
        >>> feature_size(BackboneConfig(), 127), feature_size(BackboneConfig(), 255)
        (6, 22)
    """
    sizes = map_sizes(config, patch_size)
    fine = fine_layers(config)
    if not fine:
        return sizes[-1]
    if sizes[fine] <= 2 * RIM:
        raise InputError(
            f"patch size {patch_size} is too small for the {config.kind} backbone"
        )
    return sizes[fine] - 2 * RIM


def map_sizes(config: BackboneConfig, patch_size: int) -> list[int]:
    """Sides of the patch and of each layer's output."""
    sizes = [patch_size]
    for i, layer in enumerate(describe_layers(config), start=1):
        size = sizes[-1] + (layer.size - 1 if layer.padded else 0)
        windows = [(layer.size, layer.stride)] + [(3, 2)] * layer.pool
        for window, stride in windows:
            size, rest = divmod(size - window, stride)
            size += 1
            if rest or size < 1:
                raise InputError(
                    f"patch size {patch_size} does not fit the {config.kind} backbone: "
                    f"layer {i} ({window}x{window}, stride {stride}) does not divide "
                    "its input exactly"
                )
        sizes.append(size)
    return sizes


def most_values(config: BackboneConfig, patch_size: int) -> int:
    """Values in the largest map that a convolution makes of a square patch.

    Example:
        >>> most_values(BackboneConfig(), 255) == 123 * 123 * 96
        True
    """
    layers, sizes = describe_layers(config), map_sizes(config, patch_size)
    return max(
        _conv_size(layer, before) ** 2 * layer.width
        for layer, before in zip(layers, sizes, strict=False)
    )


def _conv_size(layer: ConvLayer, size: int) -> int:
    """Side of a convolution's output, before a maximum."""
    size += layer.size - 1 if layer.padded else 0
    return (size - layer.size) // layer.stride + 1


def total_stride(config: BackboneConfig) -> int:
    """Distance in patch pixels between neighbouring cells of the feature map."""
    layers = describe_layers(config)[: fine_layers(config) or None]
    return math.prod(layer.stride * (2 if layer.pool else 1) for layer in layers)


def count_flops(config: ModelConfig) -> int:
    """Floating-point operations of a frame: the search branch, without the crop.

    A multiply-add counts as 2, as elsewhere where FLOPs and not MACs are given.
    Convolutions and correlations count as the paper writes them, whatever formulation
    computes them; BatchNorm, which is folded, and what is done once an element do not
    (less than 1 %).

    Example:
        >>> count_flops(ModelConfig())
        9642956352
    """
    features = feature_size(config.backbone, config.instance_size)
    neck = features**2 * backbone_width(config.backbone) * (config.neck_width or 0)
    head = _head_multiply_adds(
        config.head,
        channels=config.feature_width,
        features=features,
        kernel=config.template_size,
        anchors=len(config.anchors.ratios),
    )
    backbone = _backbone_multiply_adds(config.backbone, config.instance_size)
    return 2 * (backbone + neck + head)


def _backbone_multiply_adds(config: BackboneConfig, patch_size: int) -> int:
    """Products of the convolutions on a square patch.

    Example:
        >>> _backbone_multiply_adds(BackboneConfig("compact", (48, 96)), 188)
        55185408
    """
    channels, total = 3, 0
    for layer, before in zip(
        describe_layers(config), map_sizes(config, patch_size), strict=False
    ):
        outputs = _conv_size(layer, before) ** 2 * layer.width
        total += outputs * layer.size**2 * (1 if layer.depthwise else channels)
        channels = layer.width
    return total


def _head_multiply_adds(
    config: HeadConfig, *, channels: int, features: int, kernel: int, anchors: int
) -> int:
    """Products of the search branch's part of a head.

    Args:
        config: the head.
        channels: of the backbone's features.
        features: side of the search features.
        kernel: side of the detection kernels.
        anchors: K.
    """
    if not config.regresses:
        return (features - kernel + 1) ** 2 * kernel**2 * channels
    width, outputs = config.width, 6 * anchors  # 2 logits and 4 offsets
    search = features - config.kernel_size + 1
    score = search - kernel + 1
    embed = 2 * search**2 * width * config.kernel_size**2 * channels
    if config.kind == "up_channel":
        adjust = (4 * anchors) ** 2 if config.adjust else 0
        return embed + score**2 * (kernel**2 * width * outputs + adjust)
    if config.kind == "hybrid":
        side = kernel + config.kernel_size - 1  # of the exemplar's features
        branch = score**2 * width * (kernel**2 + width + 4)
        return score**2 * side**2 * channels + embed // 2 + branch
    return embed + score**2 * (2 * width * (kernel**2 + width) + width * outputs)
