import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from random_variables import random_variables
from siamrpn_jax import presets
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model.backbone import Backbone
from siamrpn_jax.model.config import BackboneConfig, backbone_width, feature_size
from small_models import TINY_EFFICIENT

ALEXNET = BackboneConfig(widths=(2, 3, 4, 3, 2))
COMPACT = BackboneConfig("compact", widths=(3, 4, 5, 5, 5))
BOTH = [
    pytest.param(ALEXNET, 127, id="alexnet"),
    pytest.param(COMPACT, 92, id="compact"),
]


def make_variables(backbone: Backbone, size: int):
    return random_variables(backbone.init, (jnp.zeros((1, size, size, 3)),))


def images(size: int, batch: int = 2) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.normal(size=(batch, size, size, 3)).astype(np.float32)


def reference(config: BackboneConfig, variables, x, *, strides):
    """The network from flax's own layers, in the order conv, BatchNorm, ReLU, pool.

    ReLU and maximum may change places; the product takes the cheaper order.
    """
    layers = len(config.widths)
    for i, stride in enumerate(strides, start=1):
        inputs = x
        params = variables["params"]
        bn = {kind: values[f"bn{i}"] for kind, values in variables.items()}
        kernel = params[f"conv{i}"]["kernel"]
        conv = nn.Conv(
            kernel.shape[-1],
            kernel.shape[:2],
            stride,
            padding="VALID",
            use_bias="bias" in params[f"conv{i}"],
        )
        x = conv.apply({"params": params[f"conv{i}"]}, x)
        x = nn.BatchNorm(True).apply(bn, x)
        assert isinstance(x, jax.Array)
        if config.kind == "compact" and i > 2 and x.shape[-1] == inputs.shape[-1]:
            x += inputs[:, 1:-1, 1:-1]
        if i < layers:
            x = nn.relu(x)
        if config.kind == "alexnet" and i <= 2:
            x = nn.max_pool(x, (3, 3), strides=(2, 2))
    return x


@pytest.mark.parametrize(("config", "size"), BOTH)
def test_against_plain_flax_layers(config, size):
    backbone = Backbone(config)
    variables = make_variables(backbone, size)
    strides = (2, 1, 1, 1, 1) if config.kind == "alexnet" else (4, 2, 1, 1, 1)
    x = images(size)
    expected = jax.jit(functools.partial(reference, config, strides=strides))(
        variables, x
    )
    (found,) = jax.jit(backbone.apply)(variables, (x,))
    assert found.shape[1] == feature_size(config, size)
    assert (expected < 0).any()  # no ReLU after the last layer
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def efficientnet_reference(variables, x):
    """EfficientNet-Lite0's blocks from flax's own layers."""
    names = iter(range(1, 34))

    def conv(x, size, stride=1, *, each=False, relu=True):
        i = next(names)
        kernel = variables["params"][f"conv{i}"]["kernel"]
        width = kernel.shape[-1]
        groups = width if each else 1
        layer = nn.Conv(
            width,
            (size, size),
            stride,
            padding=size // 2,
            use_bias=False,
            feature_group_count=groups,
        )
        x = layer.apply({"params": {"kernel": kernel}}, x)
        assert isinstance(x, jax.Array)
        bn = {kind: values[f"bn{i}"] for kind, values in variables.items()}
        x = np.asarray(nn.BatchNorm(True).apply(bn, x))
        return x.clip(0, 6) if relu else x

    x, outputs = conv(x, 3, 2), []
    for size, stride in zip("33355333555", "12121211111", strict=True):
        y = conv(x, 1) if outputs else x
        y = conv(y, int(size), int(stride), each=True)
        y = conv(y, 1, relu=False)
        same = outputs and stride == "1" and y.shape[-1] == x.shape[-1]
        x = x + y if same else y
        outputs.append(np.asarray(x))
    fine, coarse = outputs[4], outputs[-1]
    for axis in (1, 2):
        places = np.arange(coarse.shape[axis])
        between = np.linspace(0, places[-1], fine.shape[axis])
        coarse = np.apply_along_axis(
            lambda row, at=between, known=places: np.interp(at, known, row),
            axis,
            coarse,
        )
    return np.concatenate([fine, coarse], -1)[:, 3:-3, 3:-3]


def test_efficientnet_against_plain_flax_layers():
    backbone = Backbone(TINY_EFFICIENT)
    variables = make_variables(backbone, 97)
    x = 3 * images(97)
    expected = efficientnet_reference(variables, x)
    (found,) = jax.jit(backbone.apply)(variables, (x,))
    assert expected.shape == (2, 7, 7, 10)
    assert backbone_width(TINY_EFFICIENT) == 10
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_fine_features_look_at_the_places_of_the_anchors():
    """As below, for the middle cells: those at the ends see the end of the patch."""
    config = dataclasses.replace(TINY_EFFICIENT, widths=(1,) * 12)
    seen = bright_columns(config, 193)[:, 6:-6]
    cells = seen.shape[1] + 12
    for cell, column in enumerate(seen.T, start=6):
        inside = np.nonzero(column)[0]
        center = (inside[0] + inside[-1] + 1) / 2
        assert center == 193 / 2 + 8 * (cell - (cells - 1) / 2)


def test_kernels_of_the_paper():
    shapes = jax.eval_shape(
        Backbone(presets.paper().model.backbone).init,
        jax.random.key(0),
        (jnp.zeros((1, 127, 127, 3)),),
    )
    kernels = [shapes["params"][f"conv{i}"]["kernel"].shape for i in range(1, 6)]
    assert kernels == [
        (11, 11, 3, 96),
        (5, 5, 96, 256),
        (3, 3, 256, 384),
        (3, 3, 384, 384),
        (3, 3, 384, 256),
    ]
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == 3_749_952


