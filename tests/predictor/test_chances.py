"""Chances that a recipe is the best: against hand-worked cases and against drawn runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from tuneahead.predictor.chances import chances_of_best, sd_between_recipes, sd_of_own_or_all


def test_two_recipes_win_by_the_normal_distribution_of_their_difference():
    found = chances_of_best(np.array([52.0, 50.0]), np.array([2.0, 3.0]))
    assert found[0] == pytest.approx(norm.cdf(2.0 / math.sqrt(13.0)), abs=1e-5)
    assert found.sum() == pytest.approx(1.0)


def test_several_recipes_win_as_often_as_in_drawn_runs():
    score, sd = np.array([50.0, 51.0, 48.0, 51.5]), np.array([2.0, 2.0, 5.0, 0.5])
    drawn = np.random.default_rng(0).normal(score, sd, size=(200_000, 4)).argmax(1)
    np.testing.assert_allclose(chances_of_best(score, sd), np.bincount(drawn) / 200_000, atol=4e-3)


def test_equal_recipes_have_equal_chances_and_known_scores_are_certain():
    np.testing.assert_allclose(chances_of_best(np.full(5, 40.0), np.full(5, 2.0)), 0.2)
    np.testing.assert_allclose(chances_of_best(np.full(3, 40.0), np.zeros(3)), 1 / 3)
    np.testing.assert_allclose(chances_of_best(np.array([41.0, 40.0]), np.zeros(2)), [1.0, 0.0])
    half = chances_of_best(np.array([40.0, 40.0]), np.array([0.0, 3.0]))
    np.testing.assert_allclose(half, 0.5)


def test_what_recipes_of_a_data_set_have_in_common_is_no_difference():
    rng = np.random.default_rng(1)
    data = [f"d{i // 4}" for i in range(4000)]
    tasks = [f"t{i}" for i in range(4000)]
    shared = np.repeat(rng.normal(0, 10, 1000), 4)
    assert sd_between_recipes(shared + rng.normal(0, 2, 4000), data, tasks) == pytest.approx(2.0, rel=0.05)


def test_seeds_of_a_task_count_once_and_unknown_errors_not_at_all():
    # Two recipes a data set whose errors are -1 and +1: the variance is 2 / 1 of each set's one difference.
    data = [f"d{i // 2}" for i in range(60)]
    tasks = [f"t{i}" for i in range(60)]
    error = np.tile([-1.0, 1.0], 30)
    assert sd_between_recipes(error, data, tasks) == pytest.approx(math.sqrt(2.0))
    more = np.concatenate([error, [5.0, -7.0, np.nan]])  # the first task's mean stays -1
    found = sd_between_recipes(more, [*data, "d0", "d0", "d1"], [*tasks, "t0", "t0", "t2"])
    assert found == pytest.approx(math.sqrt(2.0))


def test_few_own_recipes_leave_the_answer_to_all_runs():
    data = [f"d{i // 2}" for i in range(60)]
    tasks = [f"t{i}" for i in range(60)]
    error = np.tile([-1.0, 1.0], 30)
    own = np.arange(60) >= 50
    assert math.isnan(sd_between_recipes(error[:10], data[:10], tasks[:10]))
    assert sd_of_own_or_all(error, data, tasks, own) == pytest.approx(math.sqrt(2.0))
    wide = np.where(np.arange(60) < 50, 3 * error, error)
    assert sd_of_own_or_all(wide, data, tasks, np.arange(60) >= 10) < sd_between_recipes(wide, data, tasks)
    assert math.isnan(sd_of_own_or_all(error[:10], data[:10], tasks[:10], own[:10]))
