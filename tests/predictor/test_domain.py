"""Inputs outside what the training rows cover are recognised, and named."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tuneahead.predictor import domain as domain_module
from tuneahead.predictor.domain import domain_from_record, learn_domain

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(150, 6))
GROUPS = tuple(f"d{i // 3}" for i in range(150))
NAMES = tuple("abcdef")


def test_rows_like_the_training_rows_are_inside():
    domain, _ = learn_domain(NAMES, ROWS, GROUPS)
    assert domain.contains(np.random.default_rng(1).normal(size=(300, 6))).mean() > 0.95


def test_rows_far_away_are_outside_and_their_features_named():
    domain, _ = learn_domain(NAMES, ROWS, GROUPS)
    far = np.zeros((1, 6))
    far[0, [1, 4]] = 30.0, -30.0
    assert not domain.contains(far)[0]
    assert [NAMES[i] for i in np.flatnonzero(domain.outside(far)[0])] == ["b", "e"]


def test_a_longer_window_is_no_step_outside_by_itself():
    names = (*NAMES[:5], "window_log2")
    rows = np.column_stack([ROWS[:, :5], np.full(len(ROWS), 7.0)])
    domain, _ = learn_domain(names, rows, GROUPS)
    assert domain.names == NAMES[:5]
    assert domain.contains(rows[:, :5]).mean() > 0.95


def test_an_unseen_combination_of_usual_values_is_far_too():
    rng = np.random.default_rng(2)
    side = rng.choice([-1.0, 1.0], 200)
    rows = side[:, None] * 5.0 + 0.1 * rng.normal(size=(200, 4))
    domain, _ = learn_domain(tuple("abcd"), rows, tuple(f"d{i}" for i in range(200)))
    mixed = np.array([[5.0, -5.0, 5.0, -5.0]])
    assert not domain.outside(mixed).any()
    assert not domain.contains(mixed)[0]
    assert domain.contains(np.full((1, 4), 5.0))[0]


def test_a_value_that_was_always_measured_is_missed():
    rows = ROWS.copy()
    rows[::2, 5] = np.nan
    domain, _ = learn_domain(NAMES, rows, GROUPS)
    gone = np.full((1, 6), np.nan)
    assert domain.outside(gone)[0].tolist() == [True] * 5 + [False]
    assert not domain.contains(gone)[0]


def test_one_data_set_knows_no_distance_but_still_its_ranges():
    domain, _ = learn_domain(NAMES, ROWS, ("d",) * 150)
    assert domain.outside(np.full((1, 6), 99.0)).all()
    assert domain.most_outside == np.inf


def test_domain_survives_json():
    domain, _ = learn_domain(NAMES, ROWS, GROUPS)
    back = domain_from_record(json.loads(json.dumps(domain.to_record())))
    fresh = 2.0 * np.random.default_rng(3).normal(size=(100, 6))
    np.testing.assert_array_equal(back.contains(fresh), domain.contains(fresh))


def test_what_no_training_row_had_speaks_against_no_value():
    rows = ROWS.copy()
    rows[:, 2] = np.nan
    domain, _ = learn_domain(NAMES, rows, GROUPS)
    back = domain_from_record(json.loads(json.dumps(domain.to_record())))
    fresh = np.random.default_rng(1).normal(size=(300, 6))
    fresh[:, 2] = 1e6
    assert not back.outside(fresh)[:, 2].any()
    assert back.contains(fresh).mean() > 0.95


def test_a_constant_feature_is_not_left_by_rounding():
    rows = np.column_stack([ROWS, np.full(150, 46.72330097087379)])
    stored = rows.astype(np.float32).astype(float)
    domain, _ = learn_domain((*NAMES, "constant"), stored, GROUPS)
    assert not domain.outside(rows)[:, 6].any()
    assert domain.outside(rows + 0.01)[:, 6].all()


def test_a_base_score_that_differs_by_an_answer_or_two_is_inside_and_has_one_vote():
    names = ("base_score_pp", "base_level", "base_score_headroom", *NAMES)
    constant = np.tile([41.0, 0.22, 0.22], (150, 1))
    domain, _ = learn_domain(names, np.hstack([constant, ROWS]), GROUPS)
    assert domain.names == ("base_score_pp", *NAMES)
    near, far = np.zeros((2, 1, 7))
    near[0, 0], far[0, 0] = 41.4, 47.0
    assert not domain.outside(near).any()
    assert domain.outside(far)[0].tolist() == [True] + [False] * 6


def test_training_distances_leave_out_the_own_data_set():
    rows = np.array([[0.0], [0.1], [10.0], [10.2]])
    domain, found = learn_domain(("a",), rows, ("one", "one", "two", "two"))
    points = domain.points[:, 0]
    expected = [
        np.abs(points[i] - points[j]).mean() for i, j in ((0, [2, 3]), (1, [2, 3]), (2, [0, 1]), (3, [0, 1]))
    ]
    np.testing.assert_allclose(found, expected)
    assert domain.far == pytest.approx(1.25 * np.quantile(found, 0.99)), "with a quarter to spare"
    assert learn_domain(("a",), rows, ("one",) * 4)[1].tolist() == [0.0] * 4


def test_a_long_history_is_measured_part_by_part(monkeypatch):
    whole, distances = learn_domain(NAMES, ROWS, GROUPS)
    monkeypatch.setattr(domain_module, "_MOST_AT_ONCE", 7)
    parts, found = learn_domain(NAMES, ROWS, GROUPS)
    assert parts.far == pytest.approx(whole.far)
    np.testing.assert_allclose(found, distances)


def test_every_row_is_judged_by_the_range_of_the_other_data_sets():
    rng = np.random.default_rng(6)
    holes = np.where(rng.random(ROWS.shape) < 0.3, np.nan, ROWS)
    holes[rng.random(ROWS.shape) < 0.02] *= 8.0
    holes[3:, 0] = np.nan  # known to one data set alone: no range to judge it by
    index = np.arange(150) // 3
    found = domain_module._outside_counts(NAMES, holes, index)
    assert found.any()
    for group in range(50):
        others, _ = learn_domain(NAMES, holes[index != group], ("one",) * 147)
        inside = holes[index == group]
        beyond = others.outside(inside) & np.isfinite(inside)
        np.testing.assert_array_equal(found[index == group], beyond.sum(1))
