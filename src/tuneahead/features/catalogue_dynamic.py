"""Catalogue rows of the probe's loss, texts and training rows."""

from __future__ import annotations

import math
from functools import partial

from tuneahead.features.catalogue_gradient import GRADIENT
from tuneahead.features.catalogue_static import MISMATCH
from tuneahead.features.featurespec import FeatureSpec

_INF = math.inf
_row = partial(FeatureSpec, group="dynamic", source="ours")
_free = partial(_row, scale_free=True)
_NOTES = "arXiv 2606.17660, loss dynamics"
_CARTOGRAPHY = "Swayamdipta et al. 2020 (arXiv 2009.10795)"

_RATE = "lower the learning rate (a third, then a tenth) or lengthen the warm-up"
# A rate far too high ends with a high loss as well as one far too low: only a comparison tells them apart.
_LEARN = (
    "check that answers follow from their prompts; if they do, compare a third and three times the learning "
    "rate in one ranking"
)
_NOISE = "use a larger batch, and look for wrong or contradictory answers"
_FORGET = "lower the learning rate, take fewer steps or mix in general text"
_OVERFIT = "take fewer epochs, add rows, or use dropout and a smaller rank"

_LOSS = (
    _free(
        name="non_finite_fraction", unit="fraction", low=0, high=1, direction=-1,
        formula="share of recorded steps whose loss or gradient norm is not finite",
        sentence="{value} of the steps had a loss or gradient that is not a number", remedy=_RATE,
    ),
    _row(
        name="initial_loss_nats", unit="nats/token", low=0, high=_INF, direction=-1, source=_NOTES,
        paper=True,
        formula="summed loss / answer tokens over the first 3 steps",
        sentence="the loss begins at {value}", remedy=MISMATCH,
    ),
    _row(
        name="loss_decay_slope", unit="nats/100 steps", low=-_INF, high=_INF, direction=-1, source=_NOTES,
        paper=True, formula="100 x least-squares slope of the loss on the step number",
        sentence="the loss changes by {value}", remedy=_LEARN,
    ),
    _row(
        name="loss_variance_nats2", unit="nats²", low=0, high=_INF, direction=0, source=_NOTES, paper=True,
        formula="mean((L_t - mean L)^2) over all steps",
        sentence="the loss varies by {value}", remedy=_NOISE, remedy_side=1,
    ),
    _row(
        name="loss_end_nats", unit="nats/token", low=0, high=_INF, direction=-1,
        formula="summed loss / answer tokens over the last fifth of the steps (at least 2)",
        sentence="the loss stands at {value} at the probe's end", remedy=_LEARN,
    ),
    _row(
        name="loss_fall_nats", unit="nats/token", low=-_INF, high=_INF, direction=1,
        formula="initial_loss_nats - loss_end_nats",
        sentence="the fall of the loss is {value}", remedy=_LEARN,
    ),
    _free(
        name="loss_end_ratio", unit="ratio", low=0, high=_INF, direction=-1,
        formula="loss_end_nats / initial_loss_nats",
        sentence="the loss ends at {value} times its beginning", remedy=_LEARN,
    ),
    _free(
        name="loss_max_ratio", unit="ratio", low=0, high=_INF, direction=-1,
        formula="largest loss of a step / initial_loss_nats",
        sentence="the worst step's loss is {value} times the beginning", remedy=_RATE,
    ),
    _free(
        name="loss_cv", unit="ratio", low=0, high=_INF, direction=0,
        formula="standard deviation of the loss / mean loss, over steps",
        sentence="the loss varies by {value} of its mean", remedy=_NOISE, remedy_side=1,
    ),
    _row(
        name="loss_slope_early", unit="nats/100 steps", low=-_INF, high=_INF, direction=-1,
        formula="100 x least-squares slope of the loss over the first half of the steps",
        sentence="in the first half the loss changes by {value}", remedy=_LEARN,
    ),
    _row(
        name="loss_slope_late", unit="nats/100 steps", low=-_INF, high=_INF, direction=0,
        formula="100 x least-squares slope of the loss over the second half of the steps",
        sentence="in the second half the loss changes by {value}", remedy=_LEARN, remedy_side=1,
    ),
    _row(
        name="loss_curvature_nats", unit="nats", low=-_INF, high=_INF, direction=0,
        formula="a of the least-squares parabola a u^2 + b u + c, u from 0 to 1 over the probe",
        sentence="the loss curve bends by {value}",
    ),
    _free(
        name="loss_power_exponent", unit="ratio", low=-_INF, high=_INF, direction=1,
        formula="minus the least-squares slope of ln loss on ln step (from 1)",
        sentence="the loss falls with the steps to the power {value}", remedy=_LEARN,
    ),
    _free(
        name="loss_noise_ratio", unit="ratio", low=0, high=_INF, direction=-1,
        formula="root of half the mean squared difference of neighbouring losses / mean loss",
        sentence="from step to step the loss jumps by {value} of its mean", remedy=_NOISE,
    ),
    _free(
        name="loss_autocorrelation", unit="ratio", low=-1, high=1, direction=0,
        formula="lag-1 autocorrelation of the loss after taking out its straight line",
        sentence="neighbouring losses correlate at {value}",
    ),
    _free(
        name="loss_spike_fraction", unit="fraction", low=0, high=1, direction=-1,
        formula="share of steps (from the 6th) whose loss exceeds 1.5 x the median of up to 10 steps before",
        sentence="the loss spikes in {value} of the steps", remedy=_RATE,
    ),
)

