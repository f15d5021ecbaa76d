"""Error by number of past runs and by length of the probe: which rows each is fitted and measured on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from predictor.conftest import build_table

from tuneahead.backtest import curves
from tuneahead.backtest.curves import learning_plans
from tuneahead.backtest.result import BacktestOptions
from tuneahead.backtest.runs import Outcome, Plan
from tuneahead.predictor.baselines import OURS
from tuneahead.predictor.splits import grouped_folds
from tuneahead.predictor.table import FeatureTable


def test_each_size_is_drawn_from_the_training_rows_of_the_first_two_folds() -> None:
    table = build_table(240, 8)
    folds = grouped_folds(table.data_ids, k=5)
    plans = learning_plans(table, folds, seed=0)
    # 192 rows to learn from, and of nine tenths or more of them there is no curve to draw.
    assert list(plans) == ["learning 25", "learning 50", "learning 100"]
    for key, plan in plans.items():
        for whole, part in zip(folds[:2], plan.folds, strict=True):
            assert len(part.train) == int(key.removeprefix("learning "))
            assert set(part.train.tolist()) < set(whole.train.tolist())
            np.testing.assert_array_equal(part.test, whole.test)


def test_errors_by_the_probes_length_are_of_the_tasks_run_under_several_seeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = build_table(240, 8)
    several = table.seeds > 1
    assert 50 <= several.sum() < 240

    def foretold(
        rows: FeatureTable, plans: Mapping[str, Plan], **options: int
    ) -> dict[str, dict[str, Outcome]]:
        ours, simple = plans["grouped"].systems
        errors = {ours: np.where(several, 1.0, 9.0), simple: np.where(several, -2.0, 9.0)}
        scores = {system: rows.score_pp + error for system, error in errors.items()}
        return {"grouped": {s.name: Outcome(s, pp, pp - 0.5, pp + 1.0) for s, pp in scores.items()}}

    monkeypatch.setattr(curves, "run_plans", foretold)
    (lengths,) = curves.probe_lengths(BacktestOptions(probe_tables={100: table}), 0)
    ((steps, error, _, within_3, width, persistence),) = lengths.rows
    assert (steps, error, within_3, width, persistence) == pytest.approx((100, 1.0, 100.0, 1.5, 2.0))


def test_the_curve_is_measured_on_the_first_two_folds_and_ends_with_their_whole_training_part() -> None:
    table = build_table(240, 8)
    folds = grouped_folds(table.data_ids, k=5)
    tested = np.concatenate([fold.test for fold in folds[:2]])
    plans = learning_plans(table, folds, seed=0)

    def erring(by: float) -> Outcome:
        pp = table.score_pp + np.where(np.isin(np.arange(240), tested), by, 50.0)
        return Outcome(OURS, pp, pp - 2.0, pp + 1.0)

    curve = {key: erring(error) for key, error in zip(plans, (4.0, 3.0, 1.5), strict=True)}
    found = curves.learning_curve(table, {"grouped": Plan((OURS,), folds)}, curve, {OURS.name: erring(1.0)})
    sizes, errors, coverage, width, _ = zip(*found.rows, strict=True)
    assert sizes == (25, 50, 100, 192)
    assert errors == pytest.approx((4.0, 3.0, 1.5, 1.0))
    assert coverage == pytest.approx((0.0, 0.0, 100.0, 100.0)) and width == pytest.approx((3.0,) * 4)
    assert f"measured on {len(tested)} held-out tasks" in found.note


def test_nearly_all_rows_are_no_size_of_their_own() -> None:
    table = build_table(132, 8)
    folds = grouped_folds(table.data_ids, k=5)
    # 105 rows to learn from: 100 of them would be the last point of the curve once more.
    assert min(len(fold.train) for fold in folds[:2]) == 105
    assert list(learning_plans(table, folds, seed=0)) == ["learning 25", "learning 50"]
