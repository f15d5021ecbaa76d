"""Intervals at conformal quantiles of cross-validated residuals, infinite where data sets are too few."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuneahead.predictor import fields
from tuneahead.predictor.linear import Ridge
from tuneahead.predictor.models import Boosting, Component, Trees, component_from_record
from tuneahead.predictor.splits import grouped_folds
from tuneahead.predictor.table import Floats, group_index

NARROWER = 0.97
"""A locally scaled interval must be this much narrower on average to be used."""
MIN_SCALED_ROWS = 120
MIN_SCALED_GROUPS = 20
_TREES = Boosting("difficulty", {"num_leaves": 4, "feature_fraction": 0.4, "lambda_l2": 10.0}, (30,))
_RIDGE = Ridge("difficulty")
_RIDGE_SETTING = 6


def least_groups(level: float) -> int:
    """How many data sets a finite interval takes: the least G with ``level <= G / (G + 1)``."""
    return math.ceil(level / (1 - level) - 1e-9)


def grouped_quantile(scores: Floats, groups: Sequence[str], level: float) -> float:
    """Bound that a new group's score stays below with probability ``level``; infinite with too few groups.

    Every group counts once, whatever its number of rows, and the unseen group counts as one that
    may be arbitrarily bad: with G groups the bound is finite only if ``level <= G / (G + 1)``. With
    one row a group this is the split-conformal quantile with its finite-sample correction. Source:
    hierarchical conformal prediction (Lee, Barber and Willett, arXiv 2306.06342).
    """
    index = group_index(groups)
    if not len(index):
        return math.inf
    count = int(index.max()) + 1
    weights = 1.0 / np.bincount(index)[index] / (count + 1)
    order = np.argsort(scores, kind="stable")
    mass = np.cumsum(weights[order])
    place = int(np.searchsorted(mass, level - 1e-12))
    return float(scores[order[place]]) if place < len(order) else math.inf


@dataclass(frozen=True)
class Calibration:
    """Residual scores of the training rows, from which the half-width at any level follows.

    ``scores`` are absolute residuals in points, divided by the difficulty when ``difficulty`` is given,
    and by how far the row lies from those of other data sets, over ``near``, where that is more than 1.
    """

    scores: Floats
    groups: tuple[str, ...]
    difficulty: Component | None = None
    floor_pp: float = 1.0
    near: float = math.inf
    """Distance to training rows from which on intervals widen in proportion; infinite: they never do."""
    places: tuple[str, ...] = ()
    """Base and benchmark of each score, one text; empty where all are of one."""

    def half_width_pp(
        self, features: Floats, distance: Floats, level: float, places: Sequence[str] = ()
    ) -> Floats:
        """Half the interval's width, ``(n,)`` points, infinite if the history is too short.

        ``distance`` is ``(n,)``, from the rows of ``features`` to the nearest training rows. ``places`` are
        their bases and benchmarks: of a history of several the scores of a row's own count, which for one
        that is not in it, or not named, are all.
        """
        bound = self._bounds(level, places) * _widening(distance, self.near)
        return bound if self.difficulty is None else bound * _scale(self.difficulty, features, self.floor_pp)

    def _bounds(self, level: float, places: Sequence[str]) -> Floats:
        """One bound for all rows, or one a row, ``(1,)`` or ``(n,)``."""
        everywhere = grouped_quantile(self.scores, self.groups, level)
        bounds = {place: self._bound_of(place, level) for place in set(places) & set(self.places)}
        return np.array([bounds.get(place, everywhere) for place in places] or [everywhere])

    def _bound_of(self, place: str, level: float) -> float:
        rows = [i for i, own in enumerate(self.places) if own == place]
        return grouped_quantile(self.scores[rows], [self.groups[i] for i in rows], level)

    @property
    def data_sets(self) -> Mapping[str, int]:
        """How many data sets bound the intervals of each base and benchmark; of one alone under ""."""
        pairs = set(zip(self.places or [""] * len(self.groups), self.groups, strict=True))
        return Counter(place for place, _ in sorted(pairs))

    def of_places(self, places: Sequence[str]) -> Calibration:
        """The same scores, told apart by base and benchmark where these are several."""
        several = len(self.scores) == len(places) and len(set(places)) > 1
        return replace(self, places=tuple(places) if several else ())

    def to_record(self) -> dict[str, object]:
        """Everything as JSON values, save the difficulty trees' text."""
        return {
            "scores": self.scores.tolist(),
            "groups": list(self.groups),
            "floor_pp": self.floor_pp,
            # Absent from predictors that never widen: JSON has no infinity.
            **({"near": self.near} if math.isfinite(self.near) else {}),
            **({"places": list(self.places)} if self.places else {}),
            "difficulty": None if self.difficulty is None else self.difficulty.to_record(),
        }