_TEXTS = (
    _row(
        name="forgetting_nats", unit="nats/token", low=-_INF, high=_INF, direction=-1, paper=True,
        source="ours, with the nine that arXiv 2606.17660 names",
        formula="loss on the reference text at the last cue minus that at step 0",
        sentence="the loss on general text changed by {value}", remedy=_FORGET,
    ),
    _free(
        name="forgetting_ratio", unit="ratio", low=0, high=_INF, direction=-1,
        formula="loss on the reference text at the last cue / that at step 0",
        sentence="the loss on general text is {value} times the base's", remedy=_FORGET,
    ),
    _row(
        name="heldout_start_nats", unit="nats/token", low=0, high=_INF, direction=-1,
        formula="the base's loss on the held-out rows (cue at step 0); of a base of 50 M parameters or more "
        "on the first 24 of them in the data's order",
        sentence="the base's loss on held-out rows is {value}", remedy=MISMATCH,
    ),
    _row(
        name="heldout_end_nats", unit="nats/token", low=0, high=_INF, direction=-1,
        formula="loss on the same held-out rows at the last cue",
        sentence="the loss on held-out rows ends at {value}", remedy=_LEARN,
    ),
    _free(
        name="heldout_end_ratio", unit="ratio", low=0, high=_INF, direction=-1,
        formula="heldout_end_nats / heldout_start_nats",
        sentence="the loss on held-out rows ends at {value} times the base's", remedy=_LEARN,
    ),
    _free(
        name="heldout_rebound_ratio", unit="ratio", low=0, high=_INF, direction=-1,
        formula="(heldout_end_nats - lowest held-out loss of all cues) / heldout_start_nats",
        sentence="the loss on held-out rows rose again by {value} of the base's", remedy=_OVERFIT,
    ),
    _row(
        name="heldout_gap_nats", unit="nats/token", low=-_INF, high=_INF, direction=-1,
        formula="heldout_end_nats - loss_end_nats",
        sentence="held-out rows lose {value} more than training rows", remedy=_OVERFIT,
    ),
    _free(
        name="heldout_gap_ratio", unit="ratio", low=-_INF, high=_INF, direction=-1,
        formula="heldout_gap_nats / heldout_start_nats",
        sentence="held-out rows lose more than training rows by {value} of the base's loss", remedy=_OVERFIT,
    ),
)

