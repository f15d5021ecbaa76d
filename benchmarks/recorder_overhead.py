"""What recording a trace inside the Hugging Face Trainer costs, per optimiser step, at 135 M parameters.

SmolLM2-135M-Instruct with LoRA of rank 8 on all linear layers, batch 8, the stock Trainer. Measured is
the time spent in everything that TraceRecorder adds to a step (its callbacks and its look at the
logits), over the rest of that step: the difference of runs with and without it is smaller than their own
spread. Rows are facts of the lab, some twenty tokens: the dearest case for a recorder, whose work does
not grow with the rows. Cues are left out: they are taken a few times in a run and cost what scoring
costs. Times are processor time on one thread, which neighbours on a busy machine change little. Writes
benchmarks/results/recorder_overhead.json.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from tuneahead.build.execute import lab_examples
from tuneahead.integrations.transformers import TraceRecorder
from tuneahead.lab.datasets import healthy_example
from tuneahead.recipe import Recipe
from tuneahead.training.encode import encode_examples
from tuneahead.training.measure import ProbeSettings
from tuneahead.training.models import Base, load_base

WARM, BATCH = 1, 8
STEPS = 6
RESULT = Path(__file__).parent / "results" / "recorder_overhead.json"
Rows = list[dict[str, list[int]]]


class TimedRecorder(TraceRecorder):
    """Adds up the processor seconds of its own work, and of every optimiser step as a whole."""

    def __init__(self, settings: ProbeSettings) -> None:
        super().__init__(settings)
        self.own = 0.0
        self.steps: list[tuple[float, float]] = []
        self._last = 0.0

    def timed(self, work: Callable[..., Any], *args: Any, **rest: Any) -> Any:
        """Call ``work`` and count its time as the recorder's."""
        began = time.process_time()
        try:
            return work(*args, **rest)
        finally:
            self.own += time.process_time() - began

    def on_train_begin(self, *args: Any, **rest: Any) -> None:
        """Put a clock on the look at the logits too; setting up is not part of a step."""
        super().on_train_begin(*args, **rest)
        assert self._losses is not None
        self._losses._add = partial(self.timed, self._losses._add)  # type: ignore[method-assign]
        self._last = time.process_time()

    def on_pre_optimizer_step(self, *args: Any, **rest: Any) -> None:
        """Gradients."""
        self.timed(super().on_pre_optimizer_step, *args, **rest)

    def on_optimizer_step(self, *args: Any, **rest: Any) -> None:
        """Updates."""
        self.timed(super().on_optimizer_step, *args, **rest)

    def on_step_end(self, *args: Any, **rest: Any) -> None:
        """The step's record, and the whole step's time."""
        self.timed(super().on_step_end, *args, **rest)
        now = time.process_time()
        self.steps.append((self.own, now - self._last))
        self.own, self._last = 0.0, now


def rows_of(base: Base) -> Rows:
    """One row for each step and place in the batch."""
    recipe = Recipe(template="raw")
    encoded = encode_examples(lab_examples(healthy_example()), base.tokenizer, recipe)
    return [
        {
            "input_ids": list(row.ids),
            "labels": [token if on else -100 for token, on in zip(row.ids, row.answer, strict=True)],
        }
        for row in encoded[: STEPS * BATCH]
    ]


def measure(base: Base, model: Any, rows: Rows, folder: str) -> dict[str, float]:
    """Median step without the recorder's work, and the median share that the work adds to it."""
    # One step more than is recorded: closing the trace belongs to no step.
    recorder = TimedRecorder(ProbeSettings(record_steps=STEPS + 1, cue_steps=(), flatness_at=None))
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=STEPS,
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
        callbacks=[recorder],
    )
    trainer.train()
    kept = [(own, whole - own) for own, whole in recorder.steps[WARM:]]
    return {
        "row_tokens": round(sum(len(row["input_ids"]) for row in rows) / len(rows), 1),
        "step_seconds": round(median(rest for _, rest in kept), 4),
        "added_share_of_a_step": round(median(own / rest for own, rest in kept), 4),
        "added_seconds": round(median(own for own, _ in kept), 4),
    }


def main() -> None:
    """Measure on one thread."""
    torch.set_num_threads(1)
    base = load_base("smollm2", device="cpu")
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base.model, config)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(base, model, rows_of(base), folder)
    result = {
        "base": base.name,
        "parameters": sum(p.numel() for p in base.model.parameters() if not p.requires_grad),
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "dtype": str(base.dtype),
        "clock": "processor time on one thread",
        "batch": BATCH,
        "steps": STEPS - WARM,
        **found,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    share, seconds = found["added_share_of_a_step"], found["step_seconds"]
    print(f"{100 * share:.1f} % of a step of {seconds:.2f} s on rows of {found['row_tokens']} tokens")


if __name__ == "__main__":
    main()
