"""The plan of the history on SmolLM2-135M-Instruct: the lab's data sets and real public questions."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

from tuneahead.build.plan import RecipeSpace, TaskPlan, sample_recipe
from tuneahead.build.questions import SOURCES, QuestionSpec, question_file
from tuneahead.lab.datasets import sample_specs
from tuneahead.lab.families import FAMILIES

SMOLLM2_RECIPES = RecipeSpace((4, 8, 8, 16), (140, 420), (2e-5, 1e-2), (4, 4, 4, 8), 96)
"""Short runs of small batches: 258 steps on average, of which the probe's 100 are two fifths (0.388)."""
REAL_EVERY = 4
"""One data set in four holds real questions."""
_REAL_FAMILIES = tuple(name for name in FAMILIES if name not in ("too_few", "narrow_subject"))


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

    All data sets come once before any comes twice: what an unfinished build has learned, it has from as
    many data sets as there was time for. A plan with more recipes begins with that of fewer, one with
    more data sets holds that of fewer, and the tasks are the same with and without the folder: see
    :func:`without_absent` for those that can't be made without it.
    """
    lab = iter(sample_specs(datasets - datasets // REAL_EVERY, seed))
    rounds: list[list[TaskPlan]] = [[] for _ in range(recipes)]
    for number in range(datasets):
        real = number % REAL_EVERY == REAL_EVERY - 1
        spec = sample_question_spec(number // REAL_EVERY, seed, folder) if real else next(lab)
        rng = random.Random(f"smollm2 recipes {seed} {number}")
        for round_of in rounds:
            round_of.append(TaskPlan(spec, sample_recipe(rng, SMOLLM2_RECIPES)))
    return [task for round_of in rounds for task in round_of]


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
