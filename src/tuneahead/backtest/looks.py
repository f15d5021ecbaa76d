"""What a gate saves that looks several times, each time with a predictor of probes of that length."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tuneahead.backtest.protocols import measured_rows, success_tau_pp
from tuneahead.backtest.runs import Outcome
from tuneahead.backtest.tables import Table, decision_table
from tuneahead.counts import listed
from tuneahead.predictor.decisions import Decisions, Look, cautious_looks, decisions_at_looks
from tuneahead.predictor.packaged import PROBE_STEPS
from tuneahead.predictor.table import FINAL_STEPS, FeatureTable

HALF = 0.5
"""Looks are compared at the goal that a third of the runs reach, and at the one that this share do."""


@dataclass(frozen=True)
class Foretold:
    """Tasks after probes of one length, and our held-out forecasts of them."""

    rows: FeatureTable
    ours: Outcome


def looks_tables(known: Mapping[int, Foretold]) -> list[Table]:
    """Decisions at one look and at several, over the tasks that every length has; empty for one length alone.

    ``known`` is by the probe's length in steps. Costs are in optimiser steps: without them there is no table.
    """
    if len(known) < 2 or PROBE_STEPS not in known:
        return []
    shared = set.intersection(*(set(one.rows.task_ids) for one in known.values()))
    first = known[PROBE_STEPS].rows
    wanted = measured_rows(first) & np.array([task in shared for task in first.task_ids])
    rows = first.select(np.flatnonzero(wanted))
    full = rows.extra(FINAL_STEPS)
    if not np.isfinite(full).all():
        return []
    foretold, upper = [], []
    for steps, one in sorted(known.items()):
        place = {task: i for i, task in enumerate(one.rows.task_ids)}
        ours = one.ours.select([place[task] for task in rows.task_ids])
        foretold.append(Look(steps, ours.score_pp))
        upper.append(Look(steps, ours.high_pp))
    rules: list[tuple[str, Decisions]] = []
    for tau in (success_tau_pp(rows.score_pp), round(float(np.quantile(rows.score_pp, HALF)), 1)):
        for chosen in _choices(sorted(known)):
            picked = [i for i, look in enumerate(upper) if look.steps in chosen]
            margins = cautious_looks([foretold[i] for i in picked], rows.score_pp, tau, rows.data_ids)
            for rule, looks in (("gate's", [upper[i] for i in picked]), ("cautious", margins)):
                found = decisions_at_looks(looks, rows.score_pp, tau, full, groups=rows.data_ids)
                rules.append((f"{rule}, at {listed([str(steps) for steps in chosen])}", found))
    note = (
        "The steps at which a gate looks: it stops at the first look that calls the run doomed. Each has a"
        " predictor of probes of its length. The gate's rule stops where the upper end of the interval lies"
        " below tau; the cautious one adds to the predictions margins, equally strict at all looks, that let"
        " 95 % of the good runs of all other data sets pass every look. Compute is counted in optimiser"
        " steps. The paper's one look saves 58.4 % and keeps 94.5 % of the good runs (random split)."
    )
    title = "Decisions of a gate that looks several times, grouped"
    return [replace(decision_table("looks", title, rules, note), protocol="grouped")]


def _choices(lengths: list[int]) -> Iterable[tuple[int, ...]]:
    """The usual length alone, with one other, with all shorter ones, and all."""
    usual = (PROBE_STEPS,)
    pairs = [tuple(sorted((PROBE_STEPS, other))) for other in lengths if other != PROBE_STEPS]
    shorter = tuple(steps for steps in lengths if steps <= PROBE_STEPS)
    return dict.fromkeys([usual, *pairs, shorter, tuple(lengths)])
