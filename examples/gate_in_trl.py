"""The same gate inside TRL's SFTTrainer, on rows of prompt and completion."""

import sys
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from tuneahead import Goal, read_examples
from tuneahead.integrations.transformers import Gate, RunNotes
from tuneahead.training.models import load_base
from tuneahead.training.scoring import score_benchmark
from tuneahead.workbench import find_benchmark

here = Path(__file__).parent
base = load_base("lab", device="cpu")  # any causal language model of yours, with its tokenizer
file = sys.argv[1] if len(sys.argv) > 1 else here / "broken.jsonl"
examples = read_examples(file).examples
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
        logging_steps=50,
        disable_tqdm=True,
        report_to=[],
    ),
    train_dataset=split["train"],
    eval_dataset=split["test"],
    processing_class=base.tokenizer,
    peft_config=LoraConfig(r=8, target_modules="all-linear"),
    callbacks=[gate],
)
trainer.train()
base.model.eval()  # the adapters are in place
score = score_benchmark(base, find_benchmark("lab-exam")).score_pp
print(f"{gate.decision}: trained for {trainer.state.global_step} steps, scores {score:.1f} %")
