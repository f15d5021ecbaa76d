"""The recipe that a Trainer follows, read from its arguments, its optimiser, its model and its adapters."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from tuneahead.errors import RecipeError
from tuneahead.features.recipes import UNKNOWN_SETTING
from tuneahead.integrations.live import LiveAdapter
from tuneahead.recipe import Precision, Recipe, Schedule, make_recipe
from tuneahead.recipenames import WITHOUT_WARM_UP
from tuneahead.training.lora import layer_names

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from peft.tuners.lora import LoraLayer
    from torch import nn
    from torch.optim import Optimizer
    from transformers import Trainer

Group = Mapping[str, Any]
"""Parameters of an optimiser with their settings."""
_SCHEDULES: dict[str, Schedule] = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant",
}
_ADAMW = re.compile(r"(Paged|NpuFused|AnyPrecision)?AdamW(\d+bit)?")
"""Classes that make AdamW's step, whatever format they keep its state in."""
_PLAIN_LOSSES = ("transformers.trainer", "trl.trainer.sft_trainer")
"""Modules whose Trainers train the loss per answer token."""
_OF_A_GROUP: dict[str, Callable[[Group], Any]] = {
    # A scheduler has moved the rate of the first step by now.
    "learning_rate": lambda group: group.get("initial_lr", group["lr"]),
    "weight_decay": lambda group: group.get("weight_decay", 0.0),
    "adam_beta1": lambda group: group["betas"][0],
    "adam_beta2": lambda group: group["betas"][1],
    "adam_epsilon": lambda group: group["eps"],
}


def trainer_recipe(
    trainer: Trainer, model: PeftModel, adapter: LiveAdapter
) -> tuple[Recipe, tuple[tuple[str, str], ...]]:
    """The recipe, and (setting, reason) for what it can't express. ``batch_size`` counts all processes.

    The settings are named as :data:`~tuneahead.features.recipes.UNKNOWN_SETTING` says.
    """
    args = trainer.args
    unknown: dict[str, str] = {**dict(_other_losses(trainer)), **dict(_other_starts(model, adapter))}
    window = getattr(args, "max_length", None) or adapter.base.context_tokens
    if getattr(args, "truncation_mode", "keep_start") != "keep_start":
        unknown["truncation_mode"] = "rows are cut from the left, a recipe cuts them from the right"
    fields: dict[str, object] = {
        **_schedule(trainer, unknown),
        # auto_find_batch_size lowers that of the state only.
        "batch_size": (trainer.state.train_batch_size or args.train_batch_size) * _batches(trainer),
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "epochs": args.num_train_epochs,
        "max_steps": args.max_steps if args.max_steps > 0 else None,
        **_lora(model, adapter, unknown),
        # 0 and less turn clipping off; infinity only has the norm logged.
        "max_grad_norm": args.max_grad_norm if 0 < (args.max_grad_norm or 0) < math.inf else None,
        **_optimiser(trainer, adapter, unknown),
        "precision": _precision(trainer, adapter),
        "max_length": max(2, int(window)),
        "seed": args.seed,
    }
    for field, value in list(fields.items()):
        try:
            make_recipe({field: value})
        except RecipeError:
            # An observer does not end a run for a setting that a recipe has no room for.
            unknown.setdefault(field, f"a recipe can't hold {value!r}")
            del fields[field]
    return make_recipe(fields), tuple((UNKNOWN_SETTING + name, why) for name, why in unknown.items())


def _batches(trainer: Trainer) -> int:
    """How many batches a forward pass of all processes takes: one for each, or one that they share."""
    return 1 if trainer.accelerator.split_batches else trainer.args.world_size


def _other_losses(trainer: Trainer) -> Iterator[tuple[str, str]]:
    """What has the run train something else than the loss of its rows as they are, in random order."""
    args = trainer.args
    order = getattr(args, "train_sampling_strategy", "random")
    if order != "random":
        yield "train_sampling_strategy", f"rows come in the order {order!r}, a recipe shuffles them"
    if args.data_seed is not None and args.data_seed != args.seed:
        yield "data_seed", f"rows are drawn by seed {args.data_seed}, a recipe has one seed for all"
    if noise := getattr(args, "neftune_noise_alpha", None):
        yield "neftune_noise_alpha", f"noise of {noise:g} is added to the embeddings, a recipe adds none"
    if smoothing := args.label_smoothing_factor:
        yield "label_smoothing_factor", f"labels are smoothed by {smoothing:g}, a recipe's are as they are"
    kind = getattr(args, "loss_type", None)
    if trainer.compute_loss_func is not None:
        yield "loss", "a compute_loss_func is trained, a recipe means the loss per answer token"
    elif kind not in (None, "nll", "chunked_nll"):
        yield "loss", f"loss_type is {kind!r}, a recipe means the loss per answer token"
    elif type(trainer).compute_loss.__module__ not in _PLAIN_LOSSES:
        name = type(trainer).__name__
        yield "loss", f"{name} has a compute_loss of its own, which may train another loss than a recipe's"


