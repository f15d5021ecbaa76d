"""Three-step selection: unimportant, directionless and redundant features go, and the trail says why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tuneahead.predictor.selection import TrainingRows, select_features

NAMES = ("strong", "weaker", "copy", "noise", "curved", "rate")


@pytest.fixture(scope="module")
def rows() -> TrainingRows:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(600, 6))
    features[:, 2] = features[:, 0] + 0.3 * rng.normal(size=600)
    features[:, 3] = 1.0  # constant: no information whatever
    target = 6 * features[:, 0] + 3 * features[:, 1] + 1.5 * np.abs(features[:, 4]) + rng.normal(size=600)
    return TrainingRows(NAMES, features, target, np.ones(600), tuple(f"d{i // 3}" for i in range(600)))


def test_each_step_drops_what_it_is_for(rows):
    found = select_features(rows)
    step = {entry.feature: entry.step for entry in found.trail}
    assert step["noise"] == "importance"
    assert step["curved"] == "direction"
    assert sorted([step["strong"], step["copy"]]) == ["kept", "redundancy"]
    assert step["weaker"] == "kept"
    assert found.kept == tuple(name for name in NAMES if step[name] == "kept")


def test_of_two_alike_both_stay_where_what_parts_them_tells_the_outcome(rows):
    """Dropped is only what the error on other data sets does not miss by more than 0.01 points."""
    apart = rows.features[:, 0] - rows.features[:, 2]
    told = replace(rows, target_pp=rows.target_pp + 20.0 * apart)
    assert abs(np.corrcoef(rows.features[:, 0], rows.features[:, 2])[0, 1]) > 0.9
    assert {"strong", "copy"} <= set(select_features(told).kept)


def test_the_trail_tells_of_every_feature_and_why(rows):
    found = select_features(rows)
    assert {entry.feature for entry in found.trail} == set(NAMES)
    reasons = {entry.feature: entry.reason for entry in found.trail}
    assert "bound 0.2" in reasons["curved"]
    dropped = next(entry for entry in found.trail if entry.step == "redundancy")
    assert "with " in dropped.reason and "RMSE" in dropped.reason


def test_the_recipe_is_never_dropped(rows):
    found = select_features(rows, keep=("rate", "noise"))
    assert {"rate", "noise"} <= set(found.kept)


def test_the_most_important_feature_stays_where_nothing_else_is_left(rows):
    flat = replace(rows, target_pp=np.full(600, 5.0))
    assert select_features(flat).kept == ("strong",), "all are equal: the first"
    alone = replace(rows, names=("curved",), features=rows.features[:, [4]])
    assert select_features(alone).kept == ("curved",), "its own importance is the bound"


def test_redundancy_is_not_tried_on_a_single_data_set(rows):
    single = TrainingRows(rows.names, rows.features, rows.target_pp, rows.weights, ("d",) * 600)
    assert {"strong", "copy"} <= set(select_features(single).kept)
