"""The same gate inside TRL's SFTTrainer, on rows of prompt and completion."""

from pathlib import Path

from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from tuneahead import Goal, read_examples
from tuneahead.integrations.transformers import Gate, RunNotes
from tuneahead.training.models import load_base

here = Path(__file__).parent
base = load_base("lab", device="cpu")  # any causal language model of yours, with its tokenizer
examples = read_examples(here / "broken.jsonl").examples
rows = Dataset.from_list([{"prompt": e.prompt, "completion": f" {e.answer}"} for e in examples])
split = rows.train_test_split(40, seed=0)

gate = Gate(None, Goal(gain_pp=3), benchmark="lab-exam", notes=RunNotes(base="lab-qwen2", examples=examples))
trainer = SFTTrainer(
    model=base.model,
    args=SFTConfig(
        output_dir="gated-run",
        learning_rate=2e-3,
        max_steps=400,
        per_device_train_batch_size=8,
        max_length=512,
        bf16=False,
        save_strategy="no",
        report_to=[],
    ),
    train_dataset=split["train"],
    eval_dataset=split["test"],
    processing_class=base.tokenizer,
    peft_config=LoraConfig(r=8, target_modules="all-linear"),
    callbacks=[gate],
)
trainer.train()
print(f"{gate.decision} after {trainer.state.global_step} steps")
