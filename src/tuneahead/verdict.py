"""Forecast, goal and verdict: what is expected, what is wanted, and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Literal

from tuneahead.counts import listed
from tuneahead.errors import TuneAheadError

Decision = Literal["GO", "NO_GO", "UNSURE"]
Severity = Literal["stop", "warn", "note"]
SAME_PP = 1e-9
"""Scores no further apart are the same: a base and a gain add up to a goal with a rounding error."""
LEAST_GAIN_PP = 0.1
"""Least gain that can be asked for: 0.03 is meant as a share. A question of a thousand is 0.1 points."""
NAMED_OUTSIDE = 3
"""Features outside the predictor's range that a verdict names."""
UNKNOWN_GOAL = "the goal counts from the base's score, which was not measured: give a minimum score"


@dataclass(frozen=True)
class Forecast:
    """Predicted final benchmark score, all in percentage points.

    ``low`` and ``high`` bound the score with probability ``level``. ``in_distribution`` is
    False when inputs lie outside what the predictor was fitted on; ``outside`` names them.
    ``recipe_sd_pp`` is the standard deviation of the error among recipes on one data set, which is
    smaller than the whole error; NaN where it is not known. ``data_learnt`` is True when the predictor was
    fitted to runs on this very data set: it errs less there than on the new ones that its interval is for.
    """

    score_pp: float
    low_pp: float
    high_pp: float
    level: float
    base_pp: float
    probe_pp: float
    in_distribution: bool = True
    outside: tuple[str, ...] = ()
    recipe_sd_pp: float = math.nan
    data_learnt: bool = False


@dataclass(frozen=True)
class Goal:
    """What makes the run worth it: a minimum score, or a minimum gain over the base, in points.

    Without either, a score no worse than the base's. Raises :class:`TuneAheadError` as
    :func:`require_goal` does.
    """

    minimum_pp: float | None = None
    gain_pp: float | None = None

    def __post_init__(self) -> None:
        require_goal(self.minimum_pp, self.gain_pp)

    def threshold_pp(self, base_pp: float) -> float:
        """The score to reach; without any goal no worse than the base. NaN where it counts from NaN."""
        if self.minimum_pp is not None:
            return self.minimum_pp
        return base_pp + (self.gain_pp or 0.0)


def given_goal(goal: Goal | None) -> Goal:
    """The goal, or that of no loss where none is given; raises :class:`TuneAheadError` for a bare number."""
    if goal is None:
        return Goal()
    if not isinstance(goal, Goal):
        raise TuneAheadError(
            f"{goal!r} is no goal",
            remedy="give Goal(gain_pp=3), or Goal(minimum_pp=60) for a score",
        )
    return goal


def require_goal(
    minimum_pp: float | None, gain_pp: float | None, names: tuple[str, str] = ("minimum_pp", "gain_pp")
) -> None:
    """Check a goal, whose two kinds messages call by ``names``.

    Raises :class:`TuneAheadError` when both kinds are given or one is impossible or no number.
    """
    minimum, gain = names
    for name, points in ((minimum, minimum_pp), (gain, gain_pp)):
        # A configuration file may hold "60", or true.
        if points is not None and (not isinstance(points, Real) or isinstance(points, bool)):
            raise TuneAheadError(f"{name} is {points!r}, not a number", remedy="give points, such as 3")
    if minimum_pp is not None and gain_pp is not None:
        raise TuneAheadError(f"{minimum} and {gain} were both given", remedy="give one of them")
    if minimum_pp is not None and not 0 <= minimum_pp <= 100:
        raise TuneAheadError(
            f"{minimum} {minimum_pp:g} is not a score", remedy="scores are points from 0 to 100"
        )
    if minimum_pp is not None and 0 < minimum_pp < 1:
        raise TuneAheadError(
            f"{minimum} {minimum_pp:g} is less than one point of 100",
            remedy=f"scores are points from 0 to 100: give {100 * minimum_pp:g} if that is meant",
        )
    if gain_pp is not None and not -100 <= gain_pp <= 100:
        raise TuneAheadError(
            f"{gain} {gain_pp:g} is not a gain", remedy="give points over the base, such as 3"
        )
    if gain_pp is not None and 0 < abs(gain_pp) < LEAST_GAIN_PP:
        raise TuneAheadError(
            f"{gain} {gain_pp:g} is less than a tenth of a point of 100",
            remedy=f"gains are points over the base: give {100 * gain_pp:g} if that is meant, 0 for no loss",
        )


@dataclass(frozen=True)
class Attribution:
    """Share of one feature in a prediction; all contributions plus ``baseline_pp`` sum to the score."""

    feature: str
    value: float
    contribution_pp: float
    sentence: str = ""


@dataclass(frozen=True)
class Finding:
    """One preflight finding. ``rows`` are 1-based and at most the first twenty; ``count`` is all of them."""

    check: str
    severity: Severity
    message: str
    remedy: str
    count: int = 0
    rows: tuple[int, ...] = ()

    @property
    def page(self) -> str:
        """Where the documentation explains this check."""
        return f"docs/checks.md#{self.check}"


