"""Kernel ridge and support vector regression with exact Shapley values: smooth interactions, few rows."""

from __future__ import annotations

import base64
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuneahead.predictor import fields
from tuneahead.predictor.linear import Columns, columns_from_record, columns_record, learn_columns
from tuneahead.predictor.table import Floats, Rows

KERNEL_PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SHAPING_PENALTY = 0.1
"""Penalty of the fits that shape a kernel."""
MARGIN_COSTS = (5.0, 15.0, 50.0, 150.0)
MARGIN = 0.005
"""Errors below this share of the head-room cost a support vector regression nothing: seeds differ by it."""
MOST_CENTRES = 2000
"""Kernel ridge has no more centres, and no more rows shape a kernel: time grows with their number cubed."""
MOST_VECTORS = 5000
"""Support vector regressions are fitted to no more rows: their time and memory grow with the square."""
_MOST_ITERATIONS = 500_000
_SMALLEST = 1e-300
_MOST_NODES = 32
"""Quadrature nodes: exact to degree 63, and beyond that to rounding, for the integrands are smooth."""
_FLAT = 1e-10
"""Directions of a kernel matrix with so small a share of its largest eigenvalue are rounding."""


@dataclass(frozen=True)
class Kernel:
    """``intercept + sum_i weights_i exp(-width |x - centre_i|^2)`` on standardised, filled, clipped columns.

    ``centres`` is ``(n, p)``, training rows, of a long history a draw; ``weights`` is ``(n,)``.
    """

    columns: Columns
    centres: Floats
    weights: Floats
    width: float
    intercept: float

    @property
    def feature_count(self) -> int:
        """See :class:`Component`."""
        return len(self.columns.median)

    def predict(self, features: Floats) -> Floats:
        """See :class:`Component`."""
        alike = _gaussian(self.columns.apply(features), self.centres, self.width)
        return np.asarray(alike @ self.weights + self.intercept, float)

    def contributions(self, features: Floats) -> Floats:
        """See :class:`Component`; exact Shapley values against the mean training row.

        The kernel is a product over columns. With a column set to the row's value or left at the mean,
        each factor is one of two numbers, and the Shapley value of such a product is the integral of
        its multilinear extension's derivative along the diagonal (Owen 1972, Management Science 18,
        P-64). The integrand is a polynomial of degree p - 1, for which Gauss-Legendre quadrature with
        p / 2 nodes is exact; 32 give the same but for rounding (on the shipped kernels of 213 columns, to
        1e-15).
        """
        x = self.columns.apply(features)
        away = np.exp(-self.width * self.centres**2)  # (n, p): factors at the mean, which is 0
        nodes, shares = np.polynomial.legendre.leggauss(min(_MOST_NODES, max(1, math.ceil(x.shape[1] / 2))))
        total = np.zeros((len(x), features.shape[1] + 1))
        total[:, -1] = self.intercept + float(away.prod(1) @ self.weights)
        owner = self.columns.owner.astype(int)
        for row, point in enumerate(x):
            here = np.exp(-self.width * (point - self.centres) ** 2)
            found = np.zeros(x.shape[1])
            for node, share in zip((nodes + 1) / 2, shares / 2, strict=True):
                mixed = np.maximum(node * here + (1 - node) * away, _SMALLEST)
                whole = np.exp(np.log(mixed).sum(1)) * self.weights
                found += share * (whole @ ((here - away) / mixed))
            np.add.at(total[row], owner, found)
        return total

    def to_record(self) -> dict[str, object]:
        """See :class:`Component`; the centres as 32-bit floats in base64."""
        return {
            "kind": "kernel",
            "intercept": self.intercept,
            "width": self.width,
            "weights": self.weights.tolist(),
            "centres": base64.b64encode(self.centres.astype("<f4").tobytes()).decode(),
            "columns": columns_record(self.columns),
        }


def same_kernel(one: Kernel, other: Kernel) -> bool:
    """Whether two models read their columns and compare rows alike, so that they differ in weights only."""
    pairs = [(getattr(one.columns, name), getattr(other.columns, name)) for name in vars(one.columns)]
    return one.width == other.width and all(np.array_equal(*pair) for pair in pairs)


def mixed(parts: Sequence[tuple[float, Kernel]]) -> Kernel:
    """One model that predicts the weighted sum of models with the same kernel; explained in one go."""
    first = parts[0][1]
    rows = np.vstack([kernel.centres for _, kernel in parts])
    weights = np.concatenate([weight * kernel.weights for weight, kernel in parts])
    centres, place = np.unique(rows, axis=0, return_inverse=True)
    summed = np.zeros(len(centres))
    np.add.at(summed, place.ravel(), weights)
    intercept = sum(weight * kernel.intercept for weight, kernel in parts)
    return Kernel(first.columns, centres, summed, first.width, intercept)


