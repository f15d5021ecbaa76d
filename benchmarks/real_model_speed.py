"""Steps of our loop against TRL's SFTTrainer and PEFT with transformers' Trainer: SmolLM2-135M, one thread.

Same rows (the lab's healthy data set: 18 tokens as plain text, about 50 in the chat template, whose system
message is the same in every row; 3 are trained), same recipe: LoRA of rank 8 on all linear layers, batch 8,
answer-only loss. Ours with one run (recording everything a probe records)
and with eight recipes at once. Every way is measured in alternating rounds, in seconds of processor time,
which other processes disturb least; medians of steps after the first two. Needs: make smollm2,
pip install 'tuneahead[trl]' accelerate. Writes benchmarks/results/real_model_speed.json.

With ``--random-weights`` the base is one of the same shape, which takes as long. With ``--precision bf16``
all run in bf16 (for processors that have it), which goes to benchmarks/results/bf16_speed.json. With
``--device cuda`` they do so too, ours with 64 recipes at once as well, and times are those of the clock, the
device waited for; that goes to benchmarks/results/cuda_speed.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from tuneahead.build.execute import lab_examples
from tuneahead.lab.datasets import healthy_example
from tuneahead.recipe import Recipe
from tuneahead.training.batches import step_rows
from tuneahead.training.encode import RunData
from tuneahead.training.loop import train_stack
from tuneahead.training.measure import ProbeSettings
from tuneahead.training.models import Base, load_base, resolve_base
from tuneahead.training.probe import prepare_data
from tuneahead.training.runs import Job

WARM_UP = 2
RESULTS = Path(__file__).parent / "results"
RECIPE = Recipe(learning_rate=5e-4, max_steps=200, batch_size=8, lora_rank=8, max_length=96)
TEMPLATES = ("raw", "chat")


def now(device: str) -> float:
    """Processor time, or on a GPU the clock's once the device has done what it was asked."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def arguments(folder: str, steps: int, base: Base) -> dict[str, Any]:
    """What both Trainers are told: the recipe, and nothing saved or logged to disk."""
    return {
        "output_dir": folder,
        "max_steps": steps,
        "per_device_train_batch_size": RECIPE.batch_size,
        "learning_rate": RECIPE.learning_rate,
        "max_grad_norm": RECIPE.max_grad_norm,
        "warmup_steps": RECIPE.warmup_steps(200),
        "logging_steps": 1,
        "report_to": [],
        "save_strategy": "no",
        "use_cpu": base.device == "cpu",
        "bf16": base.dtype == torch.bfloat16,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
    }


def step_times(device: str) -> tuple[Any, list[float]]:
    """A callback that notes the time at the end of every step."""
    from transformers import TrainerCallback

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *args: object, **rest: object) -> None:
            ends.append(now(device))

    return Clock(), ends


def middle(ends: list[float]) -> float:
    """Median time between the ends of steps, without the first ones."""
    return median(b - a for a, b in zip(ends[WARM_UP:], ends[WARM_UP + 1 :], strict=False))


