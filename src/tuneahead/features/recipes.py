"""Recipe features: the hyper-parameters as numbers, raw and relative to the data."""

from __future__ import annotations

import math

from tuneahead.features.featurespec import Value
from tuneahead.recipe import Recipe, leaf_names
from tuneahead.trace import ProbeTrace

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a decoder block in the naming of Llama, Qwen, Gemma and Mistral."""


UNKNOWN_SETTING = "setting "
"""Begins the name of an absent measurement that is a setting of the recipe, as in ``setting lora_rank``."""
OTHER_OPTIMISER = UNKNOWN_SETTING + "optimiser"
"""Names that of a run whose optimiser is not AdamW."""
_SETTLING = ("projected_settling_trend_gain", "projected_settling_drift_gain")
_PROJECTED = (
    *("projected_trend_short_gain", "projected_trend_gain", "projected_drift_short_gain"),
    *("projected_drift_gain", "projected_growth_gain", "margin_growth_exponent", "rate_growth_ln"),
    *_SETTLING,
)
_RATES = ("rate_sum_log10", "scaled_rate_sum_log10", "rate_left_fraction", *_PROJECTED)
_OF_RATE = (
    *("learning_rate_log10", "scaled_rate_log10", "rate_per_row_log10"),
    *("rate_sum_log10", "scaled_rate_sum_log10", *_SETTLING),
)
_ROWS_OF_A_STEP = (
    "rate_per_row_log10",
    "rows_per_step_log10",
    "rows_trained_log10",
    "full_epochs",
    "batch_fraction",
)
DEPENDS_ON: dict[str, tuple[str, ...]] = {
    "learning_rate": _OF_RATE,
    "optimiser": (*_OF_RATE, *_RATES, "weight_decay"),
    "schedule": (*_RATES, "schedule_linear", "schedule_cosine", "schedule_constant"),
    "warmup_ratio": (*_RATES, "warmup_fraction"),
    "batch_size": _ROWS_OF_A_STEP,
    "gradient_accumulation_steps": _ROWS_OF_A_STEP,
    "lora_rank": ("scaled_rate_log10", "scaled_rate_sum_log10", "lora_rank_log2", "lora_scale"),
    "lora_alpha": ("scaled_rate_log10", "scaled_rate_sum_log10", "lora_scale"),
    "lora_dropout": ("lora_dropout",),
    "weight_decay": ("weight_decay",),
    "max_grad_norm": ("clipping", "clip_norm", "clipped_fraction"),
    "max_length": ("window_log2",),
    "target_modules": ("targeted_fraction",),
    "train_rows": ("rows_trained_log10", "full_epochs", "batch_fraction"),
    # Shares of the data are the same in lines as in rows.
    **dict.fromkeys(
        ("packing", "sample_packing", "neat_packing"),
        ("rate_per_row_log10", "rows_per_step_log10", "rows_trained_log10"),
    ),
}
"""Features that need a setting: they are absent where a trace says that it is not known."""


def unknown_settings(trace: ProbeTrace) -> dict[str, str]:
    """Names of the features that this trace can't give because a setting is not known, with the reason."""
    reasons = {
        name.removeprefix(UNKNOWN_SETTING): why
        for name, why in trace.absent
        if name.startswith(UNKNOWN_SETTING)
    }
    if trace.info.train_rows < 1:
        why = next((why for name, why in trace.absent if name == "train rows"), "no training row")
        reasons.setdefault("train_rows", why)
    return {
        feature: f"{setting} is not known: {why}"
        for setting, why in reasons.items()
        for feature in DEPENDS_ON.get(setting, ())
    }


def measure_recipe(
    recipe: Recipe, total_steps: int, train_rows: int, parameters: int | None = None
) -> dict[str, Value]:
    """Every recipe feature by name; ``parameters`` counts the trained weights, when known."""
    steps, rows = max(1, total_steps), max(1, train_rows)
    per_epoch = recipe.steps_per_epoch(rows)
    scale = recipe.lora_alpha / recipe.lora_rank
    rate_sum = sum(recipe.learning_rate_at(step, steps) for step in range(steps))
    # A schedule that never leaves 0 (one warm-up step alone) has no logarithm.
    swept = math.log10(rate_sum) if rate_sum > 0 else "the learning rate is 0 throughout"
    return {
        "learning_rate_log10": math.log10(recipe.learning_rate),
        "scaled_rate_log10": math.log10(recipe.learning_rate * scale),
        "rate_per_row_log10": math.log10(recipe.learning_rate / recipe.rows_per_step),
        "rate_sum_log10": swept,
        "scaled_rate_sum_log10": swept if isinstance(swept, str) else swept + math.log10(scale),
        "total_steps_log10": math.log10(steps),
        "rows_per_step_log10": math.log10(recipe.rows_per_step),
        "rows_trained_log10": math.log10(steps * min(rows, recipe.rows_per_step)),
        "full_epochs": steps / per_epoch,
        "batch_fraction": min(1.0, recipe.rows_per_step / rows),
        "lora_rank_log2": math.log2(recipe.lora_rank),
        "lora_scale": scale,
        "lora_dropout": recipe.lora_dropout,
        "weight_decay": recipe.weight_decay,
        "warmup_fraction": recipe.warmup_steps(steps) / steps,
        "schedule_linear": float(recipe.schedule == "linear"),
        "schedule_cosine": float(recipe.schedule == "cosine"),
        "schedule_constant": float(recipe.schedule == "constant"),
        "clipping": float(recipe.max_grad_norm is not None),
        "clip_norm": "clipping is off" if recipe.max_grad_norm is None else recipe.max_grad_norm,
        "window_log2": math.log2(recipe.max_length),
        "targeted_fraction": _targeted(recipe.target_modules),
        "trained_parameters_log10": math.log10(parameters)
        if parameters
        else "the number of trained weights is known once the probe has begun",
    }


def _targeted(modules: tuple[str, ...]) -> Value:
    if "all-linear" in modules:
        return 1.0
    known = leaf_names(modules) & set(PROJECTIONS)
    return len(known) / len(PROJECTIONS) if known else f"no usual projection among {', '.join(modules)}"
