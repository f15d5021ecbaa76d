"""Catalogue rows of the probe's gradients and of the adapter's movement."""

from __future__ import annotations

import math
from functools import partial

from tuneahead.features.featurespec import FeatureSpec

_INF = math.inf
_row = partial(FeatureSpec, group="dynamic", source="ours")
_free = partial(_row, scale_free=True)
_NOTES = "arXiv 2606.17660, gradient signals"
_MOVEMENT = "arXiv 2606.17660, generalization cues"
_NOISE_SCALE = "McCandlish et al. 2018 (arXiv 1812.06162), estimated from successive steps"

_RATE = "lower the learning rate (a third, then a tenth) or lengthen the warm-up"
_COMPARE = "compare a third and three times the learning rate in one ranking"
_BATCH = "use a larger batch or more gradient accumulation"
_LABELS = "rows pull in different directions: look for contradictory or scrambled answers"
_CLIP = "set max_grad_norm to 1 and lower the learning rate"

GRADIENT: tuple[FeatureSpec, ...] = (
    _row(
        name="grad_norm_mean", unit="", low=0, high=_INF, direction=0, source=_NOTES, paper=True,
        formula="mean over steps of the gradient norm before clipping",
        sentence="the gradient norm is {value} on average", remedy=_RATE, remedy_side=1,
    ),
    _row(
        name="grad_norm_variance", unit="", low=0, high=_INF, direction=-1, source=_NOTES, paper=True,
        formula="variance over steps of the gradient norm before clipping",
        sentence="the gradient norm has a variance of {value}", remedy=_RATE,
    ),
    _free(
        name="grad_norm_cv", unit="ratio", low=0, high=_INF, direction=-1,
        formula="standard deviation / mean of the gradient norm",
        sentence="the gradient norm varies by {value} of its mean", remedy=_BATCH,
    ),
    _free(
        name="grad_norm_growth", unit="ratio", low=0, high=_INF, direction=-1,
        formula="mean gradient norm of the last fifth of the steps / of the first 10",
        sentence="the gradient norm ends at {value} times its beginning", remedy=_RATE,
    ),
    _free(
        name="grad_norm_peak_ratio", unit="ratio", low=1, high=_INF, direction=-1,
        formula="largest gradient norm / median gradient norm",
        sentence="the largest gradient is {value} times the usual one", remedy=_CLIP,
    ),
    _free(
        name="clipped_fraction", unit="fraction", low=0, high=1, direction=-1,
        formula="share of steps whose gradient norm exceeds max_grad_norm; 0 when clipping is off",
        sentence="gradients were clipped in {value} of the steps", remedy=_RATE,
    ),
    _row(
        name="grad_consistency", unit="ratio", low=-1, high=1, direction=1, source=_NOTES, paper=True,
        formula="mean cosine of successive gradients: g_t . g_(t-1) / (|g_t| |g_(t-1)|)", scale_free=True,
        sentence="successive gradients agree at {value} (1 is the same direction)", remedy=_LABELS,
    ),
    _free(
        name="grad_consistency_late", unit="ratio", low=-1, high=1, direction=1,
        formula="grad_consistency over the second half of the steps",
        sentence="late in the probe successive gradients agree at {value}", remedy=_LABELS,
    ),
    _free(
        name="grad_mean_cosine", unit="ratio", low=-1, high=1, direction=1,
        formula="mean cosine of a gradient and the running mean (decay 0.9) of those before",
        sentence="gradients agree with their past at {value}", remedy=_LABELS,
    ),
    _free(
        name="grad_conflict_fraction", unit="fraction", low=0, high=1, direction=-1,
        formula="share of steps whose gradient has a negative inner product with the one before",
        sentence="{value} of the gradients oppose the one before", remedy=_LABELS,
    ),
    _free(
        name="grad_noise_ratio", unit="ratio", low=0, high=2, direction=-1, source=_NOISE_SCALE,
        formula="1 - mean(g_t . g_(t-1)) / mean((|g_t|^2 + |g_(t-1)|^2) / 2)",
        sentence="{value} of the gradient's power changes from one step to the next (noise of the batch, and "
        "the model's own movement)", remedy=_BATCH,
    ),
    _free(
        name="grad_noise_scale_log10", unit="log10", low=-_INF, high=_INF, direction=-1, source=_NOISE_SCALE,
        formula="log10 of the recipe's rows per step x n / (1 - n), n = grad_noise_ratio; absent unless "
        "0 < n < 1; what moves with the model counts as noise",
        sentence="if all that changes from step to step were noise, a batch of {value} rows would have as "
        "much signal as noise", remedy=_BATCH,
    ),
    _row(
        name="grad_sparsity_fraction", unit="fraction", low=0, high=1, direction=0, source=_NOTES, paper=True,
        formula="mean over steps of the share of gradient entries below 1 % of their root mean square; until "
        "the first step that moves the adapter half of LoRA's entries are exactly 0 and count, which weighs "
        "more in a short probe", scale_free=True,
        sentence="{value} of the gradient's entries are next to nothing", remedy=_COMPARE,
        remedy_side=1,
    ),
    _free(
        name="layer_grad_evenness", unit="fraction", low=0, high=1, direction=0,
        formula="entropy of the layers' shares of the squared gradient norm / ln(layers)",
        sentence="the gradient is spread over the layers to {value} of evenness",
    ),
    _free(
        name="layer_grad_top_fraction", unit="fraction", low=0, high=1, direction=0,
        formula="largest share of a layer in the squared gradient norm",
        sentence="one layer takes {value} of the gradient's power",
    ),
    _free(
        name="layer_grad_depth", unit="fraction", low=0, high=1, direction=0,
        formula="mean depth (0 first layer, 1 last) weighted by the layers' shares",
        sentence="the gradient's centre lies at {value} of the depth",
    ),
    _row(
        name="parameter_change_norm", unit="", low=0, high=_INF, direction=0, source=_MOVEMENT, paper=True,
        formula="norm of the adapter minus its start, at the probe's end",
        sentence="the adapter moved by {value}", remedy=_RATE, remedy_side=1,
    ),
    _free(
        name="distance_per_rate", unit="ratio", low=0, high=_INF, direction=0,
        formula="parameter_change_norm / (sum of learning rates x root of the trained weights)",
        sentence="the adapter moved {value} of what its learning rate allows",
    ),
    _free(
        name="path_straightness", unit="fraction", low=0, high=1, direction=0,
        formula="parameter_change_norm / sum of the update norms",
        sentence="{value} of the adapter's way led away from its start", remedy=_RATE, remedy_side=-1,
    ),
    _free(
        name="update_per_distance", unit="ratio", low=0, high=_INF, direction=0,
        formula="mean update norm of the last fifth of the steps / parameter_change_norm",
        sentence="a late step moves the adapter by {value} of its whole way", remedy=_RATE, remedy_side=1,
    ),
    _free(
        name="distance_exponent", unit="ratio", low=-_INF, high=_INF, direction=0,
        formula="least-squares slope of ln distance on ln step (from 1); 0.5 wanders, 1 goes straight",
        sentence="the distance from the start grows with the steps to the power {value}",
    ),
    _row(
        name="flatness_rise_nats", unit="nats/token", low=-_INF, high=_INF, direction=-1, source=_MOVEMENT,
        paper=True,
        formula="mean rise of the loss when each adapter matrix is moved by the largest measured share of "
        "its norm in random directions; on the first 32 training rows in the data's order, 16 for a base of "
        "50 M parameters or more",
        sentence="shaking the adapter raises the loss by {value}", remedy=_RATE,
    ),
    _free(
        name="flatness_rise_ratio", unit="ratio", low=-1, high=_INF, direction=-1,
        formula="flatness_rise_nats / loss of the adapter unshaken",
        sentence="shaking the adapter raises the loss by {value} of itself", remedy=_RATE,
    ),
    _row(
        name="flatness_small_rise_nats", unit="nats/token", low=-_INF, high=_INF, direction=-1,
        formula="the same for the smallest measured share",
        sentence="shaking the adapter a little raises the loss by {value}", remedy=_RATE,
    ),
    _row(
        name="flatness_spread_nats", unit="nats/token", low=0, high=_INF, direction=0,
        formula="standard deviation of the shaken loss over directions, largest share",
        sentence="the loss under shaking varies by {value} with the direction",
    ),
)
