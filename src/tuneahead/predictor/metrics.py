"""Figures of merit of predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tuneahead.predictor.bootstrap import Span, group_spans
from tuneahead.predictor.table import FeatureTable, Floats

NAN = math.nan


@dataclass(frozen=True)
class Metrics:
    """Agreement of predicted and measured scores over ``n`` tasks; what can't be computed is NaN.

    RMSE, mean error and interval width are in percentage points; ``within_k`` and
    ``coverage`` are fractions. ``spans`` holds 95 % intervals by name (bootstrap over data sets).
    """

    n: int
    rmse_pp: float
    r2: float = NAN
    pearson: float = NAN
    spearman: float = NAN
    within_1: float = NAN
    within_2: float = NAN
    within_3: float = NAN
    bias_pp: float = NAN
    coverage: float = NAN
    width_pp: float = NAN
    spans: Mapping[str, Span] = field(default_factory=dict)


def rmse(predicted: Floats, measured: Floats) -> float:
    """Root mean squared difference over the rows where both exist; NaN when there is none."""
    error = predicted - measured
    error = error[np.isfinite(error)]
    return float(np.sqrt(np.mean(error**2))) if len(error) else NAN


def ranks(values: Floats) -> Floats:
    """Average ranks from 1, ties shared, ``(n,)``."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[inverse], float)


def pearson(a: Floats, b: Floats) -> float:
    """Correlation of two vectors; NaN when either is constant or shorter than two."""
    # The deviations of a constant from its mean may be rounding errors instead of zeros.
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return NAN
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else NAN


def spearman(a: Floats, b: Floats) -> float:
    """Rank correlation of two vectors; NaN when either is constant."""
    return pearson(ranks(a), ranks(b))


def measure(
    predicted: Floats,
    measured: Floats,
    *,
    low: Floats | None = None,
    high: Floats | None = None,
    groups: Sequence[str] = (),
    seed: int = 0,
) -> Metrics:
    """All metrics of ``predicted`` against ``measured``, both ``(n,)`` points; absent rows are left out.

    With ``groups`` (one data set id a row) figures get bootstrap intervals over whole groups.
    """
    keep = np.isfinite(predicted) & np.isfinite(measured)
    p, m = predicted[keep], measured[keep]
    if not len(p):
        return Metrics(0, NAN)
    error = p - m
    spread = float(np.sum((m - m.mean()) ** 2))
    coverage = width = NAN
    inside = np.full(len(p), NAN)
    if low is not None and high is not None:
        known = np.isfinite(low[keep]) & np.isfinite(high[keep])
        inside = np.where(known, (m >= low[keep]) & (m <= high[keep]), NAN)
        if known.any():
            coverage, width = float(inside[known].mean()), float(np.mean((high - low)[keep][known]))
    kept = [name for name, used in zip(groups, keep, strict=True) if used] if groups else []
    return Metrics(
        n=len(p),
        rmse_pp=float(np.sqrt(np.mean(error**2))),
        r2=1.0 - float(error @ error) / spread if spread > 0 else NAN,
        pearson=pearson(p, m),
        spearman=spearman(p, m),
        within_1=float(np.mean(np.abs(error) <= 1.0)),
        within_2=float(np.mean(np.abs(error) <= 2.0)),
        within_3=float(np.mean(np.abs(error) <= 3.0)),
        bias_pp=float(error.mean()),
        coverage=coverage,
        width_pp=width,
        spans=_spans(error, m, inside, kept, seed) if kept else {},
    )


_SPANNED = ("rmse_pp", "r2", "within_1", "within_2", "within_3", "coverage")


def _spans(
    error: Floats, measured: Floats, inside: Floats, groups: Sequence[str], seed: int
) -> dict[str, Span]:
    near = [np.abs(error) <= bound for bound in (1.0, 2.0, 3.0)]
    known = np.isfinite(inside)
    columns = [np.ones(len(error)), error**2, measured, measured**2, *near, np.nan_to_num(inside), known]

    def figures(totals: Floats) -> Floats:
        n, squares, total, total_squares, *shares, covered, bounded = totals.T
        spread = total_squares - total**2 / n
        shares = [*(share / n for share in shares), covered / bounded]
        return np.column_stack([np.sqrt(squares / n), 1 - squares / spread, *shares])

    found = group_spans(np.column_stack(columns).astype(float), groups, figures, seed=seed)
    return dict(zip(_SPANNED, found, strict=True))


def noise_floor_pp(table: FeatureTable) -> float:
    """RMSE that a perfect predictor of the expected score would have against the measured means.

    NaN when no task was run under several seeds. Source: method.md, "Protocols".
    """
    return float(np.sqrt(np.mean(noise_variances_pp2(table)))) if len(table) else NAN


def noise_variances_pp2(table: FeatureTable) -> Floats:
    """Expected squared distance of each measured mean from its expectation, ``(n,)``.

    A mean of k seeds lies off by sd / sqrt(k). The sd of tasks run once is taken from the pooled variance of
    those run more often; all NaN when no task was.
    """
    known = np.isfinite(table.seed_sd_pp) & (table.seeds > 1)
    if not known.any():
        return np.full(len(table), NAN)
    freedom = table.seeds[known] - 1
    pooled = float(np.sum(freedom * table.seed_sd_pp[known] ** 2) / np.sum(freedom))
    variance = np.where(known, np.nan_to_num(table.seed_sd_pp) ** 2, pooled)
    return np.asarray(variance / np.maximum(table.seeds, 1), float)
