import dataclasses

import jax
import pytest

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model.config import describe_layers, total_stride
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.presets import PRESETS, paper, small


def test_paper_is_the_published_recipe():
    recipe = paper()
    model, train = recipe.model, recipe.train
    assert (model.exemplar_size, model.instance_size, model.context) == (127, 255, 0.5)
    assert model.backbone.kind == "alexnet"
    assert model.backbone.widths == (96, 256, 384, 384, 256)
    assert model.head.kind == "up_channel"
    assert (total_stride(model.backbone), model.anchors.base_size) == (8, 64.0)
    assert model.anchors.ratios == pytest.approx((1 / 3, 1 / 2, 1, 2, 3))
    targets = train.targets
    assert (targets.positive_iou, targets.negative_iou) == (0.6, 0.3)
    assert (targets.max_positives, targets.max_samples) == (16, 64)
    assert (train.losses.regression_weight, train.losses.sigma) == (1.2, 1.0)
    optimizer = train.optimizer
    assert (optimizer.kind, optimizer.schedule) == ("sgd", "exponential")
    assert (optimizer.learning_rate, optimizer.final_learning_rate) == (1e-2, 1e-6)
    assert optimizer.frozen_layers == 3
    pairs = train.steps_per_epoch * recipe.batch_size
    assert train.epochs == 50 and pairs == pytest.approx(600_000, abs=128)
    assert (recipe.data.video, recipe.data.max_interval) == (1.0, 99)


def test_paper_augment_moves_by_pixels_of_its_patches():
    recipe = paper()
    augment, model = recipe.augment, recipe.model
    assert augment.template_shift * model.exemplar_size == pytest.approx(4)
    assert augment.search_shift * model.instance_size == pytest.approx(64)
    assert (augment.flip_probability, augment.rotation_probability) == (0, 0)


def test_siamfc_is_the_published_recipe():
    recipe = PRESETS["siamfc"]()
    model, optimizer, tracker = recipe.model, recipe.train.optimizer, recipe.tracker
    assert (model.exemplar_size, model.instance_size) == (127, 255)
    assert (model.score_size, model.template_size) == (17, 6)
    assert (recipe.batch_size, recipe.train.steps_per_epoch) == (8, 6250)
    assert recipe.train.targets.radius == 16
    assert (optimizer.learning_rate, optimizer.final_learning_rate) == (1e-2, 1e-5)
    assert (optimizer.weight_decay, optimizer.frozen_layers) == (5e-4, 0)
    constants = tracker.scales, tracker.scale_step, tracker.scale_penalty
    assert constants == (3, 1.0375, 0.9745)
    assert (tracker.window_influence, tracker.size_lr) == (0.176, 0.59)


def test_small_trains_from_scratch():
    recipe = small()
    model, optimizer = recipe.model, recipe.train.optimizer
    assert (model.exemplar_size, model.instance_size) == (92, 188)
    assert (model.backbone.kind, model.head.kind) == ("compact", "depthwise")
    # As much of the template is target as in the paper: 64 of 127.
    assert model.anchors.base_size / model.exemplar_size == pytest.approx(0.5, abs=0.01)
    assert (optimizer.kind, optimizer.frozen_layers) == ("adamw", 0)
    assert optimizer.ema is not None
    assert recipe.train.targets.force_best
    assert recipe.train.losses.hard_negatives > 0


def test_base_stands_on_a_backbone_that_is_given():
    recipe = PRESETS["base"]()
    model, optimizer = recipe.model, recipe.train.optimizer
    assert (model.exemplar_size, model.instance_size) == (97, 193)
    assert (model.score_size, model.template_size) == (13, 7)
    assert optimizer.frozen_layers == len(describe_layers(model.backbone))
    assert model.anchors.base_size / model.exemplar_size == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("small", 593_214),
        ("base", 770_917),
        ("paper", 22_632_512),
        ("pysot", 6_251_102),
        ("dasiamrpn", 22_632_932),
        ("siamfc", 3_749_953),
    ],
)
def test_every_model_builds(name, count):
    model = SiamRPN(PRESETS[name]().model)
    variables = jax.eval_shape(model.init_variables, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count


def test_every_preset_is_tested():
    assert set(PRESETS) == {"small", "base", "paper", "pysot", "dasiamrpn", "siamfc"}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_value(name):
    """Model, tracker and step configs are static arguments of jitted functions."""
    first, second = PRESETS[name](), PRESETS[name]()
    assert first is not second
    for field in ("model", "tracker", "train", "augment"):
        one, other = getattr(first, field), getattr(second, field)
        assert one == other and hash(one) == hash(other)
    assert SiamRPN(first.model) == SiamRPN(second.model)


@pytest.mark.parametrize("name", PRESETS)
def test_augment_is_in_range(name):
    augment = PRESETS[name]().augment
    for field, value in dataclasses.asdict(augment).items():
        top = 1.0 if field.endswith("probability") else 2.0
        assert 0 <= value <= top, field
    # The target's centre stays in the middle half of the search patch.
    assert augment.search_shift <= 0.26
    assert augment.rotation <= 0.5


@pytest.mark.parametrize("name", PRESETS)
def test_shares_of_the_data_are_shares(name):
    data = PRESETS[name]().data
    shares = (data.video, data.stills, data.composites, data.synthetic)
    assert min(shares) >= 0 and sum(shares) == pytest.approx(1)


def test_recipes_out_of_range():
    recipe = small()
    with pytest.raises(InputError, match="batch_size is 0"):
        dataclasses.replace(recipe, batch_size=0)
    narrow = dataclasses.replace(recipe.model, instance_size=100)
    with pytest.raises(InputError, match="hard_negatives is 32, expected at most 20"):
        dataclasses.replace(recipe, model=narrow)
