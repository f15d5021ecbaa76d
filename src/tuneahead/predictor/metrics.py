"""Figures of merit of predictions, and of the decisions made from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tuneahead.predictor.bootstrap import Span, group_spans
from tuneahead.predictor.table import FeatureTable, Floats, group_index

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
    ``bad_caught``: of the tasks that do not, those stopped. ``spans`` holds 95 % intervals by name.
    """

    tau_pp: float
    go: float
    compute_saved: float
    good_kept: float
    bad_caught: float
    good: int
    bad: int
    spans: Mapping[str, Span] = field(default_factory=dict)


@dataclass(frozen=True)
class Costs:
    """Each task's optimiser steps in its probe and in all, ``(n,)``."""

    probe: Floats
    full: Floats


def decisions(
    upper_pp: Floats,
    measured: Floats,
    tau_pp: float,
    costs: Costs | None = None,
    *,
    groups: Sequence[str] = (),
    seed: int = 0,
) -> Decisions:
    """Figures of the rule "run when ``upper_pp`` >= tau" over ``(n,)`` tasks.

    ``upper_pp`` is the prediction itself (the paper's rule) or the interval's upper end (stop only
    on a sure failure). With ``groups`` (one data set id a row) figures get bootstrap intervals.
    """
    keep = ~np.isnan(upper_pp) & np.isfinite(measured)
    go, good = upper_pp[keep] >= tau_pp, measured[keep] >= tau_pp
    saved = NAN
    spent, full = np.full(len(go), NAN), np.full(len(go), NAN)
    if costs is not None and keep.any():
        full = costs.full[keep]
        spent = np.where(go, full, np.minimum(costs.probe[keep], full))
        saved = 1.0 - float(np.sum(spent) / np.sum(full))
    spans = {}
    if groups:
        kept = [name for name, used in zip(groups, keep, strict=True) if used]
        columns = [spent, full, go & good, good, ~go & ~good, ~good]

        def figures(totals: Floats) -> Floats:
            paid, whole, run_good, all_good, stopped_bad, all_bad = totals.T
            return np.column_stack([1 - paid / whole, run_good / all_good, stopped_bad / all_bad])

        found = group_spans(np.column_stack(columns).astype(float), kept, figures, seed=seed)
        spans = dict(zip(("compute_saved", "good_kept", "bad_caught"), found, strict=True))
    return Decisions(
        tau_pp=tau_pp,
        go=float(go.mean()) if len(go) else NAN,
        compute_saved=saved,
        good_kept=float(go[good].mean()) if good.any() else NAN,
        bad_caught=float((~go[~good]).mean()) if (~good).any() else NAN,
        good=int(good.sum()),
        bad=int((~good).sum()),
        spans=spans,
    )


def cautious_pp(
    predicted_pp: Floats, measured_pp: Floats, tau_pp: float, groups: Sequence[str], *, kept: float = 0.95
) -> Floats:
    """Predictions plus the margin that keeps the share ``kept`` of the runs that reach ``tau_pp``: ``(n,)``.

    Each group's margin (a data set's, say) is learnt from the held-out predictions of all others, so that
    the rule "run when this reaches tau" is judged on runs it was not made from. It is never below 0: the
    rule stops no run that the prediction itself would make. Infinite where no other group's run reaches
    tau: nothing is known of such runs, and they are made.
    """
    index = group_index(groups)
    short = np.where(measured_pp >= tau_pp, tau_pp - predicted_pp, np.nan)
    raised = np.where(np.isfinite(predicted_pp), np.inf, NAN)
    for group in range(int(index.max(initial=-1)) + 1):
        others = short[(index != group) & np.isfinite(short)]
        if len(others):
            own = index == group
            raised[own] = predicted_pp[own] + max(0.0, float(np.quantile(others, kept, method="higher")))
    return raised


def task_costs(table: FeatureTable) -> Costs | None:
    """Costs in optimiser steps, as the paper counts them; None unless every row has its number of steps."""
    from tuneahead.predictor.table import FINAL_STEPS

    steps = table.extra(FINAL_STEPS)
    if not np.isfinite(steps).all():
        return None
    return Costs(np.full(len(table), float(table.probe_steps)), steps)
