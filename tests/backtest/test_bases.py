"""The tables of another base: which there are, and what they are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from predictor.conftest import build_table

from tuneahead.backtest import bases, curves
from tuneahead.backtest.result import BacktestOptions
from tuneahead.backtest.runs import Outcome, Plan
from tuneahead.predictor.table import FeatureTable


def named(base: str, probe_steps: int = 100) -> FeatureTable:
    table = build_table(120, 8)
    steps = {"final_steps": np.full(120, 400.0)}
    return replace(table, bases=(base,) * 120, probe_steps=probe_steps, extras=steps)


def foretold(
    rows: FeatureTable, plans: Mapping[str, Plan], *, seed: int, workers: int = 1
) -> dict[str, dict[str, Outcome]]:
    """Forecasts too high by a point per hundred steps of the probe."""
    score = rows.score_pp + rows.probe_steps / 100
    return {
        key: {system.name: Outcome(system, score, score - 2, score + 2) for system in plan.systems}
        for key, plan in plans.items()
    }


def test_what_is_tested_on_the_other_base_is_learnt_from_on_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[FeatureTable, Mapping[str, Plan]]] = []

    def watched(
        rows: FeatureTable, plans: Mapping[str, Plan], **options: int
    ) -> dict[str, dict[str, Outcome]]:
        seen.append((rows, plans))
        return foretold(rows, plans, **options)

    monkeypatch.setattr(bases, "run_plans", watched)
    # The same data sets on both.
    bases.base_tables(named("lab"), named("small"), "small", BacktestOptions(), 0)
    (_, scratch), (both, warm) = seen
    assert list(scratch) == ["grouped"] and list(warm) == ["0", "10", "25", "50", "96"]
    for size, plan in warm.items():
        for fold in plan.folds:
            assert {both.bases[i] for i in fold.test} == {"small"}
            assert not {both.data_ids[i] for i in fold.test} & {both.data_ids[i] for i in fold.train}
            assert [both.bases[i] for i in fold.train].count("small") == int(size)
            # All other data sets of the home base: 40 of three recipes, less those tested.
            assert [both.bases[i] for i in fold.train].count("lab") == 120 - len(fold.test)


def test_each_column_is_of_the_system_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def differing(
        rows: FeatureTable, plans: Mapping[str, Plan], **options: int
    ) -> dict[str, dict[str, Outcome]]:
        errors = {"scratch": 3.0, "warm_start": 1.0}
        found: dict[str, dict[str, Outcome]] = {}
        for key, plan in plans.items():
            scores = {system: rows.score_pp + errors.get(system.name, 5.0) for system in plan.systems}
            # Two in three intervals of a warm start reach down to the truth: every third begins above it.
            low = rows.score_pp - np.where(np.arange(len(rows)) % 3 == 0, -0.5, 0.5)
            lows = {s.name: low if s.name == "warm_start" else low - 9.0 for s in scores}
            found[key] = {
                s.name: Outcome(s, pp, lows[s.name], rows.score_pp + 4.0) for s, pp in scores.items()
            }
        return found

    monkeypatch.setattr(bases, "run_plans", differing)
    _, few = bases.base_tables(named("lab"), named("small"), "small", BacktestOptions(), 0)
    assert few.columns[1:3] == ("from scratch RMSE", "warm start RMSE")
    for size, scratch, warm, _, coverage, width in few.rows:
        assert (scratch, warm) == pytest.approx((3.0, 1.0))
        if size == 0:
            assert (coverage, width) == (None, None)
        else:
            assert isinstance(coverage, float) and 60.0 < coverage < 73.0
            assert isinstance(width, float) and 4.1 < width < 4.25


def test_nearly_all_own_rows_are_no_number_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bases, "run_plans", foretold)
    monkeypatch.setattr(bases, "OWN_ROWS", (0, 10, 90, 200))
    # Of 120 tasks 96 to learn from: 90 would be the last row once more.
    _, few = bases.base_tables(named("lab"), named("small"), "small", BacktestOptions(), 0)
    assert [row[0] for row in few.rows] == [0, 10, 96]


def test_other_lengths_of_the_probe_have_tables_where_the_base_has_runs_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (bases, curves):
        monkeypatch.setattr(module, "run_plans", foretold)
    options = BacktestOptions(other_probe_tables={"small": {50: named("small", 50)}})
    found = {t.name: t for t in bases.base_tables(named("lab"), named("small"), "small", options, 0)}
    assert list(found) == ["base small", "transfer small", "probe length small", "looks small"]
    assert {table.protocol for table in found.values()} == {"grouped"}
    assert found["probe length small"].title == "Error by length of the probe on small, grouped"
    assert [row[:2] for row in found["probe length small"].rows] == [(50, 0.5), (100, 1.0)]
    assert {row[1].split(", ")[1] for row in found["looks small"].rows} == {"at 100", "at 50 and 100"}
    elsewhere = bases.base_tables(named("lab"), named("other"), "other", options, 0)
    assert [table.name for table in elsewhere] == ["base other", "transfer other"]