_ROWS = (
    _row(
        name="confidence_mean", unit="fraction", low=0, high=1, direction=1, source=_CARTOGRAPHY,
        formula="mean over visited rows of their mean confidence; confidence = exp(-nll / tokens) at a visit",
        sentence="answers have a mean probability of {value} per token", remedy=_LEARN,
    ),
    _row(
        name="confidence_end", unit="fraction", low=0, high=1, direction=1, source=_CARTOGRAPHY,
        formula="mean confidence of the visits in the last fifth of the steps",
        sentence="at the probe's end answers have a probability of {value} per token", remedy=_LEARN,
    ),
    _row(
        name="easy_rows_fraction", unit="fraction", low=0, high=1, direction=0, source=_CARTOGRAPHY,
        formula="share of visited rows whose confidence at their last visit is 0.75 or more",
        sentence="{value} of the rows are easy for the model",
        remedy="rows that are easy teach little: replace some by harder ones", remedy_side=1,
    ),
    _row(
        name="hard_rows_fraction", unit="fraction", low=0, high=1, direction=-1, source=_CARTOGRAPHY,
        formula="share of visited rows whose confidence at their last visit is 0.25 or less",
        sentence="{value} of the rows stay hard for the model",
        remedy="look at the hardest rows first: wrong answers gather there",
    ),
    _row(
        name="variability_mean", unit="fraction", low=0, high=0.5, direction=0, source=_CARTOGRAPHY,
        formula="mean over rows visited twice or more of the standard deviation of their confidence",
        sentence="a row's probability varies by {value} between visits",
    ),
    _row(
        name="ambiguous_rows_fraction", unit="fraction", low=0, high=1, direction=0, source=_CARTOGRAPHY,
        formula="share of rows visited twice or more whose confidence has a standard deviation above 0.2",
        sentence="{value} of the rows the model met again are ambiguous to it",
    ),
    _row(
        name="revisit_gain", unit="ratio", low=-1, high=1, direction=0,
        formula="mean over rows visited twice or more of confidence at the last minus at the first visit",
        sentence="meeting a row again finds its probability changed by {value}", remedy=_OVERFIT,
        remedy_side=1,
    ),
    _free(
        name="row_loss_cv", unit="ratio", low=0, high=_INF, direction=0,
        formula="standard deviation / mean of the rows' loss per token, second half of the visits",
        sentence="rows differ in their loss by {value} of the mean",
        remedy="look at the hardest rows first: wrong answers gather there", remedy_side=1,
    ),
    _row(
        name="row_loss_p10_nats", unit="nats/token", low=0, high=_INF, direction=-1,
        formula="10 % quantile of the rows' loss per token, second half of the visits",
        sentence="a tenth of the rows have a loss below {value}", remedy=_LEARN,
    ),
    _row(
        name="row_loss_p90_nats", unit="nats/token", low=0, high=_INF, direction=-1,
        formula="90 % quantile of the rows' loss per token, second half of the visits",
        sentence="a tenth of the rows have a loss above {value}",
        remedy="look at the hardest rows first: wrong answers gather there",
    ),
    _row(
        name="token_loss_slope_nats", unit="nats/token", low=-_INF, high=_INF, direction=-1,
        formula="least-squares slope of the rows' summed loss on their answer tokens, second half of the "
        "visits",
        sentence="each further answer token costs {value}", remedy=_LEARN,
    ),
    _row(
        name="answer_start_nats", unit="nats", low=-_INF, high=_INF, direction=-1,
        formula="intercept of that line: the loss of an answer whatever its length",
        sentence="an answer costs {value} whatever its length", remedy=_LEARN,
    ),
    _free(
        name="epochs_seen", unit="epochs", low=0, high=_INF, direction=0,
        formula="visits of training rows / training rows",
        sentence="the probe took {value} over the data",
    ),
    _free(
        name="rows_seen_fraction", unit="fraction", low=0, high=1, direction=0,
        formula="distinct training rows visited / training rows",
        sentence="the probe saw {value} of the rows",
    ),
    _free(
        name="revisit_fraction", unit="fraction", low=0, high=1, direction=0,
        formula="share of visits that met a row the probe had visited before",
        sentence="{value} of the visits were repeats", remedy=_OVERFIT, remedy_side=1,
    ),
    _free(
        name="probe_fraction", unit="fraction", low=0, high=1, direction=0,
        formula="recorded steps / steps of the full run",
        sentence="the probe is {value} of the full run",
    ),
    _free(
        name="rate_left_fraction", unit="fraction", low=0, high=1, direction=0,
        formula="sum of the learning rates after the probe / sum over the full run",
        sentence="{value} of the learning is still to come after the probe",
    ),
)

DYNAMIC: tuple[FeatureSpec, ...] = _LOSS + GRADIENT + _TEXTS + _ROWS