@dataclass(frozen=True)
class Fix:
    """Something the user can do, with the reason it is proposed."""

    title: str
    reason: str
    feature: str = ""
    contribution_pp: float = float("nan")


@dataclass(frozen=True)
class Verdict:
    """The decision, and why in one line.

    ``by_interval`` is True where the interval's place beside the goal decided, and nothing else.
    """

    decision: Decision
    reason: str
    threshold_pp: float
    by_interval: bool = False


def first_stop(findings: Iterable[Finding]) -> Finding | None:
    """The finding that makes training pointless, or None."""
    return next((finding for finding in findings if finding.severity == "stop"), None)


def reaches(score_pp: float, threshold_pp: float) -> bool:
    """Whether a score is at or above the score to reach."""
    return score_pp >= threshold_pp - SAME_PP


def apart(goal_pp: float, *scores_pp: float) -> list[str]:
    """The goal, then the scores, as text: one decimal, or as many as tell every other score from the goal."""
    others = [score for score in scores_pp if abs(score - goal_pp) > SAME_PP]
    wide = (n for n in range(1, 9) if f"{goal_pp:.{n}f}" not in [f"{score:.{n}f}" for score in others])
    decimals = next(wide, 9)
    return [f"{pp:.{decimals}f}" for pp in (goal_pp, *scores_pp)]


def uncertain_goal(goal: str, error_pp: float) -> str:
    """A goal that counts from a base scored on some of the items, and the remedy; the end of a sentence."""
    return (
        f"the goal of {goal}, which counts from the base's score (standard error {error_pp:.1f} points): "
        "give a minimum score"
    )


def foregone(
    goal: Goal, base_pp: float, findings: Iterable[Finding], base_error_pp: float = 0.0
) -> Verdict | None:
    """The NO_GO that no forecast changes: of a finding that stops, or a goal that no score can reach.

    ``base_error_pp`` is the standard error of the base's score ``base_pp``, in points.
    """
    threshold = goal.threshold_pp(base_pp)
    stop = first_stop(findings)
    if stop:
        return Verdict("NO_GO", stop.message, threshold)
    if math.isnan(threshold) or reaches(100, threshold - base_error_pp):
        return None
    beyond, _ = apart(threshold, 100)
    return Verdict("NO_GO", f"the goal of {beyond} is beyond 100, the highest score", threshold)


def decide(
    forecast: Forecast, goal: Goal, findings: tuple[Finding, ...] = (), *, base_error_pp: float = 0.0
) -> Verdict:
    """GO when the whole interval reaches the goal, NO_GO when none of it does, else UNSURE.

    A preflight finding of severity ``stop`` decides NO_GO whatever the forecast says, as does a goal that no
    score can reach. Inputs outside the fitted range make any other decision UNSURE, and so do an interval
    that is NaN and a goal that counts from a base's score that is not known. ``base_error_pp`` is the
    standard error of the base's score that the goal counts from: what lies nearer to the goal is UNSURE.
    Source: method.md, "The predictor".
    """
    threshold = goal.threshold_pp(forecast.base_pp)
    if verdict := foregone(goal, forecast.base_pp, findings, base_error_pp):
        return verdict
    if math.isnan(threshold):
        return Verdict("UNSURE", UNKNOWN_GOAL, threshold)
    if math.isnan(forecast.low_pp + forecast.high_pp):
        return Verdict("UNSURE", "the forecast has no interval", threshold)
    wanted, low, high = apart(threshold, forecast.low_pp, forecast.high_pp)
    interval = f"{100 * forecast.level:g} % interval ({low} to {high})"
    if not forecast.in_distribution:
        odd = _named(forecast.outside)
        return Verdict("UNSURE", f"{odd} outside the runs the predictor knows", threshold)
    if _is_near(forecast, threshold, base_error_pp):
        return Verdict(
            "UNSURE",
            f"the {interval} lies close to {uncertain_goal(wanted, base_error_pp)}",
            threshold,
        )
    if reaches(forecast.low_pp, threshold):
        return Verdict(
            "GO", f"the whole {interval} reaches the goal of {wanted}", threshold, by_interval=True
        )
    if not reaches(forecast.high_pp, threshold):
        return Verdict(
            "NO_GO", f"the whole {interval} stays below the goal of {wanted}", threshold, by_interval=True
        )
    return Verdict("UNSURE", f"the {interval} straddles the goal of {wanted}", threshold, by_interval=True)


def _named(outside: tuple[str, ...]) -> str:
    """The features outside, the first by name, as the subject of a sentence, with its verb."""
    if len(outside) == 1:
        return f"{outside[0]} lies"
    shown, rest = outside[:NAMED_OUTSIDE], len(outside) - NAMED_OUTSIDE
    return (listed([*shown, *([f"{rest} more"] if rest > 0 else [])]) or "some inputs") + " lie"


def _is_near(forecast: Forecast, threshold_pp: float, error_pp: float) -> bool:
    """Whether an interval lies to one side of the goal, and would not if the goal moved by ``error_pp``."""
    if reaches(forecast.low_pp, threshold_pp):
        return not reaches(forecast.low_pp, threshold_pp + error_pp)
    return not reaches(forecast.high_pp, threshold_pp) and reaches(forecast.high_pp, threshold_pp - error_pp)
