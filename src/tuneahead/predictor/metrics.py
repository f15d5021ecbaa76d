"""Figures of merit of predictions, and of the decisions made from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuneahead.predictor.table import FeatureTable, Floats, Rows, group_index

NAN = math.nan


@dataclass(frozen=True)
class Metrics:
    """Agreement of predicted and measured scores over ``n`` tasks; what can't be computed is NaN.

    RMSE, mean error and interval width are in percentage points; ``within_k`` and
    ``coverage`` are fractions. ``rmse_low_pp`` and ``rmse_high_pp`` bound the RMSE with 95 %
    probability (bootstrap over data sets).
    """

    n: int
    rmse_pp: float
    rmse_low_pp: float = NAN
    rmse_high_pp: float = NAN
    r2: float = NAN
    pearson: float = NAN
    spearman: float = NAN
    within_1: float = NAN
    within_2: float = NAN
    within_3: float = NAN
    bias_pp: float = NAN
    coverage: float = NAN
    width_pp: float = NAN


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
    if len(a) < 2:
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

    With ``groups`` (one data set id a row) the RMSE gets a bootstrap interval over whole groups.
    """
    keep = np.isfinite(predicted) & np.isfinite(measured)
    p, m = predicted[keep], measured[keep]
    if not len(p):
        return Metrics(0, NAN)
    error = p - m
    spread = float(np.sum((m - m.mean()) ** 2))
    bounds = (NAN, NAN)
    if groups:
        index = group_index([name for name, kept in zip(groups, keep, strict=True) if kept])
        bounds = _bootstrap_rmse(error, index, seed)
    coverage = width = NAN
    if low is not None and high is not None:
        coverage = float(np.mean((m >= low[keep]) & (m <= high[keep])))
        width = float(np.mean(high[keep] - low[keep]))
    return Metrics(
        n=len(p),
        rmse_pp=float(np.sqrt(np.mean(error**2))),
        rmse_low_pp=bounds[0],
        rmse_high_pp=bounds[1],
        r2=1.0 - float(error @ error) / spread if spread > 0 else NAN,
        pearson=pearson(p, m),
        spearman=spearman(p, m),
        within_1=float(np.mean(np.abs(error) <= 1.0)),
        within_2=float(np.mean(np.abs(error) <= 2.0)),
        within_3=float(np.mean(np.abs(error) <= 3.0)),
        bias_pp=float(error.mean()),
        coverage=coverage,
        width_pp=width,
    )


def _bootstrap_rmse(error: Floats, index: Rows, seed: int, draws: int = 1000) -> tuple[float, float]:
    count = int(index.max()) + 1
    if count < 2:
        return NAN, NAN
    squares = np.bincount(index, weights=error**2, minlength=count)
    sizes = np.bincount(index, minlength=count)
    drawn = np.random.default_rng(seed).integers(count, size=(draws, count))
    values = np.sqrt(squares[drawn].sum(1) / sizes[drawn].sum(1))
    return float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))


def noise_floor_pp(table: FeatureTable) -> float:
    """RMSE that a perfect predictor of the expected score would have against the measured means.

    A mean of k seeds lies off its expectation by sd / sqrt(k). The sd of tasks run once is taken
    from the pooled variance of those run more often; NaN when no task was. Source: method.md, "Protocols".
    """
    known = np.isfinite(table.seed_sd_pp) & (table.seeds > 1)
    if not known.any():
        return NAN
    freedom = table.seeds[known] - 1
    pooled = float(np.sum(freedom * table.seed_sd_pp[known] ** 2) / np.sum(freedom))
    variance = np.where(known, np.nan_to_num(table.seed_sd_pp) ** 2, pooled)
    return float(np.sqrt(np.mean(variance / np.maximum(table.seeds, 1))))


@dataclass(frozen=True)
class Decisions:
    """What a gate at ``tau_pp`` does; fractions, NaN when there is nothing to divide by.

    ``compute_saved``: of the cost of running everything in full, with every probe paid for and
    each GO continued from its probe. ``good_kept``: of the tasks that reach tau, those run.
    ``bad_caught``: of the tasks that do not, those stopped.
    """

    tau_pp: float
    go: float
    compute_saved: float
    good_kept: float
    bad_caught: float
    good: int
    bad: int


@dataclass(frozen=True)
class Costs:
    """Cost of each task's probe and of its full run (probe included), ``(n,)``, in one unit."""

    probe: Floats
    full: Floats


def decisions(upper_pp: Floats, measured: Floats, tau_pp: float, costs: Costs | None = None) -> Decisions:
    """Figures of the rule "run when ``upper_pp`` >= tau" over ``(n,)`` tasks.

    ``upper_pp`` is the prediction itself (the paper's rule) or the interval's upper end (stop only
    on a sure failure).
    """
    keep = np.isfinite(upper_pp) & np.isfinite(measured)
    go, good = upper_pp[keep] >= tau_pp, measured[keep] >= tau_pp
    saved = NAN
    if costs is not None and keep.any():
        probe, full = costs.probe[keep], costs.full[keep]
        saved = 1.0 - float(np.sum(np.where(go, full, np.minimum(probe, full))) / np.sum(full))
    return Decisions(
        tau_pp=tau_pp,
        go=float(go.mean()) if len(go) else NAN,
        compute_saved=saved,
        good_kept=float(go[good].mean()) if good.any() else NAN,
        bad_caught=float((~go[~good]).mean()) if (~good).any() else NAN,
        good=int(good.sum()),
        bad=int((~good).sum()),
    )


def task_costs(table: FeatureTable, probe_steps: int) -> Costs | None:
    """Costs in measured seconds where every row has them, else in optimiser steps, else None."""
    from tuneahead.predictor.table import FINAL_STEPS, FULL_SECONDS, PROBE_SECONDS

    probe, full = table.extra(PROBE_SECONDS), table.extra(FULL_SECONDS)
    if np.isfinite(probe).all() and np.isfinite(full).all():
        return Costs(probe, full)
    steps = table.extra(FINAL_STEPS)
    if np.isfinite(steps).all():
        return Costs(np.full(len(table), float(probe_steps)), steps)
    return None