def _other_starts(model: PeftModel, adapter: LiveAdapter) -> Iterator[tuple[str, str]]:
    """What has the run begin elsewhere than with the base and a fresh adapter, whose product is zero."""
    begins = _config(model, adapter).init_lora_weights
    if begins is not True:
        yield "init_lora_weights", f"the adapter is begun with {begins!r}, a recipe's by PEFT's default"
    elif any(bool(b.any()) for _, _, b in adapter.pairs):
        yield "adapter", "it was trained before: scores and losses of step 0 are not those of the base"
    if variant := _variant(model, adapter):
        yield "variant", f"the adapter is {variant}, a recipe's plain LoRA"


def _variant(model: PeftModel, adapter: LiveAdapter) -> str:
    """The kind of adapter that PEFT makes of the LoRA matrices, such as ALora; empty for LoRA and DoRA.

    DoRA is told by its magnitudes, which are trained beside the matrices.
    """
    layer, active = _layer(model, adapter.pairs[0][0])
    kind = type(getattr(layer, "lora_variant", {}).get(active)).__name__
    return kind.removesuffix("LinearVariant") if "Variant" in kind and not kind.startswith("Dora") else ""


def _schedule(trainer: Trainer, unknown: dict[str, str]) -> dict[str, object]:
    args, total = trainer.args, trainer.state.max_steps
    name = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
    if not getattr(trainer, "_created_lr_scheduler", True):
        given = f"the Trainer was given a scheduler of its own, a {type(trainer.lr_scheduler).__name__}"
        unknown.update(schedule=given, warmup_ratio=given)
    elif name not in _SCHEDULES:
        unknown["schedule"] = f"a recipe has no {name!r}; measured learning rates are in the trace"
    elif args.lr_scheduler_kwargs:
        unknown["schedule"] = f"a recipe has no lr_scheduler_kwargs, here {args.lr_scheduler_kwargs}"
    warmup = 0 if name in WITHOUT_WARM_UP else args.get_warmup_steps(total)
    asked = float(args.warmup_steps or 0.0)
    if long := long_warmup(trainer):
        unknown.setdefault("warmup_ratio", long)
    # Below 1 it is a ratio already.
    ratio = asked if warmup and asked < 1 else _ratio(min(warmup, total), total)
    return {"schedule": _SCHEDULES.get(name, "linear"), "warmup_ratio": ratio}


def long_warmup(trainer: Trainer) -> str:
    """That the warm-up is longer than the run, or empty; also where the Trainer was given a scheduler."""
    args, total = trainer.args, trainer.state.max_steps
    name = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
    own = getattr(trainer, "_created_lr_scheduler", True) and name not in WITHOUT_WARM_UP
    warmup = args.get_warmup_steps(total) if own else 0
    return f"{warmup:,} warm-up steps are more than the run's {total:,}" if warmup > total else ""


def _optimiser(trainer: Trainer, adapter: LiveAdapter, unknown: dict[str, str]) -> dict[str, object]:
    """What the optimiser does with the LoRA matrices: it may have been given, whatever the arguments say."""
    optimizer, args = trainer.optimizer, trainer.args
    assert optimizer is not None, "training has begun"
    name = type(getattr(optimizer, "optimizer", optimizer)).__name__
    fields = {name: getattr(args, name) for name in _OF_A_GROUP}
    if not _ADAMW.fullmatch(name):
        unknown["optimiser"] = f"recipes and forecasts mean AdamW, this run has {name}"
        return fields
    groups = adapter_groups(optimizer, adapter)
    for field, read in _OF_A_GROUP.items():
        values = sorted({float(read(group)) for group in groups})
        if len(values) > 1:
            unknown[field] = f"the adapter's matrices have different ones, {_several(values)}"
        if values:
            fields[field] = values[0]
    return fields


def adapter_groups(optimizer: Optimizer, adapter: LiveAdapter) -> list[Group]:
    """Those of the optimiser's groups that hold LoRA matrices."""
    own = {id(matrix) for _, a, b in adapter.pairs for matrix in (a, b)}
    return [group for group in optimizer.param_groups if any(id(p) in own for p in group["params"])]


