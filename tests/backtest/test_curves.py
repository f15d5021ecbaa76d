"""The learning curve: which rows each of its sizes is fitted on."""

from __future__ import annotations

import numpy as np
from predictor.conftest import build_table

from tuneahead.backtest.curves import learning_plans
from tuneahead.predictor.splits import grouped_folds


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
