"""The order of the rows: every one once an epoch, in an order of each epoch's own."""

from __future__ import annotations

import numpy as np

from tuneahead.recipe import Recipe
from tuneahead.training.batches import step_rows

RECIPE = Recipe(batch_size=2, gradient_accumulation_steps=2, max_steps=9, seed=3)


def epoch(recipe: Recipe, rows: int, number: int) -> list[int]:
    """The rows of an epoch in the order in which they are trained on."""
    steps = recipe.steps_per_epoch(rows)
    parts = [part for step in range(steps) for part in step_rows(recipe, rows, number * steps + step)]
    return np.concatenate(parts).tolist()


def test_every_epoch_is_a_permutation_of_its_own() -> None:
    orders = [epoch(RECIPE, 11, number) for number in range(3)]
    assert all(sorted(order) == list(range(11)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert orders[0] != epoch(RECIPE.replace(seed=4), 11, 0)


def test_the_last_step_of_an_epoch_has_the_rows_that_are_left() -> None:
    # Eleven rows by four: two whole steps, and one of a whole micro-batch and a single row.
    sizes = [[len(part) for part in step_rows(RECIPE, 11, step)] for step in range(4)]
    assert sizes == [[2, 2], [2, 2], [2, 1], [2, 2]]


def test_the_order_is_the_one_in_which_the_shipped_runs_were_made() -> None:
    assert epoch(RECIPE, 6, 0) == [2, 5, 4, 1, 3, 0]
    assert epoch(RECIPE, 6, 1) == [1, 2, 0, 4, 5, 3]
