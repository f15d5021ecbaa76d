"""Intervals: the theory holds on exchangeable data, and few data sets make them wide."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tuneahead.predictor.intervals import (
    Calibration,
    Residuals,
    calibrate,
    calibration_from_record,
    difficulty_text,
    grouped_quantile,
)


def names(count: int, rows_each: int = 1) -> tuple[str, ...]:
    return tuple(f"d{i // rows_each}" for i in range(count * rows_each))


def test_one_row_a_group_is_the_split_conformal_quantile():
    # Nine scores, 90 %: the smallest k with k / 10 >= 0.9 is 9, the largest score.
    assert grouped_quantile(np.arange(1.0, 10.0), names(9), 0.9) == 9.0
    assert grouped_quantile(np.arange(1.0, 20.0), names(19), 0.9) == 18.0


def test_too_few_groups_give_an_infinite_bound():
    assert grouped_quantile(np.arange(8.0), names(8), 0.9) == math.inf
    assert grouped_quantile(np.arange(80.0), names(8, 10), 0.9) == math.inf
    assert grouped_quantile(np.zeros(0), (), 0.5) == math.inf
    assert grouped_quantile(np.arange(8.0), names(8), 0.5) == 4.0


def test_every_group_counts_once_whatever_its_rows():
    scores = np.array([1.0] * 50 + [5.0, 6.0, 7.0])
    groups = ("big",) * 50 + ("a", "b", "c")
    # Four groups and the unseen one weigh a fifth each: half is reached within a, not within big.
    assert grouped_quantile(scores, groups, 0.5) == 6.0


def test_ninety_percent_covers_ninety_percent_of_exchangeable_groups():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        level = rng.normal(size=31)[:, None] + rng.normal(size=(31, 3))  # rows of a group go together
        scores = np.abs(level)
        bound = grouped_quantile(scores[:30].ravel(), names(30, 3), 0.9)
        covered.append(np.mean(scores[30] <= bound))
    assert 0.88 <= np.mean(covered) <= 0.95


@pytest.fixture(scope="module")
def uneven() -> Residuals:
    rng = np.random.default_rng(1)
    features = rng.uniform(0, 1, size=(600, 3))
    residual = rng.normal(size=600) * (0.3 + 4.0 * features[:, 0])
    return Residuals(residual, features, names(200, 3), np.ones(600))


def test_scaled_intervals_are_narrower_where_errors_are_uneven(uneven):
    found = calibrate(uneven)
    assert found.difficulty is not None
    fresh = np.random.default_rng(2).uniform(0, 1, size=(4000, 3))
    residual = np.random.default_rng(3).normal(size=4000) * (0.3 + 4.0 * fresh[:, 0])
    half = found.half_width_pp(fresh, np.ones(4000), 0.9)
    constant = grouped_quantile(np.abs(uneven.residual_pp), uneven.groups, 0.9)
    assert half.mean() < 0.97 * constant
    assert 0.87 <= np.mean(np.abs(residual) <= half) <= 0.94
    assert half[fresh[:, 0] < 0.2].mean() < 0.6 * half[fresh[:, 0] > 0.8].mean()


def test_even_errors_keep_a_constant_width():
    rng = np.random.default_rng(4)
    even = Residuals(rng.normal(size=300), rng.normal(size=(300, 4)), names(100, 3), np.ones(300))
    found = calibrate(even)
    assert found.difficulty is None
    assert np.ptp(found.half_width_pp(rng.normal(size=(5, 4)), np.ones(5), 0.9)) == 0.0


@pytest.mark.parametrize(("growth", "is_scaled"), [(0.1, False), (0.3, True)])
def test_a_scale_must_make_intervals_three_percent_narrower(growth: float, is_scaled: bool) -> None:
    # Errors of 1 to 1 + growth, known to a tenth: scaled, intervals become 1 to 2 %, or 5 %, narrower.
    rng = np.random.default_rng(5)
    features = rng.uniform(0, 1, size=(300, 1))
    residual = rng.uniform(0.9, 1.1, 300) * (1 + growth * features[:, 0])
    found = calibrate(Residuals(residual, features, names(100, 3), np.ones(300)))
    assert (found.difficulty is not None) == is_scaled


@pytest.mark.parametrize(("data_sets", "near"), [(19, math.inf), (20, 1.0)])
def test_intervals_widen_from_twenty_data_sets_on(data_sets: int, near: float) -> None:
    rows = Residuals(np.ones(data_sets), np.zeros((data_sets, 1)), names(data_sets), np.ones(data_sets))
    assert calibrate(rows).near == near


def test_a_place_of_a_history_of_several_is_bounded_by_its_own_scores() -> None:
    # Nineteen data sets each: nine tenths of twenty are reached at the eighteenth.
    scores = np.concatenate([np.arange(1.0, 20.0), 100 + np.arange(1.0, 20.0)])
    found = Calibration(scores, names(38)).of_places(["here exam"] * 19 + ["there exam"] * 19)
    asked = ["here exam", "there exam", "elsewhere exam"]
    half = found.half_width_pp(np.zeros((3, 1)), np.zeros(3), 0.9, asked)
    # Of a place that has no scores all count: 36 of 39 are more than nine tenths, 35 are not.
    assert half.tolist() == [18.0, 118.0, 117.0]


def test_a_higher_level_is_wider_and_the_highest_infinite(uneven):
    found = calibrate(uneven)
    row = uneven.features[:1]
    widths = [found.half_width_pp(row, np.ones(1), level)[0] for level in (0.5, 0.8, 0.9, 0.99, 0.9999)]
    assert widths == sorted(widths) and widths[-1] == math.inf


def test_calibration_survives_json(uneven):
    found = calibrate(uneven)
    back = calibration_from_record(json.loads(json.dumps(found.to_record())), difficulty_text(found))
    far = np.linspace(0, 5, 600)
    np.testing.assert_allclose(
        back.half_width_pp(uneven.features, far, 0.9), found.half_width_pp(uneven.features, far, 0.9)
    )


def test_a_residual_without_its_place_is_no_calibration():
    places = [f"base{i % 2} exam" for i in range(19)]
    record = Calibration(np.arange(1.0, 20.0), names(19)).of_places(places).to_record()
    assert calibration_from_record(json.loads(json.dumps(record)), "").places == tuple(places)
    with pytest.raises(ValueError, match="18 places for 19 residuals"):
        calibration_from_record({**record, "places": places[:18]}, "")


def test_a_calibration_without_a_distance_never_widens():
    """Predictors saved before there was one, and those corrected by a few own runs."""
    found = Calibration(np.arange(1.0, 20.0), names(19))
    assert "near" not in found.to_record()
    back = calibration_from_record(found.to_record(), "")
    assert back.half_width_pp(np.zeros((2, 1)), np.array([0.0, 1e6]), 0.9).tolist() == [18.0, 18.0]


def test_intervals_widen_beyond_the_middle_distance_in_proportion():
    rng = np.random.default_rng(6)
    distance = rng.uniform(0.5, 1.5, size=300)
    wider = np.maximum(1.0, distance / np.median(distance))
    rows = Residuals(rng.normal(size=300) * wider, rng.normal(size=(300, 4)), names(100, 3), distance)
    found = calibrate(rows)
    assert found.near == np.median(distance)
    assert found.difficulty is None, "what distance explains is explained: no scale makes them narrower"
    close, middle, twice = found.half_width_pp(np.zeros((3, 4)), found.near * np.array([0.1, 1, 2]), 0.9)
    assert close == middle == pytest.approx(1.645, rel=0.1)
    assert twice == pytest.approx(2 * middle)


def test_rows_that_all_lie_on_others_never_widen():
    rng = np.random.default_rng(7)
    rows = Residuals(rng.normal(size=300), rng.normal(size=(300, 4)), names(100, 3), np.zeros(300))
    assert calibrate(rows).near == math.inf


def test_no_residuals_mean_no_bound():
    assert (
        Calibration(np.zeros(0), ()).half_width_pp(np.zeros((2, 1)), np.ones(2), 0.9).tolist()
        == [math.inf] * 2
    )
