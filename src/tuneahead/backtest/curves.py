"""Error by number of past runs and by length of the probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tuneahead.backtest.looks import Foretold, looks_tables
from tuneahead.backtest.protocols import measured_rows
from tuneahead.backtest.result import BacktestOptions
from tuneahead.backtest.runs import Outcome, Plan, run_plans
from tuneahead.backtest.tables import Cell, Table, show
from tuneahead.predictor.baselines import BASELINES, OURS
from tuneahead.predictor.metrics import measure, noise_floor_pp, rmse
from tuneahead.predictor.splits import Fold, draw_data_sets, folds_for
from tuneahead.predictor.table import FeatureTable, Rows

LEARNING_SIZES = (25, 50, 100, 200, 400, 800)
LEARNING = "learning "


def learning_plans(rows: FeatureTable, folds: Sequence[Fold], seed: int) -> dict[str, Plan]:
    """For each size a plan that fits on that many rows (whole data sets) of the first two folds' others."""
    used = folds[:2]
    plans = {}
    for size in LEARNING_SIZES:
        if size >= 0.9 * min(len(fold.train) for fold in used):
            break
        parts = tuple(
            Fold(fold.name, draw_data_sets(rows, fold.train, size, seed), fold.test) for fold in used
        )
        plans[f"{LEARNING}{size}"] = Plan((OURS,), parts)
    return plans


def learning_curve(
    rows: FeatureTable,
    plans: Mapping[str, Plan],
    curve: Mapping[str, Outcome],
    grouped: Mapping[str, Outcome],
) -> Table:
    """Our error by number of training tasks; the last row is the whole training fold.

    On all tasks of the folds, also those run under one seed: their noise is the same at every size.
    """
    used = plans["grouped"].folds[:2]
    test = np.concatenate([fold.test for fold in used])
    cells = [_curve_row(int(key[len(LEARNING) :]), outcome, rows, test) for key, outcome in curve.items()]
    cells.append(_curve_row(len(used[0].train), grouped[OURS.name], rows, test))
    floor_pp = noise_floor_pp(rows.select(test))
    several = int((rows.seeds[test] > 1).sum())
    note = (
        f"Fitted on whole data sets of the training folds, measured on {len(test)} held-out tasks,"
        f" {several} of them with several seeds; persistence there:"
        f" {rmse(rows.probe_pp[test], rows.score_pp[test]):.2f}, seed-noise floor there: {show(floor_pp)}."
    )
    columns = ("training tasks", "RMSE", "coverage %", "width", "seed-noise floor")
    cells = [(*row, floor_pp) for row in cells]
    title = "Error by number of past runs"
    return Table("learning curve", title, columns, tuple(cells), note, protocol="grouped")


def _curve_row(size: int, outcome: Outcome, rows: FeatureTable, test: Rows) -> tuple[Cell, ...]:
    part = outcome.select(test)
    found = measure(part.score_pp, rows.score_pp[test], low=part.low_pp, high=part.high_pp)
    return size, found.rmse_pp, 100.0 * found.coverage, found.width_pp


def probe_lengths(options: BacktestOptions, seed: int, base: str = "") -> list[Table]:
    """Our error and persistence's by length of the probe (``options.probe_tables``), and a gate's looks.

    ``base`` is named in the tables where it is not the main one.
    """
    cells: list[tuple[Cell, ...]] = []
    known: dict[int, Foretold] = {}
    simple = next(system for system in BASELINES if system.name == "persistence")
    for steps, table in sorted(options.probe_tables.items()):
        rows = table.scored()
        measured = measured_rows(rows)
        plan = Plan((OURS, simple), folds_for(rows, "grouped", seed=seed, k=options.folds))
        found = run_plans(rows, {"grouped": plan}, seed=seed, workers=options.workers)["grouped"]
        ours, truth = found[OURS.name].select(measured), rows.score_pp[measured]
        m = measure(ours.score_pp, truth, low=ours.low_pp, high=ours.high_pp)
        persistence = rmse(found[simple.name].score_pp[measured], truth)
        cells.append((steps, m.rmse_pp, m.r2, 100.0 * m.within_3, m.width_pp, persistence))
        known[steps] = Foretold(rows, found[OURS.name])
    columns = ("probe steps", "RMSE", "R2", "within 3 pp %", "width", "persistence RMSE")
    title = "Error by length of the probe, grouped"
    lengths = Table("probe length", title, columns, tuple(cells), protocol="grouped")
    tables = [lengths, *looks_tables(known)]
    if not base:
        return tables
    grouped = ", grouped"
    return [
        replace(one, name=f"{one.name} {base}", title=f"{one.title.removesuffix(grouped)} on {base}{grouped}")
        for one in tables
    ]
