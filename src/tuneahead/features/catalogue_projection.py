"""Catalogue rows of the benchmark margins carried on to the run's end."""

from __future__ import annotations

import math
from functools import partial

from tuneahead.features.featurespec import FeatureSpec

_INF = math.inf
_free = partial(FeatureSpec, group="cue", source="ours", scale_free=True)

_DATA = "bring the data closer to the benchmark: its subjects, its kind of answer, its wording"


def _projected(name: str, formula: str, sentence: str) -> FeatureSpec:
    return _free(
        name=f"projected_{name}", unit="ratio", low=-1, high=1, direction=1,
        formula=f"share of cue items with a margin above 0 at {formula}, minus that at the last cue",
        sentence=f"{sentence}, the share of right cue items changes by {{value}}", remedy=_DATA,
    )


PROJECTION: tuple[FeatureSpec, ...] = (
    _projected(
        "trend_short_gain",
        "end + trend x min(rates left / rates of the second half, 4); trend = margins at the last cue minus "
        "those of the latest cue in the probe's first half, rates = sums of learning rates",
        "if margins go on for a while as in the probe's second half",
    ),
    _projected(
        "trend_gain", "end + trend x min(rates left / rates of the second half, 16)",
        "if margins go on as in the probe's second half",
    ),
    _projected(
        "drift_short_gain",
        "start + drift x min(rates of the run / rates of the probe, 3); drift = margins at the last cue "
        "minus those at step 0",
        "if margins go on for a while as in the whole probe",
    ),
    _projected(
        "drift_gain", "start + drift x rates of the run / rates of the probe",
        "if margins go on as in the whole probe",
    ),
    _projected(
        "settling_trend_gain",
        "end + trend x (f(run) - f(probe)) / (f(probe) - f(half)); f(r) = 1 - exp(-r / 0.1) of the rates "
        "summed",
        "if margins go on as in the probe's second half and settle",
    ),
    _projected(
        "settling_drift_gain", "start + drift x f(run) / f(probe), the same f",
        "if margins go on as in the whole probe and settle",
    ),
    _projected(
        "growth_gain", "start + drift x (rates of the run / rates of the probe) ^ margin_growth_exponent",
        "if margins grow on as fast as they did",
    ),
    _free(
        name="margin_trend_consistency", unit="ratio", low=-1, high=1, direction=1,
        formula="mean of the margins' trend / its root mean square",
        sentence="in the probe's second half margins moved alike to {value} (1 all up, -1 all down)",
        remedy=_DATA,
    ),
    _free(
        name="margin_drift_consistency", unit="ratio", low=-1, high=1, direction=1,
        formula="mean of the margins' drift / its root mean square",
        sentence="over the probe margins moved alike to {value} (1 all up, -1 all down)", remedy=_DATA,
    ),
    _free(
        name="margin_turn_cosine", unit="ratio", low=-1, high=1, direction=0,
        formula="mean of trend x drift / product of their root mean squares",
        sentence="margins kept to their direction by {value} (1 straight on, 0 aside)",
    ),
    _free(
        name="margin_trend_share", unit="ratio", low=0, high=_INF, direction=0,
        formula="root mean square of the trend / that of the drift",
        sentence="the probe's second half moved the margins by {value} of the whole way",
    ),
    _free(
        name="margin_growth_exponent", unit="ratio", low=0, high=1.2, direction=0,
        formula="ln(rms of the drift / rms of the drift up to the half) / ln(rates of the probe / rates of "
        "the half), kept in [0, 1.2]; absent where the margins did not move in the first half or in all",
        sentence="margins move as the summed rate to the power of {value} (1 straight on, 0 settled)",
    ),
    _free(
        name="rate_growth_ln", unit="ratio", low=0, high=_INF, direction=0,
        formula="ln(sum of the learning rates of the run / that of the probe)",
        sentence="the logarithm of the whole run's summed rate over the probe's is {value}",
    ),
)