def _lora(model: PeftModel, adapter: LiveAdapter, unknown: dict[str, str]) -> dict[str, object]:
    config = _config(model, adapter)
    _several_adapters(model, adapter, unknown)
    shapes = []
    for name, _, _ in adapter.pairs:
        layer, active = _layer(model, name)
        rank = int(layer.r[active])
        # PEFT's own scale is alpha / r, or alpha / sqrt(r) with rslora: kept is what acts.
        shapes.append((rank, float(layer.scaling[active]) * rank))
    for field, values in zip(("lora_rank", "lora_alpha"), zip(*shapes, strict=True), strict=True):
        if len(several := {f"{value:g}" for value in values}) > 1:
            uneven = f"layers have different ones, {_several(sorted(map(float, several)))}"
            unknown.setdefault(field, uneven)
    # Patterns give some layers a rank or an alpha of their own.
    usual = [shape for shape in shapes if shape[0] == config.r] or shapes
    rank, alpha = max(usual, key=usual.count)
    return {
        "lora_rank": rank,
        "lora_alpha": alpha,
        "lora_dropout": float(config.lora_dropout),
        "target_modules": _targets(adapter, unknown),
    }


def _layer(model: PeftModel, name: str) -> tuple[LoraLayer, str]:
    """An adapted layer and the name of the adapter that is trained: a model may hold others."""
    layer = cast("LoraLayer", model.get_base_model().get_submodule(name))
    return layer, next(one for one in _acting(layer) if _is_trained(layer, one))


def _acting(layer: LoraLayer) -> list[str]:
    return [name for name in layer.active_adapters if name in layer.lora_A]


def _is_trained(layer: LoraLayer, adapter: str) -> bool:
    return any(weight.requires_grad for weight in layer.lora_A[adapter].parameters())


def _several_adapters(model: PeftModel, adapter: LiveAdapter, unknown: dict[str, str]) -> None:
    layers = [_layer(model, name)[0] for name, _, _ in adapter.pairs]
    acting = {(name, _is_trained(layer, name)) for layer in layers for name in _acting(layer)}
    trained, frozen = ([name for name, on in sorted(acting) if on is kind] for kind in (True, False))
    if len(trained) > 1:
        several = f"{' and '.join(trained)} are trained together, a recipe has one adapter"
        unknown.update(lora_rank=several, lora_alpha=several)
    if frozen:
        also = f"{' and '.join(frozen)} acts beside it: scores and losses of step 0 are not those of the base"
        unknown["adapter"] = also


def _config(model: PeftModel, adapter: LiveAdapter) -> LoraConfig:
    return cast("LoraConfig", model.peft_config[_layer(model, adapter.pairs[0][0])[1]])


def _several(values: Sequence[float]) -> str:
    return " and ".join(f"{value:g}" for value in values)


def _ratio(warmup: int, total: int) -> float:
    """A ratio from which a recipe finds the same number of warm-up steps."""
    ratio = min(warmup, total - 1) / total if total > 0 else 0.0
    return ratio if math.ceil(ratio * total) == warmup else max(0.0, (warmup - 0.5) / total)


def _targets(adapter: LiveAdapter, unknown: dict[str, str]) -> tuple[str, ...]:
    adapted = {name for name, _, _ in adapter.pairs}
    layers = {name: adapter.base.model.get_submodule(name) for name in adapted}
    # PEFT adapts a parameter that is no layer's weight, such as that of experts, on its module.
    parameters = {name: str(layer.parameter_name) for name, layer in layers.items() if _is_bare(layer)}
    # Bases in GPTQ or AWQ have linear layers of classes of their own.
    own = {type(cast("LoraLayer", layers[name]).get_base_layer()) for name in adapted - parameters.keys()}
    # A layer may also have an adapter that is frozen.
    bases = (name.removesuffix(".base_layer") for name in layer_names(adapter.base, tuple(own)))
    plain = [name for name in bases if ".lora_" not in name and name not in adapted]
    if parameters:
        bare = ", ".join(sorted(set(parameters.values())))
        unknown["target_modules"] = f"parameters that are no layers have an adapter: {bare}"
    elif not plain:
        return ("all-linear",)
    names = {parameters.get(name) or _leaf(name) for name in adapted}
    left_out = sorted({_leaf(name) for name in plain} & names)
    if left_out:
        unknown["target_modules"] = (
            f"some layers named {', '.join(left_out)} have an adapter that is trained and some have none"
        )
    return tuple(sorted(names))


def _is_bare(layer: nn.Module) -> bool:
    """Whether an adapter is that of a parameter (``target_parameters``) and not of a linear layer."""
    return hasattr(layer, "parameter_name")


def _leaf(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _precision(trainer: Trainer, adapter: LiveAdapter) -> Precision:
    kinds: tuple[Precision, ...] = ("4bit", "8bit")
    for bits in kinds:
        if getattr(adapter.base.model, f"is_loaded_in_{bits}", False):
            return bits
    if trainer.args.bf16 or trainer.args.fp16:
        return "bf16" if trainer.args.bf16 else "fp16"
    names: dict[str, Precision] = {"torch.float32": "fp32", "torch.bfloat16": "bf16", "torch.float16": "fp16"}
    return names.get(str(adapter.base.dtype), "auto")
