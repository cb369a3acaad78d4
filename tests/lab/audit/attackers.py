"""Who recognises pages: four learners and their vote, always judged on loads they were not trained with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lab.audit import rocket
from lab.audit.features import aggregated, fingerprints, size_counts
from lab.audit.views import Packets, series

FOLDS: Final = 8
"""Parts of the loads that are tested in turn; ``MANY_FOLDS`` where there are many loads of each site."""

MANY_LOADS: Final = 16
MANY_FOLDS: Final = 5

TREES: Final = 400

ROCKET_BINS: Final = 200

VOTE: Final = "vote"


def attack(
    views: Sequence[Packets], labels: np.ndarray, seed: int, *, share: float = 1.0
) -> dict[str, np.ndarray]:
    """Return, for each attacker, the probability of each class for each view, by cross-validation.

    ``share`` is the part of the training loads that is used.
    """
    inputs = _inputs(views, seed)
    classes = len(np.unique(labels))
    found = {name: np.zeros((len(labels), classes)) for name in inputs}
    least = int(np.bincount(labels).min())
    folds = MANY_FOLDS if least >= MANY_LOADS else max(2, min(FOLDS, least))
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    draw = np.random.default_rng(seed)
    for train, test in split.split(labels, labels):
        if share < 1.0:
            train = _thinned(train, labels, share, draw)
        for name, rows in inputs.items():
            learner = _learner(name, seed)
            learner.fit(rows[train], labels[train])
            found[name][test] = _probabilities(learner, rows[test], classes)
    found[VOTE] = sum(found.values()) / len(found)
    return found


def _inputs(views: Sequence[Packets], seed: int) -> dict[str, np.ndarray]:
    features = fingerprints(views)
    return {
        "k-FP forest": features,
        "extra trees": np.concatenate((features, aggregated(views)), axis=1),
        "size counts": size_counts(views),
        "ROCKET": rocket.transform(_with_sums(series(views, ROCKET_BINS)), seed),
    }


def _with_sums(over_time: np.ndarray) -> np.ndarray:
    """Return a series with its sums so far as further channels: kernels see where a page is, too."""
    return np.concatenate((over_time, np.cumsum(over_time, axis=2)), axis=1)


def _learner(name: str, seed: int) -> Any:
    if name == "k-FP forest":
        return RandomForestClassifier(TREES, n_jobs=2, random_state=seed)
    if name == "extra trees":
        return ExtraTreesClassifier(TREES, max_features=0.1, n_jobs=2, random_state=seed)
    if name == "size counts":
        return RidgeClassifierCV(np.logspace(-2, 3, 8))
    return make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(0, 5, 8)))


def _probabilities(learner: Any, rows: np.ndarray, classes: int) -> np.ndarray:
    if hasattr(learner, "predict_proba"):
        return np.asarray(learner.predict_proba(rows))
    decision = learner.decision_function(rows)
    if classes == 2:
        decision = np.stack((-decision, decision), axis=1)
    # a ridge has no probabilities: what is far above its other values counts as one
    shares = np.exp(6.0 * (decision - decision.max(axis=1, keepdims=True)))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _thinned(train: np.ndarray, labels: np.ndarray, share: float, draw: np.random.Generator) -> np.ndarray:
    """Return a share of the training loads of each class, at least one."""
    kept = []
    for label in np.unique(labels):
        of_label = train[labels[train] == label]
        kept.append(draw.choice(of_label, max(1, round(len(of_label) * share)), replace=False))
    return np.concatenate(kept)
