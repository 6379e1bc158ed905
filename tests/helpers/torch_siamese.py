"""Siamese networks and a tracker in PyTorch, from their published descriptions.

Modules carry the names that the projects' weight files have. Importing needs PyTorch.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="skipped: no torch (extra bench)")
nn, F = torch.nn, torch.nn.functional

WIDTHS = (96, 256, 384, 384, 256)
ANCHORS = 5


def scaled(scale: float) -> list[int]:
    return [int(width * scale) for width in WIDTHS]


# --- Backbones ---


def sequential_alexnet(scale: float, *, relu_first: bool = False) -> Any:
    """DaSiamRPN's ``featureExtract``, PySOT's ``alexnetlegacy``; no padding."""
    a, b, c, d, e = scaled(scale)
    after = [nn.MaxPool2d(3, 2), nn.ReLU()]
    if relu_first:  # huanglianghua's order; the same function
        after.reverse()
    return nn.Sequential(
        *(nn.Conv2d(3, a, 11, 2), nn.BatchNorm2d(a), *after),
        *(nn.Conv2d(a, b, 5), nn.BatchNorm2d(b), *after),
        *(nn.Conv2d(b, c, 3), nn.BatchNorm2d(c), nn.ReLU()),
        *(nn.Conv2d(c, d, 3), nn.BatchNorm2d(d), nn.ReLU()),
        *(nn.Conv2d(d, e, 3), nn.BatchNorm2d(e)),
    )


class StagedAlexNet(nn.Module):
    """PySOT's ``alexnet``: a Sequential for each layer."""

    def __init__(self, scale: float):
        super().__init__()
        a, b, c, d, e = scaled(scale)
        pool = [nn.MaxPool2d(3, 2), nn.ReLU()]
        self.layer1 = nn.Sequential(nn.Conv2d(3, a, 11, 2), nn.BatchNorm2d(a), *pool)
        self.layer2 = nn.Sequential(nn.Conv2d(a, b, 5), nn.BatchNorm2d(b), *pool)
        self.layer3 = nn.Sequential(nn.Conv2d(b, c, 3), nn.BatchNorm2d(c), nn.ReLU())
        self.layer4 = nn.Sequential(nn.Conv2d(c, d, 3), nn.BatchNorm2d(d), nn.ReLU())
        self.layer5 = nn.Sequential(nn.Conv2d(d, e, 3), nn.BatchNorm2d(e))

    def forward(self, x: Any) -> Any:
        for i in range(1, 6):
            x = getattr(self, f"layer{i}")(x)
        return x


class LegacyAlexNet(nn.Module):
    """PySOT's ``alexnetlegacy``."""

    def __init__(self, scale: float):
        super().__init__()
        self.features = sequential_alexnet(scale)

    def forward(self, x: Any) -> Any:
        return self.features(x)


class SiamFC(nn.Module):
    """siamfc-pytorch: grouped convolutions, epsilon 1e-6, no BatchNorm at the end."""

    def __init__(self, scale: float):
        super().__init__()
        a, b, c, d, e = scaled(scale)

        def norm(n: int) -> Any:
            return nn.BatchNorm2d(n, eps=1e-6, momentum=0.05)

        pool = [nn.ReLU(), nn.MaxPool2d(3, 2)]
        self.backbone = nn.Module()
        layers = (
            nn.Sequential(nn.Conv2d(3, a, 11, 2), norm(a), *pool),
            nn.Sequential(nn.Conv2d(a, b, 5, groups=2), norm(b), *pool),
            nn.Sequential(nn.Conv2d(b, c, 3), norm(c), nn.ReLU()),
            nn.Sequential(nn.Conv2d(c, d, 3, groups=2), norm(d), nn.ReLU()),
            nn.Sequential(nn.Conv2d(d, e, 3, groups=2)),
        )
        for i, layer in enumerate(layers, start=1):
            setattr(self.backbone, f"conv{i}", layer)

    def extract(self, x: Any) -> Any:
        for i in range(1, 6):
            x = getattr(self.backbone, f"conv{i}")(x)
        return x


