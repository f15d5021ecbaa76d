"""The recipe that a Trainer follows, read from its arguments, its model and its adapters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from tuneahead.errors import RecipeError
from tuneahead.integrations.live import LiveAdapter
from tuneahead.recipe import Precision, Recipe, Schedule, make_recipe
from tuneahead.training.lora import layer_names

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from peft.tuners.lora import LoraLayer
    from transformers import Trainer

_SCHEDULES: dict[str, Schedule] = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant",
}


def trainer_recipe(
    trainer: Trainer, model: PeftModel, adapter: LiveAdapter
) -> tuple[Recipe, tuple[tuple[str, str], ...]]:
    """The recipe, and (field, reason) for what it can't express. ``batch_size`` counts all processes."""
    args, total = trainer.args, trainer.state.max_steps
    layer = cast("LoraLayer", model.get_base_model().get_submodule(adapter.pairs[0][0]))
    # A model may hold adapters that do not take part.
    active = next(name for name in layer.active_adapters if name in layer.lora_A)
    config = cast("LoraConfig", model.peft_config[active])
    rank = int(config.r)
    name = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
    notes = []
    if name not in _SCHEDULES:
        notes.append(("schedule", f"a recipe has no {name!r}; measured learning rates are in the trace"))
    if "adamw" not in str(getattr(args.optim, "value", args.optim)):
        notes.append(("optimiser", f"a recipe means AdamW, this run has {args.optim}"))
    window = getattr(args, "max_length", None) or adapter.base.context_tokens
    given = float(args.warmup_steps or 0.0)
    warmup = 0 if name == "constant" else args.get_warmup_steps(total)
    fields: dict[str, object] = {
        "learning_rate": args.learning_rate,
        "schedule": _SCHEDULES.get(name, "linear"),
        # Below 1 it is a ratio already.
        "warmup_ratio": given if warmup and given < 1 else _ratio(warmup, total),
        # auto_find_batch_size lowers that of the state only.
        "batch_size": (trainer.state.train_batch_size or args.train_batch_size) * args.world_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "epochs": args.num_train_epochs,
        "max_steps": args.max_steps if args.max_steps > 0 else None,
        "lora_rank": rank,
        # PEFT's own scale is alpha / r, or alpha / sqrt(r) with rslora: kept is what acts. The layer's own
        # rank, which a rank pattern may have set.
        "lora_alpha": float(layer.scaling[active]) * int(layer.r[active]),
        "lora_dropout": float(config.lora_dropout),
        "target_modules": _targets(adapter),
        "weight_decay": args.weight_decay,
        # 0 and less turn clipping off; infinity only has the norm logged.
        "max_grad_norm": args.max_grad_norm if 0 < (args.max_grad_norm or 0) < math.inf else None,
        "adam_beta1": args.adam_beta1,
        "adam_beta2": args.adam_beta2,
        "adam_epsilon": args.adam_epsilon,
        "precision": _precision(trainer, adapter),
        "max_length": max(2, int(window)),
        "seed": args.seed,
    }
    for field, value in list(fields.items()):
        try:
            make_recipe({field: value})
        except RecipeError:
            # An observer does not end a run for a setting that a recipe has no room for.
            notes.append((field, f"a recipe can't hold {value!r}"))
            del fields[field]
    return make_recipe(fields), tuple(notes)


def _ratio(warmup: int, total: int) -> float:
    """A ratio from which a recipe finds the same number of warm-up steps."""
    ratio = min(warmup, total - 1) / total if total > 0 else 0.0
    return ratio if math.ceil(ratio * total) == warmup else max(0.0, (warmup - 0.5) / total)


def _targets(adapter: LiveAdapter) -> tuple[str, ...]:
    adapted = {name for name, _, _ in adapter.pairs}
    plain = [
        name
        for name in layer_names(adapter.base)
        if ".lora_" not in name and name.removesuffix(".base_layer") not in adapted
    ]
    return tuple(sorted({name.rsplit(".", 1)[-1] for name in adapted})) if plain else ("all-linear",)


def _precision(trainer: Trainer, adapter: LiveAdapter) -> Precision:
    if trainer.args.bf16 or trainer.args.fp16:
        return "bf16" if trainer.args.bf16 else "fp16"
    names: dict[str, Precision] = {"torch.float32": "fp32", "torch.bfloat16": "bf16", "torch.float16": "fp16"}
    return names.get(str(adapter.base.dtype), "auto")
