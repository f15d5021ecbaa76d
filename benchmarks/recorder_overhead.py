"""What recording a trace inside the Hugging Face Trainer costs, per optimiser step, at 135 M parameters.

SmolLM2-135M-Instruct with LoRA of rank 8 on all linear layers, batch 8, the stock Trainer, with and
without TraceRecorder, in alternating rounds over the same rows in the same order. Compared are steps of
the same number, so of the same rows. Cues are left out: they are taken a few times in a run and cost
what scoring costs. Two lengths of rows: facts of the lab (short: the dearest case for a recorder), and
the same rows joined to about 128 tokens. Times are processor time on one thread, which neighbours on a
busy machine change little. Writes benchmarks/results/recorder_overhead.json.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

from tuneahead.build.execute import lab_examples
from tuneahead.integrations.transformers import TraceRecorder
from tuneahead.lab.datasets import healthy_example
from tuneahead.recipe import Recipe
from tuneahead.training.encode import encode_examples
from tuneahead.training.measure import ProbeSettings
from tuneahead.training.models import Base, load_base

WARM, ROUNDS, BATCH = 2, 2, 8
STEPS = {"short": 8, "long": 4}
LONG_TOKENS = 128
RESULT = Path(__file__).parent / "results" / "recorder_overhead.json"
Rows = list[dict[str, list[int]]]


class Clock(TrainerCallback):
    """Processor seconds of every optimiser step, callbacks of the step included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = 0.0

    def on_step_begin(self, *args: Any, **rest: Any) -> None:
        """The first step starts here; each later one where the step before it ended."""
        self._last = self._last or time.process_time()

    def on_step_end(self, *args: Any, **rest: Any) -> None:
        """Called after the recorder, which was added first."""
        now = time.process_time()
        self.seconds.append(now - self._last)
        self._last = now


def rows_of(base: Base, tokens: int) -> Rows:
    """Rows of facts, joined until they have about ``tokens`` tokens."""
    encoded = encode_examples(
        lab_examples(healthy_example()), base.tokenizer, Recipe(max_length=LONG_TOKENS, template="raw")
    )
    rows: Rows = []
    ids: list[int] = []
    labels: list[int] = []
    for row in encoded:
        ids += row.ids
        labels += [token if on else -100 for token, on in zip(row.ids, row.answer, strict=True)]
        if len(ids) >= tokens:
            rows.append({"input_ids": ids[:LONG_TOKENS], "labels": labels[:LONG_TOKENS]})
            ids, labels = [], []
    return rows


def step_seconds(base: Base, model: Any, rows: Rows, folder: str, *, record: bool) -> list[float]:
    """Seconds of each step after the first few, one step for each ``BATCH`` rows."""
    clock = Clock()
    settings = ProbeSettings(record_steps=len(rows) // BATCH, cue_steps=(), flatness_at=None)
    callbacks = [TraceRecorder(settings), clock] if record else [clock]
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=len(rows) // BATCH,
        per_device_train_batch_size=BATCH,
        learning_rate=1e-4,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(base.tokenizer),
        processing_class=base.tokenizer,
        callbacks=callbacks,
    )
    trainer.train()
    return clock.seconds[WARM:]


def measure(base: Base, model: Any, rows: Rows) -> dict[str, float]:
    """Median step without recorder, and the median over steps of what the recorder adds to it."""
    plain: list[list[float]] = []
    recorded: list[list[float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            # The order alternates, so that a machine that warms up or slows down favours neither.
            for record in (False, True) if number % 2 == 0 else (True, False):
                found = step_seconds(base, model, rows, folder, record=record)
                (recorded if record else plain).append(found)
    at_step = [
        median(run[i] for run in recorded) / median(run[i] for run in plain) - 1 for i in range(len(plain[0]))
    ]
    return {
        "row_tokens": round(sum(len(row["input_ids"]) for row in rows) / len(rows), 1),
        "step_seconds": round(median(s for run in plain for s in run), 4),
        "added_share_of_a_step": round(median(at_step), 4),
        "added_seconds": round(median(at_step) * median(s for run in plain for s in run), 4),
    }


def main() -> None:
    """Measure both lengths of rows on one thread."""
    torch.set_num_threads(1)
    base = load_base("smollm2", device="cpu")
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base.model, config)
    lengths = {"short": 1, "long": LONG_TOKENS}
    found = {
        name: measure(base, model, rows_of(base, lengths[name])[: steps * BATCH])
        for name, steps in STEPS.items()
    }
    result = {
        "base": base.name,
        "parameters": sum(p.numel() for p in base.model.parameters() if not p.requires_grad),
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "dtype": str(base.dtype),
        "clock": "processor time on one thread",
        "batch": BATCH,
        "steps": {name: steps - WARM for name, steps in STEPS.items()},
        "rounds": ROUNDS,
        "rows": found,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, own in found.items():
        share, seconds = own["added_share_of_a_step"], own["step_seconds"]
        print(f"{name} rows ({own['row_tokens']} tokens): {100 * share:.1f} % of a step of {seconds:.2f} s")


if __name__ == "__main__":
    main()
