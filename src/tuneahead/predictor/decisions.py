"""Figures of the decisions that predictions lead to: compute saved, good runs kept, bad runs caught."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tuneahead.predictor.bootstrap import Span, group_spans
from tuneahead.predictor.table import FINAL_STEPS, FeatureTable, Floats, Mask, group_index

NAN = math.nan


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


@dataclass(frozen=True)
class Look:
    """What is known of ``(n,)`` tasks when a gate looks at them after ``steps`` optimiser steps."""

    steps: int
    upper_pp: Floats


def decisions(
    upper_pp: Floats,
    measured: Floats,
    tau_pp: float,
    costs: Costs | None = None,
    *,
    groups: Sequence[str] = (),
) -> Decisions:
    """Figures of the rule "run when ``upper_pp`` >= tau" over ``(n,)`` tasks.

    ``upper_pp`` is the prediction itself (the paper's rule) or the interval's upper end (stop only
    on a sure failure). With ``groups`` (one data set id a row) figures get bootstrap intervals.
    """
    keep = ~np.isnan(upper_pp) & np.isfinite(measured)
    go, good = upper_pp[keep] >= tau_pp, measured[keep] >= tau_pp
    spent, full = np.full(len(go), NAN), np.full(len(go), NAN)
    if costs is not None:
        full = costs.full[keep]
        spent = np.where(go, full, np.minimum(costs.probe[keep], full))
    return _figures(tau_pp, go, good, (spent, full), _of_those(groups, keep))


def decisions_at_looks(
    looks: Sequence[Look],
    measured: Floats,
    tau_pp: float,
    full_steps: Floats,
    *,
    groups: Sequence[str] = (),
) -> Decisions:
    """Figures of a gate that looks several times and stops a run at the first with ``upper_pp`` < tau.

    ``full_steps``, ``(n,)``, are those of the full runs: one that is over before a look is not stopped by
    it. A look that knows nothing of a task (NaN) lets it go on; tasks that no look knows are left out.
    """
    known = np.any([~np.isnan(look.upper_pp) for look in looks], axis=0) & np.isfinite(measured)
    full, go = full_steps[known], np.ones(int(known.sum()), bool)
    spent = full.astype(float)
    for look in sorted(looks, key=lambda look: look.steps):
        stops = go & (look.upper_pp[known] < tau_pp) & (full > look.steps)
        spent[stops] = look.steps
        go &= ~stops
    good = measured[known] >= tau_pp
    return _figures(tau_pp, go, good, (spent, full), _of_those(groups, known))


def _of_those(groups: Sequence[str], known: Mask) -> list[str]:
    """The groups of the tasks that are known; none where no groups were given."""
    return [name for name, used in zip(groups, known, strict=True) if used] if groups else []


def _figures(
    tau_pp: float, go: Mask, good: Mask, steps: tuple[Floats, Floats], groups: Sequence[str]
) -> Decisions:
    """``steps``: those paid for and those of the full runs; NaN where costs are not known."""
    spent, full = steps
    spans = {}
    if groups:
        columns = [spent, full, go & good, good, ~go & ~good, ~good]

        def figures(totals: Floats) -> Floats:
            paid, whole, run_good, all_good, stopped_bad, all_bad = totals.T
            return np.column_stack([1 - paid / whole, run_good / all_good, stopped_bad / all_bad])

        found = group_spans(np.column_stack(columns).astype(float), groups, figures)
        spans = dict(zip(("compute_saved", "good_kept", "bad_caught"), found, strict=True))
    return Decisions(
        tau_pp=tau_pp,
        go=float(go.mean()) if len(go) else NAN,
        compute_saved=1.0 - float(np.sum(spent) / np.sum(full)) if len(go) else NAN,
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

    See :func:`cautious_looks`, of which this is the case of one look.
    """
    (look,) = cautious_looks((Look(0, predicted_pp),), measured_pp, tau_pp, groups, kept=kept)
    return look.upper_pp


def cautious_looks(
    looks: Sequence[Look], measured_pp: Floats, tau_pp: float, groups: Sequence[str], *, kept: float = 0.95
) -> tuple[Look, ...]:
    """The looks' predictions plus margins that let the share ``kept`` of the runs that reach ``tau_pp`` pass.

    Each group's margins (a data set's, say) are learnt from the held-out predictions of all others, so that
    the rule "run while this reaches tau" is judged on runs it was not made from. All looks are equally
    strict: each stops by itself the same number of those runs, as many as leaves ``kept`` of them to
    pass all looks. No margin is below 0: the rule stops no run that the prediction itself would make.
    Infinite where no other group's run reaches tau: nothing is known of such runs, and they are made.
    """
    index = group_index(groups)
    predicted = np.column_stack([look.upper_pp for look in looks])
    short = np.where((measured_pp >= tau_pp)[:, None], tau_pp - predicted, NAN)
    known = np.isfinite(short).all(axis=1)
    raised = np.where(np.isfinite(predicted), np.inf, NAN)
    for group in range(int(index.max(initial=-1)) + 1):
        others = short[(index != group) & known]
        if len(others):
            places = np.argsort(np.argsort(others, axis=0), axis=0).max(axis=1)
            last = int(np.quantile(places, kept, method="higher"))
            own = index == group
            raised[own] = predicted[own] + np.maximum(0.0, np.sort(others, axis=0)[last])
    return tuple(Look(look.steps, raised[:, i]) for i, look in enumerate(looks))


def task_costs(table: FeatureTable) -> Costs | None:
    """Costs in optimiser steps, as the paper counts them; None unless every row has its number of steps."""
    steps = table.extra(FINAL_STEPS)
    if not np.isfinite(steps).all():
        return None
    return Costs(np.full(len(table), float(table.probe_steps)), steps)
