"""The same run twice: in our own loop, and in PEFT with the Hugging Face Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training.training_fixtures import WORDS, make_examples

from tuneahead.benchmark.items import Benchmark, ChoiceItem
from tuneahead.predictor.predictor import Predictor
from tuneahead.predictor.table import FeatureTable
from tuneahead.recipe import Recipe
from tuneahead.trace import ProbeTrace
from tuneahead.training.batches import step_rows
from tuneahead.training.encode import Encoded, RunData
from tuneahead.training.loop import Job, train_stack
from tuneahead.training.lora import AdapterStack
from tuneahead.training.measure import ProbeSettings
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


SETTINGS = ProbeSettings(
    record_steps=12, cue_steps=(0, 5, 12), cue_benchmark=make_exam(), reference_texts=TEXTS, flatness_at=12
)


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


def adapted_model(
    path: Path, recipe: Recipe, base: Base, dropout: float = 0.0, quantization: object = None
) -> Any:
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
    bits = {"quantization_config": quantization, "device_map": {"": base.device}} if quantization else {}
    plain = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", **bits)
    model = get_peft_model(plain, config)
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
    quantization = options.pop("quantization", None)
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
        use_cpu=base.device == "cpu",
        bf16=options.pop("bf16", False),
        fp16=options.pop("fp16", False),
        accelerator_config=options.pop("accelerator_config", None),
        disable_tqdm=True,
    )
    tokenizer = load_tokenizer(str(path))
    return Ordered(
        model=adapted_model(path, recipe, base, dropout, quantization),
        args=arguments,
        train_dataset=options.pop("train_dataset", columns(data.train)),
        eval_dataset=columns(data.heldout),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        processing_class=tokenizer,
        **options,
    )


def make_trl_trainer(path: Path, folder: Path, base: Base, recipe: Recipe, **options: Any) -> Any:
    """TRL's SFTTrainer for this recipe on the rows of :func:`make_data`, in the order of our own loop."""
    import trl
    from datasets import Dataset
    from transformers import DataCollatorForSeq2Seq

    data = make_data(base, recipe)
    order, total = row_order(recipe, len(data.train)), recipe.total_steps(len(data.train))

    class Ordered(trl.SFTTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, *args: Any) -> Any:
            return order

    arguments = trl.SFTConfig(
        output_dir=str(folder),
        max_steps=total,
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup_steps(total),
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        max_length=recipe.max_length,
        seed=recipe.seed,
        bf16=False,
        use_cpu=base.device == "cpu",
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    return Ordered(
        model=adapted_model(path, recipe, base),
        args=arguments,
        train_dataset=Dataset.from_list(columns(data.train)),
        eval_dataset=Dataset.from_list(columns(data.heldout)),
        data_collator=DataCollatorForSeq2Seq(base.tokenizer),
        processing_class=base.tokenizer,
        **options,
    )


def own_trace(base: Base, recipe: Recipe) -> ProbeTrace:
    """What our own loop records of the run."""
    job = Job("a", make_data(base, recipe), recipe)
    return next(iter(train_stack(base, [job], SETTINGS, width=1))).trace


def assert_same_trace(theirs: ProbeTrace | None, ours: ProbeTrace, *, flatness: bool = True) -> None:
    """Every signal of a Trainer's run is that of our own loop, within rounding.

    ``flatness`` says whether its directions were drawn by the same generator, which is the device's.
    """
    assert theirs is not None and len(theirs.steps) == 12
    np.testing.assert_allclose(theirs.steps.loss_sum_nats, ours.steps.loss_sum_nats, rtol=1e-4)
    np.testing.assert_array_equal(theirs.steps.answer_tokens, ours.steps.answer_tokens)
    np.testing.assert_allclose(theirs.steps.learning_rate, ours.steps.learning_rate, rtol=1e-6)
    for name in ("grad_norm", "mean_norm", "distance", "layer_grad_norm"):
        np.testing.assert_allclose(
            getattr(theirs.steps, name), getattr(ours.steps, name), rtol=1e-3, atol=1e-7, err_msg=name
        )
    np.testing.assert_allclose(theirs.steps.update_norm, ours.steps.update_norm, rtol=2e-3, atol=1e-7)
    scale = ours.steps.grad_norm[1:] * ours.steps.grad_norm[:-1]
    np.testing.assert_allclose(
        theirs.steps.dot_previous[1:] / scale, ours.steps.dot_previous[1:] / scale, atol=2e-3
    )
    np.testing.assert_allclose(theirs.steps.small_gradients, ours.steps.small_gradients, rtol=0.02, atol=8)
    np.testing.assert_array_equal(theirs.visits.row, ours.visits.row)
    np.testing.assert_allclose(theirs.visits.nll_nats, ours.visits.nll_nats, rtol=2e-3)
    _assert_same_observations(theirs, ours, flatness)


def _assert_same_observations(theirs: ProbeTrace, ours: ProbeTrace, flatness: bool) -> None:
    assert [cue.step for cue in theirs.cues] == [0, 5, 12]
    for own, other in zip(ours.cues, theirs.cues, strict=True):
        np.testing.assert_allclose(other.right_probability, own.right_probability, atol=2e-3)
        assert other.heldout_loss_nats == pytest.approx(own.heldout_loss_nats, rel=1e-3)
        assert other.reference_loss_nats == pytest.approx(own.reference_loss_nats, rel=1e-3)
    assert theirs.flatness is not None and ours.flatness is not None
    assert theirs.flatness.centre_nats == pytest.approx(ours.flatness.centre_nats, rel=1e-3)
    if flatness:
        np.testing.assert_allclose(theirs.flatness.perturbed_nats, ours.flatness.perturbed_nats, rtol=1e-3)
