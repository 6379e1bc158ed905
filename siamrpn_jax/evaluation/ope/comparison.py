"""Whether one tracker is better than another on the same sequences.

A sequence that one tracker loses and the other holds moves a mean over a dozen by .03
and more, so a difference of means says little without its interval.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from siamrpn_jax.common.errors import InputError

RESAMPLES = 10_000
"""Samples of the bootstrap; their seed is fixed, so that figures can be repeated."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Success AUC of a tracker against that of another, on the sequences of both."""

    other: str
    """Name of the tracker that it is compared with."""
    auc_difference: float
    """Mean over sequences of its AUC less the other's; above 0 it is better."""
    interval: tuple[float, float]
    """Where that mean lies in 95 % of the bootstrap's samples."""
    better: int
    """Sequences on which it is better."""
    worse: int
    """Sequences on which the other is better."""
    sequences: int
    """Sequences that count: both trackers have results on them."""


def compare(
    aucs: Mapping[str, float], others: Mapping[str, float], *, other: str
) -> Comparison:
    """Compares two trackers by a paired bootstrap over sequences.

    Sequences are drawn with replacement, each with the results of both trackers, since
    what is hard for one is hard for the other (Efron and Tibshirani, "An Introduction
    to the Bootstrap", 1993, chapter 13: percentile intervals). With fewer than some 20
    sequences the interval is a little too narrow.

    Args:
        aucs: name of a sequence -> success AUC of the tracker.
        others: the same of the other one.
        other: its name.

    Raises:
        InputError: fewer than two sequences are common to both.
    """
    names = sorted(aucs.keys() & others.keys())
    if len(names) < 2:
        raise InputError(
            f"{len(names)} sequences with results of both trackers: expected 2 or "
            "more, for an interval"
        )
    gains = np.array([aucs[name] - others[name] for name in names])
    drawn = np.random.default_rng(0).integers(len(gains), size=(RESAMPLES, len(gains)))
    low, high = np.quantile(gains[drawn].mean(axis=1), (0.025, 0.975))
    return Comparison(
        other,
        float(gains.mean()),
        (float(low), float(high)),
        int((gains > 0).sum()),
        int((gains < 0).sum()),
        len(gains),
    )
