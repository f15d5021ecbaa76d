"""What other trainers (Hugging Face, PEFT, Axolotl, LLaMA-Factory) call the fields of a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches

LOGGED_NAMES: Mapping[str, tuple[str, ...]] = {
    "batch_size": (
        *("per_device_train_batch_size", "train_micro_batch_size_per_gpu", "train_batch_size"),
        "micro_batch_size",
    ),
    "lora_rank": ("lora_r", "r"),
    "max_length": ("max_seq_length", "sequence_len", "cutoff_len"),
    "schedule": ("lr_scheduler_type", "lr_scheduler"),
    "target_modules": ("lora_target",),
}
"""Names under which logs hold a field, besides its own."""

_MORE_NAMES: Mapping[str, tuple[str, ...]] = {
    "learning_rate": ("lr",),
    "batch_size": ("per_gpu_train_batch_size",),
    "gradient_accumulation_steps": ("grad_accum", "gradient_accumulation"),
    "epochs": ("num_train_epochs", "num_epochs", "n_epochs"),
    "max_steps": ("max_train_steps", "num_steps"),
    "lora_rank": ("rank",),
    "lora_alpha": ("alpha",),
    "lora_dropout": ("dropout",),
    "max_grad_norm": ("gradient_clipping", "clip_grad_norm"),
    "adam_epsilon": ("adam_eps", "eps"),
    "max_length": ("max_seq_len", "max_sequence_length", "model_max_length", "block_size"),
    "target_modules": ("lora_target_modules",),
    "warmup_ratio": ("lr_warmup_ratio",),
    "precision": ("torch_dtype", "dtype"),
    "template": ("chat_template", "prompt_template"),
    "seed": ("random_seed", "random_state"),
}
WITHOUT_WARM_UP = ("constant", "reduce_lr_on_plateau", "greedy")
"""Schedules of transformers that never warm up, whatever warm-up is given."""
_INSTEAD: Mapping[str, str] = {
    "train_batch_size": "write the rows of one forward pass as batch_size: DeepSpeed's train_batch_size "
    "counts accumulation and all devices",
    "warmup_steps": "give warmup_ratio, the share of the steps spent warming up",
    "warmup_num_steps": "give warmup_ratio, the share of the steps spent warming up",
    "scheduler": "write schedule: linear, cosine or constant, and warmup_ratio, the share of the steps spent "
    "warming up",
    "max_steps_per_epoch": "give max_steps, the steps of the whole run",
    "bf16": "write precision: bf16, where it is not 8bit or 4bit",
    "fp16": "write precision: fp16, where it is not 8bit or 4bit",
    "load_in_8bit": "write precision: 8bit",
    "load_in_4bit": "write precision: 4bit",
    "quantization_bit": "write precision: 8bit or precision: 4bit",
    "lora_target_linear": "write target_modules: all-linear",
    "use_rslora": "leave it out, and multiply lora_alpha by the square root of lora_rank",
    "optim": "leave it out: the optimiser is AdamW",
    "optimizer": "leave it out: the optimiser is AdamW",
    **dict.fromkeys(
        ("packing", "sample_packing", "neat_packing"),
        "leave it out: rows are not packed here, and batch_size and max_steps mean single rows",
    ),
    **dict.fromkeys(("use_dora", "peft_use_dora"), "leave it out: adapters are plain LoRA, and not DoRA"),
    **dict.fromkeys(
        ("modules_to_save", "lora_modules_to_save", "additional_target"),
        "leave it out: adapters alone are trained, and no whole layers",
    ),
    **dict.fromkeys(
        ("init_lora_weights", "pissa_init"),
        "leave it out: adapters begin with PEFT's default, and not with PiSSA or others",
    ),
    **dict.fromkeys(
        ("loraplus_lr_ratio", "loraplus_lr_embedding"),
        "leave it out: both matrices of an adapter have one learning rate",
    ),
    **dict.fromkeys(("label_smoothing_factor", "label_smoothing"), "leave it out: labels are not smoothed"),
    **dict.fromkeys(
        ("gradient_checkpointing", "flash_attention", "flash_attn", "torch_compile", "tf32"),
        "leave it out: it does not change what is trained",
    ),
    "neftune_noise_alpha": "leave it out: no noise is added to the embeddings",
    "lr_scheduler_kwargs": "leave it out: a schedule has no settings of its own",
    **dict.fromkeys(("train_on_inputs", "train_on_prompt"), "leave it out: only answers are trained"),
    **dict.fromkeys(
        ("finetuning_type", "adapter", "use_peft", "peft_type"), "leave it out: runs are LoRA fine-tunes"
    ),
    "max_samples": "leave it out, and give a file of so many rows",
    # Nearest to a field by their letters, and nothing like it.
    **dict.fromkeys(("save_steps", "eval_steps"), "leave it out: it does not change what is trained"),
    **dict.fromkeys(
        ("val_set_size", "val_size"), "leave it out: a tenth of the rows, at most 64, is held out"
    ),
    "shuffle": "leave it out: rows are shuffled",
}
"""Settings of which a recipe has none of the same meaning, and what to do."""
_OPTIMISERS = ("optim", "optimizer")
_ADAMW = re.compile(r"((paged|ao|optimi)_)?adamw(_.+)?")
"""Its implementations; others with adamw in their name (``galore_adamw``) change what it does."""


def is_adamw(optimiser: str) -> bool:
    """Whether a trainer's name of an optimiser means AdamW's step.

    >>> is_adamw("paged_adamw_8bit"), is_adamw("lion_8bit")
    (True, False)
    """
    return _ADAMW.fullmatch(optimiser.lower().rpartition(".")[2]) is not None


def name_here(name: str) -> str:
    """The field that another trainer calls ``name``; empty where there is none.

    >>> name_here("num_train_epochs")
    'epochs'
    """
    if name.lower() in _INSTEAD:
        return ""
    for names in (LOGGED_NAMES, _MORE_NAMES):
        for field, others in names.items():
            if name.lower() in others:
                return field
    return ""


_VALUES: Mapping[tuple[str, str], str] = {
    ("schedule", "constant"): "schedule: constant and warmup_ratio: 0",
    ("schedule", "constant_with_warmup"): "schedule: constant",
    ("target_modules", "all"): "target_modules: all-linear",
    ("precision", "bfloat16"): "precision: bf16",
    ("precision", "float16"): "precision: fp16",
    ("precision", "float32"): "precision: fp32",
    ("max_steps", "-1"): "max_steps: none",
    ("max_grad_norm", "0"): "max_grad_norm: none",
    ("max_grad_norm", "0.0"): "max_grad_norm: none",
}


def value_here(field: str, value: object) -> str:
    """What to write for a value of another trainer's field; empty where it is written alike, or has none.

    >>> value_here("schedule", "constant_with_warmup")
    'schedule: constant'
    """
    return _VALUES.get((field, str(value)), "")


def remedy_for(name: str, value: object, known: tuple[str, ...]) -> str:
    """What to do about a name that is no field: its counterpart or a likely slip; empty without either.

    >>> remedy_for("load_in_8bit", False, ())
    'leave it out'
    """
    if isinstance(value, Mapping) and (inside := list(dict.fromkeys(_fields_in(value, known)))):
        return f"write {', '.join(inside)} out of it, each on a line of its own"
    if name.lower() in _INSTEAD:
        return _instead(name.lower(), value)
    near = get_close_matches(name, known, 1)
    return f"did you mean {near[0]}?" if near else ""


def _fields_in(settings: Mapping[object, object], known: tuple[str, ...]) -> Iterator[str]:
    """The fields that nested settings give, at any depth and under whatever names."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _fields_in(value, known)
        elif field := str(name) if name in known else name_here(str(name)):
            yield field
        elif name == "betas":
            yield from ("adam_beta1", "adam_beta2")


def _instead(name: str, value: object) -> str:
    if name == "warmup_steps" and isinstance(value, int | float) and 0 <= value < 1:
        # Newer trainers take a share there.
        return f"write warmup_ratio: {value:g}"
    if isinstance(value, Mapping) and "enabled" in value:
        # DeepSpeed's; what is automatic there follows the trainer's own setting.
        value = value["enabled"] is True
    if value is False or value is None:
        # Files of other trainers name what they switch off, too.
        return "leave it out"
    if name in _OPTIMISERS and isinstance(value, str) and not is_adamw(value):
        return f"leave it out: runs are trained by AdamW here, and not by {value}"
    return _INSTEAD[name]


def known_fields(known: tuple[str, ...]) -> str:
    """What to do where nothing better is known."""
    return f"known fields: {', '.join(known)}"
