"""Catalogue rows of the benchmark cues."""

from __future__ import annotations

import math
from functools import partial

from tuneahead.features.catalogue_projection import PROJECTION
from tuneahead.features.featurespec import FeatureSpec

_INF = math.inf
_row = partial(FeatureSpec, group="cue", source="ours")
_free = partial(_row, scale_free=True)

_DATA = "bring the data closer to the benchmark: its subjects, its kind of answer, its wording"
_RATE = "lower the learning rate or lengthen the warm-up: what the base knew is being overwritten"
_LABELS = "check the answers: wrong or scrambled ones teach the wrong option"
_SCORE = "share of cue items answered right (mean grade where the benchmark grades answers: MC2, F1, ROUGE-L)"
_RISES = (0.0, _INF)
"""Where a change is a gain: nothing is lost that its remedy could save."""


def _named(step: int) -> FeatureSpec:
    return _row(
        name=f"score_at_{step}_pp", unit="pp", low=0, high=100, direction=1,
        formula=f"{_SCORE} at step {step}, times 100",
        sentence=f"the benchmark's cue items score {{value}} at step {step}", remedy=_DATA,
    )


_SCORES = (
    _row(
        name="base_score_pp", unit="pp", low=0, high=100, direction=1,
        formula=f"{_SCORE} at step 0, times 100",
        sentence="the base itself scores {value} on the cue items",
        remedy="a stronger base starts higher",
    ),
    _free(
        name="base_score_headroom", unit="ratio", low=-_INF, high=1, direction=1,
        formula="(base_score_pp - chance) / (100 - chance)",
        sentence="the base has {value} of the way from a guess to a perfect score",
        remedy="a stronger base starts higher",
    ),
    *(_named(step) for step in (10, 25, 50, 100)),
    _row(
        name="probe_score_pp", unit="pp", low=0, high=100, direction=1,
        formula=f"{_SCORE} at the probe's last cue, times 100 (persistence)",
        sentence="the benchmark's cue items score {value} at the probe's end", remedy=_DATA,
    ),
    _free(
        name="probe_score_headroom", unit="ratio", low=-_INF, high=1, direction=1,
        formula="(probe_score_pp - chance) / (100 - chance)",
        sentence="at the probe's end the model has {value} of the way from a guess to a perfect score",
        remedy=_DATA,
    ),
    _row(
        name="soft_score_pp", unit="pp", low=0, high=100, direction=1,
        formula="100 x mean of 1 / (1 + exp(-margin / 0.5 nats)) at the last cue",
        sentence="counted softly, the cue items score {value} at the probe's end", remedy=_DATA,
    ),
    _row(
        name="score_gain_pp", unit="pp", low=-100, high=100, direction=1,
        formula="probe_score_pp - base_score_pp",
        sentence="the probe moved the cue score by {value} from the base", remedy=_DATA,
    ),
    _free(
        name="score_gain_headroom", unit="ratio", low=-_INF, high=_INF, direction=1,
        formula="score_gain_pp / (100 - chance)",
        sentence="the probe moved the cue score by {value} of the head-room", remedy=_DATA,
    ),
    _row(
        name="late_gain_pp", unit="pp", low=-100, high=100, direction=1,
        formula="probe_score_pp minus the score of the latest cue in the first half of the probe",
        sentence="in its second half the probe moved the cue score by {value}", remedy=_RATE, usual=_RISES,
    ),
    _free(
        name="late_gain_headroom", unit="ratio", low=-_INF, high=_INF, direction=1,
        formula="late_gain_pp / (100 - chance)",
        sentence="in its second half the probe moved the cue score by {value} of the head-room",
        remedy=_RATE, usual=_RISES,
    ),
    _row(
        name="score_slope_pp", unit="pp", low=-_INF, high=_INF, direction=1,
        formula="least-squares slope of the cue scores on ln(1 + step), all cues from step 0",
        sentence="the cue score changes by {value} whenever the steps grow 2.7 times",
        remedy=_RATE, usual=_RISES,
    ),
    _free(
        name="score_slope_headroom", unit="ratio", low=-_INF, high=_INF, direction=1,
        formula="score_slope_pp / (100 - chance)",
        sentence="the cue score changes by {value} of the head-room whenever the steps grow 2.7 times",
        remedy=_RATE, usual=_RISES,
    ),
    _row(
        name="score_drop_pp", unit="pp", low=0, high=100, direction=-1,
        formula="highest cue score minus probe_score_pp",
        sentence="the cue score ends {value} below its highest point", remedy=_RATE,
    ),
    _row(
        name="extrapolated_score_pp", unit="pp", low=0, high=100, direction=1,
        formula="score at the full run's last step on s0 + g (1 - exp(-t / tau)) fitted to all cues, tau at "
        "most "
        "twice the last cue's step, kept in [0, 100]",
        source="ours, after the Early-Stop baseline of arXiv 2606.17660",
        sentence="the curve through the cue scores ends at {value}", remedy=_DATA,
    ),
    _free(
        name="extrapolated_gain_headroom", unit="ratio", low=-_INF, high=_INF, direction=1,
        formula="(extrapolated_score_pp - probe_score_pp) / (100 - chance)",
        source="ours, after the Early-Stop baseline of arXiv 2606.17660",
        sentence="the curve through the cue scores rises by another {value} of the head-room",
        remedy=_RATE, usual=_RISES,
    ),
)

