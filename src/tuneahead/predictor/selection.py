"""From fifty features and more to about two dozen, on training rows only.

Source: notes, "SHAP-guided Feature Selection"; method.md, "Selection".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuneahead.predictor.metrics import ranks, rmse, spearman
from tuneahead.predictor.models import Boosting
from tuneahead.predictor.splits import grouped_folds
from tuneahead.predictor.table import Floats, Rows

BOTTOM_PERCENTILE = 15.0
MIN_DIRECTION = 0.2
MIN_CORRELATION = 0.9
MAX_RMSE_GROWTH_PP = 0.01
_TREES = Boosting("selection", {"learning_rate": 0.1, "num_leaves": 4}, (100,))


@dataclass(frozen=True)
class TrailEntry:
    """What happened to one feature: the step that dropped it (or ``kept``), and the figure it fell by."""

    feature: str
    step: str
    reason: str
    importance_pp: float
    direction: float


@dataclass(frozen=True)
class Selection:
    """The features kept, in their former order, and the story of every feature."""

    kept: tuple[str, ...]
    trail: tuple[TrailEntry, ...]


@dataclass(frozen=True)
class TrainingRows:
    """What selection sees: ``features`` ``(n, d)``, ``target_pp`` and ``weights`` ``(n,)``, data set ids."""

    names: tuple[str, ...]
    features: Floats
    target_pp: Floats
    weights: Floats
    data_ids: tuple[str, ...]


def select_features(
    rows: TrainingRows, *, keep: Sequence[str] = (), seed: int = 0, most_checks: int = 40
) -> Selection:
    """Drop unimportant, directionless and redundant features, in that order.

    1. mean absolute SHAP value in the bottom 15th percentile; 2. |Spearman| of value and SHAP value
    below 0.2; 3. of each pair with |Spearman| above 0.9 the less important one, unless the RMSE on
    held-back training data sets then grows by more than 0.01 pp (the ``most_checks`` most correlated
    pairs are tried). Features in ``keep`` (the recipe, which a user must be able to compare) are
    never dropped, nor is the most important one where nothing else is left. ``target_pp`` is what
    the model predicts, in points.
    """
    importance, direction = _shap_figures(rows, seed)
    dropped: dict[int, tuple[str, str]] = {}
    protected = {i for i, name in enumerate(rows.names) if name in keep}
    bound = float(np.percentile(importance, BOTTOM_PERCENTILE))
    for i in range(len(rows.names)):
        if i in protected:
            continue
        if importance[i] <= bound:
            dropped[i] = ("importance", f"mean |SHAP| {importance[i]:.4f} pp, bound {bound:.4f}")
        elif not abs(direction[i]) >= MIN_DIRECTION:
            dropped[i] = (
                "direction",
                f"|Spearman| {abs(direction[i]):.2f} of value and effect, bound {MIN_DIRECTION}",
            )
    if len(dropped) == len(rows.names):
        # No model learns from nothing: the most important feature stays, among equals the first.
        del dropped[int(np.argmax(importance))]
    _prune_redundant(rows, importance, dropped, protected, seed=seed, most_checks=most_checks)
    trail = [
        TrailEntry(name, *dropped.get(i, ("kept", "")), float(importance[i]), float(direction[i]))
        for i, name in enumerate(rows.names)
    ]
    kept = tuple(name for i, name in enumerate(rows.names) if i not in dropped)
    order = {"kept": 0, "redundancy": 1, "direction": 2, "importance": 3}
    trail.sort(key=lambda entry: (order[entry.step], -entry.importance_pp))
    return Selection(kept, tuple(trail))


def _shap_figures(rows: TrainingRows, seed: int) -> tuple[Floats, Floats]:
    model = _TREES.fit(rows.features, rows.target_pp, rows.weights, seed).at(0)
    effects = model.contributions(rows.features)[:, :-1]
    direction = np.full(len(rows.names), math.nan)
    for i in range(len(rows.names)):
        known = np.isfinite(rows.features[:, i])
        direction[i] = spearman(rows.features[known, i], effects[known, i])
    return np.abs(effects).mean(0), np.nan_to_num(direction)


def _prune_redundant(
    rows: TrainingRows,
    importance: Floats,
    dropped: dict[int, tuple[str, str]],
    protected: set[int],
    *,
    seed: int,
    most_checks: int,
) -> None:
    left = [i for i in range(len(rows.names)) if i not in dropped]
    if len(set(rows.data_ids)) < 2:
        return
    fold = grouped_folds(rows.data_ids, k=3, seed=seed)[0]
    current = _validation_rmse(rows, left, fold.train, fold.test, seed)
    for strength, a, b in _correlated_pairs(rows.features, left)[:most_checks]:
        if a in dropped or b in dropped:
            continue
        weaker, stronger = (a, b) if importance[a] < importance[b] else (b, a)
        if weaker in protected:
            weaker, stronger = stronger, weaker
        if weaker in protected:
            continue
        without = [i for i in left if i != weaker]
        error = _validation_rmse(rows, without, fold.train, fold.test, seed)
        if error - current <= MAX_RMSE_GROWTH_PP:
            growth = f"RMSE {error - current:+.3f} pp without it"
            dropped[weaker] = (
                "redundancy",
                f"|Spearman| {strength:.2f} with {rows.names[stronger]}, {growth}",
            )
            # Against the best RMSE so far, or many small losses would add up.
            left, current = without, min(current, error)


def _correlated_pairs(features: Floats, columns: Sequence[int]) -> list[tuple[float, int, int]]:
    ranked = (
        np.column_stack([_filled_ranks(features[:, i]) for i in columns]) if columns else np.zeros((0, 0))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        strength = np.abs(np.nan_to_num(np.atleast_2d(np.corrcoef(ranked, rowvar=False))))
    pairs = [
        (float(strength[i, j]), columns[i], columns[j])
        for i in range(len(columns))
        for j in range(i + 1, len(columns))
        if strength[i, j] > MIN_CORRELATION
    ]
    return sorted(pairs, reverse=True)


def _filled_ranks(column: Floats) -> Floats:
    known = np.isfinite(column)
    filled = np.where(known, column, np.median(column[known]) if known.any() else 0.0)
    return ranks(filled)


def _validation_rmse(rows: TrainingRows, columns: Sequence[int], train: Rows, test: Rows, seed: int) -> float:
    part = rows.features[:, list(columns)]
    path = _TREES.fit(part[train], rows.target_pp[train], rows.weights[train], seed)
    return rmse(path.predict_all(part[test])[:, 0], rows.target_pp[test])
