"""Predicting on another base: one fit may serve several questions, but only for the same rows."""

from __future__ import annotations

from dataclasses import replace

from tuneahead.predictor.transfer import warm_start


def test_the_same_tasks_with_other_outcomes_are_fitted_again(make_table):
    home, test = make_table(24, 8), replace(make_table(6, 8, seed=1), bases=("other",) * 6)
    low = warm_start(home, test, 0).score_pp
    high = warm_start(replace(home, score_pp=home.score_pp + 20.0), test, 0).score_pp
    assert (high > low + 15.0).all()
