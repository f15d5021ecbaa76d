"""The plan of a meta-data set is stable and balanced."""

from __future__ import annotations

import random

import numpy as np

from tuneahead.build.execute import chunk_runs
from tuneahead.build.plan import TEST_SEEDS, lab_plan, runs_of, sample_recipe, with_test_seeds


def test_a_longer_plan_begins_with_the_shorter_one() -> None:
    short, long = lab_plan(5, 3), lab_plan(9, 3)
    assert [t.task_id for t in long[:15]] == [t.task_id for t in short]
    assert len({t.task_id for t in long}) == 27
    assert len({t.data_id for t in long}) == 9


def test_recipes_cover_what_people_use_and_the_probe_is_a_fifth_of_a_run_or_less() -> None:
    rng = random.Random(0)
    recipes = [sample_recipe(rng) for _ in range(500)]
    steps = np.array([r.max_steps for r in recipes])
    assert steps.min() >= 300 and steps.max() <= 1500
    assert np.mean(100 / steps) <= 0.2
    assert {r.schedule for r in recipes} == {"linear", "cosine", "constant"}
    assert min(r.learning_rate for r in recipes) < 3e-4 < 8e-3 < max(r.learning_rate for r in recipes)


def test_first_seeds_come_before_second_ones() -> None:
    runs = runs_of(lab_plan(2, 2, seeds=(0, 1)))
    assert [run.seed for run in runs] == [0] * 4 + [1] * 4
    assert runs[0].run_id("lab") != runs[4].run_id("lab")
    assert runs[0].recipe.replace(seed=1) == runs[4].recipe


def test_the_papers_number_of_tasks_gets_three_seeds_whatever_the_plans_length() -> None:
    plan = with_test_seeds(lab_plan(220, 6))
    assert sum(task.is_test for task in plan) == 370
    assert {task.seeds for task in plan if task.is_test} == {TEST_SEEDS}
    assert {task.seeds for task in plan if not task.is_test} == {(0,)}
    assert [t.task_id for t in with_test_seeds(lab_plan(5, 6))] == [t.task_id for t in plan[:30]]
    runs = runs_of(plan)
    assert len(runs) == 1320 + 740 and all(run.seed == 0 for run in runs[:1320])


def test_chunks_hold_every_run_once_and_one_batch_size_each() -> None:
    runs = runs_of(lab_plan(30, 6))
    chunks = chunk_runs(runs)
    assert sorted(r.run_id("b") for c in chunks for r in c) == sorted(r.run_id("b") for r in runs)
    assert all(len({run.task.recipe.batch_size for run in chunk}) == 1 for chunk in chunks)
