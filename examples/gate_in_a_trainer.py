"""A gate inside the Hugging Face Trainer: after 100 steps it says what the run will score, or stops it."""

import sys
from pathlib import Path

from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from tuneahead import Goal, Recipe, read_examples
from tuneahead.integrations.transformers import Gate, RunNotes
from tuneahead.training.encode import encode_examples
from tuneahead.training.models import load_base
from tuneahead.training.scoring import score_benchmark
from tuneahead.workbench import find_benchmark

here = Path(__file__).parent
base = load_base("lab", device="cpu")  # any causal language model of yours, with its tokenizer
file = sys.argv[1] if len(sys.argv) > 1 else here / "broken.jsonl"
examples = read_examples(file).examples
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
        logging_steps=50,
        disable_tqdm=True,
        report_to=[],
    ),
    train_dataset=rows[:-40],
    eval_dataset=rows[-40:],
    data_collator=DataCollatorForSeq2Seq(base.tokenizer),
    processing_class=base.tokenizer,
    callbacks=[gate],
)
trainer.train()
base.model.eval()  # the adapters are in place
score = score_benchmark(base, find_benchmark("lab-exam")).score_pp
print(f"{gate.decision}: trained for {trainer.state.global_step} steps, scores {score:.1f} %")
