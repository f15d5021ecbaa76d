"""What a choice among recipes gives up, against figures worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from made_assessment import made_table

from tuneahead.backtest.choosing import choice_table
from tuneahead.backtest.runs import Outcome
from tuneahead.predictor.baselines import ABLATIONS, BASELINES, OURS

SCORES = np.array([50.0, 60.0, 55.0, 59.0])


def rows(data_sets: int, recipes: int = 4):
    count = data_sets * recipes
    ids = tuple(f"d{i // recipes}" for i in range(count))
    return replace(made_table(count), data_ids=ids, score_pp=np.tile(SCORES[:recipes], data_sets))


def outcome(system, forecast):
    return Outcome(system, np.asarray(forecast, float), np.full(len(forecast), np.nan), np.zeros(0))


def line(table, label):
    return next(row for row in table.rows if row[0] == label)


def test_choices_are_those_worked_out_by_hand():
    table = rows(6)
    mean, persistence = BASELINES[0], next(s for s in BASELINES if s.name == "persistence")
    # Half of the data sets get the best recipe, the others the one that is five points behind.
    forecast = [1.0, 4.0, 2.0, 3.0] * 3 + [1.0, 3.0, 4.0, 2.0] * 3
    found = choice_table(
        table,
        {
            "ours": outcome(OURS, forecast),
            "mean": outcome(mean, [7.0] * 24),
            "persistence": outcome(persistence, [4.0, 1.0, 3.0, 2.0] * 6),
        },
    )
    assert [row[0] for row in found.rows] == [persistence.label, mean.label, OURS.label], "worst first"
    _, given_up, span, best, said, order = line(found, OURS.label)
    assert given_up == pytest.approx(2.5) and best == pytest.approx(50.0)
    # Five pairs are two points apart or more (60 and 59 are not); in the second half 55 is set before
    # 60 and 59.
    assert order == pytest.approx(100 * (5 + 3) / 10)
    assert span == "0.83 to 4.17", "of six fair draws, one to five of six"
    assert math.isnan(said), "18 differences between recipes are too few to tell the chances from"
    _, given_up, _, best, _, order = line(found, mean.label)
    assert given_up == pytest.approx(60 - SCORES.mean()) and best == pytest.approx(25.0)
    assert order == pytest.approx(50.0)
    _, given_up, _, best, _, order = line(found, persistence.label)
    assert (given_up, best, order) == (10.0, 0.0, 0.0)
    assert "6 data sets of 4 recipes or more, 24 tasks" in found.note
    assert "Chance said: that the recipe picked is the best, from" in found.note
    assert "held-out errors between recipes of all other data sets" in found.note


def test_systems_that_left_out_a_task_and_ablations_are_no_candidates():
    table = rows(5)
    holes = np.where(np.arange(20) == 7, np.nan, 1.0)
    found = choice_table(
        table,
        {
            "ours": outcome(OURS, table.score_pp),
            "mean": outcome(BASELINES[0], holes),
            "full_quick": outcome(ABLATIONS[0], table.score_pp),
        },
    )
    assert [row[0] for row in found.rows] == [OURS.label]
    assert found.rows[0][1] == 0.0 and found.rows[0][5] == 100.0


def test_few_data_sets_or_recipes_give_no_table():
    for table in (rows(4), rows(8, recipes=3)):
        assert choice_table(table, {"ours": outcome(OURS, table.score_pp)}) is None


def test_chances_said_of_equal_forecasts_are_those_of_a_choice_at_random():
    table = rows(12)
    found = choice_table(table, {"mean": outcome(BASELINES[0], [7.0] * 48)})
    assert found.rows[0][4] == pytest.approx(25.0)


def test_recipes_are_chosen_on_one_base_and_data_sets_of_two_bases_are_two():
    table = rows(12, recipes=2)
    # Six data sets with two recipes, each on two bases: none has the four that a choice takes.
    ids = tuple(f"d{i // 2 % 6}" for i in range(24))
    tasks = tuple(f"t{i % 12}" for i in range(24))
    both = replace(table, data_ids=ids, task_ids=tasks, bases=("one",) * 12 + ("two",) * 12)
    assert choice_table(both, {"ours": outcome(OURS, [2.0, 1.0] * 12)}) is None
    # With four on each base the chances come from each base's own errors between recipes.
    four = rows(12)
    ids = tuple(f"d{i // 4 % 6}" for i in range(48))
    tasks = tuple(f"t{i % 24}" for i in range(48))
    wide = replace(four, data_ids=ids, task_ids=tasks, bases=("one",) * 24 + ("two",) * 24)
    found = choice_table(wide, {"ours": outcome(OURS, SCORES.tolist() * 6 + (SCORES[::-1]).tolist() * 6)})
    assert found is not None and "12 data sets of 4 recipes or more, 48 tasks" in found.note
    assert line(found, OURS.label)[3] == pytest.approx(50.0)


def test_two_recipes_that_are_just_two_points_apart_have_an_order() -> None:
    table = replace(rows(6), score_pp=np.tile([50.0, 52.0, 60.0, 70.0], 6))
    found = choice_table(table, {"ours": outcome(OURS, [2.0, 1.0, 3.0, 4.0] * 6)})
    assert found is not None
    # Of six pairs the nearest alone is in the wrong order.
    assert line(found, OURS.label)[5] == pytest.approx(100 * 5 / 6)
