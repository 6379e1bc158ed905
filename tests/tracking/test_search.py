import operator
from typing import Any

import jax
import numpy as np
import pytest

from random_variables import random_variables
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.model import fused
from siamrpn_jax.model.boxes import ltwh_to_cxcywh
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking import search
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.step import init_track, track_clip
from small_models import tiny_model

CONFIG = TrackerConfig(min_size=4.0)


@pytest.fixture(scope="module")
def tiny():
    model = SiamRPN(tiny_model())
    return model, fused.fuse(model, random_variables(model.init_variables))


def test_each_setting_is_tracked_as_alone(tiny):
    """In frames that are padded, and more of them than go in one call."""
    model, weights = tiny
    frames, truth = make_sequence(3, length=20, height=100, width=140)
    box = ltwh_to_cxcywh(truth[0])
    settings = search.make_settings(CONFIG, search.draw_settings(3, seed=0))
    together = search.track_frames(
        weights,
        frames,
        box,
        settings,
        model=model,
    )
    assert together.box.shape == (19, 3, 4)
    template, state = init_track(weights, frames[0], box, model=model)
    for i in range(3):
        _, alone = track_clip(
            weights,
            template,
            state,
            frames[1:],
            model=model,
            config=jax.tree.map(operator.itemgetter(i), settings),
        )
        np.testing.assert_allclose(together.box[:, i], alone.box, atol=2e-3)
        np.testing.assert_allclose(together.score[:, i], alone.score, atol=1e-4)
    assert np.abs(together.box[:, 0] - together.box[:, 1]).max() > 0.1


def test_clips_of_several_sizes_and_lengths_are_compiled_for_once(tiny):
    model, weights = tiny
    settings = search.make_settings(CONFIG, search.draw_settings(2, seed=0))

    def track(seed, length, height, width):
        frames, truth = make_sequence(seed, length=length, height=height, width=width)
        box = ltwh_to_cxcywh(truth[0])
        search.track_frames(weights, frames, box, settings, model=model)

    track(0, 5, 100, 140)
    jitted: Any = search.track_settings
    before = jitted._cache_size()
    track(1, 19, 90, 150)
    assert jitted._cache_size() == before


def test_settings_keep_what_is_not_searched():
    table = np.array([[0.1, 0.2, 0.3, 0.4, 0.5], [0, 0.5, 1, 1, 0]])
    settings = search.make_settings(CONFIG, table)
    assert np.asarray(settings.size_lr).tolist() == pytest.approx([0.3, 1.0])
    assert np.asarray(settings.motion).tolist() == pytest.approx([0.5, 0.0])
    assert np.asarray(settings.penalty_k).tolist() == pytest.approx([0.1, 0.0])
    assert all(leaf.shape == (2,) for leaf in jax.tree.leaves(settings))
    assert np.asarray(settings.min_size).tolist() == [4.0, 4.0]


def test_settings_fill_their_bounds_evenly():
    settings = search.draw_settings(64, seed=5)
    low, high = search.BOUNDS.T
    assert ((settings >= low) & (settings <= high)).all()
    assert np.array_equal(settings, search.draw_settings(64, seed=5))
    assert not np.array_equal(settings, search.draw_settings(64, seed=6))
    share = (settings - low) / (high - low)
    share[:, 0] **= 0.5
    for column in share.T:  # random ones would leave some of 16 classes empty
        assert np.histogram(column, 16, (0, 1))[0].min() >= 1


@pytest.mark.parametrize(
    "middle",
    [[0.0, 0.7, 0.3, 0.5, 0.0], [0.1, 0.4, 0.9, 1.0, 0.5], [0.4, 0.1, 0.05, 0.3, 1.0]],
)
def test_the_second_round_stays_within_bounds(middle):
    settings = search.draw_settings(50, seed=1, middle=np.array(middle), reach=0.4)
    low, high = search.BOUNDS.T
    assert ((settings >= low - 1e-12) & (settings <= high + 1e-12)).all()
    width = np.ptp(settings[:, 1:], axis=0) / (high - low)[1:]
    assert (width <= 0.4).all() and (width > 0.35).all()


def slow_difference(a, b, sources):
    """Means by hand, and the error of a mean over sources from those of each."""
    means, errors = [], []
    for kind in sorted(set(sources)):
        d = [x - y for x, y, k in zip(a, b, sources, strict=True) if k == kind]
        mean = sum(d) / len(d)
        means.append(mean)
        if len(d) == 1:
            errors.append(d[0] ** 2)
        else:
            errors.append(sum((x - mean) ** 2 for x in d) / (len(d) - 1) / len(d))
    n = len(means)
    return sum(means) / n, (sum(errors) / n**2) ** 0.5


SOURCES = ["real", "real", "composite", "generated", "real", "composite"]


def test_scores_against_slow_formulas():
    scores = np.random.default_rng(0).uniform(size=(5, 6))
    for row in scores:
        expected = slow_difference(row, scores[0] * 0, SOURCES)[0]
        assert search.mean_score(row, SOURCES) == pytest.approx(expected)
        found = search.mean_difference(row, scores[0], SOURCES)
        assert found == pytest.approx(slow_difference(row, scores[0], SOURCES))


def test_the_choice_is_the_middle_of_the_plateau():
    rng = np.random.default_rng(1)
    settings = search.draw_settings(8, seed=0)
    scores = rng.uniform(size=(8, 6)) * 0.2 + np.linspace(0, 0.5, 8)[:, None]
    best, error, plateau, center = search.choose(settings, scores, SOURCES)
    means = [slow_difference(row, row * 0, SOURCES)[0] for row in scores]
    assert best == int(np.argmax(means)) and plateau[best]
    assert error == pytest.approx(slow_difference(scores[best], scores[0], SOURCES)[1])
    assert plateau.tolist() == [max(means) - mean <= error for mean in means]
    assert 1 <= plateau.sum() < 8
    np.testing.assert_allclose(center, settings[plateau].mean(axis=0))


def test_halves_split_each_source():
    assert search.second_fold(SOURCES).tolist() == [
        False,
        True,
        False,
        False,
        False,
        True,
    ]