@pytest.mark.parametrize(
    ("config", "patch", "expected"),
    [
        (BackboneConfig(), 127, 6),
        (BackboneConfig(), 255, 22),
        (BackboneConfig(), 271, 24),
        (BackboneConfig(), 287, 26),
        (COMPACT, 92, 4),
        (COMPACT, 188, 16),
        (TINY_EFFICIENT, 97, 7),
        (TINY_EFFICIENT, 193, 19),
    ],
)
def test_feature_sizes(config, patch, expected):
    assert feature_size(config, patch) == expected
    thin = dataclasses.replace(config, widths=(1,) * len(config.widths))
    patches = jnp.zeros((1, patch, patch, 3))
    (features,), _ = jax.eval_shape(
        Backbone(thin).init_with_output, jax.random.key(0), (patches,)
    )
    assert features.shape == (1, expected, expected, backbone_width(thin))


@pytest.mark.parametrize(
    ("config", "patch", "layer"),
    [
        (BackboneConfig(), 128, "layer 1"),
        (BackboneConfig(), 129, "layer 1"),  # conv1 fits, its pool does not
        (BackboneConfig(), 63, "layer 4"),  # nothing left
        (COMPACT, 93, "layer 1"),
        (COMPACT, 96, "layer 2"),
        (TINY_EFFICIENT, 96, "layer 1"),
        (TINY_EFFICIENT, 105, "layer 17"),
    ],
)
def test_sizes_that_would_shift_the_features_are_refused(config, patch, layer):
    with pytest.raises(InputError, match=f"patch size {patch} does not.*{layer}"):
        feature_size(config, patch)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (BackboneConfig(widths=(8, 8, 8)), "alexnet has 5 layers"),
        (BackboneConfig("compact", widths=(8,)), "compact has at least 2 layers"),
        (BackboneConfig("efficientnet_lite", widths=(8,)), "has conv1 and 11 blocks"),
    ],
)
def test_wrong_numbers_of_widths(config, expected):
    with pytest.raises(InputError, match=expected):
        feature_size(config, 127)


@pytest.mark.parametrize(("config", "size"), BOTH)
def test_shifted_patches_have_shifted_features(config, size):
    """Eq. 1, for any whole number of strides in both directions."""
    backbone = Backbone(config, "xla")
    variables = make_variables(backbone, size)
    x = images(size + 16, batch=1)
    extract = jax.jit(backbone.apply)
    (still,) = extract(variables, (x[:, 8 : size + 8, 8 : size + 8],))
    for rows, columns in ((1, 0), (-1, 1)):
        top, left = 8 + 8 * rows, 8 + 8 * columns
        patch = x[:, top : top + size, left : left + size]
        (moved,) = extract(variables, (patch,))
        shared = still.shape[1] - 1
        r, c = max(rows, 0), max(columns, 0)
        a = still[:, r : r + shared, c : c + shared]
        r, c = max(-rows, 0), max(-columns, 0)
        b = moved[:, r : r + shared, c : c + shared]
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("config", "size"), BOTH)
def test_features_look_at_the_places_of_the_anchors(config, size):
    """Cell i's receptive field is centred where an anchor grid of its size would be."""
    seen = bright_columns(config, size)
    cells = seen.shape[1]
    for cell in range(cells):
        inside = np.nonzero(seen[:, cell])[0]
        center = (inside[0] + inside[-1] + 1) / 2
        assert center == size / 2 + 8 * (cell - (cells - 1) / 2)


def bright_columns(config: BackboneConfig, size: int) -> np.ndarray:
    """Which column of pixels reaches which cell's first feature, ``[size, f]``."""
    backbone = Backbone(config, "xla")
    shapes = jax.eval_shape(
        backbone.init, jax.random.key(0), (jnp.zeros((1, size, size, 3)),)
    )
    # Nothing but sums and maxima: what reaches a cell at all makes it positive.
    values = {"kernel": 0.5, "scale": 1.0, "var": 1.0, "bias": 0.0, "mean": 0.0}
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.full(leaf.shape, values[path[-1].key], np.float32), shapes
    )
    # Image number i shows one bright column of pixels, at i.
    columns = np.zeros((size, size, size, 3), np.float32)
    columns[np.arange(size), :, np.arange(size)] = 1
    (features,) = jax.jit(backbone.apply)(variables, (columns,))
    return np.asarray(features)[:, 0, :, 0] > 0


def test_statistics_of_fixed_layers_stay():
    fixed = ("conv1", "conv3")
    backbone = Backbone(COMPACT, "xla")
    variables = make_variables(backbone, 92)
    maps = (images(92), images(100))
    train = functools.partial(
        backbone.apply, train=True, fixed=fixed, mutable=["batch_stats"]
    )
    _, updates = jax.jit(train)(variables, maps)
    for name, values in updates["batch_stats"].items():
        for key, value in values.items():
            moved = value != variables["batch_stats"][name][key]
            assert moved.all() == moved.any() == (name not in ("bn1", "bn3"))


def test_fixed_layers_normalise_by_running_averages():
    backbone = Backbone(COMPACT, "xla")
    variables = make_variables(backbone, 92)
    x = (images(92),)
    every = [f"conv{i}" for i in range(1, 6)]
    fixed = functools.partial(backbone.apply, train=True, fixed=every)
    found = jax.jit(fixed)(variables, x)
    np.testing.assert_allclose(found, jax.jit(backbone.apply)(variables, x), rtol=1e-6)
