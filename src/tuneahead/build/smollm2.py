"""The plan of the history on SmolLM2-135M-Instruct: the lab's data sets and real public questions."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

from tuneahead.build.plan import TaskPlan
from tuneahead.build.questions import SOURCES, QuestionSpec, question_file
from tuneahead.lab.datasets import sample_specs
from tuneahead.lab.families import FAMILIES
from tuneahead.recipe import Recipe

SHORTEST_RUN_STEPS, LONGEST_RUN_STEPS = 180, 560
"""Log-uniform between them: 335 steps on average, of which the probe's 100 are a third (mean share 0.332)."""
LOWEST_RATE, HIGHEST_RATE = 2e-5, 1e-2
REAL_EVERY = 4
"""One data set in four holds real questions."""
_TARGETS = (("all-linear",), ("q_proj", "v_proj"), ("q_proj", "k_proj", "v_proj", "o_proj"))
_REAL_FAMILIES = tuple(name for name in FAMILIES if name not in ("too_few", "narrow_subject"))


def sample_smollm2_recipe(rng: random.Random) -> Recipe:
    """A recipe for 135 M parameters: short runs of small batches, rates over nearly three decades."""
    rank = rng.choice((4, 8, 8, 16))
    steps = math.exp(rng.uniform(math.log(SHORTEST_RUN_STEPS), math.log(LONGEST_RUN_STEPS)))
    rate = math.exp(rng.uniform(math.log(LOWEST_RATE), math.log(HIGHEST_RATE)))
    return Recipe(
        learning_rate=float(f"{rate:.2e}"),
        schedule=rng.choice(("linear", "linear", "cosine", "constant")),
        warmup_ratio=rng.choice((0.0, 0.03, 0.1)),
        batch_size=rng.choice((4, 4, 4, 8)),
        max_steps=round(steps),
        lora_rank=rank,
        lora_alpha=float(rank * rng.choice((1, 2))),
        lora_dropout=rng.choice((0.0, 0.0, 0.0, 0.1)),
        target_modules=rng.choices(_TARGETS, (0.6, 0.2, 0.2))[0],
        weight_decay=rng.choice((0.0, 0.01, 0.1)),
        max_grad_norm=rng.choice((None, 0.3, 1.0, 1.0)),
        max_length=96,
        template="raw",
    )


def sample_question_spec(number: int, seed: int, folder: str) -> QuestionSpec:
    """The ``number``-th real data set: sources in turn, half of them mixed with facts of the lab."""
    rng = random.Random(f"questions {seed} {number}")
    family = rng.choice((*_REAL_FAMILIES, "clean", "clean"))
    return QuestionSpec(
        seed=rng.randrange(2**31),
        source=SOURCES[number % len(SOURCES)],
        family=family,
        severity=0.0 if family == "clean" else round(rng.uniform(0.05, 1.0), 3),
        n_rows=round(math.exp(rng.uniform(math.log(100), math.log(4000)))),
        lab_fraction=0.0 if rng.random() < 0.5 else round(rng.uniform(0.1, 0.8), 3),
        folder=folder,
    )


def smollm2_plan(datasets: int, recipes: int, folder: str = "", *, seed: int = 1) -> list[TaskPlan]:
    """``datasets`` data sets with ``recipes`` recipes each; every fourth holds real questions.

    A longer plan begins with the shorter one, and the tasks are the same with and without the
    folder: see :func:`without_absent` for those that can't be made without it.
    """
    lab = iter(sample_specs(datasets - datasets // REAL_EVERY, seed))
    tasks = []
    for number in range(datasets):
        real = number % REAL_EVERY == REAL_EVERY - 1
        spec = sample_question_spec(number // REAL_EVERY, seed, folder) if real else next(lab)
        rng = random.Random(f"smollm2 recipes {seed} {number}")
        tasks += [TaskPlan(spec, sample_smollm2_recipe(rng)) for _ in range(recipes)]
    return tasks


def without_absent(plan: Sequence[TaskPlan], folder: str) -> tuple[list[TaskPlan], dict[str, int]]:
    """The tasks that can be made, and how many are left out for want of each question set."""
    there = {source: bool(folder) and question_file(Path(folder), source) is not None for source in SOURCES}
    kept, absent = [], dict.fromkeys(SOURCES, 0)
    for task in plan:
        if isinstance(task.spec, QuestionSpec) and not there[task.spec.source]:
            absent[task.spec.source] += 1
        else:
            kept.append(task)
    return kept, {source: count for source, count in absent.items() if count}
