"""The tables of one protocol: held-out errors, ablation, decisions, selection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tuneahead.backtest.result import BacktestOptions
from tuneahead.backtest.runs import Outcome
from tuneahead.backtest.tables import (
    Scored,
    Table,
    decision_table,
    kind_table,
    metric_table,
    trail_table,
    worst_first,
)
from tuneahead.predictor.baselines import ABLATIONS, OURS
from tuneahead.predictor.decisions import cautious_pp, decisions, task_costs
from tuneahead.predictor.metrics import Metrics, measure, noise_floor_pp, rmse
from tuneahead.predictor.table import PROXY, FeatureTable, Floats, Mask, Rows

PAPER_TAU_PP = 55.0
SUCCESS_SHARE = 1 / 3
"""The goal at which savings are judged is the one that this share of the runs reach."""

_ABLATION_NOTE = (
    "All rows use the same two cheap models (ridge and boosted trees): only the features differ. The 24 best"
    " are those of most effect among the features that the selection's three steps keep, none of them"
    " protected, on the training rows of each fold."
)


def measured_rows(rows: FeatureTable) -> Mask:
    """Tasks that errors are measured on: those with several seeds when there are fifty, else all."""
    several = rows.seeds >= 2
    return several if several.sum() >= 50 else np.ones(len(rows), bool)


@dataclass(frozen=True)
class Judged:
    """The outcomes of one protocol on the held-out tasks that errors are measured on, and on all tasks."""

    protocol: str
    rows: FeatureTable
    outcomes: Mapping[str, Outcome]
    all_rows: FeatureTable
    all_outcomes: Mapping[str, Outcome]
    scored: Mapping[str, Scored]
    floor_pp: float
    note: str
    whole: Metrics | None = None
    """Ours over every task that was held out, whatever its number of seeds."""
    kinds: tuple[tuple[str, Metrics], ...] = ()
    """The same by kind of data, worst first, where whole kinds are held out."""


def judge(rows: FeatureTable, protocol: str, outcomes: Mapping[str, Outcome], seed: int) -> Judged:
    """Figures of every system under ``protocol``, on the measured rows alone."""
    held = np.zeros(len(rows), bool)
    for outcome in outcomes.values():
        held |= np.isfinite(outcome.score_pp)
    measured = measured_rows(rows) & held
    part = rows.select(np.flatnonzero(measured))
    ours = outcomes.get(OURS.name)
    return Judged(
        protocol,
        part,
        {name: outcome.select(measured) for name, outcome in outcomes.items()},
        rows,
        outcomes,
        {name: _scored(part, measured, outcome, (protocol, seed)) for name, outcome in outcomes.items()},
        noise_floor_pp(part),
        _protocol_note(protocol, rows, held) + _proxy_note(rows, outcomes, measured),
        None if ours is None else _on(rows, np.arange(len(rows)), ours, (protocol, seed)),
        () if ours is None or protocol != "family-out" else _by_kind(rows, ours, (protocol, seed)),
    )


def drawn_groups(rows: FeatureTable, protocol: str) -> tuple[str, ...]:
    """What is held out whole, by row: intervals are drawn over it."""
    return rows.families if protocol == "family-out" else rows.data_ids


def _by_kind(rows: FeatureTable, ours: Outcome, drawn: tuple[str, int]) -> tuple[tuple[str, Metrics], ...]:
    families = np.array(rows.families)
    found = [(name, _on(rows, np.flatnonzero(families == name), ours, drawn)) for name in np.unique(families)]
    return tuple(sorted(((str(name), m) for name, m in found if m.n), key=lambda pair: -pair[1].rmse_pp))


def _on(rows: FeatureTable, which: Rows, outcome: Outcome, drawn: tuple[str, int]) -> Metrics:
    return _scored(rows.select(which), which, outcome, drawn).metrics


def protocol_tables(judged: Judged, options: BacktestOptions) -> list[Table]:
    """Held-out error, ablation, decisions and (for the random split) the selection's trail."""
    protocol, scored, floor = judged.protocol, judged.scored, judged.floor_pp
    names = {system.name for system in ABLATIONS}
    main = worst_first(s for name, s in scored.items() if name not in names)
    tables = [metric_table(f"main {protocol}", f"Held-out error, {protocol}", main, floor, judged.note)]
    ablation = [s for name, s in scored.items() if name in names]
    if ablation:
        tables.append(
            metric_table(f"ablation {protocol}", f"Ablation, {protocol}", ablation, floor, _ABLATION_NOTE)
        )
    if len(judged.kinds) > 1:
        tables.append(kind_table(judged.kinds))
    if OURS.name in judged.outcomes:
        tables += _decision_tables(judged, options)
    if protocol == "random" and OURS.name in judged.outcomes:
        tables.append(trail_table(judged.outcomes[OURS.name].trail))
    return tables


