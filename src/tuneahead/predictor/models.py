"""The two additive models a predictor is made of: a ridge regression and boosted trees.

Both give exact additive contributions, are saved without pickle, and learn every median, bound,
mean and scale from the rows they are fitted on. Fitting yields a *path*: predictions at several
settings (penalties, tree counts) for the price of one fit, so that tuning is cheap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from tuneahead.predictor.table import Floats

if TYPE_CHECKING:
    import lightgbm

Basis = Literal["linear", "hinge"]
PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
ROUNDS = (25, 50, 75, 100, 150, 200, 300)
KNOTS = (0.15, 0.4, 0.65, 0.9)
TREE_COMMON: Mapping[str, object] = {
    "objective": "l2",
    "num_threads": 1,
    "verbose": -1,
    "deterministic": True,
    "force_col_wise": True,
    "max_bin": 63,
}
PAPER_TREES: Mapping[str, object] = {"learning_rate": 0.05, "num_leaves": 4}
"""The paper's configuration (notes, "Loss & Training")."""


class Component(Protocol):
    """A fitted additive model of ``d`` features."""

    def predict(self, features: Floats) -> Floats:
        """Predictions, ``(n,)``, for ``features`` ``(n, d)``."""

    def contributions(self, features: Floats) -> Floats:
        """``(n, d + 1)``: one share per feature, then the constant; rows sum to the prediction."""

    def to_record(self) -> dict[str, object]:
        """Everything needed to restore the model, as JSON values."""


@dataclass(frozen=True)
class Columns:
    """How raw features become the columns of a linear model; all learned on training rows.

    ``median``, ``low``, ``high`` are ``(d,)``; ``knots`` ``(d, k)`` with k = 0 for the linear basis;
    ``mean`` and ``scale`` are ``(p,)`` over the columns, and ``owner`` gives each column's feature.
    """

    median: Floats
    low: Floats
    high: Floats
    knots: Floats
    flagged: Floats
    mean: Floats
    scale: Floats
    owner: Floats

    def apply(self, features: Floats) -> Floats:
        """Standardised columns, ``(n, p)``."""
        return np.asarray((_expand(features, self) - self.mean) / self.scale, float)


def _expand(features: Floats, columns: Columns) -> Floats:
    absent = ~np.isfinite(features)
    # Beyond the training range a straight line is a guess: the bound stands for what lies outside.
    filled = np.clip(np.where(absent, columns.median, features), columns.low, columns.high)
    parts = [filled]
    parts += [np.maximum(filled - columns.knots[:, j], 0.0) for j in range(columns.knots.shape[1])]
    parts.append(absent[:, columns.flagged > 0].astype(float))
    return np.hstack(parts)


def learn_columns(features: Floats, basis: Basis) -> Columns:
    """Medians, bounds (1st and 99th percentile), knots and scales of ``features`` ``(n, d)``."""
    rows, width = features.shape
    finite = np.where(np.isfinite(features), features, np.nan)
    empty = np.isnan(finite).all(0)
    finite[:, empty] = 0.0
    median = np.nanmedian(finite, 0)
    low, high = np.nanquantile(finite, 0.01, 0), np.nanquantile(finite, 0.99, 0)
    knots = np.zeros((width, 0))
    if basis == "hinge":
        knots = np.nanquantile(finite, KNOTS, 0).T
    share = np.isnan(finite).mean(0)
    flagged = ((share > 0) & (share < 1)).astype(float)
    owner = np.concatenate([np.tile(np.arange(width), 1 + knots.shape[1]), np.flatnonzero(flagged)])
    plain = Columns(median, low, high, knots, flagged, np.zeros(len(owner)), np.ones(len(owner)), owner)
    raw = _expand(np.where(empty, 0.0, features), plain)
    scale = raw.std(0)
    scale[scale <= 1e-12 * np.maximum(1.0, np.abs(raw).max(0, initial=0.0))] = np.inf
    return Columns(median, low, high, knots, flagged, raw.mean(0), scale, owner.astype(float))


