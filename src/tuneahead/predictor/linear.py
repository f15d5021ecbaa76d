"""Linear models: how raw features become columns, and what is fitted on them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tuneahead.predictor import fields
from tuneahead.predictor.table import Floats

Basis = Literal["linear", "hinge"]
PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
SPARSITIES = (0.7, 0.5, 0.35, 0.25, 0.17, 0.12, 0.08, 0.05)
KNOTS = (0.2, 0.5, 0.8)


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

    @property
    def feature_count(self) -> int:
        """See :class:`Component`."""
        return len(self.columns.median)

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
        return {
            "kind": "linear",
            "intercept": self.intercept,
            "coefficients": self.coefficients.tolist(),
            "columns": columns_record(self.columns),
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
        rows = _weighted(features, target, weights, self.basis)
        scale = float(weights.sum()) * np.array(PENALTIES)[:, None]
        matrix, target = rows.matrix, rows.target
        if matrix.shape[1] > matrix.shape[0]:
            # More columns than rows: the same solutions from the smaller, dual system.
            values, vectors = np.linalg.eigh(matrix @ matrix.T)
            inner = (vectors.T @ target) / (np.maximum(values, 0.0) + scale)
            coefficients = (inner @ vectors.T) @ matrix
        else:
            values, vectors = np.linalg.eigh(matrix.T @ matrix)
            inner = (vectors.T @ (matrix.T @ target)) / (np.maximum(values, 0.0) + scale)
            coefficients = inner @ vectors.T
        return LinearPath(rows.columns, coefficients, rows.intercept)


@dataclass(frozen=True)
class ElasticNet:
    """Learner of elastic nets, half L1 and half L2: few coefficients that are not zero."""

    name: str = "elastic net"
    basis: Basis = "linear"

    @property
    def settings(self) -> int:
        """How many penalties the path holds."""
        return len(SPARSITIES)

    def fit(self, features: Floats, target: Floats, weights: Floats, seed: int) -> LinearPath:
        """Fit all penalties on ``features`` ``(n, d)``, as shares of the smallest that leaves nothing."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import enet_path

        rows = _weighted(features, target, weights, self.basis)
        matrix = np.asfortranarray(rows.matrix)
        strongest = float(np.abs(matrix.T @ rows.target).max(initial=0.0)) / (0.5 * len(target))
        if strongest <= 0.0:
            return LinearPath(rows.columns, np.zeros((self.settings, matrix.shape[1])), rows.intercept)
        penalties = strongest * np.array(SPARSITIES)
        with warnings.catch_warnings():
            # A penalty that has not quite converged is judged by its held-out error like any other.
            warnings.simplefilter("ignore", ConvergenceWarning)
            _, found, _ = enet_path(
                matrix, rows.target, l1_ratio=0.5, alphas=penalties, precompute=True, max_iter=1000, tol=1e-3
            )
        return LinearPath(rows.columns, np.asarray(found.T, float), rows.intercept)


@dataclass(frozen=True)
class _Weighted:
    """Centred columns and target, each row times the root of its weight."""

    columns: Columns
    matrix: Floats
    target: Floats
    intercept: float


def _weighted(features: Floats, target: Floats, weights: Floats, basis: Basis) -> _Weighted:
    plain = learn_columns(features, basis)
    matrix = plain.apply(features)
    total = float(weights.sum())
    intercept = float(weights @ target) / total
    offset = (weights @ matrix) / total
    root = np.sqrt(weights)
    columns = _recentred(plain, offset)
    return _Weighted(columns, root[:, None] * (matrix - offset), root * (target - intercept), intercept)


def _recentred(columns: Columns, offset: Floats) -> Columns:
    finite = np.isfinite(columns.scale)
    mean = columns.mean + np.where(finite, offset * np.where(finite, columns.scale, 0.0), 0.0)
    return Columns(**{**vars(columns), "mean": mean})


def linear_from_record(record: Mapping[str, object]) -> Linear:
    """Restore what :meth:`Linear.to_record` gave; raises as :mod:`tuneahead.predictor.fields` otherwise."""
    columns = columns_from_record(record["columns"])
    coefficients = fields.floats(record["coefficients"], "coefficients", len(columns.owner))
    return Linear(columns, coefficients, fields.number(record["intercept"], "intercept"))


def columns_record(columns: Columns) -> dict[str, object]:
    """Columns as JSON values; an infinite scale (a constant column) is -1."""
    return {
        name: np.where(np.isinf(array), -1.0, array).tolist() if name == "scale" else array.tolist()
        for name, array in vars(columns).items()
    }


def columns_from_record(stored: object) -> Columns:
    """The inverse of :func:`columns_record`; raises as :mod:`tuneahead.predictor.fields` on anything else."""
    found = fields.mapping(stored, "the columns of a model")
    median = fields.floats(found["median"], "median", None)
    width = len(median)
    low, high, flagged = (fields.floats(found[name], name, width) for name in ("low", "high", "flagged"))
    knots = fields.floats(found["knots"], "knots", width, None)
    count = width * (1 + knots.shape[1]) + int((flagged > 0).sum())
    mean, scale, owner = (fields.floats(found[name], name, count) for name in ("mean", "scale", "owner"))
    if not scale.all() or not np.isin(owner, np.arange(width)).all():
        raise ValueError("a column of a model has a scale of 0 or belongs to no feature")
    return Columns(median, low, high, knots, flagged, mean, np.where(scale < 0, np.inf, scale), owner)
