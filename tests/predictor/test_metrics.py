"""Figures of merit, against values computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tuneahead.predictor.metrics import (
    measure,
    noise_floor_pp,
    pearson,
    ranks,
    spearman,
)


def test_metrics_of_four_tasks_by_hand():
    measured = np.array([10.0, 20.0, 30.0, 40.0])
    predicted = np.array([11.0, 18.0, 33.5, 40.0])  # errors 1, -2, 3.5, 0
    found = measure(predicted, measured, low=predicted - 2.0, high=predicted + 2.0)
    assert found.n == 4
    assert found.rmse_pp == pytest.approx(math.sqrt((1 + 4 + 12.25) / 4))
    assert found.r2 == pytest.approx(1 - 17.25 / 500)
    assert (found.within_1, found.within_2, found.within_3) == (0.5, 0.75, 0.75)
    assert found.bias_pp == pytest.approx(0.625)
    assert found.coverage == 0.75 and found.width_pp == 4.0
    assert found.spearman == pytest.approx(1.0)


def test_an_error_of_the_bound_itself_lies_within_it():
    measured = np.array([10.0, 20.0, 30.0, 40.0])
    found = measure(measured + np.array([1.0, -2.0, 3.0, -3.5]), measured)
    assert (found.within_1, found.within_2, found.within_3) == (0.25, 0.5, 0.75)


def test_rows_without_prediction_do_not_count():
    found = measure(np.array([1.0, np.nan]), np.array([2.0, 3.0]))
    assert found.n == 1 and found.rmse_pp == 1.0 and math.isnan(found.r2)
    assert measure(np.array([np.nan]), np.array([1.0])).n == 0


def test_ranks_share_ties_and_correlations_match_by_hand():
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]
    assert pearson(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 7.0])) == pytest.approx(0.99339927)
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 100.0, 3.0])) == pytest.approx(0.5)
    assert math.isnan(spearman(np.ones(3), np.arange(3.0)))


def test_a_constant_correlates_with_nothing_whatever_its_mean_is_rounded_to():
    constant = np.full(142, 46.7233)
    assert constant.mean() != constant[0], "its deviations from the mean are no zeros"
    assert math.isnan(pearson(constant, np.arange(142.0))) and math.isnan(pearson(np.arange(142.0), constant))


def test_bootstrap_interval_resamples_data_sets_not_rows():
    error = np.repeat([0.0, 4.0, 1.0, 3.0], 25)
    rows = [f"r{i}" for i in range(100)]
    sets = [f"d{i // 25}" for i in range(100)]
    by_row = measure(error, np.zeros(100), groups=rows)
    by_set = measure(error, np.zeros(100), groups=sets)
    (set_low, set_high), (row_low, row_high) = by_set.spans["rmse_pp"], by_row.spans["rmse_pp"]
    assert set_low < row_low < by_set.rmse_pp < row_high < set_high


def test_every_headline_figure_gets_an_interval_around_it():
    rng = np.random.default_rng(0)
    measured = rng.normal(50, 10, 200)
    predicted = measured + rng.normal(0, 2, 200)
    sets = [f"d{i // 4}" for i in range(200)]
    found = measure(predicted, measured, low=predicted - 3.3, high=predicted + 3.3, groups=sets)
    for name, (low, high) in found.spans.items():
        assert low < getattr(found, name) < high, name
    assert set(found.spans) == {"rmse_pp", "r2", "within_1", "within_2", "within_3", "coverage"}
    # The standard error of a share near 0.9 over 200 tasks is 0.021; four of them make the interval.
    low, high = found.spans["coverage"]
    assert 0.05 < high - low < 0.12
    assert measure(predicted, measured, groups=["one"] * 200).spans["rmse_pp"] == pytest.approx(
        (math.nan, math.nan), nan_ok=True
    )


def test_noise_floor_of_means_over_seeds(make_table):
    table = make_table(4, 8)
    sd = np.array([2.0, 4.0, np.nan, np.nan])
    seeds = np.array([4.0, 4.0, 1.0, 1.0])
    # Variances of the means: 4/4, 16/4, and for single runs the pooled variance 10.
    expected = math.sqrt((1 + 4 + 10 + 10) / 4)
    assert noise_floor_pp(replace(table, seeds=seeds, seed_sd_pp=sd)) == pytest.approx(expected)
    assert math.isnan(noise_floor_pp(replace(table, seeds=np.ones(4))))
    # Of four seeds and of two: three degrees of freedom and one pool the variances 4 and 16 into 7.
    unequal = replace(table, seeds=np.array([4.0, 2.0, 1.0, 1.0]), seed_sd_pp=sd)
    assert noise_floor_pp(unequal) == pytest.approx(math.sqrt((4 / 4 + 16 / 2 + 7 + 7) / 4))