@dataclass(frozen=True)
class KernelPath:
    """Solutions at every setting on the same centres: ``weights`` ``(settings, n)``, ``intercepts``."""

    columns: Columns
    centres: Floats
    weights: Floats
    width: float
    intercepts: Floats

    def predict_all(self, features: Floats) -> Floats:
        """Predictions at every setting, ``(n, settings)``."""
        alike = _gaussian(self.columns.apply(features), self.centres, self.width)
        return np.asarray(alike @ self.weights.T + self.intercepts, float)

    def at(self, setting: int) -> Kernel:
        """The model at one setting; rows without a weight are left out, save one where none has any."""
        weights = self.weights[setting]
        held = np.flatnonzero(weights) if weights.any() else np.arange(1)
        return Kernel(
            self.columns, self.centres[held], weights[held], self.width, float(self.intercepts[setting])
        )


@dataclass(frozen=True)
class KernelShape:
    """A Gaussian kernel over the features; ``reach`` over the number of columns is its width.

    With ``rounds`` the kernel is shaped to the task: after each round every column is stretched by the
    root of how steeply the fit so far moves along it, so that columns that say nothing no longer set
    rows apart. Source: recursive feature machines (Radhakrishnan, Beaglehole, Pandit and Belkin 2024,
    Science 383, 1461), with a diagonal matrix, which keeps the kernel a product over columns.
    """

    reach: float = 0.5
    rounds: int = 0

    def learn(self, features: Floats, target: Floats, weights: Floats) -> tuple[Columns, float]:
        """Columns, stretched if shaped, and width of the kernel for ``features`` ``(n, d)``.

        Of more than ``MOST_CENTRES`` rows a draw shapes it: a few numbers are learnt, not a function.
        """
        columns = learn_columns(features, "linear")
        if len(features) > MOST_CENTRES:
            drawn = _drawn(len(features), MOST_CENTRES, seed=0)
            features, target, weights = features[drawn], target[drawn], weights[drawn]
        count = max(1, int(np.isfinite(columns.scale).sum()))
        width = self.reach / count
        intercept = float(weights @ target / weights.sum())
        root = np.sqrt(weights)
        standard, stretch = columns, np.where(np.isfinite(columns.scale), 1.0, 0.0)
        for _ in range(self.rounds):
            points = columns.apply(features)
            gram = _gaussian(points, points, width)
            lifted = root[:, None] * gram * root + SHAPING_PENALTY * np.eye(len(gram))
            dual = root * np.linalg.solve(lifted, root * (target - intercept))
            slopes = _slopes(points, gram, dual, width) * stretch
            # The root of the slope: the slope itself follows the noise of the first rounds.
            steep = np.sqrt(np.sqrt(weights @ slopes**2 / weights.sum()))
            if not steep.any():
                break
            stretch = steep / np.sqrt((steep**2).sum() / count)
            columns = _stretched(standard, stretch)
        return columns, width


PLAIN = KernelShape()
SHAPED = KernelShape(reach=1.0, rounds=5)


@dataclass(frozen=True)
class KernelRidge:
    """Learner of kernel ridge regressions."""

    name: str = "kernel ridge"
    shape: KernelShape = PLAIN

    @property
    def settings(self) -> int:
        """How many penalties the path holds."""
        return len(KERNEL_PENALTIES)

    def fit(self, features: Floats, target: Floats, weights: Floats, seed: int) -> KernelPath:
        """Fit all penalties on ``features`` ``(n, d)``; a row of weight w counts like w rows.

        More than ``MOST_CENTRES`` rows are all fitted to, with that many of them as centres.
        """
        columns, width = self.shape.learn(features, target, weights)
        centres = _centres(columns, features)
        intercept = float(weights @ target / weights.sum())
        root = np.sqrt(weights)
        if len(centres) > MOST_CENTRES:
            few = centres[_drawn(len(centres), MOST_CENTRES, seed)]
            solved = _few_centres(
                few, root[:, None] * _gaussian(centres, few, width), width, root * (target - intercept)
            )
            return KernelPath(columns, few, solved, width, np.full(len(solved), intercept))
        alike = root[:, None] * _gaussian(centres, centres, width) * root
        solved = _at_every_penalty(alike, root * (target - intercept))
        return KernelPath(columns, centres, solved * root, width, np.full(len(solved), intercept))