class TorchvisionAlexNet(nn.Module):
    """torchvision's, of which a tracker takes the kernels: stride 2, no padding."""

    def __init__(self, scale: float):
        super().__init__()
        a, b, c, d, e = (int(n * scale) for n in (64, 192, 384, 256, 256))
        self.features = nn.Sequential(
            *(nn.Conv2d(3, a, 11, 4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(b, c, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(c, d, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(d, e, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        )
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(e * 36, 10))

    def extract(self, x: Any) -> Any:
        """What a tracker computes with these kernels: no ReLU, no pool at the end."""
        for i, layer in enumerate(self.features[:11]):
            if isinstance(layer, nn.Conv2d):
                layer.padding, layer.stride = (0, 0), (2 if i == 0 else 1,) * 2
            x = layer(x)
        return x


# --- Heads ---


def up_channel_correlate(kernel: Any, search: Any) -> Any:
    """Their view: channel o * F + f of the exemplar's branch is output o, feature f."""
    kernel = kernel.reshape(-1, search.shape[1], *kernel.shape[2:])
    return F.conv2d(search, kernel)


class UpChannel(nn.Module):
    """Names of the five convolutions differ between projects."""

    NAMES = ("conv_cls1", "conv_r1", "conv_cls2", "conv_r2", "regress_adjust")

    def add_head(self, channels: int) -> None:
        outputs = [2 * ANCHORS * channels, 4 * ANCHORS * channels, channels, channels]
        for name, count in zip(self.NAMES, outputs, strict=False):
            self.add_module(name, nn.Conv2d(channels, count, 3))
        self.add_module(self.NAMES[4], nn.Conv2d(4 * ANCHORS, 4 * ANCHORS, 1))

    def kernels(self, z: Any) -> tuple[Any, Any]:
        cls, reg = (getattr(self, name) for name in self.NAMES[:2])
        return cls(z), reg(z)

    def outputs(self, kernels: tuple[Any, Any], x: Any) -> tuple[Any, Any]:
        cls, reg, adjust = (getattr(self, name) for name in self.NAMES[2:])
        deltas = adjust(up_channel_correlate(kernels[1], reg(x)))
        return up_channel_correlate(kernels[0], cls(x)), deltas


class PysotUpChannel(UpChannel):
    """``UPChannelRPN``."""

    NAMES = (
        "template_cls_conv",
        "template_loc_conv",
        "search_cls_conv",
        "search_loc_conv",
        "loc_adjust",
    )

    def __init__(self, channels: int):
        super().__init__()
        self.add_head(channels)


class DepthwiseBranch(nn.Module):
    """``DepthwiseXCorr``."""

    def __init__(self, channels: int, outputs: int):
        super().__init__()

        def embed() -> Any:
            conv = nn.Conv2d(channels, channels, 3, bias=False)
            return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU())

        self.conv_kernel, self.conv_search = embed(), embed()
        self.head = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, outputs, 1),
        )


class PysotDepthwise(nn.Module):
    """``DepthwiseRPN``."""

    def __init__(self, channels: int):
        super().__init__()
        self.cls = DepthwiseBranch(channels, 2 * ANCHORS)
        self.loc = DepthwiseBranch(channels, 4 * ANCHORS)

    def kernels(self, z: Any) -> tuple[Any, Any]:
        return self.cls.conv_kernel(z), self.loc.conv_kernel(z)

    def outputs(self, kernels: tuple[Any, Any], x: Any) -> Any:
        def branch(layers: Any, kernel: Any) -> Any:
            y = layers.conv_search(x)
            y = F.conv2d(y, kernel.transpose(0, 1), groups=y.shape[1])
            return layers.head(y)

        return branch(self.cls, kernels[0]), branch(self.loc, kernels[1])


# --- Trackers ---


class Pysot(nn.Module):
    def __init__(self, backbone: Any, head: Any, scale: float):
        super().__init__()
        self.backbone, self.rpn_head = backbone(scale), head(scaled(scale)[-1])

    def extract(self, x: Any) -> Any:
        return self.backbone(x)

    def kernels(self, z: Any) -> Any:
        return self.rpn_head.kernels(self.extract(z))

    def outputs(self, kernels: Any, x: Any) -> Any:
        return self.rpn_head.outputs(kernels, self.extract(x))


class DaSiam(UpChannel):
    def __init__(self, scale: float):
        super().__init__()
        self.featureExtract = sequential_alexnet(scale)
        self.add_head(scaled(scale)[-1])

    def extract(self, x: Any) -> Any:
        return self.featureExtract(x)

    def kernels(self, z: Any) -> Any:
        return super().kernels(self.extract(z))

    def outputs(self, kernels: Any, x: Any) -> Any:
        return super().outputs(kernels, self.extract(x))


class Huanglianghua(DaSiam):
    NAMES = ("conv_cls_z", "conv_reg_z", "conv_cls_x", "conv_reg_x", "adjust_reg")

    def __init__(self, scale: float):
        super().__init__(scale)
        del self.featureExtract
        self.feature = sequential_alexnet(scale, relu_first=True)

    def extract(self, x: Any) -> Any:
        return self.feature(x)


def pysot(backbone: Any, head: Any) -> Callable[[float], Any]:
    return lambda scale: Pysot(backbone, head, scale)


TRACKERS: dict[str, Callable[[float], Any]] = {
    "dasiamrpn": DaSiam,
    "pysot-alexnetlegacy": pysot(LegacyAlexNet, PysotUpChannel),
    "pysot-alexnet": pysot(StagedAlexNet, PysotUpChannel),
    "pysot-alexnetlegacy-dwxcorr": pysot(LegacyAlexNet, PysotDepthwise),
    "pysot-alexnet-dwxcorr": pysot(StagedAlexNet, PysotDepthwise),
    "siamrpn-pytorch": Huanglianghua,
}

BACKBONES: dict[str, Callable[[float], Any]] = {
    "siamfc": SiamFC,
    "alexnet-bn": StagedAlexNet,
    "torchvision": TorchvisionAlexNet,
}


def randomise(network: Any, seed: int = 0) -> Any:
    """Random weights that keep the variance, random statistics; in place."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: Any, low: float, high: float) -> None:
        tensor.data.uniform_(low, high, generator=generator)

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            grey_levels = 100 if module.weight.shape[1] == 3 else 1
            deviation = fan_in**-0.5 / grey_levels
            module.weight.data.normal_(0, deviation, generator=generator)
            if module.bias is not None:
                uniform(module.bias, -0.5, 0.5)
        if isinstance(module, nn.BatchNorm2d):
            uniform(module.weight, 0.5, 1.5)
            module.weight.data[::3] *= -1  # pooling does not commute with these
            uniform(module.bias, -0.5, 0.5)
            uniform(module.running_mean, -0.5, 0.5)
            uniform(module.running_var, 0.01, 1.5)
    return network.eval()


def to_torch(patches: np.ndarray) -> Any:
    """RGB ``[B, n, n, 3]`` to ``[B, 3, n, n]``, as it is."""
    return torch.from_numpy(np.ascontiguousarray(patches)).permute(0, 3, 1, 2)


# --- The tracking loop of PySOT and DaSiamRPN ---


class PlainTracker:
    """PySOT's ``SiamRPNTracker`` on a network; frames RGB, boxes ``ltwh``, float64.

    Args:
        network: one of ``TRACKERS``.
        instance_size: side of the search patch.
        constants: penalty_k, window_influence, lr.
        half_pixel: take the first centre as x + (w - 1) / 2 (PySOT), not x + w / 2
            (DaSiamRPN); both return it as x + w / 2.
        bgr: what the network wants.
    """

    def __init__(
        self,
        network: Any,
        *,
        instance_size: int,
        constants: tuple[float, float, float],
        half_pixel: bool,
        bgr: bool = True,
    ):
        self.network, self.instance_size = network, instance_size
        self.penalty_k, self.window_influence, self.lr = constants
        self.half_pixel, self.bgr = half_pixel, bgr
        self.dtype = next(network.parameters()).dtype
        self.cells = (instance_size - 127) // 8 + 1
        window = np.outer(np.hanning(self.cells), np.hanning(self.cells))
        self.window = np.tile(window.flatten(), ANCHORS)
        self.anchors = make_anchors(self.cells)

    def init(self, frame: np.ndarray, box: np.ndarray) -> None:
        x, y, w, h = box
        less = 1 if self.half_pixel else 0
        self.center = np.array([x + (w - less) / 2, y + (h - less) / 2])
        self.size = np.array([w, h], np.float64)
        self.average = frame.mean((0, 1))
        side = context(*self.size)
        z = subwindow(frame, self.center, 127, round(side), self.average)
        with torch.no_grad():
            self.kernels = self.network.kernels(self._patch(z))

    def update(self, frame: np.ndarray) -> tuple[np.ndarray, float]:
        """The box, and by how much its score beats those of other cells."""
        side = context(*self.size)
        scale = 127 / side
        search = round(side * (self.instance_size / 127))
        x = subwindow(frame, self.center, self.instance_size, search, self.average)
        with torch.no_grad():
            cls, loc = self.network.outputs(self.kernels, self._patch(x))
        score, boxes = self._decode(cls, loc)
        penalty = self._penalty(boxes, scale)
        final = penalty * score * (1 - self.window_influence)
        final += self.window * self.window_influence
        best = int(final.argmax())
        found = boxes[:, best] / scale
        lr = penalty[best] * score[best] * self.lr
        height, width = frame.shape[:2]
        center = self.center + found[:2]
        size = self.size * (1 - lr) + found[2:] * lr
        self.center = np.clip(center, 0, [width, height])
        self.size = np.clip(size, 10, [width, height])
        others = np.partition(final, -2)[-2]
        box = np.concatenate([self.center - self.size / 2, self.size])
        return box, float(final[best] - others)

    def _patch(self, patch: np.ndarray) -> Any:
        channels = patch[..., ::-1] if self.bgr else patch
        return to_torch(channels[None]).to(self.dtype)

    def _decode(self, cls: Any, loc: Any) -> tuple[np.ndarray, np.ndarray]:
        """Scores ``[N]`` and boxes ``[4, N]`` around the patch's centre."""
        delta = loc.permute(1, 2, 3, 0).reshape(4, -1).double().numpy()
        logits = cls.permute(1, 2, 3, 0).reshape(2, -1).double()
        score = F.softmax(logits, dim=0)[1].numpy()
        a = self.anchors
        boxes = np.stack(
            [
                delta[0] * a[:, 2] + a[:, 0],
                delta[1] * a[:, 3] + a[:, 1],
                np.exp(delta[2]) * a[:, 2],
                np.exp(delta[3]) * a[:, 3],
            ]
        )
        return score, boxes

    def _penalty(self, boxes: np.ndarray, scale: float) -> np.ndarray:
        def change(r: np.ndarray) -> np.ndarray:
            return np.maximum(r, 1 / r)

        s_c = change(context(boxes[2], boxes[3]) / context(*(self.size * scale)))
        r_c = change((self.size[0] / self.size[1]) / (boxes[2] / boxes[3]))
        return np.exp(-(r_c * s_c - 1) * self.penalty_k)


def context(w: Any, h: Any) -> Any:
    pad = (w + h) * 0.5
    return np.sqrt((w + pad) * (h + pad))


def make_anchors(cells: int) -> np.ndarray:
    """``[N, 4]`` around the patch's centre; by ratio, then rows, then columns."""
    rows = []
    for ratio in (0.33, 0.5, 1, 2, 3):
        w = int(np.sqrt(64 / ratio))
        h = int(w * ratio)
        first = -(cells // 2) * 8
        for j in range(cells):
            for i in range(cells):
                rows.append((first + 8 * i, first + 8 * j, w * 8, h * 8))
    return np.array(rows, np.float64)


def subwindow(
    frame: np.ndarray, center: np.ndarray, size: int, side: int, average: np.ndarray
) -> np.ndarray:
    """PySOT's ``get_subwindow``: whole pixels, the average as uint8 outside."""
    height, width = frame.shape[:2]
    xmin, ymin = (int(np.floor(c - (side + 1) / 2 + 0.5)) for c in center)
    xmax, ymax = xmin + side - 1, ymin + side - 1
    left, top = max(0, -xmin), max(0, -ymin)
    right, bottom = max(0, xmax - width + 1), max(0, ymax - height + 1)
    padded = np.empty((height + top + bottom, width + left + right, 3), np.uint8)
    padded[:] = average.astype(np.uint8)
    padded[top : top + height, left : left + width] = frame
    cut = padded[ymin + top : ymax + top + 1, xmin + left : xmax + left + 1]
    return cv2.resize(np.ascontiguousarray(cut), (size, size))