def lora() -> Any:
    """PEFT's form of the recipe."""
    from peft import LoraConfig

    alpha = RECIPE.lora_alpha
    return LoraConfig(r=8, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")


def plain_model(location: str, base: Base) -> Any:
    """The model as transformers loads it, in the format that ours is held in."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(location, dtype=base.dtype)


def trl_seconds(location: str, template: str, steps: int, base: Base) -> float:
    """A step of TRL's SFTTrainer on prompt and completion."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    rows = lab_examples(healthy_example())
    pairs: list[dict[str, Any]] = [{"prompt": r.prompt, "completion": f" {r.answer}"} for r in rows]
    if template == "chat":
        roles = {"prompt": "user", "completion": "assistant"}
        pairs = [
            {name: [{"role": roles[name], "content": text.strip()}] for name, text in pair.items()}
            for pair in pairs
        ]
    data = Dataset.from_list(pairs)
    clock, ends = step_times(base.device)
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(**arguments(folder, steps, base), max_length=RECIPE.max_length, packing=False)
        SFTTrainer(
            model=plain_model(location, base),
            args=config,
            train_dataset=data,
            peft_config=lora(),
            processing_class=AutoTokenizer.from_pretrained(location),
            callbacks=[clock],
        ).train()
    return middle(ends)


def trainer_seconds(location: str, data: RunData, steps: int, base: Base) -> float:
    """A step of transformers' Trainer on a PEFT model, rows padded to the longest of the batch."""
    from peft import get_peft_model
    from transformers import Trainer, TrainingArguments

    order = [int(i) for s in range(steps) for i in step_rows(RECIPE, len(data.train), s)[0]]

    def collate(rows: list[int]) -> dict[str, torch.Tensor]:
        picked = [data.train[i] for i in rows]
        longest = max(len(row.ids) for row in picked)
        fill = [longest - len(row.ids) for row in picked]
        labels = [
            [token if on else -100 for token, on in zip(row.ids, row.answer, strict=True)] for row in picked
        ]
        return {
            "input_ids": torch.tensor([[*r.ids, *[0] * n] for r, n in zip(picked, fill, strict=True)]),
            "attention_mask": torch.tensor(
                [[1] * len(r.ids) + [0] * n for r, n in zip(picked, fill, strict=True)]
            ),
            "labels": torch.tensor([[*own, *[-100] * n] for own, n in zip(labels, fill, strict=True)]),
        }

    class Ordered(Trainer):
        def get_train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(order, batch_size=RECIPE.batch_size, collate_fn=collate)  # type: ignore[arg-type]

    clock, ends = step_times(base.device)
    with tempfile.TemporaryDirectory() as folder:
        model = get_peft_model(plain_model(location, base), lora())
        given = TrainingArguments(**arguments(folder, steps, base), remove_unused_columns=False)
        Ordered(model=model, args=given, train_dataset=order, callbacks=[clock]).train()  # type: ignore[arg-type]
    return middle(ends)


def our_seconds(base: Base, data: RunData, steps: int, runs: int) -> float:
    """A pass of our loop over ``runs`` recipes at once, with everything recorded that a probe records."""
    settings = ProbeSettings(record_steps=steps, cue_steps=(), flatness_at=None)
    recipes = [
        RECIPE.replace(learning_rate=RECIPE.learning_rate * 2 ** (i / 2), seed=i, stop_after=steps)
        for i in range(runs)
    ]
    ends: list[float] = []
    jobs = [Job(str(i), data, recipe) for i, recipe in enumerate(recipes)]
    list(train_stack(base, jobs, settings, width=runs, on_step=lambda _: ends.append(now(base.device))))
    return middle(ends)


def main() -> None:
    """Measure in alternating rounds and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"), help="on a processor")
    parser.add_argument("--random-weights", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(random_model(given.base, folder) if given.random_weights else given.base, given)


def random_model(base: str, folder: str) -> str:
    """A folder with an untrained model of the base's configuration, and its tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    _, location = resolve_base(base)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(location)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(location).save_pretrained(folder)
    return folder


def compare(name: str, given: argparse.Namespace) -> None:
    """Measure under every template and write the result."""
    torch.set_num_threads(1)
    on_gpu = given.device == "cuda"
    base = load_base(name, precision="bf16" if on_gpu else given.precision, device=given.device)
    shown = f"{given.base}, random weights" if given.random_weights else given.base
    result: dict[str, object] = {"base": shown, "steps": given.steps, "rounds": given.rounds}
    if on_gpu:
        result["device"] = torch.cuda.get_device_name()
    for template in TEMPLATES:
        result[template] = measure(base, name, template, given.steps, given.rounds)
        print(json.dumps({template: result[template]}, indent=2), flush=True)
    RESULTS.mkdir(exist_ok=True)
    plain = "real_model_speed.json" if given.precision == "fp32" else "bf16_speed.json"
    written = RESULTS / ("cuda_speed.json" if on_gpu else plain)
    written.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def measure(base: Base, name: str, template: str, steps: int, rounds: int) -> dict[str, object]:
    """Seconds a step of every way under one template, and how they compare."""
    _, location = resolve_base(name)
    data = prepare_data(base, lab_examples(healthy_example()), RECIPE.replace(template=template))
    ways: dict[str, Callable[[], float]] = {
        "TRL SFTTrainer": lambda: trl_seconds(location, template, steps, base),
        "PEFT + Trainer": lambda: trainer_seconds(location, data, steps, base),
        "ours, 1 run": lambda: our_seconds(base, data, steps, 1),
        "ours, 8 runs": lambda: our_seconds(base, data, max(5, steps // 2), 8),
    }
    if base.device == "cuda":
        ways["ours, 64 runs"] = lambda: our_seconds(base, data, max(5, steps // 2), 64)
    taken = [{way: run() for way, run in ways.items()} for _ in range(rounds)]

    def ratio(slow: str, fast: str) -> float:
        return round(median(r[slow] / r[fast] for r in taken), 2)

    return {
        "tokens_a_row": round(sum(len(row.ids) for row in data.train) / len(data.train), 1),
        "seconds_a_step": {way: round(median(r[way] for r in taken), 3) for way in ways},
        "speed_over_trl": ratio("TRL SFTTrainer", "ours, 1 run"),
        "speed_over_trainer": ratio("PEFT + Trainer", "ours, 1 run"),
        "eight_runs_over_one": ratio("ours, 8 runs", "ours, 1 run"),
    }


if __name__ == "__main__":
    main()
