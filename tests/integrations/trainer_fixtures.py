"""The same run twice: in our own loop, and in PEFT with the Hugging Face Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training.training_fixtures import WORDS, make_examples

from tuneahead.benchmark.items import Benchmark, ChoiceItem
from tuneahead.predictor.predictor import Predictor
from tuneahead.predictor.table import FeatureTable
from tuneahead.recipe import Recipe
from tuneahead.training.batches import step_rows
from tuneahead.training.encode import Encoded, RunData
from tuneahead.training.lora import AdapterStack
from tuneahead.training.models import Base, load_tokenizer
from tuneahead.training.probe import prepare_data

RECIPE = Recipe(
    learning_rate=5e-3,
    max_steps=20,
    batch_size=4,
    lora_rank=4,
    lora_alpha=8,
    weight_decay=0.01,
    warmup_ratio=0.1,
    max_grad_norm=0.5,
    schedule="cosine",
    max_length=128,
    precision="fp32",
    seed=3,
)
TEXTS = ("red cat sun moon", "one two three four five")


def make_exam(count: int = 8) -> Benchmark:
    """Questions with three options of one word each."""
    items = [
        ChoiceItem(
            str(i), f"{WORDS[i]} {WORDS[i + 1]} ?", (WORDS[i + 2], WORDS[i + 3], WORDS[i + 4]), (i % 3,)
        )
        for i in range(count)
    ]
    return Benchmark("exam", "accuracy", items)


def make_predictor(probe_steps: int = 100) -> Predictor:
    """Fitted to tasks that lose 25 points with every tenfold of the learning rate."""
    draw = np.random.default_rng(0)
    rows = 90
    rate = draw.uniform(-3.5, -1.0, rows)
    table = FeatureTable(
        names=("learning_rate_log10", "lora_rank_log2"),
        values=np.column_stack([rate, draw.integers(1, 5, rows).astype(float)]),
        score_pp=60.0 - 25.0 * (rate + 2.5) + draw.normal(0, 1, rows),
        base_pp=draw.uniform(0, 90, rows),
        probe_pp=draw.uniform(0, 90, rows),
        chance_pp=np.full(rows, 100 / 3),
        task_ids=tuple(f"t{i}" for i in range(rows)),
        data_ids=tuple(f"d{i}" for i in range(rows)),
        families=("clean",) * rows,
        seeds=np.ones(rows),
        seed_sd_pp=np.full(rows, np.nan),
        bases=("tiny",) * rows,
        benchmarks=("exam",) * rows,
        probe_steps=probe_steps,
    )
    return Predictor.fit(table, preset="quick")


def make_data(base: Base, recipe: Recipe = RECIPE) -> RunData:
    """32 training rows and 4 held out: batches of 4 leave no ragged one."""
    found = prepare_data(base, make_examples(40), recipe)
    return RunData(found.train[:32], found.heldout, found.fingerprint)


def columns(rows: Sequence[Encoded]) -> list[dict[str, list[int]]]:
    """Rows as users give them to a Trainer: token ids and labels."""
    return [
        {
            "input_ids": list(row.ids),
            "labels": [t if on else -100 for t, on in zip(row.ids, row.answer, strict=True)],
        }
        for row in rows
    ]


def adapted_model(path: Path, recipe: Recipe, base: Base, dropout: float = 0.0) -> Any:
    """A PEFT model that starts from the very adapter our own loop would start from."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=int(recipe.lora_alpha),
        lora_dropout=dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager"), config)
    stack = AdapterStack(base, 1, recipe.lora_rank)
    stack.initialise(0, recipe)
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, a, b in stack.matrices(0, recipe):
            own[f"base_model.model.{name}.lora_A.default.weight"].copy_(a)
            own[f"base_model.model.{name}.lora_B.default.weight"].copy_(b)
    stack.detach()
    return model


def row_order(recipe: Recipe, rows: int) -> list[int]:
    """Rows in the order of our own loop, for a Trainer's sampler."""
    total = recipe.total_steps(rows)
    return [int(i) for step in range(total) for part in step_rows(recipe, rows, step) for i in part]


def make_trainer(
    path: Path, folder: Path, base: Base, data: RunData, recipe: Recipe = RECIPE, **options: Any
) -> Any:
    """A stock Trainer for this recipe and data; only the order of the rows is fixed."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    processes, dropout = options.pop("processes", 1), options.pop("dropout", 0.0)
    total = recipe.total_steps(len(data.train))
    order = row_order(recipe, len(data.train))

    class Ordered(Trainer):
        def _get_train_sampler(self, *args: Any) -> Any:
            return order

    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=total,
        per_device_train_batch_size=recipe.batch_size // processes,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup_steps(total),
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm or 0.0,
        seed=recipe.seed,
        logging_strategy="no",
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=options.pop("bf16", False),
        accelerator_config=options.pop("accelerator_config", None),
        disable_tqdm=True,
    )
    tokenizer = load_tokenizer(str(path))
    return Ordered(
        model=adapted_model(path, recipe, base, dropout),
        args=arguments,
        train_dataset=options.pop("train_dataset", columns(data.train)),
        eval_dataset=columns(data.heldout),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        processing_class=tokenizer,
        **options,
    )