@dataclass(frozen=True)
class Linear:
    """Ridge regression on standardised, imputed and clipped columns."""

    columns: Columns
    coefficients: Floats
    intercept: float

    def predict(self, features: Floats) -> Floats:
        """See :class:`Component`."""
        return np.asarray(self.columns.apply(features) @ self.coefficients + self.intercept, float)

    def contributions(self, features: Floats) -> Floats:
        """See :class:`Component`; exact SHAP values under feature independence, against the training mean."""
        shares = self.columns.apply(features) * self.coefficients
        total = np.zeros((len(features), features.shape[1] + 1))
        for column, owner in enumerate(self.columns.owner.astype(int)):
            total[:, owner] += shares[:, column]
        total[:, -1] = self.intercept
        return total

    def to_record(self) -> dict[str, object]:
        """See :class:`Component`."""
        c = self.columns
        return {
            "kind": "linear",
            "intercept": self.intercept,
            "coefficients": self.coefficients.tolist(),
            "columns": {
                name: np.where(np.isinf(array), -1.0, array).tolist() if name == "scale" else array.tolist()
                for name, array in vars(c).items()
            },
        }


@dataclass(frozen=True)
class LinearPath:
    """Ridge solutions at every penalty of ``PENALTIES`` from one decomposition."""

    columns: Columns
    coefficients: Floats  # (settings, p)
    intercept: float

    def predict_all(self, features: Floats) -> Floats:
        """Predictions at every setting, ``(n, settings)``."""
        return np.asarray(self.columns.apply(features) @ self.coefficients.T + self.intercept, float)

    def at(self, setting: int) -> Linear:
        """The model at one setting."""
        return Linear(self.columns, self.coefficients[setting], self.intercept)


@dataclass(frozen=True)
class Ridge:
    """Learner of ridge regressions; ``hinge`` adds piecewise-linear columns, one bend per knot."""

    name: str = "ridge"
    basis: Basis = "linear"

    @property
    def settings(self) -> int:
        """How many penalties the path holds."""
        return len(PENALTIES)

    def fit(self, features: Floats, target: Floats, weights: Floats, seed: int) -> LinearPath:
        """Fit all penalties on ``features`` ``(n, d)``; they count per row, so mean the same at any n."""
        columns = learn_columns(features, self.basis)
        matrix = columns.apply(features)
        total = float(weights.sum())
        intercept = float(weights @ target) / total
        centred = matrix - (weights @ matrix) / total
        root = np.sqrt(weights)[:, None]
        left, spectrum, right = np.linalg.svd(root * centred, full_matrices=False)
        inner = left.T @ (root[:, 0] * (target - intercept))
        shrink = spectrum / (spectrum**2 + total * np.array(PENALTIES)[:, None])
        coefficients = (shrink * inner) @ right
        # Columns are centred by their plain mean, the target by its weighted one.
        offset = (weights @ matrix) / total
        return LinearPath(_recentred(columns, offset), coefficients, intercept)


def _recentred(columns: Columns, offset: Floats) -> Columns:
    finite = np.isfinite(columns.scale)
    mean = columns.mean + np.where(finite, offset * np.where(finite, columns.scale, 0.0), 0.0)
    return Columns(**{**vars(columns), "mean": mean})


@dataclass(frozen=True)
class Trees:
    """Gradient-boosted trees, held as LightGBM's own text."""

    text: str
    rounds: int

    def booster(self) -> lightgbm.Booster:
        """The loaded LightGBM model."""
        import lightgbm

        return lightgbm.Booster(model_str=self.text)

    def predict(self, features: Floats) -> Floats:
        """See :class:`Component`."""
        found = _loaded(self.text).predict(features, num_iteration=self.rounds, num_threads=1)
        return np.asarray(found, float).reshape(len(features))

    def contributions(self, features: Floats) -> Floats:
        """See :class:`Component`; TreeSHAP, exact."""
        booster = _loaded(self.text)
        found = booster.predict(features, num_iteration=self.rounds, pred_contrib=True, num_threads=1)
        return np.asarray(found, float).reshape(len(features), features.shape[1] + 1)

    def to_record(self) -> dict[str, object]:
        """See :class:`Component`; the text itself goes to a file of its own."""
        return {"kind": "trees", "rounds": self.rounds}


