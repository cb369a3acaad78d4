"""Figures with intervals: accuracy, open world, and matching of the two paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from lab.audit.traces import Trace
from lab.audit.views import series, view

DRAWS: Final = 1000
"""Bootstrap samples."""

RATIO: Final = 20
"""Loads of other sites for each load of a monitored one, in the open world."""

MATCH_GROUP: Final = 25
"""Loads at the same time among which an observer of both paths looks for the pair."""

MATCH_BINS: Final = 100


def interval(correct: np.ndarray, labels: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Return the mean of ``correct``, and its 95 % interval over sites and over the loads of each."""
    draw = np.random.default_rng(seed)
    by_site = [correct[labels == label] for label in np.unique(labels)]
    means = []
    for _ in range(DRAWS):
        sites = draw.integers(len(by_site), size=len(by_site))
        means.append(np.mean([draw.choice(by_site[s], len(by_site[s])).mean() for s in sites]))
    low, high = np.percentile(means, (2.5, 97.5))
    return float(correct.mean()), float(low), float(high)


def open_world(probabilities: np.ndarray, labels: np.ndarray, other: int) -> dict[str, float]:
    """Return the most recall with a precision of 0.5, and the precision at a recall of 0.5.

    ``other`` is the class of all sites that are not monitored. Precision counts ``RATIO`` loads of these for
    each load of a monitored site (Wang, 2020). A recall that is never reached has the precision 0.
    """
    monitored = labels != other
    guess = np.argmax(np.delete(probabilities, other, axis=1), axis=1)
    guess += guess >= other
    score = np.take_along_axis(probabilities, guess[:, None], axis=1)[:, 0] - probabilities[:, other]
    right = monitored & (guess == labels)
    recall_at_half, precision_at_half = 0.0, 0.0
    for threshold in np.unique(score):
        taken = score >= threshold
        recall = (taken & right).sum() / monitored.sum()
        wrong = (taken & monitored & ~right).sum() / monitored.sum()
        false = (taken & ~monitored).sum() / max(1, (~monitored).sum())
        precision = recall / (recall + wrong + RATIO * false) if recall else 0.0
        if precision >= 0.5:
            recall_at_half = max(recall_at_half, float(recall))
        if recall >= 0.5:
            precision_at_half = max(precision_at_half, float(precision))
    return {"recall_at_precision_0.5": recall_at_half, "precision_at_recall_0.5": precision_at_half}


def matching(traces: Sequence[Trace], seed: int) -> float:
    """Return how often the B half that fits an A half best is its own, among ``MATCH_GROUP`` loads."""
    draw = np.random.default_rng(seed)
    ups = series([view(trace, "A") for trace in traces], MATCH_BINS, seconds=5.0)[:, 0]
    downs = series([view(trace, "B") for trace in traces], MATCH_BINS, seconds=5.0)[:, -2]
    curves = [np.cumsum(each, axis=1) for each in (ups, downs)]
    curves = [each / (each[:, -1:] + 1e-9) for each in curves]
    right = []
    size = min(MATCH_GROUP, len(traces))
    for number in range(len(traces)):
        others = draw.choice(np.delete(np.arange(len(traces)), number), size - 1, replace=False)
        group = np.concatenate(([number], others))
        distance = np.abs(curves[1][group] - curves[0][number]).sum(axis=1)
        right.append(int(np.argmin(distance)) == 0 and distance[0] < distance[1:].min())
    return float(np.mean(right))
