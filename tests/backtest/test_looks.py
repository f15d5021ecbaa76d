"""What a gate with several looks saves, against figures counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from predictor.conftest import build_table

from tuneahead.backtest.looks import Foretold, looks_tables
from tuneahead.backtest.runs import Outcome
from tuneahead.predictor.baselines import OURS
from tuneahead.predictor.table import FeatureTable, Floats


def foretold(table: FeatureTable, score_pp: Floats, half: float) -> Foretold:
    """Forecasts with intervals of one width."""
    return Foretold(table, Outcome(OURS, score_pp, score_pp - half, score_pp + half))


@pytest.fixture(scope="module")
def six() -> FeatureTable:
    """Six tasks, of which the last two reach 60; all ran for 400 steps."""
    table = build_table(6, 8)
    score = np.array([30.0, 40, 45, 50, 60, 70])
    return replace(table, score_pp=score, seeds=np.ones(6), extras={"final_steps": np.full(6, 400.0)})


def test_a_run_is_paid_for_up_to_the_look_that_stops_it(six: FeatureTable) -> None:
    early = foretold(six, np.array([20.0, 45, 52, 51, 58, 75]), 10.0)
    late = foretold(six, np.array([31.0, 41, 44, 56, 61, 68]), 5.0)
    (table,) = looks_tables({100: late, 25: early})
    assert table.protocol == "grouped" and {row[0] for row in table.rows} == {53.3, 47.5}
    third = {row[1]: row for row in table.rows if row[0] == 53.3}
    assert list(third) == [
        "gate's, at 100",
        "cautious, at 100",
        "gate's, at 25 and 100",
        "cautious, at 25 and 100",
    ]
    # Upper ends at 100: 36, 46, 49, 61, ...: three stop after 100 of 400 steps.
    run, saved, kept, caught, good, bad = third["gate's, at 100"][2:8]
    assert (run, kept, caught, good, bad) == (50.0, 100.0, 75.0, 2, 4)
    assert saved == pytest.approx(100 * 3 * 300 / 2400)
    # Upper ends at 25: only the first lies below the goal, and is stopped 75 steps earlier.
    assert third["gate's, at 25 and 100"][3] == pytest.approx(100 * (375 + 2 * 300) / 2400)


def test_looks_are_compared_on_the_tasks_that_every_length_has(six: FeatureTable) -> None:
    late = foretold(six, six.score_pp, 5.0)
    part = foretold(six.select([5, 3, 1]), six.score_pp[[5, 3, 1]], 5.0)
    (table,) = looks_tables({100: late, 25: part})
    assert {row[6] + row[7] for row in table.rows} == {3}


def test_there_is_no_table_of_one_length_or_without_costs(six: FeatureTable) -> None:
    late, early = foretold(six, six.score_pp, 5.0), foretold(six, six.score_pp, 9.0)
    assert looks_tables({100: late}) == [] and looks_tables({25: early, 50: early}) == []
    free = replace(six, extras={})
    assert looks_tables({100: foretold(free, six.score_pp, 5.0), 25: early}) == []


def test_margins_are_learnt_from_other_data_sets_not_from_other_tasks_of_the_same(six: FeatureTable) -> None:
    table = replace(six, data_ids=("a", "a", "b", "b", "c", "c"))
    early = foretold(table, table.score_pp, 5.0)
    # Of the two good runs, both on c, one is foretold too low: from the other no margin is learnt.
    late = foretold(table, np.array([30.0, 40, 45, 50, 40, 70]), 5.0)
    (found,) = looks_tables({100: late, 25: early})
    cautious = next(row for row in found.rows if row[1] == "cautious, at 100" and row[0] == 53.3)
    assert cautious[4] == 100.0 and cautious[6:8] == (2, 4)


def test_looks_are_judged_on_the_tasks_that_errors_are_measured_on() -> None:
    table = replace(build_table(240, 8), extras={"final_steps": np.full(240, 400.0)})
    several = int((table.seeds > 1).sum())
    assert 50 <= several < 240
    (found,) = looks_tables({steps: foretold(table, table.score_pp, 5.0) for steps in (25, 100)})
    assert {row[6] + row[7] for row in found.rows} == {several}
