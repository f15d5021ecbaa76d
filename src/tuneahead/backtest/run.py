"""Backtest: how well would the predictor have done on runs whose outcome is known?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tuneahead.backtest.bases import base_tables
from tuneahead.backtest.choosing import choice_table
from tuneahead.backtest.curves import learning_curve, learning_plans, probe_lengths
from tuneahead.backtest.headline import headline_table
from tuneahead.backtest.protocols import judge, protocol_tables
from tuneahead.backtest.result import BacktestOptions, BacktestResult, Prediction
from tuneahead.backtest.runs import Outcome, Plan, run_plans
from tuneahead.backtest.tables import Table, goal_note, metric_table, paper_table, without_paper, worst_first
from tuneahead.errors import PredictorError
from tuneahead.predictor.baselines import ABLATIONS, BASELINES, OURS, SYSTEMS, WITH_PROXY, System
from tuneahead.predictor.fingerprint import table_fingerprint
from tuneahead.predictor.splits import folds_for
from tuneahead.predictor.table import FeatureTable

FURTHER = ("mean", "base", "ridge", "svr", "proxy_lm", "paper", "ours")
"""Systems compared on second and third benchmarks; rules that read cue scores have none there."""

GOALS_PP = {"lab-truth": 2.17}
"""RMSE to reach on a second benchmark, by its name: the lab's counterpart of the paper's."""


def backtest(
    table: FeatureTable,
    *,
    protocols: Sequence[str] = ("grouped", "random", "family-out"),
    seed: int = 0,
    options: BacktestOptions | None = None,
) -> BacktestResult:
    """Hold tasks out by each protocol, predict them with every system, and tabulate.

    No outcome and no feature of a held-out row reaches the system that predicts it. Tasks whose
    score is a mean over several seeds are the ones measured on, when there are fifty or more. A further
    benchmark with too few runs is passed over, and a table says so. Raises :class:`PredictorError` when
    the table is too small for a protocol.
    """
    chosen = options or BacktestOptions()
    rows = table.scored()
    plans = {
        protocol: Plan(_systems(protocol, chosen), folds_for(rows, protocol, seed=seed, k=chosen.folds))
        for protocol in protocols
    }
    sizes = learning_plans(rows, plans["grouped"].folds, seed) if _learns(protocols, chosen) else {}
    found = run_plans(rows, {**plans, **sizes}, seed=seed, workers=chosen.workers)
    tables: list[Table] = []
    for protocol in protocols:
        judged = judge(rows, protocol, found[protocol], seed)
        made = [headline_table(judged)] if OURS.name in judged.scored else []
        made += protocol_tables(judged, chosen)
        made += [paper_table()] if protocol == "random" else []
        choice = choice_table(rows, found[protocol]) if protocol == "grouped" else None
        made += [] if choice is None else [choice]
        tables += [replace(one, protocol=protocol) for one in made]
    if sizes:
        curve = {key: found[key][OURS.name] for key in sizes}
        tables.append(learning_curve(rows, plans, curve, found["grouped"]))
    if chosen.probe_tables:
        tables += probe_lengths(chosen, seed)
    if chosen.further_benchmarks:
        tables += [_further_or_why(rows.of_benchmark(name), chosen, seed) for name in rows.further_benchmarks]
    for name, other in chosen.other_bases.items():
        tables += base_tables(rows, other.scored(), name, chosen, seed)
    ours = {protocol: found[protocol].get(OURS.name) for protocol in protocols}
    return BacktestResult(
        tasks=len(rows),
        data_sets=len(set(rows.data_ids)),
        seed=seed,
        tables=tuple(tables),
        predictions={protocol: _predictions(rows, o) for protocol, o in ours.items() if o is not None},
        table_fingerprint=table_fingerprint(table),
        base_fingerprints={name: table_fingerprint(other) for name, other in chosen.other_bases.items()},
    )


def _predictions(rows: FeatureTable, outcome: Outcome) -> tuple[Prediction, ...]:
    columns = (rows.score_pp, outcome.score_pp, outcome.low_pp, outcome.high_pp)
    return tuple(
        Prediction(task, *(float(column[i]) for column in columns))
        for i, task in enumerate(rows.task_ids)
        if np.isfinite(outcome.score_pp[i])
    )


def _further_or_why(table: FeatureTable, options: BacktestOptions, seed: int) -> Table:
    """Errors on a second benchmark, or why there are none: it may have been scored on a run or two only."""
    try:
        return replace(_further(table, options, seed), protocol="grouped")
    except PredictorError as error:
        name = table.benchmarks[0]
        row = (name, len(table.scored()), error.message)
        columns = ("benchmark", "tasks", "why")
        return Table(f"benchmark {name}", f"Not measured on {name}", columns, (row,), protocol="grouped")


def _further(table: FeatureTable, options: BacktestOptions, seed: int) -> Table:
    """Grouped errors on a second benchmark, from the same features."""
    rows = table.scored()
    (name,) = set(rows.benchmarks)
    known = [s for s in (*BASELINES, OURS) if s.name in FURTHER]
    systems = tuple(s for s in known if not options.systems or s.name in options.systems)
    plan = Plan(systems, folds_for(rows, "grouped", seed=seed, k=options.folds))
    found = run_plans(rows, {"grouped": plan}, seed=seed, workers=options.workers)["grouped"]
    judged = judge(rows, "grouped", found, seed)
    scored = without_paper(worst_first(judged.scored.values()))
    title = f"Held-out error on {name}, grouped"
    note = f"{judged.note} The cues during the probe were those of the first benchmark."
    if name in GOALS_PP and OURS.name in judged.scored:
        note += " Paper, on TruthfulQA (MC2): RMSE 2.17, R2 0.98."
        note += goal_note("an RMSE of", judged.scored[OURS.name].metrics.rmse_pp, high=GOALS_PP[name])
    return metric_table(f"benchmark {name}", title, scored, judged.floor_pp, note)


def _systems(protocol: str, options: BacktestOptions) -> tuple[System, ...]:
    known = [system.name for system in SYSTEMS]
    unknown = next((name for name in options.systems if name not in known), None)
    if unknown is not None:
        raise PredictorError(f"unknown system {unknown!r}", remedy=f"use some of {', '.join(known)}")
    compared = (WITH_PROXY, *ABLATIONS) if options.ablations and protocol == "grouped" else ()
    systems = (*BASELINES, OURS, *compared)
    return tuple(s for s in systems if not options.systems or s.name in options.systems)


def _learns(protocols: Sequence[str], options: BacktestOptions) -> bool:
    wanted = not options.systems or OURS.name in options.systems
    return options.learning_curve and "grouped" in protocols and wanted
