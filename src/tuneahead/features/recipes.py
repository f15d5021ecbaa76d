"""Recipe features: the hyper-parameters as numbers, raw and relative to the data."""

from __future__ import annotations

import math

from tuneahead.features.featurespec import Value
from tuneahead.recipe import Recipe

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a decoder block in the naming of Llama, Qwen, Gemma and Mistral."""


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
    known = {name.rsplit(".", 1)[-1] for name in modules} & set(PROJECTIONS)
    return len(known) / len(PROJECTIONS) if known else f"no usual projection among {', '.join(modules)}"
