"""Which runs a meta-data set consists of: a stable list, so that a build can stop and go on anywhere."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tuneahead.build.questions import QuestionSpec, question_rows
from tuneahead.lab.datasets import DatasetSpec, Row, generate, sample_specs
from tuneahead.recipe import Recipe

TEST_SEEDS = (0, 1, 2)
TEST_FRACTION = 0.2764
"""Share of the tasks that get three seeds: the paper's 370 of the 1,320 of 220 data sets and 6 recipes."""
_TARGETS = (("all-linear",), ("q_proj", "v_proj"), ("q_proj", "k_proj", "v_proj", "o_proj"))


DataSpec = DatasetSpec | QuestionSpec


def rows_of(spec: DataSpec) -> list[Row]:
    """The rows of a spec; raises DataError when real questions are not where the spec says."""
    return question_rows(spec) if isinstance(spec, QuestionSpec) else generate(spec)


@dataclass(frozen=True)
class TaskPlan:
    """One task: a data set and a recipe, to be run once for each seed."""

    spec: DataSpec
    recipe: Recipe
    seeds: tuple[int, ...] = (0,)

    @property
    def data_id(self) -> str:
        """Identifier of the data set: the group that no split may cut."""
        return self.spec.dataset_id

    @property
    def is_test(self) -> bool:
        """Whether errors are measured on this task: settled by its identifier, whatever the plan's length."""
        return int(self.task_id, 16) < TEST_FRACTION * float(16 ** len(self.task_id))

    @property
    def task_id(self) -> str:
        """Identifier of data set and recipe, whatever the seed and the base."""
        text = f"{self.data_id} {self.recipe.replace(seed=0).fingerprint}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class RunPlan:
    """One run of a task: one seed."""

    task: TaskPlan
    seed: int

    @property
    def recipe(self) -> Recipe:
        """The task's recipe under this run's seed."""
        return self.task.recipe.replace(seed=self.seed)

    def run_id(self, base: str) -> str:
        """Identifier of the run on a base."""
        return f"{base}-{self.task.task_id}-{self.seed}"


@dataclass(frozen=True)
class RecipeSpace:
    """What recipes are drawn from; steps and rates are log-uniform between their two bounds."""

    ranks: tuple[int, ...]
    steps: tuple[int, int]
    rates: tuple[float, float]
    batch_sizes: tuple[int, ...]
    max_length: int


LAB_RECIPES = RecipeSpace((2, 4, 8, 16), (300, 1500), (1e-4, 1.5e-2), (4, 4, 8, 8, 16), 128)
"""A probe of 100 steps is a sixth of such a run on average."""


def sample_recipe(rng: random.Random, space: RecipeSpace = LAB_RECIPES) -> Recipe:
    """A recipe as people choose them, of ``space`` (default: the lab's)."""
    rank = rng.choice(space.ranks)
    steps = math.exp(rng.uniform(math.log(space.steps[0]), math.log(space.steps[1])))
    rate = math.exp(rng.uniform(math.log(space.rates[0]), math.log(space.rates[1])))
    return Recipe(
        learning_rate=float(f"{rate:.2e}"),
        schedule=rng.choice(("linear", "linear", "cosine", "constant")),
        warmup_ratio=rng.choice((0.0, 0.03, 0.1)),
        batch_size=rng.choice(space.batch_sizes),
        max_steps=round(steps),
        lora_rank=rank,
        lora_alpha=float(rank * rng.choice((1, 2))),
        lora_dropout=rng.choice((0.0, 0.0, 0.0, 0.1)),
        target_modules=rng.choices(_TARGETS, (0.6, 0.2, 0.2))[0],
        weight_decay=rng.choice((0.0, 0.01, 0.1)),
        max_grad_norm=rng.choice((None, 0.3, 1.0, 1.0)),
        max_length=space.max_length,
        template="raw",
    )


def lab_plan(datasets: int, recipes: int, *, seed: int = 0, seeds: Sequence[int] = (0,)) -> list[TaskPlan]:
    """``datasets`` generated data sets with ``recipes`` recipes each, data set after data set.

    A longer plan begins with the shorter one, as long as ``recipes`` and ``seed`` stay the same.
    """
    tasks = []
    for number, spec in enumerate(sample_specs(datasets, seed)):
        rng = random.Random(f"recipes {seed} {number}")
        tasks += [TaskPlan(spec, sample_recipe(rng), tuple(seeds)) for _ in range(recipes)]
    return tasks


def recipe_rounds(plan: Sequence[TaskPlan], recipes: int) -> list[TaskPlan]:
    """A plan of ``recipes`` recipes on each data set, every data set once before any comes twice."""
    return [task for first in range(recipes) for task in plan[first::recipes]]


def task_id_of(run_id: str) -> str:
    """The task that a run's identifier names."""
    return run_id.rsplit("-", 2)[1]


def with_test_seeds(plan: Sequence[TaskPlan]) -> list[TaskPlan]:
    """The same tasks, with three seeds where errors are measured: the mean of three is a better label."""
    return [replace(task, seeds=TEST_SEEDS) if task.is_test else task for task in plan]


def runs_of(plan: Sequence[TaskPlan]) -> list[RunPlan]:
    """Every run of a plan: first seeds first, so that an unfinished build has all tasks once."""
    most = max((len(task.seeds) for task in plan), default=0)
    return [RunPlan(task, task.seeds[i]) for i in range(most) for task in plan if i < len(task.seeds)]