@dataclass(frozen=True)
class TreePath:
    """One boosted model, read at the tree counts of ``ROUNDS``."""

    booster: lightgbm.Booster
    rounds: Sequence[int]

    def predict_all(self, features: Floats) -> Floats:
        """Predictions at every setting, ``(n, settings)``."""
        found = [self.booster.predict(features, num_iteration=count, num_threads=1) for count in self.rounds]
        return np.column_stack([np.asarray(column, float) for column in found])

    def at(self, setting: int) -> Trees:
        """The model at one setting."""
        count = self.rounds[setting]
        return Trees(self.booster.model_to_string(num_iteration=count), count)


@dataclass(frozen=True)
class Boosting:
    """Learner of boosted trees with given LightGBM parameters."""

    name: str
    parameters: Mapping[str, object]
    rounds: tuple[int, ...] = ROUNDS

    @property
    def settings(self) -> int:
        """How many tree counts the path holds."""
        return len(self.rounds)

    def fit(self, features: Floats, target: Floats, weights: Floats, seed: int) -> TreePath:
        """Fit on ``features`` ``(n, d)``; absent values stay absent, the trees know NaN."""
        import lightgbm

        rows = len(target)
        given: dict[str, object] = {
            # LightGBM's 20 rows a leaf would leave a short history without any split.
            "min_data_in_leaf": max(2, min(20, rows // 15)),
            "min_data_in_bin": 1 if rows < 100 else 3,
            "seed": seed,
            **TREE_COMMON,
            **self.parameters,
        }
        # On few rows more trees only learn the noise, and take their time over it.
        rounds = tuple(min(count, rows) for count in self.rounds)
        data = lightgbm.Dataset(features, target, weight=weights, params=given)
        return TreePath(lightgbm.train(given, data, num_boost_round=max(rounds)), rounds)


class Path(Protocol):
    """Fitted models at several settings."""

    def predict_all(self, features: Floats) -> Floats:
        """``(n, settings)``."""

    def at(self, setting: int) -> Component:
        """The model at one setting."""


class Learner(Protocol):
    """Something that fits a :class:`Path`."""

    @property
    def name(self) -> str:
        """Short name, unique among the learners compared."""

    @property
    def settings(self) -> int:
        """Number of settings on its path."""

    def fit(self, features: Floats, target: Floats, weights: Floats, seed: int) -> Path:
        """Fit on ``(n, d)`` features."""


GREEDY_TREES: Mapping[str, object] = {
    "learning_rate": 0.08,
    "num_leaves": 8,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 3.0,
}
RANDOM_TREES: Mapping[str, object] = {
    **GREEDY_TREES,
    "learning_rate": 0.1,
    "num_leaves": 24,
    "extra_trees": True,
}
"""Thresholds drawn at random, as in extremely randomised trees: smoother, better with few rows."""


def component_from_record(record: Mapping[str, object], text: str = "") -> Component:
    """Restore what ``to_record`` gave; raises KeyError, TypeError or ValueError on anything else."""
    if record["kind"] == "trees":
        return Trees(text, int(str(record["rounds"])))
    stored = record["columns"]
    if record["kind"] != "linear" or not isinstance(stored, dict):
        raise ValueError(f"model kind {record['kind']!r}")
    arrays = {name: np.asarray(values, float) for name, values in stored.items()}
    arrays["scale"] = np.where(arrays["scale"] < 0, np.inf, arrays["scale"])
    arrays["knots"] = arrays["knots"].reshape(len(arrays["median"]), -1)
    coefficients = np.asarray(record["coefficients"], float)
    return Linear(Columns(**arrays), coefficients, float(str(record["intercept"])))


_CACHE: dict[int, tuple[str, object]] = {}


def _loaded(text: str) -> lightgbm.Booster:
    # Parsing a model takes longer than one prediction; texts are long, so the cache stays small.
    import lightgbm

    known = _CACHE.get(hash(text))
    if known is not None and known[0] == text and isinstance(known[1], lightgbm.Booster):
        return known[1]
    if len(_CACHE) > 16:
        _CACHE.clear()
    booster = lightgbm.Booster(model_str=text)
    _CACHE[hash(text)] = (text, booster)
    return booster
