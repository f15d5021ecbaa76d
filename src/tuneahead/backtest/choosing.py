"""Choosing a recipe: how much a data set's best forecast gives up against its best run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tuneahead.backtest.runs import Outcome
from tuneahead.backtest.tables import Cell, Table, span_text
from tuneahead.predictor.bootstrap import group_spans
from tuneahead.predictor.chances import chances_of_best, sd_between_recipes
from tuneahead.predictor.table import FeatureTable, Floats, Rows, group_index

LEAST_RECIPES = 4
LEAST_DATA_SETS = 5
TELLING_PP = 2.0
"""Pairs of runs nearer than this have no order worth predicting: seeds differ by about a point."""
COLUMNS = (
    *("system", "points given up", "95 % interval"),
    *("best picked %", "chance said %", "pairs in order %"),
)


def choice_table(rows: FeatureTable, outcomes: Mapping[str, Outcome]) -> Table | None:
    """Every system's choices on data sets with four recipes or more; None with fewer than five of those.

    Systems that left out one of these tasks are no candidates. Equal forecasts count as a choice at
    random among them.
    """
    sets = rows.data_keys
    index = group_index(sets)
    counts = np.bincount(index, minlength=1)
    groups = [np.flatnonzero(index == one) for one in np.flatnonzero(counts >= LEAST_RECIPES)]
    if len(groups) < LEAST_DATA_SETS:
        return None
    asked = np.concatenate(groups)
    found = [
        (outcome.system.label, _figures(rows, outcome.score_pp, groups, sets))
        for outcome in outcomes.values()
        if np.isfinite(outcome.score_pp[asked]).all() and outcome.system.kind != "ablation"
    ]
    ids = [sets[group[0]] for group in groups]
    lines = [_row(label, figures, ids) for label, figures in found]
    note = (
        f"{len(groups)} data sets of {LEAST_RECIPES} recipes or more, {len(asked)} tasks, each held out with"
        " all of its data set. Points given up: the score of the data set's best run less that of the"
        " recipe with the best forecast. Pairs in order: of two recipes whose scores are"
        f" {TELLING_PP:g} points apart or more. Chance said: that the recipe picked is the best, from the"
        " differences of the forecasts and the held-out errors between recipes of all other data sets (a"
        " predictor has its out-of-fold errors instead). Equal forecasts are a choice at random."
    )
    worst_first = tuple(sorted(lines, key=lambda row: -float(row[1] or 0.0)))
    return Table("recipe choice", "Choosing a recipe, grouped", COLUMNS, worst_first, note)


def _figures(
    rows: FeatureTable, forecast_pp: Floats, groups: Sequence[Rows], sets: tuple[str, ...]
) -> Floats:
    """By data set: points given up, best picked, chance said, pairs in order, pairs, ``(groups, 5)``."""
    figures = []
    for group in groups:
        # The error between recipes is that of all other data sets.
        others = np.flatnonzero(np.isin(np.arange(len(rows)), group, invert=True))
        residual_pp = rows.score_pp[others] - forecast_pp[others]
        tasks = [rows.task_ids[i] for i in others]
        sd = sd_between_recipes(residual_pp, [sets[i] for i in others], tasks)
        figures.append(_of_one(rows.score_pp[group], forecast_pp[group], sd))
    return np.array(figures)


def _of_one(score_pp: Floats, forecast_pp: Floats, sd: float) -> tuple[float, ...]:
    first = forecast_pp >= forecast_pp.max() - 1e-9
    best = score_pp >= score_pp.max() - 1e-9
    apart = score_pp[:, None] - score_pp
    ahead = np.sign(np.round(forecast_pp[:, None] - forecast_pp, 9))
    told = apart >= TELLING_PP
    in_order = float(((ahead[told] + 1) / 2).sum())
    given_up = float(score_pp.max() - score_pp[first].mean())
    said = chances_of_best(forecast_pp, np.full(len(forecast_pp), sd)).max() if np.isfinite(sd) else np.nan
    return given_up, float(best[first].mean()), float(said), in_order, float(told.sum())


def _row(label: str, figures: Floats, ids: Sequence[str]) -> tuple[Cell, ...]:
    totals = figures.sum(0)
    sums = np.column_stack([figures[:, 0], np.ones(len(figures))])
    (span,) = group_spans(sums, ids, lambda drawn: drawn[:, :1] / drawn[:, 1:])
    in_order = 100 * float(totals[3] / totals[4]) if totals[4] else None
    picked, said = (100 * float(total / len(figures)) for total in totals[1:3])
    return label, float(totals[0] / len(figures)), span_text(span), picked, said, in_order