@dataclass(frozen=True)
class SupportVectors:
    """Learner of support vector regressions: a few runs that ended far from all forecasts pull less.

    Errors cost by their size, not its square, and nothing within a margin. The dual problem is solved by
    libsvm (scikit-learn) on our kernel matrix. Source: Drucker et al. 1996, NeurIPS 9.
    """

    name: str = "support vectors"
    shape: KernelShape = PLAIN

    @property
    def settings(self) -> int:
        """How many costs the path holds."""
        return len(MARGIN_COSTS)

    def fit(self, features: Floats, target: Floats, weights: Floats, seed: int) -> KernelPath:
        """Fit all costs on ``features`` ``(n, d)``; a row's errors cost in proportion to its weight.

        Of more than ``MOST_VECTORS`` rows it is fitted to a draw.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.svm import SVR

        columns, width = self.shape.learn(features, target, weights)
        if len(features) > MOST_VECTORS:
            drawn = _drawn(len(features), MOST_VECTORS, seed)
            features, target, weights = features[drawn], target[drawn], weights[drawn]
        centres = _centres(columns, features)
        gram = _gaussian(centres, centres, width)
        solved, intercepts = np.zeros((self.settings, len(gram))), np.zeros(self.settings)
        for setting, cost in enumerate(MARGIN_COSTS):
            # In margins, so that libsvm's own tolerance is small beside one.
            model = SVR(kernel="precomputed", C=cost, epsilon=1.0, max_iter=_MOST_ITERATIONS)
            with warnings.catch_warnings():
                # A cost that has not quite converged is judged by its held-out error like any other.
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(gram, target / MARGIN, sample_weight=weights)
            solved[setting, model.support_] = MARGIN * model.dual_coef_[0]
            intercepts[setting] = MARGIN * float(model.intercept_[0])
        return KernelPath(columns, centres, solved, width, intercepts)


def _centres(columns: Columns, features: Floats) -> Floats:
    # Rounded as they are stored, so that a model read back is the same one.
    return columns.apply(features).astype(np.float32).astype(float)


def _drawn(rows: int, count: int, seed: int) -> Rows:
    """``count`` of ``rows`` rows, ascending; at random, for recipes may recur in a table in a fixed step."""
    return np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))


def _few_centres(centres: Floats, alike: Floats, width: float, target: Floats) -> Floats:
    """Weights of the ``(m, p)`` centres at every penalty, ``(settings, m)``; all ``n`` rows are fitted to.

    ``alike`` ``(n, m)`` and ``target`` ``(n,)`` are the rows', each times the root of its weight. The same
    penalty as with all rows as centres, over functions of these centres only (subset of regressors;
    Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, 8.3.1).
    """
    values, vectors = np.linalg.eigh(_gaussian(centres, centres, width))
    held = values > _FLAT * values[-1]
    basis = vectors[:, held] / np.sqrt(values[held])
    mapped = alike @ basis
    return np.asarray(_at_every_penalty(mapped.T @ mapped, mapped.T @ target) @ basis.T, float)


def _at_every_penalty(matrix: Floats, target: Floats) -> Floats:
    """Solutions ``x`` of ``(matrix + penalty I) x = target``, ``(settings, n)``, from one decomposition."""
    values, vectors = np.linalg.eigh(matrix)
    penalties = np.array(KERNEL_PENALTIES)[:, None]
    solved = (vectors.T @ target / (np.maximum(values, 0.0) + penalties)) @ vectors.T
    return np.asarray(solved, float)


def _slopes(points: Floats, gram: Floats, dual: Floats, width: float) -> Floats:
    """Derivatives of ``gram @ dual`` at its own points along each column, ``(n, p)``."""
    return np.asarray(-2 * width * (points * (gram @ dual)[:, None] - gram @ (dual[:, None] * points)), float)


def _stretched(columns: Columns, stretch: Floats) -> Columns:
    """The same columns, each made wider by its factor; those of factor 0 vanish."""
    scale = np.full(len(stretch), np.inf)
    np.divide(columns.scale, stretch, out=scale, where=stretch > 0)
    return replace(columns, scale=scale)


def _gaussian(x: Floats, centres: Floats, width: float) -> Floats:
    # In place: these are by far the largest arrays of a fit.
    found = (x**2).sum(1)[:, None] + (centres**2).sum(1)
    found -= 2 * x @ centres.T
    np.maximum(found, 0.0, out=found)
    found *= -width
    return np.asarray(np.exp(found, out=found), float)


def kernel_from_record(record: Mapping[str, object]) -> Kernel:
    """Restore what :meth:`Kernel.to_record` gave; raises as :mod:`tuneahead.predictor.fields` otherwise."""
    columns = columns_from_record(record["columns"])
    weights = fields.floats(record["weights"], "weights", None)
    raw = np.frombuffer(base64.b64decode(fields.text(record["centres"], "centres"), validate=True), "<f4")
    centres = raw.astype(float).reshape(len(weights), len(columns.owner))
    if not np.isfinite(centres).all():
        raise ValueError("centres hold a value that is not finite")
    width, intercept = (fields.number(record[name], name) for name in ("width", "intercept"))
    return Kernel(columns, centres, weights, width, intercept)
