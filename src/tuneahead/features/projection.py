"""Where the benchmark's margins go if they keep moving over the learning rates still to come.

Adam's steps are about as long as the learning rate, so a margin that moves steadily moves in
proportion to the sum of the learning rates, not to the number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuneahead.benchmark.items import CHOICE_METRICS
from tuneahead.features.featurespec import Value
from tuneahead.features.series import Floats, ratio
from tuneahead.trace import Cue, ProbeTrace

SHORT, LONG = 4.0, 16.0
"""Most that a trend of the probe's second half is carried on, in lengths of that half."""
SHORT_DRIFT = 3.0
"""Most that a drift from the base is carried on, in lengths of the probe."""
SETTLING_RATE = 0.1
"""Sum of learning rates over which movement dies down by e (where most runs of the lab have settled)."""
STEEPEST_GROWTH = 1.2

NO_MARGINS = "free answers are graded and have no margin"

_PROJECTED = (
    "projected_trend_short_gain",
    "projected_trend_gain",
    "projected_drift_short_gain",
    "projected_drift_gain",
    "projected_settling_trend_gain",
    "projected_settling_drift_gain",
    "projected_growth_gain",
)
_MOVES = (
    "margin_trend_consistency",
    "margin_drift_consistency",
    "margin_turn_cosine",
    "margin_trend_share",
    "margin_growth_exponent",
    "rate_growth_ln",
)


@dataclass(frozen=True)
class Movement:
    """Margins at three cues, ``(items,)`` each, and the learning rates summed up to each and in all."""

    start: Floats
    middle: Floats
    end: Floats
    rate_middle: float
    rate_end: float
    rate_total: float

    @property
    def drift(self) -> Floats:
        """Movement since the start."""
        return self.end - self.start

    @property
    def trend(self) -> Floats:
        """Movement in the probe's second half."""
        return self.end - self.middle

    @property
    def growth(self) -> float:
        """All learning rates over the probe's: how many times the probe's way the run goes."""
        return self.rate_total / self.rate_end

    @property
    def exponent(self) -> float | None:
        """How the distance from the start grows with the sum of rates: 1 goes straight, 0 stands still.

        None where there was no distance at the middle or at the end.
        """
        ways = _rms(self.drift), _rms(self.middle - self.start)
        if min(ways) <= 0:
            return None
        grown = math.log(ways[0] / ways[1]) / math.log(self.rate_end / self.rate_middle)
        return min(STEEPEST_GROWTH, max(0.0, grown))


def project_margins(trace: ProbeTrace, cues: Sequence[Cue]) -> dict[str, Value]:
    """Every feature of the projected margins, by name: a value or the reason for none.

    ``cues`` are those with margins, in the order of their steps.
    """
    names = _PROJECTED + _MOVES
    if trace.info.metric not in CHOICE_METRICS:
        return dict.fromkeys(names, NO_MARGINS)
    movement = _movement(trace, cues)
    if isinstance(movement, str):
        return dict.fromkeys(names, movement)
    return {**_moves(movement), **_projected(movement)}


def _movement(trace: ProbeTrace, cues: Sequence[Cue]) -> Movement | str:
    if len(cues) < 3 or cues[0].step != 0:
        return f"needs benchmark cues at step 0, before the end and at the end, the probe has {len(cues)}"
    end = cues[-1]
    if end.step > trace.info.total_steps:
        return f"the last benchmark cue is of step {end.step}, the run has {trace.info.total_steps}"
    middle = next((cue for cue in reversed(cues[1:-1]) if 2 * cue.step <= end.step), cues[1])
    recipe, total = trace.info.recipe, trace.info.total_steps
    rates = np.cumsum([recipe.learning_rate_at(step, total) for step in range(total)])
    at = [float(rates[cue.step - 1]) for cue in (middle, end)]
    if not 0 < at[0] < at[1]:
        return "the learning rate was 0 over half of the probe"
    first, second, last = (np.asarray(cue.margin_nats, float) for cue in (cues[0], middle, end))
    if not all(np.isfinite(margin).all() for margin in (first, second, last)):
        return f"the margins at step {end.step} are not finite: the run has diverged"
    return Movement(first, second, last, at[0], at[1], float(rates[-1]))


def _moves(move: Movement) -> dict[str, Value]:
    still = "the margins did not move"
    lengths = _rms(move.trend), _rms(move.drift)
    both = lengths[0] * lengths[1]
    return {
        "margin_trend_consistency": ratio(float(move.trend.mean()), lengths[0], still),
        "margin_drift_consistency": ratio(float(move.drift.mean()), lengths[1], still),
        "margin_turn_cosine": ratio(float(np.mean(move.trend * move.drift)), both, still),
        "margin_trend_share": ratio(lengths[0], lengths[1], still),
        "margin_growth_exponent": move.exponent
        if move.exponent is not None
        else "the margins did not move, up to the middle of the probe or in all",
        "rate_growth_ln": math.log(move.growth),
    }


def _projected(move: Movement) -> dict[str, Value]:
    left = (move.rate_total - move.rate_end) / (move.rate_end - move.rate_middle)

    def settled(rate: float) -> float:
        return 1 - math.exp(-rate / SETTLING_RATE)

    # Without a way of their own margins go straight on.
    exponent = 1.0 if move.exponent is None else move.exponent
    half = settled(move.rate_end) - settled(move.rate_middle)
    settled_left = (settled(move.rate_total) - settled(move.rate_end)) / max(half, 1e-12)
    settled_growth = settled(move.rate_total) / settled(move.rate_end)
    ends = {
        "projected_trend_short_gain": move.end + move.trend * min(left, SHORT),
        "projected_trend_gain": move.end + move.trend * min(left, LONG),
        "projected_drift_short_gain": move.start + move.drift * min(move.growth, SHORT_DRIFT),
        "projected_drift_gain": move.start + move.drift * move.growth,
        "projected_settling_trend_gain": move.end + move.trend * settled_left,
        "projected_settling_drift_gain": move.start + move.drift * settled_growth,
        "projected_growth_gain": move.start + move.drift * move.growth**exponent,
    }
    now = float(np.mean(move.end > 0))
    return {name: float(np.mean(margin > 0)) - now for name, margin in ends.items()}


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2)))
