"""Reasons add up to the prediction, whatever the target, and read as sentences."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tuneahead.features.vector import FeatureVector
from tuneahead.predictor.explain import (
    ABSENT_TERM,
    BASE_TERM,
    GAIN_TERM,
    HEADROOM_TERM,
    LIMIT_TERM,
    RESTATES,
    Parts,
    Typical,
    explain_parts,
    sentence_for,
    told_once,
)
from tuneahead.predictor.packaged import shipped_table
from tuneahead.predictor.predictor import Predictor
from tuneahead.predictor.table import read_table
from tuneahead.predictor.tuning import QUICK
from tuneahead.verdict import Attribution

TYPICAL = Typical(base_pp=30.0, gain_pp=8.0, anchor_pp=38.0, headroom_pp=75.0)


def vector(table, row: int) -> FeatureVector:
    return FeatureVector(dict(zip(table.names, table.values[row].tolist(), strict=True)))


@pytest.mark.parametrize("anchor", ["probe", "base", "raw"])
def test_contributions_sum_to_the_score_for_every_target(make_table, anchor):
    table = make_table(90, 8)
    # Two benchmarks with other chance levels, so that the head-room differs between rows.
    table = replace(table, chance_pp=np.where(np.arange(90) % 2, 25.0, 0.0))
    predictor = Predictor.fit(table, preset=replace(QUICK, anchors=(anchor,)))
    predictions = predictor.predict_table(table).score_pp
    for row in range(0, 90, 10):
        scores = (float(table.base_pp[row]), float(table.probe_pp[row]))
        chance = float(table.chance_pp[row])
        forecast = predictor.predict(vector(table, row), *scores, chance_pp=chance)
        baseline, found = predictor.explain(vector(table, row), *scores, chance_pp=chance)
        total = baseline + sum(attribution.contribution_pp for attribution in found)
        assert total == pytest.approx(forecast.score_pp, abs=1e-6)
        assert forecast.score_pp == pytest.approx(predictions[row], abs=1e-9)
        assert HEADROOM_TERM in {attribution.feature for attribution in found}


def test_contributions_sum_to_the_score_where_some_rows_lack_a_base_score(make_table):
    table = make_table(90, 8)
    base = table.base_pp + np.arange(90) / 9.0
    # Their mean base and mean gain are over other rows than the mean score at the probe.
    table = replace(table, base_pp=np.where(np.arange(90) % 3, base, np.nan))
    predictor = Predictor.fit(table, preset=replace(QUICK, anchors=("probe",)))
    for row in (0, 1, 2):
        scores = (float(table.base_pp[row]), float(table.probe_pp[row]))
        baseline, found = predictor.explain(vector(table, row), *scores)
        total = baseline + sum(attribution.contribution_pp for attribution in found)
        forecast = predictor.predict(vector(table, row), *scores)
        assert total == pytest.approx(forecast.score_pp, abs=1e-6)


def test_a_score_beyond_the_scale_is_explained_by_the_limit():
    parts = Parts(("x",), np.array([1.0]), np.array([0.6]), 0.1, "probe", 90.0, 40.0, 90.0, 75.0)
    baseline, found = explain_parts(parts, TYPICAL)
    by_name = {attribution.feature: attribution.contribution_pp for attribution in found}
    assert baseline == pytest.approx(38.0 + 7.5)
    assert by_name["x"] == pytest.approx(45.0)
    assert by_name[LIMIT_TERM] == pytest.approx(100.0 - (90.0 + 75.0 * 0.7))
    assert baseline + sum(by_name.values()) == pytest.approx(100.0)


def test_the_probe_score_is_split_into_base_and_gain_so_far():
    parts = Parts(
        ("x", "base_level", "probe_level", "gain_level"),
        np.zeros(4),
        np.array([0.0, 0.01, 0.02, -0.01]),
        0.1,
        "probe",
        45.0,
        33.0,
        45.0,
        75.0,
    )
    by_name = {one.feature: one for one in explain_parts(parts, TYPICAL)[1]}
    assert by_name[BASE_TERM].contribution_pp == pytest.approx(3.0 + 0.75)
    assert by_name[GAIN_TERM].contribution_pp == pytest.approx(12.0 - 8.0 + 0.75)
    assert by_name[GAIN_TERM].value == pytest.approx(12.0)
    assert by_name[GAIN_TERM].sentence.startswith("benchmark score at the probe: 45.0 points, +12.0")
    assert "x" not in by_name, "a share of nothing is no reason"


def test_without_a_base_score_the_probe_score_is_one_term():
    unknown = Typical(float("nan"), float("nan"), 38.0, 75.0)
    parts = Parts(("x",), np.zeros(1), np.zeros(1), 0.0, "probe", 45.0, float("nan"), 45.0, 75.0)
    baseline, found = explain_parts(parts, unknown)
    assert [(one.feature, one.contribution_pp) for one in found] == [(GAIN_TERM, 7.0)]
    assert baseline == 38.0


def test_sentences_come_from_the_catalogue_and_absent_values_say_so():
    assert sentence_for("easy_rows_fraction", 0.25) == "25 % of the rows are easy for the model"
    assert sentence_for("easy_rows_fraction", float("nan")) == "easy rows was not measured"
    assert sentence_for("my_own_feature", 3.0) == "my_own_feature = 3"


def test_a_reason_by_an_absent_feature_says_why_it_is_absent(make_table):
    table = make_table(90, 8)
    values = table.values.copy()
    values[::2, 1] = np.nan
    table = replace(table, values=values, score_pp=np.where(np.arange(90) % 2, 50.0, 70.0))
    predictor = Predictor.fit(table, preset="quick")
    known = dict(zip(table.names, values[0].tolist(), strict=True))
    _, found = predictor.explain(FeatureVector(known, {"f1": "clipping is off"}), 30.0, 40.0)
    sentences = {one.feature: one.sentence for one in found}
    assert sentences["f1"] == "f1 is absent: clipping is off"


def test_one_quantity_in_several_units_is_one_reason_of_the_summed_points() -> None:
    found = (
        Attribution(GAIN_TERM, -11.9, -8.1, "benchmark score at the probe: 34.8 points"),
        Attribution("distinct_answer_fraction", 0.1, -2.1),
        Attribution("score_at_100_pp", 34.8, 0.5),
        Attribution("score_gain_headroom", -0.16, 0.5),
        Attribution("score_at_50_pp", 32.5, 0.3),
        Attribution("late_gain_headroom", 0.03, -0.4),
    )
    told = told_once(found, probe_steps=100)
    assert [(one.feature, round(one.contribution_pp, 9)) for one in told] == [
        (GAIN_TERM, -7.1),
        ("distinct_answer_fraction", -2.1),
        # Of what is told by no other feature the words are its own.
        ("late_gain_headroom", -0.4),
        ("score_at_50_pp", 0.3),
    ]
    assert told[0].sentence == found[0].sentence
    # After a probe of 50 steps it is the score there that the gain so far tells.
    after_50 = {one.feature: one.contribution_pp for one in told_once(found, probe_steps=50)}
    assert after_50[GAIN_TERM] == pytest.approx(-7.3) and after_50["score_at_100_pp"] == 0.5
    assert sum(after_50.values()) == pytest.approx(sum(one.contribution_pp for one in found))


def test_what_has_no_value_is_one_reason_that_names_the_largest() -> None:
    absent = (
        Attribution(
            "score_at_25_pp", math.nan, 1.0, "score at 25 is absent: no benchmark cue was taken there"
        ),
        Attribution("score_at_10_pp", math.nan, -0.25),
        Attribution("parse_depth_mean", math.nan, 0.125),
    )
    base = Attribution(BASE_TERM, math.nan, 0.5, "the base model's score is unknown")
    told = told_once((base, *absent), probe_steps=100)
    assert [(one.feature, one.contribution_pp) for one in told] == [(ABSENT_TERM, 0.875), (BASE_TERM, 0.5)]
    assert told[0].sentence == "score at 25, score at 10 and 1 more have no value here"
    assert told_once(absent[:1], probe_steps=100) == absent[:1], "one alone says why"


def test_what_is_told_as_another_feature_says_nothing_else_on_the_packaged_runs() -> None:
    table = read_table(shipped_table("lab-qwen2"))
    columns = dict(zip(table.names, table.values.T, strict=True))
    columns |= {BASE_TERM: table.base_pp, GAIN_TERM: table.probe_pp - table.base_pp}
    for name, told in {**RESTATES, "score_at_100_pp": GAIN_TERM}.items():
        known = np.isfinite(columns[name]) & np.isfinite(columns[told])
        order = np.argsort(columns[told][known])
        one, other = columns[told][known][order], columns[name][known][order]
        moved = np.abs(np.diff(one)) > 1e-6 * np.abs(one).max()
        steps = np.sign(np.diff(other)[moved])
        assert known.any() and len(set(steps.tolist())) <= 1, f"{name} is more than {told}"
