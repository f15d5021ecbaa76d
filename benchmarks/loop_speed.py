"""Time of one optimiser step of our loop against bare PEFT on the same recipe, in one run on one thread.

Compared on the lab's base, the same rows, LoRA of rank 8 on all linear layers, batch 8: a plain PEFT
loop (full logits, padded batch, AdamW), our loop with one run (K = 1), and with eight (K = 8,
per run). Figures are ratios to PEFT's median step; writes benchmarks/results/loop_speed.json.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from tuneahead.build.execute import lab_examples
from tuneahead.lab.bases import lab_base_path
from tuneahead.lab.datasets import healthy_example
from tuneahead.recipe import Recipe
from tuneahead.training.batches import step_rows
from tuneahead.training.encode import RunData
from tuneahead.training.loop import train_stack
from tuneahead.training.measure import ProbeSettings
from tuneahead.training.models import load_base
from tuneahead.training.probe import prepare_data
from tuneahead.training.runs import Job

STEPS = 40
ROUNDS = 5
RECIPE = Recipe(learning_rate=1e-3, max_steps=STEPS, batch_size=8, lora_rank=8)
RESULT = Path(__file__).parent / "results" / "loop_speed.json"


def peft_seconds(data: RunData) -> float:
    """Median seconds of a step of a plain PEFT loop."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(lab_base_path(), attn_implementation="sdpa")
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(plain, config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    times = []
    for step in range(STEPS):
        rows = [data.train[i] for i in step_rows(RECIPE, len(data.train), step)[0]]
        began = time.perf_counter()
        longest = max(len(row.ids) for row in rows)
        ids = torch.tensor([[*row.ids, *[0] * (longest - len(row.ids))] for row in rows])
        mask = torch.tensor([[1] * len(row.ids) + [0] * (longest - len(row.ids)) for row in rows])
        labels = torch.full_like(ids, -100)
        for i, row in enumerate(rows):
            labels[i, : len(row.ids)] = torch.tensor(
                [token if on else -100 for token, on in zip(row.ids, row.answer, strict=True)]
            )
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - began)
    return median(times[5:])


def our_seconds(data: RunData, width: int, *, record: bool) -> float:
    """Median seconds of a step of our loop, per run, with ``width`` runs stacked."""
    base = load_base("lab", device="cpu")
    settings = ProbeSettings(record_steps=STEPS if record else 0, cue_steps=(), flatness_at=None)
    times: list[float] = []
    last = time.perf_counter()

    def tick(runs: int) -> None:
        nonlocal last
        now = time.perf_counter()
        times.append((now - last) / runs)
        last = now

    jobs = [Job(str(seed), data, RECIPE.replace(seed=seed)) for seed in range(width)]
    list(train_stack(base, jobs, settings, width=width, on_step=tick))
    return median(times[5:])


def main() -> None:
    """Measure in alternating rounds, so that a slow moment of the machine hits all alike."""
    torch.set_num_threads(1)
    data = prepare_data(load_base("lab", device="cpu"), lab_examples(healthy_example()), RECIPE)
    ways: dict[str, Callable[[], float]] = {
        "PEFT": lambda: peft_seconds(data),
        "K = 1": lambda: our_seconds(data, 1, record=False),
        "K = 1, recording": lambda: our_seconds(data, 1, record=True),
        "K = 8": lambda: our_seconds(data, 8, record=False),
        "K = 8, recording": lambda: our_seconds(data, 8, record=True),
    }
    rounds = [{name: way() for name, way in ways.items()} for _ in range(ROUNDS)]
    ratios = {name: round(median(r[name] / r["PEFT"] for r in rounds), 3) for name in ways}
    result = {"steps": STEPS, "rounds": ROUNDS, "step_time_over_peft": ratios}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, ratio in ratios.items():
        print(f"{name:20s} {ratio:.2f} x PEFT's step")


if __name__ == "__main__":
    main()