def calibration_from_record(record: Mapping[str, object], text: str) -> Calibration:
    """Restore what :meth:`Calibration.to_record` gave.

    Raises as :mod:`tuneahead.predictor.fields` on anything else.
    """
    stored, groups = record["difficulty"], fields.texts(record["groups"], "groups")
    scores = fields.floats(record["scores"], "scores", len(groups))
    floor = fields.number(record["floor_pp"], "floor_pp")
    near = fields.number(record["near"], "near") if "near" in record else math.inf
    if (scores < 0).any() or min(floor, near) <= 0:
        raise ValueError("the calibration holds a residual below 0, or no floor or distance above it")
    places = fields.texts(record["places"], "places") if "places" in record else ()
    if places and len(places) != len(groups):
        raise ValueError(f"the calibration names {len(places)} places for {len(groups)} residuals")
    difficulty = None
    if stored is not None:
        difficulty = component_from_record(fields.mapping(stored, "difficulty"), text)
    return Calibration(scores, groups, difficulty, floor, near, places)


def difficulty_text(calibration: Calibration) -> str:
    """LightGBM text of the difficulty model, empty when it is none or linear."""
    return calibration.difficulty.text if isinstance(calibration.difficulty, Trees) else ""


@dataclass(frozen=True)
class Residuals:
    """Out-of-fold residuals ``(n,)`` in points, with the rows' ``features`` ``(n, d)`` and data set ids.

    ``distance`` is ``(n,)``, to the nearest training rows of other data sets.
    """

    residual_pp: Floats
    features: Floats
    groups: tuple[str, ...]
    distance: Floats


def calibrate(rows: Residuals, *, level: float = 0.9, seed: int = 0) -> Calibration:
    """Calibration from out-of-fold residuals: constant width, or scaled by a model of the difficulty.

    The scaled kind is cross-fitted over groups and chosen only when it is at least 3 % narrower on
    average at the same nominal coverage, and never under 120 rows. With 20 data sets or more both widen
    for rows farther from the others than half of these are: kinds of data that the history lacks lie
    there, and are forecast worse than any model of the difficulty foresees.
    """
    size = np.abs(rows.residual_pp)
    if len(set(rows.groups)) < MIN_SCALED_GROUPS:
        return Calibration(size, rows.groups)
    middle = float(np.median(rows.distance))
    near = middle if middle > 0 else math.inf
    wider = _widening(rows.distance, near)
    size = size / wider
    plain = Calibration(size, rows.groups, near=near)
    constant = grouped_quantile(size, rows.groups, level)
    if len(size) < MIN_SCALED_ROWS or not math.isfinite(constant):
        return plain
    floor = max(float(np.quantile(size, 0.3)), 1e-3)
    best, best_width = plain, constant * float(wider.mean()) * NARROWER
    for learner, setting in ((_TREES, 0), (_RIDGE, _RIDGE_SETTING)):
        scale = np.empty(len(size))
        for fold in grouped_folds(rows.groups, k=5, seed=seed):
            path = learner.fit(rows.features[fold.train], size[fold.train], np.ones(len(fold.train)), seed)
            scale[fold.test] = _scale(path.at(setting), rows.features[fold.test], floor)
        width = grouped_quantile(size / scale, rows.groups, level) * float((scale * wider).mean())
        if width < best_width:
            final = learner.fit(rows.features, size, np.ones(len(size)), seed).at(setting)
            best, best_width = Calibration(size / scale, rows.groups, final, floor, near), width
    return best


def _scale(difficulty: Component, features: Floats, floor_pp: float) -> Floats:
    return np.maximum(difficulty.predict(features), floor_pp)


def _widening(distance: Floats, near: float) -> Floats:
    return np.maximum(1.0, distance / near)
