"""A gate with an early look at step 50 on the demo's two data sets: SmolLM2 in TRL's SFTTrainer.

The look's predictor is fitted to the packaged runs after 50 steps, as `tuneahead fit --start shipped --base
smollm2 --probe-steps 50` does; that of step 100 is the shipped one. Neither run is trained beyond step 100.
Needs: make smollm2, pip install 'tuneahead[trl]' accelerate. Some five minutes on two cores.
"""

from __future__ import annotations

import tempfile
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from tuneahead import Goal
from tuneahead.build.execute import lab_examples
from tuneahead.integrations.transformers import Gate, RunNotes
from tuneahead.lab.datasets import broken_example, healthy_example
from tuneahead.predictor.packaged import packaged_runs
from tuneahead.predictor.predictor import Predictor
from tuneahead.training.models import load_base

EARLY_STEPS, PROBE_STEPS = 50, 100


class Ends(TrainerCallback):  # type: ignore[misc]
    """What comes after the gate's last look is of no interest here."""

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        control.should_training_stop |= state.global_step >= PROBE_STEPS


def main() -> None:
    """Fit the look's predictor and train both data sets behind the gate, which prints what it says."""
    own, helpers = packaged_runs("smollm2", EARLY_STEPS)
    with tempfile.TemporaryDirectory() as folder:
        Predictor.fit(own, helpers=helpers).save(f"{folder}/early")
        for name, spec in (("healthy", healthy_example()), ("broken", broken_example())):
            base = load_base("smollm2")
            examples = lab_examples(spec)
            rows = Dataset.from_list([{"prompt": e.prompt, "completion": f" {e.answer}"} for e in examples])
            split = rows.train_test_split(40, seed=0)
            notes = RunNotes(base="smollm2", examples=examples)
            gate = Gate(None, Goal(gain_pp=8), early=[f"{folder}/early"], benchmark="lab-exam", notes=notes)
            trainer = SFTTrainer(
                model=base.model,
                args=SFTConfig(
                    output_dir=f"{folder}/{name}",
                    learning_rate=5e-4,
                    max_steps=400,
                    per_device_train_batch_size=4,
                    max_length=96,
                    bf16=False,
                    save_strategy="no",
                    disable_tqdm=True,
                    report_to=[],
                ),
                train_dataset=split["train"],
                eval_dataset=split["test"],
                processing_class=base.tokenizer,
                peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"),
                callbacks=[gate, Ends()],
            )
            trainer.train()
            print(f"{name}: {gate.decision} after {trainer.state.global_step} steps", flush=True)


if __name__ == "__main__":
    main()
