"""Catalogue rows of the recipe."""

from __future__ import annotations

import math
from functools import partial

from tuneahead.features.featurespec import FeatureSpec

_INF = math.inf
_row = partial(FeatureSpec, group="recipe", direction=0)
_METHOD = "ours, after arXiv 2606.17660 (hyper-parameters as inputs)"
_RATE = "compare a third and three times the learning rate in one ranking"
_LENGTH = "compare fewer and more steps in one ranking"
_CLIP = "set max_grad_norm to 1, which is usual"
_RANK = "compare a rank of 4, 8 and 16 at the same alpha / rank"

RECIPE: tuple[FeatureSpec, ...] = (
    _row(
        name="learning_rate_log10", unit="log10", low=-_INF, high=_INF, source=_METHOD,
        formula="log10 of the peak learning rate",
        sentence="the learning rate is {value}", remedy=_RATE,
    ),
    _row(
        name="scaled_rate_log10", unit="log10", low=-_INF, high=_INF, source="ours",
        formula="log10 of learning rate x alpha / rank", scale_free=True,
        sentence="learning rate times LoRA scale is {value}", remedy=_RATE,
    ),
    _row(
        name="rate_per_row_log10", unit="log10", low=-_INF, high=_INF, source="ours",
        formula="log10 of learning rate / rows per step",
        sentence="the learning rate per row of a batch is {value}", remedy=_RATE,
    ),
    _row(
        name="rate_sum_log10", unit="log10", low=-_INF, high=_INF, source="ours",
        formula="log10 of the sum of the learning rates of all steps of the full run",
        sentence="the learning rates of the whole run sum to {value}", remedy=_LENGTH,
    ),
    _row(
        name="scaled_rate_sum_log10", unit="log10", low=-_INF, high=_INF, source="ours", scale_free=True,
        formula="rate_sum_log10 + log10(alpha / rank)",
        sentence="the scaled learning rates of the whole run sum to {value}", remedy=_LENGTH,
    ),
    _row(
        name="total_steps_log10", unit="log10", low=0, high=_INF, source=_METHOD,
        formula="log10 of the optimiser steps of the full run",
        sentence="the full run has {value} steps", remedy=_LENGTH,
    ),
    _row(
        name="rows_per_step_log10", unit="log10", low=0, high=_INF, source=_METHOD,
        formula="log10 of batch size x gradient accumulation steps",
        sentence="a step sees {value} rows",
        remedy="noisy gradients ask for a larger batch, few steps for a smaller one",
    ),
    _row(
        name="rows_trained_log10", unit="log10", low=0, high=_INF, source="ours",
        formula="log10 of total steps x min(rows per step, training rows)",
        sentence="the full run looks at {value} rows", remedy=_LENGTH,
    ),
    _row(
        name="full_epochs", unit="epochs", low=0, high=_INF, source="ours",
        formula="total steps / steps per epoch", scale_free=True,
        sentence="the full run takes {value} over the data",
        remedy="beyond a few epochs rows are learned by heart: fewer steps or more rows", remedy_side=1,
    ),
    _row(
        name="batch_fraction", unit="fraction", low=0, high=1, source="ours", scale_free=True,
        formula="min(1, rows per step / training rows)",
        sentence="one step sees {value} of the data",
        remedy="collect more rows: a step that sees all of them leaves no noise to learn from", remedy_side=1,
    ),
    _row(
        name="lora_rank_log2", unit="log2", low=0, high=_INF, source=_METHOD,
        formula="log2 of the LoRA rank r", sentence="the LoRA rank is {value}", remedy=_RANK,
    ),
    _row(
        name="lora_scale", unit="ratio", low=0, high=_INF, source="ours", scale_free=True,
        formula="alpha / rank", sentence="adapter outputs are multiplied by {value}",
        remedy="keep alpha / rank between 1 and 4 and tune the learning rate instead", usual=(1, 4),
    ),
    _row(
        name="lora_dropout", unit="fraction", low=0, high=1, source=_METHOD, scale_free=True,
        formula="dropout on the adapters' input", sentence="LoRA dropout is {value}",
        remedy="",
    ),
    _row(
        name="weight_decay", unit="ratio", low=0, high=_INF, source=_METHOD, scale_free=True,
        formula="decoupled weight decay of AdamW", sentence="weight decay is {value}",
        # No advice: over short LoRA runs its effect is too small for a remedy to be worth anybody's time.
        remedy="",
    ),
    _row(
        name="warmup_fraction", unit="fraction", low=0, high=1, source=_METHOD, scale_free=True,
        formula="warm-up steps / total steps", sentence="{value} of the run are warm-up",
        remedy="set warmup_ratio between 0.03 and 0.1, which is usual", usual=(0.03, 0.1),
    ),
    _row(
        name="schedule_linear", unit="flag", low=0, high=1, source=_METHOD, scale_free=True,
        formula="1 when the learning rate falls linearly, else 0",
        sentence="the schedule is linear: {value}",
    ),
    _row(
        name="schedule_cosine", unit="flag", low=0, high=1, source=_METHOD, scale_free=True,
        formula="1 when the learning rate falls as a cosine, else 0",
        sentence="the schedule is cosine: {value}",
    ),
    _row(
        name="schedule_constant", unit="flag", low=0, high=1, source=_METHOD, scale_free=True,
        formula="1 when the learning rate stays after warm-up, else 0",
        sentence="the schedule is constant: {value}",
        remedy="try schedule linear or cosine: a rate that falls to 0 usually ends better", remedy_side=1,
    ),
    _row(
        name="clipping", unit="flag", low=0, high=1, source=_METHOD, scale_free=True,
        formula="1 when the gradient norm is clipped, else 0",
        sentence="gradients are clipped: {value}",
        remedy=_CLIP, remedy_side=-1,
    ),
    _row(
        name="clip_norm", unit="", low=0, high=_INF, source=_METHOD,
        formula="threshold of the gradient norm; absent when clipping is off",
        sentence="gradients are clipped to a norm of {value}", remedy=_CLIP, usual=(1, 1),
    ),
    _row(
        name="window_log2", unit="log2", low=1, high=_INF, source="ours",
        formula="log2 of max_length in tokens", sentence="rows are cut at {value} tokens",
        remedy="raise max_length when preflight reports cut answers", remedy_side=-1,
    ),
    _row(
        name="targeted_fraction", unit="fraction", low=0, high=1, source="ours",
        formula="share of the seven projections of a decoder block (q, k, v, o, gate, up, down) that are "
        "adapted; "
        "1 for all-linear", scale_free=True,
        sentence="{value} of the usual layers are adapted",
        remedy="adapt all linear layers (target_modules: all-linear)", remedy_side=-1,
    ),
    _row(
        name="trained_parameters_log10", unit="log10", low=0, high=_INF, source="ours",
        formula="log10 of the number of trained weights (from the trace)",
        sentence="{value} weights are trained", remedy=_RANK,
    ),
)
