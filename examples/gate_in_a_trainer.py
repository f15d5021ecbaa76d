"""A gate inside the Hugging Face Trainer: after 100 steps it says what the run will score, or stops it."""

from pathlib import Path

from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from tuneahead import Goal, Recipe, read_examples
from tuneahead.integrations.transformers import Gate, RunNotes
from tuneahead.training.encode import encode_examples
from tuneahead.training.models import load_base

here = Path(__file__).parent
base = load_base("lab", device="cpu")  # any causal language model of yours, with its tokenizer
examples = read_examples(here / "broken.jsonl").examples
rows = [
    {
        "input_ids": list(row.ids),
        "labels": [t if on else -100 for t, on in zip(row.ids, row.answer, strict=True)],
    }
    for row in encode_examples(examples, base.tokenizer, Recipe())
]

gate = Gate(None, Goal(gain_pp=3), benchmark="lab-exam", notes=RunNotes(base="lab-qwen2", examples=examples))
trainer = Trainer(
    model=get_peft_model(base.model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")),
    args=TrainingArguments(
        output_dir="gated-run",
        learning_rate=2e-3,
        max_steps=400,
        per_device_train_batch_size=8,
        save_strategy="no",
        report_to=[],
    ),
    train_dataset=rows[:-40],
    eval_dataset=rows[-40:],
    data_collator=DataCollatorForSeq2Seq(base.tokenizer),
    processing_class=base.tokenizer,
    callbacks=[gate],
)
trainer.train()
print(f"{gate.decision} after {trainer.state.global_step} steps")
