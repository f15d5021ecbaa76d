"""Decisions follow from interval, goal and findings."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tuneahead.errors import TuneAheadError
from tuneahead.verdict import Finding, Forecast, Goal, decide


def forecast(low: float, high: float, *, known: bool = True) -> Forecast:
    return Forecast((low + high) / 2, low, high, 0.9, 40.0, 45.0, known, () if known else ("learning rate",))


@pytest.mark.parametrize(
    ("low", "high", "decision"),
    [(55.0, 60.0, "GO"), (50.0, 54.9, "NO_GO"), (50.0, 55.0, "UNSURE"), (54.9, 60.0, "UNSURE")],
)
def test_the_interval_decides_against_the_goal(low: float, high: float, decision: str) -> None:
    assert decide(forecast(low, high), Goal(minimum_pp=55)).decision == decision


def test_a_verdict_says_whether_the_interval_alone_decided() -> None:
    goal, stop = Goal(52.0), Finding("loss-spike", "stop", "the loss rose", "lower the rate")
    for low, high in ((55.0, 61.0), (41.0, 47.0), (49.0, 55.0)):
        assert decide(forecast(low, high), goal).by_interval
        assert not decide(forecast(low, high, known=False), goal).by_interval
        assert not decide(forecast(low, high), goal, (stop,)).by_interval
    assert not decide(forecast(55.0, 61.0), Goal(gain_pp=3), base_error_pp=90.0).by_interval


def test_a_gain_counts_from_the_base_and_no_goal_means_no_worse_than_the_base() -> None:
    assert Goal(gain_pp=3).threshold_pp(40) == 43
    assert Goal().threshold_pp(40) == 40
    assert decide(forecast(41, 44), Goal()).decision == "GO"
    assert decide(forecast(41, 44), Goal(gain_pp=3)).decision == "UNSURE"


@pytest.mark.parametrize(
    ("low", "high", "decision"),
    [(44.0, 60.0, "UNSURE"), (47.0, 60.0, "GO"), (30.0, 42.0, "UNSURE"), (30.0, 39.0, "NO_GO")],
)
def test_a_goal_that_is_known_to_an_error_decides_what_lies_beyond_it(
    low: float, high: float, decision: str
) -> None:
    found = decide(forecast(low, high), Goal(gain_pp=3), base_error_pp=3.5)
    assert found.decision == decision
    assert ("standard error 3.5 points" in found.reason) == (decision == "UNSURE")


@pytest.mark.parametrize(
    ("minimum_pp", "gain_pp", "said"),
    [
        (50.0, 3.0, "both given"),
        (math.nan, None, "nan is not a score"),
        (101.0, None, "101 is not a score"),
        (0.57, None, "give 57 if that is meant"),
        (None, math.nan, "nan is not a gain"),
        ("60", None, "minimum_pp is '60', not a number"),
        (None, True, "gain_pp is True, not a number"),
        (None, 0.03, "give 3 if that is meant"),
        (None, -0.02, "give -2 if that is meant"),
    ],
)
def test_a_goal_that_no_score_can_mean_is_refused(
    minimum_pp: float | None, gain_pp: float | None, said: str
) -> None:
    with pytest.raises(TuneAheadError, match=said):
        Goal(minimum_pp, gain_pp)


def test_a_goal_beyond_100_is_never_reached() -> None:
    found = decide(forecast(97.0, 100.0), Goal(gain_pp=63.0))
    assert found.decision == "NO_GO" and "103.0 is beyond 100" in found.reason
    # The base may lie 3.5 points lower, and the goal with it: 99.5 can be reached.
    assert decide(forecast(97.0, 100.0), Goal(gain_pp=63.0), base_error_pp=3.5).decision == "UNSURE"


def test_a_goal_that_counts_from_an_unknown_base_is_unsure_and_says_so() -> None:
    unknown = replace(forecast(60.0, 70.0), base_pp=math.nan)
    for goal in (Goal(), Goal(gain_pp=3.0)):
        found = decide(unknown, goal)
        assert found.decision == "UNSURE" and "base's score, which was not measured" in found.reason
    assert decide(unknown, Goal(minimum_pp=55.0)).decision == "GO"


@pytest.mark.parametrize(("low", "high"), [(math.nan, math.nan), (60.0, math.nan), (math.nan, 50.0)])
def test_an_interval_that_is_not_known_decides_nothing(low: float, high: float) -> None:
    found = decide(forecast(low, high), Goal(minimum_pp=55))
    assert found.decision == "UNSURE" and found.reason == "the forecast has no interval"


def test_a_goal_is_reached_by_the_very_score_that_base_and_gain_add_up_to() -> None:
    found = replace(forecast(40.3, 60.0), base_pp=0.1)
    assert 0.1 + 40.2 > 40.3
    assert decide(found, Goal(gain_pp=40.2)).decision == "GO"


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (54.96, 65.0, "(54.96 to 65.00) straddles the goal of 55.00"),
        (45.0, 54.9996, "(45.0000 to 54.9996) stays below the goal of 55.0000"),
        (54.9, 65.0, "(54.9 to 65.0) straddles the goal of 55.0"),
        (55.0, 65.0, "(55.0 to 65.0) reaches the goal of 55.0"),
    ],
)
def test_a_verdict_tells_the_bound_that_decided_it_from_the_goal(low: float, high: float, said: str) -> None:
    assert said in decide(forecast(low, high), Goal(minimum_pp=55)).reason


def test_a_verdict_says_how_likely_the_interval_holds() -> None:
    for low, high, said in (
        (60, 70, "the whole {} reaches"),
        (40, 50, "the whole {} stays"),
        (50, 60, "{} straddles"),
    ):
        found = replace(forecast(low, high), level=0.995)
        interval = f"99.5 % interval ({low:.1f} to {high:.1f})"
        assert said.format(interval) in decide(found, Goal(minimum_pp=55)).reason


def test_unknown_inputs_make_it_unsure_and_a_stop_makes_it_no_go() -> None:
    unsure = decide(forecast(60, 70, known=False), Goal(minimum_pp=50))
    assert unsure.decision == "UNSURE" and "learning rate" in unsure.reason
    stop = Finding("empty-answers", "stop", "every answer is empty", "fill them")
    assert decide(forecast(60, 70), Goal(minimum_pp=50), (stop,)).decision == "NO_GO"
    warn = Finding("copies", "warn", "rows are repeated", "drop them")
    assert decide(forecast(60, 70), Goal(minimum_pp=50), (warn,)).decision == "GO"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a",), "a lies outside"),
        (("a", "b"), "a and b lie outside"),
        (("a", "b", "c"), "a, b and c lie outside"),
        (("a", "b", "c", "d", "e"), "a, b, c and 2 more lie outside"),
        ((), "some inputs lie outside"),
    ],
)
def test_a_verdict_counts_the_features_that_it_does_not_name(names: tuple[str, ...], said: str) -> None:
    found = decide(replace(forecast(60, 70, known=False), outside=names), Goal(minimum_pp=50))
    assert found.reason == f"{said} the runs the predictor knows"
