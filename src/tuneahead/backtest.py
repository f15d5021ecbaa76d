"""Backtest: how well would the predictor have done on runs whose outcome is known?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tuneahead.backtest_runs import Outcome, Plan, run_plans
from tuneahead.backtest_tables import Cell, Scored, Table, decision_table, metric_table, trail_table
from tuneahead.errors import PredictorError
from tuneahead.predictor.baselines import ABLATIONS, BASELINES, OURS, System
from tuneahead.predictor.metrics import decisions, measure, noise_floor_pp, rmse, task_costs
from tuneahead.predictor.splits import Fold, folds_for
from tuneahead.predictor.table import FeatureTable, Floats, Mask, Rows

Protocols = Sequence[str]
LEARNING_SIZES = (25, 50, 100, 200, 400)
PAPER_TAU_PP = 55.0
LEARNING = "learning "


@dataclass(frozen=True)
class BacktestOptions:
    """What to run. ``systems`` are names (empty: all); ``workers`` processes share the folds.

    ``taus_pp`` are goals for the decision table (empty: 55 and the quartiles of the scores).
    ``probe_tables`` holds the same tasks' features after other probe lengths, by steps.
    """

    systems: tuple[str, ...] = ()
    ablations: bool = True
    learning_curve: bool = True
    folds: int = 5
    workers: int = 1
    taus_pp: tuple[float, ...] = ()
    probe_steps: int = 100
    probe_tables: Mapping[int, FeatureTable] = field(default_factory=dict)


@dataclass(frozen=True)
class BacktestResult:
    """Everything a backtest found. ``outcomes`` are by protocol, then by system name."""

    tasks: int
    data_sets: int
    seed: int
    tables: tuple[Table, ...]
    outcomes: Mapping[str, Mapping[str, Outcome]]
    task_ids: tuple[str, ...]
    score_pp: Floats

    def table(self, name: str) -> Table:
        """The table of that name; raises :class:`PredictorError` when there is none."""
        for table in self.tables:
            if table.name == name:
                return table
        known = ", ".join(table.name for table in self.tables)
        raise PredictorError(f"the backtest has no table {name!r}", remedy=f"it has {known}")

    def to_markdown(self) -> str:
        """All tables, one below the other."""
        head = f"{self.tasks} tasks on {self.data_sets} data sets, seed {self.seed}. Errors in points."
        return "\n\n".join([head, *(table.to_markdown() for table in self.tables)]) + "\n"

    def to_json(self) -> str:
        """All tables, and our held-out predictions task by task."""
        record = {
            "tasks": self.tasks,
            "data_sets": self.data_sets,
            "seed": self.seed,
            "tables": [table.to_record() for table in self.tables],
            "predictions": {
                protocol: self._rows(found[OURS.name])
                for protocol, found in self.outcomes.items()
                if OURS.name in found
            },
        }
        return json.dumps(record, indent=1, allow_nan=False)

    def _rows(self, outcome: Outcome) -> list[list[object]]:
        columns = (self.score_pp, outcome.score_pp, outcome.low_pp, outcome.high_pp)
        return [
            [task, *(round(float(column[i]), 3) for column in columns)]
            for i, task in enumerate(self.task_ids)
            if np.isfinite(outcome.score_pp[i])
        ]


def backtest(
    table: FeatureTable,
    *,
    protocols: Protocols = ("grouped", "random", "family-out"),
    seed: int = 0,
    options: BacktestOptions | None = None,
) -> BacktestResult:
    """Hold tasks out by each protocol, predict them with every system, and tabulate.

    No outcome and no feature of a held-out row reaches the system that predicts it. Tasks whose
    score is a mean over several seeds are the ones measured on, when there are fifty or more.
    Raises :class:`PredictorError` when the table is too small for a protocol.
    """
    chosen = options or BacktestOptions()
    rows = table.scored()
    plans = {
        protocol: Plan(_systems(protocol, chosen), folds_for(rows, protocol, seed=seed, k=chosen.folds))
        for protocol in protocols
    }
    sizes = _learning_plans(rows, plans["grouped"].folds, seed) if _learns(protocols, chosen) else {}
    found = run_plans(rows, {**plans, **sizes}, seed=seed, workers=chosen.workers)
    outcomes = {protocol: found[protocol] for protocol in protocols}
    measured = _measured_rows(rows)
    tables: list[Table] = []
    for protocol in protocols:
        tables += _protocol_tables(rows, protocol, outcomes[protocol], measured, chosen, seed)
    if sizes:
        curve = {key: found[key][OURS.name] for key in sizes}
        tables.append(_learning_curve(rows, plans, curve, outcomes["grouped"], measured))
    if chosen.probe_tables:
        tables.append(_probe_lengths(chosen, seed))
    return BacktestResult(
        tasks=len(rows),
        data_sets=len(set(rows.data_ids)),
        seed=seed,
        tables=tuple(tables),
        outcomes=outcomes,
        task_ids=rows.task_ids,
        score_pp=rows.score_pp,
    )


def _systems(protocol: str, options: BacktestOptions) -> tuple[System, ...]:
    known = [system.name for system in (*BASELINES, OURS, *ABLATIONS)]
    unknown = next((name for name in options.systems if name not in known), None)
    if unknown is not None:
        raise PredictorError(f"unknown system {unknown!r}", remedy=f"use some of {', '.join(known)}")
    ablations = ABLATIONS if options.ablations and protocol == "grouped" else ()
    systems = (*BASELINES, OURS, *ablations)
    return tuple(s for s in systems if not options.systems or s.name in options.systems)


def _learns(protocols: Protocols, options: BacktestOptions) -> bool:
    wanted = not options.systems or OURS.name in options.systems
    return options.learning_curve and "grouped" in protocols and wanted


def _measured_rows(rows: FeatureTable) -> Mask:
    several = rows.seeds >= 2
    return several if several.sum() >= 50 else np.ones(len(rows), bool)


def _protocol_tables(
    rows: FeatureTable,
    protocol: str,
    outcomes: Mapping[str, Outcome],
    measured: Mask,
    options: BacktestOptions,
    seed: int,
) -> list[Table]:
    part = rows.select(np.flatnonzero(measured))
    scored = {name: _scored(part, measured, outcome, seed) for name, outcome in outcomes.items()}
    held = np.zeros(len(rows), bool)
    for outcome in outcomes.values():
        held |= np.isfinite(outcome.score_pp)
    floor = noise_floor_pp(rows.select(np.flatnonzero(measured & held)))
    names = {system.name for system in ABLATIONS}
    note = _protocol_note(protocol, rows, measured)
    main = sorted((s for name, s in scored.items() if name not in names), key=_worst_first)
    tables = [metric_table(f"main {protocol}", f"Held-out error, {protocol}", main, floor, note)]
    ablation = [s for name, s in scored.items() if name in names]
    if ablation:
        note = "All rows use the same two cheap models (ridge and boosted trees): only the features differ."
        tables.append(metric_table(f"ablation {protocol}", f"Ablation, {protocol}", ablation, floor, note))
    if OURS.name in outcomes:
        tables += _decision_tables(
            part, protocol, {name: outcome.select(measured) for name, outcome in outcomes.items()}, options
        )
    if protocol == "random" and OURS.name in outcomes:
        tables.append(trail_table(outcomes[OURS.name].trail))
    return tables


def _worst_first(system: Scored) -> float:
    return -system.metrics.rmse_pp if system.metrics.n else -np.inf


def _scored(part: FeatureTable, measured: Mask, outcome: Outcome, seed: int) -> Scored:
    found = outcome.select(measured)
    low, high = (found.low_pp, found.high_pp) if outcome.has_interval else (None, None)
    metrics = measure(found.score_pp, part.score_pp, low=low, high=high, groups=part.data_ids, seed=seed)
    return Scored(outcome.system.name, outcome.system.label, metrics, outcome.reason)


def _protocol_note(protocol: str, rows: FeatureTable, measured: Mask) -> str:
    what = {
        "grouped": "No data set is on both sides of a fold; every task is held out once.",
        "random": "One random split as in the paper; data sets may be on both sides.",
        "family-out": "Each kind of data is held out whole; every task is held out once.",
    }[protocol]
    if measured.all():
        return what
    return (
        f"{what} Measured on the {int(measured.sum())} tasks of {len(rows)} whose score is a mean over seeds."
    )


def _decision_tables(
    part: FeatureTable, protocol: str, outcomes: Mapping[str, Outcome], options: BacktestOptions
) -> list[Table]:
    costs = task_costs(part, options.probe_steps)
    quartiles = np.nanquantile(part.score_pp, (0.25, 0.5, 0.75))
    taus = options.taus_pp or tuple(sorted({PAPER_TAU_PP, *(round(float(q), 1) for q in quartiles)}))
    ours = outcomes[OURS.name]
    rules = {"default, prediction": ours.score_pp, "default, upper end": ours.high_pp}
    for name, label in (("persistence", "persistence"), ("paper", "paper preset, prediction")):
        if name in outcomes:
            rules[label] = outcomes[name].score_pp
    found = [
        (label, decisions(upper, part.score_pp, tau, costs)) for tau in taus for label, upper in rules.items()
    ]
    note = (
        "Run when the prediction (or the interval's upper end) reaches tau. Every probe is paid for,"
        " and a run that goes on continues from its probe."
    )
    if protocol == "random":
        note += " Paper, tau 55: 58.4 % saved, 94.5 % of good runs kept."
    curve_taus = np.unique(np.round(np.nanquantile(part.score_pp, np.linspace(0.02, 0.98, 33)), 1))
    curve = [
        ("default, prediction", decisions(ours.score_pp, part.score_pp, float(t), costs)) for t in curve_taus
    ]
    return [
        decision_table(f"decisions {protocol}", f"Decisions, {protocol}", found, note),
        decision_table(f"decision curve {protocol}", f"Decisions at every tau, {protocol}", curve, ""),
    ]


def _learning_plans(rows: FeatureTable, folds: Sequence[Fold], seed: int) -> dict[str, Plan]:
    """For each size a plan that fits on that many rows (whole data sets) of the first two folds' others."""
    used = folds[:2]
    plans = {}
    for size in LEARNING_SIZES:
        if size >= 0.9 * min(len(fold.train) for fold in used):
            break
        parts = tuple(Fold(fold.name, _first_data_sets(rows, fold, size, seed), fold.test) for fold in used)
        plans[f"{LEARNING}{size}"] = Plan((OURS,), parts)
    return plans


