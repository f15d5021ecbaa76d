"""Assessments: saved and read back whole, and made by the real pipeline on the lab's base."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from made_assessment import made_assessment

from tuneahead.assessment import Assessment, Outcome, assessment_from_json
from tuneahead.errors import RecipeError, TuneAheadError
from tuneahead.recipe import Recipe
from tuneahead.verdict import Attribution, Fix


def same_but_trace(a: Assessment, b: Assessment) -> bool:
    # repr: NaN is not equal to itself
    return repr(replace(a, trace=None)) == repr(replace(b, trace=None))


def test_an_assessment_survives_json() -> None:
    found = made_assessment()
    back = assessment_from_json(found.to_json())
    assert same_but_trace(back, found)
    assert back.trace is not None and found.trace is not None
    assert back.trace.info == found.trace.info
    np.testing.assert_array_equal(back.trace.steps.loss_nats, found.trace.steps.loss_nats)


def test_an_assessment_without_forecast_and_probe_survives_json() -> None:
    found = replace(
        made_assessment(), forecast=None, trace=None, base_pp=math.nan, outcome=Outcome(50.0, 840, 3.0)
    )
    assert same_but_trace(assessment_from_json(found.to_json()), found)


def test_absent_figures_are_null_and_infinite_ones_text() -> None:
    found = replace(
        made_assessment(),
        attributions=(Attribution("x", math.nan, 1.0), Attribution("y", math.inf, 1.0)),
        fixes=(Fix("t", "r"),),
    )
    document = json.loads(found.to_json())["assessment"]
    assert document["features"]["values"]["margin_mean_nats"] is None
    assert [a["value"] for a in document["attributions"]] == [None, "inf"]
    assert document["fixes"][0]["contribution_pp"] is None
    back = assessment_from_json(found.to_json())
    assert math.isnan(back.attributions[0].value)
    assert back.attributions[1].value == math.inf


def test_a_field_of_a_later_version_is_passed_over() -> None:
    document = json.loads(made_assessment().to_json())
    document["assessment"]["invented_later"] = 1
    assert assessment_from_json(json.dumps(document)).base_pp == 31.4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(kind="checkup"), "kind"),
        (lambda d: d.update(schema=99), "schema 99"),
        (lambda d: d["assessment"].pop("task"), "task"),
        (lambda d: d["assessment"].update(findings={}), "expected a list"),
        (lambda d: d["assessment"].update(base_pp="many"), "many"),
        (lambda d: d["assessment"].update(trace="!!"), "base64"),
    ],
)
def test_damaged_json_is_a_user_error_that_says_what_is_wrong(change: object, message: str) -> None:
    document = json.loads(made_assessment().to_json())
    change(document)  # type: ignore[operator]
    with pytest.raises(TuneAheadError, match=message):
        assessment_from_json(json.dumps(document))


def test_a_recipe_out_of_bounds_in_json_is_named() -> None:
    document = json.loads(made_assessment().to_json())
    document["assessment"]["recipe"]["learning_rate"] = -1
    with pytest.raises(RecipeError, match="learning_rate"):
        assessment_from_json(json.dumps(document))


def test_the_recipe_is_the_one_given() -> None:
    found = replace(made_assessment(), recipe=Recipe(target_modules=("q_proj", "v_proj"), max_grad_norm=None))
    assert assessment_from_json(found.to_json()).recipe == found.recipe
