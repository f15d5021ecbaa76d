"""How sure a ranking is, from assessments alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from made_assessment import made_assessment
from scipy.stats import norm

from tuneahead.assessment import Assessment
from tuneahead.ranking import best_chances


def forecast(score_pp: float, sd_pp: float = 2.0) -> Assessment:
    made = made_assessment()
    assert made.forecast is not None
    return replace(made, forecast=replace(made.forecast, score_pp=score_pp, recipe_sd_pp=sd_pp))


def test_chances_follow_from_the_forecasts():
    first, second = best_chances([forecast(58.0), forecast(56.0)])
    assert first == pytest.approx(norm.cdf(2.0 / math.sqrt(8.0)), abs=1e-3)
    assert first + second == pytest.approx(1.0)


def test_recipes_without_a_forecast_are_not_in_the_race():
    stopped = replace(forecast(50.0), forecast=None, trace=None)
    first, none, third = best_chances([forecast(58.0), stopped, forecast(58.0)])
    assert first == third == pytest.approx(0.5) and math.isnan(none)
    assert all(math.isnan(chance) for chance in best_chances([forecast(58.0), stopped]))


def test_a_run_that_the_probe_completed_has_its_score():
    made = forecast(50.0)
    task = replace(made.task, total_steps=100, probe_steps=100, benchmark_items=made.items_asked)
    done = replace(made, forecast=None, probe_pp=57.0, task=task)
    assert done.complete and made.items_asked == 100
    first, _ = best_chances([forecast(58.0), done])
    assert first == pytest.approx(norm.cdf(0.5), abs=2e-3)
    # Of more items than were asked the score is not known.
    some = replace(done, task=replace(task, benchmark_items=101))
    assert all(math.isnan(chance) for chance in best_chances([forecast(58.0), some]))


def test_a_predictor_that_knows_no_differences_gives_no_chances():
    assert all(math.isnan(chance) for chance in best_chances([forecast(58.0, math.nan), forecast(50.0)]))
