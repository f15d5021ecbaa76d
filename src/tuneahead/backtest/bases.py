"""Portability: the same kind of tasks on another base, from scratch and warm-started with few rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tuneahead.backtest.curves import probe_lengths
from tuneahead.backtest.protocols import judge
from tuneahead.backtest.result import BacktestOptions
from tuneahead.backtest.runs import Outcome, Plan, run_plans
from tuneahead.backtest.tables import Cell, Table, goal_note, metric_table, without_paper, worst_first
from tuneahead.predictor.baselines import BASELINES, OURS
from tuneahead.predictor.metrics import measure, rmse
from tuneahead.predictor.splits import Fold, draw_data_sets, folds_for
from tuneahead.predictor.table import FeatureTable, Rows, join_tables
from tuneahead.predictor.transfer import TRANSFERS

OWN_ROWS = (0, 10, 25, 50, 100, 200)
"""Numbers of own rows; what the smallest training part holds instead of the last that it can't fill."""
SYSTEMS = ("mean", "persistence", "ridge", "svr", "proxy_lm", "paper")
GOAL_R2 = 0.91
TRANSFER_FOLDS = 3
FEW_TASKS = 100
"""With fewer tasks every fold is tested: three of five would leave too few to measure on."""
MOST_FOLDS = 10
"""Into at most so many are tasks split so that the others of each are as many as the last of ``OWN_ROWS``."""


def base_tables(
    home: FeatureTable, other: FeatureTable, name: str, options: BacktestOptions, seed: int
) -> list[Table]:
    """Errors on the other base by its own rows alone, and by their number with and without ``home``.

    Beside these what other lengths of the probe give there, for which ``options`` has tables. A data set that
    is tested on the other base is never trained on, not on the home base either.
    """
    tables = (_from_scratch(other, name, options, seed), _few_rows(home, other, name, options, seed))
    found = [replace(table, protocol="grouped") for table in tables]
    if lengths := options.other_probe_tables.get(name):
        by_steps = {**lengths, other.probe_steps: other}
        found += probe_lengths(replace(options, probe_tables=by_steps), seed, name)
    return found


def _from_scratch(other: FeatureTable, name: str, options: BacktestOptions, seed: int) -> Table:
    systems = tuple(s for s in BASELINES if s.name in SYSTEMS)
    plan = Plan((*systems, OURS), folds_for(other, "grouped", seed=seed, k=options.folds))
    found = run_plans(other, {"grouped": plan}, seed=seed, workers=options.workers)["grouped"]
    judged = judge(other, "grouped", found, seed)
    scored = without_paper(worst_first(judged.scored.values()))
    note = (
        f"{judged.note} {len(other)} tasks, trained from scratch on this base's own runs."
        " Paper: R2 0.86 (Llama-3-8B, 400 tasks) and 0.91 (Qwen2-0.5B, 450 tasks)."
        + goal_note("an R2 of", judged.scored[OURS.name].metrics.r2, low=GOAL_R2)
    )
    return metric_table(
        f"base {name}", f"Held-out error on base {name}, grouped", scored, judged.floor_pp, note
    )


def _few_rows(
    home: FeatureTable, other: FeatureTable, name: str, options: BacktestOptions, seed: int
) -> Table:
    both = join_tables([home, other])
    folds = _transfer_folds(other, options.folds, seed)
    plans = {}
    most = min(OWN_ROWS[-1], _least_others(folds))
    for size in (*(size for size in OWN_ROWS if size < 0.9 * most), most):
        plans[str(size)] = Plan(TRANSFERS, tuple(_fold(home, other, fold, size, seed) for fold in folds))
    found = run_plans(both, plans, seed=seed, workers=options.workers)
    test = np.concatenate([fold.test for fold in folds]) + len(home)
    cells = [_row(int(size), outcomes, both, test) for size, outcomes in found.items()]
    persistence = rmse(both.probe_pp[test], both.score_pp[test])
    columns = (
        *("own rows", "from scratch RMSE", "warm start RMSE", "warm start R2"),
        *("warm start coverage %", "warm start width"),
    )
    note = (
        f"Warm start: fitted to the runs on {home.bases[0]} and so many on {name} (whole data sets) together;"
        f" measured on {len(test)} tasks of data sets that no training row of either base is from."
        f" Persistence there: {persistence:.2f}."
    )
    return Table(f"transfer {name}", f"Error on {name} by number of own runs", columns, tuple(cells), note)


def _transfer_folds(other: FeatureTable, wanted: int, seed: int) -> tuple[Fold, ...]:
    """The folds that are tested: of ``wanted``, or of more where only these leave so many own rows."""
    numbers = range(wanted, max(wanted, MOST_FOLDS) + 1)
    tried = [folds_for(other, "grouped", seed=seed, k=k) for k in numbers]
    folds = next((folds for folds in tried if _least_others(folds) >= OWN_ROWS[-1]), tried[0])
    return folds if len(other) < FEW_TASKS else folds[:TRANSFER_FOLDS]


def _least_others(folds: Sequence[Fold]) -> int:
    return min(len(fold.train) for fold in folds)


def _fold(home: FeatureTable, other: FeatureTable, fold: Fold, size: int, seed: int) -> Fold:
    tested = {other.data_ids[i] for i in fold.test}
    known = np.array([i for i, data_id in enumerate(home.data_ids) if data_id not in tested], np.intp)
    own = draw_data_sets(other, fold.train, size, seed)
    return Fold(fold.name, np.concatenate([known, own + len(home)]), fold.test + len(home))


def _row(size: int, outcomes: dict[str, Outcome], both: FeatureTable, test: Rows) -> tuple[Cell, ...]:
    truth = both.score_pp[test]
    scratch, warm = outcomes["scratch"].select(test), outcomes["warm_start"].select(test)
    m = measure(warm.score_pp, truth, low=warm.low_pp, high=warm.high_pp)
    coverage, width = (100 * m.coverage, m.width_pp) if size else (None, None)
    return size, rmse(scratch.score_pp, truth), m.rmse_pp, m.r2, coverage, width