def success_tau_pp(score_pp: Floats) -> float:
    """The goal that a third of the tasks reach, in points."""
    return round(float(np.nanquantile(score_pp, 1 - SUCCESS_SHARE)), 1)


def _scored(part: FeatureTable, measured: Mask | Rows, outcome: Outcome, drawn: tuple[str, int]) -> Scored:
    """``drawn``: the protocol whose groups the bootstrap draws, and its seed."""
    protocol, seed = drawn
    groups = drawn_groups(part, protocol)
    found = outcome.select(measured)
    low, high = (found.low_pp, found.high_pp) if outcome.has_interval else (None, None)
    metrics = measure(found.score_pp, part.score_pp, low=low, high=high, groups=groups, seed=seed)
    return Scored(outcome.system.name, outcome.system.label, metrics, outcome.reason)


def _proxy_note(rows: FeatureTable, outcomes: Mapping[str, Outcome], measured: Mask) -> str:
    """How many tasks ProxyLM learns from, and our error on those that it is measured on."""
    proxy, ours = outcomes.get("proxy_lm"), outcomes.get(OURS.name)
    if proxy is None or ours is None:
        return ""
    both = measured & np.isfinite(proxy.score_pp) & np.isfinite(ours.score_pp)
    if not both.any():
        return ""
    trained = int(np.isfinite(rows.extra(PROXY)).sum())
    return (
        f" ProxyLM learns from those of {trained} tasks with a proxy run that are not held out; on the"
        f" {int(both.sum())} that it is measured on {OURS.label} errs by"
        f" {rmse(ours.score_pp[both], rows.score_pp[both]):.2f}."
    )


def _protocol_note(protocol: str, rows: FeatureTable, held: Mask) -> str:
    what = {
        "grouped": "No data set is on both sides of a fold; every task is held out once.",
        "random": "One random split as in the paper, tasks run under several seeds first into its test part;"
        " data sets may be on both sides.",
        "family-out": "Each kind of data is held out whole; every task is held out once. Intervals are drawn"
        " over kinds.",
    }[protocol]
    measured = measured_rows(rows)
    if measured.all():
        return what
    forecast = "" if held.all() else "that were forecast and "
    return (
        f"{what} Measured on the {int((measured & held).sum())} tasks of {len(rows)} {forecast}whose score is"
        " a mean over seeds."
    )


def _decision_tables(judged: Judged, options: BacktestOptions) -> list[Table]:
    part, protocol, outcomes = judged.rows, judged.protocol, judged.outcomes
    costs, groups = task_costs(part), drawn_groups(part, protocol)
    quartiles = np.nanquantile(part.score_pp, (0.25, 0.5, 0.75))
    taus = options.taus_pp or tuple(
        sorted({PAPER_TAU_PP, success_tau_pp(part.score_pp), *(round(float(q), 1) for q in quartiles)})
    )
    ours = outcomes[OURS.name]
    rules = {"default, prediction": ours.score_pp, "default, upper end": ours.high_pp}
    for name, label in (("persistence", "persistence"), ("paper", "paper preset, prediction")):
        if name in outcomes:
            rules[label] = outcomes[name].score_pp
    found = []
    for tau in taus:
        cautious = cautious_pp(ours.score_pp, part.score_pp, tau, groups)
        found += [
            (label, decisions(upper, part.score_pp, tau, costs, groups=groups))
            for label, upper in {**rules, "default, cautious": cautious}.items()
        ]
    note = (
        "Run when the prediction reaches tau (the paper's rule) or the interval's upper end does (the gate's"
        " rule); cautious: the prediction and the margin, 0 at least, that keeps 95 % of the good runs of all"
        f" other {'kinds of data' if protocol == 'family-out' else 'data sets'}. Compute is counted in"
        " optimiser steps: those of every probe are paid for, and a run that goes on continues from its"
        " probe. What the benchmark's questions during the probe cost is not in it."
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
