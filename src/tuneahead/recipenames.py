"""What other trainers (Hugging Face, PEFT, Axolotl, LLaMA-Factory) call the fields of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

LOGGED_NAMES: Mapping[str, tuple[str, ...]] = {
    "batch_size": ("per_device_train_batch_size", "train_batch_size", "micro_batch_size"),
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
    "max_grad_norm": ("gradient_clipping",),
    "adam_epsilon": ("adam_eps",),
    "max_length": ("max_seq_len", "max_sequence_length", "model_max_length", "block_size"),
    "target_modules": ("lora_target_modules",),
    "warmup_ratio": ("lr_warmup_ratio",),
    "precision": ("torch_dtype", "dtype"),
    "template": ("chat_template", "prompt_template"),
    "seed": ("random_seed",),
}
_INSTEAD: Mapping[str, str] = {
    "warmup_steps": "give warmup_ratio, the share of the steps spent warming up",
    "bf16": "write precision: bf16",
    "fp16": "write precision: fp16",
    "load_in_8bit": "write precision: 8bit",
    "load_in_4bit": "write precision: 4bit",
    "quantization_bit": "write precision: 8bit or precision: 4bit",
    "lora_target_linear": "write target_modules: all-linear",
    "optim": "leave it out: the optimiser is AdamW",
    "optimizer": "leave it out: the optimiser is AdamW",
}
"""Settings of which a recipe has none of the same meaning, and what to do."""


def name_here(name: str) -> str:
    """The field that another trainer calls ``name``; empty where there is none.

    >>> name_here("num_train_epochs")
    'epochs'
    """
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
    if name.lower() in _INSTEAD:
        # Files of other trainers name what they switch off, too.
        return "leave it out" if value is False or value is None else _INSTEAD[name.lower()]
    near = get_close_matches(name, known, 1)
    return f"did you mean {near[0]}?" if near else ""


def known_fields(known: tuple[str, ...]) -> str:
    """What to do where nothing better is known."""
    return f"known fields: {', '.join(known)}"