_MARGINS = (
    _row(
        name="right_probability_mean", unit="fraction", low=0, high=1, direction=1,
        formula="mean probability of the right options among all options, last cue",
        sentence="the right options get {value} of the probability", remedy=_DATA,
    ),
    _free(
        name="right_probability_excess", unit="ratio", low=-_INF, high=1, direction=1,
        formula="(100 x right_probability_mean - chance) / (100 - chance)",
        sentence="the right options get {value} of the probability beyond a guess", remedy=_DATA,
    ),
    _row(
        name="right_probability_gain", unit="ratio", low=-1, high=1, direction=1,
        formula="right_probability_mean minus that at step 0",
        sentence="the right options' share of the probability moved by {value}",
        remedy=_LABELS, usual=_RISES,
    ),
    _row(
        name="margin_mean_nats", unit="nats", low=-_INF, high=_INF, direction=1,
        formula="mean over items of ln p(best right option) - ln p(best wrong option), last cue",
        sentence="right options lead wrong ones by {value} on average", remedy=_DATA,
    ),
    _row(
        name="margin_sd_nats", unit="nats", low=0, high=_INF, direction=0,
        formula="standard deviation of the margins, last cue",
        sentence="the lead of right options varies by {value} between items",
    ),
    _row(
        name="margin_q25_nats", unit="nats", low=-_INF, high=_INF, direction=1,
        formula="lower quartile of the margins, last cue",
        sentence="a quarter of the items have a margin below {value}", remedy=_DATA,
    ),
    _row(
        name="margin_median_nats", unit="nats", low=-_INF, high=_INF, direction=1,
        formula="median of the margins, last cue",
        sentence="half of the items have a margin below {value}", remedy=_DATA,
    ),
    _row(
        name="margin_q75_nats", unit="nats", low=-_INF, high=_INF, direction=1,
        formula="upper quartile of the margins, last cue",
        sentence="a quarter of the items have a margin above {value}", remedy=_DATA,
    ),
    _row(
        name="margin_near_zero_fraction", unit="fraction", low=0, high=1, direction=0,
        formula="share of items with |margin| < 0.25 nats, last cue",
        sentence="{value} of the items could still fall either way",
    ),
    _free(
        name="margin_close_fraction", unit="fraction", low=0, high=1, direction=0,
        formula="share of items with |margin| < 0.25 x margin_sd_nats, last cue",
        sentence="{value} of the items could still fall either way, by the spread of all",
    ),
    _free(
        name="margin_mean_over_sd", unit="ratio", low=-_INF, high=_INF, direction=1,
        formula="margin_mean_nats / margin_sd_nats",
        sentence="the mean lead of right options is {value} of its spread", remedy=_DATA,
    ),
    _free(
        name="margin_shift", unit="ratio", low=-_INF, high=_INF, direction=1,
        formula="mean change of the margins since step 0 / their standard deviation at step 0",
        sentence="the lead of right options moved by {value} of the base's spread",
        remedy=_LABELS, usual=_RISES,
    ),
    _free(
        name="margin_sd_ratio", unit="ratio", low=0, high=_INF, direction=0,
        formula="margin_sd_nats / standard deviation of the margins at step 0",
        sentence="margins spread {value} times as wide as the base's",
    ),
)

_KEPT = (
    _row(
        name="known_margin_change_nats", unit="nats", low=-_INF, high=_INF, direction=1,
        formula="mean change of the margin since step 0 over the items the base answers right",
        sentence="where the base was right its lead changed by {value}", remedy=_RATE, usual=_RISES,
    ),
    _free(
        name="known_margin_change_sd", unit="ratio", low=-_INF, high=_INF, direction=1,
        formula="known_margin_change_nats / standard deviation of the margins at step 0",
        sentence="where the base was right its lead changed by {value} of the spread",
        remedy=_RATE, usual=_RISES,
    ),
    _free(
        name="known_kept_fraction", unit="fraction", low=0, high=1, direction=1,
        formula="share of the items the base answers right that are still right at the last cue",
        sentence="{value} of what the base answers right is still right", remedy=_RATE,
    ),
    _free(
        name="unknown_learned_fraction", unit="fraction", low=0, high=1, direction=1,
        formula="share of the items the base answers wrong that are right at the last cue",
        sentence="{value} of what the base answers wrong is now right", remedy=_DATA,
    ),
    _free(
        name="base_agreement_fraction", unit="fraction", low=0, high=1, direction=0,
        formula="share of items right both at step 0 and at the last cue, or wrong at both",
        sentence="{value} of the items come out as with the base",
    ),
    _free(
        name="base_margin_correlation", unit="ratio", low=-1, high=1, direction=0,
        formula="Pearson correlation of the margins at step 0 and at the last cue",
        sentence="margins correlate with the base's at {value}", remedy=_RATE, remedy_side=-1,
    ),
    _free(
        name="churn_fraction", unit="fraction", low=0, high=1, direction=-1,
        formula="share of items whose right/wrong differs between the last two cues",
        sentence="{value} of the items changed sides between the last two looks", remedy=_RATE,
    ),
    _row(
        name="subject_score_sd_pp", unit="pp", low=0, high=50, direction=0,
        formula="standard deviation over subjects (of 3 items or more) of the score at the last cue",
        sentence="subjects differ by {value} in their score",
        remedy="add rows for the weakest subjects", remedy_side=1,
    ),
    _row(
        name="subject_worst_fall_pp", unit="pp", low=0, high=100, direction=-1,
        formula="largest fall of a subject's score since step 0, 0 when none fell (subjects of 3 items or "
        "more)",
        sentence="the subject that suffers most lost {value}",
        remedy="mix in rows of the subject that falls, or lower the learning rate",
    ),
    _free(
        name="subjects_improved_fraction", unit="fraction", low=0, high=1, direction=1,
        formula="share of subjects (of 3 items or more) whose score rose since step 0",
        sentence="{value} of the subjects improved", remedy=_DATA,
    ),
)

CUE: tuple[FeatureSpec, ...] = _SCORES + _MARGINS + _KEPT + PROJECTION
