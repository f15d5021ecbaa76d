"""Margins carried on to the run's end, worked out by hand on six items."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from feature_fixtures import tiny_trace

from tuneahead.features.extract import cue_features
from tuneahead.trace import Cue, ProbeTrace


def moving(start: list[float], middle: list[float], end: list[float]) -> ProbeTrace:
    """The tiny trace (10 of 40 steps at a constant rate of 0.01) with these margins at steps 0, 5 and 10."""
    half = np.full(len(start), 0.5, np.float32)
    cues = (
        Cue(step, 1.0, 1.0, half, np.array(margins, np.float32))
        for step, margins in ((0, start), (5, middle), (10, end))
    )
    return replace(tiny_trace(), cues=tuple(cues))


# Rates: 0.05 at the half, 0.1 at the probe's end, 0.4 in all: 6 lengths of the trend, 4 of the drift.
# Items: rises late; rises early and falls; far away; near; falls slowly; stands still.
START = [-1.0, -1.0, -5.0, -1.0, 1.0, 1.0]
MIDDLE = [-1.0, 0.6, -4.5, -0.6, 0.9, 1.0]
END = [-0.7, 0.5, -4.0, -0.2, 0.8, 1.0]


def test_each_projection_carries_the_margins_on_in_its_own_way() -> None:
    found = cue_features(moving(START, MIDDLE, END)).values
    now = 3 / 6
    trend = np.array(END) - np.array(MIDDLE)  # 0.3, -0.1, 0.5, 0.4, -0.1, 0
    drift = np.array(END) - np.array(START)  # 0.3, 1.5, 1, 0.8, -0.2, 0
    assert trend == pytest.approx([0.3, -0.1, 0.5, 0.4, -0.1, 0]) and drift[1] == pytest.approx(1.5)
    # Four trends on: 0.5, 0.1, -2, 1.4, 0.4, 1. Six: 1.1, -0.1, -1, 2.2, 0.2, 1.
    assert found["projected_trend_short_gain"] == pytest.approx(5 / 6 - now)
    assert found["projected_trend_gain"] == pytest.approx(4 / 6 - now)
    # Three drifts from the start: -0.1, 3.5, -2, 1.4, 0.4, 1. Four: 0.2, 5, -1, 2.2, 0.2, 1.
    assert found["projected_drift_short_gain"] == pytest.approx(4 / 6 - now)
    assert found["projected_drift_gain"] == pytest.approx(5 / 6 - now)
    # f = 1 - exp(-r / 0.1) is 0.3935, 0.6321, 0.9817: 1.465 trends on, or 1.553 drifts.
    # -0.26, 0.35, -3.3, 0.39, 0.65, 1 and -0.53, 1.3, -3.4, 0.24, 0.69, 1.
    assert found["projected_settling_trend_gain"] == pytest.approx(4 / 6 - now)
    assert found["projected_settling_drift_gain"] == pytest.approx(4 / 6 - now)
    squares = 0.3**2 + 1.5**2 + 1.0 + 0.8**2 + 0.2**2
    early = 1.6**2 + 0.5**2 + 0.4**2 + 0.1**2
    exponent = math.log(math.sqrt(squares / early)) / math.log(2)
    assert found["margin_growth_exponent"] == pytest.approx(exponent, rel=1e-4)
    # 4 ** 0.216 = 1.35 drifts: -0.6, 1.0, -3.7, 0.08, 0.73, 1.
    assert found["projected_growth_gain"] == pytest.approx(4 / 6 - now)


def test_settling_margins_go_as_far_as_the_rates_left_let_them() -> None:
    # 1.465 trends of 0.1 carry the first item over 0 and leave the second short; 1.553 drifts of 0.1 so the
    # third and the fourth, which have no trend.
    trace = moving(
        [-0.3, -0.3, -0.155, -0.156], [-0.24, -0.25, -0.055, -0.056], [-0.14, -0.15, -0.055, -0.056]
    )
    found = cue_features(trace).values
    assert found["projected_settling_trend_gain"] == pytest.approx(1 / 4)
    assert found["projected_settling_drift_gain"] == pytest.approx(1 / 4)


def test_in_a_long_run_margins_are_carried_on_by_sixteen_trends_and_three_drifts_at_most() -> None:
    # Ten of 400 steps leave 78 trends or 40 drifts. The last two have no trend.
    trace = moving([-3.0, -3.0, -2.9, -3.1], [-1.6, -1.8, -1.9, -2.1], [-1.5, -1.7, -1.9, -2.1])
    found = cue_features(replace(trace, info=replace(trace.info, total_steps=400))).values
    assert found["projected_trend_gain"] == pytest.approx(1 / 4)
    # Three drifts end at 1.5, 0.9, 0.1 and -0.1.
    assert found["projected_drift_short_gain"] == pytest.approx(3 / 4)


def test_margins_that_stand_still_are_carried_nowhere() -> None:
    vector = cue_features(moving(START, START, START))
    assert vector.values["projected_trend_gain"] == vector.values["projected_drift_gain"] == 0.0
    assert vector.absent["margin_turn_cosine"] == "the margins did not move"


@pytest.mark.parametrize(("middle", "end"), [(START, START), (START, END)])
def test_margins_that_did_not_move_have_no_exponent(middle: list[float], end: list[float]) -> None:
    vector = cue_features(moving(START, middle, end))
    assert "the margins did not move" in vector.absent["margin_growth_exponent"]
    assert math.isfinite(vector.values["projected_growth_gain"])


def test_without_a_cue_between_start_and_end_there_is_nothing_to_carry_on() -> None:
    whole = moving(START, MIDDLE, END)
    vector = cue_features(replace(whole, cues=(whole.cues[0], whole.cues[2])))
    assert "needs benchmark cues at step 0" in vector.absent["projected_trend_gain"]


def test_free_answers_have_no_margin_to_carry_on() -> None:
    whole = moving(START, MIDDLE, END)
    vector = cue_features(replace(whole, info=replace(whole.info, metric="exact_match")))
    assert "have no margin" in vector.absent["projected_growth_gain"]


def test_a_cue_beyond_the_run_s_last_step_has_no_projection() -> None:
    whole = moving(START, MIDDLE, END)
    beyond = replace(whole.cues[-1], step=whole.info.total_steps + 1)
    vector = cue_features(replace(whole, cues=(*whole.cues[:-1], beyond)))
    assert "the run has" in vector.absent["projected_growth_gain"]


def test_a_diverged_run_has_no_projection() -> None:
    vector = cue_features(moving(START, MIDDLE, [math.nan, *END[1:]]))
    assert "diverged" in vector.absent["projected_drift_gain"]