def _learning_curve(
    rows: FeatureTable,
    plans: Mapping[str, Plan],
    curve: Mapping[str, Outcome],
    grouped: Mapping[str, Outcome],
    measured: Mask,
) -> Table:
    used = plans["grouped"].folds[:2]
    test = np.concatenate([fold.test for fold in used])
    test = test[measured[test]]
    cells = [_curve_row(int(key[len(LEARNING) :]), outcome, rows, test) for key, outcome in curve.items()]
    cells.append(_curve_row(len(used[0].train), grouped[OURS.name], rows, test))
    note = (
        f"Fitted on whole data sets of the training folds, measured on {len(test)} held-out tasks;"
        f" persistence there: {rmse(rows.probe_pp[test], rows.score_pp[test]):.2f}."
    )
    columns = ("training tasks", "RMSE", "coverage %", "width")
    return Table("learning curve", "Error by number of past runs", columns, tuple(cells), note)


def _curve_row(size: int, outcome: Outcome, rows: FeatureTable, test: Rows) -> tuple[Cell, ...]:
    part = outcome.select(test)
    found = measure(part.score_pp, rows.score_pp[test], low=part.low_pp, high=part.high_pp)
    return size, found.rmse_pp, 100.0 * found.coverage, found.width_pp


def _first_data_sets(rows: FeatureTable, fold: Fold, size: int, seed: int) -> Rows:
    by_id: dict[str, list[int]] = {}
    for i in fold.train:
        by_id.setdefault(rows.data_ids[i], []).append(int(i))
    ids = list(by_id)
    np.random.default_rng(seed).shuffle(ids)
    taken = [i for data_id in ids for i in by_id[data_id]]
    return np.array(taken[:size], np.intp)


def _probe_lengths(options: BacktestOptions, seed: int) -> Table:
    cells: list[tuple[Cell, ...]] = []
    simple = next(system for system in BASELINES if system.name == "persistence")
    for steps, table in sorted(options.probe_tables.items()):
        rows = table.scored()
        measured = _measured_rows(rows)
        plan = Plan((OURS, simple), folds_for(rows, "grouped", seed=seed, k=options.folds))
        found = run_plans(rows, {"grouped": plan}, seed=seed, workers=options.workers)["grouped"]
        ours, truth = found[OURS.name].select(measured), rows.score_pp[measured]
        m = measure(ours.score_pp, truth, low=ours.low_pp, high=ours.high_pp)
        persistence = rmse(found[simple.name].score_pp[measured], truth)
        cells.append((steps, m.rmse_pp, m.r2, 100.0 * m.within_3, m.width_pp, persistence))
    columns = ("probe steps", "RMSE", "R2", "within 3 pp %", "width", "persistence RMSE")
    return Table("probe length", "Error by length of the probe, grouped", columns, tuple(cells))
